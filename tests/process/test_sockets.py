"""Binding: one socket per worker slot, and one clear line when it cannot be."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from gogate_py.errors import StartError
from gogate_py.process.sockets import BoundListener, bind


def bound(text: str, slots: int) -> BoundListener:
    """Bind an address for so many slots."""
    return asyncio.run(bind("test", text, slots))


def test_every_slot_has_its_own_socket_on_one_port() -> None:
    """SO_REUSEPORT sockets, so that the kernel spreads connections and a dead worker's queue stays its slot's."""
    listener = bound("127.0.0.1:0", 3)
    ports = {sock.getsockname()[1] for sock in listener.sockets}
    assert len(listener.sockets) == 3
    assert ports == {listener.address.port}
    assert all(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) for sock in listener.sockets)
    listener.close()


def test_a_port_without_host_takes_ipv4_and_ipv6() -> None:
    """":port" is every address of the machine, both families where there are two."""
    listener = bound(":0", 1)
    with socket.create_connection(("127.0.0.1", listener.address.port), 5):
        pass
    if listener.sockets[0].family == socket.AF_INET6:
        with socket.create_connection(("::1", listener.address.port), 5):
            pass
    listener.close()


@pytest.mark.parametrize("reuse_port", [False, True])
def test_a_taken_port_is_one_clear_line(reuse_port: bool) -> None:
    """A second program on the port is refused, also one that would share it by SO_REUSEPORT."""
    with socket.socket() as other:
        if reuse_port:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(StartError) as caught:
            bound(f"127.0.0.1:{port}", 2)
    assert f"cannot listen on 127.0.0.1:{port}" in str(caught.value)
    assert "already in use" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_address_of_another_machine_is_one_clear_line() -> None:
    """An address that this machine does not have is named as such."""
    with pytest.raises(StartError, match="no such address"):
        bound("192.0.2.1:8080", 1)


def test_a_name_that_does_not_resolve_is_one_clear_line() -> None:
    """A listener needs an address now: a name without one ends the start."""
    with pytest.raises(StartError, match="does not resolve"):
        bound("no-such-host.invalid:8080", 1)


class TestUnixSockets:
    """unix:/path listeners: one socket shared by all slots."""

    def test_all_slots_share_it(self, tmp_path: Path) -> None:
        """A path can be bound once only, so every slot gets the same socket; the path goes with it."""
        listener = bound(f"unix:{tmp_path}/gogate.sock", 2)
        assert listener.for_slot(0, 2) == listener.for_slot(1, 2) == listener.sockets
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "gogate.sock"))
        listener.close()
        assert not (tmp_path / "gogate.sock").exists()

    def test_a_path_left_behind_is_taken_over(self, tmp_path: Path) -> None:
        """A socket file that nobody listens on (after a kill -9) does not stop the next start."""
        path = tmp_path / "gogate.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        listener = bound(f"unix:{path}", 1)
        listener.close()

    def test_a_path_in_use_is_one_clear_line(self, tmp_path: Path) -> None:
        """A socket file that somebody listens on is left alone."""
        path = tmp_path / "gogate.sock"
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            other.listen()
            with pytest.raises(StartError, match="another program listens there"):
                bound(f"unix:{path}", 1)
        assert path.exists()

    def test_a_path_that_cannot_be_is_one_clear_line(self, tmp_path: Path) -> None:
        """A folder that is none, and a file that is no socket, are said in one line."""
        (tmp_path / "file").write_text("x")
        for path in (tmp_path / "file" / "gogate.sock", tmp_path / "file"):
            with pytest.raises(StartError, match="cannot listen on unix:"):
                bound(f"unix:{path}", 1)
        assert (tmp_path / "file").read_text() == "x"

    def test_a_path_whose_owner_is_busy_is_in_use(self, tmp_path: Path) -> None:
        """A listener whose backlog is full is alive: its file is left alone, and the start does not wait for it."""
        path = tmp_path / "gogate.sock"
        with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as first:
            other.bind(str(path))
            other.listen(0)
            first.connect(str(path))
            with pytest.raises(StartError, match="another program listens there"):
                bound(f"unix:{path}", 1)
        assert path.exists()
