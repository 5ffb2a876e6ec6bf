"""A healthy request among thousands of idle clients and half heads. ``python bench/idle_clients.py``.

Clients come from addresses all over 127.0.0.0/8. Prints a markdown table; ends with 1 when a 99th percentile is above
50 ms (SECURITY.md F14, T18).
"""

from __future__ import annotations

import selectors
import socket
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from parts import accepts, free_port, gogate, markdown, pss_kib, raise_descriptor_limit, running, wait_until

ANY = "127.0.0.1:0"
REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
CLIENTS = 9000
REQUESTS = 3000
LIMIT_MS = 50.0


def crowd(address: tuple[str, int], count: int, message: bytes) -> list[socket.socket]:
    """Connections that have sent this and, if it is a whole request, have been answered."""
    connections = []
    for number in range(count):
        sock = socket.create_connection(address, timeout=20, source_address=(f"127.{1 + number % 90}.0.1", 0))
        sock.sendall(message)
        connections.append(sock)
    if message.endswith(b"\r\n\r\n"):
        with selectors.DefaultSelector() as selector:
            for sock in connections:
                selector.register(sock, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select(20):
                    sock = key.fileobj  # type: ignore[assignment]  # sockets were registered
                    sock.recv(65536)
                    selector.unregister(sock)
    return connections


def latencies(address: tuple[str, int]) -> list[float]:
    """Milliseconds of each of REQUESTS requests, a tenth of them on a connection of their own."""
    times = []
    sock: socket.socket | None = None
    for number in range(REQUESTS):
        start = time.perf_counter()
        if sock is None:
            sock = socket.create_connection(address, timeout=20)
        sock.sendall(REQUEST)
        if not sock.recv(65536).startswith(b"HTTP/1.1 200 "):
            raise SystemExit("a healthy request was not answered well")
        times.append((time.perf_counter() - start) * 1000)
        if number % 10 == 9:
            sock.close()
            sock = None
    return sorted(times)


def main() -> int:
    """Measure and print; → exit code."""
    raise_descriptor_limit()
    port = free_port()
    server = [sys.executable, str(Path(__file__).with_name("http_server.py")), str(port)]
    config: dict[str, Any] = {
        "server": {
            "workers": 2, "httpListenAddr": ANY, "admin": {"listenAddr": ANY}, "health": {"enabled": False},
            "backends": [f"127.0.0.1:{port}"], "timeouts": {"requestHeader": "60s"},  # half heads stay
        }
    }
    rows = []
    worst = 0.0
    with running(server):
        wait_until(lambda: accepts(port), "the backend")
        for what, count, message in (
            ("nobody else", 0, b""), ("idle after an answer", CLIENTS, REQUEST), ("half a head", CLIENTS, REQUEST[:20]),
        ):
            with gogate(config) as gateway:
                address = gateway.address("http:default")
                latencies(address)
                before = pss_kib(gateway.process.pid)
                connections = crowd(address, count, message)
                grown = pss_kib(gateway.process.pid) - before
                times = latencies(address)
                for sock in connections:
                    sock.close()
            p99 = times[int(len(times) * 0.99)]
            worst = max(worst, p99)
            figures = (statistics.median(times), p99, times[-1], grown / count if count else 0.0)
            rows.append([f"{what}, {count} clients", *(f"{figure:.2f}" for figure in figures)])
    print(markdown(["among", "median ms", "p99 ms", "worst ms", "KiB per client"], rows))
    return 1 if worst > LIMIT_MS else 0


if __name__ == "__main__":
    sys.exit(main())
