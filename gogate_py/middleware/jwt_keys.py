"""Key sets and verified tokens as a worker holds them.

A worker never fetches: it is told (messages.KeySet) and asks (messages.UnknownKey). What happens with a token that
names a key which is not there:

    no key set yet, or it is too old      503: nobody can be let in, and it is not the client's fault
    unknown kid                           the supervisor is asked to fetch again; the request waits for the next key set
                                          of that URL, at most WAIT seconds, and is judged anew
    MAX_WAITERS requests wait already     401 at once
    asked less than QUIET ago, in vain    401 at once: the supervisor would not fetch again so soon either

Verified tokens are remembered until they expire: a signature costs 30 to 130 µs, a look here 2. An entry counts only
for the route settings and the very key ring it was verified with, so a changed key set forgets by itself. Tokens are
kept as SHA-256, never as they are. Bounded: the oldest goes first, and only the issuer's own tokens ever get in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from gogate_py.clock import monotonic
from gogate_py.messages import KeySet
from gogate_py.policy.signature_keys import KeyRing, parse_key_set

WAIT: Final = 2.0
QUIET: Final = 30.0
MAX_WAITERS: Final = 64
MAX_VERIFIED: Final = 1024


class Verified(NamedTuple):
    """A token that was found good for one route's settings."""

    ring: KeyRing | None  # what it was verified with, where that can change
    until: float  # seconds since 1970
    user: str
    claims: Mapping[str, Any]
    allowed: bool  # it has the claims that are required
    forward: tuple[tuple[bytes, bytes], ...]  # fields for the backend
    withhold: tuple[bytes, ...]  # fields that it has no claim for, lower case


class VerifiedTokens:
    """The verified tokens of a worker, by a digest of route settings and token. At most ``limit``."""

    __slots__ = ("_entries", "_limit")

    def __init__(self, limit: int = MAX_VERIFIED) -> None:
        self._entries: dict[bytes, Verified] = {}
        self._limit = limit

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, digest: bytes, ring: KeyRing | None, now: float) -> Verified | None:
        """What was verified with this ring and has not expired. ``now``: seconds since 1970."""
        entry = self._entries.get(digest)
        if entry is None:
            return None
        if entry.ring is not ring or now >= entry.until:
            del self._entries[digest]
            return None
        return entry

    def put(self, digest: bytes, entry: Verified) -> None:
        """Remember; the oldest entry goes when there are too many."""
        if len(self._entries) >= self._limit:
            del self._entries[next(iter(self._entries))]
        self._entries[digest] = entry


class _Source:
    """What is known of one URL."""

    __slots__ = ("jwks", "next", "quiet_until", "ring", "waiters")

    def __init__(self) -> None:
        self.jwks = b""
        self.ring: KeyRing | None = None
        self.waiters = 0
        self.quiet_until = float("-inf")
        # done when the next key set comes; None while nobody waits
        self.next: asyncio.Future[None] | None = None


class KeySets:
    """All key sets and verified tokens of a worker; lives as long as the worker, stages come and go.

    ``on_unknown(url)`` asks the supervisor. Without a running loop (explain in the supervisor) only ``apply`` and
    ``get`` are used.
    """

    def __init__(self, on_unknown: Callable[[str], None], now: Callable[[], float] = monotonic) -> None:
        self.verified = VerifiedTokens()
        self._on_unknown = on_unknown
        self._now = now
        self._sources: dict[str, _Source] = {}

    def apply(self, message: KeySet) -> None:
        """Take over what the supervisor says. Keys that did not change stay the same ring, with its verified tokens."""
        source = self._sources.setdefault(message.url, _Source())
        if message.jwks != source.jwks:
            source.jwks = message.jwks
            # The supervisor has parsed it by the same function; were it ever wrong, no key is better than an old one.
            try:
                source.ring = parse_key_set(message.jwks) if message.jwks else None
            except ValueError:
                source.ring = None
            source.quiet_until = float("-inf")
        if source.next is not None:
            source.next.set_result(None)
            source.next = None
        if not message.jwks and not source.waiters:
            del self._sources[message.url]

    def get(self, url: str) -> KeyRing | None:
        """The keys of a URL; None: there are none to go by."""
        source = self._sources.get(url)
        return None if source is None else source.ring

    def may_wait(self, url: str) -> bool:
        """Whether it is worth waiting for other keys of this URL (see the table above)."""
        source = self._sources.get(url)
        return source is not None and source.waiters < MAX_WAITERS and self._now() >= source.quiet_until

    async def changed(self, url: str) -> None:
        """Ask for the keys of this URL again, and wait for them, at most WAIT seconds. For whoever :meth:`may_wait`."""
        source = self._sources[url]
        ring = source.ring
        if source.next is None:
            source.next = asyncio.get_running_loop().create_future()
            self._on_unknown(url)
        source.waiters += 1
        try:
            # wait() neither cancels the future, which others wait for, nor raises when the time is over
            await asyncio.wait((source.next,), timeout=WAIT)
        finally:
            source.waiters -= 1
            if not source.waiters:
                source.next = None
        if source.ring is ring:
            source.quiet_until = self._now() + QUIET
