"""Balancers by hash: the same key goes to the same candidate, in every worker and after a restart.

Which candidate that is, and what moves when candidates change, is HashRing's part; here is what is done when the
key's own candidate is refused or has too much to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil
from typing import ClassVar, Final

from gogate_py.clock import Random
from gogate_py.policy.candidate import Accept, C
from gogate_py.policy.chance_balancers import RandomChoice
from gogate_py.policy.hash_ring import HashRing
from gogate_py.policy.hashing import stable_hash


class IpHash(RandomChoice[C]):
    """By the hash ring: the same key goes to the same candidate for as long as it is there. Without a key by chance."""

    needs_key: ClassVar[bool] = True
    #: Candidates that are looked for on the ring; the search for each next one passes all those before it.
    RING_TRIES: Final = 16

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self._ring = HashRing()

    def update(self, candidates: Sequence[C]) -> None:
        super().update(candidates)
        self._ring.update([(c.address, c.weight) for c in self._candidates])

    def pick(self, key: int = 0) -> C | None:
        if not key:
            return super().pick()
        return self._candidates[self._ring.first(key)] if self._candidates else None

    def pick_accepted(self, accept: Accept[C], key: int = 0) -> C | None:
        if not key:
            return super().pick_accepted(accept)
        for candidate in self._in_order(key):
            if accept(candidate):
                return candidate
        return None

    def _in_order(self, key: int) -> Iterator[C]:
        """All candidates in the order of this key: by the ring, and beyond RING_TRIES by a hash of key and address (in
        one go, so that nobody being accepted among a thousand costs milliseconds, not seconds)."""
        candidates = self._candidates
        seen: set[int] = set()
        for _ in range(min(len(candidates), self.RING_TRIES)):
            position = self._ring.first(key, seen)
            if position < 0:  # an address that is there twice
                break
            seen.add(position)
            yield candidates[position]
        if len(seen) < len(candidates):
            salt = key.to_bytes(8, "big")
            rest = [c for i, c in enumerate(candidates) if i not in seen]
            yield from sorted(rest, key=lambda c: stable_hash(c.address.encode("utf-8", "surrogateescape"), salt))


class ConsistentHash(IpHash[C]):
    """By the hash ring with bounded load (Mirrokni, Thorup and Zadimoghaddam 2016; HAProxy's hash-balance-factor).

    A candidate that has ``factor`` times its share of what is active in the pool (rounded up, and one more) is passed
    over to the next in the key's order: a popular key cannot drown its backend. ``factor`` 0 = no bound.
    """

    def __init__(self, random: Random, factor: float = 1.25) -> None:
        super().__init__(random)
        # less than everybody's share could leave nobody
        self._factor = max(1.0, factor) if factor else 0.0
        # times its weight: a candidate's bound, before rounding. The sum over all is renewed once in so many picks
        # that it costs a pick the same in any pool (eight candidates' counts).
        self._bound_per_weight = 0.0
        self._picks_left = 0

    def update(self, candidates: Sequence[C]) -> None:
        super().update(candidates)
        self._picks_left = 0

    def pick(self, key: int = 0) -> C | None:
        first = super().pick(key)
        if first is None or not key or not self._factor:
            return first
        self._renew()
        if not self._full(first):
            return first
        for candidate in self._in_order(key):
            if not self._full(candidate):
                return candidate
        return first

    def pick_accepted(self, accept: Accept[C], key: int = 0) -> C | None:
        if not key or not self._factor:
            return super().pick_accepted(accept, key)
        self._renew()
        passed_over = []
        for candidate in self._in_order(key):
            if self._full(candidate):
                passed_over.append(candidate)
            elif accept(candidate):
                return candidate
        for candidate in passed_over:
            if accept(candidate):
                return candidate
        return None

    def _renew(self) -> None:
        if self._picks_left:
            self._picks_left -= 1
            return
        candidates = self._candidates
        self._picks_left = len(candidates) // 8
        if candidates:
            active = sum([c.active() for c in candidates])
            self._bound_per_weight = self._factor * active / self._cumulative[-1]

    def _full(self, candidate: C) -> bool:
        return candidate.active() > ceil(self._bound_per_weight * candidate.weight)
