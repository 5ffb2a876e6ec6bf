"""ProxyIntake: an accepted connection until its PROXY header is here; then it is given to the protocol it is for.

The header is needed, from everyone, within HEADER_TIME, and only a trusted proxy's is believed (SECURITY.md T28):
anything else closes the connection without a word. What a health check of the proxy in front does (connect and go) is
no fault. Peers of a Unix socket have no address that could be trusted or not; its permissions decide who they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from gogate_py.dataplane import ends
from gogate_py.dataplane.intake import Intake
from gogate_py.errors import WireError
from gogate_py.wire.proxy_protocol import ProxyHeader, parse

if TYPE_CHECKING:
    from gogate_py.dataplane.listeners import LiveListener
    from gogate_py.dataplane.plane import Plane

#: Seconds from accept to the last byte of the header.
HEADER_TIME: Final = 3.0

# Reasons of gogate_connections_refused_total.
UNTRUSTED: Final = "proxy_untrusted"
BAD_HEADER: Final = "proxy_header"
TIMED_OUT: Final = "proxy_timeout"


class ProxyIntake(Intake):
    """One connection, from accept to its header or its end."""

    __slots__ = ("_buffer", "_make")

    def __init__(
        self, plane: Plane, listener: LiveListener, make: Callable[[LiveListener, ProxyHeader], Any]
    ) -> None:
        """``make``: the protocol for a connection with this header."""
        super().__init__(plane, listener)
        self._make = make
        self._buffer = b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Accepted: worth waiting for its header? Its client is only known, and admitted, behind it."""
        peer = self._accepted(transport)
        if peer != ends.UNIX and not self._plane.http.is_trusted(peer):
            self._refuse(UNTRUSTED, "")
        elif not self._plane.admission.has_room(self._listener):
            transport.abort()
        else:
            self._wait(HEADER_TIME)

    def data_received(self, data: bytes) -> None:
        """Some of the header, with whatever is behind it."""
        if self._transport.is_closing():
            return
        self._buffer += data
        try:
            header = parse(self._buffer)
            if header is not None:
                self._lead(header)
        except WireError as error:
            self._refuse(BAD_HEADER, error.detail)
        except Exception as error:  # the top of a connection
            self._fail(error, "proxy header")

    def _lead(self, header: ProxyHeader) -> None:
        """Give the connection, and what is behind the header, to the protocol it is for."""
        transport = self._transport
        rest = self._buffer[header.size :]
        self._hand_over()
        protocol = self._make(self._listener, header)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if rest and not transport.is_closing():
            protocol.data_received(rest)

    def eof_received(self) -> bool:
        """Gone before its header was whole."""
        if self._buffer:
            self._refuse(BAD_HEADER, "The connection ended inside the header.")
        return False

    def on_deadline(self, now: float) -> None:
        """No header in time."""
        self._refuse(TIMED_OUT, "")
