"""Totals: what workers report adds up exactly, within its cap, and what is gone is forgotten."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.messages import Counts
from gogate_py.telemetry.histogram import Histogram
from gogate_py.telemetry.metrics import DURATION_BOUNDS
from gogate_py.telemetry.totals import KEEP_REMOVED, HistogramTotal, Totals, quantile

REQUESTS = "gogate_requests_total"
ACTIVE = "gogate_connections_active"
READY = "gogate_pool_size"
DURATION = "gogate_request_duration_seconds"
PAIR = ("pool", "backend")


def counted(name: str, labels: tuple[str, ...], n: float) -> Counts:
    """One counter's delta."""
    return Counts([(name, labels, n)], [], [])


def gauged(*gauges: tuple[str, tuple[str, ...], float]) -> Counts:
    """Gauge values."""
    return Counts([], list(gauges), [])


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.integers(1, 1000)), max_size=40))
def test_counters_are_sums_over_workers(reports: list[tuple[int, str, int]]) -> None:
    """Whatever the order and the worker: a counter is the sum of its deltas, and survives the worker."""
    totals = Totals()
    expected: dict[tuple[str, ...], float] = {}
    for slot, backend, n in reports:
        totals.add(slot, counted(REQUESTS, ("p", backend, "success"), n))
        totals.forget_gauges(slot)
        expected["p", backend, "success"] = expected.get(("p", backend, "success"), 0) + n
    assert totals.counter(REQUESTS) == expected
    assert totals.counter_sum(REQUESTS) == sum(expected.values())


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 20)), max_size=50))
def test_histograms_of_workers_add_up(observations: list[tuple[int, float]]) -> None:
    """The sum of the workers' buckets is the histogram of all observations, sum included."""
    totals = Totals()
    whole = Histogram()
    for slot, seconds in observations:
        one = Histogram()
        one.observe(seconds)
        whole.observe(seconds)
        taken = one.take()
        assert taken is not None
        totals.add(slot, Counts([], [], [(DURATION, (), *taken)]))
    found = totals.histogram(DURATION)
    assert found.buckets == whole.buckets
    assert found.total == pytest.approx(whole.total)


def test_gauges_are_the_last_values_summed_over_workers() -> None:
    """A gauge replaces its worker's last value; a dead worker's gauges are gone."""
    totals = Totals()
    totals.add(0, gauged((ACTIVE, ("http",), 5)))
    totals.add(1, gauged((ACTIVE, ("http",), 2), (ACTIVE, ("tcp",), 1)))
    totals.add(0, gauged((ACTIVE, ("http",), 3)))
    assert totals.gauge(ACTIVE) == {("http",): 5, ("tcp",): 1}
    totals.forget_gauges(1)
    assert totals.gauge(ACTIVE) == {("http",): 3}
    totals.forget_gauges(7)
    assert totals.gauge(ACTIVE) == {("http",): 3}


@pytest.mark.parametrize(
    "report",
    [
        counted("gogate_nonsense_total", (), 1),
        counted(REQUESTS, ("only-one-label",), 1),
        counted(DURATION, (), 1),
        gauged((REQUESTS, ("p", "b", "success"), 1)),
        Counts([], [], [(DURATION, (), [1, 2], 0.5)]),
    ],
)
def test_only_the_catalogue_is_accepted(report: Counts, caplog: pytest.LogCaptureFixture) -> None:
    """A name, kind or number of labels or buckets that is not the catalogue's changes nothing and is logged once."""
    totals = Totals()
    before = totals.freeze()
    with caplog.at_level(logging.ERROR):
        totals.add(0, report)
        totals.add(0, report)
    after = totals.freeze()
    assert (after.counters, after.gauges) == (before.counters, before.gauges)
    assert totals.histogram(DURATION).buckets == [0] * (len(DURATION_BOUNDS) + 1)
    assert len(caplog.records) <= 1


def test_own_counts_must_be_in_the_catalogue() -> None:
    """The supervisor counts by the same names; a wrong one is a bug and says so."""
    totals = Totals()
    totals.count("gogate_worker_restarts_total", ("0",))
    totals.count("gogate_worker_restarts_total", ("1",), 2)
    assert totals.counter_sum("gogate_worker_restarts_total") == 3
    with pytest.raises(KeyError):
        totals.count("gogate_nonsense_total", ())
    with pytest.raises(AssertionError):
        totals.count(REQUESTS, ("p",))


def test_label_sets_are_capped() -> None:
    """Beyond the cap counts go to "other" and none is lost; known label sets go on; gauges beyond it are left out."""
    totals = Totals(max_series=3)
    for number in range(10):
        totals.add(0, counted(REQUESTS, ("p", f"b{number}", "success"), 1))
        totals.add(0, gauged((READY, ("p", f"b{number}"), 1)))
    totals.add(0, counted(REQUESTS, ("p", "b0", "success"), 5))
    assert totals.counter(REQUESTS)["p", "b0", "success"] == 6
    assert totals.counter(REQUESTS)["other", "other", "other"] == 7
    assert totals.counter_sum(REQUESTS) == 15
    assert len(totals.gauge(READY)) == 3
    totals.forget_gauges(0)
    totals.add(0, gauged((READY, ("p", "new"), 1)))
    assert totals.gauge(READY) == {("p", "new"): 1}


