"""forwardAuth through whole gateways of two workers: a real HTTP service decides, and without it nobody passes."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from doubles.configs import ANY, gateway_config
from doubles.gateway import Gateway, wait_for
from doubles.gateway_clients import Client, a_client_per_worker
from doubles.http_backend import HttpBackend

Fields = dict[str, str]
KEY = "gg_an-api-key-before-the-service"


class Service(ThreadingHTTPServer):
    """Decides: ``status``, ``fields`` and ``body`` are its answer, ``raw`` replaces all of it, ``held`` keeps it back.

    ``asked`` has the request lines and fields of its questions (the last of several lines of a name).
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Decision)
        self.asked: list[tuple[str, Fields]] = []
        self.connections = 0
        self.may_answer = threading.Event()
        self.reset()

    def reset(self) -> None:
        """Let everybody pass."""
        self.status = 200
        self.fields: list[tuple[str, str]] = []
        self.body = b""
        self.raw = b""
        self.may_answer.set()
        self.asked.clear()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A gateway that does not wait is part of the tests."""


class _Decision(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        service = self.server
        service.asked.append((self.requestline, {name.lower(): value for name, value in self.headers.items()}))
        service.may_answer.wait(20.0)
        if service.raw:
            self.wfile.write(service.raw)
            self.close_connection = True
            return
        self.send_response(service.status)
        for name, value in service.fields:
            self.send_header(name, value)
        if service.status not in (204, 304):
            self.send_header("Content-Length", str(len(service.body)))
        self.end_headers()
        self.wfile.write(service.body)

    def log_message(self, *args: object) -> None:
        """Quiet."""


class Site:
    """A gateway that asks a service, and its backend."""

    def __init__(self, gateway: Gateway, backend: HttpBackend, service: Service) -> None:
        self.gateway = gateway
        self.backend = backend
        self.service = service

    def values(self, name: bytes) -> list[bytes]:
        """Every line that the last request to the backend had of a field."""
        lines = [line.partition(b": ") for line in self.backend.heads[-1].split(b"\r\n")[1:]]
        return [value for found, _, value in lines if found.lower() == name]


@pytest.fixture(scope="module")
def running() -> Iterator[Site]:
    with HttpBackend() as backend, Service() as service:
        thread = threading.Thread(target=service.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{service.server_port}/verify?for=gogate"
        forward_auth = {"url": url, "timeout": "20s", "responseHeaders": ["X-Tenant", "X-Roles"]}
        chosen = {**forward_auth, "requestHeaders": ["Authorization", "X-Shown"], "responseHeaders": ["X-Tenant"]}
        config = gateway_config(
            {"httpListenAddr": ANY, "health": {"enabled": False}},
            pools={"web": {"backends": [backend.address]}},
            routes=[
                {"name": "open", "pool": "web"},
                {"name": "asked", "pool": "web", "match": {"pathPrefix": "/asked"}, "forwardAuth": forward_auth},
                {"name": "chosen", "pool": "web", "match": {"pathPrefix": "/chosen"}, "forwardAuth": chosen,
                 "stripPrefix": True},
                {"name": "hurried", "pool": "web", "match": {"pathPrefix": "/hurried"},
                 "forwardAuth": {**forward_auth, "timeout": "200ms"}},
                {"name": "both", "pool": "web", "match": {"pathPrefix": "/both"}, "forwardAuth": forward_auth,
                 "auth": {"type": "api_key", "keys": {"ci": hashlib.sha256(KEY.encode()).hexdigest()}}},
                {"name": "cors", "pool": "web", "match": {"pathPrefix": "/cors"}, "forwardAuth": forward_auth,
                 "cors": {"allowOrigins": ["https://app.example.com"]}},
            ],
        )
        with Gateway(config) as gateway:
            yield Site(gateway, backend, service)
        service.may_answer.set()
        service.shutdown()
        thread.join()


@pytest.fixture
def site(running: Site) -> Site:
    """The gateway, with a service that lets everybody pass."""
    running.service.reset()
    return running


@pytest.fixture
def clients(site: Site) -> Iterator[list[Client]]:
    """One kept connection to each worker."""
    with a_client_per_worker(site.gateway, site.backend, 2) as clients:
        yield clients


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_2xx_lets_pass_with_chosen_fields(site: Site, clients: list[Client], status: int) -> None:
    """A 2xx passes; the backend gets the named fields of the service's answer, each as one line, and nothing else."""
    site.service.status = status
    site.service.fields = [("X-Tenant", "acme"), ("X-Roles", "reader"), ("X-Roles", "writer"), ("X-Other", "secret")]
    for client in clients:
        before = site.backend.requests
        answer, headers, body = client.get("/asked/x", X_Tenant="root", x_roles="root", X_Mine="1")
        assert (answer, body) == (200, b"hello from backend\n")
        assert headers["X-Tenant"] is None
        assert site.backend.requests == before + 1
        assert site.values(b"x-tenant") == [b"acme"]
        assert site.values(b"x-roles") == [b"reader, writer"]
        assert site.values(b"x-mine") == [b"1"]
        assert b"root" not in site.backend.heads[-1]
        assert b"secret" not in site.backend.heads[-1]
    assert len(site.service.asked) == 2


