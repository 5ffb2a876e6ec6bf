"""Splitter: which arm (pool) of a route a request goes to.

What decides, in this order:

    the request                                             arm                                        why
    carries the override header: always                     the canary arm (the last when none is)     OVERRIDE
    carries the override header: never                      the first other arm                        OVERRIDE
    sticky by cookie; our cookie, its arm has weight 0      that arm, for as long as it exists         STUCK
    sticky by cookie; our cookie, otherwise                 by the hash of the cookie's id             COOKIE, or MOVED
    sticky by cookie; none, or not one that we signed       by the hash of a new id                    NEW_CLIENT
    sticky by something else that the request has           by the hash of that                        KEY
    none of these                                           by chance                                  CHANCE
    every weight is 0, and nothing above names an arm       none                                       NO_WEIGHT

By hash is weighted rendezvous (Thaler and Ravishankar 1998; Schindelhauer and Schomaker 2005): every arm draws a number
from its pool's name and the key, and the largest wins. A weight that grows makes that arm win more keys and changes
nothing between the others; so a canary that goes from 5 to 10 percent takes the missing 5 percent, and nobody is moved
twice. Weight 0 never wins, neither by hash nor by chance.

The cookie is ``<id>.<pool name>.<signature>``. The id decides, not the name: whoever holds the cookie keeps its place
while weights change. The name matters to the clients of an arm of weight 0, who stay; that is what the signature
protects, nobody can write himself into such an arm. It is no secret and says nothing about the client.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from math import inf, log
from typing import Final, NamedTuple

from gogate_py.clock import Random
from gogate_py.policy.hashing import mix, stable_hash
from gogate_py.snapshot import Arm

OVERRIDE: Final = "the override header asks for it"
STUCK: Final = "the cookie's arm, which takes no new clients"
COOKIE: Final = "the cookie"
MOVED: Final = "the cookie; the weights have changed, or its arm is gone"
NEW_CLIENT: Final = "a new client, who gets a cookie"
KEY: Final = "the hash of the sticky key"
CHANCE: Final = "chance"
NO_WEIGHT: Final = "no arm has any weight"


class Splitter:
    """The arms of one route; an arm is known by its index."""

    __slots__ = ("_canary", "_cumulative", "_fallbacks", "_indexes", "_other", "_weighted", "arms")

    def __init__(self, arms: Sequence[Arm]) -> None:
        self.arms = tuple(arms)
        self._indexes = {arm.pool: index for index, arm in reversed(tuple(enumerate(arms)))}
        # (index, weight, seed) of those with any weight
        self._weighted = tuple((i, a.weight, stable_hash(a.pool.encode())) for i, a in enumerate(arms) if a.weight > 0)
        self._cumulative = list(accumulate(weight for _, weight, _ in self._weighted))
        marked = [index for index, arm in enumerate(arms) if arm.canary]
        self._canary = marked[0] if marked else len(self.arms) - 1 if arms else None
        others = [index for index in range(len(self.arms)) if index != self._canary]
        self._other = others[0] if others else None
        heaviest_first = [i for i, _, _ in sorted(self._weighted, key=lambda entry: -entry[1])]
        self._fallbacks = tuple(tuple(i for i in heaviest_first if i != index) for index in range(len(self.arms)))

    def index(self, pool: str) -> int | None:
        """The arm with this pool."""
        return self._indexes.get(pool)

    def choose(self, key: int | None, random: Random) -> int | None:
        """The arm of a 64-bit hash (None or 0: by chance); None when every weight is 0."""
        weighted = self._weighted
        if len(weighted) <= 1:
            return weighted[0][0] if weighted else None
        if not key:
            cumulative = self._cumulative
            return weighted[bisect_right(cumulative, int(random.random() * cumulative[-1]))][0]
        winner = 0
        least = inf
        for index, weight, seed in weighted:
            # -ln(u) / w is exponentially distributed with rate w: the least is arm i's with probability w_i / sum
            draw = -log((mix(key, seed) + 1) * 2.0**-64) / weight
            if draw < least:
                winner, least = index, draw
        return winner

    def override(self, value: str) -> int | None:
        """The arm that an override header asks for: "always" the canary, "never" the first other one; None for any
        other value, and where there is no such arm."""
        match value.lower():
            case "always":
                return self._canary
            case "never":
                return self._other
        return None

    def fallback(self, index: int) -> tuple[int, ...]:
        """The arms to try, in order, when this one has no usable backend: the others, heaviest first, none of weight
        0."""
        return self._fallbacks[index]


class SplitCookie:
    """Writes and reads the cookies of a sticky route. ``secret`` must not be empty."""

    #: Longer values are not looked at. Ours are shorter: a pool's name has at most 63 characters.
    MAX_SIZE: Final = 256
    _ID: Final = 16  # 96 bits in base64url
    _SIGNATURE: Final = 22  # 128 bits of the HMAC
    _PURPOSE: Final = b"gogate split cookie 1\0"

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if not secret:
            raise ValueError("a cookie signed with an empty secret can be forged by anybody")
        self._secret = secret

    @staticmethod
    def new_id(random: Random) -> bytes:
        """An id for a new client. It need not be unguessable: the signature is what is protected."""
        return urlsafe_b64encode(random.getrandbits(96).to_bytes(12, "big"))

    def write(self, ident: bytes, pool: str) -> bytes:
        """The cookie's value."""
        signed = ident + b"." + pool.encode()
        return signed + b"." + self._signature(signed)

    def read(self, value: bytes) -> tuple[bytes, str] | None:
        """The (id, pool name) of a cookie that we signed; None for anything else. The comparison takes the same time
        wherever a forged signature differs."""
        if not self._ID + self._SIGNATURE + 2 < len(value) <= self.MAX_SIZE:
            return None
        # A pool's name may hold dots: the id in front and the signature behind have fixed sizes.
        signed, signature = value[: -self._SIGNATURE - 1], value[-self._SIGNATURE :]
        if value[-self._SIGNATURE - 1] != 0x2E or signed[self._ID] != 0x2E:
            return None
        if not hmac.compare_digest(self._signature(signed), signature):
            return None
        return signed[: self._ID], signed[self._ID + 1 :].decode()

    def _signature(self, signed: bytes) -> bytes:
        return urlsafe_b64encode(hmac.digest(self._secret, self._PURPOSE + signed, "sha256")[:16])[: self._SIGNATURE]


