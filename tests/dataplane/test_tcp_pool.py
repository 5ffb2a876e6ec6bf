"""tcpPool: fresh connections kept ready, never one that was used, never one that the backend has left."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from doubles.http_plane import run, until
from doubles.raw_peer import Peer, Target
from doubles.tcp_plane import TcpPlane, both_loops, flooded

from gogate_py.dataplane import tcp_pool
from gogate_py.dataplane.dial import DialError
from gogate_py.dataplane.tcp_side import EARLY_LIMIT
from gogate_py.errors import Failure
from gogate_py.snapshot import Breaker, TcpPool

pytestmark = [both_loops, pytest.mark.usefixtures("way")]
SETTINGS = TcpPool(4, 30.0, 120.0)


async def _use(bed: TcpPlane) -> None:
    """A client that says something, is answered, and goes; whatever backend connections there are are echoed."""
    client = await bed.client()
    await client.send(b"ping")
    served: list[Peer] = []
    while not served:
        for peer in bed.targets[0].peers:
            if peer.sock.fileno() >= 0 and peer.hears(1):
                served.append(peer)
        if not served and bed.targets[0].waiting():
            await bed.targets[0].accept()
        await asyncio.sleep(0)
    assert await served[0].exactly(4) == b"ping"
    await served[0].send(b"pong")
    assert await client.exactly(4) == b"pong"
    client.close()
    served[0].close()
    await until(lambda: not bed.plane.relays, "the relay ends")


async def _demand(bed: TcpPlane) -> list[Peer]:
    """A client, and more demand than there are connections ready: four are kept then."""
    client = await bed.client()
    await until(lambda: bed.plane.relays, "accepted")
    for _ in range(3):  # before a dial has had its turn
        side = bed.ready().take()
        if side is not None:
            side.abandon()
    await bed.filled(4)
    return [client]


def test_hits_and_misses(loop: str) -> None:
    """The first client finds nothing and connects itself; the next ones find a connection that was made meanwhile."""

    async def main() -> None:
        async with TcpPlane(Target(), tcp_pool=SETTINGS) as bed:
            await _use(bed)
            assert (bed.live().pool_hits, bed.live().pool_misses) == (0, 1)
            for hits in range(1, 6):
                await until(lambda: len(bed.ready()) >= 1, "one is ready")
                await _use(bed)
                assert (bed.live().pool_hits, bed.live().pool_misses) == (hits, 1)
            assert {line["result"] for line in await bed.logged(6)} == {"ok"}

    run(main(), loop)


def test_demand_decides_how_many(loop: str) -> None:
    """Each client that finds none doubles the number kept, up to maxIdle; one that expires unused lowers it."""

    async def main() -> None:
        async with TcpPlane(Target(), tcp_pool=SETTINGS) as bed:
            clients = await _demand(bed)
            assert repr(bed.ready()) == f"<4 ready connections to {bed.targets[0].address}, 4 wanted>"
            bed.pass_time(33)
            await until(lambda: not bed.plane._tasks, "no dial is left")
            assert len(bed.ready()) == 1
            bed.tcp_pool = TcpPool(1, 30.0, 0.0)
            await bed.apply()
            assert bed.ready().settings.max_idle == 1
            for client in clients:
                client.reset()

    run(main(), loop)


def test_settings_that_shrink(loop: str) -> None:
    """After a reload with a smaller maxIdle no more than that are made."""

    async def main() -> None:
        async with TcpPlane(Target(), tcp_pool=SETTINGS) as bed:
            clients = await _demand(bed)
            bed.tcp_pool = TcpPool(2, 30.0, 0.0)
            await bed.apply()
            for _ in range(4):
                clients.append(await bed.client())
                await until(lambda: len(bed.plane.relays) == len(clients), "accepted")
                await until(lambda: not bed.plane._tasks, "no dial is left")
            assert len(bed.ready()) == 2
            for client in clients:
                client.reset()

    run(main(), loop)


@pytest.mark.parametrize("size", [9, EARLY_LIMIT - 1, 1 << 20])
def test_greeting(loop: str, size: int) -> None:
    """What a backend says first is kept with its ready connection, up to a limit, and delivered to the client."""

    async def main() -> None:
        async with TcpPlane(Target(), tcp_pool=SETTINGS, small=True) as bed:
            first = await bed.client()
            servers = [await bed.targets[0].accept() for _ in range(2)]
            sending = [asyncio.create_task(server.send(flooded(size))) for server in servers]
            assert await first.exactly(size) == flooded(size)
            await bed.filled(1)
            ((_, side),) = bed.ready()._ready
            await until(lambda: side.received >= min(size, EARLY_LIMIT), "the greeting")
            assert side.received <= EARLY_LIMIT + 256 * 1024
            client = await bed.client()
            assert await client.exactly(size) == flooded(size)
            assert bed.live().pool_hits == 1
            await asyncio.gather(*sending)
            first.reset()
            client.reset()

    run(main(), loop)


@pytest.mark.parametrize("how", ["eof", "reset", "reset while paused"])
def test_a_ready_connection_that_the_backend_closes(loop: str, how: str) -> None:
    """A ready connection that the backend ended is let go, and the client gets another one."""

    async def main() -> None:
        async with TcpPlane(Target(), tcp_pool=SETTINGS) as bed:
            first = await bed.client()
            servers = [await bed.targets[0].accept() for _ in range(2)]
            await bed.filled(1)
            ((_, side),) = bed.ready()._ready
            idle = next(s for s in servers if s.sock.getpeername() == side.transport.get_extra_info("sockname"))
            if how == "eof":
                idle.eof()
            elif how == "reset":
                idle.reset()
            else:
                await bed.flood(idle, side)
                idle.reset()
            await until(lambda: not bed.ready()._ready, "it is let go")
            assert not bed.plane._tasks  # not made anew at once: a backend that closes all would be asked without end
            bed.pass_time(1.0)
            await bed.filled(1)
            client = await bed.client()
            await client.send(b"ping")
            assert await (await bed.targets[0].accept()).exactly(4) == b"ping"
            assert (bed.live().pool_hits, bed.live().pool_misses) == (1, 1)
            first.reset()
            client.reset()

    run(main(), loop)


@pytest.mark.parametrize("how", ["eof", "reset"])
def test_what_the_loop_does_not_know_yet(loop: str, how: str) -> None:
    """A connection that the backend closed in this very moment, unseen by the event loop, is not used either."""

    async def main() -> None:
        async with TcpPlane(Target(), tcp_pool=SETTINGS) as bed:
            first = await bed.client()
            servers = [await bed.targets[0].accept() for _ in range(2)]
            await bed.filled(1)
            ready = bed.ready()
            ((_, side),) = ready._ready
            idle = next(s for s in servers if s.sock.getpeername() == side.transport.get_extra_info("sockname"))
            if how == "eof":
                idle.eof()
            else:
                idle.reset()
            assert not side.eof
            assert ready.take() is None  # without a turn of the loop between
            first.reset()

    run(main(), loop)


def test_one_that_ends_while_it_is_made(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that ended before it could be kept is not kept."""

    async def main() -> None:
        real, ended = tcp_pool.dial, asyncio.Event()

        async def dial(*arguments: Any) -> Any:
            connected = await real(*arguments)
            (await bed.targets[0].accept()).eof()
            await until(lambda: connected[1].eof, "EOF")
            ended.set()
            return connected

        async with TcpPlane(Target(), tcp_pool=SETTINGS) as bed:
            monkeypatch.setattr(tcp_pool, "dial", dial)
            client = await bed.client()
            await ended.wait()
            await until(lambda: not bed.plane._tasks, "the dials are over")
            assert len(bed.ready()) == 0
            client.reset()

    run(main(), loop)


