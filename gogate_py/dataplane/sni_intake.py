"""SniIntake: an accepted TCP connection until its TLS ClientHello is here; the server name says which route it takes.

TLS is not terminated: the bytes go to the backend as they came (wire/client_hello reads along). It counts as its
client's connection from accept on, so that nobody gets more of them by saying nothing.

    a name with a route                                    that route
    another name, none, or something that is not TLS       the route without sni, if there is one
    … without such a route                                 closed, counted as server_name or client_hello
    no whole ClientHello within HELLO_TIME                 closed, counted as client_hello_timeout

Where the server speaks first (SMTP, MySQL), a client says nothing and runs into the time limit: such a protocol needs a
listener of its own.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from gogate_py.clock import monotonic
from gogate_py.dataplane import ends
from gogate_py.dataplane.client_table import REFUSED
from gogate_py.dataplane.tcp_downstream import TcpDownstream
from gogate_py.errors import WireError
from gogate_py.wire.client_hello import ClientHelloReader

if TYPE_CHECKING:
    from gogate_py.dataplane.listeners import LiveListener
    from gogate_py.dataplane.plane import Plane
    from gogate_py.snapshot import TcpRoute
    from gogate_py.wire.proxy_protocol import ProxyHeader

log = logging.getLogger("gogate.listeners")

#: Seconds from accept to the last byte of the ClientHello.
HELLO_TIME: Final = 5.0

# Reasons of gogate_connections_refused_total.
NO_ROUTE: Final = "server_name"
BAD_HELLO: Final = "client_hello"
TIMED_OUT: Final = "client_hello_timeout"


class SniIntake:
    """One connection; in ``plane.admission.arriving`` until its route is known, or its end."""

    __slots__ = ("_header", "_listener", "_plane", "_reader", "_received", "_ticket", "_transport", "deadline")

    def __init__(self, plane: Plane, listener: LiveListener, header: ProxyHeader | None = None) -> None:
        """``header``: of the proxy in front, where one is believed."""
        self._plane = plane
        self._listener = listener
        self._header = header
        self._reader = ClientHelloReader()
        self._received: list[bytes] = []
        self._ticket = REFUSED
        self._transport: Any = None
        self.deadline = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Accepted: may its client have one more?"""
        self._transport = transport
        listener, plane = self._listener, self._plane
        listener.accepted += 1
        listener.active += 1
        host = ends.host(ends.source(transport, self._header))
        self._ticket = plane.admission.enter(listener, host, plane.http.is_trusted(host))
        if self._ticket == REFUSED:
            transport.abort()
            return
        self.deadline = monotonic() + HELLO_TIME
        plane.admission.arriving.add(self)
        plane.deadlines.add(self)

    def data_received(self, data: bytes) -> None:
        """Some of the ClientHello, with whatever is behind it."""
        if self._transport.is_closing():
            return
        self._received.append(data)
        names = self._listener.names
        assert names is not None
        try:
            try:
                if self._reader.feed(data):
                    self._lead(names.find(self._reader.server_name), NO_ROUTE, self._reader.server_name)
            except WireError as error:
                self._lead(names.find(""), BAD_HELLO, error.detail)
        except Exception as error:  # the top of a connection: one bad hello never ends a worker (T30)
            self._plane.internal_error(error, "client hello")
            self._transport.abort()

    def _lead(self, route: TcpRoute | None, reason: str, detail: str) -> None:
        """Give the connection to its route; ``reason``, ``detail``: why it is closed when there is none."""
        if route is None:
            self._refuse(reason, detail)
            return
        listener, transport = self._listener, self._transport
        self._forget()
        # Whom it is for counts it itself, like any that it gets from the listener.
        listener.accepted -= 1
        listener.active -= 1
        protocol = TcpDownstream(self._plane, listener, route, self._header, self._ticket)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if not transport.is_closing():
            protocol.data_received(b"".join(self._received))

    def eof_received(self) -> bool:
        """Gone before its hello was whole; one that said nothing was a look whether somebody listens."""
        if self._received:
            self._refuse(BAD_HELLO, "The connection ended inside the ClientHello.")
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Closed before its route was known."""
        self._forget()
        self._listener.active -= 1
        self._plane.admission.leave(self._ticket)

    def pause_writing(self) -> None:
        """Nothing is written here."""

    def resume_writing(self) -> None:
        """Nothing is written here."""

    def on_deadline(self, now: float) -> None:
        """No hello in time."""
        self._refuse(TIMED_OUT, "")

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _refuse(self, reason: str, detail: str) -> None:
        self._forget()
        self._listener.refuse(reason)
        log.debug(
            "connection refused",
            extra={
                "listener": self._listener.name,
                "client": ends.label(ends.source(self._transport, self._header)),
                "reason": reason,
                "detail": detail,
            },
        )
        self._transport.abort()

    def _forget(self) -> None:
        self._plane.admission.arriving.discard(self)
        self._plane.deadlines.discard(self)
