"""TcpDownstream: the client's side of an L4 connection — accepted, admitted, counted, and given a relay."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gogate_py.dataplane import ends
from gogate_py.dataplane.client_table import REFUSED
from gogate_py.dataplane.tcp_relay import TcpRelay
from gogate_py.dataplane.tcp_side import RelaySide
from gogate_py.errors import Failure

if TYPE_CHECKING:
    from gogate_py.dataplane.listeners import LiveListener
    from gogate_py.dataplane.plane import Plane
    from gogate_py.snapshot import TcpRoute
    from gogate_py.wire.proxy_protocol import Endpoint, ProxyHeader


class TcpDownstream(RelaySide):
    """The client's side: accepted, counted, and given a relay."""

    __slots__ = ("_counted", "_listener", "_route", "_ticket", "header", "source")

    def __init__(
        self,
        plane: Plane,
        listener: LiveListener,
        route: TcpRoute,
        header: ProxyHeader | None = None,
        ticket: int = REFUSED,
        *,
        counted: bool = False,
    ) -> None:
        """``header``: what the proxy in front said of the connection, where one is believed (proxy_intake). ``ticket``:
        of its admission, where that was before (intake). ``counted``: by the route's limits, too (tls_intake)."""
        super().__init__(plane)
        self._listener = listener
        self._route = route
        self._ticket = ticket
        self._counted = counted
        self.header = header
        self.source: Endpoint = ("", 0)

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        listener, plane = self._listener, self._plane
        listener.accepted += 1
        listener.active += 1
        self.source = ends.source(transport, self.header)
        host = ends.host(self.source)
        if self._ticket == REFUSED:
            self._ticket = plane.admission.enter(listener, host, plane.http.is_trusted(host))
        if self._ticket == REFUSED:
            self.abort()
        elif not (self._counted or within_limits(plane, self._route, host)):
            listener.refuse(Failure.RATE_LIMITED.reason)
            self.abort()
        else:
            self.relay = relay = TcpRelay(plane, listener, self, self._route)
            try:
                relay.start()
            except Exception as error:  # the event loop would log it, and leave the connection open
                plane.internal_error(error, "relay")
                relay.cut("internal")

    def connection_lost(self, error: Exception | None) -> None:
        self._listener.active -= 1
        self._plane.admission.leave(self._ticket)
        super().connection_lost(error)


def within_limits(plane: Plane, route: TcpRoute, host: str) -> bool:
    """Whether the rate limits of connections allow one more from this client; it is counted."""
    admit = plane.connection_limits.get(route.name)
    return admit is None or admit(host)
