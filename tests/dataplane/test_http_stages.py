"""What stands between a route and its backend: the order of the stages, those that wait, and what they change."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import threading
from types import TracebackType
from typing import Any

import bcrypt
import msgspec
import pytest
from doubles.http_plane import Client, HttpPlane, Response, fields_of, run, until
from doubles.stub_upstream import StubUpstream, Talk, answer, answering

from gogate_py.clock import wall
from gogate_py.messages import KeySet, UnknownKey
from gogate_py.middleware.auth_basic import Passwords
from gogate_py.snapshot import (
    ApiKeyAuth,
    BasicAuth,
    Cache,
    Cors,
    FieldEdits,
    FixedResponse,
    JwtAuth,
    RateLimit,
    Redirect,
)
from gogate_py.wire.chunked import ChunkedDecoder

KEY = ApiKeyAuth((("tester", hashlib.sha256(b"k1").hexdigest()),), forward_name="X-Consumer")
BASIC = BasicAuth((("alice", bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()),), forward_user="X-User")
ALICE = f"Authorization: Basic {base64.b64encode(b'alice:secret').decode()}\r\n"
CORS = Cors(("https://app.test",), ("GET", "POST"), ("X-API-Key",), (), False, 600.0)
PREFLIGHT = "Origin: https://app.test\r\nAccess-Control-Request-Method: GET\r\n"
FORM = "Content-Type: application/x-www-form-urlencoded\r\n"


def limit(row: int, burst: int, *keys: str, name: str = "") -> RateLimit:
    """A limit that in the time of a test gives nothing back."""
    return RateLimit(row, 0.001, 1.0, burst, keys=keys or ("global",), name=name)


def route(**fields: Any) -> dict[str, Any]:
    return fields


# --- the order


def test_order() -> None:
    """Addresses, CORS, limits without identity, authentication, limits by identity, fixed response: whoever is first
    answers, and who comes later has counted nothing."""

    async def main() -> None:
        rules = route(
            deny=("10.9.0.0/16",),
            cors=CORS,
            rate_limits=(limit(1, 3, name="all"), limit(2, 1, "api_key", name="mine")),
            auth=KEY,
            fixed=FixedResponse(200, b"fixed", "text/plain"),
            pool="",
        )
        async with HttpPlane(StubUpstream(), routes=(rules,), trusted=("127.0.0.1/32",)) as bed:
            client = await bed.client()
            outside = "X-Forwarded-For: 10.9.1.1\r\n"
            key = "X-API-Key: k1\r\n"

            async def ask(fields: str = "", method: str = "GET") -> tuple[int, str]:
                response = await client.get("/", fields, method)
                reason = response.problem["reason"] if "problem" in response.fields.get("content-type", "") else ""
                return response.status, reason

            # an address that may not is refused whatever it asks for
            assert await ask(outside + PREFLIGHT, "OPTIONS") == (403, "forbidden_address")
            # a preflight needs no key and takes from no limit
            for _ in range(5):
                assert await ask(PREFLIGHT, "OPTIONS") == (204, "")
            # a request without a key counts for the first limit, not for the second
            assert await ask() == (401, "unauthorized")
            assert await ask(key) == (200, "")
            assert await ask(key) == (429, "rate_limited")  # the second limit, the third of the first
            assert await ask() == (429, "rate_limited")  # the first limit: nobody is asked for a key
            assert await ask(PREFLIGHT, "OPTIONS") == (204, "")
            assert await ask(outside) == (403, "forbidden_address")
            assert bed.site.counts["all"].refused == {
                ("ip_rules", "address"): 2,
                ("auth", "missing"): 1,
                ("rate_limit", "mine"): 1,
                ("rate_limit", "all"): 1,
            }

    run(main())


def test_stored_answers_are_behind_authentication_and_limits() -> None:
    """A stored answer is only for those who may have it, and counts for the limits like any other."""

    async def main() -> None:
        rules = route(auth=KEY, rate_limits=(limit(1, 2, "api_key"),), cache=Cache(60.0, 10, 10_000))
        backend = StubUpstream(answering(answer(fields=b"Cache-Control: public\r\n")))
        async with HttpPlane(backend, routes=(rules,)) as bed:
            client = await bed.client()
            key = "X-API-Key: k1\r\n"
            statuses = [(await client.get("/", fields)).status for fields in (key, key, "", key)]
            assert statuses == [200, 200, 401, 429]
            assert backend.requests == 1

    run(main())


def test_server_limits() -> None:
    """A limit of the server holds on every route but those that opt out."""

    async def main() -> None:
        rules = (route(name="free", path_prefix="/free", server_limits=False), route(name="rest"))
        async with HttpPlane(StubUpstream(), routes=rules, rate_limit=limit(1, 2)) as bed:
            client = await bed.client()
            paths = ("/a", "/free", "/b", "/free", "/c", "/free")
            assert [(await client.get(path)).status for path in paths] == [200, 200, 200, 200, 429, 200]

    run(main())


def test_not_found_and_not_allowed() -> None:
    """Nobody serves the path: 404; somebody does, with other methods: 405 and which. Both are told apart in log and
    metric."""

    async def main() -> None:
        rules = (
            route(name="read", path_prefix="/x", methods=("GET", "HEAD")),
            route(name="drop", path_prefix="/x", methods=("DELETE",)),
        )
        async with HttpPlane(backend := StubUpstream(), routes=rules) as bed:
            client = await bed.client()
            nowhere = await client.get("/y")
            assert (nowhere.status, nowhere.problem["reason"]) == (404, "no_route")
            assert "allow" not in nowhere.fields
            wrong = await client.get("/x", method="PATCH")
            assert (wrong.status, wrong.problem["reason"]) == (405, "method_not_allowed")
            assert set(wrong.fields["allow"].split(", ")) == {"DELETE", "GET", "HEAD"}
            assert (await client.get("/x", method="DELETE")).status == 200
            assert bed.site.local_reasons == {"no_route": 1, "method_not_allowed": 1}
            assert bed.site.unrouted_codes == {404: 1, 405: 1}
            assert backend.requests == 1
            lines = await bed.logged(3)
            assert [line.get("reason") for line in lines] == ["no_route", "method_not_allowed", None]

    run(main())


# --- stages that need the body


def form_route(burst: int = 1) -> dict[str, Any]:
    return route(rate_limits=(limit(1, burst, "form:user"),))


def form(body: bytes, fields: str = "", *, chunked: bool = False) -> bytes:
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    head = f"POST / HTTP/1.1\r\nHost: a\r\n{FORM}{fields}{framing}\r\n\r\n".encode()
    return head + (b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body)


def body_of(received: bytes, chunked: bool) -> bytes:
    """The decoded body of the one request that a backend received."""
    body = received.partition(b"\r\n\r\n")[2]
    return ChunkedDecoder().feed(body) if chunked else body


async def said(client: Client, data: bytes) -> int:
    await client.send(data)
    response = await client.response()
    return response.status


@pytest.mark.parametrize("chunked", [False, True])
def test_limit_by_form(chunked: bool) -> None:
    """The value counts, not the request; the backend gets the body unchanged, and a refused one leaves the connection
    usable."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(), routes=(form_route(),)) as bed:
            client = await bed.client()
            bodies = (b"user=ann&x=1", b"user=bob", b"y=2&user=ann", b"user=eve")
            statuses = [await said(client, form(body, chunked=chunked)) for body in bodies]
            assert statuses == [200, 200, 429, 200]
            assert backend.requests == 3
            assert b"user=ann&x=1" in backend.received
            assert b"y=2" not in backend.received

    run(main())


