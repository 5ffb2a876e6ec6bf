"""Router: a request's host, path, method, fields and query → route; the most specific one wins.

Order, from most to least specific (config.reference.yaml):

1. host: exact, then wildcards with more labels first, then none;
2. path: exact, then patterns ({name} or :name is one segment, a trailing /* the rest; a literal segment beats a
   parameter, a parameter beats the rest), then the longest prefix (by segment), then none;
3. the number of further conditions: methods count one, each header or query condition one.

The first route in this order that matches in full wins. When none does:

    some route matches in all but its methods    405 with the methods of all such routes (NotAllowed)
    none does                                    404 (None)
    a route's query condition has to be read,    WireError(BAD_QUERY), even if a less specific route would not ask:
    and the query cannot be read in one way      what might have been meant for the first must not get into the second

HEAD is GET without a body (RFC 9110 section 9.3.2): a route that takes GET takes HEAD.

Compiled once per snapshot. A bounded cache of (host, path) makes the common lookup one probe; bench/routes.py has the
figures. Routes that differ in nothing but conditions are tried one after the other. ``explain`` says the same in words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Generic, NamedTuple

from gogate_py.errors import WireError
from gogate_py.policy.path_captures import compile_captures, is_parameter
from gogate_py.policy.pattern_check import check_pattern
from gogate_py.policy.route_conditions import ConditionedRequest, KnownFields
from gogate_py.policy.route_table import Entry, R, RouteRule, Table, is_pattern, specificity

__all__ = [
    "CACHE_SIZE", "EXPLAINED", "Candidate", "ConditionedRequest", "NotAllowed", "RouteRule", "Router", "check_pattern",
    "compile_captures", "is_parameter", "specificity"]

CACHE_SIZE: Final = 4096
#: Longer paths are not kept: somebody who sends thousands of long ones would fill the cache with 30 MB.
CACHED_PATH: Final = 256
#: Candidates that explain lists at most.
EXPLAINED: Final = 20

_SHOWN: Final = 100


class NotAllowed:
    """A path that is known, but not with this method. ``allow`` is the Allow field's value."""

    __slots__ = ("allow",)

    def __init__(self, allow: bytes) -> None:
        self.allow = allow


class Candidate(NamedTuple, Generic[R]):
    """One route that might have been meant. At most one of a list ``matched``: the one that takes the request."""

    route: R
    name: str
    matched: bool
    why: str  # it did not; "" when it did


