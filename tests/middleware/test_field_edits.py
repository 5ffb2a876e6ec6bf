"""Removing, setting and adding fields, both ways."""

from __future__ import annotations

import pytest
from doubles.asked import Asked
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.errors import Failure
from gogate_py.middleware.field_edits import RequestEdits, ResponseEdits, valid_value
from gogate_py.middleware.rewriting import value_names
from gogate_py.policy.router import compile_captures
from gogate_py.snapshot import FieldEdits
from gogate_py.wire.head_check import RequestHead

Fields = list[tuple[bytes, bytes]]
CAPTURES = compile_captures("/t/{tenant}", "")


def head_with(fields: Fields) -> RequestHead:
    """A checked head."""
    head = RequestHead(b"GET", b"/t/acme", 1)
    head.host = b"a.example"
    head.fields = list(fields)
    return head


def edited(edits: FieldEdits, fields: Fields) -> Fields:
    """The fields that a backend gets; a client gets the very same."""
    request = Asked(path=b"/t/acme")
    head = head_with(fields)
    assert RequestEdits(edits, CAPTURES)(request, head) is None
    answer = list(fields)
    ResponseEdits(edits, CAPTURES)(request, 200, answer)
    assert answer == head.fields
    return answer


BEFORE: Fields = [(b"X-A", b"1"), (b"Accept", b"x"), (b"x-a", b"2"), (b"X_A", b"3"), (b"X-Ab", b"4")]


@pytest.mark.parametrize(
    ("edits", "after"),
    [
        (FieldEdits(), BEFORE),
        (FieldEdits(remove=("x-A",)), [(b"Accept", b"x"), (b"X-Ab", b"4")]),
        (FieldEdits(remove=("X-None",)), BEFORE),
        (FieldEdits(set=(("X-a", "new"),)), [(b"Accept", b"x"), (b"X-Ab", b"4"), (b"X-a", b"new")]),
        (FieldEdits(add=(("X-A", "new"),)), [*BEFORE, (b"X-A", b"new")]),
        (
            FieldEdits(remove=("X-A", "Accept"), set=(("X-Ab", "5"),), add=(("X-A", "6"), ("X-A", "7"))),
            [(b"X-Ab", b"5"), (b"X-A", b"6"), (b"X-A", b"7")],
        ),
        # remove comes first: what is removed and set is set
        (FieldEdits(remove=("X-A",), set=(("X-A", "5"),)), [(b"Accept", b"x"), (b"X-Ab", b"4"), (b"X-A", b"5")]),
        # two spellings are one field
        (FieldEdits(set=(("Accept", "1"), ("accept", "2")), remove=("X-A", "X-Ab")), [(b"accept", b"2")]),
        (
            FieldEdits(set=(("X-Tenant", "{tenant} on {host}"), ("X-C", "c"))),
            [*BEFORE, (b"X-Tenant", b"acme on a.example"), (b"X-C", b"c")],
        ),
        (FieldEdits(remove=("X.A+",)), BEFORE),
    ],
)
def test_edits(edits: FieldEdits, after: Fields) -> None:
    """Remove, then set, then add; a name means all of its spellings, and no other name."""
    assert edited(edits, BEFORE) == after


NAME = st.sampled_from(["X-A", "x-a", "X-B", "Accept"])
PAIRS = st.lists(st.tuples(NAME, st.sampled_from(["1", "{method}"])), max_size=3).map(tuple)


@settings(max_examples=100, deadline=None)
@given(
    before=st.lists(st.tuples(NAME.map(str.encode), st.just(b"0")), max_size=5),
    remove=st.lists(NAME, max_size=2).map(tuple),
    set_=PAIRS,
    add=PAIRS,
)
def test_against_the_rule_in_words(
    before: Fields, remove: tuple[str, ...], set_: tuple[tuple[str, str], ...], add: tuple[tuple[str, str], ...]
) -> None:
    """The lines of each name are: those that were there unless removed or set, the value set, the values added."""
    after = edited(FieldEdits(remove, set_, add), before)
    for name in ("x-a", "x-b", "accept"):
        placed = [value for known, value in set_ if known.lower() == name][-1:]
        gone = bool(placed) or name in [known.lower() for known in remove]
        expected = [] if gone else [value for known, value in before if known.lower() == name.encode()]
        expected += [
            value.replace("{method}", "GET").encode()
            for value in [*placed, *(value for known, value in add if known.lower() == name)]
        ]
        assert [value for known, value in after if known.lower() == name.encode()] == expected


class TestHost:
    """Setting the Host that the backend sees."""

    @pytest.mark.parametrize(
        ("value", "expected"), [("b.internal:8080", b"b.internal:8080"), ("{tenant}.i", b"acme.i")]
    )
    def test_set(self, value: str, expected: bytes) -> None:
        """It replaces the one Host of the head, and is no further field."""
        head = head_with([(b"X-A", b"1")])
        edits = RequestEdits(FieldEdits(set=(("host", value),)), CAPTURES)
        assert edits(Asked(path=b"/t/acme"), head) is None
        assert head.host == expected
        assert head.fields == [(b"X-A", b"1")]

    @pytest.mark.parametrize("tenant", [b"a@b", b"a%20b", b"a:b", b"-;-"])
    def test_one_that_is_none_is_refused(self, tenant: bytes) -> None:
        """What a path parameter made invalid goes to no backend."""
        edits = RequestEdits(FieldEdits(set=(("Host", "{tenant}.internal"),), remove=("X-A",)), CAPTURES)
        head = head_with([(b"X-A", b"1")])
        request = Asked(path=b"/t/" + tenant)
        refusal = edits(request, head)
        assert refusal is not None
        assert refusal.failure is Failure.BAD_HOST
        assert edits.explain(request).outcome == refusal

    def test_the_answers_host_is_a_field(self) -> None:
        """Nothing is special about it there."""
        fields: Fields = []
        ResponseEdits(FieldEdits(set=(("Host", "x y"),)), CAPTURES)(Asked(), 200, fields)
        assert fields == [(b"Host", b"x y")]


def test_explain_names_fields_and_hides_values() -> None:
    """Values may be a backend's credentials."""
    edits = FieldEdits(("X-Debug",), (("Authorization", "Bearer hush"), ("Host", "b")), (("X-B", "hush"),))
    explained = RequestEdits(edits, CAPTURES).explain(Asked(path=b"/t/acme"))
    assert explained.outcome is None
    assert explained.text == "remove X-Debug; set Authorization, Host; add X-B"
    assert explained.facts == {"remove": ["X-Debug"], "set": ["Authorization", "Host"], "add": ["X-B"]}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("X-A", "", ""),
        ("X-A", "one two\tthree é {tenant}", ""),
        ("Host", "b.internal:80", ""),
        ("Host", "{tenant}.internal", ""),
        ("X-A", "a\r\nX-B: c", "no line breaks"),
        ("X-A", "a\x00", "no line breaks"),
        ("X-A", "a\x7f", "no line breaks"),
        ("X-A", " a", "begins nor ends"),
        ("X-A", "a\t", "begins nor ends"),
        ("X-A", "{tenat}", "did you mean {tenant}?"),
        ("Host", "b/c", "not a host"),
        ("host", "", "not a host"),
    ],
)
def test_values(name: str, value: str, said: str) -> None:
    """A value is one line of visible text with known variables; a Host is a host."""
    wrong = valid_value(name, value, value_names("/t/{tenant}"))
    assert said in wrong
    assert bool(wrong) is bool(said)
