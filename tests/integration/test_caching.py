"""The response cache through whole gateways of two workers: what is given again, to whom, and never half of it."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from http.client import HTTPException
from typing import Any

import pytest
from doubles.configs import ANY, gateway_config
from doubles.gateway import Gateway, wait_for
from doubles.gateway_clients import Client, a_client_per_worker, clients_by_worker
from doubles.http_backend import HttpBackend

KEY = "gg_an-api-key-for-the-cache"
FRESH = "Cache-Control: max-age=600"
PUBLIC = "Cache-Control: public, max-age=600"
ETAG = '"one"'
MODIFIED = "Sun, 06 Nov 1994 08:49:37 GMT"


class Origin(socketserver.ThreadingTCPServer):
    """A backend whose answers stand in ``answers``, by path: whole heads, or what it sends before it cuts the
    connection. ``count`` has the requests by path, ``heads`` their heads. A body that is not given is unique."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Talk)
        self.answers: dict[str, tuple[bytes, bool]] = {}
        self.count: Counter[str] = Counter()
        self.heads: list[bytes] = []
        self.lock = threading.Lock()
        #: of paths that end in /held: the rest of the body is sent when it is set
        self.release = threading.Event()

    def says(self, path: str, *fields: str, status: int = 200, body: bytes | None = None) -> None:
        """Answer like this from now on; with the number of the request as the body when none is given."""
        head = "".join(f"{field}\r\n" for field in fields)
        size = "{size}" if body is None else str(len(body))
        rest = b"{body}" if body is None else body
        self.answers[path] = f"HTTP/1.1 {status} X\r\n{head}Content-Length: {size}\r\n\r\n".encode() + rest, False

    def sends(self, path: str, data: bytes) -> None:
        """Send these bytes and end the connection."""
        self.answers[path] = data, True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that the gateway cuts are part of the tests."""


class _Talk(socketserver.StreamRequestHandler):
    server: Origin

    def handle(self) -> None:
        while head := self._head():
            method, target = head.split(b" ")[:2]
            path = target.decode().partition("?")[0]
            with self.server.lock:
                self.server.count[path] += 1
                self.server.heads.append(head)
                number = self.server.count[path]
            answer, cut = self.server.answers.get(path, (b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n", False))
            body = b"%b number %d" % (target, number)
            answer = answer.replace(b"{size}", b"%d" % len(body))
            if method == b"HEAD":
                answer = answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
            answer = answer.replace(b"{body}", body)
            if path.endswith("/held"):
                first, found, rest = answer.partition(b"HOLD")
                self.wfile.write(first)
                self.server.release.wait(20.0)
                answer = found + rest
            self.wfile.write(answer)
            if cut:
                return

    def _head(self) -> bytes:
        lines = [self.rfile.readline()]
        while lines[-1] not in (b"\r\n", b""):
            lines.append(self.rfile.readline())
        for line in lines:
            if line.lower().startswith(b"content-length:"):
                self.rfile.read(int(line.partition(b":")[2]))
        return b"".join(lines) if lines[-1] else b""


class Site:
    """A gateway whose routes keep answers, before an Origin."""

    def __init__(self, gateway: Gateway, origin: Origin, other: HttpBackend) -> None:
        self.gateway = gateway
        self.origin = origin
        self.other = other  # behind /


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with HttpBackend() as other, Origin() as origin:
        thread = threading.Thread(target=origin.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        cache = {"enabled": True, "ttl": "0s"}
        config = gateway_config(
            {"httpListenAddr": ANY, "health": {"enabled": False}, "retry": {"attempts": 1}},
            pools={"other": {"backends": [other.address]},
                   "origin": {"backends": [f"127.0.0.1:{origin.server_address[1]}"]},
                   "twin": {"backends": [f"127.0.0.1:{origin.server_address[1]}"]}},
            routes=[
                {"name": "other", "pool": "other"},
                {"name": "kept", "pool": "origin", "match": {"pathPrefix": "/kept"}, "cache": cache},
                {"name": "ttl", "pool": "origin", "match": {"pathPrefix": "/ttl"}, "cache": {**cache, "ttl": "1h"}},
                {"name": "small", "pool": "origin", "match": {"pathPrefix": "/small"},
                 "cache": {**cache, "maxEntries": 2, "maxBytes": "16KiB"}},
                {"name": "locked", "pool": "origin", "match": {"pathPrefix": "/locked"}, "cache": cache,
                 "auth": {"type": "api_key", "keys": {"ci": sha256(KEY.encode()).hexdigest()}}},
                {"name": "split", "match": {"pathPrefix": "/split"}, "cache": cache, "sticky": {"by": "cookie"},
                 "split": [{"pool": "origin", "weight": 50}, {"pool": "twin", "weight": 50}]},
                {"name": "edited", "pool": "origin", "match": {"pathPrefix": "/edited"}, "cache": cache,
                 "responseHeaders": {"set": {"X-For": "{client_ip} {request_id}"}}},
            ],
        )
        with Gateway(config) as gateway:
            yield Site(gateway, origin, other)
        origin.shutdown()
        thread.join()


@pytest.fixture
def clients(site: Site) -> Iterator[list[Client]]:
    """One kept connection to each worker."""
    with a_client_per_worker(site.gateway, site.other, 2) as clients:
        yield clients


@pytest.fixture
def client(clients: list[Client]) -> Client:
    """A kept connection, so that one worker's cache is asked."""
    return clients[0]


