"""A worker whose loop stands still is shown with its stack, and in the end replaced (SECURITY.md F15)."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from typing import Any

import msgspec
import pytest
from doubles.gateway import echo_server
from doubles.http_plane import LIMITS, TIMEOUTS, TRANSPORT, until

from gogate_py.arena import Arena
from gogate_py.clock import monotonic
from gogate_py.messages import Applied, Configure, Counts, Drain, Up
from gogate_py.process.sockets import bind
from gogate_py.process.stalls import HANG_LIMIT, STALLED, StackFile, StallWatch, show_stack_on_signal
from gogate_py.process.workers import Slot, Workers
from gogate_py.snapshot import AccessLog, Backend, BackendState, Listener, Pool, Snapshot, TcpRoute


def stuck_in_a_loop(ready: int) -> None:
    """What a test finds in the stack of a process that hangs here."""
    os.write(ready, b"x")
    while True:
        pass


class Process:
    """A forked process that hangs, in the place of a slot's worker."""

    slot = 0
    spoken = True

    def __init__(self, *, armed: bool = True) -> None:
        self.stack = StackFile()
        self.heard = 0.0
        read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            if armed:
                show_stack_on_signal(self.stack.fd)
            stuck_in_a_loop(write)
        self.pidfd = os.pidfd_open(self.pid)
        os.read(read, 1)
        os.close(read)
        os.close(write)

    def is_running(self) -> bool:
        """Whether no signal ended it."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return not poll.poll(50)

    def end(self) -> None:
        """Kill it, and give everything back."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        self.stack.close()


def test_a_stack_on_demand(caplog: pytest.LogCaptureFixture) -> None:
    """A process that never comes back from Python code, or holds the interpreter, still shows where it is; once."""

    async def main() -> None:
        process = Process()
        killed: list[int] = []
        try:
            watch = StallWatch(asyncio.get_running_loop(), [process], 30.0, killed.append)
            watch.look(STALLED - 0.1)
            for now in (STALLED, STALLED + 0.25, 20.0):
                watch.look(now)
            await until(lambda: caplog.records)
            (record,) = caplog.records
            fields: dict[str, Any] = vars(record)
            assert record.getMessage() == "worker's event loop is stalled"
            assert "stuck_in_a_loop" in fields["stack"]
            assert (fields["slot"], fields["pid"]) == (0, process.pid)
            assert killed == []
            process.heard = 20.0
            watch.look(20.25)
            watch.look(20.25 + STALLED)
            await until(lambda: len(caplog.records) == 2)
            watch.look(50.0)
            assert killed == [process.pidfd]
            watch.look(50.25)  # its death is not noticed yet
            assert killed == [process.pidfd]
        finally:
            process.end()

    asyncio.run(main())


def test_who_is_left_alone() -> None:
    """A worker that has not spoken yet gets no signal, an empty slot nothing, and our own sleep is nobody's fault."""

    async def main() -> None:
        process = Process(armed=False)  # the signal would end it
        killed: list[int] = []
        try:
            watch = StallWatch(asyncio.get_running_loop(), [process], 30.0, killed.append)
            process.spoken = False
            watch.look(10.0)
            process.spoken = True
            watch.look(100.0, blind=True)
            assert process.heard == 100.0
            pidfd, process.pidfd = process.pidfd, -1
            watch.look(1000.0)
            process.pidfd = pidfd
            assert killed == []
            assert process.is_running()
            process.spoken = False
            watch.look(130.0)
            assert killed == [pidfd]
        finally:
            process.end()

    asyncio.run(main())


def test_the_limit() -> None:
    """Thirty seconds, unless a test knows better."""
    assert HANG_LIMIT == 30.0


class Fleet:
    """Two real workers with a TCP route, under a supervisor that only replaces."""

    def __init__(self, backend: tuple[str, int]) -> None:
        self.backend = backend
        self.serving: set[int] = set()
        self.deaths: list[int] = []
        self.reports = [0, 0]

    async def start(self, hang_limit: float) -> None:
        """Bind, fork, wait until both serve."""
        self.arena = Arena.create()
        self.listener = await bind("tcp:echo", "127.0.0.1:0", 2)
        self.workers = Workers(
            self.arena, 2, [self.listener], self._up, self._down, self._says, hang_limit=hang_limit
        )
        self.workers.start()
        await until(lambda: self.serving == {0, 1}, "both workers serve")

    def _up(self, slot: Slot) -> None:
        host, port = self.backend
        backend = Backend(0, f"{host}:{port}", (self.backend,), 1, BackendState(0, True, False))
        slot.send(
            Configure(
                Snapshot(
                    1,
                    (Listener("tcp:echo", "", TcpRoute("echo", "p", 0.0)),),
                    (Pool("p", "round_robin", (backend,), TRANSPORT),),
                    (),
                    msgspec.structs.replace(LIMITS, connections_per_client=1000),
                    TIMEOUTS,
                    AccessLog(False, "json", 1.0),
                    "info",
                    "json",
                    (),
                )
            )
        )

    def _down(self, slot: Slot) -> None:
        self.serving.discard(slot.slot)
        self.deaths.append(slot.slot)
        self.arena.clear_slot(slot.slot, [0])

    def _says(self, slot: Slot, message: Up) -> None:
        if isinstance(message, Applied):
            self.serving.add(slot.slot)
        elif isinstance(message, Counts):
            self.reports[slot.slot] += 1

    async def echo(self) -> None:
        """One connection through whichever worker it comes to."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.listener.address.port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.close()
        await writer.wait_closed()


@pytest.mark.slow
def test_a_stopped_worker_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    """While it hangs the other worker serves; the new one takes over its socket, and who waits there."""

    async def main() -> None:
        with echo_server() as backend:
            fleet = Fleet((backend[0], backend[1]))
            await fleet.start(hang_limit=2.0)
            try:
                first = [slot.pid for slot in fleet.workers.slots]
                os.kill(first[0], signal.SIGSTOP)
                # Some of these wait in the stopped worker's queue, the others are served by the second worker at once.
                clients = [asyncio.create_task(fleet.echo()) for _ in range(32)]
                await until(lambda: any(task.done() for task in clients), "the other worker serves")
                assert not fleet.deaths
                await asyncio.wait_for(asyncio.gather(*clients), 20)
                assert fleet.deaths == [0]
                await until(lambda: fleet.serving == {0, 1}, "both serve again")
                assert fleet.workers.slots[1].pid == first[1]
                assert fleet.workers.slots[0].pid != first[0]
                assert fleet.workers.restarts == 1
            finally:
                assert await fleet.workers.stop(Drain(1.0, 0.0), 5.0)
                fleet.listener.close()

    asyncio.run(main())
    messages = [record.getMessage() for record in caplog.records]
    assert messages.count("worker's event loop is stalled") == 1
    assert messages.count("worker does not answer; replacing it") == 1


@pytest.mark.slow
def test_an_idle_worker_is_heard() -> None:
    """A worker with nothing to report reports all the same, and is left alone."""

    async def main() -> None:
        fleet = Fleet(("127.0.0.1", 9))
        await fleet.start(hang_limit=1.5)
        try:
            give_up = monotonic() + 30
            while min(fleet.reports) < 9:  # some two seconds
                assert monotonic() < give_up
                await asyncio.sleep(0.01)
            assert fleet.deaths == []
        finally:
            assert await fleet.workers.stop(Drain(1.0, 0.0), 5.0)
            fleet.listener.close()

    asyncio.run(main())
