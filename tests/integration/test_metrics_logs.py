"""Metrics as Prometheus reads them, and logs as a machine reads them, after real traffic."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import need_program
from doubles.configs import ANY, gateway_config, http_gateway
from doubles.gateway import Gateway, echo_server, wait_for
from doubles.http_backend import HttpBackend

#: The metric names in the README of GoGate.
README_NAMES = (
    "gogate_requests_total", "gogate_request_duration_seconds", "gogate_backend_healthy",
    "gogate_backend_connections_active", "gogate_circuit_breaker_state", "gogate_rate_limit_rejected_total",
)


def _everything(backend: str, echo: str, **top: Any) -> str:
    return gateway_config(
        {"httpListenAddr": ANY, "metrics": {"listenAddr": ANY}, "health": {"interval": "50ms"},
         "rateLimit": {"enabled": True, "rate": 0.001, "burst": 20}, "circuitBreaker": {"enabled": True},
         "tcpPool": {"enabled": True, "maxIdle": 2}},
        pools={"web": {"backends": [backend]}, "echo": {"backends": [echo]}},
        routes=[{"name": "web", "pool": "web", "match": {"pathPrefix": "/web"}},
                {"name": "echo", "type": "tcp", "listenAddr": ANY, "pool": "echo"}],
        **top,
    )


def _traffic(gateway: Gateway) -> None:
    """A little of everything: good, unrouted, refused and invalid requests, L4 connections."""
    for _ in range(5):
        assert gateway.get("/web/x")[0] == 200
    assert gateway.get("/elsewhere")[0] == 404
    for _ in range(3):
        with socket.create_connection(gateway.address("tcp:echo"), timeout=10) as sock:
            sock.sendall(b"ping")
            assert sock.recv(10) == b"ping"
    with socket.create_connection(gateway.address("http:default"), timeout=10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert b" 400 " in sock.recv(1000)
    wait_for(lambda: gateway.get("/web/x")[0] == 429, what="the rate limit")


@pytest.fixture(scope="module")
def busy() -> Iterator[Gateway]:
    """A gateway after some traffic."""
    with (
        HttpBackend() as backend, echo_server() as (host, port),
        Gateway(_everything(backend.address, f"{host}:{port}")) as gateway,
    ):
        _traffic(gateway)
        wait_for(lambda: gateway.metric("gogate_tcp_connections_total") == 3, what="the counts")
        wait_for(lambda: gateway.metric("gogate_rate_limit_rejected_total") > 0, what="the counts")
        yield gateway


# --- metrics


def test_promtool_accepts_the_metrics(busy: Gateway) -> None:
    """``promtool check metrics`` has nothing to say about the output, neither errors nor advice."""
    _, headers, body = busy.admin_request("GET", "/metrics")
    assert headers["content-type"].startswith("text/plain; version=")
    done = subprocess.run([need_program("promtool"), "check", "metrics"], input=body, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("name", README_NAMES)
def test_every_metric_of_the_readme_is_there(busy: Gateway, name: str) -> None:
    """Each metric that GoGate's README names exists, with help and type, and a sample after traffic."""
    text = busy.admin_request("GET", "/metrics")[2].decode()
    assert f"# HELP {name} " in text
    assert f"# TYPE {name} " in text
    assert re.search(rf"^{name}(_bucket)?(\{{| )", text, re.MULTILINE)


def test_labels_are_as_in_the_readme(busy: Gateway) -> None:
    """Requests are labelled by backend and outcome, health and connections by backend, durations as a histogram."""
    samples = "\n".join(busy.metrics())
    assert re.search(r'^gogate_requests_total\{(?=.*backend="127)(?=.*status="success").*\}$', samples, re.MULTILINE)
    assert re.search(r'^gogate_backend_healthy\{.*backend="127.*\}$', samples, re.MULTILINE)
    assert re.search(r'^gogate_circuit_breaker_state\{.*backend="127.*\}$', samples, re.MULTILINE)
    assert 'gogate_request_duration_seconds_bucket{le="0.005"}' in samples
    assert "gogate_request_duration_seconds_sum" in samples


