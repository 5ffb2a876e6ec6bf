"""Admission: whether an accepted connection may stay, and what is done when there is no room (SECURITY.md T18, F11).

    as many connections as this worker may have   idle kept-alive clients are closed to make room; none: refused
    as many as the client may have, machine-wide  refused (client_table)
    no descriptor left for a backend connection   idle connections of both sides are closed, accepting pauses for a tick

A worker may have ``limits.connections``, or what its descriptors allow: two for each connection, with its backend's,
and a reserve for everything else. Refused connections are closed at accept and counted by reason.
"""

from __future__ import annotations

import heapq
import logging
import resource
from typing import TYPE_CHECKING, Final

from gogate_py.clock import monotonic
from gogate_py.dataplane.client_table import REFUSED, UNCOUNTED, ClientTable, client_key
from gogate_py.dataplane.ends import UNIX

if TYPE_CHECKING:
    from gogate_py.dataplane.intake import Intake
    from gogate_py.dataplane.listeners import LiveListener
    from gogate_py.dataplane.plane import Plane
    from gogate_py.snapshot import Snapshot

log = logging.getLogger("gogate.plane")

#: Descriptors for listeners, channel, event loop, ready and idle backend connections.
RESERVE: Final = 128
#: Even with hardly any descriptors some connections are served.
FEWEST: Final = 16
#: The share of the connections that is looked for at once when room must be made: looking costs time for each of them.
_SHED_SHARE: Final = 16
#: After looking in vain (10 000 connections: 1 ms), and between two lines about descriptors: seconds.
_PAUSE: Final = 0.05
_LOG_PAUSE: Final = 1.0

# Reasons of gogate_connections_refused_total.
FULL: Final = "connections"
FULL_FOR_CLIENT: Final = "connections_per_client"


def descriptor_cap() -> int:
    """Connections that this process has descriptors for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else max(FEWEST, (soft - RESERVE) // 2)


class Admission:
    """The one of a worker. ``arriving``: connections that wait for a PROXY header, a ClientHello or a handshake."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._clients = ClientTable(plane.arena, plane.column, plane.columns)
        self.cap = 0  # client connections that this worker may have
        self._per_client = 0
        self._look_after = 0.0
        self._log_after = 0.0
        self.arriving: set[Intake] = set()

    def apply(self, snapshot: Snapshot) -> None:
        """Take over a snapshot's limits; who is here stays."""
        limits = snapshot.limits
        allowed = descriptor_cap()
        cap = min(limits.connections, allowed)
        if cap != self.cap and allowed < limits.connections and not self._plane.slot:
            log.warning(
                "file descriptors allow fewer connections than configured; raise the limit (ulimit -n, LimitNOFILE)",
                extra={"connections_per_worker": cap, "configured": limits.connections},
            )
        self.cap = cap
        self._per_client = limits.connections_per_client

    def open(self) -> int:
        """Client connections of this worker."""
        plane = self._plane
        return len(plane.http.clients) + len(plane.relays) + len(self.arriving)

    def has_room(self, listener: LiveListener) -> bool:
        """Whether one more connection fits into this worker, after making room if need be; counted when not."""
        if self.open() < self.cap or self._make_room():
            return True
        listener.refuse(FULL)
        return False

    def enter(self, listener: LiveListener, host: str, trusted: bool) -> int:
        """May a client of this address (or UNIX) stay? → what to give to :meth:`leave`; REFUSED, and counted, if not.

        ``trusted`` proxies have one connection for many clients, and no limit.
        """
        if not self.has_room(listener):
            return REFUSED
        limit = self._per_client
        if not limit or trusted or host == UNIX:
            return UNCOUNTED
        ticket = self._clients.admit(client_key(host), limit)
        if ticket == REFUSED:
            listener.refuse(FULL_FOR_CLIENT)
        return ticket

    def leave(self, ticket: int) -> None:
        """A connection is closed, whatever ``enter`` said of it."""
        if ticket >= 0:
            self._clients.release(ticket)

    def take_uncounted(self) -> int:
        """Connections since the last call that the client table had no time or room for."""
        uncounted, self._clients.contended = self._clients.contended, 0
        return uncounted

    # --- when there is no room

    def _make_room(self) -> bool:
        """Close the clients that have been idle the longest; → whether there were any."""
        now = monotonic()
        if now < self._look_after:
            return False
        idle = [client for client in self._plane.http.clients if client.is_idle()]
        if not idle:
            self._look_after = now + _PAUSE
            return False
        # The nearer its deadline, the longer it has been idle.
        for client in heapq.nsmallest(max(1, self.cap // _SHED_SHARE), idle, key=lambda client: client.deadline):
            client.shed()
        return True

    def out_of_resources(self, error: str) -> None:
        """A connection to a backend could not be made for want of a descriptor (or port, or kernel memory): give back
        what can be spared.

        Accepting pauses until the next tick: without a descriptor the event loop's accept would close, unseen and
        uncounted, what can wait in the kernel's queue.
        """
        plane = self._plane
        now = monotonic()
        if now >= self._log_after:
            self._log_after = now + _LOG_PAUSE
            log.warning("out of descriptors or ports", extra={"connections": self.open(), "error": error})
        for backend in plane.table.rows.values():
            if backend.http is not None:
                backend.http.close_idle()
            if backend.ready is not None:
                backend.ready.close_idle()
        self._make_room()
        plane.listeners.pause()
