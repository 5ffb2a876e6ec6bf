"""Deadlines, driven by hand: who is waited for is who is blamed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from doubles.http_plane import HttpPlane, run, until
from doubles.stub_upstream import StubUpstream, Talk, answer

from gogate_py.snapshot import Breaker

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"


async def hang(talk: Talk) -> None:
    """Read a head and everything after it, and never answer."""
    await talk.head()
    await talk.ends()


def bed_of(*backends: StubUpstream, **settings: Any) -> HttpPlane:
    """A bed whose breaker opens at the first failure that counts."""
    return HttpPlane(*backends, breaker=Breaker(1, 1, 1, 30.0), **settings)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", GET[:-1]])
def test_request_head_timeout(sent: bytes) -> None:
    """A first head must be complete 10 s after accept: then 408, or nothing when not a byte came (T15)."""

    async def main() -> None:
        async with bed_of(StubUpstream()) as bed:
            client = await bed.client()
            await client.send(sent)
            await until(lambda: any(len(c._buffer) == len(sent) for c in bed.site.clients))
            bed.pass_time(9)
            assert not client.reader.at_eof()
            bed.pass_time(1.1)
            data = await client.until_eof()
            assert data.startswith(b"HTTP/1.1 408 ") if sent else data == b""
            assert len(bed.lines()) == (1 if sent else 0)

    run(main())


def test_dripping_head_is_not_extended() -> None:
    """The time of a head runs from its first byte, however many bytes follow; of a later head, not from the last
    answer."""

    async def main() -> None:
        async with bed_of(StubUpstream()) as bed:
            client = await bed.client()
            assert (await client.get()).status == 200
            down = next(iter(bed.site.clients))
            for i, octet in enumerate(GET[:10]):
                await client.send(bytes((octet,)))
                await until(lambda i=i: len(down._buffer) == i + 1)
                bed.pass_time(1)
            bed.pass_time(1)
            assert (await client.response()).status == 408

    run(main())


def test_idle_client_is_closed() -> None:
    """A kept-alive client that asks nothing for timeouts.idle is closed without a word."""

    async def main() -> None:
        async with bed_of(StubUpstream()) as bed:
            client = await bed.client()
            await client.get()
            bed.pass_time(59)
            await client.get()
            bed.pass_time(59.5)
            assert not client.reader.at_eof()
            bed.pass_time(61)
            assert await client.until_eof() == b""

    run(main())


@pytest.mark.parametrize("body", [b"", b"Content-Length: 2\r\n"])
def test_response_header_timeout(body: bytes) -> None:
    """No answer 15 s after the whole request: 504, the backend is let go and blamed (F3)."""

    async def main() -> None:
        async with bed_of(backend := StubUpstream(hang)) as bed:
            client = await bed.client()
            await client.send(POST + body + b"\r\n" + b"hi"[: len(body)])
            await until(lambda: backend.talks and backend.talks[0].received.endswith(b"hi" if body else b"\r\n\r\n"))
            bed.pass_time(14)
            assert bed.site.in_flight == 1
            bed.pass_time(2)
            response = await client.response()
            assert (response.status, response.problem["reason"]) == (504, "response_timeout")
            await until(lambda: backend.closed)
            assert not bed.live().breaker.closed()

    run(main())


def test_response_head_that_drips() -> None:
    """The 15 s are for the whole head of the answer: dripping does not extend them."""

    async def main() -> None:
        gate = asyncio.Semaphore(0)

        async def drip(talk: Talk) -> None:
            await talk.head()
            for octet in b"HTTP/1.1 200 OK\r\nX: yyyyyyyy":
                await talk.send(bytes((octet,)))
                await gate.acquire()

        async with bed_of(StubUpstream(drip)) as bed:
            client = await bed.client()
            await client.send(GET)
            await until(lambda: bed.live()._active.total() == 1)
            for _ in range(16):
                gate.release()
                bed.pass_time(1)
            assert (await client.response()).status == 504

    run(main())


@pytest.mark.parametrize("waiting_for", ["the answer", "the rest of the answer", "the body", "the client to read"])
def test_request_timeout(waiting_for: str) -> None:
    """timeouts.request limits the whole exchange; a slow client is a 408 or cut and never the backend's fault (T21)."""

    async def main() -> None:
        async def play(talk: Talk) -> None:
            await talk.head()
            if waiting_for == "the rest of the answer":
                await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
            if waiting_for == "the client to read":
                await talk.send(answer(b"x" * 30_000_000))
            await talk.ends()

        async with bed_of(StubUpstream(play), timeouts={"request": 5.0, "min_body_rate": 0}, send_buffer=16384) as bed:
            client = await bed.client(limit=16384, receive_buffer=16384)
            await client.send(POST + b"Content-Length: 5\r\n\r\nhi" if waiting_for == "the body" else GET)
            if waiting_for == "the client to read":
                await until(lambda: any(c.write_paused for c in bed.site.clients))
            elif waiting_for == "the rest of the answer":
                await client.head()
            else:
                await until(lambda: bed.backends[0].requests)
            bed.pass_time(4)
            assert bed.site.in_flight == 1
            bed.pass_time(2)
            assert bed.site.in_flight == 0
            reason = {"the answer": "response_timeout", "the body": "request_timeout"}
            reason |= {"the rest of the answer": "response_timeout", "the client to read": "slow_client"}
            line = (await bed.logged())[0]
            assert line["reason"] == reason[waiting_for]
            if waiting_for in ("the answer", "the body"):
                status = 504 if waiting_for == "the answer" else 408
                assert (await client.response()).status == line["status"] == status
            assert bed.live().breaker.closed() == (waiting_for in ("the body", "the client to read"))

    run(main())


