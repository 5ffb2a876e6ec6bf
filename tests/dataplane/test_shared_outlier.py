"""Outlier detection in the arena: exact over processes, and never the last usable backend."""

from __future__ import annotations

import pytest
from doubles.processes import another_process, in_children

from gogate_py.arena import EJECTED_UNTIL, OUTLIER_FAILURES, OUTLIER_LOCK, Arena
from gogate_py.clock import monotonic_ns
from gogate_py.dataplane.shared_state import SharedOutlier
from gogate_py.policy.outlier import OutlierPolicy
from gogate_py.snapshot import Outlier


@pytest.fixture
def arena() -> Arena:
    """An arena of this test's own."""
    return Arena.create()


def watch(
    arena: Arena, row: int, rows: int, usable: int | None = None, after: int = 3, percent: int = 100
) -> SharedOutlier:
    """Outlier detection of a row in a pool of rows 0, 1 …, of which so many are usable (all)."""
    pool = (list(range(rows)), rows if usable is None else usable)
    return SharedOutlier(arena, row, OutlierPolicy(Outlier(after, 100.0, percent)), lambda: pool)


def out(arena: Arena, rows: int) -> int:
    """How many of rows 0, 1 … are ejected."""
    now = monotonic_ns()
    return sum(arena.cells[arena.backend(row) + EJECTED_UNTIL] > now for row in range(rows))


def fail(outlier: SharedOutlier) -> None:
    """A failure that is recorded when this returns, also when a lock was busy."""
    outlier.record(False)
    while outlier._kept or outlier._put_off:
        outlier.settle()


def test_failures_of_all_workers_eject(arena: Arena) -> None:
    """The third failure in a row ejects it in every worker, whichever saw them; one of them counts the ejection."""
    first, second = watch(arena, 0, 4), watch(arena, 0, 4)
    first.record(False)
    second.record(False)
    assert not first.ejected(monotonic_ns())
    assert first.ejected_for(monotonic_ns()) == 0
    first.record(False)
    now = monotonic_ns()
    assert first.ejected(now)
    assert second.ejected(now)
    assert 90 < second.ejected_for(now) <= 100
    assert (first.ejections, second.ejections) == (1, 0)
    assert not watch(arena, 1, 4).ejected(now)
    assert not second.ejected(now + 100 * 10**9)


def test_a_success_ends_the_row_of_all_workers(arena: Arena) -> None:
    """Failures are in a row over all workers; a success anywhere starts the count again."""
    first, second = watch(arena, 0, 4), watch(arena, 0, 4)
    for outlier in (first, first):
        outlier.record(False)
    second.record(True)
    for _ in range(2):
        first.record(False)
    assert out(arena, 4) == 0
    second.record(False)
    assert out(arena, 4) == 1


def test_what_an_ejected_backend_still_answers_is_not_counted(arena: Arena) -> None:
    """Outcomes of work it had are ignored: they neither prolong its ejection nor count for the next."""
    outlier = watch(arena, 0, 4)
    for _ in range(3):
        outlier.record(False)
    until = arena.cells[arena.backend(0) + EJECTED_UNTIL]
    for _ in range(10):
        outlier.record(False)
        outlier.record(True)
    assert arena.cells[arena.backend(0) + EJECTED_UNTIL] == until
    assert arena.cells[arena.backend(0) + OUTLIER_FAILURES] == 0
    arena.cells[arena.backend(0) + EJECTED_UNTIL] = monotonic_ns() - 1
    for _ in range(2):
        outlier.record(False)
    assert not outlier.ejected(monotonic_ns())
    outlier.record(False)
    assert 190 < outlier.ejected_for(monotonic_ns()) <= 200


@pytest.mark.parametrize(
    ("rows", "usable", "percent", "ejected"),
    [(1, 1, 100, 0), (2, 2, 100, 1), (2, 1, 100, 0), (4, 4, 50, 2), (4, 4, 100, 3), (4, 2, 100, 1), (4, 4, 1, 1)],
)
def test_what_is_left_of_a_pool(arena: Arena, rows: int, usable: int, percent: int, ejected: int) -> None:
    """When all backends of a pool fail, so many are ejected, the last usable one never."""
    outliers = [watch(arena, row, rows, usable, percent=percent) for row in range(rows)]
    for _ in range(10):
        for outlier in outliers:
            outlier.record(False)
    assert out(arena, rows) == ejected
    assert sum(outlier.ejections for outlier in outliers) == ejected


def test_two_processes_cannot_both_eject_the_last_two(arena: Arena) -> None:
    """Four processes whose backends fail all at once leave one of the four, again and again."""
    for _ in range(5):

        def work(row: int) -> None:
            outlier = watch(arena, row, 4)
            for _ in range(30):
                fail(outlier)

        in_children(4, work)
        assert out(arena, 4) == 3
        for row in range(4):
            arena.reset_backend(row)


