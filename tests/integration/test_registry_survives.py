"""The registry over the life of whole gateways: restarts, a torn store, clock steps, clients that wait."""

from __future__ import annotations

import glob
import http.client
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles.configs import ANY, gateway_config
from doubles.gateway import Gateway, wait_for
from doubles.http_backend import HttpBackend

HOUR = 3600


@pytest.fixture
def pair() -> Iterator[tuple[HttpBackend, HttpBackend]]:
    """Two real backends named a and b."""
    with HttpBackend("a") as a, HttpBackend("b") as b:
        yield a, b


def config(store: Path, **server: Any) -> str:
    """A gateway whose registry is kept at this path."""
    registry = {"cleanupInterval": "100ms", "store": f"file://{store}"}
    return gateway_config({"httpListenAddr": ANY, "health": {"enabled": False}, "registry": registry, **server})


def register(gateway: Gateway, identity: str, address: str, ttl: str = "60s") -> None:
    """Register one instance."""
    body = {"id": identity, "name": "api", "address": address, "ttl": ttl}
    assert gateway.admin_request("POST", "/v1/services", body)[0] == 201


def services(gateway: Gateway) -> dict[str, str]:
    """Every instance and its state."""
    return {one["id"]: one["state"] for one in gateway.admin_json("GET", "/v1/services")["services"]}


def saved(store: Path, *words: str) -> bool:
    """Whether the store has all of these words."""
    text = store.read_text() if store.exists() else ""
    return all(word in text for word in words)


def test_a_killed_gateway_comes_back_with_its_registry(tmp_path: Path, pair: tuple[HttpBackend, HttpBackend]) -> None:
    """After kill -9 a new gateway serves the registered instances at once, drains included, without any heartbeat."""
    a, b = pair
    store = tmp_path / "registry.json"
    with Gateway(config(store)) as gateway:
        register(gateway, "a", a.address)
        register(gateway, "b", b.address)
        assert gateway.admin_request("POST", "/backends/a/drain")[0] == 200
        wait_for(lambda: saved(store, '"a"', '"b"', '"drained":true'), what="the store to be written")
        gateway.process.kill()
        gateway.process.wait()
    with Gateway(config(store)) as again:
        assert services(again) == {"a": "passing", "b": "passing"}
        assert {again.get()[2] and again.get()[1]["x-backend"] for _ in range(6)} == {"b"}
        assert again.admin_json("GET", "/ready") == {"status": "ready"}
        assert again.admin_request("PUT", "/v1/services/a/heartbeat")[0] == 204


def test_a_torn_store_is_no_reason_not_to_start(tmp_path: Path, pair: tuple[HttpBackend, HttpBackend]) -> None:
    """gogate starts from the copy before or empty, says so in log and readiness, and keeps what it could not read."""
    store = tmp_path / "registry.json"
    with Gateway(config(store)) as gateway:
        register(gateway, "a", pair[0].address)
        assert gateway.stop() == 0
    for name in (store, tmp_path / "registry.json.1"):
        name.write_bytes(store.read_bytes()[:40])
    with Gateway(config(store)) as again:
        assert services(again) == {}
        ready = again.admin_json("GET", "/ready")
        assert ready["status"] == "ready"
        assert ready["warnings"][-1] == "registry store: started empty"
        assert again.logged("the registry's store is damaged")
        assert store.with_name("registry.json.bad").exists()
        register(again, "a", pair[0].address)
        wait_for(lambda: saved(store, '"a"'), what="the store to be written anew")


def test_a_lease_that_ends_leaves_and_comes_back(tmp_path: Path, pair: tuple[HttpBackend, HttpBackend]) -> None:
    """Out of rotation within a cleanup interval, shown as critical, back with the next heartbeat."""
    a, b = pair
    with Gateway(config(tmp_path / "registry.json")) as gateway:
        register(gateway, "a", a.address, "1s")
        register(gateway, "b", b.address)
        wait_for(lambda: services(gateway).get("a") == "critical", what="the lease to end")
        wait_for(lambda: {gateway.get()[1]["x-backend"] for _ in range(6)} == {"b"}, what="it to leave")
        assert gateway.admin_request("PUT", "/v1/services/a/heartbeat")[0] == 204
        assert services(gateway)["a"] == "passing"
        wait_for(
            lambda: "a" in {gateway.get()[1]["x-backend"] for _ in range(6)}
            or gateway.admin_request("PUT", "/v1/services/a/heartbeat")[0] != 204, what="it to be back")


