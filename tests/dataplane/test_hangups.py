"""Hangups: a peer that goes away is noticed where the event loop does not look."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from doubles.http_plane import run, until
from doubles.tcp_plane import both_loops

from gogate_py.dataplane.hangups import Hangups, send_reset

pytestmark = both_loops


class Owner:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[bool] = []

    def on_hangup(self, reset: bool) -> None:
        self.told.append(reset)


def _pair() -> tuple[socket.socket, socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@asynccontextmanager
async def _bed() -> AsyncIterator[tuple[Hangups, Owner, socket.socket, socket.socket]]:
    hangups = Hangups(asyncio.get_running_loop())
    ours, peer = _pair()
    try:
        yield hangups, Owner(), ours, peer
    finally:
        hangups.close()
        ours.close()
        peer.close()


async def _some_turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("fin", [False, True])
@pytest.mark.parametrize("unread", [False, True])
@pytest.mark.parametrize("before", [False, True])
def test_reset(loop: str, fin: bool, unread: bool, before: bool) -> None:
    """A reset is told once: also behind unread bytes, and also when it came before the watch began."""

    async def main() -> None:
        async with _bed() as (hangups, owner, ours, peer):
            if unread:
                peer.sendall(b"unread")
            if not before:
                hangups.watch(ours.fileno(), owner, fin=fin)
            _reset(peer)
            if before:
                hangups.watch(ours.fileno(), owner, fin=fin)
            await until(lambda: owner.told, "told")
            await _some_turns()
            assert owner.told == [True]
            assert not hangups._watched

    run(main(), loop)


@pytest.mark.parametrize("unread", [False, True])
def test_fin(loop: str, unread: bool) -> None:
    """A FIN is told to who asked for it, and what the peer does afterwards is not."""

    async def main() -> None:
        async with _bed() as (hangups, owner, ours, peer):
            hangups.watch(ours.fileno(), owner, fin=True)
            if unread:
                peer.sendall(b"unread")
            peer.shutdown(socket.SHUT_WR)
            await until(lambda: owner.told, "told")
            _reset(peer)
            await _some_turns()
            assert owner.told == [False]

    run(main(), loop)


def test_fin_that_nobody_asked_for(loop: str) -> None:
    """Without ``fin`` an orderly end, of one direction or both, is not told; a reset after it is."""

    async def main() -> None:
        async with _bed() as (hangups, owner, ours, peer), _bed() as (_, _, other, closed):
            closed_owner = Owner()
            hangups.watch(ours.fileno(), owner, fin=False)
            hangups.watch(other.fileno(), closed_owner, fin=False)
            peer.shutdown(socket.SHUT_WR)
            other.shutdown(socket.SHUT_WR)
            closed.close()
            await _some_turns()
            assert (owner.told, closed_owner.told) == ([], [])
            _reset(peer)
            await until(lambda: owner.told, "told")
            assert owner.told == [True]

    run(main(), loop)


def test_forget(loop: str) -> None:
    """After ``forget`` nothing is told; a stranger cannot forget for somebody else; forgetting twice does no harm."""

    async def main() -> None:
        async with _bed() as (hangups, owner, ours, peer), _bed() as (_, stranger, others, other_peer):
            hangups.watch(ours.fileno(), owner, fin=True)
            hangups.watch(others.fileno(), owner, fin=True)
            hangups.forget(others.fileno(), stranger)
            hangups.forget(ours.fileno(), owner)
            hangups.forget(ours.fileno(), owner)
            _reset(peer)
            _reset(other_peer)
            await until(lambda: owner.told, "told")
            await _some_turns()
            assert owner.told == [True]

    run(main(), loop)


def test_watch_again(loop: str) -> None:
    """A second watch of the same descriptor replaces the first: its owner, and whether a FIN counts."""

    async def main() -> None:
        async with _bed() as (hangups, owner, ours, peer):
            second = Owner()
            hangups.watch(ours.fileno(), owner, fin=False)
            hangups.watch(ours.fileno(), second, fin=True)
            peer.shutdown(socket.SHUT_WR)
            await until(lambda: second.told, "told")
            assert (owner.told, second.told) == ([], [False])

    run(main(), loop)


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_number_that_is_used_again(loop: str, forgotten: bool) -> None:
    """A descriptor that was closed and whose number is used again is watched for its new owner only."""

    async def main() -> None:
        async with _bed() as (hangups, owner, ours, _):
            number = ours.fileno()
            hangups.watch(number, owner, fin=True)
            ours.close()
            if forgotten:
                hangups.forget(number, owner)
            client, new_peer = _pair()
            ends = {client.fileno(): (client, new_peer), new_peer.fileno(): (new_peer, client)}
            assert number in ends
            new, other = ends[number]
            second = Owner()
            hangups.watch(new.fileno(), second, fin=True)
            _reset(other)
            await until(lambda: second.told, "told")
            assert (owner.told, second.told) == ([], [True])
            new.close()

    run(main(), loop)


def test_a_descriptor_that_cannot_be_watched(loop: str, tmp_path: Path) -> None:
    """What the kernel does not watch (a file, a closed number) is passed over."""

    async def main() -> None:
        async with _bed() as (hangups, owner, ours, _):
            with (tmp_path / "file").open("w") as file:
                hangups.watch(file.fileno(), owner, fin=True)
            number = ours.fileno()
            ours.close()
            hangups.watch(number, owner, fin=True)
            assert not hangups._watched

    run(main(), loop)


def test_more_at_once_than_one_look_brings(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many hangups in one moment are all told."""
    monkeypatch.setattr("gogate_py.dataplane.hangups._MAX_EVENTS", 3)

    async def main() -> None:
        async with _bed() as (hangups, _, _, _):
            pairs = [_pair() for _ in range(10)]
            owners = [Owner() for _ in pairs]
            for (ours, peer), owner in zip(pairs, owners, strict=True):
                hangups.watch(ours.fileno(), owner, fin=False)
                _reset(peer)
            await until(lambda: all(owner.told for owner in owners), "all told")
            for ours, _ in pairs:
                ours.close()

    run(main(), loop)


@pytest.mark.parametrize("reset", [False, True])
def test_send_reset(loop: str, reset: bool, tmp_path: Path) -> None:
    """``abort`` sends FIN, after ``send_reset`` RST; a Unix socket has no RST and takes no harm."""

    async def main() -> None:
        running = asyncio.get_running_loop()
        ours, peer = _pair()
        left, right = socket.socketpair()
        for mine, his in ((ours, peer), (left, right)):
            his.setblocking(False)
            transport: Any
            transport, _ = await running.create_connection(asyncio.Protocol, sock=mine)
            if reset:
                send_reset(transport)
            transport.abort()
            if reset and mine is ours:
                with pytest.raises(ConnectionResetError):
                    await running.sock_recv(his, 1)
            else:
                assert await running.sock_recv(his, 1) == b""
            his.close()
        await _some_turns()

    run(main(), loop)
