"""Circuit breaker of one backend: a pure machine over five integers.

    state      event                                       becomes
    CLOSED     success                                     CLOSED, failures = 0
    CLOSED     failure, fewer than failureThreshold        CLOSED, failures + 1
    CLOSED     failure, the failureThreshold-th in a row   OPEN since now
    OPEN       asked before timeout has passed             refused
    OPEN       asked after timeout                         HALF_OPEN, the asker is a trial
    OPEN       outcome of a request admitted earlier       ignored (it says nothing about now)
    HALF_OPEN  asked, trials running < halfOpenRequests    the asker is a trial
    HALF_OPEN  asked, otherwise                            refused
    HALF_OPEN  trial succeeds, successThreshold reached    CLOSED
    HALF_OPEN  trial succeeds, not yet                     HALF_OPEN, successes + 1
    HALF_OPEN  trial fails                                 OPEN since now
    HALF_OPEN  outcome of a request that is no trial       ignored
    any        trial ends without an outcome               its permit is given back, nothing else

What is an outcome is the caller's to say: the client's own faults never are (SECURITY.md T21). The number of running
trials is kept by the caller too (a cell per worker, so that a dead worker's permits come back).
"""

from __future__ import annotations

from typing import Final, NamedTuple

CLOSED: Final = 0
OPEN: Final = 1
HALF_OPEN: Final = 2

STATE_NAMES: Final = ("closed", "open", "half_open")


class BreakerCells(NamedTuple):
    """The shared state. ``since_ns`` is the monotonic time of the last change of state."""

    state: int = CLOSED
    failures: int = 0
    successes: int = 0
    since_ns: int = 0
    opened: int = 0


class BreakerPolicy:
    """Settings and transitions. ``timeout`` in seconds."""

    __slots__ = ("failure_threshold", "half_open_requests", "success_threshold", "timeout_ns")

    def __init__(
        self, failure_threshold: int, success_threshold: int, half_open_requests: int, timeout: float
    ) -> None:
        self.failure_threshold = failure_threshold
        self.success_threshold = success_threshold
        self.half_open_requests = half_open_requests
        self.timeout_ns = round(timeout * 1e9)

    def try_acquire(self, cells: BreakerCells, trials: int, now_ns: int) -> tuple[bool, bool, BreakerCells]:
        """May a request go to this backend? → (allowed, as a trial, new cells). ``trials`` are running now."""
        if cells.state == CLOSED:
            return True, False, cells
        if cells.state == OPEN:
            if now_ns - cells.since_ns < self.timeout_ns:
                return False, False, cells
            cells = cells._replace(state=HALF_OPEN, successes=0, since_ns=now_ns)
        if trials >= self.half_open_requests:
            return False, False, cells
        return True, True, cells

    def record(self, cells: BreakerCells, ok: bool, trial: bool, now_ns: int) -> BreakerCells:
        """The state after an outcome."""
        if cells.state == CLOSED:
            if ok:
                return cells._replace(failures=0) if cells.failures else cells
            failures = cells.failures + 1
            if failures < self.failure_threshold:
                return cells._replace(failures=failures)
            return BreakerCells(OPEN, failures, 0, now_ns, cells.opened + 1)
        if cells.state == HALF_OPEN and trial:
            if not ok:
                return BreakerCells(OPEN, cells.failures, 0, now_ns, cells.opened + 1)
            successes = cells.successes + 1
            if successes >= self.success_threshold:
                return BreakerCells(CLOSED, 0, 0, now_ns, cells.opened)
            return cells._replace(successes=successes)
        return cells

    def retry_after_ns(self, cells: BreakerCells, now_ns: int) -> int:
        """Nanoseconds until an open breaker lets a trial through; 0 when it may at once."""
        if cells.state != OPEN:
            return 0
        return max(0, cells.since_ns + self.timeout_ns - now_ns)
