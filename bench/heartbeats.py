"""Heartbeats, each on a connection of its own: ``python bench/heartbeats.py``.

1 000 registered instances; first at a calm pace, then at 5 000 a second (open loop: who is late is not waited for),
then as many as go. gogate has one core; run this on another. Prints a markdown table of heartbeats per second,
latency and CPU (where the clients' is near 100 %, latencies are theirs); ends with 1 when one was not answered with
204, or when 5 000 a second could not be served (SECURITY.md F16).
"""

from __future__ import annotations

import asyncio
import http.client
import json
import sys
import time
from typing import Any

import uvloop
from parts import cpu_ns, free_port, gogate, markdown, raise_descriptor_limit

ANY = "127.0.0.1:0"
INSTANCES = 1000
SECONDS = 4.0
CALM, STORM = 500, 5000
#: Of the asked rate, what must come about.
SHARE = 0.95
ROOM = 200


class Beat(asyncio.Protocol):
    """One heartbeat on one connection."""

    def __init__(self, load: Load, due: float, request: bytes) -> None:
        self.load = load
        self.due = due
        self.request = request
        self.answer = b""

    def connection_made(self, transport: Any) -> None:
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.answer += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.done(self)


class Load:
    """Heartbeats to one gateway. ``rate`` a second, 0: as many as ROOM connections at a time allow."""

    def __init__(self, address: tuple[str, int], rate: int) -> None:
        self.address = address
        self.rate = rate
        self.times: list[float] = []
        self.wrong = 0
        self.running = 0
        self.requests = [
            f"PUT /v1/services/i{number}/heartbeat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
            for number in range(INSTANCES)]
        self.idle = asyncio.Event()

    def done(self, beat: Beat) -> None:
        """One connection is over."""
        self.running -= 1
        self.times.append((time.perf_counter() - beat.due) * 1000)
        self.wrong += not beat.answer.startswith(b"HTTP/1.1 204 ")
        self.idle.set()

    async def run(self) -> tuple[float, list[float], int]:
        """→ heartbeats per second, sorted latencies (ms, from the moment each was due), wrong answers."""
        loop = asyncio.get_running_loop()
        begun = time.perf_counter()
        tasks: set[asyncio.Task[Any]] = set()
        number = 0
        while (now := time.perf_counter()) - begun < SECONDS:
            due = begun + number / self.rate if self.rate else now
            if due > now or (not self.rate and self.running >= ROOM):
                self.idle.clear()
                try:
                    async with asyncio.timeout(min(0.001, due - now) if due > now else 1.0):
                        await self.idle.wait()
                except TimeoutError:
                    pass
                continue
            request = self.requests[number % INSTANCES]
            number += 1
            self.running += 1

            def make(due: float = due, request: bytes = request) -> Beat:
                return Beat(self, due, request)

            task = loop.create_task(self._connect(make))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            if number % 16 == 0:
                await asyncio.sleep(0)
        while self.running:
            self.idle.clear()
            await self.idle.wait()
        took = time.perf_counter() - begun
        return len(self.times) / took, sorted(self.times), self.wrong

    async def _connect(self, make: Any) -> None:
        try:
            await asyncio.get_running_loop().create_connection(make, *self.address)
        except OSError:
            self.running -= 1
            self.wrong += 1
            self.idle.set()


def main() -> int:
    """Measure and print; → exit code."""
    raise_descriptor_limit()
    address = ("127.0.0.1", free_port())
    config = {"server": {"workers": 1, "httpListenAddr": ANY, "admin": {"listenAddr": f"127.0.0.1:{address[1]}"},
                         "health": {"enabled": False}}}
    rows = []
    good = True
    with gogate(config, 0) as gateway:
        admin = http.client.HTTPConnection(*address)
        for number in range(INSTANCES):
            body = {"id": f"i{number}", "name": f"s{number % 10}", "ttl": 300,
                    "address": f"10.0.{number // 250}.{1 + number % 250}:80"}
            admin.request("POST", "/v1/services", json.dumps(body), {"Content-Type": "application/json"})
            answer = admin.getresponse()
            answer.read()
            assert answer.status == 201, answer.status
        admin.close()
        for name, rate in (("calm", CALM), ("storm", STORM), ("as many as go", 0)):
            before, ours = cpu_ns(gateway.process.pid), time.process_time()
            begun = time.perf_counter()
            rate_got, times, wrong = uvloop.run(Load(address, rate).run())
            took = time.perf_counter() - begun
            busy = (cpu_ns(gateway.process.pid) - before) / 1e9 / took, (time.process_time() - ours) / took
            good = good and not wrong and rate_got >= rate * SHARE
            percentiles = [f"{times[int(len(times) * share)]:.2f}" for share in (0.5, 0.99)]
            shares = [f"{share:.0%}" for share in busy]
            rows.append([name, str(rate or "-"), f"{rate_got:.0f}", *percentiles, *shares, str(wrong)])
    head = ["load", "asked / s", "answered / s", "p50 ms", "p99 ms", "gogate's CPU", "clients' CPU", "wrong"]
    print(markdown(head, rows))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
