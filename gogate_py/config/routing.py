"""Checks of routes: names, pools, which keys belong to which type, no two routes for the same requests."""

from __future__ import annotations

from typing import Any, cast

import attrs

from gogate_py.config.problems import Findings, Path
from gogate_py.config.schema import DEFAULT_LISTENER, DEFAULT_TCP_ROUTE, Config, Match, Route
from gogate_py.config.settings import settings_of
from gogate_py.config.values import closest
from gogate_py.policy.route_conflicts import Conflict, find_conflicts

_ONLY_TCP = ("listenAddr", "tls", "sni", "idleTimeout", "acceptProxyProtocol", "sendProxyProtocol")
_BOTH = ("name", "type", "listeners", "pool", "rateLimit")
_HINTS = {
    "listenAddr": "; name one of listeners, or leave it out for server.httpListenAddr",
    "tls": "; it is a property of listeners: server.tls, or tls in listeners"}
_ONLY_HTTP = tuple(named.key for named in settings_of(Route) if named.key not in (*_BOTH, *_ONLY_TCP))


def check_routes(config: Config, findings: Findings) -> None:
    """Add every problem of the routes, those of the short form included."""
    names: dict[str, Path] = {}
    for number, route in enumerate(config.routes):
        path: Path = ("routes", number)
        _check_type(route, path, findings)
        _check_listeners(config, route, path, findings)
        if route.type == "http":
            _check_match(config, route.match, (*path, "match"), findings)
        first = names.setdefault(route.name, path)
        if first != path:
            findings.add((*path, "name"), f"the name {route.name} is taken by the route in {findings.line_of(first)}")
    _check_short_form(config, names, findings)
    _check_conflicts(config, findings)
    http = [
        number for number, route in enumerate(config.routes)
        if route.type == "http" and findings.was_read(("routes", number, "type"))]
    if http and not config.http_listeners and findings.was_read(("server", "httpListenAddr")) and findings.is_sound(
        ("listeners",)
    ):
        findings.add(
            ("routes", http[0]), "a route of type http needs server.httpListenAddr, or one of listeners of type http")


def _check_type(route: Route, path: Path, findings: Findings) -> None:
    if not findings.was_read((*path, "type")):
        return
    for key in _ONLY_HTTP if route.type == "tcp" else _ONLY_TCP:
        if findings.given((*path, key)):
            hint = _HINTS.get(key, "")
            findings.add((*path, key), f"does not apply to a route of type {route.type}{hint}", at="key")


def _check_listeners(config: Config, route: Route, path: Path, findings: Findings) -> None:
    """A route names listeners that there are, of its type; one of type tcp has exactly one, or an address."""
    if not findings.was_read((*path, "type")):
        return
    named = findings.given((*path, "listeners"))
    if route.type == "tcp":
        if not route.listen_addr and not route.listeners and findings.is_sound(path):
            findings.add(path, "listenAddr, or listener, is required for a route of type tcp")
        if len(route.listeners) > 1:
            findings.add((*path, "listeners"), "a route of type tcp has one listener: write a route for each")
        for key in ("listenAddr", "tls", "acceptProxyProtocol") if named else ():
            if findings.given((*path, key)):
                findings.add(
                    (*path, key), f"is the listener's to say, and this route names one "
                    f"({findings.line_of((*path, 'listeners'))})", at="key")
        if route.tls is not None and not named and not route.listen_addr and findings.is_sound(path):
            findings.add((*path, "tls"), "needs listenAddr", at="key")
    elif named and not route.listeners and findings.is_sound((*path, "listeners")):
        findings.add((*path, "listeners"), "is empty: no request would reach this route; leave it out for all")
    if not findings.was_read(("listeners",)) or not all(
        findings.is_sound(("listeners", number, key)) for number in range(len(config.listeners))
        for key in ("name", "type")
    ):
        return
    types = {one.name: one.type for one in config.listeners}
    if config.server.http_listen_addr:
        types.setdefault(DEFAULT_LISTENER, "http")
    known = tuple(name for name, kind in types.items() if kind == route.type)
    for position, name in enumerate(route.listeners):
        here: Path = (*path, "listeners", position)
        if types.get(name) != route.type:
            findings.spoil(here)
        if name not in types:
            findings.add(here, f"there is no listener {name}", known, closest(name, known))
        elif types[name] != route.type:
            findings.add(here, f"the listener {name} is of type {types[name]}, this route of type {route.type}", known)


