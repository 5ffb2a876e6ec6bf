"""CORS as a browser sees it: pages of two origins in a headless Chromium fetch through a gateway of two workers.

The page server answers under two names: its origin http://127.0.0.1:PORT is the allowed one, http://localhost:PORT is
not. A page makes all its fetches in one run of the browser and writes what became of each into its document; the tests
read that, what reached the backend, and the access lines.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest
from conftest import need_program
from doubles.configs import ANY, gateway_config
from doubles.gateway import Gateway, wait_for
from doubles.servers import free_port

KEY = "gg_an-api-key-of-the-page"

#: What each page does. {api} is the gateway.
PAGE = """<!doctype html><title>fetching</title><pre id="verdict"></pre><script>
const verdicts = {};
async function attempt(name, path, options) {
    try {
        const answer = await fetch("{api}" + path, options);
        verdicts[name] = {status: answer.status, body: await answer.text(), type: answer.type,
                          headers: Object.fromEntries(answer.headers)};
    } catch (error) {
        verdicts[name] = {error: error.name};
    }
}
const json = {"Content-Type": "application/json", "X-Custom": "yes"};
const put = (more) => ({method: "PUT", body: '{"a": 1}', headers: {...json, ...more}});
async function all() {
    await attempt("get", "/api/get");
    await attempt("login", "/api/login", {credentials: "include"});
    await attempt("cookie", "/api/cookie", {credentials: "include"});
    await attempt("put", "/api/put", {...put(), credentials: "include"});
    await attempt("put again", "/api/put", {...put(), credentials: "include"});
    await attempt("other header", "/api/other-header", {headers: {"X-Not-Allowed": "1"}});
    await attempt("other method", "/api/other-method", {method: "DELETE"});
    await attempt("no key", "/locked/x");
    await attempt("no key, put", "/locked/put", put());
    await attempt("key", "/locked/x", put({"X-API-Key": "{key}"}));
    for (const turn of [1, 2, 3])
        await attempt("limited " + turn, "/limited/x", put());
    await attempt("down", "/down/x");
    await attempt("redirect", "/redirect/x");
    await attempt("preflighted redirect", "/redirect/y", put());
    await attempt("cached", "/cached/x");
    await attempt("cached again", "/cached/x");
    await attempt("any", "/any/x");
    await attempt("any, put", "/any/x", put());
    await attempt("any with cookies", "/any/x", {credentials: "include"});
    await attempt("own", "/own/x");
    await attempt("own, put", "/own/put", put());
    document.getElementById("verdict").textContent = btoa(unescape(encodeURIComponent(JSON.stringify(verdicts))));
}
all();
</script>"""


class Asked(NamedTuple):
    """One request that reached the backend."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Backend(ThreadingHTTPServer):
    """Answers with what it was asked, and CORS fields of its own that allow too much."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.asked: list[Asked] = []


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # In one write: a page that may not read an answer asks on at its head, before a body is there to keep.
    wbufsize = -1
    server: Backend

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        fields = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append(Asked(self.command, self.path, fields, body))
        told = json.dumps({"method": self.command, "cookie": fields.get("cookie", ""), "body": body.decode()}).encode()
        self.send_response(200)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Allow-Methods", "*")
        self.send_header("X-Told", "something")
        self.send_header("X-Hidden", "something")
        if self.path == "/api/login":
            self.send_header("Set-Cookie", "session=s3cr3t; HttpOnly")
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    do_GET = do_PUT = do_DELETE = do_OPTIONS = _answer

    def log_message(self, *args: object) -> None:
        """Quiet."""


class _Page(BaseHTTPRequestHandler):
    page = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(self.page)))
        self.end_headers()
        self.wfile.write(self.page)

    def log_message(self, *args: object) -> None:
        """Quiet."""


def browse(url: str) -> dict[str, dict[str, Any]]:
    """Run a page in Chromium until it is quiet; → its verdicts by name."""
    with tempfile.TemporaryDirectory(prefix="gogate-chromium-") as profile:
        command = [
            need_program("chromium"), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-background-networking", "--disable-component-update", "--no-proxy-server",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
            f"--user-data-dir={profile}", "--virtual-time-budget=8000", "--dump-dom", url,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, timeout=60)
        found = re.search(rb'<pre id="verdict">([A-Za-z0-9+/=]+)</pre>', done.stdout)
        assert found, (done.returncode, done.stdout, done.stderr[-2000:])
        verdicts: dict[str, dict[str, Any]] = json.loads(base64.b64decode(found[1]))
        return verdicts


class Seen(NamedTuple):
    """What came of all the fetches of one page: in the page, at the backend, in the access log."""

    verdicts: dict[str, dict[str, Any]]
    asked: list[Asked]
    access: list[dict[str, Any]]
    origin: str

    def status(self, name: str) -> int:
        """The status that the page could read; 0 when it could read nothing."""
        status: int = self.verdicts[name].get("status", 0)
        return status

    def reached(self, path: str) -> list[str]:
        """The methods that the backend was asked for a path with."""
        return [asked.method for asked in self.asked if asked.path == path]

    def preflights(self, path: str) -> list[int]:
        """The statuses that preflights for a path were answered with."""
        return [line["status"] for line in self.access if line["method"] == "OPTIONS" and line["path"] == path]


BLOCKED = {"error": "TypeError"}


@pytest.fixture(scope="module")
def pages() -> Iterator[dict[str, Seen]]:
    """What pages of the allowed and of the other origin saw."""
    need_program("chromium")
    with Backend() as backend, ThreadingHTTPServer(("127.0.0.1", 0), _Page) as page_server:
        threads = [
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            for server in (backend, page_server)
        ]
        for thread in threads:
            thread.start()
        port = page_server.server_port
        origins = {"allowed": f"http://127.0.0.1:{port}", "other": f"http://localhost:{port}"}
        with Gateway(_config(backend.server_port, origins["allowed"])) as gateway:
            page = PAGE.replace("{api}", f"http://{gateway.http}").replace("{key}", KEY)
            _Page.page = page.encode()
            yield {name: _visit(gateway, backend, origin) for name, origin in origins.items()}
        for server in (backend, page_server):
            server.shutdown()
        for thread in threads:
            thread.join()


def _visit(gateway: Gateway, backend: Backend, origin: str) -> Seen:
    backend.asked.clear()
    lines = len(gateway.access)
    verdicts = browse(f"{origin}/")

    def every_worker_has_written() -> bool:
        """Each writes its lines in order: what came behind the page's requests was written after them."""
        gateway.get("/api/last")
        ids = [line["request_id"] for line in gateway.access[lines:] if line["path"] == "/api/last"]
        return len({request_id[:2] for request_id in ids}) == len(gateway.pids())

    wait_for(every_worker_has_written, what="the access lines")
    return Seen(verdicts, list(backend.asked), gateway.access[lines:], origin)


