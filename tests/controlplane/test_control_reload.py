"""Control.reload: another configuration in one snapshot; what is the same keeps its state, failure changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from control_world import Link, NameServer, backend, until

from gogate_py.addresses import Address
from gogate_py.config.loader import load_text
from gogate_py.controlplane import control as module
from gogate_py.controlplane.control import Control
from gogate_py.controlplane.publisher import Publisher
from gogate_py.controlplane.registry import RegistryFull
from gogate_py.controlplane.registry_rules import AddressForbidden
from gogate_py.controlplane.rows import LimitRows, Rows, RowsExhausted

OFF = "health: {enabled: false}"


def web(*backends: str, server: str = OFF, more: str = "", route: str = "", pool: str = "") -> str:
    """A pool named web with a route of the same name."""
    return f"""
server: {{httpListenAddr: ":8081", {server}}}
pools:
  web: {{backends: [{', '.join(backends)}]{pool}}}
routes:
  - {{name: web, pool: web{route}}}
{more}"""


class World:
    """A control plane with one worker that acknowledges at once."""

    def __init__(self, text: str, names: NameServer | None = None) -> None:
        self.link = Link()
        self.publisher = Publisher()
        self.publisher.join(self.link)
        self.resets: list[int] = []
        self.names = names or NameServer()
        self.control = Control(
            load_text(text, "config.yaml", {}),
            publisher=self.publisher,
            workers=2,
            own_addresses=[Address("127.0.0.1", 8081)],
            reset_limit=self.resets.append,
            lookup=self.names,
        )

    async def reload(self, text: str, on_certain: Callable[[], None] = lambda: None) -> int:
        """Serve this from now on; the worker acknowledges it."""
        config = load_text(text, "config.yaml", {})
        generation = await self.control.reload(
            config, [Address("127.0.0.1", 8082)], lambda name, address: name, on_certain
        )
        self.publisher.acknowledged_by(self.link, generation)
        self.control.reloaded()
        return generation

    def row(self, address: str, pool: str = "web") -> int:
        return self.link.backends[pool, address].row


def run(text: str, body: Callable[[World], Awaitable[None]], names: NameServer | None = None) -> None:
    """Run a test's body between start and stop."""

    async def main() -> None:
        world = World(text, names)
        await world.control.start()
        world.publisher.acknowledged_by(world.link, world.control.generation)
        world.control.starting = False
        try:
            await body(world)
        finally:
            await world.control.stop()

    asyncio.run(main())


def test_one_snapshot_with_everything_in_it() -> None:
    """A reload is one generation; backends that stay keep their row, new ones have one of their own."""

    async def body(world: World) -> None:
        rows = {address: world.row(address) for address in ("10.0.0.1:80", "10.0.0.2:80")}
        assert await world.reload(web("10.0.0.2:80", "10.0.0.3:80")) == 2
        assert [snapshot.generation for snapshot in world.link.snapshots] == [1, 2]
        assert world.row("10.0.0.2:80") == rows["10.0.0.2:80"]
        assert world.row("10.0.0.3:80") not in rows.values()
        assert await world.reload(web("10.0.0.1:80", "10.0.0.2:80")) == 3
        assert {address: world.row(address) for address in rows} == rows

    run(web("10.0.0.1:80", "10.0.0.2:80"), body)


def test_health_is_kept() -> None:
    """A backend that probes called down is down in the new configuration, too, also with another weight."""

    async def main() -> None:
        async with backend() as server:
            address = f"127.0.0.1:{server.port}"
            await server.close()
            probes = "health: {interval: 10ms, timeout: 10ms, unhealthyThreshold: 1}"

            async def body(world: World) -> None:
                await until(lambda: not world.link.state(address, "web").up)
                await world.reload(web(f"{{addr: '{address}', weight: 7}}", "10.0.0.9:80", server=probes))
                assert world.link.backends["web", address].weight == 7
                assert not world.link.backends["web", address].state.up
                assert "refused" in world.link.backends["web", address].state.reason

            world = World(web(address, server=probes))
            await world.control.start()
            try:
                await body(world)
            finally:
                await world.control.stop()

    asyncio.run(main())


def test_limits_go_on_with_what_they_counted() -> None:
    """A limit keeps its row by scope, name, algorithm and key, whatever its rate and place; another one has another."""

    def limits(*given: str) -> str:
        return ", rateLimit: [" + ", ".join(f"{{{one}}}" for one in given) + "]"

    async def body(world: World) -> None:
        def rows() -> dict[str, int]:
            (route,) = world.link.snapshots[-1].http_routes
            return {limit.name: limit.row for limit in route.rate_limits}

        before = rows()
        await world.reload(web("10.0.0.1:80", route=limits(
            "name: new, rate: 3, per: 1s, burst: 3", "name: all, rate: 9, per: 1s, burst: 99")))  # fmt: skip
        assert rows()["all"] == before["all"]
        assert rows()["new"] not in before.values()
        await world.reload(web("10.0.0.1:80", route=limits("name: each, rate: 5, per: 1s, burst: 5, keyBy: ip")))
        assert rows()["each"] == before["each"]
        assert world.resets == []

    run(web("10.0.0.1:80", route=limits(
        "name: all, rate: 5, per: 1s, burst: 5", "name: each, rate: 5, per: 1s, burst: 5, keyBy: ip",
    )), body)  # fmt: skip


