"""Real clients (curl, requests, httpx, aiohttp, websockets) through the HTTP listener to uvicorn and nginx."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import http.client
import json
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import requests
import websockets
import websockets.sync.client
from conftest import need_program
from doubles.configs import ANY, gateway_config
from doubles.gateway import Gateway, wait_for
from doubles.load import in_threads, sampled_memory
from doubles.noise import blocks, digest
from doubles.servers import nginx, uvicorn_app

MEBIBYTE = 1 << 20
LARGE = 256 * MEBIBYTE
FILES = {"index.html": b"<p>from nginx</p>\n", "large": b"".join(blocks(4, 16 * MEBIBYTE)), "empty": b""}


class Site:
    """A gateway before uvicorn (/, and over a Unix socket as unix.test) and nginx (/files, /who)."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.host, self.port = gateway.address("http:default")
        self.url = f"http://{self.host}:{self.port}"

    def curl(self, *arguments: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """A curl that must succeed."""
        command = [need_program("curl"), "-sS", "--max-time", "60", *arguments]
        done = subprocess.run(command, input=data, capture_output=True, timeout=70)
        assert done.returncode == 0, done.stderr
        return done

    def connect(self) -> http.client.HTTPConnection:
        """A client of the standard library."""
        return http.client.HTTPConnection(self.host, self.port, timeout=60)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with (
        tempfile.TemporaryDirectory() as folder, uvicorn_app() as app, uvicorn_app(f"{folder}/app.sock"),
        nginx(FILES) as web,
    ):
        pools = {
            "app": {"backends": [f"127.0.0.1:{app}"]},
            "unix": {"backends": [f"unix:{folder}/app.sock"]},
            "nobody": {"backends": ["127.0.0.1:1"], "health": {"enabled": False}},
            "web": {"backends": [f"127.0.0.1:{web}"], "health": {"checkType": "http", "httpPath": "/health"}},
        }
        routes = [
            {"name": "app", "pool": "app"},
            {"name": "unix", "pool": "unix", "match": {"host": "unix.test"}},
            {"name": "files", "pool": "web", "match": {"pathPrefix": "/files"}},
            {"name": "nobody", "pool": "nobody", "match": {"pathPrefix": "/nobody"}},
            {"name": "who", "pool": "web", "match": {"path": "/who", "methods": ["GET"]}},
        ]
        with Gateway(gateway_config({"httpListenAddr": ANY}, pools=pools, routes=routes)) as gateway:
            yield Site(gateway)


def _fields(told: dict[str, Any]) -> dict[str, str]:
    return dict(told["headers"])


# --- curl


def test_curl_get(site: Site) -> None:
    """The backend sees the client's Host, who asked, and a request id that the access log has too."""
    out = site.curl(f"{site.url}/a/b?x=1&y=%20", "-H", "X-Mine: kept", "-H", "X-Forwarded-For: 6.6.6.6").stdout
    told = json.loads(out)
    fields = _fields(told)
    assert (told["method"], told["path"], told["query"], told["http_version"]) == ("GET", "/a/b", "x=1&y=%20", "1.1")
    assert fields["host"] == f"{site.host}:{site.port}"
    assert fields["x-mine"] == "kept"
    assert fields["x-forwarded-for"] == "127.0.0.1"
    assert fields["x-real-ip"] == "127.0.0.1"
    assert fields["x-forwarded-proto"] == "http"
    assert fields["x-forwarded-host"] == f"{site.host}:{site.port}"
    assert "via" not in fields
    mine = fields["x-request-id"]
    line = wait_for(lambda: [x for x in site.gateway.access if x["request_id"] == mine], what="the access line")[0]
    assert (line["method"], line["status"], line["route"]) == ("GET", 200, "app")


def test_curl_keeps_its_connection(site: Site) -> None:
    """Three requests of one curl go over one connection, to two different servers."""
    urls = [f"{site.url}/one", f"{site.url}/files/index.html", f"{site.url}/three"]
    out = site.curl(*["-o", "/dev/null"] * 3, "-w", "%{num_connects} %{http_code}\n", *urls)
    assert out.stdout == b"1 200\n0 200\n0 200\n"


def test_curl_http10(site: Site) -> None:
    """An HTTP/1.0 client gets an answer without chunks, delimited by the connection's end where no length is known."""
    out = site.curl("--http1.0", "-i", f"{site.url}/download?size=100000&chunked=1").stdout
    head, _, body = out.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert hashlib.sha256(body).hexdigest() == digest(1, 100_000)
    # HTTP/1.0 with keep-alive
    out = site.curl("--http1.0", "-H", "Connection: keep-alive", "-o", "/dev/null", "-o", "/dev/null", "-w",
                    "%{num_connects}", f"{site.url}/files/index.html", f"{site.url}/files/index.html")
    assert out.stdout == b"10"


def test_curl_upload_with_expect(site: Site, tmp_path: Path) -> None:
    """curl -T asks with Expect: 100-continue, gets the backend's go-ahead, and the file arrives whole."""
    file = tmp_path / "file"
    file.write_bytes(b"".join(blocks(7, 8 * MEBIBYTE)))
    done = site.curl("-v", "-T", str(file), "-H", "Expect: 100-continue", f"{site.url}/put/file")
    told = json.loads(done.stdout)
    assert (told["method"], told["path"], told["size"], told["sha256"]) == (
        "PUT", "/put/file", 8 * MEBIBYTE, digest(7, 8 * MEBIBYTE))
    assert b"< HTTP/1.1 100" in done.stderr
    assert b"Expect: 100-continue" in done.stderr


def test_curl_chunked_upload(site: Site) -> None:
    """A body of unknown length (curl -T -) is streamed in chunks and arrives whole, also over HTTP to a Unix socket."""
    data = b"".join(blocks(8, 5 * MEBIBYTE))
    for host in ("app.test", "unix.test"):
        told = json.loads(site.curl("-T", "-", "-H", f"Host: {host}", f"{site.url}/put", data=data).stdout)
        assert (told["size"], told["sha256"]) == (5 * MEBIBYTE, digest(8, 5 * MEBIBYTE))
        assert _fields(told)["transfer-encoding"] == "chunked"
        assert _fields(told)["host"] == host


def test_curl_head(site: Site) -> None:
    """HEAD gets the length that GET would have, no body, and leaves the connection usable."""
    out = site.curl("-I", f"{site.url}/files/large", "--next", "-sS", f"{site.url}/files/index.html")
    head, _, body = out.stdout.partition(b"\r\n\r\n")
    assert b"Content-Length: %d\r\n" % (16 * MEBIBYTE) in head
    assert body == FILES["index.html"]


def test_curl_unknown_expectation(site: Site) -> None:
    """An expectation other than 100-continue is refused with 417."""
    out = site.curl("-o", "/dev/null", "-w", "%{http_code}", "-H", "Expect: wonders", f"{site.url}/")
    assert out.stdout == b"417"


def test_errors_come_as_the_client_likes(site: Site) -> None:
    """gogate's own answers are problem+json, or text for a client that asks for text; each carries the request id."""
    answer = requests.get(f"{site.url}/nobody", headers={"X-Request-ID": "mine-1"}, timeout=10)
    assert (answer.status_code, answer.headers["Content-Type"]) == (502, "application/problem+json")
    problem = answer.json()
    assert (problem["status"], problem["reason"]) == (502, "connect_failed")
    assert problem["request_id"] == answer.headers["X-Request-ID"] == "mine-1"
    text = requests.get(f"{site.url}/nobody", headers={"Accept": "text/plain"}, timeout=10)
    assert text.headers["Content-Type"].startswith("text/plain")
    assert text.headers["X-Request-ID"] in text.text


# --- nginx as backend


def test_nginx_files(site: Site) -> None:
    """A large file, a range, an empty file and a conditional request come from nginx as they are."""
    with requests.Session() as session:
        whole = session.get(f"{site.url}/files/large", timeout=30)
        assert hashlib.sha256(whole.content).hexdigest() == digest(4, 16 * MEBIBYTE)
        part = session.get(f"{site.url}/files/large", headers={"Range": "bytes=1000000-1999999"}, timeout=30)
        assert (part.status_code, part.content) == (206, FILES["large"][1_000_000:2_000_000])
        same = session.get(f"{site.url}/files/large", headers={"If-None-Match": whole.headers["ETag"]}, timeout=30)
        assert (same.status_code, same.content) == (304, b"")
        assert session.get(f"{site.url}/files/empty", timeout=30).content == b""
        assert session.get(f"{site.url}/files/none", timeout=30).status_code == 404
        assert session.get(f"{site.url}/who", timeout=30).text.startswith("127.0.0.1|127.0.0.1|")


def test_routes_choose_the_server(site: Site) -> None:
    """A prefix matches by segment: /files is nginx's, /filesystem is not."""
    assert requests.get(f"{site.url}/files/index.html", timeout=10).headers["Server"].startswith("nginx")
    assert requests.get(f"{site.url}/filesystem", timeout=10).headers["Server"] == "uvicorn"
    # /who is nginx's for GET only
    assert requests.post(f"{site.url}/who", timeout=10).headers["Server"] == "uvicorn"
    # dot segments are removed before routing, so that nothing is reached around a route
    out = site.curl("--path-as-is", "-i", f"{site.url}/x/../files/index.html").stdout
    assert FILES["index.html"] in out


# --- requests, httpx, aiohttp


def test_requests_session(site: Site) -> None:
    """requests: a kept session with JSON, a form, a generator as body, and every method."""
    with requests.Session() as session:
        told = session.post(f"{site.url}/json", json={"a": [1, 2]}, timeout=10).json()
        assert told["sha256"] == hashlib.sha256(b'{"a": [1, 2]}').hexdigest()
        told = session.post(f"{site.url}/generator", data=(b"x" * n for n in range(1, 200)), timeout=10).json()
        assert (told["size"], _fields(told)["transfer-encoding"]) == (199 * 100, "chunked")
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert session.request(method, f"{site.url}/m", timeout=10).json()["method"] == method
        assert session.request("TRACE", f"{site.url}/m", timeout=10).status_code in {405, 501}


def test_statuses_without_body(site: Site) -> None:
    """204 and 304 have no body and leave the connection usable; 500 and 503 pass as they came."""
    with requests.Session() as session:
        for status in (204, 304, 500, 204, 503, 200):
            answer = session.get(f"{site.url}/empty", params={"status": status}, timeout=10)
            assert (answer.status_code, answer.content) == (status, b"")
            assert answer.headers["Server"] == "uvicorn"


def test_httpx_concurrent(site: Site) -> None:
    """httpx: 300 requests over 20 connections at once, each with its own body and answer."""
    async def run() -> None:
        limits = httpx.Limits(max_connections=20)
        async with httpx.AsyncClient(base_url=site.url, limits=limits, timeout=30, trust_env=False) as client:
            async def one(number: int) -> None:
                body = b"%d." % number * (number * 7)
                told = (await client.post(f"/n/{number}", content=body)).json()
                assert told["path"] == f"/n/{number}"
                assert told["sha256"] == hashlib.sha256(body).hexdigest()

            await asyncio.gather(*(one(number) for number in range(300)))

    asyncio.run(run())


def test_aiohttp_concurrent(site: Site) -> None:
    """aiohttp: 200 downloads of different sizes, chunked and not, over 20 connections at once."""
    async def run() -> None:
        connector = aiohttp.TCPConnector(limit=20)
        async with aiohttp.ClientSession(site.url, connector=connector) as session:
            async def one(number: int) -> None:
                size = number * 997
                query = {"size": str(size), "seed": "3"} | ({"chunked": "1"} if number % 2 else {})
                async with session.get("/download", params=query) as answer:
                    assert hashlib.sha256(await answer.read()).hexdigest() == digest(3, size)

            await asyncio.gather(*(one(number) for number in range(200)))

    asyncio.run(run())


def test_early_answer_to_an_upload(site: Site) -> None:
    """A backend that refuses an upload at once: the client gets the 403, and the next request works."""
    connection = site.connect()
    connection.putrequest("PUT", "/early")
    connection.putheader("Content-Length", str(64 * MEBIBYTE))
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())) == (403, {"error": "not wanted"})
    connection.close()
    assert requests.get(f"{site.url}/", timeout=10).status_code == 200


