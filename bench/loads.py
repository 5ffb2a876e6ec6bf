"""Running one load against one proxy: → what was done, and what it cost the proxy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from measured import PATIENCE
from parts import on_core
from peers import Proxy
from rows import Row

HERE = Path(__file__).parent
#: The cores of the beginning: a part of the benchmark runs on the load's only.
_USABLE = frozenset(os.sched_getaffinity(0))


class Cores(NamedTuple):
    """Where what runs: the proxy has its cores for itself, load and backends have the others."""

    proxy: set[int]
    load: set[int]

    @classmethod
    def of_machine(cls, workers: int) -> Cores:
        """One core each; with four and more a proxy of two workers has two, and the load has two."""
        usable = sorted(_USABLE)
        if len(usable) < 4:
            return cls({usable[0]}, {usable[-1]})
        return cls(set(usable[:workers]), set(usable[2:4]))


class Pace(NamedTuple):
    """How long is measured: rounds of so many seconds; ``piece`` is what bulk is cut into, bytes."""

    rounds: int
    seconds: float
    warm_up: float
    piece: int


class Run(NamedTuple):
    """One run. ``units`` are requests, messages, connections, or bytes."""

    units: int
    seconds: float
    cpu_ns: int
    errors: int
    error: str
    p50_ms: float
    p99_ms: float
    p999_ms: float

    def cost(self, row: Row) -> float:
        """CPU per unit: µs, or seconds per GB where the row has a size."""
        return self.cpu_ns / max(1, self.units * row.size) if row.size else self.cpu_ns / 1000 / max(1, self.units)

    def rate(self, row: Row) -> float:
        """Units per second; MB per second where the row has a size."""
        return self.units * (row.size / 1e6 if row.size else 1) / self.seconds


def run(row: Row, proxy: Proxy, cores: Cores, pace: Pace) -> Run:
    """One run of a row's load. A load that cannot do its work is a run with an error."""
    script = "tcp_load.py" if row.listener == "tcp" else "http_load.py"
    command = [sys.executable, str(HERE / script), *row.load, "--pid", str(proxy.pid),
               "--port", str(getattr(proxy.ports, row.listener)), "--connections", str(row.connections),
               "--seconds", str(pace.seconds), "--warm-up", str(pace.warm_up)]  # fmt: skip
    command += ["--piece", str(pace.piece)] if row.listener == "tcp" else []
    with on_core(cores.load):
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, timeout=pace.seconds + 3 * PATIENCE
            )
        except subprocess.CalledProcessError as error:
            return _broken(error.stderr.strip().splitlines()[-1:])
        except subprocess.TimeoutExpired:
            return _broken(["the load did not end"])
    return Run(**json.loads(done.stdout))


def _broken(lines: list[str]) -> Run:
    return Run(0, 1.0, 0, 1, "".join(lines) or "the load failed", 0.0, 0.0, 0.0)
