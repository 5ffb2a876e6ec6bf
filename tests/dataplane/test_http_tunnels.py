"""Upgrade: websocket — asked for, granted, refused, and the tunnel that follows."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest
from doubles.http_plane import HttpPlane, field, run, until
from doubles.stub_upstream import StubUpstream, Talk, answer, answering

from gogate_py.snapshot import Breaker

LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
UPGRADE = (
    b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
    b"Sec-WebSocket-Key: k\r\n\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: x\r\n\r\n"
)


async def echo(talk: Talk) -> None:
    """Switch, then send everything back until EOF."""
    await talk.head()
    await talk.send(SWITCH)
    while data := await talk.some():
        await talk.send(data)


@LOOPS
def test_tunnel(loop: str) -> None:
    """After the backend's 101 bytes pass both ways; half-closing one side leaves the other open; then both are
    closed."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(echo)) as bed:
            client = await bed.client()
            await client.send(UPGRADE)
            response = await client.response()
            assert response.status == 101
            assert response.fields["upgrade"].lower() == "websocket"
            assert response.fields["connection"] == "Upgrade"
            assert response.fields["sec-websocket-accept"] == "x"
            assert field(backend.received, "Connection") == "Upgrade"
            assert field(backend.received, "Upgrade") == "websocket"
            assert bed.site.in_flight == 0
            assert bed.live()._active.total() == 1
            for message in (b"hello", b"\x00" * 1000, b"GET / HTTP/1.1\r\n\r\n"):
                await client.send(message)
                assert await client.exactly(len(message)) == message
            client.eof()
            assert await client.until_eof() == b""
            line = (await bed.logged())[0]
            assert (line["status"], line.get("reason", "")) == (101, "")
            assert line["bytes"] == len(client.received)

    run(main(), loop)


@LOOPS
def test_tunnel_half_closed_by_the_backend(loop: str) -> None:
    """A backend that ends its direction first still gets what the client sends."""

    async def main() -> None:
        async def play(talk: Talk) -> None:
            await talk.head()
            await talk.send(SWITCH + b"bye")
            talk.eof()
            assert await talk.until_eof() == b"still here"

        async with HttpPlane(backend := StubUpstream(play)) as bed:
            client = await bed.client()
            await client.send(UPGRADE)
            await client.head()
            assert await client.until_eof() == b"bye"
            await client.send(b"still here")
            client.eof()
            await until(lambda: backend.closed)
            await until(lambda: not bed.site.clients)

    run(main(), loop)


def test_early_bytes_both_ways() -> None:
    """What the client sends before the 101, and the backend with it, is relayed first and in order."""

    async def main() -> None:
        async def play(talk: Talk) -> None:
            await talk.head()
            await asyncio.sleep(0)
            await talk.send_pieces([SWITCH[:40], SWITCH[40:] + b"early"])
            assert await talk.exactly(200_005) == b"first" + b"x" * 200_000
            await talk.send(b"done")
            await talk.ends()

        async with HttpPlane(StubUpstream(play)) as bed:
            client = await bed.client()
            await client.send(UPGRADE + b"first")
            await client.send(b"x" * 200_000)
            await client.head()
            assert await client.exactly(9) == b"earlydone"

    run(main())


@pytest.mark.parametrize("status", ["200 OK", "426 Upgrade Required", "403 Forbidden"])
def test_declined_upgrade(status: str) -> None:
    """A backend that answers otherwise declines: an ordinary answer, and what the client sent next is a request
    (H1)."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(answering(answer(b"no", status)))) as bed:
            client = await bed.client()
            await client.send(UPGRADE + b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
            assert [(await client.response()).body for _ in range(2)] == [b"no", b"no"]
            assert backend.requests == 2
            assert len(backend.talks) == 1

    run(main())


@pytest.mark.parametrize(
    ("request_head", "route"),
    [
        (UPGRADE, {"websocket": False}),
        (UPGRADE.replace(b": WebSocket", b": h2c"), {}),
        (UPGRADE.replace(b": WebSocket", b": websocket, h2c"), {}),
        (UPGRADE.replace(b"GET", b"PUT"), {}),
        (UPGRADE.replace(b"HTTP/1.1", b"HTTP/1.0"), {}),
        (UPGRADE.replace(b", Upgrade", b""), {}),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", {}),
    ],
)
def test_switch_that_was_not_asked_for(request_head: bytes, route: dict[str, bool]) -> None:
    """Only an exact websocket upgrade on a route that allows it is passed on; a 101 without one is a 502 (T9, R4)."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(echo), routes=(route,)) as bed:
            response = await bed.exchange(request_head)
            assert (response.status, response.problem["reason"]) == (502, "bad_response")
            assert field(backend.received, "Upgrade") is None
            assert field(backend.received, "Connection") is None

    run(main())


