"""What one control plane hands to the next when the program is upgraded, over the bytes that really go over."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from controlplane.control_world import Link, NameServer, until

from gogate_py.addresses import Address
from gogate_py.config.loader import load_text
from gogate_py.controlplane.control import Control
from gogate_py.controlplane.handed_state import HandedState
from gogate_py.controlplane.publisher import Publisher

CONFIG = """
server: {httpListenAddr: ":8081", health: {enabled: false}, registry: {defaultTTL: 10s, cleanupInterval: 100ms%s}}
pools:
  web: {backends: ["name.test:80", "127.0.0.1:9001"]}
  more: {backends: ["127.0.0.1:9002"]}
routes:
  - {name: web, pool: web, rateLimit: {rate: 5}}
"""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    """A control plane on a shared clock, with a worker that acknowledges."""

    def __init__(self, clock: Clock, names: NameServer, store: str = "") -> None:
        self.link = Link()
        self.publisher = Publisher()
        self.publisher.join(self.link)
        self.reset: list[int] = []
        self.control = Control(
            load_text(CONFIG % (f', store: "file://{store}"' if store else ""), "config.yaml", {}),
            publisher=self.publisher,
            workers=2,
            own_addresses=[Address("127.0.0.1", 8081)],
            reset_row=self.reset.append,
            lookup=names,
            now=clock,
        )

    def row(self, pool: str, address: str) -> int:
        return self.link.backends[pool, address].row

    def register(self, identity: str, port: int = 7001) -> None:
        self.control.register({"id": identity, "name": "web", "address": f"127.0.0.1:{port}"})


def handed(state: HandedState) -> HandedState:
    """The state as it arrives."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=HandedState)


Body = Callable[[World, World, Clock, NameServer], Awaitable[None]]


def run(body: Body, store: str = "") -> None:
    """An old control plane that runs, a new one that is not started yet."""

    async def main() -> None:
        clock, names = Clock(), NameServer(**{"name.test": ["10.0.0.1"]})
        old, new = World(clock, names, store), World(clock, names, store)
        await old.control.start()
        try:
            await body(old, new, clock, names)
        finally:
            await old.control.stop()
            await new.control.stop()

    asyncio.run(main())


def test_rows_mean_the_same() -> None:
    """Backends and limits have their rows again, those of backends that left are kept for them, generations go on."""

    async def body(old: World, new: World, clock: Clock, names: NameServer) -> None:
        old.register("gone", 7000)
        old.register("stays", 7001)
        await until(lambda: ("web", "127.0.0.1:7001") in old.link.backends)
        was = old.row("web", "127.0.0.1:7000")
        old.control.deregister("gone")
        await until(lambda: ("web", "127.0.0.1:7000") not in old.link.backends)
        new.control.take_over(handed(old.control.hand_over()), same_arena=True)
        await new.control.start()
        assert {key: one.row for key, one in new.link.backends.items()} == {
            key: one.row for key, one in old.link.backends.items()}
        assert new.control.generation == old.control.generation + 1
        limit = [route.rate_limits[0].row for route in (new.publisher.snapshot, old.publisher.snapshot) for route in
                 route.http_routes]  # type: ignore[union-attr]  # both have one
        assert limit[0] == limit[1]
        new.control.lead()
        new.register("back", 7000)
        await until(lambda: ("web", "127.0.0.1:7000") in new.link.backends)
        assert new.row("web", "127.0.0.1:7000") == was
        new.register("stranger", 7003)
        await until(lambda: ("web", "127.0.0.1:7003") in new.link.backends)
        assert new.reset == [new.row("web", "127.0.0.1:7003")]  # it may be dirty: the arena is an old one

    run(body)


def test_an_arena_of_its_own_has_rows_of_its_own() -> None:
    """Where the arena does not go over, rows begin anew, and nothing is reset."""

    async def body(old: World, new: World, clock: Clock, names: NameServer) -> None:
        old.register("gone", 7000)
        await until(lambda: ("web", "127.0.0.1:7000") in old.link.backends)
        old.control.deregister("gone")
        new.control.take_over(handed(old.control.hand_over()), same_arena=False)
        await new.control.start()
        assert sorted(one.row for one in new.link.backends.values()) == [0, 1, 2]
        assert new.reset == []

    run(body)


