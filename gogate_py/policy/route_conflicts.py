"""Routes that contradict each other, for ``gogate check``: which one wins would be chance, or one never does.

    ambiguous      two routes at one place (same host, same path but for the names of parameters) with equally many
                   further conditions take a common request, and no third one with more conditions takes all of those
    unreachable    both match exactly the same requests; or all that a route matches is taken by routes of more specific
                   places: a prefix below a pattern with /*, for patterns come first (/api is never reached beside /*)

Two conditions on one field are compatible unless both cannot hold: "1" and "2", or a value that the other's pattern
does not match. Of two different patterns that is unknown: they count as compatible (so that chance never decides), but
never as covering each other (so that nothing is called unreachable that is not). ``OPTIONS *``, which only routes
without a path match, does not make such a route reachable unless it names OPTIONS.

Routes are compared place by place; many at one place are compared by the condition that tells most of them apart, so
10 000 routes take a second at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gogate_py.policy.path_captures import is_parameter
from gogate_py.policy.route_conditions import compatible, implied
from gogate_py.policy.route_table import Entry, RouteRule, Table, condition_count
from gogate_py.policy.router import Router
from gogate_py.snapshot import ValueMatch

AMBIGUOUS = "ambiguous"
UNREACHABLE = "unreachable"

#: A segment that no pattern can name, so that only parameters and rests match it.
_FRESH = b"\0"

_Rule = Entry[int]
_Key = tuple[bool, str]  # query?, name


class Conflict(NamedTuple):
    """``first`` and ``second`` are positions in the given rules; ``second`` is where the problem is best shown: the
    later one of two, or the one that is never reached. ``tied``: neither of the two is more specific."""

    kind: str
    first: int
    second: int
    text: str
    tied: bool = False


def find_conflicts(rules: Sequence[RouteRule]) -> list[Conflict]:
    """Every route that is ambiguous or unreachable, once each, in the order of the rules. Their patterns must have
    passed check_pattern."""
    router: Router[int] = Router([(rule, position) for position, rule in enumerate(rules)])
    found: dict[int, Conflict] = {}
    for table in router.tables():
        for place in table.places:
            if len(place) > 1:
                for conflict in _at_one_place(place):
                    found.setdefault(conflict.second, conflict)
        if table.depth:
            for place in table.places:
                for conflict in _never_reached(table, place):
                    found.setdefault(conflict.second, conflict)
    return [found[position] for position in sorted(found)]


# --- routes of one place


def _at_one_place(place: list[_Rule]) -> Iterable[Conflict]:
    by_count: dict[int, list[_Rule]] = {}
    for entry in sorted(place, key=lambda entry: entry.route):
        by_count.setdefault(condition_count(entry.rule), []).append(entry)
    for equals in by_count.values():
        if len(equals) > 1:
            key = _discriminator(equals)
            # value of the condition that tells them apart → the routes with it; None → those without it
            seen: dict[str | None, list[_Rule]] = {}
            for entry in equals:
                value = _exact_values(entry.rule).get(key) if key is not None else None
                others = (
                    [other for group in seen.values() for other in group]
                    if value is None
                    else [*seen.get(value, ()), *seen.get(None, ())]
                )
                conflict = _first_conflict(others, entry, place)
                if conflict is not None:
                    yield conflict
                seen.setdefault(value, []).append(entry)


def _exact_values(rule: RouteRule) -> dict[_Key, str]:
    return {key: condition.value for key, condition in _conditions(rule) if condition.kind == "exact"}


def _discriminator(entries: list[_Rule]) -> _Key | None:
    """The field or parameter on which most different values are asked for."""
    values: dict[_Key, set[str]] = {}
    for entry in entries:
        for key, value in _exact_values(entry.rule).items():
            values.setdefault(key, set()).add(value)
    return max(values, key=lambda key: len(values[key])) if values else None


def _first_conflict(others: list[_Rule], entry: _Rule, place: list[_Rule]) -> Conflict | None:
    for other in others:
        common = _common_methods(other.rule, entry.rule)
        if common is None or not _compatible(other.rule, entry.rule):
            continue
        both = [*_conditions(other.rule), *_conditions(entry.rule)]
        count = condition_count(entry.rule)
        if _taken(common, both, [above for above in place if condition_count(above.rule) > count]):
            continue
        same = _identical(other.rule, entry.rule)
        if same:
            what = "the same requests"
        elif both:
            what = "requests that meet the conditions of both"
        else:
            what = ", ".join(sorted(common))
        text = f"the routes {other.rule.name} and {entry.rule.name} match {what}, and neither is more specific"
        return Conflict(UNREACHABLE if same else AMBIGUOUS, other.route, entry.route, text, tied=True)
    return None


def _common_methods(one: RouteRule, other: RouteRule) -> set[str] | None:
    """The methods that both take, empty for all; None when there is none."""
    if one.methods and other.methods:
        return set(one.methods) & set(other.methods) or None
    return set(one.methods or other.methods)


def _conditions(rule: RouteRule) -> list[tuple[_Key, ValueMatch]]:
    return [
        *(((False, condition.name.lower()), condition) for condition in rule.headers),
        *(((True, condition.name), condition) for condition in rule.query)]


def _compatible(one: RouteRule, other: RouteRule) -> bool:
    mine = dict(_conditions(one))
    return all(compatible(condition, mine[key]) for key, condition in _conditions(other) if key in mine)


def _identical(one: RouteRule, other: RouteRule) -> bool:
    """Whether two routes of one place match the very same requests."""
    return set(one.methods) == set(other.methods) and all(
        _all_implied(_conditions(left), _conditions(right)) for left, right in ((one, other), (other, one)))


def _all_implied(conditions: list[tuple[_Key, ValueMatch]], by: list[tuple[_Key, ValueMatch]]) -> bool:
    return all(
        any(key == known and implied(condition, other) for known, other in by) for key, condition in conditions)


def _taken(methods: Iterable[str], conditions: list[tuple[_Key, ValueMatch]], by: Iterable[_Rule]) -> bool:
    """Whether the routes ``by`` together take every request with one of ``methods`` (none: with any) that meets
    ``conditions``."""
    covering = [entry for entry in by if _all_implied(_conditions(entry.rule), conditions)]
    if any(not entry.rule.methods for entry in covering):
        return True
    left = _with_head(methods)
    return bool(left) and left <= _with_head(method for entry in covering for method in entry.rule.methods)


def _with_head(methods: Iterable[str]) -> set[str]:
    """The methods that a route takes which names these (see route_table.Entry)."""
    named = set(methods)
    return named | {"HEAD"} if "GET" in named else named


# --- routes that more specific places leave nothing to


def _never_reached(table: Table[int], place: list[_Rule]) -> Iterable[Conflict]:
    """The routes of a place that patterns take everything from.

    Which routes match a path depends on which of its segments a pattern names. A path of segments that none names has
    the fewest matches; so a route is reached if and only if one such path, of some length, reaches it.
    """
    rule = place[0].rule
    above: list[list[_Rule]] = []
    for path in _witnesses(rule, table.depth):
        matching: list[_Rule] = []
        table.find(path, matching)
        above.append(matching[: next(at for at, entry in enumerate(matching) if entry is place[0])])
        if not above[-1]:
            return  # this path is the place's own
    for entry in place:
        if "OPTIONS" in entry.rule.methods and not rule.path and not rule.path_prefix.strip("/"):
            continue  # OPTIONS *
        conditions = _conditions(entry.rule)
        if all(_taken(entry.rule.methods, conditions, more_specific) for more_specific in above):
            takers = list({
                other.route: other for more_specific in above for other in more_specific
                if _all_implied(_conditions(other.rule), conditions)}.values())
            takers.sort(key=lambda other: other.route)
            names = " and ".join(other.rule.name for other in takers[:3]) + (" and others" if len(takers) > 3 else "")
            text = f"the route {entry.rule.name} is never reached: all that it matches is taken by {names}"
            yield Conflict(UNREACHABLE, takers[0].route, entry.route, f"{text}, whose path is more specific")


def _witnesses(rule: RouteRule, depth: int) -> Iterable[bytes]:
    """Paths that a route matches, of every length that makes a difference, and of no segment that a pattern names."""
    if rule.path:
        segments = [
            _FRESH if is_parameter(segment) else segment.encode() for segment in rule.path.split("/")[1:]]
        if segments[-1] != b"*":
            yield b"/" + b"/".join(segments)
            return
        base = b"".join(b"/" + segment for segment in segments[:-1])
    else:
        base = rule.path_prefix.rstrip("/").encode()
        if base:
            yield base
    for count in range(depth + 2):
        yield base + (b"/" + _FRESH) * count + b"/"
        if count:
            yield base + (b"/" + _FRESH) * count