def test_who_waits_is_let_go_when_gogate_drains(tmp_path: Path) -> None:
    """SIGTERM answers long polls and ends event streams at once, and gogate ends with code 0."""
    with Gateway(config(tmp_path / "registry.json", shutdown={"drainDelay": "500ms"})) as gateway:
        host, _, port = gateway.admin.rpartition(":")
        answers: list[tuple[int, bytes]] = []

        def ask(path: str, accept: str) -> None:
            connection = http.client.HTTPConnection(host, int(port), timeout=30)
            connection.request("GET", path, headers={"Accept": accept})
            answer = connection.getresponse()
            answers.append((answer.status, answer.read()))
            connection.close()

        asking = [
            threading.Thread(target=ask, args=("/v1/services?wait=10m", "*/*")),
            threading.Thread(target=ask, args=("/v1/services", "text/event-stream"))]
        for thread in asking:
            thread.start()
        wait_for(lambda: len(_admin_clients(gateway)) >= 2, what="both to wait")
        gateway.send_signal(signal.SIGTERM)
        for thread in asking:
            thread.join(10)
            assert not thread.is_alive()
        assert [status for status, _ in answers] == [200, 200]
        assert all(b'{"services":[]}' in body for _, body in answers)
        assert gateway.stop() == 0


def _admin_clients(gateway: Gateway) -> list[str]:
    """Established connections of the admin listener, from the kernel."""
    port = int(gateway.admin.rpartition(":")[2])
    wanted = f":{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return [line for line in lines if line.split()[1].endswith(wanted) and line.split()[3] == "01"]


def _libfaketime() -> str:
    found = glob.glob("/usr/lib/*/faketime/libfaketime.so.1") + glob.glob("/usr/local/lib/faketime/libfaketime.so.1")
    return found[0] if found else ""


@pytest.mark.skipif(not _libfaketime() and not os.environ.get("CI"), reason="libfaketime is not installed")
@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_step_of_the_clock_changes_nothing(
    tmp_path: Path, pair: tuple[HttpBackend, HttpBackend], step: int
) -> None:
    """The wall clock jumps an hour while gogate runs: no lease ends, no bucket refills, no connection is closed; only
    what people read shows it (SECURITY.md F13)."""
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    env = {
        "LD_PRELOAD": _libfaketime(), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1"}
    limit = {"enabled": True, "rate": 1, "per": "30m", "burst": 2}
    with Gateway(config(tmp_path / "registry.json", rateLimit=limit), env=env) as gateway:
        register(gateway, "a", pair[0].address, "30s")
        register(gateway, "b", pair[1].address, "30s")
        kept = http.client.HTTPConnection(*gateway.address("http:default"), timeout=10)
        wait_for(lambda: len(gateway.admin_json("GET", "/backends")["backends"]) == 2, what="both backends")
        codes = []
        for _ in range(4):
            kept.request("GET", "/")
            answer = kept.getresponse()
            answer.read()
            codes.append(answer.status)
        assert codes == [200, 200, 429, 429]
        before = gateway.admin_json("GET", "/v1/services/a")
        clock.write_text(f"{step:+d}\n")
        assert gateway.admin_request("PUT", "/v1/services/a/heartbeat")[0] == 204
        after = gateway.admin_json("GET", "/v1/services/a")
        assert _hours(after["last_heartbeat"]) != _hours(before["last_heartbeat"])  # the step was seen
        assert 25 < after["expires_in_s"] <= 30
        poll = gateway.admin_request("GET", "/v1/services?wait=300ms")  # three cleanups
        assert {one["state"] for one in json.loads(poll[2])["services"]} == {"passing"}
        kept.request("GET", "/")  # the same connection, the same empty bucket
        assert kept.getresponse().status == 429
        kept.close()
        assert not gateway.logged("instance is critical")
        assert not gateway.logged("the control plane did not run; leases are extended")


def _hours(moment: str) -> str:
    """Date and hour of an RFC 3339 moment."""
    return moment[:13]
