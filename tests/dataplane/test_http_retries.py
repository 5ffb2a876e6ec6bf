"""Retries end to end: every line of the table in policy/retry.py, on every path with all counts back at zero.

The first backend fails; the others are backups, so that it is always asked first.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import pytest
from doubles.http_plane import RETRY, Client, HttpPlane, run, until
from doubles.stub_upstream import Script, StubUpstream, Talk, answer, answering

from gogate_py.snapshot import Breaker

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
BROKEN = answer(b"broken", "503 Service Unavailable")


def bed_of(*backends: StubUpstream, route: dict[str, Any] | None = None, bed: Any = None, **retry: Any) -> HttpPlane:
    """A bed whose first backend is asked first, the others when it fails. ``retry``: settings over those of the
    reference, without back-off; ``bed``: settings of the bed."""
    settings = msgspec.structs.replace(RETRY, **{"backoff": 0.0, "budget_percent": 0, **retry})
    found = HttpPlane(*backends, routes=({"retry": settings, **(route or {})},), **(bed or {}))
    found.backups = set(range(1, len(backends)))
    return found


def failing(how: str) -> Script:
    """A script that reads a request and then fails: "eof", "reset", "silence", "503"."""

    async def play(talk: Talk) -> None:
        if not (await talk.request())[0]:
            return
        if how == "503":
            await talk.send(BROKEN)
        if how == "reset":
            talk.reset()
        if how in ("silence", "503"):
            await talk.ends()

    return play


async def head_only(talk: Talk) -> None:
    """Read a head, and close without an answer."""
    await talk.head()


def taking(end: bytes) -> Script:
    """A script that shows every byte as it comes, and answers when a request ends so."""

    async def play(talk: Talk) -> None:
        while await talk.some():
            if talk.received.endswith(end):
                await talk.send(answer())

    return play


def request(method: str, body: bytes = b"", fields: str = "") -> bytes:
    return f"{method} / HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def asked(client: Client, data: bytes) -> int:
    """The status of one request."""
    await client.send(data)
    return (await client.response()).status


def trying(how: str) -> dict[str, Any]:
    """Retry settings under which this failure ends a try."""
    return {"timeout": True, "per_try_timeout": 0.05} if how == "silence" else {}


#: how the first backend fails → the label of the retry.
FAILURES = {"eof": "upstream_reset", "reset": "upstream_reset", "silence": "per_try_timeout", "503": "503"}


# --- what is tried again


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_idempotent_requests_are_tried_again(how: str, method: str) -> None:
    """A request that may be repeated is sent to another backend, body and all, once; the client sees one answer."""

    async def main() -> None:
        bad, good = StubUpstream(failing(how)), StubUpstream(answering(answer(b"good")))
        async with bed_of(bad, good, **trying(how)) as bed:
            client = await bed.client()
            await client.send(request(method, b"body" if method == "PUT" else b""))
            response = await client.response(method)
            assert (response.status, response.body) == (200, b"" if method == "HEAD" else b"good")
            assert (bad.requests, good.requests) == (1, 1)
            assert good.received.endswith(b"\r\n\r\nbody" if method == "PUT" else b"\r\n\r\n")
            assert bed.live(0).retries == {FAILURES[how]: 1}
            assert (bed.live(0).requests_failed, bed.live(1).requests_ok) == (1, 1)
            (line,) = await bed.logged()
            assert (line["retries"], line["backend"]) == (1, good.address)

    run(main())


@pytest.mark.parametrize("fields", ["", "Idempotency-Key: k1\r\n"])
@pytest.mark.parametrize("how", FAILURES)
def test_post_is_never_sent_twice(how: str, fields: str) -> None:
    """A POST that may have reached a backend is not repeated, not even with an Idempotency-Key, unless the setting
    names it."""

    async def main() -> None:
        bad, good = StubUpstream(failing(how)), StubUpstream()
        async with bed_of(bad, good, **trying(how)) as bed:
            status = await asked(await bed.client(), request("POST", b"x", fields))
            assert status == {"silence": 504, "503": 503}.get(how, 502)
            assert (bad.requests, good.requests) == (1, 0)
            assert bed.live(0).retries == {}

    run(main())


@pytest.mark.parametrize("how", FAILURES)
def test_post_with_a_key(how: str) -> None:
    """Where ``methods`` names POST, one with an Idempotency-Key is repeated, with key and body; one without is not."""

    async def main() -> None:
        bad, good = StubUpstream(failing(how)), StubUpstream()
        async with bed_of(bad, good, methods=("idempotent", "POST"), **trying(how)) as bed:
            assert await asked(await bed.client(), request("POST", b"once", "Idempotency-Key: k1\r\n")) == 200
            assert b"Idempotency-Key: k1\r\n" in good.received
            assert good.received.endswith(b"once")
            assert await asked(await bed.client(), request("POST", b"twice")) != 200
            assert (bad.requests, good.requests) == (2, 1)

    run(main())


@pytest.mark.parametrize("how", FAILURES)
def test_methods_narrowed(how: str) -> None:
    """``methods: [GET]`` repeats a GET and no other idempotent method."""

    async def main() -> None:
        bad, good = StubUpstream(failing(how)), StubUpstream()
        async with bed_of(bad, good, methods=("GET",), **trying(how)) as bed:
            assert await asked(await bed.client(), GET) == 200
            assert await asked(await bed.client(), request("PUT", b"x")) != 200
            assert (bad.requests, good.requests) == (2, 1)

    run(main())


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
def test_refused_connection(method: str) -> None:
    """While no backend has seen a byte any method is tried again, its body too."""

    async def main() -> None:
        gone, good = StubUpstream(), StubUpstream()
        async with bed_of(gone, good) as bed:
            await gone.refuse()
            assert await asked(await bed.client(), request(method, b"body")) == 200
            assert good.received.endswith(b"body")
            assert bed.live(0).retries == {"connect_failed": 1}

    run(main())


@pytest.mark.parametrize(
    ("how", "setting"),
    [("eof", {"reset": False, "connect": False}), ("reset", {"reset": False}), ("silence", {"timeout": False}),
     ("503", {"statuses": (502,)}), ("refused", {"connect": False})],
)  # fmt: skip
def test_only_what_is_named(how: str, setting: dict[str, Any]) -> None:
    """A failure that ``on`` does not name is answered, and nobody else is asked."""

    async def main() -> None:
        bad, good = StubUpstream(failing(how)), StubUpstream()
        async with bed_of(bad, good, **{**trying(how), **setting}) as bed:
            if how == "refused":
                await bad.refuse()
            assert await asked(await bed.client(), GET) == {"silence": 504, "503": 503}.get(how, 502)
            assert good.requests == 0

    run(main())


def test_without_retries() -> None:
    """``attempts: 1`` asks one backend, whatever happens, and passes on what it says."""

    async def main() -> None:
        bad, good = StubUpstream(failing("eof"), failing("503")), StubUpstream()
        async with bed_of(bad, good, attempts=1) as bed:
            assert (await bed.exchange(GET)).problem["reason"] == "upstream_reset"
            response = await bed.exchange(GET)
            assert (response.status, response.body) == (503, b"broken")
            assert good.requests == 0

    run(main())


def test_all_attempts_are_different_backends() -> None:
    """Three attempts ask three backends; when all fail, the client gets the last one's answer."""

    async def main() -> None:
        backends = [StubUpstream(answering(answer(b"%d" % i, "503 No"))) for i in range(4)]
        async with bed_of(*backends, attempts=3) as bed:
            response = await bed.exchange(GET)
            assert response.status == 503
            assert backends[0].requests == 1
            asked_last = next(i for i in range(4) if response.body == b"%d" % i)
            assert asked_last != 0
            assert sum(b.requests for b in backends) == 3
            (line,) = await bed.logged()
            assert (line["retries"], line["backend"]) == (2, backends[asked_last].address)

    run(main())


