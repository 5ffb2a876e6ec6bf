"""An upgrade of the program (SIGUSR2): what it costs, what the new gogate knows, what becomes of one that fails."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from doubles.configs import ANY, gateway_config, http_gateway
from doubles.gateway import ROOT, Gateway, echo_server, wait_for
from doubles.http_backend import HttpBackend
from doubles.load import Load
from doubles.reloading import Stream, upgrading_echo
from doubles.servers import free_port
from doubles.upgrading import ENDED, FAILED, Upgrading, gone

OFF = {"enabled": False}
ALONE = ["unshare", "-pf", "--mount-proc", "--kill-child"]


@pytest.fixture
def backend() -> Iterator[HttpBackend]:
    with HttpBackend() as one:
        yield one


def put_weight(gateway: Gateway, address: str, weight: int) -> None:
    """Override the weight of a backend."""
    assert gateway.admin_request("PUT", f"/backends/{address}/weight", {"weight": weight})[0] == 200


# --- what it costs


@pytest.mark.slow
def test_nothing_is_lost() -> None:
    """Two upgrades in a row under load: no request fails, no connection is refused, TCP streams and WebSockets that
    began on an old gogate go on there for as long as the grace time is."""
    with HttpBackend() as web, echo_server() as (host, port), upgrading_echo() as sockets:
        config = gateway_config(
            {"httpListenAddr": ANY, "health": OFF},
            pools={"web": {"backends": [web.address]}, "tcp": {"backends": [f"{host}:{port}"]},
                   "ws": {"backends": [sockets]}},
            routes=[
                {"name": "ws", "match": {"pathPrefix": "/ws"}, "pool": "ws"},
                {"name": "web", "pool": "web"},
                {"name": "tcp", "type": "tcp", "listenAddr": ANY, "pool": "tcp"},
            ],
        )
        with Upgrading(config) as gateway:
            address = gateway.address("http:default")
            with Load(address, kept=8, fresh=8, pause=0.005) as load:
                load.wait_ok(100)
                for _ in range(2):
                    with Stream(gateway.address("tcp:tcp")) as tcp, Stream(address, upgrade="/ws") as ws:
                        assert tcp.says()
                        assert ws.says()
                        old = gateway.line[-1]
                        gateway.upgrade(until_gone=False)
                        load.wait_ok(300)
                        assert tcp.says()
                        assert ws.says()
                        assert not gone(old)
                    wait_for(lambda old=old: gone(old), what="the end of the old one")
                    wait_for(lambda: len(gateway.logged(ENDED)) == len(gateway.line) - 1, what="the new one to know it")
                load.wait_ok(100)
            assert load.lost == []
            assert load.outcomes["refused"] == load.outcomes["error"] == 0
            assert len(gateway.line) == 3
            assert gateway.process.wait(5) == 0
            wait_for(lambda: gateway.metric("gogate_backend_connections_active") == 0, what="no connection")
            gateway.end()


def test_listeners_that_moved_before_are_served(backend: HttpBackend) -> None:
    """The new gogate has the sockets by the names that its file gives them, whatever reloads went before."""
    with echo_server() as (host, port):
        route = {"name": "tcp", "type": "tcp", "listenAddr": f"127.0.0.1:{free_port()}", "pool": "tcp"}
        settings: dict[str, Any] = {
            "server": {"workers": 2, "admin": {"listenAddr": ANY}, "httpListenAddr": ANY, "health": OFF},
            "pools": {"web": {"backends": [backend.address]}, "tcp": {"backends": [f"{host}:{port}"]}},
            "routes": [{"name": "web", "pool": "web"}, route],
        }
        with Upgrading(json.dumps(settings)) as gateway:
            route["listenAddr"] = f"127.0.0.1:{free_port()}"  # its new sockets have an id of their own
            gateway.config_path.write_text(json.dumps(settings))
            assert gateway.admin_request("POST", "/reload")[0] == 200
            gateway.upgrade()
            assert gateway.get()[0] == 200
            for _ in range(8):
                with socket.create_connection(("127.0.0.1", int(route["listenAddr"].rpartition(":")[2])), 5) as sock:
                    sock.sendall(b"ping")
                    assert sock.recv(10) == b"ping"
            assert not gateway.logged("no socket for listener")
            gateway.end()


@pytest.mark.slow
def test_no_heartbeat_and_no_registration_is_lost(backend: HttpBackend) -> None:
    """Services that register and beat all the time, on a connection each: every one is answered, and nothing that was
    answered is forgotten."""
    stop = threading.Event()
    made: list[str] = []
    wrong: list[Any] = []

    def ask(address: str, method: str, path: str, body: Any = None) -> int:
        connection = http.client.HTTPConnection(address, timeout=10)
        try:
            connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
            return connection.getresponse().status
        finally:
            connection.close()

    def beat(number: int, address: str) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            identity = f"s{number}-{count}"
            try:
                body = {"id": identity, "name": "api", "address": f"127.0.0.1:{1000 + number}", "ttl": "300s"}
                if ask(address, "POST", "/v1/services", body) != 201:
                    wrong.append(identity)
                made.append(identity)
                for one in (identity, made[0]):
                    if (status := ask(address, "PUT", f"/v1/services/{one}/heartbeat")) != 204:
                        wrong.append((one, status))
            except OSError as error:
                wrong.append(error)
            stop.wait(0.005)

    config = gateway_config({"httpListenAddr": ANY, "health": OFF, "backends": [backend.address]})
    with Upgrading(config) as gateway:
        threads = [threading.Thread(target=beat, args=(number, gateway.admin)) for number in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(2):
                before = len(made)
                wait_for(lambda before=before: len(made) > before + 20, what="registrations")
                gateway.upgrade()
            before = len(made)
            wait_for(lambda: len(made) > before + 20, what="registrations with the last one")
        finally:
            stop.set()
            for thread in threads:
                thread.join(20)
        assert wrong == []
        known = {one["id"] for one in gateway.admin_json("GET", "/v1/services")["services"]}
        assert set(made) <= known


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_another_configuration_takes_over(backend: HttpBackend, workers: int) -> None:
    """The new gogate reads the file anew: another number of workers, a listener more and one less, and no request is
    lost at the one that stays."""
    route = {"type": "tcp", "listenAddr": ANY, "pool": "web"}

    def config(count: int, name: str) -> str:
        return json.dumps({
            "server": {"workers": count, "admin": {"listenAddr": ANY}, "httpListenAddr": ANY, "health": OFF},
            "pools": {"web": {"backends": [backend.address]}},
            "routes": [{"name": "web", "pool": "web"}, {"name": name, **route}],
        })

    with Upgrading(config(2, "before")) as gateway:
        address = gateway.address("http:default")
        with Load(address, kept=6, fresh=6, pause=0.005) as load:
            load.wait_ok(50)
            gateway.config_path.write_text(config(workers, "after"))
            wait_for(lambda: gateway.logged("configuration cannot be served; the old one goes on"), what="the refusal")
            gateway.upgrade()
            load.wait_ok(300)
        assert load.lost == []
        assert load.outcomes["refused"] == load.outcomes["error"] == 0
        assert len(gateway.pids()) == workers
        assert set(gateway.listeners) == {"http:default", "tcp:after"}
        with socket.create_connection(gateway.address("tcp:after"), timeout=10) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
        gateway.end()


# --- what the new one knows


@pytest.mark.slow
def test_the_new_one_goes_on_where_the_old_one_was(backend: HttpBackend) -> None:
    """Registrations with their leases, overrides, drains, health, open breakers, what rate limits counted, counters."""
    with HttpBackend("b") as other, HttpBackend("broken") as broken, socket.create_server(("127.0.0.1", 0)) as taken:
        dead = f"127.0.0.1:{taken.getsockname()[1]}"
        taken.close()
        broken.status = 500
        breaker = {"enabled": True, "failureThreshold": 3, "timeout": "60s"}
        config = json.dumps({
            "server": {
                "workers": 2, "admin": {"listenAddr": ANY}, "httpListenAddr": ANY,
                "health": {"interval": "60s", "unhealthyThreshold": 1, "initialState": "down", "healthyThreshold": 1}},
            "pools": {
                "web": {"backends": [backend.address, other.address]},
                "broken": {"backends": [broken.address], "circuitBreaker": breaker},
                "dead": {"backends": [dead]},
            },
            "routes": [
                {"name": "broken", "match": {"pathPrefix": "/broken"}, "pool": "broken"},
                {"name": "dead", "match": {"pathPrefix": "/dead"}, "pool": "dead"},
                {"name": "few", "match": {"pathPrefix": "/few"}, "pool": "web",
                 "rateLimit": {"rate": 10, "per": "1h", "burst": 10}},
                {"name": "web", "pool": "web"},
            ],
        })
        with Upgrading(config) as gateway:
            wait_for(lambda: gateway.get("/")[0] == 200, what="the probes")
            gateway.admin_json("POST", "/v1/services", {
                "id": "one", "name": "web", "address": "127.0.0.1:1", "ttl": "300s", "metadata": {"zone": "a"}})
            put_weight(gateway, backend.address, 7)
            assert gateway.admin_request("POST", f"/backends/{other.address}/drain")[0] == 200
            for _ in range(6):
                assert gateway.get("/few")[0] == 200
            wait_for(lambda: gateway.get("/broken")[0] == 503, what="the breaker to open")
            wait_for(lambda: gateway.metric("gogate_route_requests_total", route="few") == 6, what="the counts")
            asked = broken.requests
            before = known(gateway)
            gateway.upgrade()
            assert known(gateway) == before
            # at once, without a probe, a failure or a new window
            assert gateway.get("/broken")[0] == 503
            assert broken.requests == asked
            assert gateway.get("/dead")[0] == 503
            assert [gateway.get("/few")[0] for _ in range(5)] == [200] * 4 + [429]
            assert gateway.admin_request("PUT", "/v1/services/one/heartbeat")[0] == 204
            wait_for(lambda: gateway.metric("gogate_route_requests_total", route="few") == 11, what="the counts")
            gateway.upgrade()
            assert known(gateway) == before
            assert gateway.get("/few")[0] == 429
            assert gateway.get("/broken")[0] == 503
            gateway.end()


def known(gateway: Gateway) -> Any:
    """What the admin API tells of backends and services, without moments."""
    backends = gateway.admin_json("GET", "/backends")["backends"]
    services = gateway.admin_json("GET", "/v1/services")["services"]
    shown = ("addr", "pool", "weight", "healthy", "draining", "last_error", "circuit_state")
    return (
        [{key: one.get(key) for key in shown} for one in backends],
        [{key: one[key] for key in ("id", "state", "metadata", "registered_at", "ttl")} for one in services],
    )


@pytest.mark.slow
def test_counters_never_go_back(backend: HttpBackend) -> None:
    """What old workers count until their end is in the new one's metrics: the sum is every request there was."""
    with Upgrading(http_gateway(backend.address)) as gateway:
        with Load(gateway.address("http:default"), kept=6, fresh=6, pause=0.005) as load:
            last = 0.0
            for _ in range(2):
                load.wait_ok(100)
                gateway.upgrade()
                now = gateway.metric("gogate_requests_total")
                assert now >= last
                last = now
            load.wait_ok(50)
        done = load.outcomes["ok"]
        wait_for(lambda: gateway.metric("gogate_requests_total") == done, what=f"{done} requests to be counted")
        gateway.end()