def test_what_the_service_is_asked(site: Site, clients: list[Client]) -> None:
    """It is asked by GET without a body, about the request as it came; what a client says of forwarding is not passed.
    """
    host, port = site.gateway.address("http:default")
    for client in clients:
        fields = {"X_Forwarded_Uri": "/public", "X_Forwarded_Method": "GET", "X_Forwarded_For": "192.0.2.1",
                  "X_Forwarded_Host": "evil.example.com", "X_Original_URL": "/public", "Cookie": "session=1",
                  "Authorization": "Bearer abc", "Range": "bytes=0-3", "If_None_Match": '"x"', "X_Tenant": "root",
                  "Connection": "keep-alive, X-Hop", "X_Hop": "1"}
        status, _, _ = client.ask("POST", "/asked/./b/../a%2Db?x=1&y=%20", b"the body", **fields)
        assert status == 200
        line, shown = site.service.asked[-1]
        assert line == "GET /verify?for=gogate HTTP/1.1"
        assert shown["x-forwarded-method"] == "POST"
        assert shown["x-forwarded-uri"] == "/asked/a-b?x=1&y=%20"
        assert shown["x-forwarded-host"] == f"{host}:{port}"
        assert shown["x-forwarded-proto"] == "http"
        assert shown["x-forwarded-for"] == "127.0.0.1"
        assert (shown["cookie"], shown["authorization"]) == ("session=1", "Bearer abc")
        assert shown["x-request-id"].encode() == site.values(b"x-request-id")[0]
        assert shown["host"] == f"127.0.0.1:{site.service.server_port}"
        for name in ("content-length", "transfer-encoding", "range", "if-none-match", "x-tenant", "x-hop"):
            assert name not in shown, name
        assert site.values(b"range") == [b"bytes=0-3"]  # the backend gets what was sent


def test_only_the_named_fields_are_shown(site: Site, clients: list[Client]) -> None:
    """With requestHeaders the service sees these of the request and no others; it is asked before any rewriting."""
    fields = {"Authorization": "Bearer abc", "X_Shown": "1", "X_Not_Shown": "1", "Cookie": "session=1"}
    for client in clients:
        assert client.get("/chosen/x?y=1", **fields)[0] == 200
        shown = site.service.asked[-1][1]
        assert (shown["authorization"], shown["x-shown"]) == ("Bearer abc", "1")
        assert not {"x-not-shown", "cookie"} & shown.keys()
        assert shown["x-forwarded-uri"] == "/chosen/x?y=1"
        assert site.backend.heads[-1].startswith(b"GET /x?y=1 ")


