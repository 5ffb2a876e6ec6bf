"""Fields on the way: hop-by-hop, forwarding, request ids, Host; and the answers that gogate gives itself."""

from __future__ import annotations

import asyncio

import pytest
from doubles.http_plane import HttpPlane, field, fields_of, run, until
from doubles.stub_upstream import StubUpstream, Talk, answer, answering

from gogate_py.snapshot import BackendState, Breaker, RateLimit


def test_hop_by_hop_fields_end_here_both_ways() -> None:
    """Connection, what it names, Keep-Alive, Proxy-Connection, TE, Trailer and Upgrade are for one hop only (T6)."""

    async def main() -> None:
        hops = b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n"
        hops += b"Proxy-Connection: x\r\nTrailer: T\r\n"
        script = answering(answer(b"ok", fields=hops + b"Upgrade: h2c\r\nX-Stays: 1\r\n"))
        async with HttpPlane(backend := StubUpstream(script)) as bed:
            response = await bed.exchange(
                b"GET / HTTP/1.1\r\nHost: a\r\n" + hops + b"TE: trailers\r\nUpgrade: h2c\r\nX-Stays: 1\r\n\r\n"
            )
            names = {name.lower() for name, _ in fields_of(backend.received)}
            forwarded = {"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "x-request-id"}
            assert names == {"host", "x-stays"} | forwarded
            assert set(response.fields) == {"content-length", "x-stays", "x-request-id"}

    run(main())


def test_connection_cannot_name_what_the_backend_relies_on() -> None:
    """A nomination of Host, forwarding fields, Authorization or Cookie strips nothing (T6)."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream()) as bed:
            await bed.exchange(
                b"GET / HTTP/1.1\r\nHost: a\r\n"
                b"Connection: host, x-forwarded-for, cookie, authorization, x-request-id\r\n"
                b"Cookie: c\r\nAuthorization: t\r\n\r\n"
            )
            kept = {"Host": "a", "X-Forwarded-For": "127.0.0.1", "Cookie": "c", "Authorization": "t"}
            for name, value in kept.items():
                assert field(backend.received, name) == value

    run(main())


@pytest.mark.parametrize(
    "behind", [b"X-Forwarded-For: b\r\n", b"X-Forwarded-For: b\r\n\r\n", b"X-Real-IP: b\r\nA: b\r\n\r\n"]
)
def test_such_a_line_behind_a_request_is_no_part_of_it(behind: bytes) -> None:
    """Taken out, it would leave one whole head: the bytes begin another request, which is none."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream()) as bed:
            for before in (b"", b"X-Forwarded-For: a\r\n"):
                client = await bed.client()
                await client.send(b"GET / HTTP/1.1\r\nHost: a.test\r\n" + before + b"\r\n" + behind)
                assert (await client.response()).status == 200
                client.eof()
                assert (await client.response()).status == 400
            assert backend.requests == 2

    run(main())


CLAIMS = (
    "X-Forwarded-For: 6.6.6.6, 9.9.9.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n",
    "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: [2001:db8::1]:80\r\nX-Forwarded-Host: h.test\r\n",
    "Forwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Request-ID: theirs\r\n",
    "X-Request-ID: one\r\nX-Request-ID: two\r\n",
    "X-Forwarded-For: nobody, 127.0.0.7\r\nX-Forwarded-Proto: gopher\r\n",
    "X-Forwarded-For: " + "1" * 70 + "\r\n",
)


@pytest.mark.parametrize("claims", CLAIMS)
@pytest.mark.parametrize("trusted", [(), ("127.0.0.0/8",)])
@pytest.mark.parametrize("body", ["", "Content-Length: 2\r\n"])
def test_what_a_proxy_in_front_says_means_the_same_on_both_roads(
    claims: str, trusted: tuple[str, ...], body: str
) -> None:
    """A head that is clean but for these lines goes as a slice, another one is written anew: to the backend, to stages
    and in the log they are the same."""
    seen = []

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(), trusted=trusted) as bed:
            client = await bed.client()
            for _ in range(2):  # the second time it is known that the lines come first
                for slow in ("", "TE: trailers\r\n"):
                    method, before = "POST" if body else "GET", len(backend.received)
                    head = f"{method} /a?b HTTP/1.1\r\nA: b\r\n{claims}Host: a.test\r\n{slow}{body}\r\n"
                    await client.send(head.encode() + b"hi" * bool(body))
                    await client.response()
                    line = (await bed.logged(len(seen) + 1))[-1]
                    own = "" if line["request_id"] in claims else line["request_id"]
                    sent = backend.received[before:].partition(b"\r\n\r\n")[0] + b"\r\n"
                    fields = sorted((name.lower(), value) for name, value in fields_of(sent) if value != own)
                    seen.append((line["client"], fields, bool(own)))

    run(main())
    assert seen == [seen[0]] * 4