def test_failures_of_four_processes_are_counted_exactly(arena: Arena) -> None:
    """No failure is lost and none counted twice: 1000 of four processes do not eject at 1001, the next one does."""

    def work(_: int) -> None:
        outlier = watch(arena, 0, 4, after=1001)
        for _ in range(250):
            fail(outlier)

    in_children(4, work)
    assert arena.cells[arena.backend(0) + OUTLIER_FAILURES] == 1000
    outlier = watch(arena, 0, 4, after=1001)
    outlier.record(False)
    assert outlier.ejected(monotonic_ns())


def test_an_outcome_that_meets_a_busy_lock_is_recorded_later(arena: Arena) -> None:
    """Nothing waits for a lock: outcomes are kept in their order, counted as contended, and settled when it is free."""
    outlier = watch(arena, 0, 4)
    outlier.record(False)
    with another_process(lambda: arena.lock(arena.backend(0) + OUTLIER_FAILURES)):
        outlier.record(True)
        outlier.record(False)
        outlier.record(False)
        outlier.settle()
        assert outlier.contended == 3
        assert arena.cells[arena.backend(0) + OUTLIER_FAILURES] == 1
    outlier.settle()
    assert arena.cells[arena.backend(0) + OUTLIER_FAILURES] == 2
    outlier.record(False)
    assert outlier.ejected(monotonic_ns())


def test_a_success_that_meets_a_busy_lock_ends_a_row(arena: Arena) -> None:
    """Kept outcomes come before the one that gets the lock, and a success is not lost because there is no count yet."""
    outlier = watch(arena, 0, 4, after=2)
    with another_process(lambda: arena.lock(arena.backend(0) + OUTLIER_FAILURES)):
        outlier.record(False)
        outlier.record(True)
    outlier.record(False)
    assert not outlier.ejected(monotonic_ns())
    assert arena.cells[arena.backend(0) + OUTLIER_FAILURES] == 1
    assert not outlier._kept


def test_an_ejection_that_meets_a_busy_lock_is_put_off(arena: Arena) -> None:
    """While another process ejects, this one does not wait: it tries again a moment later."""
    outlier = watch(arena, 0, 4)
    with another_process(lambda: arena.lock(OUTLIER_LOCK)):
        for _ in range(4):
            outlier.record(False)
        assert outlier.contended == 2
        assert not outlier.ejected(monotonic_ns())
    outlier.settle()
    assert outlier.ejected(monotonic_ns())
    assert outlier.ejections == 1


@pytest.mark.parametrize("cured_by", ["itself", "another worker", "an ejection by another worker"])
def test_an_ejection_that_was_put_off_may_be_over_by_then(arena: Arena, cured_by: str) -> None:
    """A success since, in any worker, or an ejection by another worker: nothing is left to be done."""
    outlier, other = watch(arena, 0, 4), watch(arena, 0, 4)
    with another_process(lambda: arena.lock(OUTLIER_LOCK)):
        for _ in range(3):
            outlier.record(False)
    if cured_by == "an ejection by another worker":
        other.record(False)
    else:
        (outlier if cured_by == "itself" else other).record(True)
    outlier.settle()
    assert (outlier.ejections, other.ejections) == (0, cured_by == "an ejection by another worker")
    assert out(arena, 4) == other.ejections
    assert not outlier._put_off


def test_a_holder_that_died_holds_up_nobody(arena: Arena) -> None:
    """kill -9 of a process in the middle of an ejection frees both locks."""

    def die_in_it() -> None:
        arena.lock(arena.backend(0) + OUTLIER_FAILURES)
        arena.lock(OUTLIER_LOCK)

    with another_process(die_in_it):
        pass
    outlier = watch(arena, 0, 4)
    for _ in range(3):
        outlier.record(False)
    assert outlier.ejected(monotonic_ns())
    assert outlier.contended == 0


def test_new_settings_take_over_what_is_not_settled(arena: Arena) -> None:
    """A reload while outcomes are kept or an ejection is put off loses neither them nor the counts."""
    for row, lock in ((0, OUTLIER_LOCK), (1, arena.backend(1) + OUTLIER_FAILURES)):
        old, new = watch(arena, row, 4), watch(arena, row, 4)
        with another_process(lambda lock=lock: arena.lock(lock)):
            for _ in range(3):
                old.record(False)
        new.take_over(old)
        assert new.contended == old.contended > 0
        new.settle()
        assert new.ejected(monotonic_ns())
        assert new.ejections == 1