def cache_of(client: Client, path: str, **fields: str) -> str:
    """What X-Cache says of a GET that succeeds."""
    status, headers, _ = client.get(path, **fields)
    assert status == 200
    return str(headers["X-Cache"])


def test_each_worker_keeps_its_own(site: Site, clients: list[Client]) -> None:
    """The first request in each worker is a miss and asks the backend, every further one there a hit."""
    site.origin.says("/kept/own", FRESH, "X-From: origin")
    before = site.gateway.metric("gogate_cache_requests_total", route="kept", result="hit")
    for number, client in enumerate(clients, 1):
        status, headers, body = client.get("/kept/own")
        assert (status, headers["X-Cache"], headers["Age"]) == (200, "miss", None)
        for _ in range(3):
            again, hit, same = client.get("/kept/own")
            assert (again, hit["X-Cache"], same) == (200, "hit", body)
            assert int(hit["Age"]) >= 0
            assert hit["X-From"] == "origin"
            assert hit["Cache-Control"] == "max-age=600"
        assert site.origin.count["/kept/own"] == number
        assert body == b"/kept/own number %d" % number
    wait_for(lambda: site.gateway.metric("gogate_cache_requests_total", route="kept", result="hit") == before + 6,
             what="the counts")
    wait_for(lambda: site.gateway.metric("gogate_cache_entries", route="kept") >= 2, what="the entries")


@pytest.mark.parametrize(("name", "fields", "status", "kept"), [
    ("max-age", [FRESH], 200, True),
    ("public", [PUBLIC], 200, True),
    ("s-maxage", ["Cache-Control: max-age=0, s-maxage=600"], 200, True),
    ("expires", ["Date: Sun, 06 Nov 1994 08:49:37 GMT", "Expires: Sun, 06 Nov 2094 08:49:37 GMT"], 200, True),
    ("not-found", [FRESH], 404, True),
    ("nothing", [], 200, False),
    ("no-store", ["Cache-Control: no-store, max-age=600"], 200, False),
    ("two-lines", [FRESH, "Cache-Control: no-store"], 200, False),
    ("upper", ["CACHE-CONTROL: NO-STORE, max-age=600"], 200, False),
    ("private", ["Cache-Control: private, max-age=600"], 200, False),
    ("no-cache", ["Cache-Control: no-cache, max-age=600"], 200, False),
    ("stale", ["Cache-Control: max-age=0"], 200, False),
    ("old", [FRESH, "Age: 601"], 200, False),
    ("expired", ["Expires: Sun, 06 Nov 1994 08:49:37 GMT"], 200, False),
    ("cookie", [PUBLIC, "Set-Cookie: session=1"], 200, False),
    ("vary-any", [PUBLIC, "Vary: *"], 200, False),
    ("error", [PUBLIC], 500, False),
    ("partial", [PUBLIC, "Content-Range: bytes 0-3/10"], 206, False),
])  # fmt: skip
def test_what_an_answer_lets_be_kept(
    site: Site, client: Client, name: str, fields: list[str], status: int, kept: bool
) -> None:
    """Cache-Control, Expires, Set-Cookie, Vary and the status of an answer decide whether it is given again."""
    path = f"/kept/may-{name}"
    site.origin.says(path, *fields, status=status)
    found = [client.get(path) for _ in range(3)]
    assert [answer[0] for answer in found] == [status] * 3
    assert [answer[1]["X-Cache"] for answer in found] == ["miss", *["hit" if kept else "miss"] * 2]
    assert site.origin.count[path] == (1 if kept else 3)


