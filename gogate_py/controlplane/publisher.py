"""Publisher: the current snapshot, and who serves which generation.

Every worker gets the same messages in the same order; a worker that joins gets the whole current snapshot first.
Generations only grow; a state change has a generation of its own and is folded into the snapshot that is sent to those
who join later.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import msgspec

from gogate_py.messages import Configure, Down, KeySet, States
from gogate_py.snapshot import BackendState, Snapshot

#: Workers answer in milliseconds, and a generation is at least some of them.
_REMEMBERED: Final = 1000


class WorkerLink(Protocol):
    """A worker that can be talked to."""

    slot: int

    def send(self, message: Down) -> None:
        """Queue a message for it; never waits."""
        ...


class Publisher:
    """Delivers snapshots to the workers."""

    def __init__(self) -> None:
        self.generation = 0
        self._snapshot: Snapshot | None = None
        self._serving: dict[int, tuple[WorkerLink, int]] = {}  # slot → link, last acknowledged generation
        self._refused: dict[int, tuple[int, str]] = {}  # slot → generation that it could not take over, and why
        self._awaited: set[int] = set()
        self._taken: deque[int] = deque(maxlen=_REMEMBERED)  # generations that some worker took over
        self._news = asyncio.Event()
        #: The keys of every jwksUrl; whoever fetches them says so.
        self.key_sets: Callable[[], Iterable[KeySet]] = list

    @property
    def snapshot(self) -> Snapshot | None:
        """The current snapshot, with the current states in it."""
        return self._snapshot

    def join(self, link: WorkerLink) -> None:
        """A worker came up."""
        self._serving[link.slot] = (link, 0)
        self._awaited.discard(link.slot)
        for keys in self.key_sets():  # before the routes that need them
            link.send(keys)
        if self._snapshot is not None:
            link.send(Configure(self._snapshot))

    def leave(self, link: WorkerLink) -> None:
        """A worker is gone."""
        if link.slot not in self._awaited:
            self._serving.pop(link.slot, None)
        self._refused.pop(link.slot, None)
        self._news.set()

    def publish(self, snapshot: Snapshot) -> None:
        """Make this the current snapshot. Its generation must be the next one."""
        assert snapshot.generation == self.generation + 1
        self.generation = snapshot.generation
        self._snapshot = snapshot
        for link, _ in self._serving.values():
            link.send(Configure(snapshot))

    def publish_states(self, changes: Iterable[BackendState]) -> None:
        """Backends changed health or draining: a generation of its own, without a whole snapshot on the way."""
        snapshot = self._snapshot
        assert snapshot is not None
        by_row = {state.row: state for state in changes}
        self.generation += 1
        pools = tuple(
            msgspec.structs.replace(
                pool,
                backends=tuple(
                    msgspec.structs.replace(backend, state=by_row[backend.row]) if backend.row in by_row else backend
                    for backend in pool.backends
                ),
            )
            if any(backend.row in by_row for backend in pool.backends)
            else pool
            for pool in snapshot.pools
        )
        self._snapshot = msgspec.structs.replace(snapshot, generation=self.generation, pools=pools)
        message = States(self.generation, tuple(by_row.values()))
        for link, _ in self._serving.values():
            link.send(message)

    def publish_keys(self, keys: KeySet) -> None:
        """The keys of a jwksUrl are these now; b"" = none."""
        for link, _ in self._serving.values():
            link.send(keys)

    def acknowledged_by(self, link: WorkerLink, generation: int) -> None:
        """A worker serves this generation."""
        known = self._serving.get(link.slot)
        if known is not None and known[0] is link:
            self._serving[link.slot] = (link, max(known[1], generation))
            self._refused.pop(link.slot, None)
            self._taken.append(generation)
            self._news.set()

    def refused_by(self, link: WorkerLink, generation: int, error: str) -> None:
        """A worker could not take over this generation."""
        known = self._serving.get(link.slot)
        if known is not None and known[0] is link:
            self._refused[link.slot] = (generation, error)
            self._news.set()

    def at_fault(self) -> dict[int, str]:
        """Slots that could not take over what another worker could, or that have never taken over anything: it is they
        who are wrong, not the snapshot. With what they said."""
        return {
            slot: error
            for slot, (generation, error) in self._refused.items()
            if slot in self._serving.keys() - self._awaited
            and (generation in self._taken or not self._serving[slot][1])
        }

    def await_another(self, link: WorkerLink) -> None:
        """This worker is ended; nothing counts as acknowledged by all until another one in its slot has done so."""
        self._awaited.add(link.slot)

    def nobody_serves(self, generation: int) -> str:
        """Why no worker could take over a generation; "" when one could, or may yet."""
        found = {self._refused.get(slot, (0, ""))[0] >= generation for slot in self._serving}
        return next(iter(self._refused.values()))[1] if found == {True} else ""

    def acknowledged(self) -> int:
        """The newest generation that every worker serves (the current one when there is no worker)."""
        return min((generation for _, generation in self._serving.values()), default=self.generation)

    async def wait_acknowledged(self, generation: int, limit: float) -> bool:
        """Wait until every worker serves ``generation``; False when that took longer than ``limit`` seconds, or when
        none of them can."""
        try:
            async with asyncio.timeout(limit):
                while self.acknowledged() < generation:
                    if self.nobody_serves(generation):
                        return False
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True
