"""What balancers and those who use them agree on: a candidate, and the one verb, *pick* (see balancers.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol, TypeVar

from gogate_py.policy.peak_ewma import PeakEwma


class Candidate(Protocol):
    """What a balancer asks of a backend. ``address`` is its identity for the hashing ones; ``latency`` is fed by the
    pool when the balancer ``needs_latency``, and None otherwise."""

    address: str
    weight: int
    latency: PeakEwma | None

    def active(self) -> int:
        """Requests and connections it serves now, over all workers."""
        ...


C = TypeVar("C", bound=Candidate)
Accept = Callable[[C], bool]


class Balancer(Protocol[C]):
    """Chooses among the candidates of one pool in one worker. ``key`` is the 64-bit hash of what a request is known by,
    0 = none; balancers that do not hash ignore it."""

    needs_key: ClassVar[bool]
    needs_latency: ClassVar[bool]

    def update(self, candidates: Sequence[C]) -> None:
        """The usable candidates changed. Those of weight 0 are left out: they get no new work."""
        ...

    def pick(self, key: int = 0) -> C | None:
        """The next candidate, None when there is none."""
        ...

    def pick_accepted(self, accept: Accept[C], key: int = 0) -> C | None:
        """The first candidate in the balancer's order that is accepted."""
        ...
