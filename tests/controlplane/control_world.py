"""What the control plane's tests share: waiting for a condition, a name server, workers that record, real backends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gogate_py.messages import Configure, Down, States
from gogate_py.snapshot import Backend, BackendState, Snapshot


async def until(condition: Callable[[], object], limit: float = 5.0) -> None:
    """Let the loop run until a condition is true; fails after ``limit`` seconds."""
    async with asyncio.timeout(limit):
        while not condition():  # noqa: ASYNC110  any condition, not one event
            await asyncio.sleep(0.001)


async def turns(count: int = 20) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


class NameServer:
    """Answers from a table: a name that is not there does not exist, one in ``silent`` has to wait."""

    def __init__(self, **names: list[str]) -> None:
        self.names = names
        self.silent: set[str] = set()
        self.asked: list[str] = []

    async def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        await until(lambda: host not in self.silent, 3600.0)
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return list(self.names[host])


class Link:
    """A worker as the publisher sees it. Keeps what it was sent, and applies it as a worker would."""

    def __init__(self, slot: int = 0) -> None:
        self.slot = slot
        self.sent: list[Down] = []
        self.backends: dict[tuple[str, str], Backend] = {}
        self.states: dict[int, BackendState] = {}
        self.generation = 0

    def send(self, message: Down) -> None:
        self.sent.append(message)
        if isinstance(message, Configure):
            self.generation = message.snapshot.generation
            self.backends = {(p.name, b.address): b for p in message.snapshot.pools for b in p.backends}
            self.states = {b.row: b.state for b in self.backends.values()}
        elif isinstance(message, States):
            self.generation = message.generation
            self.states.update({state.row: state for state in message.changes})

    def state(self, address: str, pool: str = "default") -> BackendState:
        return self.states[self.backends[pool, address].row]

    @property
    def snapshots(self) -> list[Snapshot]:
        return [message.snapshot for message in self.sent if isinstance(message, Configure)]


class Backends:
    """One real TCP server whose answers and existence can be switched while it is probed."""

    def __init__(self) -> None:
        self.answer: bytes = b""
        self.silent = False
        self.requests: list[bytes] = []
        self.accepted = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._handlers: set[asyncio.Task[None] | None] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def end(self) -> None:
        """Close, and wait for every connection to be over."""
        await self.close()
        await until(lambda: not self._handlers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._handlers.add(asyncio.current_task())
        try:
            if self.silent:
                await reader.read()
            elif self.answer:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(self.answer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            try:
                await writer.wait_closed()
            except ConnectionError:
                pass
            self._handlers.discard(asyncio.current_task())


@asynccontextmanager
async def backend(answer: bytes = b"") -> AsyncIterator[Backends]:
    """A real server on a free port of 127.0.0.1; without an answer it closes every connection at once."""
    server = Backends()
    server.answer = answer
    await server.open()
    try:
        yield server
    finally:
        await turns()  # a connection that was accepted just now has its handler
        await server.end()
