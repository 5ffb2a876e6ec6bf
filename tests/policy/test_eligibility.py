"""Which backends of a pool the balancer is offered: the table of policy/eligibility.py."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from gogate_py.policy.eligibility import SnapshotMember, eligible
from gogate_py.snapshot import Backend, BackendState


@frozen
class One:
    """A member of plain values."""

    name: str = ""
    up: bool = True
    draining: bool = False
    weight: int = 1
    backup: bool = False
    endpoints: Sequence[tuple[str, int]] = (("192.0.2.1", 80),)


def pool(text: str) -> list[One]:
    """Members from words: a letter names one, upper case a backup; then "-" down, "~" draining, "0" weight 0, "?" no
    address."""
    return [
        One(
            word[0],
            up="-" not in word,
            draining="~" in word,
            weight=0 if "0" in word else 1,
            backup=word[0].isupper(),
            endpoints=() if "?" in word else (("192.0.2.1", 80),),
        )
        for word in text.split()
    ]


def names(members: Sequence[One]) -> str:
    return "".join(member.name for member in members)


@pytest.mark.parametrize(
    ("members", "threshold", "candidates", "reserve", "panic"),
    [
        # enough ordinary ones are usable: they work, the backups are the reserve
        ("a b C", 0, "ab", "C", False),
        ("a b- C", 0, "a", "C", False),
        ("a b- C-", 0, "a", "", False),
        ("a b- c- d-", 25, "a", "", False),
        # fewer than panicThreshold percent, but some: health is ignored
        ("a b- c- d-", 26, "abcd", "", True),
        ("a b- c- D", 50, "abc", "D", True),
        ("a b c d-", 80, "abcd", "", True),
        # none: the backups, or with a threshold everybody ordinary
        ("a- b- C D", 0, "CD", "", False),
        ("a- b- C D-", 0, "C", "", False),
        ("a- b-", 0, "", "", False),
        ("a- b- C", 50, "ab", "C", True),
        ("a- b-", 1, "ab", "", True),
        # what the operator said, and what has no address, holds in a panic too
        ("a- b-~ c-0 d-?", 50, "a", "", True),
        ("a~ b0 c? D", 0, "D", "", False),
        ("a~ b0 c? D", 50, "D", "", False),
        ("a~ b", 100, "b", "", False),
        ("A~ B0 C?", 50, "", "", False),
        # a pool of backups only, or of nobody
        ("A B-", 0, "A", "", False),
        ("A B-", 90, "A", "", False),
        ("", 50, "", "", False),
    ],
)
def test_table(members: str, threshold: int, candidates: str, reserve: str, panic: bool) -> None:
    """Candidates, reserve and panic for health, draining, weight, backups and panicThreshold, case by case."""
    found = eligible(pool(members), threshold)
    assert (names(found.candidates), names(found.reserve), found.panic) == (candidates, reserve, panic)


MEMBERS = st.lists(
    st.builds(
        One,
        up=st.booleans(),
        draining=st.booleans(),
        weight=st.integers(0, 2),
        backup=st.booleans(),
        endpoints=st.sampled_from([(), (("192.0.2.1", 80),)]),
    ),
    max_size=8,
)


@given(MEMBERS, st.integers(0, 100))
def test_rules_that_always_hold(members: list[One], threshold: int) -> None:
    """Nobody that the operator took out is ever offered; health is ignored in a panic only, and never of a backup; no
    backend is in both lists; somebody is offered whenever somebody is usable."""
    found = eligible(members, threshold)
    for member in (*found.candidates, *found.reserve):
        assert member.weight
        assert member.endpoints
        assert not member.draining
        assert member.up or (found.panic and not member.backup)
    assert not {id(m) for m in found.candidates} & {id(m) for m in found.reserve}
    assert all(member.backup for member in found.reserve)
    usable = [m for m in members if m.up and m.weight and m.endpoints and not m.draining]
    assert not usable or found.candidates
    assert not found.panic or threshold
    if not threshold:
        assert all(member.up for member in found.candidates)


def test_backend_of_a_snapshot() -> None:
    """A backend as the snapshot has it is sorted like a live one."""

    def backend(row: int, *, up: bool = True, draining: bool = False, weight: int = 1, backup: bool = False) -> Backend:
        state = BackendState(row, up, draining)
        return Backend(row, f"192.0.2.{row}:80", (("192.0.2.1", 80),), weight, state, backup)

    members = [
        SnapshotMember(one)
        for one in (
            backend(0, up=False),
            backend(1, draining=True),
            backend(2, weight=0),
            backend(3, backup=True),
            backend(4),
        )
    ]
    found = eligible(members, 0)
    assert (found.candidates, found.reserve) == ([members[4]], [members[3]])
