"""The breaker's table, row by row, and what holds for any history."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.policy.circuit_breaker import CLOSED, HALF_OPEN, OPEN, BreakerCells, BreakerPolicy

S = 1_000_000_000
POLICY = BreakerPolicy(failure_threshold=3, success_threshold=2, half_open_requests=2, timeout=30.0)

ASKED = [
    # before, running trials, now → allowed, trial, after
    (BreakerCells(), 0, 5, True, False, BreakerCells()),
    (BreakerCells(CLOSED, 2), 9, 5, True, False, BreakerCells(CLOSED, 2)),
    (BreakerCells(OPEN, 3, 0, 10 * S, 1), 0, 40 * S - 1, False, False, BreakerCells(OPEN, 3, 0, 10 * S, 1)),
    (BreakerCells(OPEN, 3, 0, 10 * S, 1), 0, 40 * S, True, True, BreakerCells(HALF_OPEN, 3, 0, 40 * S, 1)),
    (BreakerCells(OPEN, 3, 0, 10 * S, 1), 2, 40 * S, False, False, BreakerCells(HALF_OPEN, 3, 0, 40 * S, 1)),
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
    (BreakerCells(CLOSED, 2, opened=4), False, False, BreakerCells(OPEN, 3, 0, 50 * S, 5)),
    (BreakerCells(OPEN, 3, 0, 9, 1), True, False, BreakerCells(OPEN, 3, 0, 9, 1)),
    (BreakerCells(OPEN, 3, 0, 9, 1), False, False, BreakerCells(OPEN, 3, 0, 9, 1)),
    (BreakerCells(OPEN, 3, 0, 9, 1), True, True, BreakerCells(OPEN, 3, 0, 9, 1)),
    (BreakerCells(HALF_OPEN, 3, 0, 9, 1), True, False, BreakerCells(HALF_OPEN, 3, 0, 9, 1)),
    (BreakerCells(HALF_OPEN, 3, 0, 9, 1), False, False, BreakerCells(HALF_OPEN, 3, 0, 9, 1)),
    (BreakerCells(HALF_OPEN, 3, 0, 9, 1), True, True, BreakerCells(HALF_OPEN, 3, 1, 9, 1)),
    (BreakerCells(HALF_OPEN, 3, 1, 9, 1), True, True, BreakerCells(CLOSED, 0, 0, 50 * S, 1)),
    (BreakerCells(HALF_OPEN, 3, 1, 9, 1), False, True, BreakerCells(OPEN, 3, 0, 50 * S, 2)),
]


@pytest.mark.parametrize("row", TOLD)
def test_told(row: tuple[BreakerCells, bool, bool, BreakerCells]) -> None:
    """What an outcome changes, by state."""
    before, ok, trial, after = row
    assert POLICY.record(before, ok, trial, 50 * S) == after


@pytest.mark.parametrize(
    ("cells", "now", "wait"),
    [
        (BreakerCells(), 5, 0),
        (BreakerCells(OPEN, 3, 0, 10 * S), 15 * S, 25 * S),
        (BreakerCells(OPEN, 3, 0, 0), 99 * S, 0),
    ],
)
def test_retry_after(cells: BreakerCells, now: int, wait: int) -> None:
    """Only an open breaker makes one wait, until its timeout is over."""
    assert POLICY.retry_after_ns(cells, now) == wait


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from(["ask", "ok", "fail", "gone"]), st.integers(0, 20)), max_size=80),
)
def test_any_history(failures: int, successes: int, trials: int, events: list[tuple[str, int]]) -> None:
    """Trials running never exceed halfOpenRequests, it opens only at failureThreshold in a row, and it can always
    recover."""
    policy = BreakerPolicy(failures, successes, trials, 10.0)
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
                was = cells.state
                cells = policy.record(cells, event == "ok", trial, now)
                if was == CLOSED:
                    in_a_row = 0 if event == "ok" else in_a_row + 1
                    assert (cells.state == OPEN) == (in_a_row >= failures)
                else:
                    in_a_row = 0
        assert sum(running) <= trials
        assert cells.failures <= failures
    # every trial that runs ends without an outcome; after the timeout good trials close it again
    now += 11 * S
    for _ in range(successes):
        allowed, trial, cells = policy.try_acquire(cells, 0, now)
        assert allowed
        cells = policy.record(cells, True, trial, now)
    assert cells.state == CLOSED