@pytest.mark.slow
def test_the_store_goes_over(backend: HttpBackend, tmp_path: Path) -> None:
    """The registry's file is the new one's when the old one has let it go, and has what only the new one knows."""
    store = tmp_path / "registry.json"
    config = gateway_config(
        {"httpListenAddr": ANY, "health": OFF, "backends": [backend.address], "registry": {"store": f"file://{store}"}})
    body = {"name": "api", "address": "127.0.0.1:1", "ttl": "300s"}
    with Upgrading(config) as gateway:
        gateway.admin_json("POST", "/v1/services", {"id": "before", **body})
        gateway.upgrade()
        gateway.admin_json("POST", "/v1/services", {"id": "after", **body})
        wait_for(lambda: "after" in store.read_text(), what="the new one to save")
        assert "before" in store.read_text()
        assert not gateway.logged("the registry cannot be saved")
        gateway.end()


# --- what becomes of one that fails


BROKEN_STARTS = {
    "exit": ("__main__.py", "from gogate_py.cli import main", "raise SystemExit(3)", "exit status 3"),
    "hang": ("__main__.py", "from gogate_py.cli import main", "import time; time.sleep(60)", "within 10 s"),
    "protocol": ("process/handover.py", "PROTOCOL: Final = 1", "PROTOCOL: Final = 2", "protocol 2"),
    "late hang": ("process/takeover.py", "self._channel.send(Serving())", "pass  # nothing said", "within 10 s"),
    "stuck worker": (
        "process/worker.py", "                await plane.apply(message.snapshot)\n",
        "                if plane.slot:\n                    import time; time.sleep(60)\n"
        "                await plane.apply(message.snapshot)\n", "within 10 s"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", BROKEN_STARTS)
def test_a_program_that_does_not_start(kind: str, backend: HttpBackend) -> None:
    """A new program that ends, hangs, or does not understand us: it is gone with all it started, and the old one goes
    on with everything, registrations included; the next upgrade, to a good program, works."""
    name, before, after, reason = BROKEN_STARTS[kind]
    body = {"name": "api", "address": "127.0.0.1:1", "ttl": "300s"}
    with Upgrading(http_gateway(backend.address), limit=10) as gateway:
        gateway.admin_json("POST", "/v1/services", {"id": "before", **body})
        gateway.edit(name, before, after)
        with Load(gateway.address("http:default"), kept=4, fresh=4, pause=0.01) as load:
            load.wait_ok(50)
            gateway.begin_upgrade()
            failed(gateway, reason)
            load.wait_ok(50)
        assert load.lost == []
        assert load.outcomes["refused"] == load.outcomes["error"] == 0
        assert gateway.admin_request("PUT", "/v1/services/before/heartbeat")[0] == 204
        gateway.admin_json("POST", "/v1/services", {"id": "after", **body})
        gateway.edit(name, after, before)
        assert gateway.upgrade(limit=60.0) != gateway.process.pid
        wait_for(lambda: no_stranger(gateway), what="the end of what the failed one had started")
        if kind == "stuck worker":  # it had workers, which were there for some seconds more
            assert gateway.logged("upgrade waits for the end of the failed one's workers")
        assert {one["id"] for one in gateway.admin_json("GET", "/v1/services")["services"]} == {"before", "after"}
        gateway.end()


def failed(gateway: Upgrading, reason: str) -> None:
    """The upgrade failed for this reason, and the old gateway has all it had."""
    line = wait_for(lambda: gateway.logged(FAILED), 20.0, "the failure")[-1]
    assert reason in line["reason"]
    assert line["old_pid"] == gateway.process.pid
    wait_for(lambda: gone(line["new_pid"]), what="the new one to be gone")
    wait_for(lambda: gateway.get()[0] == 200)
    assert gateway.admin_request("GET", "/ready")[0] == 200


def no_stranger(gateway: Upgrading) -> bool:
    """Whether only the gateway's own processes run the program."""
    ours = {gateway.newest, *(one.pid for one in psutil.Process(gateway.newest).children(recursive=True))}
    for process in psutil.process_iter():
        try:
            if process.pid not in ours and process.environ().get("PYTHONPATH", "").startswith(str(gateway.folder)):
                return process.status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            pass
    return True


@pytest.mark.slow
def test_a_configuration_that_cannot_be_served(backend: HttpBackend) -> None:
    """A broken file, or an address that is taken: the reason is in the log, and the old gogate goes on."""
    with Upgrading(http_gateway(backend.address)) as gateway, socket.create_server(("127.0.0.1", 0)) as taken:
        settings = json.loads(gateway.config_path.read_text())
        port = taken.getsockname()[1]
        for server, reason in (
            ({"backends": "nonsense"}, "server.backends"),
            ({"listenAddr": f"127.0.0.1:{port}"}, f"127.0.0.1:{port}: the address is already in use"),
        ):
            gateway.config_path.write_text(json.dumps({"server": {**settings["server"], **server}}))
            count = len(gateway.logged(FAILED))
            gateway.begin_upgrade()
            wait_for(lambda count=count: len(gateway.logged(FAILED)) > count,
                     what="the failure")
            failed(gateway, reason)
        assert [line for line in gateway.broken if "nothing was started" in line]
        gateway.broken.clear()  # what the new ones said on stderr, as any failed start does


@pytest.mark.slow
def test_one_upgrade_at_a_time(backend: HttpBackend) -> None:
    """While one is under way another is refused, and so is a reload over the API; SIGTERM ends everything."""
    with Upgrading(http_gateway(backend.address)) as gateway:
        gateway.edit("__main__.py", "from gogate_py.cli import main", "import time; time.sleep(60)")
        gateway.begin_upgrade()
        begun = wait_for(lambda: gateway.logged("upgrade begins"))
        gateway.begin_upgrade()
        refused = wait_for(lambda: gateway.logged("upgrade is refused"))
        assert refused[0]["reason"] == "another upgrade is under way"
        status, _, body = gateway.admin_request("POST", "/reload")
        assert (status, json.loads(body)["problems"]) == (400, ["the program is being upgraded"])
        children = psutil.Process(begun[0]["pid"]).children()
        gateway.send_signal(signal.SIGTERM)
        assert gateway.process.wait(15) == 0
        wait_for(lambda: not any(child.is_running() for child in children), what="the new one to be gone")
        assert gateway.logged(FAILED)[0]["reason"] == "gogate is stopping"


@pytest.mark.slow
def test_process_1_of_a_container_is_not_upgraded(backend: HttpBackend, tmp_path: Path) -> None:
    """Where gogate is process 1, its end would be the container's: SIGUSR2 is refused, with the reason."""
    if subprocess.run([*ALONE, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no process namespaces here")
    config = tmp_path / "config.yaml"
    config.write_text(http_gateway(backend.address, httpListenAddr=f"unix:{tmp_path}/http.sock"))
    log = tmp_path / "log"
    command = [sys.executable, "-m", "gogate_py", "-config", str(config)]
    with log.open("w") as stderr:
        process = subprocess.Popen([*ALONE, *command], stderr=stderr, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        wait_for(lambda: "gogate is ready" in log.read_text(), 20.0)
        (inside,) = psutil.Process(process.pid).children()
        inside.send_signal(signal.SIGUSR2)
        wait_for(lambda: "upgrade is refused" in log.read_text())
        assert "process 1 of its container" in log.read_text()
        inside.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()
