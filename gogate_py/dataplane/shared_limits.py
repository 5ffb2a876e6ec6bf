"""Rate limits over all workers: the algorithms of policy/rate_limiter applied to states in the arena.

An entry is four cells, ``(id, a, b, c)``: whose it is, and the algorithm's state. A limit that all requests share has
one entry, at its row (SharedBucket). A limit with keys (KeyedLimiter) shares a hash table with all the others: buckets
of eight entries, a key's entry always in the bucket of its id. The id is a 64-bit keyed hash of row, algorithm and key;
its secret is of this run of gogate, so that nobody can choose keys that fall together. Rules:

- an entry is changed under the lock of its bucket (its row). The clock is read under the lock, too: else another worker
  may have moved the state past an earlier reading;
- a new key takes its own entry, an empty one, or the one in its bucket whose state is the first to say nothing (see
  rate_limiter): mostly one that says nothing already, which costs nobody anything. Forgetting one that still counted is
  counted (``evicted``): of 100 000 keys that count at a time, that is 2 in 1000;
- who changes keys all the time cannot push out a key that is further ahead than its own: the fullest go last;
- when the lock stays busy for all tries (its holder lost the CPU), nobody waits: this worker goes on alone with the
  state as it was, of which it lends its share (one over the number of workers that may be doing the same), also of what
  comes back meanwhile. What was lent is owed: charged by the next request of that key that gets the lock, or by
  ``settle``. Lending without a look at the state would be no limit at all (4 workers on 2 cores: 25 % too many);
- the kernel lets go the lock of a killed worker. It may leave an entry with old and new cells mixed: a count of one key
  that is wrong for one window at most.

Cost of a check (bench/rate_limit_cost.py), of which 0.9 µs the lock: 1.6 (buckets) to 2.0 µs (sliding_window), shared
or for a key that was seen lately; 3.1 to 3.5 µs for each of 100 000 keys in turn, all of which must be hashed and found
anew; 1.4 µs for a refusal.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from struct import Struct
from typing import Final

from gogate_py.arena import LIMITER_KEY_BUCKETS, Arena
from gogate_py.clock import monotonic_ns
from gogate_py.middleware.rate_limit import is_shared, name_of
from gogate_py.policy.rate_limiter import EMPTY, Algorithm, State, new_algorithm
from gogate_py.snapshot import RateLimit

_ENTRY: Final = 4  # cells
_BUCKET: Final = 8 * _ENTRY
_read_owners: Final = Struct("q" + "24xq" * 7).unpack_from
_KEYS_AT: Final = Arena.limiter_bucket(0)
# Not pack_into for the way back: it fills the place with zeros first, which a reader without the lock could see.
_read: Final = Struct("4q").unpack_from
#: Keys of a limit whose hash and entry a worker remembers.
_HINTS: Final = 4096


def _id(empty: blake2b, key: bytes) -> int:
    """The id of a key: ``empty`` is the hash of nothing with the limit's secret. 0.4 µs."""
    hashed = empty.copy()
    hashed.update(key)
    return int.from_bytes(hashed.digest(), "little", signed=True) or 1


class _Debt:
    """Requests of one state that this worker has admitted and not yet counted in the arena."""

    __slots__ = ("base", "count", "local", "since_ns")

    def __init__(self) -> None:
        # negative: given back
        self.count = 0
        # when the first of them was admitted
        self.since_ns = 0
        # the state in the arena as it was, and what this worker has made of its share of it; None: not looked at
        self.base: State | None = None
        self.local = EMPTY


