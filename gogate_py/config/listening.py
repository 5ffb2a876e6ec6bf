"""Checks of listeners: there is one, no two bind the same address or have one name, every one of the long form has
routes, no backend is one of them, and a PROXY header has somebody to come from where it is needed."""

from __future__ import annotations

import ipaddress

import attrs

from gogate_py import addresses
from gogate_py.addresses import Address
from gogate_py.config.listeners import http_listeners, serves, shared_addresses
from gogate_py.config.problems import Findings, Path
from gogate_py.config.schema import DEFAULT_LISTENER, Config, ListenerTls


@attrs.frozen
class _Bound:
    """An address that gogate will bind, and the key that says so. ``traffic``: carries clients' traffic."""

    address: Address
    path: Path
    label: str
    traffic: bool


def check_listeners(config: Config, findings: Findings) -> None:
    """At least one listener; no address twice; no backend that leads back into gogate."""
    bound = _bound_addresses(config, findings)
    sources: tuple[Path, ...] = (("server", "listenAddr"), ("server", "httpListenAddr"), ("listeners",), ("routes",))
    if not any(one.traffic for one in bound) and all(findings.is_sound(path) for path in sources):
        findings.add(
            ("server",), "there is no listener: set server.httpListenAddr, server.listenAddr, listeners, or a route of "
            "type tcp", at="key")
    for position, one in enumerate(bound):
        for other in bound[:position]:
            if _overlap(one.address, other.address):
                _report_overlap(one, other, findings)
                break
    admin = config.server.admin
    if admin.enabled and not admin.listen_addr and findings.was_read(("server", "admin", "listenAddr")):
        findings.add(("server", "admin", "listenAddr"), "needed while server.admin.enabled is true")
    _check_long_form(config, findings)
    _check_loops(config, bound, findings)
    _check_proxy_protocol(config, findings)


def _check_long_form(config: Config, findings: Findings) -> None:
    """Names are there once, and somebody uses each listener."""
    names: dict[str, Path] = {}
    for number, one in enumerate(config.listeners):
        path: Path = ("listeners", number)
        first = names.setdefault(one.name, path)
        if not one.name:
            continue
        if first != path:
            findings.add((*path, "name"), f"the name {one.name} is taken by the listener in {findings.line_of(first)}")
        elif one.name == DEFAULT_LISTENER:
            findings.add((*path, "name"), f"{one.name} is what routes call server.httpListenAddr; take another name")
        elif one.type == "tcp" and findings.is_sound(path) and findings.is_sound(("routes",)) and not any(
            one.name in route.listeners for route in config.routes
        ):
            findings.add(path, f"no route leads on from here: a route of type tcp names it with listener: {one.name}")
    if not all(findings.is_sound(path) for path in (("routes",), ("listeners",), ("server", "backends"), ("pools",))):
        return
    http = [route for route in config.effective_routes() if route.type == "http"]
    for served in http_listeners(config):
        if any(serves(served, route) for route in http):
            continue
        if http:
            findings.add(served.path, "no route is served here: every HTTP route names other listeners")
        elif served.path[0] == "listeners":  # of httpListenAddr it is told with the short form
            findings.add(served.path, "no route is served here: there is no HTTP route")


def _report_overlap(one: _Bound, other: _Bound, findings: Findings) -> None:
    """Blame the later of two, unless it has its default and the earlier was written."""
    if findings.given(other.path) and not findings.given(one.path):
        one, other = other, one
    what = "is the same address as" if one.address == other.address else f"overlaps {other.address} of"
    where = findings.line_of(other.path) if findings.given(other.path) else "its default"
    findings.add(one.path, f"{one.address} {what} {other.label} ({where})")


def _bound_addresses(config: Config, findings: Findings) -> list[_Bound]:
    server = config.server
    # In the order in which a reader would blame them: what was written before what has a default.
    candidates: list[tuple[str, Path, str, bool]] = [
        (server.listen_addr, ("server", "listenAddr"), "server.listenAddr", True),
        (server.http_listen_addr, ("server", "httpListenAddr"), "server.httpListenAddr", True)]
    redirects: list[tuple[ListenerTls | None, Path, str]] = [(server.tls, ("server", "tls"), "server.tls")]
    for number, one in enumerate(config.listeners):
        here: Path = ("listeners", number)
        candidates.append((one.listen_addr, (*here, "listenAddr"), f"listener {one.name}", True))
        redirects.append((one.tls, (*here, "tls"), f"listener {one.name}"))
    shared = shared_addresses(config.routes)
    bound = {server.listen_addr}
    for number, route in enumerate(config.routes):
        if route.type == "tcp" and route.listen_addr:
            if route.listen_addr in shared and route.listen_addr in bound:
                continue  # one socket, where server names decide
            bound.add(route.listen_addr)
            candidates.append((route.listen_addr, ("routes", number, "listenAddr"), f"route {route.name}", True))
    candidates += [
        (tls.redirect_http, (*path, "redirectHTTP"), f"redirectHTTP of {label}", True)
        for tls, path, label in redirects if tls is not None]
    metrics_path: Path = ("metrics",) if findings.given(("metrics",)) else ("server", "metrics")
    if server.admin.enabled:
        candidates.append((server.admin.listen_addr, ("server", "admin", "listenAddr"), "server.admin", False))
    if server.metrics.enabled:
        candidates.append((server.metrics.listen_addr, (*metrics_path, "listenAddr"), "metrics", False))
    if server.registry.enabled:
        candidates.append((server.registry.listen_addr, ("server", "registry", "listenAddr"), "server.registry", False))
    return [
        _Bound(addresses.parse(text, allow_port_zero=True), path, label, traffic)
        for text, path, label, traffic in candidates if text]