def test_request_body_idle() -> None:
    """A client that stops inside its body for timeouts.bodyIdle gets a 408, which the backend is not blamed for."""

    async def main() -> None:
        async with bed_of(backend := StubUpstream(hang), timeouts={"min_body_rate": 0}) as bed:
            client = await bed.client()
            await client.send(POST + b"Content-Length: 10\r\n\r\nabc")
            await until(lambda: backend.received.endswith(b"abc"))
            bed.pass_time(59)
            assert bed.site.in_flight == 1
            await client.send(b"d")
            await until(lambda: backend.received.endswith(b"d"))
            bed.pass_time(59)
            assert bed.site.in_flight == 1
            bed.pass_time(3)
            assert (await client.response()).status == 408
            await until(lambda: backend.closed)
            assert bed.live().breaker.closed()

    run(main())


@pytest.mark.parametrize("rate", [100, 1000])
def test_request_body_rate(rate: int) -> None:
    """After 5 s of grace a body must come with 240 B/s on average (T16)."""

    async def main() -> None:
        async with bed_of(backend := StubUpstream(hang)) as bed:
            client = await bed.client()
            await client.send(POST + b"Content-Length: 100000\r\n\r\n")
            await until(lambda: backend.requests)
            seen = 0
            for _ in range(20):
                if not bed.site.in_flight:
                    break
                await client.send(b"x" * rate)
                seen += rate
                await until(lambda seen=seen: not bed.site.in_flight or len(backend.received) > seen)
                bed.pass_time(1)
            assert bool(bed.site.in_flight) == (rate == 1000)
            if rate == 100:
                assert 5 <= seen / rate <= 12
                assert (await client.response()).status == 408

    run(main())


