"""Circuit breaker of one backend: a pure machine over a few integers.

It opens by count (failureThreshold failures in a row) or by ratio (a share of failures among at least minRequests
outcomes of the last ``window`` seconds).

    state      event                                       becomes
    CLOSED     asked                                       allowed, no trial
    CLOSED     success, by count                           CLOSED, failures = 0
    CLOSED     failure, fewer than failureThreshold        CLOSED, failures + 1
    CLOSED     failure, the failureThreshold-th in a row   OPEN since now
    CLOSED     outcome, by ratio, window below minRequests CLOSED, outcome counted
    CLOSED     outcome, by ratio, failures below the ratio CLOSED, outcome counted
    CLOSED     outcome, by ratio, otherwise                OPEN since now; a success that completes minRequests, too
    CLOSED     outcome of a trial (another one closed it)  as any outcome
    OPEN       asked before its open time has passed       refused
    OPEN       asked after it                              HALF_OPEN, and as there
    OPEN       outcome of a request admitted earlier       ignored (it says nothing about now)
    HALF_OPEN  asked, trials running < halfOpenRequests    the asker is a trial
    HALF_OPEN  asked, otherwise                            refused
    HALF_OPEN  trial succeeds, successThreshold reached    CLOSED, window empty, reopened = 0
    HALF_OPEN  trial succeeds, not yet                     HALF_OPEN, successes + 1
    HALF_OPEN  trial fails                                 OPEN since now, reopened + 1
    HALF_OPEN  outcome of a request that is no trial       ignored
    any        trial ends without an outcome               its permit is given back, nothing else

The open time is ``timeout``, doubled for each re-opening in a row, at most ``max_timeout`` but never below ``timeout``.

The window is a ring of WINDOW_BUCKETS buckets of (number, outcomes, failures), each a WINDOW_BUCKETS-th of ``window``
long and numbered by its time; a bucket whose number is not one of the last WINDOW_BUCKETS is as good as empty. So it
looks back over between 9/10 of ``window`` and all of it, and counts made with other settings fade by themselves.

What is an outcome is the caller's to say: the client's own faults never are (SECURITY.md T21). The number of running
trials is kept by the caller too (a cell per worker, so that a dead worker's permits come back). It must not know where
the integers live, nor how they are locked.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from gogate_py.snapshot import Breaker

CLOSED: Final = 0
OPEN: Final = 1
HALF_OPEN: Final = 2

STATE_NAMES: Final = ("closed", "open", "half_open")

#: Buckets of the window.
WINDOW_BUCKETS: Final = 10
#: Integers of the window: for each bucket its number, outcomes, failures.
WINDOW_CELLS: Final = 3 * WINDOW_BUCKETS

# 2**32 times a millisecond is beyond any max_timeout: more doublings would only make big numbers.
_MAX_DOUBLINGS: Final = 32


class Window(Protocol):
    """The WINDOW_CELLS integers of the window, to be changed in place: a list, or a part of the arena."""

    def __getitem__(self, index: int, /) -> int:
        """One integer."""
        ...

    def __setitem__(self, index: int, value: int, /) -> None:
        """Change one."""
        ...


class BreakerCells(NamedTuple):
    """The shared state. ``since_ns`` is the monotonic time of the last change of state, ``failures`` counts those in a
    row, ``window_failures`` those in the window when an outcome was last counted, ``reopened`` openings in a row after
    the first."""

    state: int = CLOSED
    failures: int = 0
    successes: int = 0
    since_ns: int = 0
    opened: int = 0
    reopened: int = 0
    window_failures: int = 0


class BreakerView(NamedTuple):
    """What people are shown. ``total`` is the outcomes in the window (0 by count); ``retry_after`` in seconds, 0 unless
    open."""

    state: str
    failures: int
    total: int
    retry_after: float


class BreakerPolicy:
    """Settings and transitions."""

    __slots__ = (
        "_bucket_ns", "_max_timeout_ns", "_min_requests", "_ratio", "by_ratio", "failure_threshold",
        "half_open_requests", "success_threshold", "timeout_ns",
    )  # fmt: skip

    def __init__(self, settings: Breaker) -> None:
        self.failure_threshold = settings.failure_threshold
        self.success_threshold = settings.success_threshold
        self.half_open_requests = settings.half_open_requests
        self.timeout_ns = round(settings.timeout * 1e9)
        self._max_timeout_ns = max(self.timeout_ns, round(settings.max_timeout * 1e9))
        #: Whether it opens by ratio; by count otherwise.
        self.by_ratio = settings.failure_threshold == 0
        self._ratio = settings.ratio
        self._min_requests = settings.min_requests
        self._bucket_ns = max(1, round(settings.window * 1e9) // WINDOW_BUCKETS)

    def try_acquire(self, cells: BreakerCells, trials: int, now_ns: int) -> tuple[bool, bool, BreakerCells]:
        """May a request go to this backend? → (allowed, as a trial, new cells). ``trials`` are running now."""
        if cells.state == CLOSED:
            return True, False, cells
        if cells.state == OPEN:
            if now_ns - cells.since_ns < self.open_ns(cells.reopened):
                return False, False, cells
            cells = cells._replace(state=HALF_OPEN, since_ns=now_ns)
        if trials >= self.half_open_requests:
            return False, False, cells
        return True, True, cells

    def record(self, cells: BreakerCells, ok: bool, trial: bool, now_ns: int, window: Window) -> BreakerCells:
        """The state after an outcome. ``window`` is changed in place, by ratio only."""
        if cells.state == CLOSED:
            if self.by_ratio:
                return self._counted(cells, ok, now_ns, window)
            if ok:
                return cells._replace(failures=0) if cells.failures else cells
            failures = cells.failures + 1
            if failures < self.failure_threshold:
                return cells._replace(failures=failures)
            return cells._replace(state=OPEN, failures=failures, since_ns=now_ns, opened=cells.opened + 1, reopened=0)
        if cells.state == HALF_OPEN and trial:
            if not ok:
                return cells._replace(
                    state=OPEN, successes=0, since_ns=now_ns, opened=cells.opened + 1, reopened=cells.reopened + 1
                )
            successes = cells.successes + 1
            if successes < self.success_threshold:
                return cells._replace(successes=successes)
            if self.by_ratio:
                for index in range(WINDOW_CELLS):
                    window[index] = 0
            return BreakerCells(CLOSED, 0, 0, now_ns, cells.opened)
        return cells

    def _counted(self, cells: BreakerCells, ok: bool, now_ns: int, window: Window) -> BreakerCells:
        """Count an outcome in the window of a closed breaker, and open it when the ratio is reached."""
        number = now_ns // self._bucket_ns
        at = number % WINDOW_BUCKETS * 3
        if window[at] != number:
            # The counts first: whoever dies in between leaves an old and empty bucket, never a new one with old counts.
            window[at + 1] = window[at + 2] = 0
            window[at] = number
        window[at + 1] += 1
        if ok:
            if not cells.window_failures:
                return cells  # no failure can have come since without being counted
        else:
            window[at + 2] += 1
        total, failures = self._sums(window, number)
        if total < self._min_requests or not failures or failures / total < self._ratio:
            return cells if failures == cells.window_failures else cells._replace(window_failures=failures)
        return cells._replace(
            state=OPEN, since_ns=now_ns, opened=cells.opened + 1, reopened=0, window_failures=failures
        )

    @staticmethod
    def _sums(window: Window, number: int) -> tuple[int, int]:
        """Outcomes and failures of the buckets that are in the window when the current one has this number."""
        total = failures = 0
        oldest = number - WINDOW_BUCKETS
        for at in range(0, WINDOW_CELLS, 3):
            if oldest < window[at] <= number:
                total += window[at + 1]
                failures += window[at + 2]
        return total, failures

    def open_ns(self, reopened: int) -> int:
        """Nanoseconds that it stays open after that many re-openings in a row."""
        return min(self.timeout_ns << min(reopened, _MAX_DOUBLINGS), self._max_timeout_ns)

    def retry_after_ns(self, cells: BreakerCells, now_ns: int) -> int:
        """Nanoseconds until an open breaker lets a trial through; 0 when it may at once."""
        if cells.state != OPEN:
            return 0
        return max(0, cells.since_ns + self.open_ns(cells.reopened) - now_ns)

    def describe(self, cells: BreakerCells, now_ns: int, window: Window) -> BreakerView:
        """What there is to be said about it now."""
        total, failures = 0, cells.failures
        if self.by_ratio:
            total, failures = self._sums(window, now_ns // self._bucket_ns)
        return BreakerView(STATE_NAMES[cells.state], failures, total, self.retry_after_ns(cells, now_ns) / 1e9)
