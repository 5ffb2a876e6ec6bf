"""Which arm a request goes to: shares, least movement, cookies, overrides, and in which order they decide."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.policy import splitter as module
from gogate_py.policy.hashing import stable_hash
from gogate_py.policy.splitter import ArmChoice, SplitCookie, Splitter, choose_arm, decide
from gogate_py.snapshot import Arm

SECRET = b"0123456789abcdef0123456789abcdef"
KEYS = [stable_hash(str(i).encode()) for i in range(1000)]
WEIGHTS = st.lists(st.integers(0, 1000), min_size=1, max_size=6)


def arms(*weights: int) -> Splitter:
    """Arms named p0, p1 … with these weights."""
    return Splitter([Arm(f"p{i}", weight) for i, weight in enumerate(weights)])


def rng(seed: int = 1) -> random.Random:
    """A generator with a fixed seed."""
    return random.Random(seed)


class TestChoose:
    """By key and by chance."""

    @pytest.mark.parametrize("weights", [(90, 10), (99, 1), (1, 1, 1), (50, 30, 20), (1, 1000000)])
    @pytest.mark.parametrize("keyed", [True, False])
    def test_shares_follow_weights(self, weights: tuple[int, ...], keyed: bool) -> None:
        """Every arm has its share, within four standard deviations of 20 000 choices."""
        splitter, generator = arms(*weights), rng()
        count = Counter(
            splitter.choose(stable_hash(f"user-{i}".encode()) if keyed else None, generator) for i in range(20000)
        )
        for index, weight in enumerate(weights):
            share = weight / sum(weights)
            assert abs(count[index] - 20000 * share) <= 4 * (20000 * share * (1 - share)) ** 0.5 + 1

    @settings(max_examples=100, deadline=None)
    @given(weights=WEIGHTS, data=st.data(), weight=st.integers(0, 2000))
    def test_a_changed_weight_moves_only_what_it_must(
        self, weights: list[int], data: st.DataObject, weight: int
    ) -> None:
        """A weight grows: keys move only to that arm; it shrinks: only away from it; whatever the other arms."""
        changed = data.draw(st.integers(0, len(weights) - 1))
        before, after = arms(*weights), arms(*weights[:changed], weight, *weights[changed + 1 :])
        for key in KEYS[:200]:
            old, new = before.choose(key, rng()), after.choose(key, rng())
            if weight >= weights[changed]:
                assert new in (old, changed)
            else:
                assert new == old or old == changed

    def test_a_growing_canary_takes_the_missing_share(self) -> None:
        """From 5 to 10 percent: a twentieth of the clients moves, and all of them to the canary."""
        small, large = arms(95, 5), arms(90, 10)
        keys = [stable_hash(f"user-{i}".encode()) for i in range(20000)]
        moved = [(small.choose(k, rng()), large.choose(k, rng())) for k in keys]
        changes = Counter(pair for pair in moved if pair[0] != pair[1])
        assert set(changes) == {(0, 1)}
        assert 850 < changes[0, 1] < 1150

    def test_the_order_of_arms_does_not_matter(self) -> None:
        """An arm is known by its pool: listed in another order the same keys go to the same pools."""
        one = Splitter([Arm("a", 3), Arm("b", 1), Arm("c", 2)])
        other = Splitter([Arm("c", 2), Arm("a", 3), Arm("b", 1)])
        for key in KEYS:
            first, second = one.choose(key, rng()), other.choose(key, rng())
            assert first is not None
            assert second is not None
            assert one.arms[first].pool == other.arms[second].pool

    @settings(max_examples=50, deadline=None)
    @given(weights=WEIGHTS, key=st.none() | st.integers(0, 2**64 - 1), seed=st.integers(0, 99))
    def test_weight_zero_is_never_chosen(self, weights: list[int], key: int | None, seed: int) -> None:
        """An arm of weight 0 gets nobody; without any weight there is no arm."""
        index = arms(*weights).choose(key, rng(seed))
        if any(weights):
            assert index is not None
            assert weights[index] > 0
        else:
            assert index is None

    def test_no_key_is_not_a_key(self) -> None:
        """None and 0 leave it to chance; they do not all go to one arm."""
        splitter, generator = arms(1, 1), rng()
        for key in (None, 0):
            assert len({splitter.choose(key, generator) for _ in range(50)}) == 2


class TestOverride:
    """The header that asks for an arm."""

    @pytest.mark.parametrize(
        ("canaries", "always", "never"),
        [
            ((False, False, False), 2, 0),
            ((True, False, False), 0, 1),
            ((False, True, False), 1, 0),
            ((False,), 0, None),
            ((), None, None),
        ],
    )
    def test_always_and_never(self, canaries: tuple[bool, ...], always: int | None, never: int | None) -> None:
        """Always is the arm marked canary, or the last; never is the first other one, weight 0 or not."""
        splitter = Splitter([Arm(f"p{i}", 0, canary) for i, canary in enumerate(canaries)])
        assert splitter.override("always") == splitter.override("Always") == always
        assert splitter.override("never") == never
        for other in ("", "true", "always ", "p1", "\x00", "ALWAYS\u0130"):
            assert splitter.override(other) is None


def test_fallbacks() -> None:
    """The other arms, heaviest first, in the order of the configuration where equal; never one of weight 0."""
    splitter = arms(10, 0, 50, 10, 30)
    assert splitter.fallback(0) == (2, 4, 3)
    assert splitter.fallback(1) == (2, 4, 0, 3)
    assert splitter.fallback(2) == (4, 0, 3)
    assert arms(5).fallback(0) == ()


class TestCookie:
    """What we sign, and what we believe."""

    @settings(max_examples=50, deadline=None)
    @given(pool=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True), seed=st.integers())
    def test_round_trip(self, pool: str, seed: int) -> None:
        """A cookie is read as it was written, is at most 103 bytes of cookie characters, and names the pool."""
        cookie = SplitCookie(SECRET)
        ident = cookie.new_id(rng(seed))
        value = cookie.write(ident, pool)
        assert cookie.read(value) == (ident, pool)
        assert len(ident) == 16
        assert len(value) <= 103
        assert b"." + pool.encode() + b"." in value
        assert not set(value) & set(b' ",;\\=')

    @settings(max_examples=200, deadline=None)
    @given(position=st.integers(0, 200), byte=st.integers(0, 255), cut=st.integers(0, 60))
    def test_any_change_is_noticed(self, position: int, byte: int, cut: int) -> None:
        """One other byte anywhere, a piece cut off at either end: not ours."""
        cookie = SplitCookie(SECRET)
        value = cookie.write(b"AAAAAAAAAAAAAAAA", "stable.v1")
        changed = bytearray(value)
        changed[position % len(value)] = byte
        if bytes(changed) != value:
            assert cookie.read(bytes(changed)) is None
        if cut:
            assert cookie.read(value[cut:]) is None
            assert cookie.read(value[:-cut]) is None

    @settings(max_examples=200, deadline=None)
    @given(value=st.binary(max_size=300))
    def test_nothing_else_is_ours(self, value: bytes) -> None:
        """Whatever bytes arrive: they are not ours, and nothing breaks."""
        assert SplitCookie(SECRET).read(value) is None

    def test_the_size_is_bounded(self) -> None:
        """A longer value than any of ours is not looked at, even well signed."""
        cookie = SplitCookie(SECRET)
        assert cookie.read(cookie.write(b"A" * 16, "p" * (256 - 40))) is not None
        assert cookie.read(cookie.write(b"A" * 16, "p" * (257 - 40))) is None

    def test_another_secret_is_not_ours(self) -> None:
        """Another gateway's cookie is read as none; an empty secret is refused, as everybody knows it."""
        assert SplitCookie(SECRET).read(SplitCookie(b"x" * 32).write(b"A" * 16, "p")) is None
        with pytest.raises(ValueError, match="empty secret"):
            SplitCookie(b"")

    def test_ids_differ(self) -> None:
        """Every new client has an id of its own."""
        generator = rng()
        assert len({SplitCookie.new_id(generator) for _ in range(1000)}) == 1000


