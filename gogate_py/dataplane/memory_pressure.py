"""Memory pressure: what a worker stops doing near its share of memory (SECURITY.md F18; as Envoy's overload manager).

    resident memory ≥ 85 % of maxMemory   answers carry Connection: close: idle clients free their memory back
    resident memory ≥ 95 % of maxMemory   nothing is accepted meanwhile; who comes waits in the kernel

Looked at once a tick; what runs is never cut.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Final

log = logging.getLogger("gogate.plane")

TIGHT: Final = 0.85
FULL: Final = 0.95

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes of memory that this process holds (about 10 µs)."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split(b" ")[1]) * _PAGE


class MemoryPressure:
    """The one of a worker. ``limit`` in bytes, 0 = none."""

    def __init__(self, measure: Callable[[], int] = resident) -> None:
        self._measure = measure
        self.limit = 0
        self.tight = False
        self.full = False

    def look(self) -> None:
        """Measure, and say so when it changed."""
        if not self.limit:
            self.tight = self.full = False
            return
        used = self._measure()
        tight, full = used >= TIGHT * self.limit, used >= FULL * self.limit
        if (tight, full) != (self.tight, self.full):
            self.tight, self.full = tight, full
            state = "no new connections" if full else "no keep-alive" if tight else "enough again"
            log.warning("memory pressure", extra={"state": state, "resident": used, "max_memory": self.limit})
