"""Plain TCP through the L4 listener: netcat's half-close in both directions, and a gibibyte each way at once."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from conftest import need_program
from doubles.bulk_peer import receive_all
from doubles.configs import ANY, gateway_config, tcp_gateway
from doubles.gateway import Gateway, echo_server, wait_for
from doubles.load import sampled_memory
from doubles.noise import blocks, digest
from doubles.servers import DOUBLES, free_port

GIBIBYTE = 1 << 30


@contextlib.contextmanager
def _server(handle: object) -> Iterator[str]:
    """A threading TCP server whose connections are given to ``handle``; → its address."""
    handler = type("Handler", (socketserver.BaseRequestHandler,), {"handle": lambda self: handle(self.request)})  # type: ignore[operator]  # any callable

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield "{}:{}".format(*server.server_address)
        server.shutdown()


def _answer_at_the_end(sock: socket.socket) -> None:
    """Read until EOF, then answer with what came, in capitals."""
    data = b""
    while more := sock.recv(65536):
        data += more
    sock.sendall(data.upper())


def _greet_and_half_close(sock: socket.socket) -> None:
    """Say something, half-close, and only then read; the hash of what came is remembered."""
    sock.sendall(b"the last word of the server\n")
    sock.shutdown(socket.SHUT_WR)
    _received.append(receive_all(sock)[1])


_received: list[str] = []


def test_nc_half_close() -> None:
    """``printf … | nc -N`` half-closes after its input; a backend that waits for EOF sees it and can still answer."""
    nc = need_program("nc")
    with _server(_answer_at_the_end) as backend, Gateway(tcp_gateway("end", backend)) as gateway:
        host, port = gateway.address("tcp:end")
        for text in (b"hello\n", b"", b"x" * 300_000):
            done = subprocess.run([nc, "-N", host, str(port)], input=text, capture_output=True, timeout=20)
            assert (done.returncode, done.stdout) == (0, text.upper())


def test_nc_on_both_sides(tmp_path: Path) -> None:
    """Two netcats that each send a file and half-close receive each other's file whole."""
    nc = need_program("nc")
    port = free_port()
    up, down = b"".join(blocks(1, 3_000_000)), b"".join(blocks(2, 5_000_000))
    (tmp_path / "down").write_bytes(down)
    with (tmp_path / "down").open("rb") as source:
        listener = subprocess.Popen([nc, "-lvN", "127.0.0.1", str(port)], stdin=source, stdout=subprocess.PIPE,
                                    stderr=subprocess.PIPE)
    received: list[bytes] = []
    assert listener.stdout is not None
    assert listener.stderr is not None
    reader = threading.Thread(target=lambda: received.append(listener.stdout.read()))
    assert b"Listening" in listener.stderr.readline()
    reader.start()
    with Gateway(tcp_gateway("nc", f"127.0.0.1:{port}")) as gateway:
        host, through = gateway.address("tcp:nc")
        done = subprocess.run([nc, "-N", host, str(through)], input=up, capture_output=True, timeout=20)
        listener.wait(20)
    reader.join()
    listener.stdout.close()
    listener.stderr.close()
    assert done.stdout == down
    assert received == [up]


def test_the_backend_half_closes_first() -> None:
    """After a backend's EOF the client goes on sending, and everything arrives."""
    size = 20_000_000
    with _server(_greet_and_half_close) as backend, Gateway(tcp_gateway("half", backend)) as gateway:
        with socket.create_connection(gateway.address("tcp:half"), timeout=20) as sock:
            assert receive_all(sock)[0] == 28
            wait_for(lambda: _states(gateway) == ["backend_closed"], what="the half-closed state in the admin API")
            for block in blocks(3, size):
                sock.sendall(block)
            sock.shutdown(socket.SHUT_WR)
            wait_for(lambda: _received, what="the backend to see the end")
        wait_for(lambda: _states(gateway) == [], what="the connection to end")
    assert _received == [digest(3, size)]


