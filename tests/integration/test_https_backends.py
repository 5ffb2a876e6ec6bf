"""TLS to backends through a whole gateway with two workers: requests, relays, probes, client certificates."""

from __future__ import annotations

import contextlib
import http.server
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.configs import ANY, gateway_config
from doubles.gateway import Gateway, wait_for
from doubles.tls_backends import CA, server_context, write_files

pytestmark = pytest.mark.slow


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.connection, ssl.SSLSocket)
        certificate = self.connection.getpeercert() or {}
        names = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"]
        body = ",".join(str(name) for name in names).encode() or b"nobody"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    context: ssl.SSLContext

    def get_request(self) -> tuple[ssl.SSLSocket, object]:
        sock, address = super().get_request()
        sock.settimeout(10)
        # The handshake is the handler's, in its thread.
        return self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: object, client_address: object) -> None:
        """Handshakes that fail are part of the tests."""


@contextlib.contextmanager
def backend(context: ssl.SSLContext) -> Iterator[str]:
    """An HTTPS server; → its address. It answers with the names in the client's certificate."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.context = context
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_https_from_end_to_end(tmp_path: Path) -> None:
    """Requests, TCP relays and probes speak TLS: verified by IP address or serverName, with our certificate where one
    is asked for; who cannot be verified is down with the reason, and 502 while nobody probes."""
    write_files(tmp_path, CA.issue_cert("gogate.test"))
    with (
        backend(server_context("127.0.0.1")) as by_ip,
        backend(server_context("named.test", clients=CA)) as by_name,
        backend(server_context("elsewhere.test")) as stranger,
    ):
        probed = {"enabled": True, "checkType": "http", "httpPath": "/", "interval": "100ms", "unhealthyThreshold": 1}
        off = {"enabled": False}
        files = {name: str(tmp_path / file) for name, file in
                 (("caFile", "ca.pem"), ("certFile", "cert.pem"), ("keyFile", "key.pem"))}
        config = gateway_config(
            {"httpListenAddr": ANY, "backendTLS": files, "health": probed},
            pools={
                "ip": {"backends": [f"https://{by_ip}"]},
                "name": {"backends": [by_name], "tls": {"enabled": True, "serverName": "named.test"}},
                "wrong": {"backends": [f"https://{stranger}"]},
                "unprobed": {"backends": [f"https://{stranger}"], "health": off},
                "insecure": {"backends": [stranger], "tls": {"enabled": True, "insecureSkipVerify": True}},
            },
            routes=[
                *({"name": name, "match": {"path": f"/{name}"}, "pool": name}
                  for name in ("ip", "name", "wrong", "unprobed", "insecure")),
                {"name": "relay", "type": "tcp", "listenAddr": ANY, "pool": "name"},
            ],
        )
        with Gateway(config) as gateway:
            wait_for(lambda: {one["pool"]: one["healthy"] for one in gateway.admin_json("GET", "/backends")["backends"]}
                     == {"ip": True, "name": True, "wrong": False, "unprobed": True, "insecure": True}, what="probes")
            found = {one["pool"]: one for one in gateway.admin_json("GET", "/backends")["backends"]}
            assert found["wrong"]["last_error"].startswith("certificate verify failed: IP address mismatch")
            for _ in range(4):
                assert gateway.get("/ip")[::2] == (200, b"nobody")
                assert gateway.get("/name")[::2] == (200, b"gogate.test")
                assert gateway.get("/insecure")[0] == 200
                assert gateway.get("/wrong")[0] == 503
                assert gateway.get("/unprobed")[0] == 502
            assert relayed(gateway.address("tcp:relay")).endswith(b"gogate.test")
            wait_for(lambda: gateway.metric("gogate_backend_connects_total", pool="unprobed", result="tls") >= 4)
            wait_for(lambda: [line for line in gateway.access if line.get("reason") == "tls_failed"])


def relayed(address: tuple[str, int]) -> bytes:
    """What a TLS backend answers a client that speaks plain HTTP to a TCP listener."""
    with socket.create_connection(address, timeout=10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        data = b""
        while more := sock.recv(65536):
            data += more
        return data
