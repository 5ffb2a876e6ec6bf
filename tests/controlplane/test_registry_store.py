"""Registry store: a control plane that starts again goes on where the one before it ended."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from control_world import Link, NameServer, backend, until

from gogate_py.config.loader import load_text
from gogate_py.controlplane import state_keeper
from gogate_py.controlplane.control import Control
from gogate_py.controlplane.publisher import Publisher

TEXT = """
server:
  httpListenAddr: ":8081"
  health: {enabled: false}
  registry: {cleanupInterval: 50ms, store: "file://%s"}
pools:
  stable: {backends: ["10.0.0.1:80"]}
  canary: {backends: ["10.0.0.2:80"], service: api}
routes:
  - name: web
    split: [{pool: stable, weight: 90}, {pool: canary, weight: 10}]
"""


class World:
    """One life of a control plane; ``now`` is its monotonic clock."""

    def __init__(self, text: str, now: float = 1000.0) -> None:
        self.now = now
        self.counts: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.link = Link()
        publisher = Publisher()
        publisher.join(self.link)
        self.control = Control(
            load_text(text, "config.yaml", {}), publisher=publisher, workers=2,
            count=lambda name, labels: self.counts.update([(name, labels)]), lookup=NameServer(),
            now=lambda: self.now)

    def saves(self, result: str) -> int:
        """Writes with this result."""
        return self.counts["gogate_registry_saves_total", (result,)]


def live(text: str, body: Callable[[World], Awaitable[None]], now: float = 1000.0) -> None:
    """One life: start, the body, stop."""

    async def main() -> None:
        world = World(text, now)
        await world.control.start()
        world.control.starting = False
        try:
            await body(world)
        finally:
            await world.control.stop()

    asyncio.run(main())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store is."""
    return tmp_path / "registry.json"


async def fill(world: World) -> None:
    """Two instances, one of them drained and with another weight, and another split."""
    control = world.control
    control.register({"id": "a", "name": "api", "address": "10.0.0.5:80", "ttl": 20, "tags": ["v2"]})
    control.register({"id": "b", "name": "api", "address": "10.0.0.6:80"})
    control.drain("a")
    control.set_weight("10.0.0.1:80", None, 7)
    control.set_split(control.routes()[0], {"stable": 50})


def test_everything_comes_back(path: Path) -> None:
    """Instances, drains, weights and splits are there with the first snapshot of the next life."""
    drained: list[object] = []

    async def first(world: World) -> None:
        await fill(world)
        drained.extend(world.control.drained())

    live(TEXT % path, first)
    assert drained

    async def again(world: World) -> None:
        control = world.control
        assert [one.id for one in control.registrations()] == ["a", "b"]
        assert world.link.generation == 1
        assert ("canary", "10.0.0.5:80") in world.link.backends
        assert world.link.state("10.0.0.5:80", "canary").draining
        assert world.control.drained() == drained
        assert not world.link.state("10.0.0.6:80", "canary").draining
        assert world.link.backends["stable", "10.0.0.1:80"].weight == 7
        assert [arm.weight for arm in control.split(control.routes()[0])] == [50, 10]
        assert control.warnings() == []
        assert control.readiness() == (True, [])

    live(TEXT % path, again, now=5.0)


def test_leases_begin_anew(path: Path) -> None:
    """Who comes back has a whole TTL from now, whatever the clocks said before (SECURITY.md F13)."""
    live(TEXT % path, fill, now=1_000_000.0)

    async def again(world: World) -> None:
        world.now += 19.9
        world.control.expire()
        assert [one.state for one in world.control.registrations()] == ["passing", "passing"]
        world.now += 0.1
        world.control.expire()
        assert [one.state for one in world.control.registrations()] == ["critical", "passing"]

    live(TEXT % path, again, now=3.0)


def test_a_critical_instance_stays_critical(path: Path) -> None:
    """Who was out of rotation is known after a restart, and is back with its next heartbeat only."""

    async def first(world: World) -> None:
        await fill(world)
        world.now += 20
        world.control.expire()

    async def again(world: World) -> None:
        assert ("canary", "10.0.0.5:80") not in world.link.backends
        assert world.control.heartbeat("a")
        await until(lambda: ("canary", "10.0.0.5:80") in world.link.backends)
        assert world.link.state("10.0.0.5:80", "canary").draining  # as it was left

    live(TEXT % path, first)
    live(TEXT % path, again)


