"""The admin listeners end to end: real uvicorn, real sockets, raw requests (SECURITY.md T22)."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from admin_harness import CONFIG, TOKEN, AdminHarness, admin_api, read_all
from doubles.gateway import wait_for

from gogate_py.controlplane import admin_connection, admin_server
from gogate_py.controlplane.admin_server import AdminServers

BEARER = f"Authorization: Bearer {TOKEN}\r\n"
WRONG = "Authorization: Bearer guess\r\n"
JSON = "Content-Type: application/json\r\n"
SERVICE = json.dumps({"id": "raw", "name": "api", "address": "127.0.0.1:9003"})


@pytest.fixture(scope="module")
def api() -> Iterator[AdminHarness]:
    """One admin API for the requests that leave nothing behind."""
    with admin_api() as harness:
        yield harness


def request(start: str, headers: str = "", body: str = "", host: str = "localhost") -> bytes:
    """A raw request whose answer ends the connection."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{start} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}{length}\r\n{body}".encode("latin-1")


def status_of(answer: bytes) -> int:
    """The status of the first answer, 0 when there is none."""
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0


def parts(answer: bytes) -> tuple[dict[str, str], Any]:
    """(headers, decoded JSON body) of one answer with a length."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = [line.partition(": ") for line in head.decode().split("\r\n")[1:]]
    return {name.lower(): value for name, _, value in lines}, json.loads(body)


@pytest.mark.parametrize(("expected", "stranger", "data"), [
    # 1-6: reading is open
    (200, False, request("GET /backends")),
    (200, True,  request("GET /backends")),
    (200, True,  request("GET /metrics", WRONG, host="evil.example")),
    (200, True,  request("GET /healthz", "Origin: http://evil.example\r\n", host="evil.example")),
    (200, False, request("HEAD /stats")),
    (200, True,  b"GET /ready HTTP/1.0\r\n\r\n"),
    # 7-12: changes from this machine, from elsewhere, with and without the token
    (200, False, request("POST /backends/127.0.0.1%3A9001/undrain")),
    (401, True,  request("POST /backends/127.0.0.1%3A9001/drain")),
    (401, True,  request("POST /backends/127.0.0.1%3A9001/drain", WRONG)),
    (200, True,  request("POST /backends/127.0.0.1%3A9001/undrain", BEARER)),
    (401, False, request("POST /backends/127.0.0.1%3A9001/drain", "X-Forwarded-For: 127.0.0.1\r\n")),
    (401, True,  request("PUT /v1/services/raw/heartbeat")),
    # 13-18: browsers
    (421, False, request("GET /backends", host="rebind.example")),
    (421, False, request("POST /v1/services", JSON, SERVICE, host="rebind.example")),
    (200, True,  request("GET /backends", BEARER, host="rebind.example")),
    (403, False, request("POST /backends/127.0.0.1%3A9001/drain", "Origin: http://evil.example\r\n")),
    (403, False, request("OPTIONS /v1/services", "Origin: null\r\nAccess-Control-Request-Method: POST\r\n")),
    (415, False, request("POST /v1/services", "Content-Type: text/plain\r\n", SERVICE)),
    # 19-24: malformed
    (400, False, b"GET /backends HTTP/1.1\r\n\r\n"),
    (400, False, b"GET /backends HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
    (400, False, b"GET /backends HTTP/1.1\r\nHost localhost\r\n\r\n"),
    (400, False, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    (400, False, b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    (431, False, request("GET /backends", "X-Filler: " + "x" * 40_000 + "\r\n")),
    # and some more
    (431, False, request("GET /backends", "X-Filler: x\r\n" * 120)),
    (431, False, request("GET /" + "x" * 40_000)),
    (405, False, request("TRACE /backends")),
    (400, False, request("POST /v1/services", JSON + "Transfer-Encoding: chunked\r\n", SERVICE)),
])  # fmt: skip
def test_matrix(api: AdminHarness, expected: int, stranger: bool, data: bytes) -> None:
    """T22: who may ask what, over real connections; nothing that was refused changed anything."""
    answer = api.raw(data, stranger=stranger)
    assert status_of(answer) == expected, answer[:300]
    lower = answer.lower()
    assert b"access-control-" not in lower
    assert b"\r\nserver:" not in lower
    if expected >= 400 and not data.startswith(b"HEAD"):
        headers, problem = parts(answer)
        assert headers["content-type"] == "application/problem+json"
        assert problem["status"] == expected
        assert problem["type"] == "about:blank"
        assert problem["title"]
        assert problem["detail"]
        assert TOKEN not in answer.decode("latin-1")
    assert not any(view.draining for view in api.control.backends())
    assert api.control.registration("raw") is None


def test_without_a_token_other_hosts_are_told_what_to_set() -> None:
    """A listener that is open to others without a token refuses their changes with the setting's name."""
    with admin_api(CONFIG % "") as api:
        answer = api.ask("POST", "/backends/127.0.0.1:9001/drain", headers={"Host": "localhost"}, stranger=True)
        assert answer.status == 403
        assert "server.admin.token" in answer.json["detail"]
        assert api.ask("POST", "/backends/127.0.0.1:9001/drain").status == 200