# --- streams


def test_server_sent_events_arrive_one_by_one(site: Site) -> None:
    """Each event reaches the client before the server has the next one: nothing is held back."""
    with httpx.Client(base_url=site.url, timeout=20, trust_env=False) as client, client.stream(
        "GET", "/events", params={"gate": "sse", "count": 20}
    ) as stream:
        assert stream.headers["content-type"] == "text/event-stream"
        lines = stream.iter_lines()
        for number in range(20):
            assert [next(lines) for _ in range(3)] == [f"id: {number}", "data: {}", ""]
            requests.get(f"{site.url}/next", params={"gate": "sse"}, timeout=10)
        assert list(lines) == []


def test_websocket_echo(site: Site) -> None:
    """A websockets client: text, a binary message of 1 MiB, pings, and the server's own close code."""
    with websockets.sync.client.connect(f"ws://{site.host}:{site.port}/ws", proxy=None, max_size=None) as socket:
        socket.send("hello")
        assert socket.recv() == "hello"
        data = b"".join(blocks(9, MEBIBYTE))
        socket.send(data)
        assert socket.recv() == data
        assert socket.ping().wait(10)
        socket.send("close please")
        with pytest.raises(websockets.ConnectionClosedError) as closed:
            socket.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as asked")


def test_many_websockets(site: Site) -> None:
    """50 WebSockets at once, each with 100 messages in order."""
    async def one(number: int) -> None:
        async with websockets.connect(f"ws://{site.host}:{site.port}/ws/{number}", proxy=None) as socket:
            for message in range(100):
                await socket.send(f"{number}:{message}")
                assert await socket.recv() == f"{number}:{message}"

    async def run() -> None:
        await asyncio.gather(*(one(number) for number in range(50)))

    asyncio.run(run())


