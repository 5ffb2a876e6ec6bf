"""TCP routes that share an address, told apart by the server name in the TLS ClientHello (``sni``).

    routes with sni at one address          one listener; each name leads to its route
    at most one without sni beside them     the default: for other names, for none, and for what is not TLS
    no such route                           such connections are closed
    routes without sni                      a listener each

What a listener decides for all connections (acceptProxyProtocol) must be the same in all of its routes.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from gogate_py.config.problems import Findings, Path
from gogate_py.config.schema import Config, Route


@attrs.frozen
class TcpListener:
    """One address for TCP, and whose connections arrive there. ``default`` alone: all of them."""

    id: str
    address: str
    default: Route | None
    named: tuple[Route, ...] = ()

    @property
    def accept_proxy_protocol(self) -> bool:
        """Whether every connection begins with a PROXY header; its routes agree on it."""
        return any(route.accept_proxy_protocol for route in (self.default, *self.named) if route is not None)


def tcp_listeners(routes: Sequence[Route]) -> tuple[TcpListener, ...]:
    """The TCP listeners of effective routes, in the order of their first routes."""
    tcp = [route for route in routes if route.type == "tcp" and route.listen_addr]
    shared = shared_addresses(tcp)
    found: dict[str, TcpListener] = {}
    for route in tcp:
        if (where := route.listen_addr) not in shared:
            found[f"tcp:{route.name}"] = TcpListener(f"tcp:{route.name}", route.listen_addr, route)
            continue
        # Named by its address: it stays the same socket whatever routes come and go.
        name = f"sni:{where}"
        one = found.get(name) or TcpListener(name, route.listen_addr, None)
        if route.sni:
            found[name] = attrs.evolve(one, named=(*one.named, route))
        else:
            found[name] = attrs.evolve(one, default=route)
    return tuple(found.values())


def shared_addresses(routes: Sequence[Route]) -> set[str]:
    """The addresses at which server names decide; an address has one spelling once the file is read."""
    return {route.listen_addr for route in routes if route.type == "tcp" and route.listen_addr and route.sni}


def check_server_names(config: Config, findings: Findings) -> None:
    """No name leads to two routes, no address has two defaults, and all routes of one agree on the PROXY header."""
    shared = shared_addresses(config.routes)
    names: dict[tuple[str, str], int] = {}
    first: dict[str, tuple[Path, bool]] = {}
    defaults: dict[str, Path] = {}
    if config.server.listen_addr:
        defaults[config.server.listen_addr] = ("server", "listenAddr")
        first[config.server.listen_addr] = (("server", "listenAddr"), False)
    for number, route in enumerate(config.routes):
        path: Path = ("routes", number)
        if route.type != "tcp" or not route.listen_addr or not findings.is_sound(path):
            continue
        where = route.listen_addr
        if where not in shared:
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
                    (*path, "listenAddr"), f"{route.listen_addr} has a route without sni already "
                    f"({findings.line_of(before)}): only one can be for all other names")
        begun, accepts = first.setdefault(where, (path, route.accept_proxy_protocol))
        if accepts != route.accept_proxy_protocol:
            findings.add(
                (*path, "acceptProxyProtocol"), f"must be the same for all routes of {route.listen_addr} "
                f"({findings.line_of(begun)} has {str(accepts).lower()}): it comes before the name is known")

