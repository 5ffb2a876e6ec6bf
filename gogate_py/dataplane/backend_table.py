"""Backend table: the live state of every backend in this worker, which outlives snapshots.

A snapshot names pools and backends; the table keeps one LiveBackend per row (the identity over snapshots) and one
LivePool per name, so that health, breaker, counters and kept connections of an unchanged backend survive a reload.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gogate_py.arena import Arena
from gogate_py.clock import Random
from gogate_py.dataplane.live_backend import LiveBackend
from gogate_py.dataplane.live_pool import LivePool
from gogate_py.dataplane.shared_state import SharedBreaker, SharedOutlier
from gogate_py.dataplane.waiting import WaitingRoom
from gogate_py.policy.balancers import PeakEwma
from gogate_py.policy.circuit_breaker import BreakerPolicy
from gogate_py.policy.outlier import OutlierPolicy
from gogate_py.snapshot import Backend, BackendState, Breaker, Outlier, Pool, Snapshot


class BackendTable:
    """All pools and backends of this worker. ``on_removed`` hears of backends that left, to close their idle
    connections; ``new_waiting`` makes the waiting room of a pool."""

    def __init__(
        self,
        arena: Arena,
        slot: int,
        slots: int,
        random: Random,
        on_removed: Callable[[LiveBackend], None],
        new_waiting: Callable[[], WaitingRoom],
    ) -> None:
        self._arena = arena
        self._slot = slot
        self._slots = slots
        self._random = random
        self._on_removed = on_removed
        self._new_waiting = new_waiting
        self.pools: dict[str, LivePool] = {}
        self.rows: dict[int, LiveBackend] = {}
        # Backends that left while they still had work: their counters are reported until it is done.
        self.leaving: list[LiveBackend] = []
        # Those that drain up to a deadline.
        self._to_end: list[LiveBackend] = []

    def apply(self, snapshot: Snapshot) -> None:
        """Take over a snapshot: update in place what stays, make what is new, let go what is gone."""
        rows: dict[int, LiveBackend] = {}
        pools: dict[str, LivePool] = {}
        for spec in snapshot.pools:
            pool = self.pools.get(spec.name) or LivePool(spec, self._random, self._new_waiting())
            members = []
            for backend_spec in spec.backends:
                backend = self._live(backend_spec, spec)
                rows[backend.row] = backend
                members.append(backend)
            for backend in members:
                self._guard(backend, pool, spec)
            pool.update(spec, members)
            pools[spec.name] = pool
        removed = [backend for row, backend in self.rows.items() if rows.get(row) is not backend]
        gone = [pool for name, pool in self.pools.items() if name not in pools]
        self.rows = rows
        self.pools = pools
        for pool in gone:
            pool.waiting.close()
        for backend in removed:
            self.leaving.append(backend)
            self._on_removed(backend)
        self._note_deadlines()

    def _live(self, spec: Backend, pool: Pool) -> LiveBackend:
        backend = self.rows.get(spec.row)
        if backend is None or backend.address != spec.address or backend.pool_name != pool.name:
            backend = LiveBackend(spec, pool, self._arena, self._slot, self._slots)
        else:
            backend.configure(spec, pool)
            if backend.http is not None:
                backend.http.settings = pool.transport
            if backend.ready is not None:
                if pool.tcp_pool is None:
                    backend.ready.close()
                    backend.ready = None
                else:
                    backend.ready.settings = pool.tcp_pool
        return backend

    def _guard(self, backend: LiveBackend, pool: LivePool, spec: Pool) -> None:
        """Give a backend what its pool watches it with: breaker, outlier detection, latency."""
        backend.breaker = self._breaker(backend, spec.breaker)
        backend.outlier = self._outlier(backend, pool, spec.outlier)
        if not pool.needs_latency:
            backend.latency = None
        elif backend.latency is None:
            backend.latency = PeakEwma()

    def _breaker(self, backend: LiveBackend, settings: Breaker | None) -> SharedBreaker | None:
        if settings is None:
            return None
        breaker = SharedBreaker(self._arena, backend.row, self._slot, self._slots, BreakerPolicy(settings))
        if backend.breaker is not None:
            breaker.take_over(backend.breaker)
        return breaker

    def _outlier(self, backend: LiveBackend, pool: LivePool, settings: Outlier | None) -> SharedOutlier | None:
        if settings is None:
            return None
        outlier = SharedOutlier(self._arena, backend.row, OutlierPolicy(settings), pool.rows_and_usable)
        if backend.outlier is not None:
            outlier.take_over(backend.outlier)
        return outlier

    def apply_states(self, changes: Sequence[BackendState]) -> None:
        """Health or draining changed."""
        touched: set[str] = set()
        for state in changes:
            backend = self.rows.get(state.row)
            if backend is not None:
                backend.set_state(state)
                touched.add(backend.pool_name)
        for name in touched:
            self.pools[name].refresh()
        if self._to_end or any(state.drain_by for state in changes):
            self._note_deadlines()

    def _note_deadlines(self) -> None:
        self._to_end = [backend for backend in self.all_backends() if backend.drain_by]

    def overdue(self, now: float) -> list[LiveBackend]:
        """Backends, those that left included, that still work though their drain is over."""
        return [backend for backend in self._to_end if backend.drain_by <= now and backend.working()]

    def all_backends(self) -> list[LiveBackend]:
        """Every backend with counters to report, those that left included."""
        return [*self.rows.values(), *self.leaving]

    def take_contended(self) -> int:
        """How often a breaker's, an outlier's or a count's lock was busy since the last call."""
        return sum(backend.take_contended() for backend in self.all_backends())

    def settle(self) -> None:
        """Record outcomes that met a busy lock (before each report)."""
        for backend in self.all_backends():
            if backend.breaker is not None:
                backend.breaker.settle()
            if backend.outlier is not None:
                backend.outlier.settle()

    def forget_left(self) -> int:
        """Forget backends that left and have no work (after each report: their last counts are in it); → how many."""
        before = len(self.leaving)
        if before:
            self.leaving = [backend for backend in self.leaving if backend.working()]
            self._note_deadlines()
        return before - len(self.leaving)