@pytest.mark.parametrize(("status", "fields", "body"), [
    (401, {"WWW-Authenticate": 'Basic realm="inner"', "Content-Type": "text/html"}, b"<p>who are you?</p>"),
    (403, {"Content-Type": "application/json", "Cache-Control": "no-store"}, b'{"error": "no"}'),
    (302, {"Location": "https://login.example.com/?rd=%2Fx", "Set-Cookie": "state=1; HttpOnly"}, b""),
    (307, {"Location": "/login"}, b"there"),
    (404, {}, b"not here"),
    (429, {"Retry-After": "7"}, b"slowly"),
    (500, {}, b"it broke"),
])  # fmt: skip
def test_other_answers_are_the_answer(
    site: Site, clients: list[Client], status: int, fields: Fields, body: bytes
) -> None:
    """Anything but 2xx is given to the client, body and useful fields included, and no backend is asked."""
    site.service.status, site.service.body = status, body
    others = {"X-Tenant": "acme", "X-Internal": "1", "Access-Control-Allow-Origin": "*"}
    site.service.fields = [*fields.items(), *others.items()]
    for client in clients:
        before = site.backend.requests
        for method in ("GET", "POST"):
            answer, headers, told = client.ask(method, "/asked/x", b"data" if method == "POST" else b"")
            assert (answer, told) == (status, body)
            assert {name: headers[name] for name in fields} == fields
            assert headers["X-Request-ID"]
            for name in (*others, "Server"):
                assert headers[name] is None, name
        answer, headers, told = client.ask("HEAD", "/asked/x", b"")
        assert (answer, told) == (status, b"")
        assert site.backend.requests == before
        assert client.get("/")[0] == 200  # the connection goes on


RAW = {
    "nothing": b"\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "cut head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "cut body": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
    "cut chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello",
    "large head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "large body": b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000,
}


@pytest.mark.parametrize("raw", RAW)
def test_what_is_no_answer_lets_nobody_pass(site: Site, clients: list[Client], raw: str) -> None:
    """An answer that is cut, too large or not HTTP is 503, even if it began with 200; afterwards all is as before."""
    for client in clients:
        before = site.backend.requests
        site.service.raw = RAW[raw]
        status, _, body = client.get("/asked/x")
        assert (status, json.loads(body)["reason"]) == (503, "forward_auth_failed")
        assert site.backend.requests == before
        site.service.reset()
        assert client.get("/asked/x")[0] == 200


def test_a_slow_service_lets_nobody_pass(site: Site, clients: list[Client]) -> None:
    """No answer within timeout is 503; once the service answers again its word counts."""
    before = site.backend.requests
    site.service.may_answer.clear()
    for client in clients:
        status, _, body = client.get("/hurried/x")
        assert (status, json.loads(body)["reason"]) == (503, "forward_auth_failed")
    assert site.backend.requests == before
    site.service.may_answer.set()
    for client in clients:
        assert client.get("/hurried/x")[0] == 200
    wait_for(
        lambda: site.gateway.metric("gogate_local_responses_total", reason="forward_auth_failed") >= 2,
        what="the counts",
    )


def test_a_service_that_is_down_lets_nobody_pass() -> None:
    """While the service cannot be reached its routes are 503 and others work; when it is back they work, too."""
    with HttpBackend() as backend, HttpBackend("service") as service:
        config = gateway_config(
            {"httpListenAddr": ANY, "health": {"enabled": False}},
            pools={"web": {"backends": [backend.address]}},
            routes=[
                {"name": "open", "pool": "web"},
                {"name": "asked", "pool": "web", "match": {"pathPrefix": "/asked"},
                 "forwardAuth": {"url": f"http://{service.address}/", "timeout": "5s"}},
            ],
        )
        with Gateway(config) as gateway, a_client_per_worker(gateway, backend, 2) as clients:
            assert [client.get("/asked")[0] for client in clients] == [200, 200]
            service.stop_listening()
            before = backend.requests
            for _ in range(2):
                assert [client.get("/asked")[0] for client in clients] == [503, 503]
            assert backend.requests == before
            assert [client.get("/")[0] for client in clients] == [200, 200]
            service.listen()
            assert [client.get("/asked")[0] for client in clients] == [200, 200]


