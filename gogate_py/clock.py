"""Time and randomness, given rather than taken.

Policies and state machines never read a global clock: they are handed a moment (float seconds or integer nanoseconds
of the monotonic clock) or a :class:`Random`. The real ones live here and nowhere else, so that tests can shift them and
so that a jump of the wall clock cannot expire a lease or refill a bucket.

CLOCK_MONOTONIC is one clock for every process of a machine: moments may be compared between workers and supervisor.
"""

from __future__ import annotations

import random
import time
from typing import Protocol

#: Monotonic seconds, the same for all processes of the machine.
monotonic = time.monotonic
#: Monotonic nanoseconds, the same clock as :data:`monotonic`.
monotonic_ns = time.monotonic_ns
#: Seconds since 1970. For logs and for what others dated (tokens, stored answers), never for a time limit of ours.
wall = time.time


class Random(Protocol):
    """The two verbs policies use of :class:`random.Random`."""

    def random(self) -> float:
        """A float in [0, 1)."""
        ...

    def getrandbits(self, k: int, /) -> int:
        """An integer of ``k`` random bits."""
        ...


def new_random(seed: int | None = None) -> random.Random:
    """A generator of its own; seeded from the operating system unless a seed is given (after a fork: always anew)."""
    return random.Random(seed)