def test_more_attempts_than_backends() -> None:
    """No backend is asked twice, however many attempts are allowed: its failure is the answer."""

    async def main() -> None:
        bad, worse = StubUpstream(failing("eof")), StubUpstream(failing("eof"))
        async with bed_of(bad, worse, attempts=10) as bed:
            assert (await bed.exchange(GET)).problem["reason"] == "upstream_reset"
            assert (bad.requests, worse.requests) == (1, 1)

    run(main())


# --- what was sent, what is held


def test_never_after_a_byte_of_the_answer() -> None:
    """An answer that begins and breaks is cut, not repeated, also when only its head came."""

    async def main() -> None:
        for body in (b"", b"ab"):
            begun = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + body

            async def breaking(talk: Talk, begun: bytes = begun) -> None:
                await talk.request()
                await talk.send(begun)

            bad, good = StubUpstream(breaking), StubUpstream()
            async with bed_of(bad, good, methods=("idempotent",)) as bed:
                client = await bed.client()
                await client.send(GET)
                data = await client.until_eof()
                assert data.startswith(b"HTTP/1.1 200 ")
                assert data.count(b"HTTP/1.1") == 1
                assert good.requests == 0

    run(main())


def test_answer_that_breaks_in_its_head() -> None:
    """Half a head is an answer that began at the backend: what it did is unknown to nobody, so it is not repeated."""

    async def main() -> None:
        async def breaking(talk: Talk) -> None:
            await talk.request()
            await talk.send(b"HTTP/1.1 200 OK\r\nConte")

        bad, good = StubUpstream(breaking), StubUpstream()
        async with bed_of(bad, good) as bed:
            assert (await bed.exchange(GET)).problem["reason"] == "truncated"
            assert good.requests == 0

    run(main())


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize("size", [1000, 1001])
def test_body_buffer(how: str, size: int) -> None:
    """A body up to bodyBuffer is sent again whole; one that is a byte larger ends the tries."""

    async def main() -> None:
        bad, good = StubUpstream(failing(how)), StubUpstream()
        async with bed_of(bad, good, body_buffer=1000, **trying(how)) as bed:
            body = bytes(65 + i % 26 for i in range(size))
            status = await asked(await bed.client(), request("PUT", body))
            if size == 1000:
                assert (status, good.requests) == (200, 1)
                assert good.received.endswith(b"\r\n\r\n" + body)
            else:
                assert (status, good.requests) == ({"silence": 504, "503": 503}.get(how, 502), 0)

    run(main())