def test_guessing_tokens_is_slowed_down() -> None:
    """The eleventh wrong token in a minute is 429 with Retry-After, and then so is the right one, for that client."""
    with admin_api() as api:
        wrong = {"Authorization": "Bearer guess"}
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert [api.ask("GET", "/stats", headers=wrong, stranger=True).status for _ in range(11)] == [401] * 10 + [429]
        answer = api.ask("GET", "/stats", headers=right, stranger=True)
        assert answer.status == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert api.ask("GET", "/stats", headers=right).status == 200


def test_every_change_leaves_an_audit_line(caplog: pytest.LogCaptureFixture) -> None:
    """Changes, done and refused, are logged with method, path, client and status; reads and good heartbeats are not."""
    with admin_api() as api, caplog.at_level(logging.INFO, "gogate.audit"):
        api.ask("GET", "/backends")
        api.ask("POST", "/v1/services", {"id": "a", "name": "api", "address": "127.0.0.1:9003"})
        api.ask("PUT", "/v1/services/a/heartbeat")
        api.ask("PUT", "/v1/services/b/heartbeat")
        api.ask("DELETE", "/v1/services/a", stranger=True)
        # A line is written when its answer is on the way, so the last may come after it.
        records = wait_for(lambda: len(found := [r for r in caplog.records if r.name == "gogate.audit"]) >= 3 and found)
        lines = [(vars(r)["method"], vars(r)["path"], vars(r)["client"], vars(r)["status"]) for r in records]
    assert lines == [
        ("POST", "/v1/services", "127.0.0.1", 201),
        ("PUT", "/v1/services/b/heartbeat", "127.0.0.1", 404),
        ("DELETE", "/v1/services/a", "203.0.113.2", 401),
    ]


def test_heartbeats_obey_the_same_rules(api: AdminHarness) -> None:
    """The fast way of heartbeats is no way around the token, the Host or the Origin."""
    assert api.ask("POST", "/v1/services", {"id": "beat", "name": "api", "address": "127.0.0.1:9004"}).status == 201
    path = "/v1/services/beat/heartbeat"
    try:
        assert api.ask("PUT", path).status == 204
        assert api.ask("PUT", path, {}).status == 204
        assert api.ask("PUT", path, stranger=True).status == 401
        assert api.ask("PUT", path, headers={"Authorization": f"Bearer {TOKEN}"}, stranger=True).status == 204
        assert api.ask("PUT", path, headers={"Host": "evil.example"}).status == 421
        assert api.ask("PUT", path, headers={"Origin": "http://evil.example"}).status == 403
        assert api.ask("PUT", path, b"{}", {"Content-Type": "text/plain"}).status == 415
        assert api.ask("POST", path).status == 405
    finally:
        assert api.ask("DELETE", "/v1/services/beat").status == 204


def test_several_heartbeats_at_once_on_one_connection(api: AdminHarness) -> None:
    """Pipelined requests are answered in order."""
    api.ask("POST", "/v1/services", {"id": "pipe", "name": "api", "address": "127.0.0.1:9005"})
    beat = b"PUT /v1/services/pipe/heartbeat HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = api.raw(beat * 3 + request("DELETE /v1/services/pipe"))
    assert answer.count(b"HTTP/1.1 204 ") == 4
    assert api.control.registration("pipe") is None


