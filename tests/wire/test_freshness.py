"""Freshness: RFC 9111 section 4.2, directives, dates and conditions."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.wire.freshness import (
    HEURISTIC_STATUSES,
    MAX_SECONDS,
    STATUSES,
    answer_terms,
    delta_seconds,
    directives,
    http_date,
    is_etag,
    not_modified,
    parse_date,
    request_terms,
)

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
MADE = 784111777


class TestDirectives:
    """Cache-Control as a list of names with values."""

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            (b"", {}),
            (b" ,, ", {}),
            (b"no-store", {b"no-store": b""}),
            (b"Public, MAX-AGE=60", {b"public": b"", b"max-age": b"60"}),
            (b'max-age="60"', {b"max-age": b"60"}),
            (b",public\t,, max-age=5 ,", {b"public": b"", b"max-age": b"5"}),
            (b'private="set-cookie, x", public', {b"private": b"set-cookie, x", b"public": b""}),
            (b'ext="a\\", no-store"', {b"ext": b'a\\", no-store'}),
            (b"max-age=60, max-age=5", {b"max-age": b"5"}),
            (b"max-age=5, max-age=60", {b"max-age": b"5"}),
            (b"max-age=60, max-age=soon", {b"max-age": b"soon"}),
        ],
    )
    def test_a_list_is_read(self, line: bytes, expected: dict[bytes, bytes]) -> None:
        """Names without case, values as token or quoted string, empty elements skipped (section 5.2)."""
        assert directives([line]) == expected

    @pytest.mark.parametrize(
        "line",
        [b"public; max-age=60", b"max-age = 60", b"max-age=", b'a="b', b"public max-age=60", b"=60", b'a="b"c', b"@"],
    )
    def test_a_broken_line_is_no_store(self, line: bytes) -> None:
        """What stands behind the break is unknown, so it counts as the strictest there is."""
        assert b"no-store" in directives([line])
        assert b"no-store" in directives([b"public", line])

    def test_a_quote_does_not_hide_the_next_line(self) -> None:
        """Each line is read on its own: an open quote cannot swallow a directive of the next one."""
        assert b"private" in directives([b'x="', b"private", b'y="'])

    @given(st.binary(max_size=60))
    @settings(max_examples=200)
    def test_whatever_comes_is_read_or_no_store(self, line: bytes) -> None:
        """Never an error; a line with a character that the grammar has no place for is no-store."""
        found = directives([line])
        if b"\x00" in line:
            assert b"no-store" in found

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (b"0", 0), (b"0060", 60), (b"2147483648", MAX_SECONDS), (b"9" * 5000, MAX_SECONDS), (b"0" * 5000, 0),
            (b"", None), (b"-1", None), (b"+1", None), (b"1_0", None), (b" 1", None), (b"1.5", None), (b"\xb2", None),
        ],
    )  # fmt: skip
    def test_delta_seconds(self, value: bytes, expected: int | None) -> None:
        """Digits and nothing else, cut off at 2^31 (section 1.2.2)."""
        assert delta_seconds(value) == expected


class TestRequestTerms:
    """What a request asks for."""

    def test_nothing_asked(self) -> None:
        """Without fields everything is allowed."""
        terms = request_terms(None, None)
        assert terms == (False, False, MAX_SECONDS, 0, False)
        assert request_terms(None, b"x") == terms
        assert request_terms(b"max-stale=60", None) == terms

    def test_each_directive(self) -> None:
        """The request directives of section 5.2.1."""
        assert request_terms(b"no-store", None).no_store
        assert request_terms(b"no-cache", None).no_cache
        assert request_terms(b"max-age=0", None).max_age == 0
        assert request_terms(b"min-fresh=7", None).min_fresh == 7
        assert request_terms(b"only-if-cached", None).only_if_cached

    def test_what_cannot_be_read_asks_for_the_most(self) -> None:
        """A broken max-age or min-fresh is met by no stored answer."""
        assert request_terms(b"max-age=x", None).max_age == 0
        assert request_terms(b"min-fresh=x", None).min_fresh == MAX_SECONDS

    def test_pragma_only_without_cache_control(self) -> None:
        """Pragma: no-cache counts where there is no Cache-Control (section 5.4)."""
        assert request_terms(None, b"No-Cache").no_cache
        assert not request_terms(b"max-age=5", b"no-cache").no_cache


class TestAnswerTerms:
    """How long an answer may be used."""

    @pytest.mark.parametrize(
        ("fields", "lifetime"),
        [
            ([], 30),
            ([(b"Cache-Control", b"public")], 30),
            ([(b"Cache-Control", b"max-age=60")], 60),
            ([(b"cache-control", b"max-age=60"), (b"Cache-Control", b"s-maxage=5")], 5),
            ([(b"Cache-Control", b"max-age=60"), (b"Expires", b"0")], 60),
            ([(b"Cache-Control", b"max-age=0, s-maxage=9")], 9),
            ([(b"Date", DATE), (b"Expires", b"Sun, 06 Nov 1994 08:50:37 GMT")], 60),
            ([(b"Expires", b"Sun, 06 Nov 1994 08:50:37 GMT")], 50),
            ([(b"Date", b"now"), (b"Expires", b"Sun, 06 Nov 1994 08:50:37 GMT")], 50),
            ([(b"Expires", b"Sun, 06 Nov 1994 08:50:37 GMT"), (b"Expires", b"Sun, 06 Nov 1994 08:50:00 GMT")], 13),
            ([(b"Cache-Control", b"max-age=99999999999")], MAX_SECONDS),
            ([(b"Pragma", b"no-cache"), (b"Cache-Control", b"max-age=60")], 60),
        ],
    )
    def test_lifetime(self, fields: list[tuple[bytes, bytes]], lifetime: float) -> None:
        """s-maxage, max-age, Expires - Date, configured time, in this order (section 4.2.1)."""
        terms = answer_terms(200, fields, 30, MADE + 10)
        assert terms is not None
        assert terms.lifetime == lifetime

    @pytest.mark.parametrize(
        "fields",
        [
            [(b"Cache-Control", b"no-store, max-age=60")],
            [(b"Cache-Control", b"private, max-age=60")],
            [(b"Cache-Control", b'Private="x-secret", max-age=60')],
            [(b"Cache-Control", b"no-cache")],
            [(b"Cache-Control", b'no-cache="set-cookie", max-age=60')],
            [(b"Cache-Control", b"max-age=60"), (b"cache-control", b"no-store")],
            [(b"Cache-Control", b"must-understand, no-store, max-age=60")],
            [(b"Cache-Control", b"max-age=60; private")],
            [(b"Cache-Control", b"max-age=0")],
            [(b"Cache-Control", b"max-age=60, s-maxage=0")],
            [(b"Cache-Control", b"max-age=an hour")],
            [(b"Cache-Control", b"max-age=-1")],
            [(b"Expires", b"0")],
            [(b"Expires", b"-1")],
            [(b"Expires", DATE), (b"Date", DATE)],
            [(b"Pragma", b"no-cache")],
            [(b"Cache-Control", b"max-age=60"), (b"Age", b"60")],
            [(b"Cache-Control", b"max-age=60"), (b"Age", b"61"), (b"Age", b"1")],
        ],
    )
    def test_not_to_be_kept(self, fields: list[tuple[bytes, bytes]]) -> None:
        """Forbidden, unreadable or stale already."""
        assert answer_terms(200, fields, 30, MADE) is None

    def test_ages_are_taken_off(self) -> None:
        """What other caches spent of the lifetime is told."""
        terms = answer_terms(200, [(b"Cache-Control", b"max-age=60"), (b"Age", b"20")], 0, MADE)
        assert terms is not None
        assert (terms.lifetime, terms.age) == (60, 20)

    @pytest.mark.parametrize("word", [b"public", b"s-maxage=9", b"must-revalidate"])
    def test_permission_for_all(self, word: bytes) -> None:
        """public, s-maxage and must-revalidate allow to serve others (section 3.5)."""
        terms = answer_terms(200, [(b"Cache-Control", b"max-age=60, " + word)], 0, MADE)
        assert terms is not None
        assert terms.shared
        terms = answer_terms(200, [(b"Cache-Control", b"max-age=60, proxy-revalidate")], 0, MADE)
        assert terms is not None
        assert not terms.shared

    def test_statuses(self) -> None:
        """Some statuses are never kept, some only when they say for how long."""
        said = [(b"Cache-Control", b"max-age=60")]
        assert {status for status in range(200, 600) if answer_terms(status, said, 30, MADE)} == STATUSES
        assert {status for status in range(200, 600) if answer_terms(status, [], 30, MADE)} == HEURISTIC_STATUSES
        assert not [status for status in range(200, 600) if answer_terms(status, [], 0, MADE)]
        assert {206, 304, 500, 302, 401}.isdisjoint(STATUSES)


class TestDates:
    """HTTP dates (RFC 9110 section 5.6.7)."""

    @pytest.mark.parametrize("text", [DATE, b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994"])
    def test_the_three_forms(self, text: bytes) -> None:
        """All three forms of the RFC's example are one moment."""
        assert parse_date(text) == MADE

    @pytest.mark.parametrize(
        "text",
        [
            b"", b"0", b"-1", DATE.lower(), DATE + b" ", DATE[:-4], b"Sun, 6 Nov 1994 08:49:37 GMT",
            b"Sun, 06 Nov 1994 08:49:37 UTC", b"Sun, 31 Feb 1994 08:49:37 GMT", b"Sun, 06 Nov 0000 08:49:37 GMT",
            b"Sun, 06 Nov 1994 24:00:00 GMT", b"Sun, 06 Nov 1994 08:49:61 GMT", "Sun, 0६ Nov 1994".encode(),
        ],
    )  # fmt: skip
    def test_no_date(self, text: bytes) -> None:
        """Anything else is none, above all the popular 0 and -1."""
        assert parse_date(text) is None

    def test_leap_second_and_old_years(self) -> None:
        """A leap second is the second before it; two digits are 1970 to 2069."""
        assert parse_date(b"Sat, 31 Dec 2016 23:59:60 GMT") == parse_date(b"Sat, 31 Dec 2016 23:59:59 GMT")
        assert parse_date(b"Sunday, 01-Jan-69 00:00:00 GMT") == parse_date(b"Tue, 01 Jan 2069 00:00:00 GMT")
        assert parse_date(b"Thursday, 01-Jan-70 00:00:00 GMT") == 0

    @given(st.integers(0, 2**33))
    @settings(max_examples=200)
    def test_round_trip(self, moment: int) -> None:
        """What is written is read as the same moment, and is written as Python's own library does."""
        text = http_date(moment + 0.9)
        assert parse_date(text) == moment
        assert text.decode() == format_datetime(datetime.fromtimestamp(moment, UTC), usegmt=True)


