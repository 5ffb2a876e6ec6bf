"""What watching requests costs: the Python part of a kept-alive request, with transports that do nothing, when it is
not watched, traced, timed for its access line, or sampled for a record.

    python bench/decision_cost.py

Microseconds of CPU per request, best of several rounds, and how much more that is than without.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import msgspec
import uvloop

from gogate_py.arena import Arena
from gogate_py.dataplane.deadlines import INFINITE
from gogate_py.dataplane.plane import Plane
from gogate_py.dataplane.upstream import Upstream
from gogate_py.dataplane.upstream_connections import UpstreamConnections
from gogate_py.messages import Up
from gogate_py.snapshot import (
    AccessLog,
    Backend,
    BackendState,
    Decisions,
    HttpRoute,
    HttpTransport,
    Limits,
    Listener,
    Pool,
    Snapshot,
    Timeouts,
    Tracing,
)

TIMES, ROUNDS = 10_000, 15
HEAD = (
    b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1:8081\r\nUser-Agent: python-requests/2.34\r\nAccept: */*\r\n"
    b"Accept-Encoding: gzip, deflate\r\n\r\n"
)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"

_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
SNAPSHOT = Snapshot(
    1,
    (Listener("http:default", "127.0.0.1:0"),),
    (Pool("p", "round_robin", (Backend(0, "127.0.0.1:1", (("127.0.0.1", 1),), 1, BackendState(0, True, False)),),
          HttpTransport(64, 0, 1024, 90.0, 0.0, 3.0)),),
    (HttpRoute("all", "p", "", "", "/", (), Timeouts(0, 15, 60, 60, 10, 3600, 240), True),),
    Limits(8192, 32768, 100, 0, 65536, 128, 10000, 1000, _METHODS),
    Timeouts(0, 15, 60, 60, 10, 3600, 240),
    AccessLog(True, "json", 1.0),
    "info",
    "json",
    (),
)  # fmt: skip


class _Nowhere:
    """A transport, and an outbox, that take everything and do nothing."""

    def __init__(self) -> None:
        self.written = 0

    def write(self, data: bytes) -> None:
        self.written += 1

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1234)

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        pass

    def send(self, message: Up) -> None:
        pass

    def backlog(self) -> int:
        return 0


async def measure(heads: tuple[bytes, ...], **changes: Any) -> float:
    """Microseconds of a request whose head is each of these in turn."""
    plane = Plane(asyncio.get_running_loop(), Arena.create(), 0, 1, 1, _Nowhere())
    plane.listeners.by_id = {}
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    plane.listeners.add_socket("http:default", sock.detach())
    await plane.apply(msgspec.structs.replace(SNAPSHOT, **changes))
    site = plane.http
    backend = plane.table.rows[0]
    connections = backend.http = UpstreamConnections(plane, backend, backend.transport)
    upstream = Upstream(connections)
    upstream.connection_made(_Nowhere())  # type: ignore[arg-type]
    connections.deadline = INFINITE
    connections.put(upstream)
    client = site.accept(plane.listeners.by_id["http:default"])
    transport = _Nowhere()
    client.connection_made(transport)  # type: ignore[arg-type]
    best = INFINITE
    for _ in range(ROUNDS):
        began = time.process_time()
        for number in range(TIMES):
            client.data_received(heads[number % len(heads)])
            upstream.data_received(ANSWER)
        best = min(best, time.process_time() - began)
    assert transport.written == ROUNDS * TIMES
    plane.deadlines.discard(client)
    await plane.listeners.close_all()
    return best / TIMES * 1e6


async def main() -> None:
    heads = (HEAD, HEAD.replace(b"/hello", b"/other"))
    plain = 0.0
    parent = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\n\r\n"
    with_parent = tuple(head[:-2] + parent for head in heads)
    for name, changes in (
        ("not watched (as installed)", {"decisions": Decisions(("127.0.0.0/8",), 200, 1.0)}),
        ("no records (keep: 0)", {}),
        ("a sample of 1 in 1000", {"decisions": Decisions(keep=200, slow=1.0, sample=0.001)}),
        ("traces on, none sampled", {"tracing": Tracing(0.0)}),
        ("off, with a traceparent", {}),
        ("on, its parent is not sampled", {"tracing": Tracing(0.0)}),
        ("every one traced (sample: 1)", {"tracing": Tracing(1.0)}),
        ("every one timed (access.timers)", {"access_log": AccessLog(True, "json", 1.0, True)}),
        ("every one recorded (sample: 1)", {"decisions": Decisions(keep=200, sample=1.0)}),
    ):
        cost = await measure(with_parent if "parent" in name else heads, **changes)
        plain = plain or cost
        print(f"{name:34} {cost:6.2f} µs  {cost - plain:+6.2f}")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