def test_names_go_on_when_no_name_server_answers() -> None:
    """The new one begins with the addresses that the old one had, though nobody answers just then."""

    async def body(old: World, new: World, clock: Clock, names: NameServer) -> None:
        names.silent.add("name.test")
        new.control.take_over(handed(old.control.hand_over()), same_arena=True)
        await new.control.start()
        assert new.link.backends["web", "name.test:80"].endpoints == (("10.0.0.1", 80),)
        assert new.link.backends["web", "name.test:80"].state.up
        names.silent.clear()

    run(body)


def test_leases_are_what_is_left_of_them() -> None:
    """Nobody could listen while the state went over: that time is added to every lease, no more and no less."""

    async def body(old: World, new: World, clock: Clock, names: NameServer) -> None:
        old.register("one")
        clock.now += 4.0  # 6 s are left
        state = handed(old.control.hand_over())
        clock.now += 3.0
        new.control.take_over(state, same_arena=True)
        await new.control.start()
        new.control.lead()
        one = new.control.registration("one")
        assert one is not None
        assert one.expires_in(clock.now) == pytest.approx(6.0)
        clock.now += 5.9
        new.control.expire()
        assert one.state == "passing"
        clock.now += 0.2
        new.control.expire()
        assert one.state == "critical"

    run(body)


def test_an_old_one_that_goes_on_has_lost_nothing() -> None:
    """The upgrade failed: leases are longer by the time in which nobody listened, watchers may wait again, rows that
    the new one may have used are reset."""

    async def body(old: World, new: World, clock: Clock, names: NameServer) -> None:
        old.register("one")
        await until(lambda: ("web", "127.0.0.1:7001") in old.link.backends)
        old.control.watch.close()
        old.control.hand_over()
        clock.now += 20.0
        old.control.lead()
        old.control.expire()
        one = old.control.registration("one")
        assert one is not None
        assert one.state == "passing"
        with old.control.watch.watching():
            pass
        old.register("two", 7002)
        await until(lambda: ("web", "127.0.0.1:7002") in old.link.backends)
        assert old.reset == [old.row("web", "127.0.0.1:7002")]

    run(body)


def test_drains_keep_their_end_and_overrides_their_beginning() -> None:
    """What operators set goes over as it is."""

    async def body(old: World, new: World, clock: Clock, names: NameServer) -> None:
        old.control.drain("127.0.0.1:9001", within=50.0)
        old.control.drain("127.0.0.1:9002")
        old.control.set_weight("127.0.0.1:9002", None, 7)
        clock.now += 10.0
        new.control.take_over(handed(old.control.hand_over()), same_arena=True)
        await new.control.start()
        assert new.link.backends["web", "127.0.0.1:9001"].state == old.link.states[old.row("web", "127.0.0.1:9001")]
        assert new.link.backends["web", "127.0.0.1:9001"].state.drain_by == 1050.0
        assert new.link.backends["more", "127.0.0.1:9002"].state.draining
        assert new.control.overrides() == old.control.overrides()

    run(body)


def test_the_store_is_written_by_one_at_a_time(tmp_path: Path) -> None:
    """The new one writes nothing until it leads; then everything, also what nobody changed since."""
    store = tmp_path / "registry.json"

    async def body(old: World, new: World, clock: Clock, names: NameServer) -> None:
        old.register("one")
        new.control.take_over(handed(old.control.hand_over()), same_arena=True)
        await new.control.start()
        await old.control.stop()
        store.unlink()
        new.control.lead()
        await until(store.exists)
        assert "one" in store.read_text()

    run(body, str(store))


def test_who_is_up_is_up() -> None:
    """A backend that probes found well is so from the start, where backends begin as down."""
    config = """
server: {httpListenAddr: ":8081", health: {interval: 60s, initialState: down, healthyThreshold: 1}}
pools: {web: {backends: ["127.0.0.1:%d"]}}
routes: [{name: web, pool: web}]
"""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as backend:
            text = config % backend.getsockname()[1]
            links = Link(), Link()
            controls = []
            for link in links:
                publisher = Publisher()
                publisher.join(link)
                controls.append(Control(load_text(text, "config.yaml", {}), publisher=publisher, workers=1))
            old, new = controls
            await old.start()
            await until(lambda: all(state.up for state in links[0].states.values()))
            backend.close()
            new.take_over(handed(old.hand_over()), same_arena=True)
            await new.start()
            assert [one.state.up for one in links[1].backends.values()] == [True]
            await old.stop()
            await new.stop()

    asyncio.run(main())
