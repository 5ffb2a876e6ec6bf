"""The Basic stage: whose password it is, what is remembered, what guessing costs."""

from __future__ import annotations

import asyncio
import base64
import threading

import bcrypt
import pytest
from token_maker import AuthRequest

from gogate_py.errors import Failure
from gogate_py.middleware import auth_basic
from gogate_py.middleware.auth_basic import REASONS, BasicAuthStage, Passwords
from gogate_py.middleware.chain import Refusal
from gogate_py.snapshot import BasicAuth

#: htpasswd -nbB -C 4 alice "correct horse"
ALICE = bcrypt.hashpw(b"correct horse", bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$", 1)
ZOE = bcrypt.hashpw("pässword".encode(), bcrypt.gensalt(4)).decode()
USERS = (("alice", ALICE), ("Zoë", ZOE))


def basic(user: str, password: str, scheme: str = "Basic") -> AuthRequest:
    """A request with these credentials."""
    data = base64.b64encode(f"{user}:{password}".encode()).decode()
    return AuthRequest({b"authorization": f"{scheme} {data}".encode()})


class World:
    """A worker's passwords with a clock; comparisons are counted, and made by ``compare`` or by bcrypt."""

    def __init__(self, users: tuple[tuple[str, str], ...] = USERS) -> None:
        self.now = 100.0
        self.compared: list[tuple[bytes, bytes]] = []
        self.gate: threading.Event | None = None
        self.passwords = Passwords(lambda: self.now, self._compare)
        self.stage = BasicAuthStage(BasicAuth(users, "X-User"), self.passwords)

    def _compare(self, password: bytes, hashed: bytes) -> bool:
        self.compared.append((password, hashed))
        if self.gate is not None:
            self.gate.wait(10)
        return bcrypt.checkpw(password, hashed)

    async def judge(self, request: AuthRequest) -> str:
        """The word of the outcome, waited for where it has to be; "" when it passes."""
        outcome = self.stage(request)
        if outcome is not None and not isinstance(outcome, Refusal):
            outcome = await outcome
        return outcome.counted if outcome else ""


def run(coroutine: object, world: World) -> None:
    """Run a test's coroutine and end the threads."""
    try:
        asyncio.run(coroutine)  # type: ignore[arg-type]  # a coroutine of None
    finally:
        world.passwords.close()


@pytest.mark.parametrize(
    ("request_", "reason", "user"),
    [
        (basic("alice", "correct horse"), "", "alice"),
        (basic("alice", "correct horse", "bASIC  "), "", "alice"),
        (basic("Zoë", "pässword"), "", "Zoë"),
        (basic("alice", "wrong"), "wrong_password", ""),
        (basic("alice", ""), "wrong_password", ""),
        (basic("alice", "correct horse "), "wrong_password", ""),
        (basic("Alice", "correct horse"), "wrong_password", ""),
        (basic("bob", "correct horse"), "wrong_password", ""),
        (basic("", "correct horse"), "wrong_password", ""),
        (basic("alice", "x" * 73), "malformed", ""),
        (basic("alice", "correct horse\0"), "malformed", ""),
        (basic("ali\nce", "x"), "malformed", ""),
        (AuthRequest(), "missing", ""),
        (AuthRequest({b"authorization": b"Bearer x"}), "missing", ""),
        (AuthRequest({b"authorization": b"Basic"}), "malformed", ""),
        (AuthRequest({b"authorization": b"Basic YWxpY2U"}), "malformed", ""),
        (AuthRequest({b"authorization": b"Basic YWxpY2U="}), "malformed", ""),
        (AuthRequest({b"authorization": b"Basic YWxp-_=="}), "malformed", ""),
        (AuthRequest({b"authorization": b"Basic YTpi, Basic YTpi"}), "malformed", ""),
        (AuthRequest({b"authorization": b"Basic " + b"YWFh" * 600}), "malformed", ""),
        (AuthRequest({b"authorization": b"Basic /zp4"}), "wrong_password", ""),
    ],
)
def test_whose_password_it_is(request_: AuthRequest, reason: str, user: str) -> None:
    """RFC 7617: base64 of name:password in UTF-8; who passes is told to the backend, and the password is not."""
    world = World()

    async def main() -> None:
        request = AuthRequest(request_.fields)
        assert await world.judge(request) == reason
        assert request.user == user
        if reason:
            assert reason in REASONS
            assert request.untouched
        else:
            assert request.withheld == [b"authorization"]
            assert request.forwarded == {b"X-User": b"alice" if user == "alice" else b"Zo%C3%AB"}
        compared = len(world.compared)
        explained = world.stage.explain(AuthRequest(request_.fields))
        assert explained.facts["reason"] == reason
        assert explained.outcome == (world.stage._refusals[reason] if reason else None)
        assert len(world.compared) - compared == (reason in ("", "wrong_password"))

    run(main(), world)


def test_the_challenge() -> None:
    """RFC 7617 section 2.1: realm, and charset because names and passwords are UTF-8."""
    refusal = World().stage(AuthRequest())
    assert isinstance(refusal, Refusal)
    assert (refusal.failure, refusal.lines) == (
        Failure.UNAUTHORIZED, b'WWW-Authenticate: Basic realm="gogate", charset="UTF-8"\r\n',
    )  # fmt: skip


def test_verdicts_are_remembered_for_a_time() -> None:
    """Good ones for 10 minutes, bad ones for 10 seconds: the same guess again costs no bcrypt."""
    world = World()

    async def main() -> None:
        for seconds, word in ((auth_basic.GOOD_FOR, ""), (auth_basic.BAD_FOR, "wrong_password")):
            world.compared.clear()
            password = "wrong" if word else "correct horse"
            for _ in range(5):
                assert await world.judge(basic("alice", password)) == word
            assert len(world.compared) == 1
            world.now += seconds - 0.1
            assert await world.judge(basic("alice", password)) == word
            assert len(world.compared) == 1
            world.now += 0.1
            assert await world.judge(basic("alice", password)) == word
            assert len(world.compared) == 2

    run(main(), world)


def test_a_changed_password_counts_at_once() -> None:
    """Another hash is another entry: the old password is out, whatever was remembered."""
    world = World()

    async def main() -> None:
        assert await world.judge(basic("alice", "correct horse")) == ""
        world.stage = BasicAuthStage(BasicAuth((("alice", ZOE),)), world.passwords)
        assert await world.judge(basic("alice", "correct horse")) == "wrong_password"
        assert await world.judge(basic("alice", "pässword")) == ""

    run(main(), world)


def test_unknown_names_cost_what_known_ones_do() -> None:
    """One comparison with a real user's hash, the same one for the same name; never a way in with his password."""
    world = World()

    async def main() -> None:
        for password in ("correct horse", "pässword", "x"):
            assert await world.judge(basic("nobody", password)) == "wrong_password"
            assert await world.judge(basic("nobody", password)) == "wrong_password"
        assert len(world.compared) == 3
        assert len({hashed for _, hashed in world.compared}) == 1
        for number in range(40):
            await world.judge(basic(f"guess{number}", "x"))
        assert {hashed.decode() for _, hashed in world.compared} == {ALICE, ZOE}

    run(main(), world)


def test_a_name_with_the_password_of_its_decoy_is_still_nobody() -> None:
    """What is remembered as right for a hash belongs to the name that it was asked for."""
    world = World((("alice", ALICE),))

    async def main() -> None:
        assert await world.judge(basic("alice", "correct horse")) == ""
        assert await world.judge(basic("mallory", "correct horse")) == "wrong_password"
        assert await world.judge(basic("mallory", "correct horse")) == "wrong_password"

    run(main(), world)


def test_the_same_question_is_asked_once_and_only_so_many_different_ones() -> None:
    """Requests with equal credentials share a comparison; beyond MAX_WAITING different ones it is 503; a client that
    goes away takes nothing from the others."""
    world = World()
    world.gate = threading.Event()

    async def main() -> None:
        assert world.gate is not None
        same = [asyncio.create_task(world.judge(basic("alice", "correct horse"))) for _ in range(3)]
        await asyncio.sleep(0)
        guesses = [asyncio.create_task(world.judge(basic("alice", str(n)))) for n in range(auth_basic.MAX_WAITING - 1)]
        await asyncio.sleep(0)
        refusal = world.stage(basic("alice", "one more"))
        assert isinstance(refusal, Refusal)
        assert (refusal.failure, refusal.counted) == (Failure.AUTH_UNAVAILABLE, "busy")
        same[0].cancel()
        await asyncio.sleep(0)
        world.gate.set()
        assert await asyncio.gather(*same[1:]) == ["", ""]
        assert set(await asyncio.gather(*guesses)) == {"wrong_password"}
        assert len(world.compared) == auth_basic.MAX_WAITING
        assert await world.judge(basic("alice", "one more")) == "wrong_password"

    run(main(), world)


def test_guesses_do_not_push_out_who_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Good and bad verdicts have a table each, and each is bounded."""
    monkeypatch.setattr(auth_basic, "MAX_VERDICTS", 3)
    world = World()

    async def main() -> None:
        assert await world.judge(basic("alice", "correct horse")) == ""
        for number in range(10):
            await world.judge(basic("alice", str(number)))
        assert len(world.passwords._bad) == 3
        world.compared.clear()
        assert await world.judge(basic("alice", "correct horse")) == ""
        assert world.compared == []

    run(main(), world)


def test_nothing_remembered_can_be_read() -> None:
    """Neither name nor password nor hash stands in the tables, and another process has other digests."""
    world, other = World(), World()

    async def main() -> None:
        for one in (world, other):
            await one.judge(basic("alice", "correct horse"))

    run(main(), world)
    other.passwords.close()
    assert world.passwords._good.keys().isdisjoint(other.passwords._good)
    assert {len(digest) for digest in world.passwords._good} == {32}


def test_a_hash_that_bcrypt_refuses_lets_nobody_in() -> None:
    """Should such a hash get past the configuration's checks, it is nobody's password."""
    passwords = Passwords()
    for hashed in (b"$2b$04$" + b"~" * 53, b"$2b$99$" + b"a" * 53, b"", b"correct horse"):
        assert passwords.compare_now(b"correct horse", hashed) is False
    assert passwords.compare_now(b"correct horse", ALICE.encode()) is True


def test_without_users_nobody_passes() -> None:
    """An empty list is closed, not open."""

    async def main() -> None:
        assert await world.judge(basic("alice", "correct horse")) != ""

    world = World(())
    run(main(), world)