def _config(backend: int, allowed: str) -> str:
    cors = {
        "allowOrigins": [allowed], "allowMethods": ["GET", "PUT"], "allowHeaders": ["Content-Type", "X-Custom"],
        "exposeHeaders": ["X-Told", "Retry-After"], "allowCredentials": True, "maxAge": "10m",
    }
    locked = {**cors, "allowHeaders": ["Content-Type", "X-Custom", "X-API-Key"], "allowCredentials": False}
    limit = {"enabled": True, "rate": 1, "per": "1h", "burst": 2}
    return gateway_config(
        {"httpListenAddr": ANY, "health": {"enabled": False}},
        pools={"api": {"backends": [f"127.0.0.1:{backend}"]}, "down": {"backends": [f"127.0.0.1:{free_port()}"]}},
        routes=[
            {"name": "api", "pool": "api", "match": {"pathPrefix": "/api"}, "cors": cors},
            {"name": "locked", "pool": "api", "match": {"pathPrefix": "/locked"}, "cors": locked,
             "auth": {"type": "api_key", "keys": {"page": hashlib.sha256(KEY.encode()).hexdigest()}}},
            {"name": "limited", "pool": "api", "match": {"pathPrefix": "/limited"}, "cors": cors, "rateLimit": limit},
            {"name": "down", "pool": "down", "match": {"pathPrefix": "/down"}, "cors": cors},
            {"name": "redirect", "match": {"pathPrefix": "/redirect"}, "cors": cors,
             "redirect": {"to": "/api/landed", "status": 307}},
            {"name": "cached", "pool": "api", "match": {"pathPrefix": "/cached"}, "cors": cors,
             "cache": {"enabled": True, "ttl": "1h"}},
            {"name": "any", "pool": "api", "match": {"pathPrefix": "/any"},
             "cors": {"allowOrigins": ["*"], "allowMethods": ["GET", "PUT"], "allowHeaders": ["*"]}},
            {"name": "own", "pool": "api", "match": {"pathPrefix": "/own"}},
        ],
    )


def test_an_allowed_page_reads_a_simple_answer(pages: dict[str, Seen]) -> None:
    """A GET from the allowed origin needs no preflight and is readable, with the exposed fields and no others."""
    seen = pages["allowed"]
    answer = seen.verdicts["get"]
    assert (answer["status"], answer["type"]) == (200, "cors")
    assert json.loads(answer["body"])["method"] == "GET"
    assert answer["headers"]["x-told"] == "something"
    assert "x-hidden" not in answer["headers"]
    assert seen.preflights("/api/get") == []
    assert seen.reached("/api/get") == ["GET"]


def test_an_allowed_page_may_use_cookies(pages: dict[str, Seen]) -> None:
    """With allowCredentials a cookie is taken, and sent with the next fetch, which the page can read."""
    seen = pages["allowed"]
    assert seen.status("login") == 200
    assert json.loads(seen.verdicts["cookie"]["body"])["cookie"] == "session=s3cr3t"
    assert seen.reached("/api/cookie") == ["GET"]


