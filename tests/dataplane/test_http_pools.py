"""Pools: backups, panic, slow start, latency, hashing, and the queue before maxConnections."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import msgspec
import pytest
from doubles.http_plane import RETRY, Client, HttpPlane, run, until
from doubles.stub_upstream import Script, StubUpstream, Talk, answer, answering

from gogate_py.clock import monotonic
from gogate_py.dataplane.shared_state import ActiveCount
from gogate_py.snapshot import BackendState, Breaker

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def named(count: int) -> list[StubUpstream]:
    """Backends that answer their number."""
    return [StubUpstream(answering(answer(b"%d" % number))) for number in range(count)]


async def who(client: Client, fields: str = "") -> int:
    """The number of the backend that answers."""
    response = await client.get("/", fields)
    assert response.status == 200
    return int(response.body)


async def counted(client: Client, times: int, fields: str = "") -> Counter[int]:
    return Counter([await who(client, fields) for _ in range(times)])


def states(bed: HttpPlane, *down: int, warming: dict[int, float] | None = None) -> None:
    """Tell the plane which backends are down, and since when which ones warm up."""
    warming = warming or {}
    bed.plane.apply_states(
        BackendState(row, row not in down, False, "probe failed" if row in down else "", warming.get(row, 0.0))
        for row in range(len(bed.backends))
    )


# --- backups and panic


def test_backups() -> None:
    """A backup works only while no other backend is usable; they share the work, and step back when one returns."""

    async def main() -> None:
        bed = HttpPlane(*named(4))
        bed.backups = {2, 3}
        async with bed:
            client = await bed.client()
            assert set(await counted(client, 12)) == {0, 1}
            states(bed, 0)
            assert set(await counted(client, 6)) == {1}
            states(bed, 0, 1)
            assert await counted(client, 12) == {2: 6, 3: 6}
            states(bed, 0)
            assert set(await counted(client, 6)) == {1}
            states(bed, 0, 1, 2, 3)
            assert (await client.get()).problem["reason"] == "no_backend"

    run(main())


def test_backup_behind_open_breakers_and_full_backends() -> None:
    """A backup is also asked when every other backend's breaker is open, or when they have maxConnections."""

    async def main() -> None:
        failing = StubUpstream(answering(answer(b"", "500 No")))
        bed = HttpPlane(failing, *named(1), breaker=Breaker(1, 1, 1, 60.0))
        bed.backups = {1}
        async with bed:
            client = await bed.client()
            assert (await client.get()).status == 500
            assert [(await client.get()).status for _ in range(3)] == [200] * 3
        go = asyncio.Event()
        bed = HttpPlane(StubUpstream(held(go)), *named(1), pool={"max_connections": 1})
        bed.backups = {1}
        async with bed:
            first, second = await bed.client(), await bed.client()
            await first.send(GET)
            await until(lambda: bed.live(0).active() == 1)
            assert (await second.get()).body == b"0"  # of named(1): its own number
            go.set()
            assert (await first.response()).status == 200

    run(main())


@pytest.mark.parametrize(
    ("threshold", "panic"), [(0, False), (25, False), (26, True), (100, True)]
)
def test_panic_threshold(threshold: int, panic: bool) -> None:
    """Below panicThreshold percent usable backends health is ignored; at it, or without one, it is not."""

    async def main() -> None:
        async with HttpPlane(*named(4), pool={"panic_threshold": threshold}) as bed:
            client = await bed.client()
            states(bed, 1, 2, 3)
            assert bed.plane.table.pools["default"].panic is panic
            assert set(await counted(client, 12)) == ({0, 1, 2, 3} if panic else {0})
            states(bed)
            assert not bed.plane.table.pools["default"].panic

    run(main())


def test_panic_with_nobody_up() -> None:
    """When every backend is down a pool with a threshold serves all the same; drained ones stay out."""

    async def main() -> None:
        async with HttpPlane(*named(3), pool={"panic_threshold": 50}) as bed:
            client = await bed.client()
            bed.plane.apply_states([
                BackendState(0, False, False, "x"), BackendState(1, False, False, "x"),
                BackendState(2, False, True, "x"),
            ])  # fmt: skip
            assert set(await counted(client, 10)) == {0, 1}

    run(main())


# --- slow start


