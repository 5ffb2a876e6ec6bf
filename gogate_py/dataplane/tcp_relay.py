"""TcpRelay: one L4 connection from accept to its one completion — pick, connect, relay, end, account.

The rules of who ends when are the table in wire/relay_state.py; this module carries out its commands and keeps the
books:

- a backend is picked at accept; a failed connect is tried again on another one, ATTEMPTS in all: nothing was sent yet;
- outcome for the breaker: connect failed → failure; reset by the backend before it said a byte → failure; its first
  byte, or an end without reset → success; what the client does is never an outcome (SECURITY.md T21);
- idle: no byte either way for the route's idleTimeout, nor an end of a direction. The sweep compares byte counts, so
  the data path reads no clock; it comes by after each change of state, and a short connection is over by then;
- a backend that is spoken to with TLS cannot be told that the client ended (RelaySide.half_closes): what it says
  without a pause of UNTOLD_IDLE still goes to the client, then both are closed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gogate_py.clock import monotonic
from gogate_py.dataplane import ends
from gogate_py.dataplane.deadlines import INFINITE
from gogate_py.dataplane.dial import DialError
from gogate_py.dataplane.tcp_pool import ReadyConnections
from gogate_py.dataplane.tcp_side import RelaySide, connect
from gogate_py.errors import Failure
from gogate_py.messages import Connection
from gogate_py.wire.proxy_protocol import encode
from gogate_py.wire.relay_state import Command, Event, State, advance

if TYPE_CHECKING:
    from gogate_py.dataplane.listeners import LiveListener
    from gogate_py.dataplane.live_backend import LiveBackend
    from gogate_py.dataplane.live_pool import LivePool
    from gogate_py.dataplane.plane import Plane
    from gogate_py.dataplane.tcp_downstream import TcpDownstream
    from gogate_py.snapshot import TcpRoute

#: Connection attempts in all for one client, over different backends.
ATTEMPTS: Final = 3
#: Half-closed relays of a route without idleTimeout end after this many idle seconds.
HALF_CLOSED_IDLE: Final = 3600.0
#: A client that ended and a backend that cannot be told so: for this long it may be quiet before it counts as done.
#: Most clients that end are gone altogether, so it is short.
UNTOLD_IDLE: Final = 2.0
#: A side that is being closed and takes no byte for this long is cut.
LINGER: Final = 30.0


class TcpRelay:
    """One client connection and the backend connection behind it. In ``plane.relays`` until both are closed."""

    __slots__ = (
        "_attempts", "_backend", "_backend_side", "_client", "_completed", "_counted_in", "_counted_out", "_dialing",
        "_failed_as", "_idle_since", "_idle_timeout", "_listener", "_outcome_known", "_peer", "_plane", "_pool",
        "_pool_name", "_reason", "_result", "_route", "_seen", "_send_proxy", "_started", "_state", "_trial", "_tried",
        "_waiting", "deadline", "id",
    )

    def __init__(self, plane: Plane, listener: LiveListener, client: TcpDownstream, route: TcpRoute) -> None:
        self._plane = plane
        self._listener = listener
        self._client = client
        self._backend_side: RelaySide | None = None
        self._backend: LiveBackend | None = None
        self._route = route.name
        self._pool_name = route.pool
        self._idle_timeout = route.idle_timeout
        self._state = State.CONNECTING
        self._pool: LivePool | None = None
        self._waiting = False  # for a backend with room
        self._trial = False
        self._tried: tuple[LiveBackend, ...] = ()
        self._attempts = 0
        self._dialing: asyncio.Task[None] | None = None
        self._failed_as = "connect_failed"
        self._outcome_known = False
        self._completed = False
        self._result = "ok"
        self._reason = ""
        self._started = monotonic()
        self._idle_since = self._started
        self._seen = -1
        self._counted_in = 0
        self._counted_out = 0
        self.deadline = 0.0
        self.id = plane.next_connection_id()
        self._peer = ends.label(client.source)
        self._send_proxy = route.send_proxy
        plane.relays[self.id] = self
        plane.deadlines.add(self)

    def __repr__(self) -> str:
        backend = self._backend.address if self._backend is not None else "-"
        return f"<relay {self.id} {self._peer} to {backend}, {self._state.value}>"

    # --- connect

    def start(self) -> None:
        """Pick a backend and get a connection to it."""
        self._connect()

    def _connect(self, failed: Failure | None = None) -> None:
        """One attempt; ``failed``: why the one before it did not succeed."""
        pool = self._plane.table.pools.get(self._pool_name)
        if pool is None:  # a new snapshot has no such pool any more
            self._listener.refuse(Failure.NO_BACKEND.reason)
            self._give_up("no_backend", f"Pool {self._pool_name} is gone.")
            return
        self._pool = pool
        picked = pool.pick(self._tried, self._key(pool)) if not pool.waiting or self._tried else None
        if picked is not None:
            if failed is not None:
                self._tried[-1].count_retry(failed.reason)
            self._go(pool, *picked)
        elif self._tried or not pool.may_have_room():
            self._no_backend(pool)
        elif pool.may_wait():
            self._waiting = True
            pool.waiting.enter(self, pool.spec.queue_timeout)
        else:
            self._listener.refuse(Failure.QUEUE_FULL.reason)
            self._give_up("no_backend", Failure.QUEUE_FULL.detail)

    def _key(self, pool: LivePool) -> int:
        """What a hashing balancer goes by: the client's address."""
        return pool.key_of_address(ends.host(self._client.source)) if pool.needs_key else 0

    def _no_backend(self, pool: LivePool) -> None:
        if self._tried:
            self._give_up(self._failed_as, self._reason)
            return
        failure, detail, _ = pool.why_none()
        self._listener.refuse(failure.reason)
        self._give_up("no_backend", detail)

    def room(self) -> bool:
        """A backend may have room (waiting.Waiter)."""
        pool = self._pool
        assert pool is not None
        picked = pool.pick((), self._key(pool))
        if picked is None and pool.may_have_room():
            return False
        self._waiting = False
        if picked is None:
            self._no_backend(pool)
        else:
            self._go(pool, *picked)
        return True

    def waited_too_long(self) -> None:
        """queueTimeout is over (waiting.Waiter)."""
        self._waiting = False
        self._listener.refuse(Failure.QUEUE_TIMEOUT.reason)
        self._give_up("no_backend", "Every backend had maxConnections for queueTimeout.")

    def _go(self, pool: LivePool, backend: LiveBackend, trial: bool) -> None:
        """An attempt at the backend picked (and counted as working)."""
        self._backend = backend
        self._trial = trial
        self._attempts += 1
        settings = pool.spec.tcp_pool
        if settings is not None:
            if backend.ready is None:
                backend.ready = ReadyConnections(self._plane, backend, settings)
            side = backend.ready.take()
            if side is not None:
                self._connected(side)
                return
        self._dialing = self._plane.spawn(self._dial(backend))

    async def _dial(self, backend: LiveBackend) -> None:
        # The task is cancelled when the relay ends meanwhile: whatever comes out of the connect is still wanted.
        try:
            try:
                side = await connect(self._plane, backend)
            except DialError as error:
                self._connect_failed(backend, error)
            else:
                self._connected(side)
        except Exception as error:  # the top of a task: without this the client would wait for ever
            self._plane.internal_error(error, "relay")
            self.cut("internal")

    def _connect_failed(self, backend: LiveBackend, error: DialError) -> None:
        self._dialing = None
        local = error.failure is Failure.NO_DESCRIPTORS
        self._reason = error.text
        if local:
            self._plane.admission.out_of_resources(error.text)
        else:
            self._plane.unreachable(backend, self._reason)
        self._settle(ok=None if local else False)
        self._tried = (*self._tried, backend)
        self._failed_as = "tls_failed" if error.failure is Failure.TLS_FAILED else "connect_failed"
        if self._attempts < ATTEMPTS and not local:
            self._connect(error.failure)
        else:
            self._give_up(self._failed_as, self._reason)

    def _give_up(self, result: str, reason: str) -> None:
        self._result, self._reason = result, reason
        self._happened(Event.CONNECT_FAILED)

    def _connected(self, side: RelaySide) -> None:
        self._dialing = None
        side.relay = self
        self._backend_side = side
        self._happened(Event.CONNECTED)
        client = self._client
        if self._send_proxy:  # also on a ready connection: to its backend it begins now
            side.write(encode(self._send_proxy, client.source, ends.destination(client.transport, client.header)))
        # Early bytes of both sides first; an EOF of the client that came before them is passed on behind them.
        client.start_forwarding(side)
        side.start_forwarding(client)
        if self._state is State.CLIENT_DONE:
            side.write_eof()
        if side.eof:  # the backend had nothing more to say than what came while it was dialed
            self.side_ended(side)
            if side.lost:  # TLS: it closed itself
                self.side_lost(side)
            elif side.half_closes:
                side.watch()

    # --- events of the sides

    def other(self, side: RelaySide) -> RelaySide:
        """The side across; a client without a backend yet is across from itself, where pausing is harmless."""
        if side is self._client:
            return self._backend_side or self._client
        return self._client

    def side_ended(self, side: RelaySide) -> None:
        """EOF from one side."""
        if side is self._client:
            self._happened(Event.CLIENT_EOF)
        else:
            self._happened(Event.BACKEND_EOF if side.half_closes else Event.BACKEND_CLOSED)

    def side_lost(self, side: RelaySide) -> None:
        """A side is closed: by us, by an error, or reset by its peer."""
        if self._state is not State.CLOSED:
            client = side is self._client
            if not client and not side.received:
                self._tell(False)  # before the client can know
            self._result = "client_reset" if client else "tls_failed" if side.failed else "backend_reset"
            self._reason = side.failed
            self._happened(Event.CLIENT_RESET if client else Event.BACKEND_RESET)
        if self._client.lost and (self._backend_side is None or self._backend_side.lost):
            self._complete()

    def _happened(self, event: Event) -> None:
        """Ask the table, do what it says."""
        before = self._state
        self._state, command = advance(before, event)
        if self._state is not before:  # that something ended is not idleness, and may have a limit of its own
            self._seen = -1
            self.deadline = 0.0
        client, backend = self._client, self._backend_side
        match command:
            case None:
                return
            case Command.EOF_TO_BACKEND:
                if backend is not None and before is State.OPEN:  # else _connected does it, behind the early bytes
                    backend.write_eof()
            case Command.EOF_TO_CLIENT:
                client.write_eof()
            case Command.CLOSE_BOTH:
                client.close()
                if backend is not None:
                    backend.close()
            case Command.CLOSE_CLIENT:
                client.close()
            case Command.RESET_BACKEND:
                if backend is not None:
                    backend.abort(reset=True)
            case Command.RESET_CLIENT:
                client.abort(reset=True)
            case Command.ABANDON_CONNECT:
                self._stop_dialing()
            case Command.ABORT_BOTH:
                self._stop_dialing()
                client.abort()
                if backend is not None:
                    backend.abort()

    def _stop_dialing(self) -> None:
        if self._waiting and self._pool is not None:
            self._waiting = False
            self._pool.waiting.leave(self)
        task, self._dialing = self._dialing, None
        if task is not None:
            task.cancel()

    def cut(self, result: str) -> None:
        """End it now, whatever it is doing."""
        if self._state is not State.CLOSED:
            self._result = result
            self._happened(Event.CUT)
        else:  # closing, but a side does not take its last bytes
            self._client.abort()
            if self._backend_side is not None:
                self._backend_side.abort()

    def works_at(self, backend: LiveBackend) -> bool:
        """Whether it has this backend, or is on its way to it."""
        return self._backend is backend

    # --- time

    def _limit(self) -> float:
        if self._state is State.CLOSED:
            return LINGER
        if self._is_untold():
            return UNTOLD_IDLE
        if self._state in (State.CLIENT_DONE, State.BACKEND_DONE):
            return self._idle_timeout or HALF_CLOSED_IDLE
        return self._idle_timeout

    def _is_untold(self) -> bool:
        """Whether the client ended, and the backend cannot be told."""
        side = self._backend_side
        return self._state is State.CLIENT_DONE and side is not None and not side.half_closes

    def _set_deadline(self, now: float) -> None:
        limit = self._limit()
        self.deadline = now + max(0.25, limit / 8) if limit else INFINITE
        if self._state in (State.CLIENT_DONE, State.BACKEND_DONE) or not limit:
            # A half-close brings a limit of its own: look from time to time.
            self.deadline = min(self.deadline, now + HALF_CLOSED_IDLE / 8)

    def on_deadline(self, now: float) -> None:
        """Anything moved since the last look? If not for as long as the limit, the relay is cut."""
        backend = self._backend_side
        seen = self._client.received - self._client.unsent()
        if backend is not None:
            seen += backend.received - backend.unsent()
        if seen != self._seen:
            self._seen = seen
            self._idle_since = now
        limit = self._limit()
        if limit and now - self._idle_since >= limit and self._is_untold():
            self._happened(Event.BACKEND_CLOSED)
        elif limit and now - self._idle_since >= limit:
            self.cut("idle_timeout")
            self.deadline = now + 1.0
        else:
            self._set_deadline(now)

    # --- accounts

    def _settle(self, *, ok: bool | None) -> None:
        """Tell the backend how this attempt was, once. None: no outcome."""
        if ok is not None:
            self._tell(ok)
        self._outcome_known = False
        backend, self._backend = self._backend, None
        if backend is None:
            return
        backend.release_trial(self._trial)
        self._trial = False
        backend.end()
        if self._pool is not None:
            self._pool.freed()

    def _tell(self, ok: bool) -> None:
        """How this attempt was, once."""
        if self._backend is not None and not self._outcome_known:
            self._outcome_known = True
            self._backend.record(ok, self._trial)

    def flush_counts(self) -> None:
        """Bring the backend's byte counters up to date (each report), and its breaker, when it spoke its first byte."""
        backend, side = self._backend, self._backend_side
        if backend is None or side is None:
            return
        received_in, received_out = self._client.received, side.received
        backend.bytes_sent += received_in - self._counted_in
        backend.bytes_received += received_out - self._counted_out
        self._counted_in, self._counted_out = received_in, received_out
        if received_out and not self._outcome_known:
            self._tell(True)
            backend.release_trial(self._trial)
            self._trial = False

    def _complete(self) -> None:
        """Both sides are closed, or will never be: exactly once."""
        if self._completed:
            return
        self._completed = True
        self._stop_dialing()
        plane = self._plane
        plane.relays.pop(self.id, None)
        plane.deadlines.discard(self)
        self.flush_counts()
        backend = self._backend
        now = monotonic()
        last = backend or (self._tried[-1] if self._tried else None)
        if last is not None:
            key = (self._route, self._result)
            last.tcp_results[key] = last.tcp_results.get(key, 0) + 1
        # Its first byte was counted as a success (flush_counts). Without one: an end in order is one too, a reset is a
        # failure, and an end that the client or we made says nothing.
        self._settle(ok={"ok": True, "backend_reset": False, "tls_failed": False}.get(self._result))
        plane.tcp_duration.observe(now - self._started)
        self._log(last.address if last is not None else "", now)
        # Without the cycles everything is freed now; the collector, which comes after thousands of connections, would
        # give whole pages back, to be faulted in again (measured: a tenth of a short connection's CPU).
        self._client.relay = None
        if self._backend_side is not None:
            self._backend_side.relay = None

    def _log(self, address: str, now: float) -> None:
        plane = self._plane
        snapshot = plane.snapshot
        if snapshot is None or not snapshot.access_log.enabled:
            return
        sample = snapshot.access_log.sample
        if sample < 1.0 and plane.random.random() >= sample:
            return
        side = self._backend_side
        plane.access_log.connection_over((
            now,
            self._listener.name,
            self._route,
            self._pool_name,
            address,
            self._peer,
            self._client.received,
            side.received if side is not None else 0,
            now - self._started,
            self._result,
            self.id,
            self._reason if self._result != "ok" else "",
        ))

    def view(self) -> Connection:
        """What the admin API shows."""
        side = self._backend_side
        return Connection(
            id=self.id,
            listener=self._listener.name,
            route=self._route,
            pool=self._pool_name,
            client=self._peer,
            backend=self._backend.address if self._backend is not None else "",
            state=self._state.value,
            bytes_in=self._client.received,
            bytes_out=side.received if side is not None else 0,
            started_s=round(monotonic() - self._started, 3),
            worker=self._plane.slot,
        )
