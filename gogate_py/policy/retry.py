"""Retries: may this request be tried again, after how long, and may the pool afford it.

    what happened                       sent?     tried again, if attempts are left and the setting names it
    a byte of the answer went out       -         never
    connection could not be made        no        yes, whatever the method: no backend has seen a byte
    connection closed, no answer        no        yes, likewise: a kept connection turned out to be dead
    connection closed, no answer        perhaps   if the request may be repeated and all of its body is still held
    perTryTimeout                       perhaps   likewise
    an answer with a listed status      yes       likewise; with Retry-After see below

The body: whenever something of it was read from the client it must still be held, in every line.

Which requests may be repeated (RFC 9110 section 9.2.2): GET, HEAD, OPTIONS, PUT, DELETE and TRACE, because repeating
them changes nothing. ``methods`` that names some of these leaves only those. Any other method only where ``methods``
names it and the request carries an Idempotency-Key, which tells the backend what is a repetition.

An answer with Retry-After says when that backend wants to be asked again. Another backend, not tried yet, may be asked
at once. The same one is asked again only when the time is not above maxBackoff, and after that time; otherwise the
answer is passed on, and the client knows better than we do.

Above all that is the budget: retries multiply the load just when a pool has too much of it (see RetryBudget). It is
asked last, because asking takes from it, and not about connections that could not be made: those bring no load.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from gogate_py.clock import Random
from gogate_py.snapshot import Retry

#: RFC 9110 section 9.2.2.
IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"))

#: What ended a try: the kind of failure, or the status of an answer.
Kind = Literal["connect", "reset", "timeout"] | int


class Verdict(NamedTuple):
    """Whether to try again. ``reason``: the kind of failure or the status, as a label, when so; otherwise why not.
    ``wait``: seconds that must pass first because of Retry-After; the caller waits for the longer of it and the
    back-off."""

    retry: bool
    reason: str
    wait: float = 0.0


class RetryPolicy:
    """The settings of one route."""

    __slots__ = ("_backoff", "_kinds", "_max_backoff", "_statuses", "_with_key", "attempts", "repeatable")

    def __init__(self, settings: Retry) -> None:
        named = {method.encode() for method in settings.methods if method != "idempotent"}
        everyone = "idempotent" in settings.methods or not named & IDEMPOTENT
        self.attempts = settings.attempts
        #: methods whose requests may be repeated, whatever their fields
        self.repeatable = IDEMPOTENT if everyone else IDEMPOTENT & named
        self._with_key = frozenset(named - IDEMPOTENT)
        self._kinds = {"connect": settings.connect, "reset": settings.reset, "timeout": settings.timeout}
        self._statuses = frozenset(settings.statuses)
        self._backoff = settings.backoff
        self._max_backoff = settings.max_backoff

    def may_repeat(self, method: bytes, has_idempotency_key: bool) -> bool:
        """Whether such a request may reach a backend twice."""
        return method in self.repeatable or (has_idempotency_key and method in self._with_key)

    def retries_status(self, status: int) -> bool:
        """Whether an answer with this status is a reason to try again."""
        return status in self._statuses

    def backoff(self, attempt: int, random: Random) -> float:
        """Seconds before retry number ``attempt`` (from 1): full jitter, uniform in [0, min(maxBackoff, backoff *
        2^(attempt - 1))). It spreads those who failed together better than any half-fixed delay (AWS 2015; Envoy)."""
        return random.random() * min(self._max_backoff, self._backoff * 2.0 ** min(attempt - 1, 60))

    def verdict(
        self,
        kind: Kind,
        *,
        attempts: int,
        sent: bool,
        repeatable: bool,
        replayable: bool,
        answered: bool = False,
        another: bool = True,
        retry_after: float | None = None,
    ) -> Verdict:
        """Judge a try that failed, by the table above; the budget is not looked at.

        ``attempts``: tries made, this one included. ``sent``: a byte of the request may have reached the backend in
        this try. ``repeatable``: see :meth:`may_repeat`. ``replayable``: all of the body that was read is still held.
        ``answered``: a byte of the answer went to the client. ``another``: a usable backend is left that was not
        tried. ``retry_after``: what the answer's field says, in seconds.
        """
        if answered:
            return Verdict(False, "answer begun")
        if attempts >= self.attempts:
            return Verdict(False, "attempts used up")
        is_status = isinstance(kind, int)
        # On a connection where nothing was sent it does not matter which way it was lost.
        unsent = not is_status and not sent
        wanted = (
            self.retries_status(kind)
            if isinstance(kind, int)
            else self._kinds[kind] or (unsent and kind == "reset" and self._kinds["connect"])
        )
        if not wanted:
            return Verdict(False, "not configured")
        if not replayable:
            return Verdict(False, "body not held")
        if not unsent and not repeatable:
            return Verdict(False, "not idempotent")
        if not is_status or retry_after is None or another:
            return Verdict(True, str(kind))
        if retry_after > self._max_backoff:
            return Verdict(False, "Retry-After too long")
        return Verdict(True, str(kind), max(0.0, retry_after))


class RetryBudget:
    """What retries one pool may have in one worker (Finagle's RetryBudget): within any WINDOW seconds as many as
    ``percent`` of its requests, and RESERVE besides, so that little traffic can be retried too. ``percent`` 0 = without
    bound.

    A whole second's deposits and withdrawals expire together; they are counted in hundredths of a retry, which are
    whole numbers and do not drift. O(1): a moment's update clears at most WINDOW cells.
    """

    WINDOW: Final = 10
    RESERVE: Final = 10

    __slots__ = ("_balance", "_cells", "_second", "percent")

    def __init__(self, percent: int) -> None:
        #: may be changed at any time; 0 = no bound
        self.percent = percent
        self._cells = [0] * self.WINDOW
        self._balance = 0
        self._second = 0

    def deposit(self, now: float) -> None:
        """A request begins (not a retry); ``now`` in monotonic seconds."""
        if now >= self._second + 1:
            self._advance(now)
        self._cells[self._second % self.WINDOW] += self.percent
        self._balance += self.percent

    def withdraw(self, now: float) -> bool:
        """Take a retry; False when there is none left."""
        if not self.percent:
            return True
        self._advance(now)
        if self._balance + self.RESERVE * 100 < 100:
            return False
        self._cells[self._second % self.WINDOW] -= 100
        self._balance -= 100
        return True

    def balance(self, now: float) -> float:
        """How many retries could be taken now (for explain and stats); infinite without bound."""
        if not self.percent:
            return float("inf")
        self._advance(now)
        return max(0.0, self._balance / 100 + self.RESERVE)

    def _advance(self, now: float) -> None:
        second = int(now)
        passed = second - self._second
        if passed <= 0:
            return
        cells = self._cells
        for step in range(self._second + 1, self._second + 1 + min(passed, self.WINDOW)):
            self._balance -= cells[step % self.WINDOW]
            cells[step % self.WINDOW] = 0
        self._second = second
