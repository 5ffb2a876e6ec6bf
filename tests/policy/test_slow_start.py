"""The ramp of a backend that warms up, and what it makes of its share."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from gogate_py.policy.slow_start import FLOOR, accept_share, admits


@pytest.mark.parametrize(
    ("now", "since", "window", "share"),
    [
        (100.0, 100.0, 60.0, FLOOR),
        (103.0, 100.0, 60.0, FLOOR),
        (115.0, 100.0, 60.0, 0.25),
        (130.0, 100.0, 60.0, 0.5),
        (160.0, 100.0, 60.0, 1.0),
        (1000.0, 100.0, 60.0, 1.0),
        (99.0, 100.0, 60.0, FLOOR),  # a moment that another process took a little later
        (100.0, 100.0, 0.0, 1.0),
        (100.0, 0.0, 60.0, 1.0),
    ],
)
def test_the_ramp(now: float, since: float, window: float, share: float) -> None:
    """The share grows in a straight line from the floor to 1; warm backends, and no window, have 1."""
    assert accept_share(now, since, window) == share


def test_the_floor_is_given() -> None:
    """Another floor holds where the ramp is below it."""
    assert accept_share(101.0, 100.0, 60.0, floor=0.5) == 0.5
    assert accept_share(145.0, 100.0, 60.0, floor=0.5) == 0.75


def test_chance_takes_the_share() -> None:
    """A proposal is taken as often as the share says; a warm backend's always, without asking chance."""
    generator = random.Random(1)
    taken = sum(admits(generator, 115.0, 100.0, 60.0) for _ in range(4000))
    assert 880 < taken < 1120
    state = generator.getstate()
    assert admits(generator, 115.0, 0.0, 60.0)
    assert admits(generator, 160.0, 100.0, 60.0)
    assert generator.getstate() == state


def test_share_of_the_work() -> None:
    """In a pool of four, proposed in turn and again up to three times, the warming one gets its share of a quarter."""
    generator = random.Random(2)
    count: Counter[int] = Counter()
    turn = 0
    for _ in range(8000):
        for _ in range(4):
            turn = (turn + 1) % 4
            if turn or admits(generator, 130.0, 100.0, 60.0):
                break
        count[turn] += 1
    assert 0.5 * 0.25 * 0.9 < count[0] / 8000 < 0.5 * 0.25 * 1.3
