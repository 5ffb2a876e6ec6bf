"""Basic stage: a user name and password (RFC 7617) against bcrypt hashes, off the event loop.

    no Authorization, or another scheme         401 Basic realm, charset    missing
    not base64 of name:password, control characters, a password of more than 72 bytes, several fields
                                                401                         malformed
    a wrong password, or nobody of that name    401                         wrong_password
    too many passwords wait to be checked       503                         busy
    otherwise                                   on, with request.user = the name

bcrypt is slow on purpose, so it runs in two threads and its verdicts are remembered: good ones for GOOD_FOR, bad ones
for BAD_FOR seconds, MAX_VERDICTS of each, under an HMAC of hash, name and password with a secret of this process. A
changed hash is another entry, so a changed password counts at once. Requests with the same credentials share one check;
more than MAX_WAITING different ones are refused, which costs those who guess and not those whose password is known.

An unknown name is checked against some user's hash and then refused: it takes as long as a known one and is counted as
a wrong password. bcrypt looks at 72 bytes only; longer passwords are refused rather than cut. The Authorization field
is withheld from the backend: the password is the gateway's business; ``forward_user`` tells who it is.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

from gogate_py.clock import monotonic
from gogate_py.errors import Failure
from gogate_py.middleware.auth_fields import challenge, field_value
from gogate_py.middleware.chain import Explained, Refusal, RequestView
from gogate_py.policy.credentials import MAX_PASSWORD
from gogate_py.snapshot import BasicAuth

GOOD_FOR: Final = 600.0
BAD_FOR: Final = 10.0
MAX_VERDICTS: Final = 1024
MAX_WAITING: Final = 64
THREADS: Final = 2
#: Every word that this stage's refusals are counted under.
REASONS: Final = ("missing", "malformed", "wrong_password", "busy")

_is_basic: Final = re.compile(rb"[Bb][Aa][Ss][Ii][Cc](?:[ \t]|\Z)").match
_token68: Final = re.compile(rb"[A-Za-z]{5} +([A-Za-z0-9+/]{1,1024}={0,2})").fullmatch
_has_controls: Final = re.compile(rb"[\x00-\x1f\x7f]").search

#: (password, bcrypt hash) → whether they belong together; takes milliseconds to a second.
Compare = Callable[[bytes, bytes], bool]


class _Credentials(NamedTuple):
    user: bytes
    password: bytes
    name: str  # as configured; "" = nobody is called so
    hashed: bytes  # what the password is compared with


class Passwords:
    """Compares passwords in threads and remembers verdicts. One for a worker, shared by its stages; closed with it."""

    def __init__(self, now: Callable[[], float] = monotonic, compare: Compare | None = None) -> None:
        self._now = now
        self._compare = compare or _compare
        self._secret = secrets.token_bytes(32)
        self._threads: ThreadPoolExecutor | None = None
        # digest → valid until; two tables, so that guesses never push out those who are let in
        self._good: dict[bytes, float] = {}
        self._bad: dict[bytes, float] = {}
        self._running: dict[bytes, asyncio.Future[bool]] = {}

    def remembered(self, user: bytes, password: bytes, hashed: bytes) -> bool | None:
        """The verdict of an earlier comparison, None when it has to be made. A few µs."""
        digest = self._digest(user, password, hashed)
        now = self._now()
        for table, verdict in ((self._good, True), (self._bad, False)):
            until = table.get(digest)
            if until is not None:
                if now < until:
                    return verdict
                del table[digest]
        return None

    def check(self, user: bytes, password: bytes, hashed: bytes) -> Awaitable[bool] | None:
        """The verdict when it is made, shared by all who ask the same; None when too many wait already."""
        digest = self._digest(user, password, hashed)
        running = self._running.get(digest)
        if running is None:
            if len(self._running) >= MAX_WAITING:
                return None
            if self._threads is None:
                self._threads = ThreadPoolExecutor(THREADS, "password")
            loop = asyncio.get_running_loop()
            running = loop.run_in_executor(self._threads, self._compare, password, hashed)
            self._running[digest] = running
            running.add_done_callback(lambda done: self._made(digest, done))
        # A client that goes away must not cancel what others wait for.
        return asyncio.shield(running)

    def compare_now(self, password: bytes, hashed: bytes) -> bool:
        """The verdict, made in this thread and not remembered."""
        return self._compare(password, hashed)

    def close(self) -> None:
        """Drop what waits; threads end with the comparison they are at."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    def _made(self, digest: bytes, done: asyncio.Future[bool]) -> None:
        del self._running[digest]
        if done.cancelled() or done.exception() is not None:
            return
        table, lasts = (self._good, GOOD_FOR) if done.result() else (self._bad, BAD_FOR)
        if len(table) >= MAX_VERDICTS:
            del table[next(iter(table))]
        table[digest] = self._now() + lasts

    def _digest(self, user: bytes, password: bytes, hashed: bytes) -> bytes:
        # A name has no colon and a hash has 60 characters: no two credentials make the same text.
        return hmac.digest(self._secret, hashed + user + b":" + password, "sha256")


