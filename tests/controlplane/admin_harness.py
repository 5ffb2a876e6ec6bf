"""A real admin API for tests: uvicorn on port 0 and a real Control, in an event loop (uvloop) of its own thread.

Only the supervisor is played. A client that binds its socket to 127.0.0.2 is shown to the access rules as STRANGER: the
kernel has no other way to come from another host without leaving the machine.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import uvloop

from gogate_py.addresses import Address
from gogate_py.clock import monotonic
from gogate_py.config.loader import load_text
from gogate_py.controlplane import admin_server
from gogate_py.controlplane.admin_server import AdminServers
from gogate_py.controlplane.control import Control
from gogate_py.controlplane.plan import Plan, plan
from gogate_py.controlplane.publisher import Publisher
from gogate_py.controlplane.reloads import Reload
from gogate_py.controlplane.supervision import LiveState, WorkerView
from gogate_py.messages import Connection, RequestRecord, RequestSummary
from gogate_py.middleware.question import Question
from gogate_py.telemetry.totals import Totals

STRANGER = "203.0.113.2"
TOKEN = "s3cret-token"

CONFIG = """
server:
  httpListenAddr: "127.0.0.1:0"
  health: {enabled: false}
  admin: {listenAddr: "127.0.0.1:0", token: "%s", allowedHosts: [localhost, gate.example, "dash.example:8443"]}
  backends: ["127.0.0.1:9001", "127.0.0.1:9002"]
"""


def connection(number: int, pool: str, backend: str) -> Connection:
    """A live L4 connection as a worker reports it."""
    return Connection(f"w0-{number}", "tcp:db", "db", pool, "127.0.0.1:5", backend, "open", 1, 2, 3.0, 0)


class PlayedSupervisor:
    """What the supervisor answers, to be set by tests."""

    def __init__(self) -> None:
        self.started = monotonic()
        self.live: list[Connection] = []
        self.slots = [WorkerView(0, 4711, "serving", 1.5, 0), WorkerView(1, 4712, "dead", 0.0, 3)]
        self.breakers: dict[int, str] = {}
        self.dropped = 0
        self.reloaded: Reload | None = None
        self.records: list[RequestRecord] = []
        self.asked_requests: tuple[int, str, int] | None = None

    def workers(self) -> list[WorkerView]:
        """Two slots."""
        return self.slots

    async def connections(self) -> list[Connection]:
        """What was set."""
        return self.live

    async def close_connection(self, connection_id: str) -> bool:
        """Take it from what was set."""
        before = len(self.live)
        self.live = [one for one in self.live if one.id != connection_id]
        return len(self.live) < before

    async def requests(self, limit: int, route: str, status: int) -> list[RequestSummary]:
        """What was asked for, of what was set."""
        self.asked_requests = (limit, route, status)
        return [one.summary for one in self.records]

    async def request(self, identity: str) -> RequestRecord | None:
        """Of what was set."""
        return next((one for one in self.records if one.summary.id == identity), None)

    def backend_live(self, row: int) -> LiveState:
        """Seven active; the breaker that was set."""
        return LiveState(7, self.breakers.get(row, "closed"), False)

    def out_of_order(self) -> dict[int, tuple[str, bool]]:
        """Those with a breaker that was set."""
        return {row: (breaker, False) for row, breaker in self.breakers.items() if breaker != "closed"}

    def explain(self, question: Question, listener: str) -> dict[str, Any]:
        """What was asked."""
        return {"asked": question.head.decode("latin-1"), "client": question.client, "listener": listener}

    async def reload(self) -> Reload | None:
        """What was set."""
        return self.reloaded

    async def plan(self, text: str) -> Plan | None:
        """What this text would change of the harness's configuration."""
        return plan(load_text(CONFIG % TOKEN, "config.yaml", {}), load_text(text, "config.yaml", {}))

    def reloads(self) -> tuple[str, list[Reload], Reload | None]:
        """The one that was set."""
        done = self.reloaded
        return "config.yaml", [done] if done else [], done if done and done.result == "failure" else None

    def log_lines_dropped(self) -> int:
        """What was set, once."""
        dropped, self.dropped = self.dropped, 0
        return dropped