class TestDecide:
    """A client with or without a cookie."""

    COOKIE = SplitCookie(SECRET)

    def test_a_new_client(self) -> None:
        """Without a cookie, or with one that is not ours, a client gets one, and stays with it."""
        splitter = arms(1, 1)
        for value in (None, b"", b"forged", SplitCookie(b"y" * 32).write(b"A" * 16, "p0")):
            choice = decide(splitter, self.COOKIE, value, rng(7))
            assert choice.why == module.NEW_CLIENT
            again = decide(splitter, self.COOKIE, choice.new_cookie, rng(8))
            assert again == ArmChoice(choice.index, module.COOKIE)

    def test_clients_stay_while_weights_change(self) -> None:
        """The canary grows: only those it takes get another cookie, with their old id, and only once."""
        before, after = arms(90, 10), arms(70, 30)
        generator = rng()
        moved = 0
        for _ in range(2000):
            first = decide(before, self.COOKIE, None, generator)
            second = decide(after, self.COOKIE, first.new_cookie, generator)
            if second.why == module.COOKIE:
                assert second == ArmChoice(first.index, module.COOKIE)
                continue
            moved += 1
            assert (first.index, second.index, second.why) == (0, 1, module.MOVED)
            assert self.COOKIE.read(second.new_cookie) == (first.new_cookie[:16], "p1")
            assert decide(after, self.COOKIE, second.new_cookie, generator) == ArmChoice(1, module.COOKIE)
        assert 320 < moved < 480

    def test_weight_zero_keeps_its_clients(self) -> None:
        """An arm of weight 0 keeps those who have its cookie, and gets nobody else."""
        value = self.COOKIE.write(b"A" * 16, "p1")
        assert decide(arms(100, 0), self.COOKIE, value, rng()) == ArmChoice(1, module.STUCK)
        assert decide(arms(0, 0), self.COOKIE, value, rng()) == ArmChoice(1, module.STUCK)
        assert {decide(arms(100, 0), self.COOKIE, None, rng(i)).index for i in range(200)} == {0}

    def test_an_arm_that_is_gone(self) -> None:
        """The client of an arm that no longer exists moves; where nobody has weight there is no arm and no cookie."""
        value = self.COOKIE.write(b"A" * 16, "old")
        choice = decide(arms(1, 1), self.COOKIE, value, rng())
        assert choice.why == module.MOVED
        assert choice.new_cookie.startswith(b"A" * 16)
        assert decide(arms(0, 0), self.COOKIE, value, rng()) == ArmChoice(None, module.NO_WEIGHT)


