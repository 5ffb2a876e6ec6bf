"""Breakers and active counts in the arena: exact over processes, whoever dies."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from doubles.processes import another_process, in_children

from gogate_py.arena import PERMITS, Arena
from gogate_py.dataplane.shared_state import ActiveCount, SharedBreaker
from gogate_py.policy.circuit_breaker import CLOSED, HALF_OPEN, OPEN, BreakerPolicy
from gogate_py.snapshot import Breaker


@pytest.fixture
def arena() -> Arena:
    """An arena of this test's own."""
    return Arena.create()


def tell(breaker: SharedBreaker, ok: bool, trial: bool = False) -> None:
    """An outcome that is recorded when this returns, also when the lock was busy."""
    breaker.record(ok, trial)
    while breaker._kept:
        breaker.settle()


def insist(ask: Callable[[], bool], contended: Callable[[], int]) -> bool:
    """The answer to a question that was not refused because of a busy lock."""
    while True:
        before = contended()
        if ask():
            return True
        if contended() == before:
            return False


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_breaker_counts_failures_over_workers(arena: Arena, workers: int) -> None:
    """Five failures open a breaker with failureThreshold 5, whichever workers saw them."""
    policy = BreakerPolicy(Breaker(5, 1, 1, 30.0))

    def breaker(slot: int) -> SharedBreaker:
        return SharedBreaker(arena, 0, slot, workers, policy)

    for failure in range(4):
        breaker(failure % workers).record(False, False)
        assert breaker(0).closed()
    breaker(workers - 1).record(False, False)
    assert not breaker(0).closed()
    assert breaker(0).is_open()
    assert breaker(0).try_acquire() == (False, False)


def test_a_success_in_one_worker_ends_the_row_of_all(arena: Arena) -> None:
    """Failures in a row are in a row over all workers."""
    first, second = (SharedBreaker(arena, 0, slot, 2, BreakerPolicy(Breaker(2, 1, 1, 30.0))) for slot in (0, 1))
    first.record(False, False)
    second.record(True, False)
    first.record(False, False)
    assert first.closed()
    second.record(False, False)
    assert first.is_open()


def test_it_opens_at_the_last_failure_of_four_processes(arena: Arena) -> None:
    """No failure is lost and none counted twice: 1000 failures of four processes leave a breaker that needs 1001
    closed, and the next one opens it."""
    policy = BreakerPolicy(Breaker(1001, 1, 1, 30.0))

    def work(slot: int) -> None:
        breaker = SharedBreaker(arena, 7, slot, 4, policy)
        for _ in range(250):
            tell(breaker, False)

    in_children(4, work)
    breaker = SharedBreaker(arena, 7, 0, 4, policy)
    assert breaker.describe() == ("closed", 1000, 0, 0.0)
    breaker.record(False, False)
    assert breaker.is_open()
    assert breaker.opened == 1


def test_four_processes_open_it_once(arena: Arena) -> None:
    """When four processes fail at once, far beyond the threshold, it opens once, and one of them says so."""
    policy = BreakerPolicy(Breaker(100, 1, 1, 30.0))
    results = arena.limiter(0)

    def work(slot: int) -> None:
        breaker = SharedBreaker(arena, 0, slot, 4, policy)
        for _ in range(200):
            tell(breaker, False)
        arena.cells[results + slot] = breaker.opened

    in_children(4, work)
    assert sum(arena.cells[results : results + 4]) == 1
    assert SharedBreaker(arena, 0, 0, 4, policy)._read()[:2] == (OPEN, 100)


def test_a_ratio_is_exact_over_four_processes(arena: Arena) -> None:
    """Successes and failures of all processes are in one window: it opens when the last of minRequests comes."""
    policy = BreakerPolicy(Breaker(0, 1, 1, 30.0, ratio=0.5, min_requests=801, window=36_000.0))

    def work(slot: int) -> None:
        breaker = SharedBreaker(arena, 0, slot, 4, policy)
        for number in range(200):
            tell(breaker, number % 2 == 0)

    in_children(4, work)
    breaker = SharedBreaker(arena, 0, 0, 4, policy)
    assert breaker.describe() == ("closed", 400, 800, 0.0)
    breaker.record(False, False)
    assert breaker.is_open()


