"""Reloader: from a changed file to the configuration being served, or to nothing having changed."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from doubles.certificates import write_pair

from gogate_py.arena import Arena
from gogate_py.config.listeners import admin_addresses
from gogate_py.config.loader import load_file, load_text
from gogate_py.config.named_files import digest
from gogate_py.config.schema import Config
from gogate_py.controlplane.compiler import listener_addresses
from gogate_py.controlplane.control import Control
from gogate_py.controlplane.plan import needs_restart
from gogate_py.controlplane.publisher import Publisher
from gogate_py.messages import Down
from gogate_py.process import reloader as module
from gogate_py.process.bindings import Bindings
from gogate_py.process.reloader import AdminChange, Reloader
from gogate_py.process.workers import Workers
from gogate_py.telemetry.totals import Totals

OFF = {"enabled": False}


ADMIN = {"listenAddr": "127.0.0.1:0"}


def text(backend: str = "127.0.0.1:9", **server: Any) -> str:
    """A configuration with one HTTP listener on any port."""
    settings = {"httpListenAddr": "127.0.0.1:0", "admin": ADMIN, "health": OFF, "backends": [backend], **server}
    return json.dumps({"server": settings})


class Silent:
    """A worker that never acknowledges."""

    slot = 0

    def send(self, message: Down) -> None:
        """Nothing comes of it."""


class World:
    """Everything a reload needs, without worker processes: with none of them, all have acknowledged at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.totals = Totals()
        self.publisher = Publisher()
        self.bindings, self.operators = Bindings(1), Bindings(1)
        self.changed: list[Config] = []
        config = load_file(str(path), {})
        self.control = Control(config, publisher=self.publisher, workers=1, count=self.totals.count)
        self.workers: Workers
        self.admin: list[tuple[list[str], list[str]]] = []
        self.reloader: Reloader

    async def start(self) -> None:
        await self.bindings.prepare(listener_addresses(self.control.config))
        self.bindings.commit()
        await self.operators.prepare(admin_addresses(self.control.config))
        self.operators.commit()
        await self.control.start()
        self.workers = Workers(
            Arena.create(), 0, self.bindings.listeners, lambda slot: None, lambda slot: None, lambda slot, up: None
        )
        self.reloader = Reloader(
            str(self.path), self.control, self.publisher, self.workers, self.bindings, self.totals, self.operators,
            self.changed.append, self.admin_changed,
        )  # fmt: skip

    async def admin_changed(self, change: AdminChange) -> None:
        self.admin.append((sorted(change.added), sorted(change.gone)))

    async def reload(self, new: str | None = None) -> tuple[str, tuple[str, ...]]:
        """Reload, after writing this; → result, problems."""
        if new is not None:
            self.path.write_text(new)
        done = await self.reloader.reload("test")
        return done.result, done.problems

    def counted(self) -> dict[tuple[str, ...], float]:
        return dict(self.totals.counter("gogate_config_reloads_total"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(text())
    return file


def run(path: Path, body: Callable[[World], Coroutine[object, object, None]]) -> None:
    """Run a test's body with a gateway that has started."""

    async def main() -> None:
        world = World(path)
        await world.start()
        try:
            await body(world)
        finally:
            await world.control.stop()
            world.bindings.close()
            world.operators.close()

    asyncio.run(main())


def test_a_change_is_served_and_remembered(path: Path) -> None:
    """Served by everybody, counted, logged, in the history after the start; the supervisor hears of it."""

    async def body(world: World) -> None:
        before = world.bindings.listeners
        assert await world.reload(text("127.0.0.1:10")) == ("success", ())
        assert [view.addr for view in world.control.backends()] == ["127.0.0.1:10"]
        assert world.bindings.listeners == before
        assert world.changed == [world.control.config]
        assert [(one.cause, one.result, one.generation) for one in world.reloader.history] == [
            ("test", "success", 2), ("start", "success", 1)]  # fmt: skip
        assert world.counted() == {("success",): 1}

    run(path, body)


def test_another_spelling_is_no_change(path: Path) -> None:
    """Comments, order and defaults that are written out change nothing: no snapshot, no history, no count."""

    async def body(world: World) -> None:
        same = "# a comment\nserver:\n  backends: ['127.0.0.1:9']\n  health: {enabled: false, interval: 5s}\n"
        same += "  httpListenAddr: 127.0.0.1:0\n  admin: {listenAddr: '127.0.0.1:0'}\n"
        assert load_text(same, "x", {}) == world.control.config
        assert await world.reload(same) == ("unchanged", ())
        assert world.control.generation == 1
        assert len(world.reloader.history) == 1
        assert world.counted() == {}

    run(path, body)


def test_problems_have_their_places(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every problem with file, line and column, in the log and in the answer; until it is mended it is told."""

    async def body(world: World) -> None:
        config = world.control.config
        result, problems = await world.reload("server:\n  httpListenAdr: ':1'\n  workers: many\n")
        assert result == "failure"
        assert [line.partition(": ")[0] for line in problems][:2] == [f"{path}:2:3", f"{path}:3:12"]
        assert world.control.config is config
        assert world.reloader.failing is world.reloader.history[0]
        assert [record.__dict__["problem"] for record in caplog.records if "cannot be served" in record.message] == [
            *problems
        ]
        assert await world.reload(text()) == ("unchanged", ())
        assert world.reloader.failing is None
        assert world.counted() == {("failure",): 1}

    run(path, body)


def test_a_file_that_is_gone(path: Path) -> None:
    """One line that says so; the old configuration goes on."""

    async def body(world: World) -> None:
        path.unlink()
        result, problems = await world.reload()
        assert result == "failure"
        assert problems == (f"cannot read {path}: No such file or directory",)

    run(path, body)


FIXED = {
    "server.workers": ({"workers": 2}, {"workers": 3}),
    "server.registry.store": ({}, {"registry": {"store": "file:///tmp/x"}}),
}  # fmt: skip


@pytest.mark.parametrize("key", FIXED)
def test_what_cannot_be_reloaded_has_a_name(key: str) -> None:
    """Processes and the operators' listeners stay as they were started."""
    before, after = (load_text(text(**given), "x", {}) for given in FIXED[key])
    assert [one.key for one in needs_restart(before, after)] == [key]
    assert needs_restart(after, after) == []


def test_it_is_refused_and_nothing_else_is_done(path: Path) -> None:
    """Also when the rest of the file could be served: all or nothing."""

    async def body(world: World) -> None:
        assert await world.reload(text("127.0.0.1:10", workers=3)) == (
            "failure",
            ("server.workers cannot be changed by a reload; restart gogate (every worker has sockets and memory of its "
             "own from the start)",),
        )  # fmt: skip
        assert [view.addr for view in world.control.backends()] == ["127.0.0.1:9"]

    run(path, body)


def test_the_supervisors_own_listeners(path: Path) -> None:
    """Added, moved and taken away; one that is taken leaves everything as it was."""

    async def body(world: World) -> None:
        assert [name for name, _, _ in world.operators.named()] == ["admin"]
        assert (await world.reload(text(metrics=ADMIN)))[0] == "success"
        with socket.create_server(("127.0.0.1", 0)) as taken:
            bad = {"listenAddr": f"127.0.0.1:{taken.getsockname()[1]}"}
            result, problems = await world.reload(text(metrics=ADMIN, admin=bad, httpListenAddr="127.0.0.1:0"))
        assert result == "failure"
        assert "in use" in problems[0]
        assert (await world.reload(text(metrics=ADMIN, admin={"listenAddr": "localhost:0"})))[0] == "success"
        assert (await world.reload(text(admin={"enabled": False})))[0] == "success"
        assert world.admin == [(["metrics"], []), (["admin"], []), ([], ["admin", "metrics"])]
        assert world.operators.listeners == []

    run(path, body)


def test_an_address_that_is_taken(path: Path) -> None:
    """The line of a failed start; no listener changes, and the next configuration can be served."""

    async def body(world: World) -> None:
        before = world.bindings.listeners
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            result, problems = await world.reload(text(httpListenAddr=address))
        assert result == "failure"
        assert problems[0].startswith(f"cannot listen on {address}: the address is already in use")
        assert world.bindings.listeners == before
        assert (await world.reload(text("127.0.0.1:10")))[0] == "success"
        assert world.bindings.listeners == before

    run(path, body)


def test_no_room_for_its_backends(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was bound for it is closed, and no worker ever hears of its sockets."""

    async def body(world: World) -> None:
        monkeypatch.setattr(world.control._membership._rows, "_capacity", 0)
        listeners = world.workers._listeners
        result, problems = await world.reload(text("127.0.0.1:10", listenAddr="127.0.0.1:0"))
        assert (result, problems) == ("failure", ("more than 0 backends in all pools",))
        assert world.workers._listeners is listeners
        assert [listener.id for listener in world.bindings.listeners] == ["http:default"]
        assert world.bindings._coming is None

    run(path, body)


def test_listeners_that_go_are_closed(path: Path) -> None:
    """When everybody serves the new configuration; workers that start later do not get them."""

    async def body(world: World) -> None:
        assert (await world.reload(text(listenAddr="127.0.0.1:0")))[0] == "success"
        gone = next(one for one in world.bindings.listeners if one.id == "tcp:default-tcp")
        assert gone in world.workers._listeners
        assert (await world.reload(text()))[0] == "success"
        assert gone.sockets == []
        assert [listener.id for listener in world.workers._listeners] == ["http:default"]

    run(path, body)


def test_a_worker_that_does_not_follow(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not waited for longer than APPLY_LIMIT, and the log says so."""
    monkeypatch.setattr(module, "APPLY_LIMIT", 0.01)

    async def body(world: World) -> None:
        world.publisher.join(Silent())
        assert (await world.reload(text("127.0.0.1:10")))[0] == "success"
        assert "a worker does not take the new configuration in time" in caplog.text

    run(path, body)


def test_a_bug_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """An exception that nobody expected is a failed reload: logged, counted, what was bound is closed."""

    async def body(world: World) -> None:
        async def fail(*args: object) -> int:
            raise ZeroDivisionError

        with monkeypatch.context() as patched:
            patched.setattr(world.control, "reload", fail)
            result, problems = await world.reload(text(listenAddr="127.0.0.1:0"))
        assert (result, problems) == (
            "failure", ("gogate failed on this configuration; the log has the details",))  # fmt: skip
        assert world.bindings._coming is None
        assert "internal error" in [record.message for record in caplog.records if record.levelno == logging.ERROR]
        assert world.totals.counter("gogate_internal_errors_total") == {("supervisor",): 1}
        assert (await world.reload())[0] == "success"

    run(path, body)


def test_one_at_a_time(path: Path) -> None:
    """Whoever asks while a reload runs gets one of their own after it, with what the file says then."""

    async def body(world: World) -> None:
        path.write_text(text("127.0.0.1:10"))
        done = await asyncio.gather(*(world.reloader.reload(cause) for cause in ("file", "SIGHUP", "api")))
        assert [(one.cause, one.result) for one in done] == [
            ("file", "success"), ("SIGHUP", "unchanged"), ("api", "unchanged")]  # fmt: skip

    run(path, body)


def test_nothing_is_reloaded_while_it_is_held(path: Path) -> None:
    """During an upgrade: the reload under way is waited for, those asked for meanwhile are refused with the reason."""

    async def body(world: World) -> None:
        path.write_text(text("127.0.0.1:10"))
        running = asyncio.create_task(world.reloader.reload("file"))
        await asyncio.sleep(0)
        async with world.reloader.held("busy"):
            assert running.done()
            assert world.reloader.history[0].result == "success"
            assert (await world.reload(text("127.0.0.1:11")))[1] == ("busy",)
        assert (await world.reload())[0] == "success"

    run(path, body)


def test_the_history_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last ones, the newest first."""
    monkeypatch.setattr(module, "HISTORY", 3)

    async def body(world: World) -> None:
        for port in range(10, 15):
            await world.reload(text(f"127.0.0.1:{port}"))
        assert [one.generation for one in world.reloader.history] == [6, 5, 4]

    run(path, body)


def test_a_hundred_reloads_leave_nothing(path: Path) -> None:
    """No task and no descriptor more than after the first few, whatever came and went."""

    async def body(world: World) -> None:
        def look() -> tuple[int, int]:
            gc.collect()  # what earlier tests left would be collected in between
            return len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))

        async def reloads(count: int) -> None:
            for number in range(count):
                more = {"listenAddr": "127.0.0.1:0"} if number % 2 else {"health": {"interval": "1s"}}
                assert (await world.reload(text(f"127.0.0.{number % 5 + 1}:9", **more)))[0] == "success"
            assert (await world.reload(text()))[0] == "success"

        await reloads(10)
        before = look()
        await reloads(90)
        assert look() == before

    run(path, body)


def test_the_end_of_gogate_ends_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reload under way is given up, nothing is left bound; later ones are refused with the reason."""

    async def body(world: World) -> None:
        begun = asyncio.Event()

        async def forever(*args: object) -> int:
            begun.set()
            await asyncio.Event().wait()
            return 0

        monkeypatch.setattr(world.control, "reload", forever)
        path.write_text(text(listenAddr="127.0.0.1:0"))
        reloading = asyncio.create_task(world.reload())
        await begun.wait()
        world.reloader.stop()
        assert await reloading == ("failure", ("gogate is stopping",))
        assert world.bindings._coming is None
        assert await world.reload() == ("failure", ("gogate is stopping",))

    run(path, body)


def test_certificates_are_read_again(path: Path, tmp_path: Path) -> None:
    """A new one is served although the configuration is the same; a broken one is refused by file and line, and the old
    one goes on; the files are named whatever became of the reload."""
    tls = {"certificates": [{"certFile": "a.crt", "keyFile": "a.key"}]}
    certificate, key = write_pair(tmp_path, "a")
    path.write_text(text(tls=tls))

    def served(world: World) -> str:
        snapshot = world.publisher.snapshot
        assert snapshot is not None
        (listener,) = snapshot.listeners
        assert listener.tls is not None
        return listener.tls.certificates[0].chain

    async def body(world: World) -> None:
        assert served(world) == certificate.read_text().strip()
        assert await world.reload() == ("unchanged", ())
        write_pair(tmp_path, "a", "b.test")
        assert await world.reload() == ("success", ())
        good = served(world)
        assert good == certificate.read_text().strip()
        assert any("a.crt" in change and "b.test" in change for change in world.reloader.history[0].changes)
        certificate.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        result, (problem,) = await world.reload()
        assert result == "failure"
        assert problem.startswith(f"{path}:1:")
        assert "a.crt with a.key cannot be used" in problem
        assert served(world) == good
        assert world.reloader.named_files == {
            str(file): digest(file.read_bytes()) for file in (certificate, key)}
        assert (await world.reload("not: [yaml"))[0] == "failure"
        assert world.reloader.named_files == {str(certificate): None, str(key): None}

    run(path, body)
