"""One program that the demo runs: its output line by line, its end as an event, and no way to outlive the demo.

A child has a process group of its own: Ctrl-C in a terminal reaches the demo alone, which then ends everything in
order, and what a child started is killed with it when it does not go by itself.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from functools import partial

from gogate_py.demo.lifeline import end_with_parent


class Child:
    """A running program. ``ended`` is set when it is gone, ``code`` is then its exit code (negative: the signal)."""

    def __init__(self, name: str, command: Sequence[str], show: Callable[[str, str], None]) -> None:
        """Start ``command``; ``show(name, line)`` gets every line of its output. Raises OSError when it cannot run."""
        self.name = name
        self.ended = asyncio.Event()
        # Our GOGATE_… variables are meant for the user's gateway: they would override the demo's configuration.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("GOGATE_")}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            process_group=0,
            # The demo has one thread, so nothing can hold a lock between fork and exec.
            preexec_fn=partial(end_with_parent, os.getpid()),  # noqa: PLW1509  see above
        )
        self._loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._pidfd, self._gone)
        self._output = self._loop.create_task(self._read(show))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.returncode

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it is gone."""
        if not self.ended.is_set():
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it and everything that it started, now."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # the whole group is gone already

    async def stop(self, patience: float) -> None:
        """Ask it to end; after ``patience`` seconds it is killed. What it started and left behind is killed too."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(patience):
                await self.ended.wait()
        except TimeoutError:
            pass
        self.kill()
        await self.ended.wait()
        # wait(), because to be cancelled here must not cancel the reading.
        await asyncio.wait((self._output,))

    def _gone(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._process.wait()
        self.ended.set()

    async def _read(self, show: Callable[[str, str], None]) -> None:
        """Hand on the output until every writer of the pipe is gone."""
        reader = asyncio.StreamReader()
        pipe = self._process.stdout
        transport, _ = await self._loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        rest = b""
        try:
            while data := await reader.read(64 << 10):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    show(self.name, line.decode(errors="replace"))
            if rest:
                show(self.name, rest.decode(errors="replace"))
        finally:
            transport.close()
