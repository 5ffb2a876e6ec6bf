"""PeakEwma's table of samples, and what the ewma balancer makes of latencies."""

from __future__ import annotations

import random
from collections import Counter
from math import exp

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.policy.balancers import Balancer, new_balancer
from gogate_py.policy.peak_ewma import DECAY, FORGOTTEN, PENALTY_MAX, PENALTY_MIN, PeakEwma


class Stub:
    """A candidate whose latency was observed just now (None: never)."""

    def __init__(self, name: str, latency: float | None, active: int = 0, weight: int = 1) -> None:
        self.address = name
        self.weight = weight
        self.busy = active
        self.latency: PeakEwma | None = PeakEwma()
        if latency is not None:
            self.latency.observe(latency, 100.0)

    def active(self) -> int:
        return self.busy


def ewma_of(*candidates: Stub, now: float = 100.0, seed: int = 1) -> Balancer[Stub]:
    """The ewma balancer at a given moment."""
    balancer: Balancer[Stub] = new_balancer("ewma", random.Random(seed), clock=lambda: now)
    balancer.update(candidates)
    return balancer


def shares(balancer: Balancer[Stub], picks: int = 2000) -> Counter[str]:
    """How often each is picked."""
    count: Counter[str] = Counter()
    for _ in range(picks):
        picked = balancer.pick()
        assert picked is not None
        count[picked.address] += 1
    return count


class TestLatency:
    """The value of one backend."""

    def test_no_sample(self) -> None:
        """Before the first sample there is no value, and after it the sample is the value."""
        latency = PeakEwma()
        assert latency.cost(5.0) is None
        latency.observe(0.2, 5.0)
        assert latency.cost(5.0) == 0.2

    def test_a_peak_counts_at_once(self) -> None:
        """A sample above the value replaces it, whenever it comes."""
        latency = PeakEwma()
        for second in range(20):
            latency.observe(0.01, second * 0.1)
        latency.observe(0.5, 2.0)
        assert latency.cost(2.0) == 0.5

    def test_it_comes_down_with_time(self) -> None:
        """Smaller samples take the value down by the time that passed between them, not by their number."""
        often, seldom = PeakEwma(), PeakEwma()
        for latency, step in ((often, 0.1), (seldom, 1.0)):
            latency.observe(1.0, 0.0)
            for index in range(1, round(DECAY / step) + 1):
                latency.observe(0.1, index * step)
        expected = 0.1 + 0.9 * exp(-1.0)
        assert often.cost(DECAY) == pytest.approx(expected)
        assert seldom.cost(DECAY) == pytest.approx(expected)

    def test_reading_fades_and_forgets(self) -> None:
        """Without samples the value fades, changes nothing by being read, and is gone after FORGOTTEN seconds."""
        latency = PeakEwma()
        latency.observe(1.0, 0.0)
        assert latency.cost(DECAY) == pytest.approx(exp(-1.0))
        assert latency.cost(0.0) == 1.0
        assert latency.cost(FORGOTTEN) == pytest.approx(exp(-6.0))
        assert latency.cost(FORGOTTEN + 0.1) is None

    @pytest.mark.parametrize(
        ("before", "seconds", "after"),
        [
            (None, 0.001, PENALTY_MIN),
            (0.001, 0.001, PENALTY_MIN),
            (0.5, 0.001, 5.0),
            (5.0, 0.001, PENALTY_MAX),
            (30.0, 0.001, 30.0),
            (0.5, 20.0, 20.0),
        ],
    )
    def test_a_failure_is_never_good(self, before: float | None, seconds: float, after: float) -> None:
        """A failure counts as ten times the value, at least a second, at most ten, and never improves anything."""
        latency = PeakEwma()
        if before is not None:
            latency.observe(before, 7.0)
        latency.observe_failure(seconds, 7.0)
        assert latency.cost(7.0) == after

    @settings(max_examples=100, deadline=None)
    @given(
        samples=st.lists(
            st.tuples(st.floats(0.0, 100.0), st.floats(0.0, 30.0), st.booleans()), min_size=1, max_size=20
        )
    )
    def test_bounds(self, samples: list[tuple[float, float, bool]]) -> None:
        """The value is never above the largest sample or penalty, nor just after a sample below that sample."""
        latency = PeakEwma()
        now = 0.0
        for seconds, later, ok in samples:
            now += later
            (latency.observe if ok else latency.observe_failure)(seconds, now)
            cost = latency.cost(now)
            assert cost is not None
            assert seconds * (1 - 1e-12) <= cost <= max(PENALTY_MAX, *(s for s, _, _ in samples)) * (1 + 1e-12)

    def test_a_clock_that_stands_still(self) -> None:
        """Samples of the same moment, or of one a little earlier, do no harm."""
        latency = PeakEwma()
        latency.observe(1.0, 10.0)
        latency.observe(0.5, 10.0)
        latency.observe(0.5, 9.0)
        assert latency.cost(9.0) == 1.0


