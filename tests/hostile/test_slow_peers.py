"""Clients that are slow, silent, or very many: each is ended by a limit, costs little, and nobody else notices.

Short limits where a default is long, so that the tests are; the mechanism is the same. How fast a healthy request is
among thousands of idle clients is measured in bench/, not here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from conftest import need_program
from doubles.configs import http_gateway
from doubles.gateway import Gateway, wait_for
from scripted_backend import ScriptedBackend, Talk

BIG = 96 << 20
BLOCK = bytes(1 << 20)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
ESTABLISHED = 1  # of TCP_INFO
TIMEOUTS: dict[str, Any] = {"requestHeader": "1s", "idle": "1s", "bodyIdle": "2s"}


def answer(talk: Talk) -> None:
    """/big is 96 MiB, everything else is "ok"; bodies are read and thrown away."""
    while True:
        head = talk.request()
        length = re.search(rb"Content-Length: ([0-9]+)\r\n", head)
        left = int(length[1]) if length else 0
        while left:
            data = talk.read(min(left, 65536))
            if not data:
                return
            left -= len(data)
        if b"Transfer-Encoding" in head:
            talk.drain()  # no test of this file sends all of such a body
        elif head.startswith(b"GET /big"):
            talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG, *[BLOCK] * (BIG // len(BLOCK)))
        else:
            talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def memory(pids: list[int], what: str = "Rss") -> int:
    """Bytes of resident (or proportional: "Pss") memory of these processes."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as rollup:
            total += next(int(line.split()[1]) for line in rollup if line.startswith(f"{what}:")) * 1024
    return total


def no_harm(gateway: Gateway, pids: list[int]) -> None:
    """The gateway still serves, with the same workers, and nothing went wrong inside."""
    assert gateway.get("/healthy")[0] == 200
    assert gateway.pids() == pids
    assert gateway.metric("gogate_internal_errors_total") == 0


# --- one slow client after the other


