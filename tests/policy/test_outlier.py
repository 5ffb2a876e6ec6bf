"""Outlier detection's table, row by row, and what holds for any pool and history."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.policy.outlier import OutlierCells, OutlierPolicy
from gogate_py.snapshot import Outlier

S = 1_000_000_000
POLICY = OutlierPolicy(Outlier(consecutive_5xx=3, base_ejection=30.0, max_ejection_percent=50))

TOLD = [
    # before, ok → to be ejected, after (at 50 s)
    (OutlierCells(), True, False, OutlierCells()),
    (OutlierCells(2), True, False, OutlierCells(0)),
    (OutlierCells(0), False, False, OutlierCells(1)),
    (OutlierCells(1), False, False, OutlierCells(2)),
    (OutlierCells(2), False, True, OutlierCells(3)),
    (OutlierCells(3), False, True, OutlierCells(4)),  # was put off
    (OutlierCells(0, 51 * S, 1), False, False, OutlierCells(0, 51 * S, 1)),
    (OutlierCells(2, 51 * S, 1), False, False, OutlierCells(2, 51 * S, 1)),
    (OutlierCells(2, 51 * S, 1), True, False, OutlierCells(2, 51 * S, 1)),
    (OutlierCells(0, 50 * S, 1), False, False, OutlierCells(1, 50 * S, 1)),
    (OutlierCells(2, 50 * S, 1), False, True, OutlierCells(3, 50 * S, 1)),
]


@pytest.mark.parametrize("row", TOLD)
def test_told(row: tuple[OutlierCells, bool, bool, OutlierCells]) -> None:
    """What an outcome changes: failures in a row count, a success ends the row, an ejected one is not watched."""
    before, ok, due, after = row
    assert POLICY.record(before, ok, 50 * S) == (due, after)


@pytest.mark.parametrize(
    ("percent", "backends", "usable", "ejected", "allowed"),
    [
        (50, 1, 1, 0, False),  # the only one
        (50, 2, 2, 0, True),
        (50, 2, 2, 1, False),
        (50, 2, 1, 0, False),  # the last usable one
        (100, 2, 2, 1, False),  # the same
        (50, 4, 4, 1, True),
        (50, 4, 4, 2, False),
        (50, 5, 5, 2, False),  # rounded down
        (10, 5, 5, 0, True),  # at least one
        (10, 5, 5, 1, False),
        (10, 20, 20, 1, True),
        (10, 20, 20, 2, False),
        (100, 4, 4, 2, True),
        (100, 4, 4, 3, False),
        (100, 4, 2, 0, True),
        (100, 4, 2, 1, False),
        (100, 4, 0, 0, False),
        (0, 3, 3, 0, True),
        (0, 3, 3, 1, False),
    ],
)
def test_what_a_pool_allows(percent: int, backends: int, usable: int, ejected: int, allowed: bool) -> None:
    """At most maxEjectionPercent of the pool, but one at least, and never the last usable one."""
    assert OutlierPolicy(Outlier(5, 30.0, percent)).allows(backends, usable, ejected) is allowed


@pytest.mark.parametrize(
    ("base", "before", "now", "after"),
    [
        (30.0, OutlierCells(5), 1000, OutlierCells(0, 1030, 1)),
        (30.0, OutlierCells(5, 1000, 1), 1000, OutlierCells(0, 1060, 2)),
        (30.0, OutlierCells(5, 1000, 1), 1029, OutlierCells(0, 1089, 2)),
        (30.0, OutlierCells(5, 1000, 1), 1030, OutlierCells(0, 1060, 1)),
        (30.0, OutlierCells(5, 1000, 4), 1059, OutlierCells(0, 1179, 4)),
        (30.0, OutlierCells(5, 1000, 4), 1060, OutlierCells(0, 1150, 3)),
        (30.0, OutlierCells(5, 1000, 4), 9000, OutlierCells(0, 9030, 1)),
        (30.0, OutlierCells(5, 1000, 9), 1000, OutlierCells(0, 1300, 10)),
        (30.0, OutlierCells(5, 1000, 10), 1000, OutlierCells(0, 1300, 11)),
        (400.0, OutlierCells(5, 1000, 3), 1000, OutlierCells(0, 1400, 4)),
        (0.0, OutlierCells(5, 1000, 3), 1000, OutlierCells(0, 1000, 4)),
    ],
)
def test_for_how_long(base: float, before: OutlierCells, now: int, after: OutlierCells) -> None:
    """Base times the ejections in a row, at most 300 s or the base; each base time in the pool forgets one."""
    policy = OutlierPolicy(Outlier(5, base, 50))
    made = policy.eject(before._replace(ejected_until_ns=before.ejected_until_ns * S), now * S)
    if not base:
        made = made._replace(ejected_until_ns=made.ejected_until_ns // S * S)  # a nanosecond for each
    assert made == after._replace(ejected_until_ns=after.ejected_until_ns * S)


def test_a_refused_ejection_starts_the_count_again() -> None:
    """Where the pool does not allow it, it takes as many failures more before it is asked again."""
    due, cells = POLICY.record(OutlierCells(2, 9, 1), False, 50 * S)
    assert due
    assert POLICY.refused(cells) == OutlierCells(0, 9, 1)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 6),
    st.sampled_from([0, 10, 34, 50, 100]),
    st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 40)), max_size=100),
    st.sets(st.integers(0, 5), max_size=5),
)
def test_any_history(size: int, percent: int, events: list[tuple[int, bool, int]], down: set[int]) -> None:
    """However the backends of a pool fail, one that is usable is left, no more are out than may be, none is out for
    longer than the longest time, and all are back after it."""
    policy = OutlierPolicy(Outlier(2, 30.0, percent))
    pool = [OutlierCells() for _ in range(size)]
    up = set(range(size)) - down
    now = 0
    for who, ok, seconds in events:
        now += seconds * S
        if who >= size:
            continue
        due, pool[who] = policy.record(pool[who], ok, now)
        if due:
            out = sum(cells.ejected_until_ns > now for cells in pool)
            if policy.allows(size, len(up), out):
                pool[who] = policy.eject(pool[who], now)
            else:
                pool[who] = policy.refused(pool[who])
        out = sum(cells.ejected_until_ns > now for cells in pool)
        assert out <= max(1, size * percent // 100)
        assert not up or any(pool[index].ejected_until_ns <= now for index in up)
        assert all(cells.ejected_until_ns <= now + 300 * S for cells in pool)
        assert all(cells.failures < 2 for cells in pool)
