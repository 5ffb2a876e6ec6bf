"""Report: the worker's plain integers as deltas for the supervisor, a few times a second.

Counters live where they are counted (backend, listener, route, site) and are zeroed when they are taken. Gauges are
sent only when they changed, because the supervisor keeps the last value of each worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gogate_py.messages import Counts

if TYPE_CHECKING:
    from gogate_py.dataplane.backend_table import LiveBackend
    from gogate_py.dataplane.listeners import LiveListener
    from gogate_py.dataplane.plane import Plane

Sample = tuple[str, tuple[str, ...], float]


class Report:
    """Collects one worker's counters."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._gauges: dict[tuple[str, tuple[str, ...]], float] = {}

    def collect(self) -> Counts:
        """Everything since the last call."""
        plane = self._plane
        counters: list[Sample] = []
        for relay in plane.relays.values():
            relay.flush_counts()
        for backend in plane.table.all_backends():
            self._backend(backend, counters)
        for listener in plane.listeners.by_id.values():
            self._listener(listener, counters)
        self._site(counters)
        self._own(counters)
        histograms: list[tuple[str, tuple[str, ...], list[int], float]] = []
        for name, histogram in (
            ("gogate_request_duration_seconds", plane.http.durations),
            ("gogate_connection_duration_seconds", plane.tcp_duration),
        ):
            taken = histogram.take()
            if taken is not None:
                histograms.append((name, (), *taken))
        return Counts(counters, self._changed_gauges(), histograms)

    def _backend(self, b: LiveBackend, out: list[Sample]) -> None:
        labels = (b.pool_name, b.address)
        if b.requests_ok:
            out.append(("gogate_requests_total", (*labels, "success"), b.requests_ok))
            b.requests_ok = 0
        if b.requests_failed:
            out.append(("gogate_requests_total", (*labels, "failure"), b.requests_failed))
            b.requests_failed = 0
        if b.reused:
            out.append(("gogate_backend_connections_reused_total", labels, b.reused))
            b.reused = 0
        if b.bytes_sent:
            out.append(("gogate_backend_bytes_sent_total", labels, b.bytes_sent))
            b.bytes_sent = 0
        if b.bytes_received:
            out.append(("gogate_backend_bytes_received_total", labels, b.bytes_received))
            b.bytes_received = 0
        if b.pool_hits:
            out.append(("gogate_pool_hits_total", labels, b.pool_hits))
            b.pool_hits = 0
        if b.pool_misses:
            out.append(("gogate_pool_misses_total", labels, b.pool_misses))
            b.pool_misses = 0
        if b.breaker is not None and b.breaker.opened:
            out.append(("gogate_circuit_breaker_opened_total", labels, b.breaker.opened))
            b.breaker.opened = 0
        if b.connects:
            out += [("gogate_backend_connects_total", (*labels, result), n) for result, n in b.connects.items()]
            b.connects = {}
        if b.retries:
            out += [("gogate_request_retries_total", (b.pool_name, reason), n) for reason, n in b.retries.items()]
            b.retries = {}
        if b.tcp_results:
            out += [
                ("gogate_tcp_connections_total", (route, *labels, result), n)
                for (route, result), n in b.tcp_results.items()
            ]
            b.tcp_results = {}

    def _listener(self, listener: LiveListener, out: list[Sample]) -> None:
        if listener.accepted:
            out.append(("gogate_connections_total", (listener.name,), listener.accepted))
            listener.accepted = 0
        if listener.refused:
            for reason, n in listener.refused.items():
                out.append(("gogate_connections_refused_total", (listener.name, reason), n))
            listener.refused = {}
        if listener.shed:
            out.append(("gogate_connections_shed_total", (listener.name,), listener.shed))
            listener.shed = 0

    def _site(self, out: list[Sample]) -> None:
        site = self._plane.http
        for (route, code), n in site.take_route_codes():
            out.append(("gogate_route_requests_total", (route, str(code)), n))
        if site.local_reasons:
            out += [("gogate_local_responses_total", (reason,), n) for reason, n in site.local_reasons.items()]
            site.local_reasons = {}

    def _own(self, out: list[Sample]) -> None:
        plane = self._plane
        bucket = plane.bucket
        if bucket is not None and bucket.rejected:
            out.append(("gogate_rate_limit_rejected_total", (), bucket.rejected))
            bucket.rejected = 0
        contended = plane.table.take_contended() + plane.admission.take_uncounted()
        if bucket is not None:
            contended += bucket.contended
            bucket.contended = 0
        if contended:
            out.append(("gogate_arena_contention_total", (), contended))
        if plane.access_log.dropped:
            out.append(("gogate_log_lines_dropped_total", (), plane.access_log.dropped))
            plane.access_log.dropped = 0
        if plane.internal_errors:
            out.append(("gogate_internal_errors_total", (str(plane.slot),), plane.internal_errors))
            plane.internal_errors = 0

    def _changed_gauges(self) -> list[Sample]:
        plane = self._plane
        now: dict[tuple[str, tuple[str, ...]], float] = {
            ("gogate_http_requests_in_flight", ()): plane.http.in_flight,
            ("gogate_event_loop_lag_seconds", (str(plane.slot),)): round(plane.lag, 4),
        }
        for listener in plane.listeners.by_id.values():
            now["gogate_connections_active", (listener.name,)] = listener.active
        for backend in plane.table.rows.values():
            if backend.ready is not None:
                now["gogate_pool_size", (backend.pool_name, backend.address)] = len(backend.ready)
        before = self._gauges
        changed = [(*series, value) for series, value in now.items() if before.get(series) != value]
        # A series whose owner is gone goes to 0: the supervisor drops it when the backend or listener is.
        changed += [(*series, 0) for series in before.keys() - now.keys()]
        self._gauges = now
        return changed
