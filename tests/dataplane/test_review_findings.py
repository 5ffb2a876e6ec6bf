"""Bugs that a review of the whole request path found, one test each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from doubles.http_plane import RETRY, HttpPlane, run, until
from doubles.raw_peer import Target
from doubles.stub_upstream import StubUpstream, Talk, answer, answering
from doubles.tcp_plane import TcpPlane

from gogate_py.arena import ACTIVE, Arena
from gogate_py.dataplane import upstream_connections, waiting
from gogate_py.dataplane.dial import DialError, dial
from gogate_py.dataplane.explain import Explainer
from gogate_py.dataplane.shared_state import ActiveCount
from gogate_py.errors import Failure
from gogate_py.middleware.question import Question
from gogate_py.snapshot import Breaker, Cors, HeadRules

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class SlowDial:
    """Dials to one port wait until they are told how they end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
        self.begun = 0
        self.port = port
        self.outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        monkeypatch.setattr(upstream_connections, "dial", self._dial)

    async def _dial(
        self, loop: Any, factory: Callable[[], Any], endpoint: tuple[str, int], limit: float, *security: Any
    ) -> Any:
        if endpoint[1] == self.port:
            self.begun += 1
            if not await self.outcome:
                raise DialError(Failure.CONNECT_TIMEOUT, "timeout", "too late")
        return await dial(loop, factory, endpoint, limit, *security)


