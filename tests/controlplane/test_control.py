"""Control: every change of intent reaches the workers, as one snapshot or one state change."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from control_world import Link, NameServer, backend, turns, until

from gogate_py.addresses import Address
from gogate_py.config.loader import load_text
from gogate_py.controlplane import control as control_module
from gogate_py.controlplane import leases, membership
from gogate_py.controlplane.control import Control
from gogate_py.controlplane.operations import BackendView
from gogate_py.controlplane.publisher import Publisher
from gogate_py.controlplane.registry import AddressForbidden, RegistrationError, RegistryFull
from gogate_py.errors import StartError
from gogate_py.messages import States

SHORT = """
server:
  listenAddr: ":8080"
  backends: ["10.0.0.1:80", "10.0.0.2:80"]
  health: {enabled: false}
"""
POOLS = """
server: {httpListenAddr: ":8081", health: {enabled: false}}
pools:
  v1: {backends: ["10.0.0.1:80"], service: api}
  v2: {backends: ["10.0.0.1:80"], service: api, tags: [v2]}
routes: [{pool: v1}]
"""
EMPTY = "server: {listenAddr: ':8080', health: {enabled: false}}\n"


class World:
    """A control plane with one worker that records, a clock that is moved by hand, and its own name server."""

    def __init__(self, text: str, names: NameServer | None = None) -> None:
        self.now = 1000.0
        self.counts: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.link = Link()
        self.publisher = Publisher()
        self.publisher.join(self.link)
        self.names = names or NameServer()
        self.control = Control(
            load_text(text, "config.yaml", {}),
            publisher=self.publisher,
            workers=2,
            own_addresses=[Address("", 8080)],
            count=lambda name, labels: self.counts.update([(name, labels)]),
            lookup=self.names,
            now=lambda: self.now,
        )

    def counted(self, name: str, *labels: str) -> int:
        return self.counts[name, labels]

    def register(self, identity: str, address: str, name: str = "api", **fields: object) -> bool:
        return self.control.register({"id": identity, "name": name, "address": address, **fields})[1]

    def views(self) -> dict[tuple[str, str], BackendView]:
        return {(view.pool, view.addr): view for view in self.control.backends()}


def run(
    text: str, body: Callable[[World], Awaitable[None]], names: NameServer | None = None, *, ready: bool = True
) -> None:
    """Run a test's body between start and stop."""

    async def main() -> None:
        world = World(text, names)
        await world.control.start()
        world.control.starting = not ready
        try:
            await body(world)
        finally:
            await world.control.stop()

    asyncio.run(main())


def test_the_first_snapshot_is_there_when_start_returns() -> None:
    """After start() the workers have a snapshot with every backend, resolved where that was possible at once."""

    async def body(world: World) -> None:
        assert world.link.generation == world.control.generation == 1
        assert world.link.backends["default", "web:80"].endpoints == (("10.0.0.7", 80),)
        assert world.link.state("web:80").up
        db = world.link.state("db:80")
        assert (db.up, db.reason) == (False, "name does not resolve: Name or service not known")
        assert world.views()["default", "db:80"].last_error == db.reason

    text = "server: {listenAddr: ':8080', backends: ['web:80', 'db:80'], health: {enabled: false}}\n"
    run(text, body, NameServer(web=["10.0.0.7"]))


def test_what_numbers_are_kept_of() -> None:
    """Backends, pools, routes and listeners, by the names that the metrics have for them."""

    async def body(world: World) -> None:
        assert world.control.served() == {
            ("pool", "backend"): {("v1", "10.0.0.1:80"), ("v2", "10.0.0.1:80"), ("v2", "10.0.0.9:80")},
            ("pool",): {("v1",), ("v2",)},
            ("route",): {("web",), ("echo",), ("tls-a",)},
            ("listener",): {("http:default",), ("echo",), ("sni::7443",)},
        }
        world.register("one", "10.0.0.5:80")
        await until(lambda: ("v1", "10.0.0.5:80") in world.control.served()["pool", "backend"])

    text = """
server: {httpListenAddr: ":8081", health: {enabled: false}}
pools:
  v1: {backends: ["10.0.0.1:80"], service: api}
  v2: {backends: ["10.0.0.1:80", "10.0.0.9:80"]}
routes:
  - {name: web, pool: v1}
  - {name: echo, type: tcp, listenAddr: ":7000", pool: v2}
  - {name: tls-a, type: tcp, listenAddr: ":7443", sni: [a.test], pool: v2}
"""
    run(text, body)


