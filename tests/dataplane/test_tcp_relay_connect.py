"""Getting a backend for an L4 client: retry on another one, and what happens when there is none."""

from __future__ import annotations

from typing import Any

import pytest
from doubles.http_plane import run, until
from doubles.raw_peer import Target
from doubles.tcp_plane import TcpPlane, both_loops

from gogate_py.dataplane import tcp_side
from gogate_py.dataplane.dial import DialError
from gogate_py.errors import Failure
from gogate_py.snapshot import Breaker, RateLimit, TcpPool

pytestmark = [both_loops, pytest.mark.usefixtures("way")]


def test_retry_on_another_backend(loop: str) -> None:
    """A backend that refuses is passed over for another one: the client notices nothing, even if it spoke first."""

    async def main() -> None:
        async with TcpPlane(Target(), Target()) as bed:
            bed.targets[0].refuse()
            for _ in range(4):  # of which at least two begin with the dead one
                client = await bed.client()
                await client.send(b"early")
                server = await bed.targets[1].accept()
                assert await server.exactly(5) == b"early"
                await server.send(b"hello")
                assert await client.exactly(5) == b"hello"
                client.close()
                server.close()
            await bed.quiet()
            dead, good = bed.live(0), bed.live(1)
            times = dead.connects["refused"]
            assert times >= 2
            assert (dead.connects, dead.retries, dead.tcp_results) == (
                {"refused": times},
                {"connect_failed": times},
                {},
            )
            assert (good.connects, good.retries) == ({"ok": 4}, {})
            assert len(bed.unreachable()) == times
            assert {line["backend"] for line in await bed.logged(4)} == {good.address}

    run(main(), loop)


@pytest.mark.parametrize(("backends", "attempts"), [(1, 1), (2, 2), (3, 3), (5, 3)])
def test_every_backend_refuses(loop: str, backends: int, attempts: int) -> None:
    """When every backend refuses, or three did, the client is closed, and log and counters say why."""

    async def main() -> None:
        async with TcpPlane(*[Target() for _ in range(backends)]) as bed:
            for target in bed.targets:
                target.refuse()
            client = await bed.client()
            assert await client.until_eof() == b""
            (line,) = await bed.logged()
            assert line["result"] == "connect_failed"
            assert line["reason"].startswith("connect to 127.0.0.1:")
            assert line["reason"].endswith(": ECONNREFUSED")
            assert line["backend"] in [target.address for target in bed.targets]
            assert len(bed.unreachable()) == attempts
            lives = [bed.live(row) for row in range(backends)]
            assert sum(live.connects.get("refused", 0) for live in lives) == attempts
            assert sum(sum(live.retries.values()) for live in lives) == attempts - 1
            assert [results for live in lives if (results := live.tcp_results)] == [{("echo", "connect_failed"): 1}]

    run(main(), loop)


def test_eof_before_every_backend_refuses(loop: str) -> None:
    """A client that already ended is closed when there is no backend."""

    async def main() -> None:
        async with TcpPlane(Target()) as bed:
            bed.targets[0].refuse()
            client = await bed.client()
            await client.send(b"question")
            client.eof()
            await client.ends()
            assert (await bed.logged())[0]["result"] == "connect_failed"

    run(main(), loop)


def test_every_address_of_a_name_is_tried(loop: str) -> None:
    """A backend's name with several addresses is given up only when all of them failed."""

    async def main() -> None:
        dead, good = Target(), Target()
        dead.refuse()
        async with TcpPlane(good) as bed:
            good.endpoints = (*dead.endpoints, *good.endpoints)
            await bed.apply()
            for _ in range(4):
                client, server = await bed.pair()
                client.close()
                server.close()
                await bed.quiet()
            assert bed.live().connects["ok"] == 4
            assert bed.live().connects["refused"] in (1, 2, 3)
            assert bed.live().retries == {}

    run(main(), loop)


