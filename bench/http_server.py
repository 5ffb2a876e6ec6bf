"""The benchmarks' HTTP backend: ``python http_server.py PORT``.

/bytes/N is answered with N bytes, everything else with 128, /chunked in a chunk; a request's body is taken in whole
first. It listens on every address of the machine, so that 127.0.0.1, 127.0.0.2 … are as many backends.
"""

from __future__ import annotations

import functools
import re
import socket
import sys

from parts import raise_descriptor_limit
from reactor import BLOCKED, READ, WRITE, Reactor

PATTERN = bytes(range(256)) * 4096
BUFFER = bytearray(1 << 18)
VIEW = memoryview(BUFFER)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)
_SIZE = re.compile(rb"[A-Z]+ /bytes/(\d+) ")


@functools.cache
def answer(size: int) -> memoryview:
    """Head and body of an answer."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % size
    return memoryview(head + (PATTERN * (size // len(PATTERN) + 1))[:size])


SMALL = bytes(answer(128))
CHUNKED_BODY = b"80\r\n%b\r\n0\r\n\r\n" % PATTERN[:128]
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED_BODY


class Connection:
    """One connection: the head so far, or the rest of a request's body, or the rest of an answer."""

    __slots__ = ("closing", "head", "out", "reactor", "reply", "rest", "sock")

    def __init__(self, reactor: Reactor, sock: socket.socket) -> None:
        self.reactor = reactor
        self.sock = sock
        self.head = b""
        self.rest = 0
        self.reply: memoryview | bytes = b""
        self.out: memoryview | bytes = b""
        self.closing = False

    def ready(self) -> None:
        """Read, or go on writing."""
        try:
            if self.out:
                self._write()
                return
            count = self.sock.recv_into(BUFFER, 0, socket.MSG_TRUNC if self.rest else 0)
        except BLOCKED:
            return
        except OSError:
            count = 0
        if not count:
            self.reactor.close(self.sock)
        elif self.rest:
            self._body(count)
        else:
            self.head += VIEW[:count]
            end = self.head.find(b"\r\n\r\n") + 4
            if end > 3:
                self._request(self.head[:end], len(self.head) - end)

    def _request(self, head: bytes, beyond: int) -> None:
        self.head = b""
        if head.startswith(b"GET / "):
            self.reply = SMALL
        elif head.startswith(b"GET /chunked "):
            self.reply = CHUNKED
        else:
            size = _SIZE.match(head)
            self.reply = answer(int(size[1])) if size else SMALL
        self.closing = _CLOSE.search(head) is not None
        length = None if head.startswith(b"GET") else _LENGTH.search(head)
        self.rest = int(length[1]) if length else 0
        self._body(beyond)

    def _body(self, count: int) -> None:
        self.rest -= count
        if self.rest < 0:
            self.reactor.close(self.sock)  # more than one request: no proxy does that
        elif self.rest == 0:
            self.out = self.reply
            self._write()

    def _write(self) -> None:
        waited = self.out is not self.reply
        try:
            sent = self.sock.send(self.out)
        except BLOCKED:
            sent = 0
        except OSError:
            self.reactor.close(self.sock)
            return
        if sent == len(self.out):
            self.out = b""
            if self.closing:
                self.reactor.close(self.sock)
            elif waited:
                self.reactor.wait_for(self.sock, READ)
            return
        if not waited:
            self.reactor.wait_for(self.sock, WRITE)
        self.out = memoryview(self.out)[sent:]


def main(port: int) -> None:
    """Serve until killed."""
    raise_descriptor_limit()
    reactor = Reactor()
    reactor.serve(port, lambda sock: Connection(reactor, sock).ready)
    while True:
        reactor.turn(60.0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
