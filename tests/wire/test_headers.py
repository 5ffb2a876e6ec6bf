"""Field lines: grammar, names, lists (RFC 9110 section 5, SECURITY.md T4, T5)."""

from __future__ import annotations

import pytest

from gogate_py.errors import Failure, WireError
from gogate_py.wire.headers import (
    MAX_NAME,
    is_alias,
    is_clean_name,
    is_forwarding_name,
    list_elements,
    split_fields,
    without,
)


def test_lines_are_split_raw_and_in_order() -> None:
    """Names and values come out as received, OWS included, in order, repetitions included."""
    section = b"A: 1\r\nb:\t2 \r\nA:\r\nc: x:y\r\n\r\n"
    fields = [(b"A", b" 1"), (b"b", b"\t2 "), (b"A", b""), (b"c", b" x:y")]
    assert split_fields(section, Failure.BAD_REQUEST) == fields


def test_an_empty_section_has_no_fields() -> None:
    """The empty line alone is a section."""
    assert split_fields(b"\r\n", Failure.BAD_REQUEST) == []


@pytest.mark.parametrize(
    "section",
    [
        b"",
        b"A: 1\r\n",
        b"A: 1\r\n\r\nB: 2\r\n\r\n",
        b"A : 1\r\n\r\n",
        b": 1\r\n\r\n",
        b"A\r\n\r\n",
        b" A: 1\r\n\r\n",
        b"A: 1\r\n 2\r\n\r\n",
        b"A: 1\n\r\n",
        b"A: 1\r\r\n\r\n",
        b"A: \x00\r\n\r\n",
        b"A: \x7f\r\n\r\n",
        b"\xc3\xa9: 1\r\n\r\n",
        b"n" * (MAX_NAME + 1) + b": 1\r\n\r\n",
    ],
)
def test_a_malformed_section_is_refused_with_the_given_failure(section: bytes) -> None:
    """Any line that breaks the grammar refuses the whole section, as the caller's kind of failure."""
    with pytest.raises(WireError) as caught:
        split_fields(section, Failure.BAD_CHUNK)
    assert caught.value.failure is Failure.BAD_CHUNK


@pytest.mark.parametrize(
    ("name", "clean"),
    [(b"X-Custom-1", True), (b"a", True), (b"X_Custom", False), (b"X.Y", False), (b"~", False), (b"X!", False)],
)
def test_clean_names(name: bytes, clean: bool) -> None:
    """Only letters, digits and hyphens are read alike by every backend."""
    assert is_clean_name(name) is clean


@pytest.mark.parametrize(
    ("lower", "alias"),
    [
        (b"x_forwarded_for", True),
        (b"x.forwarded.for", True),
        (b"x-forwarded_anything", True),
        (b"x_real_ip", True),
        (b"x!request*id", True),
        (b"content_length", True),
        (b"transfer.encoding", True),
        (b"proxy_connection", True),
        (b"x_custom", False),
        (b"host_name", False),
        (b"_forwarded", False),
    ],
)
def test_aliases(lower: bytes, alias: bool) -> None:
    """A name is an alias when a CGI-like backend would read it as a field that gogate sets or decides by."""
    assert is_alias(lower) is alias


def test_forwarding_names() -> None:
    """Every X-Forwarded-*, X-Real-IP and Forwarded tells where a request came from; nothing else does."""
    assert is_forwarding_name(b"x-forwarded-for")
    assert is_forwarding_name(b"x-forwarded-whatever")
    assert is_forwarding_name(b"x-real-ip")
    assert is_forwarding_name(b"forwarded")
    assert not is_forwarding_name(b"x-forwarded")
    assert not is_forwarding_name(b"forwarded-for")


def test_list_elements_join_lines_and_skip_empty_ones() -> None:
    """A list may span lines and have empty elements (RFC 9110 section 5.6.1); only SP and HTAB are trimmed."""
    assert list_elements([b" Close ,, x\t", b"", b"\xa0Y"]) == [b"close", b"x", b"\xa0y"]


def test_without_compares_names_without_case() -> None:
    """Fields are removed by lower-case name, all lines of it."""
    assert without([(b"X-A", b"1"), (b"X-B", b"2"), (b"x-a", b"3")], {b"x-a"}) == [(b"X-B", b"2")]
