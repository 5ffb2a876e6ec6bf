"""What systemd is told, and the sockets that it passes."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gogate_py.process.systemd import Notifier, address_of, passed_sockets


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(10)
        yield sock


def environment(manager: socket.socket, **more: str) -> dict[str, str]:
    """What systemd sets."""
    return {"NOTIFY_SOCKET": manager.getsockname(), **more}


def test_what_is_said(manager: socket.socket) -> None:
    """Ready with our pid, reloading with the moment, stopping; nothing after the end."""
    notifier = Notifier(environment(manager))
    notifier.ready()
    assert manager.recv(1000) == b"READY=1\nMAINPID=%d" % os.getpid()
    notifier.reloading()
    assert manager.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
    notifier.stopping()
    assert manager.recv(1000) == b"STOPPING=1"
    notifier.close()
    notifier.ready()
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(1000)


def test_the_main_process_is_handed_over(manager: socket.socket) -> None:
    """The old process names the new one, and says nothing any more."""
    notifier = Notifier(environment(manager))
    notifier.hand_over(4711)
    assert manager.recv(1000) == b"MAINPID=4711"
    notifier.stopping()
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(1000)


def test_the_watchdog_is_fed(manager: socket.socket) -> None:
    """From ready on, from the event loop, as often as it is asked for; a watchdog of another process is not ours."""

    async def main() -> None:
        notifier = Notifier(environment(manager, WATCHDOG_USEC="20000", WATCHDOG_PID=str(os.getpid())))
        notifier.ready()
        loop = asyncio.get_running_loop()
        manager.setblocking(False)
        heard = [await loop.sock_recv(manager, 1000) for _ in range(4)]
        notifier.close()
        assert heard[1:] == [b"WATCHDOG=1"] * 3

    asyncio.run(main())
    other = Notifier(environment(manager, WATCHDOG_USEC="20000", WATCHDOG_PID="1"))
    other.ready()  # needs no event loop: it has nothing to do later


def test_nobody_listens(tmp_path: Path) -> None:
    """Without systemd, or with one that is gone, nothing happens."""
    Notifier({}).ready()
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready()
    Notifier({"NOTIFY_SOCKET": "@gogate-test-nobody"}).stopping()


@pytest.mark.parametrize("environ", [{}, {"LISTEN_FDS": "x"}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}])
def test_sockets_of_others_are_left_alone(environ: dict[str, str]) -> None:
    """Only what is for this very process is taken."""
    assert passed_sockets(environ) == {}


def test_addresses_are_written_as_in_configurations(tmp_path: Path) -> None:
    """All addresses of the machine are ":port", others are themselves."""
    for family, host, written in (
        (socket.AF_INET, "127.0.0.1", "127.0.0.1:{}"),
        (socket.AF_INET, "0.0.0.0", ":{}"),
        (socket.AF_INET6, "::1", "[::1]:{}"),
        (socket.AF_INET6, "::", ":{}"),
    ):
        with socket.socket(family) as sock:
            sock.bind((host, 0))
            assert address_of(sock) == written.format(sock.getsockname()[1])
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        assert address_of(sock) == f"unix:{tmp_path / 's'}"


def test_passed_sockets_in_a_process_of_their_own() -> None:
    """Descriptors from 3 on are taken once they listen; what is no listening stream socket is closed."""
    program = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4)\n"
        "from gogate_py.process.systemd import passed_sockets\n"
        "found = passed_sockets({'LISTEN_FDS': '2', 'LISTEN_PID': str(os.getpid())})\n"
        "print(sorted(found), [s.get_inheritable() for s in found.values()])"
    )
    with socket.socket() as listening, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        done = subprocess.run(
            [sys.executable, "-c", program, str(listening.fileno()), str(other.fileno())],
            pass_fds=[listening.fileno(), other.fileno()],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)},
        )
        assert done.stdout == f"['127.0.0.1:{listening.getsockname()[1]}'] [False]\n"
