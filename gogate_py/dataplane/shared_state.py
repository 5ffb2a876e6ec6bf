"""Policies applied to the arena: state that is exact over all workers of the machine.

Each decision is: read the cells, ask the policy, write the cells, under the arena's lock for that row. When the lock
stays busy for all tries (its holder lost the CPU), the caller is not made to wait: a local decision is taken, counted,
and settled by the next caller in this worker that gets the lock.

    token bucket   admit if the state, read without the lock, has a token beyond those owed; owe it until the next turn
    breaker asked  refused, another backend is tried; only a breaker that is not closed is asked under the lock
    breaker told   the outcome is kept and recorded at the next turn
"""

from __future__ import annotations

from gogate_py.arena import ACTIVE, BREAKER_STATE, PERMITS, Arena
from gogate_py.clock import monotonic_ns
from gogate_py.policy.circuit_breaker import CLOSED, OPEN, BreakerCells, BreakerPolicy
from gogate_py.policy.rate_limiter import TokenBucket


class SharedBucket:
    """One token bucket over all workers."""

    __slots__ = ("_arena", "_cell", "_owed", "_policy", "contended", "rejected")

    def __init__(self, arena: Arena, row: int, policy: TokenBucket) -> None:
        self._arena = arena
        self._cell = arena.limiter(row)
        self._policy = policy
        self._owed = 0
        self.rejected = 0
        self.contended = 0

    def try_take(self) -> bool:
        """Take one token; False when none is there (counted in ``rejected``)."""
        arena = self._arena
        cell = self._cell
        if not arena.lock(cell):
            # Owing without a look at the bucket would be no limit at all (4 workers on 2 cores: 25 % too many).
            self.contended += 1
            now = monotonic_ns()
            policy = self._policy
            if policy.take(max(arena.cells[cell], now) + self._owed * policy.interval_ns, now) < 0:
                self.rejected += 1
                return False
            self._owed += 1
            return True
        # Read the time under the lock: another worker may have moved the TAT past an earlier reading.
        now = monotonic_ns()
        cells = arena.cells
        tat = cells[cell]
        if self._owed:
            tat = max(tat, now) + self._owed * self._policy.interval_ns
            self._owed = 0
            cells[cell] = tat
        taken = self._policy.take(tat, now)
        if taken >= 0:
            cells[cell] = taken
        arena.unlock(cell)
        if taken < 0:
            self.rejected += 1
            return False
        return True

    def retry_after(self) -> int:
        """Whole seconds until a token is likely, at least 1 (the value of Retry-After)."""
        wait = self._policy.wait_ns(self._arena.cells[self._cell], monotonic_ns())
        return max(1, -(-wait // 1_000_000_000))


class SharedBreaker:
    """One backend's circuit breaker over all workers."""

    __slots__ = ("_arena", "_first", "_kept", "_permit", "_policy", "_slots", "contended", "opened")

    def __init__(self, arena: Arena, row: int, slot: int, slots: int, policy: BreakerPolicy) -> None:
        self._arena = arena
        self._first = arena.backend(row)
        self._permit = self._first + PERMITS + slot
        self._slots = slots
        self._policy = policy
        self._kept: list[tuple[bool, bool]] = []
        # --- since the last report
        self.contended = 0
        self.opened = 0

    def take_over(self, old: SharedBreaker) -> None:
        """Go on with what the object before (with other settings, perhaps) has not yet settled or told."""
        self._kept, self.contended, self.opened = old._kept, old.contended, old.opened

    def closed(self) -> bool:
        """Whether the breaker is closed: the one cheap question of the hot path."""
        return self._arena.cells[self._first + BREAKER_STATE] == CLOSED

    def _read(self) -> BreakerCells:
        first = self._first
        return BreakerCells(*self._arena.cells[first : first + 5])

    def _write(self, cells: BreakerCells) -> None:
        memory = self._arena.cells
        first = self._first
        # The state last: a reader without the lock that sees a new state finds its other cells in place.
        memory[first + 1] = cells.failures
        memory[first + 2] = cells.successes
        memory[first + 3] = cells.since_ns
        memory[first + 4] = cells.opened
        memory[first + BREAKER_STATE] = cells.state

    def _recorded(self, cells: BreakerCells, ok: bool, trial: bool) -> BreakerCells:
        after = self._policy.record(cells, ok, trial, monotonic_ns())
        self.opened += after.opened - cells.opened
        return after

    def try_acquire(self) -> tuple[bool, bool]:
        """→ (allowed, as a trial). A trial must be given back with :meth:`release_trial`, whatever becomes of it."""
        if self.closed():
            return True, False
        arena = self._arena
        if not arena.lock(self._first):
            self.contended += 1
            return False, False
        before = self._settled(self._read())
        permits = self._first + PERMITS
        trials = sum(arena.cells[permits : permits + self._slots])
        allowed, trial, cells = self._policy.try_acquire(before, trials, monotonic_ns())
        if trial:
            arena.cells[self._permit] += 1
        if cells is not before:
            self._write(cells)
        arena.unlock(self._first)
        return allowed, trial

    def record(self, ok: bool, trial: bool) -> None:
        """An outcome that counts. A success of a closed breaker without failures costs two reads."""
        if ok and not trial and not self._kept:
            memory = self._arena.cells
            first = self._first
            if memory[first + BREAKER_STATE] != CLOSED or memory[first + 1] == 0:
                return
        if not self._arena.lock(self._first):
            self.contended += 1
            self._kept.append((ok, trial))
            return
        before = self._settled(self._read())
        cells = self._recorded(before, ok, trial)
        if cells is not before:
            self._write(cells)
        self._arena.unlock(self._first)

    def _settled(self, cells: BreakerCells) -> BreakerCells:
        """Record what could not be recorded before (the lock is held)."""
        if self._kept:
            for ok, trial in self._kept:
                cells = self._recorded(cells, ok, trial)
            self._kept.clear()
            self._write(cells)
        return cells

    def settle(self) -> None:
        """Record kept outcomes now, if the lock is free (called a few times a second)."""
        if self._kept and self._arena.lock(self._first):
            self._settled(self._read())
            self._arena.unlock(self._first)

    def release_trial(self) -> None:
        """Give a trial's permit back."""
        self._arena.cells[self._permit] -= 1

    def retry_after(self) -> float:
        """Seconds until an open breaker lets a trial through; 0 when it is not open."""
        return self._policy.retry_after_ns(self._read(), monotonic_ns()) / 1e9

    def is_open(self) -> bool:
        """Whether it is open (half-open is not)."""
        return bool(self._arena.cells[self._first + BREAKER_STATE] == OPEN)


class ActiveCount:
    """One backend's active count: this worker's cell, and the sum over all."""

    __slots__ = ("_cells", "_first", "_last", "_mine")

    def __init__(self, arena: Arena, row: int, slot: int, slots: int) -> None:
        self._cells = arena.cells
        self._first = arena.backend(row) + ACTIVE
        self._last = self._first + slots
        self._mine = self._first + slot

    def add(self, n: int) -> None:
        """Count ``n`` more (or fewer) in this worker."""
        self._cells[self._mine] += n

    def mine(self) -> int:
        """Active in this worker."""
        return self._cells[self._mine]

    def total(self) -> int:
        """Active over all workers."""
        return sum(self._cells[self._first : self._last])