def test_switch_to_another_protocol() -> None:
    """A 101 that names another protocol than the one asked for is a 502."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(answering(SWITCH.replace(b"websocket", b"h2c")))) as bed:
            assert (await bed.exchange(UPGRADE)).status == 502

    run(main())


def test_upgrade_with_a_body() -> None:
    """An upgrade with a body is a 400: where the body ends is not known to everybody (H1)."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream()) as bed:
            response = await bed.exchange(UPGRADE.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\nabc"))
            assert response.status == 400
            assert not backend.talks

    run(main())


@LOOPS
@pytest.mark.parametrize("who", ["client", "backend"])
def test_either_side_resets(who: str, loop: str) -> None:
    """When one side of a tunnel resets, the other is closed and everything is settled."""

    async def main() -> None:
        go = asyncio.Event()

        async def play(talk: Talk) -> None:
            await talk.head()
            await talk.send(SWITCH)
            if who == "backend":
                await go.wait()
                talk.reset()
            else:
                await talk.ends()

        async with HttpPlane(backend := StubUpstream(play), breaker=Breaker(1, 1, 1, 30.0)) as bed:
            client = await bed.client()
            await client.send(UPGRADE)
            await client.head()
            if who == "client":
                client.reset()
            else:
                go.set()
                await client.ends()
            await until(lambda: backend.closed and not bed.site.clients)
            assert bed.live()._active.total() == 0
            await bed.logged()

    run(main(), loop)


@LOOPS
def test_reset_after_eof_is_noticed(loop: str) -> None:
    """A client that half-closed a tunnel and then dies is noticed though it is not read any more."""

    async def main() -> None:
        async def quiet(talk: Talk) -> None:
            await talk.head()
            await talk.send(SWITCH)
            await talk.until_eof()
            await until(lambda: not bed.site.clients)

        bed = HttpPlane(StubUpstream(quiet))
        async with bed:
            client = await bed.client()
            await client.send(UPGRADE)
            await client.head()
            client.eof()
            await until(lambda: bed.plane.hangups._watched)
            client.reset()
            await until(lambda: not bed.site.clients)

    run(main(), loop)


@LOOPS
def test_tunnel_back_pressure(loop: str) -> None:
    """Megabytes through a tunnel whose ends read slowly arrive whole, and little of them is held at a time."""
    data = random.Random(5).randbytes(12 << 20)

    async def main() -> None:
        async with HttpPlane(StubUpstream(echo), send_buffer=65536) as bed:
            client = await bed.client(limit=65536, receive_buffer=65536)
            await client.send(UPGRADE)
            await client.head()
            client.writer.write(data)
            await until(lambda: any(c.write_paused for c in bed.site.clients))
            down = next(iter(bed.site.clients))
            assert down.backlog()[0] < 400_000
            got = await client.exactly(len(data))
            assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()

    run(main(), loop)


def test_idle_tunnel_is_closed() -> None:
    """A tunnel without a byte for timeouts.tunnelIdle ends; one that is used does not."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(echo), timeouts={"tunnel_idle": 100.0}) as bed:
            client = await bed.client()
            await client.send(UPGRADE)
            await client.head()
            bed.pass_time(90)
            await client.send(b"x")
            await client.exactly(1)
            bed.pass_time(90)
            assert bed.site.clients
            bed.pass_time(15)
            assert await client.until_eof() == b""
            await until(lambda: backend.closed)
            assert (await bed.logged())[0]["reason"] == "tunnel_idle"

    run(main())


def test_tunnels_are_not_requests_in_flight() -> None:
    """Open tunnels do not use up limits.inFlight."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(echo, answering(answer())), limits={"in_flight": 1}) as bed:
            client = await bed.client()
            await client.send(UPGRADE)
            await client.head()
            assert (await bed.exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")).status == 200

    run(main())
