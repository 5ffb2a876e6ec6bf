"""Waiting for room: who waits because every usable backend of a pool has maxConnections.

First come, first served in each worker. What another worker's backend gives free is found by looking every POLL
seconds while somebody waits; what this worker gives free is offered at once. The time a waiter may wait is the pool's
queueTimeout; how many may wait is bounded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from gogate_py.clock import monotonic

#: Seconds between two looks at what other workers gave free.
POLL: Final = 0.005


class Waiter(Protocol):
    """A request or TCP connection that waits for a backend with room."""

    def room(self) -> bool:
        """There may be room: pick again; False when there was none, and it goes on waiting."""
        ...

    def waited_too_long(self) -> None:
        """queueTimeout is over."""
        ...


class WaitingRoom:
    """Those who wait for one pool in this worker."""

    __slots__ = ("_call_later", "_offered", "_timer", "timed_out", "waiters")

    def __init__(self, call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle]) -> None:
        self._call_later = call_later
        # to be read by others only for whether there is somebody
        self.waiters: deque[tuple[Waiter, float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._offered = False
        # --- since the last report
        self.timed_out = 0

    def __len__(self) -> int:
        return len(self.waiters)

    def enter(self, waiter: Waiter, limit: float) -> None:
        """Wait at most ``limit`` seconds, behind those who wait already."""
        self.waiters.append((waiter, monotonic() + limit))
        if self._timer is None:
            self._timer = self._call_later(POLL, self._poll)

    def leave(self, waiter: object) -> None:
        """It does not wait any more."""
        for entry in self.waiters:
            if entry[0] is waiter:
                self.waiters.remove(entry)
                return

    def freed(self) -> None:
        """Something of this worker's ended: look very soon (not inside of what is just ending)."""
        if self.waiters and not self._offered:
            self._offered = True
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._call_later(0.0, self._poll)

    def _poll(self) -> None:
        self._timer = None
        self._offered = False
        waiters = self.waiters
        now = monotonic()
        while waiters:
            waiter, until = waiters[0]
            if now >= until:
                waiters.popleft()
                self.timed_out += 1
                waiter.waited_too_long()
                continue
            waiters.popleft()
            if not waiter.room():
                waiters.appendleft((waiter, until))
                break
        if waiters and self._timer is None:
            self._timer = self._call_later(POLL, self._poll)

    def close(self) -> None:
        """The pool is gone: nobody will be served."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self.waiters:
            self.waiters.popleft()[0].waited_too_long()
