"""Decision records: what is kept of which request, and what it says, over a real data plane.

Times are checked by order and sign, never by the clock.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from doubles.http_plane import RETRY, HttpPlane, Response, run, until
from doubles.stub_upstream import Script, StubUpstream, Talk, answer, answering

from gogate_py.messages import RequestRecord
from gogate_py.snapshot import AccessLog, ApiKeyAuth, Arm, Decisions, FixedResponse, Snapshot

ASK = "X-Gogate-Trace: 1\r\n"
KEY = "gg_example-key-of-the-documentation-0123456789a"
#: Its SHA-256.
KEYS = (("ci", "0a749f317038ede76736c1fd4ee05926bfeaf429df9f5c16dfeaed317977a599"),)
LOCAL = Decisions(allow=("127.0.0.0/8",), keep=50)


class Bed(HttpPlane):
    """With rules for records, and perhaps timers in the access lines."""

    rules = LOCAL
    timers = False

    def snapshot(self) -> Snapshot:
        access = AccessLog(True, "json", 1.0, self.timers)
        return msgspec.structs.replace(super().snapshot(), decisions=self.rules, access_log=access)

    def records(self) -> list[RequestRecord]:
        """All that are kept, the newest first."""
        decisions = self.site.decisions
        found = [decisions.find(one.id) for one in decisions.newest(1000, "", 0)]
        return [one for one in found if one is not None]

    async def record(self) -> RequestRecord:
        """The only one."""
        await until(self.records, "a record")
        (found,) = self.records()
        return found


def bed_of(*backends: StubUpstream, rules: Decisions = LOCAL, timers: bool = False, **settings: Any) -> Bed:
    bed = Bed(*backends, **settings)
    bed.rules, bed.timers = rules, timers
    bed.backups = set(range(1, len(backends)))
    return bed


async def ask(bed: HttpPlane, path: str = "/", fields: str = ASK) -> Response:
    return await (await bed.client()).get(path, fields)


# --- who gets one


def test_a_client_that_asks() -> None:
    """X-Gogate-Trace: 1 from an allowed client: the answer names the record and the times so far, the backend sees
    nothing of it, and the record says where the request went and when."""

    async def main() -> None:
        backend = StubUpstream(answering(answer(b"hello")))
        async with bed_of(backend) as bed:
            response = await ask(bed, "/a?x=1", ASK + "User-Agent: test\r\n")
            assert (response.status, response.body) == (200, b"hello")
            assert response.fields["x-gogate-trace-id"] == response.fields["x-request-id"]
            timing = dict(part.split(";dur=") for part in response.fields["server-timing"].split(", "))
            assert set(timing) == {"receive", "queue", "connect", "first-byte", "gateway"}
            assert b"gogate-trace" not in backend.received.lower()
            record = await bed.record()
            summary = record.summary
            assert summary.id == response.fields["x-gogate-trace-id"]
            assert (summary.kept, summary.status, summary.reason, summary.tries) == ("asked", 200, "", 1)
            assert (summary.route, summary.pool, summary.backend) == ("all", "default", backend.address)
            assert (summary.method, summary.host, summary.path, record.query) == ("GET", "a.test", "/a", "?x=1")
            assert ("User-Agent", "test") in record.fields
            timers = record.timers
            assert timers.receive is not None
            assert timers.queue == 0
            assert timers.connect is not None
            assert timers.first_byte is not None
            assert 0 < timers.connect + timers.first_byte <= timers.total == summary.duration_ms
            (one,) = record.tries
            assert (one.backend, one.reused, one.status, one.reason) == (backend.address, False, 200, "")
            (line,) = await bed.logged()
            assert "connect_ms" not in line

    run(main())


@pytest.mark.parametrize(
    ("fields", "rules", "trusted"),
    [
        ("X-Gogate-Trace: 0\r\n", LOCAL, ()),
        (ASK + ASK, LOCAL, ()),
        ("X_Gogate_Trace: 1\r\n", LOCAL, ()),
        (ASK, Decisions(allow=("10.0.0.0/8",), keep=50), ()),
        (ASK, Decisions(allow=(), keep=50), ()),
        (ASK, Decisions(allow=("127.0.0.0/8",), keep=0), ()),
        (ASK + "X-Forwarded-For: 127.0.0.1\r\n", LOCAL, ()),
        (ASK + "Forwarded: for=127.0.0.1\r\n", LOCAL, ()),
        (ASK + "X-Forwarded-For: 203.0.113.9\r\n", LOCAL, ("127.0.0.1/32",)),
    ],
)
def test_who_may_not_ask(fields: str, rules: Decisions, trusted: tuple[str, ...]) -> None:
    """Other values, other clients, and clients behind a proxy that nobody vouches for: no record, nothing in the
    answer; the field goes to no backend all the same."""

    async def main() -> None:
        backend = StubUpstream()
        async with bed_of(backend, rules=rules, trusted=trusted) as bed:
            response = await ask(bed, fields=fields)
            assert response.status == 200
            assert not {"x-gogate-trace-id", "server-timing"} & set(response.fields)
            assert b"gogate" not in backend.received.lower()
            await bed.logged()
            assert bed.records() == []

    run(main())


def test_behind_a_trusted_proxy_the_client_counts() -> None:
    """A trusted proxy says who the client is, and that is who must be allowed."""

    async def main() -> None:
        rules = Decisions(allow=("198.51.100.0/24",), keep=5)
        async with bed_of(StubUpstream(), rules=rules, trusted=("127.0.0.1/32",)) as bed:
            await ask(bed, fields=ASK + "X-Forwarded-For: 198.51.100.7\r\n")
            assert (await bed.record()).summary.client == "198.51.100.7"

    run(main())


def test_an_id_that_the_client_chose_is_not_the_records() -> None:
    """A client's X-Request-ID goes on as ever; the record has an id of its own, and is found by both."""

    async def main() -> None:
        async with bed_of(StubUpstream()) as bed:
            response = await ask(bed, fields=ASK + "X-Request-ID: mine\r\n")
            assert response.fields["x-request-id"] == "mine"
            own = response.fields["x-gogate-trace-id"]
            assert own != "mine"
            record = await bed.record()
            assert bed.site.decisions.find(own) == bed.site.decisions.find("mine") == record
            assert bed.site.decisions.find("other") is None

    run(main())


