"""Slow start: a backend that came up a moment ago is given its share of the work bit by bit (Envoy, aggression 1).

    time since it came up       it is taken, when the balancer proposes it, with probability
    from 0 to the window        time / window, at least FLOOR
    the window and more         1
    0 (it is warm), no window   1

Taking it by chance rather than lowering its weight works with every balancer, and nothing has to be built anew while
it warms up. Who refuses one lets the balancer propose again, a few times only: where everybody warms up, somebody must
take the work. Not for the hashing balancers, where a refusal would move a key away and back again.
"""

from __future__ import annotations

from typing import Final

from gogate_py.clock import Random

#: The least share: Envoy's min_weight_percent. Without it a backend would never answer the request that warms it up.
FLOOR: Final = 0.1


def accept_share(now: float, since: float, window: float, floor: float = FLOOR) -> float:
    """The probability, ``floor`` to 1, that a backend is taken which came up at ``since`` (0 = it is warm). Seconds; of
    the monotonic clock the moments."""
    if not since or window <= 0.0:
        return 1.0
    return max(floor, min(1.0, (now - since) / window))


def admits(random: Random, now: float, since: float, window: float) -> bool:
    """Whether chance takes a proposed backend. Where it is refused, propose again, at most three times."""
    share = accept_share(now, since, window)
    return share >= 1.0 or random.random() < share
