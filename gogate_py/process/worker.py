"""Worker: one data-plane process. Builds the loop and the Plane, does what the supervisor says, drains when told or
when it is alone.

A worker that loses its supervisor closes its listening sockets at once (so that a new one can bind), drains and ends.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
from typing import Any, Final

import uvloop

from gogate_py import messages
from gogate_py.arena import Arena
from gogate_py.dataplane.plane import Plane
from gogate_py.messages import (
    Applied,
    CloseConnection,
    Closed,
    Configure,
    Connections,
    Drain,
    Drained,
    FindRequest,
    KeySet,
    ListConnections,
    Listen,
    ListRequests,
    LogLines,
    RequestFound,
    Requests,
    States,
    Unapplied,
    Welcome,
)
from gogate_py.process.channel import ORPHAN_GRACE, Channel
from gogate_py.process.stalls import show_stack_on_signal
from gogate_py.telemetry.logs import set_format, set_up_worker

log = logging.getLogger("gogate.worker")

#: How long the clients of a worker without a supervisor may be idle until they are closed, seconds.
ORPHAN_IDLE: Final = 2.0


class Worker:
    """The process's one object: a channel, a plane, and the messages between them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, channel: socket.socket, arena: Arena) -> None:
        self._loop = loop
        self._arena = arena
        self._channel = Channel(loop, channel, messages.decode_down, self._received, self._orphaned)
        self._plane: Plane | None = None
        self._done = asyncio.Event()
        self._draining = False
        self._unapplied = ""  # why the last snapshot could not be taken over
        # Snapshots are applied one after the other (applying opens listeners, which waits).
        self._inbox: asyncio.Queue[tuple[Any, list[int]]] = asyncio.Queue()

    async def run(self) -> int:
        """Serve until drained; → exit status."""
        handler = self._loop.create_task(self._handle_all())
        await self._done.wait()
        handler.cancel()
        return 0

    def _received(self, message: Any, fds: list[int]) -> None:
        self._inbox.put_nowait((message, fds))

    async def _handle_all(self) -> None:
        while True:
            message, fds = await self._inbox.get()
            try:
                await self._handle(message, fds)
            except Exception as error:  # the worker goes on; the supervisor decides about what is not applied
                self._internal_error(error, f"message {type(message).__name__}")
                if isinstance(message, Configure):
                    self._unapplied = f"{type(error).__name__}: {error}"
                    self._answer(message.snapshot.generation)

    def _internal_error(self, error: BaseException, where: str) -> None:
        if self._plane is not None:
            self._plane.internal_error(error, where)
        else:
            log.error("internal error", exc_info=error, extra={"where": where})

    def unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What asyncio could not give to anybody: logged and counted like every exception that nobody expected."""
        text = context.get("message", "loop")
        self._internal_error(context.get("exception") or RuntimeError(text), text)

    async def _handle(self, message: Any, fds: list[int]) -> None:
        if isinstance(message, Welcome):
            self._plane = Plane(
                self._loop,
                self._arena,
                message.slot,
                message.columns,
                message.incarnation,
                self._channel,
                message.column,
            )
            set_up_worker(self._send_lines, message.slot)
            name_process(f"gogate-worker{message.slot}")
            self._plane.start()
            return
        plane = self._plane
        assert plane is not None
        match message:
            case Listen():
                for listener_id, fd in zip(message.ids, fds, strict=True):
                    plane.listeners.add_socket(listener_id, fd)
            case Configure():
                set_format(message.snapshot.log_level, message.snapshot.log_format)
                await plane.apply(message.snapshot)
                self._unapplied = ""
                self._answer(message.snapshot.generation)
            case KeySet():
                plane.apply_keys(message)
            case States():
                plane.apply_states(message.changes)
                self._answer(message.generation)
            case ListConnections():
                found = [relay.view() for relay in plane.relays.values()]
                self._channel.send(Connections(message.question, found))
            case CloseConnection():
                relay = plane.relays.get(message.id)
                if relay is not None:
                    relay.cut("closed_by_admin")
                self._channel.send(Closed(message.question, relay is not None))
            case ListRequests():
                newest = plane.http.decisions.newest(message.limit, message.route, message.status)
                self._channel.send(Requests(message.question, newest))
            case FindRequest():
                self._channel.send(RequestFound(message.question, plane.http.decisions.find(message.id)))
            case Drain():
                self._start_drain(message.grace, message.drain_idle)

    def _answer(self, generation: int) -> None:
        """Whether the snapshot is served that this generation is, or is based on."""
        self._channel.send(Unapplied(generation, self._unapplied) if self._unapplied else Applied(generation))

    def _send_lines(self, lines: bytes, count: int) -> None:
        self._channel.send(LogLines(False, lines, count))

    def _start_drain(self, grace: float, drain_idle: float) -> None:
        if self._plane is None:
            self._done.set()
        elif not self._draining:
            self._draining = True
            self._plane.spawn(self._drain(self._plane, grace, drain_idle))

    async def _drain(self, plane: Plane, grace: float, drain_idle: float) -> None:
        try:
            cut = await plane.drain(grace, drain_idle)
            plane.finish()
            self._channel.send(Drained(cut))
            async with asyncio.timeout(2.0):
                await self._channel.flushed()
        except TimeoutError:
            pass
        finally:
            self._done.set()

    def _orphaned(self) -> None:
        self._start_drain(ORPHAN_GRACE, ORPHAN_IDLE)


def run(channel_fd: int, arena_fd: int, stack_fd: int) -> int:
    """The life of a worker process; → its exit status."""
    show_stack_on_signal(stack_fd)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the supervisor decides, over the channel
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Few objects live long and many die young: collect rarely, and never look at what the zygote brought.
    gc.set_threshold(50_000, 20, 50)
    os.set_blocking(channel_fd, False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def serve() -> int:
            loop = asyncio.get_running_loop()
            worker = Worker(loop, socket.socket(fileno=channel_fd), Arena(arena_fd))
            loop.set_exception_handler(worker.unhandled)
            return await worker.run()

        return runner.run(serve())


def name_process(name: str) -> None:
    """Show this process under a name of its own in ps and top (at most 15 characters)."""
    try:
        with open("/proc/self/comm", "w") as comm:
            comm.write(name)
    except OSError:
        pass
