"""Workers: the supervisor's view of its zygote and of the worker in each slot.

A slot is for life: its sockets, its column in the arena, its number. The process in it may die and be replaced: at
once, and with a back-off of 1, 2, 4 … 30 s when a worker dies young again and again (SECURITY.md F6).

One that says nothing for the hang limit is killed, and so replaced (process/stalls.py).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from gogate_py import messages
from gogate_py.arena import Arena
from gogate_py.clock import monotonic
from gogate_py.messages import Down, Listen, Up, Welcome
from gogate_py.process.channel import MAX_FDS, Channel, pair
from gogate_py.process.sockets import BoundListener
from gogate_py.process.stalls import HANG_LIMIT, StackFile, StallWatch
from gogate_py.process.zygote_process import ZygoteProcess

log = logging.getLogger("gogate.supervisor")

#: A worker that lived shorter than this died young, seconds.
YOUNG: Final = 5.0
MAX_BACKOFF: Final = 30.0
#: Seconds that a zygote has to end when its socket is closed.
_PATIENCE: Final = 1.0


class Slot:
    """One worker slot and the process in it. The control plane's publisher knows it as a link to send to."""

    def __init__(self, slot: int, column: int) -> None:
        self.slot = slot
        #: Its place in the arena.
        self.column = column
        self.pid = 0
        self.pidfd = -1
        self.incarnation = 0
        self.started = 0.0
        # when its worker last said something, and whether it ever did
        self.heard = 0.0
        self.spoken = False
        self.stack = StackFile()
        self.restarts = 0
        self.state = "starting"  # starting | serving | draining | dead
        self.deaths_young = 0
        self.channel: Channel | None = None

    def send(self, message: Down) -> None:
        """Queue a message for the worker in this slot."""
        if self.channel is not None:
            self.channel.send(message)


