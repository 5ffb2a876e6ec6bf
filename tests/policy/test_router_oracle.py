"""The router, its explanations and its conflicts against a plain search through all routes."""

from __future__ import annotations

import itertools
import random
import re
from typing import NamedTuple

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gogate_py.policy.route_conflicts import AMBIGUOUS, find_conflicts
from gogate_py.policy.router import NotAllowed, Router
from gogate_py.snapshot import ValueMatch


class Rule(NamedTuple):
    """A route as the router sees it."""

    name: str
    host: str
    path: str
    path_prefix: str
    methods: tuple[str, ...]
    headers: tuple[ValueMatch, ...]
    query: tuple[ValueMatch, ...]


class Request(NamedTuple):
    """A request, as plain text."""

    host: str
    path: str
    method: str
    fields: dict[str, str]
    parameters: dict[str, str]

    @property
    def query(self) -> bytes:
        """The query with its "?"."""
        return ("?" + "&".join(f"{k}={v}" for k, v in self.parameters.items())).encode() if self.parameters else b""

    def field(self, name: bytes) -> bytes | None:
        """The value of a field."""
        value = self.fields.get(name.decode())
        return None if value is None else value.encode()


# --- the plain search


def is_parameter(segment: str) -> bool:
    """Whether a segment is {…} or :…"""
    return segment[:1] in ("{", ":")


def path_rank(rule: Rule, path: str) -> tuple[int, ...] | None:
    """How specific a rule's path is for this path (larger is more), None if it does not match."""
    if rule.path:
        pattern = rule.path[1:].split("/")
        if not any(is_parameter(segment) or segment == "*" for segment in pattern):
            return (4,) if rule.path == path else None
        if not path.startswith("/"):
            return None
        given = path[1:].split("/")
        classes = []
        for number, segment in enumerate(pattern):
            if segment == "*":
                return (3, *classes, 0) if number < len(given) else None
            if number >= len(given):
                return None
            if is_parameter(segment):
                if not given[number]:
                    return None
                classes.append(1)
            elif segment == given[number]:
                classes.append(2)
            else:
                return None
        return (3, *classes) if len(given) == len(pattern) else None
    prefix = rule.path_prefix.rstrip("/")
    return (2, len(prefix)) if not prefix or path == prefix or path.startswith(prefix + "/") else None


def host_rank(rule: Rule, host: str) -> tuple[int, int] | None:
    """The same of its host."""
    if not rule.host:
        return (0, 0)
    if rule.host.startswith("*."):
        return (1, rule.host.count(".")) if len(host) > len(rule.host) - 1 and host.endswith(rule.host[1:]) else None
    return (2, 0) if rule.host == host else None


def condition_holds(condition: ValueMatch, values: dict[str, str]) -> bool:
    """Whether a condition holds among these values."""
    value = values.get(condition.name)
    if value is None or condition.kind == "present":
        return value is not None
    if condition.kind == "exact":
        return value == condition.value
    return re.fullmatch(condition.value, value) is not None


def others_hold(rule: Rule, request: Request) -> bool:
    """Whether all conditions but that on the method hold."""
    return all(condition_holds(one, request.fields) for one in rule.headers) and all(
        condition_holds(one, request.parameters) for one in rule.query)


def ranked(rules: list[Rule], request: Request) -> list[Rule]:
    """The rules that match in host, path, fields and query, the most specific first, equal ones by name."""
    places = []
    for rule in rules:
        host, path = host_rank(rule, request.host), path_rank(rule, request.path)
        if host is not None and path is not None and others_hold(rule, request):
            count = bool(rule.methods) + len(rule.headers) + len(rule.query)
            places.append(((host, path, count), rule))
    places.sort(key=lambda place: ("HEAD" not in place[1].methods, place[1].name))
    places.sort(key=lambda place: place[0], reverse=True)
    return [rule for _, rule in places]


def taken(rule: Rule) -> set[str]:
    """The methods that a rule takes: with GET goes HEAD."""
    return {*rule.methods, "HEAD"} if "GET" in rule.methods else set(rule.methods)


def search(rules: list[Rule], request: Request) -> str | None:
    """What the router has to say, in words."""
    matching = ranked(rules, request)
    for rule in matching:
        if not rule.methods or request.method in taken(rule):
            return rule.name
    allowed = sorted({method for rule in matching for method in taken(rule)})
    return "405 " + ", ".join(allowed) if allowed else None


# --- random routes and requests, from so few words that they meet

SEGMENT = st.sampled_from(["a", "b", "c"])
PATTERN = st.builds(
    lambda segments, end: "/" + "/".join([*segments, *end]),
    st.lists(st.sampled_from(["a", "b", "{x}", ":y"]), max_size=2),
    st.sampled_from([["a"], ["{z}"], ["*"], ["*"], [""], ["b"]]),
)
PREFIX = st.lists(SEGMENT, max_size=2).map(lambda segments: "/" + "/".join(segments)) | st.just("")
CONDITION = st.sampled_from([("present", ""), ("exact", "1"), ("exact", "2"), ("regex", "[12]"), ("regex", "1?")])


def conditions(*names: str) -> st.SearchStrategy[tuple[ValueMatch, ...]]:
    """Conditions on some of these names."""
    return st.dictionaries(st.sampled_from(names), CONDITION, max_size=1).map(
        lambda chosen: tuple(ValueMatch(name, *condition) for name, condition in chosen.items()))


