"""The breaker's table, row by row, and what holds for any history."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.policy.circuit_breaker import (
    CLOSED,
    HALF_OPEN,
    OPEN,
    WINDOW_BUCKETS,
    WINDOW_CELLS,
    BreakerCells,
    BreakerPolicy,
    BreakerView,
)
from gogate_py.snapshot import Breaker

S = 1_000_000_000
POLICY = BreakerPolicy(Breaker(failure_threshold=3, success_threshold=2, half_open_requests=2, timeout=30.0))
BY_RATIO = BreakerPolicy(Breaker(0, 1, 1, 30.0, ratio=0.5, min_requests=4, window=10.0))

ASKED = [
    # before, running trials, now → allowed, trial, after
    (BreakerCells(), 0, 5, True, False, BreakerCells()),
    (BreakerCells(CLOSED, 2), 9, 5, True, False, BreakerCells(CLOSED, 2)),
    (BreakerCells(OPEN, 3, 0, 10 * S, 1), 0, 40 * S - 1, False, False, BreakerCells(OPEN, 3, 0, 10 * S, 1)),
    (BreakerCells(OPEN, 3, 0, 10 * S, 1), 0, 40 * S, True, True, BreakerCells(HALF_OPEN, 3, 0, 40 * S, 1)),
    (BreakerCells(OPEN, 3, 0, 10 * S, 1), 2, 40 * S, False, False, BreakerCells(HALF_OPEN, 3, 0, 40 * S, 1)),
    (BreakerCells(OPEN, 3, 0, 10 * S, 1, 2), 0, 130 * S - 1, False, False, BreakerCells(OPEN, 3, 0, 10 * S, 1, 2)),
    (BreakerCells(OPEN, 3, 0, 10 * S, 1, 2), 0, 130 * S, True, True, BreakerCells(HALF_OPEN, 3, 0, 130 * S, 1, 2)),
    (BreakerCells(HALF_OPEN, 3, 1), 1, 99, True, True, BreakerCells(HALF_OPEN, 3, 1)),
    (BreakerCells(HALF_OPEN, 3, 1), 2, 99, False, False, BreakerCells(HALF_OPEN, 3, 1)),
]


@pytest.mark.parametrize("row", ASKED)
def test_asked(row: tuple[BreakerCells, int, int, bool, bool, BreakerCells]) -> None:
    """What a request is told, by state, running trials and time."""
    before, trials, now, allowed, trial, after = row
    assert POLICY.try_acquire(before, trials, now) == (allowed, trial, after)


TOLD = [
    # before, ok, trial → after (at 50 s)
    (BreakerCells(CLOSED, 2), True, False, BreakerCells(CLOSED, 0)),
    (BreakerCells(CLOSED, 0), True, False, BreakerCells(CLOSED, 0)),
    (BreakerCells(CLOSED, 1), False, False, BreakerCells(CLOSED, 2)),
    (BreakerCells(CLOSED, 1), False, True, BreakerCells(CLOSED, 2)),
    (BreakerCells(CLOSED, 2), True, True, BreakerCells(CLOSED, 0)),
    (BreakerCells(CLOSED, 2, opened=4), False, False, BreakerCells(OPEN, 3, 0, 50 * S, 5)),
    (BreakerCells(OPEN, 3, 0, 9, 1), True, False, BreakerCells(OPEN, 3, 0, 9, 1)),
    (BreakerCells(OPEN, 3, 0, 9, 1), False, False, BreakerCells(OPEN, 3, 0, 9, 1)),
    (BreakerCells(OPEN, 3, 0, 9, 1), True, True, BreakerCells(OPEN, 3, 0, 9, 1)),
    (BreakerCells(HALF_OPEN, 3, 0, 9, 1), True, False, BreakerCells(HALF_OPEN, 3, 0, 9, 1)),
    (BreakerCells(HALF_OPEN, 3, 0, 9, 1), False, False, BreakerCells(HALF_OPEN, 3, 0, 9, 1)),
    (BreakerCells(HALF_OPEN, 3, 0, 9, 1), True, True, BreakerCells(HALF_OPEN, 3, 1, 9, 1)),
    (BreakerCells(HALF_OPEN, 3, 1, 9, 1, 4), True, True, BreakerCells(CLOSED, 0, 0, 50 * S, 1, 0)),
    (BreakerCells(HALF_OPEN, 3, 1, 9, 1, 4), False, True, BreakerCells(OPEN, 3, 0, 50 * S, 2, 5)),
]


@pytest.mark.parametrize("row", TOLD)
def test_told(row: tuple[BreakerCells, bool, bool, BreakerCells]) -> None:
    """What an outcome changes, by state, of a breaker that opens by count; it has no window."""
    before, ok, trial, after = row
    window = [7] * WINDOW_CELLS
    assert POLICY.record(before, ok, trial, 50 * S, window) == after
    assert window == [7] * WINDOW_CELLS


@pytest.mark.parametrize(
    ("timeout", "max_timeout", "seconds"),
    [
        (30.0, 300.0, [30, 60, 120, 240, 300, 300]),
        (30.0, 30.0, [30, 30]),
        (30.0, 10.0, [30, 30]),
        (600.0, 300.0, [600, 600]),
        (0.0, 300.0, [0, 0]),
    ],
)
def test_back_off(timeout: float, max_timeout: float, seconds: list[int]) -> None:
    """Each re-opening in a row doubles the open time, up to max_timeout, which is never below timeout; closing it
    starts over."""
    policy = BreakerPolicy(Breaker(1, 1, 1, timeout, max_timeout))
    now = 5
    cells = policy.record(BreakerCells(), False, False, now, [])
    for opened, expected in enumerate(seconds, start=1):
        assert (cells.state, cells.opened) == (OPEN, opened)
        assert policy.retry_after_ns(cells, now) == expected * S
        assert expected == 0 or policy.try_acquire(cells, 0, now + expected * S - 1)[:2] == (False, False)
        now += expected * S
        allowed, trial, cells = policy.try_acquire(cells, 0, now)
        assert (allowed, trial) == (True, True)
        before = cells
        cells = policy.record(cells, False, True, now, [])
    closed = policy.record(before, True, True, now, [])
    again = policy.record(closed, False, False, now, [])
    assert policy.retry_after_ns(again, now) == seconds[0] * S
    assert policy.open_ns(10**6) == seconds[-1] * S


@pytest.mark.parametrize(
    ("cells", "now", "wait"),
    [
        (BreakerCells(), 5, 0),
        (BreakerCells(OPEN, 3, 0, 10 * S), 15 * S, 25 * S),
        (BreakerCells(OPEN, 3, 0, 10 * S, 2, 1), 15 * S, 55 * S),
        (BreakerCells(OPEN, 3, 0, 0), 99 * S, 0),
        (BreakerCells(HALF_OPEN, 3, 0, 99 * S), 99 * S, 0),
    ],
)
def test_retry_after(cells: BreakerCells, now: int, wait: int) -> None:
    """Only an open breaker makes one wait, until its open time is over."""
    assert POLICY.retry_after_ns(cells, now) == wait


def outcomes(policy: BreakerPolicy, story: str, window: list[int], at: int = 100 * S) -> BreakerCells:
    """The state of a new breaker after a story: + is a success, - a failure, a space is a second."""
    cells = BreakerCells()
    for what in story:
        if what == " ":
            at += S
        else:
            cells = policy.record(cells, what == "+", False, at, window)
    return cells


RATIO_STORIES = [
    # story (minRequests 4, 50 %, window of 10 s) → state
    ("---", CLOSED),
    ("----", OPEN),
    ("+++-", CLOSED),
    ("++--", OPEN),
    ("--++", OPEN),  # the success that completes minRequests
    ("+++--", CLOSED),
    ("+++---", OPEN),
    ("--          --", CLOSED),  # ten seconds later, the first are out of the window
    ("--         --", OPEN),
    ("++++++          --++", OPEN),
    ("++++++         --++", CLOSED),
    ("-    " * 8, CLOSED),  # one every four seconds: never four in ten seconds
    ("- " * 4, OPEN),
    ("+" * 100 + "-" * 99, CLOSED),
    ("+" * 100 + "-" * 100, OPEN),
]


@pytest.mark.parametrize(("story", "state"), RATIO_STORIES)
def test_by_ratio(story: str, state: int) -> None:
    """It opens when the window has minRequests outcomes and the share of failures in it."""
    assert outcomes(BY_RATIO, story, [0] * WINDOW_CELLS).state == state


@pytest.mark.parametrize(("ratio", "total", "failures"), [(0.07, 100, 7), (0.29, 100, 29), (1 / 3, 3, 1), (1.0, 4, 4)])
def test_a_ratio_is_reached_exactly(ratio: float, total: int, failures: int) -> None:
    """A share that is exactly the configured one opens it, one failure fewer does not: no rounding in between."""
    policy = BreakerPolicy(Breaker(0, 1, 1, 30.0, ratio=ratio, min_requests=total, window=10.0))
    assert outcomes(policy, "+" * (total - failures) + "-" * failures, [0] * WINDOW_CELLS).state == OPEN
    assert outcomes(policy, "+" * (total - failures + 1) + "-" * (failures - 1), [0] * WINDOW_CELLS).state == CLOSED


def test_a_window_is_empty_after_closing() -> None:
    """What opened it is forgotten when it closes: the next failures are judged by themselves."""
    window = [0] * WINDOW_CELLS
    cells = outcomes(BY_RATIO, "----", window)
    assert BY_RATIO.describe(cells, 100 * S, window) == BreakerView("open", 4, 4, 30.0)
    _, _, cells = BY_RATIO.try_acquire(cells, 0, 130 * S)
    cells = BY_RATIO.record(cells, True, True, 130 * S, window)
    assert (cells.state, window) == (CLOSED, [0] * WINDOW_CELLS)
    for _ in range(3):
        cells = BY_RATIO.record(cells, False, False, 130 * S, window)
    assert cells.state == CLOSED
    assert BY_RATIO.record(cells, False, False, 130 * S, window).state == OPEN


def test_outcomes_that_are_ignored_are_not_counted() -> None:
    """While it is open or half-open, the window does not change."""
    window = [0] * WINDOW_CELLS
    cells = outcomes(BY_RATIO, "----", window)
    counted = list(window)
    for state in (OPEN, HALF_OPEN):
        told = cells._replace(state=state)
        assert BY_RATIO.record(told, False, False, 101 * S, window) == told
    assert window == counted


def test_outcomes_fade_without_new_ones() -> None:
    """What is shown are the outcomes of the last ten seconds, also when nothing came since."""
    window = [0] * WINDOW_CELLS
    cells = outcomes(BY_RATIO, "+--", window)
    seen = [BY_RATIO.describe(cells, (100 + later) * S, window) for later in (0, 9, 10)]
    assert [(view.total, view.failures) for view in seen] == [(3, 2), (3, 2), (0, 0)]


@pytest.mark.parametrize("width", [1.0, 3600.0])
def test_counts_made_with_another_window_do_not_open_it(width: float) -> None:
    """After a change of the window's length, longer or shorter, the old buckets are not in the window."""
    window = [0] * WINDOW_CELLS
    outcomes(BY_RATIO, "---", window, at=10**7 * S)
    other = BreakerPolicy(Breaker(0, 1, 1, 30.0, ratio=0.5, min_requests=4, window=width))
    cells = other.record(BreakerCells(), False, False, 10**7 * S, window)
    assert cells.state == CLOSED
    assert other.describe(cells, 10**7 * S, window).total == 1


