"""Clients and backends of reload_under_load.py: they know what became of every request and of every word of a stream.

Kinds of clients:
    kept     HTTP, keeps its connection as long as it may
    fresh    HTTP, a connection for each request
    ws       a WebSocket; sends a message and waits for it to come back
    tcp      a TCP stream; likewise

Outcomes of a request (a word):
    ok         a complete answer below 500 (the word came back)
    error      an answer of 500 or more
    refused    no connection
    unsent     the connection was closed, without Connection: close before, while nothing was under way
    lost       it was sent, and no complete answer came

``python reload_clients.py`` is the backend: prints its HTTP and its TCP port. HTTP answers small answers and takes
WebSockets; TCP sends everything back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

BODY = b"x" * 512
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 512\r\n\r\n" + BODY
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
WORD = 16
#: A complete answer to a request takes no longer than this, seconds.
PATIENCE = 15.0


class Failed(Exception):
    """What became of a request that did not go well: its first argument is the outcome."""


@dataclass
class Failure:
    """One request, or word, that did not go well; ``port`` is the client's own."""

    kind: str
    outcome: str
    port: int
    detail: str


@dataclass
class Load:
    """All clients, in an event loop of their own thread. ``addresses``: of http, and of tcp where there is one."""

    http: tuple[str, int]
    tcp: tuple[str, int] | None
    each: int = 4
    pause: float = 0.01
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End after what is under way."""
        self._stopping.set()
        self._thread.join(2 * PATIENCE)

    def ok(self) -> int:
        """Requests and words that went well so far."""
        return sum(n for (_, outcome), n in self.outcomes.items() if outcome == "ok")

    async def _run(self) -> None:
        kinds = [self._kept, self._fresh, self._ws] + ([self._tcp] if self.tcp is not None else [])
        await asyncio.gather(*(self._client(kind, number) for kind in kinds for number in range(self.each)))

    async def _client(self, kind: Any, number: int) -> None:
        name = kind.__name__.lstrip("_")
        await asyncio.sleep(number * self.pause / self.each)
        while not self._stopping.is_set():
            port = [0]
            try:
                async with asyncio.timeout(None) as limit:
                    await kind(name, port, limit)
            except (Failed, OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                outcome = str(error.args[0]) if isinstance(error, Failed) else "lost"
                self.outcomes[name, outcome] += 1
                self.failures.append(Failure(name, outcome, port[0], repr(error)))
                await asyncio.sleep(self.pause)

    async def _open(self, address: tuple[str, int], port: list[int]) -> tuple[asyncio.StreamReader, Any]:
        try:
            reader, writer = await asyncio.open_connection(*address)
        except OSError as error:
            raise Failed("refused", str(error)) from None
        port[0] = writer.get_extra_info("sockname")[1]
        return reader, writer

    async def _went_well(self, name: str) -> None:
        self.outcomes[name, "ok"] += 1
        await asyncio.sleep(self.pause)

    async def _request(self, name: str, reader: asyncio.StreamReader, writer: Any, fields: bytes) -> bool:
        """One request; → whether the connection may take another."""
        if reader.at_eof():
            raise Failed("unsent")
        writer.write(b"GET / HTTP/1.1\r\nHost: bench\r\n" + fields + b"\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or b"0")
        await reader.readexactly(length)
        if head.split(b" ")[1] >= b"500":
            raise Failed("error", head.split(b"\r\n")[0].decode())
        await self._went_well(name)
        return b"connection: close" not in head

    async def _kept(self, name: str, port: list[int], limit: asyncio.Timeout) -> None:
        reader, writer = await self._open(self.http, port)
        loop = asyncio.get_running_loop()
        with contextlib.closing(writer):
            more = True
            while more and not self._stopping.is_set():
                limit.reschedule(loop.time() + PATIENCE)
                more = await self._request(name, reader, writer, b"")

    async def _fresh(self, name: str, port: list[int], limit: asyncio.Timeout) -> None:
        reader, writer = await self._open(self.http, port)
        limit.reschedule(asyncio.get_running_loop().time() + PATIENCE)
        with contextlib.closing(writer):
            await self._request(name, reader, writer, b"Connection: close\r\n")

    async def _ws(self, name: str, port: list[int], limit: asyncio.Timeout) -> None:
        reader, writer = await self._open(self.http, port)
        with contextlib.closing(writer):
            writer.write(HANDSHAKE)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 101 "):
                raise Failed("error", head.split(b"\r\n")[0].decode())
            # A binary message of 16 bytes, masked with zeros; back comes the same without a mask.
            await self._words(name, reader, writer, limit, b"\x82\x90\0\0\0\0", b"\x82\x10")

    async def _tcp(self, name: str, port: list[int], limit: asyncio.Timeout) -> None:
        assert self.tcp is not None
        reader, writer = await self._open(self.tcp, port)
        with contextlib.closing(writer):
            await self._words(name, reader, writer, limit, b"", b"")

    async def _words(
        self, name: str, reader: asyncio.StreamReader, writer: Any, limit: asyncio.Timeout, there: bytes, back: bytes
    ) -> None:
        loop = asyncio.get_running_loop()
        number = 0
        while not self._stopping.is_set():
            limit.reschedule(loop.time() + PATIENCE)
            if reader.at_eof():
                raise Failed("unsent")
            number += 1
            word = b"%016d" % number
            writer.write(there + word)
            if await reader.readexactly(len(back) + WORD) != back + word:
                raise Failed("lost", "another word came back")
            await self._went_well(name)


# --- the backend


async def _serve_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"\r\nupgrade: websocket" in head.lower():
                writer.write(SWITCH)
                while True:
                    message = await reader.readexactly(6 + WORD)
                    writer.write(b"\x82\x10" + message[6:])
            writer.write(ANSWER)
            await writer.drain()
    writer.close()


async def _serve_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _backend() -> None:
    servers = [await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024) for serve in (_serve_http, _serve_tcp)]
    print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(_backend())
