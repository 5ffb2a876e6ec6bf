"""PeakEwma: how long a backend takes to answer, as a balancer wants to know it (Finagle, Linkerd).

    sample                          the value becomes
    the first                       the sample
    larger than the value           the sample, at once: the bad news must not wait for an average
    smaller                         an average in which the old value fades with e^(-t/DECAY)
    a failure                       as a sample of max(seconds, PENALTY_MIN, min(10 * value, PENALTY_MAX))

A fast error would make a backend look good: that is what the penalty is for. Reading fades too, so that a backend that
is avoided is tried again. After FORGOTTEN seconds without a sample the value says nothing about now and there is none:
the balancer then takes the backend for as good as the others, and not for very fast.
"""

from __future__ import annotations

from math import exp
from typing import Final

#: Seconds in which an old value fades to 1/e; Finagle and Linkerd have 10.
DECAY: Final = 10.0
#: Seconds after which the last sample is forgotten.
FORGOTTEN: Final = 6 * DECAY
#: The least and the greatest penalty of a failure, seconds. Without the upper one, failures in a row would multiply to
#: hours; from 10 s the value fades to the 25 ms of an ordinary backend within a minute.
PENALTY_MIN: Final = 1.0
PENALTY_MAX: Final = 10.0


class PeakEwma:
    """The latency of one backend as one worker sees it."""

    __slots__ = ("_at", "_value")

    def __init__(self) -> None:
        self._value = 0.0
        self._at = float("-inf")

    def observe(self, seconds: float, now: float) -> None:
        """An answer came after so many seconds; ``now`` in monotonic seconds."""
        value = self._value
        if seconds >= value:
            self._value = seconds
        else:
            fade = exp(min(0.0, self._at - now) / DECAY)
            self._value = value * fade + seconds * (1.0 - fade)
        self._at = now

    def observe_failure(self, seconds: float, now: float) -> None:
        """It failed after so many seconds: no answer, 5xx, or 429."""
        self.observe(max(seconds, min(10.0 * (self.cost(now) or 0.0), PENALTY_MAX), PENALTY_MIN), now)

    def cost(self, now: float) -> float | None:
        """The latency to expect, in seconds; None when there is no sample of the last FORGOTTEN seconds."""
        age = now - self._at
        if age > FORGOTTEN:
            return None
        return self._value * exp(-age / DECAY) if age > 0.0 else self._value

    def __repr__(self) -> str:
        return f"<latency {self._value * 1000.0:.1f} ms at {self._at:.1f}>"