def test_client_that_waits_for_continue_is_not_slow() -> None:
    """A client that waits for 100 Continue is not too slow; a backend that never says it is: 504."""

    async def main() -> None:
        async with bed_of(backend := StubUpstream(hang)) as bed:
            client = await bed.client()
            await client.send(POST + b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n")
            await until(lambda: backend.requests)
            bed.pass_time(14)
            assert bed.site.in_flight == 1
            bed.pass_time(3)
            assert (await client.response()).status == 504
            assert not bed.live().breaker.closed()

    run(main())


def test_backend_that_does_not_read_the_body() -> None:
    """A backend that takes nothing of a body for timeouts.bodyIdle is a 504 and blamed; the client is not."""

    async def main() -> None:
        async def deaf(talk: Talk) -> None:
            await talk.head()
            talk.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.Event().wait()

        async with bed_of(StubUpstream(deaf)) as bed:
            client = await bed.client()
            client.writer.write(POST + b"Content-Length: 100000000\r\n\r\n" + b"x" * 30_000_000)
            await until(lambda: any(c.exchange and c.exchange.request_paused for c in bed.site.clients))
            bed.pass_time(59)
            assert bed.site.in_flight == 1
            bed.pass_time(3)
            line = (await bed.logged())[0]
            assert (line["status"], line["reason"]) == (504, "response_timeout")
            assert not bed.live().breaker.closed()

    run(main())


@pytest.mark.parametrize(
    "fields", [b"", b"Content-Type: text/event-stream\r\n", b"content-type: \tText/Event-Stream\r\n"]
)
def test_response_body_idle(fields: bytes) -> None:
    """A backend silent inside its answer for timeouts.bodyIdle is cut and blamed; an event stream may be silent."""

    async def main() -> None:
        stream = bool(fields)

        async def play(talk: Talk) -> None:
            await talk.head()
            await talk.send(b"HTTP/1.1 200 OK\r\n" + fields + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            await talk.ends()

        async with bed_of(StubUpstream(play)) as bed:
            client = await bed.client()
            await client.send(GET)
            await client.head()
            await client.exactly(10)
            bed.pass_time(65)
            assert bed.site.in_flight == int(stream)
            if not stream:
                data = await client.until_eof()
                assert not data.endswith(b"0\r\n\r\n")
                assert not bed.live().breaker.closed()

    run(main())


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 20000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n1312D00\r\n"]
)
@pytest.mark.parametrize("clean", [False, True])
def test_an_answer_is_not_judged_by_the_time_its_backend_took(framing: bytes, clean: bool) -> None:
    """A client has just been given the beginning of an answer that took ten seconds: it is not slow yet."""

    async def main() -> None:
        thought = asyncio.Event()

        async def play(talk: Talk) -> None:
            await talk.head()
            await thought.wait()
            unclean = b"" if clean else b"Connection: x\r\n"
            await talk.send(b"HTTP/1.1 200 OK\r\n" + unclean + framing + bytes(8_000_000))
            await talk.ends()

        async with bed_of(StubUpstream(play), send_buffer=8192) as bed:
            client = await bed.client(limit=1024, receive_buffer=4096)
            await client.send(GET)
            await until(lambda: bed.site.in_flight == 1)
            (downstream,) = bed.site.clients
            exchange = downstream.exchange
            assert exchange is not None
            exchange.started -= 10
            exchange.head_sent_at -= 10
            thought.set()
            await until(lambda: downstream.backlog()[0] > 0)
            bed.pass_time(3, step=0.25)
            assert bed.site.in_flight == 1
            bed.pass_time(8, step=0.25)
            assert bed.site.in_flight == 0

    run(main())


@pytest.mark.parametrize("reads", [False, True])
def test_response_rate(reads: bool) -> None:
    """A client that takes less than 240 B/s of an answer that waits for it is cut; one that reads slowly but more is
    not."""

    async def main() -> None:
        async def play(talk: Talk) -> None:
            await talk.head()
            await talk.send(answer(b"x" * 20_000_000))
            await talk.ends()

        async with bed_of(StubUpstream(play), send_buffer=16384) as bed:
            client = await bed.client(limit=4096, receive_buffer=16384)
            await client.send(GET)
            down = next(iter(bed.site.clients))
            await until(lambda: down.write_paused and down.exchange.response_paused)
            for _ in range(25):
                if reads:
                    before = down.exchange.sent_bytes - sum(down.backlog())
                    while down.exchange.sent_bytes - sum(down.backlog()) == before:
                        await client.reader.read(4096)
                        await asyncio.sleep(0)
                bed.pass_time(1)
            assert bed.site.in_flight == int(reads)
            if not reads:
                line = (await bed.logged())[0]
                assert (line["reason"], line["status"]) == ("slow_client", 200)
            assert bed.live().breaker.closed()

    run(main())


@pytest.mark.parametrize("count", [1, 2])
def test_finished_answer_that_is_not_read_is_not_kept_for_ever(count: int) -> None:
    """When the answers are complete but the client takes none of them, the connection ends soon, or when it was
    idle."""

    def backlog(bed: HttpPlane) -> int:
        return next(iter(bed.site.clients)).backlog()[0]

    async def main() -> None:
        async with bed_of(StubUpstream(), send_buffer=8192) as bed:
            bed.backends[0].scripts = [_big_answer]
            client = await bed.client(limit=4096, receive_buffer=8192)
            await client.send(GET * count)
            await until(lambda: bed.site.clients and not bed.site.in_flight and backlog(bed) > count * 30_000)
            bed.pass_time(16 if count > 1 else 75)
            await until(lambda: not bed.site.clients)

    run(main())


async def _big_answer(talk: Talk) -> None:
    while await talk.head():
        await talk.send(answer(b"x" * 60_000))


def test_queue_timeout() -> None:
    """Who waits more than 5 s for one of maxConnsPerHost connections gets a 503 with Retry-After; nobody is blamed."""

    async def main() -> None:
        async with bed_of(backend := StubUpstream(hang), transport={"max_conns_per_host": 1}) as bed:
            first, second = await bed.client(), await bed.client()
            await first.send(GET)
            await until(lambda: backend.requests)
            await second.send(GET)
            await until(lambda: bed.site.in_flight == 2)
            bed.pass_time(4)
            assert bed.site.in_flight == 2
            bed.pass_time(1.5)
            response = await second.response()
            assert (response.status, response.problem["reason"]) == (503, "queue_timeout")
            assert response.fields["retry-after"] == "1"
            assert bed.live().breaker.closed()

    run(main())


def test_deadlines_cost_an_idle_plane_nothing() -> None:
    """A minute of sweeps over idle connections changes nothing but ends them when they are due."""

    async def main() -> None:
        async with bed_of(StubUpstream()) as bed:
            client = await bed.client()
            await client.get()
            assert len(bed.plane.deadlines) == 2  # the client, and the kept connections
            bed.pass_time(92)
            await until(lambda: not len(bed.plane.deadlines))
            await until(lambda: bed.backends[0].closed)

    run(main())
