"""Rate limiting algorithms: the decisions, without the place where their state is kept.

A state is three integers, ``(0, 0, 0)`` when nothing was counted yet. The first of all of them is the moment (ns) from
which the state says nothing any more: until then it is worth keeping, afterwards it is as good as none. Where room for
states is short, the one that is (or will be) the first to say nothing is the one to forget.

    token_bucket    burst tokens, one more every per/rate seconds: at most rate·t + burst in any time t
    leaky_bucket    a meter that leaks rate per per seconds; the request in service and ``burst`` early ones behind it:
                    at most rate·t + burst + 1 (nginx: limit_req rate=… burst=… nodelay; burst 0: evenly spaced only)
    fixed_window    at most rate in a window of per seconds, which begins with the first request after the one before
                    (so up to 2·rate around the border of two)
    sliding_window  windows as above, one after the other, and the one before counts with the share of it that lies in
                    the last per seconds (Cloudflare 2017): rate under steady demand, less than 2·rate in any window

Both buckets are GCRA (ITU-T I.371, virtual scheduling), one moment instead of a level and its time: the *theoretical
arrival time* (TAT) at which the bucket would be full again.

    a request at ``now`` is admitted  ⇔  max(tat, now) - now ≤ tolerance       tolerance = (burst - 1) · interval
    and then                              tat = max(tat, now) + interval        (leaky_bucket: burst · interval)

    cells             a                          b                      c
    buckets           TAT                        interval               tolerance, as it was counted with
    fixed_window      end of the window          admitted in it         0
    sliding_window    end of the window after    admitted in it         admitted in the window before

Whole numbers only: nanoseconds and requests. A rate of windows that is no whole number of requests shrinks the window
instead (2.5 per second: 2 in 0.8 s; 0.5 per second: 1 in 2 s).

Moments are of one clock that never goes back: ``now_ns`` must have been read after the state. A limit whose settings
change goes on with its state: the requests that a bucket is ahead are converted, counts stay for as long as the new
window is; a state that reaches further ahead than its window ever could is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from gogate_py.snapshot import RateLimit

State = tuple[int, int, int]

#: Nothing counted yet.
EMPTY: Final[State] = (0, 0, 0)

class Algorithm(Protocol):
    """One way of counting, with its settings. Keeps no state itself."""

    def take(self, state: State, now_ns: int) -> tuple[bool, State]:
        """Whether a request at ``now_ns`` is admitted, and the state afterwards: the same object if there is nothing to
        be kept."""
        ...

    def charge(self, state: State, count: int, now_ns: int, since_ns: int) -> State:
        """The state after ``count`` requests that were admitted without asking between ``since_ns`` and now, however
        full it is; negative: after that many were taken back."""
        ...

    def peek(self, state: State, now_ns: int) -> tuple[int, int]:
        """How many requests would be admitted now, and nanoseconds until one would be (0 when one is)."""
        ...


class Bucket:
    """token_bucket and leaky_bucket: ``depth`` requests at once, then one every ``per / rate`` seconds."""

    __slots__ = ("interval_ns", "tolerance_ns")

    def __init__(self, rate: float, per: float, depth: int) -> None:
        self.interval_ns = max(1, round(per * 1e9 / rate))
        self.tolerance_ns = (depth - 1) * self.interval_ns

    def take(self, state: State, now_ns: int) -> tuple[bool, State]:
        """See Algorithm."""
        tat, interval, tolerance = state
        if interval != self.interval_ns or tolerance != self.tolerance_ns:
            tat, interval, tolerance = state = self._converted(state, now_ns)
        if tat <= now_ns:
            return True, (now_ns + interval, interval, tolerance)
        if tat - now_ns > tolerance:
            return False, state
        return True, (tat + interval, interval, tolerance)

    def charge(self, state: State, count: int, now_ns: int, since_ns: int) -> State:
        """See Algorithm."""
        tat, interval, tolerance = self._converted(state, now_ns)
        # What came back meanwhile was there for them.
        return (max(tat, since_ns) + count * interval, interval, tolerance)

    def peek(self, state: State, now_ns: int) -> tuple[int, int]:
        """See Algorithm."""
        tat, interval, tolerance = self._converted(state, now_ns)
        room = tolerance - max(0, tat - now_ns)
        return (room // interval + 1, 0) if room >= 0 else (0, -room)

    def _converted(self, state: State, now_ns: int) -> State:
        """The state in this bucket's settings: as many requests ahead as it was in those that it is in."""
        tat, interval, tolerance = state
        mine, depth = self.interval_ns, self.tolerance_ns
        if (interval != mine or tolerance != depth) and interval and tat > now_ns:
            # No further ahead than an empty bucket: what a larger burst admitted is not to be paid for.
            tat = now_ns + min((tat - now_ns) * mine // interval, depth + mine)
        return (tat, mine, depth)


class FixedWindow:
    """At most ``limit`` requests in a window of ``window_ns``."""

    __slots__ = ("limit", "window_ns")

    def __init__(self, rate: float, per: float) -> None:
        self.limit, self.window_ns = _whole(rate, per)

    def take(self, state: State, now_ns: int) -> tuple[bool, State]:
        """See Algorithm."""
        end, count = self._current(state, now_ns)
        return (False, state) if count >= self.limit else (True, (end, count + 1, 0))

    def charge(self, state: State, count: int, now_ns: int, since_ns: int) -> State:
        """See Algorithm. All in the window of ``now_ns``: rather too much in it than too little."""
        end, before = self._current(state, now_ns)
        return (end, max(0, before + count), 0)

    def peek(self, state: State, now_ns: int) -> tuple[int, int]:
        """See Algorithm."""
        end, count = self._current(state, now_ns)
        return (self.limit - count, 0) if count < self.limit else (0, end - now_ns)

    def _current(self, state: State, now_ns: int) -> tuple[int, int]:
        """End and count of the window that ``now_ns`` lies in."""
        end = state[0]
        if now_ns < end <= now_ns + self.window_ns:
            return end, state[1]
        return now_ns + self.window_ns, 0


class SlidingWindow:
    """About ``limit`` requests in the last ``window_ns``."""

    __slots__ = ("limit", "window_ns")

    def __init__(self, rate: float, per: float) -> None:
        self.limit, self.window_ns = _whole(rate, per)

    def take(self, state: State, now_ns: int) -> tuple[bool, State]:
        """See Algorithm."""
        over, count, before = state
        window = self.window_ns
        left = over - window - now_ns  # of this window, which is the share that the one before still counts with
        if not 0 < left <= window:
            over, count, before = self._current(state, now_ns)
            left = over - window - now_ns
        # Less than the limit, not "with this one at most": that would admit limit - 1 per window under steady demand.
        if count * window + before * left < self.limit * window:
            return True, (over, count + 1, before)
        return False, state

    def charge(self, state: State, count: int, now_ns: int, since_ns: int) -> State:
        """See Algorithm. All in the window of ``now_ns``: rather too much in it than too little."""
        over, current, before = self._current(state, now_ns)
        return (over, max(0, current + count), before)

    def peek(self, state: State, now_ns: int) -> tuple[int, int]:
        """See Algorithm."""
        over, count, before = self._current(state, now_ns)
        window = self.window_ns
        full = self.limit * window
        left = over - window - now_ns
        room = full - before * left - count * window
        if room > 0:
            return -(-room // window), 0
        if count < self.limit and (share := (full - count * window - 1) // before) > 0:
            return 0, left - share
        # In the next window this one is the one before. (Without a count, ``before`` is of much larger settings.)
        return 0, left + (max(0, window - (full - 1) // count) if count else 0)

    def _current(self, state: State, now_ns: int) -> tuple[int, int, int]:
        """The end of the next window, and the counts of the window that ``now_ns`` lies in and of the one before."""
        over, count, before = state
        window = self.window_ns
        left = over - now_ns
        if window < left <= 2 * window:
            return over, count, before
        if 0 < left <= window:
            return over + window, 0, count
        return now_ns + 2 * window, 0, 0


def _whole(rate: float, per: float) -> tuple[int, int]:
    """A whole number of requests, and the window (ns) in which it makes the same rate."""
    limit = max(1, int(rate))
    return limit, max(1, round(per * 1e9 * limit / rate))


_MAKERS: Final[Mapping[str, Callable[[RateLimit], Algorithm]]] = {
    "token_bucket": lambda limit: Bucket(limit.rate, limit.per, limit.burst),
    "leaky_bucket": lambda limit: Bucket(limit.rate, limit.per, limit.burst + 1),
    "fixed_window": lambda limit: FixedWindow(limit.rate, limit.per),
    "sliding_window": lambda limit: SlidingWindow(limit.rate, limit.per),
}
#: Names of the algorithms, for the configuration.
ALGORITHMS: Final = tuple(_MAKERS)


def new_algorithm(limit: RateLimit) -> Algorithm:
    """The algorithm of a limit, by its name. KeyError for a name that is not in ALGORITHMS."""
    return _MAKERS[limit.algorithm](limit)


def burst_of(limit: RateLimit) -> int:
    """How many requests of a limit can be admitted at once."""
    return new_algorithm(limit).peek(EMPTY, 0)[0]