def test_slow_backend_times_out(loop: str) -> None:
    """A backend that does not answer the connect is given up after the dial timeout, and another one serves."""

    async def main() -> None:
        full = Target(backlog=0)
        async with TcpPlane(full, Target(), dial_timeout=0.05) as bed:
            await bed.connect(full.port)
            for _ in range(2):  # the round robin begins with either
                client = await bed.client()
                server = await bed.targets[1].accept()
                await server.send(b"hello")
                assert await client.exactly(5) == b"hello"
                client.close()
            times = bed.live(0).connects["timeout"]
            assert times in (1, 2)
            assert bed.live(0).retries == {"connect_timeout": times}

    run(main(), loop)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"up": False, "reason": "probe: refused"}, "No backend of pool default is usable: probe: refused."),
        ({"up": False}, "No backend of pool default is usable: down."),
        ({"draining": True}, "No backend of pool default is usable: draining."),
    ],
)
def test_no_usable_backend(loop: str, state: dict[str, Any], reason: str) -> None:
    """Without a usable backend the client is closed at once, counted, and the log says why."""

    async def main() -> None:
        async with TcpPlane(Target()) as bed:
            bed.set_state(0, **state)
            client = await bed.client()
            assert await client.until_eof() == b""
            (line,) = await bed.logged()
            assert (line["result"], line["reason"], line["backend"]) == ("no_backend", reason, "")
            assert bed.listener.refused == {"no_backend": 1}
            assert not bed.targets[0].waiting()
            bed.set_state(0)
            client, _ = await bed.pair()
            client.close()

    run(main(), loop)


def test_an_empty_pool_and_a_pool_that_is_gone(loop: str) -> None:
    """An empty pool, and one that a new snapshot does not have, close the client with that reason."""

    async def main() -> None:
        async with TcpPlane() as bed:
            assert await (await bed.client()).until_eof() == b""
            bed.pool_names = ("other",)
            await bed.apply()
            assert await (await bed.client()).until_eof() == b""
            reasons = [line["reason"] for line in await bed.logged(2)]
            assert reasons == ["Pool default has no backends.", "Pool default is gone."]
            assert bed.listener.refused == {"no_backend": 2}

    run(main(), loop)


def test_a_backend_without_address(loop: str) -> None:
    """A backend whose name does not resolve gets no connection."""

    async def main() -> None:
        target = Target()
        target.endpoints = ()
        async with TcpPlane(target) as bed:
            assert await (await bed.client()).until_eof() == b""
            assert (await bed.logged())[0]["reason"] == "No backend of pool default is usable: no address."

    run(main(), loop)


