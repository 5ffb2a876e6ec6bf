"""Router: host, path and method → route; the most specific one wins.

Order, from most to least specific (config.reference.yaml):

1. host: exact, then wildcards with more labels first, then none;
2. path: exact, then patterns ({name} or :name is one segment, a trailing /* the rest; a literal segment beats a
parameter,
   a parameter beats the rest), then the longest prefix (by segment: /api is /api and /api/x, not /apix), then none;
3. the number of further conditions (here: methods).

A less specific route is used when the more specific ones do not match in full. When only the method was wrong, the
answer is 405 with the methods that would have matched; otherwise 404.

Compiled once per snapshot: a lookup costs a few dictionary probes per path segment whatever the number of routes, and a
bounded cache of (host, path) makes the common one a single probe.
"""

from __future__ import annotations

from typing import Final, Generic, Protocol, TypeVar

CACHE_SIZE: Final = 4096


class RouteRule(Protocol):
    """What the router asks of a route (snapshot.HttpRoute has it)."""

    @property
    def host(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def path_prefix(self) -> str: ...
    @property
    def methods(self) -> tuple[str, ...]: ...


R = TypeVar("R")


class _Entry(Generic[R]):
    __slots__ = ("methods", "route")

    def __init__(self, route: R, methods: frozenset[bytes]) -> None:
        self.route = route
        self.methods = methods


class _Node(Generic[R]):
    """One segment of the pattern tree."""

    __slots__ = ("children", "here", "parameter", "rest")

    def __init__(self) -> None:
        self.children: dict[bytes, _Node[R]] = {}
        self.parameter: _Node[R] | None = None
        self.rest: list[_Entry[R]] = []
        self.here: list[_Entry[R]] = []


class _Table(Generic[R]):
    """The routes of one host."""

    __slots__ = ("exact", "longest", "patterns", "prefixes")

    def __init__(self) -> None:
        self.exact: dict[bytes, list[_Entry[R]]] = {}
        self.patterns: _Node[R] | None = None
        self.prefixes: dict[bytes, list[_Entry[R]]] = {}

    def add(self, path: str, prefix: str, entry: _Entry[R]) -> None:
        if path:
            segments = path.split("/")[1:]
            if path.endswith("/*") or any(is_parameter(segment) for segment in segments):
                self._add_pattern(segments, entry)
            else:
                self.exact.setdefault(path.encode(), []).append(entry)
        else:
            self.prefixes.setdefault(prefix.rstrip("/").encode(), []).append(entry)

    def _add_pattern(self, segments: list[str], entry: _Entry[R]) -> None:
        node = self.patterns = self.patterns or _Node()
        for segment in segments:
            if segment == "*":
                node.rest.append(entry)
                return
            if is_parameter(segment):
                node.parameter = node = node.parameter or _Node()
            else:
                node = node.children.setdefault(segment.encode(), _Node())
        node.here.append(entry)

    def sort(self) -> None:
        """Entries with conditions before those without, at every place."""
        stack = [self.patterns] if self.patterns else []
        lists = [*self.exact.values(), *self.prefixes.values()]
        while stack:
            node = stack.pop()
            lists += [node.here, node.rest]
            stack.extend(node.children.values())
            if node.parameter:
                stack.append(node.parameter)
        for entries in lists:
            entries.sort(key=lambda entry: not entry.methods)

    def find(self, path: bytes, found: list[_Entry[R]]) -> None:
        """Append the entries that match ``path``, most specific first."""
        entries = self.exact.get(path)
        if entries:
            found += entries
        if self.patterns is not None:
            _walk(self.patterns, path.split(b"/")[1:], 0, found)
        if self.prefixes:
            prefix = path
            while True:
                entries = self.prefixes.get(prefix)
                if entries:
                    found += entries
                if not prefix:
                    return
                prefix = prefix[: prefix.rfind(b"/")] if b"/" in prefix else b""


def is_parameter(segment: str) -> bool:
    """Whether a path segment stands for any one segment: ``{name}`` or ``:name``."""
    return (segment.startswith("{") and segment.endswith("}")) or (segment.startswith(":") and len(segment) > 1)


def _walk(node: _Node[R], segments: list[bytes], at: int, found: list[_Entry[R]]) -> None:
    if at == len(segments):
        found += node.here
        return
    child = node.children.get(segments[at])
    if child is not None:
        _walk(child, segments, at + 1, found)
    if node.parameter is not None and segments[at]:
        _walk(node.parameter, segments, at + 1, found)
    found += node.rest


class NotAllowed:
    """A path that is known, but not with this method. ``allow`` is the Allow field's value."""

    __slots__ = ("allow",)

    def __init__(self, allow: bytes) -> None:
        self.allow = allow


class Router(Generic[R]):
    """The compiled routes of one snapshot; ``R`` is whatever the caller wants back for a rule."""

    def __init__(self, rules: list[tuple[RouteRule, R]]) -> None:
        self._hosts: dict[bytes, _Table[R]] = {}
        self._wildcards: dict[bytes, _Table[R]] = {}
        self._default: _Table[R] = _Table()
        self._cache: dict[tuple[bytes, bytes], list[_Entry[R]]] = {}
        for rule, route in rules:
            entry = _Entry(route, frozenset(method.encode() for method in rule.methods))
            self._table(rule.host).add(rule.path, rule.path_prefix, entry)
        for table in (*self._hosts.values(), *self._wildcards.values(), self._default):
            table.sort()

    def _table(self, host: str) -> _Table[R]:
        if not host:
            return self._default
        if host.startswith("*."):
            return self._wildcards.setdefault(host[1:].lower().encode(), _Table())
        return self._hosts.setdefault(host.lower().encode(), _Table())

    def match(self, host: bytes, path: bytes, method: bytes) -> R | NotAllowed | None:
        """The route for a request. ``host`` in lower case without port, ``path`` canonical."""
        key = (host, path)
        entries = self._cache.get(key)
        if entries is None:
            entries = self._find(host, path)
            if len(self._cache) >= CACHE_SIZE:
                self._cache.clear()
            self._cache[key] = entries
        for entry in entries:
            if not entry.methods or method in entry.methods:
                return entry.route
        # HEAD is GET without a body (RFC 9110 9.3.2): a route that takes GET takes HEAD too, after routes that name it.
        if method == b"HEAD":
            for entry in entries:
                if b"GET" in entry.methods:
                    return entry.route
        if not entries:
            return None
        return NotAllowed(b", ".join(sorted({method for entry in entries for method in entry.methods})))

    def _find(self, host: bytes, path: bytes) -> list[_Entry[R]]:
        found: list[_Entry[R]] = []
        if host:
            table = self._hosts.get(host)
            if table is not None:
                table.find(path, found)
            if self._wildcards:
                dot = host.find(b".")
                while dot > 0:
                    table = self._wildcards.get(host[dot:])
                    if table is not None:
                        table.find(path, found)
                    dot = host.find(b".", dot + 1)
        self._default.find(path, found)
        return found