def test_rows_of_limits_are_used_again() -> None:
    """Limits that come and go do not use up the arena: the one that was gone longest ago is forgotten, and reset."""
    resets: list[int] = []
    rows = LimitRows(resets.append, capacity=2)
    rows.assign(["a", "b"], 1, 0)
    kept = rows("b")
    with pytest.raises(RowsExhausted, match="more than 2 rate limits"):
        rows.check(["b", "c"], 1)  # a's row is not free yet: the worker has a snapshot with it
    rows.assign(["b"], 2, 1)
    rows.assign(["b", "c"], 3, 2)
    assert rows("b") == kept
    assert resets == [rows("c")]


def test_check_says_what_assign_would() -> None:
    """Checking rows changes nothing, and refuses exactly what assigning would refuse."""
    rows: Rows[str] = Rows(lambda row: None, capacity=2)
    rows.assign("ab", 1, 0)
    rows.check("ba", 1)
    with pytest.raises(RowsExhausted):
        rows.check("abc", 1)
    assert (rows.get("a"), rows.get("b"), rows.get("c")) == (0, 1, None)


def test_registrations_stay_and_join_by_the_new_rules() -> None:
    """Registered instances go on; the pools they are in follow the new configuration."""

    async def body(world: World) -> None:
        world.control.register({"id": "api-1", "name": "api", "address": "10.0.9.1:80"})
        await world.reload(web("10.0.0.1:80", pool=", service: api"))
        assert ("web", "10.0.9.1:80") in world.link.backends
        (one,) = world.control.registrations()
        assert world.control.heartbeat(one.id)
        assert world.control.pools_of(one) == ["web"]
        await world.reload(web("10.0.0.1:80"))
        assert ("web", "10.0.9.1:80") not in world.link.backends
        assert world.control.heartbeat(one.id)

    run(web("10.0.0.1:80"), body)


def test_drains_and_overrides_survive() -> None:
    """What operators said at run time beats the new file, too, as long as what it is about is there."""
    split = """
  - name: ab
    match: {pathPrefix: /ab}
    split: [{pool: web, weight: %d}, {pool: other, weight: 1}]
"""
    def text(weight: int, arm: int, *backends: str) -> str:
        pools = f"  other: {{backends: ['10.0.1.1:{weight}']}}\n"
        return web(f"{{addr: '10.0.0.1:80', weight: {weight}}}", *backends, more=split % arm).replace(
            "routes:", f"{pools}routes:"
        )

    async def body(world: World) -> None:
        world.control.drain("10.0.0.2:80", None, 3600.0)
        by = world.link.state("10.0.0.2:80", "web").drain_by
        assert by
        world.control.set_weight("10.0.0.1:80", None, 50)
        (route,) = [route for route in world.control.routes() if route.name == "ab"]
        world.control.set_split(route, {"web": 77})
        new = load_text(text(9, 9, "10.0.0.2:80", "10.0.0.3:80"), "config.yaml", {})
        assert world.control.in_force(new) == (
            "weight of 10.0.0.1:80 in pool web stays 50, not 9",
            "weight of web in route ab stays 77, not 9",
            "10.0.0.2:80 in pool web stays drained",
        )
        assert world.control.in_force(load_text(text(50, 77), "config.yaml", {})) == ()
        await world.reload(text(9, 9, "10.0.0.2:80", "10.0.0.3:80"))
        assert world.link.backends["web", "10.0.0.1:80"].weight == 50
        assert world.link.state("10.0.0.2:80", "web").draining
        assert world.link.state("10.0.0.2:80", "web").drain_by == by
        weights, splits = world.control.overrides()
        assert [(key, one.value) for key, one in weights] == [(("web", "10.0.0.1:80"), 50)]
        assert [(name, pool, one.value) for name, pool, one in splits] == [("ab", "web", 77)]
        assert [key for key, _, _ in world.control.drained()] == [("web", "10.0.0.2:80")]
        views = {view.addr: view for view in world.control.backends() if view.pool == "web"}
        assert views["10.0.0.1:80"].configured_weight == 9

    run(text(2, 2, "10.0.0.2:80"), body)