def test_the_metrics_listener_serves_the_same(busy: Gateway) -> None:
    """A metrics listener of its own serves /metrics, and nothing that changes anything."""
    host, _, port = busy.metrics_address.rpartition(":")
    cases = ((b"GET /metrics", b"200"), (b"POST /backends/x/drain", b"40"), (b"GET /v1/services", b"404"))
    for request, status in cases:
        with socket.create_connection((host, int(port)), timeout=10) as sock:
            sock.sendall(request + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            answer = b""
            while more := sock.recv(65536):
                answer += more
        assert answer.split(b" ", 2)[1].startswith(status), request
        if status == b"200":
            assert b"gogate_requests_total" in answer


def test_stats_sum_up(busy: Gateway) -> None:
    """/stats tells version, uptime, workers and what was counted."""
    stats = busy.admin_json("GET", "/stats")
    assert stats["uptime_s"] > 0
    assert len(stats["workers"]) == 2
    assert {worker["state"] for worker in stats["workers"]} == {"serving"}


def test_durations_of_routes_add_up_to_all(busy: Gateway) -> None:
    """Every request is observed on its route (empty: none matched); all of them are the histogram without labels."""
    samples = busy.metrics()
    of_routes = {name: n for name, n in samples.items() if name.startswith("gogate_route_duration_seconds_count")}
    assert {'gogate_route_duration_seconds_count{route="web"}', 'gogate_route_duration_seconds_count{route=""}'} == set(
        of_routes
    )
    assert sum(of_routes.values()) == samples["gogate_request_duration_seconds_count"] > 6


def test_what_every_process_uses_is_shown(busy: Gateway) -> None:
    """Descriptors, memory and CPU time of the supervisor and both workers; connections of the workers, and those they
    keep to backends."""
    for name in ("open_fds", "max_fds", "resident_memory_bytes"):
        for process in ("supervisor", "0", "1"):
            assert busy.metric(f"gogate_process_{name}", worker=process) > 0, (name, process)
    # Kept in hundredths of a second, which a worker may not have used yet.
    assert busy.metric("gogate_process_cpu_seconds_total", worker="supervisor") > 0
    assert {f'gogate_process_cpu_seconds_total{{worker="{slot}"}}' for slot in (0, 1)} <= busy.metrics().keys()
    with socket.create_connection(busy.address("http:default"), timeout=10):
        wait_for(lambda: busy.metric("gogate_worker_connections") == 1, what="the connection to be counted")
    assert busy.metric("gogate_worker_connections_limit", worker="0") > 0
    wait_for(lambda: busy.metric("gogate_backend_connections_idle", pool="web") > 0, what="kept connections")
    assert busy.metric("gogate_backend_connections_reused_total", pool="web") > 0


def test_labels_never_come_from_requests(busy: Gateway) -> None:
    """Paths, hosts and methods that clients make up leave the set of series as it is."""
    def series() -> set[str]:
        return {name for name in busy.metrics() if "worker=" not in name}

    before = series()
    for number in range(20):
        busy.get(f"/made-up/{number}", Host=f"host-{number}.test")
    assert not [name for name in series() - before if "made" in name or "host-" in name]
    assert len(series() - before) < 5


# --- logs


def test_access_line_of_a_request() -> None:
    """The access line has what the README shows, and client, route and bytes; the request id is the one sent."""
    with HttpBackend() as backend, Gateway(http_gateway(backend.address)) as gateway:
        assert gateway.get("/api/users?x=1", X_Request_ID="abc-123")[0] == 200
        (line,) = wait_for(lambda: list(gateway.access), what="the line")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert (line["level"], line["msg"], line["method"], line["status"]) == ("INFO", "request completed", "GET", 200)
        assert line["path"].startswith("/api/users")
        assert line["backend"] == backend.address
        assert line["route"] == "default-http"
        assert line["request_id"] == "abc-123"
        assert line["client"].startswith("127.0.0.1")
        assert 0 < line["duration_ms"] < 10_000
        assert line["bytes"] >= len(backend.body)
        assert b"x-request-id: abc-123" in backend.heads[0].lower()


def test_access_line_of_a_connection() -> None:
    """An L4 connection has one line, at its end: who, where, how much each way, how long, and how it ended."""
    with echo_server() as (host, port):
        config = gateway_config({"listenAddr": ANY, "backends": [f"{host}:{port}"], "health": {"enabled": False}})
        with Gateway(config) as gateway:
            with socket.create_connection(gateway.address("tcp:default-tcp"), timeout=10) as sock:
                me = "{}:{}".format(*sock.getsockname())
                sock.sendall(b"x" * 1234)
                received = 0
                while received < 1234:
                    received += len(sock.recv(65536))
                assert gateway.access == []
            (line,) = wait_for(lambda: list(gateway.access), what="the line")
            assert (line["msg"], line["route"]) == ("connection closed", "default-tcp")
            assert line["backend"] == f"{host}:{port}"
            assert (line["bytes_in"], line["bytes_out"], line["result"]) == (1234, 1234, "ok")
            assert line["client"] == me


def test_hostile_requests_cannot_break_the_log() -> None:
    """Whatever a client sends, every line of the log is one JSON object, and no secret is in it."""
    with HttpBackend() as backend, Gateway(http_gateway(backend.address)) as gateway:
        hostile = [
            b'GET /"quotes"\\back HTTP/1.1\r\nHost: x\r\n\r\n',
            b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: x\r\nX-Request-ID: {\"evil\":\"\x01\"}\r\n\r\n",
            b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b'GET /ok HTTP/1.1\r\nHost: "\r\n\r\n',
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET /secret HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t0psecret\r\nCookie: t0psecret\r\n\r\n",
        ]
        for data in hostile:
            with socket.create_connection(gateway.address("http:default"), timeout=10) as sock:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass
        assert gateway.get("/end")[0] == 200
        wait_for(lambda: any(line["path"] == "/end" for line in gateway.access), what="the lines")
        assert gateway.stop() == 0
        assert gateway.broken == []
        assert "t0psecret" not in json.dumps(gateway.access + gateway.log)
        assert all(len(line["path"]) <= 2048 for line in gateway.access)


def test_text_format() -> None:
    """format: text writes one line of key=value pairs, for requests and for gogate's own events."""
    with HttpBackend() as backend:
        config = http_gateway(backend.address).replace('"server"', '"logging": {"format": "text"}, "server"', 1)
        gateway = Gateway(config, wait=False)
        with gateway:
            ready = wait_for(lambda: [x for x in gateway.broken if "gogate is ready" in x], 20.0, "the ready line")[0]
            assert re.match(r"\d{4}-\d\d-\d\dT\S+Z INFO gogate is ready logger=gogate", ready)
            found = re.search(r"127\.0\.0\.1:\d+", ready[ready.index("http:default") :])
            assert found is not None
            gateway.listeners["http:default"] = found[0]
            assert gateway.get("/a?b=c")[0] == 200
            line = wait_for(lambda: [x for x in gateway.broken if "request completed" in x], what="the access line")[0]
            assert re.match(r"\d{4}\S+Z INFO request completed method=GET path=\S+ status=200 duration_ms=\S+ ", line)
            assert f"backend={backend.address}" in line
            assert gateway.stop() == 0
            gateway.broken.clear()


def test_access_log_file_and_rotation() -> None:
    """Access lines go to a file when one is named, and to a new one when it was moved away; or there are none."""
    with tempfile.TemporaryDirectory() as folder, HttpBackend() as backend:
        path = Path(folder, "access.log")

        def config(**access: Any) -> str:
            server = {"httpListenAddr": ANY, "backends": [backend.address], "health": {"enabled": False}}
            return gateway_config(server, logging={"access": access})

        with Gateway(config(path=str(path))) as gateway:
            assert gateway.get("/one")[0] == 200
            wait_for(lambda: path.exists() and path.read_text().endswith("\n"), what="the first line")
            path.rename(path.with_suffix(".1"))
            assert gateway.get("/two")[0] == 200
            wait_for(lambda: path.exists() and path.read_text().endswith("\n"), what="the second line")
            assert gateway.access == []
        assert [json.loads(x)["path"] for x in path.with_suffix(".1").read_text().splitlines()] == ["/one"]
        assert [json.loads(x)["path"] for x in path.read_text().splitlines()] == ["/two"]
        with Gateway(config(enabled=False)) as gateway:
            assert gateway.get("/none")[0] == 200
            assert gateway.stop() == 0
            assert gateway.access == []


def test_level_of_the_log() -> None:
    """level: error keeps quiet about ordinary events."""
    with HttpBackend() as backend:
        config = http_gateway(backend.address).replace('"server"', '"logging": {"level": "error"}, "server"', 1)
        gateway = Gateway(config, wait=False)
        with gateway:
            wait_for(lambda: _serves(gateway), what="the gateway")
            assert gateway.stop() == 0
            assert gateway.log == []


def _serves(gateway: Gateway) -> bool:
    """Whether it has workers: its ports are unknown without the ready line."""
    import psutil

    return len(psutil.Process(gateway.process.pid).children(recursive=True)) >= 3
