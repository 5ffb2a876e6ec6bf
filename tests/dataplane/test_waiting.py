"""The waiting room of a pool: who is served, in which order, and who has waited too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gogate_py.dataplane import waiting
from gogate_py.dataplane.waiting import POLL, WaitingRoom


class Clock:
    """A loop's timers and the clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[tuple[float, Callable[[], None], Handle]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        handle = Handle()
        self.timers.append((self.now + delay, callback, handle))
        return handle  # type: ignore[return-value]  # all that is used of one is cancel()

    def due(self) -> list[float]:
        """In how many seconds each running timer rings."""
        return [round(at - self.now, 6) for at, _, handle in self.timers if not handle.cancelled]

    def advance(self, seconds: float) -> None:
        """Let time pass; timers ring in order."""
        end = self.now + seconds
        while ready := sorted((entry for entry in self.timers if entry[0] <= end), key=lambda entry: entry[0]):
            at, callback, handle = ready[0]
            self.timers.remove(ready[0])
            self.now = max(self.now, at)
            if not handle.cancelled:
                callback()
        self.now = end


class Handle:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Seats:
    """What is waited for, and the story of who got it."""

    def __init__(self) -> None:
        self.free = 0
        self.asked = 0
        self.story: list[str] = []


class Waiting:
    """A waiter that takes a seat."""

    def __init__(self, name: str, seats: Seats) -> None:
        self.name = name
        self.seats = seats

    def room(self) -> bool:
        self.seats.asked += 1
        if not self.seats.free:
            return False
        self.seats.free -= 1
        self.seats.story.append(f"{self.name} in")
        return True

    def waited_too_long(self) -> None:
        self.seats.story.append(f"{self.name} late")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(waiting, "monotonic", lambda: found.now)
    return found


def test_first_come_first_served(clock: Clock) -> None:
    """Seats go to those who waited longest, as many as there are seats."""
    room, seats = WaitingRoom(clock.call_later), Seats()
    for name in "abcd":
        room.enter(Waiting(name, seats), 5.0)
    assert len(room) == 4
    seats.free = 2
    clock.advance(POLL)
    assert seats.story == ["a in", "b in"]
    seats.free = 1
    room.freed()
    clock.advance(0)
    assert seats.story == ["a in", "b in", "c in"]
    assert len(room) == 1


def test_who_cannot_enter_keeps_the_first_place(clock: Clock) -> None:
    """While there is no seat only the first is asked, again and again, and nobody passes it."""
    room, seats = WaitingRoom(clock.call_later), Seats()
    for name in "abc":
        room.enter(Waiting(name, seats), 5.0)
    clock.advance(3 * POLL + POLL / 2)
    assert seats.asked == 3
    assert len(room) == 3
    seats.free = 3
    clock.advance(POLL)
    assert seats.story == ["a in", "b in", "c in"]


def test_time_limit(clock: Clock) -> None:
    """Whoever waited as long as the limit is told so and counted, in order; those who came later still wait."""
    room, seats = WaitingRoom(clock.call_later), Seats()
    room.enter(Waiting("a", seats), 1.0)
    room.enter(Waiting("b", seats), 1.0)
    clock.advance(0.5)
    room.enter(Waiting("c", seats), 1.0)
    clock.advance(0.499)
    assert seats.story == []
    clock.advance(0.001 + POLL)
    assert seats.story == ["a late", "b late"]
    assert (room.timed_out, len(room)) == (2, 1)
    seats.free = 1
    clock.advance(POLL)
    assert seats.story[-1] == "c in"


def test_a_seat_is_offered_at_once_but_not_inside_of_what_ends(clock: Clock) -> None:
    """What this worker frees is offered in the loop's next turn, and several seats freed in one turn in one go."""
    room, seats = WaitingRoom(clock.call_later), Seats()
    for name in "ab":
        room.enter(Waiting(name, seats), 5.0)
    seats.free = 2
    room.freed()
    room.freed()
    assert seats.story == []
    assert clock.due() == [0.0]
    clock.advance(0)
    assert seats.story == ["a in", "b in"]
    assert clock.due() == []


def test_nobody_waits_nothing_runs(clock: Clock) -> None:
    """An empty room has no timer, whoever frees something."""
    room, seats = WaitingRoom(clock.call_later), Seats()
    room.freed()
    assert clock.due() == []
    room.enter(Waiting("a", seats), 5.0)
    assert clock.due() == [POLL]
    seats.free = 1
    clock.advance(1.0)
    assert seats.story == ["a in"]
    assert clock.due() == []


def test_leaving(clock: Clock) -> None:
    """Who left is neither asked nor told anything, and the others move up; leaving twice is nothing."""
    room, seats = WaitingRoom(clock.call_later), Seats()
    waiters = [Waiting(name, seats) for name in "abc"]
    for waiter in waiters:
        room.enter(waiter, 1.0)
    room.leave(waiters[0])
    room.leave(waiters[0])
    assert len(room) == 2
    seats.free = 1
    clock.advance(POLL)
    room.leave(waiters[2])
    clock.advance(5.0)
    assert seats.story == ["b in"]
    assert room.timed_out == 0
    assert clock.due() == []


def test_who_enters_while_others_are_served(clock: Clock) -> None:
    """A waiter whose turn makes another one wait does not lose it, nor serve it twice."""
    room, seats = WaitingRoom(clock.call_later), Seats()

    class Bringing(Waiting):
        def room(self) -> bool:
            room.enter(Waiting("friend", seats), 5.0)
            room.freed()
            return super().room()

    room.enter(Bringing("a", seats), 5.0)
    seats.free = 1
    clock.advance(POLL)
    assert seats.story == ["a in"]
    seats.free = 1
    clock.advance(POLL)
    assert seats.story == ["a in", "friend in"]
    assert clock.due() == []


def test_the_pool_is_removed(clock: Clock) -> None:
    """Everybody is told at once, nobody is asked any more, and no timer stays."""
    room, seats = WaitingRoom(clock.call_later), Seats()
    for name in "ab":
        room.enter(Waiting(name, seats), 5.0)
    room.close()
    assert seats.story == ["a late", "b late"]
    assert len(room) == 0
    assert clock.due() == []
    room.close()
    assert seats.story == ["a late", "b late"]
