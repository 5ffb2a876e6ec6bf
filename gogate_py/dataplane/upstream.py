"""Upstream: one HTTP connection to a backend; at most one exchange at a time.

It frames the backend's answer and hands meaning to the exchange: a head, body bytes, the end. It trusts nothing: a head
passes the strict check, a body ends where its framing says and not a byte later, and whatever comes without having been
asked for closes the connection (SECURITY.md T20, R1 to R5).

How the body of an answer ends (RFC 9112 section 6.3), and what an EOF then means:

    NO_BODY      HEAD, 204, 304            nothing may follow
    LENGTH       Content-Length            EOF before the last byte: truncated
    CHUNKED      Transfer-Encoding         EOF before the last chunk: truncated
    UNTIL_CLOSE  neither                   EOF is the end; a reset is a truncation
    TUNNEL       101 that was asked for    bytes pass until either side ends
"""

from __future__ import annotations

import asyncio
import select
import ssl
from typing import TYPE_CHECKING, Any, Final

from gogate_py.backend_tls import TlsClient, explain
from gogate_py.clock import monotonic
from gogate_py.errors import Failure, WireError
from gogate_py.wire.chunked import ChunkedDecoder, is_plain
from gogate_py.wire.fast_head import FastResponse
from gogate_py.wire.head_check import HeadLimits, ResponseHead, check_response_head, find_head_end, has_body

if TYPE_CHECKING:
    from gogate_py.dataplane.attempts import Attempts
    from gogate_py.dataplane.upstream_connections import UpstreamConnections

IDLE: Final = 0
HEAD: Final = 1
LENGTH: Final = 2
CHUNKED: Final = 3
UNTIL_CLOSE: Final = 4
TUNNEL: Final = 5
CLOSED: Final = 6

HIGH_WATER: Final = 64 * 1024
LOW_WATER: Final = 16 * 1024
MAX_INTERIM: Final = 8
#: Heads are remembered up to this size, and, where they were taken apart, this number of fields: every kept connection
#: may have one of some 5 KB, and http_site has those of requests.
LARGEST_KNOWN: Final = 1024
MOST_KNOWN_FIELDS: Final = 32
#: How long a closed connection may take to deliver what was written to it, seconds.
FLUSH: Final = 5.0