class _Counter:
    """What both kinds have in common. An owner is never 0: that is an empty entry."""

    __slots__ = ("_algorithm", "_arena", "_hash", "_lenders", "contended", "evicted", "rejected")

    def __init__(self, arena: Arena, limit: RateLimit, workers: int = 4) -> None:
        """``workers``: how many processes share the arena."""
        self._arena = arena
        self._algorithm: Algorithm = new_algorithm(limit)
        self._lenders = max(1, workers - 1)
        # A copy of a hash that has its key already costs two thirds of a new one.
        secret = b"%d/%d/%b" % (arena.client_multiplier, limit.row, limit.algorithm.encode())
        self._hash = blake2b(digest_size=8, key=secret)
        # --- since the last report
        self.rejected = 0
        self.contended = 0
        self.evicted = 0

    def _count(self, entry: int, owner: int, state: State, debt: _Debt | None) -> bool:
        """Count a request in an entry, and what is owed to it (the lock is held)."""
        now = monotonic_ns()
        charged = state if debt is None else self._charged(state, debt, now)
        admitted, after = self._algorithm.take(charged, now)
        if after is not state:
            self._write(entry, owner, after)
        return admitted

    def _charged(self, state: State, debt: _Debt, now: int) -> State:
        return self._algorithm.charge(state, debt.count, now, debt.since_ns) if debt.count else state

    def _write(self, entry: int, owner: int, state: State) -> None:
        """Fill an entry (the lock is held). Its owner last, and nobody's in between: who reads without the lock never
        takes another key's state for its own."""
        cells = self._arena.cells
        if cells[entry] != owner:
            cells[entry] = 0
            cells[entry + 1], cells[entry + 2], cells[entry + 3] = state
            cells[entry] = owner
        else:
            cells[entry + 1], cells[entry + 2], cells[entry + 3] = state

    def _lend(self, state: State, debt: _Debt) -> bool:
        """Decide without the lock, by this worker's share of what was read."""
        self.contended += 1
        algorithm = self._algorithm
        now = monotonic_ns()
        if state != debt.base:
            debt.base = debt.local = state
            if debt.count > 0:
                debt.local = algorithm.charge(state, debt.count * self._lenders, now, debt.since_ns)
        if not algorithm.take(debt.local, now)[0]:
            return False
        if debt.count <= 0:
            debt.since_ns = now
        debt.count += 1
        debt.local = algorithm.charge(debt.local, self._lenders, now, now)
        return True

    def _give_back(self, debt: _Debt) -> None:
        if debt.count <= 0:
            debt.since_ns = monotonic_ns()
        debt.count -= 1
        debt.base = None


class SharedBucket(_Counter):
    """One state for all requests, over all workers."""

    __slots__ = ("_at", "_debt", "_me")

    def __init__(self, arena: Arena, limit: RateLimit, workers: int = 4) -> None:
        super().__init__(arena, limit, workers)
        self._at = arena.limiter(limit.row)
        # A row that was another algorithm's before has another owner: its state is not taken for ours.
        self._me = _id(self._hash, b"")
        self._debt: _Debt | None = None

    def try_take(self, key: bytes = b"") -> bool:
        """Count a request; False when the limit is full (counted in ``rejected``)."""
        arena, at = self._arena, self._at
        if arena.lock(at):
            try:
                admitted = self._count(at, self._me, self._state(), self._debt)
                self._debt = None
            finally:
                arena.unlock(at)
        else:
            if self._debt is None:
                self._debt = _Debt()
            admitted = self._lend(self._state(), self._debt)
        if not admitted:
            self.rejected += 1
        return admitted

    def peek(self, key: bytes = b"") -> tuple[int, int]:
        """How many would be admitted now, and nanoseconds until one would be."""
        state = self._state()
        now = monotonic_ns()
        return self._algorithm.peek(state if self._debt is None else self._charged(state, self._debt, now), now)

    def give_back(self, key: bytes = b"") -> None:
        """A request that was counted is not served after all, because of another limit."""
        if self._debt is None:
            self._debt = _Debt()
        self._give_back(self._debt)
        self.settle()

    def settle(self) -> None:
        """Count what is owed, if the lock is free (called a few times a second)."""
        if self._debt is not None and self._arena.lock(self._at):
            try:
                self._write(self._at, self._me, self._charged(self._state(), self._debt, monotonic_ns()))
                self._debt = None
            finally:
                self._arena.unlock(self._at)

    def _state(self) -> State:
        owner, a, b, c = _read(self._arena.cells, self._at * 8)
        return (a, b, c) if owner == self._me else EMPTY


