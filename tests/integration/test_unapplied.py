"""A worker that cannot take over a configuration: replaced when the others can, spared when none can."""

from __future__ import annotations

import json
from typing import Any

import pytest
from doubles.configs import http_gateway
from doubles.gateway import wait_for
from doubles.http_backend import HttpBackend
from doubles.load import Load
from doubles.upgrading import Upgrading

APPLY = "                await plane.apply(message.snapshot)\n"


def raising(condition: str) -> str:
    """The program where a worker raises in the middle of a snapshot, if this is true."""
    bad = "any(route.name == 'bad' for route in message.snapshot.http_routes)"
    return f"{APPLY}{' ' * 16}if {bad} and {condition}:\n{' ' * 20}raise RuntimeError('boom')\n"


def with_route(gateway: Upgrading, name: str) -> tuple[int, Any]:
    """Reload with a route of this name; → what the admin API says."""
    settings = json.loads(gateway.config_path.read_text())
    settings["routes"] = [{"name": name, "match": {"path": f"/{name}"}, "pool": "default"}]
    new = gateway.config_path.with_suffix(".new")
    new.write_text(json.dumps(settings))
    new.rename(gateway.config_path)
    status, _, body = gateway.admin_request("POST", "/reload")
    return status, json.loads(body)


@pytest.mark.slow
def test_one_of_two_is_replaced() -> None:
    """The reload ends when the replacement serves it, and says so; nothing but the worker's own connections is lost."""
    with HttpBackend() as backend:
        # the first process in slot 1 only: its replacement has another incarnation
        once = "plane.slot == 1 and plane._id_prefix == '1.1.'"
        with Upgrading(http_gateway(backend.address), edits={"process/worker.py": (APPLY, raising(once))}) as gateway:
            before = gateway.pids()
            status, done = with_route(gateway, "bad")
            assert (status, done["result"]) == (200, "success")
            assert done["problems"] == ["worker 1 could not take it over, and was replaced: RuntimeError: boom"]
            assert gateway.admin_json("GET", "/config/status")["history"][0]["problems"] == done["problems"]
            after = gateway.pids()
            assert after[0] == before[0]
            assert after[1] != before[1]
            assert gateway.metric("gogate_worker_restarts_total", worker="1") == 1
            for _ in range(20):
                assert gateway.get("/bad")[0] == 200
            assert [line["error"] for line in gateway.logged("internal error")] == ["RuntimeError('boom')"]
            gateway.log[:] = [line for line in gateway.log if line["msg"] != "internal error"]


@pytest.mark.slow
def test_none_is_replaced_when_none_can() -> None:
    """The configuration is at fault; the one before is served again, by the very same workers: no request is lost."""
    with HttpBackend() as backend:
        edits = {"process/worker.py": (APPLY, raising("True"))}
        with Upgrading(http_gateway(backend.address), edits=edits) as gateway:
            before = gateway.pids()
            assert with_route(gateway, "good")[0] == 200
            with Load(gateway.address("http:default"), kept=4, fresh=4, pause=0.005) as load:
                load.wait_ok(50)
                status, done = with_route(gateway, "bad")
                assert (status, done["problems"]) == (400, ["no worker could take it over: RuntimeError: boom"])
                load.wait_ok(50)
            assert load.lost == []
            assert load.outcomes["refused"] == load.outcomes["error"] == 0
            assert gateway.get("/bad")[0] == 200  # by the catch-all route, as before
            assert gateway.pids() == before
            assert with_route(gateway, "better")[0] == 200
            wait_for(lambda: gateway.admin_json("GET", "/config/status")["in_sync"], what="the file to be served")
            gateway.log[:] = [line for line in gateway.log if line["msg"] != "internal error"]
