"""Back-pressure of the L4 relay: a side that does not take bytes stops the other one, and costs bounded memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from doubles.http_plane import run, until
from doubles.raw_peer import Peer, Target
from doubles.tcp_plane import TcpPlane, both_loops, flooded, stopped

from gogate_py.dataplane import tcp_side
from gogate_py.dataplane.splice import PIPE_SIZE
from gogate_py.dataplane.tcp_side import EARLY_LIMIT, HIGH_WATER, LOW_WATER, RelaySide

pytestmark = [both_loops, pytest.mark.usefixtures("way")]
#: What one read of the event loop's can bring at most (256 KiB under both): the high mark may be passed by one read.
ONE_READ = 256 * 1024


async def _stalled(bed: TcpPlane, who: str) -> tuple[Peer, Peer, int, RelaySide, RelaySide]:
    """A relay of which ``who`` ("client" or "backend") reads nothing: (reader, sender, bytes sent, their sides)."""
    client, server = await bed.pair()
    relay = bed.relay()
    backend_side: Any = relay._backend_side
    if who == "client":
        return client, server, await bed.flood(server, backend_side), relay._client, backend_side
    return server, client, await bed.flood(client, relay._client), backend_side, relay._client


@pytest.mark.parametrize("who", ["client", "backend"])
def test_stalled_reader(loop: str, who: str, way: str) -> None:
    """A reader that stalls blocks the sender and costs the write buffer up to its high mark, or a pipe; then all
    arrives."""

    async def main() -> None:
        async with TcpPlane(Target(small=True), small=True) as bed:
            reader, sender, sent, towards, source = await _stalled(bed, who)
            if way == "relayed":
                assert HIGH_WATER < towards.unsent() <= HIGH_WATER + ONE_READ
            else:
                assert 0 < towards.unsent() <= max(PIPE_SIZE, ONE_READ)
            assert source.unsent() == 0
            assert stopped(source)
            assert not stopped(towards)  # the other direction is not stopped
            await reader.send(b"still here")
            assert await sender.exactly(10) == b"still here"
            assert await reader.exactly(sent) == flooded(sent)
            await until(lambda: not stopped(source), "reading goes on")
            await sender.send(b"more")
            assert await reader.exactly(4) == b"more"
            reader.close()
            sender.close()

    run(main(), loop)


def test_reading_resumes_below_the_low_mark(loop: str, way: str) -> None:
    """The sender is read again when the buffer is below the low mark, not before; a pipe must be empty."""
    low = LOW_WATER if way == "relayed" else 0

    async def main() -> None:
        async with TcpPlane(Target(small=True), small=True) as bed:
            reader, sender, sent, towards, source = await _stalled(bed, "client")
            taken = 0
            while stopped(source):
                before = towards.unsent()
                assert before > low
                taken += len(await bed.loop.sock_recv(reader.sock, 4096))
                await asyncio.sleep(0)
            assert 0 < taken < sent
            assert await reader.exactly(sent - taken) == flooded(sent)[taken:]
            reader.close()
            sender.close()

    run(main(), loop)


def test_both_stall(loop: str) -> None:
    """Two peers that both send and never read stop both directions; when they read, all arrives."""

    async def main() -> None:
        async with TcpPlane(Target(small=True), small=True) as bed:
            client, server = await bed.pair()
            relay = bed.relay()
            up, down = await asyncio.gather(
                bed.flood(client, relay._client), bed.flood(server, relay._backend_side)
            )
            received = await asyncio.gather(client.exactly(down), server.exactly(up))
            assert received == [flooded(down), flooded(up)]
            client.close()
            server.close()

    run(main(), loop)


@pytest.mark.parametrize("who", ["client", "backend"])
def test_eof_behind_a_stall(loop: str, who: str) -> None:
    """EOF that the sender sent while it was paused arrives behind its bytes."""

    async def main() -> None:
        async with TcpPlane(Target(small=True), small=True) as bed:
            reader, sender, sent, _, _ = await _stalled(bed, who)
            sender.eof()
            assert await reader.until_eof() == flooded(sent)
            reader.eof()
            assert await sender.some() == b""
            assert (await bed.logged())[0]["result"] == "ok"

    run(main(), loop)


@pytest.mark.parametrize("who", ["client", "backend"])
def test_reset_of_a_paused_sender(loop: str, who: str) -> None:
    """A sender that resets while it is not read is noticed at once, and the stalled reader is reset."""

    async def main() -> None:
        async with TcpPlane(Target(small=True), small=True) as bed:
            reader, sender, _, _, source = await _stalled(bed, who)
            assert stopped(source)
            sender.reset()
            await bed.quiet()  # although the reader still reads nothing
            assert await reader.ends() == "reset"
            assert (await bed.logged())[0]["result"] == ("backend_reset" if who == "client" else "client_reset")

    run(main(), loop)


@pytest.mark.parametrize("who", ["client", "backend"])
def test_reset_of_a_stalled_reader(loop: str, who: str) -> None:
    """A reader that resets instead of reading resets the sender, although that one is not read."""

    async def main() -> None:
        async with TcpPlane(Target(small=True), small=True) as bed:
            reader, sender, _, _, _ = await _stalled(bed, who)
            reader.reset()
            assert await sender.ends() == "reset"
            assert (await bed.logged())[0]["result"] == f"{who}_reset"

    run(main(), loop)


def _late_dial(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Make every dial of a relay wait for the event, after it connected."""
    go = asyncio.Event()
    real = tcp_side.dial

    async def dial(*arguments: Any) -> Any:
        connected = await real(*arguments)
        await go.wait()
        return connected

    monkeypatch.setattr(tcp_side, "dial", dial)
    return go


