"""The token bucket against a plain one of floating tokens, and its edges."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.policy.rate_limiter import TokenBucket

S = 1_000_000_000


class PlainBucket:
    """The definition: tokens that grow with time, up to the burst."""

    def __init__(self, interval_ns: int, burst: int) -> None:
        self.interval_ns = interval_ns
        self.burst = burst
        self.nano_tokens = burst * interval_ns  # in units of 1/interval: exact
        self.at = 0

    def take(self, now: int) -> bool:
        """Take one token if there is one."""
        self.nano_tokens = min(self.burst * self.interval_ns, self.nano_tokens + now - self.at)
        self.at = now
        if self.nano_tokens < self.interval_ns:
            return False
        self.nano_tokens -= self.interval_ns
        return True


@settings(max_examples=200, deadline=None)
@given(
    st.floats(0.1, 5000),
    st.sampled_from([0.5, 1.0, 60.0]),
    st.integers(1, 50),
    st.lists(st.integers(0, 3 * S), max_size=120),
)
def test_same_decisions_as_a_plain_bucket(rate: float, per: float, burst: int, gaps: list[int]) -> None:
    """Whatever the times, the same requests are let through, and wait_ns is exactly when the next one would be."""
    bucket = TokenBucket(rate, per, burst)
    plain = PlainBucket(bucket.interval_ns, burst)
    tat = 0
    now = 1
    plain.at = now
    for gap in gaps:
        now += gap
        wait = bucket.wait_ns(tat, now)
        taken = bucket.take(tat, now)
        assert (taken >= 0) == plain.take(now) == (wait == 0)
        if taken >= 0:
            tat = taken
        else:
            assert bucket.take(tat, now + wait) >= 0
            assert bucket.take(tat, now + wait - 1) < 0


@pytest.mark.parametrize(("rate", "per", "burst"), [(1000, 1.0, 100), (5, 60.0, 1), (1, 1.0, 10)])
def test_sustained_rate_and_burst(rate: float, per: float, burst: int) -> None:
    """Under endless demand, the burst passes at once and then exactly the rate."""
    bucket = TokenBucket(rate, per, burst)
    start = 10**15
    tat = 0
    passed = 0
    while (taken := bucket.take(tat, start)) >= 0:
        tat = taken
        passed += 1
    assert passed == burst
    end = start + round(20 * per * S)
    now = start
    while (now := now + bucket.wait_ns(tat, now)) <= end:
        tat = bucket.take(tat, now)
        assert tat >= 0
        passed += 1
    assert passed == burst + 20 * rate


def test_idle_bucket_is_full_and_not_fuller() -> None:
    """However long nobody asks, no more than the burst is saved up."""
    bucket = TokenBucket(10, 1.0, 3)
    tat = bucket.take(0, S)
    later = 10**6 * S
    taken = 0
    while (next_tat := bucket.take(tat, later)) >= 0:
        tat = next_tat
        taken += 1
    assert taken == 3