def test_the_routes_ttl_is_for_answers_that_say_nothing(site: Site, client: Client) -> None:
    """ttl makes an answer without freshness of its own stay, and does not overrule one that has it."""
    site.origin.says("/ttl/silent")
    site.origin.says("/ttl/stale", "Cache-Control: max-age=0")
    assert [cache_of(client, "/ttl/silent") for _ in range(2)] == ["miss", "hit"]
    assert [cache_of(client, "/ttl/stale") for _ in range(2)] == ["miss", "miss"]


def test_what_is_stale_is_fetched_again(site: Site, client: Client) -> None:
    """Once an answer's time is over the backend is asked again."""
    site.origin.says("/kept/short", "Cache-Control: max-age=1")
    first = client.get("/kept/short")[2]
    wait_for(lambda: client.get("/kept/short")[2] != first, what="the answer to become stale")
    assert site.origin.count["/kept/short"] == 2


def test_vary(site: Site, client: Client) -> None:
    """Answers that vary by a field are kept for each of its values, and given only to requests with the same."""
    site.origin.says("/kept/vary", FRESH, "Vary: Accept-Language, accept-encoding")
    bodies = {}
    for language, coding in (("de", "gzip"), ("en", "gzip"), ("de", "br")):
        fields = {"Accept_Language": language, "Accept_Encoding": coding}
        assert cache_of(client, "/kept/vary", **fields) == "miss"
        status, headers, body = client.get("/kept/vary", **fields)
        assert (status, headers["X-Cache"]) == (200, "hit")
        assert headers["Vary"] == "Accept-Language, accept-encoding"
        bodies[language, coding] = body
    assert len(set(bodies.values())) == 3
    for (language, coding), body in bodies.items():
        assert client.get("/kept/vary", Accept_Language=language, Accept_Encoding=coding)[2] == body
    assert cache_of(client, "/kept/vary", Accept_Encoding="gzip") == "miss"


def test_other_queries_and_hosts_are_other_answers(site: Site, client: Client) -> None:
    """The key is host, path and query, each as a whole."""
    site.origin.says("/kept/key", FRESH)
    seen = set()
    for path, fields in (("/kept/key", {}), ("/kept/key?", {}), ("/kept/key?a=1&b=2", {}), ("/kept/key?b=2&a=1", {}),
                         ("/kept/key", {"Host": "other.example.com"}), ("/kept/key", {"Host": "other.example.com:81"})):
        status, headers, body = client.get(path, **fields)
        assert (status, headers["X-Cache"]) == (200, "miss"), path
        assert body not in seen
        seen.add(body)
        assert cache_of(client, path, **fields) == "hit"
    assert cache_of(client, "/kept/key", Host="OTHER.example.com") == "hit"


