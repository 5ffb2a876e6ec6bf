"""Handshakes: before a listening socket goes, let the kernel begin no new ones on it, and those under way end.

Closing a socket resets whoever the kernel completes a handshake with after the last accept: with SYN-ACKs that travel
for milliseconds, or a worker that waits for its core between accept and close, that is a request lost. So a filter
drops new SYNs first. Their clients send another after a second: it is refused, or finds who listens there by then.

Only for sockets that nobody else goes on listening with: the filter is the socket's, whoever has a copy.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
from collections.abc import Iterable
from typing import Final

#: The longest way there and back on which a handshake that has begun is still completed, seconds.
ROUND_TRIP: Final = 0.1

_SO_ATTACH_FILTER: Final = 26
_SO_DETACH_FILTER: Final = 27
#: Classic BPF over the TCP header: a SYN without ACK has no length, anything else all it has.
_NO_SYN: Final = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte of flags
        (0x54, 0, 0, 0x12),  # of them SYN and ACK
        (0x15, 0, 1, 0x02),  # only SYN?
        (0x06, 0, 0, 0),
        (0x06, 0, 0, 0xFFFFFFFF),
    )
)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def stop(sock: socket.socket) -> bool:
    """Begin no more handshakes on a listening TCP socket; False where the kernel cannot be told."""
    program = bytes(_Program(len(_NO_SYN) // 8, _NO_SYN))
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except OSError:
        return False
    return True


def allow(sock: socket.socket) -> None:
    """Begin handshakes again, if they were stopped."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
    except OSError:  # there is no filter
        pass


async def finish(sockets: Iterable[socket.socket]) -> None:
    """Begin no more on these, and wait until those that have begun are completed or will not be."""
    if [sock for sock in sockets if stop(sock)]:
        await asyncio.sleep(ROUND_TRIP)