class Peer:
    """A raw connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def drip(self, data: bytes, every: float, size: int = 1) -> None:
        """Send ``size`` bytes every so many seconds, until all is sent or the gateway closes."""
        for start in range(0, len(data), size):
            if self.writer.is_closing() or self.reader.at_eof():
                return
            self.writer.write(data[start : start + size])
            await asyncio.sleep(every)

    async def end(self) -> bytes:
        """Everything until the gateway ends the connection, by FIN or RST."""
        received = bytearray()
        with contextlib.suppress(ConnectionError):
            while data := await self.reader.read(65536):
                received += data
        return bytes(received)


async def silent(peer: Peer) -> bytes:
    """Says nothing at all: closed."""
    return await peer.end()


async def idle_after_answer(peer: Peer) -> bytes:
    """Says nothing more after an answer: closed."""
    peer.writer.write(GET)
    return (await peer.end()).partition(b"ok")[2]


async def dripped_head(peer: Peer) -> bytes:
    """A head that comes byte by byte, without end: 408; the time of a head is total."""
    sending = asyncio.create_task(peer.drip(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 1000, 0.05))
    received = await peer.end()
    sending.cancel()
    return received


async def half_head(peer: Peer) -> bytes:
    """Half a head, then nothing: 408."""
    peer.writer.write(GET[:20])
    return await peer.end()


async def no_body(peer: Peer) -> bytes:
    """A head that announces a body, then nothing: 408."""
    peer.writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
    return await peer.end()


async def dripped_body(peer: Peer) -> bytes:
    """A body of 20 bytes a second: 408, by the minimum rate."""
    peer.writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
    sending = asyncio.create_task(peer.drip(bytes(100_000), 0.1, 2))
    received = await peer.end()
    sending.cancel()
    return received


async def dripped_chunks(peer: Peer) -> bytes:
    """Chunks of one byte, ten a second, with extensions to look busy: 408, because only payload counts."""
    peer.writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    sending = asyncio.create_task(peer.drip(b"1;ext=abcdefghij\r\nx\r\n" * 5000, 0.1, 21))
    received = await peer.end()
    sending.cancel()
    return received


async def _until_cut(peer: Peer, take: int) -> bytes:
    """Take so many bytes of a large answer twice a second until the gateway has ended the connection → what is wrong.

    By its state and not by reading: what waits in the kernel would hide the end from a slow reader.
    """
    sock = socket.socket(fileno=os.dup(peer.writer.get_extra_info("socket").fileno()))
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that can read
    peer.writer.write(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
    taken = 0
    with sock, contextlib.suppress(ConnectionError):
        while sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == ESTABLISHED:
            await asyncio.sleep(0.5)
            with contextlib.suppress(BlockingIOError):
                taken += len(sock.recv(take)) if take else 0
    return b"" if taken < 1 << 20 else b"it got %d bytes" % taken


async def slow_reader(peer: Peer) -> bytes:
    """Takes 100 bytes a second of a large answer: cut, without having got it."""
    return await _until_cut(peer, 50)


async def not_reading(peer: Peer) -> bytes:
    """Takes nothing of a large answer: cut."""
    return await _until_cut(peer, 0)


SLOW: dict[Callable[[Peer], Awaitable[bytes]], bytes] = {
    silent: b"", idle_after_answer: b"", not_reading: b"", slow_reader: b"",
    dripped_head: b"HTTP/1.1 408 ", half_head: b"HTTP/1.1 408 ", no_body: b"HTTP/1.1 408 ",
    dripped_body: b"HTTP/1.1 408 ", dripped_chunks: b"HTTP/1.1 408 ",
}


@pytest.mark.slow
def test_each_slow_client_ends_at_a_limit() -> None:
    """Silence, drips and slow reading end with 408 or a cut; a slow client above the minimum rate is served."""

    async def everybody(gateway: Gateway) -> list[Any]:
        host, port = gateway.address("http:default")

        async def one(client: Callable[[Peer], Awaitable[bytes]]) -> bytes:
            async with asyncio.timeout(25):
                # A small window, so that the kernels do not read a whole answer for a slow client.
                reader, writer = await asyncio.open_connection(host, port, limit=4096)
                try:
                    return await client(Peer(reader, writer))
                finally:
                    writer.transport.abort()

        async def good(peer: Peer) -> bytes:
            """500 bytes a second for 7 s: slow, but within the limits."""
            peer.writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3500\r\n\r\n")
            await peer.drip(bytes(3500), 0.1, 50)
            return await peer.end()

        return await asyncio.gather(one(good), *map(one, SLOW), return_exceptions=True)

    with ScriptedBackend(answer, send_buffer=65536) as backend, Gateway(
        http_gateway(backend.address, timeouts=TIMEOUTS)
    ) as gateway:
        pids = gateway.pids()
        served, *results = asyncio.run(everybody(gateway))
        assert served.endswith(b"ok")
        wrong = {
            client.__name__: received
            for (client, start), received in zip(SLOW.items(), results, strict=True)
            if not isinstance(received, bytes) or not received.startswith(start) or bool(received) is not bool(start)
        }
        assert not wrong
        wait_for(lambda: gateway.metric("gogate_http_requests_in_flight") == 0, what="the end of every exchange")
        no_harm(gateway, pids)
        reasons = {line.get("reason", "") for line in gateway.access}
        assert {"request_timeout", "slow_client"} <= reasons


# --- the known tool


@pytest.fixture(scope="module")
def target() -> Iterator[Gateway]:
    """A gateway with short limits in front of a backend with a large answer."""
    with ScriptedBackend(answer, send_buffer=65536) as backend, Gateway(
        http_gateway(backend.address, timeouts={**TIMEOUTS, "bodyIdle": "1s"})
    ) as gateway:
        yield gateway


@pytest.mark.slow
@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(("-H", "-t", "GET", "-x", "24"), id="slow-headers"),
        pytest.param(("-B", "-t", "POST", "-s", "8192", "-x", "10"), id="slow-body"),
        pytest.param(("-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "1"), id="slow-read"),
    ],
)
def test_slowhttptest(target: Gateway, attack: tuple[str, ...]) -> None:
    """200 connections of slowhttptest: the gateway stays available to its probe, and every one of them is ended."""
    program = need_program("slowhttptest")
    pids = target.pids()
    path = "/big" if attack[0] == "-X" else "/"
    url = f"http://{target.http}{path}"
    command = [program, *attack, "-c", "200", "-r", "200", "-i", "10", "-l", "5", "-p", "2", "-u", url]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    output = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout + result.stderr)
    states = re.findall(r"service available:\s+(\w+)", output)
    assert states, output[-2000:]
    assert set(states) == {"YES"}, output[-2000:]
    # Either all were closed by us before its time was up, or those that are left end soon after.
    wait_for(lambda: target.metric("gogate_connections_active") == 0, 20.0, "the end of every connection")
    no_harm(target, pids)


# --- memory


@pytest.mark.slow
def test_clients_that_do_not_read_cost_no_more_than_the_water_marks() -> None:
    """100 clients that take nothing of a 96 MiB answer: the workers grow by at most 64 MiB (T17)."""

    async def stall(gateway: Gateway, pids: list[int]) -> int:
        host, port = gateway.address("http:default")
        loop = asyncio.get_running_loop()
        clients = []
        try:
            for _ in range(100):
                reader, writer = await asyncio.open_connection(host, port, limit=1024)
                writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that can read
                writer.write(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
                clients.append((reader, writer))
            most, settled = 0, loop.time() + 2.0
            while loop.time() < settled:  # until nothing more comes for two seconds
                now = memory(pids)
                if now > most + (1 << 20):
                    most, settled = now, loop.time() + 2.0
                await asyncio.sleep(0.1)
            assert gateway.metric("gogate_http_requests_in_flight") == 100
            return most
        finally:
            for _, writer in clients:
                writer.transport.abort()

    with ScriptedBackend(answer) as backend, Gateway(http_gateway(backend.address)) as gateway:
        pids = gateway.pids()
        assert gateway.get("/")[0] == 200
        before = memory(pids)
        grown = asyncio.run(stall(gateway, pids)) - before
        assert grown <= 64 << 20, f"{grown / 2**20:.1f} MiB"
        wait_for(lambda: gateway.metric("gogate_http_requests_in_flight") == 0, what="the end of every exchange")
        no_harm(gateway, pids)


@pytest.mark.slow
def test_thousands_of_idle_clients_are_cheap() -> None:
    """9 000 kept-alive clients of 90 addresses cost at most 8 KiB each, and a request among them is answered (F14)."""
    clients = 9000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < clients + 1000:
        pytest.skip(f"needs {clients + 1000} descriptors, the limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, clients + 1000), hard))

    async def hold(gateway: Gateway, pids: list[int]) -> tuple[int, int]:
        host, port = gateway.address("http:default")
        transports: list[asyncio.Transport] = []
        answered = asyncio.Event()
        waiting = clients

        class Client(asyncio.Protocol):
            """Sends one request, then nothing."""

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                assert isinstance(transport, asyncio.Transport)
                transports.append(transport)
                transport.write(GET)

            def data_received(self, data: bytes) -> None:
                nonlocal waiting
                assert data.startswith(b"HTTP/1.1 200 ")
                waiting -= 1
                if not waiting:
                    answered.set()

        loop = asyncio.get_running_loop()
        slots = asyncio.Semaphore(200)

        async def connect(number: int) -> None:
            async with slots:
                source = (f"127.{1 + number % 90}.0.1", 0)
                await loop.create_connection(Client, host, port, local_addr=source)

        try:
            before = memory(pids, "Pss")
            await asyncio.gather(*map(connect, range(clients)))
            async with asyncio.timeout(30):
                await answered.wait()
            grown = memory(pids, "Pss") - before
            active = await asyncio.to_thread(
                wait_for, lambda: gateway.metric("gogate_connections_active") == clients, 10.0, "all to be counted"
            )
            assert active
            status, _, body = await asyncio.to_thread(gateway.get, "/among-them")
            assert (status, body) == (200, b"ok")
            return grown, len(transports)
        finally:
            for transport in transports:
                transport.abort()

    with ScriptedBackend(answer) as backend, Gateway(http_gateway(backend.address)) as gateway:
        pids = gateway.pids()
        for _ in range(50):
            assert gateway.get("/")[0] == 200
        grown, opened = asyncio.run(hold(gateway, pids))
        assert opened == clients
        assert grown / clients <= 8192, f"{grown / clients:.0f} bytes each"
        wait_for(lambda: gateway.metric("gogate_connections_active") == 0, 20.0, "the end of every connection")
        no_harm(gateway, pids)
        assert os.path.exists(f"/proc/{pids[0]}")
