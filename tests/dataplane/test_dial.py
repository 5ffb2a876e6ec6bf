"""Dial: what the kernel says of a connect, told as one error, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles.http_plane import run
from doubles.tcp_plane import both_loops

from gogate_py.dataplane import dial as dial_module
from gogate_py.dataplane.dial import DialError, dial
from gogate_py.errors import Failure

pytestmark = both_loops


class Note:
    """A protocol that notes what happens to it."""

    def __init__(self) -> None:
        self.made = self.lost = False
        self.data = b""

    def connection_made(self, transport: Any) -> None:
        self.made = True

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True


def _sockets() -> set[str]:
    """The sockets this process has open."""
    links = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own descriptor
            links.add(os.readlink(f"/proc/self/fd/{name}"))
    return {link for link in links if link.startswith("socket:")}


@pytest.fixture(autouse=True)
def no_socket_is_left() -> Iterator[None]:
    """Every test gives back its sockets."""
    before = _sockets()
    yield
    assert _sockets() <= before


async def _turns(count: int = 8) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def _listening(family: int = socket.AF_INET, address: Any = ("127.0.0.1", 0), backlog: int = 16) -> socket.socket:
    sock = socket.socket(family)
    sock.bind(address)
    sock.listen(backlog)
    sock.setblocking(False)
    return sock


@pytest.mark.parametrize("kind", ["v4", "v6", "unix"])
def test_connects(loop: str, kind: str, tmp_path: Path) -> None:
    """IPv4, IPv6 and Unix endpoints; the connection carries bytes; TCP without delay and with keepalive."""

    async def main() -> None:
        if kind == "unix":
            endpoint: tuple[str, int] = (str(tmp_path / "s"), 0)
            listener = _listening(socket.AF_UNIX, endpoint[0])
        else:
            family, host = (socket.AF_INET, "127.0.0.1") if kind == "v4" else (socket.AF_INET6, "::1")
            listener = _listening(family, (host, 0))
            endpoint = (host, listener.getsockname()[1])
        running = asyncio.get_running_loop()
        transport, note = await dial(running, Note, endpoint, 3.0)
        assert note.made
        peer, _ = await running.sock_accept(listener)
        transport.write(b"hello")
        assert await running.sock_recv(peer, 10) == b"hello"
        if kind != "unix":
            sock = transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        transport.close()
        assert await running.sock_recv(peer, 10) == b""
        peer.close()
        listener.close()
        await _turns()

    run(main(), loop)


def _error_of(loop: str, endpoint: tuple[str, int], timeout: float = 3.0) -> DialError:
    found: list[DialError] = []

    async def main() -> None:
        with pytest.raises(DialError) as caught:
            await dial(asyncio.get_running_loop(), Note, endpoint, timeout)
        found.append(caught.value)
        await _turns()

    run(main(), loop)
    return found[0]


def test_refused(loop: str) -> None:
    """Nobody listens: refused, at once."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        error = _error_of(loop, ("127.0.0.1", port))
    assert (error.failure, error.result) == (Failure.CONNECT_FAILED, "refused")
    assert error.text == str(error) == f"connect to 127.0.0.1:{port}: ECONNREFUSED"


def test_refused_v6(loop: str) -> None:
    """An IPv6 address stands in brackets."""
    with socket.socket(socket.AF_INET6) as unused:
        unused.bind(("::1", 0))
        port = unused.getsockname()[1]
        assert _error_of(loop, ("::1", port)).text == f"connect to [::1]:{port}: ECONNREFUSED"


def test_no_such_unix_socket(loop: str, tmp_path: Path) -> None:
    """A Unix socket that is not there is refused, too."""
    error = _error_of(loop, (str(tmp_path / "none"), 0))
    assert (error.result, error.text) == ("refused", f"connect to unix:{tmp_path}/none: ENOENT")


def test_full_unix_backlog(loop: str, tmp_path: Path) -> None:
    """A Unix socket whose accept queue is full says so at once."""
    listener = _listening(socket.AF_UNIX, str(tmp_path / "s"), backlog=0)
    with socket.socket(socket.AF_UNIX) as filler:
        filler.connect(str(tmp_path / "s"))
        assert _error_of(loop, (str(tmp_path / "s"), 0)).text.endswith(": EAGAIN")
    listener.close()


