"""What goes wrong, whose fault it is, and what the client and the breaker see of it."""

from __future__ import annotations

import asyncio

import pytest
from doubles.http_plane import HttpPlane, run, until
from doubles.stub_upstream import Script, StubUpstream, Talk, answer, answering

from gogate_py.dataplane.downstream import Downstream
from gogate_py.snapshot import Breaker

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
ONE_FAILURE = Breaker(1, 1, 1, 30.0)


def closing(data: bytes = b"", *, reset: bool = False) -> Script:
    """A script that reads one request, sends this and ends the connection."""

    async def play(talk: Talk) -> None:
        await talk.request()
        await talk.send(data)
        if reset:
            await asyncio.sleep(0.01)  # the gateway reads what came before the RST, which overtakes it
            talk.reset()
        else:
            talk.close()

    return play


# --- no connection, or no answer


def test_refusing_backend_is_left_for_another() -> None:
    """A backend that refuses connections costs no request, with or without a body: another one is tried."""

    async def main() -> None:
        gone, good = StubUpstream(), StubUpstream()
        async with HttpPlane(gone, good) as bed:
            await gone.refuse()
            client = await bed.client()
            for _ in range(4):
                assert (await client.get()).status == 200
                await client.send(POST + b"Content-Length: 2\r\n\r\nhi")
                assert (await client.response("POST")).status == 200
            assert good.requests == 8
            refused = bed.live(0).connects["refused"]
            assert refused >= 4
            assert bed.live(0).retries == {"connect_failed": refused}
            assert sum(line.get("retries", 0) for line in bed.lines()) == refused

    run(main())


def test_refusing_backends_everywhere() -> None:
    """When nobody takes the connection, the answer is a 502 that says so, and the client connection goes on."""

    async def main() -> None:
        async with HttpPlane(only := StubUpstream(), breaker=Breaker(5, 1, 1, 30.0)) as bed:
            await only.refuse()
            client = await bed.client()
            response = await client.get()
            assert (response.status, response.problem["reason"]) == (502, "connect_failed")
            assert "connection" not in response.fields
            await only.start()
            await bed.apply()
            assert (await client.get()).status == 200

    run(main())


@pytest.mark.parametrize("reset", [False, True])
def test_backend_that_closes_without_an_answer(reset: bool) -> None:
    """An idempotent request is tried once more on another backend, its small body too; a POST is not (F1)."""

    async def main() -> None:
        bad, good = StubUpstream(closing(reset=reset)), StubUpstream()
        async with HttpPlane(bad, good) as bed:
            for method, body, statuses in (("GET", b"", {200}), ("POST", b"", {200, 502}), ("PUT", b"x", {200})):
                before = bad.requests
                got = set()
                for _ in range(4):
                    data = f"{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                    got.add((await bed.exchange(data + body)).status)
                assert got == statuses, method
                assert bad.requests > before
                if method == "GET":
                    assert bed.live(0).retries == {"upstream_reset": bad.requests}

    run(main())


def test_backend_that_closes_without_an_answer_twice() -> None:
    """Two tries in all: when the second backend dies too, the answer is 502."""

    async def main() -> None:
        backends = [StubUpstream(closing()) for _ in range(3)]
        async with HttpPlane(*backends) as bed:
            assert (await bed.exchange(GET)).problem["reason"] == "upstream_reset"
            assert sum(b.requests for b in backends) == 2

    run(main())


@pytest.mark.parametrize("reset", [False, True])
def test_stale_kept_connection_costs_nothing(reset: bool) -> None:
    """A kept connection that the backend closes as the request arrives: an idempotent request goes out again (F1)."""

    async def main() -> None:
        async def once(talk: Talk) -> None:
            await talk.request()
            await talk.send(answer(b"1"))
            await talk.request()
            if reset:
                talk.reset()

        backend = StubUpstream(once, answering(answer(b"2")))
        async with HttpPlane(backend, breaker=ONE_FAILURE) as bed:
            client = await bed.client()
            assert (await client.get()).body == b"1"
            assert (await client.get()).body == b"2"
            assert bed.live().retries == {"stale_connection": 1}
            assert bed.live().breaker.closed()

    run(main())


