"""Backend table: the live state of every backend in this worker, which outlives snapshots.

A snapshot names pools and backends; the table keeps one LiveBackend per row (the identity over snapshots) and one
LivePool per name, so that health, breaker, counters and kept connections of an unchanged backend survive a reload.
Picking happens here: the pool's balancer proposes, state decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from gogate_py.arena import PERMITS, Arena
from gogate_py.clock import Random
from gogate_py.dataplane.shared_state import ActiveCount, SharedBreaker
from gogate_py.errors import Failure
from gogate_py.policy.balancers import Balancer, new_balancer
from gogate_py.policy.circuit_breaker import BreakerPolicy
from gogate_py.snapshot import Backend, BackendState, Breaker, Pool, Snapshot

if TYPE_CHECKING:
    from gogate_py.dataplane.tcp_pool import ReadyConnections
    from gogate_py.dataplane.upstream_connections import UpstreamConnections


class LiveBackend:
    """One backend in this worker: its settings from the snapshot, its state, its connections and its counters."""

    __slots__ = (
        "_active",
        "_cells",
        "_permit",
        "address",
        "breaker",
        "bytes_received",
        "bytes_sent",
        "connects",
        "draining",
        "endpoints",
        "http",
        "next_endpoint",
        "pool_hits",
        "pool_misses",
        "pool_name",
        "ready",
        "reason",
        "requests_failed",
        "requests_ok",
        "retries",
        "reused",
        "row",
        "tcp_results",
        "transport",
        "up",
        "weight",
    )

    def __init__(self, spec: Backend, pool: Pool, arena: Arena, slot: int, slots: int) -> None:
        self.row = spec.row
        self.pool_name = pool.name
        self.transport = pool.transport
        self.address = spec.address
        self.weight = spec.weight
        self.endpoints = spec.endpoints
        self.next_endpoint = 0
        self.up = spec.state.up
        self.draining = spec.state.draining
        self.reason = spec.state.reason
        self._active = ActiveCount(arena, spec.row, slot, slots)
        self._cells = arena.cells
        self._permit = arena.backend(spec.row) + PERMITS + slot
        self.breaker: SharedBreaker | None = None
        # owned by the L7 and L4 drivers; None until they are first needed
        self.http: UpstreamConnections | None = None
        self.ready: ReadyConnections | None = None
        # --- counters since the last report
        self.requests_ok = 0
        self.requests_failed = 0
        self.reused = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self.pool_hits = 0
        self.pool_misses = 0
        self.connects: dict[str, int] = {}
        self.retries: dict[str, int] = {}
        self.tcp_results: dict[tuple[str, str], int] = {}

    def __repr__(self) -> str:
        state = "draining" if self.draining else "up" if self.up else f"down ({self.reason})"
        return f"<backend {self.pool_name}/{self.address} {state}, {self.active()} active>"

    def active(self) -> int:
        """Requests and TCP connections it serves now, over all workers."""
        return self._active.total()

    def begin(self) -> None:
        """A request or connection starts; to be matched by :meth:`end`."""
        self._active.add(1)

    def end(self) -> None:
        """A request or connection is over."""
        self._active.add(-1)

    def why_not(self) -> str:
        """Why it takes no new work, in a word or a sentence; "" when it does."""
        if self.draining:
            return "draining"
        if not self.up:
            return self.reason or "down"
        if self.weight == 0:
            return "weight 0"
        return "" if self.endpoints else "no address"

    def endpoint(self) -> tuple[str, int]:
        """The endpoint to connect to now; each call gives the next of the name's addresses. Needs at least one."""
        endpoints = self.endpoints
        self.next_endpoint = index = (self.next_endpoint + 1) % len(endpoints)
        return endpoints[index]

    def count_connect(self, result: str) -> None:
        """Count a connection attempt: ok, refused, timeout, error."""
        self.connects[result] = self.connects.get(result, 0) + 1

    def count_retry(self, reason: str) -> None:
        """Count work that failed here and was tried again."""
        self.retries[reason] = self.retries.get(reason, 0) + 1

    def record(self, ok: bool, trial: bool) -> None:
        """An outcome that counts for the breaker (never the client's fault)."""
        breaker = self.breaker
        if breaker is not None:
            breaker.record(ok, trial)

    def release_trial(self, trial: bool) -> None:
        """Give a trial's permit back, if it was one."""
        if trial:  # whether or not the pool still has breakers
            self._cells[self._permit] -= 1


