"""The arena: cells that several processes share, locks that a dead process lets go."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from gogate_py.arena import ACTIVE, PERMITS, Arena
from gogate_py.dataplane.shared_state import SharedBreaker, SharedBucket
from gogate_py.policy.circuit_breaker import CLOSED, HALF_OPEN, OPEN, BreakerPolicy
from gogate_py.policy.rate_limiter import TokenBucket


def in_children(count: int, work: Callable[[int], None]) -> None:
    """Run ``work(number)`` in that many forked processes at once; all must succeed."""
    pids = []
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                work(number)
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    for pid in pids:
        _, status = os.waitpid(pid, 0)
        assert status == 0


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
    """kill -9 of a process that holds a lock frees the lock."""
    arena = Arena.create()
    cell = arena.limiter(0)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        arena.lock(cell)
        os.write(write, b"x")
        signal.pause()
    os.read(read, 1)
    assert not arena.lock(cell)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert arena.lock(cell)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_burst_is_exact_over_workers(workers: int) -> None:
    """However many workers ask at once, a bucket gives out its burst and not one token more."""
    arena = Arena.create()
    results = arena.limiter(10)

    def work(number: int) -> None:
        bucket = SharedBucket(arena, 0, TokenBucket(rate=1, per=3600.0, burst=100))
        taken = 0
        for _ in range(200):
            taken += bucket.try_take()
        # A token lent while the lock was busy is settled by the next caller in this worker; here nobody else is.
        arena.cells[results + number] = taken

    in_children(workers, work)
    total = sum(arena.cells[results : results + workers])
    assert 100 <= total <= 100 + workers  # at most one lent and not yet settled by each


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_breaker_counts_failures_over_workers(workers: int) -> None:
    """Five failures open a breaker with failureThreshold 5, whichever workers saw them."""
    arena = Arena.create()
    policy = BreakerPolicy(5, 1, 1, 30.0)

    def breaker(slot: int) -> SharedBreaker:
        return SharedBreaker(arena, 0, slot, workers, policy)

    for failure in range(4):
        breaker(failure % workers).record(False, False)
        assert breaker(0).closed()
    breaker(workers - 1).record(False, False)
    assert not breaker(0).closed()
    assert breaker(0).is_open()
    assert breaker(0).try_acquire() == (False, False)


def test_half_open_trials_are_bounded_over_workers_and_survive_a_dead_one() -> None:
    """Half-open lets one trial through in all; a trial that died with its worker is given back with the worker's
    column."""
    arena = Arena.create()
    policy = BreakerPolicy(1, 1, 1, 0.0)
    first, second = (SharedBreaker(arena, 0, slot, 2, policy) for slot in (0, 1))
    first.record(False, False)
    assert first.try_acquire() == (True, True)
    assert second.try_acquire() == (False, False)
    arena.clear_slot(0, [0])  # the worker of slot 0 was killed
    assert second.try_acquire() == (True, True)
    second.record(True, True)
    second.release_trial()
    assert second.closed()
    assert arena.cells[arena.backend(0)] == CLOSED


def test_an_outcome_that_meets_a_busy_lock_is_recorded_later() -> None:
    """Nothing waits for a lock: the outcome is kept, counted as contended, and settled when the lock is free."""
    arena = Arena.create()
    breaker = SharedBreaker(arena, 0, 0, 1, BreakerPolicy(1, 1, 1, 30.0))
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        arena.lock(arena.backend(0))
        os.write(write, b"x")
        signal.pause()
    os.read(read, 1)
    breaker.record(False, False)
    assert breaker.contended == 1
    assert breaker.closed()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    breaker.settle()
    assert breaker.is_open()
    assert arena.cells[arena.backend(0)] in (OPEN, HALF_OPEN)
    os.close(read)
    os.close(write)