def test_half_open_lets_exactly_its_number_through(arena: Arena) -> None:
    """Of four processes that ask again and again, halfOpenRequests get a trial in all; when those succeed, it is closed
    and all are let through."""
    policy = BreakerPolicy(Breaker(1, 3, 3, 0.0))
    SharedBreaker(arena, 0, 0, 4, policy).record(False, False)
    results = arena.limiter(0)

    def ask(slot: int) -> None:
        breaker = SharedBreaker(arena, 0, slot, 4, policy)
        arena.cells[results + slot] = sum(
            insist(lambda: breaker.try_acquire() == (True, True), lambda: breaker.contended) for _ in range(100)
        )

    in_children(4, ask)
    given = arena.cells[results : results + 4].tolist()
    assert sum(given) == 3
    assert arena.cells[arena.backend(0)] == HALF_OPEN

    def succeed(slot: int) -> None:
        breaker = SharedBreaker(arena, 0, slot, 4, policy)
        for _ in range(given[slot]):
            tell(breaker, True, trial=True)
            breaker.release_trial()

    in_children(4, succeed)
    permits = arena.backend(0) + PERMITS
    assert sum(arena.cells[permits : permits + 4]) == 0
    assert SharedBreaker(arena, 0, 3, 4, policy).try_acquire() == (True, False)


def test_half_open_trials_never_run_beyond_their_number(arena: Arena) -> None:
    """Four processes that take trials and give them back without an outcome never have more than halfOpenRequests at
    once."""
    policy = BreakerPolicy(Breaker(1, 1, 2, 0.0))
    SharedBreaker(arena, 0, 0, 4, policy).record(False, False)
    results = arena.limiter(0)
    permits = arena.backend(0) + PERMITS

    def work(slot: int) -> None:
        breaker = SharedBreaker(arena, 0, slot, 4, policy)
        chance = random.Random(slot)
        held = 0
        for _ in range(2000):
            if held and chance.random() < 0.5:
                breaker.release_trial()
                held -= 1
            elif breaker.try_acquire()[0]:
                held += 1
                if arena.lock(arena.backend(0)):
                    running = sum(arena.cells[permits : permits + 4])
                    arena.unlock(arena.backend(0))
                    arena.cells[results + slot] = max(arena.cells[results + slot], running)
        for _ in range(held):
            breaker.release_trial()

    in_children(4, work)
    assert 1 <= max(arena.cells[results : results + 4]) <= 2
    assert sum(arena.cells[permits : permits + 4]) == 0


def test_half_open_trials_are_bounded_over_workers_and_survive_a_dead_one(arena: Arena) -> None:
    """Half-open lets one trial through in all; a trial that died with its worker is given back with the worker's
    column."""
    policy = BreakerPolicy(Breaker(1, 1, 1, 0.0))
    here = SharedBreaker(arena, 0, 1, 2, policy)
    here.record(False, False)
    with another_process(lambda: SharedBreaker(arena, 0, 0, 2, policy).try_acquire()):
        assert not here.may_take()
        assert here.try_acquire() == (False, False)
    arena.clear_slot(0, [0])
    assert here.may_take()
    assert here.try_acquire() == (True, True)
    here.record(True, True)
    here.release_trial()
    assert here.closed()
    assert here.state() == CLOSED


def test_an_outcome_that_meets_a_busy_lock_is_recorded_later(arena: Arena) -> None:
    """Nothing waits for a lock: the outcome is kept, counted as contended, and settled when the lock is free."""
    breaker = SharedBreaker(arena, 0, 0, 1, BreakerPolicy(Breaker(1, 1, 1, 30.0)))
    with another_process(lambda: arena.lock(arena.backend(0))):
        breaker.record(False, False)
        assert breaker.contended == 1
        assert breaker.closed()
    breaker.settle()
    assert breaker.is_open()
    assert breaker.opened == 1


def test_outcomes_that_meet_a_busy_lock_keep_their_order(arena: Arena) -> None:
    """A success after failures that are still to be recorded is kept behind them: it ends their row."""
    breaker = SharedBreaker(arena, 0, 0, 1, BreakerPolicy(Breaker(2, 1, 1, 30.0)))
    with another_process(lambda: arena.lock(arena.backend(0))):
        breaker.record(False, False)
        breaker.record(True, False)
    breaker.record(False, False)
    assert breaker.closed()
    assert breaker.describe().failures == 1


def test_a_breaker_whose_lock_is_busy_refuses(arena: Arena) -> None:
    """Who asks a half-open breaker while its lock is busy is sent to another backend, and takes no permit."""
    breaker = SharedBreaker(arena, 0, 0, 1, BreakerPolicy(Breaker(1, 1, 1, 0.0)))
    breaker.record(False, False)
    with another_process(lambda: arena.lock(arena.backend(0))):
        assert breaker.try_acquire() == (False, False)
        assert breaker.contended == 1
        assert breaker.may_take()
    assert breaker.try_acquire() == (True, True)


