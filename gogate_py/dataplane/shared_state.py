"""Policies about a backend applied to the arena: state that is exact over all workers of the machine.

Each decision is: read the cells, ask the policy, write the cells, under the arena's lock for them. When the lock stays
busy for all tries (its holder lost the CPU), the caller is not made to wait: a local decision is taken, counted in
``contended``, and settled by the next caller in this worker that gets the lock.

    breaker asked     refused, another backend is tried; only a breaker that is not closed is asked under the lock
    breaker told      the outcome is kept and recorded at the next turn
    outlier told      the same; an ejection is put off to the next failure or turn
    maxConnections    full, another backend is tried

Three locks per row (breaker, outlier, active count), so that they do not meet, and one on the machine for ejections.
Where two are held, the row's was taken first; no process ever waits for one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from gogate_py.arena import (
    ACTIVE,
    BREAKER_FAILURES,
    BREAKER_STATE,
    BREAKER_WINDOW,
    EJECTED_UNTIL,
    OUTLIER_FAILURES,
    OUTLIER_LOCK,
    PERMITS,
    Arena,
)
from gogate_py.clock import monotonic_ns
from gogate_py.policy.circuit_breaker import CLOSED, OPEN, WINDOW_CELLS, BreakerCells, BreakerPolicy, BreakerView
from gogate_py.policy.outlier import OutlierCells, OutlierPolicy

_BREAKER_CELLS: Final = len(BreakerCells._fields)
_OUTLIER_CELLS: Final = len(OutlierCells._fields)
#: Outcomes kept while a lock is busy; the oldest are lost when its holder is stopped for long.
_KEPT: Final = 1024


class SharedBreaker:
    """One backend's circuit breaker over all workers."""

    __slots__ = ("_arena", "_first", "_kept", "_permit", "_policy", "_slots", "_window", "contended", "opened")

    def __init__(self, arena: Arena, row: int, slot: int, slots: int, policy: BreakerPolicy) -> None:
        self._arena = arena
        self._first = arena.backend(row)
        self._permit = self._first + PERMITS + slot
        self._slots = slots
        self._policy = policy
        window = self._first + BREAKER_WINDOW
        self._window = arena.cells[window : window + WINDOW_CELLS]
        self._kept: deque[tuple[bool, bool]] = deque(maxlen=_KEPT)
        # --- since the last report
        self.contended = 0
        self.opened = 0

    def take_over(self, old: SharedBreaker) -> None:
        """Go on with what the object before (with other settings, perhaps) has not yet settled or told."""
        self._kept, self.contended, self.opened = old._kept, old.contended, old.opened

    def closed(self) -> bool:
        """Whether the breaker is closed: the one cheap question of the hot path."""
        return self._arena.cells[self._first + BREAKER_STATE] == CLOSED

    def state(self) -> int:
        """CLOSED, OPEN (also when its time is over and nobody asked since) or HALF_OPEN."""
        return self._arena.cells[self._first + BREAKER_STATE]

    def is_open(self) -> bool:
        """Whether it is open (half-open is not)."""
        return self.state() == OPEN

    def may_take(self) -> bool:
        """Whether :meth:`try_acquire` would say yes now, without asking for a permit."""
        return self.closed() or self._policy.try_acquire(self._read(), self._trials(), monotonic_ns())[0]

    def _read(self) -> BreakerCells:
        first = self._first
        return BreakerCells(*self._arena.cells[first : first + _BREAKER_CELLS].tolist())

    def _write(self, cells: BreakerCells) -> None:
        memory = self._arena.cells
        first = self._first
        # The state last: a reader without the lock that sees a new state finds its other cells in place.
        for index in range(1, _BREAKER_CELLS):
            memory[first + index] = cells[index]
        memory[first + BREAKER_STATE] = cells.state

    def _trials(self) -> int:
        permits = self._first + PERMITS
        return sum(self._arena.cells[permits : permits + self._slots])

    def try_acquire(self) -> tuple[bool, bool]:
        """→ (allowed, as a trial). A trial must be given back with :meth:`release_trial`, whatever becomes of it."""
        if self.closed():
            return True, False
        arena = self._arena
        if not arena.lock(self._first):
            self.contended += 1
            return False, False
        try:
            before = self._settled(self._read())
            allowed, trial, cells = self._policy.try_acquire(before, self._trials(), monotonic_ns())
            if trial:
                arena.cells[self._permit] += 1
            if cells is not before:
                self._write(cells)
        finally:
            arena.unlock(self._first)
        return allowed, trial

    def record(self, ok: bool, trial: bool) -> None:
        """An outcome that counts. One that changes nothing costs two reads and no lock: a success by count without
        failures before it, or any outcome but a trial's while it is not closed."""
        if not trial:
            memory = self._arena.cells
            first = self._first
            if memory[first + BREAKER_STATE] != CLOSED:
                return
            if ok and not self._policy.by_ratio and memory[first + BREAKER_FAILURES] == 0 and not self._kept:
                return
        if not self._arena.lock(self._first):
            self.contended += 1
            self._kept.append((ok, trial))
            return
        try:
            before = self._settled(self._read())
            cells = self._recorded(before, ok, trial)
            if cells is not before:
                self._write(cells)
        finally:
            self._arena.unlock(self._first)

    def _recorded(self, cells: BreakerCells, ok: bool, trial: bool) -> BreakerCells:
        after = self._policy.record(cells, ok, trial, monotonic_ns(), self._window)
        self.opened += after.opened - cells.opened
        return after

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
            try:
                self._settled(self._read())
            finally:
                self._arena.unlock(self._first)

    def release_trial(self) -> None:
        """Give a trial's permit back."""
        self._arena.cells[self._permit] -= 1

    def retry_after(self) -> float:
        """Seconds until an open breaker lets a trial through; 0 when it is not open."""
        return self._policy.retry_after_ns(self._read(), monotonic_ns()) / 1e9

    def describe(self) -> BreakerView:
        """State, failures, outcomes in the window, seconds until a trial: for people."""
        return self._policy.describe(self._read(), monotonic_ns(), self._window)


