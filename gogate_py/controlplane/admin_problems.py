"""Answers of the admin API: JSON, and problems of one shape (RFC 9457), also for what never became a request.

A problem has type, title, status, detail and instance (the path asked for), and ``field`` where one field of a body is
at fault. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from http import HTTPStatus
from typing import Any, Final

import msgspec
from starlette.responses import Response

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"

#: Characters of a path that are repeated in an answer or a log line.
MAX_SHOWN: Final = 200

_encode: Final = msgspec.json.Encoder().encode


class ApiError(Exception):
    """A request that cannot be done; raised by endpoints, answered as a problem."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        field: str = "",
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """``more``: further members of the problem (RFC 9457 section 3.2)."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.field = field
        self.headers = dict(headers or {})
        self.more = dict(more or {})


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer with a JSON body."""
    return Response(_encode(value), status, dict(headers or {}), JSON)


def problem_body(
    status: int, detail: str, path: str, *, title: str = "", field: str = "", more: Mapping[str, Any] | None = None
) -> bytes:
    """The body of a problem."""
    members: dict[str, Any] = {
        "type": "about:blank",
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": path[:MAX_SHOWN],
    }
    if field:
        members["field"] = field
    return _encode({**(more or {}), **members})


def problem(
    status: int,
    detail: str,
    path: str,
    *,
    title: str = "",
    field: str = "",
    headers: Iterable[tuple[str, str]] = (),
    more: Mapping[str, Any] | None = None,
) -> Response:
    """A problem as an answer."""
    body = problem_body(status, detail, path, title=title, field=field, more=more)
    return Response(body, status, dict(headers), PROBLEM)


def raw_problem(status: int, detail: str) -> bytes:
    """A whole HTTP/1.1 answer for a request that never became one; the connection is closed behind it."""
    body = problem_body(status, detail, "")
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {PROBLEM}\r\n"
        f"content-length: {len(body)}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean …?`` when a known word is near, else nothing."""
    near = get_close_matches(word[:MAX_SHOWN], list(known), 1, 0.6)
    return f" Did you mean {near[0]}?" if near else ""
