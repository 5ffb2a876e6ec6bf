"""Bodies both ways: framing, cuts, sizes, early answers, expectations, interim answers."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random

import pytest
from doubles.http_plane import HttpPlane, field, run, until
from doubles.stub_upstream import StubUpstream, Talk, answer, answering
from hypothesis import given, settings
from hypothesis import strategies as st

POST = b"POST /p HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
BIG = random.Random(7).randbytes(8 << 20)


async def echo(talk: Talk) -> None:
    """Answer every request with its body."""
    while (request := await talk.request())[0]:
        await talk.send(answer(request[1]))


@pytest.mark.parametrize(
    "framed",
    [
        b"Content-Length: 11\r\n\r\nhello world",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;e=1\r\n world\r\n0\r\nTrailer: x\r\n\r\n",
    ],
)
def test_request_body_cut_anywhere(framed: bytes) -> None:
    """A request with a body means the same wherever it is cut; chunks are made anew, extensions and trailers
    dropped."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(echo)) as bed:
            client = await bed.client()
            request = POST + framed
            for cut in range(1, len(request)):
                await client.send_pieces([request[:cut], request[cut:]])
                assert (await client.response()).body == b"hello world"
            assert b"e=1" not in backend.received
            assert b"Trailer" not in backend.received

    run(main())


RESPONSES = {
    b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world": b"hello world",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n"
    b"5\r\nhello\r\n6;e=1\r\n world\r\n0\r\nT: x\r\n\r\n": b"hello world",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n": b"hello world",
    b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n6;e=1\r\n world\r\n0\r\nT: x\r\n\r\n": b"hello world",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 404 No\r\nX: \r\nContent-Length: 0\r\n\r\n": b"",
    b"HTTP/1.1 204 No Content\r\n\r\n": b"",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n": b"",
    b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nConnection: keep-alive\r\n\r\n": b"",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n": b"",
}


@pytest.mark.parametrize("data", RESPONSES)
def test_response_cut_anywhere(data: bytes) -> None:
    """A response means the same wherever it is cut, and its connection is kept."""

    async def main() -> None:
        async def play(talk: Talk) -> None:
            for cut in range(1, len(data)):
                await talk.request()
                await talk.send_pieces([data[:cut], data[cut:]])
            await talk.request()

        async with HttpPlane(backend := StubUpstream(play)) as bed:
            client = await bed.client()
            for _ in range(1, len(data)):
                response = await client.get()
                if response.status == 103:
                    response = await client.response()
                assert response.body == RESPONSES[data]
                assert "trailer" not in response.fields
                assert b"e=1" not in response.raw_body
                assert b"T: x" not in response.raw_body
            assert len(backend.talks) == 1

    run(main())


