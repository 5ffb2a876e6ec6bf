"""The load of never_down.py: processes of clients, and what every kind of event cost them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from never_down_clients import NEEDS
from parts import running

SCRIPT = str(Path(__file__).parent / "never_down_clients.py")
#: Requests, messages and blocks a second of all clients together: about half of what gogate can on two shared cores.
RATE = 500.0
PROCESSES = 2
#: What must go well of each kind of client between two events, so that each event meets a busy gateway.
BETWEEN = 8
#: Kinds of clients by the column that their failures are in.
COLUMNS = {"kept": "kept", "slow": "kept", "tls": "kept", "fresh": "fresh", "ws": "streams", "tcp": "streams"}


@dataclass
class Failure:
    """One request, message or block that did not go well; ``port`` is the client's own."""

    kind: str
    outcome: str
    port: int
    detail: str


@dataclass
class Cost:
    """What events of one kind cost: how many there were, what went well meanwhile and what failed, by client and
    outcome; the longest that anything took, seconds, and what; ``excused`` failed as it must (see Costs.of)."""

    events: int = 0
    ok: int = 0
    failed: Counter[tuple[str, str]] = field(default_factory=Counter)
    excused: int = 0
    worst: tuple[float, str] = (0.0, "")

    def of(self, column: str) -> int:
        """Requests that failed; in the column "unsent" connections that were closed while nothing was under way."""
        if column == "unsent":
            return sum(n for (_, outcome), n in self.failed.items() if outcome == "unsent")
        return sum(n for (kind, outcome), n in self.failed.items() if outcome != "unsent" and COLUMNS[kind] == column)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        failed = {f"{kind} {outcome}": n for (kind, outcome), n in self.failed.items()}
        return {"events": self.events, "ok": self.ok, "failed": failed, "excused": self.excused,
                "worst_ms": round(self.worst[0] * 1000), "worst_kind": self.worst[1]}  # fmt: skip


class Load:
    """All clients. ``failures`` is everything that ever failed."""

    def __init__(self, addresses: dict[str, tuple[str, int]]) -> None:
        self._addresses = addresses
        self._processes: list[subprocess.Popen[bytes]] = []
        self.ok: Counter[str] = Counter()
        self.failures: list[Failure] = []
        self.worst = (0.0, "")

    def __enter__(self) -> Load:
        settings = json.dumps({"addresses": self._addresses, "rate": RATE / PROCESSES})
        for _ in range(PROCESSES):
            process = subprocess.Popen(
                [sys.executable, SCRIPT, "load", settings], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            self._processes.append(process)
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):
                    pipe.close()

    def kinds(self) -> set[str]:
        """The kinds of clients there are."""
        return {kind for kind, needs in NEEDS.items() if needs in self._addresses}

    def look(self) -> None:
        """Take over what has happened up to now."""
        for process in self._processes:
            _pipe(process.stdin).write(b"look\n")
            _pipe(process.stdin).flush()
        for process in self._processes:
            found = json.loads(_pipe(process.stdout).readline())
            self.ok.update(found["ok"])
            self.worst = max([self.worst, *((took, kind) for kind, took in found["worst"].items())])
            self.failures += [Failure(*one) for one in found["failures"]]

    def settle(self) -> None:
        """Until clients of every kind have been served for a while."""
        self.look()
        goal = {kind: self.ok[kind] + BETWEEN for kind in self.kinds() - {"slow"}}
        self._until(goal)

    def start(self) -> None:
        """Until every kind of client was served once."""
        self._until(dict.fromkeys(self.kinds(), 1))

    def _until(self, goal: dict[str, int]) -> None:
        give_up = time.monotonic() + 20
        while waiting := [kind for kind, n in goal.items() if self.ok[kind] < n]:
            if time.monotonic() > give_up:
                raise SystemExit(f"clients are not served: {waiting}; the last failures: {self.failures[-10:]}")
            time.sleep(0.02)
            self.look()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


class Costs:
    """What each kind of event cost, in order."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.rows: dict[str, Cost] = {}

    @contextlib.contextmanager
    def of(self, what: str, excuse: Callable[[Failure], bool] = lambda failure: False, *, settled: bool = True
           ) -> Iterator[Cost]:
        """One event: what fails in the block, and until clients are served as before, is its cost. ``excuse``: says
        which failures are none: nothing else was promised."""
        load = self.load
        load.look()
        load.worst = (0.0, "")
        ok, first = load.ok.total(), len(load.failures)
        cost = self.rows.setdefault(what, Cost())
        yield cost
        if settled:
            load.settle()
        else:
            load.look()
        cost.events += 1
        cost.ok += load.ok.total() - ok
        cost.worst = max(cost.worst, load.worst)
        failures = load.failures[first:]
        excused = [one for one in failures if excuse(one)]
        cost.excused += len(excused)
        cost.failed.update((one.kind, one.outcome) for one in failures if one not in excused)


@contextlib.contextmanager
def backend() -> Iterator[tuple[int, int]]:
    """The backend's process; → its HTTP and its TCP port."""
    with running([sys.executable, SCRIPT, "backend"], stdout=subprocess.PIPE) as process, _pipe(process.stdout) as out:
        http_port, tcp_port = json.loads(out.readline())
        yield http_port, tcp_port
