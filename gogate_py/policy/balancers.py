"""Balancers: which of a pool's usable backends takes the next request or connection.

One verb, *pick*. A balancer is told the usable candidates when they change (``update``), and asked in two ways:
``pick()`` on the hot path, and ``pick_accepted(accept)`` when some candidates may be refused (already tried, breaker
not closed): then the candidates are offered in the balancer's order and the first accepted one is returned. ``accept``
is called at most once per candidate and not after it said yes, because saying yes may take a breaker's trial permit.

    name                    chooses                                          needs
    round_robin             each in turn
    weighted_round_robin    each in turn as often as its weight says
    least_connections       the fewest active per weight
    random                  by chance, weighted
    p2c                     of two by chance, the fewer active per weight
    ewma                    of two by chance, the less time to wait          the candidates' latency
    ip_hash                 by a hash of the client's address, weighted      a key
    consistent_hash         by a hash of some key, weighted, load bounded    a key

Here: those that take turns or count. chance_balancers.py and hash_balancers.py have the others, candidate.py what all
of them promise. Names → classes in BALANCERS; spellings of other programs are the configuration's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heapreplace
from math import lcm
from typing import Any, ClassVar, Final, Generic

from gogate_py.clock import Random, monotonic
from gogate_py.policy.candidate import Accept, Balancer, C, Candidate
from gogate_py.policy.chance_balancers import Ewma, PowerOfTwo, RandomChoice
from gogate_py.policy.hash_balancers import ConsistentHash, IpHash
from gogate_py.policy.peak_ewma import PeakEwma

__all__ = ["BALANCERS", "Accept", "Balancer", "C", "Candidate", "LeastConnections", "PeakEwma", "RoundRobin",
           "WeightedRoundRobin", "new_balancer"]


class RoundRobin(Generic[C]):
    """Each in turn, weights ignored. Workers start at a random place, so that they do not move in step."""

    needs_key: ClassVar[bool] = False
    needs_latency: ClassVar[bool] = False

    def __init__(self, random: Random) -> None:
        self._candidates: list[C] = []
        self._next = random.getrandbits(16)

    def update(self, candidates: Sequence[C]) -> None:
        self._candidates = [c for c in candidates if c.weight > 0]

    def pick(self, key: int = 0) -> C | None:
        candidates = self._candidates
        if not candidates:
            return None
        self._next = index = (self._next + 1) % len(candidates)
        return candidates[index]

    def pick_accepted(self, accept: Accept[C], key: int = 0) -> C | None:
        candidates = self._candidates
        for _ in candidates:
            self._next = index = (self._next + 1) % len(candidates)
            if accept(candidates[index]):
                return candidates[index]
        return None


class WeightedRoundRobin(Generic[C]):
    """Smooth weighted turns: earliest deadline first, as Envoy and Traefik do it.

    A candidate of weight w is due at (k + ½)/w for its k-th turn; whoever is due first goes. Over any whole cycle each
    gets exactly its weight, unequal weights interleave, and a pick costs O(log n) where nginx's smooth form costs O(n).
    Moments are whole numbers, in a unit that every weight divides: sums of 1/w in floating point drift, and the shares
    with them.
    """

    needs_key: ClassVar[bool] = False
    needs_latency: ClassVar[bool] = False

    def __init__(self, random: Random) -> None:
        # (due, weight, index, candidate): of those due together the lighter one first, which spreads it among the heavy
        # ones
        self._heap: list[tuple[int, int, int, C]] = []
        # by index: from one turn to the next
        self._steps: list[int] = []
        self._random = random

    def update(self, candidates: Sequence[C]) -> None:
        usable = [c for c in candidates if c.weight > 0]
        # A whole number of turns ahead at random: shares stay exact, workers do not move in step.
        unit = lcm(*(c.weight for c in usable))
        self._steps = [2 * unit // c.weight for c in usable]
        self._heap = [(self._steps[i] // 2, c.weight, i, c) for i, c in enumerate(usable)]
        heapify(self._heap)
        if self._heap:
            for _ in range(self._random.getrandbits(5)):
                self.pick()

    def pick(self, key: int = 0) -> C | None:
        heap = self._heap
        if not heap:
            return None
        due, weight, index, candidate = heap[0]
        heapreplace(heap, (due + self._steps[index], weight, index, candidate))
        return candidate

    def pick_accepted(self, accept: Accept[C], key: int = 0) -> C | None:
        for position, (due, weight, index, candidate) in enumerate(sorted(self._heap)):
            if accept(candidate):
                if position == 0:
                    return self.pick()
                heap = [entry for entry in self._heap if entry[2] != index]
                heap.append((due + self._steps[index], weight, index, candidate))
                heapify(heap)
                self._heap = heap
                return candidate
        return None


class LeastConnections(Generic[C]):
    """The fewest active per weight, counted over all workers; ties are broken at random.

    Above FULL_SCAN candidates a random sample of SAMPLE is compared: the pick then costs the same for any pool, and the
    power of a few choices is most of that of all (Mitzenmacher 2001).
    """

    needs_key: ClassVar[bool] = False
    needs_latency: ClassVar[bool] = False
    FULL_SCAN: Final = 32
    SAMPLE: Final = 8

    def __init__(self, random: Random) -> None:
        self._candidates: list[C] = []
        self._random = random

    def update(self, candidates: Sequence[C]) -> None:
        self._candidates = [c for c in candidates if c.weight > 0]

    def pick(self, key: int = 0) -> C | None:
        candidates = self._candidates
        count = len(candidates)
        if count <= 1:
            return candidates[0] if count else None
        random = self._random
        if count > self.FULL_SCAN:
            candidates = [candidates[int(random.random() * count)] for _ in range(self.SAMPLE)]
            count = self.SAMPLE
        best = None
        least = 0.0
        # A random start makes ties random without collecting them, but favours whoever follows a loaded one; so the
        # direction is not enough: ties are counted and replaced with probability 1/k (reservoir of one).
        ties = 1
        for candidate in candidates:
            score = candidate.active() / candidate.weight
            if best is None or score < least:
                best, least, ties = candidate, score, 1
            elif score == least:
                ties += 1
                if random.random() * ties < 1.0:
                    best = candidate
        return best

    def pick_accepted(self, accept: Accept[C], key: int = 0) -> C | None:
        random = self._random.random
        for _, _, candidate in sorted(
            ((c.active() / c.weight, random(), c) for c in self._candidates), key=lambda entry: entry[:2]
        ):
            if accept(candidate):
                return candidate
        return None


def new_balancer(
    name: str, random: Random, balance_factor: float = 1.25, clock: Callable[[], float] = monotonic
) -> Balancer[C]:
    """The balancer of this (canonical) name. ``balance_factor`` is of consistent_hash (0 = no bound, otherwise at least
    1), ``clock`` of ewma: it must be the one whose moments the latencies are fed with."""
    if name == "consistent_hash":
        return ConsistentHash(random, balance_factor)
    if name == "ewma":
        return Ewma(random, clock)
    cls: Callable[[Random], Balancer[C]] = BALANCERS[name]
    return cls(random)


BALANCERS: Final[dict[str, type[Any]]] = {
    "round_robin": RoundRobin,
    "weighted_round_robin": WeightedRoundRobin,
    "least_connections": LeastConnections,
    "random": RandomChoice,
    "p2c": PowerOfTwo,
    "ewma": Ewma,
    "ip_hash": IpHash,
    "consistent_hash": ConsistentHash,
}
