"""Rows: which arena row belongs to which backend, over all snapshots.

A backend is identified by (pool, address). Its row is its identity for workers: breaker, active count and kept
connections go with it. Connections may outlive their backend by hours and still count in its row, so a row is kept for
its backend's return, and another backend gets it only when no row is left that was never used: then the one that was
freed longest ago, once every worker serves a snapshot without its old backend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gogate_py.arena import BACKEND_ROWS, LIMITER_ROWS
from gogate_py.errors import GogateError

Key = tuple[str, str]


class RowsExhausted(GogateError):
    """More backends than the arena has rows for."""


class Rows:
    """The allocator. ``reset_row`` forgets what the arena knows of a row before another backend gets it."""

    def __init__(self, reset_row: Callable[[int], None], capacity: int = BACKEND_ROWS) -> None:
        self._reset_row = reset_row
        self._capacity = capacity
        self._rows: dict[Key, int] = {}
        self._next = 0
        # backends that left: row and the generation of the first snapshot without them, the longest gone first
        self._gone: dict[Key, tuple[int, int]] = {}

    def in_use(self) -> list[int]:
        """Rows that may hold something: those of current backends and of those that left."""
        return list(range(self._next))

    def get(self, key: Key) -> int | None:
        """The row of a backend, None when it has none."""
        return self._rows.get(key)

    def assign(self, keys: Iterable[Key], generation: int, acknowledged: int) -> dict[Key, int]:
        """Rows for exactly these backends, in snapshot ``generation``; every worker serves ``acknowledged`` or later.

        Raises RowsExhausted; then nothing changed.
        """
        wanted = dict.fromkeys(keys)
        new = [key for key in wanted if key not in self._rows]
        strangers = [key for key in new if key not in self._gone]
        second_hand: list[Key] = []
        missing = len(strangers) - (self._capacity - self._next)
        if missing > 0:
            free = [key for key, (_, since) in self._gone.items() if since <= acknowledged and key not in wanted]
            if len(free) < missing:
                raise RowsExhausted(f"more than {self._capacity} backends in all pools")
            second_hand = free[:missing]
        for key in [key for key in self._rows if key not in wanted]:
            self._gone[key] = (self._rows.pop(key), generation)
        for key in new:
            if key in self._gone:
                self._rows[key] = self._gone.pop(key)[0]
            elif self._next < self._capacity:
                self._rows[key] = self._next
                self._next += 1
            else:
                row, _ = self._gone.pop(second_hand.pop(0))
                self._reset_row(row)
                self._rows[key] = row
        return {key: self._rows[key] for key in wanted}


class LimitRows:
    """Which arena row belongs to which rate limit, by its identity (scope, name, algorithm, key)."""

    def __init__(self, capacity: int = LIMITER_ROWS) -> None:
        self._capacity = capacity
        self._rows: dict[str, int] = {}

    def __call__(self, identity: str) -> int:
        """The row of a limit. Raises RowsExhausted."""
        row = self._rows.get(identity)
        if row is None:
            if len(self._rows) >= self._capacity:
                raise RowsExhausted(f"more than {self._capacity} rate limits")
            row = self._rows[identity] = len(self._rows)
        return row
