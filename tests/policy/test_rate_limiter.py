"""Rate limiting algorithms against plain ones, and what they promise (SECURITY.md T26)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.policy.rate_limiter import ALGORITHMS, EMPTY, Algorithm, Bucket, State, burst_of, new_algorithm
from gogate_py.snapshot import RateLimit

S = 1_000_000_000
START = 10**15


def limit(algorithm: str, rate: float, per: float = 1.0, burst: int = 1) -> RateLimit:
    """The settings of a limit."""
    return RateLimit(0, rate, per, burst, algorithm)


class PlainBucket:
    """The definition: tokens that grow with time, up to the depth. In units of 1/interval tokens: exact."""

    def __init__(self, interval: int, depth: int) -> None:
        self.interval = interval
        self.most = depth * interval
        self.tokens = self.most
        self.at = START

    def take(self, now: int) -> bool:
        """Take one token if there is one."""
        self.tokens = min(self.most, self.tokens + now - self.at)
        self.at = now
        if self.tokens < self.interval:
            return False
        self.tokens -= self.interval
        return True


class PlainLeak:
    """nginx's limit_req with nodelay: what is in excess leaks away, and may be at most the burst."""

    def __init__(self, interval: int, burst: int) -> None:
        self.interval = interval
        self.burst = burst
        self.excess: Fraction | None = None
        self.at = START

    def take(self, now: int) -> bool:
        """Whether a request is not in excess of the burst."""
        if self.excess is None:
            self.excess, self.at = Fraction(0), now
            return True
        excess = max(Fraction(0), self.excess - Fraction(now - self.at, self.interval) + 1)
        if excess > self.burst:
            return False
        self.excess, self.at = excess, now
        return True


class PlainFixed:
    """A list of what was admitted, cut into windows that begin with a request."""

    def __init__(self, most: int, window: int) -> None:
        self.most = most
        self.window = window
        self.begin = -(10**18)
        self.count = 0

    def take(self, now: int) -> bool:
        """Whether the window has room."""
        if now >= self.begin + self.window:
            self.begin, self.count = now, 0
        if self.count >= self.most:
            return False
        self.count += 1
        return True


