"""The proof that a head is clean, for the hot path: the same verdicts as head_check, or "don't know".

A head that these expressions match may be forwarded as a slice, because nothing in it would have been changed: a
method that is normally without a body, a canonical origin-form target, exactly one valid Host, clean names, and none of
the fields that need work (framing, hop-by-hop, forwarding, expectations). Everything else, valid or not, takes
head_check and forwarding. The two roads are held together by property tests: what is accepted here is accepted there
and means the same.

How it is done:

- One anchored expression with possessive repeats over the whole head. It cannot backtrack, so its time is linear.
- Names that need work are excluded by their first letter, with a look ahead for those that share it: no lower-cased
  copy of the head and no second pass.
- A ``Connection: keep-alive`` line says nothing in HTTP/1.1 but is very common: it may be there once, and is cut.

Measured (CPython 3.11.7, one shared core): a request of 56 / 288 / 510 bytes 0.8 / 1.6 / 2.2 µs (head_check with
forwarding: 5 / 11 / 16), an answer of 126 / 238 bytes 1.4 / 1.8 µs (head_check: 4 / 7).

Limits are part of the proof, so the functions are made per set of limits; fast_request and fast_response have the
defaults.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from gogate_py.wire.head_check import HeadLimits
from gogate_py.wire.headers import MAX_NAME, VALUE
from gogate_py.wire.target import MAX_HOST, NAME, PATH_CHARACTERS, PORT, QUERY_CHARACTERS

# Groups: 1 method, 2 path, 3 query with its "?" or None, 4 Host, 5 the line to cut or None.
FastRequest = re.Match[bytes]
# Status, Content-Length, and the region to cut: start and end, equal when nothing is to be cut.
FastResponse = tuple[int, int, int, int]

# The others could come without a body, too, but then their framing deserves a look.
FAST_METHODS: Final = (b"GET", b"HEAD", b"DELETE", b"OPTIONS")


# What a clean name may begin with, in lower case.
_FIRSTS: Final = b"abcdefghijklmnopqrstuvwxyz0123456789-"


def _fields_except(names: tuple[bytes, ...]) -> bytes:
    """An expression for any number of clean field lines whose name is none of these (lower case).

    An entry ends in ":" when it is a whole name, otherwise it excludes every name that starts with it.
    """
    by_letter: dict[bytes, list[bytes]] = {}
    for name in names:
        by_letter.setdefault(name[:1], []).append(name[1:])
    free = b"".join(first for first in map(_octet, _FIRSTS) if first not in by_letter)
    firsts = [b"[%b%b]" % (re.escape(free), re.escape(free.upper()))] if free else []
    for letter, rests in by_letter.items():
        either = re.escape(letter.upper()) + re.escape(letter)
        firsts.append(b"[%b](?!(?i:%b))" % (either, b"|".join(map(re.escape, rests))))
    return b"(?:(?:%b)[A-Za-z0-9\\-]{0,%d}+:%b*+\r\n)*+" % (b"|".join(firsts), MAX_NAME - 1, VALUE)


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
    )
)

# Segments that begin with neither "/" nor "." and a path without "%" and ";" need no normalising.
_SEGMENT_START: Final = PATH_CHARACTERS.replace(b"$-;", rb"$&-\-0-:")
_SEGMENT: Final = _SEGMENT_START + b"."
_PATH: Final = b"/(?:[%b][%b]*+/?+)*+" % (_SEGMENT_START, _SEGMENT)

# Says nothing in HTTP/1.1, and llhttp agrees.
_KEEP_ALIVE: Final = rb"[Cc]onnection:[ \t]*+[Kk]eep-[Aa]live[ \t]*+\r\n"
# What may be cut from a response, as long as it is in one place: Node, for one, sends both of the first two in a row.
_RESPONSE_CUT: Final = rb"(?:%b|[Kk]eep-[Aa]live:%b*+\r\n|(?i:x-request-id):%b*+\r\n)++" % (_KEEP_ALIVE, VALUE, VALUE)


def make_fast_request(limits: HeadLimits) -> Callable[[bytes], FastRequest | None]:
    """Make fast_request for these limits. Costs milliseconds (a compilation): once per snapshot, not per connection."""
    methods = [method for method in FAST_METHODS if method in limits.methods]
    fields = _fields_except((*_NOT_CLEAN, *(name + b":" for name in sorted(limits.identity))))
    match = re.compile(
        rb"(%b) (%b)(\?[%b]*+)? HTTP/1\.1\r\n%b[Hh][Oo][Ss][Tt]:[ \t]*+(%b(?:%b)?+)[ \t]*+\r\n%b(?:(%b)%b)?+\r\n"
        % (
            # (?!) never matches: no method of ours is allowed
            b"|".join(methods) or b"(?!)",
            _PATH,
            QUERY_CHARACTERS,
            fields,
            NAME,
            PORT,
            fields,
            _KEEP_ALIVE,
            fields,
        )
    ).fullmatch
    # Within the limit of a line the head cannot be over the one of the line; longer heads take the slow path.
    largest = min(limits.request_line, limits.request_head)
    most_lines = limits.request_fields + 2

    def fast_request(data: bytes) -> FastRequest | None:
        """The match of one complete clean head with nothing behind it, or None when head_check has to decide."""
        if len(data) > largest or data.count(b"\n") > most_lines:
            return None
        found = match(data)
        if found is None or found.end(4) - found.start(4) > MAX_HOST:
            return None
        return found

    return fast_request


def make_fast_response(limits: HeadLimits) -> Callable[[bytes], FastResponse | None]:
    """Make fast_response for these limits; see make_fast_request."""
    match = re.compile(
        rb"HTTP/1\.1 (?!204|304)([2-5][0-9][0-9])(?: %b*+)?+\r\n%b(%b)?+%b"
        rb"[Cc]ontent-[Ll]ength:[ \t]*+([0-9]{1,18})[ \t]*+\r\n%b(%b)?+%b\r\n"
        % (VALUE, _RESPONSE_FIELDS, _RESPONSE_CUT, _RESPONSE_FIELDS, _RESPONSE_FIELDS, _RESPONSE_CUT, _RESPONSE_FIELDS)
    ).fullmatch
    largest = limits.response_head
    most_lines = limits.response_fields + 2

    def fast_response(head: bytes) -> FastResponse | None:
        """(status, Content-Length, cut start, cut end) of a clean final head, or None when head_check has to decide.

        The head is everything up to and including its empty line. The region to cut is empty (0, 0) or whole lines.
        """
        if len(head) > largest or head.count(b"\n") > most_lines:
            return None
        found = match(head)
        if found is None:
            return None
        status, before, length, after = found.groups()
        if before is None:
            start, end = (0, 0) if after is None else found.span(4)
        elif after is None:
            start, end = found.span(2)
        else:
            return None
        return int(status), int(length), start, end

    return fast_response


fast_request: Final = make_fast_request(HeadLimits())
fast_response: Final = make_fast_response(HeadLimits())
