"""Tunnel: what an exchange becomes after the backend switched protocols as asked (WebSocket).

Bytes pass both ways untouched. The end of one direction is passed on and leaves the other open; the tunnel ends when
both ended, when either connection is lost, or when nothing moved for ``tunnelIdle``. TLS towards the backend cannot end
one direction alone: there, either end is the end of both, after what was written. Back-pressure is the exchange's: the
same pausing as for bodies.

When its time is up (the gateway stops, the drain of the backend is over), both sides are told by a close frame 1001,
and have FAREWELL to answer: for that alone the frames of both directions are followed. A side to which part of a frame
was passed on cannot be told anything: it is closed at once.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gogate_py.clock import monotonic
from gogate_py.dataplane.body_watch import BODY_CHECK
from gogate_py.dataplane.deadlines import INFINITE
from gogate_py.wire.websocket_frames import GOING_AWAY, FrameWalk, close_frame

if TYPE_CHECKING:
    from gogate_py.dataplane.exchange_end import ExchangeEnd
    from gogate_py.dataplane.upstream import Upstream

#: How long both sides may take to answer a close frame, seconds.
FAREWELL: Final = 1.0


class Tunnel:
    """One tunnel, from the 101 to its end. Owned by its exchange."""

    __slots__ = (
        "_backend_done",
        "_backend_ended",
        "_client_done",
        "_client_ended",
        "_exchange",
        "_leaving",
        "_leaving_by",
        "_moved",
        "_moved_at",
        "_seen",
        "_to_backend",
        "_to_client",
        "_upstream",
    )

    def __init__(self, exchange: ExchangeEnd, upstream: Upstream, now: float) -> None:
        self._exchange = exchange
        self._upstream = upstream
        self._client_ended = False
        self._backend_ended = False
        self._to_backend = FrameWalk()
        self._to_client = FrameWalk()
        self._leaving = ""  # why both sides were told to go
        self._client_done = False  # it knows, and nothing is expected of it any more
        self._backend_done = False
        self._leaving_by = INFINITE
        self._moved = 0
        self._moved_at = now
        self._seen = 0

    # --- from the client

    def client_data(self, data: bytes) -> None:
        """Bytes from the client."""
        self._to_backend.feed(data)
        if self._leaving:  # behind our close frame nothing may follow
            if self._to_backend.closing:
                self._client_said_goodbye()
            return
        exchange = self._exchange
        self._moved += len(data)
        if exchange.backend is not None:
            exchange.backend.bytes_sent += len(data)
        self._upstream.send(data)

    def client_eof(self) -> None:
        """The client said its last byte."""
        if self._leaving:
            self._client_said_goodbye()
            return
        self._client_ended = True
        half_close = self._upstream.can_half_close()
        if half_close:
            self._upstream.send_eof()
        if self._backend_ended or not half_close:
            self._end("")

    def client_lost(self, reason: str = "") -> None:
        """The client's connection is gone: what the backend still says is for nobody."""
        self._exchange.tunnel_over(self._leaving or reason)
        if self._leaving:
            self._upstream.close_after_flush()
        else:
            self._upstream.abort()

    # --- from the backend

    def backend_data(self, data: bytes) -> None:
        """Bytes from the backend."""
        self._to_client.feed(data)
        if self._leaving:
            if self._to_client.closing:
                self._backend_said_goodbye()
            return
        exchange = self._exchange
        self._moved += len(data)
        exchange.sent_bytes += len(data)
        exchange.downstream.write(data)

    def backend_eof(self) -> None:
        """The backend said its last byte."""
        if self._leaving:
            self._backend_said_goodbye()
            return
        self._backend_ended = True
        self._exchange.downstream.write_eof()
        if self._client_ended:
            self._end("")

    def backend_lost(self) -> None:
        """The backend's connection is gone: what was received still goes to the client."""
        if self._leaving:
            self._backend_said_goodbye()
        else:
            self._end("")

    # --- its end

    def go_away(self, reason: str) -> bool:
        """Its time is up: tell both sides, and end it when they answered, or in FAREWELL seconds. → whether that is
        news."""
        if self._leaving:
            return False
        self._leaving = reason
        exchange = self._exchange
        self._leaving_by = exchange.downstream.deadline = monotonic() + FAREWELL
        client_knows = not self._backend_ended and _tell(self._to_client, exchange.downstream.write)
        backend_knows = not self._client_ended and _tell(self._to_backend, self._upstream.send, secrets.token_bytes(4))
        self._client_done = not client_knows or self._client_ended or self._to_backend.closing
        self._backend_done = not backend_knows or self._backend_ended or self._to_client.closing
        exchange.downstream.resume_for_backend()  # what they answer is read, whoever was waited for
        exchange.resume_response()
        self._end_if_done()
        return True

    def _client_said_goodbye(self) -> None:
        self._client_done = True
        self._end_if_done()

    def _backend_said_goodbye(self) -> None:
        self._backend_done = True
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._client_done and self._backend_done:
            self._end(self._leaving)

    def check(self, now: float, idle: float) -> float:
        """End it when nothing moved for ``idle`` seconds (0: never); → when to look again."""
        if self._leaving:
            if now < self._leaving_by:
                return self._leaving_by
            self._end(self._leaving)
            return INFINITE
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


def _tell(walk: FrameWalk, write: Callable[[bytes], None], key: bytes = b"") -> bool:
    """Send a side a close frame, unless it has one; False: part of another frame was passed on to it."""
    if walk.between and not walk.closing:
        write(close_frame(GOING_AWAY, key))
    return walk.between
