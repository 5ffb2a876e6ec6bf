"""A listener that a snapshot no longer names: whoever is there is answered and then sent away, nobody is cut."""

from __future__ import annotations

import asyncio
import errno
import socket

import msgspec
import pytest
from doubles.http_plane import LISTENER, HttpPlane, run, until
from doubles.stub_upstream import StubUpstream, Talk, answer

from gogate_py.snapshot import Listener

GET = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])


async def without_listener(bed: HttpPlane) -> None:
    """The next snapshot has no listener."""
    await bed.plane.apply(msgspec.structs.replace(bed.snapshot(), listeners=()))


@LOOPS
def test_idle_clients_ask_once_more(loop: str) -> None:
    """A kept-alive client is answered with Connection: close; one that does not ask is closed a little later."""

    async def main() -> None:
        async with HttpPlane(StubUpstream()) as bed:
            asks, idle = await bed.client(), await bed.client()
            assert "connection" not in (await asks.get()).fields
            await idle.get()
            await without_listener(bed)
            bed.pass_time(1)
            response = await asks.get()
            assert (response.status, response.fields["connection"]) == (200, "close")
            assert await asks.until_eof() == b""
            assert not idle.reader.at_eof()
            bed.pass_time(1.5)
            assert await idle.until_eof() == b""
            await until(lambda: not bed.site.leaving)

    run(main(), loop)


def test_what_runs_is_answered() -> None:
    """A request that is being served ends as usual; its answer says close."""

    async def main() -> None:
        release = asyncio.Event()

        async def play(talk: Talk) -> None:
            await talk.request()
            await release.wait()
            await talk.send(answer())

        async with HttpPlane(backend := StubUpstream(play)) as bed:
            client = await bed.client()
            await client.send(GET)
            await until(lambda: backend.requests)
            await without_listener(bed)
            bed.pass_time(5)
            release.set()
            response = await client.response()
            assert (response.status, response.fields["connection"]) == (200, "close")
            assert await client.until_eof() == b""

    run(main())


@LOOPS
def test_who_waits_in_the_accept_queue_is_answered(loop: str) -> None:
    """The kernel answered them already: they are accepted before the socket is closed, and told to go."""

    async def main() -> None:
        async with HttpPlane(StubUpstream()) as bed:
            bed.plane.listeners.pause()
            clients = [await bed.client() for _ in range(5)]
            for client in clients:
                await client.send(GET)
            await without_listener(bed)
            for client in clients:
                response = await client.response()
                assert (response.status, response.fields["connection"]) == (200, "close")
                assert await client.until_eof() == b""
            with socket.socket() as late:
                assert late.connect_ex(("127.0.0.1", bed.port)) == errno.ECONNREFUSED

    run(main(), loop)


def test_who_is_just_being_accepted_when_the_gateway_stops_is_answered() -> None:
    """The event loop has the connection, and has told nobody yet: the drain must not take the worker for empty."""

    async def main() -> None:
        async with HttpPlane(StubUpstream()) as bed:
            with socket.create_connection(("127.0.0.1", bed.port), 5) as client:
                client.sendall(GET)
                await asyncio.sleep(0)  # the loop polls and accepts; connection_made is its turn after ours
                assert not bed.site.clients
                assert await bed.plane.drain(5, 5) == 0
                assert client.recv(65536).startswith(b"HTTP/1.1 200 ")

    run(main())


def test_a_proxy_header_that_comes_later() -> None:
    """A connection that was accepted before, and becomes a client after, is told to go as well."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), accept_proxy=True, trusted=("127.0.0.0/8",)) as bed:
            client = await bed.client()
            await client.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2")
            await until(lambda: bed.plane.admission.arriving)
            await without_listener(bed)
            await client.send(b"\r\n" + GET)
            response = await client.response()
            assert (response.status, response.fields["connection"]) == (200, "close")
            assert await client.until_eof() == b""
            await until(lambda: not bed.site.leaving)

    run(main())


def test_a_websocket_goes_on() -> None:
    """A tunnel has no next request: it lives until one of its sides ends it."""

    async def main() -> None:
        async def play(talk: Talk) -> None:
            await talk.head()
            await talk.send(SWITCH)
            while data := await talk.some():
                await talk.send(data)

        async with HttpPlane(StubUpstream(play)) as bed:
            client = await bed.client()
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            assert (await client.response()).status == 101
            await without_listener(bed)
            bed.pass_time(60)
            await client.send(b"still there")
            assert await client.exactly(11) == b"still there"
            client.eof()
            assert await client.until_eof() == b""

    run(main())


def test_clients_of_other_listeners_stay() -> None:
    """A listener that moved: clients of the old socket are told to go, those of the new one are kept."""

    async def main() -> None:
        async with HttpPlane(StubUpstream()) as bed:
            old = await bed.client()
            await old.get()
            sock = socket.create_server(("127.0.0.1", 0))
            bed.port = sock.getsockname()[1]
            bed.plane.listeners.add_socket("http:default#1", sock.detach())
            moved = Listener("http:default#1", f":{bed.port}", name=LISTENER)
            await bed.plane.apply(msgspec.structs.replace(bed.snapshot(), listeners=(moved,)))
            new = await bed.client()
            assert "connection" not in (await new.get()).fields
            assert "connection" not in (await new.get()).fields
            assert (await old.get()).fields["connection"] == "close"
            new.close()

    run(main())


def test_its_counts_are_reported_to_the_end() -> None:
    """Connections of the listener that went, and of the one that has its name now, are one series; none is forgotten.
    """

    async def main() -> None:
        async with HttpPlane(StubUpstream()) as bed:
            old = await bed.client()
            await old.get()
            moved = Listener("http:default#1", f":{bed.port}", name=LISTENER)
            sock = socket.create_server(("127.0.0.1", 0))
            bed.port = sock.getsockname()[1]
            bed.plane.listeners.add_socket("http:default#1", sock.detach())
            await bed.plane.apply(msgspec.structs.replace(bed.snapshot(), listeners=(moved,)))
            new = await bed.client()
            await new.get()
            counts = bed.plane._report.collect()
            assert sum(n for name, labels, n in counts.counters if name == "gogate_connections_total") == 2
            active = "gogate_connections_active", (LISTENER,)
            assert {(name, labels): n for name, labels, n in counts.gauges}[active] == 2
            old.close()
            await until(lambda: len(bed.site.clients) == 1)
            gauges = bed.plane._report.collect().gauges
            assert {(name, labels): n for name, labels, n in gauges}[active] == 1
            assert len(bed.plane.listeners.counted()) == 1
            new.close()

    run(main())
