"""The admin listeners: uvicorn inside the supervisor's loop, one server per listener (admin, metrics, registry).

A request passes the limits of its connection, the access rules and the audit log (:class:`Gate`), then the endpoints
(admin_routes.py). Rules:

- signals, logging set-up and process life are the supervisor's: uvicorn gets none of them;
- a connection has limits of size, time and number (admin_connection.py); one beyond the quota is answered 503, except
  health, readiness, metrics and heartbeats;
- a heartbeat of a known instance is answered before routing, by the same access rules: 5 000 a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
from collections.abc import Generator, Iterable, Mapping
from typing import Any, Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn import Config as UvicornConfig
from uvicorn import Server

from gogate_py.addresses import plain
from gogate_py.clock import monotonic
from gogate_py.config.schema import Config
from gogate_py.controlplane.admin_access import UNIX_PEER, AccessSettings, Refusal, WrongTokens, decide, is_change
from gogate_py.controlplane.admin_connection import QUOTA, SURPLUS, AdminProtocol
from gogate_py.controlplane.admin_problems import MAX_SHOWN, problem
from gogate_py.controlplane.admin_routes import HEARTBEAT, SERVICES, Api
from gogate_py.controlplane.control import Control
from gogate_py.controlplane.pulse import PERIOD
from gogate_py.controlplane.supervision import Supervision
from gogate_py.telemetry.totals import Totals

log = logging.getLogger("gogate.admin")
audit = logging.getLogger("gogate.audit")

#: Seconds that a connection may wait for its next request.
KEEP_ALIVE: Final = 5
#: How often the series of what was removed are looked for, and dropped log lines are counted.
UPKEEP_INTERVAL: Final = 15.0

#: How often it is looked whether the last connection is gone.
_LOOK: Final = 0.01

_HEADERS: Final = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
#: Status in an audit line for a client that went away before the answer (errors.Failure.CLIENT_GONE).
_CLIENT_GONE: Final = 499


class Gate:
    """The application of one listener: access rules and audit line around the endpoints. ``unix``: a Unix socket."""

    def __init__(self, listener: str, api: Api, access: Access, unix: bool) -> None:
        self._app = api.router(listener)
        self._access = access
        self._unix = unix
        self._takes_heartbeats = listener != "metrics"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        client = scope["client"]
        peer = UNIX_PEER if self._unix else (client[0] if client else None)
        refusal = self._access.decide(method, path, scope["http_version"], peer, scope["headers"])
        is_beat = self._takes_heartbeats and method == "PUT" and path.startswith(SERVICES) and path.endswith(HEARTBEAT)
        if refusal is None and is_beat and self._access.heartbeat(path[len(SERVICES) + 1 : -len(HEARTBEAT)]):
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            if audit.isEnabledFor(logging.DEBUG):
                _write_audit_line(method, path, peer, 204, logging.DEBUG)
            return
        if refusal is None and SURPLUS in scope["state"] and not is_beat and not self._access.is_open(method, path):
            refusal = Refusal(
                503,
                "Service Unavailable",
                f"{QUOTA} connections to the admin API are open.",
                (("Retry-After", "1"), ("Connection", "close")),
            )
        status = await self._answer(scope, receive, send, refusal)
        if is_change(method):
            _write_audit_line(method, path, peer, status, logging.INFO)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, refusal: Refusal | None) -> int:
        """Answer and say with which status."""
        status = 0

        async def noting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        app: ASGIApp = self._app
        if refusal is not None:
            app = problem(
                refusal.status, refusal.detail, scope["path"], title=refusal.title, headers=refusal.headers
            )
        try:
            await app(scope, receive, noting_send)
        except ClientDisconnect:
            return _CLIENT_GONE
        except Exception as error:  # the top of a request's task
            log.error("internal error", exc_info=error, extra={"where": "admin API", "path": scope["path"][:MAX_SHOWN]})
            self._access.totals.count("gogate_internal_errors_total", ("supervisor",))
            if not status:
                await problem(500, "gogate failed on this request.", scope["path"])(scope, receive, noting_send)
        return status


class Access:
    """What all gates share: the settings of the current configuration and the table of wrong tokens."""

    def __init__(self, control: Control, totals: Totals) -> None:
        self._control = control
        self.totals = totals
        self._wrong_tokens = WrongTokens()
        self._made_for: Config = control.config
        self._settings = _settings(control.config)

    def decide(
        self, method: str, path: str, http_version: str, peer: str | None, headers: list[tuple[bytes, bytes]]
    ) -> Refusal | None:
        """admin_access.decide with the current settings."""
        return decide(method, path, http_version, peer, headers, self._current(), self._wrong_tokens, monotonic())

    def is_open(self, method: str, path: str) -> bool:
        """Whether this is a probe or a scrape, which is answered even when the quota is used up."""
        return not is_change(method) and path in self._current().open_paths

    def heartbeat(self, identity: str) -> bool:
        """Renew a lease, when the registry is on and knows the id."""
        return self._control.config.server.registry.enabled and self._control.heartbeat(identity)

    def _current(self) -> AccessSettings:
        config = self._control.config
        if config is not self._made_for:
            self._made_for = config
            self._settings = _settings(config)
        return self._settings


class _Uvicorn(Server):
    """uvicorn's server without its signals and its ten wake-ups a second."""

    def __init__(self, config: UvicornConfig) -> None:
        super().__init__(config)
        self.serving = asyncio.Event()
        self._leave = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to the supervisor."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve from here on."""
        await super().startup(sockets)
        self.serving.set()

    async def main_loop(self) -> None:
        """Keep the Date header fresh until told to leave."""
        while not await self.on_tick(0):
            try:
                async with asyncio.timeout(1.0):
                    await self._leave.wait()
            except TimeoutError:
                pass

    def last_answers(self) -> None:
        """Accept nothing more; every answer from here on is the last one of its connection."""
        for server in self.servers:
            server.close()
        self.config.encoded_headers.append((b"connection", b"close"))
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]

    def leave(self, grace: float) -> None:
        """Stop accepting and end when what runs is answered, at the latest after ``grace`` seconds."""
        self.config.timeout_graceful_shutdown = math.ceil(grace)
        self.should_exit = True
        self._leave.set()