@pytest.mark.parametrize(("settings", "seconds"), [(TcpPool(4, 30.0, 0.0), 30), (TcpPool(4, 30.0, 10.0), 10)])
def test_expiry(loop: str, settings: TcpPool, seconds: float) -> None:
    """A ready connection is closed after its idle timeout, or its lifetime when that is shorter, and replaced."""

    async def main() -> None:
        async with TcpPlane(Target(), tcp_pool=settings) as bed:
            client = await bed.client()
            await bed.filled(1)
            ((_, old),) = bed.ready()._ready
            bed.pass_time(seconds - 2)
            assert bed.ready()._ready[0][1] is old
            bed.pass_time(4)
            await until(lambda: old.lost, "it is closed")
            await bed.filled(1)
            assert bed.ready()._ready[0][1] is not old
            client.reset()

    run(main(), loop)


def test_too_old_when_it_is_asked_for(loop: str) -> None:
    """A connection past its time is not given away, even before the sweep has come."""

    async def main() -> None:
        async with TcpPlane(Target(), tcp_pool=SETTINGS) as bed:
            client = await bed.client()
            await bed.filled(1)
            ready = bed.ready()
            since, side = ready._ready[0]
            ready._ready[0] = (since - 31.0, side)
            assert ready.take() is None
            await until(lambda: side.lost, "it is closed")
            client.reset()

    run(main(), loop)