def test_connection_closed_while_idle_is_not_used_for_a_post() -> None:
    """A request that cannot be sent twice asks the kernel first whether the kept connection still stands."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(closing(answer(b"1")), answering(answer(b"2")))) as bed:
            client = await bed.client()
            assert (await client.get()).body == b"1"
            # The FIN is in the kernel already; whether the loop has seen it does not matter.
            await client.send(POST + b"Content-Length: 2\r\n\r\nhi")
            assert (await client.response()).body == b"2"
            assert len(backend.talks) == 2

    run(main())


# --- bad answers

BAD_ANSWERS = {
    "not http": b"SSH-2.0-OpenSSH_9.2\r\n",
    "status 000": b"HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n",
    "http/2": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "both framings": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "gzip coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
    "folded line": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "NUL": b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
    "no colon": b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n",
    "unasked 101": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "too many fields": b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 129 + b"Content-Length: 0\r\n\r\n",
    "head too large": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "endless head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_bad_answers(name: str) -> None:
    """An answer that is not proper HTTP is a 502, drops its connection, is not retried and counts against the
    backend."""

    async def main() -> None:
        async def play(talk: Talk) -> None:
            await talk.request()
            await talk.send(BAD_ANSWERS[name])
            await talk.ends()

        async with HttpPlane(backend := StubUpstream(play), breaker=ONE_FAILURE) as bed:
            client = await bed.client()
            response = await client.get()
            assert (response.status, response.problem["reason"]) == (502, "bad_response")
            await until(lambda: backend.closed)
            assert backend.requests == 1
            assert not bed.live().breaker.closed()
            assert (await client.get()).status == 503

    run(main())


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("data", [b"HTTP/1.1 200 OK\r\nConte", b"HTTP/1.1 103 Early Hints\r\n\r\n", b"H"])
def test_truncated_head(data: bytes, reset: bool) -> None:
    """A backend that dies inside its head, or after an interim answer, is a 502 and never tried again."""

    async def main() -> None:
        one, other = (StubUpstream(closing(data, reset=reset)) for _ in range(2))
        async with HttpPlane(one, other) as bed:
            client = await bed.client()
            response = await client.get()
            if response.status == 103:
                response = await client.response()
            assert (response.status, response.problem["reason"]) == (502, "truncated")
            assert other.requests + one.requests == 1

    run(main())


@pytest.mark.parametrize(
    ("framing", "reset"),
    [
        *((name, False) for name in ("length", "length and more", "chunked", "chunk inside")),
        *((name, True) for name in ("length", "length and more", "chunked", "chunk inside")),
        ("until reset", True),  # a FIN is the proper end of such an answer
    ],
)
def test_truncated_body(framing: str, reset: bool) -> None:
    """A backend that dies inside its answer: the client is cut, visibly, and no later request is answered into it
    (F2)."""
    data = {
        "length": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
        "length and more": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nX: 1\r\n\r\nhello",
        "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "chunk inside": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        "until reset": b"HTTP/1.1 200 OK\r\n\r\nhello",
    }[framing]

    async def main() -> None:
        backend = StubUpstream(closing(data, reset=reset))
        async with HttpPlane(backend, breaker=ONE_FAILURE) as bed:
            client = await bed.client()
            await client.send(GET + b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n")
            await client.ends()
            assert client.received.count(b"HTTP/1.1 ") == 1
            assert not client.received.endswith(b"0\r\n\r\n")
            line = (await bed.logged(1))[0]
            assert (line["status"], line["reason"]) == (200, "truncated")
            assert not bed.live().breaker.closed()

    run(main())


COMPLETE = {
    "clean": [answer(b"oh no", "500 No")],
    "edited": [answer(b"oh no", "500 No", b"Connection: x\r\nX: 1\r\n")],
    "body behind its head": [b"HTTP/1.1 500 No\r\nContent-Length: 5\r\n\r\n", b"oh no"],
    "chunked": [b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\noh no\r\n0\r\n\r\n"],
    "no body": [answer(b"", "500 No")],
    "no body, edited": [answer(b"", "500 No", b"Connection: x\r\nX: 1\r\n")],
}


@pytest.mark.parametrize("form", COMPLETE)
def test_what_a_client_has_seen_is_counted(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last bytes of an answer go out when breaker and active count know of it: the client's next request may come
    to another worker."""
    seen: list[tuple[int, int]] = []

    async def main() -> None:
        async def play(talk: Talk) -> None:
            await talk.request()
            await talk.send_pieces(COMPLETE[form])
            await talk.ends()

        async with HttpPlane(StubUpstream(play), breaker=Breaker(3, 1, 1, 30.0)) as bed:
            written = Downstream.write

            def write(client: Downstream, data: bytes) -> None:
                seen.append((bed.live().breaker.describe().failures, bed.live().active()))
                written(client, data)

            monkeypatch.setattr(Downstream, "write", write)
            client = await bed.client()
            assert (await client.get()).status == 500

    run(main())
    assert seen[-1] == (1, 0)


def test_truncated_close_delimited_answer_is_reset() -> None:
    """Where FIN would be the end of the answer, a truncated one ends in RST."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(closing(b"HTTP/1.1 200 OK\r\n\r\nhello", reset=True))) as bed:
            client = await bed.client()
            await client.send(b"GET / HTTP/1.0\r\n\r\n")
            assert await client.ends() == "reset"

    run(main())


@pytest.mark.parametrize(
    "chunk", [b"5\nhello", b"x\r\n", b"5\r\nhelloXX", b"-1\r\n", b"0\r\nContent-Length: 5\r\n\r\n"]
)
def test_bad_chunk_from_the_backend(chunk: bytes) -> None:
    """A malformed chunk ends the answer without its last chunk, and the backend's connection."""

    async def main() -> None:
        async def play(talk: Talk) -> None:
            await talk.request()
            await talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n" + chunk)
            await talk.ends()

        async with HttpPlane(backend := StubUpstream(play)) as bed:
            client = await bed.client()
            await client.send(GET)
            await client.ends()
            assert not client.received.endswith(b"0\r\n\r\n")
            await until(lambda: backend.closed)
            assert (await bed.logged())[0]["reason"] == "bad_response"

    run(main())


