"""SNI passthrough through a whole gateway with two workers: real handshakes end at the backends."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from doubles.configs import ANY, gateway_config
from doubles.gateway import Gateway, wait_for
from doubles.tls_backends import CA, server_context

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def backend(name: str) -> Iterator[str]:
    """A TLS server that says its name; → its address."""
    context = server_context(name)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), context.wrap_socket(sock, server_side=True) as spoken:
                spoken.sendall(name.encode())
                spoken.unwrap()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def told(address: tuple[str, int], name: str) -> str:
    """What the server of a name says, its certificate verified; "" when the connection is closed."""
    context = ssl.create_default_context(cadata=CA.cert_pem.bytes().decode())
    with socket.create_connection(address, timeout=10) as sock:
        try:
            with context.wrap_socket(sock, server_hostname=name) as spoken:
                return spoken.recv(100).decode()
        except (ConnectionError, ssl.SSLEOFError):
            return ""


def test_certificates_are_the_backends() -> None:
    """Each name reaches the backend that has its certificate, over both workers; a name without a route is closed."""
    with backend("a.test") as a, backend("b.sub.test") as b:
        server: dict[str, Any] = {"health": {"enabled": False}}
        pools = {"a": {"backends": [a]}, "b": {"backends": [b]}}
        routes: list[dict[str, Any]] = [
            {"name": "a", "type": "tcp", "listenAddr": ANY, "sni": ["a.test"], "pool": "a"},
            {"name": "b", "type": "tcp", "listenAddr": ANY, "sni": ["*.sub.test"], "pool": "b"},
        ]
        with Gateway(gateway_config(server, pools=pools, routes=routes)) as gateway:
            (listener,) = gateway.listeners
            address = gateway.address(listener)
            for _ in range(8):
                assert told(address, "a.test") == "a.test"
                assert told(address, "b.sub.test") == "b.sub.test"
            assert told(address, "c.test") == ""
            wait_for(lambda: gateway.metric("gogate_connections_refused_total", reason="server_name") == 1)
            wait_for(lambda: gateway.metric("gogate_tcp_connections_total", route="b") == 8)
            # By a reload one name goes; what is open, and the listener, stay.
            context = ssl.create_default_context(cadata=CA.cert_pem.bytes().decode())
            routes[1]["sni"] = ["b.sub.test", "c.test"]
            with socket.create_connection(address, timeout=10) as sock:
                gateway.config_path.write_text(gateway_config(server, pools=pools, routes=routes[1:]))
                assert gateway.admin_request("POST", "/reload")[0] == 200
                with context.wrap_socket(sock, server_hostname="b.sub.test") as spoken:
                    assert spoken.recv(100) == b"b.sub.test"
            assert told(address, "b.sub.test") == "b.sub.test"
            assert told(address, "a.test") == ""
            shown = {route["name"]: route for route in gateway.admin_json("GET", "/routes")["routes"]}
            assert shown["b"]["sni"] == ["b.sub.test", "c.test"]