class TestChooseArm:
    """The order in which they decide."""

    COOKIE = SplitCookie(SECRET)

    def test_the_header_comes_first(self) -> None:
        """An override wins over cookie and key, and leaves the cookie alone; other values change nothing."""
        splitter = arms(100, 0)
        value = self.COOKIE.write(b"A" * 16, "p0")
        assert choose_arm(
            splitter, rng(), override="always", cookie=self.COOKIE, cookie_value=value, key=KEYS[0]
        ) == ArmChoice(1, module.OVERRIDE)
        assert choose_arm(
            splitter, rng(), override="perhaps", cookie=self.COOKIE, cookie_value=value
        ) == ArmChoice(0, module.COOKIE)

    def test_never_without_another_arm(self) -> None:
        """With one arm only, "never" cannot be granted: the split decides."""
        assert choose_arm(arms(1), rng(), override="never") == ArmChoice(0, module.CHANCE)

    def test_key_and_chance(self) -> None:
        """With a key its hash decides, without one chance does; and the outcome says so."""
        splitter = arms(1, 1)
        for key in KEYS[:20]:
            assert choose_arm(splitter, rng(), key=key) == ArmChoice(splitter.choose(key, rng(2)), module.KEY)
        for no_key in (None, 0):
            assert choose_arm(splitter, rng(), key=no_key).why == module.CHANCE
        assert choose_arm(arms(0, 0), rng(), key=KEYS[0]) == ArmChoice(None, module.NO_WEIGHT)