def _states(gateway: Gateway) -> list[str]:
    return [connection["state"] for connection in gateway.admin_json("GET", "/connections")["connections"]]


@contextlib.contextmanager
def _bulk_peer() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, str(DOUBLES / "bulk_peer.py")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_gibibyte_each_way_at_once() -> None:
    """1 GiB each way at once on one connection: checksums equal, the workers' memory flat, bytes counted exactly."""
    with _bulk_peer() as backend, Gateway(tcp_gateway("bulk", backend)) as gateway:
        with sampled_memory(gateway.pids()) as memory, socket.create_connection(gateway.address("tcp:bulk")) as sock:
            sock.settimeout(60)
            head = b"10 %d\n" % GIBIBYTE
            sock.sendall(head)
            got: list[tuple[int, str, bytes]] = []
            reader = threading.Thread(target=lambda: got.append(receive_all(sock, GIBIBYTE)))
            reader.start()
            sent = hashlib.sha256()
            for block in blocks(10, GIBIBYTE):
                sent.update(block)
                sock.sendall(block)
            sock.shutdown(socket.SHUT_WR)
            reader.join(60)
        size, received, answer = got[0]
        assert size == GIBIBYTE
        assert received == digest(11, GIBIBYTE)
        assert answer.decode() == sent.hexdigest()
        assert memory.growth() < 16 << 20
        sent_bytes, received_bytes = "gogate_backend_bytes_sent_total", "gogate_backend_bytes_received_total"
        wait_for(lambda: gateway.metric(sent_bytes, pool="bulk-pool") == GIBIBYTE + len(head), what="the bytes counted")
        assert gateway.metric(received_bytes, pool="bulk-pool") == GIBIBYTE + len(answer)


def test_a_stalled_reader_costs_bounded_memory() -> None:
    """A client that asks for a gibibyte and reads nothing stops the backend; the worker's memory stays as it was."""
    with _bulk_peer() as backend, Gateway(tcp_gateway("bulk", backend)) as gateway:
        with sampled_memory(gateway.pids()) as memory, socket.create_connection(gateway.address("tcp:bulk")) as sock:
            sock.sendall(b"20 %d\n" % GIBIBYTE)
            seen: list[float] = []

            def stalled() -> bool:
                seen.append(gateway.metric("gogate_backend_bytes_received_total", pool="bulk-pool"))
                return len(seen) > 50 and seen[-1] > 0 and seen[-1] == seen[-50]

            wait_for(stalled, 20.0, "the flow to stop")
            assert seen[-1] < 64 << 20
        assert memory.growth() < 8 << 20


def test_a_connection_is_closed_by_the_admin_api() -> None:
    """DELETE /connections/ID ends that connection and no other; an unknown id is 404."""
    with echo_server() as (host, port):
        config = gateway_config({"listenAddr": ANY, "backends": [f"{host}:{port}"], "health": {"enabled": False}})
        with Gateway(config) as gateway:
            address = gateway.address("tcp:default-tcp")
            socks = [socket.create_connection(address, timeout=10) for _ in range(6)]
            for sock in socks:
                sock.sendall(b"ping")
                assert sock.recv(10) == b"ping"
            connections = gateway.admin_json("GET", "/connections")["connections"]
            ports = {sock.getsockname()[1]: sock for sock in socks}
            assert {int(c["client"].rpartition(":")[2]) for c in connections} == set(ports)
            victim = connections[3]
            assert gateway.admin_request("DELETE", f"/connections/{victim['id']}")[0] == 204
            sock = ports.pop(int(victim["client"].rpartition(":")[2]))
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(10) == b""
            assert gateway.admin_request("DELETE", f"/connections/{victim['id']}")[0] == 404
            for other in ports.values():
                other.sendall(b"pong")
                assert other.recv(10) == b"pong"
            for sock in socks:
                sock.close()
            wait_for(
                lambda: {line["result"] for line in gateway.access} == {"ok", "closed_by_admin"}
                and len(gateway.access) == 6,
                what="six lines in the access log",
            )
