"""Answers that gogate makes itself, as bytes: status lines once and for all, then one head with its body.

Knows statuses, not their reasons (errors.Failure) nor what the body says (the data plane). No Date: a gateway with no
clock of its own (this package has none) leaves it out, and the caller may put it into ``extra``.
"""

from __future__ import annotations

from typing import Final

# RFC 9110 section 15, RFC 6585 (428, 429, 431, 511), RFC 8297 (103), RFC 2518 (102, 207), RFC 5842 (208), RFC 7725.
# http.HTTPStatus is not used: its phrases for 413, 414, 416 and 422 are those of older RFCs in Python 3.11.
PHRASES: Final[dict[int, bytes]] = {
    100: b"Continue",
    101: b"Switching Protocols",
    102: b"Processing",
    103: b"Early Hints",
    200: b"OK",
    201: b"Created",
    202: b"Accepted",
    203: b"Non-Authoritative Information",
    204: b"No Content",
    205: b"Reset Content",
    206: b"Partial Content",
    207: b"Multi-Status",
    208: b"Already Reported",
    300: b"Multiple Choices",
    301: b"Moved Permanently",
    302: b"Found",
    303: b"See Other",
    304: b"Not Modified",
    305: b"Use Proxy",
    307: b"Temporary Redirect",
    308: b"Permanent Redirect",
    400: b"Bad Request",
    401: b"Unauthorized",
    402: b"Payment Required",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    406: b"Not Acceptable",
    407: b"Proxy Authentication Required",
    408: b"Request Timeout",
    409: b"Conflict",
    410: b"Gone",
    411: b"Length Required",
    412: b"Precondition Failed",
    413: b"Content Too Large",
    414: b"URI Too Long",
    415: b"Unsupported Media Type",
    416: b"Range Not Satisfiable",
    417: b"Expectation Failed",
    421: b"Misdirected Request",
    422: b"Unprocessable Content",
    423: b"Locked",
    424: b"Failed Dependency",
    425: b"Too Early",
    426: b"Upgrade Required",
    428: b"Precondition Required",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    451: b"Unavailable For Legal Reasons",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
    506: b"Variant Also Negotiates",
    507: b"Insufficient Storage",
    508: b"Loop Detected",
    511: b"Network Authentication Required",
}

STATUS_LINES: Final[dict[int, bytes]] = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, phrase) for status, phrase in PHRASES.items()
}


def status_line(status: int) -> bytes:
    """The status line with its CRLF; a status without a registered phrase gets an empty one."""
    return STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def local_response(
    failure_status: int,
    body: bytes,
    content_type: bytes,
    *,
    close: bool,
    extra: bytes = b"",
    head_only: bool = False,
) -> bytes:
    """A whole answer: status line, Content-Type and -Length, ``extra`` (finished lines, each ending in CRLF), body.

    ``head_only`` leaves the body out but not its length, for an answer to HEAD; 204 and 304 never have either.
    """
    no_body = failure_status in (204, 304)
    return b"".join(
        (
            status_line(failure_status),
            b"" if no_body else b"Content-Type: %b\r\nContent-Length: %d\r\n" % (content_type, len(body)),
            extra,
            b"Connection: close\r\n" if close else b"",
            b"\r\n",
            b"" if no_body or head_only else body,
        )
    )


def local_answer(status: int, body: bytes, *, close: bool, extra: bytes, head_only: bool = False) -> bytes:
    """A whole answer whose other fields are all in ``extra`` (finished lines); Content-Length is added where there may
    be one."""
    no_body = status in (204, 304)
    return b"".join(
        (
            status_line(status),
            b"" if no_body else b"Content-Length: %d\r\n" % len(body),
            extra,
            b"Connection: close\r\n" if close else b"",
            b"\r\n",
            b"" if no_body or head_only else body,
        )
    )


def parse_lines(lines: bytes) -> list[tuple[bytes, bytes]]:
    """Finished header lines of our own making as (name, value)."""
    fields = []
    for line in lines.split(b"\r\n"):
        if line:
            name, _, value = line.partition(b":")
            fields.append((name, value.strip(b" ")))
    return fields


def field_lines(fields: list[tuple[bytes, bytes]]) -> bytes:
    """(name, value) as finished header lines."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])