def test_who_was_down_starts_as_down(path: Path) -> None:
    """A backend that probes found down gets no work after a restart until they find it up."""

    text = (TEXT % path).replace("{enabled: false}", "{interval: 20ms, unhealthyThreshold: 1, healthyThreshold: 1}")

    async def main() -> None:
        async with backend() as server:
            address = f"127.0.0.1:{server.port}"
            await server.close()
            world = World(text)
            await world.control.start()
            world.control.register({"id": "a", "name": "api", "address": address})
            await until(lambda: ("canary", address) in world.link.backends)
            await until(lambda: not world.link.state(address, "canary").up)
            await world.control.stop()
            again = World(text)
            await again.control.start()
            assert again.link.snapshots[0].generation == 1
            assert "refused" in again.link.state(address, "canary").reason
            await server.open()
            await until(lambda: again.link.state(address, "canary").up)
            await again.control.stop()

    asyncio.run(main())


def test_another_configuration_takes_what_fits(path: Path) -> None:
    """Instances that it forbids and overrides of splits that it does not have are left out; the rest is taken."""
    live(TEXT % path, fill)
    other = (TEXT % path).replace("cleanupInterval", "allowCIDRs: [10.0.0.6/32], cleanupInterval").replace(
        "name: web", "name: shop")

    async def again(world: World) -> None:
        assert [one.id for one in world.control.registrations()] == ["b"]
        assert [arm.weight for arm in world.control.split(world.control.routes()[0])] == [90, 10]
        assert world.link.backends["stable", "10.0.0.1:80"].weight == 7

    live(other, again)


def test_a_storm_is_one_write(path: Path) -> None:
    """Changes of a moment are written together, and heartbeats not at all."""

    async def body(world: World) -> None:
        for number in range(200):
            world.control.register({"id": f"i{number}", "name": "api", "address": f"10.0.1.{number}:80"})
        keeper = world.control._keeper
        assert keeper is not None
        await until(lambda: world.saves("ok") == 1 and keeper._writing is None)
        for number in range(200):
            assert world.control.heartbeat(f"i{number}")
        assert (keeper._dirty, keeper._timer, keeper._writing) == (False, None, None)

    live(TEXT % path, body)


def test_a_store_that_cannot_be_written_costs_no_service(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing disk is said in the readiness answer, retried, and taken back when it works again (F17)."""
    monkeypatch.setattr(state_keeper, "RETRY", 0.01)
    missing = path.parent / "later" / "registry.json"

    async def body(world: World) -> None:
        await fill(world)
        await until(lambda: world.saves("failed") >= 2)
        assert world.control.readiness()[0]
        assert world.control.warnings() == ["registry store: not saved: No such file or directory"]
        missing.parent.mkdir()
        await until(lambda: world.saves("ok") == 1)
        assert world.control.warnings() == []
        assert missing.exists()

    live(TEXT % missing, body)


def test_a_damaged_store_is_kept_aside_and_said(path: Path) -> None:
    """gogate starts from the copy before, or empty, and says so for as long as it runs."""
    live(TEXT % path, fill)
    path.write_bytes(path.read_bytes()[:50])

    async def empty(world: World) -> None:
        complaint, result = world.control.warnings()
        assert "torn" in complaint
        assert result in ("registry store: started empty", f"registry store: started from {path}.1")
        assert world.control.readiness()[0]
        assert path.with_name("registry.json.bad").exists()

    live(TEXT % path, empty)


def test_what_is_written_last_is_written(path: Path) -> None:
    """A change of the last moment before the end is saved."""

    async def late(world: World) -> None:
        world.control.register({"id": "late", "name": "api", "address": "10.0.0.9:80"})

    live(TEXT % path, late)

    async def again(world: World) -> None:
        assert [one.id for one in world.control.registrations()] == ["late"]

    live(TEXT % path, again)
