"""Splits: which arm a request goes to, what keeps it there, and what happens when an arm cannot serve."""

from __future__ import annotations

import random
import re
from collections import Counter
from typing import Any

import pytest
from doubles.http_plane import Client, HttpPlane, Response, run
from doubles.stub_upstream import StubUpstream, answer, answering

from gogate_py.policy.splitter import SplitCookie
from gogate_py.snapshot import Arm, BackendState, Breaker, Cache, FixedResponse, Sticky

SECRET = b"s" * 32
STICKY = Sticky("cookie", max_age=600.0, secret=SECRET)
POOLS: dict[str, tuple[int, ...]] = {"stable": (0,), "canary": (1,)}


def arms(stable: int, canary: int) -> tuple[Arm, ...]:
    return Arm("stable", stable), Arm("canary", canary, canary=True)


def bed_of(stable: int, canary: int, seed: int = 1, /, **fields: Any) -> Seeded:
    """A bed with one backend in each of two arms, which answer their names."""
    return Seeded(
        StubUpstream(answering(answer(b"stable"))),
        StubUpstream(answering(answer(b"canary"))),
        routes=({"pool": "", "arms": arms(stable, canary), **fields},),
        pools=POOLS,
        seed=seed,
    )


class Seeded(HttpPlane):
    """A bed whose chance is known."""

    def __init__(self, *backends: StubUpstream, seed: int, **settings: Any) -> None:
        super().__init__(*backends, **settings)
        self.seed = seed

    async def __aenter__(self) -> Seeded:
        await super().__aenter__()
        self.plane.random = random.Random(self.seed)
        return self

    async def weigh(self, stable: int, canary: int) -> None:
        """Other weights, as the admin API would set them."""
        self.routes = ({**self.routes[0], "arms": arms(stable, canary)},)
        await self.apply()

    async def down(self, *rows: int) -> None:
        """These backends are down, the others up."""
        self.states = {row: BackendState(row, row not in rows, False, "probe failed") for row in (0, 1)}
        await self.apply()


def cookie_of(response: Response) -> str | None:
    """The name=value that a response sets."""
    found = re.search(rb"\r\nset-cookie: ([^;\r\n]*)", response.head, re.IGNORECASE)
    return found[1].decode() if found else None


async def arm_of(client: Client, fields: str = "") -> str:
    response = await client.get("/", fields)
    assert response.status == 200
    return response.body.decode()


# --- shares


def test_shares_follow_the_weights() -> None:
    """A request without anything to stick to goes by chance: 20 of 100 within four standard deviations."""

    async def main() -> None:
        async with bed_of(80, 20) as bed:
            client = await bed.client()
            got = Counter([await arm_of(client) for _ in range(1500)])
            assert abs(got["canary"] - 300) < 4 * (1500 * 0.2 * 0.8) ** 0.5
            assert bed.site.counts["all"].arms == got

    run(main())


@pytest.mark.parametrize(("stable", "canary", "arm"), [(1, 0, "stable"), (0, 1, "canary"), (100, 0, "stable")])
def test_weight_zero_takes_nobody(stable: int, canary: int, arm: str) -> None:
    """An arm of weight 0 gets no new request."""

    async def main() -> None:
        async with bed_of(stable, canary) as bed:
            client = await bed.client()
            assert {await arm_of(client) for _ in range(100)} == {arm}

    run(main())


def test_every_weight_is_zero() -> None:
    """A split without any weight serves nobody but those who ask for an arm."""

    async def main() -> None:
        async with bed_of(0, 0) as bed:
            client = await bed.client()
            response = await client.get()
            assert (response.status, response.problem["reason"]) == (503, "no_backend")
            assert await arm_of(client, "X-Canary: always\r\n") == "canary"

    run(main())


@pytest.mark.parametrize("by", ["header:X-Tenant", "ip"])
def test_sticky_by_key(by: str) -> None:
    """The same key has the same arm, on any connection and after weights grow: only the growing arm gets more."""

    async def main() -> None:
        async with bed_of(90, 10, sticky=Sticky(by)) as bed:
            bed.trusted = ("127.0.0.1/32",)
            await bed.apply()

            async def all_arms() -> dict[int, str]:
                client = await bed.client()
                field = "X-Tenant: t%d\r\n" if by != "ip" else "X-Forwarded-For: 10.1.%d.7\r\n"
                return {n: await arm_of(client, field % n) for n in range(200)}

            first = await all_arms()
            assert first == await all_arms()
            assert 5 <= Counter(first.values())["canary"] <= 40
            await bed.weigh(50, 50)
            second = await all_arms()
            assert {n for n, arm in first.items() if arm == "canary"} <= {n for n, a in second.items() if a == "canary"}
            assert 70 <= Counter(second.values())["canary"] <= 130

    run(main())


# --- the override header


