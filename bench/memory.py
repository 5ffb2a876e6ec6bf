"""Memory of gogate: idle, per idle TCP connection, per idle keep-alive HTTP client. ``python bench/memory.py``.

The figure is the sum of PSS of all its processes (supervisor, zygote, two workers). The cost of a connection is the
growth from before N connections were opened and used once to when they are idle, divided by N; each row has a gogate of
its own, warmed up first. Ends with 1 when a figure is above its limit.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from parts import accepts, free_port, gogate, markdown, pss_kib, raise_descriptor_limit, running, wait_until

ANY = "127.0.0.1:0"
REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n\r\n"
#: Seconds after which what a connection needs only for a moment is given back.
SETTLE = 1.5
WARM_UP = 200


class Figure(NamedTuple):
    """One row of the report; ``limit`` and ``aim`` have the unit of the value."""

    what: str
    value: float
    unit: str
    limit: float
    aim: float


def main() -> int:
    """Measure and print; → exit code."""
    raise_descriptor_limit()
    figures = []
    with _backends() as (http, tcp):
        config: dict[str, Any] = {
            "server": {
                "workers": 2, "httpListenAddr": ANY, "admin": {"listenAddr": ANY}, "health": {"enabled": False},
                "limits": {"connectionsPerClient": 0},  # they all come from one address
            },
            "pools": {"web": {"backends": [f"127.0.0.1:{http}"]}, "echo": {"backends": [f"127.0.0.1:{tcp}"]}},
            "routes": [
                {"name": "web", "pool": "web"},
                {"name": "echo", "type": "tcp", "listenAddr": ANY, "pool": "echo"},
            ],
        }
        with gogate(config) as idle:
            time.sleep(SETTLE)
            figures.append(Figure("idle, 2 workers, all processes", pss_kib(idle.process.pid) / 1024, "MB", 110, 75))
        for listener, message, count, limit, aim in (
            ("tcp:echo", b"x" * 64, 1000, 12, 4),
            ("http:default", REQUEST, 1000, 8, 5),
            ("http:default", REQUEST, 4000, 8, 5),
        ):
            with gogate(config) as one:
                kib = _per_connection(one.process.pid, one.address(listener), message, count)
            what = "TCP connection" if listener == "tcp:echo" else "keep-alive HTTP client"
            figures.append(Figure(f"per idle {what} ({count})", kib, "KiB", limit, aim))
    rows = [[f.what, f"{f.value:.1f} {f.unit}", f"{f.limit:g}", f"{f.aim:g}"] for f in figures]
    print(markdown(["memory (sum of PSS)", "measured", "limit", "aim"], rows))
    return int(any(figure.value > figure.limit for figure in figures))


@contextlib.contextmanager
def _backends() -> Iterator[tuple[int, int]]:
    """→ ports of the HTTP and the TCP backend."""
    http, tcp = free_port(), free_port()
    here = Path(__file__).parent
    with running([sys.executable, str(here / "http_server.py"), str(http)]), running(
        [sys.executable, str(here / "echo_server.py"), str(tcp)]
    ):
        wait_until(lambda: accepts(http) and accepts(tcp), "the backends")
        yield http, tcp


def _per_connection(pid: int, address: tuple[str, int], message: bytes, count: int) -> float:
    """KiB that one idle connection costs."""
    for sock in _open(address, message, WARM_UP):
        sock.close()
    time.sleep(SETTLE)
    before = pss_kib(pid)
    socks = _open(address, message, count)
    time.sleep(SETTLE)
    after = pss_kib(pid)
    for sock in socks:
        sock.close()
    return (after - before) / count


def _open(address: tuple[str, int], message: bytes, count: int) -> list[socket.socket]:
    """Connections that each had one answer."""
    socks = []
    for _ in range(count):
        sock = socket.create_connection(address, timeout=10)
        sock.sendall(message)
        if not sock.recv(65536):
            raise SystemExit("a connection was closed")
        socks.append(sock)
    return socks


if __name__ == "__main__":
    sys.exit(main())