def test_requests_choose(site: Site, client: Client) -> None:
    """Cache-Control of a request: no-cache and max-age=0 ask the backend anew, no-store leaves the cache alone,
    only-if-cached asks nobody."""
    site.origin.says("/kept/asked", FRESH)
    status, _, body = client.get("/kept/asked", Cache_Control="only-if-cached")
    assert (status, site.origin.count["/kept/asked"]) == (504, 0)
    assert b"number" not in body
    assert cache_of(client, "/kept/asked", Cache_Control="no-store") == "bypass"
    assert cache_of(client, "/kept/asked") == "miss"  # nothing was kept
    assert client.get("/kept/asked", Cache_Control="only-if-cached")[2] == b"/kept/asked number 2"
    for terms in ({"Cache_Control": "no-cache"}, {"Cache_Control": "max-age=0, no-cache"}, {"Pragma": "no-cache"},
                  {"Cache_Control": "min-fresh=700"}):
        before = site.origin.count["/kept/asked"]
        assert cache_of(client, "/kept/asked", **terms) == "miss"
        assert site.origin.count["/kept/asked"] == before + 1
        assert client.get("/kept/asked")[2] == b"/kept/asked number %d" % (before + 1)  # what came is kept


@pytest.mark.parametrize("field", ["Authorization", "Cookie"])
def test_personal_requests(site: Site, client: Client, field: str) -> None:
    """A request with credentials neither gets nor leaves an answer that is not for all; one that is public it does."""
    lower = field.lower()
    site.origin.says(f"/kept/mine-{lower}", FRESH)
    site.origin.says(f"/kept/ours-{lower}", PUBLIC)
    mine = {field: "alice"}
    assert [cache_of(client, f"/kept/mine-{lower}", **mine) for _ in range(2)] == ["miss", "miss"]
    assert [cache_of(client, f"/kept/mine-{lower}") for _ in range(2)] == ["miss", "hit"]
    assert cache_of(client, f"/kept/mine-{lower}", **mine) == "miss"
    assert [cache_of(client, f"/kept/ours-{lower}", **mine) for _ in range(2)] == ["miss", "hit"]
    assert cache_of(client, f"/kept/ours-{lower}") == "hit"


def test_authentication_comes_first(site: Site, client: Client) -> None:
    """On a route with auth only public answers are kept, and even these are given to nobody who does not pass."""
    site.origin.says("/locked/mine", FRESH)
    site.origin.says("/locked/ours", PUBLIC)
    assert [cache_of(client, "/locked/mine", X_API_Key=KEY) for _ in range(2)] == ["miss", "miss"]
    assert [cache_of(client, "/locked/ours", X_API_Key=KEY) for _ in range(2)] == ["miss", "hit"]
    for fields in ({}, {"X_API_Key": "wrong"}, {"Cache_Control": "only-if-cached"}):
        status, headers, body = client.get("/locked/ours", **fields)
        assert (status, headers["X-Cache"]) == (401, None)
        assert b"number" not in body


def test_head_is_answered_from_a_get(site: Site, client: Client) -> None:
    """HEAD gets the head of a stored GET, its length included and no body; its own answer is not kept."""
    site.origin.says("/kept/head", FRESH, f"ETag: {ETAG}")
    status, headers, body = client.ask("HEAD", "/kept/head", b"")
    assert (status, headers["X-Cache"], body) == (200, "miss", b"")
    assert cache_of(client, "/kept/head") == "miss"
    status, headers, body = client.ask("HEAD", "/kept/head", b"")
    assert (status, headers["X-Cache"], headers["ETag"], body) == (200, "hit", ETAG, b"")
    assert headers["Content-Length"] == str(len(b"/kept/head number 2"))
    assert client.get("/kept/head")[2] == b"/kept/head number 2"
    assert site.origin.count["/kept/head"] == 2


def test_conditional_requests_are_answered_from_the_store(site: Site, client: Client) -> None:
    """If-None-Match and If-Modified-Since that hold get 304 without a body, others the stored answer."""
    site.origin.says("/kept/tagged", FRESH, f"ETag: {ETAG}", f"Last-Modified: {MODIFIED}")
    assert cache_of(client, "/kept/tagged") == "miss"
    for fields in ({"If_None_Match": ETAG}, {"If_None_Match": f'"zero", W/{ETAG}'}, {"If_None_Match": "*"},
                   {"If_Modified_Since": MODIFIED}, {"If_Modified_Since": "Mon, 07 Nov 1994 08:49:37 GMT"}):
        status, headers, body = client.get("/kept/tagged", **fields)
        assert (status, headers["X-Cache"], headers["ETag"], body) == (304, "hit", ETAG, b""), fields
    for fields in ({"If_None_Match": '"two"'}, {"If_None_Match": '"two"', "If_Modified_Since": MODIFIED},
                   {"If_Modified_Since": "Sat, 05 Nov 1994 08:49:37 GMT"}, {"If_Modified_Since": "yesterday"}):
        status, headers, body = client.get("/kept/tagged", **fields)
        assert (status, headers["X-Cache"], body) == (200, "hit", b"/kept/tagged number 1"), fields
    assert site.origin.count["/kept/tagged"] == 1


