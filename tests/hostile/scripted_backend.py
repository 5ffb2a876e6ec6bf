"""A backend that says what a script says, byte for byte: a thread and a blocking socket for each connection.

    def script(talk: Talk) -> None:
        head = talk.request()
        talk.send(b"HTTP/1.1 200 OK\r\n...")

    with ScriptedBackend(script) as backend:
        ...

The connection is closed when the script returns; what a gateway does to it (a reset, an early end) ends the script.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable


class Talk:
    """One connection, with its number (from 0)."""

    def __init__(self, sock: socket.socket, number: int, heads: list[bytes]) -> None:
        self.sock = sock
        self.number = number
        self._heads = heads
        self._buffer = b""

    def request(self) -> bytes:
        """The next head; ends the script at EOF. Bodies are for read()."""
        while b"\r\n\r\n" not in self._buffer:
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionError
            self._buffer += data
        head, end, self._buffer = self._buffer.partition(b"\r\n\r\n")
        self._heads.append(head + end)
        return head + end

    def read(self, size: int) -> bytes:
        """Up to so many bytes of what comes behind a head; b"" at EOF."""
        if self._buffer:
            data, self._buffer = self._buffer[:size], self._buffer[size:]
            return data
        return self.sock.recv(size)

    def send(self, *pieces: bytes) -> None:
        """Send each piece on its own."""
        for piece in pieces:
            self.sock.sendall(piece)

    def half_close(self) -> None:
        """Send FIN, and wait until the gateway closes, too."""
        self.sock.shutdown(socket.SHUT_WR)
        self.drain()

    def drain(self) -> None:
        """Read until the gateway closes."""
        while self.sock.recv(65536):
            pass

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class ScriptedBackend:
    """The server; ``heads`` are all requests that came."""

    def __init__(self, script: Callable[[Talk], None], send_buffer: int = 0) -> None:
        self.script = script
        self.heads: list[bytes] = []
        self.connections = 0
        self._server = socket.create_server(("127.0.0.1", 0), backlog=1024)
        if send_buffer:
            self._server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)  # accepted sockets inherit it
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self._server.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            talk = Talk(sock, self.connections, self.heads)
            self.connections += 1
            self._open.add(sock)
            threading.Thread(target=self._play, args=(talk,), daemon=True).start()

    def _play(self, talk: Talk) -> None:
        with contextlib.suppress(OSError):
            self.script(talk)
        with contextlib.suppress(OSError):
            talk.sock.close()
        self._open.discard(talk.sock)

    def __enter__(self) -> ScriptedBackend:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(5.0)
