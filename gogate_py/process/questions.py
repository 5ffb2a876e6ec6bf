"""Questions that the admin API asks of every worker; a worker that is gone, or too slow, is left out of the answer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Final

from gogate_py.messages import (
    CloseConnection,
    Closed,
    Connection,
    Connections,
    Down,
    FindRequest,
    ListConnections,
    ListRequests,
    RequestFound,
    RequestRecord,
    Requests,
    RequestSummary,
)
from gogate_py.process.workers import Slot

#: How long a worker may take to answer.
ANSWER_TIMEOUT: Final = 2.0

Answer = Connections | Closed | Requests | RequestFound


class _Question:
    """``waiting``: slots that have not answered; ``answers``: what the others said; ``enough``: whether an answer is
    all that is needed."""

    def __init__(self, waiting: set[int], enough: Callable[[Answer], bool]) -> None:
        self.waiting = waiting
        self.enough = enough
        self.answers: list[Answer] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Questions:
    """All that are open. ``slots`` gives the workers."""

    def __init__(self, slots: Callable[[], Sequence[Slot]]) -> None:
        self._slots = slots
        self._open: dict[int, _Question] = {}
        self._numbers = itertools.count(1)

    async def connections(self) -> list[Connection]:
        """Every live L4 connection."""
        answers = await self._ask(ListConnections)
        return [one for answer in answers if isinstance(answer, Connections) for one in answer.connections]

    async def close_connection(self, connection_id: str) -> bool:
        """Cut one L4 connection; → whether it was there."""

        def found(answer: Answer) -> bool:
            return isinstance(answer, Closed) and answer.found

        return any(map(found, await self._ask(lambda number: CloseConnection(number, connection_id), found)))

    async def requests(self, limit: int, route: str, status: int) -> list[RequestSummary]:
        """The newest recorded requests of all workers, the newest first."""
        answers = await self._ask(lambda number: ListRequests(number, limit, route, status))
        found = [one for answer in answers if isinstance(answer, Requests) for one in answer.requests]
        found.sort(key=lambda one: one.time, reverse=True)
        return found[:limit]

    async def request(self, identity: str) -> RequestRecord | None:
        """The record of one request; where several have the id, the newest one."""
        answers = await self._ask(lambda number: FindRequest(number, identity))
        found = [answer.record for answer in answers if isinstance(answer, RequestFound) and answer.record is not None]
        return max(found, key=lambda one: one.summary.time, default=None)

    def answered(self, slot: Slot, message: Answer) -> None:
        """A worker answers."""
        question = self._open.get(message.question)
        if question is None:
            return
        question.answers.append(message)
        if question.enough(message) and not question.done.done():
            question.done.set_result(None)
        self._done(message.question, question, slot)

    def gone(self, slot: Slot) -> None:
        """A worker will not answer any more."""
        for number, question in list(self._open.items()):
            self._done(number, question, slot)

    def _done(self, number: int, question: _Question, slot: Slot) -> None:
        question.waiting.discard(slot.slot)
        if not question.waiting:
            self._open.pop(number, None)
            if not question.done.done():
                question.done.set_result(None)

    async def _ask(
        self, make: Callable[[int], Down], enough: Callable[[Answer], bool] = lambda _: False
    ) -> list[Answer]:
        """What the workers answer; with less than all of it when one answer is ``enough`` or time is up."""
        number = next(self._numbers)
        asked = [slot for slot in self._slots() if slot.channel is not None]
        if not asked:
            return []
        question = self._open[number] = _Question({slot.slot for slot in asked}, enough)
        message = make(number)
        for slot in asked:
            slot.send(message)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                await question.done
        except TimeoutError:
            pass
        finally:
            self._open.pop(number, None)
        return question.answers
