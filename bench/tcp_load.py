"""The benchmarks' TCP load: ``python tcp_load.py GAME --pid PROXY --port PORT [options]``; prints as measured.py says.

    echo       64-byte messages on connections that stay; the answer must be the message
    connect    a connection, one message, its answer, close
    down, up   pieces of --piece bytes, one way, on connections that stay; the units are bytes

Of ``down`` every 16th read is compared with what was sent, the others are counted; ``up`` is counted by the backend,
which answers each complete piece.
"""

from __future__ import annotations

import argparse
import socket
from time import perf_counter

from measured import Load, measure
from reactor import BLOCKED, READ, WRITE
from tcp_server import PATTERN, message

BUFFER = bytearray(1 << 18)
VIEW = memoryview(BUFFER)
_PATTERN = memoryview(PATTERN)
_LOOKED_AT = 16


class TcpLoad(Load):
    """All clients of one run."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        self.address = ("127.0.0.1", options.port)
        self.one_shot: bool = options.game == "connect"
        self.piece: int = options.piece
        kind = {"down": DownClient, "up": UpClient}.get(options.game, EchoClient)
        self.clients = [kind(self) for _ in range(options.connections)]

    def begin(self) -> None:
        self.busy = len(self.clients)
        for client in self.clients:
            client.start()


class EchoClient:
    """A message and its answer, again and again."""

    MESSAGE = message(b"E")
    def __init__(self, load: TcpLoad) -> None:
        self.load = load
        self.sock: socket.socket | None = None
        self.begun = 0.0
        self.answer = b""

    def start(self) -> None:
        """Begin the next unit."""
        self.begun = perf_counter()
        try:
            self.send(self.sock or self._connect())
        except OSError as error:
            self.failed(f"at the start: {error!r}")

    def _connect(self) -> socket.socket:
        sock = socket.create_connection(self.load.address, timeout=10.0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self.load.reactor.add(sock, self.ready)
        self.sock = sock
        return sock

    def send(self, sock: socket.socket) -> None:
        """What begins a unit."""
        sock.send(self.MESSAGE)

    def ready(self) -> None:
        """The socket is readable (or writable, for who waits for that)."""
        assert self.sock is not None
        try:
            self.go_on(self.sock)
        except BLOCKED:
            return
        except (OSError, ValueError) as error:
            self.failed(str(error) or repr(error))

    def go_on(self, sock: socket.socket) -> None:
        """Read the answer."""
        if self.whole_answer(sock, self.MESSAGE):
            self.done(sock, 1)

    def whole_answer(self, sock: socket.socket, expected: bytes) -> bool:
        """Whether exactly this has come in by now."""
        count = sock.recv_into(BUFFER)
        if not count:
            raise ValueError("the connection ended before the answer did")
        self.answer += VIEW[:count]
        if not expected.startswith(self.answer):
            raise ValueError(f"the answer was {self.answer[:80]!r}")
        if len(self.answer) < len(expected):
            return False
        self.answer = b""
        return True

    def done(self, sock: socket.socket, units: int) -> None:
        """A unit of work is complete."""
        load = self.load
        load.times.append(perf_counter() - self.begun)
        load.units += units
        if load.one_shot:
            load.reactor.close(sock)
            self.sock = None
        if load.playing:
            self.start()
        else:
            load.busy -= 1

    def failed(self, what: str) -> None:
        """Count it and be busy no more."""
        self.load.failed(what)
        self.load.busy -= 1
        if self.sock is not None:
            self.load.reactor.close(self.sock)
        self.sock, self.answer = None, b""


class DownClient(EchoClient):
    """A piece of bytes from the backend."""

    def __init__(self, load: TcpLoad) -> None:
        super().__init__(load)
        self.got = 0
        self.reads = 0

    def send(self, sock: socket.socket) -> None:
        self.got = 0
        sock.send(message(b"D", self.load.piece))

    def go_on(self, sock: socket.socket) -> None:
        self.reads += 1
        look = self.reads % _LOOKED_AT == 0
        count = sock.recv_into(BUFFER, 0, 0 if look else socket.MSG_TRUNC)
        if not count:
            raise ValueError("the connection ended within a piece")
        start = self.got % 256
        if look and VIEW[:count].tobytes() != PATTERN[start : start + count]:
            raise ValueError(f"other bytes after {self.got}")
        self.got += count
        if self.got == self.load.piece:
            self.done(sock, self.got)
        elif self.got > self.load.piece:
            raise ValueError("more bytes than were asked for")


class UpClient(EchoClient):
    """A piece of bytes to the backend."""

    def __init__(self, load: TcpLoad) -> None:
        super().__init__(load)
        self.asked = message(b"U", load.piece)
        self.sent = 0

    def send(self, sock: socket.socket) -> None:
        self.sent = 0
        sock.send(self.asked)
        self.load.reactor.wait_for(sock, READ | WRITE)

    def go_on(self, sock: socket.socket) -> None:
        left = self.load.piece - self.sent
        if left:
            start = self.sent % 256
            self.sent += sock.send(_PATTERN[start : start + min(left, len(PATTERN) - 256)])
            if self.sent == self.load.piece:
                self.load.reactor.wait_for(sock, READ)
        elif self.whole_answer(sock, self.asked):
            self.done(sock, self.load.piece)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("game", choices=("echo", "connect", "down", "up"))
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--warm-up", type=float, default=0.3)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--piece", type=int, default=64 << 20)
    options = parser.parse_args()
    measure(TcpLoad(options), options.pid, options.warm_up, options.seconds)


if __name__ == "__main__":
    main()