@pytest.mark.parametrize("state", [{"up": False, "reason": "probe"}, {"draining": True}])
def test_down_or_draining(loop: str, state: dict[str, Any]) -> None:
    """A backend that gets no new work keeps no ready connections, and gets new ones when it is back."""

    async def main() -> None:
        async with TcpPlane(Target(), tcp_pool=SETTINGS) as bed:
            client = await bed.client()
            await bed.filled(1)
            ((_, side),) = bed.ready()._ready
            bed.set_state(0, **state)
            bed.pass_time(1)
            await until(lambda: side.lost, "it is closed")
            bed.pass_time(10)
            assert not bed.plane._tasks
            assert len(bed.ready()) == 0
            bed.set_state(0)
            bed.pass_time(1)
            await bed.filled(1)
            client.reset()

    run(main(), loop)


def test_open_breaker(loop: str) -> None:
    """Behind an open breaker no connections are kept."""

    async def main() -> None:
        async with TcpPlane(Target(), tcp_pool=SETTINGS, breaker=Breaker(1, 1, 1, 60.0)) as bed:
            client = await bed.client()
            await bed.filled(1)
            bed.live().record(False, False)
            bed.pass_time(3)
            assert len(bed.ready()) == 0
            assert not bed.plane._tasks
            client.reset()

    run(main(), loop)


def test_a_dead_backend_is_not_asked_by_the_pool_for_each_client(loop: str) -> None:
    """After a failed connect the pool waits a second; the clients' own connects are no outcome of the pool's."""

    async def main() -> None:
        async with TcpPlane(Target(), tcp_pool=SETTINGS) as bed:
            bed.targets[0].refuse()
            for _ in range(5):
                await (await bed.client()).ends()
                await until(lambda: not bed.plane._tasks, "the dials are over")
            # 5 clients' connects, and the one that the first client's miss was to make ready
            assert bed.live().connects["refused"] == 5 + 1
            bed.pass_time(1.1)
            await until(lambda: not bed.plane._tasks, "the dials are over")
            assert bed.live().connects["refused"] > 6
            assert len(bed.unreachable()) == bed.live().connects["refused"]

    run(main(), loop)


def test_the_pools_own_failures_are_no_outcome(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connect that nobody waits for says nothing to the breaker; a shortage of our own says nothing to anybody."""

    async def main() -> None:
        async def dial(*_: Any) -> Any:
            raise DialError(Failure.NO_DESCRIPTORS, "error", "EMFILE")

        monkeypatch.setattr(tcp_pool, "dial", dial)
        async with TcpPlane(Target(), tcp_pool=SETTINGS, breaker=Breaker(1, 1, 1, 60.0)) as bed:
            client, _ = await bed.pair()
            await until(lambda: not bed.plane._tasks, "the dials are over")
            breaker: Any = bed.live().breaker
            assert breaker.closed()
            assert bed.unreachable() == []
            assert bed.live().connects == {"error": 1, "ok": 1}
            client.reset()

    run(main(), loop)


def test_a_snapshot_before_the_dials_first_step(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot that takes the addresses away before the dial begins ends the dial."""

    async def main() -> None:
        async with TcpPlane(Target(), tcp_pool=SETTINGS) as bed:
            client, _ = await bed.pair()
            await bed.filled(1)
            ready = bed.ready()
            endpoints = bed.live().endpoints
            taken = ready.take()  # which makes it dial
            assert taken is not None
            taken.abandon()
            bed.live().endpoints = ()
            await until(lambda: not bed.plane._tasks, "the dial is over")
            bed.live().endpoints = endpoints
            assert len(ready) == 0
            client.reset()

    run(main(), loop)


@pytest.mark.parametrize("why", ["drain", "pool off", "backend gone"])
def test_closed_with_its_reason(loop: str, why: str) -> None:
    """Ready connections are closed when the worker drains, the pool is switched off, or the backend leaves; no more
    are made, and a connect that was under way is not kept."""

    async def main() -> None:
        async with TcpPlane(Target(), tcp_pool=SETTINGS) as bed:
            client, server = await bed.pair()
            await bed.filled(1)
            ready = bed.ready()
            ((_, side),) = ready._ready
            taken = ready.take()
            assert taken is side
            assert ready._dialing
            if why == "drain":
                draining = asyncio.create_task(bed.plane.drain(60.0, 0.0))
                await until(lambda: bed.plane.draining, "draining")
            elif why == "pool off":
                bed.tcp_pool = None
                await bed.apply()
                assert bed.live().ready is None
            else:
                gone, bed.targets = bed.targets, []
                await bed.apply()
                bed.targets = gone
            await until(lambda: not ready._dialing, "the dial is over")
            assert len(ready) == 0
            side.abandon()
            await client.send(b"goes on")
            assert await server.exactly(7) == b"goes on"
            client.close()
            server.close()
            if why == "drain":
                assert await draining == 0
                bed.live().ready = None  # closed
            bed.pass_time(5)
            assert not bed.plane._tasks

    run(main(), loop)