@pytest.mark.parametrize(
    ("chunks", "passed_on"),
    [
        (b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"),
        (b"B\r\nhello world\r\n0\r\n\r\n", b"B\r\nhello world\r\n0\r\n\r\n"),
        (b"0b\r\nhello world\r\n0\r\n\r\n", b"b\r\nhello world\r\n0\r\n\r\n"),
        (b"b;e=1\r\nhello world\r\n0\r\n\r\n", b"b\r\nhello world\r\n0\r\n\r\n"),
        (b"5\r\nhello\r\n6\r\n world\r\n00\r\n\r\n", b"b\r\nhello world\r\n0\r\n\r\n"),
        (b"b\r\nhello world\r\n0\r\nT: x\r\n\r\n", b"b\r\nhello world\r\n0\r\n\r\n"),
    ],
)
def test_a_chunked_answer_in_one_piece(chunks: bytes, passed_on: bytes) -> None:
    """What is plain passes as it is, everything else is chunked anew; line and counters know the length of either, and
    the connection is kept."""

    async def main() -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        async with HttpPlane(backend := StubUpstream(answering(head + chunks))) as bed:
            client = await bed.client()
            for _ in range(2):  # the second time its head is known
                response = await client.get()
                assert response.body == b"hello world"
                assert response.raw_body == passed_on
            assert len(backend.talks) == 1
            assert {line["bytes"] for line in await bed.logged(2)} == {len(client.received) // 2}
            assert bed.live().bytes_received == 2 * len(head + chunks)

    run(main())


@pytest.mark.parametrize("behind", [b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"\r\n"])
def test_bytes_behind_a_chunked_answer(behind: bytes) -> None:
    """Nobody asked for them: the answer is whole, and its connection is not used again (R2)."""

    async def main() -> None:
        script = answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n" + behind)
        async with HttpPlane(backend := StubUpstream(script)) as bed:
            client = await bed.client()
            for _ in range(2):
                response = await client.get()
                assert (response.body, response.raw_body) == (b"hi", b"2\r\nhi\r\n0\r\n\r\n")
            assert len(backend.talks) == 2

    run(main())


def test_response_byte_by_byte() -> None:
    """A backend that sends one byte at a time is read like any other."""

    async def main() -> None:
        async def play(talk: Talk) -> None:
            for data in RESPONSES:
                await talk.request()
                await talk.send_pieces([data[i : i + 1] for i in range(len(data))])

        async with HttpPlane(StubUpstream(play)) as bed:
            client = await bed.client()
            for body in RESPONSES.values():
                response = await client.get()
                if response.status == 103:
                    response = await client.response()
                assert response.body == body

    run(main())


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("up", ["length", "chunked"])
@pytest.mark.parametrize("down", ["length", "chunked", "close"])
def test_eight_mebibytes_each_way(up: str, down: str, loop: str) -> None:
    """8 MiB in any framing arrive byte for byte, both ways at once."""
    digest = hashlib.sha256(BIG).hexdigest()
    pieces = [BIG[i : i + 60_000] for i in range(0, len(BIG), 60_000)]

    async def main() -> None:
        async def play(talk: Talk) -> None:
            _, body = await talk.request()
            assert hashlib.sha256(body).hexdigest() == digest
            if down == "length":
                await talk.send(answer(BIG))
            elif down == "chunked":
                await talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for piece in pieces:
                    await talk.send(b"%x\r\n%b\r\n" % (len(piece), piece))
                await talk.send(b"0\r\n\r\n")
            else:
                await talk.send(b"HTTP/1.1 200 OK\r\n\r\n" + BIG)
            talk.close()

        async with HttpPlane(StubUpstream(play)) as bed:
            client = await bed.client()
            if up == "length":
                await client.send(POST + b"Content-Length: %d\r\n\r\n" % len(BIG) + BIG)
            else:
                await client.send(CHUNKED)
                for piece in pieces:
                    await client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
                await client.send(b"0\r\n\r\n")
            response = await client.response()
            assert hashlib.sha256(response.body).hexdigest() == digest
            assert (response.fields.get("transfer-encoding") == "chunked") == (down != "length")

    run(main(), loop)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=8), st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_any_chunking_arrives_whole(chunks: list[bytes], cuts: list[int]) -> None:
    """Whatever the chunks and the cuts, the backend gets the same body, and the client gets it back."""
    wire = CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks if c) + b"0\r\n\r\n"
    pieces = []
    at = 0
    for size in cuts:
        pieces.append(wire[at : at + size])
        at += size
    pieces.append(wire[at:])

    async def main() -> None:
        async with HttpPlane(StubUpstream(echo)) as bed:
            client = await bed.client()
            await client.send_pieces([p for p in pieces if p])
            assert (await client.response()).body == b"".join(chunks)

    run(main())


def test_close_delimited_answer() -> None:
    """An answer that ends with its connection is chunked to HTTP/1.1, which stays open, and closed to HTTP/1.0."""

    async def main() -> None:
        async def play(talk: Talk) -> None:
            await talk.request()
            await talk.send_pieces([b"HTTP/1.1 200 OK\r\n\r\n", b"hello ", b"world"])
            talk.close()

        async with HttpPlane(StubUpstream(play)) as bed:
            client = await bed.client()
            for _ in range(2):
                response = await client.get()
                assert response.fields["transfer-encoding"] == "chunked"
                assert response.body == b"hello world"
            client = await bed.client()
            await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            response = await client.response()
            assert response.fields["connection"] == "close"
            assert "transfer-encoding" not in response.fields
            assert response.body == b"hello world"

    run(main())


