"""HTTP/1.1 and 1.0 through the plane: the ordinary exchange, connections kept and closed, pipelining."""

from __future__ import annotations

import pytest
from doubles.http_plane import HttpPlane, field, run, until
from doubles.stub_upstream import StubUpstream, Talk, answer, answering

LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
GET = b"GET /x?q=1 HTTP/1.1\r\nHost: a.test\r\n\r\n"


@LOOPS
def test_get(loop: str) -> None:
    """A request reaches the backend and its answer the client, with a request id on both sides."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream()) as bed:
            client = await bed.client()
            response = await client.get("/x?q=1")
            assert (response.status, response.body) == (200, b"ok")
            head = backend.talks[0].received
            assert head.startswith(b"GET /x?q=1 HTTP/1.1\r\nHost: a.test\r\n")
            assert field(head, "X-Request-ID") == response.fields["x-request-id"]

    run(main(), loop)


def test_fast_and_complete_way_send_the_same_fields() -> None:
    """A clean head sent whole (fast way) and in two pieces (complete way) is the same to the backend, but for its
    id."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream()) as bed:
            client = await bed.client()
            for request in (
                b"GET /a/b?c=d HTTP/1.1\r\nHost: a.test:81\r\nAccept: */*\r\nCookie: x=1; y=2\r\n\r\n",
                b"DELETE / HTTP/1.1\r\nhost: b.test\r\nconnection: keep-alive\r\nX-A: 1\r\nX-A: 2\r\n\r\n",
            ):
                heads = []
                for pieces in ([request], [request[:9], request[9:]]):
                    await client.send_pieces(pieces)
                    first = await client.response()
                    lines = backend.talks[0].received.split(b"\r\n\r\n")[-2].split(b"\r\n")
                    rid = b"X-Request-ID: " + first.fields["x-request-id"].encode()
                    assert rid in lines
                    line, *fields = lines
                    heads.append((line, sorted(f.lower() for f in fields if f != rid)))
                assert heads[0] == heads[1]

    run(main())


def test_fast_and_complete_way_answer_the_same_fields() -> None:
    """An answer whose head comes whole and one whose head comes in pieces are the same to the client."""
    fields = b"Server: x\r\nConnection: keep-alive\r\nX-Request-ID: theirs\r\nContent-Length: 5\r\n"
    head = b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n"

    async def main() -> None:
        async def play(talk: Talk) -> None:
            await talk.head()
            await talk.send(head + b"hello")
            await talk.head()
            await talk.send_pieces([head[:30], head[30:], b"hello"])
            await talk.head()

        async with HttpPlane(StubUpstream(play)) as bed:
            client = await bed.client()
            answers = [await client.get(), await client.get()]
            for each in answers:
                each.fields.pop("x-request-id")
            assert answers[0].fields == answers[1].fields == {"server": "x", "content-length": "5"}
            assert answers[0].body == answers[1].body == b"hello"

    run(main())


@pytest.mark.parametrize(
    ("request_head", "kept", "says"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", True, None),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", False, "close"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive, x\r\n\r\n", True, None),
        (b"GET / HTTP/1.0\r\n\r\n", False, "close"),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True, "keep-alive"),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", False, "close"),
    ],
)
@pytest.mark.parametrize("local", [False, True])
def test_persistence(request_head: bytes, kept: bool, says: str | None, local: bool) -> None:
    """The client connection stays open as RFC 9112 section 9.3 says, and the answer says so, also for local answers."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), routes=({"path_prefix": "/none"},) if local else ({},)) as bed:
            client = await bed.client()
            for _ in range(2 if kept else 1):
                await client.send(request_head)
                response = await client.response()
                assert response.status == (404 if local else 200)
                assert response.fields.get("connection") == says
            if not kept:
                assert await client.until_eof() == b""

    run(main())


def test_http_10_request_without_host_gets_the_backends() -> None:
    """An HTTP/1.0 request without Host is forwarded as HTTP/1.1 with the backend's address as Host."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream()) as bed:
            await bed.exchange(b"GET / HTTP/1.0\r\n\r\n")
            assert field(backend.received, "Host") == backend.address

    run(main())


