"""Rate limit stage: each request costs one from every limit that applies to it, or is answered 429.

- All limits must admit. A request that one of them refuses counts for none of its stage: what others have counted is
  given back. The limit that refused last is asked first, so that this rarely happens. (The stage before authentication
  gets nothing back when the one after it, or authentication, refuses: those requests are what it is there for.)
- A limit counts for each value of its key (request_keys). A request that has none of the values is counted by its
  address, with all others from there: leaving a header out is no way around a limit.
- Limits that need to know who it is come after authentication (:func:`split_limits`), the others before.
- The answer says when to come again (Retry-After: the longest wait of all limits that are full) and which limit it was:
  RateLimit-Policy and RateLimit, as draft-ietf-httpapi-ratelimit-headers-10 has them. No value of any key is in it.
- A key in a form makes the request wait for its body, once for all limits of the stage, and before any of them counts.

Costs 0.2 µs (0.6 with several limits) besides what limits and keys cost (dataplane/shared_limits, request_keys).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import ceil
from typing import Final, Protocol

from gogate_py.errors import Failure
from gogate_py.middleware.chain import Explained, NeedBody, Refusal, RequestView
from gogate_py.middleware.request_keys import MAX_FORM, Key, address_value, compile_key
from gogate_py.policy.rate_limiter import burst_of
from gogate_py.snapshot import RateLimit

_SECOND: Final = 1_000_000_000
#: What a request without any of a limit's values is counted by.
_OTHERWISE: Final = "ip"

_not_in_string: Final = re.compile(r"[^ !#-\[\]-~]")  # RFC 9651 section 3.3.3, without what would need escapes


class Limiter(Protocol):
    """What counts for one limit, wherever its state is kept. ``key`` is b"" for a limit that all requests share."""

    #: Refused by this limit since it was last zeroed.
    rejected: int

    def try_take(self, key: bytes) -> bool:
        """Count a request; False (then nothing but ``rejected`` is counted) when the limit is full."""
        ...

    def give_back(self, key: bytes) -> None:
        """A request that was counted is not served after all."""
        ...

    def peek(self, key: bytes) -> tuple[int, int]:
        """How many would be admitted now, and nanoseconds until one would be. Counts nothing."""
        ...


Limited = tuple[RateLimit, Limiter]


def is_shared(limit: RateLimit) -> bool:
    """Whether all requests count for one and the same state."""
    return limit.keys[0] == "global"


def name_of(limit: RateLimit) -> str:
    """What a limit is called in answers, metrics and explain."""
    return limit.name or limit.algorithm


def split_limits(limits: Sequence[Limited]) -> tuple[list[Limited], list[Limited]]:
    """The limits that can be asked before authentication, and those that cannot."""
    before: list[Limited] = []
    after: list[Limited] = []
    for limited in limits:
        (after if compile_key(limited[0].keys).needs_identity and not is_shared(limited[0]) else before).append(limited)
    return before, after


class _Entry:
    """One limit of a stage."""

    __slots__ = ("key", "limit", "limiter", "policy", "prefixes", "shown")

    def __init__(self, limit: RateLimit, limiter: Limiter) -> None:
        self.limit = limit
        self.limiter = limiter
        # None: one state for all
        self.key: Key | None = None if is_shared(limit) else compile_key(limit.keys)
        # The spec is a part of the key: an address is never the same as a header that looks like one.
        self.prefixes = {spec: spec.encode() + b"\0" for spec in (*limit.keys, _OTHERWISE)}
        self.shown = _not_in_string.sub("?", name_of(limit)).encode("ascii")
        # In whole seconds and requests: 0.5 per second is 1 in 2 s.
        window = ceil(max(limit.per, limit.per / limit.rate))
        self.policy = b'"%b";q=%d;w=%d' % (self.shown, max(1, int(limit.rate * window / limit.per)), window)

    def key_of(self, request: RequestView) -> tuple[str, bytes]:
        """The spec that a request is counted by, and the key. Raises WireError, see request_keys."""
        if self.key is None:
            return "global", b""
        spec, value = self.key(request) or (_OTHERWISE, address_value(request.client))
        return spec, self.prefixes[spec] + value


class RateLimitStage:
    """Some limits of one route."""

    __slots__ = ("_entries", "_needs_form", "_only", "_order")

    name = "rate_limit"

    def __init__(self, limits: Sequence[Limited]) -> None:
        """``limits``: at least one, all of them before authentication or all after it."""
        self._entries = tuple(_Entry(limit, limiter) for limit, limiter in limits)
        self._order = self._entries
        self._only = self._entries[0] if len(self._entries) == 1 else None
        self._needs_form = any(entry.key is not None and entry.key.needs_form for entry in self._entries)

    def __call__(self, request: RequestView) -> Refusal | NeedBody | None:
        if self._needs_form and any(e.key is not None and e.key.wants_body(request) for e in self._entries):
            return NeedBody(MAX_FORM)
        only = self._only
        if only is not None:
            key = only.key_of(request)[1]
            return None if only.limiter.try_take(key) else _refusal(only, only.limiter.peek(key)[1])
        # All keys before anything is counted: one of them may be refused (WireError).
        asked = [(entry.limiter, entry.key_of(request)[1]) for entry in self._order]
        refused = _take_all(asked)
        if refused is None:
            return None
        order = self._order
        full = order[refused]
        if refused:
            self._order = (full, *order[:refused], *order[refused + 1 :])
        return _refusal(full, max(limiter.peek(key)[1] for limiter, key in asked))

    def explain(self, request: RequestView) -> Explained:
        """What :meth:`__call__` would do. Raises WireError, as it does."""
        asked = [(entry, *entry.key_of(request)) for entry in self._entries]
        facts = []
        said = []
        full: _Entry | None = None
        longest = 0
        for entry, spec, key in asked:
            left, wait_ns = entry.limiter.peek(key)
            name, most = name_of(entry.limit), burst_of(entry.limit)
            longest = max(longest, wait_ns)
            if left <= 0 and full is None:
                full = entry
            facts.append({
                "name": name, "algorithm": entry.limit.algorithm, "key": spec, "left": max(0, left), "most": most,
                "rate": entry.limit.rate, "per": entry.limit.per,
                "retry_after": 0 if left > 0 else _seconds(wait_ns),
            })  # fmt: skip
            state = f"{left} of {most} left" if left > 0 else f"none of {most} left for {_seconds(wait_ns)} s"
            said.append(f"{name} by {spec}: {state}")
        outcome = _refusal(full, longest) if full is not None else None
        return Explained(outcome, "; ".join(said), {"limits": facts})


def connection_limits(limits: Sequence[Limited]) -> Callable[[str], bool]:
    """The same for connections, of which only the client's address is known: ``admit(client)`` counts one, and is False
    when it is to be closed. Keys other than global are taken for ip (the configuration has no others)."""
    entries = [(limiter, is_shared(limit)) for limit, limiter in limits]
    prefix = _OTHERWISE.encode() + b"\0"

    def admit(client: str) -> bool:
        if not entries:
            return True
        address = prefix + address_value(client)
        if len(entries) == 1:
            limiter, shared = entries[0]
            return limiter.try_take(b"" if shared else address)
        return _take_all([(limiter, b"" if shared else address) for limiter, shared in entries]) is None

    return admit


def _take_all(asked: Sequence[tuple[Limiter, bytes]]) -> int | None:
    """Count a request for all of the limiters, or for none: the number of the one that refused, None if none did."""
    for number, (limiter, key) in enumerate(asked):
        if not limiter.try_take(key):
            for earlier, counted in asked[:number]:
                earlier.give_back(counted)
            return number
    return None


def _refusal(entry: _Entry, wait_ns: int) -> Refusal:
    """429 by this limit; ``wait_ns``: when it is worth coming again."""
    seconds = _seconds(wait_ns)
    lines = b'RateLimit-Policy: %b\r\nRateLimit: "%b";r=0;t=%d\r\n' % (entry.policy, entry.shown, seconds)
    return Refusal(Failure.RATE_LIMITED, Failure.RATE_LIMITED.detail, seconds, lines, name_of(entry.limit))


def _seconds(wait_ns: int) -> int:
    """Whole seconds after which the wait is over, at least 1."""
    return max(1, -(-wait_ns // _SECOND))