class BasicAuthStage:
    """The users of one route."""

    __slots__ = ("_decoys", "_forward", "_passwords", "_refusals", "_users")

    name = "auth"

    def __init__(self, rules: BasicAuth, passwords: Passwords) -> None:
        """``passwords`` lives as long as the worker."""
        self._users = {name.encode(): (name, hashed.encode(), field_value(name)) for name, hashed in rules.users}
        self._decoys = tuple(hashed for _, hashed, _ in self._users.values())
        self._forward = rules.forward_user.encode()
        self._passwords = passwords
        line = challenge("Basic", rules.realm, 'charset="UTF-8"')
        self._refusals = {
            reason: Refusal(Failure.UNAUTHORIZED, Failure.UNAUTHORIZED.detail, 0, line, reason) for reason in REASONS
        }
        self._refusals["busy"] = Refusal(Failure.AUTH_UNAVAILABLE, Failure.AUTH_UNAVAILABLE.detail, 1, b"", "busy")

    def __call__(self, request: RequestView) -> Refusal | Awaitable[Refusal | None] | None:
        given = self._credentials(request)
        if isinstance(given, Refusal):
            return given
        verdict = self._passwords.remembered(given.user, given.password, given.hashed)
        if verdict is not None:
            return self._decide(request, given, verdict)
        check = self._passwords.check(given.user, given.password, given.hashed)
        if check is None:
            return self._refusals["busy"]
        return self._wait(request, given, check)

    def explain(self, request: RequestView) -> Explained:
        """The same verdict; the password is compared at once, nothing is remembered, the request stays as it is."""
        given = self._credentials(request)
        facts: dict[str, Any] = {"type": "basic", "reason": ""}
        if isinstance(given, Refusal):
            facts["reason"] = given.counted
            text = "no user name and password" if given.counted == "missing" else "the Authorization field is malformed"
            return Explained(given, text, facts)
        if not (self._passwords.compare_now(given.password, given.hashed) and given.name):
            facts["reason"] = "wrong_password"
            return Explained(self._refusals["wrong_password"], "unknown user or wrong password", facts)
        facts["user"] = given.name
        return Explained(None, f"the password of {given.name} is right", facts)

    def identify(self, request: RequestView) -> None:
        """Do to a request what passing does, when explain has let it pass: what comes later depends on it."""
        given = self._credentials(request)
        if not isinstance(given, Refusal):
            self._decide(request, given, True)

    def _credentials(self, request: RequestView) -> _Credentials | Refusal:
        value = request.field(b"authorization")
        if value is None or _is_basic(value) is None:
            return self._refusals["missing"]
        match = _token68(value)
        if match is None:
            return self._refusals["malformed"]
        try:
            user, colon, password = base64.b64decode(match[1], validate=True).partition(b":")
        except binascii.Error:
            return self._refusals["malformed"]
        if not colon or not self._decoys or len(password) > MAX_PASSWORD or _has_controls(user + password) is not None:
            return self._refusals["malformed"]
        name, hashed, _ = self._users.get(user, ("", b"", None))
        if not name:
            # The same name has always the same decoy, and costs are spread as those of real users.
            hashed = self._decoys[int.from_bytes(hashlib.sha256(user).digest()[:8], "big") % len(self._decoys)]
        return _Credentials(user, password, name, hashed)

    def _decide(self, request: RequestView, given: _Credentials, verdict: bool) -> Refusal | None:
        if not (verdict and given.name):
            return self._refusals["wrong_password"]
        request.user = given.name
        request.withhold(b"authorization")
        value = self._users[given.user][2]
        if self._forward and value is not None:
            request.forward(self._forward, value)
        return None

    async def _wait(self, request: RequestView, given: _Credentials, check: Awaitable[bool]) -> Refusal | None:
        return self._decide(request, given, await check)


def _compare(password: bytes, hashed: bytes) -> bool:
    import bcrypt  # at the first password: most workers never meet one

    try:
        return bcrypt.checkpw(password, hashed)
    except ValueError:  # a hash with bits that no salt has: nobody's password
        return False
