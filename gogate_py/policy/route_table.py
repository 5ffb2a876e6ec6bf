"""Route table: the routes of one host by path, and the order of routes.

A table finds all routes whose path matches, most specific place first:

1. the exact path;
2. patterns, segment by segment: a literal segment beats a parameter, a parameter beats the rest (/*);
3. the longest prefix, by segment: /api is /api and /api/x, not /apix; then routes without a path.

Routes at one place (same host, same pattern but for the names of parameters) stand in the order of the number of their
further conditions: methods count one, and so does each condition on a field or a parameter. Of equal ones a route that
names HEAD is before those that take it because they take GET. Other equal ones are an error of the configuration if
they can match the same request (route_conflicts); their names decide then, so that all workers agree whatever the order
of the file.

The cost of a lookup is a few dictionary probes per segment, up to the longest prefix or pattern of the table; it does
not grow with the number of routes.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from gogate_py.policy.path_captures import is_parameter
from gogate_py.policy.route_conditions import Conditions
from gogate_py.snapshot import ValueMatch


class RouteRule(Protocol):
    """What the router asks of a route (snapshot.HttpRoute has it)."""

    @property
    def name(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def path_prefix(self) -> str: ...
    @property
    def methods(self) -> tuple[str, ...]: ...
    @property
    def headers(self) -> tuple[ValueMatch, ...]: ...
    @property
    def query(self) -> tuple[ValueMatch, ...]: ...


R = TypeVar("R")


def condition_count(rule: RouteRule) -> int:
    """How many conditions a route has besides host and path."""
    return bool(rule.methods) + len(rule.headers) + len(rule.query)


def specificity(rule: RouteRule) -> tuple[object, ...]:
    """The key that sorts routes, most specific first. For any request, the first route that matches in full wins."""
    if rule.path:
        segments = rule.path.split("/")[1:]
        if is_pattern(segments):
            classes = tuple(2 if segment == "*" else int(is_parameter(segment)) for segment in segments)
            path: tuple[int, tuple[int, ...]] = (1, classes)
        else:
            path = (0, ())
    else:
        path = (2, (-len(rule.path_prefix.rstrip("/")),))
    if rule.host.startswith("*."):
        host = (1, -rule.host.count("."))
    else:
        host = (0, 0) if rule.host else (2, 0)
    return (host, path, *_rank_in_place(rule))


def _rank_in_place(rule: RouteRule) -> tuple[int, bool, str]:
    """The order of routes with the same host and the same shape of path."""
    return (-condition_count(rule), "HEAD" not in rule.methods, rule.name)


def is_pattern(segments: list[str]) -> bool:
    """Whether a path of these segments matches more than itself."""
    return segments[-1] == "*" or any(is_parameter(segment) for segment in segments)


class Entry(Generic[R]):
    """One route in its place."""

    __slots__ = ("always", "conditions", "methods", "route", "rule")

    def __init__(self, rule: RouteRule, route: R) -> None:
        self.rule = rule
        self.route = route
        # HEAD is GET without a body (RFC 9110 section 9.3.2): who takes GET takes HEAD.
        methods = {method.encode() for method in rule.methods}
        self.methods = frozenset(methods | {b"HEAD"} if b"GET" in methods else methods)
        self.conditions = Conditions(rule.headers, rule.query) if rule.headers or rule.query else None
        # host and path are all it asks for
        self.always = not self.methods and self.conditions is None


class _Node(Generic[R]):
    """One segment of the pattern tree."""

    __slots__ = ("children", "here", "parameter", "rest")

    def __init__(self) -> None:
        self.children: dict[bytes, _Node[R]] = {}
        self.parameter: _Node[R] | None = None
        self.rest: list[Entry[R]] = []
        self.here: list[Entry[R]] = []


class Table(Generic[R]):
    """The routes of one host."""

    __slots__ = ("_depth", "_exact", "_longest", "_patterns", "_prefixes", "places")

    def __init__(self) -> None:
        self._exact: dict[bytes, list[Entry[R]]] = {}
        self._patterns: _Node[R] | None = None
        # segments of the longest pattern: no more of a path need be taken apart
        self._depth = 0
        self._prefixes: dict[bytes, list[Entry[R]]] = {}
        # segments of the longest prefix, likewise; -1 without any
        self._longest = -1
        # the routes of each place, most specific first (after sort)
        self.places: list[list[Entry[R]]] = []

    def add(self, entry: Entry[R]) -> None:
        """Put a route in its place; call :meth:`sort` after the last one."""
        path = entry.rule.path
        if path:
            segments = path.split("/")[1:]
            if is_pattern(segments):
                place = self._pattern_place(segments)
            else:
                place = self._exact.setdefault(path.encode(), [])
        else:
            prefix = entry.rule.path_prefix.rstrip("/").encode()
            place = self._prefixes.setdefault(prefix, [])
            self._longest = max(self._longest, prefix.count(b"/"))
        if not place:
            self.places.append(place)
        place.append(entry)

    def _pattern_place(self, segments: list[str]) -> list[Entry[R]]:
        node = self._patterns = self._patterns or _Node()
        self._depth = max(self._depth, len(segments))
        for segment in segments:
            if segment == "*":
                return node.rest
            if is_parameter(segment):
                node.parameter = node = node.parameter or _Node()
            else:
                node = node.children.setdefault(segment.encode(), _Node())
        return node.here

    def sort(self) -> None:
        """Put the routes of every place in order."""
        for place in self.places:
            if len(place) > 1:
                place.sort(key=lambda entry: _rank_in_place(entry.rule))

    @property
    def depth(self) -> int:
        """Segments of the longest pattern; 0 without any."""
        return self._depth

    def find(self, path: bytes, found: list[Entry[R]]) -> None:
        """Append the routes whose path matches, most specific first."""
        entries = self._exact.get(path)
        if entries:
            found += entries
        if self._patterns is not None:
            # What is left of a longer path stays one piece, which no node is deep enough to look at.
            _walk(self._patterns, path.split(b"/", self._depth + 2)[1:], 0, found)
        if self._longest >= 0:
            self._find_prefixes(path, found)

    def _find_prefixes(self, path: bytes, found: list[Entry[R]]) -> None:
        prefixes = self._prefixes
        # Without this cut, a path of thousands of segments would be hashed once for each of them.
        segments = path.split(b"/", self._longest + 1)
        if len(segments) > self._longest + 1:
            segments.pop()
        prefix = b"/".join(segments)
        while True:
            entries = prefixes.get(prefix)
            if entries:
                found += entries
            if not prefix:
                return
            # "*" (of OPTIONS) has no segments: only routes without a path take it.
            prefix = prefix[: max(prefix.rfind(b"/"), 0)]


def _walk(node: _Node[R], segments: list[bytes], at: int, found: list[Entry[R]]) -> None:
    if at == len(segments):
        found += node.here
        return
    child = node.children.get(segments[at])
    if child is not None:
        _walk(child, segments, at + 1, found)
    if node.parameter is not None and segments[at]:
        _walk(node.parameter, segments, at + 1, found)
    found += node.rest
