"""What a pick and an update of each balancer cost, with 3, 32 and 1000 candidates.

    python bench/balancers.py

Microseconds, best of several rounds. ``pick`` and ``refused`` (pick_accepted that refuses the first one offered) are
with random keys and everybody equally busy; ``update`` is a change of health, in turns of all and all but one;
``new`` the update with candidates never seen before. Counts here are plain attributes: in a worker each look at a
candidate's count adds about what is measured last, reading the arena.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from gogate_py.arena import Arena
from gogate_py.dataplane.shared_state import ActiveCount
from gogate_py.policy.balancers import BALANCERS, Balancer, PeakEwma, new_balancer
from gogate_py.policy.hashing import mix, stable_hash
from gogate_py.policy.splitter import SplitCookie, Splitter, choose_arm
from gogate_py.snapshot import Arm

SIZES = (3, 32, 1000)
ROUNDS = 5
KEYS = [stable_hash(str(i).encode()) for i in range(1000)]


class Stub:
    """A candidate with two active requests and a latency."""

    def __init__(self, index: int) -> None:
        self.address = f"10.{index >> 8}.{index & 255}.1:8080"
        self.weight = 1 + index % 3
        self.latency: PeakEwma | None = PeakEwma()
        self.latency.observe(0.01 + index * 1e-5, time.monotonic())

    def active(self) -> int:
        return 2


def microseconds(work: Callable[[], object], times: int) -> float:
    """Of one call, best of ROUNDS."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(times):
            work()
        best = min(best, time.perf_counter() - start)
    return best / times * 1e6


def one(name: str, size: int) -> tuple[float, float, float, float]:
    """pick, refused, update, new."""
    rng = random.Random(1)
    candidates = [Stub(i) for i in range(size)]
    balancer: Balancer[Stub] = new_balancer(name, rng)
    balancer.update(candidates)
    keys = iter(KEYS * 1000)

    def refuse_first() -> None:
        offered: list[Stub] = []

        def accept(candidate: Stub) -> bool:
            offered.append(candidate)
            return len(offered) > 1

        balancer.pick_accepted(accept, next(keys))

    changes = [candidates[1:], candidates]

    def change() -> None:
        changes.reverse()
        balancer.update(changes[0])

    pick = microseconds(lambda: balancer.pick(next(keys)), 5000)
    refused = microseconds(refuse_first, 50 if size > 100 else 500)
    update = microseconds(change, 5 if size > 100 else 50)

    def begin() -> None:
        new: Balancer[Stub] = new_balancer(name, rng)
        new.update(candidates)

    fresh = microseconds(begin, 2 if size > 100 else 20)
    return pick, refused, update, fresh


def main() -> None:
    """Print the tables."""
    print(f"{'µs':22}{'candidates':>11}{'pick':>9}{'refused':>10}{'update':>10}{'new':>10}")
    for name in BALANCERS:
        for size in SIZES:
            pick, refused, update, fresh = one(name, size)
            print(f"{name:22}{size:11}{pick:9.1f}{refused:10.1f}{update:10.1f}{fresh:10.1f}")
    print()
    rng = random.Random(1)
    cookie = SplitCookie(b"0123456789abcdef0123456789abcdef")
    value = cookie.write(cookie.new_id(rng), "stable")
    splitter = Splitter((Arm("stable", 90), Arm("canary", 10, True)))
    latency = PeakEwma()
    moments = iter(range(10_000_000))
    count = ActiveCount(Arena.create(), 0, 0, 4)
    rows: dict[str, Callable[[], object]] = {
        "stable_hash of 16 bytes": lambda: stable_hash(b"0123456789abcdef"),
        "mix": lambda: mix(KEYS[0], KEYS[1]),
        "split by chance": lambda: choose_arm(splitter, rng),
        "split by key": lambda: choose_arm(splitter, rng, key=KEYS[0]),
        "split by cookie": lambda: choose_arm(splitter, rng, cookie=cookie, cookie_value=value),
        "split, new client": lambda: choose_arm(splitter, rng, cookie=cookie),
        "latency observed": lambda: latency.observe(0.01, next(moments)),
        "a backend's count over 4 workers": count.total,
    }
    for what, work in rows.items():
        print(f"{what:34}{microseconds(work, 5000):8.2f}")


if __name__ == "__main__":
    main()