def test_an_id_that_the_client_chose_is_nobodys_record() -> None:
    """Nor is it of a request that is recorded by chance, whichever way its head went: two records never have one id."""

    async def main() -> None:
        async with bed_of(StubUpstream(), rules=Decisions(keep=9, sample=1.0)) as bed:
            client = await bed.client()
            for _ in range(2):
                for fields in ("X-Request-ID: mine\r\n", "X-Request-ID: mine\r\nTE: trailers\r\n"):
                    assert (await client.get(fields=fields)).fields["x-request-id"] == "mine"
            await bed.logged(4)
            ids = {one.id for one in bed.site.decisions.newest(1000, "", 0)}
            assert len(ids) == 4
            assert "mine" not in ids

    run(main())


def test_a_sample_and_its_size() -> None:
    """trace.sample: a share of all requests, also of those whose heads are forwarded as slices; the last ``keep``."""

    async def main() -> None:
        async with bed_of(StubUpstream(), rules=Decisions(keep=3, sample=1.0)) as bed:
            client = await bed.client()
            for number in range(5):
                assert "x-gogate-trace-id" not in (await client.get(f"/{number}")).fields
            await bed.logged(5)
            records = bed.records()
            assert [one.summary.path for one in records] == ["/4", "/3", "/2"]
            assert {one.summary.kept for one in records} == {"sampled"}
            assert [one.tries[0].reused for one in records] == [True] * 3
            bed.rules = Decisions(keep=2, sample=0.0)
            await bed.apply()
            await client.get("/more")
            await bed.logged(6)
            assert [one.summary.path for one in bed.records()] == ["/4", "/3"]

    run(main())


async def cut_short(talk: Talk) -> None:
    """Announce more than comes."""
    await talk.request()
    await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")


@pytest.mark.parametrize("script", [answering(answer(b"", "500 Oops")), cut_short], ids=["500", "cut"])
def test_failures_are_kept_unasked(script: Script) -> None:
    """A 5xx, and an answer that was cut, is kept without having been watched: no timers but the whole."""

    async def main() -> None:
        async with bed_of(StubUpstream(script)) as bed:
            client = await bed.client()
            await client.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
            await client.head()
            record = await bed.record()
            assert (record.summary.kept, record.watched) == ("failed", False)
            assert record.summary.reason == ("truncated" if script is cut_short else "")
            assert (record.timers.total > 0, record.timers.connect) == (True, None)
            assert [one.backend for one in record.tries] == [bed.backends[0].address]

    run(main())