@pytest.mark.parametrize(
    ("cells", "view"),
    [
        (BreakerCells(CLOSED, 2), BreakerView("closed", 2, 0, 0.0)),
        (BreakerCells(OPEN, 3, 0, 40 * S, 1), BreakerView("open", 3, 0, 20.0)),
        (BreakerCells(OPEN, 3, 0, 40 * S, 1, 1), BreakerView("open", 3, 0, 50.0)),
        (BreakerCells(HALF_OPEN, 3, 1, 50 * S, 1), BreakerView("half_open", 3, 0, 0.0)),
    ],
)
def test_description(cells: BreakerCells, view: BreakerView) -> None:
    """What people are shown (at 50 s), by count."""
    assert POLICY.describe(cells, 50 * S, [9] * WINDOW_CELLS) == view


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 6),
    st.sampled_from([0.1, 0.25, 0.5, 0.9, 1.0]),
    st.lists(st.tuples(st.booleans(), st.integers(0, 6)), max_size=60),
)
def test_any_window(min_requests: int, ratio: float, events: list[tuple[bool, int]]) -> None:
    """The window has what a list of all outcomes has in the same seconds, and it opens when that says so."""
    policy = BreakerPolicy(Breaker(0, 1, 1, 30.0, ratio=ratio, min_requests=min_requests, window=10.0))
    window = [0] * WINDOW_CELLS
    cells = BreakerCells()
    now = 1000 * S
    told: list[tuple[int, bool]] = []
    for ok, seconds in events:
        now += seconds * S
        told.append((now // S, ok))
        recent = [good for second, good in told if second > now // S - WINDOW_BUCKETS]
        cells = policy.record(cells, ok, False, now, window)
        view = policy.describe(cells, now, window)
        assert (view.total, view.failures) == (len(recent), recent.count(False))
        full = len(recent) >= min_requests
        assert (cells.state == OPEN) == (full and recent.count(False) / len(recent) >= ratio)
        if cells.state == OPEN:
            told.clear()
            cells = policy.try_acquire(cells, 0, now + 30 * S)[2]
            cells = policy.record(cells, True, True, now, window)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from(["ask", "ok", "fail", "gone"]), st.integers(0, 20)), max_size=80),
)
def test_any_history(failures: int, successes: int, trials: int, events: list[tuple[str, int]]) -> None:
    """Trials running never exceed halfOpenRequests, by count it opens only at failureThreshold in a row, and it can
    always recover."""
    policy = BreakerPolicy(
        Breaker(failures, successes, trials, 10.0, max_timeout=50.0, ratio=0.5, min_requests=2, window=30.0)
    )
    window = [0] * WINDOW_CELLS
    cells = BreakerCells()
    running: list[bool] = []
    now = 0
    in_a_row = 0
    for event, seconds in events:
        now += seconds * S
        if event == "ask":
            allowed, trial, cells = policy.try_acquire(cells, sum(running), now)
            if allowed:
                running.append(trial)
        elif running:
            trial = running.pop(0)
            if event != "gone":
                was = cells
                cells = policy.record(cells, event == "ok", trial, now, window)
                assert cells.opened - was.opened == (cells.state == OPEN != was.state)
                if was.state == CLOSED and failures:
                    in_a_row = 0 if event == "ok" else in_a_row + 1
                    assert (cells.state == OPEN) == (in_a_row >= failures)
                else:
                    in_a_row = 0
        assert sum(running) <= trials
        assert cells.failures <= failures
        assert policy.retry_after_ns(cells, now) <= 50 * S
    # every trial that runs ends without an outcome; after the longest open time good trials close it again
    now += 51 * S
    for _ in range(successes):
        allowed, trial, cells = policy.try_acquire(cells, 0, now)
        assert allowed
        cells = policy.record(cells, True, trial, now, window)
    assert cells.state == CLOSED
