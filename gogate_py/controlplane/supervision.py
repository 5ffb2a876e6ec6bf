"""What the admin side asks of the supervisor: workers, connections, what the arena knows, reloads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import msgspec

from gogate_py.controlplane.plan import Plan
from gogate_py.controlplane.reloads import Reload
from gogate_py.messages import Connection, RequestRecord, RequestSummary
from gogate_py.middleware.question import Question


class WorkerView(msgspec.Struct, frozen=True):
    """One worker slot as it is shown. ``started_s``: seconds since its process started."""

    slot: int
    pid: int
    state: str  # starting | serving | draining | dead
    started_s: float
    restarts: int


class LiveState(NamedTuple):
    """What the arena knows of a backend: over all workers."""

    active: int  # requests and TCP connections
    breaker: str  # closed | open | half_open
    ejected: bool  # by outlier detection


#: Arena row → what is known there.
Live = Callable[[int], LiveState]


class Records(Protocol):
    """Who asks the workers."""

    async def requests(self, limit: int, route: str, status: int, /) -> list[RequestSummary]:
        """The newest recorded requests; of one route, and of one status (below 10: of its hundred; 0: all)."""
        ...

    async def request(self, identity: str, /) -> RequestRecord | None:
        """The record of one, by its id or its X-Request-ID."""
        ...


class Supervision(Records, Protocol):
    """What the admin API asks of the supervisor."""

    @property
    def started(self) -> float:
        """Monotonic seconds of its start."""
        ...

    def workers(self) -> list[WorkerView]:
        """Every worker slot."""
        ...

    async def connections(self) -> list[Connection]:
        """Every live L4 connection."""
        ...

    async def close_connection(self, connection_id: str, /) -> bool:
        """Cut one; whether it was there."""
        ...

    def backend_live(self, row: int, /) -> LiveState:
        """What the arena knows of the backend in this row."""
        ...

    def out_of_order(self) -> dict[int, tuple[str, bool]]:
        """Rows of the backends whose breaker is not closed, or that are ejected: breaker, ejected. Cheap."""
        ...

    def explain(self, question: Question, listener: str, /) -> dict[str, Any]:
        """What would happen to this request now, if it came in by the listener of this id ("": by any). Raises
        WireError for one that is not valid HTTP."""
        ...

    async def reload(self) -> Reload | None:
        """Reload the configuration from its file; None when there is none."""
        ...

    async def plan(self, text: str, /) -> Plan | None:
        """What serving this text as the configuration would do; None when there is no file. Raises ConfigError."""
        ...

    def reloads(self) -> tuple[str, list[Reload], Reload | None]:
        """The file, the last reloads (newest first), and the last one if it failed."""
        ...

    def log_lines_dropped(self) -> int:
        """Lines the log writer dropped since the last call."""
        ...
