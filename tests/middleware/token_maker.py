"""Tokens as an issuer, or somebody who would like to be one, makes them: any header, any payload, any signature."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, get_default_algorithms

from gogate_py.snapshot import JwtAuth

DATA = Path(__file__).parent / "data"
#: name → private JWK
PRIVATE: dict[str, dict[str, Any]] = json.loads((DATA / "jwt_keys.json").read_text())
NOW = 1_700_000_000.0
ISSUER = "https://auth.example.com"
AUDIENCE = "api.example.com"
SECRET = b"0123456789abcdef" * 4
URL = "https://auth.example.com/jwks.json"


def b64(data: bytes) -> bytes:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def public(name: str, **more: Any) -> dict[str, Any]:
    """The public JWK of a key, with more members."""
    return {key: value for key, value in PRIVATE[name].items() if key in ("kty", "crv", "n", "e", "x", "y")} | more


def key_set(*keys: dict[str, Any]) -> bytes:
    """A JWK set."""
    return json.dumps({"keys": list(keys)}).encode()


@cache
def private_key(name: str) -> Any:
    """The private key as cryptography has it."""
    makers: dict[str, Callable[[dict[str, Any]], Any]] = {
        "RSA": RSAAlgorithm.from_jwk, "EC": ECAlgorithm.from_jwk, "OKP": OKPAlgorithm.from_jwk,
    }  # fmt: skip
    return makers[PRIVATE[name]["kty"]](PRIVATE[name])


@cache
def pem(name: str) -> str:
    """The public key as PEM."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return str(private_key(name).public_key().public_bytes(serialization.Encoding.PEM, form).decode())


def signer(algorithm: str, key: str | bytes) -> Callable[[bytes], bytes]:
    """What signs with a key by name, or with a secret."""
    if isinstance(key, bytes):
        hashed = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[algorithm]
        return lambda signed: hmac.new(key, signed, hashed).digest()
    loaded = private_key(key)
    known = get_default_algorithms()
    return lambda signed: known.get(algorithm, known["EdDSA"]).sign(signed, loaded)


def claims(**more: Any) -> dict[str, Any]:
    """Good claims, with others; None takes one out."""
    merged = {"iss": ISSUER, "aud": AUDIENCE, "exp": NOW + 300, "sub": "alice"} | more
    return {name: value for name, value in merged.items() if value is not None}


def token(
    payload: dict[str, Any] | bytes | None = None,
    header: dict[str, Any] | bytes | None = None,
    key: str | bytes = "rsa",
    algorithm: str = "RS256",
) -> bytes:
    """A signed token; ``header`` as a dict is added to alg and typ, as bytes it is the header."""
    if not isinstance(header, bytes):
        merged = {"alg": algorithm, "typ": "JWT"} | (header or {})
        header = json.dumps({name: value for name, value in merged.items() if value is not None}).encode()
    body = payload if isinstance(payload, bytes) else json.dumps(claims() if payload is None else payload).encode()
    signed = b64(header) + b"." + b64(body)
    return signed + b"." + b64(signer(algorithm, key)(signed))


def rules(**more: Any) -> JwtAuth:
    """A route that takes RS256 tokens signed with the key "rsa"."""
    given = {"algorithms": ("RS256",), "issuers": (ISSUER,), "audiences": (AUDIENCE,)} | more
    if not {"secret", "jwks_url"} & given.keys():
        given.setdefault("public_key", pem("rsa"))
    return JwtAuth(**given)


class AuthRequest:
    """What a stage sees of a request, and what it did with it."""

    method = b"GET"
    path = b"/"
    host = b"api.example.com"
    client = "192.0.2.1"
    scheme = b"https"
    body: bytes | None = None

    def __init__(self, fields: dict[bytes, bytes] | None = None, query: bytes = b"") -> None:
        self.fields = fields or {}
        self.query = query
        self.user = ""
        self.claims: Any = {}
        self.forwarded: dict[bytes, bytes] = {}
        self.withheld: list[bytes] = []

    def field(self, name: bytes) -> bytes | None:
        return self.fields.get(name)

    def forward(self, name: bytes, value: bytes) -> None:
        self.forwarded[name] = value

    def withhold(self, name: bytes) -> None:
        self.withheld.append(name)

    @property
    def untouched(self) -> bool:
        return not (self.user or self.claims or self.forwarded or self.withheld)


def bearer(value: bytes) -> AuthRequest:
    """A request with this token."""
    return AuthRequest({b"authorization": b"Bearer " + value})
