"""Health and registration end to end: who is in rotation, how soon every worker knows, what the admin API says."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles.configs import ANY, gateway_config, http_gateway
from doubles.gateway import ROOT, Gateway, wait_for
from doubles.http_backend import HttpBackend
from doubles.load import Load
from doubles.servers import free_port

DATA = Path(__file__).parent / "data"
HTTP_PROBES = {
    "checkType": "http", "httpPath": "/health", "interval": "50ms", "timeout": "1s", "unhealthyThreshold": 2,
    "healthyThreshold": 2,
}


@pytest.fixture
def pair() -> Iterator[tuple[HttpBackend, HttpBackend]]:
    with HttpBackend("a") as a, HttpBackend("b") as b:
        yield a, b


def _health(gateway: Gateway) -> dict[str, dict[str, Any]]:
    """What /backends says, by address."""
    return {backend["addr"]: backend for backend in gateway.admin_json("GET", "/backends")["backends"]}


def _shares(gateway: Gateway, count: int = 60) -> Counter[str]:
    """Who answered, over ``count`` requests on connections of their own (so that every worker is asked)."""
    return Counter(gateway.get()[1].get("x-backend", "none") for _ in range(count))


def _even(gateway: Gateway, count: int = 60) -> bool:
    """Whether a and b share the requests; each worker goes round by itself, so that they may differ by one for each."""
    shares = _shares(gateway, count)
    return shares["a"] + shares["b"] == count and abs(shares["a"] - shares["b"]) <= 2


# --- health


def test_probes_take_a_backend_out_and_in_again(pair: tuple[HttpBackend, HttpBackend]) -> None:
    """A backend whose health endpoint fails leaves the rotation of all workers, with the reason, and comes back."""
    a, b = pair
    with Gateway(http_gateway(a.address, b.address, health=HTTP_PROBES)) as gateway:
        assert _even(gateway)
        a.health_status = 500
        down = wait_for(lambda: (x := _health(gateway)[a.address])["healthy"] is False and x, what="a to be down")
        assert "500" in down["last_error"]
        # All workers know within 100 ms: here, before the next 60 connections were made one after the other.
        wait_for(lambda: _shares(gateway, 30) == {"b": 30}, 2.0, "every worker to avoid a")
        before = a.requests
        assert _shares(gateway) == {"b": 60}
        assert a.requests == before
        assert gateway.metric("gogate_backend_healthy", backend=a.address) == 0
        assert gateway.metric("gogate_backend_healthy", backend=b.address) == 1
        assert gateway.metric("gogate_health_transitions_total", backend=a.address, to="down") == 1
        (line,) = gateway.logged("backend is down")
        assert line["backend"] == a.address
        assert "500" in str(line)
        a.health_status = 200
        wait_for(lambda: _health(gateway)[a.address]["healthy"], what="a to be up")
        wait_for(lambda: _even(gateway, 30), 2.0, "every worker to use a again")
        assert gateway.logged("backend is up")
        assert gateway.metric("gogate_health_probes_total", backend=a.address) > 4


def test_all_backends_down(pair: tuple[HttpBackend, HttpBackend]) -> None:
    """With nobody healthy a request is 503 and says why, in body, log and metric; readiness is 503; it heals."""
    a, b = pair
    with Gateway(http_gateway(a.address, b.address, health=HTTP_PROBES)) as gateway:
        assert gateway.admin_request("GET", "/ready")[0] == 200
        a.health_status = b.health_status = 503
        wait_for(lambda: not any(x["healthy"] for x in _health(gateway).values()), what="both to be down")
        _, _, body = wait_for(lambda: (x := gateway.get())[0] == 503 and x, what="503")
        assert b'"reason":"no_backend"' in body
        assert gateway.admin_request("GET", "/ready")[0] == 503
        line = wait_for(lambda: [x for x in gateway.access if x["status"] == 503], what="the access line")[-1]
        assert line["reason"] == "no_backend"
        wait_for(lambda: gateway.metric("gogate_local_responses_total", reason="no_backend") > 0, what="the metric")
        a.health_status = b.health_status = 200
        wait_for(lambda: gateway.admin_request("GET", "/ready")[0] == 200, what="readiness")
        wait_for(lambda: gateway.get()[0] == 200, what="an answer")


def test_tcp_all_down_is_closed_at_once() -> None:
    """A TCP client is closed at once when no backend is up, and the reason is counted."""
    port = free_port()
    probes = {"interval": "50ms", "unhealthyThreshold": 1}
    config = gateway_config({"listenAddr": ANY, "backends": [f"127.0.0.1:{port}"], "health": probes})
    with Gateway(config) as gateway:
        wait_for(lambda: not _health(gateway)[f"127.0.0.1:{port}"]["healthy"], what="the backend to be down")
        assert "refused" in _health(gateway)[f"127.0.0.1:{port}"]["last_error"].lower()
        address = gateway.address("tcp:default-tcp")
        with contextlib.suppress(ConnectionError), socket.create_connection(address, timeout=5) as sock:
            assert sock.recv(10) == b""
        wait_for(lambda: gateway.metric("gogate_connections_refused_total", reason="no_backend") == 1, what="the count")


def test_a_backend_dies_under_load(pair: tuple[HttpBackend, HttpBackend]) -> None:
    """A backend that refuses connections costs no request: its share goes to the other one, and it comes back."""
    a, b = pair
    with Gateway(http_gateway(a.address, b.address, health=HTTP_PROBES)) as gateway:
        with Load(gateway.address("http:default"), kept=4, fresh=4, pause=0.005) as load:
            load.wait_ok(100)
            a.health_status = 500  # it says goodbye first, as a server that is stopped in an orderly way does
            wait_for(lambda: not _health(gateway)[a.address]["healthy"], what="a to be down")
            load.wait_ok(100)
            a.stop_listening()
            load.wait_ok(200)
            a.health_status = 200
            before = a.requests
            a.listen()
            wait_for(lambda: a.requests > before, what="a to get requests again")
        assert load.lost == []
        assert load.outcomes["error"] == 0


def test_initial_state_down(pair: tuple[HttpBackend, HttpBackend]) -> None:
    """With initialState: down nothing is asked before the probes have succeeded."""
    a, _ = pair
    a.health_status = 500
    with Gateway(http_gateway(a.address, health={**HTTP_PROBES, "initialState": "down"})) as gateway:
        assert gateway.get()[0] == 503
        assert gateway.admin_request("GET", "/ready")[0] == 503
        assert a.requests == 0
        a.health_status = 200
        wait_for(lambda: gateway.get()[0] == 200, what="the backend to be used")


def test_a_name_that_does_not_resolve_is_down(pair: tuple[HttpBackend, HttpBackend]) -> None:
    """An unresolvable backend name is a backend that is down with that reason; everything else works."""
    a, _ = pair
    with Gateway(http_gateway(a.address, "no-such-host.invalid:80", health=HTTP_PROBES)) as gateway:
        assert _shares(gateway, 20) == {"a": 20}
        broken = wait_for(
            lambda: (x := _health(gateway)["no-such-host.invalid:80"])["last_error"] and x, what="the reason"
        )
        assert broken["healthy"] is False
        assert "resolve" in broken["last_error"]
        assert gateway.admin_request("GET", "/ready")[0] == 200


def test_drain_and_undrain(pair: tuple[HttpBackend, HttpBackend]) -> None:
    """A drained backend gets no new request, keeps what it has, and comes back with undrain."""
    a, b = pair
    with Gateway(http_gateway(a.address, b.address)) as gateway:
        a.hold()
        answers: list[int] = []
        threads = [threading.Thread(target=lambda: answers.append(gateway.get()[0])) for _ in range(6)]
        for thread in threads:
            thread.start()
        wait_for(lambda: a.in_flight > 0 and a.in_flight + len(answers) == 6, what="a to have its share")
        status, _, _ = gateway.admin_request("POST", f"/backends/{a.address.replace(':', '%3A')}/drain")
        assert status == 200
        assert _health(gateway)[a.address]["draining"] is True
        wait_for(lambda: _shares(gateway, 20) == {"b": 20}, what="a to get nothing new")
        assert gateway.metric("gogate_backend_draining", backend=a.address) == 1
        a.release()
        for thread in threads:
            thread.join()
        assert answers == [200] * 6
        assert gateway.admin_request("POST", f"/backends/{a.address}/undrain")[0] == 200
        wait_for(lambda: _even(gateway, 20), what="a to be used again")
        assert gateway.admin_request("POST", "/backends/nobody:1/drain")[0] == 404


# --- registry


def _register(gateway: Gateway, **body: Any) -> dict[str, Any]:
    status, _, data = gateway.admin_request("POST", "/v1/services", body)
    assert status == 201, data
    return dict(gateway.admin_json("GET", f"/v1/services/{body['id']}"))


def test_a_service_registers_and_deregisters(pair: tuple[HttpBackend, HttpBackend]) -> None:
    """A registered instance gets traffic, is listed, renews its lease, and gets none after it was deleted."""
    a, b = pair
    with Gateway(gateway_config({"httpListenAddr": ANY})) as gateway:
        assert gateway.admin_request("GET", "/ready")[0] == 200  # empty, and waiting for registrations
        assert gateway.get()[0] == 503
        about = {"tags": ["v2"], "metadata": {"zone": "x"}, "ttl": "30s"}
        told = _register(gateway, id="one", name="api", address=a.address, **about)
        assert (told["name"], told["address"], told["tags"], told["ttl"]) == ("api", a.address, ["v2"], "30s")
        wait_for(lambda: gateway.get()[0] == 200, what="the instance to be used")
        _register(gateway, id="two", name="api", address=b.address)
        wait_for(lambda: _even(gateway, 20), what="both to be used")
        assert {x["id"] for x in gateway.admin_json("GET", "/v1/services")["services"]} == {"one", "two"}
        assert {x["id"] for x in gateway.admin_json("GET", "/v1/services?tag=v2")["services"]} == {"one"}
        assert {x["id"] for x in gateway.admin_json("GET", "/v1/services?name=other")["services"]} == set()
        assert gateway.admin_request("PUT", "/v1/services/one/heartbeat")[0] == 204
        assert gateway.admin_request("PUT", "/v1/services/three/heartbeat")[0] == 404
        assert _health(gateway)[a.address]["origin"] == "registry"
        assert gateway.metric("gogate_registry_services") == 2
        assert gateway.admin_request("DELETE", "/v1/services/one")[0] in {200, 204}
        wait_for(lambda: _shares(gateway, 20) == {"b": 20}, what="the deleted instance to be left out")
        assert gateway.admin_request("GET", "/v1/services/one")[0] == 404
        assert gateway.metric("gogate_registry_services") == 1


def test_a_missed_heartbeat_removes_an_instance(pair: tuple[HttpBackend, HttpBackend]) -> None:
    """Without a heartbeat within its TTL an instance leaves the rotation; one that renews stays."""
    a, b = pair
    registry = {"cleanupInterval": "100ms"}
    with Gateway(gateway_config({"httpListenAddr": ANY, "registry": registry})) as gateway:
        _register(gateway, id="quiet", name="api", address=a.address, ttl="1s")
        _register(gateway, id="lively", name="api", address=b.address, ttl="1s")
        wait_for(lambda: _even(gateway, 10), what="both to be used")

        def only_lively() -> bool:
            assert gateway.admin_request("PUT", "/v1/services/lively/heartbeat")[0] == 204
            return [x["id"] for x in gateway.admin_json("GET", "/v1/services")["services"]] == ["lively"]

        wait_for(only_lively, what="the lease to end")
        wait_for(lambda: only_lively() and _shares(gateway, 10) == {"b": 10}, what="it to leave the rotation")
        assert [line["id"] for line in gateway.logged("instance expired")] == ["quiet"]
        assert gateway.metric("gogate_registry_events_total", event="expired") == 1


def test_names_and_tags_join_pools(pair: tuple[HttpBackend, HttpBackend]) -> None:
    """With pools, an instance joins those whose service name and tags it has; one that fits nowhere is unrouted."""
    a, b = pair
    config = gateway_config(
        {"httpListenAddr": ANY},
        pools={"api": {}, "api-v2": {"service": "api", "tags": ["v2"]}},
        routes=[{"name": "old", "pool": "api"}, {"name": "new", "pool": "api-v2", "match": {"pathPrefix": "/v2"}}],
    )
    with Gateway(config) as gateway:
        _register(gateway, id="a", name="api", address=a.address, tags=["v2", "eu"])
        _register(gateway, id="b", name="api", address=b.address)
        lost = _register(gateway, id="c", name="elsewhere", address="127.0.0.1:9")
        assert lost["unrouted"] is True
        pools: dict[str, set[str]] = {}
        for backend in gateway.admin_json("GET", "/backends")["backends"]:
            pools.setdefault(backend["pool"], set()).add(backend["addr"])
        assert pools == {"api": {a.address, b.address}, "api-v2": {a.address}}
        wait_for(lambda: _even(gateway, 10), what="both in the pool api")
        assert {gateway.get("/v2/x")[1]["x-backend"] for _ in range(10)} == {"a"}
        # by registration id, in all its pools
        assert gateway.admin_request("POST", "/backends/a/drain")[0] == 200
        wait_for(lambda: gateway.get("/v2/x")[0] == 503, what="the only member of api-v2 to be drained")
        wait_for(lambda: _shares(gateway, 10) == {"b": 10}, what="a to be drained in api")
        # and in one of them
        assert gateway.admin_request("POST", "/backends/a/undrain?pool=api-v2")[0] == 200
        wait_for(lambda: gateway.get("/v2/x")[0] == 200, what="a to be back in api-v2")
        assert _shares(gateway, 10) == {"b": 10}


def test_an_instance_gets_the_pools_probes(pair: tuple[HttpBackend, HttpBackend]) -> None:
    """A registered instance is probed as its pool says, whatever its heartbeats say."""
    a, b = pair
    with Gateway(gateway_config({"httpListenAddr": ANY, "health": HTTP_PROBES})) as gateway:
        _register(gateway, id="a", name="api", address=a.address)
        _register(gateway, id="b", name="api", address=b.address)
        wait_for(lambda: a.probes > 1 and b.probes > 1, what="probes")
        a.health_status = 500
        wait_for(lambda: _shares(gateway, 10) == {"b": 10}, what="a to be left out")
        assert gateway.admin_request("PUT", "/v1/services/a/heartbeat")[0] == 204


def test_registration_errors_say_what_is_wrong() -> None:
    """Bad registrations are refused with the field and the reason; forbidden addresses with 403."""
    with Gateway(gateway_config({"httpListenAddr": ANY})) as gateway:
        good: dict[str, Any] = {"id": "x", "name": "api", "address": "127.0.0.1:9000"}
        for change, status, word in (
            ({"address": "nonsense"}, 400, "address"),
            ({"address": None}, 400, "address"),
            ({"ttl": "1 fortnight"}, 400, "ttl"),
            ({"ttl": "1h"}, 400, "ttl"),
            ({"name": ""}, 400, "name"),
            ({"address": "169.254.169.254:80"}, 403, "address"),
            ({"address": "8.8.8.8:80"}, 403, "address"),
        ):
            code, headers, body = gateway.admin_request("POST", "/v1/services", {**good, **change})
            assert (code, headers["content-type"]) == (status, "application/problem+json"), change
            assert word in body.decode(), change
        code, headers, _ = gateway.admin_request("PATCH", "/v1/services")
        assert code == 405
        assert {"GET", "POST"} <= set(re.split(", *", headers["allow"]))
        assert gateway.admin_json("GET", "/v1/services")["services"] == []


# --- gogate register

_SERVER = """
import http.server, sys
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind="127.0.0.1")
"""


def _gogate_register(gateway: Gateway, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gogate_py", "register", "--admin", f"http://{gateway.admin}", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_gogate_register_with_a_command(number: int) -> None:
    """``gogate register … -- COMMAND`` registers it while it lives; ending it with a signal deregisters at once."""
    port = free_port()
    with Gateway(gateway_config({"httpListenAddr": ANY})) as gateway:
        command = [sys.executable, "-c", _SERVER, str(port)]
        process = _gogate_register(gateway, "--name", "api", "--address", f":{port}", "--ttl", "60s", "--", *command)
        try:
            wait_for(lambda: gateway.get("/")[0] == 200, 20.0, what="the command to serve through the gateway")
            (service,) = gateway.admin_json("GET", "/v1/services")["services"]
            assert (service["name"], service["address"]) == ("api", f"127.0.0.1:{port}")
            process.send_signal(number)
            process.wait(10)
            # long before its TTL
            wait_for(lambda: gateway.admin_json("GET", "/v1/services")["services"] == [], 5.0, "it to be gone")
        finally:
            process.kill()
            process.wait()


def test_gogate_register_ends_with_its_command() -> None:
    """When the command ends by itself, its registration goes too, and its exit code is passed on."""
    with Gateway(gateway_config({"httpListenAddr": ANY})) as gateway:
        wait = "import sys; sys.stdin.read(); sys.exit(7)"
        command = [sys.executable, "-m", "gogate_py", "register", "--admin", f"http://{gateway.admin}", "--id", "x",
                   "--name", "api", "--address", "127.0.0.1:9", "--", sys.executable, "-c", wait]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        wait_for(lambda: gateway.admin_json("GET", "/v1/services")["services"], 20.0, "the registration")
        process.communicate(b"", timeout=20)
        assert process.returncode == 7
        assert gateway.admin_json("GET", "/v1/services")["services"] == []


def test_gogate_register_comes_back_after_a_restart() -> None:
    """A registration outlives the gateway: a new one on the same admin port has it again within a heartbeat."""
    admin = f"127.0.0.1:{free_port()}"
    config = gateway_config({"httpListenAddr": ANY, "admin": {"listenAddr": admin}})
    with Gateway(config) as gateway:
        process = _gogate_register(gateway, "--name", "api", "--address", "127.0.0.1:9", "--ttl", "1s")
        try:
            wait_for(lambda: gateway.admin_json("GET", "/v1/services")["services"], 20.0, "the registration")
            gateway.stop()
            with Gateway(config) as new:
                wait_for(lambda: new.admin_json("GET", "/v1/services")["services"], 20.0, "the registration to be back")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)


# --- the configurations of GoGate's README


def test_readme_minimal_configuration() -> None:
    """The minimal YAML of GoGate's README runs as it stands; only its ports are moved, from the environment."""
    moved = ("LISTEN_ADDR", "HTTP_LISTEN_ADDR", "ADMIN_LISTEN_ADDR")
    env = {f"GOGATE_SERVER_{name}": ANY for name in moved}
    with Gateway((DATA / "minimal.yaml").read_text(), env=env) as gateway:
        assert set(gateway.listeners) == {"tcp:default-tcp", "http:default"}
        assert set(_health(gateway)) == {"localhost:9001", "localhost:9002"}
        assert gateway.get()[0] in {502, 503}  # nobody is there
        assert gateway.stop() == 0


def test_readme_production_configuration() -> None:
    """The production YAML runs as it stands: names that do not resolve are backends that are down, with that reason."""
    moved = ("LISTEN_ADDR", "HTTP_LISTEN_ADDR", "ADMIN_LISTEN_ADDR", "METRICS_LISTEN_ADDR")
    env = {f"GOGATE_SERVER_{name}": ANY for name in moved}
    with Gateway((DATA / "production.yaml").read_text(), env=env) as gateway, HttpBackend("real") as backend:
        weights = {address: x["weight"] for address, x in _health(gateway).items()}
        assert weights == {"backend-1:8080": 5, "backend-2:8080": 3, "backend-canary:8080": 1}
        wait_for(lambda: all("resolve" in x["last_error"] for x in _health(gateway).values()), 20.0, "the reasons")
        assert gateway.get()[0] == 503
        # everything else of it is alive: an instance that registers is probed at /health and served
        _register(gateway, id="real", name="any", address=backend.address)
        wait_for(lambda: gateway.get()[0] == 200, what="the instance to be used")
        assert gateway.metrics_address
        assert gateway.stop() == 0