class TestBalancer:
    """The pick by latency * (1 + active) / weight."""

    def test_up_to_four_are_all_compared(self) -> None:
        """In a small pool the least to wait wins every time."""
        assert set(shares(ewma_of(Stub("a", 0.03), Stub("b", 0.01), Stub("c", 0.05), Stub("d", 0.02)))) == {"b"}

    def test_active_and_weight_count(self) -> None:
        """Twice as fast with two more active loses; twice the weight makes up for twice the latency."""
        assert set(shares(ewma_of(Stub("a", 0.01, active=2), Stub("b", 0.02, active=0)))) == {"b"}
        assert set(shares(ewma_of(Stub("a", 0.04, weight=3), Stub("b", 0.02)))) == {"a"}

    def test_ties_are_random(self) -> None:
        """Equals have the same chance."""
        count = shares(ewma_of(*(Stub(name, 0.01) for name in "abcd")), 4000)
        assert all(850 < count[name] < 1150 for name in "abcd")

    def test_a_new_one_is_tried(self) -> None:
        """Without samples a candidate passes for the average of the others: better than the slow, and not overrun."""
        assert set(shares(ewma_of(Stub("slow", 0.5), Stub("fast", 0.1), Stub("new", None)))) == {"fast"}
        new = Stub("new", None)
        assert set(shares(ewma_of(Stub("a", 0.01, active=1), Stub("b", 0.01, active=1), new))) == {"new"}
        large = [Stub(str(i), 0.01, active=1) for i in range(5)]
        new.busy = 0
        assert shares(ewma_of(new, *large))["new"] > 500
        new.busy = 4
        assert shares(ewma_of(new, *large))["new"] < 50
        new.busy = 2
        assert set(shares(ewma_of(Stub("a", 0.01, active=1), Stub("b", 0.01, active=1), new))) == {"a", "b"}

    def test_nobody_knows_anything(self) -> None:
        """Without any samples, or without latencies, the fewest active per weight wins."""
        a, b, c = Stub("a", None, active=1), Stub("b", None), Stub("c", None, active=3)
        assert set(shares(ewma_of(a, b, c))) == {"b"}
        a.latency = b.latency = c.latency = None
        assert set(shares(ewma_of(a, b, c))) == {"b"}

    def test_large_pools_compare_two(self) -> None:
        """Above four candidates two are compared: the slowest wins only against itself."""
        count = shares(ewma_of(*(Stub(str(i), 0.01 * (i + 1)) for i in range(10))), 5000)
        assert count["0"] > 800
        assert count["0"] > count["4"] > count["8"]
        assert count["9"] < 20

    def test_a_failing_fast_one_is_left(self) -> None:
        """A backend that answers errors at once gets next to nothing, and comes back when it is forgotten."""
        bad = Stub("bad", 0.001)
        good = [Stub(f"good{i}", 0.05) for i in range(2)]
        assert bad.latency is not None
        bad.latency.observe_failure(0.001, 100.0)
        assert shares(ewma_of(bad, *good))["bad"] == 0
        assert shares(ewma_of(bad, *good, now=100.0 + FORGOTTEN + 1))["bad"] > 500

    @pytest.mark.parametrize("count", [3, 12])
    def test_refusals_keep_the_order(self, count: int) -> None:
        """Where some are refused, the slowest is offered last."""
        balancer = ewma_of(*(Stub(str(i), 0.01 * (i + 1)) for i in range(count)))
        asked: list[str] = []
        assert balancer.pick_accepted(lambda c: bool(asked.append(c.address))) is None  # type: ignore[func-returns-value]  # append returns None, which refuses
        assert len(asked) == count
        assert asked[-1] == str(count - 1)

    def test_a_simulated_pool_settles(self) -> None:
        """Work goes to the fast ones in closed-loop traffic, and a backend that turns slow loses its share."""
        pool = [Stub(str(i), None) for i in range(6)]
        service = {str(i): 0.01 for i in range(6)}
        now = [0.0]
        balancer: Balancer[Stub] = new_balancer("ewma", random.Random(5), clock=lambda: now[0])
        balancer.update(pool)
        running: list[tuple[float, float, Stub]] = []
        picks: Counter[str] = Counter()
        for step in range(6000):
            now[0] = step * 0.002
            if step == 3000:
                service["3"] = 0.5
                picks.clear()
            for done in [entry for entry in running if entry[0] <= now[0]]:
                running.remove(done)
                done[2].busy -= 1
                assert done[2].latency is not None
                done[2].latency.observe(done[0] - done[1], now[0])
            picked = balancer.pick()
            assert picked is not None
            picks[picked.address] += 1
            picked.busy += 1
            running.append((now[0] + service[picked.address], now[0], picked))
        assert picks["3"] < 150
        assert all(picks[str(i)] > 400 for i in range(6) if i != 3)
