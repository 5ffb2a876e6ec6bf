"""Lease state: single instances leave, a service that falls silent together is kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gogate_py.policy.lease_state import (
    CRITICAL,
    GONE,
    PASSING,
    SUSPECT,
    WARNING,
    Lease,
    hold_after_stall,
    in_rotation,
    judge,
    shown,
)

NEVER = float("-inf")
TTL = 30.0


def ended(seconds: float, state: str = PASSING, answers: bool | None = None, ttl: float = TTL) -> Lease:
    """A lease that ended so many seconds before moment 0 (negative: that goes on)."""
    return Lease(-seconds, ttl, state, answers)


def states(*leases: Lease, hold: float = NEVER) -> list[str]:
    """The verdict at moment 0."""
    return list(judge(leases, hold, 0.0).states)


LIVE = ended(-20)


class TestOneInstance:
    """What becomes of an instance whose service is well."""

    def test_it_leaves_the_moment_its_lease_ends(self) -> None:
        """One that missed its TTL is critical at once; the moment before it is not."""
        assert states(ended(0), LIVE, LIVE) == [CRITICAL, PASSING, PASSING]
        assert states(ended(-0.001), LIVE, LIVE) == [PASSING, PASSING, PASSING]

    def test_it_is_forgotten_after_three_ttls(self) -> None:
        """Critical for two TTLs more, then gone; never without having been critical."""
        assert states(ended(2 * TTL - 1, CRITICAL), LIVE) == [CRITICAL, PASSING]
        assert states(ended(2 * TTL, CRITICAL), LIVE) == [GONE, PASSING]
        assert states(ended(100 * TTL, PASSING), LIVE) == [CRITICAL, PASSING]

    def test_it_comes_back(self) -> None:
        """A renewed lease is passing whatever was before."""
        assert states(ended(-TTL, CRITICAL), ended(-TTL, SUSPECT)) == [PASSING, PASSING]

    def test_warning_is_only_shown(self) -> None:
        """In the last third of its lease an instance is shown as warning, and stays in rotation."""
        assert shown(ended(-10.1), 0.0) == PASSING
        assert shown(ended(-10.0), 0.0) == WARNING
        assert shown(ended(5, CRITICAL), 0.0) == CRITICAL
        assert states(ended(-1)) == [PASSING]
        assert [in_rotation(one) for one in (PASSING, WARNING, SUSPECT, CRITICAL, GONE)] == [True] * 3 + [False] * 2


class TestManyInstances:
    """What becomes of instances that fall silent together."""

    def test_two_are_never_enough(self) -> None:
        """A service of two that are both silent is not preserved."""
        assert states(ended(1), ended(1)) == [CRITICAL, CRITICAL]

    def test_half_is_not_enough(self) -> None:
        """Exactly half of a service leaves; one more and all of them stay."""
        assert states(*[ended(1)] * 3, *[LIVE] * 3) == [CRITICAL] * 3 + [PASSING] * 3
        assert states(*[ended(1)] * 4, *[LIVE] * 3) == [SUSPECT] * 4 + [PASSING] * 3

    def test_those_who_left_one_by_one_come_back(self) -> None:
        """Heartbeats do not march in step: who became critical within the last TTL was silenced by the same thing."""
        assert states(ended(25, CRITICAL), ended(12, CRITICAL), ended(0), LIVE) == [SUSPECT] * 3 + [PASSING]

    def test_those_who_left_long_ago_do_not(self) -> None:
        """One that was critical for more than a TTL is neither counted nor brought back."""
        old = ended(TTL, CRITICAL)
        assert states(old, old, ended(0), LIVE) == [CRITICAL, CRITICAL, CRITICAL, PASSING]
        assert states(old, *[ended(0)] * 3) == [CRITICAL] + [SUSPECT] * 3

    def test_probes_decide_who_is_forgotten(self) -> None:
        """A suspect is kept for ever while probes find it up, or there are none; one that is down goes in the end."""
        kept = ended(100 * TTL, SUSPECT, True), ended(100 * TTL, SUSPECT, None)
        assert states(*kept, ended(2 * TTL - 1, SUSPECT, False)) == [SUSPECT] * 3
        assert states(*kept, ended(2 * TTL, SUSPECT, False)) == [SUSPECT, SUSPECT, GONE]

    def test_who_comes_back_gives_the_others_one_ttl(self) -> None:
        """When most are heard of again, the rest has one TTL more, then it leaves."""
        begun = judge([*[ended(1)] * 3, LIVE], NEVER, 0.0)
        assert begun.hold_until == TTL
        half = [ended(1, SUSPECT), ended(1, SUSPECT), ended(-90), ended(-90)]
        assert judge(half, begun.hold_until, TTL - 1).states == (SUSPECT, SUSPECT, PASSING, PASSING)
        assert judge(half, begun.hold_until, TTL).states == (CRITICAL, CRITICAL, PASSING, PASSING)


class TestStall:
    """What a registry that did not run may conclude."""

    def test_half_a_ttl_of_deafness_preserves(self) -> None:
        """More than half a TTL without listening: nobody leaves for one TTL; less changes nothing."""
        assert hold_after_stall([TTL], NEVER, TTL / 2, 100.0) == NEVER
        assert hold_after_stall([TTL, 10.0], NEVER, 6.0, 100.0) == 110.0
        assert hold_after_stall([TTL, 10.0], 200.0, 60.0, 100.0) == 200.0
        assert states(ended(1), LIVE, hold=1.0) == [SUSPECT, PASSING]
        assert states(ended(1), LIVE, hold=0.0) == [CRITICAL, PASSING]


LEASES = st.lists(
    st.builds(
        Lease,
        st.floats(-200, 200).map(lambda x: round(x, 3)),
        st.sampled_from([1.0, 10.0, 30.0]),
        st.sampled_from([PASSING, SUSPECT, CRITICAL]),
        st.sampled_from([None, True, False]),
    ),
    max_size=12,
)


@given(LEASES, st.sampled_from([NEVER, -5.0, 5.0]))
def test_what_holds_for_every_service(leases: list[Lease], hold: float) -> None:
    """Who is heard of passes; who is not is never passing; fewer than three missing preserve nothing by themselves; the
    hold never shrinks."""
    verdict = judge(leases, hold, 0.0)
    assert verdict.hold_until >= hold
    for lease, state in zip(leases, verdict.states, strict=True):
        assert (state == PASSING) == (lease.ends > 0.0)
        if state == SUSPECT:
            assert verdict.hold_until > 0.0
        if state == GONE:
            assert lease.state != PASSING
    missing = [one for one in leases if one.ends <= 0 and (one.state != CRITICAL or -one.ends < one.ttl)]
    alive = [one for one in leases if one.ends > 0]
    if hold <= 0.0 and (len(missing) < 3 or len(missing) <= len(alive)):
        assert SUSPECT not in verdict.states
    elif len(missing) >= 3 and len(missing) > len(alive):
        assert CRITICAL not in [
            state for lease, state in zip(leases, verdict.states, strict=True) if lease in missing
        ]


@given(LEASES)
def test_judging_twice_changes_nothing(leases: list[Lease]) -> None:
    """At one moment a second judgement finds what the first found, but for those that are forgotten then."""
    first = judge(leases, NEVER, 0.0)
    after = [
        lease._replace(state=state) for lease, state in zip(leases, first.states, strict=True) if state != GONE]
    if GONE in first.states:
        return
    again = judge(after, first.hold_until, 0.0)
    for lease, before, state in zip(leases, first.states, again.states, strict=True):
        # one that was passing long after its lease had ended is only then old enough to be forgotten
        assert state == before or (state == GONE and lease.state == PASSING)
