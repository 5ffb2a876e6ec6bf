"""Channel: framed messages between supervisor and worker over a Unix socketpair, with descriptors where a message
brings some.

A frame is a header (payload length, number of descriptors; both little-endian 32 bit) and the payload (msgspec msgpack
of a message). The descriptors travel as SCM_RIGHTS with the first byte of their frame, so their order is that of the
frames. Never waits: what the socket does not take is queued and sent when it is writable. EOF on one side means that
the other process is gone.
"""

from __future__ import annotations

import array
import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from gogate_py import messages

_HEADER: Final = struct.Struct("<II")
_READ: Final = 256 * 1024
#: SCM_MAX_FD is 253: more descriptors than that go in several messages.
MAX_FDS: Final = 200
#: How long a worker whose channel ended without a word lets its connections finish, seconds.
ORPHAN_GRACE: Final = 30.0


class Channel:
    """One end. ``on_message(message, fds)`` per message; ``on_closed()`` once, when the other side is gone."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        decode: Callable[[bytes], Any],
        on_message: Callable[[Any, list[int]], None],
        on_closed: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._decode = decode
        self._on_message = on_message
        self._on_closed = on_closed
        self._in = bytearray()
        self._in_fds: deque[int] = deque()
        self._out: deque[tuple[memoryview, list[int]]] = deque()
        self._queued = 0
        self._closed = False
        self._flushed = asyncio.Event()
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._readable)

    def backlog(self) -> int:
        """Bytes queued and not yet taken by the other side."""
        return self._queued

    def send(self, message: Any, fds: list[int] | None = None) -> None:
        """Queue a message. The descriptors are duplicated by the kernel when they are sent: keep them open until
        :meth:`flushed`."""
        if self._closed:
            return
        data = frame(messages.encode(message), len(fds or ()))
        was_empty = not self._out
        self._out.append((memoryview(data), list(fds or ())))
        self._queued += len(data)
        if was_empty:
            self._writable()
            if self._out and not self._closed:
                self._loop.add_writer(self._sock.fileno(), self._writable)

    async def flushed(self) -> None:
        """Wait until everything queued was taken, or the channel is closed."""
        if self._out and not self._closed:
            self._flushed.clear()
            await self._flushed.wait()

    def close(self) -> None:
        """Close this end; ``on_closed`` is not called."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()
            self._out.clear()
            self._flushed.set()

    def _lost(self) -> None:
        if not self._closed:
            self.close()
            self._on_closed()

    def _writable(self) -> None:
        while self._out:
            data, fds = self._out[0]
            try:
                if fds:
                    rights = array.array("i", fds)
                    sent = self._sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                else:
                    sent = self._sock.send(data)
            except BlockingIOError:
                return
            except OSError:
                self._lost()
                return
            self._queued -= sent
            if sent == len(data):
                self._out.popleft()
            else:
                self._out[0] = (data[sent:], [])  # the descriptors went with the first byte
        self._loop.remove_writer(self._sock.fileno())
        self._flushed.set()

    def read_rest(self) -> None:
        """Take what a process that is gone had sent: everything that is left in the socket, up to its end."""
        while not self._closed and self._readable():
            pass

    def _readable(self) -> bool:
        """Read once; → whether there may be more."""
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, _READ, 253)
        except BlockingIOError:
            return False
        except OSError:
            self._lost()
            return False
        self._in_fds.extend(fds)
        if not data:
            self._lost()
            return False
        self._in += data
        self._take_frames()
        return True

    def _take_frames(self) -> None:
        buffer = self._in
        at = 0
        while len(buffer) - at >= _HEADER.size:
            size, fd_count = _HEADER.unpack_from(buffer, at)
            end = at + _HEADER.size + size
            if len(buffer) < end:
                break
            message = self._decode(bytes(buffer[at + _HEADER.size : end]))
            fds = [self._in_fds.popleft() for _ in range(fd_count)]
            at = end
            self._on_message(message, fds)
            if self._closed:
                return
        del buffer[:at]


def frame(payload: bytes, fds: int) -> bytes:
    """A message as it is sent, with so many descriptors."""
    return _HEADER.pack(len(payload), fds) + payload


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a channel's socket; large buffers, so that a snapshot or a log batch goes in few turns."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return ours, theirs