@pytest.mark.parametrize("size", [0, 1, EARLY_LIMIT - 1, EARLY_LIMIT, 1 << 20])
def test_bytes_and_eof_before_the_backend_is_connected(loop: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the client says during the connect is kept up to a limit, and arrives in order, its EOF too."""

    async def main() -> None:
        go = _late_dial(monkeypatch)
        async with TcpPlane(Target(), small=True) as bed:
            client = await bed.client()
            await until(lambda: bed.plane.relays, "accepted")
            side = bed.relay()._client
            sending = asyncio.create_task(client.send(flooded(size)))
            if size > EARLY_LIMIT:
                await until(lambda: not side.transport.is_reading(), "no more is read")
                assert EARLY_LIMIT <= side.received <= EARLY_LIMIT + ONE_READ
            else:
                await sending
                await until(lambda: side.received == size, "all is read")
                client.eof()
                if size < EARLY_LIMIT:
                    await until(lambda: bed.relay().view().state == "connecting_client_closed", "EOF")
            go.set()
            server = await bed.targets[0].accept()
            assert await server.exactly(size) == flooded(size)
            await sending
            if size > EARLY_LIMIT:
                client.eof()
            assert await server.some() == b""
            await server.send(b"answer")
            server.eof()
            assert await client.until_eof() == b"answer"

    run(main(), loop)


@pytest.mark.parametrize("then_resets", [False, True])
@pytest.mark.parametrize("size", [0, 30, 1 << 20])
def test_a_backend_that_speaks_first_and_ends(
    loop: str, size: int, then_resets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A greeting and an EOF that are faster than our own side of the connect are not lost, and the client may go on."""

    async def main() -> None:
        go = _late_dial(monkeypatch)
        async with TcpPlane(Target(), small=True) as bed:
            client = await bed.client()
            server = await bed.targets[0].accept()

            async def greet() -> None:
                await server.send(flooded(size))
                server.eof()

            greeting = asyncio.create_task(greet())
            for _ in range(50):  # turns of the loop in which the greeting and the EOF come
                await asyncio.sleep(0)
            go.set()
            assert await client.until_eof() == flooded(size)
            await greeting
            if then_resets:  # nothing more is read of it, and still it is noticed
                server.reset()
                assert (await bed.logged())[0]["result"] == "backend_reset"
                return
            await client.send(b"thanks")
            assert await server.exactly(6) == b"thanks"
            client.eof()
            assert await server.some() == b""
            assert (await bed.logged())[0]["result"] == "ok"

    run(main(), loop)


def test_a_backend_that_resets_while_it_is_connected(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reset before our own side of the connect is looked at counts as refused; the client gets another backend."""

    async def main() -> None:
        go = _late_dial(monkeypatch)
        async with TcpPlane(Target(), Target()) as bed:
            client = await bed.client()
            await until(lambda: any(target.waiting() for target in bed.targets), "a first connect")
            first = 0 if bed.targets[0].waiting() else 1
            (await bed.targets[first].accept()).reset()
            for _ in range(20):
                await asyncio.sleep(0)
            go.set()
            server = await bed.targets[1 - first].accept()
            await server.send(b"hello")
            assert await client.exactly(5) == b"hello"
            assert bed.live(first).connects == {"refused": 1}
            client.close()

    run(main(), loop)


def test_reset_of_a_client_while_the_backend_is_connected(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that goes away while it waits takes the connect with it; the backend is not blamed."""

    async def main() -> None:
        _late_dial(monkeypatch)
        async with TcpPlane(Target()) as bed:
            for how in ("reset", "reset while paused", "reset after EOF"):
                client = await bed.client()
                await until(lambda: bed.plane.relays, "accepted")
                side = bed.relay()._client
                if how == "reset while paused":
                    await bed.flood(client, side)
                elif how == "reset after EOF":
                    client.eof()
                    await until(lambda side=side: side.eof, "EOF")
                client.reset()
                await bed.quiet()
            assert {line["result"] for line in await bed.logged(3)} == {"client_reset"}

    run(main(), loop)
