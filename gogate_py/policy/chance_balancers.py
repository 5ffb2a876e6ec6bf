"""Balancers that leave it to chance: random, and the better of two (p2c, ewma)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import ClassVar, Final, Generic

from gogate_py.clock import Random, monotonic
from gogate_py.policy.candidate import Accept, C


class RandomChoice(Generic[C]):
    """At random, in proportion to the weights."""

    needs_key: ClassVar[bool] = False
    needs_latency: ClassVar[bool] = False

    #: Draws before the candidates that are left are shuffled.
    DRAWS: Final = 8

    def __init__(self, random: Random) -> None:
        self._candidates: list[C] = []
        self._cumulative: list[int] = []
        self._random = random

    def update(self, candidates: Sequence[C]) -> None:
        self._candidates = [c for c in candidates if c.weight > 0]
        self._cumulative = list(accumulate(c.weight for c in self._candidates))

    def pick(self, key: int = 0) -> C | None:
        if not self._candidates:
            return None
        cumulative = self._cumulative
        return self._candidates[bisect_right(cumulative, int(self._random.random() * cumulative[-1]))]

    def pick_accepted(self, accept: Accept[C], key: int = 0) -> C | None:
        for candidate in self._shuffled():
            if accept(candidate):
                return candidate
        return None

    def _shuffled(self) -> Iterator[C]:
        """All candidates in a random order in which each next one is drawn by weight from those that are left."""
        candidates, cumulative = self._candidates, self._cumulative
        random = self._random.random
        drawn: set[int] = set()
        # Mostly one of the first is taken: a few draws (repeated ones do not count) before all are shuffled.
        for _ in range(self.DRAWS):
            if len(drawn) == len(candidates):
                return
            index = bisect_right(cumulative, int(random() * cumulative[-1]))
            if index not in drawn:
                drawn.add(index)
                yield candidates[index]
        # Efraimidis and Spirakis: sorting by u^(1/w) is a weighted shuffle.
        keyed = [(random() ** (1.0 / c.weight), i) for i, c in enumerate(candidates) if i not in drawn]
        keyed.sort(reverse=True)
        for _, index in keyed:
            yield candidates[index]


class _TwoChoices(RandomChoice[C]):
    """Two taken at random, weighted, and compared (Mitzenmacher 2001): nearly as good as comparing all, at the price of
    two, and without everybody rushing to the one that was best a moment ago."""

    def pick(self, key: int = 0) -> C | None:
        first = super().pick()
        candidates = self._candidates
        if len(candidates) < 2 or first is None:
            return first
        if len(candidates) == 2:
            return self._better(first, candidates[candidates[0] is first])
        second = super().pick()
        for _ in range(3):  # distinct, unless the weights make that unlikely
            if second is not first:
                break
            second = super().pick()
        return first if second is None or second is first else self._better(first, second)

    def pick_accepted(self, accept: Accept[C], key: int = 0) -> C | None:
        # The better of two is offered, the other one is compared with the next.
        held: C | None = None
        for candidate in self._shuffled():
            offered = candidate
            if held is None:
                held = candidate
                continue
            offered = self._better(held, candidate)
            if offered is held:
                held = candidate
            if accept(offered):
                return offered
        return held if held is not None and accept(held) else None

    def _better(self, first: C, second: C) -> C:
        raise NotImplementedError


class PowerOfTwo(_TwoChoices[C]):
    """The one with fewer active per weight (Envoy's least request)."""

    def _better(self, first: C, second: C) -> C:
        return second if second.active() / second.weight < first.active() / first.weight else first


class Ewma(_TwoChoices[C]):
    """The one with the less time to wait: latency * (1 + active) / weight (Finagle's and Linkerd's peak EWMA). Up to
    COMPARE_ALL candidates all are compared.

    A candidate without samples is taken for as slow as the others on average: so it is tried, but not by everybody at
    once.
    """

    needs_latency: ClassVar[bool] = True
    COMPARE_ALL: Final = 4

    def __init__(self, random: Random, clock: Callable[[], float] = monotonic) -> None:
        super().__init__(random)
        self._clock = clock

    def pick(self, key: int = 0) -> C | None:
        candidates = self._candidates
        if 1 < len(candidates) <= self.COMPARE_ALL:
            return self._ranked(candidates)[0]
        return super().pick()

    def pick_accepted(self, accept: Accept[C], key: int = 0) -> C | None:
        if len(self._candidates) > self.COMPARE_ALL:
            return super().pick_accepted(accept)
        for candidate in self._ranked(self._candidates):
            if accept(candidate):
                return candidate
        return None

    def _better(self, first: C, second: C) -> C:
        # as _ranked does it for more
        now = self._clock()
        one = first.latency.cost(now) if first.latency is not None else None
        other = second.latency.cost(now) if second.latency is not None else None
        if one is None:
            one = 1.0 if other is None else other
        if other is None:
            other = one
        # equal: the first, which was drawn at random
        wait = one * (1 + first.active()) / first.weight
        return second if other * (1 + second.active()) / second.weight < wait else first

    def _ranked(self, candidates: Sequence[C]) -> list[C]:
        """From the least to the most to wait; ties at random."""
        now = self._clock()
        latencies = [c.latency.cost(now) if c.latency is not None else None for c in candidates]
        known = [latency for latency in latencies if latency is not None]
        mean = sum(known) / len(known) if known else 1.0
        random = self._random.random
        ranked = [
            ((mean if latency is None else latency) * (1 + c.active()) / c.weight, random(), i)
            for i, (c, latency) in enumerate(zip(candidates, latencies, strict=True))
        ]
        ranked.sort()
        return [candidates[i] for _, _, i in ranked]