@pytest.mark.parametrize("chunked", [False, True])
def test_form_in_pieces(chunked: bool) -> None:
    """The backend hears nothing until the whole form is here and has been judged; then it gets all of it."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(), routes=(form_route(),)) as bed:
            client = await bed.client()
            data = form(b"user=ann&text=" + b"t" * 3000, chunked=chunked)
            await client.send_pieces([data[:150], data[150:200], data[200:2000], data[2000:-1]])
            await until(lambda: bed.site.in_flight)
            assert not backend.talks
            await client.send(data[-1:])
            assert (await client.response()).status == 200
            assert body_of(backend.received, chunked) == b"user=ann&text=" + b"t" * 3000

    run(main())


def test_form_that_is_too_large() -> None:
    """64 KiB of a form are read for its key: a larger length is refused at once, a chunked one when it passes that."""

    async def main() -> None:
        settings: dict[str, Any] = {"routes": ({**form_route(9), "max_body": 0},), "limits": {"request_body": 0}}
        async with HttpPlane(backend := StubUpstream(), **settings) as bed:
            fits = b"user=" + b"u" * (65536 - 5)
            assert await said(await bed.client(), form(fits)) == 200
            assert await said(await bed.client(), form(fits, chunked=True)) == 200
            over = await bed.exchange(form(fits + b"x")[:200])
            assert (over.status, over.problem["reason"]) == (413, "body_too_large")
            chunked = await bed.client()
            await chunked.send(form(fits + b"x", chunked=True)[:-5])
            assert (await chunked.response()).status == 413
            assert backend.requests == 2

    run(main())


def test_form_with_expect() -> None:
    """A client that waits for 100 Continue is told by the gateway, once; the backend is not asked about it again."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(), routes=(form_route(),)) as bed:
            client = await bed.client()
            head, body = form(b"user=ann", "Expect: 100-continue\r\n").split(b"\r\n\r\n")
            await client.send(head + b"\r\n\r\n")
            assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert not backend.talks
            await client.send(body)
            assert (await client.response()).status == 200
            assert b"Expect" not in backend.received
            # refused before it was told to continue: it may keep its body, so the connection ends
            await client.send(head.replace(b"Length: 8", b"Length: 99999") + b"\r\n\r\n")
            assert (await client.response()).status == 413
            assert await client.ends() == "eof"

    run(main())


