"""ProxyIntake: an accepted connection until its PROXY header is here; then it is given to the protocol it is for.

The header is needed, from everyone, within HEADER_TIME, and only a trusted proxy's is believed (SECURITY.md T28):
anything else closes the connection without a word. What a health check of the proxy in front does (connect and go) is
no fault. Peers of a Unix socket have no address that could be trusted or not; its permissions decide who they are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from gogate_py.clock import monotonic
from gogate_py.dataplane import ends
from gogate_py.errors import WireError
from gogate_py.wire.proxy_protocol import ProxyHeader, parse

if TYPE_CHECKING:
    from gogate_py.dataplane.listeners import LiveListener
    from gogate_py.dataplane.plane import Plane

log = logging.getLogger("gogate.listeners")

#: Seconds from accept to the last byte of the header.
HEADER_TIME: Final = 3.0

# Reasons of gogate_connections_refused_total.
UNTRUSTED: Final = "proxy_untrusted"
BAD_HEADER: Final = "proxy_header"
TIMED_OUT: Final = "proxy_timeout"


class ProxyIntake:
    """One connection; in ``plane.admission.arriving`` from accept to its header or its end."""

    __slots__ = ("_buffer", "_listener", "_make", "_plane", "_transport", "deadline")

    def __init__(
        self, plane: Plane, listener: LiveListener, make: Callable[[LiveListener, ProxyHeader], Any]
    ) -> None:
        """``make``: the protocol for a connection with this header."""
        self._plane = plane
        self._listener = listener
        self._make = make
        self._buffer = b""
        self._transport: Any = None
        self.deadline = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Accepted: worth waiting for its header?"""
        self._transport = transport
        listener, plane = self._listener, self._plane
        listener.accepted += 1
        listener.active += 1
        peer = ends.host(ends.source(transport, None))
        if peer != ends.UNIX and not plane.http.is_trusted(peer):
            self._refuse(UNTRUSTED, "")
        elif not plane.admission.has_room(listener):
            transport.abort()
        else:
            self.deadline = monotonic() + HEADER_TIME
            plane.admission.arriving.add(self)
            plane.deadlines.add(self)

    def data_received(self, data: bytes) -> None:
        """Some of the header, with whatever is behind it."""
        if self._transport.is_closing():
            return
        self._buffer += data
        try:
            header = parse(self._buffer)
            if header is not None:
                self._hand_over(header)
        except WireError as error:
            self._refuse(BAD_HEADER, error.detail)
        except Exception as error:  # the top of a connection: one bad header never ends a worker (T30)
            self._plane.internal_error(error, "proxy header")
            self._transport.abort()

    def _hand_over(self, header: ProxyHeader) -> None:
        listener, transport = self._listener, self._transport
        rest = self._buffer[header.size :]
        self._forget()
        # Whom it is for counts it itself, like any that it gets from the listener.
        listener.accepted -= 1
        listener.active -= 1
        protocol = self._make(listener, header)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if rest and not transport.is_closing():
            protocol.data_received(rest)

    def eof_received(self) -> bool:
        """Gone before its header was whole."""
        if self._buffer:
            self._refuse(BAD_HEADER, "The connection ended inside the header.")
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Closed before its header was whole."""
        self._forget()
        self._listener.active -= 1

    def pause_writing(self) -> None:
        """Nothing is written here."""

    def resume_writing(self) -> None:
        """Nothing is written here."""

    def on_deadline(self, now: float) -> None:
        """No header in time."""
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
                "client": ends.label(ends.source(self._transport, None)),
                "reason": reason,
                "detail": detail,
            },
        )
        self._transport.abort()

    def _forget(self) -> None:
        self._plane.admission.arriving.discard(self)
        self._plane.deadlines.discard(self)