def test_chunked_answer_to_http_10_is_delimited_by_close() -> None:
    """HTTP/1.0 does not know chunks: the payload is sent bare and the connection closed."""

    async def main() -> None:
        data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        async with HttpPlane(StubUpstream(answering(data))) as bed:
            response = await bed.exchange(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
            assert response.body == b"abc"
            assert response.fields["connection"] == "close"

    run(main())


@pytest.mark.parametrize(
    ("method", "data", "length"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", "1000"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n", None),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n", "1000"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", None),
    ],
)
def test_answers_without_body(method: str, data: bytes, length: str | None) -> None:
    """HEAD, 204 and 304 end at their head whatever they announce, and both connections go on."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(answering(data))) as bed:
            client = await bed.client()
            for _ in range(3):
                response = await client.get(method=method)
                assert response.fields.get("content-length") == length
            assert len(backend.talks) == 1
            assert client.reader._buffer == bytearray()  # type: ignore[attr-defined]

    run(main())


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\nxy",
        b"HTTP/1.1 304 No\r\n\r\nxy",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_surplus_bytes_are_nobodys(data: bytes) -> None:
    """Bytes behind a complete answer never reach a client, and their connection is not used again (R2)."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(answering(data))) as bed:
            client = await bed.client()
            for turn in range(1, 4):
                await client.get()
                await until(lambda turn=turn: backend.closed == turn)
            assert len(backend.talks) == 3
            assert client.received.count(b"HTTP/1.1") == 3

    run(main())


def test_unsolicited_bytes_on_a_kept_connection() -> None:
    """A backend that speaks without being asked loses its connection; the next request takes another one."""

    async def main() -> None:
        async def play(talk: Talk) -> None:
            await talk.request()
            await talk.send(answer())
            await asyncio.sleep(0)
            await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
            await talk.ends()

        async with HttpPlane(backend := StubUpstream(play, echo)) as bed:
            client = await bed.client()
            await client.get()
            await until(lambda: backend.closed)
            assert (await client.get()).body == b""

    run(main())


# --- interim answers


