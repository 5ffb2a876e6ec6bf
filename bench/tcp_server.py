"""The benchmarks' TCP backend: ``python tcp_server.py PORT``. A connection plays one of three games, as the first byte
of each 64-byte message says (``tcp_load.py`` is the other side):

    E    the message is sent back
    D    a number follows in the message: so many bytes are sent
    U    likewise: so many bytes are taken in, then the message is sent back
"""

from __future__ import annotations

import socket
import sys

from parts import raise_descriptor_limit
from reactor import BLOCKED, READ, WRITE, Reactor

MESSAGE = 64
PATTERN = bytes(range(256)) * 4096
_PATTERN = memoryview(PATTERN)
BUFFER = bytearray(1 << 18)
VIEW = memoryview(BUFFER)


def message(game: bytes, number: int = 0) -> bytes:
    """64 bytes that begin with the game and a number."""
    return (game + b"%d " % number).ljust(MESSAGE, b".")


class Connection:
    """One connection: the message so far, or bytes to take in, or bytes to send."""

    __slots__ = ("asked", "give", "place", "reactor", "sock", "take")

    def __init__(self, reactor: Reactor, sock: socket.socket) -> None:
        self.reactor = reactor
        self.sock = sock
        self.asked = b""
        self.take = 0
        self.give = 0
        self.place = 0

    def ready(self) -> None:
        """Read or write."""
        if self.give:
            self._give()
            return
        try:
            count = self.sock.recv_into(BUFFER, 0, socket.MSG_TRUNC if self.take else 0)
        except BLOCKED:
            return
        except OSError:
            count = 0
        if not count:
            self.reactor.close(self.sock)
        elif self.take:
            self._taken(count)
        else:
            self.asked += VIEW[:count]
            if len(self.asked) >= MESSAGE:
                self._play(self.asked[:MESSAGE], len(self.asked) - MESSAGE)

    def _play(self, asked: bytes, beyond: int) -> None:
        self.asked = asked
        if asked.startswith(b"D"):
            self.asked = b""
            self.give, self.place = int(asked[1:].split()[0]), 0
            self.reactor.wait_for(self.sock, WRITE)
            self._give()
            return
        self.take = int(asked[1:].split()[0]) if asked.startswith(b"U") else 0
        self._taken(beyond)

    def _taken(self, count: int) -> None:
        self.take -= count
        if self.take == 0:
            answer, self.asked = self.asked, b""
            try:
                self.sock.send(answer)
            except OSError:
                self.reactor.close(self.sock)
        elif self.take < 0:
            self.reactor.close(self.sock)  # more than was said

    def _give(self) -> None:
        start = self.place % 256
        try:
            sent = self.sock.send(_PATTERN[start : start + min(self.give, len(PATTERN) - 256)])
        except BLOCKED:
            return
        except OSError:
            self.reactor.close(self.sock)
            return
        self.place += sent
        self.give -= sent
        if not self.give:
            self.reactor.wait_for(self.sock, READ)


def main(port: int) -> None:
    """Serve until killed."""
    raise_descriptor_limit()
    reactor = Reactor()
    reactor.serve(port, lambda sock: Connection(reactor, sock).ready)
    while True:
        reactor.turn(60.0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
