"""One measurement, from inside the load's process: warm up, empty, read the proxy's CPU, play, empty, read it again.

Nothing is in flight at either reading, so CPU and units belong together exactly. Every answer is checked; what is wrong
is counted, and the first of it told.
"""

from __future__ import annotations

import gc
import json
import time
from abc import ABC, abstractmethod

from parts import family, raise_descriptor_limit, task_ns
from reactor import Reactor

#: Seconds that what is in flight may take to come in; what has not by then is an error.
PATIENCE = 20.0


class Load(ABC):
    """What all loads count. Each of its clients is busy with one unit of work at a time."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.playing = False
        self.busy = 0
        self.units = 0
        self.times: list[float] = []
        self.errors = 0
        self.first_error = ""

    @abstractmethod
    def begin(self) -> None:
        """Make every client busy."""

    def failed(self, what: str) -> None:
        """A unit was not done, or not well."""
        self.errors += 1
        self.first_error = self.first_error or what

    def play(self, seconds: float) -> float:
        """Keep all clients busy for so long, then let them come to their end; → seconds in all."""
        started = time.perf_counter()
        self.playing = True
        self.begin()
        self.reactor.run(seconds)
        self.playing = False
        give_up = time.perf_counter() + PATIENCE
        while self.busy and time.perf_counter() < give_up:
            self.reactor.turn(0.1)
        took = time.perf_counter() - started
        for _ in range(self.busy):
            self.failed("no answer came")
        return took


def measure(load: Load, pid: int, warm_up: float, seconds: float) -> None:
    """Measure, and print the result as JSON: units, seconds, cpu_ns, errors, error, quantiles of the times in ms."""
    raise_descriptor_limit()
    gc.disable()
    load.play(warm_up)
    members = family(pid)
    load.units = 0
    load.times.clear()
    before = task_ns(members)
    took = load.play(seconds)
    cpu = task_ns(members) - before
    times = sorted(load.times)

    def quantile(share: float) -> float:
        return times[min(len(times) - 1, int(len(times) * share))] * 1000 if times else 0.0

    print(json.dumps({
        "units": load.units, "seconds": took, "cpu_ns": cpu, "errors": load.errors, "error": load.first_error,
        "p50_ms": quantile(0.5), "p99_ms": quantile(0.99), "p999_ms": quantile(0.999),
    }))