def test_override_header() -> None:
    """``always`` asks for the canary and ``never`` for the other arm, whatever the weights; anything else says
    nothing."""

    async def main() -> None:
        async with bed_of(100, 0, sticky=STICKY) as bed:
            client = await bed.client()
            assert await arm_of(client, "X-Canary: always\r\n") == "canary"
            assert await arm_of(client, "x-canary: ALWAYS\r\n") == "canary"
            assert await arm_of(client, "X-Canary: never\r\n") == "stable"
            assert await arm_of(client, "X-Canary: yes\r\n") == "stable"
            response = await client.get("/", "X-Canary: always\r\n")
            assert cookie_of(response) is None  # asking once makes nobody stick
            await bed.weigh(0, 100)
            assert await arm_of(client, "X-Canary: never\r\n") == "stable"

    run(main())


@pytest.mark.parametrize(("header", "arm"), [("", "stable"), ("X-Try", "stable"), ("X-Canary", "canary")])
def test_override_header_is_configurable(header: str, arm: str) -> None:
    """The header has the configured name, and there may be none."""

    async def main() -> None:
        async with bed_of(100, 0, canary_header=header) as bed:
            assert await arm_of(await bed.client(), "X-Canary: always\r\n") == arm

    run(main())


# --- the cookie


def test_cookie_is_set_once_and_honoured() -> None:
    """A new client gets a cookie with its first answer; whoever brings it stays in its arm and gets no other one."""

    async def main() -> None:
        async with bed_of(50, 50, sticky=STICKY) as bed:
            client = await bed.client()
            seen = set()
            for _ in range(12):
                first = await client.get()
                line = re.search(rb"\r\nset-cookie: ([^\r\n]*)", first.head, re.IGNORECASE)
                assert line is not None
                assert line[1].endswith(b"; Path=/; Max-Age=600; HttpOnly; SameSite=Lax")
                cookie = cookie_of(first)
                for fields in (f"Cookie: {cookie}\r\n", f"Cookie: a=b; {cookie}; c=d\r\n"):
                    again = await client.get("/", fields)
                    assert again.body == first.body
                    assert cookie_of(again) is None
                seen.add(first.body)
            assert seen == {b"stable", b"canary"}

    run(main())


def test_weight_zero_keeps_who_is_stuck() -> None:
    """A client stuck to an arm stays when its weight becomes 0; new clients, and cookies that nobody signed, do not get
    in."""

    async def main() -> None:
        async with bed_of(0, 1, sticky=STICKY) as bed:
            client = await bed.client()
            cookie = cookie_of(await client.get())
            await bed.weigh(1, 0)
            assert await arm_of(client, f"Cookie: {cookie}\r\n") == "canary"
            assert await arm_of(client) == "stable"
            forged = "gogate_arm=" + SplitCookie(b"other").write(b"A" * 16, "canary").decode()
            assert await arm_of(client, f"Cookie: {forged}\r\n") == "stable"
            assert await arm_of(client, f"Cookie: {cookie}; {forged}\r\n") == "stable"  # of two none is believed

    run(main())


def test_growing_canary_moves_only_who_must() -> None:
    """When the canary's weight grows, clients of the canary stay, and who is moved gets one new cookie."""

    async def main() -> None:
        async with bed_of(80, 20, sticky=STICKY) as bed:
            client = await bed.client()
            first = [await client.get() for _ in range(60)]
            await bed.weigh(50, 50)
            moved = 0
            for before in first:
                after = await client.get("/", f"Cookie: {cookie_of(before)}\r\n")
                if before.body == b"canary":
                    assert after.body == b"canary"
                assert (cookie_of(after) is not None) == (after.body != before.body)
                moved += after.body != before.body
            assert 0 < moved < 40

    run(main())


def test_cookie_survives_another_fields_and_bodies() -> None:
    """The cookie is put on answers of any framing, and beside those of the backend."""

    async def main() -> None:
        chunked = b"HTTP/1.1 200 OK\r\nSet-Cookie: own=1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        backend = StubUpstream(answering(chunked, answer(fields=b"Set-Cookie: own=1\r\n"), answer(status="304 Not")))
        settings: dict[str, Any] = {"routes": ({"pool": "", "arms": (Arm("default", 1),), "sticky": STICKY},)}
        async with HttpPlane(backend, **settings) as bed:
            client = await bed.client()
            for _ in range(2):
                response = await client.get()
                assert response.body == b"ok"
                assert response.head.lower().count(b"\r\nset-cookie: ") == 2
            assert b"gogate_arm=" in (await client.get("/", method="HEAD")).head

    run(main())


def test_answers_before_the_split_have_no_cookie() -> None:
    """Who was not sent to an arm is not stuck to one."""

    async def main() -> None:
        async with bed_of(50, 50, sticky=STICKY, deny=("127.0.0.0/8",)) as bed:
            response = await (await bed.client()).get()
            assert response.status == 403
            assert cookie_of(response) is None

    run(main())


