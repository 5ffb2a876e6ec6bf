"""The figures of the dashboard: differences of totals, a history, and nothing in detail while nobody looks."""

from __future__ import annotations

from typing import Any

from gogate_py.controlplane.operations import BackendView
from gogate_py.controlplane.pulse import COLUMNS, HISTORY, Pulse
from gogate_py.controlplane.supervision import LiveState
from gogate_py.messages import Counts
from gogate_py.telemetry.metrics import DURATION_BOUNDS
from gogate_py.telemetry.totals import Totals

BACKEND = BackendView("b", "10.0.0.1:80", "web", "file", 1, True, False, "", 0, (), 1)


def made(active: int = 0) -> tuple[Pulse, Totals]:
    totals = Totals()
    return Pulse(totals, lambda: [BACKEND], lambda row: LiveState(active, "closed", False)), totals


def answered(totals: Totals, route: str, code: str, count: int, bucket: int = 0) -> None:
    """Requests of a route, each in one bucket of the histograms."""
    buckets = [0] * (len(DURATION_BOUNDS) + 1)
    buckets[bucket] = count
    status = "failure" if code >= "500" else "success"
    totals.add(0, Counts(
        [("gogate_route_requests_total", (route, code), count),
         ("gogate_requests_total", ("web", "10.0.0.1:80", status), count)],
        [],
        [("gogate_request_duration_seconds", (), buckets, 0.1),
         ("gogate_route_duration_seconds", (route,), buckets, 0.1)]))


def test_rates_are_differences_by_the_time_between() -> None:
    """Twenty requests in two seconds are ten a second; the first beat has nothing to compare with."""
    pulse, totals = made()
    answered(totals, "all", "200", 1000)
    assert pulse.beat(100.0, 1.0, in_detail=True) is None
    assert not pulse.history
    answered(totals, "all", "200", 15)
    answered(totals, "all", "503", 5)
    told = pulse.beat(102.0, 3.0, in_detail=True)
    assert told is not None
    assert told["total"]["requests"] == 10.0
    assert told["total"]["failed"] == 2.5
    assert told["routes"]["all"]["requests"] == 10.0
    assert told["routes"]["all"]["failed"] == 2.5
    assert told["backends"] == [["web", "10.0.0.1:80", 10.0, 2.5, 0.0, 0]]
    assert dict(zip(COLUMNS, pulse.history[-1], strict=True)) == told["total"]


def test_percentiles_are_of_the_last_beat_only() -> None:
    """What was slow before is not slow now; without a request there is no percentile."""
    pulse, totals = made()
    pulse.beat(1.0, 1.0, in_detail=True)
    answered(totals, "slow", "200", 10, bucket=8)
    told = pulse.beat(2.0, 2.0, in_detail=True)
    assert told is not None
    assert told["total"]["p50_ms"] > 500
    assert told["routes"]["slow"]["ms"][0] > 500
    answered(totals, "fast", "200", 10)
    told = pulse.beat(3.0, 3.0, in_detail=True)
    assert told is not None
    assert told["total"]["p99_ms"] <= 1.0
    assert list(told["routes"]) == ["fast"]
    told = pulse.beat(4.0, 4.0, in_detail=True)
    assert told is not None
    assert told["total"]["p99_ms"] is None
    assert told["routes"] == {}
    assert told["backends"] == []


def test_details_begin_with_the_first_who_looks() -> None:
    """While nobody looks only the history grows; the first detailed beat has nothing to compare with."""
    pulse, totals = made(active=3)
    for second in range(3):
        answered(totals, "all", "200", 4)
        assert pulse.beat(float(second + 1), 0.0, in_detail=False) is None
    assert [line[1] for line in pulse.history] == [4.0, 4.0]
    assert pulse.beat(4.0, 0.0, in_detail=True) is None
    answered(totals, "all", "200", 4)
    told = pulse.beat(5.0, 0.0, in_detail=True)
    assert told is not None
    assert told["routes"]["all"]["requests"] == 4.0
    assert told["backends"][0][5] == 3


def test_the_history_is_bounded() -> None:
    """A quarter of an hour, then the oldest go."""
    pulse, _ = made()
    for second in range(HISTORY + 10):
        pulse.beat(float(second + 1), float(second), in_detail=False)
    assert len(pulse.history) == HISTORY
    assert pulse.history[-1][0] == HISTORY + 9


def test_a_series_that_begins_anew_is_no_negative_rate() -> None:
    """Series of what was removed are forgotten; when it comes back its counter begins at 0."""
    pulse, totals = made()
    answered(totals, "all", "200", 100)
    pulse.beat(1.0, 1.0, in_detail=True)
    pulse.beat(2.0, 2.0, in_detail=True)
    totals.keep({("route",): [], ("pool", "backend"): []}, 0.0)
    totals.keep({("route",): [], ("pool", "backend"): []}, 1000.0)
    answered(totals, "all", "200", 5)
    told: Any = pulse.beat(3.0, 3.0, in_detail=True)
    assert told["total"]["requests"] == 0.0
    assert told["routes"].get("all", {"requests": 0.0})["requests"] >= 0.0
