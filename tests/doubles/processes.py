"""Real processes that share an arena with the test: forked, so that they have its one descriptor."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def in_children(count: int, work: Callable[[int], None]) -> None:
    """Run ``work(number)`` in that many forked processes at once; all must end well."""
    read, write = os.pipe()
    pids = []
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(write)
                os.read(read, 1)  # the end of the pipe: all are there
                work(number)
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    os.close(write)
    os.close(read)
    ends = [os.waitpid(pid, 0)[1] for pid in pids]
    assert ends == [0] * count


@contextmanager
def another_process(work: Callable[[], object]) -> Iterator[None]:
    """A process that has done ``work`` and holds on to what it has; kill -9 at the end of the block."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os.write(write, b"x")
            signal.pause()
        finally:
            os._exit(1)
    try:
        os.close(write)
        assert os.read(read, 1) == b"x"
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read)