@pytest.mark.parametrize("size", [10, 11])
def test_body_buffer_while_the_body_is_coming(size: int) -> None:
    """What is sent as it comes counts to the byte, like what was here before the connection."""

    async def main() -> None:
        bad, good = StubUpstream(failing("eof")), StubUpstream()
        async with bed_of(bad, good, body_buffer=10) as bed:
            client = await bed.client()
            data = request("PUT", b"b" * size)
            await client.send(data[:-size])
            await until(lambda: any(c.exchange is not None and c.exchange.upstream for c in bed.site.clients))
            await client.send(data[-size:])
            assert (await client.response()).status == (200 if size == 10 else 502)
            assert good.requests == (size == 10)

    run(main())


@pytest.mark.parametrize("how", FAILURES)
def test_chunked_body(how: str) -> None:
    """A chunked body is sent again chunk by chunk, trailers that are passed on included."""

    async def main() -> None:
        bad, good = StubUpstream(failing(how)), StubUpstream()
        async with bed_of(bad, good, **trying(how)) as bed:
            client = await bed.client()
            await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            await until(lambda: b"hello" in bad.received)
            await client.send(b"6\r\n world\r\n0\r\n\r\n")
            assert (await client.response()).status == 200
            assert good.received.endswith(b"\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")

    run(main())


def test_chunked_body_beyond_the_buffer() -> None:
    """A chunked body whose length nobody knew beforehand ends the tries where it passes bodyBuffer."""

    async def main() -> None:
        bad, good = StubUpstream(failing("eof")), StubUpstream()
        async with bed_of(bad, good, body_buffer=20) as bed:
            client = await bed.client()
            await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            await until(lambda: b"hello" in bad.received)
            await client.send(b"10\r\n0123456789abcdef\r\n0\r\n\r\n")
            assert (await client.response()).problem["reason"] == "upstream_reset"
            assert good.requests == 0

    run(main())


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("how", ["eof", "503"])
def test_body_that_is_still_coming(how: str, chunked: bool) -> None:
    """A backend that fails while the body is still coming: the next one gets what came so far, then the rest."""

    async def main() -> None:
        async def early(talk: Talk) -> None:
            await talk.head()
            while not talk.received.endswith(b"first\r\n" if chunked else b"first"):
                await talk.some()
            if how == "503":
                await talk.send(BROKEN)
                await talk.ends()

        bad, good = StubUpstream(early), StubUpstream(taking(b"second\r\n0\r\n\r\n" if chunked else b"second"))
        async with bed_of(bad, good) as bed:
            client = await bed.client()
            if chunked:
                await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            else:
                await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nfirst")
            await until(lambda: b"first" in good.received)
            await client.send(b"6\r\nsecond\r\n0\r\n\r\n" if chunked else b"second")
            assert (await client.response()).status == 200
            body = b"5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n" if chunked else b"firstsecond"
            assert good.received.endswith(b"\r\n\r\n" + body)

    run(main())


