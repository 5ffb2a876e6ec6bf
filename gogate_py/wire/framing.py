"""Where a message's body ends, and the refusal of every message in which that is not certain (SECURITY.md T1).

Numbered as RFC 9112 section 6.3 has it, but stricter: where the RFC lets a recipient choose an interpretation, there is
none. An ambiguous message is the raw material of request smuggling, because the next hop may choose the other one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gogate_py.errors import Failure, WireError
from gogate_py.wire.headers import is_token

if TYPE_CHECKING:
    from gogate_py.wire.head_check import ResponseHead

# 2^63-1 has 19 digits. Leading zeros are digits too: a number with more than 19 of them is refused, not shortened.
MAX_CONTENT_LENGTH: Final = 2**63 - 1
_length: Final = re.compile(rb"[0-9]{1,19}").fullmatch


def content_length(values: list[bytes], failure: Failure) -> int:
    """The length announced by the Content-Length lines (raw values), or -1 without one.

    Raises WireError(failure) for more than one line, also equal ones, and for anything but 1 to 19 digits up to 2^63-1:
    no sign, no list, no blank inside, no other base.
    """
    if not values:
        return -1
    if len(values) > 1:
        raise WireError(failure, "there is more than one Content-Length")
    digits = values[0].strip(b" \t")
    if _length(digits) is None:
        raise WireError(failure, "Content-Length is not a decimal number of at most 19 digits")
    length = int(digits)
    if length > MAX_CONTENT_LENGTH:
        raise WireError(failure, "Content-Length is too large")
    return length


def is_chunked(values: list[bytes], minor: int, failure: Failure, unknown: Failure) -> bool:
    """Whether the Transfer-Encoding lines (raw values) say ``chunked``; False without one.

    Raises WireError(unknown) for another coding, and WireError(failure) for everything else that is not exactly one
    ``chunked``: a list, a TAB around it (H14: llhttp keeps it, others trim it), parameters, HTTP/1.0 (H5).
    """
    if not values:
        return False
    if minor == 0:
        raise WireError(failure, "HTTP/1.0 has no Transfer-Encoding")
    codings = [coding.strip(b" ").lower() for coding in b",".join(values).split(b",")]
    if codings == [b"chunked"]:
        return True
    # An empty element, a quoted string or a parameter is nonsense here; chunked anywhere but at the end, or twice,
    # leaves the end of the body undefined (RFC 9112 section 6.1).
    if not all(is_token(coding) for coding in codings) or b"chunked" in codings[:-1]:
        raise WireError(failure, "Transfer-Encoding is not exactly one chunked")
    raise WireError(unknown, "the only transfer coding understood is chunked")


def has_body(method: bytes, head: ResponseHead) -> bool:
    """Whether bytes of a body follow this response head, given the method it answers (RFC 9112 section 6.3).

    True with neither Content-Length nor chunked: the body then ends where the backend closes, and the connection with
    it, whatever ``keep_alive`` says.
    """
    status = head.status
    if status < 200 or status == 204 or status == 304 or method == b"HEAD":
        return False
    return head.chunked or head.content_length != 0