def test_a_slow_name_does_not_hold_up_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """start() waits a moment for names, not longer; an answer that comes while gogate is still starting is not lost."""
    monkeypatch.setattr(control_module, "FIRST_LOOKUP", 0.01)

    async def body(world: World) -> None:
        assert world.link.state("web:80").reason == "name is being looked up"
        world.names.silent.clear()
        await until(lambda: world.link.state("web:80").up)
        assert world.control.starting

    names = NameServer(web=["10.0.0.7"])
    names.silent.add("web")
    run("server: {listenAddr: ':8080', backends: ['web:80'], health: {enabled: false}}\n", body, names, ready=False)


def test_registrations_of_a_moment_make_one_snapshot() -> None:
    """1 000 instances that register together reach the workers as one snapshot (SECURITY.md F16)."""

    async def body(world: World) -> None:
        for number in range(1000):
            assert world.register(f"i{number}", f"10.1.{number >> 8}.{number & 255}:80")
        await until(lambda: len(world.link.backends) == 1000)
        assert world.link.generation == 2
        assert len({one.row for one in world.link.backends.values()}) == 1000

    run(EMPTY, body)


def test_whoever_asks_sees_what_was_registered_just_now() -> None:
    """A registration can be listed and drained before its snapshot is on the way."""

    async def body(world: World) -> None:
        world.register("a", "10.0.0.5:80")
        view = world.views()["default", "10.0.0.5:80"]
        assert (view.id, view.origin, view.registration_ids) == ("a", "registry", ("a",))
        world.register("b", "10.0.0.6:80")
        assert [one.addr for one in world.control.drain("b")] == ["10.0.0.6:80"]

    run(EMPTY, body)


def test_an_instance_comes_changes_and_goes() -> None:
    """Register, update and deregister each reach the workers and are counted; the row stays the same."""

    async def body(world: World) -> None:
        assert world.register("a", "10.0.0.5:80", weight=2) is True
        await until(lambda: ("default", "10.0.0.5:80") in world.link.backends)
        row = world.link.backends["default", "10.0.0.5:80"].row
        assert world.register("a", "10.0.0.5:80", weight=7) is False
        await until(lambda: world.link.backends["default", "10.0.0.5:80"].weight == 7)
        assert world.link.backends["default", "10.0.0.5:80"].row == row
        assert world.control.deregister("a")
        assert not world.control.deregister("a")
        await until(lambda: ("default", "10.0.0.5:80") not in world.link.backends)
        events = {event: world.counted("gogate_registry_events_total", event) for event in ("registered", "updated")}
        assert events == {"registered": 1, "updated": 1}
        assert world.counted("gogate_registry_events_total", "deregistered") == 1

    run(SHORT, body)


def test_registering_the_same_again_changes_nothing() -> None:
    """An instance that registers again and again (F16: idempotent) makes no snapshots and keeps its lease."""

    async def body(world: World) -> None:
        world.register("a", "10.0.0.5:80")
        world.control.backends()
        generation = world.control.generation
        world.now += 20
        assert world.register("a", "10.0.0.5:80", metadata={"build": "7"}) is False
        world.control.backends()
        assert world.control.generation == generation
        found = world.control.registration("a")
        assert found is not None
        assert (found.metadata, found.expires_in(world.now)) == ({"build": "7"}, 30.0)

    run(SHORT, body)


def test_refusals_pass_through() -> None:
    """What the registry refuses is refused here, with nothing changed."""

    async def body(world: World) -> None:
        for error, fields in (
            (RegistrationError, {"address": "x"}),
            (AddressForbidden, {"address": "169.254.169.254:80"}),
            (AddressForbidden, {"address": "127.0.0.1:8080"}),
        ):
            with pytest.raises(error):
                world.control.register({"name": "api", **fields})
        world.register("a", "10.0.0.5:80")
        with pytest.raises(RegistryFull):
            world.register("b", "10.0.0.6:80")
        assert [one.id for one in world.control.registrations()] == ["a"]

    run("server: {listenAddr: ':8080', registry: {maxServices: 1}}\n", body)


