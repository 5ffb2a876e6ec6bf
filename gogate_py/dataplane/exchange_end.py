"""ExchangeEnd: how an exchange ends — with its backend's answer, an answer of the gateway, a tunnel or nobody there —
and its one completion.

``complete`` runs exactly once on every path; after it ``over`` is True and every late callback is ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gogate_py.clock import monotonic
from gogate_py.dataplane.answer_relay import AnswerRelay
from gogate_py.dataplane.body_watch import BODY_CHECK
from gogate_py.dataplane.deadlines import INFINITE
from gogate_py.dataplane.live_backend import LiveBackend
from gogate_py.dataplane.local_responses import failure_response, wants_text
from gogate_py.dataplane.tunnel import Tunnel
from gogate_py.errors import Failure, Side
from gogate_py.middleware.chain import Answer
from gogate_py.wire.chunked import last_chunk
from gogate_py.wire.forwarding import interim_head
from gogate_py.wire.head_check import ResponseHead
from gogate_py.wire.serializer import field_lines, local_answer, parse_lines

if TYPE_CHECKING:
    from gogate_py.dataplane.upstream import Upstream


class ExchangeEnd(AnswerRelay):
    """The half of an exchange that ends things."""

    def _end_attempt(self, *, counts: bool, status: int = 0) -> LiveBackend | None:
        """Settle with the backend of this attempt, once. ``counts``: the failure is the backend's doing; with the
        ``status`` of an answer where one came. A backend that was picked and not asked yet (back-off) is never blamed.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        backend, self.backend = self.backend, None
        upstream, self.upstream = self.upstream, None
        asked = upstream is not None or self._dialing is not None
        self.queued_until = INFINITE
        if upstream is not None:
            if backend is not None:
                backend.bytes_received += upstream.received
            upstream.abort()
        if self._dialing is not None:
            self._dialing.forget(self)
            self._dialing = None
        if backend is None:
            return None
        self.last_backend = backend.address
        if counts and asked:
            backend.requests_failed += 1
            if status:
                backend.record_status(status, self._trial)
            else:
                backend.record(False, self._trial)
            if backend.latency is not None:
                now = monotonic()
                backend.latency.observe_failure(now - self._begun_at, now)
        self._let_go(backend)
        return backend

    def _let_go(self, backend: LiveBackend) -> None:
        """This exchange does not work at the backend any more."""
        if self._trial:
            backend.release_trial(True)
            self._trial = False
        backend.end()
        pool = self.pool
        if pool is not None and pool.waiting.waiters:
            pool.waiting.freed()

    def client_gone(self, reason: str = "") -> None:
        """The client went away: the backend's work is for nobody, and not its fault. ``reason`` where it was sent
        away."""
        if self.over:
            return
        if self.tunnel is not None:
            self.tunnel.client_lost(reason)
            return
        self._end_attempt(counts=False)
        if not self.head_out:
            self.status = Failure.CLIENT_GONE.status
        self.reason = reason or Failure.CLIENT_GONE.reason
        self.complete()

    def abandon_client(self, reason: str) -> None:
        """The client does not do its part of an answer that has begun: cut it, and do not blame the backend."""
        self._end_attempt(counts=False)
        self.reason = reason
        # By RST: behind a closed window a FIN would not arrive, and the kernel would keep unsent megabytes for minutes.
        self.downstream.cut(reset=True)
        self.complete()

    def answer(self, failure: Failure, detail: str = "", *, retry_after: int = 0, extra: bytes = b"") -> None:
        """Be done with a failure: answer locally, or if something of an answer went out already, cut it."""
        if self.over:
            return
        self._end_attempt(counts=failure.side is Side.UPSTREAM)
        self.detail = detail if detail != failure.detail else ""
        if self.head_out:
            self.reason = failure.reason
            self.cut = True
            self.flush_answer()
            # Never a clean end: chunked stays open, a length stays unfulfilled, and where FIN would be the end, RST
            # says no. Cut before completing: the next request must not be answered into the middle of this answer.
            self.downstream.cut(reset=self._close_delimited)
            self._noteworthy("failed", monotonic())
            self.complete()
            return
        close, extra = self._before_local(failure.reason, failure.status, extra, close=failure.close)
        self._send_local(
            failure_response(
                failure,
                # A client is told which rule it broke; what is wrong behind the gateway (addresses, names) is for the
                # log.
                (detail or failure.detail) if failure.side is Side.CLIENT else failure.detail,
                self.request_id,
                text=wants_text(self.raw_head),
                close=close,
                head_only=self.method == b"HEAD",
                retry_after=retry_after,
                extra=extra,
            )
        )

    def answer_with(self, answer: Answer) -> None:
        """Answer with what a stage made: a redirect, a preflight, a stored answer."""
        close, lines = self._before_local(answer.reason, answer.status, answer.lines, close=False)
        self._send_local(
            local_answer(
                answer.status,
                answer.body,
                close=close,
                extra=lines + b"X-Request-ID: " + self.request_id + b"\r\n",
                head_only=self.method == b"HEAD",
            )
        )

    def _before_local(self, reason: str, status: int, lines: bytes, *, close: bool) -> tuple[bool, bytes]:
        """Count a local answer and decide about its connection; → whether it closes, and its lines as filtered."""
        self.reason = reason
        site = self.site
        site.local_reasons[reason] = site.local_reasons.get(reason, 0) + 1
        close = close or self._closes()
        self.downstream.keep_alive = not close
        if not self.fast_answers():
            fields = parse_lines(lines)
            self._filter(status, fields)
            lines = field_lines(fields)
        if not self.minor and not close:
            lines += b"Connection: keep-alive\r\n"
        self.status = status
        self.head_out = True
        return close, lines

    def _send_local(self, out: bytes) -> None:
        self.sent_bytes = len(out)
        self.downstream.write(out)
        self.complete()

    # --- the end of the answer

    def answered(self, upstream: Upstream, keep: bool, now: float) -> None:
        """The answer is complete, at ``now``; ``keep``: the connection can serve another request.

        Its last bytes go out when everything about it that workers share was told: what a client has seen is counted,
        for its next request in whatever worker, and also when this one is killed in the next moment."""
        if self._chunked:
            end = last_chunk(self.answer_trailers)
            self.sent_bytes += len(end)
            self._answer_held += end
        if self._recording is not None:
            self._recording.finish()
            self._recording = None
        self.upstream = None
        backend = self.backend
        assert backend is not None
        backend.bytes_received += upstream.received
        if self.status < 500:
            backend.requests_ok += 1
        else:
            backend.requests_failed += 1
        if backend.breaker is not None or backend.outlier is not None:
            backend.record_status(self.status, self._trial)
        self._let_go(backend)
        self.flush_answer()
        if keep:
            assert backend.http is not None
            backend.http.put(upstream)
        self.complete(now)

    # --- tunnels (WebSocket)

    def start_tunnel(self, upstream: Upstream, head: ResponseHead, data: bytes) -> None:
        """The backend switched protocols as asked: from here on bytes pass both ways."""
        now = monotonic()
        self.status = 101
        self.head_out = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.tunnel = tunnel = Tunnel(self, upstream, now)
        # A tunnel is a connection and no request in flight: maxConnections is its limit.
        self.site.in_flight -= 1
        if self.backend is not None:
            self.backend.record(True, self._trial)
            self.backend.release_trial(self._trial)
            self._trial = False
        downstream = self.downstream
        fields: list[tuple[bytes, bytes]] = []
        if not self.fast_answers():
            self._filter(101, fields)
        head.fields = [*head.fields, *fields]
        out = interim_head(head)[:-2] + b"X-Request-ID: " + self.request_id + b"\r\n\r\n"
        self.sent_bytes = len(out)
        downstream.deadline = now + BODY_CHECK
        downstream.write(out)
        if data:
            tunnel.backend_data(data)
        downstream.start_tunnel(tunnel)

    def tunnel_over(self, reason: str) -> None:
        """The tunnel ended: settle, and complete. Both connections are the tunnel's to close."""
        backend, self.backend = self.backend, None
        upstream, self.upstream = self.upstream, None
        if backend is not None:
            self.last_backend = backend.address
            if upstream is not None:
                backend.bytes_received += upstream.received
            backend.requests_ok += 1
            self._let_go(backend)
        self.reason = reason
        self.complete()

    # --- the end

    def _noteworthy(self, what: str, now: float) -> None:
        """It failed, or was slow: a record is worth its while."""
        self.site.decisions.noteworthy(self, what, now)

    def complete(self, now: float = 0.0) -> None:
        """Exactly once, on every path: count, log, let the connection go on. ``now``: monotonic seconds, if known."""
        if self.over:
            return
        self.over = True
        if self._dialing is not None:
            self._dialing.forget(self)
        if self.waiting:
            assert self.pool is not None
            self.pool.waiting.leave(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._stage_task is not None:
            self._stage_task.cancel()
        if self._recording is not None:  # it was not finished: what is there is a part
            self._recording.abandon()
            self._recording = None
        site = self.site
        now = now or monotonic()
        duration = now - self.started
        status = self.status
        route = self.route
        codes = route.codes if route is not None else site.unrouted_codes
        codes[status] = codes.get(status, 0) + 1
        if self.tunnel is None:
            site.in_flight -= 1
            (route.durations if route is not None else site.unrouted_durations).observe(duration)
            if (status > 499 or duration > site.slow) and not self.cut:
                self._noteworthy("failed" if status > 499 else "slow", now)
        if site.log_sample >= 1.0 or site.logs_this():
            site.log_request(self, duration, now)
        self.backend = None
        self.downstream.exchange_over(self, now)