class Answer:
    """Status, lower-case headers, body."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"<{self.status} {self.body[:200]!r}>"


class AdminHarness:
    """One control plane with its admin listeners."""

    def __init__(self, config: str, listeners: tuple[str, ...], port: int = 0) -> None:
        self.config = load_text(config, "config.yaml", {})
        self.supervisor = PlayedSupervisor()
        self.totals = Totals()
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self.sockets = {name: _listen(port) for name in listeners}
        self.addresses = {name: sock.getsockname()[:2] for name, sock in self.sockets.items()}
        self.control: Control
        self.servers: AdminServers
        self.thread = threading.Thread(target=self._run_loop, daemon=True)
        self.thread.start()
        self.call(self._start())

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()

    async def _start(self) -> None:
        own = [Address(host, port) for host, port in self.addresses.values()]
        self.control = Control(
            self.config, publisher=Publisher(), workers=2, own_addresses=own, count=self.totals.count
        )
        await self.control.start()
        self.control.starting = False
        self.servers = AdminServers(self.control, self.supervisor, self.totals, self.sockets)
        await self.servers.start()

    def call(self, coroutine: Any) -> Any:
        """Run a coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    def stop(self) -> None:
        """End everything."""

        async def end() -> None:
            await self.servers.stop(1.0)
            await self.control.stop()

        self.call(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)

    # --- clients

    @property
    def url(self) -> str:
        """Of the admin listener."""
        host, port = self.addresses["admin"]
        return f"http://{host}:{port}"

    def connect(self, listener: str = "admin", *, stranger: bool = False) -> socket.socket:
        """A raw connection."""
        source = ("127.0.0.2", 0) if stranger else None
        return socket.create_connection(self.addresses[listener], timeout=10, source_address=source)

    def raw(self, data: bytes, listener: str = "admin", *, stranger: bool = False) -> bytes:
        """Send bytes on a new connection; everything that comes back until it is closed."""
        with self.connect(listener, stranger=stranger) as sock:
            sock.sendall(data)
            return read_all(sock)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        stranger: bool = False,
        listener: str = "admin",
    ) -> Answer:
        """One request. A body that is not bytes is sent as JSON."""
        host, port = self.addresses[listener]
        source = ("127.0.0.2", 0) if stranger else None
        client = http.client.HTTPConnection(host, port, timeout=10, source_address=source)
        send = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            send.setdefault("Content-Type", "application/json")
        try:
            client.request(method, path, body, send)
            answer = client.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            client.close()


def read_all(sock: socket.socket) -> bytes:
    """Everything until the peer closes (or resets)."""
    found = b""
    try:
        while data := sock.recv(65536):
            found += data
    except ConnectionResetError:
        pass
    return found


@contextmanager
def admin_api(
    config: str = CONFIG % TOKEN, listeners: tuple[str, ...] = ("admin",), errors: int = 0, port: int = 0
) -> Iterator[AdminHarness]:
    """A running admin API; fails when not exactly ``errors`` internal errors were logged."""
    real = admin_server._uvicorn_config
    logged = _Errors()
    logging.getLogger("gogate").addHandler(logged)

    def with_strangers(app: Any) -> Any:
        gate = app

        async def outer(scope: Any, receive: Any, send: Any) -> None:
            if scope["client"] and scope["client"][0] == "127.0.0.2":
                scope["client"] = (STRANGER, scope["client"][1])
            await gate(scope, receive, send)

        return real(outer)

    admin_server._uvicorn_config = with_strangers
    try:
        harness = AdminHarness(config, listeners, port)
        logged.thread = harness.thread.ident
        try:
            yield harness
        finally:
            harness.stop()
    finally:
        admin_server._uvicorn_config = real
        logging.getLogger("gogate").removeHandler(logged)
    assert len(logged.seen) == errors, logged.seen


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.thread: int | None = None  # of the API in question: several may run

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() == "internal error" and record.thread == self.thread:
            self.seen.append(repr(record.exc_info))


def _listen(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", port))
    sock.listen(128)
    return sock