@pytest.mark.parametrize("balancer", ["round_robin", "weighted_round_robin", "random", "least_connections", "p2c"])
def test_slow_start(balancer: str) -> None:
    """A backend that has just come up gets a tenth of its share, one that came up half of the window ago about half;
    afterwards all of it."""

    async def main() -> None:
        async with HttpPlane(*named(4), balancer=balancer, pool={"slow_start": 1000.0}) as bed:
            client = await bed.client()
            bed.plane.table.pools["default"]._random = random.Random(3)
            shares = []
            for age in (0.0, 500.0, 1001.0):
                states(bed, warming={0: monotonic() - age})
                shares.append((await counted(client, 1000))[0])
            # Expected are 32, 143 and 250; who picks at random may be four standard deviations away.
            assert shares[0] < 75 < shares[1] < 195 < shares[2]

    run(main())


def test_slow_start_of_everybody() -> None:
    """Where every backend warms up they serve all the same."""

    async def main() -> None:
        async with HttpPlane(*named(2), pool={"slow_start": 1000.0}) as bed:
            states(bed, warming={0: monotonic(), 1: monotonic()})
            got = await counted(await bed.client(), 60)
            assert min(got[0], got[1]) > 5

    run(main())


# --- balancers that learn or hash


def delayed(seconds: float, data: bytes) -> Script:
    """A script of a backend that needs so long for an answer."""

    async def play(talk: Talk) -> None:
        while (await talk.request())[0]:
            await asyncio.sleep(seconds)
            await talk.send(data)

    return play


def test_ewma_prefers_the_fast_one() -> None:
    """The backend with the lower latency gets most of the work, until it is slow; the other is asked again at times."""

    async def main() -> None:
        slow, fast = StubUpstream(delayed(0.25, answer(b"0"))), StubUpstream(answering(answer(b"1")))
        async with HttpPlane(slow, fast, balancer="ewma") as bed:
            got = await counted(await bed.client(), 40)
            assert got[1] > 30

    run(main())


@pytest.mark.parametrize("status", ["500 No", "429 Slow"])
def test_ewma_does_not_take_errors_for_speed(status: str) -> None:
    """A backend that fails at once is avoided for one that answers after 10 ms: a failure counts as a second at least.
    """

    async def main() -> None:
        broken = StubUpstream(answering(answer(b"0", status)))
        good = StubUpstream(delayed(0.01, answer(b"1")))
        async with HttpPlane(broken, good, balancer="ewma") as bed:
            client = await bed.client()
            for _ in range(30):
                await client.get()
            assert good.requests > 20

    run(main())


def test_ip_hash() -> None:
    """A client's address has one backend, on every connection; a /64 of IPv6 is one client."""

    async def main() -> None:
        async with HttpPlane(*named(4), balancer="ip_hash", trusted=("127.0.0.1/32",)) as bed:
            one, other = await bed.client(), await bed.client()
            seen = set()
            for number in range(40):
                field = f"X-Forwarded-For: 10.0.{number}.1\r\n"
                backend = await who(one, field)
                assert backend == await who(other, field)
                seen.add(backend)
            assert seen == {0, 1, 2, 3}
            network = {await who(one, f"X-Forwarded-For: 2001:db8:1:2::{n:x}\r\n") for n in range(1, 8)}
            assert len(network) == 1

    run(main())


@pytest.mark.parametrize("key", ["header:X-Tenant", "cookie:sid", "query:t", "path"])
def test_consistent_hash(key: str) -> None:
    """A key has one backend; when that goes down only its keys move, and they come back with it."""

    async def main() -> None:
        async with HttpPlane(*named(4), balancer="consistent_hash", pool={"hash_key": key}) as bed:
            client = await bed.client()

            async def places() -> dict[int, int]:
                found = {}
                for n in range(60):
                    path = {"query:t": f"/?t={n}", "path": f"/p{n}"}.get(key, "/")
                    response = await client.get(path, f"X-Tenant: t{n}\r\nCookie: sid=s{n}\r\n")
                    found[n] = int(response.body)
                return found

            first = await places()
            assert set(first.values()) == {0, 1, 2, 3}
            assert await places() == first
            states(bed, 2)
            without = await places()
            assert {n for n in first if first[n] != without[n]} == {n for n in first if first[n] == 2}
            states(bed)
            assert await places() == first

    run(main())


def test_consistent_hash_without_a_key() -> None:
    """A request that has no such key goes by chance."""

    async def main() -> None:
        pool = {"hash_key": "header:X-Tenant"}
        async with HttpPlane(*named(2), balancer="consistent_hash", pool=pool) as bed:
            assert set(await counted(await bed.client(), 60)) == {0, 1}

    run(main())