def test_timeout(loop: str) -> None:
    """A backend whose accept queue is full does not answer: timed out, and no descriptor is left."""
    listener = _listening(backlog=0)
    port = listener.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)):
        error = _error_of(loop, ("127.0.0.1", port), 0.02)
    listener.close()
    assert (error.failure, error.result) == (Failure.CONNECT_TIMEOUT, "timeout")
    assert error.text == f"connect to 127.0.0.1:{port}: timed out"


def test_slow_connect(loop: str) -> None:
    """A connect that is not finished at once is waited for, and finished when the kernel says so."""

    async def main() -> None:
        running = asyncio.get_running_loop()
        listener = _listening(backlog=0)
        first = socket.create_connection(listener.getsockname())
        dialing = asyncio.create_task(dial(running, Note, listener.getsockname(), 10.0))
        await _turns()
        assert not dialing.done()
        accepted, _ = listener.accept()  # room in the queue: the next SYN, within a second, is answered
        transport, note = await dialing
        assert note.made
        transport.abort()
        await _turns()
        for sock in (listener, first, accepted):
            sock.close()

    run(main(), loop)


def test_connected_to_itself(loop: str) -> None:
    """A port out of the range of source ports without a listener can connect to itself: that is a refusal."""

    async def main() -> None:
        class Own(socket.socket):
            def connect_ex(self, address: Any) -> int:
                if self.getsockname()[1] == 0:
                    self.bind(address)  # what the kernel does once in some ten thousand connects
                return super().connect_ex(address)

        module: Any = dial_module
        real = module.socket
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        module.socket = type("Socket", (), {**vars(real), "socket": Own})
        try:
            with pytest.raises(DialError) as caught:
                await dial(asyncio.get_running_loop(), Note, ("127.0.0.1", port), 3.0)
        finally:
            module.socket = real
        assert caught.value.text == f"connect to 127.0.0.1:{port}: ECONNREFUSED"

    run(main(), loop)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL])
def test_shortage(loop: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What we run out of is not the backend's fault."""

    def no_socket(*_: Any) -> Any:
        raise OSError(code, os.strerror(code))

    running: list[DialError] = []

    async def main() -> None:
        here = asyncio.get_running_loop()
        monkeypatch.setattr(socket, "socket", no_socket)
        with pytest.raises(DialError) as caught:
            await dial(here, Note, ("127.0.0.1", 1), 3.0)
        monkeypatch.undo()
        running.append(caught.value)

    run(main(), loop)
    (error,) = running
    assert (error.failure, error.result) == (Failure.NO_DESCRIPTORS, "error")
    assert error.text == f"connect to 127.0.0.1:1: short of resources here ({errno.errorcode[code]})"


def test_other_errors(loop: str) -> None:
    """What has no word of its own is an error with the kernel's name: a broadcast address cannot be connected to."""
    error = _error_of(loop, ("255.255.255.255", 9))
    assert (error.failure, error.result) == (Failure.CONNECT_FAILED, "error")
    assert error.text.startswith("connect to 255.255.255.255:9: E")


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("slow", [False, True])
def test_cancelled(loop: str, turns: int, slow: bool) -> None:
    """Cancelled at whatever step, a dial leaves no descriptor; its peer sees the end, if it saw anything."""

    async def main() -> None:
        running = asyncio.get_running_loop()
        running.set_exception_handler(lambda _, context: pytest.fail(str(context)))
        listener = _listening(backlog=0 if slow else 16)
        filler = socket.create_connection(listener.getsockname()) if slow else None
        before = _sockets()
        dialing = asyncio.create_task(dial(running, Note, listener.getsockname(), 10.0))
        await _turns(turns)
        if dialing.cancel():
            with pytest.raises(asyncio.CancelledError):
                await dialing
        else:
            dialing.result()[0].abort()
        await _turns()
        assert _sockets() == before
        if filler is not None:
            filler.close()
        listener.close()

    run(main(), loop)


def test_a_peer_that_is_faster_to_go(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An OSError while the transport is made is a DialError like any other."""

    async def main() -> None:
        running = asyncio.get_running_loop()
        listener = _listening()

        class Loop:
            def __getattr__(self, name: str) -> Any:
                return getattr(running, name)

            async def create_connection(self, *_: Any, **__: Any) -> Any:
                raise ConnectionResetError(errno.ECONNRESET, "reset")

        faulty: Any = Loop()
        with pytest.raises(DialError) as caught:
            await dial(faulty, Note, listener.getsockname(), 3.0)
        assert caught.value.text.endswith(": ECONNRESET")
        assert sys.exc_info()[0] is None
        listener.close()

    run(main(), loop)