def test_new_settings_take_over_what_is_not_settled(arena: Arena) -> None:
    """A reload while an outcome is kept loses neither the outcome nor the counts."""
    old = SharedBreaker(arena, 0, 0, 1, BreakerPolicy(Breaker(1, 1, 1, 30.0)))
    with another_process(lambda: arena.lock(arena.backend(0))):
        old.record(False, False)
        new = SharedBreaker(arena, 0, 0, 1, BreakerPolicy(Breaker(2, 1, 1, 30.0)))
        new.take_over(old)
    new.record(False, False)
    assert new.is_open()
    assert (new.contended, new.opened) == (1, 1)


def test_an_open_breaker_says_how_long(arena: Arena) -> None:
    """Every worker sees when a trial will be let through, back-off included."""
    first, second = (SharedBreaker(arena, 0, slot, 2, BreakerPolicy(Breaker(1, 1, 1, 3600.0, 9e6))) for slot in (0, 1))
    assert second.retry_after() == 0
    first.record(False, False)
    assert 3500 < second.retry_after() <= 3600
    assert not second.may_take()
    arena.cells[arena.backend(0)] = HALF_OPEN
    second.record(False, True)
    assert 7100 < first.retry_after() <= 7200
    assert first.describe().state == "open"


def test_an_active_count_gets_to_its_limit_and_not_beyond(arena: Arena) -> None:
    """try_add counts over all workers; what ends makes room."""
    counts = [ActiveCount(arena, 0, slot, 3) for slot in range(3)]
    assert [counts[number % 3].try_add(5) for number in range(7)] == [True] * 5 + [False] * 2
    counts[1].end()
    assert [counts[2].try_add(5), counts[1].try_add(5)] == [True, False]
    assert [count.mine() for count in counts] == [2, 1, 2]
    assert {count.total() for count in counts} == {5}


def test_an_active_count_is_full_while_its_lock_is_busy(arena: Arena) -> None:
    """A busy lock counts as full, and that is counted; giving back needs no lock."""
    count = ActiveCount(arena, 0, 0, 2)
    assert count.try_add(5)

    def stop() -> None:
        assert ActiveCount(arena, 0, 1, 2).try_add(5)
        arena.lock(count._first)

    with another_process(stop):
        assert not count.try_add(5)
        assert count.contended == 1
        count.end()
        assert count.total() == 1
    assert count.try_add(2)


def test_four_processes_never_have_more_than_the_limit(arena: Arena) -> None:
    """Four processes that add and give back at once never have more than the limit in all; at the end nothing is
    counted."""
    results = arena.limiter(0)

    def work(slot: int) -> None:
        count = ActiveCount(arena, 5, slot, 4)
        chance = random.Random(slot)
        held = 0
        for _ in range(3000):
            if held and chance.random() < 0.45:
                count.end()
                held -= 1
            elif count.try_add(10):
                held += 1
                # Without the lock, a sum could have in it what one gave back and another took.
                if arena.lock(count._first):
                    total = count.total()
                    arena.unlock(count._first)
                    arena.cells[results + slot] = max(arena.cells[results + slot], total)
        for _ in range(held):
            count.end()

    in_children(4, work)
    assert 5 <= max(arena.cells[results : results + 4]) <= 10
    assert arena.active(5, 4) == 0


def test_four_processes_get_exactly_the_limit_and_a_killed_ones_share_comes_back(arena: Arena) -> None:
    """Processes that only add get exactly the limit between them; kill -9 of one gives its share to the others."""
    def take(slot: int) -> None:
        count = ActiveCount(arena, 0, slot, 5)
        for _ in range(100):
            insist(lambda: count.try_add(100), lambda: count.contended)

    here = ActiveCount(arena, 0, 4, 5)

    def take_some() -> None:
        doomed = ActiveCount(arena, 0, 0, 5)
        for _ in range(30):
            doomed.try_add(100)

    with another_process(take_some):
        in_children(3, lambda number: take(number + 1))
        assert arena.active(0, 5) == 100
        assert not here.try_add(100)
    assert not here.try_add(100)
    arena.clear_slot(0, [0])
    assert [here.try_add(100) for _ in range(31)] == [True] * 30 + [False]