@pytest.mark.parametrize(
    ("trusted", "chain", "real", "host", "proto"),
    [
        ((), "127.0.0.1", "127.0.0.1", "a.test", "http"),
        (("127.0.0.0/8",), "6.6.6.6, 9.9.9.9, 127.0.0.1", "9.9.9.9", "h.test", "https"),
    ],
)
def test_forwarding_fields(trusted: tuple[str, ...], chain: str, real: str, host: str, proto: str) -> None:
    """A stranger's forwarding fields are replaced, a trusted proxy's continued; the log names the client found (T7)."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(), trusted=trusted) as bed:
            await bed.exchange(
                b"GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 6.6.6.6, 9.9.9.9\r\nX-Real-IP: 6.6.6.6\r\n"
                b"X-Forwarded-Host: h.test\r\nX-Forwarded-Proto: https\r\nForwarded: for=6.6.6.6\r\n"
                b"X_Forwarded_For: x\r\n\r\n"
            )
            head = backend.received
            assert field(head, "X-Forwarded-For") == chain
            assert field(head, "X-Real-IP") == real
            assert field(head, "X-Forwarded-Host") == host
            assert field(head, "X-Forwarded-Proto") == proto
            assert field(head, "Forwarded") is None
            assert field(head, "X_Forwarded_For") is None
            assert field(head, "Host") == "a.test"
            assert (await bed.logged())[0]["client"] == real

    run(main())


@pytest.mark.parametrize(("sent", "kept"), [(b"abc-1.2_3", True), (b"x" * 129, False), (b"a b", False), (b"", False)])
def test_request_id(sent: bytes, kept: bool) -> None:
    """A proper request id is kept, another replaced; backend, client and log see the same one."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream()) as bed:
            response = await bed.exchange(b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: " + sent + b"\r\n\r\n")
            rid = response.fields["x-request-id"]
            assert (rid == sent.decode()) == kept
            assert field(backend.received, "X-Request-ID") == rid == (await bed.logged())[0]["request_id"]

    run(main())


def test_made_request_ids_differ() -> None:
    """No two requests get the same id."""

    async def main() -> None:
        async with HttpPlane(StubUpstream()) as bed:
            client = await bed.client()
            ids = {(await client.get()).fields["x-request-id"] for _ in range(50)}
            assert len(ids) == 50

    run(main())


def test_absolute_form_replaces_host() -> None:
    """The authority of an absolute-form target is the Host; the backend gets origin-form (T10)."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(), routes=({"host": "b.test"},)) as bed:
            response = await bed.exchange(b"GET http://b.test/p?q HTTP/1.1\r\nHost: a.test\r\n\r\n")
            assert response.status == 200
            assert backend.received.startswith(b"GET /p?q HTTP/1.1\r\nHost: b.test\r\n")

    run(main())


def test_host_is_matched_without_port_case_and_trailing_dot() -> None:
    """Routes by host take any spelling of the host, and the backend gets the client's spelling."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(), routes=({"host": "b.test"},)) as bed:
            for host in (b"b.test", b"B.Test:8080", b"b.test.", b"B.TEST.:1"):
                assert (await bed.exchange(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")).status == 200
                assert field(backend.talks[0].received.split(b"\r\n\r\n")[-2] + b"\r\n", "Host") == host.decode()
            assert (await bed.exchange(b"GET / HTTP/1.1\r\nHost: c.test\r\n\r\n")).status == 404

    run(main())


# --- answers of our own


def test_no_route() -> None:
    """A request that no route takes is a 404 with the reason and its id; the connection goes on."""

    async def main() -> None:
        async with HttpPlane(routes=({"path_prefix": "/api"},)) as bed:
            client = await bed.client()
            for path in ("/", "/apix"):
                response = await client.get(path)
                assert response.status == 404
                problem = response.problem
                assert (problem["status"], problem["reason"]) == (404, "no_route")
                assert problem["request_id"] == response.fields["x-request-id"]
            line = (await bed.logged(2))[0]
            assert (line["status"], line["reason"], line["route"], line["backend"]) == (404, "no_route", "", "")

    run(main())


def test_method_not_allowed() -> None:
    """A known path with another method is a 405 that lists the methods."""

    async def main() -> None:
        routes = ({"methods": ("GET", "POST")}, {"name": "b", "path": "/x", "path_prefix": "", "methods": ("PUT",)})
        async with HttpPlane(StubUpstream(), routes=routes) as bed:
            client = await bed.client()
            response = await client.get("/x", method="DELETE")
            assert (response.status, response.fields["allow"]) == (405, "GET, HEAD, POST, PUT")
            assert (await client.get("/x")).status == 200

    run(main())


@pytest.mark.parametrize(
    ("accept", "text"),
    [
        ("", False),
        ("Accept: */*\r\n", False),
        ("Accept: text/html,application/xhtml+xml\r\n", True),
        ("accept: text/plain\r\n", True),
        ("Accept: text/html, application/json\r\n", False),
        ("Accept: application/json\r\n", False),
    ],
)
def test_form_of_local_answers(accept: str, text: bool) -> None:
    """problem+json, or text for a client that asks for text and not for JSON; always with the request id."""

    async def main() -> None:
        async with HttpPlane(routes=()) as bed:
            client = await bed.client()
            response = await client.get("/", accept)
            assert response.fields["content-type"].startswith("text/plain" if text else "application/problem+json")
            assert response.fields["x-request-id"].encode() in response.body

    run(main())


def test_local_answer_to_head_has_no_body() -> None:
    """HEAD gets the length of a local answer but not its body; the next answer follows at once."""

    async def main() -> None:
        async with HttpPlane(routes=()) as bed:
            client = await bed.client()
            response = await client.get(method="HEAD")
            assert int(response.fields["content-length"]) > 0
            assert (await client.get()).status == 404

    run(main())


def test_rate_limit() -> None:
    """A bucket of two lets two requests pass and answers the third with 429 and Retry-After; no backend hears of it."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(), rate_limit=RateLimit(0, 1.0, 100.0, 2)) as bed:
            client = await bed.client()
            assert [(await client.get()).status for _ in range(2)] == [200, 200]
            response = await client.get()
            assert response.status == 429
            assert 90 < int(response.fields["retry-after"]) <= 100
            assert backend.requests == 2
            assert dict(bed.plane.services.limiters.take_rejected()) == {("", "token_bucket"): 1}

    run(main())


@pytest.mark.parametrize(
    ("state", "said"), [((False, False), "connection refused"), ((True, True), "draining")]
)
def test_no_usable_backend(state: tuple[bool, bool], said: str) -> None:
    """With no usable backend the answer is a 503; why that is so is in the log, and not told to the client."""

    async def main() -> None:
        async with HttpPlane(StubUpstream()) as bed:
            bed.plane.apply_states([BackendState(0, *state, reason="connection refused")])
            client = await bed.client()
            response = await client.get()
            assert (response.status, response.problem["reason"]) == (503, "no_backend")
            assert said not in response.problem["detail"]
            [line] = await bed.logged()
            assert said in line["detail"]

    run(main())


def test_empty_pool() -> None:
    """A pool without backends is a 503, too."""

    async def main() -> None:
        async with HttpPlane() as bed:
            assert (await bed.exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")).problem["reason"] == "no_backend"

    run(main())


def test_open_breaker() -> None:
    """Failures in a row open the breaker: then 503 with Retry-After, and the backend is left alone."""

    async def main() -> None:
        script = answering(answer(b"", "500 No"))
        async with HttpPlane(backend := StubUpstream(script), breaker=Breaker(3, 1, 1, 30.0)) as bed:
            client = await bed.client()
            assert [(await client.get()).status for _ in range(3)] == [500] * 3
            response = await client.get()
            assert (response.status, response.problem["reason"]) == (503, "breaker_open")
            assert 25 <= int(response.fields["retry-after"]) <= 30
            assert backend.requests == 3

    run(main())


def test_half_open_breaker_closes_after_a_good_trial() -> None:
    """After the timeout one trial goes through; its success closes the breaker, and its permit comes back."""

    async def main() -> None:
        script = answering(answer(b"", "500 No"), answer())
        async with HttpPlane(StubUpstream(script), breaker=Breaker(1, 1, 1, 0.0)) as bed:
            client = await bed.client()
            assert [(await client.get()).status for _ in range(3)] == [500, 200, 200]
            assert bed.live().breaker.closed()

    run(main())


def test_overload() -> None:
    """Beyond limits.inFlight requests are answered with 503 at once; those in flight are not harmed."""

    async def main() -> None:
        release = asyncio.Event()

        async def play(talk: Talk) -> None:
            await talk.request()
            await release.wait()
            await talk.send(answer())

        async with HttpPlane(StubUpstream(play), limits={"in_flight": 2}) as bed:
            busy = [await bed.client() for _ in range(2)]
            for client in busy:
                await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: bed.site.in_flight == 2)
            response = await bed.exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (response.status, response.problem["reason"]) == (503, "overloaded")
            assert response.fields["retry-after"] == "1"
            release.set()
            for client in busy:
                assert (await client.response()).status == 200

    run(main())


def test_connection_limit() -> None:
    """A connection beyond limits.connections is closed at accept and counted; the others go on."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), limits={"connections": 1}) as bed:
            first = await bed.client()  # not idle, as long as it has not been answered: it cannot make room
            second = await bed.client()
            assert await second.ends() in ("eof", "reset")
            listener = bed.plane.listeners.by_id["http:default"]
            assert listener.refused == {"connections": 1}
            assert (await first.get()).status == 200

    run(main())


def test_access_line() -> None:
    """The access line says what was asked, what was answered, by whom and how long it took."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream()) as bed:
            client = await bed.client()
            response = await client.get("/p?secret=1")
            (line,) = await bed.logged()
            assert line.pop("duration_ms") >= 0
            assert line.pop("time").endswith("Z")
            assert line == {
                "level": "INFO",
                "msg": "request completed",
                "method": "GET",
                "path": "/p",
                "status": 200,
                "backend": backend.address,
                "route": "all",
                "request_id": response.fields["x-request-id"],
                "client": "127.0.0.1",
                "bytes": len(client.received),
                "host": "a.test",
            }

    run(main())
