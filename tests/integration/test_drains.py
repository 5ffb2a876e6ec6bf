"""What runs when its time is up, in whole gateways with two workers: the end of the grace time, the end of a drain."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import websockets
from doubles.configs import gateway_config, http_gateway
from doubles.gateway import Gateway, echo_server, wait_for
from doubles.gateway_clients import kill_9
from doubles.http_backend import HttpBackend
from doubles.tls_backends import CA
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
def open_sockets(
    gateway: Gateway, count: int, tls: ssl.SSLContext | None = None
) -> Iterator[list[ClientConnection]]:
    """So many WebSockets through the gateway, each of which was used."""
    url = f"{'wss' if tls is not None else 'ws'}://{gateway.http}/"
    with contextlib.ExitStack() as stack:
        opened = []
        for number in range(count):
            opened.append(stack.enter_context(connect(url, ssl=tls, proxy=None)))
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


def test_also_behind_tls(sockets: EchoSockets, tmp_path: Path) -> None:
    """The same over a listener with TLS: a clean close with 1001."""
    issued = CA.issue_cert("localhost", "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    certificate = {"certFile": str(tmp_path / "both.pem"), "keyFile": str(tmp_path / "both.pem")}
    context = ssl.create_default_context()
    CA.configure_trust(context)
    settings = {"shutdown": {"gracePeriod": "300ms"}, "tls": {"certificates": [certificate]}}
    with Gateway(http_gateway(sockets.address, **settings)) as gateway, open_sockets(gateway, 4, context) as opened:
        assert gateway.stop() == 0
        assert {close_code(one) for one in opened} == {1001}
        wait_for(lambda: sockets.codes == [1001] * 4, what="the backend to be told")


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


def _left(gateway: Gateway) -> int:
    return sum(one["active_connections"] for one in gateway.admin_json("GET", "/backends")["backends"])


def test_the_deadline_of_a_drain(sockets: EchoSockets) -> None:
    """WebSockets of both workers are told 1001 when it comes and not before; it outlives a reload and a worker."""
    with Gateway(http_gateway(sockets.address)) as gateway, open_sockets(gateway, 16) as opened:
        path = f"/backends/{sockets.address}/drain"
        gateway.admin_json("POST", path, {"deadline": "1h"})
        text = gateway.config_path.read_text()
        gateway.config_path.write_text(text.replace('"backends"', '"timeouts": {"idle": "50s"}, "backends"'))
        assert gateway.admin_json("POST", "/reload")["result"] == "success"
        before = gateway.pids()
        kill_9(gateway, 0)
        assert gateway.pids()[1] == before[1]
        (backend,) = gateway.admin_json("GET", "/backends")["backends"]
        assert 3500 < backend["drain_ends_in_s"] <= 3600
        left = _left(gateway)
        assert 0 < left < 16  # those of the other worker live on
        assert gateway.get()[0] == 503
        gateway.admin_json("POST", f"{path}?deadline=100ms")
        wait_for(lambda: not _left(gateway), what="the drain to end")
        codes = [close_code(one) for one in opened]
        assert sorted(codes, key=str) == sorted([1001] * left + [1006] * (16 - left), key=str)
        cuts = partial(gateway.metric, "gogate_backend_drain_cuts_total", kind="websocket")
        wait_for(lambda: cuts() == left, what="the cuts counted")
        gateway.admin_json("POST", f"/backends/{sockets.address}/undrain")
        with open_sockets(gateway, 4):
            assert _left(gateway) == 4


def test_a_drain_cuts_streams_and_requests_of_both_workers() -> None:
    """A TCP stream ends, a request without an answer is 502; other backends go on."""
    with echo_server() as (host, port), HttpBackend("web") as web:
        text = gateway_config(
            {"health": {"enabled": False}, "httpListenAddr": "127.0.0.1:0"},
            pools={"echo": {"backends": [f"{host}:{port}"]}, "web": {"backends": [web.address]}},
            routes=[{"name": "echo", "type": "tcp", "listenAddr": "127.0.0.1:0", "pool": "echo"},
                    {"name": "web", "pool": "web"}],
        )  # fmt: skip
        with Gateway(text) as gateway, contextlib.ExitStack() as stack:
            streams = []
            for _ in range(12):
                stream = stack.enter_context(socket.create_connection(gateway.address("tcp:echo"), timeout=20))
                stream.sendall(b"ping")
                assert stream.recv(4) == b"ping"
                streams.append(stream)
            assert {one["worker"] for one in gateway.admin_json("GET", "/connections")["connections"]} == {0, 1}
            web.hold()
            statuses: list[int] = []
            asking = [threading.Thread(target=lambda: statuses.append(gateway.get()[0])) for _ in range(8)]
            for thread in asking:
                thread.start()
            wait_for(lambda: web.in_flight == 8, what="the requests to be held")
            gateway.admin_json("POST", f"/backends/{host}:{port}/drain?deadline=0")
            assert [stream.recv(4) for stream in streams] == [b""] * 12
            assert web.in_flight == 8
            gateway.admin_json("POST", f"/backends/{web.address}/drain?deadline=0")
            for thread in asking:
                thread.join(20)
            assert statuses == [502] * 8
            web.release()

            def cuts() -> list[float]:
                return [gateway.metric("gogate_backend_drain_cuts_total", kind=kind) for kind in ("tcp", "request")]

            wait_for(lambda: cuts() == [12, 8], what="the cuts counted")