def test_everything_fails() -> None:
    """When everything fails some of it is kept, so that describing it costs little."""

    async def main() -> None:
        async with bed_of(StubUpstream(answering(answer(b"", "500 Oops")))) as bed:
            client = await bed.client()
            for _ in range(100):
                await client.get()
            await bed.logged(100)
            assert 1 <= len(bed.records()) < 50

    run(main())


def test_slow_ones_are_kept() -> None:
    """trace.slow: whatever takes longer is kept, whatever came of it."""

    async def main() -> None:
        async with bed_of(StubUpstream(), rules=Decisions(keep=5, slow=1e-9)) as bed:
            assert (await ask(bed, fields="")).status == 200
            assert (await bed.record()).summary.kept == "slow"

    run(main())


# --- what it says


@pytest.mark.parametrize(
    ("how", "status", "reason", "answered"),
    [("refused", 0, "connect_failed", False), ("503", 503, "503", True), ("eof", 0, "upstream_reset", False)],
)
def test_tries(how: str, status: int, reason: str, answered: bool) -> None:
    """Every try with its backend, how it ended and when; the answer is that of the last one."""

    async def gone(talk: Talk) -> None:
        await talk.request()

    async def main() -> None:
        bad = StubUpstream(answering(answer(b"", "503 Busy")) if how == "503" else gone)
        good = StubUpstream()
        retry = msgspec.structs.replace(RETRY, backoff=0.0, budget_percent=0)
        async with bed_of(bad, good, routes=({"retry": retry},)) as bed:
            if how == "refused":
                await bad.refuse()
            assert (await ask(bed)).status == 200
            record = await bed.record()
            first, second = record.tries
            assert record.summary.tries == 2
            assert (first.backend, second.backend) == (bad.address, good.address)
            assert (first.status, first.reason, first.first_byte_ms is not None) == (status, reason, answered)
            assert (second.status, second.reason) == (200, "")
            assert first.started_ms is not None
            assert first.duration_ms is not None
            assert second.started_ms is not None
            assert first.started_ms + first.duration_ms <= second.started_ms + 0.01

    run(main())


def test_a_kept_connection_that_was_dead() -> None:
    """The try on it is there, with its own reason."""

    async def main() -> None:
        async def once(talk: Talk) -> None:
            await talk.request()
            await talk.send(answer())
            await talk.request()  # and close under it

        async with bed_of(StubUpstream(once)) as bed:
            client = await bed.client()
            await client.get()
            assert (await client.get(fields=ASK)).status == 200
            tries = (await bed.record()).tries
            assert [(one.reused, one.reason) for one in tries] == [(True, "stale_connection"), (False, "")]

    run(main())


def test_waiting_for_room() -> None:
    """The time of maxConnections is the queue's, not the backend's."""

    async def main() -> None:
        go = asyncio.Event()

        async def held(talk: Talk) -> None:
            while (await talk.request())[0]:
                await go.wait()
                await talk.send(answer())

        async with bed_of(StubUpstream(held), pool={"max_connections": 1}) as bed:
            first, second = await bed.client(), await bed.client()
            await first.send(b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: bed.backends[0].requests)
            await second.send(f"GET /second HTTP/1.1\r\nHost: a\r\n{ASK}\r\n".encode())
            pool = bed.plane.table.pools["default"]
            await until(lambda: pool.waiting.waiters)
            go.set()
            await second.response()
            record = await bed.record()
            assert record.timers.queue is not None
            assert record.timers.queue > 0
            assert record.timers.queue + record.tries[0].first_byte_ms <= record.timers.total + 0.01

    run(main())


def test_stages_and_secrets() -> None:
    """Each stage with its verdict; credentials, and the names that the route calls keys, are redacted everywhere."""

    async def main() -> None:
        auth = ApiKeyAuth(KEYS, "X-Mine", "mykey", "X-User")
        routes = ({"auth": auth, "allow": ("127.0.0.0/8",)},)
        async with bed_of(StubUpstream(), routes=routes) as bed:
            secrets = (
                "Authorization: Bearer s3cret-1\r\nCookie: a=s3cret-2\r\nX-Api-Key: s3cret-3\r\n"
                "Referer: http://x/?token=s3cret-4&page=7\r\nX-Note: Bearer s3cret-5\r\n"
            )
            good = await ask(bed, "/?page=2&access_token=s3cret-6&my%6Bey=s3cret-7", f"{ASK}X-Mine: {KEY}\r\n{secrets}")
            bad = await ask(bed, f"/?{KEY}", ASK + "X-Mine: s3cret-8\r\n")
            assert (good.status, bad.status) == (200, 401)
            await bed.logged(2)
            refused, passed = bed.records()
            assert [(one.name, one.verdict) for one in passed.stages] == [("ip_rules", "passed"), ("auth", "passed")]
            assert [(one.verdict, one.reason) for one in refused.stages][-1] == ("refused", "unauthorized")
            assert (refused.summary.reason, refused.tries) == ("unauthorized", [])
            text = msgspec.json.encode([refused, passed]).decode()
            assert "s3cret" not in text
            assert KEY not in text
            assert "?page=2&access_token=[redacted]" in text
            assert "page=7" in text
            assert passed.user == "ci"

    run(main())


