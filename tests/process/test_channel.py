"""The channel between supervisor and worker: frames, descriptors, back-pressure, loss."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from gogate_py import messages
from gogate_py.messages import Applied, Listen, LogLines, Welcome
from gogate_py.process.channel import Channel, pair

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


def run(make_loop: Callable[[], asyncio.AbstractEventLoop], main: Any) -> None:
    """Run a coroutine function on one kind of loop."""
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main())


class End:
    """One end and what it heard."""

    def __init__(self, sock: socket.socket, decode: Any) -> None:
        self.heard: list[tuple[Any, list[int]]] = []
        self.closed = asyncio.Event()
        self.news = asyncio.Event()
        self.channel = Channel(asyncio.get_running_loop(), sock, decode, self._hear, self.closed.set)

    def _hear(self, message: Any, fds: list[int]) -> None:
        self.heard.append((message, fds))
        self.news.set()

    async def until(self, count: int) -> None:
        while len(self.heard) < count:
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), 10)


@pytest.mark.parametrize("make_loop", LOOPS)
def test_messages_arrive_whole_and_in_order(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Small and large messages arrive as they were sent, in order, both ways."""

    async def main() -> None:
        ours, theirs = pair()
        up, down = End(ours, messages.decode_up), End(theirs, messages.decode_down)
        lines = [LogLines(True, os.urandom(size), 1) for size in (0, 1, 300_000, 5_000_000, 7)]
        for line in lines:
            down.channel.send(line)
        up.channel.send(Welcome(1, 0, 2, 4, 3))
        await up.until(5)
        await down.until(1)
        assert [message for message, _ in up.heard] == lines
        assert down.heard[0][0] == Welcome(1, 0, 2, 4, 3)
        assert down.channel.backlog() == 0
        up.channel.close()
        down.channel.close()

    run(make_loop, main)


@pytest.mark.parametrize("make_loop", LOOPS)
def test_descriptors_come_with_their_message(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Each message gets its own descriptors, also behind a large one that needed several reads."""

    async def main() -> None:
        ours, theirs = pair()
        sender, receiver = End(ours, messages.decode_up), End(theirs, messages.decode_down)
        files = [os.memfd_create(f"file{number}") for number in range(3)]
        for number, fd in enumerate(files):
            os.write(fd, b"%d" % number)
        sender.channel.send(Listen(("a", "b")), files[:2])
        sender.channel.send(Listen(tuple("x" * 1000 for _ in range(2000))))
        sender.channel.send(Listen(("c",)), files[2:])
        await receiver.until(3)
        got = [fds for _, fds in receiver.heard]
        assert [len(fds) for fds in got] == [2, 0, 1]
        assert [os.pread(fd, 10, 0) for fd in got[0] + got[2]] == [b"0", b"1", b"2"]
        for fd in (*files, *got[0], *got[2]):
            os.close(fd)
        sender.channel.close()
        receiver.channel.close()

    run(make_loop, main)


@pytest.mark.parametrize("make_loop", LOOPS)
def test_the_end_of_the_other_process_is_noticed_once(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """EOF calls on_closed; what is sent afterwards goes nowhere and does not fail."""

    async def main() -> None:
        ours, theirs = pair()
        end = End(ours, messages.decode_up)
        theirs.close()
        await asyncio.wait_for(end.closed.wait(), 10)
        end.channel.send(Applied(1))
        end.channel.close()

    run(make_loop, main)


@pytest.mark.parametrize("make_loop", LOOPS)
def test_a_slow_receiver_is_not_waited_for(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Sending never blocks; the backlog says how much the other side has not taken."""

    async def main() -> None:
        ours, theirs = pair()
        end = End(ours, messages.decode_up)
        for _ in range(50):
            end.channel.send(LogLines(True, bytes(100_000), 1))
        assert end.channel.backlog() > 1_000_000
        receiver = End(theirs, messages.decode_up)
        await receiver.until(50)
        await end.channel.flushed()
        assert end.channel.backlog() == 0
        end.channel.close()
        receiver.channel.close()

    run(make_loop, main)


@pytest.mark.parametrize("make_loop", LOOPS)
def test_what_a_process_sent_before_its_end_is_not_lost(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The supervisor takes a dead worker's last counters and lines out of the socket before it closes it."""

    async def main() -> None:
        ours, theirs = pair()
        end = End(ours, messages.decode_up)
        theirs.setblocking(False)
        frames = b""
        for number in range(40):
            payload = messages.encode(LogLines(True, bytes(20_000), number))
            frames += len(payload).to_bytes(4, "little") + bytes(4) + payload
        sent = theirs.send(frames)
        assert sent > 256 * 1024
        theirs.close()
        end.channel.read_rest()  # without a turn of the loop
        assert len(end.heard) >= sent // 20_100
        assert end.closed.is_set()

    run(make_loop, main)
