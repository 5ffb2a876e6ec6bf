"""HashRing: which of a set of weighted addresses a key belongs to.

Every address has POINTS points on a circle, at places that depend on nothing but the address. A key belongs to the
address with the least

    distance from the key forward to its nearest point, divided by the address's weight

so what happens to the others cannot matter to a key unless one of them wins it:

    change                    keys that move
    an address is added       those that it wins
    an address leaves         its own, to whoever is next for each
    a weight grows            those that it wins
    a weight shrinks          those that it loses

Points are as good as random, so the distance to the nearest is exponentially distributed and the shares are in
proportion to the weights; a share is off by about 1/√POINTS of itself. The usual ring gives a heavy address more points
instead. How many then depends on all weights (or a weight of 1000 has 100 000 points), and one address leaving would
move keys that were never its own.

Searching: addresses whose weights lie within a factor of two share a sorted array (at most 20 of them, most often one).
A search begins at the key and ends where even the greatest weight of the array could not win any more, two points on
average. Addresses that are away for a moment (health) keep their points, marked; an array that is mostly away is made
anew.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Container, Sequence
from hashlib import shake_128
from math import inf
from struct import Struct
from typing import Final

from gogate_py.policy.hashing import MASK64

#: Points of each address. 100 as ring implementations have it for a weight of 1 (ketama 160, Envoy at least 1024 / n).
POINTS: Final = 100

# An entry of an array is one 64-bit number: the place on the circle (44 bits), then the slot of its address.
_SLOT_BITS: Final = 20
_SLOT: Final = (1 << _SLOT_BITS) - 1
_PLACE: Final = MASK64 ^ _SLOT
_UNPACK: Final = Struct(f"<{POINTS}Q")


def _places(address: str) -> tuple[int, ...]:
    """Where an address has its points: POINTS numbers of 64 bits, the same for all time."""
    return _UNPACK.unpack(shake_128(address.encode("utf-8", "surrogateescape")).digest(8 * POINTS))


class _Circle:
    """The points of addresses whose weights are alike."""

    __slots__ = ("entries", "positions", "slots", "top", "weights")

    def __init__(self) -> None:
        self.entries = array("Q")
        self.slots: dict[str, int] = {}
        # by slot: position among the members, weight (0 = away)
        self.positions: list[int] = []
        self.weights: list[int] = []
        # the greatest weight
        self.top = 0

    def update(self, members: Sequence[tuple[str, int, int]]) -> None:
        """These (address, weight, position) are the members now, at least one."""
        wanted = {address for address, _, _ in members}
        if len(self.slots.keys() - wanted) > len(wanted):
            self.slots.clear()
            self.entries = array("Q")
        strangers = wanted - self.slots.keys()
        if strangers:
            entries = self.entries.tolist()
            for address in strangers:
                slot = self.slots[address] = len(self.slots)
                entries += [place & _PLACE | slot for place in _places(address)]
            # what was there is sorted already: a few strangers cost a merge, not a sort
            entries.sort()
            self.entries = array("Q", entries)
        self.positions = [-1] * len(self.slots)
        self.weights = [0] * len(self.slots)
        for address, weight, position in members:
            slot = self.slots[address]
            if not self.weights[slot]:  # the same address twice: the first has the keys
                self.weights[slot] = weight
                self.positions[slot] = position
        self.top = max(self.weights)


class HashRing:
    """Members are (address, weight above 0) and known by their position in the last update."""

    __slots__ = ("_circles", "_size")

    def __init__(self) -> None:
        # by the number of bits of the weight
        self._circles: dict[int, _Circle] = {}
        self._size = 0

    def update(self, members: Sequence[tuple[str, int]]) -> None:
        """These are the members now. Of 1 000: below 1 ms when they were members before, about 30 ms when all are
        new (bench/balancers.py)."""
        alike: dict[int, list[tuple[str, int, int]]] = {}
        for position, (address, weight) in enumerate(members):
            alike.setdefault(weight.bit_length(), []).append((address, weight, position))
        for bits in self._circles.keys() - alike.keys():
            del self._circles[bits]
        for bits, those in alike.items():
            circle = self._circles.get(bits)
            if circle is None:
                circle = self._circles[bits] = _Circle()
            circle.update(those)
        self._size = len(members)

    def first(self, key: int, skip: Container[int] = ()) -> int:
        """The position of the member that a 64-bit hash belongs to, as if those at the positions ``skip`` were no
        members; -1 when there is none. Searching costs grow with the number of those skipped."""
        start = key & _PLACE
        winner = -1
        least = inf
        for circle in self._circles.values():
            entries, weights, positions, top = circle.entries, circle.weights, circle.positions, circle.top
            count = len(entries)
            index = bisect_left(entries, start)
            for _ in range(count):
                if index == count:
                    index = 0
                entry = entries[index]
                distance = ((entry - start) & MASK64) >> _SLOT_BITS
                if distance >= least * top:
                    break
                slot = entry & _SLOT
                weight = weights[slot]
                if weight and (not skip or positions[slot] not in skip):
                    if distance < least * weight:
                        least = distance / weight
                        winner = positions[slot]
                    if weight == top:  # whatever follows is farther and not heavier
                        break
                index += 1
        return winner

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        return f"<ring of {self._size} members, {sum(len(c.entries) for c in self._circles.values())} points>"