def test_body_that_outgrows_the_buffer_at_the_second_backend() -> None:
    """What is held is counted anew at each backend, and is not lost while it is sent."""

    async def main() -> None:
        bad, good = StubUpstream(head_only), StubUpstream(taking(b"x" * 25))
        async with bed_of(bad, good, body_buffer=10) as bed:
            client = await bed.client()
            await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\n12345")
            await until(lambda: b"12345" in good.received)
            await client.send(b"x" * 25)
            assert (await client.response()).status == 200
            assert good.received.endswith(b"12345" + b"x" * 25)

    run(main())


# --- perTryTimeout


def test_per_try_timeout_begins_again() -> None:
    """Each try has the whole time; when all are over, the answer is 504 with perTryTimeout's name in the log."""

    async def main() -> None:
        backends = [StubUpstream(failing("silence")) for _ in range(3)]
        async with bed_of(*backends, attempts=3, timeout=True, per_try_timeout=0.05) as bed:
            assert (await bed.exchange(GET)).problem["reason"] == "response_timeout"
            assert [b.requests for b in backends] == [1, 1, 1]
            assert [bed.live(i).requests_failed for i in range(3)] == [1, 1, 1]
            (line,) = await bed.logged()
            assert "perTryTimeout" in line["detail"]

    run(main())


def test_per_try_timeout_does_not_cut_an_answer() -> None:
    """Once an answer has begun its rest may take longer."""

    async def main() -> None:
        more = asyncio.Event()

        async def slow(talk: Talk) -> None:
            await talk.request()
            await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na")
            await more.wait()
            await talk.send(b"b")

        async with bed_of(StubUpstream(slow), StubUpstream(), timeout=True, per_try_timeout=0.05) as bed:
            client = await bed.client()
            await client.send(GET)
            await client.head()
            exchange = next(iter(bed.site.clients)).exchange
            assert exchange is not None
            assert exchange._timer is None
            more.set()
            assert await client.exactly(2) == b"ab"

    run(main())


def test_per_try_timeout_does_not_count_the_clients_time() -> None:
    """While the client is still sending its body the backend cannot be late: no try ends, and nobody is blamed."""

    async def main() -> None:
        slow, other = StubUpstream(taking(b"abcd")), StubUpstream()
        settings: dict[str, Any] = {"breaker": Breaker(1, 1, 1, 30.0)}
        async with bed_of(slow, other, timeout=True, per_try_timeout=0.02, bed=settings) as bed:
            client = await bed.client()
            await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
            await until(lambda: slow.received.endswith(b"ab"))
            rung = asyncio.Event()
            asyncio.get_running_loop().call_later(0.06, rung.set)  # three times perTryTimeout
            await rung.wait()
            assert other.requests == 0
            await client.send(b"cd")
            assert (await client.response()).status == 200
            assert slow.received.endswith(b"abcd")
            assert (bed.live(0).requests_failed, other.requests) == (0, 0)

    run(main())


# --- Retry-After, back-off


@pytest.mark.parametrize("value", [b"0", b"120", b"Wed, 21 Oct 2099 07:28:00 GMT", b"soon"])
def test_retry_after_does_not_hold_up_another_backend(value: bytes) -> None:
    """Retry-After is about the backend that sent it: another one is asked at once."""

    async def main() -> None:
        bad = StubUpstream(answering(answer(b"", "503 No", b"Retry-After: " + value + b"\r\n")))
        good = StubUpstream()
        async with bed_of(bad, good) as bed:
            assert (await bed.exchange(GET)).status == 200
            assert (bad.requests, good.requests) == (1, 1)

    run(main())


@pytest.mark.parametrize(
    ("fields", "again"),
    [(b"Retry-After: 0\r\n", True), (b"Retry-After: 1\r\n", False), (b"Retry-After: 120\r\n", False), (b"", False)],
)
def test_retry_after_of_the_only_backend(fields: bytes, again: bool) -> None:
    """The same backend is asked again only where it said when, and that is within maxBackoff; otherwise the client
    gets its answer, Retry-After included."""

    async def main() -> None:
        only = StubUpstream(answering(answer(b"no", "503 No", fields)), answering(answer(b"yes")))
        async with bed_of(only) as bed:
            response = await bed.exchange(GET)
            assert response.body == (b"yes" if again else b"no")
            assert (response.fields.get("retry-after") is not None) == (bool(fields) and not again)
            assert only.requests == 1 + again
            assert bed.live(0).retries == ({"503": 1} if again else {})

    run(main())


