"""Report: the worker's plain integers as deltas for the supervisor, a few times a second.

Counters live where they are counted (backend, listener, route, site) and are zeroed when they are taken. Gauges are
sent only when they changed, because the supervisor keeps the last value of each worker.

A report looks at every route and backend, and has some samples of each that was used; where there are MANY it is made
once a second, and where there are more routes than may have histograms, the rest has one together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gogate_py.messages import Counts
from gogate_py.telemetry.histogram import Histogram
from gogate_py.telemetry.metrics import OTHER

if TYPE_CHECKING:
    from gogate_py.dataplane.listeners import LiveListener
    from gogate_py.dataplane.live_backend import LiveBackend
    from gogate_py.dataplane.live_route import RouteCounts
    from gogate_py.dataplane.plane import Plane
    from gogate_py.middleware.response_cache import ResponseCache

#: Routes and backends beyond which only every TICKS-th tick has a report.
MANY: Final = 500
TICKS: Final = 4

Sample = tuple[str, tuple[str, ...], float]
Observed = tuple[str, tuple[str, ...], list[int], float]


class Report:
    """Collects one worker's counters."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._gauges: dict[tuple[str, tuple[str, ...]], float] = {}
        self._skipped = 0

    def due(self) -> bool:
        """Whether this tick, of several a second, is to have a report."""
        plane = self._plane
        self._skipped += 1
        if len(plane.http.counts) + len(plane.table.rows) > MANY and self._skipped < TICKS:
            return False
        self._skipped = 0
        return True

    def collect(self) -> Counts:
        """Everything since the last call."""
        plane = self._plane
        counters: list[Sample] = []
        for relay in plane.relays.values():
            relay.flush_counts()
        for backend in plane.table.all_backends():
            self._backend(backend, counters)
        listeners = plane.listeners.counted()
        for listener in listeners:
            self._listener(listener, counters)
        histograms = self._durations()
        self._site(counters)
        self._own(counters)
        return Counts(counters, self._changed_gauges(listeners), histograms)

    def _durations(self) -> list[Observed]:
        """Requests are observed once, on their route; all of them together are the sum. Before _site takes the codes,
        which say which routes are worth a look."""
        site = self._plane.http
        found: list[Observed] = []
        whole = Histogram()
        by_route = [("", site.unrouted_durations)]
        by_route += [
            (name, counts.durations) for name, counts in site.counts.items() if counts.codes and not counts.shares]
        by_route.append((OTHER, site.other_durations))
        for route, durations in by_route:
            taken = durations.take()
            if taken is not None:
                found.append(("gogate_route_duration_seconds", (route,), *taken))
                whole.add(*taken)
        for name, histogram in (
            ("gogate_request_duration_seconds", whole),
            ("gogate_connection_duration_seconds", self._plane.tcp_duration),
        ):
            taken = histogram.take()
            if taken is not None:
                found.append((name, (), *taken))
        return found

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
        if b.outlier is not None and b.outlier.ejections:
            out.append(("gogate_outlier_ejections_total", labels, b.outlier.ejections))
            b.outlier.ejections = 0
        if b.connects:
            out += [("gogate_backend_connects_total", (*labels, result), n) for result, n in b.connects.items()]
            b.connects = {}
        if b.retries:
            out += [("gogate_request_retries_total", (b.pool_name, reason), n) for reason, n in b.retries.items()]
            b.retries = {}
        if b.drain_cuts:
            out += [("gogate_backend_drain_cuts_total", (*labels, kind), n) for kind, n in b.drain_cuts.items()]
            b.drain_cuts = {}
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
        if listener.handshakes:
            for (result, version), n in listener.handshakes.items():
                out.append(("gogate_tls_handshakes_total", (listener.name, result, version), n))
            listener.handshakes = {}
        if listener.unusable:
            out.append(("gogate_tls_unusable_certificates_total", (listener.name,), listener.unusable))
            listener.unusable = 0
        if listener.shed:
            out.append(("gogate_connections_shed_total", (listener.name,), listener.shed))
            listener.shed = 0

    def _site(self, out: list[Sample]) -> None:
        site = self._plane.http
        if site.unrouted_codes:
            self._codes("", site.unrouted_codes, out)
        # Whatever is counted on a route belongs to a request, which ends with a status: with thousands of routes only
        # those with one are worth a look.
        for name, counts in [entry for entry in site.counts.items() if entry[1].codes]:
            self._route(name, counts, out)
        for name, cache in site.caches.items():
            self._cache(name, cache, out)
        for pool in self._plane.table.pools.values():
            if pool.waiting.timed_out:
                out.append(("gogate_pool_wait_timeouts_total", (pool.name,), pool.waiting.timed_out))
                pool.waiting.timed_out = 0
        if site.local_reasons:
            out += [("gogate_local_responses_total", (reason,), n) for reason, n in site.local_reasons.items()]
            site.local_reasons = {}

    @staticmethod
    def _codes(route: str, codes: dict[int, int], out: list[Sample]) -> None:
        out += [("gogate_route_requests_total", (route, str(code)), n) for code, n in codes.items()]
        codes.clear()

    def _route(self, name: str, counts: RouteCounts, out: list[Sample]) -> None:
        self._codes(name, counts.codes, out)
        if counts.refused:
            for (stage, reason), n in counts.refused.items():
                if stage == "auth":
                    out.append(("gogate_auth_failures_total", (name, reason), n))
                elif stage != "rate_limit":  # those are counted by the limits, connections included
                    out.append(("gogate_route_refusals_total", (name, stage, reason), n))
            counts.refused.clear()
        if counts.arms:
            out += [("gogate_split_requests_total", (name, pool), n) for pool, n in counts.arms.items()]
            counts.arms.clear()
        if counts.fallbacks:
            out += [("gogate_split_fallbacks_total", (name, pool), n) for pool, n in counts.fallbacks.items()]
            counts.fallbacks.clear()
        if counts.retries_denied:
            out.append(("gogate_retries_denied_total", (name,), counts.retries_denied))
            counts.retries_denied = 0

    @staticmethod
    def _cache(route: str, cache: ResponseCache, out: list[Sample]) -> None:
        for result, n in (("hit", cache.hits), ("miss", cache.misses), ("bypass", cache.bypassed)):
            if n:
                out.append(("gogate_cache_requests_total", (route, result), n))
        cache.hits = cache.misses = cache.bypassed = 0
        if cache.evicted:
            out.append(("gogate_cache_evicted_total", (route,), cache.evicted))
            cache.evicted = 0

    def _own(self, out: list[Sample]) -> None:
        plane = self._plane
        contended = plane.table.take_contended() + plane.admission.take_uncounted()
        limits = plane.services.limiters
        for labels, n in limits.take_rejected():
            out.append(("gogate_rate_limit_rejected_total", labels, n))
        contended += limits.take_contended()
        evicted = limits.take_evicted()
        if evicted:
            out.append(("gogate_rate_limit_keys_evicted_total", (), evicted))
        if contended:
            out.append(("gogate_arena_contention_total", (), contended))
        if plane.access_log.dropped:
            out.append(("gogate_log_lines_dropped_total", (), plane.access_log.dropped))
            plane.access_log.dropped = 0
        dropped = plane.http.decisions.take_dropped_spans()
        if dropped:
            out.append(("gogate_trace_spans_total", ("worker_backlog",), dropped))
        if plane.internal_errors:
            out.append(("gogate_internal_errors_total", (str(plane.slot),), plane.internal_errors))
            plane.internal_errors = 0

    def _changed_gauges(self, listeners: list[LiveListener]) -> list[Sample]:
        plane = self._plane
        now: dict[tuple[str, tuple[str, ...]], float] = {
            ("gogate_http_requests_in_flight", ()): plane.http.in_flight,
            ("gogate_event_loop_lag_seconds", (str(plane.slot),)): round(plane.lag, 4),
            ("gogate_worker_connections", (str(plane.slot),)): plane.admission.open(),
            ("gogate_worker_connections_limit", (str(plane.slot),)): plane.admission.cap,
        }
        for listener in listeners:  # one that moved has the name of the one that is gone
            series = ("gogate_connections_active", (listener.name,))
            now[series] = now.get(series, 0) + listener.active
        for pool in plane.table.pools.values():
            if pool.waiting or ("gogate_pool_waiting", (pool.name,)) in self._gauges:
                now["gogate_pool_waiting", (pool.name,)] = len(pool.waiting)
        for name, cache in plane.http.caches.items():
            now["gogate_cache_entries", (name,)] = cache.entries
            now["gogate_cache_bytes", (name,)] = cache.bytes
        for backend in plane.table.rows.values():
            if backend.ready is not None:
                now["gogate_pool_size", (backend.pool_name, backend.address)] = len(backend.ready)
            if backend.http is not None:
                now["gogate_backend_connections_idle", (backend.pool_name, backend.address)] = backend.http.idle
        before = self._gauges
        changed = [(*series, value) for series, value in now.items() if before.get(series) != value]
        # A series whose owner is gone goes to 0: the supervisor drops it when the backend or listener is.
        changed += [(*series, 0) for series in before.keys() - now.keys()]
        self._gauges = now
        return changed
