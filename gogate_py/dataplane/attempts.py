"""Attempts: how an exchange gets its request to a backend — pick, wait for room, connect, send, and try again.

When a request may be tried again is policy/retry.py's table; what it needs to know is kept here:

- until a connection is there nothing was sent, and the body so far waits (at most HIGH_WATER, then the client is not
  read);
- what was sent of the body is kept for another try while the route allows one, and only up to retry.bodyBuffer;
- a kept connection that the backend closed under the request is no failed try: the request goes out again at once, if
  it may, and no try is used up.

A try goes to a backend that was not asked yet, in the same arm. Only an answer with a short Retry-After may send it to
the same one again.
"""

from __future__ import annotations

from typing import Final

from gogate_py.clock import monotonic
from gogate_py.dataplane.body_watch import BODY_CHECK
from gogate_py.dataplane.deadlines import INFINITE
from gogate_py.dataplane.exchange_end import ExchangeEnd
from gogate_py.dataplane.live_backend import LiveBackend
from gogate_py.dataplane.upstream import Upstream
from gogate_py.dataplane.upstream_connections import UpstreamConnections
from gogate_py.errors import Failure, Side
from gogate_py.policy.retry import IDEMPOTENT, Kind, Verdict
from gogate_py.wire.chunked import encode_chunk, last_chunk
from gogate_py.wire.forwarding import request_head
from gogate_py.wire.head_check import ResponseHead
from gogate_py.wire.headers import retry_after_seconds

#: Request body kept while no connection is there; then the client is not read any more.
HIGH_WATER: Final = 64 * 1024