def test_retry_after_is_waited_for() -> None:
    """The same backend is asked after the time it said, not after the shorter back-off."""

    async def main() -> None:
        only = StubUpstream(answering(answer(b"", "503 No", b"Retry-After: 20\r\n")), answering(answer(b"yes")))
        async with bed_of(only, max_backoff=60.0) as bed:
            client = await bed.client()
            await client.send(GET)
            await until(lambda: bed.live(0).retries == {"503": 1})
            exchange = next(iter(bed.site.clients)).exchange
            assert exchange is not None
            assert exchange._timer is not None
            assert 15.0 < exchange._timer.when() - asyncio.get_running_loop().time() < 20.1
            exchange._timer.cancel()
            exchange._backed_off()
            assert (await client.response()).body == b"yes"

    run(main())


class Longest(random.Random):
    """Chance that always gives the longest back-off."""

    def random(self) -> float:
        return 0.999999


async def backing_off(bed: HttpPlane, data: bytes) -> tuple[Client, Any]:
    """A client whose request waits for its second try, and the exchange."""
    bed.plane.random = Longest()
    client = await bed.client()
    await client.send(data)
    await until(lambda: sum(bed.live(0).retries.values()) == 1)
    exchange = next(iter(bed.site.clients)).exchange
    assert exchange is not None
    assert exchange._timer is not None
    return client, exchange


@pytest.mark.parametrize("how", ["eof", "reset", "503"])
def test_back_off(how: str) -> None:
    """The second try waits for its back-off; the first backend is free meanwhile, the second already counted."""

    async def main() -> None:
        bad, good = StubUpstream(failing(how)), StubUpstream()
        async with bed_of(bad, good, backoff=30.0, max_backoff=30.0) as bed:
            client, exchange = await backing_off(bed, GET)
            assert 25.0 < exchange._timer.when() - asyncio.get_running_loop().time() < 30.1
            assert (bed.live(0).active(), bed.live(1).active()) == (0, 1)
            assert good.talks == []
            exchange._timer.cancel()
            exchange._backed_off()
            assert (await client.response()).status == 200

    run(main())