def test_a_304_of_the_backend_is_not_an_answer_to_keep(site: Site, client: Client) -> None:
    """A condition that goes to the backend, for want of an answer, leaves nothing that others would get as theirs."""
    site.origin.answers["/kept/condition"] = f"HTTP/1.1 304 X\r\n{FRESH}\r\nETag: {ETAG}\r\n\r\n".encode(), False
    assert client.get("/kept/condition", If_None_Match=ETAG)[0] == 304
    site.origin.says("/kept/condition", FRESH, f"ETag: {ETAG}")
    status, headers, body = client.get("/kept/condition")
    assert (status, headers["X-Cache"], body) == (200, "miss", b"/kept/condition number 2")


def test_what_changes_a_resource_drops_its_answer(site: Site, clients: list[Client]) -> None:
    """A successful unsafe method drops what this worker keeps of the URI; a failed one, or a safe one, does not."""
    first, second = clients
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        path = f"/kept/changed-{method}"
        site.origin.says(path, FRESH)
        assert [cache_of(client, path) for client in clients] == ["miss", "miss"]
        site.origin.says(path, FRESH, status=500)
        assert first.ask(method, path, b"x")[0] == 500
        assert first.ask("OPTIONS", path, b"")[0] == 500
        assert cache_of(first, path) == "hit"
        site.origin.says(path, FRESH, status=204, body=b"")
        site.origin.answers[path] = b"HTTP/1.1 204 X\r\n\r\n", False
        status, headers, _ = first.ask(method, path, b"x")
        assert (status, headers["X-Cache"]) == (204, "bypass")
        site.origin.says(path, FRESH)
        assert cache_of(first, path) == "miss"
        assert cache_of(second, path) == "hit"  # its copy is its own


CUT = {
    "length": f"HTTP/1.1 200 X\r\n{PUBLIC}\r\nContent-Length: 100\r\n\r\nhalf of it".encode(),
    "chunked": f"HTTP/1.1 200 X\r\n{PUBLIC}\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf of it".encode(),
    "last-chunk": f"HTTP/1.1 200 X\r\n{PUBLIC}\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf of it\r\n".encode(),
    "trailer": f"HTTP/1.1 200 X\r\n{PUBLIC}\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf of it\r\n0\r\n".encode(),
    "until-close": f"HTTP/1.1 200 X\r\n{PUBLIC}\r\n\r\nhalf of it".encode(),
}


@pytest.mark.parametrize("cut", CUT)
def test_half_an_answer_is_never_kept(site: Site, clients: list[Client], cut: str) -> None:
    """What a backend cut, or could have cut, is not given to the next: it asks anew, and gets the whole."""
    path = f"/kept/cut-{cut}"
    site.origin.sends(path, CUT[cut])
    client = clients[0]
    with contextlib.suppress(OSError, HTTPException):
        client.get(path)
    site.origin.says(path, FRESH)
    with a_client_per_worker(site.gateway, site.other, 2) as others:
        for other in others:
            status, headers, body = other.get(path)
            assert (status, headers["X-Cache"]) == (200, "miss")
            assert body == b"%b number %d" % (path.encode(), site.origin.count[path])


HELD = b"a" * 1000 + b"HOLD" + b"b" * 1000


