"""HttpPlane: a real data plane with one HTTP listener in the test's loop, its scripted backends, and raw clients.

Deadlines never fire by themselves: the ticker is not started, and ``pass_time`` moves the clock of the sweep by hand.
When it ends without an error, every count must be back at zero.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import ssl
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

import msgspec
import uvloop
from doubles.stub_upstream import StubUpstream, Talk

from gogate_py.arena import PERMITS, Arena
from gogate_py.clock import monotonic
from gogate_py.dataplane.plane import Plane
from gogate_py.messages import LogLines, Up
from gogate_py.snapshot import (
    AccessLog,
    Backend,
    BackendState,
    Breaker,
    HeadRules,
    HttpRoute,
    HttpTransport,
    Limits,
    Listener,
    Pool,
    RateLimit,
    Retry,
    Snapshot,
    Timeouts,
)

LISTENER = "http:default"
TIMEOUTS = Timeouts(0.0, 15.0, 60.0, 60.0, 10.0, 3600.0, 240)
LIMITS = Limits(
    8192, 32768, 100, 0, 65536, 128, 10000, 1000, ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
)
TRANSPORT = HttpTransport(64, 0, 1024, 90.0, 0.0, 3.0)
#: As config.reference.yaml has it.
RETRY = Retry(2, 0.0, 65536, True, True, False, (502, 503, 504), 0.025, 0.25, 20, ("idempotent",))


def run(main: Coroutine[Any, Any, None], loop: str = "uvloop") -> None:
    """Run a test's coroutine, at most 30 s."""

    async def limited() -> None:
        async with asyncio.timeout(30):
            await main

    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(limited())


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Wait for a condition, at most 10 s."""
    give_up = monotonic() + 10
    while not condition():
        assert monotonic() < give_up, f"never came true: {what or condition}"
        await asyncio.sleep(0.001)


class Response:
    """One response as a client read it."""

    def __init__(self, head: bytes) -> None:
        self.head = head
        self.body = b""
        self.raw_body = b""
        line, *fields = head[:-4].split(b"\r\n")
        self.status = int(line.split(b" ")[1])
        self.fields: dict[str, str] = {}
        for field in fields:
            name, _, value = field.decode("latin-1").partition(": ")
            self.fields[name.lower()] = value

    @property
    def problem(self) -> dict[str, Any]:
        """The decoded problem+json body."""
        assert self.fields["content-type"] == "application/problem+json"
        decoded: dict[str, Any] = json.loads(self.body)
        return decoded


class Client(Talk):
    """A client's side of a connection."""

    async def response(self, method: str = "GET") -> Response:
        """Read one response, with its body as it is framed."""
        response = Response(await self.head())
        if response.status < 200 or response.status in (204, 304) or method == "HEAD":
            return response
        length = response.fields.get("content-length")
        start = len(self.received)
        if length is not None:
            response.body = await self.exactly(int(length))
        elif response.fields.get("transfer-encoding") == "chunked":
            response.body = await self.chunked_body()
        else:
            response.body = await self.until_eof()
        response.raw_body = self.received[start:]
        return response

    async def get(self, path: str = "/", fields: str = "", method: str = "GET") -> Response:
        """Send one request without a body, and read its response."""
        await self.send(f"{method} {path} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n".encode())
        return await self.response(method)


class _Outbox:
    """What the plane tells its supervisor."""

    def __init__(self) -> None:
        self.messages: list[Up] = []

    def send(self, message: Up) -> None:
        self.messages.append(message)

    def backlog(self) -> int:
        return 0


