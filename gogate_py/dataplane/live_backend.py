"""LiveBackend: one backend in this worker. Its settings come from the snapshot and its state from state changes; its
connections and counters live here, for as long as the backend keeps its row."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gogate_py.arena import PERMITS, Arena
from gogate_py.backend_tls import TlsClient
from gogate_py.dataplane.shared_state import ActiveCount, SharedBreaker, SharedOutlier
from gogate_py.policy.balancers import PeakEwma
from gogate_py.snapshot import Backend, BackendState, Pool

if TYPE_CHECKING:
    from gogate_py.dataplane.tcp_pool import ReadyConnections
    from gogate_py.dataplane.upstream_connections import UpstreamConnections


class Picked(NamedTuple):
    """A backend for new work, already counted as working; ``trial``: it goes as a breaker's trial."""

    backend: LiveBackend
    trial: bool


class LiveBackend:
    """One backend in this worker: its settings from the snapshot, its state, its connections and its counters."""

    __slots__ = (
        "_active",
        "_cells",
        "_permit",
        "address",
        "backup",
        "begin",
        "breaker",
        "bytes_received",
        "bytes_sent",
        "connects",
        "drain_by",
        "drain_cuts",
        "draining",
        "end",
        "endpoints",
        "failure_statuses",
        "http",
        "latency",
        "max_connections",
        "next_endpoint",
        "ordinary",
        "outlier",
        "pool_hits",
        "pool_misses",
        "pool_name",
        "queue_timeout",
        "ready",
        "reason",
        "requests_failed",
        "requests_ok",
        "retries",
        "reused",
        "row",
        "tcp_results",
        "tls",
        "transport",
        "up",
        "warming_since",
        "weight",
    )

    def __init__(self, spec: Backend, pool: Pool, arena: Arena, slot: int, slots: int) -> None:
        self.row = spec.row
        self.address = spec.address
        self.next_endpoint = 0
        self._active = ActiveCount(arena, spec.row, slot, slots)
        #: A request or connection starts; to be matched by ``end``: a request or connection is over.
        self.begin = self._active.begin
        self.end = self._active.end
        #: The pick of it that is no trial: made once, not for each request.
        self.ordinary = Picked(self, False)
        self._cells = arena.cells
        self._permit = arena.backend(spec.row) + PERMITS + slot
        # --- settings, state: see configure
        self.pool_name = pool.name
        # owned by the L7 and L4 drivers; None until they are first needed
        self.http: UpstreamConnections | None = None
        self.ready: ReadyConnections | None = None
        self.tls: TlsClient | None = None
        self.configure(spec, pool)
        # --- made by the table where the pool asks for it
        self.breaker: SharedBreaker | None = None
        self.outlier: SharedOutlier | None = None
        self.latency: PeakEwma | None = None
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
        self.drain_cuts: dict[str, int] = {}

    def configure(self, spec: Backend, pool: Pool) -> None:
        """Take over what a snapshot says of it and its pool."""
        self.weight = spec.weight
        self.backup = spec.backup
        self.endpoints = spec.endpoints
        self.transport = pool.transport
        self._secure(TlsClient(pool.tls, spec.tls_name) if pool.tls is not None and spec.tls_name else None)
        self.queue_timeout = pool.queue_timeout
        self.max_connections = pool.max_connections
        self.failure_statuses = pool.breaker.failure_statuses if pool.breaker is not None else ((500, 599),)
        self.set_state(spec.state)

    def set_state(self, state: BackendState) -> None:
        """Take over its health and whether it is drained."""
        self.up = state.up
        self.draining = state.draining
        self.drain_by = state.drain_by
        self.reason = state.reason
        self.warming_since = state.warming_since

    def _secure(self, tls: TlsClient | None) -> None:
        """Speak TLS like this from now on, or not at all; what was connected otherwise is not used again."""
        before = self.tls
        if tls is before or (tls is not None and tls.same_as(before)):
            return
        self.tls = tls
        if self.http is not None:
            self.http.close_idle()
        if self.ready is not None:
            self.ready.close_idle()

    def __repr__(self) -> str:
        state = "draining" if self.draining else "up" if self.up else f"down ({self.reason})"
        return f"<backend {self.pool_name}/{self.address} {state}, {self.active()} active>"

    def active(self) -> int:
        """Requests and TCP connections it serves now, over all workers."""
        return self._active.total()

    def working(self) -> bool:
        """Whether this worker has work at it."""
        return self._active.mine() > 0

    def try_begin(self) -> bool:
        """Start one if maxConnections, over all workers, allows it."""
        limit = self.max_connections
        if limit:
            return self._active.try_add(limit)
        self._active.begin()
        return True

    def ejected(self, now_ns: int) -> bool:
        """Whether outlier detection has taken it out for a while."""
        return self.outlier is not None and self.outlier.ejected(now_ns)

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
        """Count a connection attempt: ok, refused, timeout, error, tls (the handshake failed)."""
        self.connects[result] = self.connects.get(result, 0) + 1

    def count_retry(self, reason: str) -> None:
        """Count work that failed here and was tried again."""
        self.retries[reason] = self.retries.get(reason, 0) + 1

    def record(self, ok: bool, trial: bool) -> None:
        """An outcome that counts for breaker and outlier detection (never the client's fault): a connect that failed or
        succeeded, a reset, a timeout."""
        if self.breaker is not None:
            self.breaker.record(ok, trial)
        if self.outlier is not None:
            self.outlier.record(ok)

    def record_status(self, status: int, trial: bool) -> None:
        """The outcome of an answer that came: which statuses are failures for the breaker is configured, for outlier
        detection it is 5xx."""
        if self.breaker is not None:
            ok = status < 400 or not any(low <= status <= high for low, high in self.failure_statuses)
            self.breaker.record(ok, trial)
        if self.outlier is not None:
            self.outlier.record(status < 500)

    def release_trial(self, trial: bool) -> None:
        """Give a trial's permit back, if it was one."""
        if trial:  # whether or not the pool still has breakers
            self._cells[self._permit] -= 1

    def count_drain_cut(self, kind: str) -> None:
        """Count what was cut because its drain was over: request, websocket, tcp."""
        self.drain_cuts[kind] = self.drain_cuts.get(kind, 0) + 1

    def take_contended(self) -> int:
        """How often one of its locks was busy since the last call."""
        total = self._active.contended
        self._active.contended = 0
        for guard in (self.breaker, self.outlier):
            if guard is not None:
                total += guard.contended
                guard.contended = 0
        return total
