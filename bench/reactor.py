"""The loads' and backends' event loop: level-triggered epoll over raw sockets, because the load must cost less than
what it measures (an answer costs about half of what it does on uvloop).

It does not sleep while there is work: who waits for less than SPIN seconds looks again and again, and lets others have
the core in between. A peer that sleeps has to be woken by the proxy's write, which costs the proxy some microseconds,
the more often the slower it is: on one machine that would be measured twice, and between machines not at all."""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from collections.abc import Callable

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
#: What a socket raises that has nothing to give, or no room.
BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
BACKLOG = 4096
#: Seconds without an event before it sleeps; BENCH_SPIN=0 has the other figures.
SPIN = float(os.environ.get("BENCH_SPIN", "0.02"))


class Reactor:
    """Calls who waits for a descriptor. A handler closes no descriptor but its own."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}

    def add(self, sock: socket.socket, handler: Callable[[], None]) -> None:
        """Call the handler whenever the socket is readable or at its end."""
        self._handlers[sock.fileno()] = handler
        self._epoll.register(sock.fileno(), READ)

    def wait_for(self, sock: socket.socket, events: int) -> None:
        """Call it for these events from now on: READ, WRITE or both."""
        self._epoll.modify(sock.fileno(), events)

    def close(self, sock: socket.socket) -> None:
        """Forget and close."""
        del self._handlers[sock.fileno()]
        sock.close()

    def turn(self, timeout: float) -> None:
        """Wait so long for events and handle them."""
        handlers = self._handlers
        for descriptor, _ in self._epoll.poll(0) or self._spin(timeout):
            handlers[descriptor]()

    def _spin(self, timeout: float) -> list[tuple[int, int]]:
        poll, spin = self._epoll.poll, min(timeout, SPIN)
        sleepless = time.perf_counter() + spin
        while time.perf_counter() < sleepless:
            os.sched_yield()
            events = poll(0)
            if events:
                return events
        return poll(timeout - spin)

    def run(self, seconds: float) -> None:
        """Handle events for this long."""
        deadline = time.perf_counter() + seconds
        while (left := deadline - time.perf_counter()) > 0:
            self.turn(left)

    def serve(self, port: int, accepted: Callable[[socket.socket], Callable[[], None]], host: str = "0.0.0.0") -> None:
        """Accept on a port; ``accepted`` makes the handler of a connection."""
        listener = socket.create_server((host, port), backlog=BACKLOG)
        listener.setblocking(False)

        def accept() -> None:
            try:
                sock, _ = listener.accept()
            except BLOCKED:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.add(sock, accepted(sock))

        self.add(listener, accept)
