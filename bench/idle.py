"""What is not measured under load: memory of an idle proxy and of idle connections, and the time to start."""

from __future__ import annotations

import socket
import subprocess
import time
from typing import NamedTuple

import psutil
from parts import cpu_ns, family, pss_kib, running
from peers import Backends, Peer, answers, connections, prepared, started
from tcp_server import message

REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n\r\n"
MESSAGE = message(b"E")
WORKERS = 2
#: Connections that are opened and closed first: what the first ones cost is no connection's.
WARM_UP = 200


class Crowd(NamedTuple):
    """How many idle connections are measured, and how long it takes until what they needed only for a moment is given
    back, seconds."""

    counts: tuple[int, ...] = (1000, 9000)
    settle: float = 1.5


def idle_memory(peer: Peer, behind: Backends, settle: float) -> tuple[float, float]:
    """→ MB (PSS) of all processes of a proxy with two workers that has answered a request; MB (resident) of the largest
    of its child processes, 0 if it has none."""
    with started(peer, behind, WORKERS, None) as proxy:
        time.sleep(settle)
        children = [psutil.Process(child).memory_info().rss for child in family(proxy.pid)[1:]]
        return pss_kib(proxy.pid) / 1024, max(children, default=0) / 2**20


def connection_memory(peer: Peer, listener: str, behind: Backends, crowd: Crowd) -> dict[int, float]:
    """→ KiB that one of so many idle connections costs, each having had one answer: growth of the sum of PSS, divided.
    Numbers that the limit of open files does not allow are left out."""
    found: dict[int, float] = {}
    with started(peer, behind, WORKERS, None) as proxy:
        port = getattr(proxy.ports, listener)
        warm = [_open(port, listener) for _ in range(min(WARM_UP, crowd.counts[0]))]
        for sock in warm:
            sock.close()
        time.sleep(crowd.settle)
        before = pss_kib(proxy.pid)
        socks: list[socket.socket] = []
        try:
            for count in crowd.counts:
                if count > connections() - 300:
                    break
                socks += [_open(port, listener) for _ in range(count - len(socks))]
                time.sleep(crowd.settle)
                found[count] = (pss_kib(proxy.pid) - before) / count
        finally:
            for sock in socks:
                sock.close()
    return found


def _open(port: int, listener: str) -> socket.socket:
    """A connection that had its answer."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    sock.sendall(MESSAGE if listener == "tcp" else REQUEST)
    if not sock.recv(65536):
        raise ConnectionError("a connection was closed")
    return sock


def start_ms(peer: Peer, behind: Backends, cores: set[int]) -> tuple[float, float]:
    """→ milliseconds from the start of the process to the end of the first request through it; of CPU in these.
    ``cores``: those of the proxy."""
    with prepared(peer, behind) as (setup, command, environment):
        began = time.perf_counter()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with running(command, cores, env=environment, **quiet) as process:
            while not answers(setup.ports.http):
                if process.poll() is not None or time.perf_counter() - began > 20.0:
                    raise ConnectionError(f"{peer.name} did not answer")
                time.sleep(0.001)
            return (time.perf_counter() - began) * 1000, cpu_ns(process.pid) / 1e6