class Workers:
    """All slots, their zygote, and what becomes of them. ``on_up``, ``on_down``: a worker can be talked to, or is gone;
    ``on_message``: what it says; ``hang_limit``: seconds of silence after which a worker is replaced; ``first``: the
    arena's column of slot 0, ``columns``: how many columns of the arena are in use (default: ours); ``incarnation`` and
    ``restarts``: of those who had the slots in another gateway; ``zygote``: the first one, if it runs already."""

    def __init__(
        self,
        arena: Arena,
        count: int,
        listeners: Sequence[BoundListener],
        on_up: Callable[[Slot], None],
        on_down: Callable[[Slot], None],
        on_message: Callable[[Slot, Up], None],
        hang_limit: float = HANG_LIMIT,
        *,
        first: int = 0,
        columns: int = 0,
        incarnation: int = 0,
        restarts: Sequence[int] = (),
        zygote: ZygoteProcess | None = None,
    ) -> None:
        self._arena = arena
        self._listeners = listeners
        self._on_up = on_up
        self._on_down = on_down
        self._on_message = on_message
        self.slots = [Slot(number, first + number) for number in range(count)]
        self.columns = max(columns, first + count)
        self._incarnation = incarnation
        for slot, count_before in zip(self.slots, restarts, strict=False):
            slot.restarts = count_before
        self.restarts = 0
        self.stopping = False
        self._loop = asyncio.get_running_loop()
        self._first_zygote = zygote
        self._zygote: ZygoteProcess | None = None
        self._zygotes_young = 0
        self._forking: dict[int, tuple[Slot, socket.socket]] = {}
        self._fork_number = 0
        self._all_gone = asyncio.Event()
        self._stalls = StallWatch(self._loop, self.slots, hang_limit, _kill)

    # --- the zygote

    def start(self) -> None:
        """Start the zygote and a worker in every slot."""
        self._start_zygote()
        for slot in self.slots:
            self._fork(slot)
        self._stalls.start()

    def _start_zygote(self) -> None:
        zygote, self._first_zygote = self._first_zygote or ZygoteProcess(), None
        self._zygote = zygote
        self._loop.add_reader(zygote.sock.fileno(), self._zygote_says)

    def _zygote_says(self) -> None:
        zygote = self._zygote
        assert zygote is not None
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(zygote.sock, 4096, 4)
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            if not data:
                self._zygote_died(zygote)
                return
            message = json.loads(data)
            if "forked" in message:
                self._forked(message["forked"], message["pid"], fds[0])
            elif "failed" in message:
                slot, channel = self._forking.pop(message["failed"])
                channel.close()
                log.error("cannot fork a worker", extra={"slot": slot.slot, "error": message["error"]})
                self._schedule(slot, young=True)
            elif "exited" in message:
                self._note_status(message["exited"], message["status"])

    def _zygote_died(self, zygote: ZygoteProcess) -> None:
        """Workers live on without it; only new ones need it."""
        self._zygote = None
        self._loop.remove_reader(zygote.sock.fileno())
        status = zygote.end(_PATIENCE)
        if not self.stopping:
            log.error("zygote died; starting another", extra={"status": status})
        lost = [slot for slot, _ in self._forking.values()]
        for _, channel in self._forking.values():
            channel.close()
        self._forking.clear()
        # One that dies young again and again is not started in a tight loop.
        young = monotonic() - zygote.started < YOUNG
        self._zygotes_young = self._zygotes_young + 1 if young else 0
        if self._zygotes_young <= 1:
            self._renew_zygote(lost)
        else:
            delay = min(MAX_BACKOFF, 2.0 ** (self._zygotes_young - 2))
            self._loop.call_later(delay, self._renew_zygote, lost)

    def _renew_zygote(self, waiting: list[Slot]) -> None:
        if not self.stopping:
            self._start_zygote()
            for slot in waiting + [slot for slot in self.slots if slot.state == "dead" and slot not in waiting]:
                self._fork(slot)

    # --- workers

    def _fork(self, slot: Slot) -> None:
        if self.stopping or self._zygote is None:
            return
        if slot.pidfd >= 0 or any(slot is asked for asked, _ in self._forking.values()):
            return  # a new zygote and the back-off both meant to fill it
        ours, theirs = pair()
        self._fork_number += 1
        self._forking[self._fork_number] = (slot, ours)
        request = json.dumps({"fork": self._fork_number}).encode()
        slot.state = "starting"
        try:
            socket.send_fds(self._zygote.sock, [request], [theirs.fileno(), self._arena.fd, slot.stack.fd])
        except OSError as error:
            log.error("cannot reach the zygote", extra={"error": str(error)})  # its EOF follows and starts over
        finally:
            theirs.close()

    def _forked(self, number: int, pid: int, pidfd: int) -> None:
        slot, sock = self._forking.pop(number)
        if self.stopping:  # it was asked for before; nobody will talk to it any more
            _kill(pidfd)
            os.close(pidfd)
            sock.close()
            return
        slot.pid = pid
        slot.pidfd = pidfd
        slot.started = slot.heard = monotonic()
        slot.spoken = False
        slot.incarnation = max(slot.incarnation, self._incarnation) + 1
        self._loop.add_reader(pidfd, self._exited, slot)
        slot.channel = channel = Channel(
            self._loop, sock, messages.decode_up, lambda message, _: self._heard(slot, message), lambda: None
        )
        channel.send(Welcome(messages.VERSION, slot.slot, slot.column, self.columns, slot.incarnation))
        self._send_listeners(slot, self._listeners)
        self._on_up(slot)

    def _send_listeners(self, slot: Slot, listeners: Sequence[BoundListener]) -> None:
        assert slot.channel is not None
        found = [(one.id, sock.fileno()) for one in listeners for sock in one.for_slot(slot.slot, len(self.slots))]
        for start in range(0, len(found), MAX_FDS):
            ids, fds = zip(*found[start : start + MAX_FDS], strict=True)
            slot.channel.send(Listen(ids), list(fds))

    def add_listeners(self, listeners: Sequence[BoundListener]) -> None:
        """Give every worker the sockets of further listeners; those that start later get them, too."""
        self._listeners = [*self._listeners, *listeners]
        for slot in self.slots:
            if slot.channel is not None:
                self._send_listeners(slot, listeners)

    def remove_listeners(self, gone: Sequence[BoundListener]) -> None:
        """Workers that start later do not get these any more."""
        self._listeners = [listener for listener in self._listeners if listener not in gone]

    def _heard(self, slot: Slot, message: Up) -> None:
        slot.heard = monotonic()
        slot.spoken = True
        self._on_message(slot, message)

    def replace(self, number: int) -> None:
        """End the worker in a slot; another one takes its place."""
        for slot in self.slots:
            if slot.slot == number and slot.pidfd >= 0:
                _kill(slot.pidfd)

    def _note_status(self, pid: int, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        if code == 0 and self.stopping:
            return
        text = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        log.log(logging.INFO if self.stopping else logging.ERROR, "worker ended", extra={"pid": pid, "how": text})

    def _exited(self, slot: Slot) -> None:
        """The pidfd says that the worker is gone."""
        self._loop.remove_reader(slot.pidfd)
        os.close(slot.pidfd)
        slot.pidfd = -1
        try:
            os.waitpid(slot.pid, os.WNOHANG)  # ours only when its zygote died before it
        except ChildProcessError:
            pass
        if slot.channel is not None:
            slot.channel.read_rest()  # its last counters and log lines
            slot.channel.close()
            slot.channel = None
        slot.state = "dead"
        self._on_down(slot)
        if self.stopping:
            if all(s.pidfd < 0 for s in self.slots):
                self._all_gone.set()
            return
        self.restarts += 1
        slot.restarts += 1
        self._schedule(slot, young=monotonic() - slot.started < YOUNG)

    def _schedule(self, slot: Slot, *, young: bool) -> None:
        """Replace: at once the first time, later when it keeps dying."""
        slot.deaths_young = slot.deaths_young + 1 if young else 0
        if slot.deaths_young <= 1:
            self._fork(slot)
            return
        delay = min(MAX_BACKOFF, 2.0 ** (slot.deaths_young - 2))
        log.error("worker keeps dying", extra={"slot": slot.slot, "next_try_s": delay})
        self._loop.call_later(delay, self._fork, slot)

    # --- the end

    async def stop(self, message: Down, grace: float) -> bool:
        """Tell every worker to drain and wait for all to end; after ``grace`` seconds kill what is left. → whether
        none was killed."""
        self.stopping = True
        self._stalls.stop()
        for slot in self.slots:
            if slot.state != "dead":
                slot.state = "draining"
            slot.send(message)
        clean = True
        if any(slot.pidfd >= 0 for slot in self.slots):
            try:
                async with asyncio.timeout(grace):
                    await self._all_gone.wait()
            except TimeoutError:
                clean = False
                self.kill()
        self._stop_zygote()
        for slot in self.slots:
            slot.stack.close()
        return clean

    def kill(self) -> None:
        """End every worker now, for good."""
        self.stopping = True
        for slot in self.slots:
            if slot.pidfd >= 0:
                _kill(slot.pidfd)
        self._all_gone.set()

    def _stop_zygote(self) -> None:
        zygote, self._zygote = self._zygote, None
        if zygote is not None:
            self._loop.remove_reader(zygote.sock.fileno())
            zygote.end(_PATIENCE)

    def __repr__(self) -> str:
        return f"<workers {[(slot.slot, slot.pid, slot.state) for slot in self.slots]}>"


def _kill(pidfd: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass


def usable_cpus() -> int:
    """CPUs this process may use: its affinity, and the cgroup quota (v2, v1) rounded up."""
    count = len(os.sched_getaffinity(0))
    quota = _cgroup_quota()
    return max(1, min(count, quota) if quota else count)


def _cgroup_quota() -> int:
    def read(path: str) -> list[str]:
        try:
            return Path(path).read_text().split()
        except OSError:
            return []

    values = read("/sys/fs/cgroup/cpu.max")
    if len(values) != 2:
        values = read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") + read("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    if len(values) != 2 or values[0] in ("max", "-1"):
        return 0
    quota, period = float(values[0]), float(values[1])
    return max(1, -int(-quota // period)) if period > 0 else 0


def describe(listeners: Sequence[BoundListener]) -> dict[str, Any]:
    """Listener ids with their real addresses, for the log."""
    return {listener.id: str(listener.address) for listener in listeners}
