"""Load for tests: HTTP clients that know exactly what became of every request, and samples of a process's memory.

Outcomes of a request:
    ok         a complete answer below 500
    error      a complete answer of 500 or more
    refused    the connection was not accepted: nobody promised anything
    unsent     a kept connection was closed by the other side before the request was written
    lost       the request was written and no complete answer came: what must not happen
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import psutil
from doubles.gateway import wait_for


class LostRequest(Exception):
    """A request without a complete answer."""


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """One answer with Content-Length → (status, lower-case headers, body). Raises LostRequest when it is cut."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines if line)
        body = await reader.readexactly(int(fields.get("content-length", "0")))
    except (asyncio.IncompleteReadError, OSError) as error:
        raise LostRequest(repr(error)) from None
    return int(first.split(" ")[1]), fields, body


class Load:
    """Clients against one address, in a thread: ``kept`` keep their connection, ``fresh`` make one for each request.

    ``outcomes`` counts them all; ``pause`` is the time between two requests of one client; ``tls``: what they speak it
    with, to a server named localhost.
    """

    def __init__(
        self, address: tuple[str, int], *, kept: int, fresh: int, pause: float = 0.02, tls: ssl.SSLContext | None = None
    ) -> None:
        self.outcomes: Counter[str] = Counter()
        self.lost: list[str] = []
        #: the client's own port of each lost or unsent request
        self.lost_ports: list[int] = []
        self._address = address
        self._kept = kept
        self._fresh = fresh
        self._pause = pause
        self._tls = tls
        host = "localhost" if tls is not None else address[0]
        self._request = f"GET / HTTP/1.1\r\nHost: {host}:{address[1]}\r\n".encode()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End after the requests that are running."""
        self._stopping.set()
        self._thread.join(30.0)
        assert not self._thread.is_alive(), "a client got neither an answer nor an end"

    def wait_ok(self, more: int, timeout: float = 10.0) -> None:
        """Wait until this many further requests went well."""
        goal = self.outcomes["ok"] + more
        wait_for(lambda: self.outcomes["ok"] >= goal, timeout, f"{more} more good answers ({dict(self.outcomes)})")

    async def _run(self) -> None:
        clients = [self._keep(n) for n in range(self._kept)]
        clients += [self._one_shot(n) for n in range(self._kept, self._kept + self._fresh)]
        await asyncio.gather(*clients)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        try:
            name = "localhost" if self._tls is not None else None
            return await asyncio.open_connection(*self._address, ssl=self._tls, server_hostname=name)
        except ssl.SSLError as error:
            # It was accepted: a handshake that fails is a request that fails.
            self.lost.append(f"handshake: {error}")
            self.outcomes["lost"] += 1
            return None
        except OSError:
            self.outcomes["refused"] += 1
            await asyncio.sleep(self._pause or 0.005)
            return None

    async def _ask(
        self, client: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, close: bool
    ) -> bool:
        """One request; → whether the connection can take another."""
        port = writer.get_extra_info("sockname")[1]
        if reader.at_eof() or writer.is_closing():
            self.lost_ports.append(port)
            self.outcomes["unsent"] += 1
            return False
        try:
            writer.write(self._request + (b"Connection: close\r\n\r\n" if close else b"\r\n"))
            status, fields, _ = await read_answer(reader)
        except LostRequest as lost:
            self.lost_ports.append(port)
            self.lost.append(f"client {client} ({'fresh' if close else 'kept'}): {lost}")
            self.outcomes["lost"] += 1
            return False
        self.outcomes["ok" if status < 500 else "error"] += 1
        return fields.get("connection") != "close"

    async def _keep(self, client: int) -> None:
        while not self._stopping.is_set():
            streams = await self._connect()
            if streams is None:
                continue
            reader, writer = streams
            # The sleep is the client's pace, not a poll.
            while not self._stopping.is_set() and await self._ask(client, reader, writer, False):  # noqa: ASYNC110
                await asyncio.sleep(self._pause)
            await _close(writer)

    async def _one_shot(self, client: int) -> None:
        while not self._stopping.is_set():
            streams = await self._connect()
            if streams is not None:
                await self._ask(client, *streams, True)
                await _close(streams[1])
                await asyncio.sleep(self._pause)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


class MemorySamples:
    """Resident memory of processes, sampled in a thread: per process its first and its largest value, bytes."""

    def __init__(self, pids: list[int]) -> None:
        self._processes = [psutil.Process(pid) for pid in pids]
        self.first = {p.pid: p.memory_info().rss for p in self._processes}
        self.most = dict(self.first)

    def take(self) -> None:
        """One sample of each process."""
        for process in self._processes:
            self.most[process.pid] = max(self.most[process.pid], process.memory_info().rss)

    def growth(self) -> int:
        """The largest growth of one process, bytes."""
        return max(self.most[pid] - self.first[pid] for pid in self.first)


@contextlib.contextmanager
def sampled_memory(pids: list[int], every: float = 0.05) -> Iterator[MemorySamples]:
    """Sample memory while the block runs."""
    samples = MemorySamples(pids)
    done = threading.Event()

    def run() -> None:
        while not done.wait(every):
            samples.take()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()
        samples.take()


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """Run ``work(0)`` … ``work(count - 1)`` at once; the first exception of any is raised."""
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