@contextlib.contextmanager
def half_way(site: Site, path: str, count: int) -> Iterator[list[socket.socket]]:
    """So many connections, in any workers, that have the first half of HELD; the rest comes after ``release.set()``."""
    site.origin.says(path, FRESH, body=HELD)
    site.origin.release.clear()
    with contextlib.ExitStack() as stack:
        stack.callback(site.origin.release.set)
        sockets = []
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(site.gateway.address("http:default"), timeout=20))
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode())
            sockets.append(sock)
        for sock in sockets:
            assert sock.recv(200).startswith(b"HTTP/1.1 200")
        yield sockets


def test_a_client_that_leaves_leaves_no_half(site: Site, clients: list[Client]) -> None:
    """A client that goes away in the middle of an answer does not leave its half to others."""
    path = "/kept/left/held"
    with half_way(site, path, 8) as sockets:
        for sock in sockets:
            sock.close()
        wait_for(lambda: [line["path"] for line in site.gateway.access].count(path) == 8, what="the access lines")
    for client in clients:
        assert client.get(path, Host="a.test")[2] == HELD


def test_what_is_under_way_is_not_given(site: Site, clients: list[Client]) -> None:
    """While an answer is still coming others ask the backend themselves; once it is whole it is given."""
    path = "/kept/coming/held"
    with half_way(site, path, 4) as sockets:
        assert site.origin.count[path] == 4
        site.origin.release.set()
        for sock in sockets:
            data = b""
            while not data.endswith(b"b" * 1000):
                data += sock.recv(65536)
    for client in clients:
        assert client.get(path, Host="a.test")[2] == HELD
    assert cache_of(clients[0], path, Host="a.test") == "hit"


def test_what_changed_on_the_way_is_not_kept(site: Site) -> None:
    """An answer that was on its way while its resource was changed is of before, and not given to the next."""
    path = "/kept/changed/held"
    site.origin.says(path, FRESH, body=HELD)
    site.origin.release.clear()
    with clients_by_worker(site.gateway, site.other, 2, each=2) as ((reader, writer), _):
        answers: list[bytes] = []
        reading = threading.Thread(target=lambda: answers.append(reader.get(path)[2]))
        reading.start()
        wait_for(lambda: site.origin.count[path] == 1, what="the request at the backend")
        site.origin.answers[path] = b"HTTP/1.1 204 X\r\n\r\n", False
        assert writer.ask("DELETE", path, b"")[0] == 204
        site.origin.says(path, FRESH, body=b"anew")
        site.origin.release.set()
        reading.join()
        assert answers == [HELD]
        status, headers, body = writer.get(path)
        assert (status, headers["X-Cache"], body) == (200, "miss", b"anew")


def test_chunked_answers_are_kept_whole(site: Site, client: Client) -> None:
    """A chunked answer with a clean end is given again with the same body."""
    chunks = b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\n\r\n"
    head = f"HTTP/1.1 200 X\r\n{FRESH}\r\nTransfer-Encoding: chunked\r\n\r\n"
    site.origin.sends("/kept/chunks", head.encode() + chunks)
    for expected in ("miss", "hit", "hit"):
        status, headers, body = client.get("/kept/chunks")
        assert (status, headers["X-Cache"], body) == (200, expected, b"hello world")
    assert site.origin.count["/kept/chunks"] == 1


def test_nothing_of_another_client_is_given(site: Site, client: Client) -> None:
    """A hit has its own X-Request-ID and edits, and never the cookie that places another client in a split."""
    site.origin.says("/edited/x", FRESH, "X-Request-ID: of-the-backend")
    answers = [client.get("/edited/x") for _ in range(3)]
    assert [headers["X-Cache"] for _, headers, _ in answers] == ["miss", "hit", "hit"]
    ids = [headers.get_all("X-Request-ID") for _, headers, _ in answers]
    assert all(found is not None and len(found) == 1 for found in ids)
    assert len({str(found) for found in ids}) == 3
    for _, headers, _ in answers[1:]:
        assert headers["X-For"] == f"127.0.0.1 {headers['X-Request-ID']}"
        assert headers["X-Request-ID"] != "of-the-backend"

    site.origin.says("/split/x", FRESH)
    answers = [client.get("/split/x") for _ in range(3)]
    assert [headers["X-Cache"] for _, headers, _ in answers] == ["miss", "hit", "hit"]
    cookies = [headers["Set-Cookie"] for _, headers, _ in answers]
    assert cookies[0].startswith("gogate_arm=")
    assert cookies[0] not in cookies[1:]


