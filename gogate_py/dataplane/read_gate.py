"""ReadGate: whether a connection is read, for which there may be more than one reason not to.

While it is not read, asyncio says nothing of a peer that goes away: the worker's hangups watch it instead.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from typing import Final

from gogate_py.dataplane.hangups import Hangups, Watched

#: Reasons, combined as bits.
BACKEND_FULL: Final = 1  # the backend does not take what there is
BUFFER_FULL: Final = 2  # more requests wait than may


class ReadGate:
    """The reading of one connection. Owned by its protocol, made when reading is first paused."""

    __slots__ = ("_fd", "_hangups", "_owner", "_paused", "_transport")

    def __init__(self, transport: asyncio.Transport, hangups: Hangups, owner: Watched) -> None:
        self._transport = transport
        self._hangups = hangups
        self._owner = owner
        self._paused = 0
        self._fd = -1

    def pause(self, why: int, *, fin: bool) -> None:
        """Stop reading. ``fin``: the peer's EOF, too, means that it is gone."""
        if self._transport.is_closing():
            return
        if not self._paused:
            self._transport.pause_reading()
            self.watch(fin=fin)
        self._paused |= why

    def resume(self, why: int) -> None:
        """Go on reading, if this was the last reason not to."""
        if not self._paused & why:
            return
        self._paused &= ~why
        if not self._paused and not self._transport.is_closing():
            self.forget()
            self._transport.resume_reading()

    def watch(self, *, fin: bool) -> None:
        """Tell the owner when the peer is gone."""
        self._fd = self._transport.get_extra_info("socket").fileno()
        self._hangups.watch(self._fd, self._owner, fin=fin)

    def forget(self) -> None:
        """Do not watch any more. To be called when the connection is lost, too: its descriptor is somebody else's
        soon."""
        if self._fd >= 0:
            self._hangups.forget(self._fd, self._owner)
            self._fd = -1


def unacknowledged(transport: asyncio.BaseTransport) -> int:
    """Bytes written that the kernel still holds because the peer has not acknowledged them (SIOCOUTQ, tcp(7)); 0 when
    unknown."""
    sock = transport.get_extra_info("socket")
    try:
        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])
    except (OSError, AttributeError):
        return 0