# --- the client's own faults


@pytest.mark.parametrize("body", [b"x\r\n", b"5\r\nhelloXX", b"5\nhello", b"0\r\nTransfer-Encoding: x\r\n\r\n"])
def test_bad_chunk_from_the_client(body: bytes) -> None:
    """A malformed chunk is a 400 that closes; the backend's request is aborted and its breaker hears nothing (T21)."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(), breaker=ONE_FAILURE) as bed:
            client = await bed.client()
            await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
            await until(lambda: backend.requests)
            await client.send(body)
            response = await client.response()
            assert (response.status, response.problem["reason"]) == (400, "bad_chunk")
            assert await client.until_eof() == b""
            await until(lambda: backend.closed)
            assert bed.live().breaker.closed()
            assert bed.live().requests_failed == 0

    run(main())


def test_a_thousand_bad_bodies_do_not_open_the_breaker() -> None:
    """Client faults never count against a backend: 1000 bad bodies, and the breaker is closed (T21)."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), breaker=ONE_FAILURE) as bed:
            for _ in range(1000):
                client = await bed.client()
                await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\nx\r\n")
                assert (await client.response()).status == 400
                client.close()
            assert bed.live().breaker.closed()
            assert bed.live().requests_failed == 0

    run(main())


@pytest.mark.parametrize("moment", ["before the answer", "inside the answer", "inside the request body"])
def test_client_that_vanishes(moment: str) -> None:
    """A client's reset cancels its backend request at once, is logged as 499 and never counted (F19)."""

    async def main() -> None:
        async def play(talk: Talk) -> None:
            await talk.head()
            if moment == "inside the answer":
                await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
            await talk.ends()

        async with HttpPlane(backend := StubUpstream(play), breaker=ONE_FAILURE) as bed:
            client = await bed.client()
            await client.send(POST + b"Content-Length: 10\r\n\r\nabc" if "request" in moment else GET)
            await until(lambda: backend.requests)
            if moment == "inside the answer":
                await client.exactly(20)
            client.reset()
            await until(lambda: backend.closed)
            line = (await bed.logged())[0]
            assert line["reason"] == "client_gone"
            assert line["status"] == (200 if moment == "inside the answer" else 499)
            assert bed.live().breaker.closed()

    run(main())


def test_client_that_vanishes_while_connecting() -> None:
    """A client that goes while its backend connection is made leaves a connection that serves the next one."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream()) as bed:
            client = await bed.client()
            down = None
            await until(lambda: bed.site.clients)
            down = next(iter(bed.site.clients))
            down.data_received(GET)  # the dial is a task: it has not run yet
            down.abort()
            await until(lambda: backend.talks)
            assert (await bed.logged())[0]["status"] == 499
            assert (await bed.exchange(GET)).status == 200
            assert len(backend.talks) == 1
            await client.ends()

    run(main())


def test_trial_of_a_client_that_vanishes_is_given_back() -> None:
    """A half-open breaker's permit comes back when the trial's client goes away; the next request is the trial."""

    async def main() -> None:
        async def hang(talk: Talk) -> None:
            await talk.request()
            await talk.ends()

        backend = StubUpstream(closing(), hang, answering(answer()))
        async with HttpPlane(backend, breaker=Breaker(1, 1, 1, 0.0)) as bed:
            assert (await bed.exchange(GET)).status == 502
            client = await bed.client()
            await client.send(GET)
            await until(lambda: backend.requests == 2)
            assert (await bed.exchange(GET)).problem["reason"] == "breaker_open"
            client.reset()
            await until(lambda: bed.site.in_flight == 0)
            assert (await bed.exchange(GET)).status == 200
            assert bed.live().breaker.closed()

    run(main())


def test_unexpected_exception_is_a_500_and_counted() -> None:
    """A bug in the way of one request is a 500 for it, is counted, and nothing else (T30)."""

    async def main() -> None:
        async with HttpPlane(StubUpstream()) as bed:
            match = bed.listener.router.match
            bed.listener.router.match = None  # type: ignore[method-assign,assignment]  # the bug
            response = await bed.exchange(GET)
            assert (response.status, response.fields["connection"]) == (500, "close")
            assert bed.plane.internal_errors == 1
            bed.listener.router.match = match  # type: ignore[method-assign]
            assert (await bed.exchange(GET)).status == 200
            bed.plane.internal_errors = 0

    run(main())
