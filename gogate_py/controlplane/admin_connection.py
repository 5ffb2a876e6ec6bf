"""A connection of an admin listener: uvicorn's, with limits of size, time and number.

- a head has MAX_HEAD bytes and MAX_FIELDS fields, head and body arrive within REQUEST_TIMEOUT seconds;
- QUOTA connections may be open; beyond it the longest idle one is let go, and when none is idle the newcomer's requests
  are marked as surplus (what that means is the application's to say). Beyond MAX_CONNECTIONS it is cut. So neither a
  flood of an admin listener nor one of the data plane keeps the other from working (SECURITY.md T18, T22);
- connections whose request waits for news (service_answers.py) do not count: they have a bound of their own;
- what is refused here is answered in the API's own shape.

uvicorn runs httptools, not h11: h11 alone would take most of a CPU for 5 000 heartbeats a second. What httptools lets
pass concerns message framing towards a next hop, and there is none behind this listener.

The overridden methods are the protocol's own callbacks (asyncio's and the parser's), which uvicorn has kept for years.
"""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gogate_py.controlplane.admin_problems import raw_problem

QUOTA: Final = 64
#: Sockets of one admin listener; a burst of heartbeats on new connections stays below it.
MAX_CONNECTIONS: Final = 1024
REQUEST_TIMEOUT: Final = 5.0
MAX_HEAD: Final = 32 << 10
MAX_FIELDS: Final = 100

#: Key in the scope's state of a request that came beyond the quota.
SURPLUS: Final = "surplus"
#: Key in the scope's state: the connection itself, for a request that waits (see :attr:`AdminProtocol.watching`).
CONNECTION: Final = "connection"


class _HeadTooLarge(Exception):
    """Raised inside the parser's callback; becomes 431."""


class AdminProtocol(HttpToolsProtocol):
    """uvicorn's connection with limits of size, time and number."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Count the connection; find it a place, or remember that it has none."""
        self._deadline: asyncio.TimerHandle | None = None
        self._in_head = True
        self._head_size = 0
        self._message_open = False  # head complete, body not
        self._too_large = False
        self._idle_since = self.loop.time()
        #: Whether its request waits for news.
        self.watching = False
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self._surplus = True
            transport.abort()
            return
        self._surplus = len(self.connections) > QUOTA and self._counted() > QUOTA and not self._shed_idle()
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, as long as head and time allow."""
        if self._deadline is None:
            self._arm()
        if self._in_head:
            self._head_size += len(data)
        super().data_received(data)
        if self._in_head and self._head_size > MAX_HEAD:
            self._refuse(431, "The request head is too large.")

    def on_message_begin(self) -> None:
        """A request begins; what the application must know of the connection goes with it."""
        super().on_message_begin()
        self.scope["state"][CONNECTION] = self
        if self._surplus:
            self.scope["state"][SURPLUS] = True

    def on_headers_complete(self) -> None:
        """The head is whole."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEAD or len(self.headers) > MAX_FIELDS:
            self._too_large = True
            raise _HeadTooLarge
        super().on_headers_complete()  # may refuse it too
        self._in_head = False
        self._message_open = True

    def on_message_complete(self) -> None:
        """The request is whole: from here on it is our turn."""
        self._disarm()
        self._in_head = True
        self._head_size = 0
        self._message_open = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Idle, unless the next request waits already."""
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """What cannot be parsed is answered in the API's own shape."""
        if self._too_large:
            self._refuse(431, "The request head is too large or has too many fields.")
        else:
            self._refuse(400, "The request is not valid HTTP/1.1.")

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(REQUEST_TIMEOUT, self._late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        self._refuse(408, f"The request did not arrive within {REQUEST_TIMEOUT:g} s.")

    def _refuse(self, status: int, detail: str) -> None:
        """Close, with an answer when none is on its way."""
        if self.transport.is_closing():
            return
        answered = self.cycle is None or self.cycle.response_complete
        waiting = self.cycle is not None and self._message_open and not self.cycle.response_started
        asked = self._head_size > 0 or self._message_open
        if asked and not self.pipeline and ((answered and not self._message_open) or (waiting and not answered)):
            self.transport.write(raw_problem(status, detail))
        self.transport.close()

    @property
    def _idle(self) -> bool:
        """Nothing asked and nothing to answer (the last answer may still be on its way to a slow reader)."""
        if self.transport.is_closing():
            return True
        return self._deadline is None and self.cycle is not None and self.cycle.response_complete and not self.pipeline

    def _counted(self) -> int:
        """Connections that count to the quota."""
        return sum(not (isinstance(one, AdminProtocol) and one.watching) for one in self.connections)

    def _shed_idle(self) -> bool:
        """Let the longest idle connection go; False when none is idle."""
        idle = [one for one in self.connections if isinstance(one, AdminProtocol) and one is not self and one._idle]
        if not idle:
            return False
        min(idle, key=lambda one: one._idle_since).transport.abort()
        return True
