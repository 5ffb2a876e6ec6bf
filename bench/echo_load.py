"""The benchmarks' TCP load: ``python echo_load.py PORT CONNECTIONS SECONDS`` plays ping-pong with 64-byte messages.

Prints {"messages": N, "errors": N, "seconds": S, "p99_ms": T}; a connection that ends or answers wrongly is an error.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import uvloop

MESSAGE = bytes(range(64))
#: One in so many round trips is timed: the clock must not become the load.
TIMED = 16


class Player(asyncio.Protocol):
    """One connection: a message is out, or the time is over."""

    playing = True
    messages = 0
    errors = 0
    times: list[float] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.rest = 64
        self.count = 0
        self.sent = time.perf_counter()

    def data_received(self, data: bytes) -> None:
        self.rest -= len(data)
        if self.rest > 0:
            return
        if self.rest < 0 or (len(data) == 64 and data != MESSAGE):
            Player.errors += 1
            self.transport.abort()
            return
        self.count += 1
        Player.messages += 1
        if self.count % TIMED == 0:
            Player.times.append(time.perf_counter() - self.sent)
        if Player.playing:
            self.rest = 64
            if self.count % TIMED == TIMED - 1:
                self.sent = time.perf_counter()
            self.transport.write(MESSAGE)

    def connection_lost(self, exc: Exception | None) -> None:
        if Player.playing:
            Player.errors += 1


async def main(port: int, connections: int, seconds: float) -> None:
    """Play and print."""
    loop = asyncio.get_running_loop()
    players = [await loop.create_connection(Player, "127.0.0.1", port) for _ in range(connections)]
    started = time.perf_counter()
    for transport, _ in players:
        transport.write(MESSAGE)
    await asyncio.sleep(seconds)
    Player.playing = False
    took = time.perf_counter() - started
    await asyncio.sleep(0.1)
    times = sorted(Player.times)
    p99 = times[int(len(times) * 0.99)] * 1000 if times else 0.0
    print(json.dumps({"messages": Player.messages, "errors": Player.errors, "seconds": took, "p99_ms": p99}))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
