"""Values that operators changed at run time, beside the configured ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gogate_py.controlplane.overrides import Override, Overrides

KEY = ("pool", "a:80")


@pytest.fixture
def overrides() -> Overrides:
    """Overrides whose clock shows 100, 101, 102 …"""
    times: Iterator[float] = iter(float(moment) for moment in range(100, 200))
    return Overrides(lambda: next(times))


def test_nothing_is_overridden_at_first(overrides: Overrides) -> None:
    """Without a change there is no override of anything, and taking back what is not there is nothing."""
    overrides.set_weight(KEY, None)
    overrides.set_split("r", None)
    assert overrides.weight(KEY) is None
    assert overrides.split("r") == {}


def test_weight(overrides: Overrides) -> None:
    """A weight holds for its backend in its pool only, with the moment of its last change, until it is taken back."""
    overrides.set_weight(KEY, 5)
    assert overrides.weight(KEY) == Override(5, 100.0)
    assert overrides.weight(("other", "a:80")) is None
    overrides.set_weight(KEY, 0)
    assert overrides.weight(KEY) == Override(0, 101.0)
    overrides.set_weight(KEY, None)
    assert overrides.weight(KEY) is None


def test_split(overrides: Overrides) -> None:
    """Arms that are not named keep what they have and since when; taking back takes all of the route's back."""
    overrides.set_split("r", {"stable": 90, "canary": 10})
    overrides.set_split("s", {"stable": 1})
    overrides.set_split("r", {"canary": 0})
    assert overrides.split("r") == {"stable": Override(90, 100.0), "canary": Override(0, 102.0)}
    overrides.set_split("r", None)
    assert overrides.split("r") == {}
    assert overrides.split("s") == {"stable": Override(1, 101.0)}


def test_what_was_read_does_not_change(overrides: Overrides) -> None:
    """A later change does not alter what somebody has read."""
    overrides.set_split("r", {"stable": 90})
    read = overrides.split("r")
    overrides.set_split("r", {"stable": 10})
    assert read == {"stable": Override(90, 100.0)}


@given(
    st.lists(
        st.tuples(
            st.sampled_from("rs"),
            st.one_of(st.none(), st.dictionaries(st.sampled_from("abc"), st.integers(0, 9), min_size=1)),
        )
    )
)
def test_split_after_any_changes(changes: list[tuple[str, dict[str, int] | None]]) -> None:
    """What is in force is what a plain dictionary of the changes since the last taking back says."""
    overrides = Overrides(lambda: 0.0)
    expected: dict[str, dict[str, int]] = {"r": {}, "s": {}}
    for route, weights in changes:
        overrides.set_split(route, weights)
        expected[route] = {**expected[route], **weights} if weights is not None else {}
    for route, plain in expected.items():
        assert {pool: override.value for pool, override in overrides.split(route).items()} == plain
