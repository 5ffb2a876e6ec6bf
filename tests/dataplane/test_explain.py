"""Explain: what it says of a request is what the data plane then does, and asking changes nothing."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import jwt
import pytest
from doubles.http_plane import RETRY, HttpPlane, Response, run, until
from doubles.stub_upstream import StubUpstream, Talk, answer, answering
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gogate_py.arena import Arena
from gogate_py.clock import monotonic, wall
from gogate_py.dataplane.explain import Explainer
from gogate_py.dataplane.shared_state import ActiveCount
from gogate_py.messages import KeySet
from gogate_py.middleware.question import BadQuestion, Question
from gogate_py.snapshot import (
    ApiKeyAuth,
    Arm,
    BackendState,
    BasicAuth,
    Breaker,
    Cors,
    FieldEdits,
    FixedResponse,
    HeadRules,
    JwtAuth,
    RateLimit,
    Redirect,
    Sticky,
    ValueMatch,
)

SECRET = b"0123456789abcdef" * 4
TOKENS = JwtAuth(("HS256",), ("us",), ("api",), secret=SECRET, forward_claims=(("sub", "X-Sub"),))
KEY = ApiKeyAuth((("tester", hashlib.sha256(b"k1").hexdigest()),), query="key")


def limit(row: int, burst: int, *keys: str, name: str = "") -> RateLimit:
    return RateLimit(row, 0.001, 1.0, burst, keys=keys or ("global",), name=name or f"limit{row}")


def route(name: str, pool: str = "one", **fields: Any) -> dict[str, Any]:
    if "path" in fields:
        fields.setdefault("path_prefix", "")
    return {"name": name, "pool": pool, **fields}


#: Every kind of condition, stage and choice; no catch-all.
ROUTES = (
    route("user", host="api.test", path="/api/users/{id}", methods=("GET", "HEAD"), rewrite_path="/u/{id}",
          auth=TOKENS, request_fields=FieldEdits(("X-Version",), (("Host", "{id}.inner.test"),))),
    route("v2", path_prefix="/api", headers=(ValueMatch("x-version", "exact", "2"),), rate_limits=(limit(1, 4, "ip"),)),
    route("beta", path_prefix="/api", query=(ValueMatch("beta", "regex", "1|true"),), strip_prefix="/api"),
    route("api", "hash", path_prefix="/api", strip_prefix="/api",
          rate_limits=(limit(2, 3, "header:X-Tenant"), limit(3, 40))),
    route("wild", host="*.wild.test", path_prefix="/", deny=("10.9.0.0/16",), max_body=10),
    route("inner", path_prefix="/inner", allow=("10.1.0.0/16", "192.0.2.0/24"), auth=KEY,
          rate_limits=(limit(4, 2, "api_key"),)),
    route("old", "", path="/old/*", redirect=Redirect("/new/{rest}?{query}", 308)),
    route("fixed", "", path="/fixed", fixed=FixedResponse(418, b"tea", "text/plain"), auth=KEY),
    route("split", "", path_prefix="/split", arms=(Arm("one", 3), Arm("hash", 1, True)),
          sticky=Sticky("header:X-Tenant")),
    route("lonely", "", path_prefix="/lonely", arms=(Arm("empty", 1), Arm("one", 0)), arm_fallback=False),
    route("spare", "", path_prefix="/spare", arms=(Arm("empty", 1), Arm("one", 1)), sticky=Sticky("ip")),
    route("cors", path_prefix="/cors", methods=("GET", "PUT"),
          cors=Cors(("https://app.test",), ("GET", "PUT"), ("*",), (), False, 60.0)),
    route("nobody", "empty", path_prefix="/nobody"),
    route("ip", "ip", path_prefix="/ip"),
)  # fmt: skip
POOLS: dict[str, tuple[int, ...]] = {"one": (0,), "hash": (1, 2, 3), "empty": (), "ip": (4, 5)}


def bearer(**claims: Any) -> str:
    payload = {"iss": "us", "aud": "api", "sub": "ann", "exp": int(wall()) + 600, **claims}
    return "Authorization: Bearer " + jwt.encode(payload, SECRET, "HS256")


class Bed(HttpPlane):
    """A bed of all these routes, whose backends say what they got; ``hash`` and ``ip`` pools pick by key."""

    def __init__(self, **more: Any) -> None:
        async def play(talk: Talk) -> None:
            while head := (await talk.request())[0]:
                host = re.search(rb"\r\nHost: ([^\r\n]*)", head)
                await talk.send(answer(head.split(b" ")[1] + b" " + (host[1] if host else b"")))

        super().__init__(
            *(StubUpstream(play) for _ in range(6)),
            **{"routes": ROUTES, "pools": POOLS, "trusted": ("127.0.0.1/32",), "pool": {"hash_key": "header:X-Tenant"},
               "rate_limit": limit(9, 60, "ip"), "head_rules": HeadRules(identity_headers=("x-sub",)), **more},
        )  # fmt: skip

    async def __aenter__(self) -> Bed:
        await super().__aenter__()
        return self

    def snapshot(self) -> Any:
        made = super().snapshot()
        kinds = {"hash": "consistent_hash", "ip": "ip_hash"}
        from msgspec.structs import replace

        return replace(made, pools=tuple(replace(p, balancer=kinds.get(p.name, p.balancer)) for p in made.pools))

    def explainer(self, *keys: KeySet) -> Explainer:
        assert self.plane.snapshot is not None
        return Explainer(self.plane.snapshot, self.plane.arena, 2, keys)

    def explain(self, question: Question) -> dict[str, Any]:
        """What explain says; the arena is what it was before."""
        before = self.memory()
        facts = self.explainer().explain(question)
        assert self.memory() == before
        return facts

    def memory(self) -> bytes:
        """What of the arena these tests can change: rows of backends and limits, and the states of limits by key."""
        cells = self.plane.arena.cells
        rows = bytes(cells[: Arena.backend(16)]) + bytes(cells[Arena.limiter(0) : Arena.limiter(64)])
        return rows + bytes(cells[Arena.limiter_bucket(0) :])

    async def served(self, question: Question) -> tuple[Response, dict[str, Any]]:
        """Really ask: the response, and the access line."""
        before = len(self.lines())
        client = await self.client()
        await client.send(question.head)
        response = await client.response(question.head.split(b" ")[0].decode("latin-1"))
        await until(lambda: len(self.lines()) == before + 1)
        client.close()
        return response, self.lines()[-1]


# --- the property

METHODS = st.sampled_from(["GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get"])
HOSTS = st.sampled_from(["api.test", "API.test:80", "a.wild.test", "b.a.wild.test", "wild.test", "other", "[::1]:8"])
PATHS = st.sampled_from([
    "/api/users/7", "/api/users/a.b", "/api/users/7/x", "/api", "/api/", "/api/x", "/apix", "/", "/inner/y", "/old/a/b",
    "/old/", "/old", "/fixed", "/split", "/split/x", "/lonely", "/spare", "/cors", "/nobody", "/ip/x", "/nowhere",
    "/api/../inner", "/inner/%2e%2e/fixed", "/a%2Fb", "/%zz", "//fixed", "/api//x", "/api/users/%41",
])  # fmt: skip
QUERIES = st.sampled_from([
    "", "", "", "?beta=1", "?beta=no", "?beta=1&beta=2", "?beta=%zz", "?key=k1", "?key=bad", "?x",
])  # fmt: skip


def headers() -> st.SearchStrategy[list[str]]:
    """Some fields, each at most once but for those at the end."""
    tenant = st.integers(0, 5).map(lambda n: f"X-Tenant: t{n}")
    once = st.fixed_dictionaries({}, optional={
        "version": st.sampled_from(["X-Version: 2", "x-version: 3", "X_Version: 2"]),
        "tenant": tenant,
        "key": st.sampled_from(["X-API-Key: k1", "X-API-Key: nope"]),
        "auth": st.sampled_from([0, 1, 2]).map(lambda n: ("Authorization: Bearer x", bearer(), bearer(iss="you"))[n]),
        "canary": st.sampled_from(["X-Canary: always", "X-Canary: never", "X-Canary: x"]),
        "origin": st.sampled_from(["Origin: https://app.test", "Origin: https://evil.test"]),
        "asked": st.sampled_from(["Access-Control-Request-Method: GET", "Access-Control-Request-Method: DELETE"]),
        "client": st.sampled_from(["10.1.2.3", "10.9.1.1", "192.0.2.7", "10.9.9.9, 10.1.1.1", "2001:db8::1"]).map(
            lambda text: f"X-Forwarded-For: {text}"),
        "odd": st.sampled_from(["Expect: 200-maybe", "Connection: close", "X-Sub: root", "Bad Name: 1",
                                "Content-Length: 0", "Upgrade: h2c"]),
    })  # fmt: skip
    return once.map(lambda found: list(found.values()))


QUESTIONS = st.builds(
    lambda method, host, path, query, lines: Question.of(method, f"http://{host}{path}{query}", lines, ""),
    METHODS, HOSTS, PATHS, QUERIES, headers(),
)  # fmt: skip


def compare(facts: dict[str, Any], response: Response, line: dict[str, Any], bed: Bed) -> None:
    """What was said against what was done."""
    outcome = facts["outcome"]
    assert line.get("route", "") == facts.get("route", "")
    if outcome["kind"] != "backend":
        assert (response.status, line["reason"]) == (outcome["status"], outcome["reason"])
        assert not line["backend"]
        if outcome["kind"] == "refused":
            assert int(response.fields.get("retry-after", 0)) == outcome.get("retry_after", 0)
        if "allow" in outcome:
            assert response.fields["allow"] == outcome["allow"]
        return
    assert response.status == 200
    place = next(row for row, backend in enumerate(bed.backends) if backend.address == line["backend"])
    assert {name for name, rows in POOLS.items() if place in rows} & set(outcome["pools"])
    if "backend" in outcome and outcome["backend"] is not None:
        assert line["backend"] == outcome["backend"]
    if response.body:  # not of HEAD
        path, host = response.body.decode().split(" ")
        assert path.partition("?")[0] == facts["forwarded"]["path"]
        assert host == facts["forwarded"]["host"]
    split = facts.get("split")
    if split is not None and split["arm"] is not None:
        expected = split.get("fallback", split["arm"])
        assert outcome["pools"] == [expected]
        assert place in POOLS[expected]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(QUESTIONS, min_size=4, max_size=10))
def test_explain_says_what_happens(questions: list[Question]) -> None:
    """For any requests one after the other: route, outcome, status and reason, Retry-After, arm, backend by hash and
    the forwarded path and Host are as explained; and no count has changed by explaining."""

    async def main() -> None:
        async with Bed() as bed:
            for question in questions:
                facts = bed.explain(question)
                response, line = await bed.served(question)
                compare(facts, response, line, bed)

    run(main())


def test_the_property_meets_every_route() -> None:
    """The requests of the property reach every route, and every kind of outcome of the stages."""

    async def main() -> None:
        seen = set()
        async with Bed() as bed:
            for method, url, lines in (
                ("GET", "http://api.test/api/users/7", [bearer()]),
                ("GET", "http://api.test/api/users/7", []),
                ("GET", "/api/x", ["X-Version: 2"]),
                ("GET", "/api/x?beta=1", []),
                *(("GET", "/api/x", ["X-Tenant: t1"]) for _ in range(4)),
                ("GET", "http://a.wild.test/", []),
                ("GET", "http://a.wild.test/", ["X-Forwarded-For: 10.9.1.1"]),
                ("GET", "/inner?key=k1", ["X-Forwarded-For: 10.1.1.1"]),
                ("GET", "/old/x?y=1", []),
                ("GET", "/fixed?key=k1", []),
                ("GET", "/split", ["X-Tenant: t3"]),
                ("GET", "/lonely", []),
                ("GET", "/spare", []),
                ("PUT", "/cors", ["Origin: https://app.test"]),
                ("OPTIONS", "/cors", ["Origin: https://app.test", "Access-Control-Request-Method: GET"]),
                ("DELETE", "/cors", []),
                ("GET", "/nobody", []),
                ("GET", "/ip", []),
                ("GET", "/nowhere", []),
                ("GET", "/%zz", []),
            ):
                question = Question.of(method, url, lines, "")
                facts = bed.explain(question)
                compare(facts, *await bed.served(question), bed)
                outcome = facts["outcome"]
                seen.add((facts.get("route", ""), outcome.get("reason", outcome["kind"])))
        assert seen == {
            ("user", "backend"), ("user", "unauthorized"), ("v2", "backend"), ("beta", "backend"), ("api", "backend"),
            ("api", "rate_limited"), ("wild", "backend"), ("wild", "forbidden_address"), ("inner", "backend"),
            ("old", "redirect"), ("fixed", "fixed_response"), ("split", "backend"), ("lonely", "no_backend"),
            ("spare", "backend"), ("cors", "backend"), ("cors", "preflight"), ("", "method_not_allowed"),
            ("nobody", "no_backend"), ("ip", "backend"), ("", "no_route"), ("", "bad_target"),
        }  # fmt: skip

    run(main())


# --- single facts


def get(url: str = "/", *lines: str) -> Question:
    return Question.of("GET", url, lines, "")


def test_candidates() -> None:
    """The routes that could have been it are there, with the one that is and why the others are not."""

    async def main() -> None:
        async with Bed() as bed:
            facts = bed.explain(get("http://api.test/api/users/7", bearer()))
            (matched,) = [one for one in facts["candidates"] if one["matched"]]
            assert matched["route"] == facts["route"] == "user"
            others = {one["route"]: one["why"] for one in facts["candidates"] if not one["matched"]}
            assert {"v2", "beta", "api"} <= set(others)
            assert all(others.values())
            assert "x-version" in others["v2"].lower()

    run(main())


def test_stages_in_order() -> None:
    """Every stage up to the one that decides, with its verdict; those behind it are not asked."""

    async def main() -> None:
        async with Bed() as bed:
            facts = bed.explain(get("/inner", "X-Forwarded-For: 10.1.1.1", "X-API-Key: k1"))
            assert [(one["stage"], one["verdict"]) for one in facts["stages"]] == [
                ("ip_rules", "passes"), ("rate_limit", "passes"), ("auth", "passes"), ("rate_limit", "passes"),
            ]  # fmt: skip
            facts = bed.explain(get("/inner", "X-Forwarded-For: 10.1.1.1", "X-API-Key: k2"))
            assert [one["verdict"] for one in facts["stages"]] == ["passes", "passes", "refuses"]
            assert facts["outcome"]["stage"] == "auth"
            facts = bed.explain(get("/inner", "X-Forwarded-For: 10.2.1.1", "X-API-Key: k1"))
            assert [one["verdict"] for one in facts["stages"]] == ["refuses"]

    run(main())


def test_tokens_left() -> None:
    """The tokens that are left are told as they are, over all workers, and asking takes none."""

    async def main() -> None:
        async with Bed() as bed:
            question = get("/api/x", "X-Tenant: t1")
            for left in (3, 2, 1, 0):
                for _ in range(3):
                    limits = {
                        one["name"]: one for stage in bed.explain(question)["stages"] for one in stage.get("limits", ())
                    }
                    assert (limits["limit2"]["left"], limits["limit2"]["key"]) == (left, "header:X-Tenant")
                    assert limits["limit3"]["left"] == 37 + left
                response, _ = await bed.served(question)
                assert response.status == (200 if left else 429)

    run(main())


def test_explain_changes_nothing_in_the_whole_arena() -> None:
    """Not one cell of the shared memory differs after explaining requests of every kind."""

    async def main() -> None:
        async with Bed(breaker=Breaker(1, 1, 1, 60.0)) as bed:
            before = hashlib.sha256(bed.plane.arena.cells).digest()
            for url in ("/api/x", "/split", "/ip", "/inner?key=k1", "/cors", "/nobody", "/nowhere"):
                bed.explainer().explain(get(url, "X-Tenant: t1", "X-Forwarded-For: 10.1.1.1"))
            assert hashlib.sha256(bed.plane.arena.cells).digest() == before

    run(main())


def test_state_of_backends() -> None:
    """Health, draining, weight, maxConnections and breakers of this moment are told, and who is left is the pick."""

    async def main() -> None:
        bed = HttpPlane(
            StubUpstream(answering(answer(b"", "500 No"))), *(StubUpstream() for _ in range(5)),
            breaker=Breaker(1, 1, 1, 60.0), pool={"max_connections": 1, "slow_start": 60.0},
        )  # fmt: skip
        bed.backups = {5}
        async with bed:
            pool = bed.plane.table.pools["default"]
            while not bed.backends[0].requests:
                await (await bed.client()).get()
            ActiveCount(bed.plane.arena, 3, 1, 2).begin()
            bed.weights = {4: 0}
            bed.states = {
                1: BackendState(1, False, False, "probe failed"),
                2: BackendState(2, True, True),
                5: BackendState(5, True, False, "", monotonic()),
            }
            await bed.apply()
            assert bed.plane.snapshot is not None
            facts = Explainer(bed.plane.snapshot, bed.plane.arena, 2).explain(get())
            (shown,) = facts["pools"]
            why = {one["address"]: (one["takes"], one["why_not"]) for one in shown["backends"]}
            address = [backend.address for backend in bed.backends]
            assert why == {
                address[0]: (False, "its breaker is open"),
                address[1]: (False, "probe failed"),
                address[2]: (False, "draining"),
                address[3]: (False, "it has maxConnections"),
                address[4]: (False, "weight 0"),
                address[5]: (True, "a backup, and others are usable"),
            }
            assert shown["backends"][5]["warming_up"]
            assert shown["backends"][0]["breaker"] == "open"
            assert (facts["outcome"]["pool"], facts["outcome"]["backend"]) == ("default", address[5])
            picked = pool.pick()
            assert picked is not None
            assert picked.backend.address == address[5]
            picked.backend.end()
            ActiveCount(bed.plane.arena, 3, 1, 2).end()

    run(main())


def test_panic_is_told() -> None:
    """Below panicThreshold explain says that health is ignored, and that backends that are down take work."""

    async def main() -> None:
        bed = HttpPlane(*(StubUpstream() for _ in range(3)), pool={"panic_threshold": 50})
        async with bed:
            bed.states = {row: BackendState(row, row == 0, False, "down") for row in range(3)}
            await bed.apply()
            assert bed.plane.snapshot is not None
            (shown,) = Explainer(bed.plane.snapshot, bed.plane.arena, 2).explain(get())["pools"]
            assert shown["panic"]
            assert [one["takes"] for one in shown["backends"]] == [True] * 3

    run(main())


def test_open_breakers_everywhere() -> None:
    """When nobody is left explain says so, with the Retry-After that a client would get."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(answering(answer(b"", "500 No"))), breaker=Breaker(1, 1, 1, 60.0)) as bed:
            assert (await (await bed.client()).get()).status == 500
            assert bed.plane.snapshot is not None
            outcome = Explainer(bed.plane.snapshot, bed.plane.arena, 2).explain(get())["outcome"]
            response = await (await bed.client()).get()
            assert (outcome["status"], outcome["reason"]) == (503, "breaker_open") == (
                response.status, response.problem["reason"]
            )  # fmt: skip
            assert abs(outcome["retry_after"] - int(response.fields["retry-after"])) <= 1

    run(main())


