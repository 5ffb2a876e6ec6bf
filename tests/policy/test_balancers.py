"""Every balancer's shares, what all of them promise, and the order in which refusals are taken."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.policy.balancers import BALANCERS, Balancer, LeastConnections, PeakEwma, new_balancer
from gogate_py.policy.hashing import stable_hash


class Stub:
    """A candidate with a weight and a number of active requests."""

    latency: PeakEwma | None = None

    def __init__(self, name: str, weight: int = 1, active: int = 0) -> None:
        self.name = self.address = name
        self.weight = weight
        self.busy = active

    def active(self) -> int:
        return self.busy

    def __repr__(self) -> str:
        return self.name


def balancer_of(name: str, *candidates: Stub, seed: int = 1) -> Balancer[Stub]:
    """A balancer with these candidates."""
    balancer: Balancer[Stub] = new_balancer(name, random.Random(seed))
    balancer.update(candidates)
    return balancer


ALL = pytest.mark.parametrize("name", sorted(BALANCERS))
KEYS = st.just(0) | st.integers(1, 2**64 - 1)
WEIGHTS = st.lists(st.integers(0, 9), min_size=1, max_size=8)


@ALL
def test_nobody(name: str) -> None:
    """Without candidates, or with weight 0 only, nobody is picked."""
    for candidates in ((), (Stub("a", 0), Stub("b", 0))):
        balancer = balancer_of(name, *candidates)
        for key in (0, stable_hash(b"somebody")):
            assert balancer.pick(key) is None
            assert balancer.pick_accepted(lambda _: True, key) is None


@ALL
def test_weight_zero_gets_nothing(name: str) -> None:
    """A candidate of weight 0 is never picked."""
    balancer = balancer_of(name, Stub("a"), Stub("zero", 0), Stub("b"))
    keys = [0] * 300 + [stable_hash(bytes([i])) for i in range(100)]
    picks = {str(balancer.pick(key)) for key in keys}
    picks |= {str(balancer.pick_accepted(lambda _: True, key)) for key in keys}
    assert picks == {"a", "b"}


@ALL
@settings(max_examples=40, deadline=None)
@given(weights=WEIGHTS, refused=st.sets(st.integers(0, 7)), seed=st.integers(0, 99), key=KEYS)
def test_refusals(name: str, weights: list[int], refused: set[int], seed: int, key: int) -> None:
    """The refused are never picked, accept is asked at most once each and not after a yes; None only when all
    refuse."""
    candidates = [Stub(str(i), w, active=i % 3) for i, w in enumerate(weights)]
    balancer = balancer_of(name, *candidates, seed=seed)
    willing = {c.name for i, c in enumerate(candidates) if c.weight and i not in refused}
    for _ in range(12):
        asked: list[str] = []

        def accept(candidate: Stub, asked: list[str] = asked) -> bool:
            asked.append(candidate.name)
            return candidate.name in willing

        picked = balancer.pick_accepted(accept, key)
        assert len(set(asked)) == len(asked)
        if picked is None:
            assert not willing
            assert len(asked) == sum(1 for w in weights if w)
        else:
            assert picked.name in willing
            assert asked[-1] == picked.name
        balancer.pick(key)


@ALL
def test_update_takes_effect_at_once(name: str) -> None:
    """After an update only the new candidates are picked."""
    balancer = balancer_of(name, Stub("a"), Stub("b"))
    balancer.pick()
    balancer.update([Stub("c")])
    assert {str(balancer.pick(key)) for key in (0, 1, 2**63, 2**64 - 1) for _ in range(3)} == {"c"}


@ALL
def test_what_a_balancer_needs(name: str) -> None:
    """Only the hashing balancers ask for a key, only ewma for latencies: others need not be fed."""
    assert BALANCERS[name].needs_key == (name in ("ip_hash", "consistent_hash"))
    assert BALANCERS[name].needs_latency == (name == "ewma")


def test_round_robin_takes_turns() -> None:
    """Each in turn, whatever the weights; workers with other seeds start elsewhere."""
    candidates = [Stub("a", 5), Stub("b"), Stub("c")]
    balancer = balancer_of("round_robin", *candidates)
    picks = [str(balancer.pick()) for _ in range(9)]
    assert picks == picks[:3] * 3
    assert sorted(picks[:3]) == ["a", "b", "c"]
    assert len({str(balancer_of("round_robin", *candidates, seed=s).pick()) for s in range(40)}) == 3


@settings(max_examples=60, deadline=None)
@given(weights=WEIGHTS.filter(any), seed=st.integers(0, 9))
def test_weighted_shares_are_exact_over_a_cycle(weights: list[int], seed: int) -> None:
    """From any place, one whole cycle gives each candidate exactly its weight."""
    candidates = [Stub(str(i), w) for i, w in enumerate(weights)]
    balancer = balancer_of("weighted_round_robin", *candidates, seed=seed)
    total = sum(weights)
    for cycles in (1, 3):
        picks = Counter(str(balancer.pick()) for _ in range(total * cycles))
        for c in candidates:
            assert picks[c.name] == c.weight * cycles


def test_weighted_turns_are_smooth() -> None:
    """A heavy candidate does not get its turns in one go: between two of a light one there are all the others'
    shares."""
    balancer = balancer_of("weighted_round_robin", Stub("a", 5), Stub("b", 1), Stub("c", 1))
    picks = "".join(str(balancer.pick()) for _ in range(70))
    assert picks.count("a") == 50
    assert "aaaaaa" not in picks


def test_least_connections_picks_the_least_per_weight() -> None:
    """The fewest active per weight wins; ties are random and fair."""
    a, b, c = Stub("a", 1, 3), Stub("b", 2, 4), Stub("c", 1, 2)
    balancer = balancer_of("least_connections", a, b, c)
    picks = Counter(str(balancer.pick()) for _ in range(2000))
    assert set(picks) == {"b", "c"}
    assert 800 < picks["b"] < 1200
    a.busy = 0
    assert {str(balancer.pick()) for _ in range(20)} == {"a"}


def test_least_connections_ties_of_many_are_fair() -> None:
    """Among equals everybody has the same chance, wherever it stands."""
    candidates = [Stub(str(i)) for i in range(5)]
    balancer = balancer_of("least_connections", *candidates)
    picks = Counter(str(balancer.pick()) for _ in range(5000))
    assert all(850 < n < 1150 for n in picks.values())
    assert len(picks) == 5


def test_least_connections_samples_large_pools() -> None:
    """Above 32 candidates a sample of 8 is compared: the busiest are avoided though not all are looked at."""
    candidates = [Stub(str(i), active=i) for i in range(100)]
    balancer = balancer_of("least_connections", *candidates)
    picked = [int(str(balancer.pick())) for _ in range(500)]
    assert max(picked) < 90
    assert sum(picked) / len(picked) < 25
    assert LeastConnections.FULL_SCAN == 32


@pytest.mark.parametrize("name", ["random", "p2c"])
def test_random_shares_follow_weights(name: str) -> None:
    """Random picks are in proportion to the weights."""
    balancer = balancer_of(name, Stub("a", 1), Stub("b", 3))
    picks = Counter(str(balancer.pick()) for _ in range(4000))
    if name == "random":
        assert 2800 < picks["b"] < 3200
    else:
        assert picks["b"] > picks["a"]
    if name == "random":
        accepted = Counter(str(balancer.pick_accepted(lambda _: True)) for _ in range(4000))
        assert 2800 < accepted["b"] < 3200


def test_random_order_follows_weights() -> None:
    """Where some are refused each next one is drawn by weight from those left, also beyond the first draws."""
    candidates = [Stub(str(i), 1 + 2 * (i % 2)) for i in range(20)]
    balancer = balancer_of("random", *candidates)
    early: Counter[bool] = Counter()
    late: Counter[bool] = Counter()
    for _ in range(600):
        order: list[int] = []
        balancer.pick_accepted(lambda c, order=order: order.append(int(c.name)))  # type: ignore[misc]  # None: refused
        assert sorted(order) == list(range(20))
        early.update(name % 2 == 1 for name in order[:1])
        late.update(name % 2 == 1 for name in order[-1:])
    assert 400 < early[True] < 500
    assert late[True] < 200


def test_power_of_two_avoids_the_busiest() -> None:
    """Of two at random the less busy one is taken: the busiest of all only against itself."""
    candidates = [Stub(str(i), active=i) for i in range(4)]
    balancer = balancer_of("p2c", *candidates)
    picks = Counter(str(balancer.pick()) for _ in range(4000))
    assert picks["0"] > picks["1"] > picks["2"] > picks["3"]
    assert picks["3"] < 100


def test_power_of_two_offers_the_less_busy_first() -> None:
    """Where some are refused, the comparison still counts: the busiest of all comes last."""
    candidates = [Stub(str(i), active=i) for i in range(4)]
    balancer = balancer_of("p2c", *candidates)
    orders = []
    for _ in range(300):
        order: list[str] = []
        balancer.pick_accepted(lambda c, order=order: order.append(c.name))  # type: ignore[misc]  # append: None = no
        orders.append(order)
    assert {order[-1] for order in orders} == {"3"}
    assert Counter(order[0] for order in orders)["0"] > 120