def test_new_names_are_looked_up_first() -> None:
    """The first request after a reload finds the names of new backends resolved, whatever else changes meanwhile."""
    names = NameServer(web=["10.0.0.7"], fresh=["10.0.0.8"])
    names.silent.add("fresh")

    async def body(world: World) -> None:
        reloading = asyncio.create_task(world.reload(web("'web:80'", "'fresh:80'", pool=", service: api")))
        await until(lambda: "fresh" in names.asked)
        world.control.register({"name": "none", "address": "10.0.9.1:80"})
        world.control.backends()  # a snapshot of the old configuration in between
        names.silent.clear()
        await reloading
        assert world.link.snapshots[-1].pools[0].backends[1].endpoints == (("10.0.0.8", 80),)
        assert names.asked.count("fresh") == 1

    run(web("'web:80'"), body, names)


def test_a_name_that_is_slow_or_wrong_does_not_hold_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a backend is down with that reason; the configuration is served all the same."""
    monkeypatch.setattr(module, "FIRST_LOOKUP", 0.01)
    names = NameServer(slow=["10.0.0.8"])
    names.silent.add("slow")

    async def body(world: World) -> None:
        await world.reload(web("'slow:80'", "'wrong:80'"))
        assert world.link.state("slow:80", "web").reason == "name is being looked up"
        assert "does not resolve" in world.link.state("wrong:80", "web").reason
        names.silent.clear()
        await until(lambda: world.link.state("slow:80", "web").up)

    run(web("10.0.0.1:80"), body, names)


@pytest.mark.parametrize("what", ["backends", "limits"])
def test_too_much_changes_nothing(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without rows for all of it: no snapshot, no socket is given to anybody, drains and health stay."""
    names = NameServer(web=["10.0.0.7"])

    async def body(world: World) -> None:
        if what == "backends":
            monkeypatch.setattr(world.control._membership._rows, "_capacity", 2)
        else:
            monkeypatch.setattr(world.control._membership._limit_rows._rows, "_capacity", 0)
        world.control.drain("10.0.0.1:80")
        before = (world.control.config, world.control.generation, world.control.backends())
        limit = ", rateLimit: {rate: 1, per: 1s, burst: 1}"
        certain: list[str] = []
        backends = ["'10.1.0.1:80'", "'10.1.0.2:80'", "'10.1.0.3:80'"] if what == "backends" else ["'10.1.0.1:80'"]
        with pytest.raises(RowsExhausted, match="more than"):
            await world.reload(web(*backends, route=limit), lambda: certain.append("yes"))
        assert certain == []
        assert (world.control.config, world.control.generation, world.control.backends()) == before
        assert world.link.state("10.0.0.1:80", "web").draining
        assert world.control.routes()[0].rate_limit == ()
        monkeypatch.undo()
        await world.reload(web(*backends, route=limit), lambda: certain.append("yes"))
        assert certain == ["yes"]

    run(web("10.0.0.1:80", "'web:80'"), body, names)


def test_the_registry_follows() -> None:
    """Which addresses may register, how many, and for how long, is what the new configuration says."""
    rules = "registry: {allowCIDRs: [10.0.0.0/8], maxServices: 1, defaultTTL: 7s}, health: {enabled: false}"

    async def body(world: World) -> None:
        world.control.register({"name": "api", "address": "192.0.2.1:80"})
        world.control.register({"name": "api", "address": "192.0.2.2:80"})
        await world.reload(web("10.0.0.1:80", server=rules))
        with pytest.raises(AddressForbidden):
            world.control.register({"name": "api", "address": "192.0.2.3:80"})
        with pytest.raises(RegistryFull):
            world.control.register({"name": "api", "address": "10.0.0.3:80"})
        assert len(world.control.registrations()) == 2
        assert world.control._registry.default_ttl == 7.0

    run(web("10.0.0.1:80", server=f"registry: {{allowCIDRs: [192.0.2.0/24]}}, {OFF}"), body)


def test_who_may_register_here_follows_the_listeners() -> None:
    """gogate's own addresses are never backends: those of the new listeners, not those of the old ones."""

    async def body(world: World) -> None:
        with pytest.raises(AddressForbidden):
            world.control.register({"name": "api", "address": "127.0.0.1:8081"})
        await world.reload(web("10.0.0.1:80", server=f"registry: {{allowCIDRs: [127.0.0.0/8]}}, {OFF}, listenAddr: ''"))
        with pytest.raises(AddressForbidden):
            world.control.register({"name": "api", "address": "127.0.0.1:8082"})
        world.control.register({"name": "api", "address": "127.0.0.1:8081"})

    run(web("10.0.0.1:80", server=f"registry: {{allowCIDRs: [127.0.0.0/8]}}, {OFF}"), body)


def test_a_cancelled_reload_changes_nothing() -> None:
    """gogate stops while names are being looked up: what is served stays as it is."""
    names = NameServer()
    names.silent.add("slow")

    async def body(world: World) -> None:
        reloading = asyncio.create_task(world.reload(web("'slow:80'")))
        await until(lambda: "slow" in names.asked)
        reloading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reloading
        assert world.control.generation == 1
        assert [view.addr for view in world.control.backends()] == ["10.0.0.1:80"]
        assert not world.control._states._ahead

    run(web("10.0.0.1:80"), body, names)
