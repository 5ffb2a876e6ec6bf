"""The PROXY protocol through a whole gateway with two workers: in at both kinds of listener, out to TCP backends."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
from doubles.configs import ANY, gateway_config
from doubles.gateway import Gateway, wait_for
from doubles.http_backend import HttpBackend

from gogate_py.wire.proxy_protocol import encode, parse

pytestmark = pytest.mark.slow

CLIENT, SERVER = ("203.0.113.9", 4711), ("198.51.100.1", 443)
REQUEST = b"GET / HTTP/1.1\r\nHost: gogate.test\r\nConnection: close\r\n\r\n"
V1 = encode(1, CLIENT, SERVER)
V2 = encode(2, CLIENT, SERVER)

#: Twelve first bytes → the client that the access line names; None: closed without an answer.
FRAMES = {
    "v1": (V1, "203.0.113.9"),
    "v2": (V2, "203.0.113.9"),
    "v1 IPv6": (encode(1, ("2001:db8::9", 1), ("2001:db8::1", 2)), "2001:db8::9"),
    "v2 IPv6": (encode(2, ("2001:db8::9", 1), ("2001:db8::1", 2)), "2001:db8::9"),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    "v2 LOCAL": (encode(2, None, None), "127.0.0.1"),
    "none": (b"", None),
    "twice": (V1 + V1, "203.0.113.9"),  # the second is a bad request of the client's
    "v1 malformed": (b"PROXY TCP4 203.0.113.9 198.51.100.1 4711\r\n", None),
    "v1 too long": (b"PROXY UNKNOWN " + b"x" * 100 + b"\r\n", None),
    "v2 UDP": (V2.replace(b"\x21\x11", b"\x21\x12"), None),
    "v2 too long": (V2[:14] + b"\x02\x09" + bytes(521), None),
}


def ask(address: tuple[str, int], data: bytes) -> bytes:
    """Everything that comes back for these bytes; b"" when the connection is closed without an answer."""
    with socket.create_connection(address, timeout=10) as sock:
        sock.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while more := sock.recv(65536):
                answer += more
        return answer


class Recorder:
    """A TCP backend that keeps what one connection after the other says, and answers with its length."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.sock.settimeout(10)

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.sock.getsockname()[1]}"

    def serve(self) -> bytes:
        """All that the next connection says."""
        connection, _ = self.sock.accept()
        with connection:
            connection.settimeout(10)
            data = b""
            while more := connection.recv(65536):
                data += more
            return data


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    """The TCP backend."""
    one = Recorder()
    with one.sock:
        yield one


@pytest.fixture(scope="module")
def gateway(recorder: Recorder) -> Iterator[Gateway]:
    """An HTTP listener and TCP routes that need a header from 127.0.0.1; one TCP route is closed to it."""

    def route(name: str, **settings: object) -> dict[str, object]:
        return {"name": name, "type": "tcp", "listenAddr": ANY, "pool": "tcp", **settings}

    with HttpBackend() as backend:
        config = gateway_config(
            {
                "httpListenAddr": ANY,
                "backends": [backend.address],
                "health": {"enabled": False},
                "trustedProxies": ["127.0.0.1/32"],
                "acceptProxyProtocol": True,
            },
            pools={"tcp": {"backends": [recorder.address]}},
            routes=[
                route("in", acceptProxyProtocol=True),
                route("out1", sendProxyProtocol="v1"),
                route("out2", sendProxyProtocol="v2"),
                route("through", acceptProxyProtocol=True, sendProxyProtocol="v2"),
            ],
        )
        with Gateway(config) as running:
            yield running
            assert running.metric("gogate_internal_errors_total") == 0


@pytest.mark.parametrize("name", FRAMES)
def test_frames(gateway: Gateway, name: str) -> None:
    """What is a header is one, and its client is in the log; anything else is closed without an answer."""
    frame, client = FRAMES[name]
    before = len(gateway.access)
    answer = ask(gateway.address("http:default"), frame + REQUEST)
    if client is None:
        assert answer == b""
        return
    assert answer.startswith(b"HTTP/1.1 400 " if name == "twice" else b"HTTP/1.1 200 ")
    wait_for(lambda: len(gateway.access) > before, what="the access line")
    assert gateway.access[before]["client"] == client


def test_refusals_are_counted(gateway: Gateway) -> None:
    """By listener and reason."""

    def refused() -> float:
        return gateway.metric("gogate_connections_refused_total", listener="in", reason="proxy_header")

    before = refused()
    for _ in range(4):
        assert ask(gateway.address("tcp:in"), b"SSH-2.0-OpenSSH_9.2\r\n") == b""
    wait_for(lambda: refused() == before + 4, what="the counts of both workers")


def test_an_untrusted_peer(gateway: Gateway) -> None:
    """A peer outside of trustedProxies is closed whatever it says."""
    host, port = gateway.address("http:default")
    other = socket.create_connection((host, port), timeout=10, source_address=("127.0.0.2", 0))
    with other as sock, contextlib.suppress(ConnectionError):
        sock.sendall(V1 + REQUEST)
        assert sock.recv(100) == b""

    def refused() -> float:
        return gateway.metric("gogate_connections_refused_total", reason="proxy_untrusted")

    wait_for(lambda: refused() == 1, what="the count")


@pytest.mark.parametrize(
    ("route", "header", "expected"),
    [("in", V1, None), ("out1", b"", 1), ("out2", b"", 2), ("through", V1, 2)],
)
def test_tcp(gateway: Gateway, recorder: Recorder, route: str, header: bytes, expected: int | None) -> None:
    """In, out, and through: the backend gets the client's bytes behind the header it is owed."""
    with socket.create_connection(gateway.address(f"tcp:{route}"), timeout=10) as sock:
        sock.sendall(header + b"hello")
        sock.shutdown(socket.SHUT_WR)
        data = recorder.serve()
        own = sock.getsockname()
    if expected is None:
        assert data == b"hello"
    else:
        found = parse(data)
        assert found is not None
        ends = (CLIENT, SERVER) if header else (own, gateway.address(f"tcp:{route}"))
        assert data[: found.size] == encode(expected, *ends)
        assert data[found.size :] == b"hello"
    label = "203.0.113.9:4711" if header else "{}:{}".format(*own)
    wait_for(lambda: any(line.get("client") == label for line in gateway.access), what="the access line")