class HttpPlane:
    """The bed. ``async with HttpPlane(backend, …) as bed``; settings as keyword arguments."""

    def __init__(
        self,
        *backends: StubUpstream,
        timeouts: dict[str, Any] | None = None,
        limits: dict[str, Any] | None = None,
        transport: dict[str, Any] | None = None,
        breaker: Breaker | None = None,
        balancer: str = "round_robin",
        routes: tuple[dict[str, Any], ...] = ({},),
        trusted: tuple[str, ...] = (),
        rate_limit: RateLimit | None = None,
        head_rules: HeadRules | None = None,
        send_buffer: int = 0,
        accept_proxy: bool = False,
        pool: dict[str, Any] | None = None,
        pools: dict[str, tuple[int, ...]] | None = None,
        listener: dict[str, Any] | None = None,
    ) -> None:
        """``pool``: further settings of every pool; ``pools``: name → places of its backends (default: one pool named
        default with all); a route names one of them. ``listener``: further settings of it (tls: clients
        have to ask for TLS)."""
        self.backends = backends
        self.timeouts = msgspec.structs.replace(TIMEOUTS, **(timeouts or {}))
        self.limits = msgspec.structs.replace(LIMITS, **(limits or {}))
        self.transport = msgspec.structs.replace(TRANSPORT, **(transport or {}))
        self.breaker = breaker
        self.balancer = balancer
        self.routes = routes
        self.trusted = trusted
        self.rate_limit = rate_limit
        self.head_rules = head_rules or HeadRules()
        self.pool = pool or {}
        self.pools = pools or {"default": tuple(range(len(backends)))}
        self.tls_name = "backend.test"  # what the certificate of a backend with TLS must be for
        self.weights: dict[int, int] = {}
        self.backups: set[int] = set()
        self.send_buffer = send_buffer  # of the kernel, towards clients; small: back-pressure comes soon
        self.listener_settings = {"accept_proxy": accept_proxy, **(listener or {})}
        self.outbox = _Outbox()
        self.clients: list[Client] = []
        self.loop_errors: list[dict[str, Any]] = []
        self.states: dict[int, BackendState] = {}
        self._passed = 0.0
        self._generation = 0

    # --- life

    async def __aenter__(self) -> HttpPlane:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.loop_errors.append(context))
        sock = socket.socket()
        if self.send_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.send_buffer)
        sock.bind(("127.0.0.1", 0))
        sock.listen(128)
        self.port = sock.getsockname()[1]
        self.plane = Plane(loop, Arena.create(), 0, 2, 1, self.outbox)
        self.site = self.plane.http
        self.plane.listeners.add_socket(LISTENER, sock.detach())
        for backend in self.backends:
            if not backend.port:
                await backend.start()
        await self.apply()
        self.listener = self.plane.listeners.by_id[LISTENER]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self.clients:
            client.writer.transport.abort()
        if error is None:
            await until(lambda: not self.plane.admission.open(), "every client connection is gone")
            await until(lambda: not self.plane._tasks, "no dial is left")
        await self.plane.listeners.close_all()
        self.plane.http.cut()
        for live in self.plane.table.rows.values():
            if live.http is not None:
                live.http.close_idle()
        for backend in self.backends:
            await backend.stop()
        if error is None:
            self.check_balance()
            for live in self.plane.table.rows.values():
                if live.http is not None:
                    connections = live.http
                    await until(lambda connections=connections: connections._open == 0, "no backend connection is left")
            assert not self.plane.hangups._watched
        self.plane.hangups.close()
        os.close(self.plane.arena.fd)

    def check_balance(self) -> None:
        """Everything that is counted up was counted down again."""
        assert self.site.in_flight == 0
        arena = self.plane.arena
        for row in self.plane.table.rows:
            assert arena.active(row, 2) == 0
            first = arena.backend(row) + PERMITS
            assert sum(arena.cells[first : first + 2]) == 0
        assert self.plane.internal_errors == 0
        assert self.loop_errors == []

    def snapshot(self) -> Snapshot:
        """The snapshot of the settings as they are now."""
        self._generation += 1
        backends = [
            Backend(
                row,
                backend.address,
                (("127.0.0.1", backend.port),),
                self.weights.get(row, 1),
                self.states.get(row, BackendState(row, True, False)),
                row in self.backups,
                self.tls_name if backend.tls is not None else "",
            )
            for row, backend in enumerate(self.backends)
        ]
        pools = tuple(
            Pool(
                name,
                self.balancer,
                tuple(backends[row] for row in rows if row < len(backends)),
                self.transport,
                self.breaker,
                **self.pool,
            )
            for name, rows in self.pools.items()
        )
        base = HttpRoute(
            "all", "default", "", "", "/", (), self.timeouts, True, retry=RETRY, max_body=self.limits.request_body
        )
        return Snapshot(
            self._generation,
            (Listener(LISTENER, f":{self.port}", **self.listener_settings),),
            pools,
            tuple(msgspec.structs.replace(base, **route) for route in self.routes),
            self.limits,
            self.timeouts,
            AccessLog(True, "json", 1.0),
            "info",
            "json",
            self.trusted,
            (self.rate_limit,) if self.rate_limit else (),
            self.head_rules,
        )

    async def apply(self) -> None:
        """Give the plane a snapshot of the settings as they are now."""
        await self.plane.apply(self.snapshot())

    # --- acting

    async def client(
        self,
        *,
        limit: int = 1 << 24,
        receive_buffer: int = 0,
        tls: ssl.SSLContext | None = None,
        name: str = "",
        first: bytes = b"",
    ) -> Client:
        """A new connection. ``limit`` bounds what is read ahead, ``receive_buffer`` what its kernel takes. With ``tls``
        for the server ``name`` ("" for none); ``first`` goes out before that."""
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        await asyncio.get_running_loop().sock_sendall(sock, first)
        options = {"ssl": tls, "server_hostname": name} if tls is not None else {}
        client = Client(*await asyncio.open_connection(sock=sock, limit=limit, **options))
        self.clients.append(client)
        return client

    async def exchange(self, data: bytes, method: str = "GET") -> Response:
        """One request on a connection of its own."""
        client = await self.client()
        await client.send(data)
        response = await client.response(method)
        client.close()
        return response

    def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Let the sweep believe that time passes."""
        end = self._passed + seconds
        while self._passed < end:
            self._passed = min(end, self._passed + step)
            self.plane.deadlines.sweep(monotonic() + self._passed)

    # --- seeing

    def live(self, row: int = 0) -> Any:
        """The live backend of a row."""
        return self.plane.table.rows[row]

    def lines(self) -> list[dict[str, Any]]:
        """All access lines so far."""
        self.plane.access_log.flush()
        text = b"".join(m.lines for m in self.outbox.messages if isinstance(m, LogLines))
        return [json.loads(line) for line in text.splitlines()]

    async def logged(self, count: int = 1) -> list[dict[str, Any]]:
        """The access lines, when there are so many; no more may come."""
        await until(lambda: len(self.lines()) >= count, f"{count} access lines")
        lines = self.lines()
        assert len(lines) == count, lines
        return lines


def fields_of(head: bytes) -> list[tuple[str, str]]:
    """(name, value) of every line of a head."""
    return re.findall(r"\r\n([^:\r\n]+): ([^\r\n]*)", head.decode("latin-1"))


def field(head: bytes, name: str) -> str | None:
    """The one value of a field, None without it."""
    values = [value for key, value in fields_of(head) if key.lower() == name.lower()]
    assert len(values) <= 1, values
    return values[0] if values else None
