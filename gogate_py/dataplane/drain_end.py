"""The end of a drain: what still runs at backends whose deadline has passed is cut.

    a request           as if the backend had died: tried on another one where that may be, else 502, or its answer cut
    a WebSocket         close frame 1001 to both sides (tunnel)
    a TCP connection    closed

None of it is held against the backend. Called by each tick; work that is on its way to such a backend when it is
called (a back-off, a connect) is cut too.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gogate_py.errors import Failure

if TYPE_CHECKING:
    from gogate_py.dataplane.live_backend import LiveBackend
    from gogate_py.dataplane.plane import Plane

log = logging.getLogger("gogate.plane")


def end_drains(plane: Plane, now: float) -> None:
    """Cut what is left at every backend whose drain is over at ``now`` (monotonic seconds)."""
    for backend in plane.table.overdue(now):
        cut = _end(plane, backend)
        if cut:
            log.warning("the drain is over: what was left is cut", extra={
                "pool": backend.pool_name, "backend": backend.address, "cut": cut})


def _end(plane: Plane, backend: LiveBackend) -> int:
    reason = Failure.BACKEND_DRAINED.reason
    kinds = []
    for relay in list(plane.relays.values()):
        if relay.works_at(backend):
            relay.cut(reason)
            kinds.append("tcp")
    for client in list(plane.http.clients):
        exchange = client.exchange
        if exchange is None or exchange.backend is not backend:
            continue
        if exchange.tunnel is None:
            exchange.withdraw()
            kinds.append("request")
        elif exchange.tunnel.go_away(reason):
            kinds.append("websocket")
    for kind in kinds:
        backend.count_drain_cut(kind)
    return len(kinds)
