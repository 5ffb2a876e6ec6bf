"""A terminal that a program is run in: a real pseudo terminal, and pyte, which understands what is written to it.

    with Terminal(["gogate", "top"], width=100, height=30) as terminal:
        terminal.wait("backends 2")
        terminal.type("q")
        assert terminal.end() == 0
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from typing import Any

import pyte
from doubles.gateway import ROOT

UP, DOWN, ESCAPE, TAB, ENTER = "\x1bOA", "\x1bOB", "\x1b", "\t", "\r"


class Terminal:
    """One program in a terminal of its own. ``raw``: every byte that it wrote."""

    def __init__(
        self, command: list[str], *, width: int = 100, height: int = 30, env: dict[str, str] | None = None
    ) -> None:
        self._screen = pyte.Screen(width, height)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        self._master, slave = pty.openpty()
        self._resize(width, height)
        self.settings = termios.tcgetattr(slave)
        environ = {
            key: value for key, value in os.environ.items()
            if not key.startswith("GOGATE_") and key not in ("COLUMNS", "LINES")
        }  # fmt: skip
        environ |= {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", **(env or {})}
        self._slave = slave  # kept open: the settings are read when the program has ended
        self.process = subprocess.Popen(
            # The first terminal that a session opens becomes its own: Ctrl-C and resizing are told to who has it.
            ["/bin/sh", "-c", 'exec "$@" < "$0"', os.ttyname(slave), *command], start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, env=environ, cwd=ROOT,
        )  # fmt: skip

    def _resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def resize(self, width: int, height: int) -> None:
        """Another size; the program is told by SIGWINCH."""
        self._screen.resize(height, width)
        self._resize(width, height)

    def clear(self) -> None:
        """Forget what was shown: only what is drawn from now on is on the screen."""
        self._screen.reset()

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def read(self, timeout: float = 0.05) -> bool:
        """Take what was written, if anything was."""
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        if not poll.poll(timeout * 1000):
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # nobody has it open any more
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)

    def lines(self) -> list[str]:
        """What the screen shows, without white space at the ends of lines."""
        return [line.rstrip() for line in self._screen.display]

    def text(self) -> str:
        """The same in one piece."""
        return "\n".join(self.lines())

    def style(self, text: str) -> Any:
        """The character of the screen that ``text`` begins with: fg, bg, bold, reverse …"""
        y, line = next((y, line) for y, line in enumerate(self._screen.display) if text in line)
        return self._screen.buffer[y][line.index(text)]

    def wait(self, *texts: str, without: str = "", timeout: float = 20.0) -> str:
        """Wait until the screen shows all of these, and not ``without``; → the screen."""
        def shows() -> bool:
            shown = self.text()
            return all(text in shown for text in texts) and not (without and without in shown)

        self.until(shows, f"{texts} without {without!r}", timeout)
        return self.text()

    def until(self, condition: Callable[[], Any], what: str, timeout: float = 20.0) -> None:
        """Read until a condition holds. What is read may end in the middle of a frame: whatever is asked of the screen
        is waited for."""
        give_up = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > give_up:
                raise AssertionError(f"waited in vain for {what}:\n{self.text()}")
            if not self.read() and self.process.poll() is not None and not self.read():
                raise AssertionError(f"ended with {self.process.returncode}:\n{self.text()}")

    def end(self, timeout: float = 20.0) -> int:
        """Wait until the program has ended; → its exit code."""
        give_up = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < give_up, self.text()
            self.read()
        while self.read(0):
            pass
        return self.process.returncode

    def settings_now(self) -> list[Any]:
        """What the terminal is set to."""
        return termios.tcgetattr(self._slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        for descriptor in (self._master, self._slave):
            with contextlib.suppress(OSError):
                os.close(descriptor)