def test_splits_that_are_left_to_chance() -> None:
    """Without anything to stick to the arm is not foretold, only the shares; a new cookie is not, either."""

    async def main() -> None:
        arms = (Arm("one", 3), Arm("hash", 1))
        routes = (
            route("chance", "", path_prefix="/chance", arms=arms),
            route("cookie", "", path_prefix="/cookie", arms=arms, sticky=Sticky("cookie", secret=b"s")),
        )
        async with Bed(routes=routes) as bed:
            for path in ("/chance", "/cookie"):
                facts = bed.explain(get(path))
                assert facts["split"]["arm"] is None
                assert [arm["share"] for arm in facts["split"]["arms"]] == [0.75, 0.25]
                assert facts["outcome"]["pools"] == ["one", "hash"]
            response, _ = await bed.served(get("/cookie"))
            cookie = response.fields["set-cookie"].partition(";")[0]
            facts = bed.explain(get("/cookie", f"Cookie: {cookie}"))
            assert facts["split"]["arm"] == ("one" if bed.lines()[-1]["backend"] == bed.backends[0].address else "hash")

    run(main())


def test_split_with_an_arm_that_cannot_serve() -> None:
    """Where chance may take an arm that cannot serve and nobody stands in, both outcomes are told."""

    async def main() -> None:
        arms = (Arm("empty", 1), Arm("one", 1))
        routes = (
            route("strict", "", path_prefix="/strict", arms=arms, arm_fallback=False),
            route("kind", "", path_prefix="/kind", arms=arms),
        )
        async with Bed(routes=routes) as bed:
            assert bed.explain(get("/strict"))["outcome"] == {
                "kind": "backend", "pools": ["one"], "or_refused_in": ["empty"]
            }  # fmt: skip
            assert {(await bed.served(get("/strict")))[0].status for _ in range(30)} == {200, 503}
            assert bed.explain(get("/kind"))["outcome"]["backend"] == bed.backends[0].address
            assert {(await bed.served(get("/kind")))[0].status for _ in range(10)} == {200}
            cases = (("/strict", "never", 503), ("/strict", "always", 200), ("/kind", "never", 200))
            for path, header, status in cases:
                question = get(path, f"X-Canary: {header}")
                facts = bed.explain(question)
                assert facts["outcome"].get("status", 200) == status
                assert facts["split"].get("fallback") == ("one" if path == "/kind" else None)
                compare(facts, *await bed.served(question), bed)

    run(main())