def test_stages_that_were_not_asked() -> None:
    """Behind the stage that answered nobody was asked."""

    async def main() -> None:
        routes = ({"allow": ("10.0.0.0/8",), "pool": "", "fixed": FixedResponse(200, b"x", "text/plain")},)
        async with bed_of(StubUpstream(), routes=routes) as bed:
            await ask(bed)
            record = await bed.record()
            assert [one.verdict for one in record.stages] == ["refused", "not asked"]

    run(main())


def test_the_arm_of_a_split() -> None:
    """Which pool, and why that."""

    async def main() -> None:
        one, two = StubUpstream(), StubUpstream()
        routes = ({"pool": "", "arms": (Arm("one", 1), Arm("two", 0, True))},)
        async with bed_of(one, two, routes=routes, pools={"one": (0,), "two": (1,)}) as bed:
            bed.backups = set()
            await bed.apply()
            await ask(bed, fields=ASK + "X-Canary: always\r\n")
            record = await bed.record()
            assert (record.summary.pool, record.arm) == ("two", "the override header asks for it")

    run(main())


def test_a_head_and_a_body_that_take_their_time() -> None:
    """``receive`` is from the first byte of the head to the last of the body."""

    async def main() -> None:
        async with bed_of(StubUpstream()) as bed:
            client = await bed.client()
            await client.get()  # so that the next head is not the first of its connection
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\n")
            await until(lambda: bed.site.clients and next(iter(bed.site.clients)).has_more())
            await client.send(f"{ASK}Content-Length: 4\r\n\r\nab".encode())
            await until(lambda: next(iter(bed.site.clients)).exchange is not None)
            await client.send(b"cd")
            await client.response()
            record = await bed.record()
            assert record.timers.receive is not None
            assert record.timers.receive > 0
            assert record.body_bytes == 4

    run(main())


def test_timers_in_the_access_line() -> None:
    """logging.access.timers: every line says where the time went, with the reason that the record has."""

    async def main() -> None:
        async with bed_of(StubUpstream(), timers=True) as bed:
            client = await bed.client()
            await client.get()
            (line,) = await bed.logged()
            assert {"receive_ms", "queue_ms", "connect_ms", "first_byte_ms"} <= set(line)
            assert line["first_byte_ms"] <= line["duration_ms"]
            assert bed.records() == []
            await bed.backends[0].stop()
            for live in bed.plane.table.rows.values():
                live.http.close_idle()
            await client.get()
            (_, line) = await bed.logged(2)
            record = await bed.record()
            assert (line["reason"], record.summary.reason) == ("connect_failed", "connect_failed")
            assert (record.watched, record.timers.connect is not None) == (True, True)
            assert json.dumps(line).count("first_byte") == 0

    run(main())


def test_lists_are_filtered() -> None:
    """By route, by status or its hundred, and by number."""

    async def main() -> None:
        routes = (
            {"name": "fixed", "path_prefix": "/f", "pool": "", "fixed": FixedResponse(503, b"", "text/plain")},
            {},
        )
        async with bed_of(StubUpstream(), rules=Decisions(keep=9, sample=1.0), routes=routes) as bed:
            client = await bed.client()
            for path in ("/f", "/", "/f", "/"):
                await client.get(path)
            await bed.logged(4)
            newest = bed.site.decisions.newest
            assert [one.route for one in newest(9, "", 0)] == ["all", "fixed", "all", "fixed"]
            assert [one.route for one in newest(3, "", 0)] == ["all", "fixed", "all"]
            assert [one.status for one in newest(9, "fixed", 0)] == [503, 503]
            assert [one.status for one in newest(9, "", 5)] == [503, 503]
            assert [one.status for one in newest(9, "", 200)] == [200, 200]
            assert newest(9, "fixed", 2) == []

    run(main())