class LivePool:
    """One pool in this worker."""

    __slots__ = ("_balancer", "_balancer_name", "backends", "breakers", "name", "spec")

    def __init__(self, spec: Pool, random: Random) -> None:
        self.name = spec.name
        self.spec = spec
        self.backends: list[LiveBackend] = []
        self.breakers = spec.breaker is not None
        self._balancer_name = ""
        self._balancer: Balancer[LiveBackend]
        self._use_balancer(spec.balancer, random)

    def _use_balancer(self, name: str, random: Random) -> None:
        if name != self._balancer_name:
            self._balancer = new_balancer(name, random)
            self._balancer_name = name

    def update(self, spec: Pool, backends: list[LiveBackend], random: Random) -> None:
        """Take over a new snapshot's settings and members."""
        self.spec = spec
        self.backends = backends
        self.breakers = spec.breaker is not None
        self._use_balancer(spec.balancer, random)
        self.refresh()

    def refresh(self) -> None:
        """Tell the balancer which backends take new work (after a change of state)."""
        self._balancer.update([b for b in self.backends if b.up and not b.draining and b.endpoints])

    def pick(self, tried: Iterable[LiveBackend] = ()) -> tuple[LiveBackend, bool] | None:
        """A backend for new work and whether it goes as a breaker's trial; None when there is none (see
        :meth:`why_none`).

        ``tried`` backends are not offered again.
        """
        if not self.breakers and not tried:
            backend = self._balancer.pick()
            return None if backend is None else (backend, False)
        if not tried:
            backend = self._balancer.pick()
            if backend is None:
                return None
            if backend.breaker is None or backend.breaker.closed():
                return backend, False
        trial = False

        def accept(backend: LiveBackend) -> bool:
            nonlocal trial
            if backend in tried:
                return False
            if backend.breaker is None:
                return True
            allowed, trial = backend.breaker.try_acquire()
            return allowed

        backend = self._balancer.pick_accepted(accept)
        return None if backend is None else (backend, trial)

    def why_none(self) -> tuple[Failure, str, int]:
        """Why :meth:`pick` found nothing: the failure, a sentence for log and answer, seconds for Retry-After (0:
        unknown)."""
        if not self.backends:
            return Failure.NO_BACKEND, f"Pool {self.name} has no backends.", 0
        waits = []
        for backend in self.backends:
            if backend.up and not backend.draining and backend.breaker is not None and not backend.breaker.closed():
                waits.append(backend.breaker.retry_after())
        if waits:
            return (
                Failure.BREAKER_OPEN,
                f"The circuit breaker of every usable backend of pool {self.name} is open.",
                max(1, -int(-min(waits) // 1)),
            )
        reasons = {backend.why_not() for backend in self.backends}
        return Failure.NO_BACKEND, f"No backend of pool {self.name} is usable: {'; '.join(sorted(reasons)[:3])}.", 0


class BackendTable:
    """All pools and backends of this worker. ``on_removed`` hears of backends that left, to close their idle
    connections."""

    def __init__(
        self, arena: Arena, slot: int, slots: int, random: Random, on_removed: Callable[[LiveBackend], None]
    ) -> None:
        self._arena = arena
        self._slot = slot
        self._slots = slots
        self._random = random
        self._on_removed = on_removed
        self.pools: dict[str, LivePool] = {}
        self.rows: dict[int, LiveBackend] = {}
        # Backends that left while they still had work: their counters are reported until it is done.
        self.leaving: list[LiveBackend] = []

    def apply(self, snapshot: Snapshot) -> None:
        """Take over a snapshot: update in place what stays, make what is new, let go what is gone."""
        rows: dict[int, LiveBackend] = {}
        pools: dict[str, LivePool] = {}
        for spec in snapshot.pools:
            pool = self.pools.get(spec.name) or LivePool(spec, self._random)
            members = []
            for backend_spec in spec.backends:
                backend = self._live(backend_spec, spec)
                rows[backend.row] = backend
                members.append(backend)
            pool.update(spec, members, self._random)
            pools[spec.name] = pool
        removed = [backend for row, backend in self.rows.items() if rows.get(row) is not backend]
        self.rows = rows
        self.pools = pools
        for backend in removed:
            self.leaving.append(backend)
            self._on_removed(backend)

    def _live(self, spec: Backend, pool: Pool) -> LiveBackend:
        backend = self.rows.get(spec.row)
        if backend is None or backend.address != spec.address or backend.pool_name != pool.name:
            backend = LiveBackend(spec, pool, self._arena, self._slot, self._slots)
        else:
            backend.weight = spec.weight
            backend.endpoints = spec.endpoints
            backend.transport = pool.transport
            if backend.http is not None:
                backend.http.settings = pool.transport
            if backend.ready is not None:
                if pool.tcp_pool is None:
                    backend.ready.close()
                    backend.ready = None
                else:
                    backend.ready.settings = pool.tcp_pool
            self._set_state(backend, spec.state)
        backend.breaker = self._breaker(backend, pool.breaker)
        return backend

    def _breaker(self, backend: LiveBackend, settings: Breaker | None) -> SharedBreaker | None:
        if settings is None:
            return None
        policy = BreakerPolicy(
            settings.failure_threshold, settings.success_threshold, settings.half_open_requests, settings.timeout
        )
        breaker = SharedBreaker(self._arena, backend.row, self._slot, self._slots, policy)
        if backend.breaker is not None:
            breaker.take_over(backend.breaker)
        return breaker

    @staticmethod
    def _set_state(backend: LiveBackend, state: BackendState) -> None:
        backend.up = state.up
        backend.draining = state.draining
        backend.reason = state.reason

    def apply_states(self, changes: Iterable[BackendState]) -> None:
        """Health or draining changed."""
        touched: set[str] = set()
        for state in changes:
            backend = self.rows.get(state.row)
            if backend is not None:
                self._set_state(backend, state)
                touched.add(backend.pool_name)
        for name in touched:
            self.pools[name].refresh()

    def all_backends(self) -> list[LiveBackend]:
        """Every backend with counters to report, those that left included."""
        return [*self.rows.values(), *self.leaving]

    def take_contended(self) -> int:
        """How often a breaker's lock was busy since the last call."""
        total = 0
        for backend in self.all_backends():
            if backend.breaker is not None:
                total += backend.breaker.contended
                backend.breaker.contended = 0
        return total

    def settle(self) -> None:
        """Record breaker outcomes that met a busy lock (before each report)."""
        for backend in self.all_backends():
            if backend.breaker is not None:
                backend.breaker.settle()

    def forget_left(self) -> None:
        """Forget backends that left and have no work (after each report: their last counts are in it)."""
        self.leaving = [b for b in self.leaving if b._active.mine() > 0]