def test_retries_and_timeouts() -> None:
    """The tries that a request would get depend on its method, and the timeouts are the route's."""

    async def main() -> None:
        import msgspec

        retry = msgspec.structs.replace(RETRY, attempts=3, methods=("idempotent", "POST"))
        async with HttpPlane(StubUpstream(), routes=({"retry": retry},)) as bed:
            assert bed.plane.snapshot is not None
            explainer = Explainer(bed.plane.snapshot, bed.plane.arena, 2)
            found = explainer.explain(get())
            assert found["retry"]["attempts"] == 3
            assert found["retry"]["on"] == ["connect", "reset", "502", "503", "504"]
            assert found["timeouts"]["response_header"] == 15.0
            post = explainer.explain(Question.of("POST", "/", [], ""))["retry"]
            assert (post["repeatable"], post["on"]) == (False, ["connect"])
            keyed = explainer.explain(Question.of("POST", "/", ["Idempotency-Key: 1"], ""))["retry"]
            assert keyed["repeatable"]

    run(main())


def test_keys_of_a_url() -> None:
    """Tokens are checked with the keys that the gateway has; without any it says that nobody can be let in."""

    async def main() -> None:
        rules = JwtAuth(("HS256",), ("us",), ("api",), jwks_url="https://issuer.test/keys")
        async with Bed(routes=(route("all", auth=rules),)) as bed:
            facts = bed.explainer().explain(get("/", bearer()))
            assert facts["outcome"]["reason"] == "auth_unavailable"

    run(main())


