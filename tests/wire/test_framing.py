"""Body length rules: tables of what is taken and what is refused (RFC 9112 section 6, SECURITY.md T1)."""

from __future__ import annotations

import pytest

from gogate_py.errors import Failure, WireError
from gogate_py.wire.framing import MAX_CONTENT_LENGTH, content_length, has_body, is_chunked
from gogate_py.wire.head_check import HeadLimits, check_response_head


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], -1), ([b"0"], 0), ([b" 17\t"], 17), ([b"007"], 7), ([b"%d" % MAX_CONTENT_LENGTH], MAX_CONTENT_LENGTH)],
)
def test_content_length(values: list[bytes], expected: int) -> None:
    """One decimal number, or no line at all."""
    assert content_length(values, Failure.BAD_FRAMING) == expected


@pytest.mark.parametrize(
    "values",
    [
        [b""],
        [b"1", b"1"],
        [b"1,1"],
        [b"+1"],
        [b"-1"],
        [b"1_0"],
        [b"0x1"],
        [b"1 0"],
        [b"1\x0b"],
        [b"1\n"],
        [b"\xc2\xb2"],
        [b"%d" % (MAX_CONTENT_LENGTH + 1)],
        [b"0" * 20],
    ],
)
def test_content_length_refused(values: list[bytes]) -> None:
    """Everything that some parser somewhere reads as a number, but not all of them do."""
    with pytest.raises(WireError) as caught:
        content_length(values, Failure.BAD_FRAMING)
    assert caught.value.failure is Failure.BAD_FRAMING


@pytest.mark.parametrize(
    ("values", "minor", "expected"),
    [
        ([], 1, False),
        ([], 0, False),
        ([b" Chunked "], 1, True),
        ([b"chunked"], 0, Failure.BAD_FRAMING),
        ([b"chunked\t"], 1, Failure.BAD_FRAMING),
        ([b",chunked"], 1, Failure.BAD_FRAMING),
        ([b"chunked", b"chunked"], 1, Failure.BAD_FRAMING),
        ([b"chunked, gzip"], 1, Failure.BAD_FRAMING),
        ([b"gzip;q=1"], 1, Failure.BAD_FRAMING),
        ([b"gzip, chunked"], 1, Failure.UNKNOWN_CODING),
        ([b"gzip", b"chunked"], 1, Failure.UNKNOWN_CODING),
        ([b"identity"], 1, Failure.UNKNOWN_CODING),
    ],
)
def test_transfer_encoding(values: list[bytes], minor: int, expected: bool | Failure) -> None:
    """Exactly one chunked in HTTP/1.1; an unknown coding is told apart from nonsense."""
    if isinstance(expected, bool):
        assert is_chunked(values, minor, Failure.BAD_FRAMING, Failure.UNKNOWN_CODING) is expected
        return
    with pytest.raises(WireError) as caught:
        is_chunked(values, minor, Failure.BAD_FRAMING, Failure.UNKNOWN_CODING)
    assert caught.value.failure is expected


@pytest.mark.parametrize(
    ("method", "status", "field", "expected"),
    [
        (b"GET", 200, b"Content-Length: 1\r\n", True),
        (b"GET", 200, b"Content-Length: 0\r\n", False),
        (b"GET", 200, b"Transfer-Encoding: chunked\r\n", True),
        (b"GET", 200, b"", True),
        (b"HEAD", 200, b"Content-Length: 1\r\n", False),
        (b"HEAD", 200, b"", False),
        (b"GET", 204, b"", False),
        (b"GET", 304, b"Content-Length: 1\r\n", False),
        (b"GET", 100, b"", False),
        (b"POST", 500, b"", True),
    ],
)
def test_has_body(method: bytes, status: int, field: bytes, expected: bool) -> None:
    """HEAD, 1xx, 204 and 304 never have a body; without framing it lasts until the connection closes."""
    head = check_response_head(b"HTTP/1.1 %d X\r\n%b\r\n" % (status, field), HeadLimits())
    assert has_body(method, head) is expected
