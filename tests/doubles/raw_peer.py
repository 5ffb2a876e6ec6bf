"""Raw sockets in a test's loop: a peer that reads, and a backend that accepts, only when it is told to."""

from __future__ import annotations

import asyncio
import select
import socket
import struct

SMALL = 16 * 1024


def small_buffers(sock: socket.socket) -> None:
    """Make the kernel take little, so that back-pressure comes soon (accepted sockets inherit it)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)


class Peer:
    """One end of a connection, on a raw socket."""

    def __init__(self, sock: socket.socket, remote: tuple[str, int] = ("", 0)) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.remote = remote
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        await self._loop.sock_sendall(self.sock, data)

    async def some(self) -> bytes:
        """What there is; b"" at EOF; raises ConnectionResetError."""
        return await self._loop.sock_recv(self.sock, 1 << 18)

    async def exactly(self, size: int) -> bytes:
        """So many bytes."""
        data = bytearray()
        while len(data) < size:
            more = await self._loop.sock_recv(self.sock, min(size - len(data), 1 << 18))
            assert more, f"EOF after {len(data)} of {size} bytes"
            data += more
        return bytes(data)

    async def until_eof(self) -> bytes:
        """Everything up to EOF."""
        data = bytearray()
        while more := await self.some():
            data += more
        return bytes(data)

    async def ends(self) -> str:
        """How the other end ends the connection, whatever it still says: "eof" or "reset"."""
        try:
            while await self.some():
                pass
        except ConnectionError:
            return "reset"
        return "eof"

    def send_now(self, data: bytes) -> int:
        """Send what the kernel takes at once; → how many bytes."""
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    def eof(self) -> None:
        """Send FIN, go on reading."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Close: FIN, or RST when something was not read."""
        self.sock.close()

    def hears(self, events: int) -> bool:
        """Whether poll(2) reports one of these events for it."""
        poll = select.poll()
        poll.register(self.sock, events)
        return bool(poll.poll(0))

    async def __aenter__(self) -> Peer:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.sock.close()


class Target:
    """A backend's listening socket. Connections wait in its accept queue until a test takes them."""

    def __init__(self, *, small: bool = False, backlog: int = 128) -> None:
        self.sock = socket.socket()
        if small:
            small_buffers(self.sock)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.listen(backlog)
        self.sock.setblocking(False)
        self.port: int = self.sock.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.endpoints: tuple[tuple[str, int], ...] = (("127.0.0.1", self.port),)
        self.peers: list[Peer] = []

    async def accept(self) -> Peer:
        """The next connection."""
        sock, remote = await asyncio.get_running_loop().sock_accept(self.sock)
        self.peers.append(Peer(sock, remote))
        return self.peers[-1]

    def waiting(self) -> bool:
        """Whether a connection waits to be accepted."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))

    def refuse(self) -> None:
        """Listen no more: the kernel refuses."""
        self.sock.close()

    def close(self) -> None:
        """Close everything."""
        self.sock.close()
        for peer in self.peers:
            peer.sock.close()
