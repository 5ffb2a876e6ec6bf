"""Supervisor: the control plane's process. Starts everything in order, keeps it running, ends it in order.

Start: configuration (done by the caller) → sockets → arena → control plane → zygote and workers → every worker has
acknowledged the first snapshot → admin listener → ready. Whatever fails before that is one clear line and exit code 1.

Stop (SECURITY.md F10): readiness 503 → drainDelay → stop accepting → finish what runs → cut at gracePeriod. A second
signal: now.

Upgrade (SIGUSR2): process/upgrade.py is the old gogate's side, process/takeover.py the new one's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

from gogate_py import __version__
from gogate_py.arena import BREAKER_STATE, EJECTED_UNTIL, Arena
from gogate_py.clock import monotonic, monotonic_ns
from gogate_py.config.listeners import admin_addresses
from gogate_py.config.schema import Config
from gogate_py.controlplane.certificates import CertificateWatch
from gogate_py.controlplane.compiler import listener_addresses, listener_rules
from gogate_py.controlplane.control import Control
from gogate_py.controlplane.plan import Plan
from gogate_py.controlplane.publisher import Publisher
from gogate_py.controlplane.reloads import Reload
from gogate_py.controlplane.supervision import LiveState, WorkerView
from gogate_py.errors import StartError
from gogate_py.messages import (
    Applied,
    Closed,
    Connection,
    Connections,
    Counts,
    Drain,
    Drained,
    KeySet,
    LogLines,
    RequestFound,
    RequestRecord,
    Requests,
    RequestSummary,
    Spans,
    Unapplied,
    UnknownKey,
    Unreachable,
    Up,
)
from gogate_py.middleware.question import Question
from gogate_py.policy.circuit_breaker import CLOSED, STATE_NAMES
from gogate_py.process.bindings import Bindings
from gogate_py.process.handover import State
from gogate_py.process.outgoing import Outgoing
from gogate_py.process.parsers import check_parsers
from gogate_py.process.questions import Questions
from gogate_py.process.reloader import STOPPING, AdminChange, Reloader
from gogate_py.process.systemd import Notifier, passed_sockets
from gogate_py.process.takeover import Takeover, without_own
from gogate_py.process.traces import Traces
from gogate_py.process.upgrade import LIMIT, Upgrade, program, refusal_here
from gogate_py.process.workers import Slot, Workers, describe, usable_cpus
from gogate_py.process.zygote_process import ZygoteProcess
from gogate_py.telemetry.logs import LogWriter, set_format
from gogate_py.telemetry.totals import Totals

if TYPE_CHECKING:
    from gogate_py.controlplane.admin_server import AdminServers
    from gogate_py.dataplane.explain import Explainer
    from gogate_py.process.file_watch import FileWatch

log = logging.getLogger("gogate.supervisor")

#: How long the first snapshot may take to be acknowledged by every worker.
START_TIMEOUT: Final = 20.0
#: Beyond gracePeriod: the time workers have to say goodbye.
GOODBYE: Final = 3.0
#: How long what was asked on an admin listener that goes may take.
ADMIN_GRACE: Final = 10.0
#: Between the signals that the supervisor waits for: another gogate serves now.
_UPGRADED: Final = 0
#: Added to the slots of the gogate that this one took over from, whose gauges are kept beside ours.
OLD_SLOTS: Final = 1000


class Supervisor:
    """The process's one object. ``run`` is its life."""

    def __init__(
        self,
        config: Config,
        writer: LogWriter,
        path: str = "",
        old: socket.socket | None = None,
        upgrade_limit: float = LIMIT,
        zygote: ZygoteProcess | None = None,
    ) -> None:
        """``path``: the file that the configuration came from, and is reloaded from; "" = it cannot be. ``old``: the
        way to the gogate that this one is to take over from; ``upgrade_limit``: seconds that the next one may take;
        ``zygote``: the first one, which runs already."""
        self.config = config
        self._path = path
        self.started = monotonic()
        self._writer = writer
        self._takeover = Takeover(old) if old is not None else None
        self._upgrade: Upgrade | None = None
        self._upgrading: asyncio.Task[None] | None = None
        self._upgrade_limit = upgrade_limit
        self._upgrade_wanted = False  # asked for while what a failed one left was not yet gone
        self._zygote = zygote
        self._old_one: asyncio.Task[None] | None = None  # waits for the end of who we took over from
        self._arena: Arena
        self._totals = Totals()
        self._traces = Traces(self._totals)
        self._publisher = Publisher()
        self._bindings: Bindings
        self._reloader: Reloader | None = None
        self._watch: FileWatch | None = None
        self._certificates: CertificateWatch
        self._admin_bindings: Bindings
        self._control: Control
        self._workers: Workers
        self._admin: AdminServers
        self._questions = Questions(lambda: self._workers.slots)
        self._systemd = Notifier()
        self._all_serving = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._put_off: list[str] = []  # reloads that were asked for during an upgrade
        # made when it is first asked for, for one generation and its keys
        self._explainer: tuple[tuple[int, list[KeySet]], Explainer] | None = None
        self._signals: asyncio.Queue[int] = asyncio.Queue()

    async def run(self) -> int:
        """Start, serve until a signal, stop; → exit code."""
        check_parsers()
        _raise_descriptor_limit()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
            loop.add_signal_handler(number, self._signals.put_nowait, number)
        server = self.config.server
        count = server.workers or usable_cpus()
        try:
            await self._bind(count)
            await self._start(count)
        except BaseException:
            self._close_listeners(keep_paths=self._takeover is not None)
            raise
        log.info(
            "gogate is ready",
            extra={
                "version": __version__,
                "pid": os.getpid(),
                "workers": count,
                "listeners": describe(self._bindings.listeners),
                "admin": self._admin_listeners(),
                "start_ms": round((monotonic() - self.started) * 1000),
            },
        )
        if self._takeover is None:
            self._systemd.ready()
        else:
            self._old_one = loop.create_task(self._outlive(self._takeover))
        return await self._serve()

    # --- start

    async def _bind(self, count: int) -> None:
        """Every socket there will be, before anything runs. One address that is taken ends the start."""
        passed = passed_sockets()
        self._bindings, self._admin_bindings = Bindings(count, passed), Bindings(1, passed)
        if self._takeover is not None:
            data, admin = await self._takeover.listeners()
            self._bindings.adopt(*data)
            self._admin_bindings.adopt(*admin)
        for bindings, wanted, rules in (
            (self._bindings, listener_addresses(self.config), listener_rules(self.config)),
            (self._admin_bindings, admin_addresses(self.config), {}),
        ):
            await bindings.prepare(wanted, rules)
            # What only the old gogate has goes on there until we serve; a path is its own to remove, or to keep.
            bindings.release(bindings.commit(), keep_paths=True)
        for address, sock in passed.items():
            log.warning("systemd opened a socket that no listener has; it is closed", extra={"address": address})
            sock.close()
        passed.clear()

    async def _start(self, count: int) -> None:
        state: State | None = None
        arena_fd = -1
        if self._takeover is not None:
            state, arena_fd = await self._takeover.state(count)
        same_arena = arena_fd >= 0
        self._arena = Arena(arena_fd) if same_arena else Arena.create()
        self._control = Control(
            self.config,
            publisher=self._publisher,
            workers=count,
            own_addresses=[one.address for one in (*self._bindings.listeners, *self._admin_bindings.listeners)],
            listener_id=self._bindings.listener_id,
            reset_row=self._arena.reset_backend,
            reset_limit=self._arena.reset_limiter,
            count=self._totals.count,
        )
        if state is not None:
            self._control.take_over(state.control, same_arena=same_arena)
            self._totals.add(0, state.counts)
        self._traces.serve(self.config.tracing)
        await self._control.start()
        self._totals.count("gogate_config_reloads_total", ("success",))
        self._workers = Workers(
            self._arena,
            count,
            self._bindings.listeners,
            self._worker_up,
            self._worker_down,
            self._worker_says,
            first=state.first if state is not None and same_arena else 0,
            columns=state.columns if state is not None and same_arena else 0,
            incarnation=state.incarnation if state is not None else 0,
            restarts=state.restarts if state is not None else (),
            zygote=self._zygote,
        )
        self._workers.start()
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._all_serving.wait()
        except TimeoutError:
            await self._workers.stop(Drain(0.0, 0.0), 1.0)
            raise StartError("the workers did not start in time; their errors are in the log above") from None
        await self._serve_admin()
        if self._path:
            self._reloader = Reloader(
                self._path,
                self._control,
                self._publisher,
                self._workers,
                self._bindings,
                self._totals,
                self._admin_bindings,
                self._config_changed,
                self._admin_changed,
            )
            from gogate_py.process.file_watch import FileWatch  # as the web framework: not before requests are served

            self._watch = FileWatch(self._path, lambda: self._reload("file"))
            self._watch.follow(self.config.files)
            self._watch.start()
        self._certificates = CertificateWatch(self.config)
        self._certificates.start()
        self._control.starting = False

    async def _serve_admin(self) -> None:
        # Only now: the web framework takes a fifth of the start, and until here requests would have waited for it.
        from gogate_py.controlplane.admin_server import AdminServers

        # Duplicates: a server closes what it is given, and the sockets are to outlive it.
        sockets = {name: one.sockets[0].dup() for name, _, one in self._admin_bindings.named()}
        self._admin = AdminServers(self._control, self, self._totals, sockets)
        await self._admin.start()

    async def _admin_changed(self, change: AdminChange) -> None:
        sockets = {name: one.sockets[0].dup() for name, one in change.added.items()}
        await self._admin.change(sockets, change.gone, ADMIN_GRACE)
        log.info("admin listeners changed", extra={"admin": self._admin_listeners()})

    def _admin_listeners(self) -> dict[str, str]:
        return {name: str(one.address) for name, _, one in self._admin_bindings.named()}

    # --- another configuration

    def _reload(self, cause: str) -> None:
        """Reload without waiting for the outcome, which is logged."""
        if self._upgrading is not None:
            self._put_off.append(cause)
        elif self._reloader is not None and not self._control.draining:
            self._spawn(self._reload_told(self._reloader, cause))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

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
        self._traces.serve(config.tracing)
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

    def _close_listeners(self, *, keep_paths: bool = False) -> None:
        self._bindings.close(keep_paths=keep_paths)
        self._admin_bindings.close(keep_paths=keep_paths)

    # --- serve and stop

    async def _serve(self) -> int:
        while True:
            number = await self._signals.get()
            if number == signal.SIGHUP:
                self._reload("SIGHUP")
            elif number == signal.SIGUSR2:
                self._begin_upgrade()
            else:
                break
        if number == _UPGRADED:
            stopping = asyncio.create_task(self._leave())
        else:
            log.info("draining", extra={"signal": signal.Signals(number).name})
            stopping = asyncio.create_task(self._stop())
        while not stopping.done():
            again = asyncio.create_task(self._signals.get())
            await asyncio.wait((stopping, again), return_when=asyncio.FIRST_COMPLETED)
            if again.done() and again.result() not in (signal.SIGHUP, signal.SIGUSR2, _UPGRADED):
                log.warning("second signal: ending now")
                self._workers.kill()
                stopping.cancel()
                self._close_listeners(keep_paths=number == _UPGRADED)
                break
            again.cancel()
        await asyncio.wait((stopping,))
        log.info("stopped")
        return 0

    async def _stop(self) -> None:
        shutdown = self.config.server.shutdown
        if self._upgrade is not None and self._upgrading is not None:
            self._upgrade.give_up(STOPPING)
            await self._upgrading
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
        await self._traces.stop()
        self._systemd.close()
        await self._admin.stop(1.0)
        await self._control.stop()
        self._admin_bindings.close()

    # --- the program is upgraded: the old one's side

    def _begin_upgrade(self) -> None:
        if self._upgrade is not None and self._upgrading is None:
            # Who reads that an upgrade failed tries again at once; its workers may still finish what they accepted.
            self._upgrade_wanted = True
            log.info("upgrade waits for the end of the failed one's workers", extra={"pid": os.getpid()})
            return
        reason = refusal_here()
        if self._reloader is None:
            reason = "it has no configuration file that another one could read"
        elif self._upgrade is not None:
            reason = "another upgrade is under way"
        elif self._old_one is not None and not self._old_one.done():
            reason = "the gogate before this one still finishes what runs"
        if reason:
            log.error("upgrade is refused", extra={"pid": os.getpid(), "reason": reason})
            return
        outgoing = Outgoing(
            self._control,
            self._workers,
            self._totals,
            self._arena,
            self._bindings,
            self._admin_bindings,
            lambda: self._admin,
            self._serve_admin,
        )
        self._upgrade = Upgrade(outgoing, program(), os.environ, self._upgrade_limit)
        self._upgrading = asyncio.get_running_loop().create_task(self._try_upgrade(self._upgrade))

    async def _try_upgrade(self, upgrade: Upgrade) -> None:
        assert self._reloader is not None
        async with self._reloader.held("the program is being upgraded"):
            served = await upgrade.run()
        if served:
            self._signals.put_nowait(_UPGRADED)
            return
        self._upgrading = None
        for cause in dict.fromkeys(self._put_off):
            self._reload(cause)
        self._put_off.clear()
        self._spawn(self._after_failed_upgrade(upgrade))

    async def _after_failed_upgrade(self, upgrade: Upgrade) -> None:
        await upgrade.bury()
        self._upgrade = None
        if self._upgrade_wanted:
            self._upgrade_wanted = False
            self._signals.put_nowait(signal.SIGUSR2)

    async def _leave(self) -> None:
        """Another gogate serves with our sockets: finish what runs."""
        upgrade = self._upgrade
        assert upgrade is not None
        shutdown = self.config.server.shutdown
        self._control.draining = True
        self._certificates.stop()
        if self._watch is not None:
            self._watch.stop()
        if self._reloader is not None:
            self._reloader.stop()
        await self._control.stop()  # writes the registry's store for the last time, and lets it go
        self._systemd.hand_over(upgrade.pid)
        await upgrade.release()
        self._close_listeners(keep_paths=True)
        clean = await self._workers.stop(
            Drain(shutdown.grace_period, shutdown.drain_idle), shutdown.grace_period + GOODBYE
        )
        if not clean:
            log.warning("workers had to be killed after the grace period")
        await self._traces.stop()
        await upgrade.close()

    # --- and the new one's

    async def _outlive(self, old: Takeover) -> None:
        """Serve in the place of another gogate, until it is gone."""
        slots: set[int] = set()

        def counted(slot: int, counts: Counts) -> None:
            slots.add(slot)
            self._totals.add(OLD_SLOTS + slot, without_own(counts))

        def released() -> None:
            self._control.lead()
            self._systemd.ready()

        columns = await old.serve(released, counted)
        for slot in slots:
            self._totals.forget_gauges(OLD_SLOTS + slot)
        for column in columns if old.gave_arena else ():
            self._arena.clear_slot(column, self._control.rows_in_use())
        log.info("the gogate before this one has ended", extra={"pid": os.getpid()})

    # --- workers

    def _worker_up(self, slot: Slot) -> None:
        # There from the start: what jumps from nothing to 1 is no increase for Prometheus.
        self._totals.count("gogate_internal_errors_total", (str(slot.slot),), 0)
        self._publisher.join(slot)
        for other in (self._upgrade, self._takeover):
            if other is not None:
                other.member(slot.column, slot.pidfd)

    def _worker_down(self, slot: Slot) -> None:
        self._publisher.leave(slot)
        self._arena.clear_slot(slot.column, self._control.rows_in_use())
        self._totals.forget_gauges(slot.slot)
        self._questions.gone(slot)

    def _worker_says(self, slot: Slot, message: Up) -> None:
        match message:
            case Counts():
                self._totals.add(slot.slot, message)
                if self._upgrade is not None:
                    self._upgrade.counted(slot.slot, message)
            case LogLines():
                (self._writer.access if message.access else self._writer.own)(message.lines, message.count)
            case Applied():
                if slot.state == "starting":
                    slot.state = "serving"
                    if all(one.state == "serving" for one in self._workers.slots):
                        self._all_serving.set()
                self._publisher.acknowledged_by(slot, message.generation)
                self._replace_wrong_ones()
            case Unapplied():
                self._publisher.refused_by(slot, message.generation, message.error)
                self._replace_wrong_ones()
            case Unreachable():
                self._control.unreachable(message.row, message.error)
            case UnknownKey():
                self._control.unknown_key(message.url)
            case Connections() | Closed() | Requests() | RequestFound():
                self._questions.answered(slot, message)
            case Spans():
                self._traces.add(message.spans)
            case Drained():
                log.info("worker drained", extra={"slot": slot.slot, "cut": message.cut})

    def _replace_wrong_ones(self) -> None:
        """A worker that could not take over what others could serves half of it; the next one begins with all of it."""
        for number, error in self._publisher.at_fault().items():
            log.error("a worker could not take over a configuration; it is replaced", extra={
                "slot": number, "error": error})
            self._publisher.await_another(self._workers.slots[number])
            self._workers.replace(number)
            if self._reloader is not None:
                self._reloader.worker_replaced(number, error)

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
        return await self._questions.connections()

    async def close_connection(self, connection_id: str) -> bool:
        """Cut one L4 connection; → whether it was there."""
        return await self._questions.close_connection(connection_id)

    async def requests(self, limit: int, route: str, status: int) -> list[RequestSummary]:
        """The newest recorded requests."""
        return await self._questions.requests(limit, route, status)

    async def request(self, identity: str) -> RequestRecord | None:
        """The record of one."""
        return await self._questions.request(identity)

    def backend_live(self, row: int) -> LiveState:
        """What the arena knows of a backend."""
        arena = self._arena
        first = arena.backend(row)
        return LiveState(
            arena.active(row, self._workers.columns),
            STATE_NAMES[arena.cells[first + BREAKER_STATE]],
            arena.cells[first + EJECTED_UNTIL] > monotonic_ns(),
        )

    def out_of_order(self) -> dict[int, tuple[str, bool]]:
        """Rows of backends whose breaker is not closed, or that are ejected."""
        cells, first, now = self._arena.cells, self._arena.backend, monotonic_ns()
        return {
            row: (STATE_NAMES[cells[at + BREAKER_STATE]], cells[at + EJECTED_UNTIL] > now)
            for row in self._control.rows_in_use()
            if cells[(at := first(row)) + BREAKER_STATE] != CLOSED or cells[at + EJECTED_UNTIL] > now
        }

    def explain(self, question: Question, listener: str) -> dict[str, Any]:
        """What would happen to a request now."""
        # Loaded when it is first asked for: the supervisor has no other use for the data plane.
        from gogate_py.dataplane.explain import Explainer

        snapshot = self._publisher.snapshot
        assert snapshot is not None  # there is one before the admin API is served
        known = (snapshot.generation, list(self._publisher.key_sets()))
        if self._explainer is None or self._explainer[0] != known:
            explainer = Explainer(snapshot, self._arena, self._workers.columns, known[1])
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
