"""Questions that the admin API asks of every worker; a worker that is gone, or too slow, is left out of the answer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Final

from gogate_py.messages import CloseConnection, Closed, Connection, Connections, Down, ListConnections
from gogate_py.process.workers import Slot

#: How long a worker may take to answer.
ANSWER_TIMEOUT: Final = 2.0


class _Question:
    """``waiting``: slots that have not answered; ``found``: what the others said."""

    def __init__(self, waiting: set[int]) -> None:
        self.waiting = waiting
        self.found: list[Connection] = []
        self.answer: asyncio.Future[list[Connection] | bool] = asyncio.get_running_loop().create_future()


class Questions:
    """All that are open. ``slots`` gives the workers."""

    def __init__(self, slots: Callable[[], Sequence[Slot]]) -> None:
        self._slots = slots
        self._open: dict[int, _Question] = {}
        self._numbers = itertools.count(1)

    async def connections(self) -> list[Connection]:
        """Every live L4 connection."""
        found = await self._ask(ListConnections)
        return found if isinstance(found, list) else []

    async def close_connection(self, connection_id: str) -> bool:
        """Cut one L4 connection; → whether it was there."""
        return await self._ask(CloseConnection, connection_id) is True

    def answered(self, slot: Slot, message: Connections | Closed) -> None:
        """A worker answers."""
        question = self._open.get(message.question)
        if question is None:
            return
        if isinstance(message, Connections):
            question.found.extend(message.connections)
        elif message.found and not question.answer.done():
            question.answer.set_result(True)
        self._done(message.question, question, slot)

    def gone(self, slot: Slot) -> None:
        """A worker will not answer any more."""
        for number, question in list(self._open.items()):
            self._done(number, question, slot)

    def _done(self, number: int, question: _Question, slot: Slot) -> None:
        question.waiting.discard(slot.slot)
        if not question.waiting:
            self._open.pop(number, None)
            if not question.answer.done():
                question.answer.set_result(question.found)

    async def _ask(self, make: type[ListConnections] | type[CloseConnection], *args: str) -> list[Connection] | bool:
        number = next(self._numbers)
        message: Down = make(number, *args)
        asked = [slot for slot in self._slots() if slot.channel is not None]
        if not asked:
            return []
        question = self._open[number] = _Question({slot.slot for slot in asked})
        for slot in asked:
            slot.send(message)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await question.answer
        except TimeoutError:
            return question.found
        finally:
            self._open.pop(number, None)
