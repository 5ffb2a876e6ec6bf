"""AnswerRelay: the half of an exchange that brings the backend's answer to the client.

Framing towards the client is decided here, anew for each answer (RFC 9112 section 6): a length stays a length,
everything else is chunked to HTTP/1.1 and ended by closing to HTTP/1.0. Whether the client connection survives the
answer is decided here, too. Picking, retrying and ending are Exchange's.
"""

from __future__ import annotations

from typing import Final

from gogate_py.clock import monotonic
from gogate_py.dataplane.body_watch import BODY_CHECK
from gogate_py.dataplane.exchange_state import ExchangeState
from gogate_py.middleware.response_cache import CHUNKED, UNTIL_CLOSE
from gogate_py.wire.chunked import encode_chunk
from gogate_py.wire.forwarding import interim_head, response_head
from gogate_py.wire.head_check import ResponseHead

#: What is read and thrown away of a request body that an early answer left over, to keep the connection.
DRAIN_LIMIT: Final = 64 * 1024


class AnswerRelay(ExchangeState):
    """Writes the answer of one exchange to its client, and carries the client's back-pressure to the backend."""

    def awaits_continue(self) -> bool:
        """Whether the client still waits for the backend's 100 Continue before it sends the body (RFC 9110 10.1.1)."""
        checked = self.checked
        return checked is not None and checked.expect_continue and not self._continued and not self.body_seen

    def _closes(self) -> bool:
        """Whether the client connection must be closed after this answer."""
        downstream = self.downstream
        site = self.site
        if not downstream.keep_alive:
            return True
        if (site.draining or site.memory.tight or downstream.is_leaving()) and not downstream.has_more():
            return True
        # What is left of the request body must be read to find the next request: only a little is. A client that was
        # never told to continue may or may not send it: there is no next request to be found.
        return self.body_open and (self.body_chunked or self.body_left > DRAIN_LIMIT or self.awaits_continue())

    def fast_answers(self) -> bool:
        """Whether answers pass unchanged, but for framing and our own lines."""
        return self.route is None or (self.route.plain_answers and not self.new_cookie)

    def _answered_at_first(self) -> None:
        """The answer's head is here: what a try is timed by ends, and the balancer may learn how long it took."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        backend = self.backend
        if backend is not None and backend.latency is not None:
            now = monotonic()
            if self.status < 500 and self.status != 429:
                backend.latency.observe(now - self._begun_at, now)
            else:
                backend.latency.observe_failure(now - self._begun_at, now)

    def fast_head(self, status: int, data: bytes, end: int, cut_start: int, cut_end: int, more: bool) -> None:
        """A clean final head at the start of ``data``, with what of the body is passed on as it came; forwarded with a
        line changed. ``more``: the rest of the answer, or its end, follows in a moment, and it goes out with that."""
        self.status = status
        self.head_out = True
        if self._timed:
            self._answered_at_first()
        downstream = self.downstream
        line = b"X-Request-ID: " + self.request_id + b"\r\n\r\n"
        site = self.site
        if (not downstream.keep_alive or site.draining or site.memory.tight or site.leaving) and self._closes():
            downstream.keep_alive = False
            line = b"Connection: close\r\n" + line
        if cut_end:
            out = b"".join((data[:cut_start], data[cut_end : end - 2], line, data[end:]))
        else:
            out = b"".join((data[: end - 2], line, data[end:]))
        self.sent_bytes = len(out)
        if more:
            self._answer_held = out
        else:
            downstream.write(out)
            downstream.deadline = monotonic() + BODY_CHECK

    def _edited(self, head: ResponseHead, body: bool) -> None:
        """Let the route's cache look at an answer, and its filters change it."""
        route = self.route
        assert route is not None
        if route.cache is not None:
            length = head.content_length if head.content_length >= 0 else CHUNKED if head.chunked else UNTIL_CLOSE
            self._recording = route.cache.begin(self, head.status, head.fields, length if body else 0)
        fields = list(head.fields)
        self._filter(head.status, fields)
        head.fields = fields

    def _filter(self, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        """What every answer of this exchange is given, the gateway's own included."""
        if self.route is not None:
            for change in self.route.filters:
                change(self, status, fields)
        if self.new_cookie:
            fields.append((b"Set-Cookie", self.new_cookie))

    def interim(self, head: ResponseHead) -> None:
        """A 1xx; HTTP/1.0 clients do not know them."""
        if head.status == 100:
            self._continued = True
        if self.minor:
            self._interim_out = True
            self.downstream.write(interim_head(head))

    def head(self, head: ResponseHead, *, body: bool, more: bool = False) -> None:
        """A final head that passed the check: write ours; with the body of which some is here already, if ``more``."""
        self.status = head.status
        self.head_out = True
        close = self._closes()
        length = head.content_length
        if body and length < 0:
            if self.minor:
                self._chunked = True
            else:
                self._close_delimited = close = True
        for name, value in head.fields:
            if name.lower() == b"content-type" and value.lower().startswith(b"text/event-stream"):
                self.event_stream = True  # silence is normal there
        downstream = self.downstream
        downstream.keep_alive = not close
        if self._timed:
            self._answered_at_first()
        if not self.fast_answers():
            self._edited(head, body)
        out = response_head(
            head,
            1,
            length=length,
            chunked=self._chunked,
            close=close,
            request_id=self.request_id,
            keep_alive_10=not self.minor and not close,
        )
        self.sent_bytes = len(out)
        if more:
            self._answer_held = out
        else:
            downstream.write(out)
        downstream.deadline = monotonic() + BODY_CHECK

    def chunk_anew(self) -> None:
        """The head that was passed on said that the body is chunked; its payload is to be written as such."""
        self._chunked = True
        self.downstream.deadline = monotonic() + BODY_CHECK

    def flush_answer(self) -> None:
        """What waited for more of the answer goes out."""
        held, self._answer_held = self._answer_held, b""
        if held:
            self.downstream.write(held)

    def answer_body(self, data: bytes, *, more: bool = False) -> None:
        """Bytes of the answer's body. ``more``: others, or its end, follow in a moment and go out with them."""
        if self._recording is not None:
            self._recording.feed(data)
        if self._chunked:
            data = encode_chunk(data)
        self.sent_bytes += len(data)
        if self._answer_held:
            data = self._answer_held + data
            self._answer_held = b""
        if more:
            self._answer_held = data
        else:
            self.downstream.write(data)

    def pause_response(self) -> None:
        """The client does not take what there is: stop reading the backend."""
        self.response_paused = True
        if self.upstream is not None:
            self.upstream.pause()

    def resume_response(self) -> None:
        """Go on reading the backend."""
        if self.response_paused:
            self.response_paused = False
            if self.upstream is not None:
                self.upstream.resume()