def test_form_without_a_body() -> None:
    """A request without a form, or with an empty one, is counted by its address and waits for nothing."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), routes=(form_route(2),)) as bed:
            client = await bed.client()
            assert await said(client, form(b"")) == 200
            assert (await client.get()).status == 200
            assert await said(client, form(b"other=1")) == 429
            assert await said(client, form(b"user=ann")) == 200

    run(main())


def test_form_that_cannot_be_read() -> None:
    """A form that servers would read differently is refused, and nothing of it reaches the backend."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(), routes=(form_route(),)) as bed:
            response = await bed.exchange(form(b"user=%zz"))
            assert (response.status, response.problem["reason"]) == (400, "bad_form")
            assert not backend.talks

    run(main())


def test_client_gone_inside_of_its_form() -> None:
    """A client that leaves before its form is complete has counted for no limit."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), routes=(form_route(),)) as bed:
            client = await bed.client()
            await client.send(form(b"user=ann")[:-3])
            await until(lambda: bed.site.in_flight)
            client.close()
            await until(lambda: not bed.site.in_flight)
            assert await said(await bed.client(), form(b"user=ann")) == 200

    run(main())


# --- stages that wait


class Gate:
    """Passwords that are compared when the test says so. ``with Gate(bed)`` before the first request."""

    def __init__(self, bed: HttpPlane) -> None:
        self.bed = bed
        self.compared = 0
        self.open = threading.Event()
        self.passwords = Passwords(compare=self._compare)

    def _compare(self, password: bytes, hashed: bytes) -> bool:
        self.compared += 1
        self.open.wait(20)
        return bcrypt.checkpw(password, hashed)

    async def __aenter__(self) -> Gate:
        self.bed.plane.services._passwords = self.passwords
        await self.bed.apply()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open.set()
        await until(lambda: not self.passwords._running)
        self.passwords.close()


def test_client_gone_while_its_password_is_compared() -> None:
    """Nobody is asked for a client that left meanwhile; what was found out is remembered for the next one."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(), routes=(route(auth=BASIC),)) as bed, Gate(bed) as gate:
            client = await bed.client()
            await client.send(f"GET / HTTP/1.1\r\nHost: a\r\n{ALICE}\r\n".encode())
            await until(lambda: gate.compared)
            client.close()
            (line,) = await bed.logged()
            assert (line["status"], line["reason"]) == (499, "client_gone")
            gate.open.set()
            await until(lambda: not gate.passwords._running)
            assert not backend.talks
            assert (await (await bed.client()).get("/", ALICE)).status == 200
            assert gate.compared == 1

    run(main())


