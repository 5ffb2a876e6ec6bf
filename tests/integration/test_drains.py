"""What runs when its time is up, in whole gateways with two workers: the end of the grace time, the end of a drain."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
import websockets
from doubles.configs import http_gateway
from doubles.gateway import Gateway, wait_for
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


class EchoSockets:
    """A WebSocket server that gives messages back; ``codes`` are those that its connections were closed with."""

    def __init__(self) -> None:
        self.codes: list[int | None] = []
        self._server = serve(self._echo, "127.0.0.1", 0)
        self._thread = threading.Thread(target=self._server.serve_forever)
        host, port = self._server.socket.getsockname()
        self.address = f"{host}:{port}"

    def _echo(self, connection: ServerConnection) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            for message in connection:
                connection.send(message)
        self.codes.append(connection.close_code)

    def __enter__(self) -> EchoSockets:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()


@pytest.fixture
def sockets() -> Iterator[EchoSockets]:
    with EchoSockets() as one:
        yield one


@contextlib.contextmanager
def open_sockets(gateway: Gateway, count: int) -> Iterator[list[ClientConnection]]:
    """So many WebSockets through the gateway, each of which was used."""
    with contextlib.ExitStack() as stack:
        opened = []
        for number in range(count):
            opened.append(stack.enter_context(connect(f"ws://{gateway.http}/", proxy=None)))
            opened[-1].send(f"hello {number}")
            assert opened[-1].recv(10) == f"hello {number}"
        yield opened


def close_code(connection: ClientConnection) -> int | None:
    """What the gateway closed it with."""
    with contextlib.suppress(websockets.ConnectionClosed):
        connection.recv(20)
    return connection.close_code


def test_websockets_hear_1001_when_the_grace_time_ends(sockets: EchoSockets) -> None:
    """SIGTERM, gracePeriod passes: clients and backends of both workers are told 1001 by a clean close, exit code 0."""
    with Gateway(http_gateway(sockets.address, shutdown={"gracePeriod": "300ms"})) as gateway:
        with open_sockets(gateway, 12) as opened:
            assert gateway.stop() == 0
            assert {close_code(one) for one in opened} == {1001}
        wait_for(lambda: len(sockets.codes) == 12, what="every backend connection to end")
        assert set(sockets.codes) == {1001}
        assert {line["slot"] for line in gateway.logged("worker drained") if line["cut"]} == {0, 1}
        assert [line["reason"] for line in gateway.access] == ["grace_period"] * 12


def test_inside_a_frame_websockets_are_cut() -> None:
    """A client to which half a message was passed on hears nothing that it would take for the rest of it."""

    def half_a_message(server: socket.socket) -> None:
        with contextlib.suppress(OSError), server.accept()[0] as connection:
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(4096)
            connection.sendall(SWITCH + b"\x81\x0ahalf")
            while connection.recv(4096):
                pass

    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        backend = f"127.0.0.1:{server.getsockname()[1]}"
        thread = threading.Thread(target=half_a_message, args=(server,))
        thread.start()
        with Gateway(http_gateway(backend, shutdown={"gracePeriod": "200ms"})) as gateway:
            client = socket.create_connection(gateway.address("http:default"), timeout=20)
            client.sendall(UPGRADE)
            answer = b""
            while not answer.endswith(b"half"):
                answer += client.recv(4096)
            assert gateway.stop() == 0
            assert client.recv(4096) == b""
            client.close()
        thread.join()
