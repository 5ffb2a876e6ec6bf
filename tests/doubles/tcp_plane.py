"""TcpPlane: a real data plane with one TCP listener in the test's loop, and raw sockets as its clients and backends.

A raw socket reads only what a test asks for: who does not read, stalls the relay. Deadlines never fire by themselves:
the ticker is not started, and ``pass_time`` moves the clock of the sweep by hand. When it ends, everything that was
counted up must have been counted down again.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
from types import TracebackType
from typing import Any

import msgspec
import pytest
from doubles.http_plane import LIMITS, TIMEOUTS, TRANSPORT, until
from doubles.raw_peer import Peer, Target, small_buffers

from gogate_py.arena import PERMITS, Arena
from gogate_py.clock import monotonic
from gogate_py.dataplane.backend_table import LiveBackend
from gogate_py.dataplane.plane import Plane
from gogate_py.dataplane.tcp_pool import ReadyConnections
from gogate_py.dataplane.tcp_relay import TcpRelay
from gogate_py.messages import LogLines, Unreachable, Up
from gogate_py.snapshot import (
    AccessLog,
    Backend,
    BackendState,
    BackendTls,
    Breaker,
    Listener,
    Pool,
    RateLimit,
    Snapshot,
    TcpPool,
    TcpRoute,
)

LISTENER = "tcp:echo"
#: Every driver test runs on both loops.
both_loops = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
_CHUNK = bytes(range(256)) * 256


class Outbox:
    """What the plane tells its supervisor."""

    def __init__(self) -> None:
        self.messages: list[Up] = []

    def send(self, message: Up) -> None:
        self.messages.append(message)

    def backlog(self) -> int:
        return 0


class TcpPlane:
    """The bed. ``async with TcpPlane(target, …) as bed``; settings as keyword arguments, changed by :meth:`apply`."""

    def __init__(
        self,
        *targets: Target,
        idle_timeout: float = 3600.0,
        connections: int = 10_000,
        breaker: Breaker | None = None,
        tcp_pool: TcpPool | None = None,
        rate_limit: RateLimit | None = None,
        dial_timeout: float = 3.0,
        log_format: str = "json",
        log: bool = True,
        small: bool = False,
        accept_proxy: bool = False,
        send_proxy: int = 0,
        per_client: int = 0,
        trusted: tuple[str, ...] = (),
        tls: BackendTls | None = None,
        listener: dict[str, Any] | None = None,
    ) -> None:
        """``tls``: how the backends are spoken to, as backend.test. ``listener``: further settings of it."""
        self.tls = tls
        self.targets = list(targets)
        self.states: dict[int, BackendState] = {}
        self.idle_timeout = idle_timeout
        self.connections = connections
        self.breaker = breaker
        self.tcp_pool = tcp_pool
        self.rate_limit = rate_limit
        self.dial_timeout = dial_timeout
        self.log_format = log_format
        self.log = log
        self.small = small
        self.listener_settings = {"accept_proxy": accept_proxy, **(listener or {})}
        self.send_proxy = send_proxy
        self.per_client = per_client
        self.trusted = trusted
        self.pool_names = ("default",)
        self.outbox = Outbox()
        self.peers: list[Peer] = []
        self.loop_errors: list[dict[str, Any]] = []
        self.expected_errors = 0
        self._generation = 0
        self._passed = 0.0

    # --- life

    async def __aenter__(self) -> TcpPlane:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(lambda _, context: self.loop_errors.append(context))
        sock = socket.socket()
        if self.small:
            small_buffers(sock)
        sock.bind(("127.0.0.1", 0))
        sock.listen(128)
        self.port: int = sock.getsockname()[1]
        self.plane = Plane(self.loop, Arena.create(), 0, 2, 1, self.outbox)
        self.plane.listeners.add_socket(LISTENER, sock.detach())
        await self.apply()
        self.listener = self.plane.listeners.by_id[LISTENER]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        plane = self.plane
        for peer in self.peers:
            peer.sock.close()
        for target in self.targets:
            target.close()
        try:
            if error is None:
                await self.quiet()
                self.check_balance()
        finally:
            await plane.listeners.close_all()
            for backend in plane.table.rows.values():
                if backend.ready is not None:
                    backend.ready.close()
            for relay in list(plane.relays.values()):
                relay.cut("end_of_test")
            for _ in range(5):  # transports are closed a turn after they are told to
                await asyncio.sleep(0)
            plane.hangups.close()
            plane.splicer.close()
            os.close(plane.arena.fd)

    async def quiet(self) -> None:
        """Wait until no connection and no dial is left."""
        await until(lambda: not self.plane.admission.open(), f"every relay ends: {list(self.plane.relays.values())}")
        await until(lambda: not self.listener.active, "every client connection is gone")
        await until(lambda: not self.plane._tasks, "no dial is left")

    def check_balance(self) -> None:
        """Everything that is counted up was counted down again."""
        plane = self.plane
        for row in range(len(self.targets)):
            assert plane.arena.active(row, 2) == 0
            first = plane.arena.backend(row) + PERMITS
            assert sum(plane.arena.cells[first : first + 2]) == 0
        assert plane.internal_errors == self.expected_errors
        assert self.loop_errors == []
        assert not plane.hangups._watched
        assert not len(plane.splicer)
        assert not plane.splicer._masks
        free = plane.splicer.pipes._free
        assert plane.splicer.pipes.made == len(free)
        poll = select.poll()  # select() knows no descriptors above 1023, and arenas of other tests are among them
        for ends in free:
            poll.register(ends[0], select.POLLIN)
        assert not poll.poll(0), "bytes in a pipe to be used again"
        ready = [backend for backend in plane.table.rows.values() if backend.ready is not None]
        assert len(plane.deadlines) == len(ready)

    async def apply(self) -> None:
        """Give the plane a snapshot of the settings as they are now."""
        self._generation += 1
        backends = tuple(
            Backend(
                row,
                one.address,
                one.endpoints,
                1,
                self.states.get(row, BackendState(row, True, False)),
                tls_name="backend.test" if self.tls is not None else "",
            )
            for row, one in enumerate(self.targets)
        )
        transport = msgspec.structs.replace(TRANSPORT, dial_timeout=self.dial_timeout)
        pools = tuple(
            Pool(name, "round_robin", backends, transport, self.breaker, self.tcp_pool, tls=self.tls)
            for name in self.pool_names
        )
        route = TcpRoute("echo", "default", self.idle_timeout, self.send_proxy)
        await self.plane.apply(
            Snapshot(
                self._generation,
                (Listener(LISTENER, f":{self.port}", route, **self.listener_settings),),
                pools,
                (),
                msgspec.structs.replace(
                    LIMITS, connections=self.connections, connections_per_client=self.per_client
                ),
                TIMEOUTS,
                AccessLog(self.log, self.log_format, 1.0),
                "info",
                "json",
                self.trusted,
                (self.rate_limit,) if self.rate_limit else (),
            )
        )

    def set_state(self, row: int = 0, *, up: bool = True, draining: bool = False, reason: str = "") -> None:
        """A backend's health or draining changes."""
        self.states[row] = BackendState(row, up, draining, reason)
        self.plane.apply_states([self.states[row]])

    # --- acting

    async def client(self) -> Peer:
        """A new client; its connection waits to be accepted, or is."""
        return await self.connect(self.port)

    async def connect(self, port: int) -> Peer:
        """A connection to any port."""
        sock = socket.socket()
        if self.small:
            small_buffers(sock)
        peer = Peer(sock)
        self.peers.append(peer)
        await self.loop.sock_connect(sock, ("127.0.0.1", port))
        return peer

    async def pair(self, row: int = 0) -> tuple[Peer, Peer]:
        """A client and its backend's end, once they are connected."""
        client = await self.client()
        name = "{}:{}".format(*client.sock.getsockname())
        found: list[TcpRelay] = []

        def is_open() -> bool:
            found[:] = [relay for relay in self.plane.relays.values() if relay.view().client == name]
            return bool(found) and found[0].view().state == "open"

        await until(is_open, "the relay is open")
        assert found[0]._backend_side is not None
        address = found[0]._backend_side.transport.get_extra_info("sockname")
        target = self.targets[row]
        while True:  # with a tcpPool other connections may have come before
            for peer in target.peers:
                if peer.sock.fileno() >= 0 and peer.remote == address:
                    return client, peer
            await target.accept()

    def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Let the sweep believe that time passes."""
        end = self._passed + seconds
        while self._passed < end:
            self._passed = min(end, self._passed + step)
            self.plane.deadlines.sweep(monotonic() + self._passed)

    async def flood(self, sender: Peer, paused: Any) -> int:
        """Send until the relay does not read any more and the kernel takes nothing; → how many bytes.

        The bytes are those of :func:`flooded`.
        """
        sent = 0
        while True:
            taken = sender.send_now(_CHUNK[sent % len(_CHUNK) :])
            sent += taken
            if not taken:
                if stopped(paused):
                    return sent
                await asyncio.sleep(0)

    # --- seeing

    def relay(self) -> TcpRelay:
        """The only relay."""
        (relay,) = self.plane.relays.values()
        return relay

    def live(self, row: int = 0) -> LiveBackend:
        """The live backend of a row."""
        return self.plane.table.rows[row]

    def ready(self, row: int = 0) -> ReadyConnections:
        """A backend's ready connections; made by its first client."""
        ready = self.live(row).ready
        assert ready is not None
        return ready

    async def filled(self, count: int, row: int = 0) -> None:
        """Wait until so many are ready."""
        await until(lambda: self.live(row).ready is not None and len(self.ready(row)) == count, f"{count} ready")

    def unreachable(self) -> list[str]:
        """What the plane said of backends that do not answer."""
        return [message.error for message in self.outbox.messages if isinstance(message, Unreachable)]

    def text(self) -> bytes:
        """All access lines so far."""
        self.plane.access_log.flush()
        return b"".join(m.lines for m in self.outbox.messages if isinstance(m, LogLines))

    async def logged(self, count: int = 1) -> list[dict[str, Any]]:
        """The access lines, when there are so many; no more may come."""
        await until(lambda: self.text().count(b"\n") >= count, f"{count} access lines")
        lines = [json.loads(line) for line in self.text().splitlines()]
        assert len(lines) == count, lines
        return lines


def stopped(side: Any) -> bool:
    """Whether a side of a relay is not read, neither by its transport nor by splice."""
    one = side.splice
    return not side.transport.is_reading() and (one is None or not one.is_reading())


def flooded(size: int) -> bytes:
    """The first bytes that :meth:`TcpPlane.flood` sends."""
    return (_CHUNK * (size // len(_CHUNK) + 1))[:size]

