"""Token bucket as one number (GCRA): the decision, without the place where its state is kept.

A bucket of ``burst`` tokens, refilled at one token per ``interval``, is exactly described by the *theoretical arrival
time* (TAT): the moment at which it would be full again, plus what was taken ahead (ITU-T I.371, the "virtual
scheduling" form of the leaky bucket). One integer of nanoseconds is all the state, so it fits one shared cell and
cannot be torn:

    a request at ``now`` is admitted  ⇔  max(tat, now) - now ≤ (burst - 1) · interval
    and then                              tat = max(tat, now) + interval

``tat = 0`` is a full bucket. The wait until the next token is what Retry-After tells.
"""

from __future__ import annotations


class TokenBucket:
    """Settings of one bucket: ``rate`` tokens per ``per`` seconds, at most ``burst`` at once. Keeps no state itself."""

    __slots__ = ("interval_ns", "tolerance_ns")

    def __init__(self, rate: float, per: float, burst: int) -> None:
        self.interval_ns = max(1, round(per * 1e9 / rate))
        self.tolerance_ns = (burst - 1) * self.interval_ns

    def take(self, tat: int, now_ns: int) -> int:
        """The new TAT when a token is taken at ``now_ns``, or -1 when none is there."""
        start = tat if tat > now_ns else now_ns
        if start - now_ns > self.tolerance_ns:
            return -1
        return start + self.interval_ns

    def wait_ns(self, tat: int, now_ns: int) -> int:
        """Nanoseconds until a token will be there; 0 when one is."""
        return max(0, tat - now_ns - self.tolerance_ns)