@pytest.mark.parametrize("factor", [0.0, 1.0])
def test_bounded_load(factor: float) -> None:
    """One popular key fills its backend to its share only, unless the bound is off."""

    async def main() -> None:
        go = asyncio.Event()
        pool = {"hash_key": "header:X-Tenant", "balance_factor": factor}
        backends = [StubUpstream(held(go)) for _ in range(2)]
        async with HttpPlane(*backends, balancer="consistent_hash", pool=pool) as bed:
            clients = [await bed.client() for _ in range(8)]
            for sent, client in enumerate(clients, 1):
                await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Tenant: hot\r\n\r\n")
                await at_work(bed, sent)
            busy = sorted((bed.live(0).active(), bed.live(1).active()))
            assert busy == ([0, 8] if factor == 0.0 else [3, 5])
            go.set()
            for client in clients:
                assert (await client.response()).status == 200

    run(main())


# --- maxConnections


def held(go: asyncio.Event, *, each: bool = False) -> Script:
    """A script that answers the path once ``go`` is set; ``each``: ``go`` is taken by every answer."""

    async def play(talk: Talk) -> None:
        while head := (await talk.request())[0]:
            await go.wait()
            if each:
                go.clear()
            await talk.send(answer(head.split(b" ")[1]))

    return play


async def in_flight(bed: HttpPlane, count: int) -> None:
    """Wait until so many requests are in the gateway."""
    await until(lambda: bed.site.in_flight == count)


async def at_work(bed: HttpPlane, count: int) -> None:
    """Wait until all backends together serve so many."""
    await until(lambda: sum(live.active() for live in bed.plane.table.rows.values()) == count)


def waiting(bed: HttpPlane, count: int) -> bool:
    return len(bed.plane.table.pools["default"].waiting) == count


