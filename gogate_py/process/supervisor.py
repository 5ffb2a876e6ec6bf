"""Supervisor: the control plane's process. Starts everything in order, keeps it running, ends it in order.

Start: configuration (done by the caller) → sockets → arena → control plane → zygote and workers → every worker has
acknowledged the first snapshot → admin listener → ready. Whatever fails before that is one clear line and exit code 1.

Stop (SECURITY.md F10): readiness 503 → drainDelay → stop accepting → finish what runs → cut at gracePeriod. A second
signal: now.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import resource
import signal
from typing import TYPE_CHECKING, Any, Final

from gogate_py import __version__
from gogate_py.arena import BREAKER_STATE, EJECTED_UNTIL, Arena
from gogate_py.clock import monotonic, monotonic_ns
from gogate_py.config.schema import Config
from gogate_py.controlplane.admin_routes import WorkerView
from gogate_py.controlplane.admin_server import AdminServers
from gogate_py.controlplane.admin_views import LiveState
from gogate_py.controlplane.certificates import CertificateWatch
from gogate_py.controlplane.compiler import listener_addresses
from gogate_py.controlplane.control import Control
from gogate_py.controlplane.plan import Plan
from gogate_py.controlplane.publisher import Publisher
from gogate_py.controlplane.reloads import Reload
from gogate_py.errors import StartError
from gogate_py.messages import (
    Applied,
    CloseConnection,
    Closed,
    Connection,
    Connections,
    Counts,
    Down,
    Drain,
    Drained,
    KeySet,
    ListConnections,
    LogLines,
    UnknownKey,
    Unreachable,
    Up,
)
from gogate_py.middleware.question import Question
from gogate_py.policy.circuit_breaker import STATE_NAMES
from gogate_py.process.bindings import Bindings
from gogate_py.process.file_watch import FileWatch
from gogate_py.process.parsers import check_parsers
from gogate_py.process.reloader import Reloader
from gogate_py.process.sockets import BoundListener, bind
from gogate_py.process.systemd import Notifier, passed_sockets
from gogate_py.process.workers import Slot, Workers, describe, usable_cpus
from gogate_py.telemetry.logs import LogWriter, set_format
from gogate_py.telemetry.totals import Totals

if TYPE_CHECKING:
    from gogate_py.dataplane.explain import Explainer

log = logging.getLogger("gogate.supervisor")

#: How long the first snapshot may take to be acknowledged by every worker.
START_TIMEOUT: Final = 20.0
#: How long a worker may take to answer a question of the admin API.
ANSWER_TIMEOUT: Final = 2.0
#: Beyond gracePeriod: the time workers have to say goodbye.
GOODBYE: Final = 3.0


class Supervisor:
    """The process's one object. ``run`` is its life."""

    def __init__(self, config: Config, writer: LogWriter, path: str = "") -> None:
        """``path``: the file that the configuration came from, and is reloaded from; "" = it cannot be."""
        self.config = config
        self._path = path
        self.started = monotonic()
        self._writer = writer
        self._arena = Arena.create()
        self._totals = Totals()
        self._publisher = Publisher()
        self._bindings: Bindings
        self._reloader: Reloader | None = None
        self._watch: FileWatch | None = None
        self._certificates: CertificateWatch
        self._admin_listeners: list[BoundListener] = []
        self._control: Control
        self._workers: Workers
        self._admin: AdminServers
        self._questions: dict[int, tuple[asyncio.Future[list[Connection] | bool], set[int], list[Connection]]] = {}
        self._question_numbers = itertools.count(1)
        self._systemd = Notifier()
        self._all_serving = asyncio.Event()
        self._reloads: set[asyncio.Task[Reload]] = set()
        # made when it is first asked for, for one generation and its keys
        self._explainer: tuple[tuple[int, list[KeySet]], Explainer] | None = None
        self._signals: asyncio.Queue[int] = asyncio.Queue()

    async def run(self) -> int:
        """Start, serve until a signal, stop; → exit code."""
        check_parsers()
        _raise_descriptor_limit()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._signals.put_nowait, number)
        server = self.config.server
        count = server.workers or usable_cpus()
        try:
            await self._bind(count)
            await self._start(count)
        except BaseException:
            self._close_listeners()
            raise
        log.info(
            "gogate is ready",
            extra={
                "version": __version__,
                "pid": os.getpid(),
                "workers": count,
                "listeners": describe(self._bindings.listeners),
                "admin": describe(self._admin_listeners),
                "start_ms": round((monotonic() - self.started) * 1000),
            },
        )
        self._systemd.ready()
        return await self._serve()

    # --- start

    async def _bind(self, count: int) -> None:
        """Every socket there will be, before anything runs. One address that is taken ends the start."""
        server = self.config.server
        passed = passed_sockets()
        self._bindings = Bindings(count, passed)
        await self._bindings.prepare(listener_addresses(self.config))
        self._bindings.commit()
        if server.admin.enabled:
            self._admin_listeners.append(await bind("admin", server.admin.listen_addr, 1, passed=passed))
        if server.metrics.enabled and server.metrics.listen_addr:
            self._admin_listeners.append(await bind("metrics", server.metrics.listen_addr, 1, passed=passed))
        if server.registry.enabled and server.registry.listen_addr:
            self._admin_listeners.append(await bind("registry", server.registry.listen_addr, 1, passed=passed))
        for address, sock in passed.items():
            log.warning("systemd opened a socket that no listener has; it is closed", extra={"address": address})
            sock.close()
        passed.clear()

    async def _start(self, count: int) -> None:
        self._control = Control(
            self.config,
            publisher=self._publisher,
            workers=count,
            own_addresses=[listener.address for listener in (*self._bindings.listeners, *self._admin_listeners)],
            reset_row=self._arena.reset_backend,
            reset_limit=self._arena.reset_limiter,
            count=self._totals.count,
        )
        await self._control.start()
        self._totals.count("gogate_config_reloads_total", ("success",))
        self._workers = Workers(
            self._arena, count, self._bindings.listeners, self._worker_up, self._worker_down, self._worker_says
        )
        self._workers.start()
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._all_serving.wait()
        except TimeoutError:
            await self._workers.stop(Drain(0.0, 0.0), 1.0)
            raise StartError("the workers did not start in time; their errors are in the log above") from None
        sockets = {listener.id: listener.sockets[0] for listener in self._admin_listeners}
        self._admin = AdminServers(self._control, self, self._totals, sockets)
        await self._admin.start()
        if self._path:
            self._reloader = Reloader(
                self._path,
                self._control,
                self._publisher,
                self._workers,
                self._bindings,
                self._totals,
                self._admin_listeners,
                self._config_changed,
            )
            self._watch = FileWatch(self._path, lambda: self._reload("file"))
            self._watch.follow(self.config.files)
            self._watch.start()
        self._certificates = CertificateWatch(self.config)
        self._certificates.start()
        self._control.starting = False

    # --- another configuration

    def _reload(self, cause: str) -> None:
        """Reload without waiting for the outcome, which is logged."""
        if self._reloader is not None and not self._control.draining:
            task = asyncio.get_running_loop().create_task(self._reload_told(self._reloader, cause))
            self._reloads.add(task)
            task.add_done_callback(self._reloads.discard)

    async def _reload_told(self, reloader: Reloader, cause: str) -> Reload:
        """Reload, and let systemd know while it lasts."""
        self._systemd.reloading()
        done = await reloader.reload(cause)
        if self._watch is not None and not self._control.draining:
            self._watch.follow(reloader.named_files)
        if not self._control.draining:
            self._systemd.ready()
        return done

    def _config_changed(self, config: Config) -> None:
        """What the supervisor itself takes from the configuration that is served now."""
        self.config = config
        self._certificates.serve(config)
        set_format(config.logging.level, config.logging.format)
        self._writer.retarget(config.logging.access.path)

    async def reload(self) -> Reload | None:
        """Reload now; → how it ended, None when there is no file to reload from."""
        return await self._reload_told(self._reloader, "api") if self._reloader is not None else None

    async def plan(self, text: str) -> Plan | None:
        """What serving this text as the configuration would do; None when there is no file."""
        return await self._reloader.plan(text) if self._reloader is not None else None

    def reloads(self) -> tuple[str, list[Reload], Reload | None]:
        """The file, the last reloads, and the one that failed if it was the last."""
        if self._reloader is None:
            return "", [], None
        return self._reloader.path, self._reloader.history, self._reloader.failing

    def _close_listeners(self) -> None:
        self._bindings.close()
        for listener in self._admin_listeners:
            listener.close()

    # --- serve and stop

    async def _serve(self) -> int:
        while True:
            number = await self._signals.get()
            if number == signal.SIGHUP:
                self._reload("SIGHUP")
                continue
            break
        log.info("draining", extra={"signal": signal.Signals(number).name})
        stopping = asyncio.create_task(self._stop())
        while not stopping.done():
            again = asyncio.create_task(self._signals.get())
            await asyncio.wait((stopping, again), return_when=asyncio.FIRST_COMPLETED)
            if again.done() and again.result() != signal.SIGHUP:
                log.warning("second signal: ending now")
                self._workers.kill()
                stopping.cancel()
                self._close_listeners()
                break
            again.cancel()
        await asyncio.wait((stopping,))
        log.info("stopped")
        return 0

    async def _stop(self) -> None:
        shutdown = self.config.server.shutdown
        self._control.draining = True
        self._systemd.stopping()
        self._certificates.stop()
        if self._watch is not None:
            self._watch.stop()
        if self._reloader is not None:
            self._reloader.stop()
        if shutdown.drain_delay:
            await asyncio.sleep(shutdown.drain_delay)
        await self._bindings.quiet_all()
        # Ours first: from now on only the workers hold the sockets, and they empty the accept queues before they close
        # them.
        self._bindings.close()
        clean = await self._workers.stop(
            Drain(shutdown.grace_period, shutdown.drain_idle), shutdown.grace_period + GOODBYE
        )
        if not clean:
            log.warning("workers had to be killed after the grace period")
        self._systemd.close()
        await self._admin.stop(1.0)
        await self._control.stop()

    # --- workers

    def _worker_up(self, slot: Slot) -> None:
        # There from the start: what jumps from nothing to 1 is no increase for Prometheus.
        self._totals.count("gogate_internal_errors_total", (str(slot.slot),), 0)
        self._publisher.join(slot)

    def _worker_down(self, slot: Slot) -> None:
        self._publisher.leave(slot)
        self._arena.clear_slot(slot.slot, self._control.rows_in_use())
        self._totals.forget_gauges(slot.slot)
        for number, (future, waiting, found) in list(self._questions.items()):
            self._answered(number, future, waiting, found, slot.slot)

    def _worker_says(self, slot: Slot, message: Up) -> None:
        match message:
            case Counts():
                self._totals.add(slot.slot, message)
            case LogLines():
                (self._writer.access if message.access else self._writer.own)(message.lines, message.count)
            case Applied():
                if slot.state == "starting":
                    slot.state = "serving"
                    if all(one.state == "serving" for one in self._workers.slots):
                        self._all_serving.set()
                self._publisher.acknowledged_by(slot, message.generation)
            case Unreachable():
                self._control.unreachable(message.row, message.error)
            case UnknownKey():
                self._control.unknown_key(message.url)
            case Connections() | Closed():
                question = self._questions.get(message.question)
                if question is not None:
                    future, waiting, found = question
                    if isinstance(message, Connections):
                        found.extend(message.connections)
                    elif message.found and not future.done():
                        future.set_result(True)
                    self._answered(message.question, future, waiting, found, slot.slot)
            case Drained():
                log.info("worker drained", extra={"slot": slot.slot, "cut": message.cut})

    def _answered(
        self,
        number: int,
        future: asyncio.Future[list[Connection] | bool],
        waiting: set[int],
        found: list[Connection],
        slot: int,
    ) -> None:
        waiting.discard(slot)
        if not waiting:
            self._questions.pop(number, None)
            if not future.done():
                future.set_result(found)

    async def _ask(self, make: type[ListConnections] | type[CloseConnection], *args: str) -> list[Connection] | bool:
        """Ask every worker that serves; a worker that does not answer in time is left out."""
        number = next(self._question_numbers)
        message: Down = make(number, *args)
        asked = {slot.slot for slot in self._workers.slots if slot.channel is not None}
        found: list[Connection] = []
        if not asked:
            return found
        future: asyncio.Future[list[Connection] | bool] = asyncio.get_running_loop().create_future()
        self._questions[number] = (future, asked, found)
        for slot in self._workers.slots:
            slot.send(message)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await future
        except TimeoutError:
            return found
        finally:
            self._questions.pop(number, None)

    # --- what the admin API asks (controlplane.admin_routes.Supervision)

    def workers(self) -> list[WorkerView]:
        """The state of every slot."""
        now = monotonic()
        return [
            WorkerView(slot.slot, slot.pid, slot.state, round(now - slot.started, 3), slot.restarts)
            for slot in self._workers.slots
        ]

    async def connections(self) -> list[Connection]:
        """Every live L4 connection."""
        found = await self._ask(ListConnections)
        return found if isinstance(found, list) else []

    async def close_connection(self, connection_id: str) -> bool:
        """Cut one L4 connection; → whether it was there."""
        return await self._ask(CloseConnection, connection_id) is True

    def backend_live(self, row: int) -> LiveState:
        """What the arena knows of a backend."""
        arena = self._arena
        first = arena.backend(row)
        return LiveState(
            arena.active(row, len(self._workers.slots)),
            STATE_NAMES[arena.cells[first + BREAKER_STATE]],
            arena.cells[first + EJECTED_UNTIL] > monotonic_ns(),
        )

    def explain(self, question: Question, listener: str) -> dict[str, Any]:
        """What would happen to a request now."""
        # Loaded when it is first asked for: the supervisor has no other use for the data plane.
        from gogate_py.dataplane.explain import Explainer

        snapshot = self._publisher.snapshot
        assert snapshot is not None  # there is one before the admin API is served
        known = (snapshot.generation, list(self._publisher.key_sets()))
        if self._explainer is None or self._explainer[0] != known:
            explainer = Explainer(snapshot, self._arena, len(self._workers.slots), known[1])
            self._explainer = (known, explainer)
        return self._explainer[1].explain(question, listener)

    def log_lines_dropped(self) -> int:
        """Lines the log writer dropped since the last call."""
        return self._writer.take_dropped()


def _raise_descriptor_limit() -> None:
    """As many descriptors as the hard limit allows (SECURITY.md F11)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
