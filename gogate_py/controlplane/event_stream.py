"""Event streams (SSE, WHATWG HTML section 9.2) of the admin API: framing, and clients that go or do not read.

What is told is the business of whoever streams (service_answers.py, live_stream.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final

from starlette.types import Receive, Scope

from gogate_py.controlplane.admin_connection import CONNECTION, AdminProtocol

EVENT_STREAM: Final = "text/event-stream"
#: A stream without news says so this often: proxies and clients cut what is silent.
KEEP_ALIVE: Final = 15.0
#: How long a client may leave what it was sent unread.
STUCK: Final = 30.0


def framed(kind: str, index: int, body: bytes) -> bytes:
    """One event as it is written. JSON has no raw line ends."""
    return b"event: %b\nid: %d\ndata: %b\n\n" % (kind.encode(), index, body)


@contextmanager
def waiting(scope: Scope) -> Iterator[None]:
    """A request that waits for news does not count against the quota of connections meanwhile."""
    connection: AdminProtocol | None = scope.get("state", {}).get(CONNECTION)
    if connection is not None:
        connection.watching = True
    try:
        yield
    finally:
        if connection is not None:
            connection.watching = False


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do this, unless the client goes away meanwhile. Raises what it raises."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    loop = asyncio.get_running_loop()
    leaves, works = loop.create_task(gone()), loop.create_task(work)
    try:
        await asyncio.wait((leaves, works), return_when=asyncio.FIRST_COMPLETED)
        if works.done():
            works.result()
    finally:
        for task in (leaves, works):
            task.cancel()
        await asyncio.gather(leaves, works, return_exceptions=True)


async def stream(scope: Scope, receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Send a stream until its client goes; one that does not read in time (TimeoutError) is cut."""
    try:
        await unless_gone(receive, work)
    except TimeoutError:
        connection: AdminProtocol = scope["state"][CONNECTION]
        connection.transport.abort()
