"""The arena: cells that several processes share, locks that a dead process lets go."""

from __future__ import annotations

import os
from itertools import pairwise

import pytest
from doubles.processes import another_process, in_children

from gogate_py.arena import (
    ACTIVE,
    BACKEND_ROWS,
    BREAKER_FAILURES,
    BREAKER_OPENED,
    BREAKER_REOPENED,
    BREAKER_SINCE,
    BREAKER_STATE,
    BREAKER_SUCCESSES,
    BREAKER_WINDOW,
    BREAKER_WINDOW_FAILURES,
    CLIENT_ENTRIES,
    EJECTED_UNTIL,
    EJECTIONS,
    LIMITER_KEY_BUCKETS,
    LIMITER_ROWS,
    MAX_SLOTS,
    OUTLIER_FAILURES,
    OUTLIER_LOCK,
    PERMITS,
    Arena,
)
from gogate_py.policy.circuit_breaker import WINDOW_CELLS, BreakerCells
from gogate_py.policy.outlier import OutlierCells


def test_every_part_has_memory_of_its_own() -> None:
    """No cell of one part is a cell of another, from the first to the last of each."""
    arena = Arena.create()
    parts = [range(OUTLIER_LOCK + 1)]
    for row in (0, 1, BACKEND_ROWS - 1):
        parts.append(range(arena.backend(row), arena.backend(row) + PERMITS + MAX_SLOTS))
    for row in (0, 1, LIMITER_ROWS - 1):
        parts.append(range(arena.limiter(row), arena.limiter(row) + 8))
    parts.append(range(arena.client(0), arena.client(CLIENT_ENTRIES)))
    counts = arena.client(CLIENT_ENTRIES)
    parts.append(range(counts, counts + len(arena.client_counts) // 2))
    for number in (0, 1, LIMITER_KEY_BUCKETS - 1):
        parts.append(range(arena.limiter_bucket(number), arena.limiter_bucket(number) + 8 * 4))
    parts.sort(key=lambda part: part.start)
    for one, following in pairwise(parts):
        assert one.stop <= following.start
    assert parts[-1].stop == len(arena.cells)
    assert len(arena.client_counts) == MAX_SLOTS * CLIENT_ENTRIES
    arena.client_counts[0] = 1
    arena.client_counts[-1] = 1 << 30
    assert (arena.cells[counts], arena.cells[arena.limiter_bucket(0) - 1]) == (1, 1 << 62)
    assert arena.cells[arena.limiter_bucket(0)] == 0


def test_the_parts_of_a_backend_row() -> None:
    """The cells of breaker and outlier detection are in the order of their policies, and none is shared."""
    names = ("state", "failures", "successes", "since_ns", "opened", "reopened", "window_failures")
    places = (BREAKER_STATE, BREAKER_FAILURES, BREAKER_SUCCESSES, BREAKER_SINCE, BREAKER_OPENED, BREAKER_REOPENED,
              BREAKER_WINDOW_FAILURES)  # fmt: skip
    assert BreakerCells._fields == names
    assert places == tuple(range(len(names)))
    assert OutlierCells._fields == ("failures", "ejected_until_ns", "ejections")
    assert [cell - OUTLIER_FAILURES for cell in (OUTLIER_FAILURES, EJECTED_UNTIL, EJECTIONS)] == [0, 1, 2]
    assert max(places) < OUTLIER_FAILURES
    assert BREAKER_WINDOW > EJECTIONS
    assert BREAKER_WINDOW + WINDOW_CELLS <= ACTIVE
    assert ACTIVE + MAX_SLOTS == PERMITS


def test_an_arena_takes_memory_for_what_is_written_only() -> None:
    """Sized for the largest layout, it costs the pages that were written."""
    arena = Arena.create()
    arena.cells[arena.backend(BACKEND_ROWS - 1)] = 1
    arena.cells[arena.limiter_bucket(LIMITER_KEY_BUCKETS - 1)] = 1
    assert os.fstat(arena.fd).st_blocks * 512 <= 16 * os.sysconf("SC_PAGESIZE")


def test_sums_over_slots() -> None:
    """An active count is the sum of what each worker wrote into its own cell."""
    arena = Arena.create()

    def work(slot: int) -> None:
        cell = arena.backend(3) + ACTIVE + slot
        for _ in range(1000):
            arena.cells[cell] += 1

    in_children(4, work)
    assert arena.active(3, 4) == 4000


def test_a_dead_workers_column_is_cleared() -> None:
    """Clearing a slot zeroes its active counts and permits, and nobody else's."""
    arena = Arena.create()
    for row in (0, 7):
        for slot in (0, 1):
            arena.cells[arena.backend(row) + ACTIVE + slot] = 5
            arena.cells[arena.backend(row) + PERMITS + slot] = 1
    arena.clear_slot(1, [0, 7])
    for row in (0, 7):
        assert arena.cells[arena.backend(row) + ACTIVE] == 5
        assert arena.cells[arena.backend(row) + ACTIVE + 1] == 0
        assert arena.cells[arena.backend(row) + PERMITS] == 1
        assert arena.cells[arena.backend(row) + PERMITS + 1] == 0


def test_a_backends_row_is_forgotten_whole() -> None:
    """A row that gets another backend has nothing of the one before: no state, no window, no counts; others keep
    theirs."""
    arena = Arena.create()
    first, following = arena.backend(4), arena.backend(5)
    for cell in range(first, following + 1):
        arena.cells[cell] = 7
    arena.reset_backend(4)
    assert set(arena.cells[first:following]) == {0}
    assert arena.cells[following] == 7


def test_an_arena_of_another_layout_is_refused() -> None:
    """Two programs share an arena only when its layout is equal."""
    arena = Arena.create()
    arena.cells[0] = 999
    with pytest.raises(RuntimeError, match="layout 999"):
        Arena(arena.fd)


def test_locks_exclude_each_other_between_processes() -> None:
    """A read-modify-write under the lock loses no update, with four processes at it."""
    arena = Arena.create()
    cell = arena.limiter(1)

    def work(_: int) -> None:
        done = 0
        while done < 2000:
            if arena.lock(cell):
                arena.cells[cell] += 1
                arena.unlock(cell)
                done += 1

    in_children(4, work)
    assert arena.cells[cell] == 8000


def test_a_lock_dies_with_its_holder() -> None:
    """kill -9 of a process that holds a lock frees the lock; other locks were free all the time."""
    arena = Arena.create()
    cell = arena.limiter(0)
    with another_process(lambda: arena.lock(cell)):
        assert not arena.lock(cell)
        assert arena.lock(cell + 1)
        assert arena.lock(cell - 1)
    assert arena.lock(cell)