def test_interim_answers_are_relayed() -> None:
    """103 and 102 reach an HTTP/1.1 client in order, without framing; an HTTP/1.0 client never sees them."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\nConnection: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"

    async def main() -> None:
        async with HttpPlane(StubUpstream(answering(hints + answer()))) as bed:
            client = await bed.client()
            first = await client.get()
            assert (first.status, first.fields) == (103, {"link": "</s.css>"})
            assert (await client.response()).status == 102
            assert (await client.response()).body == b"ok"
            assert (await bed.exchange(b"GET / HTTP/1.0\r\n\r\n")).status == 200

    run(main())


def test_at_most_eight_interim_answers() -> None:
    """Eight interim answers are relayed, the ninth is a bad answer (R4)."""
    hint = b"HTTP/1.1 103 Early Hints\r\n\r\n"

    async def main() -> None:
        for count, last in ((8, 200), (9, 502)):
            async with HttpPlane(StubUpstream(answering(hint * count + answer()))) as bed:
                client = await bed.client()
                await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                for _ in range(8):
                    assert (await client.response()).status == 103
                assert (await client.response()).status == last

    run(main())


def test_expect_100_continue() -> None:
    """A client that waits for 100 Continue gets the backend's, then its body is forwarded and answered."""

    async def main() -> None:
        async def play(talk: Talk) -> None:
            head = await talk.head()
            assert field(head, "Expect") == "100-continue"
            await talk.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            assert await talk.exactly(5) == b"hello"
            await talk.send(answer(b"thanks"))
            await talk.ends()

        async with HttpPlane(StubUpstream(play)) as bed:
            client = await bed.client()
            await client.send(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
            assert (await client.response()).status == 100
            await client.send(b"hello")
            response = await client.response()
            assert response.body == b"thanks"
            assert "connection" not in response.fields

    run(main())


def test_expect_answered_without_continue_closes() -> None:
    """A final answer instead of 100 Continue closes the connection: whether the body follows cannot be known."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(answering(answer(b"no", "403 Forbidden")))) as bed:
            # the stub would wait for the body: answer at the head
            async def play(talk: Talk) -> None:
                await talk.head()
                await talk.send(answer(b"no", "403 Forbidden"))
                await talk.ends()

            bed.backends[0].scripts = [play]
            client = await bed.client()
            await client.send(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
            response = await client.response()
            assert (response.status, response.fields["connection"]) == (403, "close")
            assert await client.until_eof() == b""

    run(main())


def test_other_expectations() -> None:
    """Any other expectation is a 417; one without a body to wait for is not forwarded."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream()) as bed:
            response = await bed.exchange(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n")
            assert response.status == 417
            response = await bed.exchange(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n")
            assert response.status == 200
            assert field(backend.received, "Expect") is None

    run(main())


# --- early answers


@pytest.mark.parametrize("local", [False, True])
def test_early_answer_with_little_left_keeps_the_connection(local: bool) -> None:
    """An answer before the end of the body: up to 64 KiB of the rest are thrown away and the next request is served."""

    async def main() -> None:
        async def play(talk: Talk) -> None:
            early = (await talk.head()).startswith(b"POST")
            # The early one says nothing of closing: that the request is not whole there must be enough.
            await talk.send(answer(b"early", "400 Bad", b"" if early else b"Connection: close\r\n"))
            assert await talk.ends() in ("eof", "reset")
            assert not early or b"GET" not in talk.received

        async with HttpPlane(backend := StubUpstream(play), routes=({"path_prefix": "/n" if local else "/"},)) as bed:
            client = await bed.client()
            for _ in range(2):
                await client.send(POST + b"Content-Length: 60000\r\n\r\n" + b"x" * 100)
                response = await client.response()
                assert response.status == (404 if local else 400)
                assert "connection" not in response.fields
                await client.send_pieces([b"y" * 30_000, b"z" * 29_900 + b"GET /none HTTP/1.1\r\n", b"Host: a\r\n\r\n"])
                assert (await client.response()).status == (404 if local else 400)
            assert len(backend.talks) == (0 if local else 4)

    run(main())


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
def test_early_answer_with_much_left_closes_and_stays_readable(framing: bytes) -> None:
    """With more to come than is worth reading, the connection closes after the answer, which the client can read
    whole."""

    async def main() -> None:
        async def play(talk: Talk) -> None:
            await talk.head()
            await talk.send(answer(b"e" * 200_000, "413 No"))
            talk.eof()
            await talk.ends()

        async with HttpPlane(StubUpstream(play)) as bed:
            client = await bed.client()
            await client.send(POST + framing)
            reading = asyncio.create_task(client.response())
            with contextlib.suppress(ConnectionError):
                while not client.writer.is_closing():  # like a client that does not look at answers while it sends
                    await client.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
                    if reading.done():
                        bed.pass_time(3)
                        await asyncio.sleep(0.001)
            response = await reading
            await until(lambda: not bed.site.clients)
            assert (response.status, response.fields["connection"]) == (413, "close")
            assert response.body == b"e" * 200_000

    run(main())


def test_body_limit_at_the_head() -> None:
    """A Content-Length over the limit is a 413 before a backend is asked; one at the limit passes."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(echo), limits={"request_body": 10}) as bed:
            response = await bed.exchange(POST + b"Content-Length: 11\r\n\r\n")
            assert (response.status, response.fields["connection"]) == (413, "close")
            assert not backend.talks
            assert (await bed.exchange(POST + b"Content-Length: 10\r\n\r\n0123456789")).body == b"0123456789"

    run(main())


def test_body_limit_in_the_stream() -> None:
    """A chunked body over the limit is a 413 mid-stream; the backend's request is aborted, its breaker not told."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(echo), limits={"request_body": 10}) as bed:
            response = await bed.exchange(CHUNKED + b"a\r\n0123456789\r\n0\r\n\r\n")
            assert response.body == b"0123456789"
            client = await bed.client()
            await client.send(CHUNKED + b"a\r\n0123456789\r\n")
            await until(lambda: backend.requests == 2)
            await client.send(b"1\r\nx\r\n")
            assert (await client.response()).status == 413
            await until(lambda: backend.closed)

    run(main())
