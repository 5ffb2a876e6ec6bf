"""Plane: one worker's data plane, put together. It owns the tables, the listeners and the ticker; the L4 and L7 drivers
hold a reference to it and take from it what they need.

It never sees configuration: what it knows comes as snapshots and state changes, what it has to say leaves through an
Outbox.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol, TypeVar

from gogate_py.arena import Arena
from gogate_py.clock import monotonic, new_random
from gogate_py.dataplane.admission import Admission
from gogate_py.dataplane.backend_table import BackendTable
from gogate_py.dataplane.deadlines import INFINITE, PERIOD, Deadlines
from gogate_py.dataplane.downstream import Downstream
from gogate_py.dataplane.drain_end import end_drains
from gogate_py.dataplane.hangups import Hangups
from gogate_py.dataplane.http_site import HttpSite
from gogate_py.dataplane.intake import Intake
from gogate_py.dataplane.listeners import Listeners, LiveListener
from gogate_py.dataplane.live_backend import LiveBackend
from gogate_py.dataplane.memory_pressure import MemoryPressure
from gogate_py.dataplane.proxy_intake import ProxyIntake
from gogate_py.dataplane.report import Report
from gogate_py.dataplane.services import Services
from gogate_py.dataplane.sni_intake import SniIntake
from gogate_py.dataplane.splice import Splicer
from gogate_py.dataplane.tcp_downstream import TcpDownstream
from gogate_py.dataplane.tcp_relay import TcpRelay
from gogate_py.dataplane.tls_intake import TlsIntake
from gogate_py.dataplane.tunnel import FAREWELL
from gogate_py.dataplane.waiting import WaitingRoom
from gogate_py.messages import Counts, KeySet, LogLines, Unreachable, Up
from gogate_py.middleware.rate_limit import connection_limits
from gogate_py.snapshot import BackendState, Snapshot
from gogate_py.telemetry.access_log import AccessLog
from gogate_py.telemetry.histogram import Histogram
from gogate_py.wire.proxy_protocol import ProxyHeader

log = logging.getLogger("gogate.plane")

T = TypeVar("T")

#: Unsent bytes towards the supervisor beyond which log batches are dropped.
MAX_BACKLOG: Final = 8 << 20
#: A tick that comes later than this is worth a line in the log, seconds (SECURITY.md F15).
STALL_LAG: Final = 1.0


#: Backends that are gone before their garbage is collected: they hold themselves in circles, and the collector hardly
#: ever comes by itself (process/worker.py), so that each reload would take some memory. A few milliseconds.
GARBAGE: Final = 64


class Outbox(Protocol):
    """The way to the supervisor."""

    def send(self, message: Up) -> None:
        """Queue a message; never waits."""
        ...

    def backlog(self) -> int:
        """Bytes queued and not yet taken by the supervisor."""
        ...


class Plane:
    """The data plane of one worker slot. ``column``: the slot's place in the arena (its own number, unless given);
    ``columns``: how many places the arena has in use."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        arena: Arena,
        slot: int,
        columns: int,
        incarnation: int,
        outbox: Outbox,
        column: int | None = None,
    ) -> None:
        self.loop = loop
        self.arena = arena
        self.slot = slot
        self.column = slot if column is None else column
        self.columns = columns
        self.outbox = outbox
        self.random = new_random()
        self.draining = False
        self.drain_by = INFINITE
        self.internal_errors = 0
        self.lag = 0.0
        self.deadlines = Deadlines()
        self.hangups = Hangups(loop)
        self.splicer = Splicer(loop, self.internal_error)
        self.table = BackendTable(
            arena, self.column, columns, self.random, self._backend_removed, lambda: WaitingRoom(loop.call_later)
        )
        self.services = Services(self)
        self.snapshot: Snapshot | None = None
        self.access_log = AccessLog(self._deliver)
        # --- L4
        self.tcp_duration = Histogram()
        self.relays: dict[str, TcpRelay] = {}
        self.connection_limits: dict[str, Callable[[str], bool]] = {}  # by route: may this client have one more?
        self._id_prefix = f"{slot}.{incarnation}."
        self._ids = 0
        # --- L7
        self.memory = MemoryPressure()
        self.http = HttpSite(self, incarnation)
        self.admission = Admission(self)
        self.listeners = Listeners(loop, self._accept_tcp, self._accept_http)
        self._report = Report(self)
        self._forgotten = 0  # backends since the last collection of garbage
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._next_tick = 0.0

    # --- from the supervisor

    async def apply(self, snapshot: Snapshot) -> None:
        """Swap to a snapshot. What runs keeps what it began with; whatever is unchanged keeps its state."""
        self.admission.apply(snapshot)
        self.memory.limit = snapshot.limits.max_memory
        self.access_log.use_format(snapshot.access_log.format)
        self.table.apply(snapshot)
        self.http.apply(snapshot)
        self._apply_connection_limits(snapshot)
        self.services.forget_unused(snapshot)
        self.snapshot = snapshot
        if not self.draining:
            for gone in await self.listeners.apply(snapshot.listeners):
                self.http.leave(gone)

    def _apply_connection_limits(self, snapshot: Snapshot) -> None:
        """What new TCP connections of each route are counted against."""
        self.connection_limits = {}
        for route in (route for listener in snapshot.listeners for route in listener.tcp_routes()):
            limits = [(limit, "") for limit in snapshot.rate_limits] if route.server_limits else []
            limits += [(limit, route.name) for limit in route.rate_limits]
            if limits:
                counted = [(limit, self.services.limiter(limit, owner)) for limit, owner in limits]
                self.connection_limits[route.name] = connection_limits(counted)

    def apply_states(self, changes: Sequence[BackendState]) -> None:
        """Health or draining of backends changed."""
        self.table.apply_states(changes)

    def apply_keys(self, keys: KeySet) -> None:
        """The keys of a jwksUrl are these now."""
        self.services.key_sets.apply(keys)

    def start(self) -> None:
        """Start the ticker."""
        self._next_tick = self.loop.time() + PERIOD
        self._timer = self.loop.call_at(self._next_tick, self._tick)

    async def drain(self, grace: float, drain_idle: float) -> int:
        """Accept nothing more, let everything finish, cut what is left after ``grace`` seconds; → how many were cut."""
        self.draining = True
        self.drain_by = monotonic() + grace
        await self.listeners.close_all()
        self.http.drain(drain_idle)
        for backend in self.table.rows.values():
            if backend.ready is not None:
                backend.ready.close()
        await self._until(lambda: not self.admission.open(), self.drain_by)
        cut = self.admission.open()
        for arriving in list(self.admission.arriving):
            arriving.abort()
        for relay in list(self.relays.values()):
            relay.cut("grace_period")
        self.http.send_away()
        await self._until(lambda: not self.http.clients, monotonic() + FAREWELL)
        self.http.cut()
        await asyncio.sleep(0)
        return cut

    @staticmethod
    async def _until(done: Callable[[], bool], by: float) -> None:
        while not done():
            if monotonic() >= by:
                break
            await asyncio.sleep(0.02)

    def finish(self) -> None:
        """Send the last counters and log lines."""
        if self._timer is not None:
            self._timer.cancel()
        self.services.close()
        self.services.limiters.settle()
        self.table.settle()
        self.access_log.flush()
        self.http.decisions.flush()
        self.outbox.send(self._report.collect())

    # --- for the drivers

    def next_connection_id(self) -> str:
        """An id that no other connection of this machine has while the supervisor lives."""
        self._ids += 1
        return f"{self._id_prefix}{self._ids}"

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine beside everything else; what it raises is an internal error."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.internal_error(error, "task")

    def internal_error(self, error: BaseException, where: str) -> None:
        """Count and log an exception that nobody expected: a bug of gogate."""
        self.internal_errors += 1
        log.error("internal error", exc_info=error, extra={"where": where})

    def unreachable(self, backend: LiveBackend, error: str) -> None:
        """A connect failed: the control plane may want to look."""
        self.outbox.send(Unreachable(backend.row, error))

    # --- inside

    def _accept_tcp(self, listener: LiveListener) -> TcpDownstream | Intake:
        return self._behind_header(listener, self._new_tcp)

    def _accept_http(self, listener: LiveListener) -> Downstream | Intake:
        return self._behind_header(listener, self._new_http)

    def _new_http(self, listener: LiveListener, header: ProxyHeader | None = None) -> Downstream | Intake:
        assert listener.spec is not None
        if listener.spec.tls is not None:
            return TlsIntake(self, listener, header)
        return self.http.accept(listener, header)

    def _new_tcp(self, listener: LiveListener, header: ProxyHeader | None = None) -> TcpDownstream | Intake:
        spec = listener.spec
        assert spec is not None
        if spec.tls is not None:
            return TlsIntake(self, listener, header)
        if spec.sni:
            return SniIntake(self, listener, header)
        assert spec.tcp is not None
        return TcpDownstream(self, listener, spec.tcp, header)

    def _behind_header(self, listener: LiveListener, make: Callable[..., T]) -> T | Intake:
        """The protocol of a new client connection: where a PROXY header is needed, what waits for it comes first."""
        assert listener.spec is not None
        return ProxyIntake(self, listener, make) if listener.spec.accept_proxy else make(listener)

    def _backend_removed(self, backend: LiveBackend) -> None:
        if backend.http is not None:
            backend.http.close_idle()
        if backend.ready is not None:
            backend.ready.close()

    def _deliver(self, lines: bytes, count: int) -> bool:
        if self.outbox.backlog() > MAX_BACKLOG:
            return False
        self.outbox.send(LogLines(True, lines, count))
        return True

    def _tick(self) -> None:
        now = self.loop.time()
        self.lag = max(0.0, now - self._next_tick)
        self._next_tick = now + PERIOD
        self._timer = self.loop.call_at(self._next_tick, self._tick)
        if self.lag > STALL_LAG:
            log.warning("event loop was stalled", extra={"lag_s": round(self.lag, 3)})
        try:
            self.deadlines.sweep()
            end_drains(self, monotonic())
            self.memory.look()
            if self.memory.full:
                self.listeners.pause()
            elif self.listeners.is_paused() and not self.draining:
                self.spawn(self.listeners.resume())
            self.table.settle()
            self.services.limiters.settle()
            self.access_log.flush()
            self.http.decisions.flush()
            # Also when there is nothing to report: a worker that is not heard counts as stuck (process/stalls.py).
            if self._report.due():
                self.outbox.send(self._report.collect())
                self._forgotten += self.table.forget_left()  # their last counts are in it
            else:
                self.outbox.send(Counts([], [], []))
            if self._forgotten >= GARBAGE:
                self._forgotten = 0
                gc.collect()
        except Exception as error:  # the ticker must survive whatever one connection's deadline does
            self.internal_error(error, "tick")
