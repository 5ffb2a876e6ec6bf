"""JWT stage: a bearer token (RFC 6750) that policy/token_check believes, or no way on.

    no Authorization, or another scheme     401  Bearer realm                           missing
    "Bearer " without one b64token, or more than one Authorization
                                            401  Bearer realm, error="invalid_token"    malformed
    a token that is not believed            401  Bearer realm, error="invalid_token"    a word of token_check.REASONS
    no keys to go by (yet)                  503                                         no_keys
    a required claim has another value      403  Bearer realm, error="insufficient_scope"  insufficient_scope
    otherwise                               on, with request.user = sub ("" without one) and request.claims

No answer says what was wrong with a token. The claims of ``forward_claims`` become header fields (auth_fields has the
encoding); a field whose claim is absent or cannot be told is withheld, so that what the client sent never stands in its
place. The Authorization field itself goes on to the backend, which may want to look for itself.

An unknown kid makes the request wait for a fresh key set (jwt_keys). Cost of a token seen before: a SHA-256 and two
look-ups. Wall-clock time decides here, as exp and nbf are dates: the clock is given.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from types import MappingProxyType
from typing import Any, Final

import msgspec

from gogate_py import clock
from gogate_py.errors import Failure
from gogate_py.middleware.auth_fields import challenge, field_value
from gogate_py.middleware.chain import Explained, Refusal, RequestView
from gogate_py.middleware.jwt_keys import KeySets, Verified
from gogate_py.policy import token_check
from gogate_py.policy.signature_keys import KeyRing, pem_key, secret_key
from gogate_py.policy.token_check import BadToken
from gogate_py.snapshot import JwtAuth

#: Every word that this stage's refusals are counted under.
REASONS: Final = ("missing", *token_check.REASONS, "no_keys", "insufficient_scope")

_is_bearer: Final = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr](?:[ \t]|\Z)").match
# RFC 6750 section 2.1. A joined second field line has a comma, which is no b64token.
_bearer_token: Final = re.compile(rb"[A-Za-z]{6} +([A-Za-z0-9._~+/-]+=*)").fullmatch


class JwtAuthStage:
    """The bearer tokens of one route."""

    __slots__ = ("_digest", "_fields", "_keys", "_refusals", "_ring", "_rules", "_wall")

    name = "auth"

    def __init__(self, rules: JwtAuth, keys: KeySets, wall: Callable[[], float] = clock.wall) -> None:
        """``keys`` live as long as the worker; ``wall``: seconds since 1970. Raises ValueError for a secret or public
        key that config's checks would have refused."""
        self._rules = rules
        self._keys = keys
        self._wall = wall
        self._ring: KeyRing | None = None
        if rules.secret:
            self._ring = KeyRing([secret_key(rules.secret)])
        elif not rules.jwks_url:
            self._ring = KeyRing([pem_key(rules.public_key)])
        # Routes with equal settings share verified tokens, others cannot; a new snapshot keeps them.
        self._digest = hashlib.sha256(msgspec.msgpack.encode(rules))
        self._fields = tuple((claim, name.encode(), name.lower().encode()) for claim, name in rules.forward_claims)
        self._refusals = _refusals(rules.realm)

    def __call__(self, request: RequestView) -> Refusal | Awaitable[Refusal | None] | None:
        token = self._token(request)
        if isinstance(token, Refusal):
            return token
        try:
            verified = self._verify(token, True)
        except BadToken as error:
            if error.reason == "unknown_key" and self._may_wait():
                return self._ask_again(request, token)
            return self._refusals[error.reason]
        return self._pass_on(request, verified)

    def explain(self, request: RequestView) -> Explained:
        """The same verdict; nothing is remembered, nobody is asked and the request stays as it is."""
        token = self._token(request)
        facts: dict[str, Any] = {"type": "jwt", "reason": "missing"}
        if isinstance(token, Refusal):
            facts["reason"] = token.counted
            text = "no bearer token" if token.counted == "missing" else "the Authorization field holds no bearer token"
            return Explained(token, text, facts)
        try:
            verified = self._verify(token, False)
        except BadToken as error:
            facts["reason"] = error.reason
            facts["would_fetch_keys"] = error.reason == "unknown_key" and self._may_wait()
            return Explained(self._refusals[error.reason], f"the token is refused: {error.reason}", facts)
        facts["user"] = verified.user
        facts["forwarded"] = {name.decode(): value.decode() for name, value in verified.forward}
        if not verified.allowed:
            facts["reason"] = "insufficient_scope"
            text = "the token is good, but a required claim is not"
            return Explained(self._refusals["insufficient_scope"], text, facts)
        facts["reason"] = ""
        return Explained(None, "the token is good", facts)

    def identify(self, request: RequestView) -> None:
        """Do to a request what passing does, when explain has let it pass: what comes later depends on it."""
        token = self._token(request)
        if not isinstance(token, Refusal):
            self._pass_on(request, self._verify(token, False))

    def _token(self, request: RequestView) -> bytes | Refusal:
        value = request.field(b"authorization")
        if value is None or _is_bearer(value) is None:
            return self._refusals["missing"]
        match = _bearer_token(value) if len(value) <= token_check.MAX_TOKEN + 16 else None
        return self._refusals["malformed"] if match is None else match[1]

    def _verify(self, token: bytes, remember: bool) -> Verified:
        """Raises BadToken, with a reason of REASONS."""
        ring = changing = None
        if self._ring is None:
            ring = changing = self._keys.get(self._rules.jwks_url)
            if ring is None:
                raise BadToken("no_keys")
        now = self._wall()
        hashed = self._digest.copy()
        hashed.update(token)
        digest = hashed.digest()
        known = self._keys.verified.get(digest, changing, now)
        if known is not None:
            return known
        parsed = token_check.parse_token(token, self._rules.algorithms)
        token_check.check_signature(parsed, ring or self._ring or KeyRing(()), changing is not None)
        claims = token_check.check_claims(parsed.payload, self._rules, now)
        verified = self._verified(claims, changing)
        if remember:
            self._keys.verified.put(digest, verified)
        return verified

    def _verified(self, claims: dict[str, Any], ring: KeyRing | None) -> Verified:
        forward = []
        withhold = []
        for claim, name, lower in self._fields:
            value = field_value(claims.get(claim))
            if value is None:
                withhold.append(lower)
            else:
                forward.append((name, value))
        return Verified(
            ring,
            token_check.usable_until(claims, self._rules),
            claims.get("sub", ""),
            MappingProxyType(claims),
            token_check.has_required(claims, self._rules.require_claims),
            tuple(forward),
            tuple(withhold),
        )

    def _pass_on(self, request: RequestView, verified: Verified) -> Refusal | None:
        if not verified.allowed:
            return self._refusals["insufficient_scope"]
        request.user = verified.user
        request.claims = verified.claims
        for lower in verified.withhold:
            request.withhold(lower)
        for name, value in verified.forward:
            request.forward(name, value)
        return None

    def _may_wait(self) -> bool:
        return self._ring is None and self._keys.may_wait(self._rules.jwks_url)

    async def _ask_again(self, request: RequestView, token: bytes) -> Refusal | None:
        await self._keys.changed(self._rules.jwks_url)
        try:
            verified = self._verify(token, True)
        except BadToken as error:
            return self._refusals[error.reason]
        return self._pass_on(request, verified)


def _refusals(realm: str) -> dict[str, Refusal]:
    """One finished refusal for each reason."""
    bare, invalid = challenge("Bearer", realm), challenge("Bearer", realm, 'error="invalid_token"')
    made = {
        reason: Refusal(Failure.UNAUTHORIZED, Failure.UNAUTHORIZED.detail, 0, invalid, reason)
        for reason in token_check.REASONS
    }
    made["missing"] = Refusal(Failure.UNAUTHORIZED, Failure.UNAUTHORIZED.detail, 0, bare, "missing")
    made["no_keys"] = Refusal(Failure.AUTH_UNAVAILABLE, Failure.AUTH_UNAVAILABLE.detail, 0, b"", "no_keys")
    scope = challenge("Bearer", realm, 'error="insufficient_scope"')
    made["insufficient_scope"] = Refusal(Failure.FORBIDDEN, Failure.FORBIDDEN.detail, 0, scope, "insufficient_scope")
    return made
