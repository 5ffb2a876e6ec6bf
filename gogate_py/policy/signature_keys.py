"""Keys that signatures are checked with, and which algorithm each may be used for (RFC 8725 section 3.1).

An algorithm belongs to one kind of key, a key to one kind; a token's ``alg`` picks among what its key can do and never
the other way round, so that no public key ever becomes an HMAC secret:

    kind        algorithms             a key of this kind is
    secret      HS256 HS384 HS512      bytes, at least as long as the hash (RFC 7518 section 3.2), not PEM or JWK
    RSA         RS256.. PS256..        2048 to 8192 bits, exponent of at most 64 bits
    P-256       ES256                  a point on that curve; likewise P-384 ES384, P-521 ES512
    Ed25519     EdDSA Ed25519          RFC 8037, and the newer name of RFC 9864; likewise Ed448

``none`` is not in the table. HMAC comes from the standard library, everything else from PyJWT and cryptography, which
are imported when the first such key is made: they cost a process 12 MiB.

Of a key set (RFC 7517) only usable keys are kept: ``use`` absent or sig, ``key_ops`` absent or with verify, ``alg``
absent or one of its kind, not a private key. Others are left out, as section 5 says. Knows nothing of tokens or time.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from gogate_py.policy.strict_json import strict_json

if TYPE_CHECKING:
    from jwt.algorithms import Algorithm

#: algorithm → kinds of keys that it is for
KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("HS256", "HS384", "HS512"), ("secret",)),
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA",)),
    "ES256": ("P-256",),
    "ES384": ("P-384",),
    "ES512": ("P-521",),
    "EdDSA": ("Ed25519", "Ed448"),
    "Ed25519": ("Ed25519",),
    "Ed448": ("Ed448",),
}
_HASHES: Final = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
#: algorithm → least bytes of its secret
SECRET_SIZES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
RSA_BITS: Final = (2048, 8192)
MAX_KID: Final = 256
#: How many keys are tried for one token where its kid does not say which: the bound on what a forged token can cost.
MAX_TRIES: Final = 4

_is_base64url: Final = re.compile(r"[A-Za-z0-9_-]+").fullmatch
#: What each kind of JWK consists of, and must not have (RFC 7518 section 6).
_MEMBERS: Final = {"RSA": ("n", "e"), "EC": ("x", "y"), "OKP": ("x",)}
_CURVES: Final = {"EC": ("P-256", "P-384", "P-521"), "OKP": ("Ed25519", "Ed448")}


class SignatureKey:
    """One key: what it is called, what it may be used for, and whether a signature is its own."""

    __slots__ = ("_material", "algorithms", "kid", "kind")

    def __init__(self, kind: str, material: Any, kid: str | None = None, algorithm: str | None = None) -> None:
        """``algorithm``: the only one that the key's owner lets it be used for, None = all of its kind."""
        self.kind = kind
        self.kid = kid
        possible = frozenset(name for name, kinds in KINDS.items() if kind in kinds)
        self.algorithms = possible if algorithm is None else possible & {algorithm}
        self._material = material

    def verify(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether ``signature`` was made over ``signed`` with this key. False for an algorithm it is not for."""
        if algorithm not in self.algorithms:
            return False
        if self.kind == "secret":
            return hmac.compare_digest(hmac.digest(self._material, signed, _HASHES[algorithm]), signature)
        try:
            return _implementations()[algorithm].verify(signed, self._material, signature)
        except ValueError:  # a signature of a length that the curve does not have
            return False


class KeyRing:
    """The usable keys of one source, found by kid. Frozen; a changed source is a new ring."""

    __slots__ = ("_by_kid", "keys")

    def __init__(self, keys: Iterable[SignatureKey]) -> None:
        self.keys = tuple(keys)
        self._by_kid: dict[str, list[SignatureKey]] = {}
        for key in self.keys:
            if key.kid is not None:
                self._by_kid.setdefault(key.kid, []).append(key)

    def candidates(self, kid: str | None, algorithm: str) -> list[SignatureKey]:
        """The keys to try for a token, at most MAX_TRIES; [] when none has this kid and can be used for ``algorithm``.

        Without a kid those that can be used for the algorithm, in the set's order.
        """
        keys = self.keys if kid is None else self._by_kid.get(kid, ())
        return [key for key in keys if algorithm in key.algorithms][:MAX_TRIES]

    def has(self, kid: str) -> bool:
        """Whether some usable key is called this."""
        return kid in self._by_kid


def secret_key(secret: bytes) -> SignatureKey:
    """The key of HS* algorithms. Raises ValueError when it could be used for none of them."""
    problem = secret_problem(secret, ())
    if problem:
        raise ValueError(problem)
    return SignatureKey("secret", secret)


def secret_problem(secret: bytes, algorithms: Sequence[str]) -> str:
    """Why a secret must not be used for these algorithms, or ""."""
    if secret.lstrip(b" \t\r\n").startswith((b"-----BEGIN", b"ssh-", b"ecdsa-", b"{")):
        return "looks like a PEM or JWK key; an HS* secret is a random text that nobody else knows"
    least = max((SECRET_SIZES.get(name, 32) for name in algorithms), default=32)
    if len(secret) < least:
        names = ", ".join(algorithms) or "HS256"
        return f"has {len(secret)} bytes; {names} needs at least {least} (RFC 7518 section 3.2)"
    return ""


def pem_key(pem: str) -> SignatureKey:
    """The public key in a PEM text (SubjectPublicKeyInfo or certificate). Raises ValueError with what is wrong."""
    if "PRIVATE KEY-----" in pem:
        raise ValueError("is a private key; the gateway needs the public one only")
    if pem.count("-----BEGIN ") != 1:
        raise ValueError("is not one PEM public key")
    serialization, x509 = _cryptography()
    data = pem.encode()
    try:
        if "-----BEGIN CERTIFICATE-----" in pem:
            material = x509.load_pem_x509_certificate(data).public_key()
        else:
            material = serialization.load_pem_public_key(data)
    except Exception as error:  # cryptography lets ValueError, UnsupportedAlgorithm and TypeError out, by version
        raise ValueError("is not a PEM public key that can be read") from error
    return SignatureKey(_kind(material), material)


def jwk_key(jwk: object) -> SignatureKey:
    """The public key in one JWK (RFC 7517 section 4). Raises ValueError when no signature can be checked with it."""
    if not isinstance(jwk, dict):
        raise ValueError("is not a JSON object")
    family, kid, algorithm, operations = jwk.get("kty"), jwk.get("kid"), jwk.get("alg"), jwk.get("key_ops")
    if not isinstance(family, str) or family not in _MEMBERS:
        raise ValueError("its kty is not RSA, EC or OKP")
    if jwk.get("use", "sig") != "sig":
        raise ValueError("is not for signatures (use)")
    if operations is not None and (not isinstance(operations, list) or "verify" not in operations):
        raise ValueError("is not for checking signatures (key_ops)")
    if "d" in jwk:
        raise ValueError("is a private key that was published")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KID):
        raise ValueError(f"its kid is not a text of at most {MAX_KID} characters")
    for member in _MEMBERS[family]:
        value = jwk.get(member)
        if not isinstance(value, str) or _is_base64url(value) is None:
            raise ValueError(f"its {member} is not base64url")
    if family in _CURVES and jwk.get("crv") not in _CURVES[family]:
        raise ValueError("its crv is not one that is known here")
    try:
        material = _from_jwk(family)({name: jwk[name] for name in ("kty", "crv", *_MEMBERS[family]) if name in jwk})
    except Exception as error:  # InvalidKeyError, ValueError, binascii.Error: not a point, wrong length, even modulus
        raise ValueError("its numbers are not a key") from error
    kind = _kind(material)
    if algorithm is not None and (not isinstance(algorithm, str) or kind not in KINDS.get(algorithm, ())):
        raise ValueError("its alg does not go with its kty")
    return SignatureKey(kind, material, kid, algorithm)


def parse_key_set(data: bytes) -> KeyRing:
    """The usable keys of a JWK set (RFC 7517 section 5). Raises ValueError when it is none, or has no usable key."""
    try:
        document = strict_json(data)
    except ValueError as error:
        raise ValueError("is not JSON with one meaning") from error
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ValueError('is not a key set: an object with "keys" is expected')
    keys: list[SignatureKey] = []
    problem = "it is empty"
    for entry in document["keys"]:
        try:
            keys.append(jwk_key(entry))
        except ValueError as error:
            problem = f"the last key {error}"
    if not keys:
        raise ValueError(f"has no key that signatures can be checked with: {problem}")
    return KeyRing(keys)


def _kind(material: Any) -> str:
    """Which kind a cryptography key is. Raises ValueError for one that is too weak, too large or of no known kind."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

    if isinstance(material, rsa.RSAPublicKey):
        if not RSA_BITS[0] <= material.key_size <= RSA_BITS[1]:
            raise ValueError(f"is an RSA key of {material.key_size} bits; {RSA_BITS[0]} to {RSA_BITS[1]} are allowed")
        if material.public_numbers().e.bit_length() > 64:
            raise ValueError("is an RSA key with an exponent of more than 64 bits")
        return "RSA"
    if isinstance(material, ec.EllipticCurvePublicKey):
        kind = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}.get(material.curve.name)
        if kind is None:
            raise ValueError("is on a curve that no algorithm here uses; P-256, P-384 and P-521 are known")
        return kind
    if isinstance(material, ed25519.Ed25519PublicKey):
        return "Ed25519"
    if isinstance(material, ed448.Ed448PublicKey):
        return "Ed448"
    raise ValueError("is neither an RSA, nor an EC, nor an Ed25519 or Ed448 key")


@cache
def _implementations() -> Mapping[str, Algorithm]:
    from jwt.algorithms import get_default_algorithms

    made = {name: one for name, one in get_default_algorithms().items() if name in KINDS}
    return made | {"Ed25519": made["EdDSA"], "Ed448": made["EdDSA"]}  # verify() goes by the key


def _from_jwk(family: str) -> Callable[[dict[str, str]], Any]:
    from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

    return {"RSA": RSAAlgorithm.from_jwk, "EC": ECAlgorithm.from_jwk, "OKP": OKPAlgorithm.from_jwk}[family]


def _cryptography() -> tuple[ModuleType, ModuleType]:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    return serialization, x509
