"""Upstream connections: the kept connections to one backend in this worker, and who waits for one.

Taken last in, first out: the warm ones are used, the others age and go. A connection is given out only when it is open,
not expired and has said nothing since its last answer. Dialing needs a task; taking a kept one does not.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from gogate_py import backend_tls
from gogate_py.clock import monotonic
from gogate_py.dataplane.deadlines import INFINITE
from gogate_py.dataplane.dial import DialError, dial
from gogate_py.dataplane.upstream import Upstream
from gogate_py.errors import Failure

if TYPE_CHECKING:
    from gogate_py.dataplane.attempts import Attempts
    from gogate_py.dataplane.live_backend import LiveBackend
    from gogate_py.dataplane.plane import Plane
    from gogate_py.snapshot import HttpTransport

_EXPIRY_PERIOD: Final = 1.0


class UpstreamConnections:
    """All HTTP connections of this worker to one backend. ``settings`` follow the snapshot.

    Every connection that exists or is being dialed is counted in ``_open`` once: from the start of its dial to its
    ``lost``, or to the dial's failure.
    """

    __slots__ = ("_idle", "_open", "_waiting", "backend", "deadline", "plane", "settings")

    def __init__(self, plane: Plane, backend: LiveBackend, settings: HttpTransport) -> None:
        self.plane = plane
        self.backend = backend
        self.settings = settings
        self.deadline = INFINITE
        self._idle: list[Upstream] = []  # oldest first
        self._open = 0
        self._waiting: deque[Attempts] = deque()

    def __repr__(self) -> str:
        idle, waiting = len(self._idle), len(self._waiting)
        return f"<{self._open} connections to {self.backend.address}, {idle} idle, {waiting} waiting>"

    @property
    def idle(self) -> int:
        """Kept connections."""
        return len(self._idle)

    def take(self, careful: bool) -> Upstream | None:
        """A kept connection, or None. ``careful``: ask the kernel whether it was closed (for requests that cannot be
        sent twice)."""
        idle = self._idle
        while idle:
            upstream = idle.pop()
            if upstream.usable(careful):
                return upstream
            upstream.close()
        return None

    def connect(self, exchange: Attempts) -> None:
        """Dial for an exchange, or let it wait when maxConnsPerHost is reached. It hears of the outcome."""
        limit = self.settings.max_conns_per_host
        if limit and self._open >= limit:
            if len(self._waiting) >= self.settings.pending_per_backend:
                exchange.not_connected(Failure.QUEUE_FULL, Failure.QUEUE_FULL.detail)
                return
            self._waiting.append(exchange)
            exchange.queued(monotonic() + self.backend.queue_timeout)
            return
        self._open += 1
        self.plane.spawn(self._dial(exchange))

    async def _dial(self, exchange: Attempts) -> None:
        try:
            upstream, error = await self._reach(exchange)
        except BaseException:
            self._gone()
            if exchange.dials(self):
                exchange.answer(Failure.INTERNAL)
            raise
        if upstream is None:
            self._gone()
            if exchange.dials(self):
                if error is None:
                    exchange.not_connected(Failure.CONNECT_FAILED, "The backend's name does not resolve.")
                else:
                    exchange.not_connected(error.failure, error.text)
        elif upstream.transport.is_closing():  # accepted and closed at once; ``lost`` counts it
            if exchange.dials(self):
                exchange.not_connected(Failure.UPSTREAM_RESET, Failure.UPSTREAM_RESET.detail)
        elif exchange.dials(self):
            exchange.connected(upstream)
        else:  # nobody's any more: its exchange is over, or tries another backend (perTryTimeout)
            self.put(upstream)

    async def _reach(self, exchange: Attempts) -> tuple[Upstream | None, DialError | None]:
        """Try every address of the backend's name before the backend is given up; → a connection, or why there is
        none."""
        backend = self.backend
        tls = backend.tls
        error: DialError | None = None
        for _ in range(len(backend.endpoints)):
            try:
                _, upstream = await dial(
                    self.plane.loop,
                    lambda: Upstream(self, tls),
                    backend.endpoint(),
                    self.settings.dial_timeout,
                    tls,
                    backend_tls.HTTP,
                )
            except DialError as failed:
                backend.count_connect(failed.result)
                error = failed
                if not exchange.dials(self) or failed.failure is Failure.NO_DESCRIPTORS:
                    break
                continue
            backend.count_connect("ok")
            return upstream, None
        if error is not None:
            if error.failure is Failure.NO_DESCRIPTORS:
                self.plane.admission.out_of_resources(error.text)
            else:
                self.plane.unreachable(backend, error.text)
        return None, error

    def forget(self, exchange: object) -> None:
        """An exchange does not wait any more."""
        for waiting in self._waiting:
            if waiting is exchange:
                self._waiting.remove(waiting)
                return

    def put(self, upstream: Upstream) -> None:
        """A connection is free again: for who waits, else kept if there is room."""
        backend = self.backend
        plane = self.plane
        leaving = (
            plane.draining
            or plane.table.rows.get(backend.row) is not backend
            or not backend.up
            or upstream.tls is not backend.tls
        )
        if self._waiting and not (leaving or upstream.expired(upstream.idle_since)):
            self._waiting.popleft().connected(upstream)
            return
        idle = self._idle
        if leaving or len(idle) >= self.settings.max_idle_per_host:
            upstream.close()
            return
        if self.deadline == INFINITE:
            self.deadline = upstream.idle_since + _EXPIRY_PERIOD
            plane.deadlines.add(self)
        upstream.reused = True
        idle.append(upstream)

    def lost(self, upstream: Upstream) -> None:
        """A connection is closed, whoever closed it."""
        try:
            self._idle.remove(upstream)
        except ValueError:
            pass
        self._gone()

    def _gone(self) -> None:
        self._open -= 1
        if self._waiting:
            self._open += 1
            exchange = self._waiting.popleft()
            exchange.queued(INFINITE)
            self.plane.spawn(self._dial(exchange))

    def on_deadline(self, now: float) -> None:
        """Close what was idle for too long (the oldest are first) or lived too long."""
        limit = now - self.settings.idle_timeout
        kept: list[Upstream] = []
        for upstream in self._idle:
            if upstream.idle_since <= limit or upstream.expired(now):
                upstream.close()
            else:
                kept.append(upstream)
        self._idle = kept
        if kept:
            self.deadline = now + _EXPIRY_PERIOD
        else:
            self.deadline = INFINITE
            self.plane.deadlines.discard(self)

    def close_idle(self) -> None:
        """Close the idle connections; those at work close when they are done."""
        idle, self._idle = self._idle, []
        for upstream in idle:
            upstream.close()
