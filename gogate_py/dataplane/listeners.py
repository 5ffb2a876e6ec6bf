"""Listeners: accept on the sockets that the supervisor bound, as the snapshot says.

The supervisor sends this slot's sockets by listener id (messages.Listen), usually one for each; the snapshot says what
they are for. A listener that the snapshot no longer names is drained: what waits in its accept queue is accepted first,
so that no client that the kernel already answered is reset.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from gogate_py.addresses import BACKLOG
from gogate_py.backend_tls import explain
from gogate_py.listener_tls import ListenerContexts
from gogate_py.middleware.fixed_answers import RedirectStage
from gogate_py.policy.router import Router
from gogate_py.policy.server_names import ServerNames
from gogate_py.snapshot import Listener, Redirect, TcpRoute

if TYPE_CHECKING:
    from gogate_py.dataplane.live_route import LiveRoute

log = logging.getLogger("gogate.listeners")

#: The port that an https URL need not name.
HTTPS: Final = 443


class LiveListener:
    """One listener in this worker, with its counters. ``active`` is its open client connections; ``paused``: it does
    not accept for the moment; ``gone``: a snapshot no longer names it."""

    __slots__ = (
        "accepted",
        "active",
        "contexts",
        "gone",
        "guarded",
        "handshakes",
        "id",
        "names",
        "paused",
        "refused",
        "router",
        "servers",
        "shed",
        "socks",
        "spec",
        "to_https",
        "unusable",
    )

    def __init__(self, listener_id: str) -> None:
        self.id = listener_id
        self.socks: list[socket.socket] = []
        self.spec: Listener | None = None
        self.names: ServerNames[TcpRoute] | None = None  # where SNI decides
        self.contexts: ListenerContexts | None = None  # where TLS ends here
        # HTTP: its routes, set by HttpSite with each snapshot
        self.router: Router[LiveRoute] = Router([])
        self.to_https: RedirectStage | None = None  # every request is answered so
        self.guarded = False  # something is decided before the routes
        #: One for each of the first sockets; those that came later are served with the next snapshot.
        self.servers: list[asyncio.AbstractServer] = []
        self.paused = False
        self.gone = False
        self.active = 0
        # --- since the last report
        self.accepted = 0
        self.shed = 0
        self.refused: dict[str, int] = {}
        self.handshakes: dict[tuple[str, str], int] = {}  # (result, version)
        self.unusable = 0

    @property
    def name(self) -> str:
        """The label in metrics and logs."""
        return self.spec.label() if self.spec is not None else self.id

    def configure(self, spec: Listener) -> None:
        """Take over what a snapshot says of it; who is here stays."""
        self.spec = spec
        patterns = [(name, one.route) for one in spec.sni for name in one.names]
        self.names = ServerNames(patterns, spec.tcp) if patterns else None
        self.to_https = _redirect(spec.https_port) if spec.https_port else None
        self.guarded = spec.tls is not None or spec.https_port > 0
        self._configure_tls(spec)

    def _configure_tls(self, spec: Listener) -> None:
        """Contexts for handshakes from now on. Where they cannot be made those of before go on; without any nobody is
        let in, least of all without TLS."""
        http = not spec.tcp_routes()
        before = self.contexts
        if spec.tls is None:
            self.contexts = None
        elif before is None or before.spec.digest != spec.tls.digest or before.http != http:
            try:
                self.contexts = ListenerContexts(spec.tls, http=http, before=before)
            except (OSError, ValueError) as error:
                self.unusable += 1
                log.error(
                    "the certificates of a listener cannot be used",
                    extra={"listener": self.name, "error": explain(error), "old_ones_kept": before is not None},
                )

    def is_serving(self) -> bool:
        """Whether it accepts, or will when the pause is over."""
        return bool(self.servers) or self.paused

    def shook_hands(self, result: str, version: str) -> None:
        """Count a TLS handshake."""
        key = (result, version)
        self.handshakes[key] = self.handshakes.get(key, 0) + 1

    def refuse(self, reason: str) -> None:
        """Count a connection that was closed at once."""
        self.refused[reason] = self.refused.get(reason, 0) + 1


def _redirect(port: int) -> RedirectStage:
    """To the same place of the same host over https."""
    where = "{host}{uri}" if port == HTTPS else f"{{host}}:{port}{{uri}}"
    return RedirectStage(Redirect(f"https://{where}", 308), lambda path: {})


#: The protocols are plain classes with asyncio's callbacks, not subclasses of asyncio.Protocol.
Factory = Callable[[LiveListener], Any]


class Listeners:
    """The listeners of one worker. ``tcp`` and ``http`` make the protocol for an accepted connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tcp: Factory, http: Factory) -> None:
        self._loop = loop
        self._factories = {True: tcp, False: http}
        self.by_id: dict[str, LiveListener] = {}
        # gone, and not yet without clients and fully reported
        self._leaving: list[LiveListener] = []

    def everyone(self) -> list[LiveListener]:
        """Every listener that may have clients: those that are served, and those that are gone."""
        return [*self.by_id.values(), *self._leaving]

    def counted(self) -> list[LiveListener]:
        """Every listener that has something to report: those that are served, and those that are gone but whose clients
        or last numbers are still there. To be called once a report."""
        found = self.everyone()
        self._leaving = [live for live in self._leaving if live.active]
        return found

    def add_socket(self, listener_id: str, fd: int) -> None:
        """A socket of this slot arrived."""
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        self.by_id.setdefault(listener_id, LiveListener(listener_id)).socks.append(sock)

    async def apply(self, wanted: tuple[Listener, ...]) -> list[LiveListener]:
        """Serve what is wanted and has a socket, accept no more where it is not wanted; → those that are gone."""
        names = {spec.id for spec in wanted}
        gone = [live for live in self.by_id.values() if live.id not in names and live.is_serving()]
        for leaving in gone:
            leaving.gone = True
            await self.close(leaving)
            del self.by_id[leaving.id]
            self._leaving.append(leaving)
        for spec in wanted:
            live = self.by_id.get(spec.id)
            if live is None:
                log.error("no socket for listener", extra={"listener": spec.id})
                continue
            live.configure(spec)
            if not live.paused:
                await self._serve_the_rest(live)
        return gone

    async def _serve_the_rest(self, live: LiveListener) -> None:
        """Accept on the sockets that came since the last snapshot."""
        servers = await self._serve(live, live.socks[len(live.servers) :])
        if live.paused:  # meanwhile
            _close(servers)
        else:
            live.servers += servers

    async def _serve(self, live: LiveListener, socks: list[socket.socket]) -> list[asyncio.AbstractServer]:
        """Accept on these sockets of a listener: on all, or it raises OSError."""
        make = self._factory(live)
        servers: list[asyncio.AbstractServer] = []
        for original in socks:
            # A duplicate: the server closes what it is given, and the socket is kept to be able to pause and resume.
            sock = None
            try:
                sock = original.dup()
                if sock.family == socket.AF_UNIX:
                    servers.append(await self._loop.create_unix_server(make, sock=sock, backlog=BACKLOG))
                else:
                    servers.append(await self._loop.create_server(make, sock=sock, backlog=BACKLOG))
            except BaseException:
                if sock is not None:
                    sock.close()
                _close(servers)
                raise
        return servers

    def pause(self) -> None:
        """Accept nothing until :meth:`resume`: who comes waits in the kernel's queue."""
        for live in self.by_id.values():
            if live.servers:
                _close(live.servers)
                live.servers = []
                live.paused = True

    def is_paused(self) -> bool:
        """Whether any listener does not accept for the moment."""
        return any(live.paused for live in self.by_id.values())

    async def resume(self) -> None:
        """Accept again where it was paused; without a descriptor to do so it stays paused, to be asked again."""
        for live in [live for live in self.by_id.values() if live.paused]:
            try:
                servers = await self._serve(live, list(live.socks))
            except OSError:
                return
            if live.paused:
                live.paused = False
                live.servers = servers
            else:  # closed, or resumed, meanwhile
                _close(servers)

    def _factory(self, live: LiveListener) -> Callable[[], Any]:
        assert live.spec is not None
        make = self._factories[bool(live.spec.tcp_routes())]
        return lambda: make(live)

    async def close(self, live: LiveListener) -> None:
        """Stop accepting: empty the accept queue into connections, then close."""
        if not live.is_serving():
            return
        _close(live.servers)
        live.servers = []
        live.paused = False
        # What the loop accepted in this turn becomes a connection, and is counted, in its next one.
        await asyncio.sleep(0)
        make = self._factory(live)
        for listening in live.socks:
            while True:
                try:
                    sock, _ = listening.accept()
                except OSError:
                    break
                sock.setblocking(False)
                await self._loop.connect_accepted_socket(make, sock)
            listening.close()

    async def close_all(self) -> None:
        """Stop accepting everywhere."""
        for live in list(self.by_id.values()):
            await self.close(live)


def _close(servers: list[asyncio.AbstractServer]) -> None:
    for server in servers:
        server.close()
