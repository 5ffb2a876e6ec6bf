"""Kept connections to backends, limits on them, and the end of the gateway."""

from __future__ import annotations

import asyncio

import pytest
from doubles.http_plane import HttpPlane, run, until
from doubles.stub_upstream import Script, StubUpstream, Talk, answer, answering

from gogate_py.snapshot import BackendState

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def gated(gate: asyncio.Semaphore) -> Script:
    """A script that answers each request when the gate lets it."""

    async def play(talk: Talk) -> None:
        while (await talk.request())[0]:
            await gate.acquire()
            await talk.send(answer())

    return play


def test_max_conns_per_host_queues_in_order() -> None:
    """Beyond maxConnsPerHost requests wait for a connection and get it in order; none is lost."""

    async def main() -> None:
        gate = asyncio.Semaphore(0)
        async with HttpPlane(backend := StubUpstream(gated(gate)), transport={"max_conns_per_host": 2}) as bed:
            clients = []
            for n in range(6):
                clients.append(await bed.client())
                await clients[-1].send(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n)
                await until(lambda n=n: bed.site.in_flight == n + 1)
            await until(lambda: backend.requests == 2)
            assert len(backend.talks) == 2
            for n in range(6):
                gate.release()
                assert (await clients[n].response()).status == 200
            assert len(backend.talks) == 2

    run(main())


def test_pending_limit() -> None:
    """Beyond limits.pendingPerBackend waiting requests the answer is a 503 at once."""

    async def main() -> None:
        gate = asyncio.Semaphore(0)
        transport = {"max_conns_per_host": 1, "pending_per_backend": 1}
        async with HttpPlane(backend := StubUpstream(gated(gate)), transport=transport) as bed:
            clients = [await bed.client() for _ in range(3)]
            for n, client in enumerate(clients[:2]):
                await client.send(GET)
                await until(lambda n=n: bed.site.in_flight == n + 1)
            response = await clients[2].get()
            assert (response.status, response.problem["reason"]) == (503, "queue_full")
            await until(lambda: backend.requests == 1)
            gate.release()
            gate.release()
            for client in clients[:2]:
                assert (await client.response()).status == 200

    run(main())


def test_waiting_client_that_leaves_is_skipped() -> None:
    """A queued request whose client went away is taken out of the queue; the next one is served."""

    async def main() -> None:
        gate = asyncio.Semaphore(0)
        async with HttpPlane(backend := StubUpstream(gated(gate)), transport={"max_conns_per_host": 1}) as bed:
            clients = [await bed.client() for _ in range(3)]
            for n, client in enumerate(clients):
                await client.send(GET)
                await until(lambda n=n: bed.site.in_flight == n + 1)
            clients[1].reset()
            await until(lambda: bed.site.in_flight == 2)
            gate.release()
            gate.release()
            assert (await clients[0].response()).status == 200
            assert (await clients[2].response()).status == 200
            assert backend.requests == 2

    run(main())


def test_queue_survives_connections_that_close() -> None:
    """With one connection allowed and a backend that closes after each answer, every waiting request is served."""

    async def main() -> None:
        script = answering(answer(fields=b"Connection: close\r\n"))
        async with HttpPlane(backend := StubUpstream(script), transport={"max_conns_per_host": 1}) as bed:
            clients = [await bed.client() for _ in range(5)]
            for client in clients:
                await client.send(GET)
            for client in clients:
                assert (await client.response()).status == 200
            assert len(backend.talks) == 5

    run(main())


def test_idle_connections_are_limited() -> None:
    """At most maxIdleConnsPerHost connections are kept; the others close when their answer is done."""

    async def main() -> None:
        gate = asyncio.Semaphore(0)
        async with HttpPlane(backend := StubUpstream(gated(gate)), transport={"max_idle_per_host": 2}) as bed:
            clients = [await bed.client() for _ in range(5)]
            for client in clients:
                await client.send(GET)
            await until(lambda: backend.requests == 5)
            for _ in clients:
                gate.release()
            for client in clients:
                assert (await client.response()).status == 200
            await until(lambda: backend.closed == 3)
            assert len(bed.live().http._idle) == 2

    run(main())