def test_no_more_backends_than_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registration that would need more arena rows than there are is refused, and an update leaves what was there."""
    monkeypatch.setattr(control_module, "BACKEND_ROWS", 4)

    async def body(world: World) -> None:
        world.register("a", "10.0.0.5:80", tags=["v2"])  # with the two of the file: 4
        with pytest.raises(RegistryFull):
            world.register("b", "10.0.0.6:80")
        assert world.control.registration("b") is None
        with pytest.raises(RegistryFull):
            world.register("a", "10.0.0.9:80")
        found = world.control.registration("a")
        assert found is not None
        assert found.address == "10.0.0.5:80"

    run(POOLS, body)


def test_a_missed_lease_leaves_rotation() -> None:
    """Without heartbeats an instance is gone one cleanup interval after its TTL at the latest; heartbeats keep it."""

    async def body(world: World) -> None:
        world.register("a", "10.0.0.5:80", ttl=10)
        world.register("b", "10.0.0.6:80", ttl=10)
        await until(lambda: len(world.link.backends) == 2)
        world.now += 9
        assert world.control.heartbeat("a")
        world.now += 2
        await until(lambda: len(world.link.backends) == 1)
        assert ("default", "10.0.0.5:80") in world.link.backends
        assert world.counted("gogate_registry_events_total", "critical") == 1
        assert world.control.heartbeat("b")  # late, but still known: it is back
        await until(lambda: len(world.link.backends) == 2)
        assert world.counted("gogate_registry_events_total", "passing") == 1

    run(
        "server: {listenAddr: ':8080', health: {enabled: false}, registry: {cleanupInterval: 50ms}}\n",
        body,
    )


def test_a_stall_does_not_expire_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the process did not run, heartbeats could not be heard: leases are extended by that time (F16)."""
    monkeypatch.setattr(leases, "STALL", -1.0)  # every cleanup counts as late
    extended: list[float] = []

    async def body(world: World) -> None:
        monkeypatch.setattr(world.control._registry, "stalled", extended.append)
        await until(lambda: extended)

    run("server: {listenAddr: ':8080', registry: {cleanupInterval: 50ms}}\n", body)


def test_where_an_instance_goes() -> None:
    """pools_of names the pools that an instance joins; an instance that matches none is unrouted."""

    async def body(world: World) -> None:
        world.register("a", "10.0.0.5:80")
        world.register("b", "10.0.0.6:80", tags=["v2", "eu"])
        world.register("c", "10.0.0.7:80", name="other")
        joined = {one.id: world.control.pools_of(one) for one in world.control.registrations()}
        assert joined == {"a": ["v1"], "b": ["v1", "v2"], "c": []}
        assert [one.id for one in world.control.registrations(tag="v2")] == ["b"]
        assert [one.id for one in world.control.registrations(name="other")] == ["c"]

    run(POOLS, body)


# --- drain


def test_drain_by_address_and_pool() -> None:
    """A drain reaches every pool that has the address, or the named one, as a state change at once."""

    async def body(world: World) -> None:
        assert world.control.drain("10.9.9.9:80") == []
        assert world.control.drain("10.0.0.1:80", "v3") == []
        touched = world.control.drain("10.0.0.1:80")
        assert [(view.pool, view.draining) for view in touched] == [("v1", True), ("v2", True)]
        assert isinstance(world.link.sent[-1], States)
        assert world.link.state("10.0.0.1:80", "v1").draining
        assert world.link.state("10.0.0.1:80", "v2").draining
        assert [view.pool for view in world.control.undrain("10.0.0.1:80", "v1")] == ["v1"]
        assert not world.link.state("10.0.0.1:80", "v1").draining
        assert world.link.state("10.0.0.1:80", "v2").draining
        assert world.link.state("10.0.0.1:80", "v2").up

    run(POOLS, body)


