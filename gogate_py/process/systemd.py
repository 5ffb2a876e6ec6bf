"""systemd: what its service manager is told, and the sockets that it may have opened for us (sd_notify(3),
sd_listen_fds(3)). Everything is a no-op where the environment does not ask for it.

    READY=1                      every worker serves, the admin listener answers
    RELOADING=1, then READY=1    a configuration is being applied
    MAINPID=…                    the program was upgraded: another process is the main one (NotifyAccess=main: said by
                                 the old one, before the new one says READY=1)
    STOPPING=1                   draining has begun
    WATCHDOG=1                   twice in every WATCHDOG_USEC, from the event loop: a supervisor that hangs is restarted

A socket that systemd opened is used for the listener with its address (LISTEN_FDS): one socket, shared by all workers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from typing import Final

from gogate_py.addresses import Address, plain
from gogate_py.clock import monotonic_ns

log = logging.getLogger("gogate.supervisor")

#: The first descriptor that systemd passes.
_FIRST: Final = 3


class Notifier:
    """The way to the service manager; does nothing without NOTIFY_SOCKET."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        # "@" begins the name of an abstract socket.
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._period = _watchdog_period(environ)
        self._timer: asyncio.TimerHandle | None = None

    def ready(self) -> None:
        """Everything serves; from now on the watchdog is fed, if there is one."""
        self._tell(f"READY=1\nMAINPID={os.getpid()}")
        if self._period and self._timer is None:
            self._feed()

    def reloading(self) -> None:
        """Another configuration is being applied; :meth:`ready` follows."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Draining has begun."""
        self._tell("STOPPING=1")

    def hand_over(self, pid: int) -> None:
        """Another process is the service's main one from here on, and will say that it is ready."""
        self._tell(f"MAINPID={pid}")
        self.close()

    def close(self) -> None:
        """Say nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._address = ""

    def _feed(self) -> None:
        self._tell("WATCHDOG=1")
        self._timer = asyncio.get_running_loop().call_later(self._period / 2, self._feed)

    def _tell(self, state: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(state.encode(), self._address)
        except OSError as error:  # the manager is gone or busy: nothing of the gateway depends on it
            log.debug("systemd cannot be told", extra={"error": str(error)})


def _watchdog_period(environ: Mapping[str, str]) -> float:
    """Seconds in which the watchdog wants to hear of us; 0 = it does not."""
    try:
        usec = int(environ.get("WATCHDOG_USEC", "0"))
        pid = int(environ.get("WATCHDOG_PID", str(os.getpid())))
    except ValueError:
        return 0.0
    return usec / 1e6 if pid == os.getpid() and usec > 0 else 0.0


def passed_sockets(environ: Mapping[str, str] = os.environ) -> dict[str, socket.socket]:
    """The listening sockets that systemd opened for this process, by address as :class:`Address` writes it; once."""
    try:
        count = int(environ.get("LISTEN_FDS", "0"))
        mine = int(environ.get("LISTEN_PID", "0")) == os.getpid()
    except ValueError:
        return {}
    found: dict[str, socket.socket] = {}
    for fd in range(_FIRST, _FIRST + count if mine else _FIRST):
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            log.warning("systemd passed something that is no listening stream socket", extra={"fd": fd})
            sock.close()
            continue
        sock.setblocking(False)
        found[address_of(sock)] = sock
    return found


def address_of(sock: socket.socket) -> str:
    """The address of a listening socket as configurations write it: ``:port`` for all addresses of the machine."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return str(Address("", 0, name))
    host = plain(name[0])
    return str(Address("" if host in ("0.0.0.0", "::") else host, name[1]))
