"""Checks of TCP routes that share a listener, told apart by the server name in the TLS ClientHello (``sni``).

    routes with sni at one address,         one listener; each name leads to its route
    or that name one of ``listeners``
    at most one without sni beside them     the default: for other names, for none, and for what is not TLS
    no such route                           such connections are closed
    routes without sni at addresses         a listener each

Without ``tls`` connections are passed through as they are; with it TLS ends here, and the name of the handshake
decides. What a listener decides for all connections (acceptProxyProtocol, tls) must be the same in all routes of an
address, for it comes before the name is known.
"""

from __future__ import annotations

from gogate_py.config.listeners import shared_addresses
from gogate_py.config.problems import Findings, Path
from gogate_py.config.schema import Config, Route


def check_server_names(config: Config, findings: Findings) -> None:
    """No name leads to two routes, no listener has two defaults, and all routes of an address agree on what is decided
    before a name is known."""
    shared = shared_addresses(config.routes)
    names: dict[tuple[str, str], int] = {}
    defaults: dict[str, Path] = {}
    first: dict[str, tuple[Path, Route]] = {}
    if config.server.listen_addr:
        path: Path = ("server", "listenAddr")
        defaults[config.server.listen_addr] = path
        first[config.server.listen_addr] = (path, Route(type="tcp"))
    for number, route in enumerate(config.routes):
        path = ("routes", number)
        where = f"the listener {route.listeners[0]}" if route.listeners else route.listen_addr
        if route.type != "tcp" or not findings.is_sound(path) or not (route.listeners or where in shared):
            continue
        for position, name in enumerate(route.sni):
            other = names.setdefault((where, name), number)
            if other != number:
                findings.add(
                    (*path, "sni", position), f"{name} leads to route {config.routes[other].name} already "
                    f"({findings.line_of(('routes', other))})")
        if not route.sni:
            before = defaults.setdefault(where, path)
            if before != path:
                findings.add(
                    (*path, "listeners" if route.listeners else "listenAddr"), f"{where} has a route without sni "
                    f"already ({findings.line_of(before)}): only one can be for all other names")
        if not route.listeners:
            _check_agreement(route, path, *first.setdefault(where, (path, route)), findings)


def _check_agreement(route: Route, path: Path, first: Path, other: Route, findings: Findings) -> None:
    where = route.listen_addr
    if route.accept_proxy_protocol != other.accept_proxy_protocol:
        findings.add(
            (*path, "acceptProxyProtocol"), f"must be the same for all routes of {where} "
            f"({findings.line_of(first)} has {str(other.accept_proxy_protocol).lower()}): it comes before the name is "
            "known")
    if route.tls == other.tls:
        return
    if route.tls is None or other.tls is None:
        passed, ends = ("here", findings.line_of(first)) if route.tls is None else (findings.line_of(first), "here")
        problem = f"TLS at {where} ends for one route ({ends}) and is passed through for another ({passed})"
    else:
        problem = f"TLS at {where} is another one in {findings.line_of(first)}"
    findings.add(
        (*path, "tls") if route.tls is not None else path, f"{problem}: it is the same for all routes of an address; "
        "write the address under listeners with its tls, and name that in the routes", at="key")