def test_stored_answers_carry_no_cookie() -> None:
    """The cookie is each client's own: a stored answer is given without the one that came with it."""

    async def main() -> None:
        async with bed_of(50, 50, sticky=STICKY, cache=Cache(60.0, 10, 10_000)) as bed:
            client = await bed.client()
            first, second = await client.get(), await client.get()
            assert cookie_of(first) is not None
            assert second.fields["x-cache"] == "hit"
            assert cookie_of(second) is None

    run(main())


# --- an arm that cannot serve


@pytest.mark.parametrize("how", ["down", "draining", "weight", "breaker", "ejected"])
def test_fallback(how: str) -> None:
    """An arm without a usable backend, for whatever reason, sends its requests to another one; that is counted."""

    async def main() -> None:
        breaker = Breaker(1, 1, 1, 60.0) if how == "breaker" else None
        bad = StubUpstream(answering(answer(b"", "500 No")))
        bed = Seeded(
            StubUpstream(answering(answer(b"stable"))),
            bad,
            routes=({"pool": "", "arms": arms(1, 0)},),
            pools=POOLS,
            seed=1,
            breaker=breaker,
        )
        async with bed:
            client = await bed.client()
            if how == "down":
                await bed.down(1)
            elif how == "draining":
                bed.plane.apply_states([BackendState(1, True, True)])
            elif how == "weight":
                bed.weights = {1: 0}
                await bed.apply()
            elif how == "breaker":
                assert (await client.get("/", "X-Canary: always\r\n")).status == 500
            else:
                bed.plane.apply_states([BackendState(1, False, False, "ejected")])
            before = dict(bed.site.counts["all"].arms)
            for _ in range(3):
                assert await arm_of(client, "X-Canary: always\r\n") == "stable"
            assert bed.site.counts["all"].fallbacks == {"canary": 3}
            assert bed.site.counts["all"].arms == {**before, "stable": 3}

    run(main())


def test_no_fallback() -> None:
    """``splitFallback: none`` answers 503 rather than ask another arm; the other arms serve as ever."""

    async def main() -> None:
        async with bed_of(1, 0, arm_fallback=False) as bed:
            client = await bed.client()
            await bed.down(1)
            response = await client.get("/", "X-Canary: always\r\n")
            assert (response.status, response.problem["reason"]) == (503, "no_backend")
            assert await arm_of(client) == "stable"
            assert bed.site.counts["all"].fallbacks == {}

    run(main())


def test_nobody_to_fall_back_to() -> None:
    """When no arm has a usable backend the answer is 503, and nothing is counted as fallen back. An arm of weight 0 is
    no refuge."""

    async def main() -> None:
        async with bed_of(1, 1) as bed:
            client = await bed.client()
            await bed.down(0, 1)
            assert (await client.get()).status == 503
            assert bed.site.counts["all"].fallbacks == {}
            await bed.weigh(1, 0)
            await bed.down(0)
            assert (await client.get()).status == 503

    run(main())


def test_fallback_keeps_the_cookie() -> None:
    """A client whose arm is down for a while is served elsewhere, and back in its arm when that is up again."""

    async def main() -> None:
        async with bed_of(50, 50, sticky=STICKY) as bed:
            client = await bed.client()
            first = await client.get()
            while first.body != b"canary":
                first = await client.get()
            fields = f"Cookie: {cookie_of(first)}\r\n"
            await bed.down(1)
            meanwhile = await client.get("/", fields)
            assert (meanwhile.body, cookie_of(meanwhile)) == (b"stable", None)
            await bed.down()
            assert await arm_of(client, fields) == "canary"

    run(main())


def test_a_try_stays_in_its_arm() -> None:
    """A request is tried again on another backend of its arm, not of another one."""

    async def main() -> None:
        backends = [StubUpstream(), StubUpstream(answering(answer(b"", "503 No"))), StubUpstream()]
        pools: dict[str, tuple[int, ...]] = {"stable": (0,), "canary": (1, 2)}
        bed = HttpPlane(*backends, routes=({"pool": "", "arms": arms(1, 0)},), pools=pools)
        bed.backups = {2}
        async with bed:
            client = await bed.client()
            assert (await client.get("/", "X-Canary: always\r\n")).status == 200
            assert [backend.requests for backend in backends] == [0, 1, 1]

    run(main())


def test_gateway_answer_needs_no_arm() -> None:
    """A fixed response of a route with a split is given without choosing an arm."""

    async def main() -> None:
        async with bed_of(1, 1, fixed=FixedResponse(200, b"here", "text/plain")) as bed:
            assert (await (await bed.client()).get()).body == b"here"
            assert bed.site.counts["all"].arms == {}

    run(main())
