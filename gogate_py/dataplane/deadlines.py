"""Deadlines: one coarse sweep over many connections instead of a timer for each event.

A connection is a member while it lives and answers one question: *by when must something have happened?* The sweep runs
every PERIOD and calls ``on_deadline`` of those whose time has passed. A deadline is a plain attribute that the owner
sets at will (INFINITE: none), so moving it costs one store. Deadlines therefore fire up to PERIOD late, never early.
"""

from __future__ import annotations

from typing import Final, Protocol

from gogate_py.clock import monotonic

PERIOD: Final = 0.25
INFINITE: Final = float("inf")


class Timed(Protocol):
    """Something with a deadline, in seconds of the monotonic clock."""

    deadline: float

    def on_deadline(self, now: float) -> None:
        """The deadline has passed: end it, or set a later one."""
        ...


class Deadlines:
    """The members and their sweep. ``sweep`` is called by the worker's ticker."""

    __slots__ = ("_members",)

    def __init__(self) -> None:
        self._members: set[Timed] = set()

    def add(self, member: Timed) -> None:
        """Watch a member until it is discarded."""
        self._members.add(member)

    def discard(self, member: Timed) -> None:
        """Stop watching."""
        self._members.discard(member)

    def __len__(self) -> int:
        return len(self._members)

    def sweep(self, now: float | None = None) -> None:
        """Call everyone whose deadline has passed."""
        moment = monotonic() if now is None else now
        due = [member for member in self._members if member.deadline <= moment]
        for member in due:
            if member in self._members:  # an earlier one may have ended it
                member.on_deadline(moment)
