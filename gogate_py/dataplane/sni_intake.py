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
from typing import TYPE_CHECKING, Final

from gogate_py.dataplane.intake import Intake
from gogate_py.dataplane.tcp_downstream import TcpDownstream
from gogate_py.errors import WireError
from gogate_py.wire.client_hello import ClientHelloReader

if TYPE_CHECKING:
    from gogate_py.dataplane.listeners import LiveListener
    from gogate_py.dataplane.plane import Plane
    from gogate_py.snapshot import TcpRoute
    from gogate_py.wire.proxy_protocol import ProxyHeader

#: Seconds from accept to the last byte of the ClientHello.
HELLO_TIME: Final = 5.0

# Reasons of gogate_connections_refused_total.
NO_ROUTE: Final = "server_name"
BAD_HELLO: Final = "client_hello"
TIMED_OUT: Final = "client_hello_timeout"


class SniIntake(Intake):
    """One connection, until its route is known, or its end."""

    __slots__ = ("_reader", "_received")

    def __init__(self, plane: Plane, listener: LiveListener, header: ProxyHeader | None = None) -> None:
        super().__init__(plane, listener, header)
        self._reader = ClientHelloReader()
        self._received: list[bytes] = []

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Accepted: may its client have one more?"""
        if self._admit(self._accepted(transport)):
            self._wait(HELLO_TIME)

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
        except Exception as error:  # the top of a connection
            self._fail(error, "client hello")

    def _lead(self, route: TcpRoute | None, reason: str, detail: str) -> None:
        """Give the connection to its route; ``reason``, ``detail``: why it is closed when there is none."""
        if route is None:
            self._refuse(reason, detail)
            return
        transport = self._transport
        protocol = TcpDownstream(self._plane, self._listener, route, self._header, self._hand_over())
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if not transport.is_closing():
            protocol.data_received(b"".join(self._received))

    def eof_received(self) -> bool:
        """Gone before its hello was whole; one that said nothing was a look whether somebody listens."""
        if self._received:
            self._refuse(BAD_HELLO, "The connection ended inside the ClientHello.")
        return False

    def on_deadline(self, now: float) -> None:
        """No hello in time."""
        self._refuse(TIMED_OUT, "")
