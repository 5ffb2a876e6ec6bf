"""Lease state: what becomes of registered instances that are not heard of, judged service by service. Pure.

A single instance that misses its TTL leaves at once. But when most of a service falls silent together, the network or
the registry is more likely to be at fault than the instances: the service is preserved (SECURITY.md F16; Eureka's
self-preservation), what was known last is kept, and active probes decide.

    its lease                   service     its probes say   state      in rotation
    more than 1/3 is left       any         any              passing    yes
    1/3 or less is left         any         any              warning    yes
    ended                       as usual    any              critical   no
    ended                       preserved   up, or nothing   suspect    yes
    ended                       preserved   down             suspect    no: as for every backend that is down
    ended less than a TTL ago,  becomes     any              suspect    again
      critical                  preserved
    critical, not heard of      any         any              gone       no, forgotten
      for GONE_AFTER TTLs
    suspect, likewise           any         down             gone       no, forgotten
    heard of again              any         any              passing    yes

Missing are those whose lease ended less than a TTL ago (fewer heartbeats than one a TTL come from nobody, so those who
fall silent together end within one) and those that are suspect. A service is preserved while LEAST instances or more,
and more than half of it, are missing, and for one TTL after that: who comes back after a partition comes back one by
one. It is preserved, too, for one TTL after the registry itself did not run for more than half a TTL.

Warning is shown and changes nothing. Moments are monotonic seconds: a step of the wall clock ends no lease.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

PASSING: Final = "passing"
WARNING: Final = "warning"
SUSPECT: Final = "suspect"
CRITICAL: Final = "critical"
GONE: Final = "gone"

#: Fewer missing instances than this preserve nothing.
LEAST: Final = 3
#: TTLs without a heartbeat after which an instance is forgotten.
GONE_AFTER: Final = 3
#: The registry did not run for more than this share of a TTL: what it did not hear says nothing.
STALL_SHARE: Final = 0.5
_WARNING_SHARE: Final = 1 / 3


class Lease(NamedTuple):
    """One instance: when its lease ends, its TTL (seconds), the state it was judged to be in (never warning or gone),
    what active probes say (None: nothing)."""

    ends: float
    ttl: float
    state: str
    answers: bool | None = None


class Verdict(NamedTuple):
    """The states of a service's instances, in the order given, and until when the service is preserved at least."""

    states: tuple[str, ...]
    hold_until: float


def judge(leases: Sequence[Lease], hold_until: float, now: float) -> Verdict:
    """Judge all instances of one service at a moment; ``hold_until`` is that of its last verdict (at first -inf)."""
    missing = [_is_missing(lease, now) for lease in leases]
    alive = sum(lease.ends > now for lease in leases)
    count = sum(missing)
    if count >= LEAST and count > alive:
        longest = max(lease.ttl for lease, is_missing in zip(leases, missing, strict=True) if is_missing)
        hold_until = max(hold_until, now + longest)
    held = now < hold_until
    states = tuple(_state(lease, held and is_missing, now) for lease, is_missing in zip(leases, missing, strict=True))
    return Verdict(states, hold_until)


def hold_after_stall(ttls: Iterable[float], hold_until: float, stalled: float, now: float) -> float:
    """Until when a service is preserved, given the TTLs of its instances, after ``stalled`` seconds of deafness."""
    deaf = [ttl for ttl in ttls if stalled > ttl * STALL_SHARE]
    return max(hold_until, now + max(deaf)) if deaf else hold_until


def shown(lease: Lease, now: float) -> str:
    """The state as people see it: the judged one, or warning while a lease that still holds is nearly over."""
    if lease.state == PASSING and lease.ends - now <= lease.ttl * _WARNING_SHARE:
        return WARNING
    return lease.state


def in_rotation(state: str) -> bool:
    """Whether an instance in this state may get work (if its probes let it)."""
    return state in (PASSING, WARNING, SUSPECT)


def _is_missing(lease: Lease, now: float) -> bool:
    # One that was passing at the last judgement is newly missing however long ago its lease ended: the judgements may
    # be further apart than its TTL.
    return lease.ends <= now and (lease.state != CRITICAL or now - lease.ends < lease.ttl)


def _state(lease: Lease, kept: bool, now: float) -> str:
    if lease.ends > now:
        return PASSING
    forgotten = lease.state != PASSING and now - lease.ends >= (GONE_AFTER - 1) * lease.ttl
    if kept:
        return GONE if forgotten and lease.answers is False else SUSPECT
    return GONE if forgotten else CRITICAL
