"""Outlier detection: takes a backend that fails again and again out of its pool for a while (as Envoy does).

A failure is an answer of 5xx, or none: a connect that failed, a reset, a timeout. Counts are over all workers.

    backend      event                                  becomes
    in the pool  success                                failures = 0
    in the pool  failure, fewer than consecutive5xx     failures + 1
    in the pool  failure, the consecutive5xx-th in a    ejected, failures = 0, if the pool allows it; else failures = 0:
                 row                                    it is looked at again after as many failures more
    ejected      outcome (of work it had, or in panic)  ignored
    ejected      its time is over                       in the pool again, failures = 0

The time is baseEjection times the ejections in a row, at most MAX_EJECTION (or baseEjection, if that is longer). For
each baseEjection that it was in the pool since its last ejection ended, one of those is forgotten.

The pool allows it when fewer than maxEjectionPercent of its backends (rounded down, but at least one) are ejected now,
and another usable one is left: the last one is never ejected (SECURITY.md F4).

It must not know where the integers live, nor how they are locked.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from gogate_py.snapshot import Outlier

#: Nanoseconds an ejection lasts at most, unless baseEjection is longer.
MAX_EJECTION_NS: Final = 300_000_000_000


class OutlierCells(NamedTuple):
    """The shared state. ``failures`` are those in a row, ``ejected_until_ns`` is the monotonic time at which the last
    ejection ends or ended (0: never ejected), ``ejections`` are those in a row."""

    failures: int = 0
    ejected_until_ns: int = 0
    ejections: int = 0


class OutlierPolicy:
    """Settings and decisions."""

    __slots__ = ("_base_ns", "_max_ns", "_max_percent", "threshold")

    def __init__(self, settings: Outlier) -> None:
        self.threshold = settings.consecutive_5xx
        # Not 0, by which time could not be divided.
        self._base_ns = max(1, round(settings.base_ejection * 1e9))
        self._max_ns = max(self._base_ns, MAX_EJECTION_NS)
        self._max_percent = settings.max_ejection_percent

    def record(self, cells: OutlierCells, ok: bool, now_ns: int) -> tuple[bool, OutlierCells]:
        """→ (whether it is to be ejected if its pool allows it, the state after an outcome)."""
        if now_ns < cells.ejected_until_ns:
            return False, cells
        if ok:
            return False, cells._replace(failures=0) if cells.failures else cells
        failures = cells.failures + 1
        return failures >= self.threshold, cells._replace(failures=failures)

    def allows(self, backends: int, usable: int, ejected: int) -> bool:
        """May one more of a pool's backends be ejected? ``usable`` would take work if none were ejected, ``ejected``
        are so now."""
        return usable - ejected >= 2 and ejected < max(1, backends * self._max_percent // 100)

    def eject(self, cells: OutlierCells, now_ns: int) -> OutlierCells:
        """The state after it was ejected."""
        forgotten = max(0, now_ns - cells.ejected_until_ns) // self._base_ns
        ejections = max(0, cells.ejections - forgotten) + 1
        return OutlierCells(0, now_ns + min(ejections * self._base_ns, self._max_ns), ejections)

    @staticmethod
    def refused(cells: OutlierCells) -> OutlierCells:
        """The state after the pool did not allow it."""
        return cells._replace(failures=0)