def test_the_address_is_lost_while_connecting(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot that takes a backend's addresses away before the connect begins is a failed connect, not an error."""

    async def main() -> None:
        async with TcpPlane(Target()) as bed:
            target = bed.targets[0]
            real = bed.plane.spawn

            def spawn(coroutine: Any) -> Any:
                bed.live().endpoints = ()
                return real(coroutine)

            monkeypatch.setattr(bed.plane, "spawn", spawn)
            assert await (await bed.client()).until_eof() == b""
            (line,) = await bed.logged()
            assert (line["result"], line["reason"]) == ("connect_failed", "its name does not resolve")
            assert not target.waiting()

    run(main(), loop)


def test_open_breaker(loop: str) -> None:
    """After enough refused connects the breaker is open: clients are closed at once, without a connect."""

    async def main() -> None:
        async with TcpPlane(Target(), breaker=Breaker(2, 1, 1, 60.0)) as bed:
            bed.targets[0].refuse()
            for _ in range(4):
                await (await bed.client()).ends()
            assert bed.live().connects == {"refused": 2}
            assert bed.listener.refused == {"breaker_open": 2}
            assert [line["result"] for line in await bed.logged(4)] == ["connect_failed"] * 2 + ["no_backend"] * 2

    run(main(), loop)


def test_shortage_of_our_own_is_nobodys_fault(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without descriptors no other backend is tried, none is blamed, and the control plane need not look."""

    async def main() -> None:
        async def dial(*_: Any) -> Any:
            raise DialError(Failure.NO_DESCRIPTORS, "error", "short of resources here (EMFILE)")

        monkeypatch.setattr(tcp_side, "dial", dial)
        async with TcpPlane(Target(), Target(), breaker=Breaker(1, 1, 1, 60.0)) as bed:
            for target in bed.targets:
                target.endpoints *= 2  # another address would not do better either
            await bed.apply()
            assert await (await bed.client()).until_eof() == b""
            (line,) = await bed.logged()
            assert (line["result"], line["reason"]) == ("connect_failed", "short of resources here (EMFILE)")
            lives = [bed.live(0), bed.live(1)]
            assert sorted(live.connects.get("error", 0) for live in lives) == [0, 1]
            assert all(live.breaker is not None and live.breaker.closed() for live in lives)
            assert bed.unreachable() == []

    run(main(), loop)


@pytest.mark.parametrize("pool", [None, TcpPool(2, 30.0, 0.0)])
def test_a_bug_ends_the_connection(loop: str, pool: TcpPool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody expected is counted, and the client does not wait for ever."""

    async def main() -> None:
        async def dial(*_: Any) -> Any:
            raise RuntimeError("a bug")

        def pick(self: Any, tried: Any) -> Any:
            raise RuntimeError("another bug")

        monkeypatch.setattr(tcp_side, "dial", dial)
        async with TcpPlane(Target()) as bed:
            assert await (await bed.client()).ends() == "eof"
            monkeypatch.setattr("gogate_py.dataplane.backend_table.LivePool.pick", pick)
            assert await (await bed.client()).ends() == "eof"
            assert [line["result"] for line in await bed.logged(2)] == ["internal", "internal"]
            bed.expected_errors = 2

    run(main(), loop)


def test_rate_limit(loop: str) -> None:
    """A connection costs one token; without one the client is closed at once and counted, and no backend sees it."""

    async def main() -> None:
        async with TcpPlane(Target(), rate_limit=RateLimit(0, 1.0, 3600.0, 2)) as bed:
            pairs = [await bed.pair() for _ in range(2)]
            for _ in range(3):
                assert await (await bed.client()).ends() in ("eof", "reset")
            assert bed.listener.refused == {"rate_limited": 3}
            assert dict(bed.plane.services.limiters.take_rejected()) == {("", "token_bucket"): 3}
            assert not bed.targets[0].waiting()
            for client, server in pairs:
                await client.send(b"still")
                assert await server.exactly(5) == b"still"
                client.close()
                server.close()
            assert len(await bed.logged(2)) == 2

    run(main(), loop)


def test_cap_of_connections(loop: str) -> None:
    """Beyond the cap a client is closed at once and counted; a place that gets free is given again."""

    async def main() -> None:
        async with TcpPlane(Target(), connections=2) as bed:
            pairs = [await bed.pair() for _ in range(2)]
            assert await (await bed.client()).ends() in ("eof", "reset")
            assert bed.listener.refused == {"connections": 1}
            assert bed.listener.accepted == 3
            await until(lambda: bed.listener.active == 2, "the third one is gone")
            pairs[0][0].close()
            pairs[0][1].close()
            await until(lambda: len(bed.plane.relays) == 1, "one is over")
            client, server = await bed.pair()
            client.close()
            pairs[1][0].close()
            server.close()
            assert bed.listener.refused == {"connections": 1}

    run(main(), loop)


def test_a_retry_may_use_a_ready_connection(loop: str) -> None:
    """When one backend refuses, a ready connection of another one serves."""

    async def main() -> None:
        async with TcpPlane(Target(), Target(), tcp_pool=TcpPool(4, 30.0, 120.0)) as bed:
            clients = [await bed.client() for _ in range(2)]
            await bed.filled(1, 0)
            await bed.filled(1, 1)
            await until(lambda: not bed.plane._tasks, "no dial is left")
            for _ in range(2):  # else closing the listener would reset them
                await bed.targets[0].accept()
            bed.targets[0].refuse()
            bed.ready(0).close_idle()
            for _ in range(2):
                clients.append(await bed.client())
            await until(lambda: len(bed.plane.relays) == 4, "all are served")
            await until(lambda: all(r.view().state == "open" for r in bed.plane.relays.values()), "open")
            assert bed.live(1).pool_hits >= 1
            assert bed.live(0).retries.get("connect_failed", 0) >= 1
            for client in clients:
                client.reset()

    run(main(), loop)
