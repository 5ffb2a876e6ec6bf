"""Live stream: GET /events, what the dashboard shows, as it happens.

    event      data
    topology   listeners, routes, pools, backends with their states: first, and whenever any of it changes
    history    first: the figures of the last quarter of an hour, the last happenings
    beat       once a second: the figures (pulse.py)
    happened   news, when there are any (happenings.py)

Everything is made once and sent to everybody. Who is BEHIND beats behind is cut, and may come again: it then gets the
whole again. When gogate drains, streams end.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gogate_py import __version__
from gogate_py.clock import monotonic, wall
from gogate_py.config.listeners import DataListener, data_listeners, serves
from gogate_py.config.schema import Config
from gogate_py.controlplane.admin_problems import ApiError
from gogate_py.controlplane.admin_views import backend_object, route_shape
from gogate_py.controlplane.control import Control
from gogate_py.controlplane.event_stream import EVENT_STREAM, STUCK, framed, stream, waiting
from gogate_py.controlplane.happenings import BackendNow, Happenings, WorkerNow
from gogate_py.controlplane.pulse import COLUMNS, PERIOD, Pulse
from gogate_py.controlplane.supervision import Supervision
from gogate_py.telemetry.totals import Totals

MAX_WATCHERS: Final = 32
#: Events that a watcher may have left unread.
BEHIND: Final = 60

#: Breaker, ejected.
_IN_ORDER: Final = ("closed", False)

_encode: Final = msgspec.json.Encoder().encode


class Live:
    """The pulse of one gateway and who is told of it."""

    def __init__(self, control: Control, supervision: Supervision, totals: Totals) -> None:
        self._control = control
        self._supervision = supervision
        self._pulse = Pulse(totals, control.backends, supervision.backend_live)
        self._happenings = Happenings(control.watch)
        self._watchers: set[_Watcher] = set()
        self._topology = b""
        self._number = 0
        self._started = round(wall() - (monotonic() - supervision.started))
        self._shape: tuple[Config, list[dict[str, Any]]] | None = None
        # what the last look at the backends was made of, and what it saw
        self._seen: tuple[int, dict[int, tuple[str, bool]]] | None = None
        self._backends: dict[tuple[str, str], BackendNow] = {}

    def beat(self) -> None:
        """Take the pulse; to be called every PERIOD."""
        control, supervision = self._control, self._supervision
        now = wall()
        told = self._pulse.beat(monotonic(), now, in_detail=bool(self._watchers))
        news = self._happenings.look(
            now,
            self._backends_now(),
            {one.slot: WorkerNow(one.pid, one.state, one.restarts) for one in supervision.workers()},
            supervision.reloads()[1],
        )
        if not self._watchers:
            return
        if control.draining:
            for watcher in self._watchers:
                watcher.end()
            return
        topology = _encode(self.topology())
        if topology != self._topology:
            self._topology = topology
            self._tell("topology", topology)
        if news:
            self._tell("happened", _encode(news))
        if told is not None:
            self._tell("beat", _encode(told))

    def _backends_now(self) -> dict[tuple[str, str], BackendNow]:
        """What is compared of every backend. Whatever of it the control plane decides has a generation, so that nothing
        is looked at where nothing happened: a beat of a gateway with thousands of backends costs no more than another.
        """
        generation, troubled = self._control.generation, self._supervision.out_of_order()
        if self._seen != (generation, troubled):
            self._seen = (generation, troubled)
            self._backends = {
                (view.pool, view.addr): BackendNow(
                    view.healthy, view.last_error, view.draining, view.weight, *troubled.get(view.row, _IN_ORDER)
                )
                for view in self._control.backends()
            }
        return self._backends

    def _tell(self, kind: str, body: bytes) -> None:
        self._number += 1
        piece = framed(kind, self._number, body)
        for watcher in self._watchers:
            watcher.tell(piece)

    # --- what is told

    def topology(self) -> dict[str, Any]:
        """Listeners, routes, pools and backends, and how the gateway is."""
        control, supervision = self._control, self._supervision
        ready, reasons = control.readiness()
        panics = control.panics()
        backends = []
        for view in control.backends():
            one = backend_object(view, supervision.backend_live)
            # these change all the time: a beat tells of the first
            del one["active_connections"]
            one.pop("drain_ends_in_s", None)
            backends.append(one)
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started": self._started,
            "generation": control.generation,
            "ready": ready,
            "reasons": reasons,
            "warnings": control.warnings(),
            "workers": [
                {"slot": one.slot, "pid": one.pid, "state": one.state, "restarts": one.restarts}
                for one in supervision.workers()
            ],
            "listeners": self._listeners(),
            "routes": [route_shape(route, control.split(route)) for route in control.routes()],
            "pools": [
                {"name": name, "load_balancer": pool.load_balancer.type, "panic": panics.get(name, False)}
                for name, pool in control.config.effective_pools().items()
            ],
            "backends": backends,
        }

    def _listeners(self) -> list[dict[str, Any]]:
        config = self._control.config
        if self._shape is None or self._shape[0] is not config:
            routes = config.effective_routes()
            shape = []
            for one in data_listeners(config):
                if one.http:
                    on_it = [] if one.https_port else [r.name for r in routes if r.type == "http" and serves(one, r)]
                else:
                    on_it = [r.name for r in (*one.named, *((one.default,) if one.default is not None else ()))]
                shape.append(
                    {"name": one.id, "metric": _metric_name(one), "kind": one.kind, "address": one.address,
                     "routes": on_it})
            self._shape = (config, shape)
        return self._shape[1]

    # --- the endpoint

    async def answer(self, request: Request) -> Response:
        """GET /events. Raises ApiError."""
        if self._control.draining:
            raise ApiError(503, "The gateway is draining.", headers={"Retry-After": "5"})
        if len(self._watchers) >= MAX_WATCHERS:
            raise ApiError(503, f"{MAX_WATCHERS} clients watch already.", headers={"Retry-After": "5"})
        return _Stream(self)

    def first(self) -> bytes:
        """What somebody who begins to watch is told."""
        history = {
            "period_s": PERIOD, "columns": COLUMNS, "lines": list(self._pulse.history),
            "happened": list(self._happenings.latest)}
        return framed("topology", self._number, _encode(self.topology())) + framed(
            "history", self._number, _encode(history))

    def enter(self, watcher: _Watcher) -> None:
        """One more is told."""
        self._watchers.add(watcher)

    def leave(self, watcher: _Watcher) -> None:
        """It is not told any more."""
        self._watchers.discard(watcher)


def _metric_name(one: DataListener) -> str:
    """What metrics call it: its route for TCP, if that is the only one."""
    return one.default.name if one.default is not None and not one.named else one.id


class _Watcher:
    """What one client was not sent yet."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._news = asyncio.Event()
        self.ended = False

    def tell(self, piece: bytes) -> None:
        """One more event, unless it is too far behind already."""
        if len(self._pieces) >= BEHIND:
            self.end()
        elif not self.ended:
            self._pieces.append(piece)
            self._news.set()

    def end(self) -> None:
        """The stream ends."""
        self.ended = True
        self._news.set()

    async def next(self) -> bytes:
        """What is there to be sent; waits for it. b"" at the end."""
        await self._news.wait()
        self._news.clear()
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data


class _Stream(Response):
    """The stream as an answer."""

    def __init__(self, live: Live) -> None:
        super().__init__(b"", 200, {}, EVENT_STREAM)
        del self.headers["content-length"]
        self._live = live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the client goes, is too slow, or gogate drains."""
        watcher = _Watcher()
        self._live.enter(watcher)
        try:
            with waiting(scope):
                await stream(scope, receive, self._send_all(watcher, send))
        finally:
            self._live.leave(watcher)

    async def _send_all(self, watcher: _Watcher, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        data = self._live.first()
        while True:
            async with asyncio.timeout(STUCK):
                await send({"type": "http.response.body", "body": data, "more_body": True})
            if watcher.ended:
                break
            data = await watcher.next()
        await send({"type": "http.response.body", "body": b""})
