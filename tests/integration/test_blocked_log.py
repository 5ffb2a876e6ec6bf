"""A log target that takes no lines costs lines, and nothing else (SECURITY.md F12)."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.configs import ANY, gateway_config
from doubles.gateway import Gateway, wait_for
from doubles.http_backend import HttpBackend
from doubles.load import in_threads


@contextlib.contextmanager
def _blocked(kind: str, folder: Path) -> Iterator[tuple[str, int | None]]:
    """→ (logging.access.path, descriptor for standard output) of a target that takes no lines."""
    if kind == "fifo":
        path = folder / "fifo"
        os.mkfifo(path)
        yield str(path), None
    elif kind == "full":
        yield "/dev/full", None
    else:
        read, write = os.pipe()
        yield "-", write
        os.close(read)
        os.close(write)


@pytest.mark.parametrize("kind", ["fifo", "stdout", "full"])
def test_a_blocked_access_log_costs_lines_only(tmp_path: Path, kind: str) -> None:
    """A FIFO nobody reads, a full pipe, a full disk: requests are answered, lost lines counted, other lines written."""
    requests, clients = 13_000, 4
    with _blocked(kind, tmp_path) as (path, stdout), HttpBackend() as backend:
        config = gateway_config(
            {"httpListenAddr": ANY, "backends": [backend.address], "health": {"enabled": False}},
            logging={"access": {"path": path}},
        )
        with Gateway(config, stdout=stdout) as gateway:
            in_threads(clients, lambda _: _pipelined(gateway.address("http:default"), requests // clients))
            wait_for(lambda: gateway.metric("gogate_log_lines_dropped_total") > 1000, what="the count")
            assert gateway.get()[0] == 200
            gateway.send_signal(signal.SIGHUP)
            wait_for(lambda: gateway.logged("configuration is unchanged"), what="a line on stderr")
            assert gateway.stop() == 0


def _pipelined(address: tuple[str, int], count: int, batch: int = 50) -> None:
    """``count`` requests on one connection, ``batch`` at a time; every one must be answered with 200."""
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(address, timeout=30) as sock:
        for start in range(0, count, batch):
            sent = min(batch, count - start)
            sock.sendall(request * sent)
            answers = b""
            while answers.count(b"hello from") < sent:
                more = sock.recv(65536)
                assert more, answers
                answers += more
            assert answers.count(b"HTTP/1.1 200 ") == sent