def test_upstream_connection_is_reused_last_in_first_out() -> None:
    """Requests one after another use one backend connection."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream()) as bed:
            client = await bed.client()
            for _ in range(5):
                await client.get()
            assert len(backend.talks) == 1
            assert backend.requests == 5
            assert bed.live().reused == 4

    run(main())


@LOOPS
def test_pipelined_requests_are_answered_in_order(loop: str) -> None:
    """Requests sent at once, with and without bodies and with local answers between them, are answered one after
    another."""

    async def main() -> None:
        async def echo(talk: Talk) -> None:
            while True:
                head, body = await talk.request()
                if not head:
                    return
                path = head.split(b" ")[1]
                await talk.send(answer(path + b"|" + body))

        async with HttpPlane(StubUpstream(echo), routes=({"path_prefix": "/a"},)) as bed:
            client = await bed.client()
            await client.send(
                b"GET /a/1 HTTP/1.1\r\nHost: a\r\n\r\n"
                b"\r\nPOST /a/2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
                b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n"
                b"POST /none HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nxyz"
                b"POST /a/3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n"
                b"HEAD /none HTTP/1.1\r\nHost: a\r\n\r\n"
                b"GET /a/4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
                b"GET /a/never HTTP/1.1\r\nHost: a\r\n\r\n"
            )
            got = []
            for method in ("GET", "POST", "GET", "POST", "POST", "HEAD", "GET"):
                response = await client.response(method)
                got.append((response.status, response.body if response.status == 200 else b""))
            assert got == [
                (200, b"/a/1|"),
                (200, b"/a/2|hello"),
                (404, b""),
                (404, b""),
                (200, b"/a/3|abcde"),
                (404, b""),
                (200, b"/a/4|"),
            ]
            assert await client.until_eof() == b""
            assert len(await bed.logged(7)) == 7

    run(main(), loop)


def test_more_pipelined_requests_than_the_buffer_takes() -> None:
    """A client that sends far ahead is paused, not cut, and every request is answered."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream()) as bed:
            client = await bed.client()
            request = b"GET /%04d HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 900 + b"\r\n\r\n"
            await client.send(b"".join(request % n for n in range(300)))
            for _ in range(300):
                assert (await client.response()).status == 200
            assert backend.requests == 300

    run(main())


def test_local_answers_stop_when_the_client_does_not_read_them() -> None:
    """Pipelined requests with local answers are not answered into memory without end: reading stops, then goes on."""

    async def main() -> None:
        async with HttpPlane(routes=({"path_prefix": "/none"},), send_buffer=16384) as bed:
            client = await bed.client(limit=16384, receive_buffer=32768)
            count = 4_000
            client.writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * count)
            await until(lambda: any(c.write_paused for c in bed.site.clients))
            down = next(iter(bed.site.clients))
            assert down.transport.get_write_buffer_size() < 200_000
            assert len(down._buffer) < 400_000
            for _ in range(count):
                assert (await client.response()).status == 404

    run(main())


@pytest.mark.parametrize("cut", range(1, len(GET)))
def test_head_split_anywhere(cut: int) -> None:
    """A request head cut into two reads anywhere means the same."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream()) as bed:
            client = await bed.client()
            await client.send_pieces([GET[:cut], GET[cut:]])
            assert (await client.response()).status == 200
            assert backend.received.startswith(b"GET /x?q=1 HTTP/1.1\r\nHost: a.test\r\n")

    run(main())


def test_one_empty_line_before_a_request_is_skipped_two_are_not() -> None:
    """One CRLF before a request is ignored however it is cut; two are a 400 (RFC 9112 section 2.2, H11)."""

    async def main() -> None:
        async with HttpPlane(StubUpstream()) as bed:
            client = await bed.client()
            for pieces in ([b"\r\n" + GET], [b"\r", b"\n", GET], [b"\r\n", GET[:5], GET[5:]]):
                await client.send_pieces(pieces)
                assert (await client.response()).status == 200
            for pieces in ([b"\r\n\r\n" + GET], [b"\r\n", b"\r\n", GET], [b"\r", b"\n", b"\r", b"\n" + GET]):
                client = await bed.client()
                await client.send_pieces(pieces)
                assert (await client.response()).status == 400

    run(main())


def test_bad_request_never_reaches_a_backend() -> None:
    """Bytes that are no request are answered with 400 and close; one access line, no backend."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream()) as bed:
            no_host, bare_lf = b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\nHost: a\n\n"
            for data in (no_host, bare_lf, b"\x16\x03\x01\x02\x00\x01", b"hello\r\n\r\n"):
                client = await bed.client()
                await client.send(data)
                if b"\n" not in data:
                    client.eof()
                response = await client.response()
                assert response.status == 400
                assert response.fields["connection"] == "close"
                assert response.problem["request_id"] == response.fields["x-request-id"]
                assert await client.until_eof() == b""
            assert not backend.talks
            assert [line["status"] for line in await bed.logged(4)] == [400] * 4

    run(main())


def test_requests_after_an_eof_are_not_answered() -> None:
    """A client that closed is gone, whatever it had asked: its backend request is cancelled and logged as 499."""

    async def main() -> None:
        async def never(talk: Talk) -> None:
            await talk.head()
            assert await talk.ends() in ("eof", "reset")

        async with HttpPlane(backend := StubUpstream(never)) as bed:
            client = await bed.client()
            await client.send(GET)
            await until(lambda: backend.requests)
            client.eof()
            assert await client.until_eof() == b""
            await until(lambda: backend.closed)
            assert (await bed.logged())[0]["status"] == 499

    run(main())


def test_answers_in_turn() -> None:
    """Answers of any kind follow each other on one pair of connections."""

    async def main() -> None:
        script = answering(answer(b"1"), b"HTTP/1.1 204 No Content\r\n\r\n", answer(b""), answer(b"4", "404 Not Found"))
        async with HttpPlane(backend := StubUpstream(script)) as bed:
            client = await bed.client()
            assert [(await client.get()).status for _ in range(4)] == [200, 204, 200, 404]
            assert len(backend.talks) == 1

    run(main())
