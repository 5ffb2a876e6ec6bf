"""The JWT stage: answers, identity, fields for the backend, verified tokens, key sets that come and change."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from token_maker import NOW, SECRET, URL, AuthRequest, bearer, claims, key_set, public, rules, token

from gogate_py.errors import Failure
from gogate_py.messages import KeySet
from gogate_py.middleware import jwt_keys
from gogate_py.middleware.auth_jwt import REASONS, JwtAuthStage
from gogate_py.middleware.chain import Refusal
from gogate_py.middleware.jwt_keys import KeySets, Verified, VerifiedTokens
from gogate_py.snapshot import JwtAuth


class World:
    """A worker's key sets, a clock, and what the supervisor was asked."""

    def __init__(self, route: JwtAuth | None = None) -> None:
        self.now = NOW
        self.monotonic = 50.0
        self.asked: list[str] = []
        self.sets = KeySets(self.asked.append, lambda: self.monotonic)
        self.route = route or rules(jwks_url=URL)
        self.stage = self.new_stage()

    def new_stage(self) -> JwtAuthStage:
        """The stage as a snapshot makes it."""
        return JwtAuthStage(self.route, self.sets, lambda: self.now)

    def publish(self, *keys: dict[str, Any]) -> None:
        """The supervisor tells the keys; none = there are none any more."""
        self.sets.apply(KeySet(URL, key_set(*keys) if keys else b""))

    def judge(self, value: bytes) -> str:
        """The word of an outcome that needs no waiting, "" when the token passes."""
        return said(self.stage(bearer(value)))


def waiting(outcome: object) -> asyncio.Task[Refusal | None]:
    """The task of an outcome that has to be waited for."""
    assert asyncio.iscoroutine(outcome)
    return asyncio.create_task(outcome)


def said(outcome: object) -> str:
    """The word that an outcome is counted under."""
    assert outcome is None or isinstance(outcome, Refusal)
    return "" if outcome is None else outcome.counted


class TestAuthorization:
    """What stands in the Authorization field."""

    stage = JwtAuthStage(rules(realm='the "API"'), KeySets(lambda url: None), lambda: NOW)

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (None, "missing"),
            (b"", "missing"),
            (b"Basic YTpi", "missing"),
            (b"Bearerer x", "missing"),
            (b"Bearer", "malformed"),
            (b"Bearer ", "malformed"),
            (b"Bearer\t" + token(), "malformed"),
            (b"Bearer " + token() + b", Bearer " + token(), "malformed"),
            (b"Bearer " + token() + b" x", "malformed"),
            (b"Bearer realm=x", "malformed"),
            (b"Bearer " + b"a" * 9000, "malformed"),
            (b"bEARER   " + token(), ""),
        ],
    )
    def test_exactly_one_bearer_token(self, value: bytes | None, reason: str) -> None:
        """One field, the scheme in any case, one b64token (RFC 6750 section 2.1)."""
        assert said(self.stage(AuthRequest({} if value is None else {b"authorization": value}))) == reason

    def test_without_a_token_the_challenge_has_no_error(self) -> None:
        """RFC 6750 section 3.1: no error code for a request that brought nothing; the realm is a quoted string."""
        refusal = self.stage(AuthRequest())
        assert isinstance(refusal, Refusal)
        assert refusal.failure is Failure.UNAUTHORIZED
        assert refusal.lines == b'WWW-Authenticate: Bearer realm="the \\"API\\""\r\n'

    def test_every_word_is_listed(self) -> None:
        """The words that refusals are counted under are known beforehand."""
        assert {refusal.counted for refusal in self.stage._refusals.values()} == set(REASONS)


