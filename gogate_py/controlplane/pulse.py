"""Pulse: the figures of the last second, and of the last minutes, out of the totals: what the dashboard draws.

A beat comes once a second (admin_server.py). It costs little while nobody looks: the sums of the whole gateway are
taken for the history; figures of each route, arm, listener and backend only when there is somebody who is told.

    totals         requests, failed ones (5xx), percentiles; connections open, requests in flight
    listener       accepted and refused a second, open
    route          requests, failed ones a second, percentiles
    arm, backend   requests and failed ones a second; what a backend serves now

Rates are differences of two totals by the time between them; workers report a few times a second. Percentiles are
those of the requests that ended between two beats.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from gogate_py.controlplane.operations import BackendView
from gogate_py.controlplane.supervision import Live
from gogate_py.telemetry.totals import HistogramTotal, Labels, Totals, quantile

#: Seconds between two beats.
PERIOD: Final = 1.0
#: Beats that are remembered: a quarter of an hour.
HISTORY: Final = 900
#: Columns of a line of history, in order.
COLUMNS: Final = ("at", "requests", "failed", "p50_ms", "p95_ms", "p99_ms", "connections", "in_flight")

_PERCENTILES: Final = (0.5, 0.95, 0.99)

Line = tuple[float | None, ...]


class Pulse:
    """The pulse of one gateway. ``backends`` and ``live`` tell of its backends, as the admin API has them."""

    def __init__(self, totals: Totals, backends: Callable[[], Iterable[BackendView]], live: Live) -> None:
        self._totals = totals
        self._backends = backends
        self._live = live
        self._then = 0.0
        self._requests = 0.0
        self._failed = 0.0
        self._durations = HistogramTotal()
        # what details are differences to; empty while nobody is told
        self._before: dict[str, dict[Labels, float]] = {}
        self._of_routes: dict[Labels, HistogramTotal] = {}
        self.history: deque[Line] = deque(maxlen=HISTORY)

    def beat(self, now: float, wall: float, *, in_detail: bool) -> dict[str, Any] | None:
        """Take the figures at ``now`` (monotonic; ``wall``: seconds since 1970). → what is told of them, None when
        nobody is, or when there is nothing before to compare them with."""
        passed = now - self._then
        first, self._then = self._then == 0.0, now
        line = self._whole(passed, wall)
        if not first:
            self.history.append(line)
        if not in_detail:
            self._before = {}
            return None
        compared = bool(self._before)
        details = self._details(passed)
        return {"total": dict(zip(COLUMNS, line, strict=True)), **details} if compared and not first else None

    def _whole(self, passed: float, wall: float) -> Line:
        totals = self._totals
        durations = totals.histogram("gogate_request_duration_seconds")
        answered = totals.counter("gogate_route_requests_total")
        requests = sum(answered.values())
        failed = sum(n for (_, code), n in answered.items() if code[:1] == "5")
        between = _between(durations, self._durations)
        line = (
            round(wall, 3),
            _rate(requests - self._requests, passed),
            _rate(failed - self._failed, passed),
            *_percentiles(between),
            sum(totals.gauge("gogate_connections_active").values()),
            sum(totals.gauge("gogate_http_requests_in_flight").values()),
        )
        self._requests, self._failed, self._durations = requests, failed, durations
        return line

    def _details(self, passed: float) -> dict[str, Any]:
        routes: dict[str, dict[str, Any]] = {}
        for (name, code), n in self._changed("gogate_route_requests_total", passed).items():
            one = routes.setdefault(name, {"requests": 0.0, "failed": 0.0})
            one["requests"] += n
            one["failed"] += n if code[:1] == "5" else 0.0
        durations = self._totals.histograms("gogate_route_duration_seconds")
        for labels, histogram in durations.items():
            between = _between(histogram, self._of_routes.get(labels))
            if sum(between.buckets):
                routes.setdefault(labels[0], {"requests": 0.0, "failed": 0.0})["ms"] = _percentiles(between)
        self._of_routes = {labels: histogram.copy() for labels, histogram in durations.items()}
        arms: dict[str, dict[str, float]] = {}
        for (route, pool), n in self._changed("gogate_split_requests_total", passed).items():
            arms.setdefault(route, {})[pool] = n
        return {
            "routes": {name: _rounded(one) for name, one in routes.items()},
            "arms": arms,
            "listeners": self._listeners(passed),
            "backends": self._of_backends(passed),
        }

    def _listeners(self, passed: float) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        for (name,), n in self._changed("gogate_connections_total", passed).items():
            found.setdefault(name, {})["accepted"] = n
        for (name, _), n in self._changed("gogate_connections_refused_total", passed).items():
            one = found.setdefault(name, {})
            one["refused"] = one.get("refused", 0.0) + n
        for (name,), n in self._totals.gauge("gogate_connections_active").items():
            if n:
                found.setdefault(name, {})["active"] = n
        return found

    def _of_backends(self, passed: float) -> list[list[Any]]:
        """[pool, address, requests, failed, TCP connections (each a second), active], of those with any."""
        requests = self._changed("gogate_requests_total", passed)
        tcp: dict[Labels, float] = {}
        for (_, pool, address, _), n in self._changed("gogate_tcp_connections_total", passed).items():
            tcp[pool, address] = tcp.get((pool, address), 0.0) + n
        found = []
        for view in self._backends():
            key = (view.pool, view.addr)
            ok, failed = requests.get((*key, "success"), 0.0), requests.get((*key, "failure"), 0.0)
            active = self._live(view.row).active
            if ok or failed or active or key in tcp:
                found.append([*key, round(ok + failed, 2), failed, tcp.get(key, 0.0), active])
        return found

    def _changed(self, name: str, passed: float) -> dict[Labels, float]:
        """What a counter grew by in a second, where it did."""
        table = self._totals.counter(name)
        before = self._before.get(name, {})
        # A series that was forgotten and begins anew is below what it was.
        grown = {labels: n - before.get(labels, 0.0) for labels, n in table.items() if n > before.get(labels, 0.0)}
        self._before[name] = dict(table)
        return {labels: _rate(n, passed) for labels, n in grown.items()}


def _rate(n: float, seconds: float) -> float:
    return round(max(0.0, n) / seconds, 2) if seconds > 0 else 0.0


def _rounded(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(n, 2) if isinstance(n, float) else n for key, n in figures.items()}


def _between(now: HistogramTotal, before: HistogramTotal | None) -> HistogramTotal:
    """What was observed since ``before``."""
    found = now.copy()
    if before is not None and sum(before.buckets) <= sum(now.buckets):
        found.buckets = [max(0, a - b) for a, b in zip(now.buckets, before.buckets, strict=True)]
        found.total = now.total - before.total
    return found


def _percentiles(histogram: HistogramTotal) -> list[float | None]:
    """p50, p95, p99 in milliseconds; None without any."""
    found = (quantile(histogram, q) for q in _PERCENTILES)
    return [None if seconds is None else round(seconds * 1000, 2) for seconds in found]
