"""The L4 relay on real sockets: bytes exact, every direction ends by itself, a reset is passed on as a reset."""

from __future__ import annotations

import asyncio
import hashlib
import random
import select

import pytest
from doubles.http_plane import run, until
from doubles.noise import blocks, digest
from doubles.raw_peer import Peer, Target
from doubles.tcp_plane import TcpPlane, both_loops

pytestmark = [both_loops, pytest.mark.usefixtures("way")]
MIB = 1 << 20


async def _send_all(peer: Peer, seed: int, size: int) -> None:
    for block in blocks(seed, size):
        await peer.send(block)
    peer.eof()


async def _receive_all(peer: Peer) -> tuple[int, str]:
    sha, size = hashlib.sha256(), 0
    while data := await peer.some():
        sha.update(data)
        size += len(data)
    return size, sha.hexdigest()


def test_64_mib_both_ways_at_once(loop: str) -> None:
    """64 MiB each way at once arrive byte for byte, and are counted exactly."""
    size = 64 * MIB

    async def main() -> None:
        async with TcpPlane(Target()) as bed:
            client, server = await bed.pair()
            done = await asyncio.gather(
                _send_all(client, 1, size), _send_all(server, 2, size), _receive_all(client), _receive_all(server)
            )
            assert done[2:] == [(size, digest(2, size)), (size, digest(1, size))]
            (line,) = await bed.logged()
            assert (line["bytes_in"], line["bytes_out"], line["result"]) == (size, size, "ok")
            assert (bed.live().bytes_sent, bed.live().bytes_received) == (size, size)

    run(main(), loop)


@pytest.mark.parametrize("seed", range(4))
def test_any_cut_of_the_stream(loop: str, seed: int) -> None:
    """Whatever the sizes in which bytes are written and read, they arrive in order."""
    random_ = random.Random(seed)
    pieces = [random_.randbytes(random_.choice((1, 2, 7, 100, 1460, 65536, 70001))) for _ in range(60)]

    async def main() -> None:
        async with TcpPlane(Target(small=True), small=True) as bed:
            client, server = await bed.pair()

            async def talk(sender: Peer) -> None:
                for piece in pieces:
                    await sender.send(piece)
                sender.eof()

            async def listen(receiver: Peer) -> bytes:
                data = b""
                while more := await bed.loop.sock_recv(receiver.sock, random_.randint(1, 50_000)):
                    data += more
                return data

            done = await asyncio.gather(talk(client), talk(server), listen(client), listen(server))
            assert done[2] == done[3] == b"".join(pieces)

    run(main(), loop)


@pytest.mark.parametrize("backend_first", [False, True])
@pytest.mark.parametrize("early", [b"", b"all I have to say"])
def test_half_close(loop: str, backend_first: bool, early: bytes) -> None:
    """After one side's EOF, which comes behind its bytes, the other side goes on until its own."""

    async def main() -> None:
        async with TcpPlane(Target()) as bed:
            client, server = await bed.pair()
            first, second = (server, client) if backend_first else (client, server)
            if early:
                await first.send(early)
            first.eof()
            assert await second.until_eof() == early
            state = "backend_closed" if backend_first else "client_closed"
            assert bed.relay().view().state == state
            for round_ in range(5):  # the second one is not hurried
                await second.send(b"x" * 1000)
                assert await first.exactly(1000) == b"x" * 1000
                assert bed.relay().view().state == state, round_
            await second.send(b"the end")
            second.eof()
            assert await first.until_eof() == b"the end"
            (line,) = await bed.logged()
            assert line["result"] == "ok"

    run(main(), loop)


def test_both_end_at_once(loop: str) -> None:
    """EOF from both sides in the same moment ends the relay in order."""

    async def main() -> None:
        async with TcpPlane(Target()) as bed:
            client, server = await bed.pair()
            client.eof()
            server.eof()
            assert await asyncio.gather(client.ends(), server.ends()) == ["eof", "eof"]
            assert (await bed.logged())[0]["result"] == "ok"

    run(main(), loop)


def test_last_bytes_behind_the_close(loop: str) -> None:
    """A backend that sends much and closes at once loses nothing, although both directions end before it is sent."""

    async def main() -> None:
        async with TcpPlane(Target(), small=True) as bed:
            client, server = await bed.pair()
            client.eof()
            assert await server.some() == b""
            await asyncio.gather(_send_all(server, 5, 3 * MIB), until(lambda: client.hears(select.POLLIN)))
            assert await _receive_all(client) == (3 * MIB, digest(5, 3 * MIB))

    run(main(), loop)


@pytest.mark.parametrize("who", ["client", "backend"])
@pytest.mark.parametrize("when", ["before any byte", "after bytes", "after its EOF", "after the other's EOF"])
def test_reset_is_passed_on(loop: str, who: str, when: str) -> None:
    """RST from one side is RST for the other, whatever was said and ended before."""

    async def main() -> None:
        async with TcpPlane(Target()) as bed:
            client, server = await bed.pair()
            breaking, other = (client, server) if who == "client" else (server, client)
            if when == "after bytes":
                await breaking.send(b"ping")
                assert await other.exactly(4) == b"ping"
                await other.send(b"pong")
                assert await breaking.exactly(4) == b"pong"
            elif when == "after its EOF":
                breaking.eof()
                assert await other.some() == b""
            elif when == "after the other's EOF":
                other.eof()
                assert await breaking.some() == b""
            breaking.reset()
            if when == "after its EOF":  # recv(2) goes on to say EOF then, but poll(2) tells
                await until(lambda: other.hears(select.POLLERR), "the reset")
            else:
                assert await other.ends() == "reset"
            (line,) = await bed.logged()
            assert line["result"] == f"{who}_reset"
            assert bed.live().tcp_results == {("echo", f"{who}_reset"): 1}

    run(main(), loop)


def test_a_backend_that_closes_without_reading(loop: str) -> None:
    """A backend that closes with bytes unread resets; the client learns of it as a reset."""

    async def main() -> None:
        async with TcpPlane(Target()) as bed:
            client, server = await bed.pair()
            await client.send(b"never read")
            await until(lambda: server.hears(select.POLLIN), "the bytes to arrive")
            server.close()
            assert await client.ends() == "reset"

    run(main(), loop)


def test_many_at_once(loop: str) -> None:
    """Sixty clients at once: each has its own backend connection, and each gets its own bytes back."""

    async def main() -> None:
        async with TcpPlane(Target()) as bed:

            async def echo(server: Peer) -> None:
                while data := await server.some():
                    await server.send(data)
                server.eof()

            async def serve() -> None:
                await asyncio.gather(*[echo(await bed.targets[0].accept()) for _ in range(60)])

            async def one(number: int) -> None:
                client = await bed.client()
                text = b"%d." % number * 5000
                await client.send(text)
                client.eof()
                assert await client.until_eof() == text

            await asyncio.gather(serve(), *[one(number) for number in range(60)])
            lines = await bed.logged(60)
            assert len({line["connection_id"] for line in lines}) == 60

    run(main(), loop)
