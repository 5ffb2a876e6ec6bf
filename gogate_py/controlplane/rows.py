"""Rows: which arena row belongs to which backend, over all snapshots.

A backend is identified by (pool, address). Its row is its identity for workers: breaker, active count and kept
connections go with it. Connections may outlive their backend by hours and still count in its row, so a row is kept for
its backend's return, and another backend gets it only when no row is left that was never used: then the one that was
freed longest ago, once every worker serves a snapshot without its old backend.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from gogate_py.arena import BACKEND_ROWS, LIMITER_ROWS
from gogate_py.errors import GogateError

Key = tuple[str, str]
K = TypeVar("K", bound=Hashable)


class RowsExhausted(GogateError):
    """More backends, or rate limits, than the arena has rows for."""


class Rows(Generic[K]):
    """The allocator. ``reset_row`` forgets what the arena knows of a row before another backend gets it; ``what`` the
    rows are for."""

    def __init__(
        self, reset_row: Callable[[int], None], capacity: int = BACKEND_ROWS, what: str = "backends in all pools"
    ) -> None:
        self._reset_row = reset_row
        self._capacity = capacity
        self._what = what
        self._rows: dict[K, int] = {}
        self._next = 0
        self._clean = True
        # backends that left: row and the generation of the first snapshot without them, the longest gone first
        self._gone: dict[K, tuple[int, int]] = {}

    def known(self) -> tuple[dict[K, int], dict[K, tuple[int, int]], int]:
        """Who has which row, who had one (and the generation of the first snapshot without them), the next free one."""
        return dict(self._rows), dict(self._gone), self._next

    def adopt(self, rows: dict[K, int], gone: dict[K, tuple[int, int]], following: int) -> None:
        """Go on where another gateway is, with its arena; before anything was assigned."""
        self._rows, self._gone, self._next = rows, gone, following
        self.distrust()

    def distrust(self) -> None:
        """Rows that were never used here may have been by another gateway, with the same arena."""
        self._clean = False

    def in_use(self) -> list[int]:
        """Rows that may hold something: those of current backends and of those that left."""
        return list(range(self._next))

    def get(self, key: K) -> int | None:
        """The row of a backend, None when it has none."""
        return self._rows.get(key)

    def assign(self, keys: Iterable[K], generation: int, acknowledged: int) -> dict[K, int]:
        """Rows for exactly these backends, in snapshot ``generation``; every worker serves ``acknowledged`` or later.

        Raises RowsExhausted; then nothing changed.
        """
        wanted = dict.fromkeys(keys)
        new, second_hand = self._plan(wanted, acknowledged)
        for key in [key for key in self._rows if key not in wanted]:
            self._gone[key] = (self._rows.pop(key), generation)
        for key in new:
            if key in self._gone:
                self._rows[key] = self._gone.pop(key)[0]
            elif self._next < self._capacity:
                row = self._next
                self._next += 1
                if not self._clean:
                    self._reset_row(row)
                self._rows[key] = row
            else:
                row, _ = self._gone.pop(second_hand.pop(0))
                self._reset_row(row)
                self._rows[key] = row
        return {key: self._rows[key] for key in wanted}

    def check(self, keys: Iterable[K], acknowledged: int) -> None:
        """Raises RowsExhausted when :meth:`assign` would; changes nothing."""
        self._plan(dict.fromkeys(keys), acknowledged)

    def _plan(self, wanted: dict[K, None], acknowledged: int) -> tuple[list[K], list[K]]:
        """(who has no row, those that left whose rows are needed for them). Raises RowsExhausted."""
        new = [key for key in wanted if key not in self._rows]
        strangers = [key for key in new if key not in self._gone]
        missing = len(strangers) - (self._capacity - self._next)
        if missing <= 0:
            return new, []
        free = [key for key, (_, since) in self._gone.items() if since <= acknowledged and key not in wanted]
        if len(free) < missing:
            raise RowsExhausted(f"more than {self._capacity} {self._what}")
        return new, free[:missing]


class LimitRows:
    """Which arena row belongs to which rate limit, by its identity (scope, name, algorithm, key). What a limit counted
    is kept for its return, too, as long as no other one needs the row."""

    def __init__(self, reset_row: Callable[[int], None] = lambda row: None, capacity: int = LIMITER_ROWS) -> None:
        self._rows: Rows[str] = Rows(reset_row, capacity, "rate limits")
        self._current: dict[str, int] = {}

    def known(self) -> tuple[dict[str, int], dict[str, tuple[int, int]], int]:
        """See Rows.known."""
        return self._rows.known()

    def adopt(self, rows: dict[str, int], gone: dict[str, tuple[int, int]], following: int) -> None:
        """See Rows.adopt."""
        self._rows.adopt(rows, gone, following)

    def distrust(self) -> None:
        """See Rows.distrust."""
        self._rows.distrust()

    def check(self, identities: Iterable[str], acknowledged: int) -> None:
        """Raises RowsExhausted when :meth:`assign` would; changes nothing."""
        self._rows.check(identities, acknowledged)

    def assign(self, identities: Iterable[str], generation: int, acknowledged: int) -> None:
        """Rows for exactly these, see Rows.assign. Raises RowsExhausted; then nothing changed."""
        self._current = self._rows.assign(identities, generation, acknowledged)

    def __call__(self, identity: str) -> int:
        """The row of a limit; one that nobody assigned gets one, too (offline). Raises RowsExhausted."""
        row = self._current.get(identity)
        if row is None:
            self._current = self._rows.assign([*self._current, identity], 0, 0)
            row = self._current[identity]
        return row