@pytest.mark.parametrize("connects", [False, True])
def test_a_dial_that_ends_after_its_try_is_nothing_to_the_next_try(
    connects: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """perTryTimeout ended the try whose dial it was: the next one must not be failed, or answered, by it."""

    async def main() -> None:
        let = asyncio.Event()

        async def slowly(talk: Talk) -> None:
            await talk.request()
            await let.wait()
            await talk.send(answer(b"second"))
            await talk.ends()

        first, second = StubUpstream(answering(answer(b"first"))), StubUpstream(slowly)
        await first.start()
        retry = msgspec.structs.replace(RETRY, timeout=True, per_try_timeout=20.0, backoff=0.0, budget_percent=0)
        bed = HttpPlane(first, second, routes=({"retry": retry},), breaker=Breaker(5, 1, 1, 30.0))
        bed.backups = {1}
        async with bed:
            slow = SlowDial(monkeypatch, first.port)
            client = await bed.client()
            await client.send(GET)
            await until(lambda: slow.begun, "the first backend is dialed")
            (downstream,) = bed.site.clients
            exchange: Any = downstream.exchange
            exchange._timer.cancel()
            exchange._try_timed_out()
            await until(lambda: second.requests, "the second backend is asked")
            bed.live(0).http.plane.loop.call_soon(slow.outcome.set_result, connects)
            dials = bed.live(0).http
            await until(lambda: len(dials._idle) == 1 if connects else dials._open == 0, "the late dial has ended")
            let.set()
            response = await client.response()
            assert (response.status, response.body) == (200, b"second")
            assert first.requests == 0
            assert bed.live(1).requests_failed == 0

    run(main())


def freed_elsewhere(monkeypatch: pytest.MonkeyPatch, arena: Arena, row: int = 0) -> None:
    """The work of another worker (slot 1) at a backend ends just when this worker has found the backend full."""
    elsewhere = arena.backend(row) + ACTIVE + 1
    try_add = ActiveCount.try_add

    def then_free(count: ActiveCount, limit: int) -> bool:
        room = try_add(count, limit)
        if not room:
            arena.cells[elsewhere] = 0
        return room

    monkeypatch.setattr(ActiveCount, "try_add", then_free)
    arena.cells[elsewhere] = 1


def test_room_that_comes_between_two_looks_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend found full, by whose turn another worker has given it free, is waited for and not called unusable."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), pool={"max_connections": 1, "queue_timeout": 60.0}) as bed:
            freed_elsewhere(monkeypatch, bed.plane.arena)
            assert (await bed.exchange(GET)).status == 200

    run(main())


def test_a_busy_lock_at_the_count_of_maxconnections_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A count that cannot be taken at once is tried again in a moment."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), pool={"max_connections": 1, "queue_timeout": 60.0}) as bed:
            lock, refusals = Arena.lock, [True]
            monkeypatch.setattr(Arena, "lock", lambda *args: not refusals.pop() if refusals else lock(*args))
            assert (await bed.exchange(GET)).status == 200

    run(main())


def test_a_connection_behind_those_who_wait_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TCP connection that comes when room has come free, but not yet to those who wait, is not refused."""

    async def main() -> None:
        monkeypatch.setattr(waiting, "POLL", 3600.0)
        async with TcpPlane(Target()) as bed:
            pool, backend = bed.plane.table.pools["default"], bed.live()
            pool.update(msgspec.structs.replace(pool.spec, max_connections=1, queue_timeout=60.0), [backend])
            backend.max_connections = 1
            elsewhere = bed.plane.arena.backend(0) + ACTIVE + 1
            bed.plane.arena.cells[elsewhere] = 1
            first = await bed.client()
            await until(lambda: len(pool.waiting) == 1, "the first one waits")
            bed.plane.arena.cells[elsewhere] = 0
            second = await bed.client()
            await until(lambda: len(bed.plane.relays) == 2, "the second one is accepted")
            assert len(pool.waiting) == 2
            pool.waiting._poll()
            for client in (first, second):
                server = await bed.targets[0].accept()
                await client.send(b"hello")
                assert await server.exactly(5) == b"hello"
                client.close()
                server.close()

    run(main())


def test_an_identity_field_whose_name_begins_with_a_digit_is_removed() -> None:
    """The fast way proves that no identity field is there, whatever letter or digit its name begins with."""

    async def main() -> None:
        backend = StubUpstream()
        async with HttpPlane(backend, head_rules=HeadRules(identity_headers=("3scale-user", "7"))) as bed:
            client = await bed.client()
            for name in ("3scale-user", "3Scale-User", "3scale_user", "7"):
                assert (await client.get(fields=f"{name}: evil\r\n")).status == 200
            assert (await client.get(fields="3scale-users: fine\r\n9: fine\r\n")).status == 200
            assert b"evil" not in backend.received
            assert backend.received.count(b"fine") == 2

    run(main())


def test_an_identity_field_is_no_trailer() -> None:
    """A field that no client may set does not come in behind a body, though trailers of its name are passed on."""

    async def main() -> None:
        backend = StubUpstream()
        rules = HeadRules(identity_headers=("x-user",), forward_trailers=("x-user", "x-sum"))
        async with HttpPlane(backend, head_rules=rules) as bed:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            assert (await bed.exchange(head + b"0\r\nX-User: evil\r\nX-Sum: 1\r\n\r\n")).status == 200
            assert b"evil" not in backend.received
            assert b"x-sum: 1" in backend.received.lower()

    run(main())


def test_a_preflight_is_explained_by_the_method_that_it_asks_for() -> None:
    """The candidates that explain lists for a preflight have the route that it then names."""

    async def main() -> None:
        cors = Cors(("https://x.test",), ("GET",), (), (), False, 60.0)
        routes = ({"name": "get", "methods": ("GET",), "cors": cors}, {"name": "put", "methods": ("PUT",)})
        async with HttpPlane(StubUpstream(), routes=routes) as bed:
            fields = ["Origin: https://x.test", "Access-Control-Request-Method: GET"]
            explainer = Explainer(bed.snapshot(), bed.plane.arena, 2)
            facts = explainer.explain(Question.of("OPTIONS", "http://a/", fields, ""))
            assert facts["route"] == "get"
            assert [one["route"] for one in facts["candidates"] if one["matched"]] == ["get"]
            other = explainer.explain(Question.of("OPTIONS", "http://a/", [fields[0], f"{fields[1][:-3]}PUT"], ""))
            assert other["outcome"]["status"] == 405
            assert not [one for one in other["candidates"] if one["matched"]]

    run(main())


def test_a_backend_has_its_time_for_100_continue_from_when_it_is_asked() -> None:
    """A client that waits for 100 Continue while its request waits for room is not told that the backend is late."""

    async def main() -> None:
        pool = {"max_connections": 1, "queue_timeout": 60.0}
        async with HttpPlane(StubUpstream(), pool=pool, timeouts={"response_header": 2.0}) as bed:
            elsewhere = bed.plane.arena.backend(0) + ACTIVE + 1
            bed.plane.arena.cells[elsewhere] = 1
            client = await bed.client()
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
            waiters = bed.plane.table.pools["default"].waiting
            await until(lambda: len(waiters) == 1, "the request waits")
            bed.pass_time(3.0)
            bed.plane.arena.cells[elsewhere] = 0
            await until(lambda: bed.backends[0].talks, "the backend is asked")
            await client.send(b"ok")
            assert (await client.response()).status == 200

    run(main())


def test_no_other_try_behind_an_interim_answer() -> None:
    """What the client was told of one backend (103 Early Hints) is not followed by the answer of another."""

    async def main() -> None:
        async def hints(talk: Talk) -> None:
            await talk.request()
            await talk.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
            await talk.send(answer(b"no", status="503 Service Unavailable"))

        first, second = StubUpstream(hints), StubUpstream(answering(answer(b"other")))
        bed = HttpPlane(first, second)
        bed.backups = {1}
        async with bed:
            client = await bed.client()
            await client.send(GET)
            assert (await client.response()).status == 103
            assert (await client.response()).status == 503
            assert second.requests == 0

    run(main())
