"""What a signed token must be before anything in it is believed (RFC 7519, RFC 8725, SECURITY.md T24).

In this order, so that nothing unsigned is read but the header:

    compact form        three base64url parts, not padded, no stray bits at their ends, at most 8 KiB   malformed
    header              an object of one meaning; kid a text of at most 256 characters; b64 not false    malformed
      crit              absent: gogate knows no extension                          critical
      typ               absent, or JWT or at+jwt in any case, with or without application/      wrong_type
      alg               one that the route allows; never none                      bad_algorithm
      jku x5u jwk x5c   not looked at: keys come from the configuration only
    key                 the kid names one, or there is none                        unknown_key
                        and it is for this algorithm                               bad_algorithm
    signature           made with that key                                         bad_signature
    payload             an object of one meaning                                   malformed
      exp               needed, a number of seconds; now < exp + leeway            bad_claim, expired
      nbf, iat          numbers; not later than now + leeway                       bad_claim, not_yet_valid
      iss               exactly one of the route's issuers                         wrong_issuer
      aud               a text or a list of texts, one exactly a route's audience  wrong_audience
      sub               a text where it is there                                   bad_claim

The words on the right are what is counted; the client is told none of them. Moments are whole years 1970 to 9999: a
number beyond (milliseconds, usually) is a mistake of the issuer, not a token for ever. Knows nothing of HTTP.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from gogate_py.errors import GogateError
from gogate_py.policy.signature_keys import KINDS, MAX_KID, KeyRing
from gogate_py.policy.strict_json import strict_json
from gogate_py.snapshot import JwtAuth

MAX_TOKEN: Final = 8192
_LAST_MOMENT: Final = 253402300799  # the end of year 9999
_TYPES: Final = frozenset(("jwt", "at+jwt"))

_is_compact: Final = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)").fullmatch

#: Everything a token can be refused for, for the metric.
REASONS: Final = (
    "malformed", "wrong_type", "critical", "bad_algorithm", "unknown_key", "bad_signature", "bad_claim", "expired",
    "not_yet_valid", "wrong_issuer", "wrong_audience",
)  # fmt: skip


class BadToken(GogateError):
    """A token that is not believed; ``reason`` is one of REASONS."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Token(NamedTuple):
    """A token taken apart; nothing of it is verified."""

    algorithm: str
    kid: str | None
    signed: bytes
    payload: bytes
    signature: bytes


def parse_token(token: bytes, algorithms: tuple[str, ...]) -> Token:
    """Take a token apart and judge its header. Raises BadToken."""
    parts = _is_compact(token) if len(token) <= MAX_TOKEN else None
    if parts is None:
        raise BadToken("malformed")
    header = _object(_decoded(parts[1]))
    if "crit" in header:
        raise BadToken("critical")
    if header.get("b64", True) is not True:
        raise BadToken("malformed")
    kind = header.get("typ")
    if kind is not None and (not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES):
        raise BadToken("wrong_type")
    kid = header.get("kid")
    if "kid" in header and not (isinstance(kid, str) and len(kid) <= MAX_KID):
        raise BadToken("malformed")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms or algorithm not in KINDS:
        raise BadToken("bad_algorithm")
    return Token(algorithm, kid, token[: parts.end(2)], _decoded(parts[2]), _decoded(parts[3]))


def check_signature(token: Token, ring: KeyRing, by_kid: bool) -> None:
    """Raises BadToken unless one of the ring's keys made the signature. ``by_kid`` False: there is but one key, and a
    kid says nothing."""
    keys = ring.candidates(token.kid if by_kid else None, token.algorithm)
    if not keys:
        # A key that is there but is for something else will not be another one after asking again.
        known = token.kid is not None and by_kid and ring.has(token.kid)
        raise BadToken("bad_algorithm" if known else "unknown_key")
    if not any(key.verify(token.algorithm, token.signed, token.signature) for key in keys):
        raise BadToken("bad_signature")


def check_claims(payload: bytes, rules: JwtAuth, now: float) -> dict[str, Any]:
    """The claims of a payload whose signature is good. ``now``: seconds since 1970. Raises BadToken."""
    claims = _object(payload)
    expires = _moment(claims, "exp")
    if expires is None:
        raise BadToken("bad_claim")
    begins = [moment for moment in (_moment(claims, "nbf"), _moment(claims, "iat")) if moment is not None]
    if now >= expires + rules.leeway:
        raise BadToken("expired")
    if any(moment > now + rules.leeway for moment in begins):
        raise BadToken("not_yet_valid")
    issuer = claims.get("iss")
    if not isinstance(issuer, str) or issuer not in rules.issuers:
        raise BadToken("wrong_issuer")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if not all(isinstance(one, str) for one in audiences) or not any(one in rules.audiences for one in audiences):
        raise BadToken("wrong_audience")
    if not isinstance(claims.get("sub", ""), str):
        raise BadToken("bad_claim")
    return claims


def usable_until(claims: Mapping[str, Any], rules: JwtAuth) -> float:
    """The moment (seconds since 1970) from which checked claims are expired."""
    return float(claims["exp"] + rules.leeway)


def has_required(claims: Mapping[str, Any], required: tuple[tuple[str, tuple[str, ...]], ...]) -> bool:
    """Whether every required claim has one of its values. A list has its elements; ``scope`` and ``scp`` have the words
    of their text (RFC 8693 section 4.2); numbers and booleans compare as JSON writes them."""
    for name, values in required:
        claim = claims.get(name)
        if isinstance(claim, str) and name in ("scope", "scp"):
            held: list[Any] = claim.split(" ")
        else:
            held = claim if isinstance(claim, list) else [claim]
        if not any(plain_text(one) in values for one in held):
            return False
    return True


def plain_text(value: object) -> str | None:
    """A text, number or boolean of JSON as text, the latter two as JSON writes them; None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    return None


def _decoded(segment: bytes) -> bytes:
    if len(segment) % 4 == 1:
        raise BadToken("malformed")
    data = base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    # The last character can have bits that belong to no byte: two texts for one token.
    if base64.urlsafe_b64encode(data).rstrip(b"=") != segment:
        raise BadToken("malformed")
    return data


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = strict_json(data)
    except ValueError:
        raise BadToken("malformed") from None
    if not isinstance(value, dict):
        raise BadToken("malformed")
    return value


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 section 2), None where there is none; true is not a number, nor is "1700000000"."""
    if name not in claims:
        return None
    value = claims[name]
    if type(value) not in (int, float) or not 0 <= value <= _LAST_MOMENT:
        raise BadToken("bad_claim")
    return float(value)
