"""Local responses: the bytes gogate answers itself, read from the table in errors.py.

``application/problem+json`` (RFC 9457) by default; plain text for a client whose Accept names text/* and no JSON. Each
carries the request id, so that a user's screenshot leads to the log line.
"""

from __future__ import annotations

import re

import msgspec

from gogate_py.errors import Failure
from gogate_py.wire.serializer import PHRASES, local_response

_ACCEPT = re.compile(rb"\r\naccept:[ \t]*([^\r\n]*)", re.IGNORECASE)
_encode = msgspec.json.Encoder().encode


def wants_text(head: bytes) -> bool:
    """Whether the request prefers text: Accept names text/* and neither JSON nor anything at all."""
    found = _ACCEPT.search(head)
    if found is None:
        return False
    accept = found[1].lower()
    first = accept.partition(b",")[0]
    return b"json" not in accept and first.lstrip(b" \t").startswith(b"text/")


def failure_response(
    failure: Failure,
    detail: str,
    request_id: bytes,
    *,
    text: bool,
    close: bool,
    head_only: bool = False,
    retry_after: int = 0,
    extra: bytes = b"",
) -> bytes:
    """The whole answer for a failure; ``extra`` are finished header lines (Allow)."""
    status = failure.status
    rid = request_id.decode("latin-1")
    title = PHRASES.get(status, b"Error").decode()
    if text:
        body = f"{status} {title}\n{detail}\nrequest id: {rid}\n".encode()
        content_type = b"text/plain; charset=utf-8"
    else:
        body = _encode(
            {
                "type": "about:blank",
                "title": title,
                "status": status,
                "detail": detail,
                "reason": failure.reason,
                "request_id": rid,
            }
        )
        content_type = b"application/problem+json"
    if retry_after:
        extra += b"Retry-After: %d\r\n" % retry_after
    extra += b"X-Request-ID: " + request_id + b"\r\n"
    return local_response(status, body, content_type, close=close, extra=extra, head_only=head_only)
