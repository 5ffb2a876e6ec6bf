"""ClientTable: how many connections each client address has open, over all workers of the machine.

A hash table in the arena: buckets of CLIENT_BUCKET entries, a client's entry always in the bucket of its key. An entry
is a key and one count per worker slot; each count has one writer, the sum is the client's connections. Rules:

- an entry whose sum is not 0 is never taken for another key. So a worker that has a connection of a client may change
  its own count without a lock; only a client's first connection in a worker looks for the entry, under the bucket's
  lock;
- a count is raised first and the sum looked at afterwards: of two workers that race for the last place one may find it
  taken by the other (then both refuse), but both never get it;
- entries are not emptied: one whose sum is 0 is found again by its client, or taken when its bucket has no empty one;
- a lock that stays busy, or a bucket full of clients that are here (some 40 000 of them), never keeps a client out: its
  connection is not counted, and that is (``contended``);
- a killed worker's counts are zeroed by the supervisor, its locks let go by the kernel.

Cost of a connection, accept and close together (bench/client_table_cost.py): 0.7 µs when the client has others in this
worker, 2.8 µs when it has none (0.9 of them the lock).
"""

from __future__ import annotations

import socket
from typing import Final

from gogate_py.arena import CLIENT_BUCKET, CLIENT_BUCKETS, CLIENT_ENTRIES, Arena

#: Not an entry: the connection stays, but nobody counts it.
UNCOUNTED: Final = -1
#: Not an entry: the client has as many connections as it may have.
REFUSED: Final = -2

_MASK: Final = (1 << 64) - 1
_SHIFT: Final = 64 - CLIENT_BUCKETS.bit_length() + 1
# Keys of IPv4 addresses, and of ::/64 (0 is "no key"), lie where IPv6 has multicast groups: no client comes from there.
_IPV4_KEYS: Final = -(1 << 48)
_ZERO_KEY: Final = -(1 << 47)


def client_key(host: str) -> int:
    """The key of an IP address: the whole of IPv4, the /64 of IPv6 (a client has no less). OSError for other texts."""
    if ":" in host:
        network = socket.inet_pton(socket.AF_INET6, host)[:8]
        return int.from_bytes(network, "big", signed=True) or _ZERO_KEY
    return _IPV4_KEYS + int.from_bytes(socket.inet_pton(socket.AF_INET, host), "big")


class ClientTable:
    """One worker's view of the table. ``contended`` counts connections that could not be counted."""

    __slots__ = ("_arena", "_counts", "_end", "_held", "_mine", "_multiplier", "contended")

    def __init__(self, arena: Arena, slot: int, slots: int) -> None:
        self._arena = arena
        self._counts = arena.client_counts
        self._multiplier = arena.client_multiplier
        self._mine = slot * CLIENT_ENTRIES
        self._end = slots * CLIENT_ENTRIES
        # clients with at least one connection in this worker → their entry
        self._held: dict[int, int] = {}
        self.contended = 0

    def admit(self, key: int, limit: int) -> int:
        """Count one more connection of a client that may have ``limit``; → its entry (for :meth:`release`), UNCOUNTED,
        or REFUSED (then nothing was counted)."""
        entry = self._held.get(key)
        if entry is None:
            return self._admit_first(key, limit)
        counts = self._counts
        mine = self._mine + entry
        counts[mine] += 1
        if sum(counts[entry : self._end : CLIENT_ENTRIES]) > limit:
            counts[mine] -= 1
            return REFUSED
        return entry

    def release(self, entry: int) -> None:
        """A connection with this entry is closed. UNCOUNTED and REFUSED are nothing to release."""
        if entry < 0:
            return
        mine = self._mine + entry
        left = self._counts[mine] - 1
        if not left:
            # While the entry is still ours: at count 0 another worker may give it to another key.
            del self._held[self._arena.cells[self._arena.client(entry)]]
        self._counts[mine] = left

    def total(self, key: int) -> int:
        """The client's connections over all workers, as far as they are counted."""
        entry = self._find(key, self._bucket(key))
        return 0 if entry < 0 else sum(self._counts[entry : self._end : CLIENT_ENTRIES])

    def _bucket(self, key: int) -> int:
        """The first entry of the key's bucket. Multiply-shift with a secret odd number: universal, equal everywhere."""
        return (key * self._multiplier & _MASK) >> _SHIFT << CLIENT_BUCKET.bit_length() - 1

    def _find(self, key: int, bucket: int) -> int:
        first = self._arena.client(bucket)
        keys = self._arena.cells[first : first + CLIENT_BUCKET].tolist()
        return bucket + keys.index(key) if key in keys else -1

    def _admit_first(self, key: int, limit: int) -> int:
        """The client has no connection in this worker yet: find its entry, or make one."""
        arena = self._arena
        bucket = self._bucket(key)
        lock = arena.client(bucket)
        if not arena.lock(lock):
            self.contended += 1
            return UNCOUNTED
        try:
            entry = self._find(key, bucket)
            if entry < 0:
                entry = self._make(key, bucket)
                if entry < 0:
                    self.contended += 1
                    return UNCOUNTED
            counts = self._counts
            mine = self._mine + entry
            counts[mine] = 1
            if sum(counts[entry : self._end : CLIENT_ENTRIES]) > limit:
                counts[mine] = 0
                return REFUSED
        finally:
            arena.unlock(lock)
        self._held[key] = entry
        return entry

    def _make(self, key: int, bucket: int) -> int:
        """An entry for a new key, -1 if there is no room (the bucket's lock is held)."""
        cells = self._arena.cells
        entry = self._find(0, bucket)
        if entry < 0:
            for candidate in range(bucket, bucket + CLIENT_BUCKET):
                if not sum(self._counts[candidate : self._end : CLIENT_ENTRIES]):
                    entry = candidate
                    break
            else:
                return -1
        cells[self._arena.client(entry)] = key
        return entry
