"""Upgrade: SIGUSR2 starts the program anew from disk, with the very same sockets and all that this one knows; when the
new gogate serves, this one finishes what runs, and ends.

    until the new one needs the state   everything goes on as ever
    from then until it serves           the admin listener answers nothing: who comes waits in its queue, so that no
                                        registration and no heartbeat is between the two; workers serve on
    it serves                           this one drains, as at SIGTERM; the sockets live on
    it fails, ends, or takes too long   it is killed, this one goes on as if nothing had been

Workers of a new one that failed may have accepted connections. They notice that they are alone, and finish them as all
orphans do; whoever is left after that is killed, and only then can there be another upgrade.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from gogate_py.clock import monotonic
from gogate_py.errors import GogateError
from gogate_py.messages import Counts
from gogate_py.process import handover
from gogate_py.process.channel import ORPHAN_GRACE, Channel, pair
from gogate_py.process.handover import (
    PROTOCOL,
    AllOffered,
    Counted,
    Failed,
    Hello,
    Member,
    Prepared,
    Released,
    Serving,
)
from gogate_py.process.outgoing import Outgoing

log = logging.getLogger("gogate.upgrade")

#: How long the new gogate may take until it serves, seconds.
LIMIT: Final = 30.0
#: Beyond the grace time of orphans: when they are killed.
_SURPLUS: Final = 5.0
#: Init programs of containers that end with their child, whoever takes its place.
_ENDING_INITS: Final = frozenset({"tini", "dumb-init", "docker-init", "catatonit", "podman-init"})

T = TypeVar("T")


class UpgradeFailed(GogateError):
    """The new gogate does not serve: the message says why."""


def refusal(pid: int, parent: int, init: str) -> str:
    """Why a gogate cannot be upgraded where it runs; "" when it can. ``init``: the name of process 1."""
    if pid == 1:
        return "it is process 1 of its container, which ends with it: start another container instead"
    if parent == 1 and init in _ENDING_INITS:
        return f"its parent {init} ends with it, and the container with that: start another container instead"
    return ""


def refusal_here() -> str:
    """The same of this process."""
    try:
        init = Path("/proc/1/comm").read_text().strip()
    except OSError:
        init = ""
    return refusal(os.getpid(), os.getppid(), init)


def program() -> list[str]:
    """The command that this process was started with; its code and configuration are read from disk again."""
    return [sys.executable, *sys.orig_argv[1:]]


class Upgrade:
    """One attempt. ``command`` starts the new gogate, with this environment and what it needs to find us; ``limit``:
    the seconds it may take."""

    def __init__(
        self,
        running: Outgoing,
        command: Sequence[str],
        environ: MutableMapping[str, str],
        limit: float = LIMIT,
    ) -> None:
        self._running = running
        self._command = command
        self._environ = environ
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._inbox: asyncio.Queue[tuple[Any, list[int]]] = asyncio.Queue()
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._channel: Channel | None = None
        self._begun = monotonic()
        self._handed = False
        self._same_arena = False
        # the new one's workers: column → pidfd
        self._members: dict[int, int] = {}

    @property
    def pid(self) -> int:
        """The new gogate's process; 0 before it is there."""
        return self._process.pid if self._process is not None else 0

    async def run(self) -> bool:
        """Try it; → whether the new one serves. If not, everything is as it was."""
        log.info("upgrade begins", extra={"pid": os.getpid(), "program": list(self._command)})
        try:
            async with asyncio.timeout(self._limit):
                await self._try()
        except TimeoutError:
            reason = f"the new gogate did not serve within {self._limit:g} s"
        except UpgradeFailed as error:
            reason = str(error)
        except OSError as error:
            reason = f"the new gogate cannot be started: {error}"
        else:
            log.info("the new gogate serves; this one finishes what runs", extra=self._about())
            return True
        log.error("upgrade failed; this gogate goes on", extra={**self._about(), "reason": reason})
        await self._kill()
        if self._handed:
            await self._running.go_on()
        return False

    def _about(self) -> dict[str, Any]:
        return {"old_pid": os.getpid(), "new_pid": self.pid, "duration_s": round(monotonic() - self._begun, 3)}

    def give_up(self, reason: str) -> None:
        """Let it fail, for this reason."""
        self._inbox.put_nowait((Failed(reason), []))

    async def _try(self) -> None:
        channel = self._start()
        hello = await self._next(Hello)
        if hello.protocol != PROTOCOL:
            raise UpgradeFailed(
                f"gogate {hello.version} takes over by protocol {hello.protocol}, this one hands over by {PROTOCOL}")
        for offered, fds in self._running.offers():
            channel.send(offered, fds)
        channel.send(AllOffered())
        prepared = await self._next(Prepared)
        self._handed = True
        state, fds = await self._running.hand_over(hello, prepared.workers)
        self._same_arena = bool(fds)
        channel.send(state, fds)
        for column, pidfd in self._running.members():
            self.member(column, pidfd)
        await self._next(Serving)

    def _start(self) -> Channel:
        ours, theirs = pair()
        try:
            self._process = subprocess.Popen(
                self._command,
                pass_fds=[theirs.fileno()],
                env=handover.environment(theirs.fileno(), self._environ),
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._pidfd, self._exited)
        self._channel = Channel(self._loop, ours, _decode, self._received, lambda: None)
        return self._channel

    def _received(self, message: Any, fds: list[int]) -> None:
        self._inbox.put_nowait((message, fds))

    def _exited(self) -> None:
        assert self._process is not None
        self._forget_pidfd()
        if self._channel is not None:
            self._channel.read_rest()  # why
        code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        self._inbox.put_nowait((Failed(f"the new gogate ended with {how}"), []))

    def _forget_pidfd(self) -> None:
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    async def _next(self, kind: type[T]) -> T:
        """The next message, which must be of this kind. Raises UpgradeFailed."""
        while True:
            message, fds = await self._inbox.get()
            if isinstance(message, Member):
                self._keep(message.column, fds[0])
                continue
            for fd in fds:
                os.close(fd)
            if isinstance(message, kind):
                return message
            raise UpgradeFailed(message.reason if isinstance(message, Failed) else "the new gogate is not understood")

    def _keep(self, column: int, pidfd: int) -> None:
        before = self._members.pop(column, -1)
        if before >= 0:
            os.close(before)
        self._members[column] = pidfd

    # --- it succeeds

    def member(self, column: int, pidfd: int) -> None:
        """A worker of ours: the new one is to know when it is gone."""
        if self._channel is not None and self._handed:
            self._channel.send(Member(column), [pidfd])

    def counted(self, slot: int, counts: Counts) -> None:
        """A report of a worker of ours: the new one goes on counting where we are."""
        if self._channel is not None and self._handed:
            self._channel.send(Counted(slot, counts))

    async def release(self) -> None:
        """We do nothing any more but finish what runs."""
        if self._channel is not None:
            self._channel.send(Released())
            await self._channel.flushed()

    async def close(self, limit: float = 1.0) -> None:
        """Everything is said."""
        self._forget_pidfd()
        if self._channel is not None:
            try:
                async with asyncio.timeout(limit):
                    await self._channel.flushed()
            except TimeoutError:
                pass
            self._channel.close()
        for pidfd in self._members.values():
            os.close(pidfd)
        self._members.clear()

    # --- it does not

    async def _kill(self) -> None:
        self._forget_pidfd()
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        if self._channel is not None:
            self._channel.read_rest()
            self._channel.close()
        while not self._inbox.empty():
            message, fds = self._inbox.get_nowait()
            if isinstance(message, Member):
                self._keep(message.column, fds[0])

    async def bury(self) -> None:
        """Wait until nothing is left of a new one that failed; orphans that do not end are killed."""
        give_up = monotonic() + ORPHAN_GRACE + _SURPLUS
        for column, pidfd in self._members.items():
            if not await exited(pidfd, max(0.0, give_up - monotonic())):
                log.warning("a worker of the failed upgrade is killed", extra={"column": column})
                try:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                await exited(pidfd, _SURPLUS)
            if self._same_arena:
                self._running.clear(column)
        await self.close()


async def exited(pidfd: int, limit: float | None = None) -> bool:
    """Wait for the end of a process, at most so many seconds; → whether it has ended."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_reader(pidfd, done.set)
    try:
        async with asyncio.timeout(limit):
            await done.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(pidfd)
    return True


def _decode(data: bytes) -> Any:
    try:
        return handover.decode_to_old(data)
    except ValueError as error:  # msgspec's are
        return Failed(f"the new gogate is not understood: {error}")