def _check_match(config: Config, match: Match, path: Path, findings: Findings) -> None:
    if match.path and match.path_prefix:
        findings.add((*path, "pathPrefix"), "path and pathPrefix exclude each other; use one", at="key")
    if not findings.is_sound(("server", "limits", "methods")):
        return
    for number, method in enumerate(match.methods):
        if method not in config.server.limits.methods:
            findings.add(
                (*path, "methods", number), f"{method} never reaches a route: it is not in server.limits.methods",
                config.server.limits.methods)


def _check_short_form(config: Config, names: dict[str, Path], findings: Findings) -> None:
    """The routes that listenAddr and httpListenAddr stand for: there is a pool for them, and their names are free."""
    server = config.server
    if not config.has_default_pool and _readable(findings):
        missing = "the pool default does not exist: with pools, it needs server.backends"
        if server.listen_addr:
            findings.add(("server", "listenAddr"), f"{missing}, or make this a route of type tcp")
        if server.http_listen_addr and not any(route.type == "http" for route in config.routes):
            findings.add(("server", "httpListenAddr"), f"no route is served here, and {missing}")
    for route in config.effective_routes()[len(config.routes) :]:
        if route.name in names:
            path = ("server", "listenAddr" if route.name == DEFAULT_TCP_ROUTE else "httpListenAddr")
            findings.add(
                (*names[route.name], "name"), f"the name {route.name} is taken by {path[0]}.{path[1]} "
                f"({findings.line_of(path)})")


def _readable(findings: Findings) -> bool:
    return all(findings.was_read(path) for path in (("pools",), ("server", "backends"), ("routes",)))


def _check_conflicts(config: Config, findings: Findings) -> None:
    """Two routes of which chance would pick one, and routes that never get a request (policy/route_conflicts.py)."""
    # Those whose conditions could not be read would only seem to be in conflict.
    numbers = [
        number for number, route in enumerate(config.routes)
        if route.type == "http" and all(
            findings.is_sound(("routes", number, key)) for key in ("type", "match", "listeners"))]
    # Each listener has routes of its own; one that has the same as another tells the same.
    places = dict.fromkeys(
        tuple(number for number in numbers if on in (config.routes[number].listeners or (on,)))
        for on in config.http_listeners or ("",))
    found: dict[int, list[tuple[int, Conflict]]] = {}
    for place in places:
        # A _Condition has what a snapshot's ValueMatch has; the snapshot itself is not the configuration's to know.
        for conflict in find_conflicts(cast(Any, [_Rule.of(config.routes[number]) for number in place])):
            found.setdefault(place[conflict.second], []).append((place[conflict.first], conflict))
    for second, conflicts in found.items():
        tied = [one for one in conflicts if one[1].tied]
        # A route that more specific ones leave nothing to on one listener may be there for another.
        if not tied and len(conflicts) < sum(second in place for place in places):
            continue
        first, conflict = (tied or conflicts)[0]
        other = f"{config.routes[first].name} is in {findings.line_of(('routes', first))}"
        findings.add(("routes", second, "match"), f"{conflict.text} ({other})", code="GG005")


@attrs.frozen
class _Condition:
    name: str
    kind: str
    value: str


@attrs.frozen
class _Rule:
    """A route as the router sees it."""

    name: str
    host: str
    path: str
    path_prefix: str
    methods: tuple[str, ...]
    headers: tuple[_Condition, ...]
    query: tuple[_Condition, ...]

    @classmethod
    def of(cls, route: Route) -> _Rule:
        match = route.match
        # Both at once are a problem already.
        prefix = "" if match.path else match.path_prefix
        return cls(route.name, match.host, match.path, prefix, match.methods, _conditions(match.headers),
                   _conditions(match.query))


def _conditions(given: dict[str, str]) -> tuple[_Condition, ...]:
    return tuple(
        _Condition(name, "present" if not value else "regex" if value[0] == "~" else "exact", value.removeprefix("~"))
        for name, value in given.items())
