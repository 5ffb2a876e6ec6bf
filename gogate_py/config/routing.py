"""Checks of routes: names, pools, which keys belong to which type, no two routes for the same requests."""

from __future__ import annotations

from gogate_py.config.problems import Findings, Path
from gogate_py.config.schema import DEFAULT_POOL, DEFAULT_TCP_ROUTE, Config, Match, Route
from gogate_py.config.values import closest
from gogate_py.policy.router import is_parameter

_ONLY_HTTP = ("match", "websocket", "timeouts")
_ONLY_TCP = ("listenAddr", "idleTimeout", "acceptProxyProtocol", "sendProxyProtocol")


def check_routes(config: Config, findings: Findings) -> None:
    """Add every problem of the routes, those of the short form included."""
    names: dict[str, Path] = {}
    pools = tuple(config.effective_pools())
    for number, route in enumerate(config.routes):
        path: Path = ("routes", number)
        _check_type(route, path, findings)
        _check_pool(pools, route, path, findings)
        if route.type == "http":
            _check_match(config, route.match, (*path, "match"), findings)
        first = names.setdefault(route.name, path)
        if first != path:
            findings.add((*path, "name"), f"the name {route.name} is taken by the route in {findings.line_of(first)}")
    _check_short_form(config, names, findings)
    _check_ambiguity(config, findings)
    http = [
        number for number, route in enumerate(config.routes)
        if route.type == "http" and findings.was_read(("routes", number, "type"))]
    if http and not config.server.http_listen_addr and findings.was_read(("server", "httpListenAddr")):
        findings.add(("routes", http[0]), "a route of type http needs server.httpListenAddr, which is not set")


def _check_type(route: Route, path: Path, findings: Findings) -> None:
    if not findings.was_read((*path, "type")):
        return
    for key in _ONLY_HTTP if route.type == "tcp" else _ONLY_TCP:
        if findings.given((*path, key)):
            hint = "; HTTP routes are served on server.httpListenAddr" if key == "listenAddr" else ""
            findings.add((*path, key), f"does not apply to a route of type {route.type}{hint}", at="key")
    if route.type == "tcp" and not route.listen_addr and findings.is_sound(path):
        findings.add(path, "listenAddr is required for a route of type tcp")


def _check_pool(known: tuple[str, ...], route: Route, path: Path, findings: Findings) -> None:
    if route.pool and route.pool not in known and findings.was_read(("pools",)) and findings.was_read((*path, "pool")):
        if route.pool == DEFAULT_POOL:
            findings.add((*path, "pool"), "the pool default exists only with server.backends, or without pools", known)
        else:
            findings.add((*path, "pool"), f"there is no pool {route.pool}", known, closest(route.pool, known))


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


def _check_ambiguity(config: Config, findings: Findings) -> None:
    """Two routes that rank equally and take a common request: which one wins would be chance (policy/router.py)."""
    places: dict[tuple[str, str, str], list[tuple[int, Route]]] = {}
    for number, route in enumerate(config.routes):
        if route.type != "http" or not findings.is_sound(("routes", number, "match")):
            continue
        match = route.match
        same_place = places.setdefault((match.host, _shape(match.path), match.path_prefix.rstrip("/")), [])
        for _, other in same_place:
            common = set(match.methods) & set(other.match.methods)
            if common or not (match.methods or other.match.methods):
                what = "the same requests" if match.methods == other.match.methods else f"{', '.join(sorted(common))}"
                both = f"the routes {other.name} and {route.name} match {what}, and neither is more specific"
                findings.add(("routes", number, "match"), both)
                break
        same_place.append((number, route))


def _shape(path: str) -> str:
    """A path with its parameters made nameless: /users/{id} and /users/:name take the same requests."""
    return "/".join("{}" if is_parameter(segment) else segment for segment in path.split("/"))
