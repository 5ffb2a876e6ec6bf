"""Poller: asks a gateway again and again, in a thread of its own, so that keys are heard while an answer is awaited.

It keeps the last figures when the gateway does not answer, says so, and goes on asking. What is to be changed goes
through the same thread and is looked at anew at once.
"""

from __future__ import annotations

import queue
import threading
from typing import Final
from urllib.parse import quote, urlencode

from gogate_py.cli.lease import AdminClient, Refused, UnknownInstance, Unreachable
from gogate_py.cli.top.figures import Figures, Look, compare, look
from gogate_py.cli.top.state import Change
from gogate_py.clock import monotonic

#: Looks that one may be late, in intervals, before it is said.
_LATE: Final = 3


class Poller:
    """``first``: a look that was already taken; there are figures from the start."""

    def __init__(self, client: AdminClient, first: Look, interval: float) -> None:
        self._client = client
        self._interval = interval
        self._orders: queue.SimpleQueue[Change | None] = queue.SimpleQueue()
        # A look between two regular ones is compared with the one before the last: rates over a blink say nothing.
        self._earlier = self._last = first
        self._trouble = ""
        self._seen = monotonic()
        self.figures: Figures = compare(first, first)
        self.said = ""  # of the last change
        self._thread = threading.Thread(target=self._run, name="poller", daemon=True)

    def start(self) -> None:
        """Begin to ask. The thread ends with the program: an answer that never comes keeps nobody from quitting."""
        self._thread.start()

    def change(self, change: Change) -> None:
        """Have a backend drained or undrained."""
        self._orders.put(change)

    @property
    def trouble(self) -> str:
        """Why the figures are old; "" when they are not."""
        if self._trouble:
            return self._trouble
        late = monotonic() - self._seen
        if late > _LATE * self._interval + 1.0:
            return f"the admin API at {self._client.url} has not answered for {late:.0f} s"
        return ""

    def _run(self) -> None:
        due = monotonic() + self._interval
        while True:
            try:
                order = self._orders.get(timeout=max(0.0, due - monotonic()))
            except queue.Empty:
                order = None
            if order is not None:
                self._obey(order)
                self._look(between=True)
            else:
                self._look(between=False)
                due = max(due + self._interval, monotonic())

    def _look(self, *, between: bool) -> None:
        try:
            now = look(self._client)
        except Unreachable as error:
            self._trouble = f"the admin API at {self._client.url} does not answer: {error}; trying again"
        except (Refused, UnknownInstance) as error:
            self._trouble = f"the admin API at {self._client.url}: {error}; trying again"
        else:
            self.figures = compare(self._earlier if between else self._last, now)
            if not between:
                self._earlier, self._last = self._last, now
            self._trouble = ""
        self._seen = monotonic()

    def _obey(self, change: Change) -> None:
        backend = change.backend
        path = f"/backends/{quote(backend.addr, safe='')}/{change.verb}?{urlencode({'pool': backend.pool})}"
        try:
            self._client.call("POST", path)
            self.said = f"{change.verb}ed {backend.addr} in pool {backend.pool}"
        except (Refused, UnknownInstance, Unreachable) as error:
            self.said = f"{change.verb} {backend.addr}: {error}"