@pytest.mark.parametrize("chunked", [False, True])
def test_body_that_arrives_meanwhile(chunked: bool) -> None:
    """A body that comes while a stage waits goes to the backend whole, however large it is."""

    async def main() -> None:
        backend = StubUpstream()
        rules = route(auth=BASIC, max_body=0)
        settings: dict[str, Any] = {"limits": {"request_body": 0}}
        async with HttpPlane(backend, routes=(rules,), **settings) as bed, Gate(bed) as gate:
            client = await bed.client()
            body = bytes(65 + i % 26 for i in range(400_000))
            data = form(body, ALICE, chunked=chunked)
            sending = asyncio.create_task(client.send(data))
            await until(lambda: gate.compared)
            exchange = next(iter(bed.site.clients)).exchange
            assert exchange is not None
            await until(lambda: exchange._pending_size >= 65536)
            assert exchange.request_paused
            assert exchange._pending_size < 300_000  # the client is not read beyond what the gateway keeps
            gate.open.set()
            await sending
            assert (await client.response()).status == 200
            assert body_of(backend.received, chunked) == body

    run(main())


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
def test_form_that_arrives_meanwhile(chunked: bool, whole: bool) -> None:
    """A form whose beginning, or all of it, came while an earlier stage waited is read from its first byte."""

    async def main() -> None:
        rules = route(auth=BASIC, rate_limits=(limit(1, 1, "jwt:tenant", "form:user"),))
        async with HttpPlane(backend := StubUpstream(), routes=(rules,)) as bed, Gate(bed) as gate:
            client = await bed.client()
            data = form(b"user=ann&x=1", ALICE, chunked=chunked)
            cut = len(data) if whole else -4 if not chunked else -9
            await client.send(data[:cut])
            await until(lambda: gate.compared)
            exchange = next(iter(bed.site.clients)).exchange
            assert exchange is not None
            await until(lambda: not exchange.body_open if whole else exchange._pending_size >= 5)
            gate.open.set()
            if not whole:
                await until(lambda: exchange._form is not None)
                await client.send(data[cut:])
            assert (await client.response()).status == 200
            assert backend.received.count(b"user=ann&x=1" if not chunked or whole else b"user=ann") == 1
            assert await said(client, form(b"user=bob", ALICE)) == 200
            assert await said(client, form(b"user=ann", ALICE)) == 429

    run(main())


def test_largest_form_meanwhile() -> None:
    """A form that is as large as it may be fills what is kept for the backend: it is read to its end all the same."""

    async def main() -> None:
        rules = route(auth=BASIC, rate_limits=(limit(1, 1, "jwt:tenant", "form:user"),), max_body=0)
        settings: dict[str, Any] = {"limits": {"request_body": 0}}
        async with HttpPlane(backend := StubUpstream(), routes=(rules,), **settings) as bed, Gate(bed) as gate:
            client = await bed.client()
            body = b"user=" + b"u" * 65531
            data = form(body, ALICE, chunked=True)
            await client.send(data[:-5])
            await until(lambda: gate.compared)
            exchange = next(iter(bed.site.clients)).exchange
            assert exchange is not None
            await until(lambda: exchange.request_paused)
            await client.send(data[-5:])
            gate.open.set()
            assert (await client.response()).status == 200
            assert body_of(backend.received, True) == body

    run(main())


