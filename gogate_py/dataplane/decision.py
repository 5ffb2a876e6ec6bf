"""WatchedExchange: an exchange that notes when things happened to it, for its decision record, its spans and the timers
in its access line.

An ordinary exchange reads two clocks. One that is watched reads one at each step, and knows afterwards where the time
went. It is a class of its own, so that the others pay nothing: what is chosen is the class, once, where the request
comes in (request_intake). It decides nothing: every method here notes and then does what the ordinary one does.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

from gogate_py.clock import monotonic
from gogate_py.dataplane.deadlines import INFINITE
from gogate_py.dataplane.exchange import Exchange
from gogate_py.errors import Failure
from gogate_py.messages import Timers, Try
from gogate_py.middleware.chain import Outcome

if TYPE_CHECKING:
    from gogate_py.dataplane.downstream import Downstream
    from gogate_py.dataplane.http_site import HttpSite
    from gogate_py.dataplane.live_backend import LiveBackend
    from gogate_py.dataplane.live_pool import LivePool
    from gogate_py.dataplane.live_route import Chosen, LiveRoute
    from gogate_py.dataplane.tracing import TraceContext
    from gogate_py.dataplane.upstream import Upstream
    from gogate_py.wire.head_check import ResponseHead

#: Fields that answer an X-Gogate-Trace: the record's id, and the timers that are known when an answer begins.
TRACE_ID: Final = b"X-Gogate-Trace-Id"
SERVER_TIMING: Final = b"Server-Timing"


class TryTimes:
    """One try at a backend, in monotonic seconds; 0.0: did not happen."""

    __slots__ = (
        "backend", "begun", "connected", "detail", "ended", "first_byte", "number", "queue_end", "queued", "reason",
        "reused", "span_id", "status", "trial",
    )  # fmt: skip

    def __init__(self, backend: LiveBackend, number: int, begun: float, trial: bool) -> None:
        self.backend = backend
        self.number = number
        self.begun = begun
        self.trial = trial
        self.span_id = b""  # where its trace is sampled
        self.queued = 0.0  # for one of maxConnsPerHost connections, from then on …
        self.queue_end = 0.0  # … until then
        self.connected = 0.0
        self.reused = False
        self.first_byte = 0.0
        self.ended = 0.0
        self.status = 0
        self.reason = ""
        self.detail = ""

    def queue(self) -> float:
        """Seconds of waiting for a connection to be free."""
        return (self.queue_end or self.ended) - self.queued if self.queued else 0.0

    def connect(self) -> float:
        """Seconds of connecting, also in vain."""
        return max(0.0, (self.connected or self.ended) - self.begun - self.queue()) if not self.reused else 0.0

    def shown(self, start: float) -> Try:
        """As a record has it."""
        return Try(
            self.backend.address,
            _ms(self.begun - start),
            _ms(self.queue()) if self.queued else None,
            _ms(self.connect()),
            self.reused,
            self.trial,
            _ms(self.first_byte - self.connected) if self.first_byte else None,
            _ms(self.ended - self.begun),
            self.status,
            self.reason,
            self.detail,
        )


class Timeline:
    """When things happened to one exchange. ``head_since``: when its head began, 0.0 when it came in one piece."""

    __slots__ = ("cause", "detail", "head_since", "queue", "queued", "received", "split", "tries", "waited")

    def __init__(self, head_since: float) -> None:
        self.head_since = head_since
        self.received = 0.0  # the end of the body
        self.queued = 0.0  # waiting for a backend with room since
        self.queue = 0.0  # seconds that it waited so
        self.tries: list[TryTimes] = []
        self.cause = ""  # what is about to end a try
        self.detail = ""
        self.waited: dict[int, float] = {}  # by stage
        self.split = ""  # why this arm

    def stop_queue(self, now: float) -> None:
        """It does not wait for room any more."""
        if self.queued:
            self.queue += now - self.queued
            self.queued = 0.0

    def end_try(self, now: float, status: int, reason: str, detail: str = "") -> None:
        """The try that runs is over, if one does."""
        if self.tries and not self.tries[-1].ended:
            last = self.tries[-1]
            last.ended = now
            last.status, last.reason, last.detail = status or last.status, reason, detail

    def timers(self, started: float, now: float) -> Timers:
        """Where the time went, so far."""
        received = (self.received or started) - (self.head_since or started)
        if not self.tries:
            return Timers(_ms(now - started), _ms(received), _ms(self.queue) if self.queue else None)
        last = self.tries[-1]
        return Timers(
            _ms(now - started),
            _ms(received),
            _ms(self.queue + sum(one.queue() for one in self.tries)),
            _ms(sum(one.connect() for one in self.tries if one.connected or one.ended)),
            _ms(last.first_byte - last.connected) if last.first_byte else None,
        )


def _ms(seconds: float) -> float:
    return round(max(0.0, seconds) * 1000, 3)


class WatchedExchange(Exchange):
    """An exchange with a timeline. ``kept``: why a record of it is kept, "" when none is (yet)."""

    timeline: Timeline

    def __init__(
        self, site: HttpSite, downstream: Downstream, kept: str = "", trace: TraceContext | None = None
    ) -> None:
        super().__init__(site, downstream)
        self.trace = trace if trace is not None and trace.sampled else None
        self.kept = kept
        self.asked = kept == "asked"
        self.record_id = b""
        self.timeline = Timeline(downstream.head_since())

    def id(self) -> bytes:
        """What its record is found by: its request id, unless the client chose that."""
        if not self.record_id:
            self.record_id = self.site.request_id() if self.id_claimed else self.request_id
        return self.record_id

    # --- the way down

    def start(self) -> None:
        if self.asked:
            self.fast_answer = False
        super().start()

    async def _await_stage(self, route: LiveRoute, name: str, waiting: Awaitable[Outcome]) -> None:
        place, since = self._stage, monotonic()

        async def timed() -> Outcome:
            try:
                return await waiting
            finally:
                self.timeline.waited[place] = monotonic() - since

        await super()._await_stage(route, name, timed())

    def _chosen(self, chosen: Chosen) -> LivePool:
        self.timeline.split = chosen.why
        return super()._chosen(chosen)

    def request_end(self) -> None:
        self.timeline.received = monotonic()
        super().request_end()

    def _pick(self) -> None:
        super()._pick()
        if self.waiting:
            self.timeline.queued = monotonic()

    def room(self) -> bool:
        since = self.timeline.queued
        self.timeline.stop_queue(monotonic())
        if super().room():
            return True
        self.timeline.queue -= monotonic() - since  # it goes on
        self.timeline.queued = since
        return False

    def waited_too_long(self) -> None:
        self.timeline.stop_queue(monotonic())
        super().waited_too_long()

    # --- tries

    def _connect(self, backend: LiveBackend) -> None:
        line = self.timeline
        line.cause = line.detail = ""
        one = TryTimes(backend, len(line.tries), monotonic(), self._trial)
        line.tries.append(one)
        if self.trace is not None and self.site.decisions.tracer is not None:
            one.span_id = self.site.decisions.tracer.span_id()
        super()._connect(backend)

    def _make_outbound(self) -> None:
        if self.trace is None:
            super()._make_outbound()
            return
        lines = self.backend_lines
        self.backend_lines = lines + self.trace.lines(self.timeline.tries[-1].span_id or self.trace.span_id)
        super()._make_outbound()
        self.backend_lines = lines

    def queued(self, until: float) -> None:
        one = self.timeline.tries[-1]
        if until < INFINITE:
            one.queued = monotonic()
        elif not one.queue_end:
            one.queue_end = monotonic()
        super().queued(until)

    def connected(self, upstream: Upstream) -> None:
        one = self.timeline.tries[-1]
        one.connected = monotonic()
        if one.queued and not one.queue_end:
            one.queue_end = one.connected
        one.reused = upstream.reused
        super().connected(upstream)

    def _began(self, status: int) -> None:
        """The head of an answer is here."""
        one = self.timeline.tries[-1]
        if not one.first_byte:
            one.first_byte = monotonic()
        one.status = status

    def fast_head(self, status: int, data: bytes, end: int, cut_start: int, cut_end: int, more: bool) -> None:
        self._began(status)
        super().fast_head(status, data, end, cut_start, cut_end, more)

    def head(self, head: ResponseHead, *, body: bool, more: bool = False) -> None:
        self._began(head.status)
        super().head(head, body=body, more=more)

    def start_tunnel(self, upstream: Upstream, head: ResponseHead, data: bytes) -> None:
        self._began(101)
        super().start_tunnel(upstream, head, data)

    def retry_answer(self, head: ResponseHead) -> bool:
        self._began(head.status)
        self._because(str(head.status))
        return super().retry_answer(head)

    # --- why a try ends

    def _because(self, reason: str, detail: str = "") -> None:
        self.timeline.cause, self.timeline.detail = reason, detail

    def not_connected(self, failure: Failure, detail: str) -> None:
        self._because(failure.reason, detail)
        super().not_connected(failure, detail)

    def upstream_lost(self, reused: bool, failure: Failure = Failure.UPSTREAM_RESET, detail: str = "") -> None:
        stale = reused and self._kept is not None and not self._stale
        self._because("stale_connection" if stale else failure.reason, detail)
        super().upstream_lost(reused, failure, detail)

    def withdraw(self) -> None:
        self._because(Failure.BACKEND_DRAINED.reason)
        super().withdraw()

    def _try_timed_out(self) -> None:
        self._because("per_try_timeout")
        super()._try_timed_out()

    def client_gone(self, reason: str = "") -> None:
        self._because(reason or Failure.CLIENT_GONE.reason)
        super().client_gone(reason)

    def abandon_client(self, reason: str) -> None:
        self._because(reason)
        super().abandon_client(reason)

    def answer(self, failure: Failure, detail: str = "", *, retry_after: int = 0, extra: bytes = b"") -> None:
        self._because(failure.reason, detail)
        super().answer(failure, detail, retry_after=retry_after, extra=extra)

    def _end_attempt(self, *, counts: bool, status: int = 0) -> LiveBackend | None:
        line = self.timeline
        line.end_try(monotonic(), status, line.cause, line.detail)
        return super()._end_attempt(counts=counts, status=status)

    # --- the answer

    def fast_answers(self) -> bool:
        return not self.asked and super().fast_answers()

    def _filter(self, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        super()._filter(status, fields)
        if self.asked:
            # One of a gateway behind this one would be taken for ours.
            fields[:] = [field for field in fields if field[0].lower() != TRACE_ID.lower()]
            fields.append((TRACE_ID, self.id()))
            fields.append((SERVER_TIMING, self._server_timing()))

    def _server_timing(self) -> bytes:
        """The timers that are known when an answer begins (W3C Server Timing)."""
        found = self.timeline.timers(self.started, monotonic())
        named = (
            ("receive", found.receive),
            ("queue", found.queue),
            ("connect", found.connect),
            ("first-byte", found.first_byte),
            ("gateway", found.total),
        )
        return ", ".join(f"{name};dur={value:g}" for name, value in named if value is not None).encode()

    # --- the end

    def _noteworthy(self, what: str, now: float) -> None:
        if not self.kept:
            super()._noteworthy(what, now)

    def complete(self, now: float = 0.0) -> None:
        if self.over:
            return
        now = now or monotonic()
        if self.backend is not None:
            self.last_backend = self.backend.address
        self.timeline.stop_queue(now)
        self.timeline.end_try(now, self.status if self.head_out else 0, self.reason, self.detail)
        super().complete(now)
        self.site.decisions.watched_to_the_end(self, now)
