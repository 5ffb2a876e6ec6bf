"""The proof that a head is clean, for the hot path: the same verdicts as head_check, or "don't know".

A head that these expressions match may be forwarded as a slice, because nothing in it would have been changed: a
canonical origin-form target, exactly one valid Host, clean names, and none of the fields that need work (hop-by-hop,
forwarding, expectations). A method that is normally without a body comes without framing fields; POST, PUT and PATCH
come with exactly one Content-Length in its canonical form; an answer comes with that or with exactly one
Transfer-Encoding, which is chunked, and with none of them if it is a 204 or 304. Everything else, valid or not, takes
head_check and forwarding. The two roads are held together by property tests: what is accepted here is accepted there
and means the same.

How it is done:

- One anchored expression with possessive repeats over the whole head. It cannot backtrack, so its time is linear
  (possessive.py has the exception).
- Names that need work are excluded by their first letter, with a look ahead for those that share it: no lower-cased
  copy of the head and no second pass.
- Lines of a proxy in front (X-Forwarded-For and the like, X-Request-ID) are taken out first, and what is left is
  proved: gogate decides about them, and they come in any order (set_apart, 1.5 µs).
- A ``Connection`` line that says only keep-alive (nothing new in HTTP/1.1) or only close is very common: it may be
  there once, and is cut.

Measured (CPython 3.11.7, one shared core): a request of 56 / 288 / 510 bytes 0.8 / 1.6 / 2.2 µs (head_check with
forwarding: 5 / 11 / 16), an answer of 126 / 238 bytes 1.4 / 1.8 µs (head_check: 4 / 7).

Limits are part of the proof, so the functions are made per set of limits; fast_request and fast_response have the
defaults.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from gogate_py.wire.head_check import HeadLimits, request_id_of
from gogate_py.wire.headers import FORWARDED_PREFIX, FORWARDING, MAX_NAME, REQUEST_ID, VALUE
from gogate_py.wire.possessive import MAYBE, PLUS, STAR
from gogate_py.wire.target import MAX_HOST, NAME, PATH_CHARACTERS, PORT, QUERY_CHARACTERS
from gogate_py.wire.trace_context import TRACEPARENT, TRACESTATE, UNSAMPLED_LINE

# Groups: 1 method, 2 path, 3 query with its "?" or None, 4 Host, 5 the line to cut or None, 6 close or None.
FastRequest = re.Match[bytes]


class FastBodyRequest(NamedTuple):
    """What a clean head says of a request with a body; the region to cut is empty (0, 0) or a whole line."""

    method: bytes
    path: bytes
    query: bytes
    host: bytes
    length: int
    keep_alive: bool
    cut_start: int
    cut_end: int


# Status, Content-Length (0 for 204 and 304) or -1 for chunked, and the region to cut: start and end, equal when nothing
# is to be cut.
FastResponse = tuple[int, int, int, int]

# The others could come without a body, too, but then their framing deserves a look.
FAST_METHODS: Final = (b"GET", b"HEAD", b"DELETE", b"OPTIONS")
FAST_BODY_METHODS: Final = (b"POST", b"PUT", b"PATCH")


# What a clean name may begin with, in lower case.
_FIRSTS: Final = b"abcdefghijklmnopqrstuvwxyz0123456789-"


def _fields_except(
    names: tuple[bytes, ...], colon: bytes = b":", only: Mapping[bytes, bytes] | None = None
) -> bytes:
    """An expression for any number of clean field lines whose name is none of these (lower case), and ends in
    ``colon``.

    An entry ends in ":" when it is a whole name, otherwise it excludes every name that starts with it. ``only``: first
    letter → what must follow it besides.
    """
    by_letter: dict[bytes, list[bytes]] = {}
    for name in names:
        by_letter.setdefault(name[:1], []).append(name[1:])
    free = b"".join(first for first in map(_octet, _FIRSTS) if first not in by_letter)
    firsts = [b"[%b%b]" % (re.escape(free), re.escape(free.upper()))] if free else []
    for letter, rests in by_letter.items():
        either = re.escape(letter.upper()) + re.escape(letter)
        more = only.get(letter, b"") if only is not None else b""
        firsts.append(b"[%b](?!(?i:%b))%b" % (either, b"|".join(map(re.escape, rests)), more))
    return b"(?:(?:%b)[A-Za-z0-9\\-]{0,%d}+%b%b*+\r\n)%b" % (b"|".join(firsts), MAX_NAME - 1, colon, VALUE, STAR)


def _octet(octet: int) -> bytes:
    return bytes((octet,))


_NOT_CLEAN: Final = (
    b"connection:",
    b"content-length:",
    b"expect:",
    b"forwarded:",
    b"host:",
    b"keep-alive:",
    b"proxy-connection:",
    b"te:",
    b"trailer:",
    b"transfer-encoding:",
    b"upgrade:",
    b"x-forwarded-",
    b"x-gogate-trace:",
    b"x-real-ip:",
    b"x-request-id:",
)
_RESPONSE_FIELDS: Final = _fields_except(
    (
        b"connection:",
        b"content-length:",
        b"keep-alive:",
        b"proxy-connection:",
        b"te:",
        b"trailer:",
        b"transfer-encoding:",
        b"upgrade:",
        b"x-request-id:",
    ),
    # As forwarding writes it: what backends say must be plain to every client.
    b": ",
)

# Segments that begin with neither "/" nor "." and a path without ";" need no normalising, and of escapes the blank and
# what is not ASCII, in upper case.
_SEGMENT_START: Final = PATH_CHARACTERS.replace(b"$-;", rb"$&-\-0-:")
_SEGMENT: Final = _SEGMENT_START + b"."
_ESCAPE: Final = b"%(?:20|[89A-F][0-9A-F])"
_PATH: Final = b"/(?:(?:[%b]|%b)[%b]*+/?+)%b" % (_SEGMENT_START, _ESCAPE, _SEGMENT, STAR)

# What a proxy in front adds, each from the LF of the line before to its own CR.
_CLAIMS: Final = b"%b[a-z0-9\\-]{1,%d}+|%b" % (
    FORWARDED_PREFIX, MAX_NAME - len(FORWARDED_PREFIX), b"|".join((*sorted(FORWARDING), REQUEST_ID)))  # fmt: skip
_split_at_claims: Final = re.compile(rb"\n((?i:%b)):(%b*+)\r(?=\n)" % (_CLAIMS, VALUE)).split

# Says nothing in HTTP/1.1, and llhttp agrees.
_KEEP_ALIVE: Final = rb"[Cc]onnection:[ \t]*+[Kk]eep-[Aa]live[ \t]*+\r\n"
# Either of the two, in a group; close in another one.
_CONNECTION: Final = rb"([Cc]onnection:[ \t]*+(?:[Kk]eep-[Aa]live|([Cc]lose))[ \t]*+\r\n)"
_REQUEST_LINE: Final = rb"(%b) (%b)(\?[%b]*+)? HTTP/1\.1\r\n"
_HOST: Final = rb"[Hh][Oo][Ss][Tt]:[ \t]*+(%b(?:%b)%b)[ \t]*+\r\n" % (NAME, PORT, MAYBE)
# As forwarding would write it, but for its letters: no zero in front, no second blank.
_LENGTH: Final = rb"[Cc]ontent-[Ll]ength: ([1-9][0-9]{0,17}+)\r\n"
_RESPONSE_FRAMING: Final = (
    rb"(?:[Cc]ontent-[Ll]ength: ([0-9]{1,18})|[Tt]ransfer-[Ee]ncoding: chunked)"
)  # fmt: skip
_event_stream: Final = re.compile(rb"(?i:\ncontent-type:[ \t]*+text/event-stream)").search
# What may be cut from a response, as long as it is in one place: Node, for one, sends both of the first two in a row.
_RESPONSE_CUT: Final = rb"(?:%b|[Kk]eep-[Aa]live:%b*+\r\n|(?i:x-request-id):%b*+\r\n)%b" % (
    _KEEP_ALIVE, VALUE, VALUE, PLUS)  # fmt: skip


class Apart:
    """A request head, ``whole``, and what it is without the lines that a proxy in front has added, ``clean``."""

    __slots__ = ("_parts", "clean", "whole")

    def __init__(self, whole: bytes, parts: list[bytes]) -> None:
        """``parts``: what is between the lines, and name and raw value of each line, in turns."""
        self.whole = whole
        self.clean = b"".join(parts[::3])
        self._parts = parts

    def forwarded(self) -> list[tuple[bytes, bytes]]:
        """X-Forwarded-*, X-Real-IP, Forwarded: lower-case names and values, in order."""
        return [(name, value) for name, value in self._lines() if name != REQUEST_ID]

    def request_id(self) -> bytes:
        """X-Request-ID where it may be passed on, else b""."""
        return request_id_of([value for name, value in self._lines() if name == REQUEST_ID])

    def _lines(self) -> list[tuple[bytes, bytes]]:
        parts = self._parts
        return [(name.lower(), raw.strip(b" \t")) for name, raw in zip(parts[1::3], parts[2::3], strict=True)]


def make_set_apart(limits: HeadLimits) -> Callable[[bytes], Apart | None]:
    """Make set_apart for these limits; see make_fast_request."""
    largest, most_lines = _sizes(limits)

    def set_apart(head: bytes) -> Apart | None:
        """Take those lines out of a head, or None when it has none. The head is everything up to and including its
        empty line; what is left of it is to be proved clean like any other."""
        if len(head) > largest or head.count(b"\n") > most_lines:
            return None
        parts = _split_at_claims(head)
        return Apart(head, parts) if len(parts) > 1 else None

    return set_apart


def make_fast_request(limits: HeadLimits) -> Callable[[bytes], FastRequest | None]:
    """Make fast_request for these limits. Costs milliseconds (a compilation): once per snapshot, not per connection."""
    line, fields = _request_line(FAST_METHODS, limits), _request_fields(limits)
    match = re.compile(
        rb"%b%b%b%b(?:%b%b)%b\r\n" % (line, fields, _HOST, fields, _CONNECTION, fields, MAYBE)
    ).fullmatch
    largest, most_lines = _sizes(limits)

    def fast_request(data: bytes) -> FastRequest | None:
        """The match of one complete clean head with nothing behind it, or None when head_check has to decide."""
        if len(data) > largest or data.count(b"\n") > most_lines:
            return None
        found = match(data)
        if found is None or found.end(4) - found.start(4) > MAX_HOST:
            return None
        return found

    return fast_request


def make_fast_body_request(limits: HeadLimits) -> Callable[[bytes], FastBodyRequest | None]:
    """Make fast_body_request for these limits; see make_fast_request."""
    line, fields = _request_line(FAST_BODY_METHODS, limits), _request_fields(limits)
    connection = rb"(?:%b%b)%b" % (_CONNECTION, fields, MAYBE)
    # Host and Content-Length in either order, with a Connection line in any of three places: which of the groups found
    # something says whether each was there once.
    either = rb"(?:%b|%b)%b" % (_HOST, _LENGTH, fields)
    match = re.compile(
        rb"%b%b%b%b%b%b%b\r\n" % (line, fields, connection, either, connection, either, connection)
    ).fullmatch
    largest, most_lines = _sizes(limits)

    def fast_body_request(head: bytes) -> FastBodyRequest | None:
        """A clean head that announces a body by Content-Length, or None when head_check has to decide. The head is
        everything up to and including its empty line."""
        if len(head) > largest or head.count(b"\n") > most_lines:
            return None
        found = match(head)
        if found is None:
            return None
        method, path, query, cut1, close1, host1, length1, cut2, close2, host2, length2, cut3, close3 = found.groups()
        host, length = (host1, length2) if length1 is None else (host2, length1)
        if host is None or length is None or len(host) > MAX_HOST:
            return None
        cuts = [group for group, cut in ((4, cut1), (8, cut2), (12, cut3)) if cut is not None]
        if len(cuts) > 1:
            return None
        start, end = found.span(cuts[0]) if cuts else (0, 0)
        keep_alive = close1 is None and close2 is None and close3 is None
        return FastBodyRequest(method, path, query or b"", host, int(length), keep_alive, start, end)

    return fast_body_request


def _request_line(methods: tuple[bytes, ...], limits: HeadLimits) -> bytes:
    # (?!) never matches: no method of ours is allowed
    allowed = b"|".join(method for method in methods if method in limits.methods) or b"(?!)"
    return _REQUEST_LINE % (allowed, _PATH, QUERY_CHARACTERS)


def _request_fields(limits: HeadLimits) -> bytes:
    not_clean = (*_NOT_CLEAN, *(name + b":" for name in sorted(limits.identity)))
    if not limits.trace_context:
        return _fields_except(not_clean)
    # A traceparent that may be passed on as it is; any other one, and what goes with it, is head_check's.
    only = b"(?:(?=%b)|(?!(?i:%b:)))" % (UNSAMPLED_LINE, TRACEPARENT[1:])
    return _fields_except((*not_clean, TRACESTATE + b":"), only={TRACESTATE[:1]: only})


def _sizes(limits: HeadLimits) -> tuple[int, int]:
    """The most octets and lines of a head. Within the limit of a line the head cannot be over the one of the line;
    longer heads take the slow path."""
    return min(limits.request_line, limits.request_head), limits.request_fields + 2


def make_fast_response(limits: HeadLimits) -> Callable[[bytes], FastResponse | None]:
    """Make fast_response for these limits; see make_fast_request."""
    cut = rb"(%b)%b%b" % (_RESPONSE_CUT, MAYBE, _RESPONSE_FIELDS)
    match = re.compile(
        rb"HTTP/1\.1 (?!204|304)([2-5][0-9][0-9]) %b*+\r\n%b%b%b\r\n%b%b\r\n"
        % (VALUE, _RESPONSE_FIELDS, cut, _RESPONSE_FRAMING, _RESPONSE_FIELDS, cut)
    ).fullmatch
    match_bodiless = re.compile(
        rb"HTTP/1\.1 (204|304) %b*+\r\n%b%b\r\n" % (VALUE, _RESPONSE_FIELDS, cut)
    ).fullmatch
    largest = limits.response_head
    most_lines = limits.response_fields + 2

    def fast_response(head: bytes) -> FastResponse | None:
        """(status, Content-Length or -1, cut start, cut end) of a clean final head, or None when head_check has to
        decide.

        The head is everything up to and including its empty line. The region to cut is empty (0, 0) or whole lines.
        """
        if len(head) > largest or head.count(b"\n") > most_lines:
            return None
        found = match(head)
        if found is None:
            found = match_bodiless(head)
            if found is None:
                return None
            start, end = found.span(2)
            return int(found[1]), 0, max(0, start), max(0, end)
        status, before, length, after = found.groups()
        if length is None and _event_stream(head):  # its silence means nothing: deadlines are others
            return None
        if before is None:
            start, end = (0, 0) if after is None else found.span(4)
        elif after is None:
            start, end = found.span(2)
        else:
            return None
        return int(status), -1 if length is None else int(length), start, end

    return fast_response


set_apart: Final = make_set_apart(HeadLimits())
fast_request: Final = make_fast_request(HeadLimits())
fast_body_request: Final = make_fast_body_request(HeadLimits())
fast_response: Final = make_fast_response(HeadLimits())
