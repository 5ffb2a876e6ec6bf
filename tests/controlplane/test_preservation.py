"""Preservation: what the control plane does when much of a service falls silent, and how storms reach the workers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from admin_harness import TOKEN, admin_api
from control_world import backend, until
from test_registry_store import World

from gogate_py.arena import BACKEND_ROWS
from gogate_py.telemetry.metrics import CATALOGUE

TEXT = """
server: {listenAddr: ':8080', health: {enabled: false}, registry: {cleanupInterval: 50ms}}
"""


def run(body: Callable[[World], Awaitable[None]], text: str = TEXT) -> None:
    """One life of a control plane."""

    async def main() -> None:
        world = World(text)
        await world.control.start()
        world.control.starting = False
        try:
            await body(world)
        finally:
            await world.control.stop()

    asyncio.run(main())


def register(world: World, *numbers: int, name: str = "api", ttl: float = 30) -> None:
    """Register instances i1, i2 … of a service."""
    for number in numbers:
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:80"
        world.control.register({"id": f"i{number}", "name": name, "address": address, "ttl": ttl})


def found(world: World) -> dict[str, str]:
    """The state of every instance."""
    return {one.id: one.state for one in world.control.registrations()}


def test_a_silent_service_keeps_its_instances(caplog: pytest.LogCaptureFixture) -> None:
    """When most of a service misses its TTL, all of them stay in rotation, and log, readiness and metrics say so; who
    is heard of again is passing, and when all are, everything is as before."""
    caplog.set_level(logging.INFO)

    async def body(world: World) -> None:
        control = world.control
        register(world, 1, 2, 3, 4)
        register(world, 9, name="lone")
        await until(lambda: len(world.link.backends) == 5)
        world.now += 20
        assert control.heartbeat("i1")
        world.now += 11
        control.expire()
        assert found(world) == {"i1": "passing", **dict.fromkeys(("i2", "i3", "i4"), "suspect"), "i9": "critical"}
        await until(lambda: len(world.link.backends) == 4)
        assert control.preserved() == {"api": 3}
        assert control.warnings() == ["service api is preserved: 3 silent instances are kept"]
        assert control.readiness() == (True, [])
        assert "most of a service is silent; its instances are kept" in caplog.messages
        for number in (2, 3, 4):
            assert control.heartbeat(f"i{number}")
        assert control.preserved() == {}
        control.expire()
        assert "service is not preserved any more" in caplog.messages
        assert len(world.link.backends) == 4

    run(body)


def test_a_stalled_control_plane_suspects_itself() -> None:
    """After a pause of more than half a TTL nobody leaves for one TTL, however few are silent."""

    async def body(world: World) -> None:
        register(world, 1, 2)
        world.now += 31
        world.control._registry.stalled(20.0)
        world.control.expire()
        assert found(world) == {"i1": "passing", "i2": "passing"}
        world.now += 20
        world.control.expire()
        assert found(world) == {"i1": "suspect", "i2": "suspect"}
        world.now += 11
        world.control.expire()
        assert found(world) == {"i1": "critical", "i2": "critical"}

    run(body)


def test_probes_decide_about_suspects() -> None:
    """A suspect that its probes find down gets no work and is gone in the end; one that they find up stays."""
    text = TEXT.replace("{enabled: false}", "{interval: 20ms, unhealthyThreshold: 1, healthyThreshold: 1}")

    async def body(world: World) -> None:
        control = world.control
        async with backend() as server:
            up = f"127.0.0.1:{server.port}"
            control.register({"id": "up", "name": "api", "address": up})
            for number in (1, 2):
                control.register({"id": f"down{number}", "name": "api", "address": f"127.0.0.{number}:1"})
            await until(lambda: len(world.link.backends) == 3 and not world.link.state("127.0.0.2:1").up)
            await until(lambda: not world.link.state("127.0.0.1:1").up)
            world.now += 30
            control.expire()
            assert set(found(world).values()) == {"suspect"}
            world.now += 60
            control.expire()
            assert found(world) == {"up": "suspect"}
            assert world.link.state(up).up
            assert world.counts["gogate_registry_events_total", ("expired",)] == 2

    run(body, text)


def test_an_instance_that_registers_again_is_back() -> None:
    """A critical instance that registers anew instead of renewing its lease is in rotation again."""

    async def body(world: World) -> None:
        register(world, 1)
        world.now += 30
        world.control.expire()
        await until(lambda: not world.link.backends)
        register(world, 1)
        await until(lambda: world.link.backends)
        assert world.counts["gogate_registry_events_total", ("passing",)] == 1

    run(body)


def test_churn_of_a_thousand_is_one_snapshot() -> None:
    """1 000 instances that leave and 1 000 that come in a moment reach the workers as one snapshot (F16)."""

    async def body(world: World) -> None:
        old, new = range(1, 1001), range(1001, 2001)
        register(world, *old)
        await until(lambda: len(world.link.backends) == 1000)
        before = len(world.link.snapshots)
        for number in old:
            assert world.control.deregister(f"i{number}")
        register(world, *new)
        await until(lambda: ("default", "10.0.7.208:80") in world.link.backends)
        assert len(world.link.snapshots) == before + 1
        assert len(world.link.backends) == 1000
        world.now += 20
        for number in new[:500]:
            assert world.control.heartbeat(f"i{number}")
        world.now += 11
        world.control.expire()  # half of them leave: one snapshot more
        await until(lambda: len(world.link.backends) == 500)
        assert len(world.link.snapshots) == before + 2

    assert BACKEND_ROWS >= 2000
    run(body)


def test_a_full_registry_forgets_critical_instances_first() -> None:
    """maxServices is no wall of dead instances: the one that was silent longest makes room."""

    async def body(world: World) -> None:
        register(world, 1, ttl=10)
        register(world, 2)
        world.now += 10
        world.control.expire()
        register(world, 3)
        assert sorted(found(world)) == ["i2", "i3"]
        assert world.counts["gogate_registry_events_total", ("expired",)] == 1

    run(body, TEXT.replace("registry: {", "registry: {maxServices: 2, "))


def test_the_api_shows_states() -> None:
    """/v1/services has state and since, /ready its warnings, /metrics the gauges."""
    with admin_api(TEXT.replace("server: {", f'server: {{admin: {{listenAddr: ":0", token: "{TOKEN}"}}, ')) as api:
        for number in range(3):
            body = {"id": f"i{number}", "name": "api", "address": f"127.0.0.1:{9001 + number}", "ttl": 1}
            assert api.ask("POST", "/v1/services", body).status == 201
        assert api.ask("GET", "/ready").json == {"status": "ready"}
        answer = api.ask("GET", "/v1/services?wait=10s&name=api")
        while [one["state"] for one in answer.json["services"]] != ["suspect"] * 3:
            index = answer.headers["x-gogate-index"]
            answer = api.ask("GET", f"/v1/services?wait=10s&name=api&index={index}")
        assert all(one["since"] >= one["registered_at"] for one in answer.json["services"])
        ready = api.ask("GET", "/ready")
        assert ready.status == 200
        assert ready.json["warnings"] == ["service api is preserved: 3 silent instances are kept"]
        metrics = api.ask("GET", "/metrics").body.decode()
        assert 'gogate_registry_preserving{service="api"} 3.0' in metrics
        assert "gogate_dns_stale" in metrics
    assert CATALOGUE["gogate_dns_stale"].labels == ("name",)