def test_body_that_comes_during_the_back_off() -> None:
    """What the client sends while nobody is asked goes to the next backend, behind what the first one had."""

    async def main() -> None:
        bad, good = StubUpstream(head_only), StubUpstream()
        async with bed_of(bad, good, backoff=30.0, max_backoff=30.0) as bed:
            client, exchange = await backing_off(bed, b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nab")
            await client.send(b"cdef")
            await until(lambda: not exchange.body_open)
            exchange._timer.cancel()
            exchange._backed_off()
            assert (await client.response()).status == 200
            assert good.received.endswith(b"\r\n\r\nabcdef")

    run(main())


@pytest.mark.parametrize("how", ["eof", "503"])
def test_client_gone_during_the_back_off(how: str) -> None:
    """Nobody is asked for a client that is gone, and no backend is blamed for it."""

    async def main() -> None:
        bad, good = StubUpstream(failing(how)), StubUpstream()
        async with bed_of(bad, good, backoff=30.0, max_backoff=30.0) as bed:
            client, exchange = await backing_off(bed, GET)
            client.close()
            await until(lambda: exchange.over)
            assert exchange._timer is None
            assert good.talks == []
            assert (bed.live(1).requests_failed, bed.live(1).active()) == (0, 0)
            (line,) = await bed.logged()
            assert (line["status"], line["reason"]) == (499, "client_gone")

    run(main())


def test_time_is_up_during_the_back_off() -> None:
    """timeouts.request ends a back-off with a 504; the backend that was to be next is not blamed, for it was not
    asked."""

    async def main() -> None:
        bad, good = StubUpstream(failing("eof")), StubUpstream()
        settings: dict[str, Any] = {"timeouts": {"request": 5.0}, "breaker": Breaker(1, 1, 1, 30.0)}
        async with bed_of(bad, good, backoff=30.0, max_backoff=30.0, bed=settings) as bed:
            client, _ = await backing_off(bed, GET)
            bed.pass_time(6)
            assert (await client.response()).problem["reason"] == "response_timeout"
            assert good.talks == []
            assert bed.live(1).requests_failed == 0
            assert bed.live(1).breaker.closed()
            assert (bed.live(0).requests_failed, bed.live(0).breaker.closed()) == (1, False)

    run(main())


# --- budget


def test_budget() -> None:
    """Ten retries and budgetPercent of the requests besides; then failures are answered, counted as denied, and no
    count leaks."""

    async def main() -> None:
        bad, good = StubUpstream(failing("eof")), StubUpstream()
        async with bed_of(bad, good, budget_percent=20) as bed:
            statuses = [(await bed.exchange(GET)).status for _ in range(20)]
            # 10 in reserve, and 20 % of the requests so far: the n-th retry needs n <= 10 + n / 5
            assert statuses.count(200) == 12 + statuses[12:].count(200)
            assert statuses[:12] == [200] * 12
            assert statuses[12:].count(502) >= 6
            denied = bed.site.counts["all"].retries_denied
            assert denied == statuses.count(502)
            assert good.requests == statuses.count(200)
            assert bed.live(0).retries == {"upstream_reset": good.requests}

    run(main())


def test_budget_of_answers() -> None:
    """An answer that the budget does not allow to be tried again is passed on as it is."""

    async def main() -> None:
        bad, good = StubUpstream(answering(BROKEN)), StubUpstream()
        async with bed_of(bad, good, budget_percent=1) as bed:
            responses = [await bed.exchange(GET) for _ in range(14)]
            assert [r.status for r in responses] == [200] * 10 + [503] * 4
            assert responses[-1].body == b"broken"
            assert bed.site.counts["all"].retries_denied == 4
            assert bed.live(1).active() == 0

    run(main())


def test_stale_connections_need_no_budget() -> None:
    """A kept connection that was dead under a request is no failed try: it takes no attempt and no budget."""

    async def main() -> None:
        async def once(talk: Talk) -> None:
            await talk.request()
            await talk.send(answer(b"1"))
            await talk.request()

        only = StubUpstream(once)
        async with bed_of(only, attempts=2, budget_percent=1) as bed:
            client = await bed.client()
            for _ in range(13):
                assert (await client.get()).status == 200
            assert bed.live(0).retries["stale_connection"] == 12
            assert bed.site.counts["all"].retries_denied == 0
            assert not any("retries" in line for line in bed.lines())

    run(main())


# --- breakers


@pytest.mark.parametrize("how", [*FAILURES, "refused"])
def test_failed_trial_is_tried_elsewhere(how: str) -> None:
    """A half-open breaker's trial that fails gives its permit back, opens the breaker again, and the client gets the
    other backend's answer."""

    async def main() -> None:
        bad, good = StubUpstream(failing(how)), StubUpstream()
        settings: dict[str, Any] = {"breaker": Breaker(1, 1, 1, 0.001, 0.001)}
        async with bed_of(bad, good, bed=settings, **trying(how)) as bed:
            if how == "refused":
                await bad.refuse()
            assert (await bed.exchange(GET)).status == 200
            for _ in range(3):
                await until(bed.live(0).breaker.may_take)
                failed = bed.live(0).requests_failed
                assert (await bed.exchange(GET)).status == 200
                assert bed.live(0).requests_failed == failed + 1
                assert not bed.live(0).breaker.closed()
                bed.check_balance()

    run(main())


def test_trial_that_is_called_off() -> None:
    """A client that leaves during the back-off before a trial takes the trial's permit with it."""

    async def main() -> None:
        bad, good = StubUpstream(failing("eof")), StubUpstream(failing("eof"), answering(answer()))
        settings: dict[str, Any] = {"breaker": Breaker(1, 1, 1, 0.001, 0.001)}
        async with bed_of(bad, good, backoff=30.0, max_backoff=30.0, bed=settings) as bed:
            client, exchange = await backing_off(bed, GET)
            exchange._timer.cancel()
            exchange._backed_off()
            assert (await client.response()).status == 502  # both breakers are open now
            await until(lambda: bed.live(0).breaker.may_take() and bed.live(1).breaker.may_take())
            other = await bed.client()
            await other.send(GET)
            await until(lambda: sum(bed.live(0).retries.values()) == 2)
            assert not bed.live(1).breaker.may_take()  # its one permit waits with the back-off
            other.close()
            await until(bed.live(1).breaker.may_take)
            assert bed.live(1).requests_failed == 1

    run(main())


def test_retried_statuses_count_against_the_backend() -> None:
    """An answer that was replaced by another backend's is still a failure of its backend."""

    async def main() -> None:
        bad, good = StubUpstream(answering(BROKEN)), StubUpstream()
        settings: dict[str, Any] = {"breaker": Breaker(3, 1, 1, 30.0)}
        async with bed_of(bad, good, bed=settings) as bed:
            for _ in range(5):
                assert (await bed.exchange(GET)).status == 200
            assert bad.requests == 3
            assert not bed.live(0).breaker.closed()

    run(main())