class TestIdentity:
    """What a good token gives the request."""

    def test_user_and_claims(self) -> None:
        """The user is sub; claims cannot be changed by a stage; a refused request stays as it is."""
        world = World(rules())
        request = bearer(token(claims(team=["a", "b"])))
        assert world.stage(request) is None
        assert request.user == "alice"
        assert dict(request.claims) == claims(team=["a", "b"])
        with pytest.raises(TypeError):
            request.claims["sub"] = "root"
        assert request.withheld == []
        refused = bearer(token(claims(iss="x")))
        assert world.judge(token(claims(iss="x"))) == "wrong_issuer"
        assert refused.untouched

    @pytest.mark.parametrize("times", [1, 2])
    def test_claims_become_fields_or_their_fields_are_withheld(self, times: int) -> None:
        """Named claims are told to the backend; where there is none, the client's own field must not take its place."""
        world = World(rules(forward_claims=(("sub", "X-User-Id"), ("roles", "X-Roles"), ("age", "X-Age"))))
        for _ in range(times):
            request = bearer(token(claims(sub="Zoë\r\nX-Admin: 1", roles=["a,b", "c"])))
            assert world.stage(request) is None
        assert request.forwarded == {b"X-User-Id": b"Zo%C3%AB%0D%0AX-Admin: 1", b"X-Roles": b"a%2Cb,c"}
        assert request.withheld == [b"x-age"]

    @pytest.mark.parametrize(
        ("made", "allowed"),
        [
            ({"role": "admin"}, True),
            ({"role": "owner"}, True),
            ({"role": "adm"}, False),
            ({"role": ["x", "admin"]}, True),
            ({"role": []}, False),
            ({"role": "admin owner"}, False),
            ({"role": {"admin": 1}}, False),
            ({}, False),
        ],
    )
    def test_required_claims(self, made: dict[str, Any], allowed: bool) -> None:
        """One of the values, as the claim or in its list; otherwise 403, again and again, and nobody is logged in."""
        world = World(rules(require_claims=(("role", ("admin", "owner")),)))
        for _ in range(2):
            request = bearer(token(claims(**made)))
            outcome = world.stage(request)
            assert (outcome is None) == allowed
            if isinstance(outcome, Refusal):
                assert (outcome.failure, outcome.counted) == (Failure.FORBIDDEN, "insufficient_scope")
                assert outcome.lines == b'WWW-Authenticate: Bearer realm="gogate", error="insufficient_scope"\r\n'
                assert request.untouched

    @pytest.mark.parametrize(
        ("required", "made", "allowed"),
        [
            ((("scope", ("read",)),), {"scope": "write read"}, True),
            ((("scope", ("read",)),), {"scope": "readonly"}, False),
            ((("scp", ("read",)),), {"scp": ["read"]}, True),
            ((("verified", ("true",)),), {"verified": True}, True),
            ((("verified", ("true",)),), {"verified": "true"}, True),
            ((("level", ("3",)),), {"level": 3}, True),
            ((("level", ("3",)),), {"level": 3.5}, False),
            ((("a", ("1",)), ("b", ("2",))), {"a": "1"}, False),
            ((("a", ("1",)), ("b", ("2",))), {"a": "1", "b": "2"}, True),
        ],
    )
    def test_scopes_numbers_and_several_claims(self, required: Any, made: dict[str, Any], allowed: bool) -> None:
        """scope and scp are lists of words (RFC 8693); numbers and booleans are as JSON writes them; all must hold."""
        world = World(rules(require_claims=required))
        assert (world.judge(token(claims(**made))) == "") == allowed


