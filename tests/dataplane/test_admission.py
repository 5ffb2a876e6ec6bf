"""Who may stay: the worker's cap, the client's cap, and what is done when there is no room (SECURITY.md T18, F11)."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec
import pytest
from doubles.http_plane import LISTENER, TIMEOUTS, Client, HttpPlane, run, until
from doubles.stub_upstream import StubUpstream, Talk, answer
from doubles.tcp_plane import Target, TcpPlane, both_loops

from gogate_py.dataplane.admission import FEWEST, descriptor_cap
from gogate_py.dataplane.client_table import ClientTable, client_key

HERE = client_key("127.0.0.1")


async def refused(bed: HttpPlane) -> None:
    """One more client, which is closed at accept."""
    client = await bed.client()
    assert await client.ends() in ("eof", "reset")
    assert client.received == b""


@both_loops
def test_connections_per_client(loop: str) -> None:
    """A client gets as many connections as it may have; the next is closed and counted; one that ends makes room."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), limits={"connections_per_client": 2}) as bed:
            first, second = await bed.client(), await bed.client()
            assert (await first.get()).status == 200
            await refused(bed)
            listener = bed.plane.listeners.by_id[LISTENER]
            assert listener.refused == {"connections_per_client": 1}
            second.close()
            await until(lambda: listener.active == 1)
            assert (await (await bed.client()).get()).status == 200
            assert (await first.get()).status == 200
        assert ClientTable(bed.plane.arena, 0, 2).total(HERE) == 0

    run(main(), loop)


def test_connections_of_other_workers_count() -> None:
    """What a client has in another worker is counted too, until that worker is gone."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), limits={"connections_per_client": 2}) as bed:
            elsewhere = ClientTable(bed.plane.arena, 1, 2)
            tickets = [elsewhere.admit(HERE, 100) for _ in range(2)]
            await refused(bed)
            elsewhere.release(tickets[0])
            assert (await (await bed.client()).get()).status == 200
            await refused(bed)
            bed.plane.arena.clear_slot(1, [])
            assert (await (await bed.client()).get()).status == 200

    run(main())


@pytest.mark.parametrize("settings", [{"limits": {"connections_per_client": 0}}, {"trusted": ("127.0.0.0/8",)}])
def test_who_has_no_such_limit(settings: dict[str, object]) -> None:
    """0 is off, and a trusted proxy has one connection for many clients."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), **{"limits": {"connections_per_client": 1}, **settings}) as bed:  # type: ignore[arg-type]  # both are mappings of settings
            clients = [await bed.client() for _ in range(3)]
            for client in clients:
                assert (await client.get()).status == 200

    run(main())


def test_a_limit_that_changes() -> None:
    """A new snapshot's limit holds for who comes from then on; who is here stays."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), limits={"connections_per_client": 3}) as bed:
            clients = [await bed.client() for _ in range(3)]
            assert (await clients[2].get()).status == 200
            bed.limits = msgspec.structs.replace(bed.limits, connections_per_client=2)
            await bed.apply()
            for client in clients:
                assert (await client.get()).status == 200
            await refused(bed)

    run(main())


def test_a_trusted_proxys_clients_have_their_limits() -> None:
    """Behind a PROXY header the client of the header is counted, not the proxy."""

    async def main() -> None:
        limits = {"connections_per_client": 1}
        async with HttpPlane(StubUpstream(), limits=limits, accept_proxy=True, trusted=("127.0.0.0/8",)) as bed:
            request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
            for number in (1, 2):
                client = await bed.client()
                await client.send(b"PROXY TCP4 203.0.113.%d 192.0.2.1 1 2\r\n" % number + request)
                assert (await client.response()).status == 200
            again = await bed.client()
            await again.send(b"PROXY TCP4 203.0.113.1 192.0.2.1 1 2\r\n" + request)
            assert await again.ends() in ("eof", "reset")
            assert bed.plane.listeners.by_id[LISTENER].refused == {"connections_per_client": 1}
            for client in bed.clients:
                client.writer.transport.abort()
            await until(lambda: not bed.plane.admission.open())
            for number in (1, 2):
                key = client_key(f"203.0.113.{number}")
                assert ClientTable(bed.plane.arena, 0, 2).total(key) == 0

    run(main())


@both_loops
def test_connections_per_client_of_tcp(loop: str) -> None:
    """The same for TCP: closed at accept, no backend is asked, no token is taken."""

    async def main() -> None:
        async with TcpPlane(target := Target(), per_client=1) as bed:
            client, backend = await bed.pair()
            late = await bed.client()
            assert await late.ends() in ("eof", "reset")
            assert bed.listener.refused == {"connections_per_client": 1}
            assert not target.waiting()
            client.close()
            backend.close()
            await bed.quiet()
            await bed.pair()
        assert ClientTable(bed.plane.arena, 0, 2).total(HERE) == 0

    run(main(), loop)


# --- when there is no room


async def answered(bed: HttpPlane, count: int) -> list[Client]:
    """That many clients, kept alive after an answer."""
    clients = [await bed.client() for _ in range(count)]
    for client in clients:
        assert (await client.get()).status == 200
    return clients


@both_loops
def test_idle_clients_make_room(loop: str) -> None:
    """At the cap the clients that have been idle the longest are closed, and the new one stays."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), limits={"connections": 3}) as bed:
            oldest, second, third = await answered(bed, 3)
            newest = await bed.client()
            assert (await newest.get()).status == 200
            assert await oldest.ends() == "eof"
            for client in (third, newest, second):
                assert (await client.get()).status == 200
            listener = bed.plane.listeners.by_id[LISTENER]
            assert (listener.shed, listener.refused) == (1, {})

    run(main(), loop)