class KeyedLimiter(_Counter):
    """One state for each key, over all workers, as long as there is room for them."""

    __slots__ = ("_debts", "_hints")

    def __init__(self, arena: Arena, limit: RateLimit, workers: int = 4) -> None:
        super().__init__(arena, limit, workers)
        # key → (its id, first cell of its bucket, where its entry was last)
        self._hints: dict[bytes, tuple[int, int, int]] = {}
        # by id. Few: a holder that lost its CPU keeps one bucket of 32 768 busy.
        self._debts: dict[int, _Debt] = {}

    def try_take(self, key: bytes) -> bool:
        """Count a request; False when the limit is full for this key (counted in ``rejected``)."""
        owner, bucket, entry = hint = self._hints.get(key) or self._look(key)
        arena = self._arena
        if arena.lock(bucket):
            try:
                found, a, b, c = _read(arena.cells, entry * 8)
                state = (a, b, c)
                if found != owner:
                    entry, state = self._find_or_make(owner, bucket)
                    self._hints[key] = (owner, bucket, entry)
                admitted = self._count(entry, owner, state, self._debts.pop(owner, None) if self._debts else None)
            finally:
                arena.unlock(bucket)
        else:
            admitted = self._lend(self._find(hint)[1], self._debt(owner))
        if not admitted:
            self.rejected += 1
        return admitted

    def peek(self, key: bytes) -> tuple[int, int]:
        """How many would be admitted now, and nanoseconds until one would be."""
        hint = self._hints.get(key) or self._look(key)
        state = self._find(hint)[1]
        now = monotonic_ns()
        debt = self._debts.get(hint[0])
        return self._algorithm.peek(state if debt is None else self._charged(state, debt, now), now)

    def give_back(self, key: bytes) -> None:
        """A request that was counted for this key is not served after all, because of another limit."""
        owner = (self._hints.get(key) or self._look(key))[0]
        self._give_back(self._debt(owner))
        self._settle(owner)

    def settle(self) -> None:
        """Count what is owed, where the lock is free (called a few times a second)."""
        for owner in list(self._debts):
            self._settle(owner)

    def _debt(self, owner: int) -> _Debt:
        debt = self._debts.get(owner)
        if debt is None:
            debt = self._debts[owner] = _Debt()
        return debt

    def _settle(self, owner: int) -> None:
        bucket = _KEYS_AT + owner % LIMITER_KEY_BUCKETS * _BUCKET
        if not self._arena.lock(bucket):
            return
        try:
            debt = self._debts.pop(owner)
            if debt.count:
                entry, state = self._find_or_make(owner, bucket)
                self._write(entry, owner, self._charged(state, debt, monotonic_ns()))
        finally:
            self._arena.unlock(bucket)

    def _look(self, key: bytes) -> tuple[int, int, int]:
        """The hint for a key that has none. Emptied when full: that costs a hash for each, now and then."""
        if len(self._hints) >= _HINTS:
            self._hints.clear()
        owner = _id(self._hash, key)
        bucket = _KEYS_AT + owner % LIMITER_KEY_BUCKETS * _BUCKET
        owners = _read_owners(self._arena.cells, bucket * 8)
        # Without the lock: a guess, as every hint.
        hint = self._hints[key] = (owner, bucket, bucket + owners.index(owner) * _ENTRY if owner in owners else bucket)
        return hint

    def _find(self, hint: tuple[int, int, int]) -> tuple[int, State]:
        """The entry of an id and its state; -1 and EMPTY when there is none."""
        owner, bucket, entry = hint
        cells = self._arena.cells
        found, a, b, c = _read(cells, entry * 8)
        if found != owner:
            owners = _read_owners(cells, bucket * 8)
            if owner not in owners:
                return -1, EMPTY
            entry = bucket + owners.index(owner) * _ENTRY
            found, a, b, c = _read(cells, entry * 8)
        return (entry, (a, b, c)) if found == owner else (-1, EMPTY)

    def _find_or_make(self, owner: int, bucket: int) -> tuple[int, State]:
        """The entry of an id and its state, or one that may be taken for it and EMPTY (the lock is held)."""
        entry, state = self._find((owner, bucket, bucket))
        if entry >= 0:
            return entry, state
        cells = self._arena.cells
        owners = _read_owners(cells, bucket * 8)
        if 0 in owners:
            return bucket + owners.index(0) * _ENTRY, EMPTY
        ends = cells[bucket + 1 : bucket + _BUCKET : _ENTRY].tolist()
        oldest = min(ends)
        if oldest > monotonic_ns():
            self.evicted += 1
        return bucket + ends.index(oldest) * _ENTRY, EMPTY


