"""Exchange: one HTTP request with its response, from its checked head to its one completion.

    start ─ route ─ stages ─ pick ─ connect or reuse ─ forward ─ answer ─ complete
                              ↑                │
                              └── try again ───┘   (nothing of an answer came, and the request may be sent again)

An exchange holds the route (and so the snapshot) it began with. It is driven by its Downstream (request bytes, client
gone, deadlines) and by its Upstream (answer, failures), and calls back to both. ``complete`` runs exactly once on every
path; after it ``over`` is True and every late callback is ignored.

When a request may be tried again (RFC 9110 9.2.2, SECURITY.md F1):

    the connection could not be made                    always: nothing was sent, the body so far is still here
    a kept connection was closed before an answer       idempotent method, no body sent; not counted as a try
    a fresh connection was closed before an answer      the same, once
    anything of an answer has arrived                   never

Deadlines are looked at in exchange_deadlines, a switched protocol is a Tunnel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gogate_py.clock import monotonic
from gogate_py.dataplane.answer_relay import AnswerRelay
from gogate_py.dataplane.body_watch import BODY_CHECK
from gogate_py.dataplane.local_responses import failure_response, wants_text
from gogate_py.dataplane.tunnel import Tunnel
from gogate_py.dataplane.upstream_connections import UpstreamConnections
from gogate_py.errors import Failure, Side
from gogate_py.policy.router import NotAllowed
from gogate_py.wire.chunked import encode_chunk, last_chunk
from gogate_py.wire.forwarding import interim_head, request_head
from gogate_py.wire.head_check import ResponseHead

if TYPE_CHECKING:
    from gogate_py.dataplane.backend_table import LiveBackend
    from gogate_py.dataplane.upstream import Upstream

IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"))
#: Tries in all for one request, the first included (config.reference.yaml, retry.attempts).
ATTEMPTS: Final = 2
#: Request body kept while no connection is there; then the client is not read any more.
HIGH_WATER: Final = 64 * 1024


class Exchange(AnswerRelay):
    """One request with its response; its state is declared in exchange_state, relaying the answer in answer_relay."""

    # --- the way down

    def start(self) -> None:
        """Route, pass the stages, go to a backend."""
        site = self.site
        site.in_flight += 1
        found = site.router.match(site.host_key(self.host), self.path, self.method)
        if found is None:
            self.answer(Failure.NO_ROUTE)
            return
        if isinstance(found, NotAllowed):
            self.answer(Failure.METHOD_NOT_ALLOWED, extra=b"Allow: " + found.allow + b"\r\n")
            return
        self.route = found
        if site.in_flight > site.max_in_flight:
            self.answer(Failure.OVERLOADED, retry_after=1)
            return
        if site.max_body and self.body_left > site.max_body:
            self.answer(Failure.BODY_TOO_LARGE)
            return
        for stage in found.stages:
            refusal = stage(self)
            if refusal is not None:
                self.answer(refusal.failure, refusal.detail, retry_after=refusal.retry_after)
                return
        if self.body_open:
            self.downstream.deadline = self.started + BODY_CHECK
        else:
            self.head_sent_at = self.started
            self.downstream.deadline = self.started + found.first_check
        picked = found.pool.pick()
        if picked is None:
            failure, detail, retry_after = found.pool.why_none()
            self.answer(failure, detail, retry_after=retry_after)
            return
        self._go(*picked)

    def _go(self, backend: LiveBackend, trial: bool) -> None:
        """One attempt: take or make a connection to the backend picked."""
        self.backend = backend
        self._trial = trial
        self.attempts += 1
        backend.begin()
        connections = backend.http
        if connections is None:
            connections = backend.http = UpstreamConnections(self.site.plane, backend, backend.transport)
        upstream = connections.take(self.body_open or self.method not in IDEMPOTENT)
        if upstream is not None:
            backend.reused += 1
            self.connected(upstream)
        else:
            self._dialing = connections
            connections.connect(self)

    def queued(self, until: float) -> None:
        """It waits for one of maxConnsPerHost connections, at most until then (INFINITE: not any more)."""
        self.queued_until = until
        if until < self.downstream.deadline:
            self.downstream.deadline = until

    def connected(self, upstream: Upstream) -> None:
        """A connection is there: send what we have of the request."""
        self._dialing = None
        self.upstream = upstream
        upstream.begin(self)
        if not self.outbound:
            self._make_outbound()
        data = self.outbound
        if self._pending:
            # Kept until now: a failed connect tries elsewhere with the same bytes.
            data += b"".join(self._pending)
            self._pending = None
        self._sent = True
        assert self.backend is not None
        self.backend.bytes_sent += len(data)
        upstream.write(data)
        if self.response_paused:
            upstream.pause()
        if self.request_paused and not upstream.write_paused:
            self.resume_request()

    def _make_outbound(self) -> None:
        """The head for the backend, anew from the checked one."""
        checked, route, backend = self.checked, self.route, self.backend
        assert checked is not None
        assert route is not None
        assert backend is not None
        checked.websocket = self.websocket = checked.websocket and route.websocket
        self.outbound = request_head(checked, self.backend_lines, default_host=backend.address.encode())

    def not_connected(self, failure: Failure, detail: str) -> None:
        """No connection could be made: try another backend, or answer. (Not called for an exchange that is over.)"""
        self._dialing = None
        backend = self._end_attempt(counts=failure.side is Side.UPSTREAM)
        if failure.retryable and backend is not None:
            self._again(backend, failure, detail)
        else:
            self.answer(failure, detail, retry_after=1 if failure is Failure.QUEUE_FULL else 0)

    def _again(self, backend: LiveBackend, failure: Failure, detail: str) -> None:
        """Try once more, on another backend if there is one."""
        route = self.route
        assert route is not None
        if self.attempts < ATTEMPTS:
            self._tried = (*self._tried, backend)
            picked = route.pool.pick(self._tried)
            if picked is not None:
                backend.count_retry(failure.reason)
                self._repeat(*picked)
                return
        self.answer(failure, detail)

    def _repeat(self, backend: LiveBackend, trial: bool) -> None:
        self._sent = False
        if self.checked is not None:
            self.outbound = b""  # the backend's name may stand in for a Host
        self._go(backend, trial)

    # --- request body

    def request_data(self, data: bytes) -> None:
        """Body bytes, decoded; to the backend, or kept until there is one."""
        self._to_backend(encode_chunk(data) if self.body_chunked else data)

    def request_end(self) -> None:
        """The body is complete."""
        self.body_open = False
        if self.body_chunked:
            self._to_backend(last_chunk(self.request_trailers))
        self.head_sent_at = now = monotonic()
        self.downstream.deadline = min(self.downstream.deadline, now + BODY_CHECK)

    def _to_backend(self, data: bytes) -> None:
        upstream = self.upstream
        if upstream is not None:
            upstream.send(data)
            if self.backend is not None:
                self.backend.bytes_sent += len(data)
        elif not self._sent:
            if self._pending is None:
                self._pending = []
            self._pending.append(data)
            self._pending_size += len(data)
            if self._pending_size >= HIGH_WATER and self.body_open:
                self.pause_request()

    def pause_request(self) -> None:
        """The backend does not take what there is: stop reading the client."""
        if self.body_open or self.tunnel is not None:
            self.request_paused = True
            self.downstream.pause_for_backend()

    def resume_request(self) -> None:
        """Go on reading the client."""
        if self.request_paused:
            self.request_paused = False
            self.downstream.resume_for_backend()

    # --- the end of the answer

    def answered(self, upstream: Upstream, keep: bool) -> None:
        """The answer is complete; ``keep``: the connection can serve another request."""
        if self._chunked:
            end = last_chunk(self.answer_trailers)
            self.sent_bytes += len(end)
            self.downstream.write(end)
        self.upstream = None
        backend = self.backend
        assert backend is not None
        backend.bytes_received += upstream.received
        ok = self.status < 500
        if ok:
            backend.requests_ok += 1
        else:
            backend.requests_failed += 1
        if backend.breaker is not None:
            backend.breaker.record(ok, self._trial)
            backend.release_trial(self._trial)
        backend.end()
        if keep:
            assert backend.http is not None
            backend.http.put(upstream)
        self.complete()

    # --- failures

    def upstream_lost(self, reused: bool) -> None:
        """The connection was closed before a byte of an answer."""
        may_repeat = self.method in IDEMPOTENT and not self.body_open and not self.body_seen
        backend = self._end_attempt(counts=not reused or not may_repeat)
        if backend is None or not may_repeat:
            self.answer(Failure.UPSTREAM_RESET)
        elif reused:
            # The idle connection was closed under us: no sign of a bad backend, and no attempt used up.
            assert self.route is not None
            picked = self.route.pool.pick(self._tried)
            if picked is None:
                self.answer(Failure.UPSTREAM_RESET)
                return
            self.attempts -= 1
            backend.count_retry("stale_connection")
            self._repeat(*picked)
        else:
            self._again(backend, Failure.UPSTREAM_RESET, Failure.UPSTREAM_RESET.detail)

    def upstream_failed(self, failure: Failure, detail: str) -> None:
        """The backend broke the protocol, timed out or died inside its answer."""
        if not self.over:
            self.answer(failure, detail)

    def _end_attempt(self, *, counts: bool) -> LiveBackend | None:
        """Settle with the backend of this attempt, once. ``counts``: the failure is the backend's doing."""
        backend, self.backend = self.backend, None
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            if backend is not None:
                backend.bytes_received += upstream.received
            upstream.abort()
        if backend is None:
            return None
        self.last_backend = backend.address
        if counts:
            backend.requests_failed += 1
            backend.record(False, self._trial)
        backend.release_trial(self._trial)
        self._trial = False
        backend.end()
        return backend

    def client_gone(self, reason: str = "") -> None:
        """The client went away: the backend's work is for nobody, and not its fault. ``reason`` where it was sent
        away."""
        if self.over:
            return
        if self.tunnel is not None:
            self.tunnel.client_lost()
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
        self.reason = failure.reason
        self.detail = detail if detail != failure.detail else ""
        downstream = self.downstream
        if self.head_out:
            # Never a clean end: chunked stays open, a length stays unfulfilled, and where FIN would be the end, RST
            # says no. Cut before completing: the next request must not be answered into the middle of this answer.
            downstream.cut(reset=self._close_delimited)
            self.complete()
            return
        site = self.site
        site.local_reasons[failure.reason] = site.local_reasons.get(failure.reason, 0) + 1
        close = failure.close or self._closes()
        downstream.keep_alive = not close
        if not self.minor and not close:
            extra += b"Connection: keep-alive\r\n"
        self.status = failure.status
        self.head_out = True
        out = failure_response(
            failure,
            # A client is told which rule it broke; what is wrong behind the gateway (addresses, names) is for the log.
            (detail or failure.detail) if failure.side is Side.CLIENT else failure.detail,
            self.request_id,
            text=wants_text(self.raw_head),
            close=close,
            head_only=self.method == b"HEAD",
            retry_after=retry_after,
            extra=extra,
        )
        self.sent_bytes = len(out)
        downstream.write(out)
        self.complete()

    # --- tunnels (WebSocket)

    def start_tunnel(self, upstream: Upstream, head: ResponseHead, data: bytes) -> None:
        """The backend switched protocols as asked: from here on bytes pass both ways."""
        now = monotonic()
        self.status = 101
        self.head_out = True
        self.tunnel = tunnel = Tunnel(self, upstream, now)
        # A tunnel is a connection and no request in flight: maxConnections is its limit.
        self.site.in_flight -= 1
        if self.backend is not None:
            self.backend.record(True, self._trial)
            self.backend.release_trial(self._trial)
            self._trial = False
        downstream = self.downstream
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
            backend.end()
        self.reason = reason
        self.complete()

    # --- the end

    def complete(self) -> None:
        """Exactly once, on every path: count, log, let the connection go on."""
        if self.over:
            return
        self.over = True
        if self._dialing is not None:
            self._dialing.forget(self)
        site = self.site
        now = monotonic()
        duration = now - self.started
        status = self.status
        route = self.route
        codes = route.codes if route is not None else site.unrouted_codes
        codes[status] = codes.get(status, 0) + 1
        if self.tunnel is None:
            site.in_flight -= 1
            site.durations.observe(duration)
        if site.log_sample >= 1.0 or site.logs_this():
            site.log_request(self, duration)
        self.backend = None
        self.downstream.exchange_over(self, now)