def test_requests_that_ask_for_something_else(site: Site, client: Client) -> None:
    """Ranges, conditions for the backend and bodies neither use nor fill the cache."""
    site.origin.says("/kept/else", PUBLIC)
    fields: tuple[dict[str, str], ...] = ({"Range": "bytes=0-3"}, {"If_Match": ETAG}, {"If_Unmodified_Since": MODIFIED})
    for more in fields:
        assert cache_of(client, "/kept/else", **more) == "bypass"
    assert client.ask("GET", "/kept/else", b"a body")[1]["X-Cache"] == "bypass"
    assert cache_of(client, "/kept/else") == "miss"
    for more in fields:
        assert cache_of(client, "/kept/else", **more) == "bypass"
    assert client.ask("GET", "/kept/else", b"a body")[1]["X-Cache"] == "bypass"
    assert site.origin.heads[-1].startswith(b"GET /kept/else ")
    assert cache_of(client, "/kept/else") == "hit"


def test_pipelined_hits_are_in_order(site: Site) -> None:
    """Hits and misses of one connection are answered in the order of their requests."""
    for letter in "ab":
        site.origin.says(f"/kept/line-{letter}", FRESH, body=f"<{letter}>".encode())
    order = "abaab" * 4
    requests = "".join(f"GET /kept/line-{letter} HTTP/1.1\r\nHost: pipe.test\r\n\r\n" for letter in order)
    with socket.create_connection(site.gateway.address("http:default"), timeout=20) as sock:
        sock.sendall(requests.encode() + b"GET /kept/line-a HTTP/1.0\r\nHost: pipe.test\r\n\r\n")
        with sock.makefile("rb") as stream:
            told = stream.read()
    bodies = [told[at + 1 : at + 2].decode() for at in range(len(told)) if told[at : at + 1] == b"<"]
    assert "".join(bodies) == order + "a"
    assert told.count(b"X-Cache: miss") == 2


def test_the_least_recently_used_goes_first(site: Site, client: Client) -> None:
    """maxEntries and an eighth of maxBytes bound what is kept; what goes is counted."""
    for name in "abc":
        site.origin.says(f"/small/{name}", FRESH)
    site.origin.says("/small/large", FRESH, body=b"x" * 4096)
    before = site.gateway.metric("gogate_cache_evicted_total", route="small")
    assert [cache_of(client, f"/small/{name}") for name in "abab"] == ["miss", "miss", "hit", "hit"]
    assert cache_of(client, "/small/a") == "hit"
    assert cache_of(client, "/small/c") == "miss"
    assert [cache_of(client, f"/small/{name}") for name in "acb"] == ["hit", "hit", "miss"]
    assert [cache_of(client, "/small/large") for _ in range(2)] == ["miss", "miss"]
    wait_for(lambda: site.gateway.metric("gogate_cache_evicted_total", route="small") == before + 2, what="the counts")
    assert site.gateway.metric("gogate_cache_entries", route="small") == 2
    assert 0 < site.gateway.metric("gogate_cache_bytes", route="small") <= 16 * 1024


def test_hits_are_logged_as_such(site: Site, client: Client) -> None:
    """The access line of a hit says so and names no backend; X-Cache of a backend is not believed."""
    site.origin.says("/kept/logged", FRESH, "X-Cache: hit from somewhere")
    answers = [client.get("/kept/logged")[1].get_all("X-Cache") for _ in range(2)]
    assert answers == [["miss"], ["hit"]]

    def lines() -> list[tuple[str, bool]]:
        return [(line.get("reason", ""), bool(line["backend"]))
                for line in site.gateway.access if line["path"] == "/kept/logged"]

    wait_for(lambda: len(lines()) == 2, what="the access lines")
    assert lines() == [("", True), ("cache_hit", False)]