def test_a_password_is_compared_and_not_remembered() -> None:
    """Basic credentials are checked as the worker would."""

    async def main() -> None:
        import base64

        import bcrypt

        rules = BasicAuth((("ann", bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()),))
        async with Bed(routes=(route("all", auth=rules),)) as bed:
            for password, kind in ((b"ann:secret", "backend"), (b"ann:wrong", "refused")):
                field = "Authorization: Basic " + base64.b64encode(password).decode()
                assert bed.explain(get("/", field))["outcome"]["kind"] == kind

    run(main())


# --- questions


@pytest.mark.parametrize(
    ("method", "url", "lines", "client", "field"),
    [
        ("", "/", [], "", "method"),
        ("GE T", "/", [], "", "method"),
        ("GET", "", [], "", "url"),
        ("GET", "ftp://a/", [], "", "url"),
        ("GET", "a.test/x", [], "", "url"),
        ("GET", "/x y", [], "", "url"),
        ("GET", "/ü", [], "", "url"),
        ("GET", "/x#y", [], "", "url"),
        ("GET", "/\r\nX: y", [], "", "url"),
        ("GET", "/", ["no colon"], "", "header"),
        ("GET", "/", ["X: a\r\nY: b"], "", "header"),
        ("GET", "/", ["Host: a", "host: b"], "", "header"),
        ("GET", "/", [], "nowhere", "client_ip"),
        ("GET", "/", [], "10.0.0.1:80", "client_ip"),
    ],
)
def test_bad_questions(method: str, url: str, lines: list[str], client: str, field: str) -> None:
    """What is no request is refused, with the part that is wrong."""
    with pytest.raises(BadQuestion) as caught:
        Question.of(method, url, lines, client)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("url", "lines", "head"),
    [
        ("http://a.test/x?y=1", ["X-A:  1"], b"GET /x?y=1 HTTP/1.1\r\nHost: a.test\r\nX-A: 1\r\n\r\n"),
        ("http://a.test", [], b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        ("http://a.test?x", [], b"GET /?x HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        ("https://a.test/", ["Host: b.test"], b"GET / HTTP/1.1\r\nHost: b.test\r\n\r\n"),
        ("/x", [], b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ],
)
def test_good_questions(url: str, lines: list[str], head: bytes) -> None:
    """A question becomes the bytes of a request; a Host field stands above the one of the URL."""
    assert Question.of("GET", url, lines, "").head == head
