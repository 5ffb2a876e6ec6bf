"""Outgoing: what of a running gateway goes over to the next one when the program is upgraded, and what is kept back
meanwhile (process/upgrade.py says when)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final

from attrs import frozen

from gogate_py.arena import LAYOUT, MAX_SLOTS, Arena
from gogate_py.controlplane.control import Control
from gogate_py.process.bindings import Bindings
from gogate_py.process.handover import Hello, Offered, State
from gogate_py.process.workers import Workers
from gogate_py.telemetry.totals import Totals

if TYPE_CHECKING:
    from gogate_py.controlplane.admin_server import AdminServers

log = logging.getLogger("gogate.upgrade")

#: How long a connection to the admin API may still ask, and a request may take, before the state is collected.
_LINGER: Final = 0.25
_GRACE: Final = 2.0


@frozen
class Outgoing:
    """The parts of the gateway. ``admin`` gives the servers of the admin API that there are now, ``serve_admin`` makes
    new ones on the same sockets."""

    control: Control
    workers: Workers
    totals: Totals
    arena: Arena
    data: Bindings
    operators: Bindings
    admin: Callable[[], AdminServers]
    serve_admin: Callable[[], Awaitable[None]]

    def offers(self) -> Iterable[tuple[Offered, list[int]]]:
        """Every listener, with its sockets."""
        for admin, bindings in ((False, self.data), (True, self.operators)):
            for name, text, one in bindings.named():
                offered = Offered(admin, name, one.id, text, *one.address, ours=one.ours)
                yield offered, [sock.fileno() for sock in one.sockets]

    def members(self) -> Iterable[tuple[int, int]]:
        """Every worker: its column of the arena, its pidfd."""
        return [(slot.column, slot.pidfd) for slot in self.workers.slots if slot.pidfd >= 0]

    async def hand_over(self, hello: Hello, workers: int) -> tuple[State, list[int]]:
        """Hear of no change any more, and say all that is known; with the arena, if the next one can have it."""
        self.control.watch.close()
        await self.admin().finish(_LINGER, _GRACE)
        slots = self.workers.slots
        first = free_columns(slots[0].column, len(slots), workers)
        shared = hello.layout == LAYOUT and first is not None
        if not shared:
            why = "too many workers" if first is None else "its shared memory has another layout"
            log.warning("the new gogate begins with closed circuit breakers and fresh rate limits", extra={"why": why})
        state = State(
            control=self.control.hand_over(),
            counts=self.totals.counted(),
            incarnation=max(slot.incarnation for slot in slots),
            restarts=tuple(slot.restarts for slot in slots),
            first=first or 0,
            columns=max((first or 0) + workers, self.workers.columns),
        )
        return state, [self.arena.fd] if shared else []

    async def go_on(self) -> None:
        """Nothing came of it: hear of changes again."""
        self.control.lead()
        await self.serve_admin()

    def clear(self, column: int) -> None:
        """A worker of the next one has ended, and will not use this column of our arena any more."""
        self.arena.clear_slot(column, self.control.rows_in_use())


def free_columns(first: int, count: int, wanted: int) -> int | None:
    """Where so many workers find columns of the arena beside those from ``first`` on; None: nowhere."""
    if first >= wanted:
        return 0
    return first + count if first + count + wanted <= MAX_SLOTS else None
