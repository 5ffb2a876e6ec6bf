"""LiveRoute: one HTTP route as compiled for this worker — its stages, its pool or arms, its timeouts and retries.

Frozen, but for its counters, which the route of the same name in the next snapshot goes on with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from gogate_py.clock import Random, monotonic
from gogate_py.dataplane.deadlines import INFINITE
from gogate_py.dataplane.live_pool import LivePool
from gogate_py.middleware.chain import RequestView
from gogate_py.middleware.pipeline import Pipeline
from gogate_py.middleware.split import Split
from gogate_py.policy.retry import IDEMPOTENT, RetryBudget, RetryPolicy
from gogate_py.snapshot import HttpRoute
from gogate_py.telemetry.histogram import Histogram

_NO_STATUSES: Final[frozenset[int]] = frozenset()


class RouteCounts:
    """What happened on a route since the last report. ``durations``: one that it shares with others (``shares``)."""

    __slots__ = ("arms", "codes", "durations", "fallbacks", "refused", "retries_denied", "shares")

    def __init__(self, durations: Histogram | None = None) -> None:
        # status → requests
        self.codes: dict[int, int] = {}
        self.shares = durations is not None
        self.durations = durations if durations is not None else Histogram()
        # (stage, word) → requests that it refused
        self.refused: dict[tuple[str, str], int] = {}
        # pool → requests that the split sent there, or had to send elsewhere
        self.arms: dict[str, int] = {}
        self.fallbacks: dict[str, int] = {}
        # retries that the budget did not allow
        self.retries_denied = 0


class Chosen(NamedTuple):
    """An arm of a split: its pool, the cookie to set (b"": none), the pool that has no usable backend, if this one
    stands in for it, and why the arm was chosen."""

    pool: LivePool
    cookie: bytes
    instead_of: str
    why: str


class LiveRoute:
    """One HTTP route of this worker."""

    __slots__ = (
        "body_buffer", "budget", "cache", "codes", "counts", "durations", "filters", "first_check", "max_body", "name",
        "per_try_timeout", "plain_answers", "pool", "pools", "refused", "repeatable", "response_header", "retry",
        "retry_statuses", "spec", "split", "stages", "timeouts", "transform", "websocket",
    )  # fmt: skip

    def __init__(
        self,
        spec: HttpRoute,
        pipeline: Pipeline,
        pools: Mapping[str, LivePool],
        counts: RouteCounts,
        budget: RetryBudget | None,
    ) -> None:
        self.spec = spec
        self.name = spec.name
        # None: the split decides, or no pool is needed
        self.pool = pools[spec.pool] if spec.pool else None
        self.pools = {arm.pool: pools[arm.pool] for arm in spec.arms}
        self.split = Split(spec) if spec.arms else None
        self.stages = pipeline.stages
        self.filters = pipeline.filters
        self.cache = pipeline.cache
        self.transform = pipeline.transform
        # Answers that nobody changes or keeps may be forwarded as slices.
        self.plain_answers = not pipeline.filters and pipeline.cache is None
        self.timeouts = spec.timeouts
        self.websocket = spec.websocket
        self.max_body = spec.max_body
        self.response_header = spec.timeouts.response_header or INFINITE
        # seconds after the start of a request without body when something must have happened
        self.first_check = min(self.response_header, spec.timeouts.request or INFINITE)
        retry = spec.retry if spec.retry is not None and spec.retry.attempts > 1 else None
        self.retry = RetryPolicy(retry) if retry is not None else None
        # methods whose requests may be sent twice, whatever their fields
        self.repeatable = self.retry.repeatable if self.retry is not None else IDEMPOTENT
        self.retry_statuses = frozenset(retry.statuses) if retry is not None else _NO_STATUSES
        self.per_try_timeout = spec.retry.per_try_timeout if spec.retry is not None else 0.0
        self.body_buffer = retry.body_buffer if retry is not None else 0
        self.budget = budget
        self.counts = counts
        self.codes = counts.codes
        self.durations = counts.durations
        self.refused = counts.refused

    def withdraw_retry(self) -> bool:
        """Whether the retry budget allows one more; it is taken from it."""
        if self.budget is None or self.budget.withdraw(monotonic()):
            return True
        self.counts.retries_denied += 1
        return False

    def choose(self, request: RequestView, random: Random) -> Chosen | None:
        """The arm of a request; None when no arm may be used."""
        split = self.split
        if split is None:
            return None
        choice = split.choose(request, random)
        if choice is None:
            return None
        pool = self.pools[choice.pool]
        counts = self.counts
        instead_of = ""
        if not pool.usable() and self.spec.arm_fallback:
            for name in split.others(choice.arm):
                if self.pools[name].usable():
                    counts.fallbacks[choice.pool] = counts.fallbacks.get(choice.pool, 0) + 1
                    pool = self.pools[name]
                    instead_of = choice.pool
                    break
        counts.arms[pool.name] = counts.arms.get(pool.name, 0) + 1
        return Chosen(pool, choice.cookie, instead_of, choice.why)
