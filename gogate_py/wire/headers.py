"""Field lines of a head: their grammar, the names gogate treats specially, and lookups over them.

Facts (RFC 9110 section 5, RFC 9112 section 5):

- A field name is a token, compared without case. ``bytes.lower()`` folds ASCII only, which is exactly what is wanted;
  text is never folded, because other alphabets fold into ASCII (a Kelvin sign becomes "k").
- There is no blank between name and colon, no line folding, and a line ends in CRLF: a bare CR or LF is refused.
- Optional white space (OWS) around a value is SP and HTAB and not part of it. Nothing else is trimmed: other languages'
  ideas of white space (VT, FF, NEL, NBSP) are how two parsers come to disagree.
- The order of fields with one name matters, the order of different names does not; both are kept.

Shared by requests, responses and trailers. Knows nothing of framing, limits in bytes or what is answered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from gogate_py.errors import Failure, WireError
from gogate_py.wire.possessive import STAR

# SECURITY.md T4: 256 is longer than any name in use; CVE-2021-40346 was an overflow of a name's length.
MAX_NAME: Final = 256

TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
VALUE: Final = rb"[\t -~\x80-\xff]"

_delay: Final = re.compile(rb"[0-9]{1,9}").fullmatch
is_token: Final = re.compile(TOKEN + rb"+").fullmatch
# All field lines of a section with the empty line that ends it. Possessive: a bad line fails at once, never by
# backtracking through the good ones.
_section_is_clean: Final = re.compile(rb"(?:%b{1,%d}+:%b*+\r\n)%b\r\n" % (TOKEN, MAX_NAME, VALUE, STAR)).fullmatch
# Only run over a section that was found clean, where the first colon of a line ends the name.
_split_lines: Final = re.compile(rb"([^:\r\n]+):([^\r\n]*)\r\n").findall

_CLEAN_NAME: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"
_dashed: Final = re.compile(rb"[^a-z0-9]")

# Meant for this connection only (RFC 9110 section 7.6.1), with what Go and nginx remove besides. Trailer goes with the
# trailers, which are dropped; TE with them.
HOP_BY_HOP: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
# Set by gogate itself on the way to a backend, besides everything that starts with FORWARDED_PREFIX.
FORWARDING: Final = frozenset((b"forwarded", b"x-real-ip"))
FORWARDED_PREFIX: Final = b"x-forwarded-"
REQUEST_ID: Final = b"x-request-id"
# Asks this gateway what it did with the request; it is not for backends.
TRACE_ASKED: Final = b"x-gogate-trace"
# Fields a head check takes out of the list because they decide something: they are written anew, in canonical form.
REQUEST_SPECIAL: Final = HOP_BY_HOP | {b"host", b"content-length", b"expect", REQUEST_ID, TRACE_ASKED}
RESPONSE_SPECIAL: Final = HOP_BY_HOP | {b"content-length", REQUEST_ID}
# Never passed on as trailers, whatever the configuration says: they frame, route, authenticate or say who asks (T3).
NOT_TRAILERS: Final = (
    REQUEST_SPECIAL
    | FORWARDING
    | {b"authorization", b"cookie", b"set-cookie", b"proxy-authorization", b"content-type", b"content-encoding"}
    | {b"content-range", b"cache-control", b"location", b"range", b"www-authenticate"}
)
# A Connection field that names one of these would let a client strip what a backend relies on (SECURITY.md T6). The
# other names that such a nomination must not touch are never in the list it is applied to (Host, framing, forwarding).
NOT_NOMINABLE: Final = frozenset((b"authorization", b"cookie"))


def split_fields(section: bytes, failure: Failure) -> list[tuple[bytes, bytes]]:
    """Split a field section, ended by its empty line, into (name, raw value with its OWS) in order.

    Raises WireError(failure) when any line breaks the grammar above.
    """
    if _section_is_clean(section) is None:
        raise WireError(failure, "a field line is malformed")
    lines: list[tuple[bytes, bytes]] = _split_lines(section)
    return lines


def is_clean_name(name: bytes) -> bool:
    """Whether the name consists of letters, digits and hyphens only (T5: what every backend reads the same way)."""
    return not name.translate(None, _CLEAN_NAME)


def is_forwarding_name(lower: bytes) -> bool:
    """Whether this lower-case name tells a backend where a request came from: X-Forwarded-*, X-Real-IP, Forwarded."""
    return lower.startswith(FORWARDED_PREFIX) or lower in FORWARDING


def is_alias(lower: bytes) -> bool:
    """Whether a CGI-like backend would read this lower-case name as a field that gogate sets or decides by.

    ``X_Forwarded_For`` and ``X.Forwarded.For`` become HTTP_X_FORWARDED_FOR like the real one (T5). Some servers map
    every character that is not a letter or digit, so all of them count here, not only ``_`` and ``.``.
    """
    as_read = dashed(lower)
    return as_read in REQUEST_SPECIAL or is_forwarding_name(as_read)


def dashed(lower: bytes) -> bytes:
    """A lower-case name as a CGI-like backend may read it: whatever is not a letter or digit is one and the same."""
    return _dashed.sub(b"-", lower)


def list_elements(values: list[bytes]) -> list[bytes]:
    """Elements of a comma-separated list over all its lines, lower-case, without OWS and without empty ones."""
    elements = (element.strip(b" \t") for value in values for element in value.split(b","))
    return [element.lower() for element in elements if element]


def without(fields: list[tuple[bytes, bytes]], names: set[bytes]) -> list[tuple[bytes, bytes]]:
    """The fields whose name is not among the lower-case ``names``."""
    return [field for field in fields if field[0].lower() not in names]


def retry_after_seconds(fields: Iterable[tuple[bytes, bytes]]) -> float | None:
    """The delay that Retry-After asks for, in seconds; None without one, or for a date (which depends on two clocks
    agreeing; RFC 9110 section 10.2.3)."""
    for name, value in fields:
        if len(name) == 11 and name.lower() == b"retry-after":
            return float(value) if _delay(value) else None
    return None
