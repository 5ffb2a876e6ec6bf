"""Totals: what all workers and the supervisor have counted since the start, as plain numbers.

Workers send deltas (:class:`gogate_py.messages.Counts`); counters and histograms are added up, gauges are kept per
worker slot and summed when they are read, so that a dead worker's gauges can be forgotten while its counters stay.

Rules: only metrics of the catalogue are kept; a metric has at most MAX_SERIES label sets, and what comes beyond
is counted under the label value "other" (SECURITY.md T27), so that a churning registry cannot fill the memory. This
module knows neither the text format nor who reads it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeVar

from gogate_py.messages import Counts
from gogate_py.telemetry.metrics import CATALOGUE, DURATION_BOUNDS, LINES, MAX_SERIES, OTHER, Metric

log = logging.getLogger("gogate.metrics")

#: Seconds that the series of what was removed are still shown: some scrapes, so that the last counts are seen.
KEEP_REMOVED: Final = 300.0

#: What a series may be about: the labels that name a thing which comes and goes. "" is no thing, but "none".
OWNERS: Final = (("pool", "backend"), ("pool",), ("route",), ("listener",))
_BUCKETS: Final = len(DURATION_BOUNDS) + 1

Labels = tuple[str, ...]
T = TypeVar("T")


class HistogramTotal:
    """Observations per bucket (not cumulative, the last is +Inf) and the sum of what was observed."""

    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.buckets = [0] * _BUCKETS
        self.total = 0.0

    def copy(self) -> HistogramTotal:
        """A copy that later observations do not change."""
        new = HistogramTotal()
        new.buckets = self.buckets[:]
        new.total = self.total
        return new


class Frozen(NamedTuple):
    """All totals at one moment; metric name → label values → number."""

    counters: dict[str, dict[Labels, float]]
    gauges: dict[str, dict[Labels, float]]
    histograms: dict[str, dict[Labels, HistogramTotal]]


class Totals:
    """The supervisor's one collection of numbers; lives as long as the supervisor."""

    def __init__(self, max_series: int = MAX_SERIES) -> None:
        self._max_series = max_series
        self._max_histograms = max(1, max_series // LINES)
        self._counters: dict[str, dict[Labels, float]] = _tables("counter")
        self._histograms: dict[str, dict[Labels, HistogramTotal]] = _tables("histogram")
        # worker slot → metric → label values → number
        self._gauges: dict[int, dict[str, dict[Labels, float]]] = {}
        # (owner, its name) → since when it is gone
        self._removed: dict[tuple[Labels, Labels], float] = {}
        self._unknown: set[str] = set()

    # --- what is counted

    def add(self, slot: int, counts: Counts) -> None:
        """Take over one worker's report."""
        for name, labels, n in counts.counters:
            if self._known(name, "counter", labels):
                self._count(name, labels, n)
        for name, labels, buckets, total in counts.histograms:
            if self._known(name, "histogram", labels) and len(buckets) == _BUCKETS:
                table = self._histograms[name]
                histogram = table.setdefault(self._capped(table, labels, self._max_histograms), HistogramTotal())
                histogram.buckets = [a + b for a, b in zip(histogram.buckets, buckets, strict=True)]
                histogram.total += total
        if counts.gauges:
            of_slot = self._gauges.setdefault(slot, {})
            for name, labels, value in counts.gauges:
                if self._known(name, "gauge", labels):
                    self._set_gauge(of_slot, name, labels, value)

    def count(self, name: str, labels: Labels, n: float = 1) -> None:
        """Add to a counter of the supervisor's own. The name must be in the catalogue."""
        metric = CATALOGUE[name]
        assert metric.kind == "counter"
        assert len(metric.labels) == len(labels)
        self._count(name, labels, n)

    def forget_gauges(self, slot: int) -> None:
        """A worker died: what it was doing it does no more."""
        self._gauges.pop(slot, None)

    def keep(self, there: Mapping[Labels, Iterable[Labels]], now: float) -> None:
        """Note what exists at monotonic time ``now`` (owner of OWNERS → names); forget what is gone for KEEP_REMOVED
        seconds."""
        seen = self._owners_seen()
        for owner, names in there.items():
            current = set(names)
            for name in seen[owner]:
                if name in current:
                    self._removed.pop((owner, name), None)
                elif now - self._removed.setdefault((owner, name), now) >= KEEP_REMOVED:
                    self._forget(owner, name)

    def _forget(self, owner: Labels, name: Labels) -> None:
        """Drop every series of something that is gone."""
        self._removed.pop((owner, name), None)
        for tables in self._all_tables():
            for metric, table in tables.items():
                for labels in [one for one in table if name in _names(metric, owner, one)]:
                    del table[labels]

    # --- what is read

    def counter(self, name: str) -> Mapping[Labels, float]:
        """The live table of one counter."""
        return self._counters[name]

    def counter_sum(self, name: str) -> float:
        """One counter over all its label sets."""
        return sum(self._counters[name].values())

    def gauge(self, name: str) -> dict[Labels, float]:
        """One gauge, summed over the workers."""
        return _summed(of_slot.get(name, {}) for of_slot in self._gauges.values())

    def histogram(self, name: str) -> HistogramTotal:
        """One histogram over all its label sets."""
        whole = HistogramTotal()
        for part in self._histograms[name].values():
            whole.buckets = [a + b for a, b in zip(whole.buckets, part.buckets, strict=True)]
            whole.total += part.total
        return whole

    def histograms(self, name: str) -> Mapping[Labels, HistogramTotal]:
        """The live table of one histogram."""
        return self._histograms[name]

    def counted(self) -> Counts:
        """Everything that was ever counted, as one report."""
        return Counts(
            [(name, labels, n) for name, table in self._counters.items() for labels, n in table.items()],
            [],
            [
                (name, labels, list(one.buckets), one.total)
                for name, table in self._histograms.items()
                for labels, one in table.items()
            ],
        )

    def freeze(self) -> Frozen:
        """Everything at this moment, independent of what is counted later (another thread may read it)."""
        return Frozen(
            {name: dict(table) for name, table in self._counters.items()},
            {name: self.gauge(name) for name in {name for of_slot in self._gauges.values() for name in of_slot}},
            {name: {k: v.copy() for k, v in table.items()} for name, table in self._histograms.items()},
        )

    # --- inside

    def _known(self, name: str, kind: str, labels: Labels) -> bool:
        metric = CATALOGUE.get(name)
        if metric is not None and metric.kind == kind and len(metric.labels) == len(labels):
            return True
        if name not in self._unknown:  # a worker of another version: say it once, serve on
            self._unknown.add(name)
            log.error("a worker reports an unknown metric", extra={"metric": name, "kind": kind, "labels": len(labels)})
        return False

    def _count(self, name: str, labels: Labels, n: float) -> None:
        table = self._counters[name]
        key = self._capped(table, labels, self._max_series)
        table[key] = table.get(key, 0) + n

    @staticmethod
    def _capped(table: Mapping[Labels, object], labels: Labels, most: int) -> Labels:
        if labels in table or len(table) < most:
            return labels
        return (OTHER,) * len(labels)

    def _set_gauge(self, of_slot: dict[str, dict[Labels, float]], name: str, labels: Labels, value: float) -> None:
        # A gauge is replaced, not added to: beyond the cap there is no number that would be right, so it is left out.
        table = of_slot.setdefault(name, {})
        if labels in table or sum(len(one.get(name, ())) for one in self._gauges.values()) < self._max_series:
            table[labels] = value

    def _all_tables(self) -> Iterator[Mapping[str, dict[Labels, Any]]]:
        yield self._counters
        yield self._histograms
        yield from self._gauges.values()

    def _owners_seen(self) -> dict[Labels, set[Labels]]:
        seen: dict[Labels, set[Labels]] = {owner: set() for owner in OWNERS}
        for tables in self._all_tables():
            for metric, table in tables.items():
                for owner, places in _OWNED[metric].items():
                    # At once rather than one by one: there are tens of thousands in a large gateway.
                    picked = set(map(itemgetter(*places), table))
                    names = picked if len(places) > 1 else {(name,) for name in picked}
                    rest = (OTHER,) * len(places)
                    seen[owner].update(name for name in names if name[-1] != "" and name != rest)
                    if rest in names and any(_names(metric, owner, labels) == (rest,) for labels in table):
                        seen[owner].add(rest)  # somebody called something so
        return seen


def quantile(histogram: HistogramTotal, q: float) -> float | None:
    """The ``q``-quantile (0 to 1) in seconds, estimated inside its bucket as Prometheus does; None without any.

    What is slower than the last bound counts as the last bound.
    """
    return bucket_quantile(histogram.buckets, DURATION_BOUNDS, q)


def bucket_quantile(buckets: Sequence[float], bounds: Sequence[float], q: float) -> float | None:
    """The same of any buckets, in the unit of their upper bounds; there is one bucket more than bounds."""
    count = sum(buckets)
    if not count:
        return None
    rank = q * count
    below = 0.0
    lower = 0.0
    for upper, n in zip(bounds, buckets[:-1], strict=True):
        if n and below + n >= rank:
            return lower + (upper - lower) * (rank - below) / n
        below += n
        lower = upper
    return bounds[-1]


def _summed(tables: Iterable[Mapping[Labels, float]]) -> dict[Labels, float]:
    summed: dict[Labels, float] = {}
    for table in tables:
        for labels, value in table.items():
            summed[labels] = summed.get(labels, 0) + value
    return summed


def _tables(kind: str) -> dict[str, dict[Labels, T]]:
    return {name: {} for name, metric in CATALOGUE.items() if metric.kind == kind}


def _places(metric: Metric) -> dict[Labels, tuple[int, ...]]:
    """Where the labels stand that name what a metric's series are about."""
    return {
        owner: tuple(metric.labels.index(label) for label in owner)
        for owner in OWNERS
        if set(owner) <= set(metric.labels)
    }


_OWNED: Final = {name: _places(metric) for name, metric in CATALOGUE.items()}


def _names(metric: str, owner: Labels, labels: Labels) -> tuple[Labels, ...]:
    """The one thing of this kind that a series is about; none for the series of the rest, and for no thing at all."""
    places = _OWNED[metric].get(owner)
    if places is None:
        return ()
    name = tuple(labels[place] for place in places)
    return () if name[-1] == "" or set(labels) == {OTHER} else (name,)