class TestVerifiedTokens:
    """A signature is checked once."""

    def test_a_token_seen_before_is_not_verified_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Until it expires, leeway included; then it is refused like any other."""
        world = World(rules())
        assert world.judge(token()) == ""
        monkeypatch.setattr("gogate_py.policy.token_check.check_signature", lambda *args: pytest.fail("verified again"))
        world.now = NOW + 329.9
        assert world.new_stage()(bearer(token())) is None
        monkeypatch.undo()
        world.now = NOW + 330
        assert world.judge(token()) == "expired"
        assert len(world.sets.verified) == 0

    def test_routes_with_other_settings_share_nothing(self) -> None:
        """What passes one route is judged anew by another."""
        world = World(rules())
        assert world.judge(token()) == ""
        for more in ({"audiences": ("x",)}, {"issuers": ("x",)}, {"algorithms": ("PS256",)}):
            other = JwtAuthStage(rules(**more), world.sets, lambda: NOW)
            assert said(other(bearer(token()))) != ""

    def test_refused_tokens_are_not_kept(self) -> None:
        """Whoever sends rubbish fills nothing."""
        world = World(rules())
        world.judge(token(key="rsa2"))
        world.judge(token(claims(exp=1)))
        assert len(world.sets.verified) == 0

    def test_the_table_is_bounded(self) -> None:
        """The oldest goes first."""
        table = VerifiedTokens(2)
        entry = Verified(None, 10.0, "", {}, True, (), ())
        for digest in (b"a", b"b", b"c"):
            table.put(digest, entry)
        assert [table.get(digest, None, 0.0) for digest in (b"a", b"b", b"c")] == [None, entry, entry]
        assert len(table) == 2

    def test_a_changed_key_set_forgets_its_tokens(self) -> None:
        """A key that was taken out is out for tokens that were seen, too; the same keys again change nothing."""
        world = World()
        world.publish(public("rsa", kid="a"))
        value = token(header={"kid": "a"})
        assert world.judge(value) == ""
        ring = world.sets.get(URL)
        world.publish(public("rsa", kid="a"))
        assert world.sets.get(URL) is ring
        world.publish(public("rsa2", kid="b"))
        world.sets._sources[URL].quiet_until = float("inf")
        assert world.judge(value) == "unknown_key"
        world.publish()
        assert world.judge(value) == "no_keys"


class TestKeySets:
    """Keys come from the supervisor; a request with a new kid waits for them."""

    def test_no_keys_close_the_route(self) -> None:
        """503 before the first key set and after the last was dropped: never open, never 401."""
        world = World()
        refusal = world.stage(bearer(token()))
        assert isinstance(refusal, Refusal)
        assert (refusal.failure, refusal.counted) == (Failure.AUTH_UNAVAILABLE, "no_keys")
        world.publish(public("rsa", kid="a"))
        world.publish()
        assert world.judge(token()) == "no_keys"
        assert world.asked == []

    def test_keys_that_are_none_close_the_route(self) -> None:
        """Should a message ever hold rubbish, the old keys are not used on."""
        world = World()
        world.publish(public("rsa"))
        world.sets.apply(KeySet(URL, b"rubbish"))
        assert world.judge(token()) == "no_keys"

    def test_a_new_kid_waits_for_the_next_key_set(self) -> None:
        """All that wait cause one question; with the new keys they pass."""

        async def main() -> None:
            world = World()
            world.publish(public("rsa", kid="a"))
            requests = [bearer(token(key="rsa2", header={"kid": "b"})) for _ in range(3)]
            waits = [waiting(world.stage(request)) for request in requests]
            await asyncio.sleep(0)
            assert world.asked == [URL]
            assert not any(wait.done() for wait in waits)
            world.publish(public("rsa", kid="a"), public("rsa2", kid="b"))
            assert await asyncio.gather(*waits) == [None, None, None]
            assert [request.user for request in requests] == ["alice"] * 3

        asyncio.run(main())

    def test_a_key_set_that_has_it_neither_refuses_and_is_quiet(self) -> None:
        """Asked in vain: 401, and for QUIET seconds unknown kids are 401 at once; a changed key set ends that."""

        async def main() -> None:
            world = World()
            world.publish(public("rsa", kid="a"))
            value = token(header={"kid": "new"})
            wait = waiting(world.stage(bearer(value)))
            await asyncio.sleep(0)
            world.publish(public("rsa", kid="a"))
            assert said(await wait) == "unknown_key"
            assert world.judge(value) == "unknown_key"
            world.monotonic += jwt_keys.QUIET - 0.1
            assert world.judge(value) == "unknown_key"
            assert world.asked == [URL]
            world.monotonic += 0.1
            wait = waiting(world.stage(bearer(value)))
            await asyncio.sleep(0)
            assert world.asked == [URL, URL]
            world.publish(public("rsa", kid="new"))
            assert await wait is None

        asyncio.run(main())

    def test_waiting_has_an_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No answer from the supervisor: 401 after WAIT."""
        monkeypatch.setattr(jwt_keys, "WAIT", 0.01)

        async def main() -> None:
            world = World()
            world.publish(public("rsa", kid="a"))
            assert said(await waiting(world.stage(bearer(token(header={"kid": "new"}))))) == "unknown_key"
            assert world.sets._sources[URL].waiters == 0

        asyncio.run(main())

    def test_only_so_many_wait(self) -> None:
        """One more is refused at once; a client that goes away makes room and takes nothing from the others."""

        async def main() -> None:
            world = World()
            world.publish(public("rsa", kid="a"))
            value = token(key="rsa2", header={"kid": "b"})
            waits = [waiting(world.stage(bearer(value))) for _ in range(jwt_keys.MAX_WAITERS)]
            await asyncio.sleep(0)
            assert world.judge(value) == "unknown_key"
            waits[0].cancel()
            await asyncio.sleep(0)
            waits.append(waiting(world.stage(bearer(value))))
            await asyncio.sleep(0)
            world.publish(public("rsa2", kid="b"))
            outcomes = await asyncio.gather(*waits, return_exceptions=True)
            assert isinstance(outcomes[0], asyncio.CancelledError)
            assert outcomes[1:] == [None] * jwt_keys.MAX_WAITERS
            assert world.asked == [URL]

        asyncio.run(main())

    def test_keys_dropped_while_waiting_are_a_503(self) -> None:
        """What is waited for may be that there are none."""

        async def main() -> None:
            world = World()
            world.publish(public("rsa", kid="a"))
            wait = waiting(world.stage(bearer(token(header={"kid": "b"}))))
            await asyncio.sleep(0)
            world.publish()
            assert said(await wait) == "no_keys"

        asyncio.run(main())


