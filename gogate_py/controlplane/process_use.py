"""What the kernel knows of our processes: descriptors, memory, CPU time; for the metrics, read at each scrape.

The supervisor reads it for its workers, too: they have better things to do, and one that hangs is seen all the same.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from typing import Final, NamedTuple

from gogate_py.telemetry.exposition import Gauges

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
#: Fields of /proc/PID/stat behind the name, which may have spaces: utime and stime, rss (proc(5): 14, 15, 24).
_UTIME, _STIME, _RSS = 11, 12, 21


class ProcessUse(NamedTuple):
    """One process now."""

    open_fds: int
    max_fds: int
    resident_bytes: int
    cpu_seconds: float


def process_use(pid: int) -> ProcessUse | None:
    """What this process uses; None when it is gone (or not ours to look at)."""
    folder = f"/proc/{pid}/fd"
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        # Since Linux 6.2 the size is the number of entries; before it is 0, and they are listed.
        open_fds = os.stat(folder).st_size or len(os.listdir(folder))
        limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
    except OSError:
        return None
    cpu = (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS
    return ProcessUse(open_fds, limit, int(fields[_RSS]) * _PAGE, cpu)


def process_gauges(processes: Iterable[tuple[str, int]]) -> Gauges:
    """The metrics of these processes (name → pid); one that is gone has none."""
    found = {(name,): used for name, pid in processes if (used := process_use(pid)) is not None}
    return {
        "gogate_process_open_fds": {labels: used.open_fds for labels, used in found.items()},
        "gogate_process_max_fds": {labels: used.max_fds for labels, used in found.items()},
        "gogate_process_resident_memory_bytes": {labels: used.resident_bytes for labels, used in found.items()},
        "gogate_process_cpu_seconds_total": {labels: used.cpu_seconds for labels, used in found.items()},
    }
