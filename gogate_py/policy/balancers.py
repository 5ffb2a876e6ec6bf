"""Balancers: which of a pool's usable backends takes the next request or connection.

One verb, *pick*. A balancer is told the usable candidates when they change (``update``), and asked in two ways:
``pick()`` on the hot path, and ``pick_accepted(accept)`` when some candidates may be refused (already tried, breaker
not closed): then the candidates are offered in the balancer's order and the first accepted one is returned. ``accept``
is called at most once per candidate and not after it said yes, because saying yes may take a breaker's trial permit.

Names → classes in BALANCERS; spellings of other programs are the configuration's business.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from heapq import heapify, heapreplace
from itertools import accumulate
from math import lcm
from typing import Any, Final, Generic, Protocol, TypeVar

from gogate_py.clock import Random


class Candidate(Protocol):
    """What a balancer asks of a backend."""

    weight: int

    def active(self) -> int:
        """Requests and connections it serves now, over all workers."""
        ...


C = TypeVar("C", bound=Candidate)
Accept = Callable[[C], bool]


class Balancer(Protocol[C]):
    """Chooses among the candidates of one pool in one worker."""

    def update(self, candidates: Sequence[C]) -> None:
        """The usable candidates changed. Those of weight 0 are left out: they get no new work."""
        ...

    def pick(self) -> C | None:
        """The next candidate, None when there is none."""
        ...

    def pick_accepted(self, accept: Accept[C]) -> C | None:
        """The first candidate in the balancer's order that is accepted."""
        ...


class RoundRobin(Generic[C]):
    """Each in turn, weights ignored. Workers start at a random place, so that they do not move in step."""

    def __init__(self, random: Random) -> None:
        self._candidates: list[C] = []
        self._next = random.getrandbits(16)

    def update(self, candidates: Sequence[C]) -> None:
        self._candidates = [c for c in candidates if c.weight > 0]

    def pick(self) -> C | None:
        candidates = self._candidates
        if not candidates:
            return None
        self._next = index = (self._next + 1) % len(candidates)
        return candidates[index]

    def pick_accepted(self, accept: Accept[C]) -> C | None:
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

    def pick(self) -> C | None:
        heap = self._heap
        if not heap:
            return None
        due, weight, index, candidate = heap[0]
        heapreplace(heap, (due + self._steps[index], weight, index, candidate))
        return candidate

    def pick_accepted(self, accept: Accept[C]) -> C | None:
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

    FULL_SCAN: Final = 32
    SAMPLE: Final = 8

    def __init__(self, random: Random) -> None:
        self._candidates: list[C] = []
        self._random = random

    def update(self, candidates: Sequence[C]) -> None:
        self._candidates = [c for c in candidates if c.weight > 0]

    def pick(self) -> C | None:
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

    def pick_accepted(self, accept: Accept[C]) -> C | None:
        random = self._random.random
        for _, _, candidate in sorted(
            ((c.active() / c.weight, random(), c) for c in self._candidates), key=lambda entry: entry[:2]
        ):
            if accept(candidate):
                return candidate
        return None


class RandomChoice(Generic[C]):
    """At random, in proportion to the weights."""

    def __init__(self, random: Random) -> None:
        self._candidates: list[C] = []
        self._cumulative: list[int] = []
        self._random = random

    def update(self, candidates: Sequence[C]) -> None:
        self._candidates = [c for c in candidates if c.weight > 0]
        self._cumulative = list(accumulate(c.weight for c in self._candidates))

    def pick(self) -> C | None:
        if not self._candidates:
            return None
        cumulative = self._cumulative
        return self._candidates[bisect_right(cumulative, int(self._random.random() * cumulative[-1]))]

    def pick_accepted(self, accept: Accept[C]) -> C | None:
        # Efraimidis and Spirakis: sorting by u^(1/w) is a weighted shuffle.
        random = self._random.random
        keyed = ((random() ** (1.0 / c.weight), i) for i, c in enumerate(self._candidates))
        for _, index in sorted(keyed, reverse=True):
            if accept(self._candidates[index]):
                return self._candidates[index]
        return None


class PowerOfTwo(RandomChoice[C]):
    """Of two taken at random, the one with fewer active per weight (Mitzenmacher 2001; Envoy's least request)."""

    def pick(self) -> C | None:
        first = super().pick()
        if len(self._candidates) < 2:
            return first
        second = super().pick()
        for _ in range(3):  # distinct, unless the weights make that unlikely
            if second is not first:
                break
            second = super().pick()
        if first is None or second is None or second is first:
            return first
        return second if second.active() / second.weight < first.active() / first.weight else first


def new_balancer(name: str, random: Random) -> Balancer[C]:
    """The balancer of this (canonical) name."""
    cls: Callable[[Random], Balancer[C]] = BALANCERS[name]
    return cls(random)


BALANCERS: Final[dict[str, type[Any]]] = {
    "round_robin": RoundRobin,
    "weighted_round_robin": WeightedRoundRobin,
    "least_connections": LeastConnections,
    "random": RandomChoice,
    "p2c": PowerOfTwo,
}