class ArmChoice(NamedTuple):
    """The outcome. ``index`` None: no arm; ``why`` one of the phrases above; ``new_cookie``: the value that the client
    is to get, b"" = none."""

    index: int | None  # type: ignore[assignment]  # hides tuple.index, which has no use here
    why: str
    new_cookie: bytes = b""


def decide(splitter: Splitter, cookie: SplitCookie, value: bytes | None, random: Random) -> ArmChoice:
    """The arm of a client with this cookie value (None: without one)."""
    known = cookie.read(value) if value else None
    ident, pool = known if known is not None else (cookie.new_id(random), "")
    current = splitter.index(pool) if known is not None else None
    if current is not None and splitter.arms[current].weight == 0:
        return ArmChoice(current, STUCK)
    index = splitter.choose(stable_hash(ident), random)
    if index is None:
        return ArmChoice(None, NO_WEIGHT)
    if known is not None and index == current:
        return ArmChoice(index, COOKIE)
    return ArmChoice(index, NEW_CLIENT if known is None else MOVED, cookie.write(ident, splitter.arms[index].pool))


def choose_arm(
    splitter: Splitter,
    random: Random,
    *,
    override: str = "",
    cookie: SplitCookie | None = None,
    cookie_value: bytes | None = None,
    key: int | None = None,
) -> ArmChoice:
    """The arm of a request, by the table above. ``override`` is the value of the route's override header, ``cookie``
    is given where the route is sticky by cookie, ``key`` is the hash of what it is sticky by otherwise (None or 0: the
    request has none)."""
    if override:
        index = splitter.override(override)
        if index is not None:
            return ArmChoice(index, OVERRIDE)
    if cookie is not None:
        return decide(splitter, cookie, cookie_value, random)
    index = splitter.choose(key, random)
    if index is None:
        return ArmChoice(None, NO_WEIGHT)
    return ArmChoice(index, KEY if key else CHANCE)
