"""Split: which arm of a route a request goes to, and the cookie that keeps it there.

The decision is policy/splitter.py's; here is what it is made of: the override header, the sticky key, the cookie.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gogate_py.clock import Random
from gogate_py.middleware.chain import RequestView
from gogate_py.middleware.request_keys import Key, compile_key
from gogate_py.policy.hashing import stable_hash
from gogate_py.policy.splitter import ArmChoice, SplitCookie, Splitter, choose_arm
from gogate_py.snapshot import HttpRoute


class Choice(NamedTuple):
    """The arm of a request: its place in the split, its pool, why, and a Set-Cookie value (b"": none)."""

    arm: int
    pool: str
    why: str
    cookie: bytes


class Split:
    """The arms of one route and what chooses among them."""

    __slots__ = ("_by_cookie", "_cookie", "_cookie_text", "_key", "_override", "splitter")

    def __init__(self, route: HttpRoute) -> None:
        self.splitter = Splitter(route.arms)
        self._override = route.canary_header.lower().encode()
        self._key: Key | None = None
        self._cookie: SplitCookie | None = None
        sticky = route.sticky
        if sticky is None:
            return
        if sticky.by == "cookie":
            self._cookie = SplitCookie(sticky.secret)
            name = re.escape(sticky.cookie.encode())
            self._by_cookie = re.compile(rb"(?:^|;)[ \t]*%b=([^; \t]*)" % name).findall
            # Lax: a canary must not be lost by following a link; it carries no authority (SameSite, RFC 6265bis).
            self._cookie_text = b"%b=%%b; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax" % (
                sticky.cookie.encode(),
                int(sticky.max_age),
            )
        else:
            self._key = compile_key((sticky.by,))

    def choose(self, request: RequestView, random: Random) -> Choice | None:
        """The arm; None when no arm has any weight."""
        chosen = self.decide(request, random)
        index = chosen.index
        if index is None:
            return None
        cookie = self._cookie_text % chosen.new_cookie if chosen.new_cookie else b""
        return Choice(index, self.splitter.arms[index].pool, chosen.why, cookie)

    def decide(self, request: RequestView, random: Random) -> ArmChoice:
        """The splitter's decision for a request."""
        override = ""
        if self._override:
            asked = request.field(self._override)
            if asked is not None:
                override = asked[:16].decode("latin-1")
        if self._cookie is not None:
            cookies = request.field(b"cookie")
            # Of two cookies of the name neither is believed: which one counts would be a guess.
            values = self._by_cookie(cookies) if cookies is not None else []
            value = values[0] if len(values) == 1 else None
            return choose_arm(self.splitter, random, override=override, cookie=self._cookie, cookie_value=value)
        found = self._key(request) if self._key is not None else None
        key = stable_hash(found[1]) if found is not None else None
        return choose_arm(self.splitter, random, override=override, key=key)

    def others(self, index: int) -> list[str]:
        """Pools to try when the arm has no usable backend, in order."""
        return [self.splitter.arms[other].pool for other in self.splitter.fallback(index)]