class Attempts(ExchangeEnd):
    """The way to a backend and back to another one."""

    # --- pick

    def _pick(self) -> None:
        """The first pick: go to a backend, wait for one with room, or answer."""
        pool = self.pool
        assert pool is not None
        if not pool.waiting.waiters:  # those who wait are first, also in the moment in which a place is free
            picked = pool.pick((), self.pool_key)
            if picked is not None:
                self._go(*picked)
                return
            if not pool.may_have_room():
                failure, detail, retry_after = pool.why_none()
                self.answer(failure, detail, retry_after=retry_after)
                return
        if not pool.may_wait():
            self.answer(Failure.QUEUE_FULL, retry_after=1)
            return
        self.waiting = True
        self.head_sent_at = INFINITE  # nobody can be late with an answer that was not asked yet
        pool.waiting.enter(self, pool.spec.queue_timeout)

    def room(self) -> bool:
        """A backend may have room (waiting.Waiter)."""
        pool = self.pool
        assert pool is not None
        picked = pool.pick(self._tried, self.pool_key)
        if picked is None and pool.may_have_room(self._tried):
            return False
        self.waiting = False
        if picked is None:
            failure, detail, retry_after = pool.why_none()
            self.answer(failure, detail, retry_after=retry_after)
            return True
        self._due_from_now()
        self._go(*picked)
        return True

    def waited_too_long(self) -> None:
        """queueTimeout is over (waiting.Waiter)."""
        self.waiting = False
        self.answer(Failure.QUEUE_TIMEOUT, "Every backend had maxConnections for queueTimeout.", retry_after=1)

    # --- one attempt

    def _go(self, backend: LiveBackend, trial: bool) -> None:
        """An attempt at the backend picked (and counted as working)."""
        self.backend = backend
        self._trial = trial
        self.attempts += 1
        self._connect(backend)

    def _connect(self, backend: LiveBackend) -> None:
        """Take or make a connection to the backend of this attempt."""
        route = self.route
        assert route is not None
        if backend.latency is not None:
            self._timed = True
            self._begun_at = monotonic()
        if route.per_try_timeout:
            self._time_try(route.per_try_timeout)
        connections = backend.http
        if connections is None:
            connections = backend.http = UpstreamConnections(self.site.plane, backend, backend.transport)
        upstream = connections.take(self.method not in IDEMPOTENT)
        if upstream is not None:
            backend.reused += 1
            self.connected(upstream)
        else:
            self._dialing = connections
            connections.connect(self)

    def _time_try(self, seconds: float) -> None:
        """perTryTimeout begins, or begins again."""
        self._timed = True
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.site.plane.loop.call_later(seconds, self._try_timed_out)

    def _due_from_now(self) -> None:
        """Time was spent that the backend which is asked now is not to blame for."""
        if not self.body_open:
            self.head_sent_at = now = monotonic()
            assert self.route is not None
            self.downstream.deadline = min(self.downstream.deadline, now + self.route.first_check)

    def queued(self, until: float) -> None:
        """It waits for one of maxConnsPerHost connections, at most until then (INFINITE: not any more). Meanwhile the
        backend is not late with anything."""
        self.queued_until = until
        if until < INFINITE:
            self.head_sent_at = INFINITE
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if until < self.downstream.deadline:
                self.downstream.deadline = until
            return
        self._due_from_now()
        route = self.route
        assert route is not None
        if route.per_try_timeout:
            self._time_try(route.per_try_timeout)

    def dials(self, connections: UpstreamConnections) -> bool:
        """Whether it still wants one of these connections: a dial may outlast the try that it was begun for."""
        return self._dialing is connections and not self.over

    def connected(self, upstream: Upstream) -> None:
        """A connection is there: send what we have of the request."""
        self._dialing = None
        if self.queued_until < INFINITE:
            self.queued(INFINITE)
        self.upstream = upstream
        upstream.begin(self)
        if not self.outbound:
            self._make_outbound()
        data = self.outbound
        pending = self._pending
        if pending is not None:
            data += b"".join(pending)
            self._pending = None
        self._sent = True
        if self.body_open:
            self.asked_at = monotonic()
        route = self.route
        assert route is not None
        if self._pending_size <= route.body_buffer and (self.method in route.repeatable or self._may_repeat_sent()):
            self._kept, self._kept_size = pending or [], self._pending_size
        assert self.backend is not None
        self.backend.bytes_sent += len(data)
        if self.body_here:
            self._head_held = data
        else:
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

    # --- request body

    def body_came(self) -> None:
        """Whatever of the body was here has been given to it: a head that waited for that goes out."""
        self.body_here = False
        held, self._head_held = self._head_held, b""
        if held and self.upstream is not None:
            self.upstream.send(held)

    def request_data(self, data: bytes) -> None:
        """Body bytes, decoded; to the backend, or kept until there is one."""
        if self._form is not None:
            self._form_data(data)
            if self.over:
                return
        self._to_backend(encode_chunk(data) if self.body_chunked else data)

    def _form_data(self, data: bytes) -> None:
        """Body bytes that a stage waits for, too."""
        assert self._form is not None
        self._form.append(data)
        self._form_left -= len(data)
        if self._form_left < 0:
            self.answer(Failure.BODY_TOO_LARGE, "The request body is too large for what this route reads of it.")

    def request_end(self) -> None:
        """The body is complete."""
        self.body_open = False
        if self.body_chunked:
            self._to_backend(last_chunk(self.request_trailers))
        now = monotonic()
        self.downstream.deadline = min(self.downstream.deadline, now + BODY_CHECK)
        if self.waiting or self._stage_task is not None or self.queued_until < INFINITE:
            return  # nobody can be late with an answer that was not asked yet
        self.head_sent_at = now
        route = self.route
        if route is not None and route.per_try_timeout and self.upstream is not None and not self.head_out:
            self._time_try(route.per_try_timeout)

    def _to_backend(self, data: bytes) -> None:
        upstream = self.upstream
        if upstream is not None:
            if self._head_held:
                # One write for both, one packet for the backend to wake up for.
                held, self._head_held = self._head_held, b""
                upstream.send(held + data)
            else:
                upstream.send(data)
            if self._kept is not None:
                self._keep(data)
            if self.backend is not None:
                self.backend.bytes_sent += len(data)
        elif not self._sent:
            if self._pending is None:
                self._pending = []
            self._pending.append(data)
            self._pending_size += len(data)
            if self._pending_size >= HIGH_WATER and self.body_open and self._form is None:
                self.pause_request()

    def _keep(self, data: bytes) -> None:
        """Keep what was sent, as long as it is little."""
        assert self._kept is not None
        self._kept_size += len(data)
        route = self.route
        if route is None or self._kept_size > route.body_buffer:
            self._kept = None
        else:
            self._kept.append(data)

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

    # --- failures, and trying again

    def _may_repeat_sent(self) -> bool:
        """Whether this request may be sent a second time (RFC 9110 9.2.2). Without retries that is asked because of
        kept connections that are closed under it."""
        route = self.route
        if route is None or route.retry is None:
            return self.method in IDEMPOTENT
        if self.method in IDEMPOTENT:
            return route.retry.may_repeat(self.method, False)
        return route.retry.may_repeat(self.method, self.field(b"idempotency-key") is not None)

    def not_connected(self, failure: Failure, detail: str) -> None:
        """No connection could be made: try another backend, or answer. (Not called for a try that is over.)"""
        backend = self._end_attempt(counts=failure.side is Side.UPSTREAM)
        if backend is None or not failure.retryable or not self._again(backend, "connect", failure.reason):
            self.answer(failure, detail, retry_after=1 if failure.side is Side.GATEWAY else 0)

    def upstream_lost(self, reused: bool, failure: Failure = Failure.UPSTREAM_RESET, detail: str = "") -> None:
        """The connection was closed before a byte of an answer; ``failure``, ``detail``: by what."""
        # Once only (SECURITY.md F1): after that the next dead connection counts as a failed try.
        stale = reused and self._kept is not None and not self._stale
        backend = self._end_attempt(counts=not stale)
        if backend is None:
            self.answer(failure, detail)
        elif stale:
            # The idle connection was closed under us: no sign of a bad backend, and no attempt used up.
            assert self.pool is not None
            picked = self.pool.pick(self._tried, self.pool_key)
            if picked is None:
                self.answer(failure, detail)
                return
            self._stale = True
            self.attempts -= 1
            backend.count_retry("stale_connection")
            self._unsend()
            self._go(*picked)
        elif not self._again(backend, "reset", failure.reason):
            self.answer(failure, detail)

    def upstream_failed(self, failure: Failure, detail: str) -> None:
        """The backend broke the protocol, timed out or died inside its answer."""
        if not self.over:
            self.answer(failure, detail)

    def withdraw(self) -> None:
        """The drain of its backend is over: as if that had died, but nobody's fault."""
        backend = self._end_attempt(counts=False)
        if backend is not None and not self._again(backend, "reset", Failure.BACKEND_DRAINED.reason):
            self.answer(Failure.BACKEND_DRAINED)

    def _try_timed_out(self) -> None:
        """perTryTimeout is over, and no answer began."""
        self._timer = None
        if self.over or self.head_out or self.backend is None:
            return
        if self.body_open and self.upstream is not None and not self.request_paused and not self.awaits_continue():
            return  # the client is still sending: the backend's time begins with the end of the body
        backend = self._end_attempt(counts=True)
        assert backend is not None
        if not self._again(backend, "timeout", "per_try_timeout"):
            self.answer(Failure.RESPONSE_TIMEOUT, "The backend did not answer within retry.perTryTimeout.")

    def retry_answer(self, head: ResponseHead) -> bool:
        """Whether an answer of a status in ``retry_statuses`` is not passed on because another try is made."""
        backend, route = self.backend, self.route
        if self.head_out or backend is None or route is None or route.retry is None:
            return False
        wait = retry_after_seconds(head.fields)
        verdict = self._judge(head.status, another=True, retry_after=wait)
        if not verdict.retry:
            return False
        assert self.pool is not None
        picked = self.pool.pick((*self._tried, backend), self.pool_key)
        if picked is None and wait is not None:
            # Only the same backend is left. It said when to come back: not before, and not too late.
            verdict = self._judge(head.status, another=False, retry_after=wait)
            picked = self.pool.pick(self._tried, self.pool_key) if verdict.retry else None
        if picked is None:
            return False
        delay = max(verdict.wait, route.retry.backoff(self.attempts, self.site.plane.random))
        if not route.withdraw_retry():
            picked.backend.release_trial(picked.trial)
            picked.backend.end()
            return False
        self._tried = (*self._tried, backend)
        self._end_attempt(counts=True, status=head.status)
        backend.count_retry(str(head.status))
        self._repeat(picked.backend, picked.trial, delay)
        return True

    def _judge(self, kind: Kind, *, another: bool = True, retry_after: float | None = None) -> Verdict:
        """What policy/retry says of another try after a failure of this kind. Only where the route has retries."""
        route = self.route
        assert route is not None
        assert route.retry is not None
        return route.retry.verdict(
            kind,
            attempts=self.attempts,
            sent=self._sent,
            repeatable=self._may_repeat_sent(),
            replayable=not self._sent or self._kept is not None,
            answered=self.head_out or self._interim_out,
            another=another,
            retry_after=retry_after,
        )

    def _again(self, backend: LiveBackend, kind: Kind, reason: str) -> bool:
        """Try once more, on another backend; False when that may not be or there is none."""
        route, pool = self.route, self.pool
        assert route is not None
        assert pool is not None
        if route.retry is None or not self._judge(kind).retry:
            return False
        self._tried = (*self._tried, backend)
        picked = pool.pick(self._tried, self.pool_key)
        if picked is None:
            return False
        # A connect that failed brought no load to anybody: with one of three backends dead a third of all requests is
        # tried again, and the budget would turn some of them into errors (SECURITY.md F1).
        if kind != "connect" and not route.withdraw_retry():
            picked.backend.release_trial(picked.trial)
            picked.backend.end()
            return False
        backend.count_retry(reason)
        self._repeat(*picked, route.retry.backoff(self.attempts, self.site.plane.random))
        return True

    def _unsend(self) -> None:
        """What was sent is to be sent again."""
        if self._sent:
            self._sent = False
            self.asked_at = INFINITE
            self._pending, self._pending_size = self._kept, self._kept_size
            self._kept = None
        if self.checked is not None:
            self.outbound = b""  # the backend's name may stand in for a Host

    def _repeat(self, backend: LiveBackend, trial: bool, delay: float) -> None:
        """The next attempt, after a back-off of ``delay`` seconds."""
        self._unsend()
        self.backend = backend
        self._trial = trial
        self.attempts += 1
        if delay > 0.0:
            self.head_sent_at = INFINITE
            self._timer = self.site.plane.loop.call_later(delay, self._backed_off)
        else:
            self._due_from_now()
            self._connect(backend)

    def _backed_off(self) -> None:
        self._timer = None
        if not self.over and self.backend is not None:
            self._due_from_now()
            self._connect(self.backend)
