"""Splice: when an L4 direction is moved to the kernel and when it comes back, and that nothing is lost on the way."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import random
import socket
from typing import Any

import pytest
from doubles.http_plane import run, until
from doubles.raw_peer import Peer, Target
from doubles.tcp_plane import TcpPlane, both_loops, flooded

from gogate_py.dataplane import splice, tcp_side
from gogate_py.dataplane.tcp_side import BULK, RelaySide

pytestmark = both_loops
MIB = 1 << 20


def _sides(bed: TcpPlane) -> tuple[RelaySide, RelaySide]:
    """Client and backend side of the only relay."""
    relay = bed.relay()
    assert relay._backend_side is not None
    return relay._client, relay._backend_side


async def _bulk(sender: Peer, receiver: Peer, size: int = 4 * MIB) -> None:
    """So many bytes arrive as they were sent."""
    data = flooded(size)
    _, received = await asyncio.gather(sender.send(data), receiver.exactly(size))
    assert received == data


async def _spliced(bed: TcpPlane, sender: Peer, receiver: Peer, side: RelaySide) -> None:
    """Send until this side is spliced. What one read brings depends on how busy the machine is."""
    for _ in range(50):
        await _bulk(sender, receiver)
        if side.splice is not None:
            return
    pytest.fail("never spliced")


@pytest.mark.parametrize("who", ["client", "backend"])
def test_bulk_moves_to_the_kernel(loop: str, who: str) -> None:
    """A bulk direction is spliced, the other one is not; counts and views go on; messages bring it back."""

    async def main() -> None:
        async with TcpPlane(Target()) as bed:
            client, server = await bed.pair()
            one, other = _sides(bed) if who == "client" else _sides(bed)[::-1]
            sender, receiver = (client, server) if who == "client" else (server, client)
            await _bulk(sender, receiver, BULK // 2)
            assert one.splice is None
            await _spliced(bed, sender, receiver, one)
            assert other.splice is None
            so_far = one.received
            await _bulk(sender, receiver, 3 * MIB + 7)
            view = bed.relay().view()
            assert (view.bytes_in if who == "client" else view.bytes_out) == so_far + 3 * MIB + 7
            for number in range(2 * splice.PATIENCE):
                await sender.send(b"%06d" % number)
                assert await receiver.exactly(6) == b"%06d" % number
                await receiver.send(b"yes")
                assert await sender.exactly(3) == b"yes"
            await until(lambda: one.splice is None, "messages are relayed")
            assert one.transport.is_reading()
            await _spliced(bed, sender, receiver, one)  # and once more
            sender.eof()
            assert await receiver.some() == b""
            receiver.eof()
            assert await sender.some() == b""
            (line,) = await bed.logged()
            assert line["result"] == "ok"
            assert line["bytes_in" if who == "client" else "bytes_out"] == one.received

    run(main(), loop)


def test_messages_stay(loop: str) -> None:
    """However much comes in small reads, it is not spliced."""

    async def main() -> None:
        async with TcpPlane(Target()) as bed:
            client, server = await bed.pair()
            side, _ = _sides(bed)
            for _ in range(BULK // 8192 + 50):
                await client.send(bytes(8192))
                await server.exactly(8192)
                assert side.splice is None
            client.close()
            server.close()

    run(main(), loop)


def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Splice from the first read to the end."""
    monkeypatch.setattr(tcp_side, "BULK", 0)
    monkeypatch.setattr(tcp_side, "LARGE_READ", 0)
    monkeypatch.setattr(splice, "PATIENCE", 1 << 30)


