"""Reloader: from a changed file to every worker serving it, or to nothing having changed.

    read and check the file,     problems: reported with their places, nothing changes
    and those that it names
    the same configuration       nothing to do (a touch, a comment, another spelling)
    what cannot be reloaded      refused by name: a restart is needed
    bind new listeners           an address taken: refused, nothing changes
    complete handshakes          on what goes, and begin no more: 0.1 s
    look up new names            at most half a second; a name that does not resolve is a backend that is down
    pass sockets on              new ones to the workers; of what goes the workers have the only copies from here on
    one snapshot for everybody   each worker swaps one reference, closes what is gone, and acknowledges; one that cannot
                                 is replaced; if none can, the configuration before is served again

One reload at a time; what is asked for meanwhile is done after it. When gogate stops, so does the reload under way.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from attrs import evolve

from gogate_py.clock import monotonic, wall
from gogate_py.config.listeners import admin_addresses
from gogate_py.config.loader import load_file, load_text
from gogate_py.config.problems import Problem
from gogate_py.config.schema import Config
from gogate_py.controlplane.compiler import listener_addresses, listener_rules
from gogate_py.controlplane.control import Control
from gogate_py.controlplane.plan import Plan, needs_restart, plan, render
from gogate_py.controlplane.publisher import Publisher
from gogate_py.controlplane.reloads import Reload
from gogate_py.controlplane.rows import RowsExhausted
from gogate_py.errors import ConfigError, StartError
from gogate_py.process.bindings import Bindings
from gogate_py.process.sockets import BoundListener
from gogate_py.process.workers import Workers
from gogate_py.telemetry.totals import Totals

log = logging.getLogger("gogate.reload")

#: How long workers may take to serve a new configuration, seconds; one that does not is stuck, and will be replaced.
APPLY_LIMIT: Final = 10.0
#: Reloads that are remembered.
HISTORY: Final = 20
STOPPING: Final = "gogate is stopping"


class AdminChange(NamedTuple):
    """Listeners of the supervisor to serve anew, by name, and the names of those that are not served any more."""

    added: dict[str, BoundListener]
    gone: list[str]


class Reloader:
    """Reloads the configuration of one gateway from its file."""

    def __init__(
        self,
        path: str,
        control: Control,
        publisher: Publisher,
        workers: Workers,
        bindings: Bindings,
        totals: Totals,
        admin_bindings: Bindings,
        on_change: Callable[[Config], None],
        on_admin: Callable[[AdminChange], Awaitable[None]],
    ) -> None:
        """``on_change`` hears of a configuration that is served, for what the supervisor itself takes from it,
        ``on_admin`` of listeners of its own."""
        self.path = path
        self._control = control
        self._publisher = publisher
        self._workers = workers
        self._bindings = bindings
        self._totals = totals
        self._admin_bindings = admin_bindings
        self._on_change = on_change
        self._on_admin = on_admin
        self._lock = asyncio.Lock()
        self._running: asyncio.Task[tuple[str, list[str]]] | None = None
        self._refusal = ""  # why nothing can be reloaded now
        self._notes: list[str] = []  # what went wrong in the reload under way, though it was served
        self._changes: tuple[str, ...] = ()  # that the reload under way made
        self._read: dict[str, bytes] = {}  # files that the configuration read last names
        #: The last reloads, the newest first; the start is one.
        self.history = [Reload(wall(), "start", "success", control.generation, 0.0)]
        self.failing: Reload | None = None

    async def reload(self, cause: str) -> Reload:
        """Reload now, after the one that is under way; → how it ended. Never raises."""
        async with self._lock:
            begun = monotonic()
            if self._refusal:
                result, problems = "failure", [self._refusal]
            else:
                self._running = asyncio.create_task(self._try())
                result, problems = await self._outcome(self._running)
                self._running = None
            changes, self._changes, self._notes = self._changes, (), []
            done = Reload(
                wall(), cause, result, self._control.generation, round(monotonic() - begun, 3), tuple(problems), changes
            )
            self._note(done)
        return done

    @asynccontextmanager
    async def held(self, reason: str) -> AsyncIterator[None]:
        """Reload nothing meanwhile, after the one that is under way; who asks is told this reason."""
        self._refusal = self._refusal or reason
        try:
            async with self._lock:
                pass
            yield
        finally:
            if self._refusal == reason:
                self._refusal = ""

    async def _outcome(self, running: asyncio.Task[tuple[str, list[str]]]) -> tuple[str, list[str]]:
        """What became of a try, whatever it was."""
        await asyncio.wait((running,))
        if not running.cancelled() and running.exception() is None:
            return running.result()
        self._bindings.abandon()
        self._admin_bindings.abandon()
        if running.cancelled():
            return "failure", [STOPPING]
        # Whatever it is, the old configuration goes on.
        log.error("internal error", exc_info=running.exception(), extra={"where": "reload"})
        self._totals.count("gogate_internal_errors_total", ("supervisor",))
        return "failure", ["gogate failed on this configuration; the log has the details"]

    @property
    def named_files(self) -> dict[str, bytes | None]:
        """The files whose change may change what is served, or mend what could not be: path → digest of what the last
        reload read of it, None for those of the served configuration that it did not come to."""
        return {**dict.fromkeys(self._control.config.files), **self._read}

    def stop(self) -> None:
        """gogate ends: from now on nothing is reloaded, what is not served yet never will be."""
        self._refusal = STOPPING
        if self._running is not None:
            self._running.cancel()

    def _note(self, done: Reload) -> None:
        if done.result != "unchanged":
            self._totals.count("gogate_config_reloads_total", (done.result,))
            self.history.insert(0, done)
            del self.history[HISTORY:]
        self.failing = done if done.result == "failure" else None
        extra = {"file": self.path, "cause": done.cause, "generation": done.generation}
        if done.result == "success":
            log.info("configuration reloaded", extra={
                **extra, "duration_s": done.duration_s, "changes": list(done.changes), "problems": list(done.problems)})
        elif done.result == "unchanged":
            log.info("configuration is unchanged", extra=extra)
        else:
            for problem in done.problems:
                log.error("configuration cannot be served; the old one goes on", extra={**extra, "problem": problem})

    async def _try(self) -> tuple[str, list[str]]:
        old = self._control.config
        try:
            # In a thread: a large file takes a second, and heartbeats go on.
            new = await asyncio.to_thread(load_file, self.path, os.environ)
            self._read = new.files
        except ConfigError as error:
            self._read = error.files
            return "failure", [str(problem) for problem in error.problems if isinstance(problem, Problem)]
        except StartError as error:
            return "failure", [str(error)]
        if new == old:
            return "unchanged", []
        fixed = needs_restart(old, new)
        if fixed:
            return "failure", [
                f"{one.key} cannot be changed by a reload; restart gogate ({one.reason})" for one in fixed
            ]
        problem = await self._serve(new)
        if problem and self._control.config is new:  # nothing could fail any more, and yet it did
            again = await self._serve(old)
            return "failure", [problem, f"the one before cannot be served either: {again}"] if again else [problem]
        if problem:
            return "failure", [problem]
        self._changes = tuple(render(self._compare(old, new)))
        return "success", self._notes

    async def _serve(self, new: Config) -> str:
        """Change over to this configuration; → why it is not served, "" if it is."""
        was = [name for name, _, _ in self._admin_bindings.named()]
        try:
            change = await self._bindings.prepare(listener_addresses(new), listener_rules(new))
            admin = await self._admin_bindings.prepare(admin_addresses(new))
        except StartError as error:
            self._bindings.abandon()
            return str(error)
        await self._bindings.quiet()
        own = [listener.address for listener in (*change.bound.values(), *admin.bound.values())]

        def change_over() -> None:
            self._workers.add_listeners(change.added)
            removed = self._bindings.commit()
            self._workers.remove_listeners(removed)
            # Ours first: the workers, who now have the only copies, empty the accept queues before they close them.
            self._bindings.release(removed)

        try:
            generation = await self._control.reload(new, own, change.listener_id, change_over)
        except RowsExhausted as error:
            self._bindings.abandon()
            self._admin_bindings.abandon()
            return str(error)
        self._on_change(new)
        gone = self._admin_bindings.commit()
        if admin.added or gone:
            fresh = {name: one for name, one in admin.bound.items() if one in admin.added}
            await self._on_admin(AdminChange(fresh, [name for name in was if name not in admin.bound]))
            self._admin_bindings.release(gone)
        taken = await self._publisher.wait_acknowledged(generation, APPLY_LIMIT)
        self._control.reloaded()
        why = self._publisher.nobody_serves(generation)
        if why:
            return f"no worker could take it over: {why}"
        if not taken:
            log.error("a worker does not take the new configuration in time", extra={"generation": generation})
        return ""

    def worker_replaced(self, slot: int, error: str) -> None:
        """A worker could not take over what the others could."""
        if self._running is not None:
            self._notes.append(f"worker {slot} could not take it over, and was replaced: {error}")

    async def plan(self, text: str) -> Plan:
        """What serving this text instead would do. Files that it names are looked for where the served one's are.
        Raises ConfigError."""
        new = await asyncio.to_thread(load_text, text, self.path, os.environ)
        return self._compare(self._control.config, new)

    def _compare(self, old: Config, new: Config) -> Plan:
        return evolve(plan(old, new), overridden=self._control.in_force(new))