def test_a_preflight_is_answered_by_the_gateway(pages: dict[str, Seen]) -> None:
    """A PUT of JSON with a field of its own passes after one preflight, which is kept for the next and reaches nobody.
    """
    seen = pages["allowed"]
    for name in ("put", "put again"):
        told = json.loads(seen.verdicts[name]["body"])
        assert told == {"method": "PUT", "cookie": "session=s3cr3t", "body": '{"a": 1}'}
    assert seen.preflights("/api/put") == [204]
    assert seen.reached("/api/put") == ["PUT", "PUT"]
    puts = [asked for asked in seen.asked if asked.path == "/api/put"]
    assert {asked.headers["x-custom"] for asked in puts} == {"yes"}


def test_what_is_not_allowed_is_not_sent(pages: dict[str, Seen]) -> None:
    """A field or a method that is not allowed stays in the browser, also for the allowed origin."""
    seen = pages["allowed"]
    assert seen.verdicts["other header"] == seen.verdicts["other method"] == BLOCKED
    assert seen.preflights("/api/other-header") == seen.preflights("/api/other-method") == [204]
    assert seen.reached("/api/other-header") == seen.reached("/api/other-method") == []


def test_another_origin_reads_nothing(pages: dict[str, Seen]) -> None:
    """A page of another origin can read no answer, neither of a backend nor of the gateway, and what needs a preflight
    is not even sent."""
    seen = pages["other"]
    readable = {name for name in seen.verdicts if seen.verdicts[name] != BLOCKED}
    assert readable == {"any", "any, put", "own"}
    assert seen.reached("/api/get") == ["GET"]  # served: CORS is for who reads
    assert seen.preflights("/api/put") == [204, 204]
    assert seen.reached("/api/put") == seen.reached("/limited/x") == seen.reached("/locked/x") == []


def test_errors_are_readable(pages: dict[str, Seen]) -> None:
    """401, 429 and 502 of the gateway itself can be read by the allowed origin, with their exposed fields."""
    seen = pages["allowed"]
    assert [seen.status(name) for name in ("no key", "no key, put", "limited 3", "down")] == [401, 401, 429, 502]
    for name, reason in (("no key", "unauthorized"), ("limited 3", "rate_limited"), ("down", "connect_failed")):
        assert json.loads(seen.verdicts[name]["body"])["reason"] == reason
    assert int(seen.verdicts["limited 3"]["headers"]["retry-after"]) > 0


def test_preflights_need_no_key_and_cost_no_tokens(pages: dict[str, Seen]) -> None:
    """Preflights pass where the request itself needs an API key, and are not counted by a rate limit."""
    seen = pages["allowed"]
    assert seen.preflights("/locked/put") == [204]
    assert seen.status("key") == 200
    assert seen.reached("/locked/x") == ["PUT"]
    assert [seen.status(f"limited {turn}") for turn in (1, 2, 3)] == [200, 200, 429]
    assert seen.preflights("/limited/x")


def test_no_preflight_reaches_a_backend(pages: dict[str, Seen]) -> None:
    """On routes with cors a backend never sees OPTIONS; on one without it the preflights are its own."""
    for seen in pages.values():
        assert {asked.path for asked in seen.asked if asked.method == "OPTIONS"} == {"/own/put"}


def test_redirects_are_followed(pages: dict[str, Seen]) -> None:
    """A redirect of the gateway can be followed across origins, with and without a preflight."""
    seen = pages["allowed"]
    assert json.loads(seen.verdicts["redirect"]["body"])["method"] == "GET"
    assert json.loads(seen.verdicts["preflighted redirect"]["body"])["method"] == "PUT"
    assert seen.reached("/api/landed") == ["GET", "PUT"]


def test_a_cached_answer_is_for_each_origin_anew(pages: dict[str, Seen]) -> None:
    """What was stored for one origin is readable by it, and not by another one."""
    assert pages["allowed"].status("cached") == pages["allowed"].status("cached again") == 200
    assert pages["other"].verdicts["cached"] == pages["other"].verdicts["cached again"] == BLOCKED
    lines = [line for seen in pages.values() for line in seen.access if line["path"] == "/cached/x"]
    assert len(lines) == 4
    assert sum(len(seen.reached("/cached/x")) for seen in pages.values()) <= 2  # one for each worker


def test_any_origin_but_not_with_cookies(pages: dict[str, Seen]) -> None:
    """allowOrigins * lets every page read, after a preflight too, but nothing that was asked with cookies."""
    for seen in pages.values():
        assert seen.status("any") == seen.status("any, put") == 200
        assert seen.verdicts["any with cookies"] == BLOCKED


def test_without_cors_the_backend_decides(pages: dict[str, Seen]) -> None:
    """On a route without cors the backend's own fields go through as they are."""
    for seen in pages.values():
        assert seen.status("own") == 200
        assert seen.verdicts["own"]["headers"].get("x-told") is None
        assert seen.verdicts["own, put"] == BLOCKED
        assert seen.reached("/own/put") == ["OPTIONS"]
