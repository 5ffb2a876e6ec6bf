"""A machine that speaks IPv6: listeners, backends, probes, admin API and the addresses in what gogate says of them."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from doubles.gateway import Gateway, wait_for

HERE = "[::1]:0"


class Echo(socketserver.BaseRequestHandler):
    """Sends back what comes, and ends when the client does."""

    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)


class WhoAsks(socketserver.StreamRequestHandler):
    """Answers each request with its head."""

    def handle(self) -> None:
        head = b""
        while line := self.rfile.readline():
            head += line
            if line == b"\r\n":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(head), head))
                head = b""


class Server(socketserver.ThreadingTCPServer):
    """On IPv6 only."""

    address_family = socket.AF_INET6
    daemon_threads = True


@pytest.fixture(params=[Echo, WhoAsks])
def backend(request: pytest.FixtureRequest) -> Iterator[tuple[type[Any], int]]:
    """A backend on a free port of ::1."""
    with Server(("::1", 0), request.param) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield request.param, server.server_address[1]
        server.shutdown()


def ipv6() -> bool:
    """Whether this machine has IPv6 at all."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not ipv6(), reason="this machine has no IPv6")
def test_everything_on_ipv6(backend: tuple[type[Any], int]) -> None:
    """Both layers, health probes and the admin API work where there is nothing but IPv6 (SECURITY.md F20)."""
    kind, port = backend
    server: dict[str, Any] = {
        "workers": 2,
        "backends": [f"[::1]:{port}"],
        "health": {"interval": "100ms"},
        "admin": {"listenAddr": HERE},
        "listenAddr" if kind is Echo else "httpListenAddr": HERE,
    }
    with Gateway(json.dumps({"server": server})) as gateway:
        assert gateway.admin.startswith("[::1]:")
        listener = "tcp:default-tcp" if kind is Echo else "http:default"
        address = gateway.listeners[listener]
        with socket.create_connection(("::1", int(address.rpartition(":")[2])), 10) as client:
            if kind is Echo:
                client.sendall(b"hello")
                assert client.recv(100) == b"hello"
            else:
                client.sendall(b"GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n")
                answer = b""
                while not answer.endswith(b"\r\n\r\n") or answer.count(b"\r\n\r\n") < 2:
                    answer += client.recv(65536)
                assert b"X-Forwarded-For: ::1\r\n" in answer
        line = wait_for(lambda: gateway.access, what="the access line")[0]
        assert line["client"].startswith("[::1]:" if kind is Echo else "::1")
        assert line["backend"] == f"[::1]:{port}"
