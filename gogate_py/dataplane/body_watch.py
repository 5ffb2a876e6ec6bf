"""BodyWatch: whether the two bodies of one exchange move, and fast enough (SECURITY.md T16).

Pure arithmetic over byte counts and moments that it is given; what to do about a verdict is exchange_deadlines'
business. Made when an exchange is first looked at, a second after its start, so that the ordinary request never has
one.

    request body    no byte for ``idle`` seconds, or fewer than ``rate`` bytes a second on average after GRACE
                    seconds; only time in which we were willing to read counts
    response body   the same on the client's side, but only while bytes wait for it: a leaky bucket of slow seconds;
                    and no byte from the backend for ``idle`` seconds
"""

from __future__ import annotations

from enum import Enum
from typing import Final

#: How often a body is looked at, seconds.
BODY_CHECK: Final = 1.0
#: Seconds below the minimum rate that are forgiven (Kestrel's MinRequestBodyDataRate has the same 5 s).
GRACE: Final = 5.0


class Verdict(Enum):
    """What a look at a response body says."""

    MOVES = "moves"
    SLOW_CLIENT = "slow_client"
    SILENT_BACKEND = "silent_backend"


class BodyWatch:
    """The watch of one exchange. All moments are seconds of one monotonic clock."""

    __slots__ = ("_at", "_drained", "_elapsed", "_request_at", "_request_seen", "_response_at", "_slow", "_watched")

    def __init__(self, started: float) -> None:
        self._at = started
        self._elapsed = 0.0
        # --- request: bytes seen, when they last grew, seconds in which the client could send
        self._request_seen = 0
        self._request_at = started
        self._watched = 0.0
        # --- response: bytes the client took, when they last grew, seconds the client is behind the minimum rate
        self._drained = 0
        self._response_at = started
        self._slow = 0.0

    def look(self, now: float) -> None:
        """Begin a look at the bodies; the time since the last one is what this one judges."""
        self._elapsed = now - self._at
        self._at = now

    def request_moves(self, now: float, seen: int, idle: float, rate: int) -> bool:
        """Whether a client that may send does; ``seen`` bytes of body so far. 0 turns ``idle`` or ``rate`` off."""
        self._watched += self._elapsed
        if seen != self._request_seen:
            self._request_seen = seen
            self._request_at = now
        if idle and now - self._request_at >= idle:
            return False
        return not rate or seen >= rate * (self._watched - GRACE)

    def request_excused(self, now: float) -> None:
        """The client need not send at the moment."""
        self._request_at = now

    def backend_reads(self, now: float, seen: int, idle: float) -> bool:
        """Whether a backend that does not take the request body took any of it within ``idle`` seconds."""
        if seen != self._request_seen:
            self._request_seen = seen
            self._request_at = now
        return not idle or now - self._request_at < idle

    def response(self, now: float, drained: int, waiting: int, idle: float, silence: float, rate: int) -> Verdict:
        """Judge a response: ``drained`` bytes taken so far, ``waiting`` ones held here for the client.

        ``idle``: longest time in which the client takes nothing of what waits; ``silence``: longest time in which the
        backend sends nothing. 0 turns either, or ``rate``, off.
        """
        moved = drained - self._drained
        if moved:
            self._drained = drained
            self._response_at = now
        stands = now - self._response_at
        if not waiting:
            self._slow = 0.0
            return Verdict.SILENT_BACKEND if silence and stands >= silence else Verdict.MOVES
        if rate:
            self._slow = max(0.0, self._slow + self._elapsed - moved / rate)
            if self._slow > GRACE:
                return Verdict.SLOW_CLIENT
        return Verdict.SLOW_CLIENT if idle and stands >= idle else Verdict.MOVES