METHODS = st.sets(st.sampled_from(["GET", "POST", "HEAD"]), max_size=2).map(lambda names: tuple(sorted(names)))
RULE = st.builds(
    lambda host, place, methods, headers, query: Rule("", host, *place, methods, headers, query),
    st.sampled_from(["", "", "h.test", "*.test", "*.h.test"]),
    st.one_of(PATTERN.map(lambda path: (path, "")), PREFIX.map(lambda prefix: ("", prefix))),
    METHODS,
    conditions("x-a", "x-b"),
    conditions("p"),
)
RULES = st.lists(RULE, max_size=8).map(lambda rules: [rule._replace(name=f"r{n}") for n, rule in enumerate(rules)])
VALUES = st.sampled_from(["", "1", "2", "3"])
REQUEST = st.builds(
    Request,
    st.sampled_from(["h.test", "a.h.test", "other", ""]),
    st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=3).flatmap(
        lambda segments: st.sampled_from(["/" + "/".join(segments), "/" + "".join(f"{s}/" for s in segments)]))
    | st.just("*"),
    st.sampled_from(["GET", "POST", "HEAD", "PUT"]),
    st.dictionaries(st.sampled_from(["x-a", "x-b"]), VALUES),
    st.dictionaries(st.just("p"), VALUES),
)


def routed(router: Router[str], request: Request) -> str | None:
    """What the router says, in words."""
    result = router.match(request.host.encode(), request.path.encode(), request.method.encode(), request)
    return f"405 {result.allow.decode()}" if isinstance(result, NotAllowed) else result


def router_of(rules: list[Rule]) -> Router[str]:
    """A router that answers with the rules' names."""
    return Router([(rule, rule.name) for rule in rules])


@settings(max_examples=200, deadline=None)
@given(RULES, st.lists(REQUEST, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_the_router_is_a_search_in_order(rules: list[Rule], requests: list[Request], chance: random.Random) -> None:
    """The router finds what a search through all routes in their order finds, in whatever order they are given."""
    shuffled = list(rules)
    chance.shuffle(shuffled)
    router, other = router_of(rules), router_of(shuffled)
    for request in requests:
        expected = search(rules, request)
        assert routed(router, request) == expected
        assert routed(router, request) == expected  # cached now
        assert routed(other, request) == expected


@settings(max_examples=200, deadline=None)
@given(RULES, REQUEST)
def test_explain_says_what_match_does(rules: list[Rule], request: Request) -> None:
    """The one candidate that matched is the route that match() returns; each other one has a reason; all routes that
    share host and path are listed, in order."""
    router = router_of(rules)
    asked = request.host.encode(), request.path.encode(), request.method.encode(), request
    expected = router.match(*asked)
    candidates = router.explain(*asked)
    assert [c.name for c in candidates if c.matched] == ([expected] if isinstance(expected, str) else [])
    assert all(bool(c.why) is not c.matched for c in candidates)
    names = [c.name for c in candidates]
    in_order = [rule.name for rule in ranked(rules, request)]
    assert [name for name in names if name in in_order] == in_order
    sharing = {rule.name for rule in rules
               if host_rank(rule, request.host) is not None or path_rank(rule, request.path) is not None}
    assert set(names) == sharing


@settings(max_examples=150, deadline=None)
@given(RULES, st.lists(REQUEST, min_size=1, max_size=6))
def test_without_conflicts_names_decide_nothing(rules: list[Rule], requests: list[Request]) -> None:
    """Where find_conflicts finds nothing ambiguous, no request has two best routes of equal rank."""
    conflicts = find_conflicts(rules)
    assume(not any(conflict.kind == AMBIGUOUS or "neither" in conflict.text for conflict in conflicts))
    renamed = [rule._replace(name=f"r{9 - n}") for n, rule in enumerate(rules)]
    for request in requests:
        first, second = search(rules, request), search(renamed, request)
        if first is not None and not first.startswith("405"):
            assert second == f"r{9 - int(first[1:])}"


@settings(max_examples=150, deadline=None)
@given(RULES, st.lists(REQUEST, min_size=1, max_size=8))
def test_unreachable_routes_get_nothing(rules: list[Rule], requests: list[Request]) -> None:
    """A route that is called unreachable takes no request but OPTIONS *, whichever of two identical ones it is."""
    conflicts = [c for c in find_conflicts(rules) if c.kind != AMBIGUOUS]
    for conflict in conflicts:
        first, second = rules[conflict.first].name, rules[conflict.second].name
        for request in requests:
            if request.path != "*":
                taken = search(rules, request)
                # Of two identical routes the first name takes all; r0 … r7 are in the order of the positions.
                assert taken != second, (first, second, request)


# Every way into patterns and prefixes of a and b, and on from there among segments that no route names.
INTO = [list(segments) for length in range(4) for segments in itertools.product("abd", repeat=length)]
ON = ([], ["d"], ["d", "d"])
PATHS = sorted({"/" + "/".join([*into, *on]) + end for into in INTO for on in ON for end in ("", "/")} - {"//"})
PLAIN_RULE = RULE.map(lambda rule: rule._replace(host="", methods=(), headers=(), query=()))


@settings(max_examples=80, deadline=None)
@given(st.lists(PLAIN_RULE, min_size=2, max_size=6))
def test_every_unreachable_route_is_found(rules: list[Rule]) -> None:
    """A route without further conditions that no path reaches is reported: as never reached, or together with the one
    at the same place that takes its requests."""
    rules = [
        rule._replace(name=f"r{n}", path_prefix=rule.path_prefix.replace("c", "a")) for n, rule in enumerate(rules)]
    reached = {search(rules, Request("h", path, "GET", {}, {})) for path in PATHS}
    reported = {conflict.second for conflict in find_conflicts(rules)}
    assert reported == {number for number, rule in enumerate(rules) if rule.name not in reached}
