"""Rows: the identity of a backend over snapshots."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gogate_py.controlplane.rows import Key, Rows, RowsExhausted


def keys(*names: str) -> list[Key]:
    return [("p", name) for name in names]


def test_a_backend_keeps_its_row() -> None:
    """Rows do not move when others come and go; the same address in two pools has two rows."""
    rows = Rows(lambda row: None)
    first = rows.assign([("p", "a"), ("q", "a"), ("p", "b")], 1, 0)
    assert len(set(first.values())) == 3
    second = rows.assign([("p", "c"), ("p", "b")], 2, 1)
    assert second["p", "b"] == first["p", "b"]
    assert rows.get(("p", "a")) is None


def test_a_backend_that_returns_has_its_row_again() -> None:
    """Its connections may still run and count there, so nothing is reset."""
    reset: list[int] = []
    rows = Rows(reset.append)
    first = rows.assign(keys("a", "b"), 1, 0)
    rows.assign(keys("b"), 2, 1)
    assert rows.assign(keys("a", "b"), 3, 2) == first
    assert reset == []


def test_new_rows_before_old_ones() -> None:
    """A row that was freed goes to another backend only when none is left that was never used; the oldest first."""
    reset: list[int] = []
    rows = Rows(reset.append, capacity=4)
    rows.assign(keys("a", "b"), 1, 0)
    rows.assign(keys("b"), 2, 1)  # frees a (row 0)
    rows.assign([], 3, 2)  # frees b (row 1)
    assert rows.assign(keys("c", "d"), 4, 3) == {("p", "c"): 2, ("p", "d"): 3}
    assert reset == []
    assert rows.assign(keys("c", "d", "e"), 5, 4)["p", "e"] == 0
    assert reset == [0]


def test_a_row_waits_until_every_worker_knows() -> None:
    """A freed row is not given away while a worker may still serve a snapshot in which it is the old backend's."""
    reset: list[int] = []
    rows = Rows(reset.append, capacity=1)
    rows.assign(keys("a"), 1, 0)
    with pytest.raises(RowsExhausted):
        rows.assign(keys("b"), 2, 1)
    assert rows.get(("p", "a")) == 0  # nothing changed
    rows.assign([], 2, 1)
    with pytest.raises(RowsExhausted):
        rows.assign(keys("b"), 3, 1)
    assert rows.assign(keys("b"), 3, 2) == {("p", "b"): 0}
    assert reset == [0]


def test_rows_in_use_are_all_that_may_hold_something() -> None:
    """A dead worker's counts are cleared also in rows whose backends left: its connections counted there."""
    rows = Rows(lambda row: None)
    rows.assign(keys("a", "b", "c"), 1, 0)
    rows.assign(keys("c"), 2, 1)
    assert rows.in_use() == [0, 1, 2]


@given(st.lists(st.tuples(st.sets(st.sampled_from("abcdefgh"), max_size=4), st.booleans()), max_size=30))
def test_no_two_backends_share_a_row(steps: list[tuple[set[str], bool]]) -> None:
    """At any moment rows are unique, in range, and stable; a stranger gets a used row only after a reset."""
    reset: set[int] = set()
    owner: dict[int, Key] = {}
    rows = Rows(reset.add, capacity=5)
    acknowledged = 0
    current: dict[Key, int] = {}
    for generation, (names, acknowledge) in enumerate(steps, 1):
        reset.clear()
        try:
            after = rows.assign(keys(*sorted(names)), generation, acknowledged)
        except RowsExhausted:
            assert {key: rows.get(key) for key in current} == current
            continue
        assert len(set(after.values())) == len(after) == len(names)
        assert all(0 <= row < 5 for row in after.values())
        for key, row in after.items():
            assert current.get(key, row) == row
            if owner.get(row, key) != key:
                assert row in reset
            owner[row] = key
        current = after
        if acknowledge:
            acknowledged = generation