class AdminServers:
    """All admin listeners of the supervisor. ``sockets``: admin, metrics, registry → its bound, listening socket."""

    def __init__(
        self, control: Control, supervision: Supervision, totals: Totals, sockets: Mapping[str, socket.socket]
    ) -> None:
        self._control = control
        self._totals = totals
        self._api = Api(control, supervision, totals)
        self._access = Access(control, totals)
        self._first = dict(sockets)
        self._servers: dict[str, _Uvicorn] = {}
        self._tasks: dict[_Uvicorn, asyncio.Task[None]] = {}  # those that are left, too
        self._leaving: set[asyncio.Task[None]] = set()
        self._chores: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Serve; returns when every listener accepts. Raises what kept one from it."""
        for listener, sock in self._first.items():
            await self._add(listener, sock)
        loop = asyncio.get_running_loop()
        self._chores = [loop.create_task(self._upkeep()), loop.create_task(self._beats())]

    async def _add(self, listener: str, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        gate = Gate(listener, self._api, self._access, sock.family == socket.AF_UNIX)
        server = self._servers[listener] = _Uvicorn(_uvicorn_config(gate))
        task = self._tasks[server] = loop.create_task(server.serve([sock]))
        serving = loop.create_task(server.serving.wait())
        await asyncio.wait((task, serving), return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()
        if task.done():
            task.result()
            raise RuntimeError("the admin server ended while it started")

    async def change(self, sockets: Mapping[str, socket.socket], gone: Iterable[str], grace: float) -> None:
        """Serve further sockets, in the place of those that are served by these names; ``gone``: names that are not
        served any more. What was asked there is answered, within ``grace`` seconds: perhaps it waits for this."""
        left = [self._servers.pop(name) for name in {*gone, *sockets} if name in self._servers]
        for listener, sock in sockets.items():
            await self._add(listener, sock)
        for server in left:
            server.last_answers()
            server.leave(grace)
            task = asyncio.get_running_loop().create_task(self._end([server], grace))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def finish(self, linger: float, grace: float) -> None:
        """Accept nothing more, so that another process can, with the same sockets; then :meth:`stop`. Who is connected
        already may ask once more within ``linger`` seconds: it cannot know."""
        for server in self._tasks:
            server.last_answers()
        give_up = monotonic() + linger
        # uvicorn has no event for it
        while any(server.server_state.connections for server in self._tasks) and monotonic() < give_up:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK)
        await self.stop(grace)

    async def stop(self, grace: float) -> None:
        """Accept nothing more, answer what was asked, end within ``grace`` seconds (and a little to close)."""
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        self._chores = []
        await self._api.documents.stop()
        for server in self._servers.values():
            server.leave(grace)
        await asyncio.gather(self._end(list(self._servers.values()), grace), *self._leaving)
        self._servers.clear()
        self._api.close()

    async def _end(self, servers: list[_Uvicorn], grace: float) -> None:
        tasks = [self._tasks[server] for server in servers]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace + 1.0)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for server in servers:
            for connection in list(server.server_state.connections):
                connection.transport.abort()
            del self._tasks[server]

    async def _beats(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            try:
                self._api.live.beat()
                self._api.documents.follow(self._control.config)
            except Exception as error:  # the top of a task that must survive
                log.error("internal error", exc_info=error, extra={"where": "live figures"})
            due = max(due + PERIOD, loop.time())
            await asyncio.sleep(due - loop.time())

    async def _upkeep(self) -> None:
        while True:
            try:
                self._totals.keep(self._control.served(), monotonic())
                self._api.take_dropped_lines()
            except Exception as error:  # the top of a task that must survive
                log.error("internal error", exc_info=error, extra={"where": "admin upkeep"})
            await asyncio.sleep(UPKEEP_INTERVAL)


def _uvicorn_config(app: Any) -> UvicornConfig:
    return UvicornConfig(
        app,
        loop="none",
        http=AdminProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        # Below it uvicorn reports every malformed request of every stranger.
        log_level="error",
        access_log=False,
        workers=1,
        # Headers never say who a client is here: only the peer's address does.
        proxy_headers=False,
        server_header=False,
        headers=_HEADERS,
        timeout_keep_alive=KEEP_ALIVE,
    )


def _settings(config: Config) -> AccessSettings:
    admin = config.server.admin
    return AccessSettings.make(admin.token, admin.allowed_hosts, config.server.metrics.path)


def _write_audit_line(method: str, path: str, peer: str | None, status: int, level: int) -> None:
    """Who changed (or tried to change) what. Heartbeats only at debug level: they come by the thousand a second."""
    client = plain(peer) if peer else "unknown"  # as access lines have it
    audit.log(
        level,
        "admin change",
        extra={"method": method, "path": path[:MAX_SHOWN], "client": client, "status": status},
    )
