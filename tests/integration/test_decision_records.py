"""Decision records on whole gateways: two workers, the admin API."""

from __future__ import annotations

import http.client
import json

import pytest
from doubles.gateway import Gateway, wait_for
from doubles.http_backend import HttpBackend

pytestmark = pytest.mark.slow

CONFIG = """
server:
  workers: 2
  httpListenAddr: "127.0.0.1:0"
  admin: {listenAddr: "127.0.0.1:0"}
  backends: ["%s"]
  health: {enabled: false}
  trace: {keep: 100}
logging: {access: {timers: true}}
"""


def ask(gateway: Gateway, path: str, fields: dict[str, str] | None = None) -> tuple[int, dict[str, str]]:
    """One request on a connection of its own: it may come to either worker."""
    client = http.client.HTTPConnection(gateway.http, timeout=10)
    try:
        client.request("GET", path, headers=fields or {})
        answer = client.getresponse()
        answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}
    finally:
        client.close()


def test_records_of_every_worker() -> None:
    """Whichever worker served a request: its record is listed, found by id, and says what its access line says."""
    with HttpBackend() as backend, Gateway(CONFIG % backend.address) as gateway:
        ids = {}
        for number in range(40):
            sent = {"X-Gogate-Trace": "1", "X-Request-ID": f"r{number}"}
            status, fields = ask(gateway, f"/{number}?token=s3cret", sent)
            assert status == 200
            ids[f"r{number}"] = fields["x-gogate-trace-id"]
        listed = gateway.admin_json("GET", "/requests?limit=50")["requests"]
        assert {one["request_id"]: one["id"] for one in listed} == ids
        assert {one["worker"] for one in listed} == {0, 1}
        assert [one["time"] for one in listed] == sorted((one["time"] for one in listed), reverse=True)
        assert len(gateway.admin_json("GET", "/requests?limit=7")["requests"]) == 7
        assert gateway.admin_json("GET", "/requests?status=5xx")["requests"] == []
        record = gateway.admin_json("GET", f"/requests/{ids['r7']}")
        assert record == gateway.admin_json("GET", "/requests/r7")
        assert (record["path"], record["status"], record["kept"], record["query"]) == (
            "/7", 200, "asked", "?token=[redacted]")  # fmt: skip
        assert [one["backend"] for one in record["tries"]] == [backend.address]
        lines = wait_for(lambda: [line for line in gateway.access if line.get("request_id") == "r7"])
        assert lines[0]["connect_ms"] == record["timers_ms"]["connect"]
        assert lines[0]["duration_ms"] == record["timers_ms"]["total"]
        assert "s3cret" not in json.dumps(gateway.access)
