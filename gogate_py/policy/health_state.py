"""Health state of one backend: a pure consecutive-threshold machine, fed by probes.

    state   outcome                                      becomes
    UP      success                                      UP, failures = 0
    UP      failure, fewer than unhealthyThreshold       UP, failures + 1
    UP      failure, the unhealthyThreshold-th in a row  DOWN
    DOWN    failure                                      DOWN, successes = 0
    DOWN    success, fewer than healthyThreshold         DOWN, successes + 1
    DOWN    success, the healthyThreshold-th in a row    UP

Both thresholds hold from the first outcome on: one success does not bring a backend back that needs two.
"""

from __future__ import annotations

#: What a backend that starts as down is down for.
NOT_PROBED = "not probed yet"


class HealthState:
    """Owned by what probes the backend. ``last_error`` is "" while it is up and the last outcome was good."""

    __slots__ = ("failures", "healthy_threshold", "last_error", "successes", "unhealthy_threshold", "up")

    def __init__(self, unhealthy_threshold: int, healthy_threshold: int, *, up: bool) -> None:
        self.unhealthy_threshold = unhealthy_threshold
        self.healthy_threshold = healthy_threshold
        self.up = up
        self.last_error = "" if up else NOT_PROBED
        # in a row, since the last outcome of the other kind; the one that counts towards a change, and the other is 0
        self.failures = 0
        self.successes = 0

    def record(self, ok: bool, error: str = "") -> bool:
        """Take in one outcome; → whether up became down or the reverse. ``error`` says why an outcome is not ok."""
        if ok:
            self.failures = 0
            self.successes += 1
            if self.up:
                self.last_error = ""
            elif self.successes >= self.healthy_threshold:
                self.up = True
                self.last_error = ""
                return True
            return False
        self.successes = 0
        self.failures += 1
        self.last_error = error or "failed"
        if self.up and self.failures >= self.unhealthy_threshold:
            self.up = False
            return True
        return False

    def recall_down(self, error: str) -> None:
        """It was down for this reason when it was last known, and nothing else is known yet."""
        self.up = False
        self.last_error = error or NOT_PROBED

    def recall_up(self) -> None:
        """It was up when it was last known, and nothing else is known yet."""
        self.up = True
        self.last_error = ""

    def __repr__(self) -> str:
        state = "up" if self.up else "down"
        return f"<health {state}, {self.successes} successes, {self.failures} failures, {self.last_error!r}>"