class Upstream:
    """One connection to a backend. Owned by its UpstreamConnections; lent to an Exchange."""

    __slots__ = (
        "_buffer",
        "_checked_by",
        "_checked_bytes",
        "_checked_head",
        "_decoder",
        "_interim",
        "_keep",
        "_known_answer",
        "_known_head",
        "_known_to",
        "_left",
        "_owner",
        "_state",
        "_watched_fd",
        "created",
        "exchange",
        "idle_since",
        "received",
        "reused",
        "tls",
        "transport",
        "write",
        "write_paused",
    )

    def __init__(self, owner: UpstreamConnections, tls: TlsClient | None = None) -> None:
        """``tls``: what the connection was made with."""
        self._owner = owner
        self.tls = tls
        self.transport: Any = None
        self.write: Any = None
        self.write_paused = False
        self.exchange: Attempts | None = None
        self.created = 0.0
        self.idle_since = 0.0
        self.reused = False
        self._watched_fd = -1
        # --- per answer
        self._state = IDLE
        self._buffer = b""
        self._left = 0
        self._decoder: ChunkedDecoder | None = None
        self._keep = False
        self._interim = 0
        self.received = 0
        # The last clean head with what was found in it, and who found it: the same bytes have the same verdict.
        self._known_head = b""
        self._known_answer: FastResponse = (0, 0, 0, 0)
        self._known_to: object = None
        # The same of the last one that was taken apart.
        self._checked_bytes = b""
        self._checked_by: HeadLimits | None = None
        self._checked_head: ResponseHead | None = None

    # --- asyncio

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.write = transport.write
        self.created = self.idle_since = monotonic()
        transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)

    def pause_writing(self) -> None:
        self.write_paused = True
        if self.exchange is not None:
            self.exchange.pause_request()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.exchange is not None:
            self.exchange.resume_request()

    def send(self, data: bytes) -> None:
        """Bytes of a request; dropped when the backend closed meanwhile (connection_lost says so in a moment)."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def can_half_close(self) -> bool:
        """Whether one direction can end alone: not with TLS, whose transports end both (DESIGN.md section 3)."""
        return self.tls is None

    def send_eof(self) -> None:
        """The last byte of a tunnel was sent. From here on a reset goes unseen by asyncio while nothing is written."""
        if not self.transport.is_closing():
            self.transport.write_eof()

    def on_hangup(self, reset: bool) -> None:
        """The backend reset a tunnel after it had sent its EOF."""
        if reset:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        state = self._state
        exchange = self.exchange
        if exchange is None:
            # Nothing was asked: the connection cannot be trusted any more (R2).
            self.close()
            return
        try:
            if state == HEAD:
                self._head(exchange, data)
            elif state == LENGTH:
                self._length(exchange, data)
            elif state == CHUNKED:
                self._chunked(exchange, data)
            elif state == UNTIL_CLOSE:
                self.received += len(data)
                exchange.answer_body(data)
            elif state == TUNNEL and exchange.tunnel is not None:
                self.received += len(data)
                exchange.tunnel.backend_data(data)
        except WireError as error:
            self.abort()
            exchange.upstream_failed(error.failure, error.detail)
        except Exception as error:  # the top of a connection: one bad exchange never ends a worker (T30)
            self._owner.plane.internal_error(error, "upstream")
            self.abort()
            if not exchange.over:
                exchange.upstream_failed(Failure.INTERNAL, Failure.INTERNAL.detail)

    def eof_received(self) -> bool:
        exchange = self.exchange
        if exchange is not None:
            if self._state == UNTIL_CLOSE:
                self._finish(exchange, keep=False)
            elif self._state == TUNNEL and exchange.tunnel is not None:
                if self.can_half_close():
                    self._watched_fd = self._fd()
                    self._owner.plane.hangups.watch(self._watched_fd, self, fin=False)
                exchange.tunnel.backend_eof()
                return self.can_half_close()
            else:
                # Not a close that waits for what is still to be written: nobody will read it.
                self.transport.abort()
        return False  # the transport closes itself; connection_lost tells the exchange

    def connection_lost(self, error: Exception | None) -> None:
        exchange, self.exchange = self.exchange, None
        state, self._state = self._state, CLOSED
        if self._watched_fd >= 0:
            self._owner.plane.hangups.forget(self._watched_fd, self)
        self._owner.lost(self)
        if exchange is None or exchange.over:
            return
        if state == HEAD:
            if self._buffer or self.received:
                exchange.upstream_failed(Failure.TRUNCATED, "The backend's answer ended inside its head.")
            elif isinstance(error, ssl.SSLError):
                # With TLS 1.3 a backend that refuses our certificate says so when the handshake is over for us.
                text = f"TLS with {self._owner.backend.address}: {explain(error)}"
                self._owner.plane.unreachable(self._owner.backend, text)
                exchange.upstream_lost(self.reused, Failure.TLS_FAILED, text)
            else:
                exchange.upstream_lost(self.reused)
        elif exchange.tunnel is not None:
            exchange.tunnel.backend_lost()
        else:
            exchange.upstream_failed(Failure.TRUNCATED, Failure.TRUNCATED.detail)

    # --- for the owner

    def usable(self, careful: bool) -> bool:
        """Whether a new request may go out on it."""
        if self._state != IDLE or self.transport.is_closing():
            return False
        if self._owner.settings.max_lifetime and self.expired(monotonic()):
            return False
        if careful:
            # The kernel may know of a FIN that the loop has not read yet: a request that cannot be sent twice looks
            # first.
            poll = select.poll()
            poll.register(self._fd(), select.POLLIN | select.POLLRDHUP)
            return not poll.poll(0)  # EOF, an error, or bytes nobody asked for
        return True

    def _fd(self) -> int:
        return int(self.transport.get_extra_info("socket").fileno())

    def expired(self, now: float) -> bool:
        """Whether it lived longer than maxLifetime."""
        lifetime = self._owner.settings.max_lifetime
        return lifetime > 0 and now - self.created > lifetime

    def close(self) -> None:
        """Close it; what was written still goes out."""
        if not self.transport.is_closing():
            self.transport.close()

    def close_after_flush(self) -> None:
        """Close it when the rest of a tunnel went out, within FLUSH seconds: a backend that does not read holds nothing
        for longer."""
        self.exchange = None
        self._state = CLOSED
        if not self.transport.is_closing():
            if self.transport.get_write_buffer_size():
                self._owner.plane.loop.call_later(FLUSH, self.transport.abort)
            self.transport.close()

    def abort(self) -> None:
        """Close it at once: the backend need not finish (the client went away)."""
        self.exchange = None
        self._state = CLOSED
        self.transport.abort()

    # --- for the exchange

    def begin(self, exchange: Attempts) -> None:
        """Lend it to an exchange, whose request is about to be written."""
        self.exchange = exchange
        self._state = HEAD
        self._interim = 0
        self.received = 0

    def pause(self) -> None:
        """Stop reading: the client does not take what there is."""
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Go on reading."""
        if not self.transport.is_closing():
            self.transport.resume_reading()

    # --- framing

    def _head(self, exchange: Attempts, data: bytes) -> None:
        searched = len(self._buffer)
        if searched:
            data = self._buffer + data
        elif exchange.fast_answer and self._known_to is exchange.site.fast_response and not exchange.body_open:
            known = self._known_head
            if data.startswith(known) and self._known_answer[0] not in exchange.retry_statuses:
                self._fast(exchange, data, len(known), self._known_answer)
                return
        limits = exchange.site.limits
        while True:
            end = find_head_end(data, searched - 3)
            searched = 0
            if end < 0 or end > limits.response_head:
                if len(data) > limits.response_head:
                    raise WireError(Failure.BAD_RESPONSE, "The backend's response head is too large.")
                if not data.startswith(b"HTTP/1.") and not b"HTTP/1.".startswith(data):
                    raise WireError(Failure.BAD_RESPONSE, "The backend does not speak HTTP/1.")
                self._buffer = data
                return
            self._buffer = b""
            head_bytes = data if end == len(data) else data[:end]
            if exchange.fast_answer and not exchange.body_open:
                fast = exchange.site.fast_response(head_bytes)
                if fast is not None and fast[0] not in exchange.retry_statuses:
                    self._known_head = head_bytes
                    self._known_answer = fast
                    self._known_to = exchange.site.fast_response
                    self._fast(exchange, data, end, fast)
                    return
            head = self._checked(head_bytes, limits)
            data = data[end:]
            if head.status >= 200:
                break
            self.received += end
            if self._interim_answer(exchange, head, data):
                return
            if not data:
                return
        self._final(exchange, head, data, end)

    def _checked(self, data: bytes, limits: HeadLimits) -> ResponseHead:
        """A head that is taken apart: because it is not clean, or because a route changes it. The last one is known."""
        known = self._checked_head
        if known is None or data != self._checked_bytes or limits is not self._checked_by:
            known = check_response_head(data, limits)
            if len(data) > LARGEST_KNOWN or len(known.fields) > MOST_KNOWN_FIELDS:
                return known
            self._checked_bytes, self._checked_by, self._checked_head = data, limits, known
        return known.copy()

    def _fast(self, exchange: Attempts, data: bytes, end: int, fast: FastResponse) -> None:
        """A clean head, forwarded as a slice (PERFORMANCE.md section 2), and so is a body that needs no work."""
        status, length, cut_start, cut_end = fast
        if length < 0 and not is_plain(data, end):
            self._fast_chunked(exchange, data, end, fast)
            return
        total = len(data)
        if length < 0:
            length = total - end
        left = length - (total - end)
        self.received += total
        self._keep = True
        if left < 0:
            # Bytes behind the answer: they are nobody's, and the connection goes (R2).
            data = data[: end + length]
            self._keep = False
        elif left:
            self._state = LENGTH
            self._left = left
        exchange.fast_head(status, data, end, cut_start, cut_end, left <= 0)
        if left <= 0:
            self._finish(exchange, keep=self._keep)

    def _fast_chunked(self, exchange: Attempts, data: bytes, end: int, fast: FastResponse) -> None:
        """A clean head of which the chunks are not all here, or not plain: they are read and written anew."""
        status, _, cut_start, cut_end = fast
        self.received += end
        self._keep = True
        self._state = CHUNKED
        self._decoder = ChunkedDecoder(response=True, keep_trailers=exchange.site.trailers)
        body = data[end:]
        exchange.fast_head(status, data[:end], end, cut_start, cut_end, bool(body))
        exchange.chunk_anew()
        if body:
            self._chunked(exchange, body)
            exchange.flush_answer()

    def _interim_answer(self, exchange: Attempts, head: ResponseHead, data: bytes) -> bool:
        """A 1xx: relayed, or the switch to a tunnel. → whether reading the head is over."""
        if head.status == 101:
            if not exchange.websocket or head.upgrade != b"websocket":
                raise WireError(Failure.BAD_RESPONSE, "The backend switched protocols without being asked.")
            self._state = TUNNEL
            self.received += len(data)
            exchange.start_tunnel(self, head, data)
            return True
        self._interim += 1
        if self._interim > MAX_INTERIM:
            raise WireError(Failure.BAD_RESPONSE, "The backend sent too many interim answers.")
        exchange.interim(head)
        return False

    def _final(self, exchange: Attempts, head: ResponseHead, data: bytes, end: int) -> None:
        self.received += end
        if head.status in exchange.retry_statuses and exchange.retry_answer(head):
            return
        self._keep = head.keep_alive
        if not has_body(exchange.method, head):
            exchange.head(head, body=False, more=True)
            self.received += len(data)
            self._finish(exchange, keep=head.keep_alive and not data)
            return
        exchange.head(head, body=True, more=bool(data))
        if head.chunked:
            self._state = CHUNKED
            self._decoder = ChunkedDecoder(response=True, keep_trailers=exchange.site.trailers)
            if data:
                self._chunked(exchange, data)
        elif head.content_length >= 0:
            self._state = LENGTH
            self._left = head.content_length
            if data or not self._left:
                self._length(exchange, data)
        else:
            self._state = UNTIL_CLOSE
            self._keep = False
            if data:
                self.received += len(data)
                exchange.answer_body(data)
        exchange.flush_answer()

    def _length(self, exchange: Attempts, data: bytes) -> None:
        size = len(data)
        self.received += size
        left = self._left - size
        if left > 0:
            self._left = left
            exchange.answer_body(data)
            return
        if left < 0:
            data = data[:left]
            self._keep = False
        if data:
            exchange.answer_body(data, more=True)
        self._finish(exchange, keep=self._keep)

    def _chunked(self, exchange: Attempts, data: bytes) -> None:
        self.received += len(data)
        decoder = self._decoder
        assert decoder is not None
        payload = decoder.feed(data)
        if payload:
            exchange.answer_body(payload, more=decoder.done)
        if decoder.done and not exchange.over:
            exchange.answer_trailers = decoder.trailers
            self._finish(exchange, keep=self._keep and not decoder.rest)

    def _finish(self, exchange: Attempts, *, keep: bool) -> None:
        """The answer is complete: give the connection back, then let the exchange end."""
        self.exchange = None
        self._decoder = None
        now = monotonic()
        if keep and not exchange.body_open and not self.write_paused and not self.transport.is_closing():
            self._state = IDLE
            if exchange.response_paused:
                self.resume()
            self.reused = True
            self.idle_since = now
        else:
            # Also when the answer came before the backend had the whole request: where the next one begins would be a
            # guess.
            keep = False
            self._state = CLOSED
            self.transport.abort()
        exchange.answered(self, keep, now)