async def fill(bed: HttpPlane, count: int) -> list[Client]:
    """Clients that asked for /0, /1 … in this order, the first of them at the backend."""
    clients = [await bed.client() for _ in range(count)]
    for number, client in enumerate(clients):
        await client.send(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
        await in_flight(bed, number + 1)
    await at_work(bed, 1)
    return clients


def test_first_come_first_served() -> None:
    """Beyond maxConnections requests wait, and are served in the order in which they came."""

    async def main() -> None:
        go = asyncio.Event()
        backend = StubUpstream(held(go, each=True))
        async with HttpPlane(backend, pool={"max_connections": 1, "queue_timeout": 60.0}) as bed:
            clients = await fill(bed, 4)
            assert waiting(bed, 3)
            for number, client in enumerate(clients):
                assert bed.live(0).active() == 1
                go.set()
                assert (await client.response()).body == b"/%d" % number
            assert [line["path"] for line in await bed.logged(4)] == ["/0", "/1", "/2", "/3"]

    run(main())


def test_who_comes_while_others_wait_does_not_pass_them() -> None:
    """A new request waits behind those that wait, even in the moment in which a place is free."""

    async def main() -> None:
        go = asyncio.Event()
        backend = StubUpstream(held(go, each=True))
        async with HttpPlane(backend, pool={"max_connections": 1, "queue_timeout": 60.0}) as bed:
            clients = await fill(bed, 2)
            go.set()
            # its next request comes with the end of its first one
            await clients[0].send(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await clients[0].response()).body == b"/0"
            go.set()
            assert (await clients[1].response()).body == b"/1"
            go.set()
            assert (await clients[0].response()).body == b"/late"

    run(main())


def test_queue_timeout() -> None:
    """Who waited for queueTimeout gets a 503 with Retry-After, is counted, and no backend is blamed."""

    async def main() -> None:
        go = asyncio.Event()
        settings = {"max_connections": 1, "queue_timeout": 0.02}
        async with HttpPlane(StubUpstream(held(go)), pool=settings, breaker=Breaker(1, 1, 1, 60.0)) as bed:
            clients = await fill(bed, 3)
            for client in clients[1:]:
                response = await client.response()
                assert (response.status, response.problem["reason"]) == (503, "queue_timeout")
                assert response.fields["retry-after"] == "1"
            assert bed.plane.table.pools["default"].waiting.timed_out == 2
            assert bed.live(0).breaker.closed()
            go.set()
            assert (await clients[0].response()).status == 200

    run(main())


def test_queue_is_bounded() -> None:
    """More than pendingPerBackend for each backend do not wait: they get a 503 at once."""

    async def main() -> None:
        go = asyncio.Event()
        settings = {"max_connections": 1, "queue_timeout": 60.0}
        transport = {"pending_per_backend": 2}
        async with HttpPlane(StubUpstream(held(go)), pool=settings, transport=transport) as bed:
            clients = await fill(bed, 3)
            over = await (await bed.client()).get()
            assert (over.status, over.problem["reason"]) == (503, "queue_full")
            assert waiting(bed, 2)
            go.set()
            assert [(await client.response()).status for client in clients] == [200] * 3

    run(main())


def test_client_gone_while_waiting() -> None:
    """A client that leaves the queue is not served; those behind it are."""

    async def main() -> None:
        go = asyncio.Event()
        backend = StubUpstream(held(go))
        async with HttpPlane(backend, pool={"max_connections": 1, "queue_timeout": 60.0}) as bed:
            clients = await fill(bed, 3)
            clients[1].close()
            await until(lambda: waiting(bed, 1))
            go.set()
            assert (await clients[2].response()).body == b"/2"
            assert b"GET /1 " not in backend.received
            lines = {line["path"]: line for line in await bed.logged(3)}
            assert (lines["/1"]["status"], lines["/1"]["reason"]) == (499, "client_gone")

    run(main())


def test_pool_removed_while_waiting() -> None:
    """When a new snapshot has no such pool those who wait are answered at once; what is served goes on."""

    async def main() -> None:
        go = asyncio.Event()
        pool: dict[str, Any] = {"max_connections": 1, "queue_timeout": 60.0}
        async with HttpPlane(StubUpstream(held(go)), pool=pool) as bed:
            clients = await fill(bed, 3)
            bed.pools = {"other": (0,)}
            bed.routes = ({"pool": "other"},)
            await bed.apply()
            for client in clients[1:]:
                assert (await client.response()).problem["reason"] == "queue_timeout"
            go.set()
            assert (await clients[0].response()).status == 200
            assert (await clients[1].get("/again")).body == b"/again"

    run(main())


def test_larger_limit_lets_those_in_who_wait() -> None:
    """A new snapshot's maxConnections holds for those who wait already, and so does a backend that is new."""

    async def main() -> None:
        go = asyncio.Event()
        backends = [StubUpstream(held(go)) for _ in range(2)]
        async with HttpPlane(*backends, pool={"max_connections": 1, "queue_timeout": 60.0}) as bed:
            bed.pools = {"default": (0,)}
            await bed.apply()
            clients = await fill(bed, 5)
            bed.pool = {**bed.pool, "max_connections": 3}
            await bed.apply()
            await until(lambda: bed.live(0).active() == 3)
            bed.pools = {"default": (0, 1)}
            await bed.apply()
            await until(lambda: bed.live(1).active() == 2)
            go.set()
            assert [(await client.response()).status for client in clients] == [200] * 5

    run(main())


def test_place_that_another_worker_frees() -> None:
    """maxConnections counts the work of all workers, and who waits here is served when another worker's ends."""

    async def main() -> None:
        backend = StubUpstream()
        async with HttpPlane(backend, pool={"max_connections": 1, "queue_timeout": 60.0}) as bed:
            elsewhere = ActiveCount(bed.plane.arena, 0, 1, 2)
            elsewhere.begin()
            client = await bed.client()
            await client.send(GET)
            await until(lambda: waiting(bed, 1))
            assert not backend.talks
            elsewhere.end()
            assert (await client.response()).status == 200

    run(main())


def test_other_backends_first() -> None:
    """Nobody waits while another backend has room; then the next free place of any of them is taken."""

    async def main() -> None:
        first, second = asyncio.Event(), asyncio.Event()
        backends = StubUpstream(held(first)), StubUpstream(held(second))
        async with HttpPlane(*backends, pool={"max_connections": 1, "queue_timeout": 60.0}) as bed:
            clients = [await bed.client() for _ in range(3)]
            for number, client in enumerate(clients):
                await client.send(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
                await in_flight(bed, number + 1)
            assert [bed.live(row).active() for row in (0, 1)] == [1, 1]
            assert waiting(bed, 1)
            second.set()
            assert (await clients[2].response()).body == b"/2"
            assert b"GET /2 " in backends[1].received
            first.set()

            for client in clients[:2]:
                assert (await client.response()).status == 200

    run(main())


def test_backend_that_goes_down_while_others_wait() -> None:
    """Who waits for a backend that nobody can use any more is told so at once, not after queueTimeout."""

    async def main() -> None:
        go = asyncio.Event()
        async with HttpPlane(StubUpstream(held(go)), pool={"max_connections": 1, "queue_timeout": 60.0}) as bed:
            clients = await fill(bed, 2)
            states(bed, 0)
            assert (await clients[1].response()).problem["reason"] == "no_backend"
            go.set()
            assert (await clients[0].response()).status == 200

    run(main())


def test_body_that_comes_while_waiting() -> None:
    """A body that arrives in the queue is sent whole once there is room; the time of the answer begins then."""

    async def main() -> None:
        go = asyncio.Event()
        backend = StubUpstream(held(go))
        async with HttpPlane(backend, pool={"max_connections": 1, "queue_timeout": 60.0}) as bed:
            clients = await fill(bed, 2)
            third = await bed.client()
            await third.send(b"PUT /body HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
            await until(lambda: waiting(bed, 2))
            await third.send(b"cd")
            await until(lambda: all(c.exchange is None or not c.exchange.body_open for c in bed.site.clients))
            bed.pass_time(10)
            late = [client.exchange for client in bed.site.clients if client.exchange and client.exchange.waiting]
            assert len(late) == 2
            go.set()
            assert (await third.response()).body == b"/body"
            assert b"\r\n\r\nabcd" in backend.received
            for client in clients:
                assert (await client.response()).status == 200

    run(main())


def test_time_is_up_while_waiting() -> None:
    """timeouts.request ends a wait with a 503: no backend was late with anything."""

    async def main() -> None:
        go = asyncio.Event()
        pool = {"max_connections": 1, "queue_timeout": 600.0}
        timeouts = {"request": 5.0, "response_header": 0.0}
        async with HttpPlane(StubUpstream(held(go)), pool=pool, timeouts=timeouts) as bed:
            clients = await fill(bed, 2)
            bed.pass_time(6)
            assert (await clients[1].response()).problem["reason"] == "queue_timeout"
            assert (await clients[0].response()).problem["reason"] == "response_timeout"
            go.set()

    run(main())


# --- maxConnsPerHost


async def at_the_only_connection(bed: HttpPlane) -> list[Client]:
    """Two clients, the second of which waits for the first one's connection."""
    clients = [await bed.client() for _ in range(2)]
    for number, client in enumerate(clients):
        await client.send(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
        await at_work(bed, number + 1)
    await until(lambda: len(bed.live(0).http._waiting) == 1)
    return clients


def test_time_in_the_queue_is_over_with_the_queue() -> None:
    """Who got the connection that it waited for has all the time of an answer: queueTimeout is not its limit."""

    async def main() -> None:
        go = asyncio.Event()
        backend = StubUpstream(held(go, each=True))
        async with HttpPlane(backend, transport={"max_conns_per_host": 1}, timeouts={"response_header": 30.0}) as bed:
            first, second = await at_the_only_connection(bed)
            go.set()
            assert (await first.response()).status == 200
            await until(lambda: b"GET /1 " in backend.received)
            bed.pass_time(20)  # queueTimeout is 5 s
            go.set()
            assert (await second.response()).body == b"/1"

    run(main())


def test_try_is_not_timed_in_the_queue() -> None:
    """perTryTimeout begins with the connection: who waits for one does not fail, and nobody is blamed for it."""

    async def main() -> None:
        go = asyncio.Event()
        retry = msgspec.structs.replace(RETRY, timeout=True, per_try_timeout=0.5)
        settings: dict[str, Any] = {"transport": {"max_conns_per_host": 1}, "routes": ({"retry": retry},)}
        async with HttpPlane(StubUpstream(held(go)), breaker=Breaker(1, 1, 1, 60.0), **settings) as bed:
            await at_the_only_connection(bed)
            exchanges = [client.exchange for client in bed.site.clients if client.exchange is not None]
            timers = {exchange.path: exchange._timer for exchange in exchanges}
            assert timers[b"/0"] is not None
            assert timers[b"/1"] is None
            go.set()
            await until(lambda: not bed.site.in_flight)
            assert bed.live(0).requests_failed == 0

    run(main())