class PlainSliding:
    """Windows side by side since the first request; all that was admitted is kept."""

    def __init__(self, most: int, window: int) -> None:
        self.most = most
        self.window = window
        self.begin: int | None = None
        self.counts: dict[int, int] = {}

    def take(self, now: int) -> bool:
        """Whether this window and the share of the one before have room."""
        if self.begin is None or not (self._count(now) or self._count(now - self.window)):
            self.begin, self.counts = now, {}
        into = Fraction((now - self.begin) % self.window, self.window)
        if self._count(now) + self._count(now - self.window) * (1 - into) >= self.most:
            return False
        number = (now - self.begin) // self.window
        self.counts[number] = self.counts.get(number, 0) + 1
        return True

    def _count(self, moment: int) -> int:
        assert self.begin is not None
        return self.counts.get((moment - self.begin) // self.window, 0)


def plain(spec: RateLimit) -> Callable[[int], bool]:
    """The plain algorithm of the same settings."""
    algorithm = new_algorithm(spec)
    if spec.algorithm == "token_bucket":
        return PlainBucket(algorithm.interval_ns, spec.burst).take  # type: ignore[attr-defined]  # it is a Bucket
    if spec.algorithm == "leaky_bucket":
        return PlainLeak(algorithm.interval_ns, spec.burst).take  # type: ignore[attr-defined]  # it is a Bucket
    kind = PlainFixed if spec.algorithm == "fixed_window" else PlainSliding
    return kind(algorithm.limit, algorithm.window_ns).take  # type: ignore[attr-defined]  # it is a window


SETTINGS = st.builds(
    RateLimit,
    st.just(0),
    st.one_of(st.integers(1, 20).map(float), st.floats(0.2, 5000)),
    st.sampled_from([0.5, 1.0, 60.0]),
    st.integers(1, 30),
    st.sampled_from(ALGORITHMS),
)
GAPS = st.lists(st.one_of(st.integers(0, 3 * S), st.sampled_from([0, 1, S // 2, S, 60 * S]), st.just(0)), max_size=100)


@settings(max_examples=300, deadline=None)
@given(SETTINGS, GAPS)
def test_same_decisions_as_the_plain_algorithm(spec: RateLimit, gaps: list[int]) -> None:
    """Whatever the times, the same requests are admitted; peek agrees, and its wait is the shortest that helps."""
    algorithm = new_algorithm(spec)
    definition = plain(spec)
    state = EMPTY
    now = START
    for gap in gaps:
        now += gap
        left, wait = algorithm.peek(state, now)
        admitted, after = algorithm.take(state, now)
        assert admitted == definition(now) == (left > 0) == (wait == 0)
        if not admitted:
            assert after is state
            assert algorithm.take(state, now + wait)[0]
            assert not algorithm.take(state, now + wait - 1)[0]
        else:
            assert algorithm.peek(after, now)[0] == left - 1
        state = after


@settings(max_examples=200, deadline=None)
@given(SETTINGS, GAPS)
def test_a_state_says_nothing_after_its_first_cell(spec: RateLimit, gaps: list[int]) -> None:
    """From the moment in its first cell on, a state is as good as none: the one to forget when room is short."""
    algorithm = new_algorithm(spec)
    state = EMPTY
    now = START
    for gap in gaps:
        now += gap
        state = algorithm.take(state, now)[1]
        assert algorithm.peek(state, max(now, state[0])) == algorithm.peek(EMPTY, now)


def demand(algorithm: Algorithm, begin: int, end: int, step: int) -> Iterator[int]:
    """The moments at which requests are admitted when one is tried every ``step`` ns."""
    state: State = EMPTY
    for now in range(begin, end, step):
        admitted, state = algorithm.take(state, now)
        if admitted:
            yield now


@settings(max_examples=60, deadline=None)
@given(SETTINGS, st.lists(st.tuples(st.integers(0, 2 * S), st.integers(1, 60)), max_size=20))
def test_never_more_than_promised(spec: RateLimit, bursts: list[tuple[int, int]]) -> None:
    """rate·t + burst in any time t (buckets), the limit in a window and less than twice that in any (windows)."""
    algorithm = new_algorithm(spec)
    state = EMPTY
    now = START
    admitted: list[int] = []
    for gap, count in bursts:
        now += gap
        for _ in range(count):
            passed, state = algorithm.take(state, now)
            admitted += [now] * passed
    for first, begin in enumerate(admitted):
        for last in range(first, len(admitted)):
            time = admitted[last] - begin
            if isinstance(algorithm, Bucket):
                depth = algorithm.tolerance_ns // algorithm.interval_ns + 1
                assert last - first + 1 <= depth + time // algorithm.interval_ns
            elif time < algorithm.window_ns:  # type: ignore[attr-defined]  # it is a window
                assert last - first + 1 <= 2 * algorithm.limit  # type: ignore[attr-defined]  # it is a window


@pytest.mark.parametrize(
    ("spec", "at_once"),
    [
        (limit("token_bucket", 10, burst=7), 7),
        (limit("token_bucket", 5, 60.0), 1),
        (limit("leaky_bucket", 10, burst=7), 8),
        (limit("leaky_bucket", 10, burst=0), 1),
        (limit("fixed_window", 10, burst=7), 10),
        (limit("sliding_window", 10, burst=7), 10),
        (limit("sliding_window", 0.5), 1),
        (limit("fixed_window", 2.5), 2),
    ],
)
def test_what_passes_at_once(spec: RateLimit, at_once: int) -> None:
    """An idle limit admits its burst (and the request in service), or a window's worth, and not one more."""
    algorithm = new_algorithm(spec)
    state = EMPTY
    passed = 0
    while (taken := algorithm.take(state, START))[0]:
        state = taken[1]
        passed += 1
    assert passed == burst_of(spec) == at_once


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    ("rate", "per"), [(100.0, 1.0), (1000.0, 1.0), (1.0, 1.0), (2.5, 1.0), (0.5, 1.0), (90.0, 60.0)]
)
def test_endless_demand_gets_the_rate(algorithm: str, rate: float, per: float) -> None:
    """Ten times the rate offered for 20 periods after the first two: the rate, within 1 %."""
    spec = limit(algorithm, rate, per)
    period = round(max(per, per / rate) * S)
    step = round(per * S / rate / 10)
    times = [now for now in demand(new_algorithm(spec), START, START + 22 * period, step) if now >= START + 2 * period]
    expected = rate * 20 * period / S / per
    assert abs(len(times) - expected) <= max(1, expected / 100)


def test_a_fixed_window_never_admits_more_than_its_rate() -> None:
    """From the request that opens a window until its end, at most the rate."""
    times = list(demand(new_algorithm(limit("fixed_window", 5)), START, START + 10 * S, S // 97))
    windows = [times[number : number + 5] for number in range(0, len(times), 5)]
    assert all(window[-1] - window[0] < S for window in windows)
    assert all(after[0] - before[0] >= S for before, after in pairwise(windows))


def test_sliding_windows_are_smoother_than_fixed_ones() -> None:
    """A whole window's worth at the end of one window leaves little for the beginning of the next."""
    counts = {}
    for name in ("fixed_window", "sliding_window"):
        algorithm = new_algorithm(limit(name, 100))
        state = algorithm.take(EMPTY, START)[1]
        for _ in range(99):
            state = algorithm.take(state, START + S - 1)[1]
        counts[name] = algorithm.peek(state, START + S + S // 10)[0]
    assert counts == {"fixed_window": 100, "sliding_window": 10}


@settings(max_examples=100, deadline=None)
@given(SETTINGS, st.integers(0, 40), st.integers(1, 60))
def test_charging_is_taking_without_asking(spec: RateLimit, taken: int, count: int) -> None:
    """Requests that are charged count as if they had been admitted; giving one back undoes one."""
    algorithm = new_algorithm(spec)
    state = EMPTY
    for _ in range(taken):
        state = algorithm.take(state, START)[1]
    left = algorithm.peek(state, START)[0]
    charged = algorithm.charge(state, count, START, START)
    assert algorithm.peek(charged, START)[0] == max(0, left - count)
    assert algorithm.peek(algorithm.charge(charged, -count, START, START), START)[0] == left
    full = burst_of(spec)
    assert algorithm.peek(algorithm.charge(EMPTY, -5, START, START), START)[0] == full


@settings(max_examples=200, deadline=None)
@given(SETTINGS, SETTINGS, st.integers(0, 60), st.integers(0, 100 * S))
def test_changed_settings_go_on_with_the_state(old: RateLimit, new: RateLimit, taken: int, later: int) -> None:
    """With other settings a state is never worse than a full one, and soon a state like any other."""
    before = new_algorithm(old)
    after = new_algorithm(RateLimit(0, new.rate, new.per, new.burst, old.algorithm))
    state = EMPTY
    for _ in range(taken):
        state = before.take(state, START)[1]
    now = START + later
    left, wait = after.peek(state, now)
    admitted, state = after.take(state, now)
    assert admitted == (left > 0) == (wait == 0)
    if not admitted:
        assert after.take(state, now + wait)[0]
    if isinstance(after, Bucket):
        assert wait <= after.interval_ns
    else:
        window: int = after.window_ns  # type: ignore[attr-defined]  # it is a window
        assert wait <= 2 * window


def test_a_bucket_that_refills_faster_is_not_held_to_its_old_time() -> None:
    """An empty bucket of one a minute that becomes one of ten a second is full again after its burst in tenths."""
    slow, fast = new_algorithm(limit("token_bucket", 1, 60.0, 100)), new_algorithm(limit("token_bucket", 10, 1.0, 100))
    state = EMPTY
    for _ in range(100):
        state = slow.take(state, START)[1]
    admitted, state = fast.take(state, START)
    assert not admitted
    assert fast.peek(state, START) == (0, S // 10)
    assert fast.peek(state, START + 10 * S)[0] == 100


@pytest.mark.parametrize("name", ["fixed_window", "sliding_window"])
def test_a_window_that_becomes_shorter_begins_anew(name: str) -> None:
    """A limit of one an hour that becomes one a second does not keep anybody out for the rest of the hour."""
    state = new_algorithm(limit(name, 1, 3600.0)).take(EMPTY, START)[1]
    assert new_algorithm(limit(name, 1, 1.0)).peek(state, START + S) == (1, 0)
    assert new_algorithm(limit(name, 1, 3600.0)).peek(state, START + S)[0] == 0


def test_unknown_algorithms_have_no_fallback() -> None:
    """A name that is no algorithm is an error, not another one."""
    with pytest.raises(KeyError):
        new_algorithm(limit("tocken_bucket", 1))
