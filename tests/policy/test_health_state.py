"""Health state: consecutive thresholds in both directions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gogate_py.policy.health_state import NOT_PROBED, HealthState

# (unhealthyThreshold, healthyThreshold, starts up, outcomes, state after each); + is good or up, - is bad or down
TABLE = [
    (3, 2, True, "---", "++-"),
    (3, 2, True, "--+--+---", "++++++++-"),
    (1, 1, True, "-+-+", "-+-+"),
    (3, 2, True, "---++", "++--+"),
    (3, 2, True, "---+-++", "++----+"),
    (3, 2, False, "+", "-"),
    (3, 2, False, "++", "-+"),
    (3, 2, False, "+-+-++", "-----+"),
    (3, 1, False, "-+", "-+"),
    (2, 3, True, "--+++--", "+---++-"),
    (5, 2, True, "----+----", "+++++++++"),
]


@pytest.mark.parametrize(("unhealthy", "healthy", "starts_up", "outcomes", "states"), TABLE)
def test_only_consecutive_outcomes_count(
    unhealthy: int, healthy: int, starts_up: bool, outcomes: str, states: str
) -> None:
    """A backend goes down after unhealthyThreshold failures in a row, and comes back after healthyThreshold."""
    machine = HealthState(unhealthy, healthy, up=starts_up)
    seen = ""
    for outcome in outcomes:
        before = machine.up
        changed = machine.record(outcome == "+", "refused")
        assert changed == (machine.up != before)
        seen += "+" if machine.up else "-"
    assert seen == states


def test_the_last_error_is_why_it_is_down() -> None:
    """last_error names the newest failure, stays while down and goes when the backend is up and well."""
    machine = HealthState(2, 2, up=True)
    machine.record(False, "refused")
    assert (machine.up, machine.last_error) == (True, "refused")
    machine.record(True)
    assert machine.last_error == ""
    machine.record(False, "refused")
    machine.record(False, "timeout")
    assert (machine.up, machine.last_error) == (False, "timeout")
    machine.record(True)
    assert (machine.up, machine.last_error) == (False, "timeout")
    machine.record(True)
    assert (machine.up, machine.last_error) == (True, "")


def test_a_backend_that_starts_down_says_so() -> None:
    """With initialState down the reason is that nothing was probed yet; a failure without a text still has a reason."""
    machine = HealthState(1, 1, up=False)
    assert machine.last_error == NOT_PROBED
    machine.record(False)
    assert machine.last_error == "failed"


@given(st.integers(1, 5), st.integers(1, 5), st.booleans(), st.lists(st.booleans(), max_size=40))
def test_a_change_needs_a_whole_run(unhealthy: int, healthy: int, starts_up: bool, outcomes: list[bool]) -> None:
    """Every change is preceded by as many equal outcomes as its threshold, and such a run always leads to the state."""
    machine = HealthState(unhealthy, healthy, up=starts_up)
    for index, ok in enumerate(outcomes):
        changed = machine.record(ok, "x")
        run = 0
        for earlier in reversed(outcomes[: index + 1]):
            if earlier != ok:
                break
            run += 1
        if changed:
            assert machine.up is ok
            assert run >= (healthy if ok else unhealthy)
        if run >= (healthy if ok else unhealthy):
            assert machine.up is ok
