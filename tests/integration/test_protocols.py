"""docs/limits.md, protocols: HTTP/2 (and so gRPC) is refused in a way that its clients understand, and passes a TCP
route."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import need_program
from doubles.certificates import write_pair
from doubles.configs import ANY, gateway_config, http_gateway, tcp_gateway
from doubles.gateway import Gateway, wait_for
from doubles.http_backend import HttpBackend
from doubles.servers import accepts, free_port, running
from doubles.tls_clients import client_context

from gogate_py import arena

pytestmark = pytest.mark.slow

#: What every HTTP/2 connection begins with (RFC 9113 section 3.4), and gRPC's with it; an empty SETTINGS frame behind.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"


def everything(sock: socket.socket) -> bytes:
    """What comes until the end."""
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_http_2_without_tls_is_505_and_logged() -> None:
    """The answer is in HTTP/1.1, from which gRPC's library tells its user what is there; then the connection ends."""
    with HttpBackend() as backend, Gateway(http_gateway(backend.address)) as gateway:
        with socket.create_connection(gateway.address("http:default"), timeout=10) as sock:
            sock.sendall(PREFACE)
            answer = everything(sock)
        assert answer.startswith(b"HTTP/1.1 505 HTTP Version Not Supported\r\n")
        assert b'"reason":"bad_version"' in answer
        line = wait_for(lambda: next((one for one in gateway.access if one["status"] == 505), None))
        assert line["reason"] == "bad_version"
        assert backend.requests == 0


def test_a_client_that_offers_only_h2_gets_nothing_agreed_on_and_505(tmp_path: Path) -> None:
    """TLS itself succeeds, so that the refusal can be read."""
    certificate, key = write_pair(tmp_path, "local", "localhost")
    tls = {"certificates": [{"certFile": str(certificate), "keyFile": str(key)}]}
    config = gateway_config({"httpListenAddr": ANY, "tls": tls, "backends": ["127.0.0.1:9"]})
    context = client_context()
    context.set_alpn_protocols(["h2"])
    with (
        Gateway(config) as gateway,
        socket.create_connection(gateway.address("http:default"), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        assert sock.selected_alpn_protocol() is None
        sock.sendall(PREFACE)
        with contextlib.suppress(ssl.SSLEOFError):
            assert sock.recv(65536).startswith(b"HTTP/1.1 505 ")


_NGINX = """\
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port} http2; location / {{ return 200 "over $server_protocol\\n"; }} }}
}}
"""


@pytest.fixture
def http_2_server() -> Iterator[int]:
    """An nginx that speaks HTTP/2 without TLS, and nothing else; → its port."""
    program, port = need_program("nginx"), free_port()
    with tempfile.TemporaryDirectory(prefix="gogate-nginx-") as folder:
        os.chmod(folder, 0o755)
        config = Path(folder, "nginx.conf")
        config.write_text(_NGINX.format(folder=folder, port=port))
        command = [program, "-c", str(config), "-p", folder, "-e", f"{folder}/error.log"]
        with running(command, lambda: accepts(port)):
            yield port


def curl(address: tuple[str, int], *options: str) -> str:
    """What curl says of a GET."""
    url = f"http://{address[0]}:{address[1]}/"
    command = [need_program("curl"), "-s", "--noproxy", "*", "-m", "10", *options, url]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_http_2_passes_a_tcp_route(http_2_server: int) -> None:
    """A relay passes the bytes as they are: HTTP/2 from end to end."""
    with Gateway(tcp_gateway("h2", f"127.0.0.1:{http_2_server}")) as gateway:
        assert curl(gateway.address("tcp:h2"), "--http2-prior-knowledge") == "over HTTP/2.0\n"


def test_a_backend_that_speaks_only_http_2_is_502(http_2_server: int) -> None:
    """Its answer is no HTTP/1.1: the client is told, and the log says why."""
    with Gateway(http_gateway(f"127.0.0.1:{http_2_server}")) as gateway:
        status, _, body = gateway.get("/")
        assert status == 502, body
        assert b'"reason":"bad_response"' in body


def test_the_page_has_the_numbers_of_the_arena() -> None:
    """What docs/limits.md says how many there may be."""
    page = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()
    assert f"| Workers | {arena.MAX_SLOTS} ({arena.MAX_SLOTS // 2} for an upgrade" in page
    assert f"| Backends of all pools | {arena.BACKEND_ROWS:,} |".replace(",", " ") in page
    keys = f"{arena.LIMITER_KEY_BUCKETS * 8:,}".replace(",", " ")
    assert f"| {arena.LIMITER_ROWS}; keys of all of them together {keys}" in page