def test_a_drain_with_a_deadline() -> None:
    """The moment goes to the workers with the drain, stays in snapshots, and is off with another drain or undrain."""

    async def body(world: World) -> None:
        def by(pool: str) -> float:
            return world.link.state("10.0.0.1:80", pool).drain_by

        (view,) = world.control.drain("10.0.0.1:80", "v1", 30.0)
        assert (view.drain_left, by("v1"), by("v2")) == (30.0, 1030.0, 0.0)
        world.now += 20
        world.register("a", "10.0.0.5:80")
        await until(lambda: ("v1", "10.0.0.5:80") in world.link.backends)
        assert by("v1") == 1030.0
        assert world.views()["v1", "10.0.0.1:80"].drain_left == 10.0
        world.control.drain("10.0.0.1:80", None, 0.0)
        assert (by("v1"), by("v2")) == (1020.0, 1020.0)
        world.now += 1
        assert world.views()["v2", "10.0.0.1:80"].drain_left == 0.0
        (view,) = world.control.drain("10.0.0.1:80", "v1")
        assert (view.draining, view.drain_left, by("v1")) == (True, None, 0.0)
        world.control.undrain("10.0.0.1:80")
        assert (by("v2"), world.link.state("10.0.0.1:80", "v2").draining) == (0.0, False)

    run(POOLS, body)


def test_a_churn_of_1000_instances_makes_one_snapshot() -> None:
    """1 000 leases that end together; 500 that leave while 500 others come: one snapshot each (SECURITY.md F16)."""

    async def body(world: World) -> None:
        def register(first: int, count: int) -> None:
            for number in range(first, first + count):  # two a service: nothing is preserved
                address = f"10.1.{number // 250}.{1 + number % 250}:80"
                world.register(f"i{number}", address, f"s{number // 2}", ttl=10)

        register(0, 1000)
        await until(lambda: len(world.link.backends) == 1000)
        begun = len(world.link.snapshots)
        world.now += 10.0
        world.control.expire()
        await until(lambda: not world.link.backends)
        assert len(world.link.snapshots) == begun + 1
        register(1000, 500)
        await until(lambda: len(world.link.backends) == 500)
        begun = len(world.link.snapshots)
        for number in range(1000, 1500):
            world.control.deregister(f"i{number}")
        register(1500, 500)
        await until(lambda: ("default", "10.1.6.1:80") in world.link.backends)
        assert len(world.link.backends) == 500
        assert len(world.link.snapshots) == begun + 1

    run(EMPTY, body)


def test_drain_by_registration_id_outlives_snapshots() -> None:
    """Any id of a backend drains it; a new snapshot keeps the drain."""

    async def body(world: World) -> None:
        world.register("a", "10.0.0.5:80")
        world.register("b", "10.0.0.5:80")
        assert [view.addr for view in world.control.drain("b")] == ["10.0.0.5:80"]
        world.register("c", "10.0.0.6:80")
        await until(lambda: ("default", "10.0.0.6:80") in world.link.backends)
        assert world.link.state("10.0.0.5:80").draining
        assert not world.link.state("10.0.0.6:80").draining

    run(EMPTY, body)


# --- health


def test_a_dying_backend_is_told_within_100_ms() -> None:
    """Health flips go out as state changes, with the reason, and are counted once each; they wait for STATE_DELAY."""
    assert membership.STATE_DELAY < 0.05

    async def main() -> None:
        async with backend() as server:
            address = f"127.0.0.1:{server.port}"
            world = World(
                f"server: {{listenAddr: ':8080', backends: ['{address}'], "
                "health: {interval: 10ms, unhealthyThreshold: 2, healthyThreshold: 2}}\n"
            )
            await world.control.start()
            probes = ("gogate_health_probes_total", "default", address)
            await until(lambda: world.counted(*probes, "success") > 1)
            await server.close()
            await until(lambda: not world.views()["default", address].healthy)
            await until(lambda: not world.link.state(address).up)
            assert world.link.state(address).reason == "connection refused"
            assert isinstance(world.link.sent[-1], States)
            assert world.counted(*probes, "failure") >= 2
            await server.open()
            await until(lambda: world.link.state(address).up)
            flips = ("gogate_health_transitions_total", "default", address)
            assert [world.counted(*flips, to) for to in ("up", "down")] == [1, 1]
            assert len(world.link.snapshots) == 1
            await world.control.stop()

    asyncio.run(main())


