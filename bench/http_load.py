"""The benchmarks' HTTP load: ``python http_load.py --pid PROXY --port PORT [options]``; prints what measured.py says.

Each connection asks again as soon as its answer is complete. An answer must have status 200, a Content-Length (or be
chunked, where that was asked for), exactly that many bytes, and the backend's bytes at the beginning; the rest of a
large one is counted, not looked at.

    --close          a connection for every request
    --chunked        answers in one chunk of 128 bytes, which must come as that
    --down N         answers of N bytes             --up N    requests with a body of N bytes
    --tls            over TLS, without resumption
    --path /r{n}/x   {n} is a different number each time, below --variety; likewise in --field "X-Key: {n}"
"""

from __future__ import annotations

import argparse
import random
import re
import socket
import ssl
from time import perf_counter

from http_server import CHUNKED_BODY, PATTERN
from measured import Load, measure
from reactor import BLOCKED, READ, WRITE

BUFFER = bytearray(1 << 18)
VIEW = memoryview(BUFFER)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r\n", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)
_FIRST_BYTES = 128


def requests(options: argparse.Namespace) -> list[bytes]:
    """The heads that are asked, in turns."""
    path = "/chunked" if options.chunked else options.path or (f"/bytes/{options.down}" if options.down else "/")
    lines = [f"{'POST' if options.up else 'GET'} {path} HTTP/1.1", f"Host: 127.0.0.1:{options.port}",
             "User-Agent: bench/1.0", "Accept: */*"]  # fmt: skip
    lines += [options.field] if options.field else []
    lines += [f"Content-Length: {options.up}"] if options.up else []
    lines += ["Connection: close"] if options.close else []
    head = "\r\n".join(lines) + "\r\n\r\n"
    numbers = list(range(options.variety))
    random.Random(1).shuffle(numbers)
    return [head.replace("{n}", str(number)).encode() for number in numbers]


class HttpLoad(Load):
    """All clients of one run."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        self.address = ("127.0.0.1", options.port)
        self.one_shot: bool = options.close
        self.requests = requests(options)
        self.turn = random.randrange(len(self.requests))
        self.body = memoryview((PATTERN * (options.up // len(PATTERN) + 1))[: options.up])
        self.size: int = options.down or 128
        self.chunked: bool = options.chunked
        self.context: ssl.SSLContext | None = None
        if options.tls:
            self.context = ssl.create_default_context()
            self.context.check_hostname = False
            self.context.verify_mode = ssl.CERT_NONE
        self.clients = [Client(self) for _ in range(options.connections)]

    def begin(self) -> None:
        self.busy = len(self.clients)
        for client in self.clients:
            client.ask()

    def next_request(self) -> bytes:
        """The next of the requests."""
        self.turn = (self.turn + 1) % len(self.requests)
        return self.requests[self.turn]


class Client:
    """One connection after the other, or one for all requests."""

    __slots__ = ("begun", "head", "load", "out", "rest", "sock")

    def __init__(self, load: HttpLoad) -> None:
        self.load = load
        self.sock: socket.socket | None = None
        self.head = b""
        self.rest = 0
        self.out: memoryview = memoryview(b"")
        self.begun = 0.0

    def ask(self) -> None:
        """Send a request, on a new connection if there is none."""
        self.begun = perf_counter()
        load = self.load
        try:
            sock = self.sock
            if sock is None:
                sock = self._connect()
            sock.send(load.next_request())
            if load.body:
                self.out = load.body
                load.reactor.wait_for(sock, READ | WRITE)
        except OSError as error:
            self._failed(f"while asking: {error!r}")

    def _connect(self) -> socket.socket:
        load = self.load
        sock = socket.create_connection(load.address, timeout=10.0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if load.context is not None:
            sock = load.context.wrap_socket(sock)
        sock.setblocking(False)
        self.sock = sock
        load.reactor.add(sock, self.ready)
        return sock

    def ready(self) -> None:
        """Go on writing; read what is there."""
        sock = self.sock
        assert sock is not None
        try:
            if self.out:
                self.out = self.out[sock.send(self.out) :]
                if not self.out:
                    self.load.reactor.wait_for(sock, READ)
                return
            while True:
                if self.rest and self.load.context is None:
                    self.rest -= sock.recv_into(BUFFER, 0, socket.MSG_TRUNC) or self._ended()
                else:
                    self._received(sock.recv_into(BUFFER) or self._ended())
                if self.rest < 0:
                    raise ValueError("more than one answer")
                if not self.rest and not self.head:
                    self._answered(sock)
                    return
        except BLOCKED:
            return
        except (OSError, ValueError) as error:
            self._failed(str(error) or repr(error))

    def _ended(self) -> int:
        raise ValueError("the connection ended before the answer did")

    def _received(self, count: int) -> None:
        """Some bytes of the head, or of a body over TLS."""
        if self.rest:
            self.rest -= count
            return
        head = self.head = self.head + VIEW[:count]
        end = head.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        if self.load.chunked:
            if len(head) < end + len(CHUNKED_BODY):
                return
            if not head.startswith(b"HTTP/1.1 200 ") or not _CHUNKED.search(head, 0, end) or head[end:] != CHUNKED_BODY:
                raise ValueError(f"the answer was {head!r}")
            self.head = b""
            return
        length = _LENGTH.search(head, 0, end)
        if not head.startswith(b"HTTP/1.1 200 ") or length is None:
            raise ValueError(f"the answer was {head[:end]!r}")
        if self.load.one_shot and not _CLOSE.search(head, 0, end):
            raise ValueError("the answer does not say that the connection closes")
        first = head[end : end + _FIRST_BYTES]
        if int(length[1]) != self.load.size or first != PATTERN[: len(first)]:
            raise ValueError(f"the answer has other bytes: {head[:200]!r}")
        self.rest = self.load.size - (len(head) - end)
        self.head = b""

    def _answered(self, sock: socket.socket) -> None:
        load = self.load
        load.times.append(perf_counter() - self.begun)
        load.units += 1
        if load.one_shot:
            load.reactor.close(sock)
            self.sock = None
        if load.playing:
            self.ask()
        else:
            load.busy -= 1

    def _failed(self, what: str) -> None:
        """Count it and be busy no more: a broken proxy must not be asked a million times."""
        load = self.load
        load.failed(what)
        load.busy -= 1
        if self.sock is not None:
            load.reactor.close(self.sock)
        self.sock, self.head, self.rest, self.out = None, b"", 0, memoryview(b"")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--warm-up", type=float, default=0.3)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--close", action="store_true")
    parser.add_argument("--chunked", action="store_true")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--down", type=int, default=0)
    parser.add_argument("--up", type=int, default=0)
    parser.add_argument("--path", default="")
    parser.add_argument("--field", default="")
    parser.add_argument("--variety", type=int, default=1)
    options = parser.parse_args()
    measure(HttpLoad(options), options.pid, options.warm_up, options.seconds)


if __name__ == "__main__":
    main()