class TestConditions:
    """Whether the client has it already (RFC 9110 section 13)."""

    @pytest.mark.parametrize(
        ("none_match", "etag", "same"),
        [
            (b'"a"', b'"a"', True),
            (b'W/"a"', b'"a"', True),
            (b'"a"', b'W/"a"', True),
            (b'"x", W/"a" ,"y"', b'"a"', True),
            (b'"a,b"', b'"a,b"', True),
            (b'"b"', b'"a"', False),
            (b'"ab"', b'"a"', False),
            (b"a", b'"a"', False),
            (b"", b'"a"', False),
            (b'""', b'""', True),
            (b"*", b"", True),
            (b'"a"', b"", False),
        ],
    )
    def test_if_none_match(self, none_match: bytes, etag: bytes, same: bool) -> None:
        """Compared weakly, any of a list; * is whatever there is."""
        assert not_modified(none_match, None, etag, None) is same
        # It decides alone, even against a date that says otherwise.
        assert not_modified(none_match, http_date(MADE), etag, MADE) is same
        assert not_modified(none_match, http_date(0), etag, MADE) is same

    def test_if_modified_since(self) -> None:
        """Not newer is not modified; without a date on either side it is."""
        assert not_modified(None, DATE, b"", MADE)
        assert not_modified(None, http_date(MADE + 1), b"", MADE)
        assert not not_modified(None, http_date(MADE - 1), b"", MADE)
        assert not not_modified(None, DATE, b'"a"', None)
        assert not not_modified(None, b"yesterday", b"", MADE)
        assert not not_modified(None, None, b'"a"', MADE)

    def test_etags(self) -> None:
        """An entity tag is quoted, and weak by W/ only."""
        assert is_etag(b'"a"')
        assert is_etag(b'W/"a"')
        assert not is_etag(b"a")
        assert not is_etag(b'w/"a"')
        assert not is_etag(b'"a b"')