class Router(Generic[R]):
    """The compiled routes of one snapshot; ``R`` is whatever the caller wants back for a rule."""

    def __init__(self, rules: Sequence[tuple[RouteRule, R]]) -> None:
        self._hosts: dict[bytes, Table[R]] = {}
        self._wildcards: dict[bytes, Table[R]] = {}
        self._default: Table[R] = Table()
        self._cache: dict[tuple[bytes, bytes], list[Entry[R]]] = {}
        for rule, route in rules:
            self._table(rule.host).add(Entry(rule, route))
        for table in self.tables():
            table.sort()

    def _table(self, host: str) -> Table[R]:
        if not host:
            return self._default
        if host.startswith("*."):
            return self._wildcards.setdefault(host[1:].lower().encode(), Table())
        return self._hosts.setdefault(host.lower().encode(), Table())

    def tables(self) -> Iterator[Table[R]]:
        """The tables of all hosts."""
        yield from self._hosts.values()
        yield from self._wildcards.values()
        yield self._default

    def match(
        self, host: bytes, path: bytes, method: bytes, request: ConditionedRequest | None = None
    ) -> R | NotAllowed | None:
        """The route for a request. ``host`` in lower case without port, ``path`` canonical; without ``request``, no
        condition on fields or query is met. Raises WireError (see above). On the hot path."""
        key = (host, path)
        entries = self._cache.get(key)
        if entries is None:
            entries = self._find(host, path)
            if len(path) <= CACHED_PATH:
                if len(self._cache) >= CACHE_SIZE:
                    self._cache.clear()
                self._cache[key] = entries
        for entry in entries:
            if entry.always:
                return entry.route
            if entry.conditions is not None:
                break
            if method in entry.methods:
                return entry.route
        return self._match_slowly(entries, method, request) if entries else None

    def _match_slowly(
        self, entries: list[Entry[R]], method: bytes, request: ConditionedRequest | None
    ) -> R | NotAllowed | None:
        """The first of these entries that matches in full; the rules at the head of this module."""
        # Routes of one place mostly ask for the same fields: each is searched for once.
        known: KnownFields = {}
        for entry in entries:
            if (not entry.methods or method in entry.methods) and (
                entry.conditions is None or entry.conditions.hold(request, known)
            ):
                return entry.route
        # Every entry without methods was asked for its conditions already: what is left was refused by its methods.
        allowed = {
            name
            for entry in entries
            if entry.methods and (entry.conditions is None or entry.conditions.hold(request, known))
            for name in entry.methods
        }
        return NotAllowed(b", ".join(sorted(allowed))) if allowed else None

    def _tables_of(self, host: bytes) -> Iterator[Table[R]]:
        """The tables that a host looks into, most specific first."""
        if host:
            table = self._hosts.get(host)
            if table is not None:
                yield table
            if self._wildcards:
                dot = host.find(b".")
                while dot > 0:
                    table = self._wildcards.get(host[dot:])
                    if table is not None:
                        yield table
                    dot = host.find(b".", dot + 1)
        yield self._default

    def _find(self, host: bytes, path: bytes) -> list[Entry[R]]:
        found: list[Entry[R]] = []
        for table in self._tables_of(host):
            table.find(path, found)
        return found

    def explain(
        self, host: bytes, path: bytes, method: bytes, request: ConditionedRequest | None = None
    ) -> list[Candidate[R]]:
        """Which route a request takes and why the others that share its host or its path do not, most specific first.

        At most EXPLAINED: routes that share both come first to the list, then those of the same path, then those of
        the same host. Never raises for a query. Not for the hot path: it looks at every route.
        """
        chosen: Entry[R] | None = None
        refused = ""
        by_both = self._find(host, path)
        try:
            winner = self.match(host, path, method, request)
        except WireError as error:
            refused = f"the request is refused: {error.detail}"
        else:
            if winner is not None and not isinstance(winner, NotAllowed):
                # Two rules may have the same route.
                matching = (entry for entry in by_both if not _unmet(entry, method, request))
                chosen = next(entry for entry in matching if entry.route is winner)
        listed = by_both[:EXPLAINED]
        if chosen is not None and chosen not in listed:
            listed[-1] = chosen
        own_tables = {id(table) for table in self._tables_of(host)}
        by_path: list[Entry[R]] = []
        by_host: list[Entry[R]] = []
        both = {id(entry) for entry in by_both}
        for table in self.tables():
            if id(table) in own_tables:
                by_host += [entry for place in table.places for entry in place if id(entry) not in both]
            else:
                table.find(path, by_path)
        same_path = {id(entry) for entry in by_path}
        for group in (by_path, by_host):
            group.sort(key=lambda entry: specificity(entry.rule))
            listed += group[: EXPLAINED - len(listed)]
        listed.sort(key=lambda entry: specificity(entry.rule))
        candidates = []
        for entry in listed:
            if entry is chosen:
                why = ""
            elif id(entry) in same_path:
                why = f"host {_shown(host) or '(none)'} is not {entry.rule.host}"
            elif id(entry) not in both:
                why = _other_path(path, entry.rule)
            else:
                why = _unmet(entry, method, request) or refused
                if not why:
                    assert chosen is not None
                    why = f"less specific than {chosen.rule.name}"
            candidates.append(Candidate(entry.route, entry.rule.name, entry is chosen, why))
        return candidates


def _unmet(entry: Entry[R], method: bytes, request: ConditionedRequest | None) -> str:
    """Which conditions of a route do not hold, in words."""
    why = []
    if entry.methods and method not in entry.methods:
        names = ", ".join(entry.rule.methods)
        why.append(f"method {_shown(method)} is {'not' if len(entry.methods) == 1 else 'none of'} {names}")
    if entry.conditions is not None:
        try:
            why += entry.conditions.unmet(request)
        except WireError as error:
            why.append(f"its query conditions cannot be checked: {error.detail}")
    return ", ".join(why)


def _other_path(path: bytes, rule: RouteRule) -> str:
    if not rule.path:
        return f"path {_shown(path)} is not below {rule.path_prefix}"
    relation = "does not match" if is_pattern(rule.path.split("/")) else "is not"
    return f"path {_shown(path)} {relation} {rule.path}"


def _shown(text: bytes) -> str:
    """Bytes from a request for people: escaped, and cut."""
    return ascii(text[:_SHOWN])[2:-1] + ("…" if len(text) > _SHOWN else "")