# --- bulk


def _upload(site: Site, seed: int, size: int, chunked: bool) -> None:
    connection = site.connect()
    body = blocks(seed, size)
    headers = {} if chunked else {"Content-Length": str(size)}
    connection.request("PUT", "/upload", body, headers, encode_chunked=chunked)
    told = json.loads(connection.getresponse().read())
    connection.close()
    assert (told["size"], told["sha256"]) == (size, digest(seed, size))


def _download(site: Site, seed: int, size: int, chunked: bool) -> None:
    connection = site.connect()
    connection.request("GET", f"/download?size={size}&seed={seed}" + ("&chunked=1" if chunked else ""))
    answer = connection.getresponse()
    sha, got = hashlib.sha256(), 0
    while block := answer.read(1 << 18):
        sha.update(block)
        got += len(block)
    connection.close()
    assert (got, sha.hexdigest()) == (size, digest(seed, size))


@pytest.mark.parametrize("chunked", [False, True], ids=["with length", "chunked"])
def test_256_mebibytes_each_way(site: Site, chunked: bool) -> None:
    """256 MiB up and 256 MiB down at once: checksums equal, the workers' memory flat."""
    with sampled_memory(site.gateway.pids()) as memory:
        in_threads(2, lambda n: (_upload, _download)[n](site, 12 + n, LARGE, chunked))
    assert memory.growth() < 16 * MEBIBYTE


def test_a_client_that_does_not_read_costs_bounded_memory(site: Site) -> None:
    """Ten clients that ask for 256 MiB each and read nothing stop the backend; memory stays as it was."""
    with sampled_memory(site.gateway.pids()) as memory:
        connections = [site.connect() for _ in range(10)]
        for connection in connections:
            connection.request("GET", f"/download?size={LARGE}")
        waiting: list[int] = []

        def stalled() -> bool:
            waiting.append(sum(_unread(connection) for connection in connections))
            return len(waiting) > 50 and waiting[-1] > 0 and waiting[-1] == waiting[-50]

        wait_for(stalled, 20.0, "the flow to stop")
        for connection in connections:
            connection.close()
    assert memory.growth() < 16 * MEBIBYTE
    assert requests.get(f"{site.url}/", timeout=10).status_code == 200
    wait_for(lambda: site.gateway.metric("gogate_http_requests_in_flight") == 0, what="the cut requests to end")


def _unread(connection: http.client.HTTPConnection) -> int:
    """Bytes that wait in a client's socket."""
    assert connection.sock is not None
    return int.from_bytes(fcntl.ioctl(connection.sock, termios.FIONREAD, bytes(4)), sys.byteorder)
