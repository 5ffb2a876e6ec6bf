"""The deadline of a drain: requests fail over or fail, WebSockets are told, TCP connections close; nobody is blamed."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from doubles.http_plane import RETRY, HttpPlane, run, until
from doubles.raw_peer import Target
from doubles.stub_upstream import StubUpstream, Talk, answer, answering
from doubles.tcp_plane import TcpPlane, both_loops

from gogate_py.clock import monotonic
from gogate_py.dataplane.drain_end import end_drains
from gogate_py.dataplane.plane import Plane
from gogate_py.messages import Counts
from gogate_py.snapshot import BackendState, Breaker

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
TRIPS_AT_ONCE = Breaker(1, 1, 1, 30.0)


async def silent(talk: Talk) -> None:
    """Read a request and never answer."""
    await talk.head()
    await talk.ends()


def drain(plane: Plane, row: int = 0, within: float = 0.0) -> None:
    """As the supervisor says it."""
    plane.apply_states([BackendState(row, True, True, drain_by=monotonic() + within)])


def counted(plane: Plane) -> dict[tuple[str, ...], float]:
    """What was cut, by pool, backend and kind."""
    report = plane._report.collect()
    assert isinstance(report, Counts)
    return {labels: n for name, labels, n in report.counters if name == "gogate_backend_drain_cuts_total"}


def test_not_before_the_deadline() -> None:
    """What runs ends as it would; without a deadline, too; undrained in time nothing is cut."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(silent)) as bed:
            client = await bed.client()
            await client.send(GET)
            await until(lambda: backend.talks)
            for state in (
                BackendState(0, True, True),
                BackendState(0, True, True, drain_by=monotonic() + 100),
                BackendState(0, True, False),
            ):
                bed.plane.apply_states([state])
                end_drains(bed.plane, monotonic() + 50)
                assert bed.site.in_flight == 1
            drain(bed.plane, within=10)
            end_drains(bed.plane, monotonic() + 9)
            assert bed.site.in_flight == 1
            end_drains(bed.plane, monotonic() + 11)
            assert (await client.response()).status == 502

    run(main())


@pytest.mark.parametrize(("request_bytes", "status"), [(GET, 200), (POST, 502)])
def test_a_request_without_an_answer(request_bytes: bytes, status: int) -> None:
    """It goes to another backend where it may be sent again, else it is 502; the breaker hears nothing."""

    async def main() -> None:
        backends = StubUpstream(silent), StubUpstream(answering(answer()))
        route = {"retry": msgspec.structs.replace(RETRY, backoff=0.0, budget_percent=0)}
        bed = HttpPlane(*backends, routes=(route,), breaker=TRIPS_AT_ONCE)
        bed.backups = {1}
        async with bed:
            client = await bed.client()
            await client.send(request_bytes)
            await until(lambda: backends[0].talks)
            drain(bed.plane)
            end_drains(bed.plane, monotonic())
            response = await client.response()
            assert response.status == status
            (line,) = await bed.logged()
            if status == 502:
                assert response.problem["reason"] == line["reason"] == "backend_drained"
            else:
                assert line["retries"] == 1
            assert counted(bed.plane) == {("default", backends[0].address, "request"): 1}
            assert bed.live().breaker.closed()
            assert bed.live().requests_failed == 0
            end_drains(bed.plane, monotonic())
            assert counted(bed.plane) == {}

    run(main())


def test_an_answer_that_has_begun_is_cut() -> None:
    """Never a clean end of half an answer."""

    async def main() -> None:
        async def half(talk: Talk) -> None:
            await talk.head()
            await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            await talk.ends()

        async with HttpPlane(StubUpstream(half)) as bed:
            client = await bed.client()
            await client.send(GET)
            await client.head()
            assert await client.exactly(4) == b"half"
            drain(bed.plane)
            end_drains(bed.plane, monotonic())
            assert await client.until_eof() == b""
            assert (await bed.logged())[0]["reason"] == "backend_drained"

    run(main())


def test_a_websocket_is_told() -> None:
    """1001 to both; counted once, however often it is looked at."""

    async def main() -> None:
        async def switch(talk: Talk) -> None:
            await talk.head()
            await talk.send(SWITCH)
            with suppress(ConnectionError):
                assert (await talk.exactly(8))[:2] == b"\x88\x82"
                await talk.send(b"\x88\x02\x03\xe9")
                await talk.ends()

        async with HttpPlane(backend := StubUpstream(switch)) as bed:
            client = await bed.client()
            await client.send(UPGRADE)
            await client.head()
            drain(bed.plane)
            for _ in range(3):
                end_drains(bed.plane, monotonic())
            assert await client.exactly(4) == b"\x88\x02\x03\xe9"
            await client.send(b"\x88\x82\x00\x00\x00\x00\x03\xe9")
            assert await client.until_eof() == b""
            assert counted(bed.plane) == {("default", backend.address, "websocket"): 1}
            assert (await bed.logged())[0]["reason"] == "backend_drained"

    run(main())


def test_also_after_it_left_its_pool() -> None:
    """A drained backend that is then taken out of the file still has its deadline."""

    async def main() -> None:
        backends = StubUpstream(silent), StubUpstream(answering(answer()))
        bed = HttpPlane(*backends, pools={"default": (0, 1)}, routes=({"retry": None},))
        bed.backups = {1}
        async with bed:
            client = await bed.client()
            await client.send(GET)
            await until(lambda: backends[0].talks)
            drain(bed.plane, within=5)
            bed.pools = {"default": (1,)}
            await bed.apply()
            assert 0 not in bed.plane.table.rows
            end_drains(bed.plane, monotonic())
            assert bed.site.in_flight == 1
            end_drains(bed.plane, monotonic() + 6)
            assert (await client.response()).status == 502
            bed.plane.table.forget_left()
            assert not bed.plane.table._to_end

    run(main())


@both_loops
def test_tcp_connections_are_closed(loop: str) -> None:
    """Those of the backend, and no others; the breaker hears nothing."""

    async def main() -> None:
        async with TcpPlane(Target(), Target(), breaker=TRIPS_AT_ONCE) as bed:
            clients = [await bed.client() for _ in range(2)]
            for target in bed.targets:
                await target.accept()
            await until(lambda: {relay.view().state for relay in bed.plane.relays.values()} == {"open"})
            drain(bed.plane)
            end_drains(bed.plane, monotonic())
            await until(lambda: len(bed.plane.relays) == 1)
            (line,) = await bed.logged()
            assert (line["result"], line["backend"]) == ("backend_drained", bed.live(0).address)
            assert counted(bed.plane) == {("default", bed.live(0).address, "tcp"): 1}
            assert bed.live(0).breaker is not None
            assert bed.live(0).breaker.closed()
            for client in clients:
                client.sock.close()

    run(main(), loop)
