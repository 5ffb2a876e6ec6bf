"""Exposition: the totals in Prometheus' text format, or as OpenMetrics for who asks for it.

The only module that imports prometheus_client; the control plane imports it, workers never do. Counters and histograms
come from :class:`~gogate_py.telemetry.totals.Totals`; what the control plane and the kernel know (health, breaker, CPU
time …) is computed when it is asked for. Every metric of the catalogue appears in every answer, a metric without labels
also with the value 0, so that a dashboard does not have to wait for the first event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import Final, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from gogate_py.telemetry.metrics import CATALOGUE, DURATION_BOUNDS
from gogate_py.telemetry.totals import Frozen, HistogramTotal, Labels, Totals

#: Metric name → label values → number, for gauges (and counters that others keep) that are computed at a scrape.
Gauges = Mapping[str, Mapping[Labels, float]]
T = TypeVar("T")

#: Series beyond which the text is made in a thread: about 5 µs each, and the loop also serves heartbeats.
_THREAD_FROM: Final = 2_000

_BOUNDS: Final = [*(repr(bound) for bound in DURATION_BOUNDS), "+Inf"]


class _Moment(Collector):
    """All metrics at one moment, as prometheus_client wants to collect them."""

    def __init__(self, totals: Frozen, gauges: Gauges) -> None:
        self._totals = totals
        self._gauges = gauges

    def series(self) -> int:
        """How many label sets there are."""
        tables: tuple[Mapping[str, Mapping[Labels, object]], ...] = (*self._totals, self._gauges)
        return sum(len(table) for one in tables for table in one.values())

    def collect(self) -> Iterator[Family]:
        """One family per metric of the catalogue, in its order."""
        for name, metric in CATALOGUE.items():
            if metric.kind == "counter":
                counter = CounterMetricFamily(name, metric.help, labels=metric.labels)
                table = self._gauges.get(name) or self._totals.counters[name]
                for labels, value in _rows(table, metric.labels, 0.0):
                    counter.add_metric(labels, value)
                yield counter
            elif metric.kind == "gauge":
                gauge = GaugeMetricFamily(name, metric.help, labels=metric.labels)
                table = self._gauges.get(name) or self._totals.gauges.get(name, {})
                for labels, value in _rows(table, metric.labels, 0.0):
                    gauge.add_metric(labels, value)
                yield gauge
            else:
                histogram = HistogramMetricFamily(name, metric.help, labels=metric.labels)
                for labels, seen in _rows(self._totals.histograms[name], metric.labels, HistogramTotal()):
                    buckets = list(zip(_BOUNDS, accumulate(seen.buckets), strict=True))
                    histogram.add_metric(labels, buckets, seen.total)
                yield histogram


def _rows(table: Mapping[Labels, T], names: Labels, nothing: T) -> list[tuple[Labels, T]]:
    """The series of a metric in a stable order; a metric without labels always has its one."""
    if not names and not table:
        return [((), nothing)]
    return sorted(table.items(), key=lambda item: item[0])


class Exposition:
    """Answers scrapes. ``gauges`` is called at each and gives what only the control plane knows."""

    def __init__(self, totals: Totals, gauges: Callable[[], Gauges]) -> None:
        self._totals = totals
        self._gauges = gauges
        # A thread of our own: the loop's default pool may be full of name lookups that hang.
        self._thread: ThreadPoolExecutor | None = None

    async def render(self, accept: str) -> tuple[bytes, str]:
        """The metrics now → (body, content type). ``accept``, the request's Accept value, chooses the format."""
        moment = _Moment(self._totals.freeze(), self._gauges())
        encode, content_type = choose_encoder(accept)
        if moment.series() < _THREAD_FROM:
            return encode(moment), content_type
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "gogate-metrics")
        return await asyncio.get_running_loop().run_in_executor(self._thread, encode, moment), content_type

    def close(self) -> None:
        """Let the thread go."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._thread = None
