"""Service watch: what happens in the registry, numbered, for those who wait for it (long poll, event stream).

Every event has an index, one more than the one before. The first index of a gateway is the time of its start in
milliseconds: whoever comes back to a gateway that was restarted has an older (or, after a step of the clock, a newer)
index than there is, and is told at once. Events are kept for LATEST; who is further behind is told to begin anew.

At most MAX_WATCHERS wait at a time. In drain nobody waits any more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from gogate_py.controlplane.registry import Registration
from gogate_py.errors import GogateError

#: What may happen to an instance.
EVENTS: Final = ("registered", "updated", "deregistered", "critical", "suspect", "passing", "expired")
MAX_WATCHERS: Final = 256
#: Events that a watcher may be behind.
LATEST: Final = 1024


class TooManyWatchers(GogateError):
    """As many as may wait do already, or the gateway drains (answered with 503)."""


class Event:
    """Something happened to an instance; ``instance`` is what it was then, ``body`` how it is told (made once)."""

    __slots__ = ("body", "index", "instance", "kind")

    def __init__(self, index: int, kind: str, instance: Registration) -> None:
        self.index = index
        self.kind = kind
        self.instance = instance
        self.body = b""


class ServiceWatch:
    """All events and all who wait for them. ``wall``: seconds since 1970, for the first index."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self.index = max(1, int(wall() * 1000))
        self.closed = False
        self._latest: deque[Event] = deque(maxlen=LATEST)
        self._watchers = 0
        self._news = asyncio.Event()

    def note(self, kind: str, instance: Registration) -> None:
        """This happened just now."""
        assert kind in EVENTS
        self.index += 1
        self._latest.append(Event(self.index, kind, instance))
        self._wake()

    def close(self) -> None:
        """Let everybody go who waits, and let nobody wait any more."""
        self.closed = True
        self._wake()

    def reopen(self) -> None:
        """Let them wait again."""
        self.closed = False

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """One more who waits. Raises TooManyWatchers."""
        if self.closed:
            raise TooManyWatchers("The gateway is draining.")
        if self._watchers >= MAX_WATCHERS:
            raise TooManyWatchers(f"{MAX_WATCHERS} clients watch the registry already.")
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1

    def since(self, index: int) -> list[Event] | None:
        """The events after an index, in order; None when they are not known (any more)."""
        if index == self.index:
            return []
        if index > self.index or not self._latest or index < self._latest[0].index - 1:
            return None
        return [event for event in self._latest if event.index > index]

    async def wait(self, index: int, seconds: float, concerns: Callable[[Registration], bool]) -> None:
        """Wait until there is an event after ``index`` that concerns the caller, at most so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                while not self.closed:
                    found = self.since(index)
                    if found is None or any(concerns(event.instance) for event in found):
                        return
                    index = self.index
                    await self._news.wait()
        except TimeoutError:
            pass
