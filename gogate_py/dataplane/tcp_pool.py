"""ReadyConnections: fresh, never used connections to one backend, so that a client need not wait for the connect.

A connection that carried a client's bytes never comes back (GoGate's pool tried to reuse them; between clients that is
unsafe). Bytes that the server says first (a greeting) are kept and delivered when a client comes; beyond EARLY_LIMIT
the connection is not read.

How many are kept follows the demand: one after the first client; a client that finds none doubles the number up to
``max_idle``; one that expires unused lowers it. So a busy backend has enough ready, and an idle one is not held open by
us. Nothing is made while the backend would get no new work, nor for a second after a failed connect: a dead one is not
asked twice for each client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gogate_py.clock import monotonic
from gogate_py.dataplane.deadlines import INFINITE
from gogate_py.dataplane.dial import DialError, dial
from gogate_py.dataplane.tcp_side import RelaySide
from gogate_py.errors import Failure

if TYPE_CHECKING:
    from gogate_py.dataplane.live_backend import LiveBackend
    from gogate_py.dataplane.plane import Plane
    from gogate_py.snapshot import TcpPool

_CHECK: Final = 1.0
#: After a failed connect the next attempt waits this long, seconds.
_RETRY: Final = 1.0


class ReadyConnections:
    """The ready connections of one backend in this worker. ``settings`` follow the snapshot."""

    __slots__ = ("_backend", "_closed", "_dialing", "_plane", "_ready", "_retry_at", "_wanted", "deadline", "settings")

    def __init__(self, plane: Plane, backend: LiveBackend, settings: TcpPool) -> None:
        self._plane = plane
        self._backend = backend
        self.settings = settings
        self._ready: list[tuple[float, RelaySide]] = []  # (since, connection), oldest first
        self._dialing = 0
        self._retry_at = 0.0
        self._wanted = 0
        self._closed = False
        self.deadline = monotonic() + _CHECK
        plane.deadlines.add(self)

    def __len__(self) -> int:
        return len(self._ready)

    def __repr__(self) -> str:
        return f"<{len(self._ready)} ready connections to {self._backend.address}, {self._wanted} wanted>"

    def take(self) -> RelaySide | None:
        """The freshest one that is still open, or None; either way more are made for those that follow."""
        backend = self._backend
        found = None
        now = monotonic()
        while self._ready and found is None:
            since, side = self._ready.pop()
            if now - since <= self._age_limit() and side.is_fresh():
                found = side
                side.owner = None
            else:
                side.abandon()
        if found is None:
            backend.pool_misses += 1
            self._wanted = min(self.settings.max_idle, self._wanted * 2 or 1)
        else:
            backend.pool_hits += 1
        self._refill(now)
        return found

    def _age_limit(self) -> float:
        lifetime = self.settings.max_lifetime
        return min(self.settings.idle_timeout, lifetime) if lifetime else self.settings.idle_timeout

    def _may_serve(self) -> bool:
        """Whether the backend may get new work."""
        backend = self._backend
        return not (
            self._closed
            or self._plane.draining
            or self._plane.table.rows.get(backend.row) is not backend
            or not backend.up
            or backend.draining
            or not backend.endpoints
            or (backend.breaker is not None and not backend.breaker.closed())
        )

    def _refill(self, now: float) -> None:
        if now < self._retry_at or not self._may_serve():
            return
        self._wanted = min(self._wanted, self.settings.max_idle)
        while len(self._ready) + self._dialing < self._wanted:
            self._dialing += 1
            self._plane.spawn(self._dial())

    async def _dial(self) -> None:
        backend = self._backend
        tls = backend.tls
        try:
            if not self._may_serve():  # a snapshot came before this task's first step
                return
            _, side = await dial(
                self._plane.loop,
                lambda: RelaySide(self._plane, owner=self),
                backend.endpoint(),
                backend.transport.dial_timeout,
                tls,
            )
        except DialError as error:
            # Nobody waits for it: no outcome for the breaker, but the control plane may look.
            backend.count_connect(error.result)
            if error.failure is Failure.NO_DESCRIPTORS:
                self._plane.admission.out_of_resources(error.text)
            else:
                self._plane.unreachable(backend, error.text)
            self._retry_at = self.deadline = monotonic() + _RETRY
            return
        finally:
            self._dialing -= 1
        backend.count_connect("ok")
        if self._may_serve() and tls is backend.tls and side.is_fresh():
            self._ready.append((monotonic(), side))
        else:
            side.abandon()

    def lost(self, side: RelaySide) -> None:
        """A ready connection was closed by the backend."""
        self._ready = [entry for entry in self._ready if entry[1] is not side]

    def on_deadline(self, now: float) -> None:
        """Drop what waited too long, want fewer then, and make up for what is missing."""
        if self._ready and not self._may_serve():  # down or draining: what is open there is not to be used later
            ready, self._ready = self._ready, []
            for _, side in ready:
                side.abandon()
        limit = now - self._age_limit()
        old = [side for since, side in self._ready if since <= limit]
        if old:
            self._ready = [entry for entry in self._ready if entry[0] > limit]
            self._wanted = max(1, self._wanted - len(old))
            for side in old:
                side.abandon()
        self.deadline = now + _CHECK
        self._refill(now)

    def close(self) -> None:
        """Let all go, and make no more."""
        self._closed = True
        self.deadline = INFINITE
        self._plane.deadlines.discard(self)
        self.close_idle()

    def close_idle(self) -> None:
        """Let go what is ready: its descriptors are needed elsewhere. The next client has one made again."""
        self._wanted = 1
        self._retry_at = monotonic() + _RETRY
        ready, self._ready = self._ready, []
        for _, side in ready:
            side.abandon()