class LimiterTable:
    """The limiters of one worker: one for each limit, whichever routes and listeners it is of, kept over snapshots."""

    def __init__(self, arena: Arena, workers: int = 4) -> None:
        """``workers``: how many processes share the arena."""
        self._arena = arena
        self._workers = workers
        # row → the limit, the route it is of ("" = the server), what counts for it
        self._rows: dict[int, tuple[RateLimit, str, SharedBucket | KeyedLimiter]] = {}
        self._wanted: set[int] = set()
        # of limiters that are gone
        self._contended = 0
        self._evicted = 0
        self._rejected: dict[tuple[str, str], int] = {}

    def limiter(self, limit: RateLimit, route: str = "") -> SharedBucket | KeyedLimiter:
        """What counts for a limit; ``route`` is "" for one of the server. The same object for the same limit."""
        self._wanted.add(limit.row)
        known = self._rows.get(limit.row)
        if known is not None and known[:2] == (limit, route):
            return known[2]
        kind = SharedBucket if is_shared(limit) else KeyedLimiter
        made = kind(self._arena, limit, self._workers)
        if known is not None:
            # The states are in the arena: with other settings they go on. Only what is owed is here.
            known[2].settle()
            self._collect(*known)
        self._rows[limit.row] = (limit, route, made)
        return made

    def drop_unused(self) -> None:
        """Forget the limiters that were not asked for since the last call (at the end of a change of snapshots)."""
        for row in self._rows.keys() - self._wanted:
            self._collect(*self._rows.pop(row))
        self._wanted.clear()

    def settle(self) -> None:
        """Count what is owed, where locks are free (called a few times a second)."""
        for _, _, limiter in self._rows.values():
            limiter.settle()

    def take_rejected(self) -> Iterator[tuple[tuple[str, str], int]]:
        """((route, name of the limit), refused) since the last call."""
        for known in self._rows.values():
            self._collect(*known)
        rejected, self._rejected = self._rejected, {}
        return iter(rejected.items())

    def take_contended(self) -> int:
        """Decisions without the lock since the last call."""
        for known in self._rows.values():
            self._collect(*known)
        contended, self._contended = self._contended, 0
        return contended

    def take_evicted(self) -> int:
        """Keys since the last call that were forgotten although they still counted."""
        for known in self._rows.values():
            self._collect(*known)
        evicted, self._evicted = self._evicted, 0
        return evicted

    def _collect(self, limit: RateLimit, route: str, limiter: SharedBucket | KeyedLimiter) -> None:
        """Take over a limiter's counters."""
        if limiter.rejected:
            series = (route, name_of(limit))
            self._rejected[series] = self._rejected.get(series, 0) + limiter.rejected
            limiter.rejected = 0
        self._contended += limiter.contended
        self._evicted += limiter.evicted
        limiter.contended = limiter.evicted = 0