def test_large_form_meanwhile() -> None:
    """More than a form may have is refused also when it came while an earlier stage waited."""

    async def main() -> None:
        rules = route(auth=BASIC, rate_limits=(limit(1, 1, "jwt:tenant", "form:user"),), max_body=0)
        settings: dict[str, Any] = {"limits": {"request_body": 0}}
        async with HttpPlane(backend := StubUpstream(), routes=(rules,), **settings) as bed, Gate(bed) as gate:
            client = await bed.client()
            await client.send(form(b"user=" + b"u" * 65536, ALICE, chunked=True)[:-5])
            await until(lambda: gate.compared)
            exchange = next(iter(bed.site.clients)).exchange
            assert exchange is not None
            await until(lambda: exchange._pending_size >= 65536)
            gate.open.set()
            assert (await client.response()).status == 413
            assert not backend.talks

    run(main())


def test_pipelined_requests_stay_in_order() -> None:
    """Requests behind one that waits wait with it: answers come in the order of the requests."""

    async def main() -> None:
        async def echo(talk: Talk) -> None:
            while head := (await talk.request())[0]:
                await talk.send(answer(head.split(b" ")[1]))

        rules = (route(name="slow", path_prefix="/slow", auth=BASIC), route(name="rest"))
        async with HttpPlane(StubUpstream(echo), routes=rules) as bed, Gate(bed) as gate:
            client = await bed.client()
            wanted = ["/a", "/slow/1", "/b", "/slow/2", "/c"]
            await client.send(b"".join(f"GET {p} HTTP/1.1\r\nHost: a\r\n{ALICE}\r\n".encode() for p in wanted))
            await until(lambda: gate.compared)
            assert (await client.response()).body == b"/a"
            assert bed.site.in_flight == 1
            gate.open.set()
            assert [(await client.response()).body.decode() for _ in range(4)] == wanted[1:]
            assert gate.compared == 1

    run(main())


@pytest.mark.parametrize("body", [False, True])
def test_nobody_is_late_while_a_stage_waits(body: bool) -> None:
    """timeouts.responseHeader begins when the backend is asked, not while a password is compared."""

    async def main() -> None:
        held = asyncio.Event()

        async def play(talk: Talk) -> None:
            await talk.request()
            await held.wait()
            await talk.send(answer())

        rules = route(auth=BASIC)
        async with HttpPlane(StubUpstream(play), routes=(rules,)) as bed, Gate(bed) as gate:
            client = await bed.client()
            head = f"GET / HTTP/1.1\r\nHost: a\r\n{ALICE}\r\n".encode()
            await client.send(form(b"body", ALICE)[:-2] if body else head)
            await until(lambda: gate.compared)
            exchange = next(iter(bed.site.clients)).exchange
            assert exchange is not None
            if body:
                await client.send(b"dy")
            await until(lambda: not exchange.body_open)
            bed.pass_time(40)  # responseHeader is 15 s
            assert bed.site.in_flight == 1
            gate.open.set()
            await until(lambda: exchange.upstream is not None)
            assert not exchange.over
            held.set()
            assert (await client.response()).status == 200

    run(main())


def test_wrong_password_after_a_wait() -> None:
    """A verdict that was waited for refuses like any other, and the connection goes on."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(), routes=(route(auth=BASIC),)) as bed, Gate(bed) as gate:
            gate.open.set()
            client = await bed.client()
            wrong = f"Authorization: Basic {base64.b64encode(b'alice:nope').decode()}\r\n"
            for _ in range(2):
                assert (await client.get("/", wrong)).status == 401
            assert (await client.get("/", ALICE)).status == 200
            assert bed.site.counts["all"].refused == {("auth", "wrong_password"): 2}
            assert "alice" in dict(fields_of(backend.received)).get("X-User", "")
            assert b"Authorization" not in backend.received

    run(main())


def es256(kid: str, secret: bytes) -> tuple[bytes, str]:
    """A JWK set as a URL would give it, and a bearer field signed with its key."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from jwt import encode
    from jwt.algorithms import ECAlgorithm

    key = ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256R1())
    public = ECAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": kid, "use": "sig", "alg": "ES256"}
    claims = {"iss": "us", "aud": "them", "sub": "ann", "exp": int(wall()) + 600}
    token = encode(claims, key, "ES256", headers={"kid": kid})
    return msgspec.json.encode({"keys": [public]}), f"Authorization: Bearer {token}\r\n"


