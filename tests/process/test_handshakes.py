"""Handshakes: what the kernel still begins, and still completes, on a listening socket that will go."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator

import pytest
from doubles.gateway import wait_for
from doubles.servers import free_port

from gogate_py.process import handshakes
from gogate_py.process.bindings import Bindings
from gogate_py.process.sockets import BoundListener

FAMILIES = {"IPv4": (socket.AF_INET, "127.0.0.1"), "IPv6": (socket.AF_INET6, "::1"),
            "IPv4 on a socket for both": (socket.AF_INET6, "127.0.0.1")}  # fmt: skip


@pytest.fixture(params=FAMILIES)
def listening(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, Callable[[], socket.socket]]]:
    """A listening socket, and a way to begin a connection to it that does not wait."""
    family, host = FAMILIES[request.param]
    clients: list[socket.socket] = []
    with socket.socket(family) as sock:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("127.0.0.1" if family == socket.AF_INET else "::", 0))
        sock.listen()
        sock.settimeout(5)
        port = sock.getsockname()[1]

        def begin() -> socket.socket:
            client = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            clients.append(client)
            client.setblocking(False)
            client.connect_ex((host, port))
            return client

        yield sock, begin
    for client in clients:
        client.close()


def connected(client: socket.socket) -> bool:
    """Whether the kernel has completed its handshake."""
    try:
        client.getpeername()
    except OSError:
        return False
    return True


def can_accept(sock: socket.socket) -> bool:
    """Whether a connection waits here."""
    sock.setblocking(False)
    try:
        sock.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def test_none_begin_and_all_that_were_completed_wait(
    listening: tuple[socket.socket, Callable[[], socket.socket]],
) -> None:
    """Who is connected already is accepted and served; who comes later is promised nothing, until allowed again."""
    sock, begin = listening
    before = begin()
    wait_for(lambda: connected(before), what="the handshake")
    assert handshakes.stop(sock)
    late = begin()
    with sock.accept()[0] as accepted:
        before.send(b"ping")
        assert accepted.recv(10) == b"ping"
    assert not can_accept(sock)
    assert not connected(late)
    handshakes.allow(sock)
    handshakes.allow(sock)  # nothing to take away any more
    after = begin()
    wait_for(lambda: connected(after), what="the handshake")
    assert can_accept(sock)


def is_stopped(listener: BoundListener) -> bool:
    """Whether a new connection to it gets no answer."""
    with socket.socket() as client:
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", listener.address.port))
        return not connected(client)


def test_only_where_nobody_goes_on_listening() -> None:
    """Stopped is what goes with the configuration being prepared, not what is kept, renamed or new; abandoned: nothing;
    at the end: everything, but not what systemd opened, who keeps a copy."""

    async def main() -> None:
        kept, renamed, gone = (f"127.0.0.1:{free_port()}" for _ in range(3))
        with socket.create_server(("127.0.0.1", 0)) as systemds:
            address = f"127.0.0.1:{systemds.getsockname()[1]}"
            bindings = Bindings(2, {address: systemds.dup()})
            try:
                await bindings.prepare({"kept": kept, "old": renamed, "gone": gone, "passed": address})
                bindings.commit()
                before = bindings.listeners
                await bindings.prepare({"kept": kept, "new": renamed, "more": f"127.0.0.1:{free_port()}"})
                await bindings.quiet()
                assert [is_stopped(listener) for listener in before] == [False, False, True, False]
                bindings.abandon()
                assert not any(is_stopped(listener) for listener in before)
                await bindings.prepare({"kept": kept, "old": renamed, "gone": gone, "passed by another name": address})
                bindings.release(bindings.commit())
                before = bindings.listeners
                await bindings.quiet_all()
                assert [is_stopped(listener) for listener in before] == [True, True, True, False]
            finally:
                bindings.close()

    asyncio.run(main())
