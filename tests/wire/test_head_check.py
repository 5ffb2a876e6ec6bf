"""The helpers and settings of the head check; its rules themselves are in tests/conformance."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gogate_py.errors import Failure, Side, WireError
from gogate_py.wire.head_check import (
    HeadLimits,
    check_request_head,
    check_response_head,
    early_refusal,
    find_head_end,
    strip_leading_empty_line,
)

SMALL = HeadLimits(request_line=20, request_head=60, request_fields=2, response_head=40, response_fields=2)


def refusal(head: bytes, limits: HeadLimits) -> Failure | None:
    """Why a request head is refused, or None."""
    try:
        check_request_head(head, limits)
    except WireError as error:
        return error.failure
    return None


def test_find_head_end() -> None:
    """The index behind the empty line, also when the search starts just before its last bytes."""
    buffer = bytearray(b"GET / HTTP/1.1\r\nA: b\r\n\r\nbody\r\n\r\n")
    assert find_head_end(buffer) == 24
    assert find_head_end(buffer, 20) == 24
    assert find_head_end(buffer, -3) == 24
    assert find_head_end(buffer[:23]) == -1


def test_strip_leading_empty_line() -> None:
    """One CRLF goes; a second one, half of one and a bare LF stay to be refused or completed."""
    assert strip_leading_empty_line(b"\r\nGET") == b"GET"
    assert strip_leading_empty_line(b"\r\n\r\nGET") == b"\r\nGET"
    assert strip_leading_empty_line(b"\r") == b"\r"
    assert strip_leading_empty_line(b"\nGET") == b"\nGET"
    assert strip_leading_empty_line(bytearray(b"\r\nGET")) == bytearray(b"GET")


@pytest.mark.parametrize(
    ("buffer", "expected"),
    [
        (b"", None),
        (b"\r", None),
        (b"GET / HT", None),
        (b"GET / HTTP/1.1\r", None),
        (b"GET / HTTP/1.1\r\nA: b\r", None),
        (b"x" * 20, None),
        (b"x" * 20 + b"\r", None),
        (b"x" * 21, Failure.URI_TOO_LONG),
        (b"x" * 21 + b"\r\n", Failure.URI_TOO_LONG),
        (b"x\r\n" + b"y" * 56, None),
        (b"x\r\n" + b"y" * 57, Failure.HEAD_TOO_LARGE),
        (b"\r\n", Failure.BAD_REQUEST),
        (b"\n", Failure.BAD_REQUEST),
        (b"GET / HTTP/1.1\n", Failure.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nA: b\n", Failure.BAD_REQUEST),
        (b"\x16\x03\x01\x00\xf4", Failure.BAD_REQUEST),
    ],
)
def test_early_refusal(buffer: bytes, expected: Failure | None) -> None:
    """An incomplete head is refused as soon as no continuation can make it acceptable (T13)."""
    assert early_refusal(buffer, SMALL) is expected
    assert early_refusal(bytearray(buffer), SMALL) is expected


def test_early_refusal_of_a_line_feed_across_the_cut() -> None:
    """A CRLF whose halves arrive apart is no bare LF."""
    assert early_refusal(b"GET / HTTP/1.1\r\n", SMALL, start=15) is None
    assert early_refusal(b"GET / HTTP/1.1\n", SMALL, start=14) is Failure.BAD_REQUEST


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=20), st.sampled_from([b"GET / HTTP/1.1\r\nHost: a\r\n", b"GET /", b""]))
@example(b"\r", b"x" * 20)
def test_early_refusal_is_never_too_early(tail: bytes, start: bytes) -> None:
    """Whatever is refused early would also have been refused when complete."""
    buffer = start + tail
    if find_head_end(buffer) < 0 and early_refusal(buffer, SMALL) is not None:
        for end in (b"\r\n\r\n", b"\n\r\n", b"\n\r\n\r\n", b"\r\nHost: a\r\n\r\n", b" / HTTP/1.1\r\nHost: a\r\n\r\n"):
            whole = buffer + end
            assert refusal(whole[: find_head_end(whole)], SMALL) is not None


def test_limits_are_settings() -> None:
    """Each limit of a request is the given one, and its own status."""
    assert refusal(b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n", SMALL) is None
    assert refusal(b"GET /1234567 HTTP/1.1\r\nHost: a\r\n\r\n", SMALL) is Failure.URI_TOO_LONG
    assert refusal(b"GET / HTTP/1.1\r\nHost: a\r\nA: %b\r\n\r\n" % (b"b" * 40), SMALL) is Failure.HEAD_TOO_LARGE
    assert refusal(b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nA: c\r\n\r\n", SMALL) is Failure.HEAD_TOO_LARGE


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nA: %b\r\n\r\n" % (b"b" * 30), b"HTTP/1.1 200 \r\n" + b"A:\r\n" * 3 + b"\r\n"]
)
def test_response_limits_are_settings(head: bytes) -> None:
    """A response over a limit is the backend's fault."""
    with pytest.raises(WireError) as caught:
        check_response_head(head, SMALL)
    assert caught.value.failure is Failure.BAD_RESPONSE


def test_methods_are_a_setting_but_for_two() -> None:
    """Other methods may be allowed and default ones forbidden; CONNECT and TRACE cannot be allowed."""
    limits = HeadLimits(methods=frozenset((b"GET", b"PROPFIND", b"CONNECT", b"TRACE")))
    assert refusal(b"PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n", limits) is None
    assert refusal(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", limits) is Failure.UNKNOWN_METHOD
    assert refusal(b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", limits) is Failure.UNKNOWN_METHOD
    assert refusal(b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", limits) is Failure.METHOD_NOT_ALLOWED


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_are_a_verdict(start: bytes, fields: bytes) -> None:
    """Arbitrary bytes are refused by a Failure of the right side; no other exception leaves the check (T21, T30)."""
    head = start + b"\r\n" + fields + b"\r\n\r\n"
    failure = refusal(head, HeadLimits())
    assert failure is None or failure.side is Side.CLIENT or failure is Failure.METHOD_NOT_ALLOWED
    try:
        check_response_head(head, HeadLimits())
    except WireError as error:
        failure = error.failure
    else:
        failure = Failure.BAD_RESPONSE
    assert failure is Failure.BAD_RESPONSE


def test_details_never_repeat_the_message() -> None:
    """What a refusal says is ours alone: nothing that a client sent gets into logs or answers by this way (T27)."""
    for head in (b"GET / EVIL\r\n\r\n", b"EVIL / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: EVIL EVIL\r\n\r\n"):
        with pytest.raises(WireError) as caught:
            check_request_head(head, HeadLimits())
        assert "EVIL" not in str(caught.value)
