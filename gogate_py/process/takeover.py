"""Takeover: the new gogate's side of an upgrade (process/upgrade.py is the old one's, handover.py what they say).

Two things go on after this one serves: the old one's workers count until they end, and what they count is added here;
and their columns of the arena are cleared when the last of them is gone, not before: a connection of theirs that ends
would be subtracted twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from gogate_py import __version__
from gogate_py.addresses import Address
from gogate_py.arena import LAYOUT
from gogate_py.errors import StartError
from gogate_py.messages import Counts
from gogate_py.process import handover
from gogate_py.process.channel import Channel
from gogate_py.process.handover import (
    PROTOCOL,
    AllOffered,
    Counted,
    Failed,
    Hello,
    Member,
    Offered,
    Prepared,
    Released,
    Serving,
    State,
)
from gogate_py.process.sockets import BoundListener
from gogate_py.process.upgrade import exited
from gogate_py.telemetry.metrics import CATALOGUE

log = logging.getLogger("gogate.upgrade")

_GONE: Final = Failed("the gogate to take over from is gone")


class Inherited(NamedTuple):
    """Listeners of the old gogate by name, and their addresses as its configuration has them."""

    bound: dict[str, BoundListener]
    texts: dict[str, str]


class Takeover:
    """The connection to the old gogate."""

    def __init__(self, sock: socket.socket) -> None:
        """``sock``: from handover.inherited."""
        self._sock = sock
        #: Whether its workers and ours use one arena.
        self.gave_arena = False
        self._channel: Channel | None = None
        self._inbox: asyncio.Queue[tuple[Any, list[int]]] = asyncio.Queue()
        self._members: dict[int, int] = {}  # the old one's workers: column → pidfd

    async def listeners(self) -> tuple[Inherited, Inherited]:
        """Say who we are; → the listeners of the data plane, and of the supervisor. Raises StartError."""
        loop = asyncio.get_running_loop()
        self._channel = Channel(
            loop, self._sock, handover.decode_to_new, self._received, lambda: self._received(_GONE, []))
        self._channel.send(Hello(PROTOCOL, __version__, LAYOUT))
        data, admin = Inherited({}, {}), Inherited({}, {})
        while True:
            message, fds = await self._next()
            if isinstance(message, AllOffered):
                return data, admin
            if isinstance(message, Offered):
                sockets = [socket.socket(fileno=fd) for fd in fds]
                address = Address(message.host, message.port, message.path)
                where = admin if message.admin else data
                where.bound[message.name] = BoundListener(message.id, address, sockets, ours=message.ours)
                where.texts[message.name] = message.text

    async def state(self, workers: int) -> tuple[State, int]:
        """What the old one knows, and the descriptor of its arena (-1: none). Raises StartError."""
        assert self._channel is not None
        self._channel.send(Prepared(workers))
        while True:
            message, fds = await self._next()
            if isinstance(message, State):
                self.gave_arena = bool(fds)
                return message, fds[0] if fds else -1

    def member(self, column: int, pidfd: int) -> None:
        """A worker of ours: the old one is to end it should we not come to serve."""
        if self._channel is not None:
            self._channel.send(Member(column), [pidfd])

    async def serve(self, released: Callable[[], None], counted: Callable[[int, Counts], None]) -> list[int]:
        """This one serves; → the old one's columns, when it is gone with all its workers. ``released`` is called when
        this is the only gateway, ``counted`` with every report of the old one's workers."""
        assert self._channel is not None
        self._channel.send(Serving())
        waiting = True
        with contextlib.suppress(StartError):
            while True:
                message, _ = await self._next()
                if isinstance(message, Released):
                    waiting = False
                    released()
                elif isinstance(message, Counted):
                    counted(message.slot, message.counts)
        if waiting:  # it died just now
            released()
        self._channel.close()
        for pidfd in self._members.values():
            await exited(pidfd)
            os.close(pidfd)
        return list(self._members)

    def _received(self, message: Any, fds: list[int]) -> None:
        self._inbox.put_nowait((message, fds))

    async def _next(self) -> tuple[Any, list[int]]:
        """The next message that is not about its workers. Raises StartError when there is no old gogate any more."""
        while True:
            message, fds = await self._inbox.get()
            if isinstance(message, Failed):
                raise StartError(message.reason)
            if not isinstance(message, Member):
                return message, fds
            before = self._members.pop(message.column, -1)
            if before >= 0:
                os.close(before)
            self._members[message.column] = fds[0]


def without_own(counts: Counts) -> Counts:
    """A report of the old one's without what is about the worker itself: ours of the same number has that, too."""
    gauges = [one for one in counts.gauges if one[0] in CATALOGUE and "worker" not in CATALOGUE[one[0]].labels]
    return Counts(counts.counters, gauges, counts.histograms)