class TestExplain:
    """explain says what the call would do and changes nothing."""

    @pytest.mark.parametrize(
        ("value", "reason"),
        [(token(), ""), (token(key="rsa2"), "bad_signature"), (b"", "malformed"), (token(claims(role="x")), "")],
    )
    def test_the_same_verdict_without_traces(self, value: bytes, reason: str) -> None:
        """Verdict, user and fields; no entry, no change of the request; facts are plain data for --json."""
        world = World(rules(forward_claims=(("sub", "X-User"),)))
        request = bearer(value)
        explained = world.stage.explain(request)
        assert explained.outcome == world.stage(bearer(value))
        assert explained.facts["reason"] == reason
        assert request.untouched
        json.dumps(explained.facts)
        if not reason:
            assert (explained.facts["user"], explained.facts["forwarded"]) == ("alice", {"X-User": "alice"})

    def test_it_neither_remembers_nor_asks(self) -> None:
        """An unknown kid is a 401 that says keys would be fetched."""
        world = World()
        world.publish(public("rsa", kid="a"))
        assert world.stage.explain(bearer(token(header={"kid": "a"}))).outcome is None
        assert len(world.sets.verified) == 0
        explained = world.stage.explain(bearer(token(header={"kid": "b"})))
        assert said(explained.outcome) == "unknown_key"
        assert explained.facts["would_fetch_keys"] is True
        assert world.asked == []

    def test_missing_and_required(self) -> None:
        """No token, and a token without what is required."""
        world = World(rules(require_claims=(("role", ("admin",)),)))
        assert world.stage.explain(AuthRequest()).facts["reason"] == "missing"
        explained = world.stage.explain(bearer(token()))
        assert (said(explained.outcome), explained.facts["reason"]) == ("insufficient_scope", "insufficient_scope")


def test_secrets_that_cannot_be_are_refused_again() -> None:
    """The last line behind the configuration's checks: a stage is not made with a short secret or a PEM as one."""
    sets = KeySets(lambda url: None)
    for secret in (b"short", b"-----BEGIN PUBLIC KEY-----" + bytes(64)):
        with pytest.raises(ValueError):
            JwtAuthStage(rules(secret=secret, algorithms=("HS256",)), sets)
    with pytest.raises(ValueError):
        JwtAuthStage(rules(public_key="nothing"), sets)
    assert JwtAuthStage(rules(secret=SECRET, algorithms=("HS256",)), sets) is not None
