"""Arena: the shared memory in which state is exact over all workers of a machine.

One memfd, mapped by the supervisor and every worker. Two kinds of cell, 64-bit integers but for the client counts:

- **single-writer cells**, one per worker slot, where a sum is enough (active connections, half-open permits): only the
  worker of that slot writes it, anybody sums, and the supervisor zeroes a dead worker's column;
- **shared cells**, where a read-modify-write is needed (a token bucket, a breaker): changed under a record lock on
  the memfd (fcntl F_SETLK), which the kernel lets go when its holder dies. A single aligned 64-bit store is not torn on
  the machines uvloop runs on, so a reader without the lock sees an old or a new value, never half of one.

Rules that the lock depends on: each process has exactly one descriptor of the memfd and keeps it for life (closing any
descriptor of a file drops all of a process's record locks on it), and never an open-file-description lock. A try is
never a blocking wait: after LOCK_TRIES the caller takes a local decision and settles it later.

The memory is sized for the largest layout and sparse: a page that nobody wrote costs nothing.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
from collections.abc import Iterable
from typing import Final

#: Bumped whenever the layout changes: two programs share an arena only when it is equal.
LAYOUT: Final = 3
MAX_SLOTS: Final = 64
BACKEND_ROWS: Final = 16384
LIMITER_ROWS: Final = 4096

# cells of a backend row: shared ones first, then one column per slot for each summed value
BREAKER_STATE: Final = 0  # policy.circuit_breaker.CLOSED | OPEN | HALF_OPEN
BREAKER_FAILURES: Final = 1  # consecutive
BREAKER_SUCCESSES: Final = 2  # of half-open trials
BREAKER_SINCE: Final = 3  # monotonic ns of the last change of state
BREAKER_OPENED: Final = 4  # times opened, ever
BREAKER_REOPENED: Final = 5  # openings in a row after the first, since it was closed
BREAKER_WINDOW_FAILURES: Final = 6  # in the rolling window, when an outcome was last counted
# 7 is free
OUTLIER_FAILURES: Final = 8  # consecutive
EJECTED_UNTIL: Final = 9  # monotonic ns at which its last ejection ends or ended; 0: never ejected
EJECTIONS: Final = 10  # in a row; each makes the next one longer
BREAKER_WINDOW: Final = 16  # 30 cells of policy.circuit_breaker's rolling window
_SHARED_CELLS: Final = 64
ACTIVE: Final = _SHARED_CELLS
PERMITS: Final = ACTIVE + MAX_SLOTS
_BACKEND_CELLS: Final = PERMITS + MAX_SLOTS

# the client table (dataplane/client_table.py): CLIENT_ENTRIES keys, then for each slot one 32-bit count per entry. The
# counts of a slot are together, so that few workers touch few pages and a dead one's are cleared in one go.
CLIENT_BUCKETS: Final = 2048
CLIENT_BUCKET: Final = 32
CLIENT_ENTRIES: Final = CLIENT_BUCKETS * CLIENT_BUCKET

# the states of rate limits by key (dataplane/shared_limits.py): buckets of entries, four cells each
LIMITER_KEY_BUCKETS: Final = 32768
_LIMITER_BUCKET_CELLS: Final = 8 * 4

_HEADER_CELLS: Final = 512  # one page: layout version, multiplier of the client table's hash
_MULTIPLIER: Final = 1
#: Names the lock under which outlier detection ejects: one backend at a time, or two workers could each eject one of
#: the last two of a pool.
OUTLIER_LOCK: Final = 2
_BACKENDS_AT: Final = _HEADER_CELLS
_LIMITERS_AT: Final = _BACKENDS_AT + BACKEND_ROWS * _BACKEND_CELLS
_LIMITER_CELLS: Final = 8  # one cache line each
_CLIENTS_AT: Final = _LIMITERS_AT + LIMITER_ROWS * _LIMITER_CELLS
_CLIENT_COUNTS_AT: Final = _CLIENTS_AT + CLIENT_ENTRIES
_LIMITER_KEYS_AT: Final = _CLIENT_COUNTS_AT + MAX_SLOTS * CLIENT_ENTRIES // 2
_TOTAL_CELLS: Final = _LIMITER_KEYS_AT + LIMITER_KEY_BUCKETS * _LIMITER_BUCKET_CELLS

#: Non-blocking attempts before a caller decides locally. A holder keeps the lock for about a microsecond; the tries
#: span some 20 µs, so that only a holder that lost its CPU makes them all fail.
LOCK_TRIES: Final = 40

_LOCK: Final = fcntl.LOCK_EX | fcntl.LOCK_NB
_UNLOCK: Final = fcntl.LOCK_UN


class Arena:
    """The mapped arena of one process. ``cells`` is the whole of it as signed 64-bit integers, ``client_counts`` the
    client table's counts as 32-bit ones: those of slot 0 for every entry, of slot 1 …"""

    __slots__ = ("_map", "cells", "client_counts", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, _TOTAL_CELLS * 8)
        self.cells = memoryview(self._map).cast("q")
        self.client_counts = memoryview(self._map)[_CLIENT_COUNTS_AT * 8 : _LIMITER_KEYS_AT * 8].cast("i")
        if self.cells[0] == 0:
            self.cells[0] = LAYOUT
            # Odd and of this run only: nobody can choose addresses that all hash alike.
            self.cells[_MULTIPLIER] = secrets.randbits(62) | 1
        elif self.cells[0] != LAYOUT:
            raise RuntimeError(f"arena layout {self.cells[0]} is not {LAYOUT}")

    @classmethod
    def create(cls) -> Arena:
        """A new, zeroed arena (supervisor, once)."""
        fd = os.memfd_create("gogate-arena", os.MFD_CLOEXEC)
        os.ftruncate(fd, _TOTAL_CELLS * 8)
        return cls(fd)

    @staticmethod
    def backend(row: int) -> int:
        """Index of the first cell of a backend row."""
        return _BACKENDS_AT + row * _BACKEND_CELLS

    @staticmethod
    def limiter(row: int) -> int:
        """Index of the first cell of a limiter row."""
        return _LIMITERS_AT + row * _LIMITER_CELLS

    @staticmethod
    def limiter_bucket(number: int) -> int:
        """Index of the first cell of a bucket of limiter states by key."""
        return _LIMITER_KEYS_AT + number * _LIMITER_BUCKET_CELLS

    @staticmethod
    def client(entry: int) -> int:
        """Index of the cell that holds the key of a client table's entry."""
        return _CLIENTS_AT + entry

    @property
    def client_multiplier(self) -> int:
        """The odd number that client keys are hashed with, the same in every process."""
        return self.cells[_MULTIPLIER]

    def lock(self, cell: int) -> bool:
        """Try to take the lock named by a cell; True when held. Never waits longer than LOCK_TRIES tries."""
        fd = self.fd
        for _ in range(LOCK_TRIES):
            try:
                fcntl.lockf(fd, _LOCK, 8, cell * 8)
            except OSError:
                continue
            return True
        return False

    def unlock(self, cell: int) -> None:
        """Let go of a lock taken with :meth:`lock`."""
        fcntl.lockf(self.fd, _UNLOCK, 8, cell * 8)

    def active(self, row: int, slots: int) -> int:
        """Requests and connections the backend of this row serves now, over all workers."""
        first = _BACKENDS_AT + row * _BACKEND_CELLS + ACTIVE
        return sum(self.cells[first : first + slots])

    def clear_slot(self, slot: int, rows: Iterable[int]) -> None:
        """Zero a dead worker's single-writer cells, in the rows in use and in the client table (supervisor only, before
        the column is used again).

        Only rows in use: reading a hole of a memfd allocates its page.
        """
        cells = self.cells
        for row in rows:
            first = _BACKENDS_AT + row * _BACKEND_CELLS
            cells[first + ACTIVE + slot] = 0
            cells[first + PERMITS + slot] = 0
        counts = memoryview(bytes(CLIENT_ENTRIES * 4)).cast("i")
        self.client_counts[slot * CLIENT_ENTRIES : (slot + 1) * CLIENT_ENTRIES] = counts

    def reset_limiter(self, row: int) -> None:
        """Forget what a limiter row counted (supervisor only, before another limit gets it)."""
        first = self.limiter(row)
        self.cells[first : first + _LIMITER_CELLS] = memoryview(bytes(_LIMITER_CELLS * 8)).cast("q")

    def reset_backend(self, row: int) -> None:
        """Forget everything about a backend row (supervisor only, when the row's backend is gone for good)."""
        first = _BACKENDS_AT + row * _BACKEND_CELLS
        self.cells[first : first + _BACKEND_CELLS] = memoryview(bytes(_BACKEND_CELLS * 8)).cast("q")
