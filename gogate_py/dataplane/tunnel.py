"""Tunnel: what an exchange becomes after the backend switched protocols as asked (WebSocket).

Bytes pass both ways untouched. The end of one direction is passed on and leaves the other open; the tunnel ends when
both ended, when either connection is lost, or when nothing moved for ``tunnelIdle``. TLS towards the backend cannot end
one direction alone: there, either end is the end of both, after what was written. Back-pressure is the exchange's: the
same pausing as for bodies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gogate_py.dataplane.body_watch import BODY_CHECK
from gogate_py.dataplane.deadlines import INFINITE

if TYPE_CHECKING:
    from gogate_py.dataplane.exchange_end import ExchangeEnd
    from gogate_py.dataplane.upstream import Upstream


class Tunnel:
    """One tunnel, from the 101 to its end. Owned by its exchange."""

    __slots__ = ("_backend_ended", "_client_ended", "_exchange", "_moved", "_moved_at", "_seen", "_upstream")

    def __init__(self, exchange: ExchangeEnd, upstream: Upstream, now: float) -> None:
        self._exchange = exchange
        self._upstream = upstream
        self._client_ended = False
        self._backend_ended = False
        self._moved = 0
        self._moved_at = now
        self._seen = 0

    # --- from the client

    def client_data(self, data: bytes) -> None:
        """Bytes from the client."""
        exchange = self._exchange
        self._moved += len(data)
        if exchange.backend is not None:
            exchange.backend.bytes_sent += len(data)
        self._upstream.send(data)

    def client_eof(self) -> None:
        """The client said its last byte."""
        self._client_ended = True
        half_close = self._upstream.can_half_close()
        if half_close:
            self._upstream.send_eof()
        if self._backend_ended or not half_close:
            self._end("")

    def client_lost(self) -> None:
        """The client's connection is gone: what the backend still says is for nobody."""
        self._exchange.tunnel_over("")
        self._upstream.abort()

    # --- from the backend

    def backend_data(self, data: bytes) -> None:
        """Bytes from the backend."""
        exchange = self._exchange
        self._moved += len(data)
        exchange.sent_bytes += len(data)
        exchange.downstream.write(data)

    def backend_eof(self) -> None:
        """The backend said its last byte."""
        self._backend_ended = True
        self._exchange.downstream.write_eof()
        if self._client_ended:
            self._end("")

    def backend_lost(self) -> None:
        """The backend's connection is gone: what was received still goes to the client."""
        self._end("")

    # --- its end

    def check(self, now: float, idle: float) -> float:
        """End it when nothing moved for ``idle`` seconds (0: never); → when to look again."""
        if self._moved != self._seen:
            self._seen = self._moved
            self._moved_at = now
        elif idle and now - self._moved_at >= idle:
            self._end("tunnel_idle")
            return INFINITE
        return now + BODY_CHECK

    def _end(self, reason: str) -> None:
        exchange = self._exchange
        exchange.tunnel_over(reason)
        self._upstream.close_after_flush()
        exchange.downstream.close()
