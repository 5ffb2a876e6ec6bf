"""What the kernel knows of a process, against the process's own view."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

from gogate_py.controlplane.process_use import process_gauges, process_use


def test_this_process() -> None:
    """Descriptors are counted as they are opened, memory and CPU time are plausible, the limit is ours."""
    before = process_use(os.getpid())
    assert before is not None
    more = [os.open("/dev/null", os.O_RDONLY) for _ in range(7)]
    ballast = bytearray(os.urandom(1 << 20) * 32)
    after = process_use(os.getpid())
    for fd in more:
        os.close(fd)
    assert after is not None
    assert after.open_fds - before.open_fds == 7
    assert after.max_fds == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert after.resident_bytes - before.resident_bytes > len(ballast) // 2
    used = resource.getrusage(resource.RUSAGE_SELF)
    assert abs(after.cpu_seconds - used.ru_utime - used.ru_stime) < 1.0


def test_a_process_with_a_strange_name_and_one_that_is_gone() -> None:
    """A name with blanks and parentheses shifts no field; a process that is gone has no series."""
    program = "open('/proc/self/comm', 'w').write('a) b (c'); print(1, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        used = process_use(child.pid)
        assert used is not None
        assert 1 << 20 < used.resident_bytes < 1 << 30
        assert child.stdin is not None
        child.stdin.close()
    shown = process_gauges([("supervisor", os.getpid()), ("0", child.pid)])
    assert {frozenset(table) for table in shown.values()} == {frozenset({("supervisor",)})}
