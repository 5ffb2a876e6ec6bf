"""Downstream: one HTTP connection of a client — bytes to requests, in order, and answers back.

One exchange runs at a time; what the client sends meanwhile (pipelining) waits in a bounded buffer. A request comes the
fast way when the data just read is one complete, provably clean head; anything else takes the complete way, with the
same verdicts (a property test holds the two together).

    state of the connection        what bytes mean                       deadline
    no exchange, buffer empty      the next head begins                  idle (first: request head)
    no exchange, buffer not empty  more of a head                        request head, total
    no exchange, answers unread    buffered                              progress of the client
    exchange, body open            more of its body                      the exchange's
    exchange, body complete        the next head: buffered               the exchange's
    tunnel                         for the other side                    the exchange's
    discarding a body              thrown away, up to a limit            request head
    closing                        thrown away until the client closes   linger, or progress of the client
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from gogate_py.clock import monotonic
from gogate_py.dataplane import ends
from gogate_py.dataplane.client_table import REFUSED
from gogate_py.dataplane.deadlines import INFINITE
from gogate_py.dataplane.exchange_deadlines import check
from gogate_py.dataplane.hangups import send_reset
from gogate_py.dataplane.local_responses import failure_response
from gogate_py.dataplane.read_gate import BACKEND_FULL, BUFFER_FULL, ReadGate, unacknowledged
from gogate_py.dataplane.request_intake import checked_exchange, fast_body_exchange, fast_exchange
from gogate_py.errors import Failure, WireError
from gogate_py.wire.chunked import ChunkedDecoder
from gogate_py.wire.fast_head import FastRequest
from gogate_py.wire.head_check import check_request_head, early_refusal, find_head_end, strip_leading_empty_line
from gogate_py.wire.llhttp_check import RequestFraming
from gogate_py.wire.proxy_protocol import ProxyHeader

if TYPE_CHECKING:
    from gogate_py.dataplane.exchange import Exchange
    from gogate_py.dataplane.exchange_state import ExchangeState
    from gogate_py.dataplane.http_site import HttpSite
    from gogate_py.dataplane.listeners import LiveListener
    from gogate_py.dataplane.secured import Secured
    from gogate_py.dataplane.tunnel import Tunnel

HIGH_WATER: Final = 64 * 1024
LOW_WATER: Final = 16 * 1024
#: How long a kept-alive client of a listener that is gone may still ask, seconds.
LEAVE_IDLE: Final = 2.0
#: Bytes of further requests that may wait while one is served.
PIPELINE_LIMIT: Final = 64 * 1024
#: How long a connection that is being closed waits for the client to close too, seconds.
LINGER: Final = 2.0
#: In each such time a client must take some of what waits for it while no exchange watches it, seconds.
FLUSH: Final = 5.0


class Downstream:
    """One client connection. Lives in its site's ``clients`` from accept to close."""

    __slots__ = (
        "_behind",
        "_blank_line",
        "_buffer",
        "_closing",
        "_decoder",
        "_discard",
        "_head_begun",
        "_header",
        "_in_parse",
        "_known",
        "_known_to",
        "_reading",
        "_searched",
        "_ticket",
        "_tunnel",
        "_unsent",
        "client",
        "deadline",
        "exchange",
        "forward_host",
        "forward_lines",
        "keep_alive",
        "listener",
        "own_lines",
        "scheme",
        "secured",
        "site",
        "transport",
        "trusted",
        "write_paused",
    )

    def __init__(
        self,
        site: HttpSite,
        listener: LiveListener,
        header: ProxyHeader | None = None,
        secured: Secured | None = None,
        ticket: int = REFUSED,
    ) -> None:
        """``header``: what the proxy in front said of the connection, where one is believed (proxy_intake). ``secured``
        where TLS is spoken, with the ``ticket`` of an admission that was before its handshake (tls_intake)."""
        # --- the connection
        self.site = site
        self.listener = listener
        self._header = header
        self._ticket = ticket
        self.secured = secured
        # what it is for the backend: the scheme, and lines of the connection besides the forwarding ones
        self.scheme, self.own_lines = (b"http", b"") if secured is None else (b"https", secured.line)
        self.transport: Any = None
        self.client = ""
        self.trusted = False
        self.deadline = INFINITE
        # forwarding lines of the last Host, made once (request_intake)
        self.forward_host: bytes | None = None
        self.forward_lines = b""
        self._closing = False
        self._tunnel: Tunnel | None = None
        self._reading: ReadGate | None = None
        self.write_paused = False
        self._unsent = -1  # what waited for the client at the last look, -1: not looked at
        # --- the next request
        self._buffer = b""
        self._searched = 0  # of the buffer, for the end of a head
        self._head_begun = True  # the time of a head runs from its first byte; of the first head, from accept
        self._blank_line = False
        self._behind = False  # the last head was of a proxy in front
        self._in_parse = False
        # The last clean head, and who found it so: the same bytes have the same verdict, and many clients repeat them.
        self._known: FastRequest | None = None
        self._known_to: object = None
        # --- the request
        self.exchange: Exchange | None = None
        self.keep_alive = True
        self._decoder: ChunkedDecoder | None = None
        self._discard = 0  # bytes of a body nobody wants, still to be thrown away

    def __repr__(self) -> str:
        what = "closing" if self._closing else "busy" if self.exchange is not None else "idle"
        return f"<client {self.client} {what}, {len(self._buffer)} bytes buffered>"

    # --- asyncio

    def connection_made(self, transport: asyncio.Transport) -> None:
        site = self.site
        self.transport = transport
        self.listener.accepted += 1
        self.listener.active += 1
        self.client = ends.host(ends.source(transport, self._header))
        self.trusted = site.is_trusted(self.client)
        if self._ticket == REFUSED:
            self._ticket = site.plane.admission.enter(self.listener, self.client, self.trusted)
        if self._ticket == REFUSED:
            self._closing = True
            transport.abort()
            return
        transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        site.clients.add(self)
        if self.listener.gone:  # accepted before it went, or its PROXY header came after
            site.leaving.add(self.listener)
        site.plane.deadlines.add(self)
        self.deadline = monotonic() + site.request_header_timeout

    def connection_lost(self, error: Exception | None) -> None:
        self._closing = True
        self.listener.active -= 1
        if self.site.leaving and not self.listener.active:
            self.site.leaving.discard(self.listener)
        self.site.plane.admission.leave(self._ticket)
        self.site.clients.discard(self)
        self.site.plane.deadlines.discard(self)
        if self._reading is not None:
            self._reading.forget()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        try:
            if exchange is None:
                if self._closing:
                    return
                if not (self._buffer or self._discard or self.write_paused):
                    behind = self._behind
                    if behind and self._set_apart(data):
                        return
                    site = self.site
                    fast_request = site.fast_request
                    found = self._known
                    if found is None or found.string != data or self._known_to is not fast_request:
                        found = self._known = site.clean_request(data)
                        self._known_to = fast_request
                    if found is not None:
                        self.keep_alive = found[6] is None
                        self.exchange = exchange = fast_exchange(self, data, found)
                        exchange.start()
                        return
                    if not behind and self._set_apart(data):
                        return
                self._collect(data)
            elif self._tunnel is not None:
                self._tunnel.client_data(data)
            elif exchange.body_open:
                self._body(exchange, data)
            else:
                self._buffer += data
                if len(self._buffer) > PIPELINE_LIMIT:
                    self._pause(BUFFER_FULL)
        except WireError as error:
            self._refuse(error.failure, error.detail)
        except Exception as error:  # the top of a connection: one bad request never ends a worker (T30)
            self._fail(error)

    def eof_received(self) -> bool:
        if self._tunnel is not None:
            # Not read any more: a reset would be gone without a word.
            self._gate().watch(fin=False)
            self._tunnel.client_eof()
            return True
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            # An outstanding answer has nobody to go to (as nginx has it).
            self._closing = True
            exchange.client_gone()
        elif self._buffer and not self._closing and not self.write_paused:
            self._refuse(Failure.BAD_REQUEST, "The connection ended inside a request head.")
        self._closing = True
        self.deadline = monotonic() + FLUSH
        return False  # closed by the transport, after what was written

    def pause_writing(self) -> None:
        self.write_paused = True
        if self.exchange is not None:
            self.exchange.pause_response()

    def resume_writing(self) -> None:
        self.write_paused = False
        self._unsent = -1
        if self.exchange is not None:
            self.exchange.resume_response()
        elif not self._closing:
            self.deadline = monotonic() + self._idle_timeout()
            self._parse_guarded()

    def on_hangup(self, reset: bool) -> None:
        """The client is gone while it was not being read."""
        if reset or self._tunnel is None:
            self.abort()

    # --- for the exchange

    def write(self, data: bytes) -> None:
        """Bytes of an answer."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def write_eof(self) -> None:
        """The last byte of a tunnel went out."""
        if not self.transport.is_closing():
            self.transport.write_eof()

    def backlog(self) -> tuple[int, int]:
        """(bytes of answers held here, bytes that the kernel holds besides): what the client has not taken.

        Without the second a kernel's megabytes would hide for minutes that a slow client does read.
        """
        return int(self.transport.get_write_buffer_size()), unacknowledged(self.transport)

    def head_since(self) -> float:
        """When the head that is here now began, from what its deadline was set by; 0.0 when it came in one piece. To be
        asked before the exchange sets a deadline of its own."""
        timeout = self.site.request_header_timeout
        return min(self.deadline - timeout, monotonic()) if self._head_begun and timeout < INFINITE else 0.0

    def has_more(self) -> bool:
        """Whether more requests of the client are here already."""
        return bool(self._buffer)

    def pause_for_backend(self) -> None:
        """Stop reading: the backend does not take what there is."""
        self._pause(BACKEND_FULL)

    def resume_for_backend(self) -> None:
        """Go on reading."""
        self._resume(BACKEND_FULL)

    def start_tunnel(self, tunnel: Tunnel) -> None:
        """From here on bytes pass both ways; what the client sent early is first."""
        self._tunnel = tunnel
        self.keep_alive = False
        early, self._buffer = self._buffer, b""
        if early:
            tunnel.client_data(early)
        self._resume(BUFFER_FULL)

    def exchange_over(self, exchange: ExchangeState, now: float) -> None:
        """The answer is written, or cannot be: the next request, or the end."""
        if self.exchange is not exchange:
            return
        self.exchange = None
        self._decoder = None
        if self._closing or self._tunnel is not None:
            return
        if not self.keep_alive:
            self.close(linger=exchange.body_open or bool(self._buffer))
            return
        self._head_begun = self._blank_line = False
        if exchange.body_open:
            self._discard = exchange.body_left
            self._buffer = self._throw_away(self._buffer)
        if self._discard:
            self.deadline = now + self.site.request_header_timeout
        elif self.write_paused:
            self.deadline = now + FLUSH
        else:
            site = self.site
            self.deadline = now + (self._idle_timeout() if site.draining or site.leaving else site.idle_timeout)
        if self._reading is not None:
            self._reading.resume(BACKEND_FULL)
        if self._buffer and not self._in_parse:
            self._parse_guarded()

    # --- requests

    def _set_apart(self, data: bytes) -> bool:
        """Serve one complete head that is clean without the lines of a proxy in front; False when it is something
        else."""
        if data.startswith(b"P"):  # a body is announced, most likely: see _checked
            return False
        site = self.site
        apart = site.set_apart(data) if data.find(b"\r\n\r\n") == len(data) - 4 else None
        found = site.clean_request(apart.clean) if apart is not None else None
        if apart is None or found is None:
            self._behind = False
            return False
        self._behind = True  # so will be the next one
        self.keep_alive = found[6] is None
        self.exchange = exchange = fast_exchange(self, data, found, apart)
        exchange.start()
        return True

    def _collect(self, data: bytes) -> None:
        """Bytes between two requests: the rest of a body that nobody wants, then a head."""
        if self._discard:
            data = self._throw_away(data)
            if self._discard:
                return
            self.deadline = monotonic() + self._idle_timeout()
        self._buffer += data
        self._parse()
        if len(self._buffer) > PIPELINE_LIMIT:  # only while the client does not read its answers
            self._pause(BUFFER_FULL)

    def _parse_guarded(self) -> None:
        try:
            self._parse()
        except WireError as error:
            self._refuse(error.failure, error.detail)
        except Exception as error:  # as in data_received
            self._fail(error)

    def _parse(self) -> None:
        """Requests out of the buffer, as long as there is a whole head and nothing in the way."""
        if self._in_parse:
            return
        self._in_parse = True
        try:
            while self._buffer and self.exchange is None and not (self._closing or self.write_paused or self._discard):
                if not self._next_request():
                    break
        finally:
            self._in_parse = False
        if self._reading is not None and len(self._buffer) <= PIPELINE_LIMIT // 2:
            self._resume(BUFFER_FULL)

    def _next_request(self) -> bool:
        """Start the request at the start of the buffer; False when its head is not complete."""
        buffer = self._buffer
        if not self._blank_line and not self._searched and buffer.startswith(b"\r\n"):
            self._blank_line = True
            self._buffer = strip_leading_empty_line(buffer)
            return True
        limits = self.site.limits
        end = find_head_end(buffer, self._searched - 3)
        if end < 0 or end > limits.request_head:
            refusal = early_refusal(buffer, limits, self._searched)
            if refusal is not None:
                raise WireError(refusal)
            self._searched = 0 if buffer == b"\r" else len(buffer)
            if not self._head_begun:
                self._head_begun = True
                self.deadline = monotonic() + self.site.request_header_timeout
            return False
        self._searched = 0
        head_bytes = buffer[:end]
        self._buffer = buffer[end:]
        self.exchange = exchange = self._checked(head_bytes)
        exchange.body_here = exchange.body_open and bool(self._buffer)
        exchange.start()
        if exchange.body_open and self._buffer and self.exchange is exchange:
            data, self._buffer = self._buffer, b""
            self._body(exchange, data)
        exchange.body_came()
        return True

    def _checked(self, head_bytes: bytes) -> Exchange:
        """The exchange of a whole head, which raises WireError when it is none."""
        site = self.site
        if head_bytes.startswith(b"P"):
            apart = None
            found = site.clean_body_request(head_bytes)
            if found is None:
                apart = site.set_apart(head_bytes)
                found = site.clean_body_request(apart.clean) if apart is not None else None
            if found is not None:
                self.keep_alive = found.keep_alive
                return fast_body_exchange(self, head_bytes, found, apart)
        head = check_request_head(head_bytes, site.limits)
        if not RequestFraming.accepts_head(head_bytes, head.chunked or head.content_length > 0):
            raise WireError(Failure.BAD_REQUEST, "The request head is not valid HTTP/1.1.")
        self.keep_alive = head.keep_alive
        if head.chunked:
            self._decoder = ChunkedDecoder(keep_trailers=self.site.trailers)
        return checked_exchange(self, head, head_bytes)

    def _body(self, exchange: Exchange, data: bytes) -> None:
        """Body bytes of the request being served; what is behind them is the next request's."""
        decoder = self._decoder
        if decoder is not None:
            payload = decoder.feed(data)
            exchange.body_seen += len(payload)
            route = exchange.route
            if route is not None and route.max_body and exchange.body_seen > route.max_body:
                exchange.answer(Failure.BODY_TOO_LARGE)
                return
            if payload:
                exchange.request_data(payload)
            if not decoder.done:
                return
            self._buffer = decoder.rest
            exchange.request_trailers = decoder.trailers
        else:
            left = exchange.body_left - len(data)
            if left < 0:
                data, self._buffer = data[:left], data[left:]
                left = 0
            exchange.body_left = left
            exchange.body_seen += len(data)
            exchange.request_data(data)
            if left:
                return
        exchange.request_end()

    def _throw_away(self, data: bytes) -> bytes:
        """The rest of a body that an early answer made useless; → what is behind it."""
        rest = data[self._discard :]
        self._discard -= len(data) - len(rest)
        return rest

    def _refuse(self, failure: Failure, detail: str) -> None:
        """The bytes are not a request: answer, and close; the backend hears nothing of it."""
        if self._closing:
            return
        self.keep_alive = False
        exchange = self.exchange
        if exchange is not None:
            exchange.answer(failure, detail)
            return
        self._buffer = b""
        request_id = self.site.request_id()
        self.site.log_refusal(self.client, failure, detail, request_id)
        self.write(failure_response(failure, detail, request_id, text=False, close=True))
        self.close(linger=True)

    def _fail(self, error: Exception) -> None:
        self.site.plane.internal_error(error, "downstream")
        self._refuse(Failure.INTERNAL, Failure.INTERNAL.detail)

    def _gate(self) -> ReadGate:
        if self._reading is None:
            self._reading = ReadGate(self.transport, self.site.plane.hangups, self)
        return self._reading

    def _pause(self, why: int) -> None:
        if not self._closing:
            self._gate().pause(why, fin=self._tunnel is None)

    def _resume(self, why: int) -> None:
        if self._reading is not None:
            self._reading.resume(why)

    # --- the end

    def close(self, *, linger: bool = False) -> None:
        """Close after what was written. ``linger``: the client may still be sending; it gets time to read the answer
        first, because closing with unread bytes resets the connection and can destroy the answer on its way (RFC 9112
        section 9.6)."""
        if self._closing:
            return
        self._closing = True
        self._buffer = b""
        if self.transport.is_closing():
            return
        if linger:
            self._resume(BACKEND_FULL | BUFFER_FULL)
            self.transport.write_eof()
            self.deadline = monotonic() + LINGER
        else:
            self.transport.close()
            self.deadline = monotonic() + FLUSH

    def cut(self, *, reset: bool) -> None:
        """End an answer that cannot be completed, visibly: by RST where a FIN would look like its end."""
        if reset:
            send_reset(self.transport)
            self.abort()
        else:
            self.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self.transport.abort()

    def is_leaving(self) -> bool:
        """Whether its listener is gone: it is answered, and then sent away."""
        return self.listener.gone

    def is_idle(self) -> bool:
        """Whether it is kept alive between two requests, and owes or is owed nothing."""
        return self.exchange is None and not (
            self._closing or self._head_begun or self._buffer or self._discard or self.write_paused
        )

    def shed(self) -> None:
        """Close an idle connection to make room; it counts as gone at once."""
        self.listener.shed += 1
        self.site.clients.discard(self)
        self.close()

    def cut_off(self, reason: str) -> None:
        """Close at once, whatever runs; ``reason`` is for its access line."""
        exchange, self.exchange = self.exchange, None
        self.abort()
        if exchange is not None:
            exchange.client_gone(reason)

    def drain(self, by: float) -> None:
        """The gateway stops: an idle client may still ask until ``by``; a busy one, or one in the middle of a head, is
        answered."""
        if self.exchange is None and not self._closing and not self._buffer:
            self._head_begun = False
            self.deadline = min(self.deadline, by)

    def _idle_timeout(self) -> float:
        site = self.site
        if site.draining:
            return site.drain_idle
        return LEAVE_IDLE if self.is_leaving() else site.idle_timeout

    def on_deadline(self, now: float) -> None:
        """The time set has come: for the exchange to look, or for the connection to end."""
        exchange = self.exchange
        self.deadline = INFINITE
        if exchange is not None:
            look_again = check(exchange, now)
            if self.exchange is exchange:
                self.deadline = look_again
        elif self._closing or self.write_paused:
            self._check_flush(now)
        elif self._buffer:
            self._refuse(Failure.REQUEST_TIMEOUT, "The request head did not arrive in time.")
        else:
            self.close()

    def _check_flush(self, now: float) -> None:
        """Nothing runs any more, but answers wait for the client: it must take some of them in each FLUSH seconds."""
        waiting, behind = self.backlog()
        unsent = waiting + behind
        if waiting and (self._unsent < 0 or self._unsent - unsent >= max(1, self.site.min_body_rate * FLUSH)):
            self._unsent = unsent
            self.deadline = now + FLUSH
        elif waiting:
            self.cut(reset=True)  # a FIN would wait behind what it does not take
        else:
            self.abort()