def test_busy_clients_are_never_shed() -> None:
    """One that is being answered, one inside a head and one that has not asked yet stay; the new one is closed."""

    async def main() -> None:
        async def slow(talk: Talk) -> None:
            await talk.request()
            await go_on
            await talk.send(answer())

        async with HttpPlane(StubUpstream(slow), limits={"connections": 3}) as bed:
            go_on = bed.plane.loop.create_future()
            busy, inside, silent = [await bed.client() for _ in range(3)]
            await busy.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await inside.send(b"GET / HT")
            await until(lambda: bed.site.in_flight == 1)
            await until(lambda: any(client._buffer for client in bed.site.clients))
            await refused(bed)
            listener = bed.plane.listeners.by_id[LISTENER]
            assert (listener.shed, listener.refused) == (0, {"connections": 1})
            go_on.set_result(None)
            assert (await busy.response()).status == 200
            assert silent.received == b""

    run(main())


def test_looking_for_idle_clients_in_vain_is_not_repeated_at_once() -> None:
    """A flood at the cap does not look at every connection again and again."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), limits={"connections": 1}) as bed:
            await bed.client()
            await refused(bed)
            bed.plane.admission._look_after += 1000.0
            (client,) = bed.clients[:1]
            assert (await client.get()).status == 200  # idle now, but nobody looks
            await refused(bed)
            bed.plane.admission._look_after = 0.0
            assert (await (await bed.client()).get()).status == 200

    run(main())


@pytest.mark.parametrize(
    ("soft", "cap"),
    [(resource.RLIM_INFINITY, 1 << 30), (20_128, 10_000), (1024, 448), (256, 64), (160, FEWEST), (64, FEWEST)],
)
def test_the_cap_that_descriptors_allow(soft: int, cap: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two for each connection, 128 for everything else, and a few connections in any case."""
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, soft))
    assert descriptor_cap() == cap


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Until the block ends, this process cannot open anything."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    # Fill the holes: a new descriptor takes the lowest free number.
    holes = [os.dup(0) for _ in range(highest + 1 - len(os.listdir("/proc/self/fd")) + 1)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(holes, default=highest) + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for hole in holes:
            os.close(hole)


@contextmanager
def all_descriptors_taken() -> Iterator[None]:
    """What became free meanwhile is taken by somebody else."""
    taken = []
    with suppress(OSError):
        while True:
            taken.append(os.dup(0))
    try:
        yield
    finally:
        for fd in taken:
            os.close(fd)


@both_loops
def test_without_descriptors_for_the_backend(loop: str) -> None:
    """503, no fault of the backend's; accepting pauses until a tick finds descriptors again, and nobody is lost."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream()) as bed:
            client = await bed.client()
            listeners = bed.plane.listeners
            await until(lambda: bed.site.clients)
            with no_descriptors():
                response = await client.get()
                assert response.status == 503
                assert "descriptors" in response.problem["detail"] or "resources" in response.problem["detail"]
                assert listeners.is_paused()
                with all_descriptors_taken():
                    await listeners.resume()
                    assert listeners.is_paused()  # not even one for the listener
            waiting = await bed.client()
            await waiting.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert len(bed.site.clients) <= 1
            bed.plane.start()
            assert (await waiting.response()).status == 200
            assert not listeners.is_paused()
            assert bed.live().up
            assert len(backend.talks) == 1
            assert not any("unreachable" in str(type(message)).lower() for message in bed.outbox.messages)
            bed.plane.finish()

    run(main(), loop)


def test_a_pause_ends_with_the_listener() -> None:
    """A drain during a pause takes what waits in the accept queue before it closes, as always."""

    async def main() -> None:
        async with HttpPlane(StubUpstream()) as bed:
            bed.plane.listeners.pause()
            waiting = await bed.client()
            await waiting.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await bed.plane.listeners.close_all()
            assert not bed.plane.listeners.is_paused()
            assert (await waiting.response()).status == 200
            await bed.plane.listeners.resume()
            assert not bed.plane.listeners.by_id[LISTENER].is_serving()

    run(main())


def test_requests_in_flight() -> None:
    """Beyond the worker's cap of requests in flight: 503 with Retry-After, at once, and the connection goes on."""

    async def main() -> None:
        async def slow(talk: Talk) -> None:
            while (await talk.request())[0]:
                await go_on
                await talk.send(answer())

        backend = StubUpstream(slow)
        async with HttpPlane(backend, limits={"in_flight": 2}, timeouts={"idle": TIMEOUTS.idle}) as bed:
            go_on = bed.plane.loop.create_future()
            busy = [await bed.client() for _ in range(2)]
            for client in busy:
                await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: bed.site.in_flight == 2)
            late = await bed.client()
            response = await late.get()
            assert (response.status, response.fields["retry-after"]) == (503, "1")
            assert "connection" not in response.fields
            assert bed.site.local_reasons == {"overloaded": 1}
            go_on.set_result(None)
            for client in busy:
                assert (await client.response()).status == 200
            assert (await late.get()).status == 200
            assert backend.requests == 3

    run(main())
