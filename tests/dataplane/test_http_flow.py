"""Back-pressure: whoever does not read costs bounded memory, and what was held arrives byte for byte when it reads
again."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest
from doubles.http_plane import HttpPlane, run, until
from doubles.stub_upstream import StubUpstream, Talk, answer

LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
SIZE = 24 << 20
DATA = random.Random(3).randbytes(SIZE)
DIGEST = hashlib.sha256(DATA).hexdigest()
#: high water, what one read may add to it, and chunk framing
BOUND = 64 * 1024 + 256 * 1024 + 4096


@LOOPS
@pytest.mark.parametrize("chunked", [False, True])
def test_client_that_does_not_read(chunked: bool, loop: str) -> None:
    """An answer waits for a client with at most a buffer's worth held here, and then arrives whole."""

    async def main() -> None:
        async def play(talk: Talk) -> None:
            await talk.head()
            if chunked:
                await talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % SIZE)
                await talk.send(DATA + b"\r\n0\r\n\r\n")
            else:
                await talk.send(answer(DATA))
            await talk.ends()

        async with HttpPlane(backend := StubUpstream(play), send_buffer=65536) as bed:
            client = await bed.client(limit=65536, receive_buffer=65536)
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: any(c.exchange and c.exchange.response_paused for c in bed.site.clients))
            down = next(iter(bed.site.clients))
            held = backend.talks[0].writer.transport
            for _ in range(200):
                await asyncio.sleep(0)
            assert held.get_write_buffer_size() > SIZE // 2
            assert down.backlog()[0] <= BOUND
            response = await client.response()
            assert hashlib.sha256(response.body).hexdigest() == DIGEST

    run(main(), loop)


@LOOPS
@pytest.mark.parametrize("chunked", [False, True])
def test_backend_that_does_not_read(chunked: bool, loop: str) -> None:
    """A request body waits for a backend with at most a buffer's worth held here, and then arrives whole."""
    reads = asyncio.Event()

    async def play(talk: Talk) -> None:
        talk.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await reads.wait()
        talk.writer.transport.resume_reading()  # type: ignore[attr-defined]
        _, body = await talk.request()
        await talk.send(answer(hashlib.sha256(body).hexdigest().encode()))
        await talk.ends()

    async def main() -> None:
        async with HttpPlane(StubUpstream(play)) as bed:
            client = await bed.client()
            if chunked:
                client.writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % SIZE)
                client.writer.write(DATA + b"\r\n0\r\n\r\n")
            else:
                client.writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % SIZE + DATA)
            await until(lambda: any(c.exchange and c.exchange.upstream for c in bed.site.clients))
            upstream = next(iter(bed.site.clients)).exchange.upstream  # type: ignore[union-attr]
            await until(lambda: upstream.write_paused)
            assert upstream.transport.get_write_buffer_size() <= BOUND
            assert client.writer.transport.get_write_buffer_size() > SIZE // 4
            reads.set()
            assert (await client.response()).body == DIGEST.encode()

    run(main(), loop)


@LOOPS
@pytest.mark.parametrize("reset", [False, True])
def test_client_that_goes_while_it_is_not_read(reset: bool, loop: str) -> None:
    """A client that goes away while its body waits for the backend is noticed, and the backend let go at once (F19)."""

    async def main() -> None:
        async def deaf(talk: Talk) -> None:
            talk.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await until(lambda: not bed.site.in_flight)
            talk.writer.transport.resume_reading()  # type: ignore[attr-defined]
            await talk.ends()

        bed = HttpPlane(backend := StubUpstream(deaf))
        async with bed:
            client = await bed.client()
            client.writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n")
            # In small steps, and no more than makes it pause: a FIN behind bytes that its kernel has no room for
            # would not arrive.
            while not any(c.exchange and c.exchange.request_paused for c in bed.site.clients):
                client.writer.write(bytes(32_768))
                await client.writer.drain()
                await asyncio.sleep(0)
            if reset:
                client.reset()
            else:
                client.writer.transport.abort()
            await until(lambda: backend.closed)
            assert (await bed.logged())[0]["status"] == 499

    run(main(), loop)


def test_body_while_connecting_is_bounded() -> None:
    """While no connection stands, at most some 64 KiB of a body are kept and the client is not read; then all is
    sent."""

    async def main() -> None:
        free = asyncio.Event()

        async def first(talk: Talk) -> None:
            await talk.request()
            await free.wait()
            await talk.send(answer())
            _, body = await talk.request()
            await talk.send(answer(hashlib.sha256(body).hexdigest().encode()))
            await talk.ends()

        async with HttpPlane(StubUpstream(first), transport={"max_conns_per_host": 1}) as bed:
            busy, waiting = await bed.client(), await bed.client()
            await busy.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: bed.backends[0].requests)
            waiting.writer.write(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % SIZE + DATA)
            await until(lambda: any(c.exchange and c.exchange.request_paused for c in bed.site.clients))
            paused = next(c for c in bed.site.clients if c.exchange and c.exchange.request_paused)
            assert paused.exchange is not None
            assert 64 * 1024 <= paused.exchange._pending_size <= BOUND
            free.set()
            assert (await waiting.response()).body == DIGEST.encode()

    run(main())