def test_fields_of_the_service_come_from_nobody_else(site: Site, clients: list[Client]) -> None:
    """responseHeaders are removed from every request, on routes without forwardAuth and where its answer has none."""
    for client in clients:
        for path in ("/", "/asked/x", "/chosen/x", "/cors/x"):
            for name in ("X_Tenant", "X_Roles"):
                assert client.get(path, **{name: "root"})[0] == 200
                assert b"root" not in site.backend.heads[-1]
            client._connection.request("GET", path, headers={"x_tenant": "root", "X.Roles": "root"})
            assert client._connection.getresponse().read() == b"hello from backend\n"
            assert b"root" not in site.backend.heads[-1]


def test_own_authentication_comes_first(site: Site, clients: list[Client]) -> None:
    """Who does not pass the route's auth is not asked about; who does is, and the key stays hidden from the backend."""
    for client in clients:
        site.service.reset()
        assert client.get("/both/x")[0] == 401
        assert client.get("/both/x", X_API_Key="wrong")[0] == 401
        assert site.service.asked == []
        site.service.status = 403
        assert client.get("/both/x", X_API_Key=KEY)[0] == 403
        site.service.status = 200
        assert client.get("/both/x", X_API_Key=KEY)[0] == 200
        assert len(site.service.asked) == 2
        assert KEY.encode() not in site.backend.heads[-1]


def test_preflights_are_not_asked_about(site: Site, clients: list[Client]) -> None:
    """A preflight passes without the service; its refusal of the request itself carries the CORS fields."""
    origin = "https://app.example.com"
    site.service.status = 401
    status, headers, _ = clients[0].ask(
        "OPTIONS", "/cors/x", b"", Origin=origin, Access_Control_Request_Method="POST"
    )
    assert (status, headers["Access-Control-Allow-Origin"], site.service.asked) == (204, origin, [])
    status, headers, _ = clients[0].get("/cors/x", Origin=origin)
    assert (status, headers["Access-Control-Allow-Origin"], len(site.service.asked)) == (401, origin, 1)


def test_upgrades_are_asked_about(site: Site, clients: list[Client]) -> None:
    """A WebSocket handshake is decided like any request, and the service is not asked to upgrade."""
    site.service.status = 401
    key = base64.b64encode(b"0123456789abcdef").decode()
    before = site.backend.requests
    for client in clients:
        status, _, _ = client.get(
            "/asked/ws", Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Key=key, Sec_WebSocket_Version="13"
        )
        assert status == 401
        assert site.service.asked[-1][1].get("upgrade") is None
    assert site.backend.requests == before


def test_connections_to_the_service_are_kept(site: Site, clients: list[Client]) -> None:
    """Questions one after the other use one connection of the worker."""
    clients[0].get("/asked/x")
    before = site.service.connections
    for _ in range(20):
        assert clients[0].get("/asked/x")[0] == 200
    assert site.service.connections == before
    assert len(site.service.asked) == 21


def test_what_is_shown_to_the_service_is_not_logged(site: Site, clients: list[Client]) -> None:
    """Neither what the service was asked with nor what it answered is in a log, and its refusals say whose they are."""
    site.service.status, site.service.body = 403, b"a-body-of-the-service"
    site.service.fields = [("Set-Cookie", "a-cookie-of-the-service")]
    for client in clients:
        client.get("/asked/told", Authorization="Bearer a-token-of-the-client", Cookie="a-cookie-of-the-client")
    site.service.raw = b"a-line-of-the-service\r\n\r\n"
    for client in clients:
        client.get("/asked/told", Authorization="Bearer a-token-of-the-client")

    def lines() -> list[tuple[int, str]]:
        return [(line["status"], line["reason"]) for line in site.gateway.access if line["path"] == "/asked/told"]

    wait_for(lambda: len(lines()) == 4, what="the access lines")
    assert sorted(lines()) == [(403, "forward_auth")] * 2 + [(503, "forward_auth_failed")] * 2
    told = json.dumps([site.gateway.log, site.gateway.access])
    for secret in ("-of-the-service", "-of-the-client"):
        assert secret not in told
