"""Clients and backends of never_down.py, in processes of their own: they know what became of every request, of every
message and of every block of a stream.

Kinds of clients:
    kept     HTTP, keeps its connection as long as it may; GET and POST in turn
    fresh    HTTP, a connection for each request
    slow     HTTP, kept, asks for answers that take SLOW seconds: there is always one under way
    tls      as kept, over TLS; reconnects after each 10 requests
    ws       a WebSocket; sends a message and waits for it to come back
    tcp      a TCP stream; sends a block of 16 KiB, and checks every byte that comes back

Outcomes:
    ok         a complete and right answer below 500 (the message or block came back)
    error      an answer of 500 or more
    refused    no connection
    unsent     the connection was closed, without Connection: close before, while nothing was under way
    goodbye    a WebSocket was closed with 1001
    lost       it was sent, and no complete answer came

``never_down_clients.py backend``: prints its HTTP and its TCP port. HTTP answers, and takes WebSockets; TCP sends
everything back. ``never_down_clients.py load JSON`` is the clients; they answer each line on standard input with what
happened since the last, and end with the input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

BODY = b"x" * 512
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 512\r\n\r\n" + BODY
SENT = b"y" * 2000
GET = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
GET_SLOW = b"GET /slow HTTP/1.1\r\nHost: bench\r\n\r\n"
GET_ONCE = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n" % len(SENT) + SENT
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
WORD = 16
BLOCK = 16 * 1024
SLOW = 0.5
#: A complete answer to a request takes no longer than this, seconds.
PATIENCE = 15.0
#: How many clients of each kind a process has.
CLIENTS = {"kept": 6, "fresh": 6, "slow": 3, "tls": 3, "ws": 3, "tcp": 3}
#: And which address.
NEEDS = {"kept": "http", "fresh": "http", "slow": "http", "tls": "tls", "ws": "http", "tcp": "tcp"}


class Failed(Exception):
    """What became of a request that did not go well: its first argument is the outcome."""


@dataclass
class Clients:
    """All clients of this process. ``addresses``: of http, and of tcp and tls where there are such listeners; ``rate``:
    requests, messages and blocks a second, of all together."""

    addresses: dict[str, tuple[str, int]]
    rate: float
    ok: Counter[str] = field(default_factory=Counter)
    worst: dict[str, float] = field(default_factory=dict)
    failures: list[tuple[str, str, int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._kinds = {kind: count for kind, count in CLIENTS.items() if NEEDS[kind] in self.addresses}
        self._pause = sum(n for kind, n in self._kinds.items() if kind != "slow") / self.rate

    def look(self) -> dict[str, Any]:
        """What happened since the last look."""
        found = {"ok": dict(self.ok), "worst": self.worst, "failures": self.failures}
        self.ok, self.worst, self.failures = Counter(), {}, []
        return found

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for kind, count in self._kinds.items():
                for number in range(count):
                    group.create_task(self._client(kind, number / count))

    async def _client(self, kind: str, phase: float) -> None:
        work = getattr(self, f"_{kind}")
        await asyncio.sleep(self._pause * phase)
        while True:
            one = Connection(self, kind)
            try:
                async with asyncio.timeout(None) as one.limit:
                    await work(one)
            except (Failed, OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                outcome = str(error.args[0]) if isinstance(error, Failed) else "lost"
                self.failures.append((kind, outcome, one.port, f"{one.state}: {error!r}"))
                await asyncio.sleep(self._pause)
            finally:
                one.close()

    async def _kept(self, one: Connection) -> None:
        await one.open(self.addresses["http"])
        while await one.request(GET) and await one.request(POST):
            pass

    async def _fresh(self, one: Connection) -> None:
        await one.open(self.addresses["http"])
        await one.request(GET_ONCE)

    async def _slow(self, one: Connection) -> None:
        await one.open(self.addresses["http"])
        while await one.request(GET_SLOW, SLOW):
            pass

    async def _tls(self, one: Connection) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # certificates are what is exchanged under way
        await one.open(self.addresses["tls"], context)
        for _ in range(9):
            if not await one.request(GET):
                return
        await one.request(GET_ONCE)

    async def _ws(self, one: Connection) -> None:
        await one.open(self.addresses["http"])
        await one.send(HANDSHAKE)
        if not (await one.head()).startswith(b"HTTP/1.1 101 "):
            raise Failed("error", "no 101")
        number = 0
        while True:
            # A binary message of 16 bytes, masked with zeros; back comes the same without a mask.
            number += 1
            word = b"%016d" % number
            await one.send(b"\x82\x90\0\0\0\0" + word)
            back = await one.reader.readexactly(4)
            if back == b"\x88\x02\x03\xe9":
                raise Failed("goodbye")
            if back + await one.reader.readexactly(WORD - 2) != b"\x82\x10" + word:
                raise Failed("lost", "another message came back")
            await one.went_well()

    async def _tcp(self, one: Connection) -> None:
        await one.open(self.addresses["tcp"])
        number = 0
        while True:
            number += 1
            block = b"%016d" % number * (BLOCK // WORD)
            await one.send(block)
            if await one.reader.readexactly(BLOCK) != block:
                raise Failed("lost", "other bytes came back")
            await one.went_well()

    def done(self, kind: str, took: float) -> float:
        """One went well; → how long to wait until the next."""
        self.ok[kind] += 1
        self.worst[kind] = max(self.worst.get(kind, 0.0), took)
        return 0.0 if kind == "slow" else max(0.0, self._pause - took)


class Connection:
    """One connection of a client; ``port`` is its own."""

    def __init__(self, clients: Clients, kind: str) -> None:
        self.reader: asyncio.StreamReader
        self.limit: asyncio.Timeout
        self.port = 0
        self.state = "connecting"
        self._clients = clients
        self._kind = kind
        self._writer: asyncio.StreamWriter | None = None
        self._begun = time.monotonic()

    async def open(self, address: tuple[str, int], context: ssl.SSLContext | None = None) -> None:
        """Connect."""
        self._patiently()
        try:
            self.reader, self._writer = await asyncio.open_connection(*address, ssl=context)
        except OSError as error:
            raise Failed("refused", str(error)) from None
        self.port = self._writer.get_extra_info("sockname")[1]
        self.state = "fresh"

    def _patiently(self) -> None:
        self.limit.reschedule(asyncio.get_running_loop().time() + PATIENCE)

    async def send(self, data: bytes) -> None:
        """The next request: its time runs from here, of the first one from before the connection was there."""
        assert self._writer is not None
        if self.state != "fresh":
            self._begun = time.monotonic()
        self._patiently()
        if self.reader.at_eof():
            raise Failed("unsent")
        self.state = "asked"
        self._writer.write(data)
        await self._writer.drain()

    async def head(self) -> bytes:
        """A head of an answer, in lower case but for its first line."""
        line, _, rest = (await self.reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
        return line + b"\r\n" + rest.lower()

    async def request(self, request: bytes, excused: float = 0.0) -> bool:
        """One request, and the pause after it; → whether the connection may take another. ``excused``: of its time."""
        await self.send(request)
        head = await self.head()
        self.state = "reading the body"
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        body = await self.reader.readexactly(length)
        if head.split(b" ")[1] >= b"500":
            raise Failed("error", head.split(b"\r\n")[0].decode())
        if body != BODY:
            raise Failed("lost", f"another answer came: {head + body!r}")
        await self.went_well(excused)
        return b"connection: close" not in head

    async def went_well(self, excused: float = 0.0) -> None:
        """The answer is here."""
        self.state = "idle"
        await asyncio.sleep(self._clients.done(self._kind, time.monotonic() - self._begun - excused))

    def close(self) -> None:
        """End it."""
        if self._writer is not None:
            self._writer.close()


async def _load(settings: dict[str, Any]) -> None:
    clients = Clients({name: (host, port) for name, (host, port) in settings["addresses"].items()}, settings["rate"])
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    running = asyncio.create_task(clients.run())
    while await commands.readline():
        if running.done():
            running.result()  # a mistake of ours ends the measurement with its traceback
        print(json.dumps(clients.look()), flush=True)
    running.cancel()
    await asyncio.wait((running,))


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
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0))
            if head.startswith(b"GET /slow "):
                await asyncio.sleep(SLOW)
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
    asyncio.run(_backend() if sys.argv[1] == "backend" else _load(json.loads(sys.argv[2])))
