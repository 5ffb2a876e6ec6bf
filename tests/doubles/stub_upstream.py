"""StubUpstream: a backend that plays a script over a raw socket and keeps every byte it received.

A script is a coroutine over a Talk, one call a connection; ``answering(...)`` makes the usual one. Runs in the test's
own loop.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType

from gogate_py.wire.chunked import ChunkedDecoder


class Talk:
    """One connection, seen from the side of a test. ``received`` is every byte that was read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.received = b""

    async def head(self) -> bytes:
        """Read one head, its empty line included; b"" when the peer closed before its first byte."""
        try:
            data = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            self.received += error.partial
            return error.partial
        self.received += data
        return data

    async def exactly(self, size: int) -> bytes:
        """Read so many bytes."""
        data = await self.reader.readexactly(size)
        self.received += data
        return data

    async def some(self) -> bytes:
        """Read what there is; b"" at EOF."""
        data = await self.reader.read(65536)
        self.received += data
        return data

    async def until_eof(self) -> bytes:
        """Read everything up to EOF."""
        data = await self.reader.read(-1)
        self.received += data
        return data

    async def ends(self) -> str:
        """How the peer ends the connection, whatever it still says: "eof" or "reset"."""
        try:
            while await self.some():
                pass
        except ConnectionError:
            return "reset"
        return "eof"

    async def chunked_body(self) -> bytes:
        """Read one chunked body and decode it."""
        decoder = ChunkedDecoder()
        body = []
        while not decoder.done:
            line = await self.reader.readuntil(b"\r\n")
            self.received += line
            body.append(decoder.feed(line))
            size = line.partition(b";")[0].strip()
            rest = int(size, 16) if re.fullmatch(rb"[0-9A-Fa-f]+", size) else 0
            data = await self.reader.readexactly(rest + 2)
            self.received += data
            body.append(decoder.feed(data))
        return b"".join(body)

    async def request(self) -> tuple[bytes, bytes]:
        """Read one request → (head, body); (b"", b"") at EOF."""
        head = await self.head()
        length = re.search(rb"\r\ncontent-length: *(\d+)\r\n", head, re.IGNORECASE)
        if length:
            return head, await self.exactly(int(length[1]))
        if re.search(rb"\r\ntransfer-encoding: *chunked\r\n", head, re.IGNORECASE):
            return head, await self.chunked_body()
        return head, b""

    async def send(self, data: bytes) -> None:
        """Send, and wait until the buffer is low again."""
        self.writer.write(data)
        await self.writer.drain()

    async def send_pieces(self, pieces: Iterable[bytes]) -> None:
        """Send each piece on its own, giving the other side a turn of the loop for each."""
        for piece in pieces:
            self.writer.write(piece)
            for _ in range(3):
                await asyncio.sleep(0)

    def eof(self) -> None:
        """Send FIN, go on reading."""
        self.writer.write_eof()

    def close(self) -> None:
        """Close after what was sent."""
        self.writer.close()

    def reset(self) -> None:
        """Close with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Talk], Awaitable[None]]


def answer(body: bytes = b"ok", status: str = "200 OK", fields: bytes = b"") -> bytes:
    """An ordinary answer with Content-Length."""
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status.encode(), fields, len(body), body)


def answering(*answers: bytes) -> Script:
    """A script that reads requests and gives these answers in turn, the last one for ever."""

    async def play(talk: Talk) -> None:
        turn = 0
        while (await talk.request())[0]:
            await talk.send(answers[min(turn, len(answers) - 1)])
            turn += 1

    return play


class StubUpstream:
    """The server. ``talks`` are its connections so far; each is played by the next script, the last one for ever.
    ``tls``: what it speaks TLS with."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.scripts = list(scripts) or [answering(answer())]
        self.talks: list[Talk] = []
        self.port = 0
        self.closed = 0
        self.errors: list[BaseException] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    @property
    def received(self) -> bytes:
        """Everything received, over all connections."""
        return b"".join(talk.received for talk in self.talks)

    @property
    def requests(self) -> int:
        """Requests received (their request lines)."""
        return len(re.findall(rb"[A-Z]+ \S+ HTTP/1\.1\r\n", self.received))

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Stop listening: connects are refused from now on. Open connections stay."""
        assert self._server is not None
        self._server.close()
        await asyncio.sleep(0)  # uvloop closes the socket in the next turn

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        talk = Talk(reader, writer)
        script = self.scripts[min(len(self.talks), len(self.scripts) - 1)]
        self.talks.append(talk)
        try:
            await script(talk)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the gateway went away: what the test is about, or its end
        except BaseException as error:  # shown by the bed: an exception in a script is a broken test
            self.errors.append(error)
        finally:
            self.closed += 1
            if not writer.transport.is_closing():
                writer.close()
            self._tasks.discard(task)

    async def stop(self) -> None:
        """Close everything."""
        assert self._server is not None
        self._server.close()
        for talk in self.talks:
            talk.writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        assert not self.errors, self.errors

    async def __aenter__(self) -> StubUpstream:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