class TestLimits:
    """Size, time and number."""

    def test_a_body_beyond_1_mib_is_413(self, api: AdminHarness) -> None:
        """The answer reaches a client that is still sending, with a declared length and without."""
        body = b'{"name": "' + b"x" * (1 << 20) + b'"}'
        for framing in (
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body),
            b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body),
        ):
            head = b"POST /v1/services HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            with api.connect() as sock:
                sock.sendall(head + framing)
                assert status_of(sock.recv(65536)) == 413

    def test_a_body_of_almost_1_mib_is_read(self, api: AdminHarness) -> None:
        """What fits is judged by what it says."""
        answer = api.ask("POST", "/v1/services", {"name": "x" * ((1 << 20) - 100)})
        assert (answer.status, answer.json["field"]) == (400, "name")

    @pytest.mark.parametrize(
        ("sent", "expected"),
        [
            (b"GET /stats HTTP/1.1\r\nHost: local", 408),
            (b"POST /v1/services HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
             b"Content-Length: 10\r\n\r\n{", 408),
            (b"\r\n\r\n", 408),
            (b"", 0),
        ],
        ids=["half a head", "half a body", "only line ends", "nothing"],
    )
    def test_slow_requests_are_cut(self, sent: bytes, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """A request that is not complete in time is answered 408 and closed; who says nothing is closed."""
        monkeypatch.setattr(admin_connection, "REQUEST_TIMEOUT", 0.1)
        with admin_api() as api:
            assert status_of(api.raw(sent)) == expected

    def test_slow_second_request(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The clock runs for each request of a connection, and not while an answer is awaited."""
        monkeypatch.setattr(admin_connection, "REQUEST_TIMEOUT", 0.1)
        with admin_api() as api, api.connect() as sock:
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert status_of(sock.recv(65536)) == 200
            sock.sendall(b"GET /he")
            assert status_of(read_all(sock)) == 408

    def test_a_head_in_many_pieces_is_limited_too(self, api: AdminHarness) -> None:
        """431 as soon as the limit is passed, without waiting for the head's end."""
        with api.connect() as sock:
            sock.sendall(b"GET /stats HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
            try:
                for _ in range(40):
                    sock.sendall(b"x" * 1024)
            except (BrokenPipeError, ConnectionResetError):
                pass
            answer = read_all(sock)
        assert status_of(answer) in (431, 0)  # 0: the reset was faster than the answer
        assert api.ask("GET", "/health").status == 200

    def test_quota(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Beyond the quota 503, except probes, scrapes and heartbeats; idle connections make room; the cap cuts."""
        monkeypatch.setattr(admin_connection, "QUOTA", 4)
        monkeypatch.setattr(admin_connection, "MAX_CONNECTIONS", 8)
        with admin_api() as api:
            server = api.servers._servers["admin"]

            def open_connections() -> int:
                return len(server.server_state.connections)

            api.ask("POST", "/v1/services", {"id": "q", "name": "api", "address": "127.0.0.1:9003"})
            wait_for(lambda: open_connections() == 0)
            busy = [api.connect() for _ in range(4)]
            for sock in busy:
                sock.sendall(b"GET /stats HTTP/1.1\r\n")  # asked, not wholly
            wait_for(lambda: open_connections() == 4)
            answer = api.ask("GET", "/stats")
            assert answer.status == 503
            assert answer.headers["connection"] == "close"
            assert "retry-after" in answer.headers
            for method, path, expected in (
                ("GET", "/health", 200),
                ("GET", "/metrics", 200),
                ("PUT", "/v1/services/q/heartbeat", 204),
                ("DELETE", "/v1/services/q", 503),
            ):
                assert api.ask(method, path).status == expected
            # One of them becomes idle, and has to go for the next that comes.
            busy[0].sendall(b"Host: localhost\r\n\r\n")
            assert status_of(busy[0].recv(65536)) == 200
            assert api.ask("GET", "/stats").status == 200
            assert read_all(busy[0]) == b""
            # The cap: connections beyond it are cut without an answer.
            wait_for(lambda: open_connections() == 3)
            more = [api.connect() for _ in range(8)]
            closed = wait_for(lambda: [sock for sock in more if _is_closed(sock)], what="a cut connection")
            assert len(closed) <= 3
            for sock in busy + more:
                sock.close()
            wait_for(lambda: open_connections() == 0)
            assert api.ask("GET", "/stats").status == 200


def _is_closed(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_each_listener_serves_its_own() -> None:
    """The metrics listener scrapes and no more, the registry listener registers and no more, by the same rules."""
    with admin_api(listeners=("admin", "metrics", "registry")) as api:
        expected = {
            "metrics": {"/metrics": 200, "/health": 200, "/v1/services": 404, "/backends": 404, "/": 200},
            "registry": {"/metrics": 404, "/ready": 200, "/v1/services": 200, "/backends": 404, "/": 200},
            "admin": {"/metrics": 200, "/ready": 200, "/v1/services": 200, "/backends": 200, "/": 200},
        }
        for listener, paths in expected.items():
            assert {path: api.ask("GET", path, listener=listener).status for path in paths} == paths
        body = {"id": "r", "name": "api", "address": "127.0.0.1:9003"}
        assert api.ask("POST", "/v1/services", body, listener="registry", stranger=True).status == 401
        assert api.ask("POST", "/v1/services", body, listener="registry").status == 201
        assert api.ask("PUT", "/v1/services/r/heartbeat", listener="registry").status == 204
        assert api.ask("PUT", "/v1/services/r/heartbeat", listener="metrics").status == 404
        own = f"127.0.0.1:{api.addresses['metrics'][1]}"
        assert api.ask("POST", "/v1/services", {**body, "address": own}).status == 403


def test_a_unix_socket_is_this_machine(api: AdminHarness, tmp_path: Path) -> None:
    """Who may open the socket may make changes: its file's permissions decided. A proxy's client still may not."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.setblocking(False)
        listening.bind(str(tmp_path / "admin.sock"))
        listening.listen()

        async def make() -> AdminServers:
            servers = AdminServers(api.control, api.supervisor, api.totals, {"admin": listening})
            await servers.start()
            return servers

        servers = api.call(make())
        undrain = "POST /backends/127.0.0.1%3A9001/undrain"
        for headers, expected in (("", 200), ("X-Forwarded-For: 1.2.3.4\r\n", 401)):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "admin.sock"))
                client.sendall(request(undrain, headers))
                assert status_of(read_all(client)) == expected
        api.call(servers.stop(1.0))


def test_an_unexpected_error_is_500_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in an endpoint answers a problem that gives nothing away, is logged and counted, and the API goes on."""
    with admin_api(errors=1) as api:
        monkeypatch.setattr(api.control, "backends", lambda: 1 / 0)
        answer = api.ask("GET", "/backends")
        monkeypatch.undo()
        assert answer.status == 500
        assert answer.headers["content-type"] == "application/problem+json"
        assert "division" not in answer.body.decode()
        assert api.totals.counter("gogate_internal_errors_total")["supervisor",] == 1
        assert api.ask("GET", "/health").status == 200


def test_stop_ends_what_is_idle_and_waits_for_nobody() -> None:
    """Stopping closes idle connections, half-sent requests and the listeners, and takes no longer than its grace."""
    with admin_api() as api:
        idle, half = api.connect(), api.connect()
        idle.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert status_of(idle.recv(65536)) == 200
        half.sendall(b"GET /he")
        api.call(asyncio.wait_for(api.servers.stop(1.0), 5.0))
        assert read_all(idle) == b""
        read_all(half)
        with pytest.raises(ConnectionRefusedError):
            api.connect()
        idle.close()
        half.close()


def test_signals_are_left_alone() -> None:
    """Serving changes no signal handler: they are the supervisor's."""

    async def serve() -> None:
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            """Never called."""

        server = admin_server._Uvicorn(admin_server._uvicorn_config(app))
        task = asyncio.get_running_loop().create_task(server.serve([sock]))
        await server.serving.wait()
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
        server.leave(0.5)
        await task

    assert threading.current_thread() is threading.main_thread()
    asyncio.run(serve())
