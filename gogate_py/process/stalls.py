"""Stalls: a worker whose event loop does not turn is shown, and in the end replaced (SECURITY.md F15).

Every worker reports a few times a second (an empty report when there is nothing to report), so silence means that its
loop stands still. The supervisor looks on from outside, which costs a worker nothing and works whatever it hangs in:

    silent for STALLED seconds        a log line with the worker's stack, once
    silent for the hang limit (30 s)  the worker is killed, and replaced as after any death

The stack is written by the C code of faulthandler, which a signal starts in the worker, into a file in memory that both
share; so it also shows a worker that never comes back to the interpreter. A stopped process (SIGSTOP) has no stack.
"""

from __future__ import annotations

import asyncio
import faulthandler
import fcntl
import logging
import os
import signal
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from gogate_py.clock import monotonic

log = logging.getLogger("gogate.supervisor")

#: A loop that is more than a second late, with the period of the reports on top.
STALLED: Final = 1.25
#: How long a worker may be silent before it is replaced, seconds.
HANG_LIMIT: Final = 30.0
_PERIOD: Final = 0.25
#: Writing a stack takes a worker a millisecond, once the kernel runs it.
_STACK_TIME: Final = 0.1
_MAX_STACK: Final = 16384


class StackFile:
    """The file that stacks of a worker slot are written to; the slot's workers inherit ``fd``."""

    __slots__ = ("fd",)

    def __init__(self) -> None:
        self.fd = os.memfd_create("gogate-stack", os.MFD_CLOEXEC)
        # Appending: writer and reader share one file position.
        fcntl.fcntl(self.fd, fcntl.F_SETFL, os.O_APPEND)

    def take(self) -> str:
        """What was written since the last call; nothing once it is closed."""
        if self.fd < 0:
            return ""
        text = os.pread(self.fd, _MAX_STACK, 0)
        os.ftruncate(self.fd, 0)
        return text.decode(errors="replace")

    def close(self) -> None:
        """Close our descriptor."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def show_stack_on_signal(fd: int) -> None:
    """Write this process's stack to a slot's file whenever SIGUSR2 comes (worker, once)."""
    faulthandler.register(signal.SIGUSR2, file=fd, all_threads=True)


class Watched(Protocol):
    """A worker slot, as it is watched. ``heard``: when its worker last said something, monotonic seconds; ``spoken``:
    whether it ever did, and so is ready for the signal."""

    slot: int
    pid: int
    pidfd: int
    heard: float
    spoken: bool
    stack: StackFile


class StallWatch:
    """Looks at every slot's silence, a few times a second, from ``start`` to ``stop``."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, slots: Sequence[Watched], hang_limit: float, kill: Callable[[int], None]
    ) -> None:
        """``kill`` ends the process of a pidfd; its death is noticed like any other."""
        self._loop = loop
        self._slots = slots
        self._hang_limit = hang_limit
        self._kill = kill
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._shown: set[int] = set()

    def start(self) -> None:
        """Begin to watch."""
        self._due = monotonic() + _PERIOD
        self._timer = self._loop.call_later(_PERIOD, self._turn)

    def stop(self) -> None:
        """Watch no more (a worker that drains has its own limit)."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self) -> None:
        now = monotonic()
        late = now - self._due
        self._due = now + _PERIOD
        self._timer = self._loop.call_later(_PERIOD, self._turn)
        # When we were stopped ourselves, what the workers said meanwhile still waits to be read: nobody is to blame.
        self.look(now, blind=late > STALLED / 2)

    def look(self, now: float, *, blind: bool = False) -> None:
        """Act on the silence of every slot at this moment. ``blind``: nothing was heard for reasons of our own."""
        for slot in self._slots:
            if slot.pidfd < 0:
                continue
            if blind:
                slot.heard = now
            silent = now - slot.heard
            if silent < STALLED:
                self._shown.discard(slot.slot)
            elif silent >= self._hang_limit:
                log.error(
                    "worker does not answer; replacing it",
                    extra={"slot": slot.slot, "pid": slot.pid, "silent_s": round(silent, 1)},
                )
                slot.heard = now
                self._kill(slot.pidfd)
            elif slot.spoken and slot.slot not in self._shown:
                self._shown.add(slot.slot)
                self._show(slot, silent)

    def _show(self, slot: Watched, silent: float) -> None:
        slot.stack.take()
        try:
            signal.pidfd_send_signal(slot.pidfd, signal.SIGUSR2)
        except ProcessLookupError:
            return
        self._loop.call_later(_STACK_TIME, self._log_stack, slot, slot.pid, silent)

    @staticmethod
    def _log_stack(slot: Watched, pid: int, silent: float) -> None:
        log.warning(
            "worker's event loop is stalled",
            extra={
                "slot": slot.slot,
                "pid": pid,
                "silent_s": round(silent + _STACK_TIME, 1),
                "stack": slot.stack.take() or "not to be had: the process does not run",
            },
        )
