"""Histogram: duration buckets as plain integers (0.1 µs an observation, where prometheus_client takes 1 to 2)."""

from __future__ import annotations

from bisect import bisect_left

from gogate_py.telemetry.metrics import DURATION_BOUNDS


class Histogram:
    """Counts per bucket (the last is +Inf) and the sum of what was observed, since the last :meth:`take`."""

    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.buckets = [0] * (len(DURATION_BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.buckets[bisect_left(DURATION_BOUNDS, seconds)] += 1
        self.total += seconds

    def add(self, buckets: list[int], total: float) -> None:
        """Count what another one has observed."""
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, buckets, strict=True)]
        self.total += total

    def take(self) -> tuple[list[int], float] | None:
        """What was observed since the last call, None when nothing was."""
        if not any(self.buckets):
            return None
        taken = self.buckets, self.total
        self.buckets = [0] * (len(DURATION_BOUNDS) + 1)
        self.total = 0.0
        return taken
