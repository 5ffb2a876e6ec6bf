"""The listeners of the data plane, as they follow from the short form, ``listeners`` and the addresses of TCP routes.

    written as                            id             on it
    server.httpListenAddr                 http:default   HTTP routes that name default, or nothing
    listeners, type http                  its name       HTTP routes that name it, or nothing
    listeners, type tcp                   its name       TCP routes that name it
    listenAddr of a TCP route             tcp:ROUTE      that route; server.listenAddr is the route default-tcp
    listenAddr of TCP routes with sni     sni:ADDRESS    all routes at this address; it stays the same socket whatever
                                                         routes come and go
    tls.redirectHTTP                      redirect:ADDRESS    nothing: every request is sent to https

TCP routes that share a listener are told apart by the server name in the TLS ClientHello (sni.py). What a listener
decides for all connections (acceptProxyProtocol, tls) is a property of it, or the same in all of its routes.

The supervisor's own listeners are only names with addresses (admin_addresses).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from gogate_py import addresses
from gogate_py.config.problems import Path
from gogate_py.config.schema import DEFAULT_LISTENER, Admin, Config, ListenerTls, Metrics, Registry, Route

#: The id of the listener of httpListenAddr.
HTTP_LISTENER: Final = "http:default"


@attrs.frozen
class DataListener:
    """One address for clients. ``default`` alone: all connections are this TCP route's; ``named``: those with sni.
    ``https_port``: every request is redirected to this port. ``path``: where it is written."""

    id: str
    address: str
    path: Path
    http: bool
    accept_proxy_protocol: bool = False
    tls: ListenerTls | None = None
    default: Route | None = None
    named: tuple[Route, ...] = ()
    https_port: int = 0

    @property
    def tls_path(self) -> Path:
        """Where its TLS is written."""
        return ("server", "tls") if self.path == ("server", "httpListenAddr") else (*self.path[:-1], "tls")

    @property
    def kind(self) -> str:
        """In a word, for people."""
        if self.https_port:
            return "redirect"
        return ("https" if self.tls else "http") if self.http else "tls" if self.tls else "tcp"


def data_listeners(config: Config) -> tuple[DataListener, ...]:
    """Every listener: TCP ones in the order of their first routes, then HTTP ones, then those that redirect."""
    served = http_listeners(config)
    return (*tcp_listeners(config), *served, *_redirects(served))


def http_listeners(config: Config) -> tuple[DataListener, ...]:
    """The listeners that serve HTTP requests."""
    server = config.server
    found = []
    if server.http_listen_addr:
        found.append(DataListener(
            HTTP_LISTENER, server.http_listen_addr, ("server", "httpListenAddr"), True, server.accept_proxy_protocol,
            server.tls))
    for number, one in enumerate(config.listeners):
        if one.type == "http" and one.listen_addr:
            found.append(DataListener(
                one.name, one.listen_addr, ("listeners", number, "listenAddr"), True, one.accept_proxy_protocol,
                one.tls))
    return tuple(found)


def _redirects(served: Sequence[DataListener]) -> Iterator[DataListener]:
    for one in served:
        if one.tls is not None and one.tls.redirect_http:
            address, port = one.tls.redirect_http, addresses.parse(one.address, allow_port_zero=True).port
            # Whoever is in front of the one listener is in front of the other.
            yield DataListener(
                f"redirect:{address}", address, (*one.tls_path, "redirectHTTP"), True, one.accept_proxy_protocol,
                https_port=port)


def tcp_listeners(config: Config) -> tuple[DataListener, ...]:
    """The TCP listeners that have routes, those of the short form included."""
    routes = config.effective_routes()
    shared = shared_addresses(routes)
    found: dict[str, DataListener] = {}
    for number, route in enumerate(routes):
        one = _of_route(config, number, route, shared)
        if one is None:
            continue
        one = found.get(one.id, one)
        # All of its routes agree on these; the short form's has neither.
        one = attrs.evolve(
            one, accept_proxy_protocol=one.accept_proxy_protocol or route.accept_proxy_protocol,
            tls=one.tls or route.tls)
        if route.sni:
            found[one.id] = attrs.evolve(one, named=(*one.named, route))
        else:
            found[one.id] = attrs.evolve(one, default=route)
    return tuple(found.values())


def _of_route(config: Config, number: int, route: Route, shared: set[str]) -> DataListener | None:
    """The listener of a TCP route, without its routes; None for a route that has none."""
    if route.type != "tcp":
        return None
    for name in route.listeners:
        for position, entry in enumerate(config.listeners):
            if (entry.name, entry.type) == (name, "tcp") and entry.listen_addr:
                return DataListener(
                    name, entry.listen_addr, ("listeners", position, "listenAddr"), False, entry.accept_proxy_protocol,
                    entry.tls)
    if not route.listen_addr:
        return None
    where = route.listen_addr
    path: Path = ("routes", number, "listenAddr") if number < len(config.routes) else ("server", "listenAddr")
    return DataListener(f"sni:{where}" if where in shared else f"tcp:{route.name}", where, path, False)


def shared_addresses(routes: Sequence[Route]) -> set[str]:
    """The addresses at which server names decide; an address has one spelling once the file is read."""
    return {route.listen_addr for route in routes if route.type == "tcp" and route.listen_addr and route.sni}


def listener_id(name: str) -> str:
    """The id of the listener that routes call by this name."""
    return HTTP_LISTENER if name == DEFAULT_LISTENER else name


def find_http_listener(config: Config, name: str) -> str:
    """The id of the HTTP listener that is called so, by routes or in metrics; "" for "". Raises ValueError."""
    known = config.http_listeners
    if not name or (name == HTTP_LISTENER and DEFAULT_LISTENER in known):
        return name
    if name not in known:
        raise ValueError(f"there is no listener {name!r} of type http; there are: {', '.join(known) or 'none'}")
    return listener_id(name)


def serves(listener: DataListener, route: Route) -> bool:
    """Whether an HTTP listener has an HTTP route."""
    return not route.listeners or any(listener_id(name) == listener.id for name in route.listeners)


def admin_addresses(config: Config) -> dict[str, str]:
    """The listeners that a configuration wants in the supervisor: admin, metrics, registry → its address."""
    server = config.server
    wanted: dict[str, Admin | Metrics | Registry] = {
        "admin": server.admin, "metrics": server.metrics, "registry": server.registry}
    return {name: one.listen_addr for name, one in wanted.items() if one.enabled and one.listen_addr}
