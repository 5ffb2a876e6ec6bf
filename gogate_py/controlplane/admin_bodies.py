"""What requests to the admin API bring with them: bodies and values in them. What is wrong with one is an ApiError."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from starlette.requests import Request

from gogate_py.config.values import DAY, BadValue, Duration
from gogate_py.controlplane.admin_problems import ApiError

#: Largest body that is read (SECURITY.md T22).
MAX_BODY: Final = 1 << 20

_DEADLINE: Final = Duration(0, 7 * DAY)


async def read_object(request: Request, *, optional: bool = False) -> dict[str, Any]:
    """The request's body, which must be one JSON object of at most MAX_BODY bytes; ``optional``: no body is {}."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise ApiError(413, f"A body may have {MAX_BODY} bytes.")
    if not body:
        if optional:
            return {}
        raise ApiError(400, "A body is missing: a JSON object is expected.")
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:  # RecursionError: nested too deeply
        raise ApiError(400, f"The body is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise ApiError(400, "The body must be a JSON object.")
    return value


def drain_deadline(body: dict[str, Any], query: str | None) -> float | None:
    """How long what runs at a backend may go on, seconds, from a body or ``?deadline=``; None: as long as it takes."""
    given = body.get("deadline", query)
    if not body.keys() <= {"deadline"} or (query is not None and body) or isinstance(given, bool):
        raise ApiError(400, 'Expected {"deadline": "30s"}, or ?deadline=30s, or neither.', field="deadline")
    if given is None and not body:
        return None
    try:
        return _DEADLINE.parse(str(given), quoted=isinstance(given, str))
    except BadValue as error:
        raise ApiError(400, f"deadline: {error.message}", field="deadline") from None
