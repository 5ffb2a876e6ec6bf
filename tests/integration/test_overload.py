"""More than there is room for: connections of one client, file descriptors (SECURITY.md T18, F11)."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.configs import http_gateway, tcp_gateway
from doubles.gateway import Gateway, echo_server, wait_for
from doubles.http_backend import HttpBackend

from gogate_py.clock import monotonic

pytestmark = pytest.mark.slow

REQUEST = b"GET / HTTP/1.1\r\nHost: gogate.test\r\n\r\n"


@contextlib.contextmanager
def many_clients(address: tuple[str, int], count: int, host: str = "") -> Iterator[list[socket.socket]]:
    """That many connections."""
    source = (host, 0) if host else None
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(address, 10, source)) for _ in range(count)]


def closed(clients: list[socket.socket]) -> int:
    """How many of them were closed by the gateway so far."""
    count = 0
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ)
        for key, _ in selector.select(0):
            assert isinstance(key.fileobj, socket.socket)
            try:
                count += not key.fileobj.recv(1, socket.MSG_PEEK)
            except ConnectionResetError:
                count += 1
    return count


def is_served(address: tuple[str, int]) -> bool:
    """Whether both workers make room: ten new clients are served."""
    with many_clients(address, 10) as clients:
        try:
            for client in clients:
                client.sendall(REQUEST)
                if not client.recv(65536).startswith(b"HTTP/1.1 200 "):
                    return False
        except ConnectionError:
            return False
    return True


def cpu_of(pids: list[int]) -> float:
    """CPU seconds of these processes so far."""
    total = 0.0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0]) / 1e9
    return total


def test_connections_per_client_over_workers() -> None:
    """The limit is exact over both workers, another client has its own, and a killed worker's connections are
    forgotten."""
    with echo_server() as (host, port):
        config = tcp_gateway("echo", f"{host}:{port}", limits={"connectionsPerClient": 50})
        with Gateway(config) as gateway:
            address = gateway.address("tcp:echo")
            with many_clients(address, 80) as clients:
                wait_for(lambda: closed(clients) >= 30, what="the excess to be closed")
                with many_clients(address, 50, "127.0.0.2") as others:
                    for other in others:
                        other.sendall(b"x")
                        assert other.recv(1) == b"x"
                    assert closed(clients) == 30
                refused = "gogate_connections_refused_total"
                wait_for(lambda: gateway.metric(refused, reason="connections_per_client") == 30, what="the count")
                first, second = gateway.pids()
                os.kill(first, 9)
                wait_for(lambda: first not in gateway.pids() and len(gateway.pids()) == 2, what="the new worker")
                wait_for(lambda: gateway.metric("gogate_workers") == 2, what="both workers to serve")
                gone = closed(clients)
                assert 30 < gone < 80, "the connections of one worker"
                with many_clients(address, gone - 30 + 5) as again:
                    wait_for(lambda: closed(again) >= 5, what="the new excess to be closed")
                    alive = 0
                    for client in again:
                        with contextlib.suppress(ConnectionError):
                            client.sendall(b"x")
                            alive += client.recv(1) == b"x"
                    assert alive == gone - 30
            assert second in gateway.pids()


def test_few_descriptors() -> None:
    """With ulimit -n 256: the excess is closed and counted, nothing spins, the admin listener answers, and all is well
    afterwards."""
    with HttpBackend() as backend:
        config = http_gateway(backend.address, limits={"connectionsPerClient": 0}, timeouts={"requestHeader": "60s"})
        with Gateway(config, descriptors=256) as gateway:
            address = gateway.address("http:default")
            pids = gateway.pids()
            assert gateway.logged("file descriptors allow fewer connections than configured; "
                                  "raise the limit (ulimit -n, LimitNOFILE)")
            with many_clients(address, 400) as clients:
                # 64 for each worker, which the kernel does not fill evenly.
                wait_for(lambda: closed(clients) >= 400 - 128, what="the excess to be closed")
                started, used = monotonic(), cpu_of(pids)
                served = 0
                for client in clients:
                    with contextlib.suppress(ConnectionError):
                        client.sendall(REQUEST)
                        client.settimeout(10)
                        served += client.recv(65536).startswith(b"HTTP/1.1 200 ")
                assert 64 <= served <= 128
                assert gateway.admin_request("GET", "/healthz")[0] == 200
                # All of them are idle and kept alive now: who comes takes the place of one, once somebody looks again.
                wait_for(lambda: is_served(address), what="room")
                with many_clients(address, 20) as late:
                    for client in late:
                        client.sendall(REQUEST)
                        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
                wait_for(lambda: gateway.metric("gogate_connections_shed_total") > 0, what="the count of the shed")
                refused = "gogate_connections_refused_total"
                wait_for(lambda: gateway.metric(refused, reason="connections") >= 400 - 128, what="the counts")
                while monotonic() - started < 1.0:
                    assert gateway.admin_request("GET", "/healthz")[0] == 200
                assert (cpu_of(pids) - used) / (monotonic() - started) < 0.5 * len(pids)
            wait_for(lambda: gateway.metric("gogate_connections_active") == 0, what="everybody to be gone")
            assert gateway.get("/")[0] == 200
            assert gateway.pids() == pids
            assert gateway.metric("gogate_internal_errors_total") == 0
