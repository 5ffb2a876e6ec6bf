"""Intake: an accepted connection until it is known whom it is for — what all kinds of waiting have in common.

Admitted or refused at accept, in ``plane.admission.arriving`` with a deadline while it waits, counted by its listener
until it is handed over to the protocol it is for, which counts it itself, like any that it gets from the listener.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from gogate_py.clock import monotonic
from gogate_py.dataplane import ends
from gogate_py.dataplane.client_table import REFUSED
from gogate_py.dataplane.deadlines import INFINITE

if TYPE_CHECKING:
    from gogate_py.dataplane.listeners import LiveListener
    from gogate_py.dataplane.plane import Plane
    from gogate_py.wire.proxy_protocol import ProxyHeader

log = logging.getLogger("gogate.listeners")



class Intake:
    """One connection that waits."""

    __slots__ = ("_header", "_listener", "_plane", "_ticket", "_transport", "deadline")

    def __init__(self, plane: Plane, listener: LiveListener, header: ProxyHeader | None = None) -> None:
        """``header``: of the proxy in front, where one is believed."""
        self._plane = plane
        self._listener = listener
        self._header = header
        self._ticket = REFUSED
        self._transport: Any = None
        self.deadline = INFINITE

    # --- accepted

    def _accepted(self, transport: asyncio.Transport) -> str:
        """Count it; → its client's address, or UNIX."""
        self._transport = transport
        self._listener.accepted += 1
        self._listener.active += 1
        return self._host()

    def _host(self) -> str:
        return ends.host(ends.source(self._transport, self._header))

    def _admit(self, host: str) -> bool:
        """May its client have one more? If not, it is closed."""
        plane = self._plane
        self._ticket = plane.admission.enter(self._listener, host, plane.http.is_trusted(host))
        if self._ticket == REFUSED:
            self._transport.abort()
            return False
        return True

    def _wait(self, seconds: float) -> None:
        """Wait for at most so long."""
        self.deadline = monotonic() + seconds
        self._plane.admission.arriving.add(self)
        self._plane.deadlines.add(self)

    # --- given away, or gone

    def _hand_over(self) -> int:
        """Whoever gets the connection counts it from here on; → its ticket of admission."""
        self._forget()
        self._listener.accepted -= 1
        self._listener.active -= 1
        return self._ticket

    def connection_lost(self, error: Exception | None) -> None:
        """Closed before it was given away."""
        self._forget()
        self._listener.active -= 1
        self._plane.admission.leave(self._ticket)

    def pause_writing(self) -> None:
        """What is written here is short."""

    def resume_writing(self) -> None:
        """What is written here is short."""

    def on_deadline(self, now: float) -> None:
        """Its time is over."""
        raise NotImplementedError

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _refuse(self, reason: str, detail: str) -> None:
        """Close at once, counted and logged."""
        self._forget()
        self._count_refused(reason, detail)
        self._transport.abort()

    def _count_refused(self, reason: str, detail: str) -> None:
        self._listener.refuse(reason)
        log.debug(
            "connection refused",
            extra={
                "listener": self._listener.name,
                "client": ends.label(ends.source(self._transport, self._header)),
                "reason": reason,
                "detail": detail,
            },
        )

    def _fail(self, error: Exception, where: str) -> None:
        """An exception that nobody expected: one bad connection never ends a worker (T30)."""
        self._plane.internal_error(error, where)
        self._transport.abort()

    def _forget(self) -> None:
        self._plane.admission.arriving.discard(self)
        self._plane.deadlines.discard(self)