def _overlap(one: Address, other: Address) -> bool:
    """Whether two listeners want the same port of the same address. Names other than localhost are not resolved."""
    if one.is_unix or other.is_unix:
        return one.is_unix and other.is_unix and one.path == other.path
    return one.port == other.port != 0 and _hosts_overlap(one.host, other.host)


def _hosts_overlap(one: str, other: str) -> bool:
    pairs = ((a, b) for a in _expand_host(one) for b in _expand_host(other))
    return any(a[0] == b[0] and (a[1] == b[1] or "*" in (a[1], b[1])) for a, b in pairs)


def _expand_host(host: str) -> tuple[tuple[int, str], ...]:
    """What a listener's host stands for: (IP version, address), with * for every address of that version."""
    if host == "":
        return ((4, "*"), (6, "*"))
    if host.lower() == "localhost":
        return ((4, "127.0.0.1"), (6, "::1"))
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return ((4, host.lower()), (6, host.lower()))
    return ((ip.version, "*" if ip.is_unspecified else str(ip)),)


def _check_loops(config: Config, bound: list[_Bound], findings: Findings) -> None:
    pools: list[tuple[Path, tuple[str, ...]]] = [
        (("server", "backends"), tuple(backend.addr for backend in config.server.backends))]
    for name, pool in config.pools.items():
        pools.append((("pools", name, "backends"), tuple(backend.addr for backend in pool.backends)))
    for path, backends in pools:
        for number, addr in enumerate(backends):
            if not addr:
                continue
            target = addresses.parse(addr)
            for one in bound:
                if _leads_to(target, one.address):
                    # Behind the proxy, everyone would come from loopback, which the admin API trusts.
                    why = "requests would go in circles" if one.traffic else "it must not be reached through the proxy"
                    findings.add((*path, number, "addr"), f"{addr} is gogate's own listener {one.label}: {why}")
                    break


def _check_proxy_protocol(config: Config, findings: Findings) -> None:
    """A listener that needs a PROXY header, and nobody whose header is believed, would close every connection."""
    server = config.server
    wanting: list[tuple[Path, str]] = []
    if server.accept_proxy_protocol:
        path: Path = ("server", "acceptProxyProtocol")
        if not server.http_listen_addr and findings.was_read(("server", "httpListenAddr")):
            findings.add(path, "needs server.httpListenAddr; other listeners have an acceptProxyProtocol of their own")
        else:
            wanting.append((path, server.http_listen_addr))
    for number, one in enumerate(config.listeners):
        if one.accept_proxy_protocol:
            wanting.append((("listeners", number, "acceptProxyProtocol"), one.listen_addr))
    for number, route in enumerate(config.routes):
        if route.type == "tcp" and route.accept_proxy_protocol:
            wanting.append((("routes", number, "acceptProxyProtocol"), route.listen_addr))
    for path, listen_addr in wanting:
        # Who may connect to a Unix socket is decided by its permissions; no network could name its peers.
        if not server.trusted_proxies and not listen_addr.startswith("unix:") and findings.was_read(
            ("server", "trustedProxies")
        ):
            findings.add(path, "server.trustedProxies is empty: nobody's PROXY header would be believed")


def _leads_to(backend: Address, listener: Address) -> bool:
    if backend.is_unix or listener.is_unix:
        return backend.is_unix and backend.path == listener.path
    if backend.port != listener.port:
        return False
    # Another machine's backend on a port that we have too is the ordinary case, so a wildcard listener counts only
    # for what surely is this machine. Connecting to the unspecified address means loopback.
    host = "localhost" if _is_unspecified(backend.host) else backend.host.lower()
    if _is_loopback(host):
        return _hosts_overlap(host, listener.host)
    return host == listener.host.lower()


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (addresses.is_ip(host) and ipaddress.ip_address(host).is_loopback)


def _is_unspecified(host: str) -> bool:
    return addresses.is_ip(host) and ipaddress.ip_address(host).is_unspecified
