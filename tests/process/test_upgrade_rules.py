"""The decisions of an upgrade: where it is refused, which columns of the arena are free, what old workers tell."""

from __future__ import annotations

import os
import socket

import pytest

from gogate_py.arena import MAX_SLOTS
from gogate_py.messages import Counts
from gogate_py.process import handover
from gogate_py.process.outgoing import free_columns
from gogate_py.process.takeover import without_own
from gogate_py.process.upgrade import refusal


@pytest.mark.parametrize(
    ("pid", "parent", "init", "refused"),
    [
        (1, 0, "python", "process 1"),
        (7, 1, "tini", "tini"),
        (7, 1, "systemd", ""),
        (7, 1, "s6-svscan", ""),
        (7, 5, "tini", ""),  # under something that tini runs
        (700, 650, "systemd", ""),
    ],
)
def test_where_it_is_refused(pid: int, parent: int, init: str, refused: str) -> None:
    """Where the end of the old gogate would be the end of the container."""
    assert refused in refusal(pid, parent, init)
    assert bool(refusal(pid, parent, init)) == bool(refused)


@pytest.mark.parametrize(
    ("first", "count", "wanted", "found"),
    [
        (0, 2, 2, 2),
        (2, 2, 2, 0),
        (2, 2, 3, 4),
        (4, 3, 4, 0),
        (0, 32, 32, 32),
        (0, 33, 32, None),
        (32, 32, 33, None),
        (0, MAX_SLOTS, 1, None),
    ],
)
def test_free_columns(first: int, count: int, wanted: int, found: int | None) -> None:
    """Beside those of the old workers, below or above them."""
    assert free_columns(first, count, wanted) == found


def test_what_is_about_a_worker_itself_is_not_told() -> None:
    """Gauges of an old worker are added to the new one's sums, but not where they are the worker's own."""
    counts = Counts(
        [("gogate_requests_total", ("p", "b", "200"), 1.0)],
        [("gogate_event_loop_lag_seconds", ("0",), 0.1), ("gogate_cache_entries", ("r",), 3.0), ("unknown", (), 1.0)],
        [],
    )
    told = without_own(counts)
    assert told.gauges == [("gogate_cache_entries", ("r",), 3.0)]
    assert told.counters == counts.counters


def test_what_the_new_one_inherits() -> None:
    """The descriptor is taken once; what systemd said to the old process alone is not for the new one."""
    ours, theirs = socket.socketpair()
    environ = {"PATH": "/bin", "LISTEN_PID": "7", "LISTEN_FDS": "1", "WATCHDOG_PID": "7", "WATCHDOG_USEC": "5"}
    given = handover.environment(theirs.fileno(), environ)
    assert given == {"PATH": "/bin", "WATCHDOG_USEC": "5", handover.VARIABLE: str(theirs.fileno())}
    os.set_inheritable(theirs.fileno(), True)
    taken = handover.inherited(given)
    assert taken is not None
    assert not os.get_inheritable(taken.fileno())
    assert handover.VARIABLE not in given
    assert handover.inherited(given) is None
    theirs.detach()
    taken.close()
    ours.close()


@pytest.mark.parametrize("text", ["", "x", "-1", "99999", "²"])
def test_a_variable_that_means_nothing(text: str) -> None:
    """A variable that is left over from somewhere does no harm."""
    assert handover.inherited({handover.VARIABLE: text}) is None
