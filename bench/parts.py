"""What the benchmarks share: starting processes on given cores, and reading what they cost from /proc.

Rules: loopback only; every process is ended with its block; what is not installed is left out by name, never guessed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parent.parent
#: Below what Linux takes for outgoing connections (ip_local_port_range).
_PORTS = (15_000, 32_000)


def raise_descriptor_limit() -> None:
    """As many descriptors as the hard limit allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port() -> int:
    """A TCP port that nobody listens on right now, and that the kernel gives no outgoing connection meanwhile."""
    while True:
        port = random.randrange(*_PORTS)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("0.0.0.0", port))
            return port


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 20.0) -> None:
    """Poll until a condition is true; ends the program with what was waited for when it does not become so."""
    give_up = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > give_up:
            raise SystemExit(f"waited {timeout:.0f} s in vain for {what}")
        time.sleep(0.02)


def accepts(port: int) -> bool:
    """Whether somebody accepts connections on this port of 127.0.0.1."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def on_core(core: int | set[int] | None) -> Iterator[None]:
    """Processes started in the block run on this core, or on these, only (None: wherever they like)."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core} if isinstance(core, int) else core)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def running(
    command: Sequence[str], core: int | set[int] | None = None, **popen: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A process, ended with SIGTERM at the end of the block (SIGKILL after five seconds)."""
    with on_core(core):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **popen)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Gogate:
    """A running gogate: its process and the real addresses of its listeners."""

    def __init__(self, process: subprocess.Popen[bytes], ready: dict[str, Any]) -> None:
        self.process = process
        self._ready = ready

    def address(self, listener: str) -> tuple[str, int]:
        """Host and port of a listener id."""
        host, _, port = self._ready["listeners"][listener].rpartition(":")
        return host, int(port)


@contextlib.contextmanager
def gogate(config: dict[str, Any], core: int | None = None) -> Iterator[Gogate]:
    """A gogate with its access log on and going to /dev/null."""
    with tempfile.TemporaryDirectory(prefix="gogate-bench-") as folder:
        path = Path(folder, "config.yaml")
        path.write_text(json.dumps(config))
        errors = Path(folder, "stderr")
        command = [sys.executable, "-m", "gogate_py", "-config", str(path)]
        with errors.open("wb") as stderr, running(
            command, core, stdout=subprocess.DEVNULL, stderr=stderr, env={**os.environ, "PYTHONPATH": str(ROOT)}
        ) as process:
            def ready() -> bool:
                if process.poll() is not None:
                    raise SystemExit(f"gogate ended: {errors.read_text()}")
                return b"gogate is ready" in errors.read_bytes()

            wait_until(ready, "gogate to be ready")
            lines = (json.loads(line) for line in errors.read_text().splitlines())
            yield Gogate(process, next(line for line in lines if line["msg"] == "gogate is ready"))


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    try:
        process = psutil.Process(pid)
        return [pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def cpu_ns(pid: int) -> int:
    """CPU time of a process, its descendants and all their threads, ns."""
    return task_ns(family(pid))


def task_ns(pids: Sequence[int]) -> int:
    """CPU time of these processes and all their threads, ns (schedstat: the ticks of stat are coarse)."""
    total = 0
    for member in pids:
        for task in Path(f"/proc/{member}/task").iterdir():
            with contextlib.suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0])
    return total


def pss_kib(pid: int) -> int:
    """Proportional set size of a process and its descendants, KiB: shared pages are counted once, divided fairly."""
    total = 0
    for member in family(pid):
        for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table; the first column is text, the others are figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
