"""Answers of GET /v1/services: the list, the list when something happens (long poll), the events as they come (SSE).

    ?name= ?tag= ?state=     only these instances; a watch is told only of those with this name and tag
    ?wait=30s&index=N        long poll: answered when something happened after N, at the latest after ``wait``; without
                             an index when something happens from now on
    Accept: text/event-stream
                             event stream: first ``services`` with the list, then one event for each thing that happens;
                             with Last-Event-ID (or ?index=) only what happened since, where that is still known

Every answer carries its index in X-Gogate-Index (in a stream: the events' id). An index that is not known, because the
gateway was restarted or too much has happened, is answered with the list at once. Who is too slow to follow a stream
gets the list again; who does not read at all is cut. When gogate drains, long polls are answered and streams end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from attrs import frozen
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gogate_py.clock import monotonic
from gogate_py.config.values import BadValue, Duration, format_duration
from gogate_py.controlplane.admin_problems import ApiError, json_answer
from gogate_py.controlplane.admin_views import service_object
from gogate_py.controlplane.control import Control
from gogate_py.controlplane.event_stream import EVENT_STREAM, KEEP_ALIVE, STUCK, framed, stream, unless_gone, waiting
from gogate_py.controlplane.registry import Registration
from gogate_py.controlplane.service_watch import Event, TooManyWatchers

INDEX: Final = "X-Gogate-Index"

#: Longest wait of a long poll, seconds.
MAX_WAIT: Final = 600.0
_WAIT: Final = Duration(0, MAX_WAIT)
_STATES: Final = ("passing", "warning", "suspect", "critical")
_encode: Final = msgspec.json.Encoder().encode


@frozen
class Asked:
    """What a request asks for. ``index``: the last one that the client knows, None for none."""

    name: str | None
    tag: str | None
    state: str | None
    wait: float
    index: int | None
    stream: bool

    @classmethod
    def of(cls, request: Request) -> Asked:
        """Read it. Raises ApiError."""
        query = request.query_params
        wait = 0.0
        if "wait" in query:
            try:
                wait = _WAIT.parse(query["wait"], False)
            except BadValue as error:
                raise ApiError(400, f"wait: {error.message}; the most is {format_duration(MAX_WAIT)}.",
                               field="wait") from None
        state = query.get("state")
        if state is not None and state not in _STATES:
            raise ApiError(400, f"state: is one of {', '.join(_STATES)}.", field="state")
        stream = request.method == "GET" and EVENT_STREAM in request.headers.get("accept", "")
        index = query.get("index")
        if stream:
            index = request.headers.get("last-event-id", index)
        number = None
        if index is not None:
            if not (index.isascii() and index.isdecimal() and len(index) <= 16):
                raise ApiError(400, f"index: is a number that an answer had as {INDEX}.", field="index")
            number = int(index)
        return cls(query.get("name"), query.get("tag"), state, wait, number, stream)

    def concerns(self, instance: Registration) -> bool:
        """Whether a watch is told of this instance."""
        return (self.name is None or instance.name == self.name) and (self.tag is None or self.tag in instance.tags)


async def services_answer(control: Control, request: Request) -> Response:
    """Answer one request. Raises ApiError."""
    asked = Asked.of(request)
    if asked.stream:
        return _Stream(control, asked)
    if asked.wait and not control.watch.closed:
        with _watching(control, request.scope):
            watch = control.watch
            since = watch.index if asked.index is None else asked.index
            await unless_gone(request.receive, watch.wait(since, asked.wait, asked.concerns))
    index = control.watch.index
    return json_answer({"services": _services(control, asked)}, headers={INDEX: str(index)})


def _services(control: Control, asked: Asked) -> list[dict[str, Any]]:
    now = monotonic()
    return [
        service_object(one, control.pools_of(one), now)
        for one in control.registrations(asked.name, asked.tag)
        if asked.state is None or one.shown_state(now) == asked.state
    ]


@contextmanager
def _watching(control: Control, scope: Scope) -> Iterator[None]:
    """Count a request among those that wait. Raises ApiError."""
    try:
        with control.watch.watching(), waiting(scope):
            yield
    except TooManyWatchers as error:
        raise ApiError(503, str(error), headers={"Retry-After": "5"}) from None


class _Stream(Response):
    """The event stream as an answer."""

    def __init__(self, control: Control, asked: Asked) -> None:
        super().__init__(b"", 200, {INDEX: str(control.watch.index)}, EVENT_STREAM)
        del self.headers["content-length"]
        self._control = control
        self._asked = asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the client goes or gogate drains. Raises ApiError before anything was sent."""
        with _watching(self._control, scope):
            await stream(scope, receive, self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        watch, asked = self._control.watch, self._asked
        known = asked.index
        while True:
            events = watch.since(known) if known is not None else None
            pieces = [self._whole()] if events is None else [
                self._told(event) for event in events if asked.concerns(event.instance)]
            known = watch.index
            async with asyncio.timeout(STUCK):
                # an empty line is a comment that costs nothing and shows a dead connection
                await send({
                    "type": "http.response.body", "body": b"".join(pieces) or b":\n\n", "more_body": True})
            if watch.closed:
                await send({"type": "http.response.body", "body": b""})
                return
            await watch.wait(known, KEEP_ALIVE, asked.concerns)

    def _whole(self) -> bytes:
        body = _encode({"services": _services(self._control, self._asked)})
        return framed("services", self._control.watch.index, body)

    def _told(self, event: Event) -> bytes:
        if not event.body:
            one = event.instance
            body = _encode(service_object(one, self._control.pools_of(one), monotonic()))
            event.body = framed(event.kind, event.index, body)
        return event.body
