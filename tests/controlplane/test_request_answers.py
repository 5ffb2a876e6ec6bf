"""GET /requests and /requests/{id}: what is asked of the workers, and what is shown."""

from __future__ import annotations

import pytest
from admin_harness import admin_api

from gogate_py.messages import RequestRecord, RequestSummary, StageVerdict, Timers, Try

RECORD = RequestRecord(
    RequestSummary("id/1", "r1", "2026-11-01T00:00:00.000Z", 0, "asked", "GET", "a", "/", 200, "", 1.5, "api", "web",
                   "127.0.0.1:9001", 1, "127.0.0.1"),
    True, Timers(1.5, 0.0, 0.0, 0.5, 0.7), "default", "http", "", [("Accept", "*/*")], "ci",
    [StageVerdict("auth", "passed")], "", "round_robin", [Try("127.0.0.1:9001", 0.1, status=200)], "", 120, 0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("query", "asked"),
    [("", (100, "", 0)), ("?limit=7&route=api", (7, "api", 0)), ("?status=503", (100, "", 503)),
     ("?status=5xx", (100, "", 5))],
)  # fmt: skip
def test_list(query: str, asked: tuple[int, str, int]) -> None:
    """The workers are asked for as many as are wanted."""
    with admin_api() as api:
        api.supervisor.records = [RECORD]
        (one,) = api.ask("GET", f"/requests{query}").json["requests"]
        assert (one["id"], one["kept"], one["duration_ms"]) == ("id/1", "asked", 1.5)
        assert api.supervisor.asked_requests == asked


@pytest.mark.parametrize(
    ("query", "field"),
    [("limit=0", "limit"), ("limit=x", "limit"), ("limit=99999", "limit"), ("status=99", "status"),
     ("status=5x", "status"), ("status=600", "status")],
)  # fmt: skip
def test_bad_questions(query: str, field: str) -> None:
    """400 that names the parameter."""
    with admin_api() as api:
        answer = api.ask("GET", f"/requests?{query}")
        assert (answer.status, answer.json["field"]) == (400, field)


def test_one() -> None:
    """All that is known; 404 for what is not there. Ids may have any character."""
    with admin_api() as api:
        api.supervisor.records = [RECORD]
        shown = api.ask("GET", "/requests/id/1").json
        assert shown["timers_ms"] == {"receive": 0.0, "queue": 0.0, "connect": 0.5, "first_byte": 0.7, "total": 1.5}
        assert shown["stages"] == [{"name": "auth", "verdict": "passed", "reason": "", "waited_ms": 0.0}]
        (one,) = shown["tries"]
        assert (one["backend"], one["started_ms"], one["queue_ms"], one["status"]) == ("127.0.0.1:9001", 0.1, None, 200)
        assert shown["fields"] == [{"name": "Accept", "value": "*/*"}]
        assert api.ask("GET", "/requests/nothing").status == 404
        assert api.ask("GET", "/requests/id/1", stranger=True).status == api.ask(
            "GET", "/connections", stranger=True).status