def _without(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Take away what splice needs."""
    def no(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EINVAL, "not supported")

    def no_descriptor(_: int) -> Any:
        raise OSError(errno.EMFILE, "none left")

    if what == "no splice":
        monkeypatch.setattr(splice, "_splice", None)
    elif what == "sockets that cannot":
        monkeypatch.setattr(splice, "_splice", no)
    elif what == "no descriptor":
        monkeypatch.setattr(os, "pipe2", no_descriptor)
    elif what == "no pipe free":
        monkeypatch.setattr(splice, "MAX_PIPES", 0)
    else:  # the kernel's answer beyond fs.pipe-user-pages-soft: two pages
        real = splice.fcntl.fcntl

        def small(fd: int, command: int, value: int = 0) -> int:
            if command == splice.fcntl.F_SETPIPE_SZ:
                real(fd, command, 8192)
                raise PermissionError(errno.EPERM, "beyond the soft limit")
            return real(fd, command, value)

        monkeypatch.setattr(splice.fcntl, "fcntl", small)


@pytest.mark.parametrize(
    "what", ["no splice", "sockets that cannot", "no descriptor", "no pipe free", "pipes of two pages"]
)
def test_without_splice_it_goes_on(loop: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where splice is missing or refused, or there is no pipe, bytes are relayed as before; no pipe is left open."""
    _at_once(monkeypatch)
    _without(monkeypatch, what)

    async def main() -> None:
        async with TcpPlane(Target()) as bed:
            client, server = await bed.pair()
            side, _ = _sides(bed)
            await _bulk(client, server)
            await _bulk(server, client)
            if what in ("no splice", "sockets that cannot"):
                assert side._bulk == tcp_side.NEVER
            assert bed.plane.splicer.pipes.made == (1 if what == "sockets that cannot" else 0)
            client.eof()
            assert await server.some() == b""
            server.eof()
            assert (await bed.logged())[0]["result"] == "ok"

    run(main(), loop)


def test_one_pipe_serves_many(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe is held only while there are bytes in it: twenty spliced connections need one."""
    _at_once(monkeypatch)

    async def main() -> None:
        async with TcpPlane(Target()) as bed:
            pairs = [await bed.pair() for _ in range(20)]
            for client, server in pairs * 2:
                await client.send(b"ping")
                assert await server.exactly(4) == b"ping"
            await until(lambda: len(bed.plane.splicer) == 20, "all are spliced")
            assert bed.plane.splicer.pipes.made == 1
            for client, server in pairs:
                client.close()
                server.close()

    run(main(), loop)


def test_sizes_of_pipes(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pipes are large, the others smaller; one that is given back is used again."""
    monkeypatch.setattr(splice, "LARGE_PIPES", 1)

    async def main() -> None:
        pipes = splice.Pipes()
        ends = [pipes.take() for _ in range(3)]
        sizes = [fcntl.fcntl(one[0], fcntl.F_GETPIPE_SZ) for one in ends if one is not None]
        assert sizes == [MIB, MIB // 4, MIB // 4]
        last = ends[2]
        assert last is not None
        pipes.give(last)
        assert pipes.take() == last
        for one in ends:
            assert one is not None
            pipes.drop(one)
        assert pipes.made == 0

    run(main(), loop)


def test_pipes_are_bounded(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many stalled directions only so many hold a pipe; the others wait in the write buffer, and all arrives."""
    _at_once(monkeypatch)
    monkeypatch.setattr(splice, "MAX_PIPES", 2)
    monkeypatch.setattr(splice, "KEPT_PIPES", 1)

    async def main() -> None:
        async with TcpPlane(Target(small=True), small=True) as bed:
            pairs = [await bed.pair() for _ in range(5)]
            relays = list(bed.plane.relays.values())
            sent = [
                await bed.flood(client, relay._client) for (client, _), relay in zip(pairs, relays, strict=True)
            ]
            assert bed.plane.splicer.pipes.made == 2
            held = [relay._client.splice for relay in relays]
            assert sum(one is not None and one.inside > 0 for one in held) == 2
            for (client, server), size in zip(pairs, sent, strict=True):
                assert await server.exactly(size) == flooded(size)
                client.close()
                server.close()
            await bed.quiet()
            assert bed.plane.splicer.pipes.made == 1

    run(main(), loop)


@pytest.mark.parametrize("state", ["switching", "spliced"])
@pytest.mark.parametrize("who", ["client", "backend"])
@pytest.mark.parametrize("event", ["read", "EOF", "reset", "receiver resets", "cut", "idle", "drain"])
def test_every_end_in_every_state(
    loop: str, state: str, who: str, event: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Switching (the target's buffer is not empty yet) or spliced and blocked (bytes in the pipe): all ends are those
    of a paused direction."""
    _at_once(monkeypatch)

    async def main() -> None:
        async with TcpPlane(Target(small=True), small=True, idle_timeout=80.0) as bed:
            client, server = await bed.pair()
            ours, theirs = _sides(bed)
            sender, receiver, source, target = (
                (client, server, ours, theirs) if who == "client" else (server, client, theirs, ours)
            )
            if state == "switching":
                monkeypatch.setattr(tcp_side, "BULK", float("inf"))
                sent = await bed.flood(sender, source)
                assert bed.plane.splicer.start(source, target)
                assert source.splice is not None
                assert target.transport.get_write_buffer_size() == target.unsent() > 0
            else:
                await sender.send(b"first")
                assert await receiver.exactly(5) == b"first"
                await until(lambda: source.splice is not None and source.splice.is_reading(), "spliced")
                sent = await bed.flood(sender, source)
                assert source.splice is not None
                assert source.splice.inside == target.unsent() > 0
            results = {
                "reset": f"{who}_reset",
                "receiver resets": f"{'backend' if who == 'client' else 'client'}_reset",
                "cut": "closed_by_admin",
                "idle": "idle_timeout",
                "drain": "grace_period",
            }
            if event in ("read", "EOF"):
                if event == "EOF":
                    sender.eof()
                assert await receiver.exactly(sent) == flooded(sent)
                if event == "read":
                    assert source.splice is not None
                    await until(source.splice.is_reading, "spliced")
                    await _bulk(sender, receiver, MIB)
                    sender.eof()
                assert await receiver.some() == b""
                receiver.eof()
                assert await sender.some() == b""
            elif event == "reset":
                sender.reset()
                await bed.quiet()  # although the receiver still reads nothing
                assert await receiver.ends() == "reset"
            elif event == "receiver resets":
                receiver.reset()
                assert await sender.ends() == "reset"
            elif event == "cut":
                bed.relay().cut("closed_by_admin")
            elif event == "idle":
                bed.pass_time(79)
                assert bed.plane.relays
                bed.pass_time(11)
            else:
                assert await bed.plane.drain(0.0, 0.0) == 1
            await bed.quiet()
            (line,) = await bed.logged()
            assert line["result"] == results.get(event, "ok")
            assert line["bytes_in" if who == "client" else "bytes_out"] == source.received

    run(main(), loop)


def test_a_trickle_out_of_the_pipe_is_not_idleness(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow reader that takes bytes from a full pipe keeps its relay."""
    _at_once(monkeypatch)

    async def main() -> None:
        async with TcpPlane(Target(small=True), small=True, idle_timeout=80.0) as bed:
            client, server = await bed.pair()
            _, source = _sides(bed)
            await server.send(b"x")
            await client.exactly(1)
            sent = await bed.flood(server, source)
            taken = 0
            for _ in range(4):
                one: Any = source.splice
                before = one.inside
                while one.inside == before:
                    taken += len(await bed.loop.sock_recv(client.sock, 4096))
                    await asyncio.sleep(0)
                bed.pass_time(70)
                assert bed.plane.relays
            assert await client.exactly(sent - taken) == flooded(sent)[taken:]
            client.close()
            server.close()

    run(main(), loop)


def test_a_bug_ends_the_relay(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody expected ends this relay, is counted, and is not met again and again."""
    _at_once(monkeypatch)

    async def main() -> None:
        async with TcpPlane(Target()) as bed:
            client, server = await bed.pair()
            await client.send(b"x")
            await server.exactly(1)
            await until(lambda: len(bed.plane.splicer) == 1, "spliced")

            def bug(*_: Any, **__: Any) -> int:
                raise RuntimeError("a bug")

            monkeypatch.setattr(splice, "_splice", bug)
            await client.send(b"y")
            assert await server.ends() in ("eof", "reset")
            assert (await bed.logged())[0]["result"] == "internal"
            bed.expected_errors = 1

    run(main(), loop)


def test_over_unix_sockets(loop: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend on a Unix socket can be spliced, too."""
    _at_once(monkeypatch)
    path = str(tmp_path / "backend")

    async def main() -> None:
        target = Target()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(5)
        listener.setblocking(False)
        target.endpoints = ((path, 0),)
        async with TcpPlane(target) as bed:
            client = await bed.client()
            sock, _ = await bed.loop.sock_accept(listener)
            server = Peer(sock)
            bed.peers.append(server)
            await _bulk(client, server)
            await _bulk(server, client)
            ours, theirs = _sides(bed)
            assert ours.splice is not None
            assert theirs.splice is not None
            client.eof()
            assert await server.some() == b""
            server.eof()
            assert await client.some() == b""
        listener.close()

    run(main(), loop)


@pytest.mark.parametrize("seed", range(8))
def test_bytes_out_are_bytes_in(loop: str, seed: int, way: str) -> None:
    """Two peers write, pause, end and sometimes reset at random, in any mode: what arrives is what was sent, in order,
    and all of it unless somebody reset."""
    random_ = random.Random(seed)
    resets = random_.random() < 0.3

    async def main() -> None:
        async with TcpPlane(Target(small=bool(seed % 2)), small=bool(seed % 2)) as bed:
            client, server = await bed.pair()
            listening: dict[Peer, asyncio.Task[bytes]] = {}
            broken: list[Peer] = []

            async def pause() -> None:
                for _ in range(random_.choice((0, 0, 1, 5, 40))):
                    await asyncio.sleep(0)

            async def talk(sender: Peer) -> int:
                sent = 0
                try:
                    for _ in range(random_.randint(1, 60)):
                        size = random_.choice((1, 2, 100, 5000, 65536, 200_001))
                        await sender.send(flooded(sent + size)[sent:])
                        sent += size
                        await pause()
                    if resets and random_.random() < 0.5:
                        listening[sender].cancel()  # nobody may wait for a closed socket
                        await asyncio.wait([listening[sender]])
                        broken.append(sender)
                        sender.reset()
                    else:
                        sender.eof()
                except OSError:
                    broken.append(sender)
                return sent

            async def listen(receiver: Peer) -> bytes:
                data = bytearray()
                try:
                    while more := await bed.loop.sock_recv(receiver.sock, random_.choice((1000, 50_000, 300_000))):
                        data += more
                        await pause()
                except (OSError, asyncio.CancelledError):
                    broken.append(receiver)
                return bytes(data)

            for peer in (client, server):
                listening[peer] = asyncio.create_task(listen(peer))
            up, down = await asyncio.gather(talk(client), talk(server))
            got_up, got_down = await listening[server], await listening[client]
            assert got_up == flooded(len(got_up))
            assert got_down == flooded(len(got_down))
            (line,) = await bed.logged()
            if broken:
                assert resets
                assert line["result"] in ("ok", "client_reset", "backend_reset")
            else:
                assert (len(got_up), len(got_down)) == (up, down)
                assert (line["bytes_in"], line["bytes_out"], line["result"]) == (up, down, "ok")

    run(main(), loop)