def test_a_shared_backend_is_probed_once_for_all_pools() -> None:
    """Pools with the same health settings share a backend's probes; another setting has its own."""

    async def main() -> None:
        async with backend() as server:
            one = f"backends: ['127.0.0.1:{server.port}']"
            world = World(
                "server: {health: {interval: 1h}}\n"
                f"pools: {{a: {{{one}}}, b: {{{one}}}, c: {{{one}, health: {{timeout: 1s}}}}}}\n"
                "routes: [{type: tcp, name: t, listenAddr: ':8082', pool: a}]\n"
            )
            await world.control.start()
            for pool in "abc":
                address = f"127.0.0.1:{server.port}"
                probed = partial(world.counted, "gogate_health_probes_total", pool, address, "success")
                await until(probed)
                assert probed() == 1
            assert server.accepted == 2
            await world.control.stop()

    asyncio.run(main())


def test_an_initially_down_backend_comes_up() -> None:
    """With initialState down nothing goes to a backend before it passed healthyThreshold probes."""

    async def main() -> None:
        async with backend() as server:
            address = f"127.0.0.1:{server.port}"
            world = World(
                f"server: {{listenAddr: ':8080', backends: ['{address}'], "
                "health: {interval: 10ms, initialState: down}}\n"
            )
            await world.control.start()
            assert world.link.snapshots[0].pools[0].backends[0].state.reason == "not probed yet"
            await until(lambda: world.link.state(address).up)
            assert world.counted("gogate_health_probes_total", "default", address, "success") >= 2
            await world.control.stop()

    asyncio.run(main())


def test_health_survives_changes_of_others() -> None:
    """A backend that is down stays down when others register: its state is not presumed anew."""

    async def main() -> None:
        async with backend() as server:
            pass
        address = f"127.0.0.1:{server.port}"
        world = World(
            f"server: {{listenAddr: ':8080', backends: ['{address}'], "
            "health: {interval: 10ms, unhealthyThreshold: 1}}\n"
        )
        await world.control.start()
        await until(lambda: not world.link.state(address).up)
        world.register("a", "127.0.0.1:1")
        await until(lambda: ("default", "127.0.0.1:1") in world.link.backends)
        assert all(not snapshot.pools[0].backends[0].state.up for snapshot in world.link.snapshots[1:])
        await world.control.stop()

    asyncio.run(main())


def test_a_name_that_resolves_late_is_probed_at_once() -> None:
    """A backend whose name had no address yet does not wait for the next interval when it has one."""

    async def main() -> None:
        async with backend() as server:
            names = NameServer(web=["127.0.0.1"])
            names.silent.add("web")
            text = f"server: {{listenAddr: ':8080', backends: ['web:{server.port}'], health: {{interval: 1h}}}}\n"
            world = World(text, names)
            starting = asyncio.create_task(world.control.start())
            await turns(100)
            assert server.accepted == 0
            names.silent.clear()
            await starting
            await until(lambda: server.accepted == 1)
            await world.control.stop()

    asyncio.run(main())


def test_a_failed_connect_brings_the_probe_forward() -> None:
    """unreachable() of a row leads to a look at once; an unknown row is ignored."""

    async def main() -> None:
        async with backend() as server:
            address = f"127.0.0.1:{server.port}"
            world = World(f"server: {{listenAddr: ':8080', backends: ['{address}'], health: {{interval: 1h}}}}\n")
            await world.control.start()
            await until(lambda: server.accepted == 1)
            prober = world.control._states._prober
            await until(lambda: next(iter(prober._watches.values())).state.successes)
            next(iter(prober._watches.values())).probed_at -= 2
            world.control.unreachable(99, "refused")
            world.control.unreachable(world.link.backends["default", address].row, "refused")
            await until(lambda: server.accepted == 2)
            await world.control.stop()

    asyncio.run(main())