class SharedOutlier:
    """One backend's outlier detection over all workers. ``pool`` gives the arena rows of all backends of its pool, this
    one's included, and how many of them would take work if none were ejected."""

    __slots__ = ("_arena", "_at", "_kept", "_policy", "_pool", "_put_off", "_until", "contended", "ejections")

    def __init__(
        self, arena: Arena, row: int, policy: OutlierPolicy, pool: Callable[[], tuple[Sequence[int], int]]
    ) -> None:
        self._arena = arena
        self._at = arena.backend(row) + OUTLIER_FAILURES
        self._until = arena.backend(row) + EJECTED_UNTIL
        self._policy = policy
        self._pool = pool
        self._kept: deque[bool] = deque(maxlen=_KEPT)
        self._put_off = False
        # --- since the last report
        self.contended = 0
        self.ejections = 0

    def take_over(self, old: SharedOutlier) -> None:
        """Go on with what the object before (with other settings, perhaps) has not yet settled or told."""
        self._kept, self._put_off = old._kept, old._put_off
        self.contended, self.ejections = old.contended, old.ejections

    def ejected(self, now_ns: int) -> bool:
        """Whether it is taken out of its pool: one read."""
        return self._arena.cells[self._until] > now_ns

    def ejected_for(self, now_ns: int) -> float:
        """Seconds until it is in its pool again; 0 when it is."""
        return max(0, self._arena.cells[self._until] - now_ns) / 1e9

    def record(self, ok: bool) -> None:
        """An outcome that counts. A success without failures before it costs one read and no lock, as does any outcome
        while it is ejected (two reads)."""
        memory = self._arena.cells
        if (ok and memory[self._at] == 0 and not self._kept) or memory[self._until] > monotonic_ns():
            return
        if not self._arena.lock(self._at):
            self.contended += 1
            self._kept.append(ok)
            return
        try:
            self._settled()
            self._recorded(ok)
        finally:
            self._arena.unlock(self._at)

    def settle(self) -> None:
        """Record kept outcomes and try an ejection that was put off, if the lock is free (called a few times a
        second)."""
        if (self._kept or self._put_off) and self._arena.lock(self._at):
            try:
                self._settled()
                if self._put_off:
                    self._retry()
            finally:
                self._arena.unlock(self._at)

    def _settled(self) -> None:
        while self._kept:
            self._recorded(self._kept.popleft())

    def _read(self) -> OutlierCells:
        return OutlierCells(*self._arena.cells[self._at : self._at + _OUTLIER_CELLS].tolist())

    def _write(self, cells: OutlierCells) -> None:
        memory = self._arena.cells
        memory[self._at] = cells.failures
        memory[self._at + 2] = cells.ejections
        # Last: it is what others look at.
        memory[self._until] = cells.ejected_until_ns

    def _recorded(self, ok: bool) -> None:
        now = monotonic_ns()
        before = self._read()
        due, cells = self._policy.record(before, ok, now)
        if due:
            self._try_eject(cells, now)
            return
        self._put_off = False
        if cells is not before:
            self._write(cells)

    def _retry(self) -> None:
        """Eject it now, unless a success or another worker's ejection has ended the row of failures."""
        self._put_off = False
        cells = self._read()
        if cells.failures >= self._policy.threshold:
            self._try_eject(cells, monotonic_ns())

    def _try_eject(self, cells: OutlierCells, now_ns: int) -> None:
        """Eject it if its pool allows it. One at a time on the machine: two workers cannot both eject one of the last
        two, because the second sees what the first did."""
        arena = self._arena
        if not arena.lock(OUTLIER_LOCK):
            self.contended += 1
            self._put_off = True
            self._write(cells)
            return
        try:
            self._put_off = False
            rows, usable = self._pool()
            memory = arena.cells
            ejected = sum(memory[arena.backend(row) + EJECTED_UNTIL] > now_ns for row in rows)
            if self._policy.allows(len(rows), usable, ejected):
                self._write(self._policy.eject(cells, now_ns))
                self.ejections += 1
            else:
                self._write(self._policy.refused(cells))
        finally:
            arena.unlock(OUTLIER_LOCK)


class ActiveCount:
    """One backend's active count: this worker's cell, and the sum over all."""

    __slots__ = ("_arena", "_cells", "_first", "_last", "_mine", "contended")

    def __init__(self, arena: Arena, row: int, slot: int, slots: int) -> None:
        self._arena = arena
        self._cells = arena.cells
        self._first = arena.backend(row) + ACTIVE
        self._last = self._first + slots
        self._mine = self._first + slot
        # --- since the last report
        self.contended = 0

    def begin(self) -> None:
        """Count one more in this worker."""
        self._cells[self._mine] += 1

    def end(self) -> None:
        """Count one fewer in this worker."""
        self._cells[self._mine] -= 1

    def try_add(self, limit: int) -> bool:
        """Count one more if fewer than ``limit`` are active over all workers; a busy lock counts as full. Exact where
        everybody adds so: under the lock others only take away, so what looks full was full when it was taken."""
        arena = self._arena
        first = self._first
        if not arena.lock(first):
            self.contended += 1
            return False
        room = sum(self._cells[first : self._last]) < limit
        if room:
            self._cells[self._mine] += 1
        arena.unlock(first)
        return room

    def mine(self) -> int:
        """Active in this worker."""
        return self._cells[self._mine]

    def total(self) -> int:
        """Active over all workers."""
        return sum(self._cells[self._first : self._last])