def test_unknown_key_is_asked_for() -> None:
    """A token signed with a key that nobody knows yet waits for the next key set, and passes if it is there; another
    one that waits with it is asked for once."""

    async def main() -> None:
        url = "https://issuer.test/keys"
        rules = JwtAuth(("ES256",), ("us",), ("them",), jwks_url=url, forward_claims=(("sub", "X-Sub"),))
        old, _ = es256("old", b"1" * 31)
        new, bearer = es256("new", b"2" * 31)
        async with HttpPlane(backend := StubUpstream(), routes=(route(auth=rules),)) as bed:
            assert (await (await bed.client()).get("/", bearer)).problem["reason"] == "auth_unavailable"
            bed.plane.apply_keys(KeySet(url, old))
            clients = [await bed.client() for _ in range(3)]
            for client in clients:
                await client.send(f"GET / HTTP/1.1\r\nHost: a\r\n{bearer}\r\n".encode())
            await until(lambda: bed.site.in_flight == 3)
            assert [m.url for m in bed.outbox.messages if isinstance(m, UnknownKey)] == [url]
            clients[2].close()
            await until(lambda: bed.site.in_flight == 2)
            bed.plane.apply_keys(KeySet(url, new))
            assert [(await client.response()).status for client in clients[:2]] == [200, 200]
            assert backend.received.count(b"X-Sub: ann\r\n") == 2

    run(main())


# --- answers of the gateway's own


def test_local_answers_are_filtered() -> None:
    """What a route gives all its answers, its own have too: a page can read its 401, 429, redirect and 503."""

    async def main() -> None:
        common = route(
            cors=CORS,
            response_fields=FieldEdits(set=(("X-Served-By", "gogate"), ("X-Path", "{path}"))),
        )
        rules = (
            {**common, "name": "key", "path_prefix": "/key", "auth": KEY},
            {**common, "name": "limit", "path_prefix": "/limit", "rate_limits": (limit(1, 1),)},
            {**common, "name": "go", "path_prefix": "/go", "redirect": Redirect("/there", 307), "pool": ""},
            {**common, "name": "say", "path_prefix": "/say", "fixed": FixedResponse(418, b"tea", "text/plain"),
             "pool": ""},
            {**common, "name": "none", "path_prefix": "/none", "pool": "empty"},
            {**common, "name": "all"},
        )  # fmt: skip
        pools: dict[str, tuple[int, ...]] = {"default": (0,), "empty": ()}
        async with HttpPlane(StubUpstream(), routes=rules, pools=pools) as bed:
            client = await bed.client()
            assert (await client.get("/limit")).status == 200
            statuses = {"/key": 401, "/limit": 429, "/go": 307, "/say": 418, "/none": 503, "/": 200}
            for path, status in statuses.items():
                response = await client.get(path, "Origin: https://app.test\r\n")
                assert response.status == status
                assert response.fields["access-control-allow-origin"] == "https://app.test"
                assert (response.fields["x-served-by"], response.fields["x-path"]) == ("gogate", path)
                assert response.fields["x-request-id"]
                foreign = await client.get(path, "Origin: https://evil.test\r\n")
                assert "access-control-allow-origin" not in foreign.fields

    run(main())


def test_answers_before_a_route_are_not_filtered() -> None:
    """Where no route was found there is nothing to be added."""

    async def main() -> None:
        rules = (route(path_prefix="/x", cors=CORS),)
        async with HttpPlane(StubUpstream(), routes=rules) as bed:
            response = await (await bed.client()).get("/y", "Origin: https://app.test\r\n")
            assert response.status == 404
            assert "access-control-allow-origin" not in response.fields

    run(main())


def test_head_of_a_local_answer() -> None:
    """HEAD gets the fields of a fixed response without its body, and the connection goes on."""

    async def main() -> None:
        rules = (route(fixed=FixedResponse(200, b"hello", "text/plain"), pool=""),)
        async with HttpPlane(StubUpstream(), routes=rules) as bed:
            client = await bed.client()
            response = await client.get("/", method="HEAD")
            assert (response.fields["content-length"], response.fields["content-type"]) == ("5", "text/plain")
            assert (await client.get()).body == b"hello"

    run(main())


