"""The one reading of a query, and what is refused because servers read it differently (SECURITY.md T12)."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.errors import Failure, WireError
from gogate_py.wire.query import MAX_PARAMETERS, parameter, parameters, single_values


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"", []),
        (b"?", []),
        (b"?a=1&b=2", [(b"a", b"1"), (b"b", b"2")]),
        (b"?a=x+y", [(b"a", b"x y")]),
        (b"?a=x%20y", [(b"a", b"x y")]),
        (b"?a=%2541", [(b"a", b"%41")]),
        (b"?%61=%C3%a9", [(b"a", b"\xc3\xa9")]),
        (b"?a", [(b"a", b"")]),
        (b"?a=", [(b"a", b"")]),
        (b"?=1", [(b"", b"1")]),
        (b"?a=1=2", [(b"a", b"1=2")]),
        (b"?a=1&&b=2&", [(b"a", b"1"), (b"b", b"2")]),
        (b"?&", []),
        (b"?a=1&a=2", [(b"a", b"1"), (b"a", b"2")]),
        (b"??a=1", [(b"?a", b"1")]),
        (b"?a=%3B%26%3d", [(b"a", b";&=")]),
        (b"a=1", [(b"a", b"1")]),
        (b"?A=1", [(b"A", b"1")]),
    ],
)
def test_reading(query: bytes, expected: list[tuple[bytes, bytes]]) -> None:
    """Pairs are split at &, at the first =, and decoded once."""
    assert parameters(query) == expected


@pytest.mark.parametrize(
    "query",
    [b"?a=%", b"?a=%4", b"?a=%zz", b"?a=%4g", b"?%=1", b"?a=%+1", b"?a=1;b=2", b"?;", b"?a=%00", b"?a%00=1", b"a=\0"],
)
def test_refused(query: bytes) -> None:
    """What servers read differently is a 400, whichever parameter was asked for, and its bytes are not repeated."""
    for read in (parameters, single_values, lambda query: parameter(query, "a")):
        with pytest.raises(WireError) as caught:
            read(query)
        assert caught.value.failure is Failure.BAD_QUERY
        assert "query has a" in caught.value.detail


def test_number_of_parameters() -> None:
    """1000 parameters are read, one more is refused: servers ignore those beyond limits of their own."""
    assert len(parameters(b"?" + b"&".join([b"a"] * MAX_PARAMETERS))) == MAX_PARAMETERS
    with pytest.raises(WireError, match="more than 1000"):
        parameters(b"?" + b"&".join([b"a"] * (MAX_PARAMETERS + 1)))
    with pytest.raises(WireError, match="more than 1000"):
        parameters(b"&" * MAX_PARAMETERS)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"?a=1", b"1"),
        (b"?b=1", None),
        (b"?a=1&a=1", None),
        (b"?a=1&%61=2", None),
        (b"?a&a&a", None),
        (b"?A=1", None),
        (b"?a", b""),
    ],
)
def test_one_parameter(query: bytes, expected: bytes | None) -> None:
    """A parameter that is absent or occurs more than once has no value."""
    assert parameter(query, "a") == expected


def test_names_are_utf8() -> None:
    """A name is compared in UTF-8, escaped or not."""
    assert parameter(b"?%C3%A9=1", "é") == b"1"


def test_absent_and_repeated_can_be_told_apart() -> None:
    """single_values has None for a repeated name, and no entry for an absent one."""
    values = single_values(b"?a=1&a=2&b=3")
    assert dict(values) == {b"a": None, b"b": b"3"}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.text("ab é;&=+%", max_size=4), st.text("ab é;&=+%?", max_size=4)), max_size=5))
def test_what_was_encoded_comes_back(pairs: list[tuple[str, str]]) -> None:
    """Whatever names and values are encoded as browsers do it are read as they were."""
    query = b"?" + urlencode(pairs).encode()
    assert parameters(query) == [(name.encode(), value.encode()) for name, value in pairs]


@settings(max_examples=200, deadline=None)
@given(st.text("ab=&+%4Z", max_size=14))
def test_reading_is_the_standard_librarys_where_it_is_strict(query: str) -> None:
    """What is not refused is read as urllib reads it (an empty name alone aside, which nothing can ask for)."""
    try:
        found = parameters(b"?" + query.encode())
    except WireError:
        return
    expected = parse_qsl(query, keep_blank_values=True, encoding="latin-1")
    assert found == [(name.encode("latin-1"), value.encode("latin-1")) for name, value in expected]