def test_a_registered_name_is_judged_when_it_turns() -> None:
    """A registered name that turns to the metadata address is out of rotation with the next answer (T23)."""
    async def body(world: World) -> None:
        world.register("a", "app.internal:80")
        await until(lambda: ("default", "app.internal:80") in world.link.backends)
        await until(lambda: world.link.state("app.internal:80").up)
        world.names.names["app.internal"] = ["169.254.169.254"]
        await until(lambda: not world.link.state("app.internal:80").up)
        assert world.link.backends["default", "app.internal:80"].endpoints == ()
        assert "metadata" in world.link.state("app.internal:80").reason
        assert world.counted("gogate_health_transitions_total", "default", "app.internal:80", "down") == 1

    names = NameServer()
    names.names["app.internal"] = ["10.0.0.7"]
    run(EMPTY.replace("health", "dns: {refresh: 100ms, floor: 100ms}, health"), body, names)


# --- readiness and the limits


def test_readiness() -> None:
    """Not ready while starting or draining, nor when there are backends and none is usable; empty is ready."""

    async def body(world: World) -> None:
        control = world.control
        assert control.readiness() == (True, [])
        control.starting = True
        assert control.readiness() == (False, ["starting"])
        control.starting = False
        control.draining = True
        assert control.readiness() == (False, ["draining"])
        control.draining = False
        world.register("a", "10.0.0.5:80", weight=0)
        assert control.readiness() == (False, ["pool default has no usable backend"])
        world.register("b", "10.0.0.6:80")
        assert control.readiness() == (True, [])
        control.drain("b")
        assert control.readiness() == (False, ["pool default has no usable backend"])
        control.undrain("b")
        assert control.readiness()[0]

    run(EMPTY, body)


def test_one_pool_of_two_is_enough_to_be_ready() -> None:
    """Readiness is lost when no pool has a usable backend, not when one has none."""

    async def body(world: World) -> None:
        world.control.drain("10.0.0.1:80", "v1")
        assert world.control.readiness() == (True, [])
        world.control.drain("10.0.0.1:80", "v2")
        assert world.control.readiness() == (
            False, ["pool v1 has no usable backend", "pool v2 has no usable backend"])  # fmt: skip

    run(POOLS, body)


def test_too_many_backends_in_the_file() -> None:
    """More backends than arena rows end the start with one line."""

    async def main() -> None:
        world = World(SHORT)
        world.control._membership._rows._capacity = 1
        with pytest.raises(StartError, match="more than 1 backends"):
            await world.control.start()

    asyncio.run(main())


def test_rows_that_are_not_free_yet_only_delay_the_new(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a free row those who left go at once, and the new ones come when every worker knows it."""
    monkeypatch.setattr(membership, "_ROWS_RETRY", 0.005)

    async def body(world: World) -> None:
        world.control._membership._rows._capacity = 2
        world.register("stays", "10.0.0.4:80")
        world.register("a", "10.0.0.5:80")
        await until(lambda: len(world.link.backends) == 2)
        begun = len(world.link.snapshots)
        world.control.deregister("a")
        world.register("b", "10.0.0.6:80")
        await until(lambda: len(world.link.backends) == 1)
        await turns()
        assert len(world.link.backends) == 1
        world.publisher.acknowledged_by(world.link, world.link.generation)
        await until(lambda: ("default", "10.0.0.6:80") in world.link.backends)
        for snapshot in world.link.snapshots[begun:]:
            assert snapshot.pools[0].backends[0].address == "10.0.0.4:80"

    with caplog.at_level(logging.ERROR):
        run(EMPTY, body)
    assert "not all backends can be served yet" in caplog.text


def test_a_storm_slows_snapshots_down_instead_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause between snapshots grows with what one costs, up to half a second."""
    moments = iter([0.0, 0.05, 1.0, 2.0, 3.0, 3.0])
    monkeypatch.setattr(membership, "monotonic", lambda: next(moments))

    async def body(world: World) -> None:
        for number, pause in enumerate((0.2, membership.MAX_DEBOUNCE, membership.DEBOUNCE)):
            world.register(f"i{number}", f"10.0.0.{number + 1}:80")
            world.control.backends()
            assert world.control._membership._debounce == pytest.approx(pause)

    run(EMPTY, body)
