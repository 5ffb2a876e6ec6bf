"""GET /requests and /requests/{id}: what was decided about single requests (dataplane/decisions keeps the records)."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gogate_py.controlplane.admin_problems import MAX_SHOWN, ApiError, json_answer
from gogate_py.controlplane.supervision import Records
from gogate_py.messages import RequestRecord

_STATUS: Final = re.compile(r"[1-5](?:[0-9]{2}|xx)").fullmatch
_LIMIT: Final = re.compile(r"[1-9][0-9]{0,3}").fullmatch


async def requests_answer(records: Records, request: Request) -> Response:
    """The newest recorded requests of all workers."""
    asked = request.query_params
    limit, status = asked.get("limit", "100"), asked.get("status")
    if not _LIMIT(limit):
        raise ApiError(400, "Expected a whole number from 1 to 9999.", field="limit")
    if status is not None and not _STATUS(status):
        raise ApiError(400, "Expected a status such as 503, or 5xx for all of them.", field="status")
    wanted = int(status.removesuffix("xx")) if status is not None else 0
    found = await records.requests(int(limit), asked.get("route", ""), wanted)
    return json_answer({"requests": found})


async def request_answer(records: Records, request: Request) -> Response:
    """One of them, with all that is known."""
    identity = request.path_params["id"]
    record = await records.request(identity)
    if record is None:
        raise ApiError(404, f"No record of a request {identity[:MAX_SHOWN]} is kept; GET /requests lists them.")
    return json_answer(request_object(record))


def request_object(record: RequestRecord) -> dict[str, Any]:
    """A record as it is shown: its summary first, timers by name."""
    return {
        **msgspec.to_builtins(record.summary),
        "watched": record.watched,
        "timers_ms": record.timers,
        "listener": record.listener,
        "scheme": record.scheme,
        "query": record.query,
        "fields": [{"name": name, "value": value} for name, value in record.fields],
        "user": record.user,
        "stages": record.stages,
        "arm": record.arm,
        "balancer": record.balancer,
        "tries": record.tries,
        "detail": record.detail,
        "bytes_sent": record.bytes_sent,
        "body_bytes": record.body_bytes,
    }