@pytest.mark.parametrize("setting", [{"idle_timeout": 30.0}, {"idle_timeout": 90.0, "max_lifetime": 30.0}])
def test_idle_connections_expire(setting: dict[str, float]) -> None:
    """A kept connection is closed when it was idle for idleConnTimeout, or is older than maxLifetime."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(), transport=setting) as bed:
            client = await bed.client()
            await client.get()
            bed.pass_time(28)
            assert backend.closed == 0
            bed.pass_time(4)
            await until(lambda: backend.closed == 1)
            assert (await client.get()).status == 200
            assert len(backend.talks) == 2

    run(main())


def test_connection_to_a_backend_that_went_down_is_not_kept() -> None:
    """When a backend is taken out while it answers, the answer is delivered and the connection closed."""

    async def main() -> None:
        gate = asyncio.Semaphore(0)
        async with HttpPlane(backend := StubUpstream(gated(gate))) as bed:
            client = await bed.client()
            await client.send(GET)
            await until(lambda: backend.requests)
            bed.plane.apply_states([BackendState(0, False, False, "probe failed")])
            gate.release()
            assert (await client.response()).status == 200
            await until(lambda: backend.closed)

    run(main())


def test_reload_keeps_connections_and_runs_old_exchanges_to_their_end() -> None:
    """A new snapshot changes routes for new requests; what runs goes on, and unchanged backends keep their
    connections."""

    async def main() -> None:
        gate = asyncio.Semaphore(0)
        async with HttpPlane(backend := StubUpstream(gated(gate))) as bed:
            client, other = await bed.client(), await bed.client()
            await client.send(GET)
            await until(lambda: backend.requests)
            bed.routes = ({"path_prefix": "/new"},)
            await bed.apply()
            assert (await other.get()).status == 404
            gate.release()
            assert (await client.response()).status == 200
            gate.release()
            assert (await client.get("/new")).status == 200
            assert len(backend.talks) == 1

    run(main())


# --- drain


def test_drain_finishes_what_runs_and_says_close() -> None:
    """Draining, an answer that had not begun says Connection: close; the plane is done when the client is."""

    async def main() -> None:
        gate = asyncio.Semaphore(0)
        async with HttpPlane(backend := StubUpstream(gated(gate))) as bed:
            client = await bed.client()
            await client.send(GET)
            await until(lambda: backend.requests)
            draining = asyncio.create_task(bed.plane.drain(30.0, 2.0))
            await until(lambda: bed.site.draining)
            gate.release()
            response = await client.response()
            assert (response.status, response.fields["connection"]) == (200, "close")
            assert await client.until_eof() == b""
            assert await draining == 0

    run(main())


def test_drain_lets_idle_clients_ask_once_more() -> None:
    """A kept-alive client may still ask within drainIdle, is answered with close, and an idle one is closed after
    it."""

    async def main() -> None:
        async with HttpPlane(StubUpstream()) as bed:
            asks, idle = await bed.client(), await bed.client()
            await asks.get()
            await idle.get()
            draining = asyncio.create_task(bed.plane.drain(30.0, 2.0))
            await until(lambda: bed.site.draining)
            bed.pass_time(1)
            response = await asks.get()
            assert (response.status, response.fields["connection"]) == (200, "close")
            assert not idle.reader.at_eof()
            bed.pass_time(1.5)
            assert await idle.until_eof() == b""
            assert await draining == 0

    run(main())


def test_drain_answers_everything_that_was_pipelined() -> None:
    """Requests that were here when the drain began are all answered; only the last answer says close."""

    async def main() -> None:
        gate = asyncio.Semaphore(0)
        async with HttpPlane(backend := StubUpstream(gated(gate))) as bed:
            client = await bed.client()
            await client.send(GET * 3)
            await until(lambda: backend.requests)
            await until(lambda: all(c.has_more() for c in bed.site.clients))
            draining = asyncio.create_task(bed.plane.drain(30.0, 2.0))
            await until(lambda: bed.site.draining)
            for says in (None, None, "close"):
                gate.release()
                assert (await client.response()).fields.get("connection") == says
            assert await client.until_eof() == b""
            assert await draining == 0

    run(main())


def test_drain_after_the_head_was_sent_leaves_the_client_its_turn() -> None:
    """A client whose answer began before the drain was not told to close: it may still ask within drainIdle."""

    async def main() -> None:
        rest = asyncio.Event()

        async def play(talk: Talk) -> None:
            await talk.request()
            await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
            await rest.wait()
            await talk.send(b"llo")
            await talk.ends()

        async with HttpPlane(StubUpstream(play, answering(answer(b"again")))) as bed:
            client = await bed.client()
            await client.send(GET)
            await client.head()
            draining = asyncio.create_task(bed.plane.drain(30.0, 2.0))
            await until(lambda: bed.site.draining)
            rest.set()
            assert await client.exactly(5) == b"hello"
            response = await client.get()
            assert (response.body, response.fields["connection"]) == (b"again", "close")
            assert await draining == 0

    run(main())


def test_grace_period_cuts_what_is_left() -> None:
    """After the grace period everything is cut, counted and logged with the reason."""

    async def main() -> None:
        gate = asyncio.Semaphore(0)
        async with HttpPlane(backend := StubUpstream(gated(gate))) as bed:
            client = await bed.client()
            await client.send(GET)
            await until(lambda: backend.requests)
            assert await bed.plane.drain(0.0, 0.0) == 1
            assert await client.ends() in ("eof", "reset")
            line = (await bed.logged())[0]
            assert (line["status"], line["reason"]) == (499, "grace_period")

    run(main())