def test_series_of_removed_backends_go_after_a_while() -> None:
    """A backend's series stay for some scrapes after it is gone, then they go; one that comes back keeps them."""
    totals = Totals()
    for backend in ("stays", "goes", "returns"):
        totals.add(0, counted(REQUESTS, ("p", backend, "success"), 1))
        totals.add(0, counted("gogate_tcp_connections_total", ("route", "p", backend, "ok"), 1))
        totals.add(0, gauged((READY, ("p", backend), 1)))
    totals.add(0, counted("gogate_connections_total", ("http",), 9))
    totals.keep({PAIR: [("p", "stays")]}, 1000.0)
    totals.keep({PAIR: [("p", "stays"), ("p", "returns")]}, 1000.0 + KEEP_REMOVED - 1)
    assert len(totals.counter(REQUESTS)) == 3
    totals.keep({PAIR: [("p", "stays")]}, 1000.0 + KEEP_REMOVED)
    assert {labels[1] for labels in totals.counter(REQUESTS)} == {"stays", "returns"}
    assert {labels[2] for labels in totals.counter("gogate_tcp_connections_total")} == {"stays", "returns"}
    assert totals.gauge(READY).keys() == {("p", "stays"), ("p", "returns")}
    assert totals.counter_sum("gogate_connections_total") == 9
    totals.keep({PAIR: [("p", "stays")]}, 1000.0 + 3 * KEEP_REMOVED)
    assert {labels[1] for labels in totals.counter(REQUESTS)} == {"stays"}


def test_series_of_removed_routes_pools_and_listeners_go_too() -> None:
    """Whatever a series is about: with it goes the series. What is about nothing ("") and about the rest stays."""
    totals = Totals(max_series=3 * 14)
    buckets = [1] + [0] * len(DURATION_BOUNDS)
    for name in ("stays", "goes", "beyond the cap", "too"):
        totals.add(0, Counts([("gogate_route_requests_total", (name, "200"), 1)],
                             [("gogate_pool_waiting", (name,), 1), (ACTIVE, (name,), 1)],
                             [("gogate_route_duration_seconds", (name,), buckets, 0.1)]))  # fmt: skip
    totals.add(0, counted("gogate_route_requests_total", ("", "404"), 1))
    totals.add(0, counted("gogate_split_requests_total", ("stays", "goes"), 1))
    durations = totals.freeze().histograms["gogate_route_duration_seconds"]
    assert {labels: sum(one.buckets) for labels, one in durations.items()} == {
        ("stays",): 1, ("goes",): 1, ("beyond the cap",): 1, ("other",): 1,
    }  # fmt: skip
    there = {("route",): [("stays",)], ("pool",): [("stays",)], ("listener",): [("stays",)]}
    totals.keep(there, 1000.0)
    totals.keep(there, 1000.0 + KEEP_REMOVED)
    assert set(totals.counter("gogate_route_requests_total")) == {("stays", "200"), ("", "404")}
    assert set(totals.freeze().histograms["gogate_route_duration_seconds"]) == {("stays",), ("other",)}
    assert totals.counter("gogate_split_requests_total") == {}
    assert set(totals.gauge("gogate_pool_waiting")) == set(totals.gauge(ACTIVE)) == {("stays",)}


def test_frozen_totals_do_not_change() -> None:
    """What was frozen for a scrape stays as it was while counting goes on."""
    totals = Totals()
    totals.add(0, counted(REQUESTS, ("p", "b", "success"), 1))
    totals.add(0, Counts([], [], [(DURATION, (), [1] + [0] * len(DURATION_BOUNDS), 0.1)]))
    frozen = totals.freeze()
    totals.add(0, counted(REQUESTS, ("p", "b", "success"), 1))
    totals.add(0, Counts([], [], [(DURATION, (), [1] + [0] * len(DURATION_BOUNDS), 0.1)]))
    assert frozen.counters[REQUESTS] == {("p", "b", "success"): 1}
    assert frozen.histograms[DURATION][()].buckets[0] == 1


def test_quantiles_are_estimated_inside_their_bucket() -> None:
    """As Prometheus: linear inside a bucket, the last bound for what is slower, nothing without observations."""
    histogram = HistogramTotal()
    assert quantile(histogram, 0.5) is None
    histogram.buckets[2] = 10  # 5 ms to 10 ms
    assert quantile(histogram, 0.5) == pytest.approx(0.0075)
    assert quantile(histogram, 1.0) == pytest.approx(0.01)
    histogram.buckets[-1] = 90
    assert quantile(histogram, 0.99) == DURATION_BOUNDS[-1]


@settings(max_examples=60)
@given(st.lists(st.floats(0.0001, 9.9), min_size=1, max_size=60), st.floats(0.01, 1.0))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[float], q: float) -> None:
    """The estimate is never further off than the bucket that the true quantile lies in."""
    observed = Histogram()
    for value in values:
        observed.observe(value)
    taken = observed.take()
    assert taken is not None
    histogram = HistogramTotal()
    histogram.buckets = taken[0]
    estimate = quantile(histogram, q)
    rank = max(0, -int(-q * len(values) // 1) - 1)
    true = sorted(values)[rank]
    upper = next(bound for bound in DURATION_BOUNDS if true <= bound)
    lower = max((bound for bound in DURATION_BOUNDS if bound < upper), default=0.0)
    assert estimate is not None
    assert lower <= estimate <= upper