# --- what the backend gets


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"strip_prefix": "/api"},
        {"path": "/api/users/{id}", "path_prefix": "", "rewrite_path": "/u/{id}/x"},
        {"request_fields": FieldEdits(("User-Agent", "X-Debug"), (("X-Who", "{client_ip} {path}"),), (("Via", "g"),))},
        {"request_fields": FieldEdits(set=(("Host", "inner.test"),))},
        {"auth": ApiKeyAuth(KEY.keys, query="key", forward_name="X-Consumer")},
        {
            "strip_prefix": "/api",
            "rewrite_path": "/v2{path}",
            "request_fields": FieldEdits(set=(("X-Old", "{uri}"),)),
            "auth": KEY,
            "rate_limits": (limit(1, 100, "api_key"),),
        },
    ],
)
@pytest.mark.parametrize("claims", [b"", b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Port: 443\r\n"])
@pytest.mark.parametrize("trusted", [(), ("127.0.0.0/8",)])
def test_fast_and_slow_heads_are_changed_alike(
    rules: dict[str, Any], claims: bytes, trusted: tuple[str, ...]
) -> None:
    """Whether a head came whole or in pieces, for the first time or again, the backend gets the same."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(), routes=(rules,), trusted=trusted) as bed:
            head = (
                b"GET /api/users/7?a=1&key=k1 HTTP/1.1\r\nHost: a.test\r\nUser-Agent: t\r\nX-API-Key: k1\r\n"
                + claims
                + b"x-debug: 1\r\nX-Consumer: forged\r\nAccept: */*\r\nVia: other\r\n\r\n"
            )
            for _ in range(2):
                client = await bed.client()
                for _ in range(2):
                    await client.send(head)
                    assert (await client.response()).status == 200
                await client.send_pieces([head[:1], head[1:40], head[40:]])
                assert (await client.response()).status == 200
            line = rb"(?i)X-Request-ID: .*\r\n"
            heads = re.findall(rb"GET .*?\r\n\r\n", re.sub(line, b"", backend.received), re.DOTALL)
            assert len(heads) == 6
            for one in heads:
                assert one.split(b"\r\n")[0] == heads[0].split(b"\r\n")[0]
                assert sorted(one.split(b"\r\n")) == sorted(heads[0].split(b"\r\n"))

    run(main())


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 2\r\n\r\nhi", b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"]
)
def test_answers_that_come_again_are_changed_alike(framing: bytes) -> None:
    """Every answer gets what the route adds once, also when its backend's head is the same as before."""

    async def main() -> None:
        rules = (route(response_fields=FieldEdits(("X-Gone",), (("X-Set", "1"),), (("X-Added", "{path}"),))),)
        script = answering(b"HTTP/1.1 200 OK\r\nX-Gone: 1\r\nX-Kept: 1\r\n" + framing)
        async with HttpPlane(StubUpstream(script), routes=rules) as bed:
            client = await bed.client()
            for path in ("/a", "/a", "/b"):
                before = len(client.received)
                assert (await client.get(path)).body == b"hi"
                names = [(name.lower(), value) for name, value in fields_of(client.received[before:])]
                added = [(name, value) for name, value in names if name.startswith("x-") and name != "x-request-id"]
                assert added == [("x-kept", "1"), ("x-set", "1"), ("x-added", path)]

    run(main())


def test_changes_of_the_request() -> None:
    """The backend sees the rewritten path and the changed fields; the log and every stage see what the client sent."""

    async def main() -> None:
        rules = route(
            path="/api/users/{id}",
            path_prefix="",
            rewrite_path="/u/{id}",
            request_fields=FieldEdits(("X-Debug",), (("X-User-Id", "{id}"),), ()),
        )
        async with HttpPlane(backend := StubUpstream(), routes=(rules,)) as bed:
            client = await bed.client()
            await client.get("/api/users/42?x=1", "X_Debug: 1\r\nX-User-Id: 99\r\n")
            assert backend.received.startswith(b"GET /u/42?x=1 HTTP/1.1\r\n")
            sent = fields_of(backend.received)
            assert [value for name, value in sent if name.lower() == "x-user-id"] == ["42"]
            assert not [name for name, _ in sent if "debug" in name.lower()]
            (line,) = await bed.logged()
            assert line["path"] == "/api/users/42"

    run(main())


@pytest.mark.parametrize("size", [10, 11])
def test_request_body_limit_of_a_route(size: int) -> None:
    """A route's requestBody holds for known lengths and chunked bodies; one byte more is 413, on this route only."""

    async def main() -> None:
        rules = (route(name="small", path_prefix="/small", max_body=10), route(name="rest"))
        async with HttpPlane(backend := StubUpstream(), routes=rules) as bed:
            for chunked in (False, True):
                data = form(b"x" * size, chunked=chunked)
                client = await bed.client()
                await client.send(data.replace(b"POST /", b"POST /small"))
                response = await client.response()
                assert response.status == (200 if size == 10 else 413)
                assert (await bed.exchange(data)).status == 200
            # a head waits for the body that came with it, so that nothing of these went out
            assert backend.received.count(b"POST /small ") == (2 if size == 10 else 0)
            assert backend.received.count(b"x" * size) == (4 if size == 10 else 2)

    run(main())


# --- websockets


UPGRADE = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n"


def test_websocket_through_stages() -> None:
    """An upgrade passes every stage first: refused without a key, changed and filtered like any request with one, and
    then it is a tunnel."""

    async def main() -> None:
        async def play(talk: Talk) -> None:
            await talk.head()
            await talk.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            while data := await talk.some():
                await talk.send(data)

        rules = route(
            auth=KEY,
            cors=CORS,
            rate_limits=(limit(1, 9), limit(2, 9, "api_key")),
            strip_prefix="/ws",
            response_fields=FieldEdits(set=(("X-Served-By", "gogate"),)),
        )
        async with HttpPlane(backend := StubUpstream(play), routes=(rules,)) as bed:
            client = await bed.client()
            refused = await client.get("/ws/chat", UPGRADE)
            assert refused.status == 401
            assert not backend.talks
            await client.send(f"GET /ws/chat HTTP/1.1\r\nHost: a\r\nX-API-Key: k1\r\n{UPGRADE}\r\n".encode())
            head = Response(await client.head())
            assert (head.status, head.fields["x-served-by"]) == (101, "gogate")
            assert backend.received.startswith(b"GET /chat HTTP/1.1\r\n")
            assert b"X-Consumer: tester\r\n" in backend.received
            await client.send(b"ping")
            assert await client.exactly(4) == b"ping"

    run(main())


def test_websocket_behind_a_stage_that_waits() -> None:
    """What the client sends early, while its password is compared, is the first thing in the tunnel."""

    async def main() -> None:
        async def play(talk: Talk) -> None:
            await talk.head()
            await talk.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            while data := await talk.some():
                await talk.send(data)

        async with HttpPlane(StubUpstream(play), routes=(route(auth=BASIC),)) as bed, Gate(bed) as gate:
            client = await bed.client()
            await client.send(f"GET / HTTP/1.1\r\nHost: a\r\n{ALICE}{UPGRADE}\r\nearly".encode())
            await until(lambda: gate.compared)
            gate.open.set()
            assert Response(await client.head()).status == 101
            assert await client.exactly(5) == b"early"

    run(main())


def test_answers_that_nobody_changes() -> None:
    """A route without filters passes the backend's fields on as they are, chunked or not."""

    async def main() -> None:
        fields = b"X-A: 1\r\nAccess-Control-Allow-Origin: *\r\n"
        backend = StubUpstream(answering(answer(b"x", fields=fields)))
        async with HttpPlane(backend, routes=(route(auth=KEY),)) as bed:
            response = await (await bed.client()).get("/", "X-API-Key: k1\r\n")
            assert (response.fields["x-a"], response.fields["access-control-allow-origin"]) == ("1", "*")

    run(main())
