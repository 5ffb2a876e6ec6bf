"""Keys: what each may be used for, which are refused, what of a key set is usable."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec
from cryptography.x509.oid import NameOID

from gogate_py.policy import signature_keys
from gogate_py.policy.signature_keys import KINDS, MAX_TRIES, KeyRing, jwk_key, parse_key_set, pem_key, secret_key
from gogate_py.policy.strict_json import strict_json

PRIVATE: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "middleware" / "data" / "jwt_keys.json").read_text()
)
RSA = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}


def public(name: str, **more: Any) -> dict[str, Any]:
    """The public JWK of a key, changed; None takes a member out."""
    kept = {key: value for key, value in PRIVATE[name].items() if key in ("kty", "crv", "n", "e", "x", "y")} | more
    return {key: value for key, value in kept.items() if value is not None}


def pem_of(material: Any) -> str:
    """SubjectPublicKeyInfo of a cryptography key."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return str(material.public_bytes(serialization.Encoding.PEM, form).decode())


@pytest.mark.parametrize(
    ("name", "algorithms"),
    [
        ("rsa", RSA),
        ("p256", {"ES256"}),
        ("p384", {"ES384"}),
        ("p521", {"ES512"}),
        ("ed25519", {"EdDSA", "Ed25519"}),
        ("ed448", {"EdDSA", "Ed448"}),
    ],
)
def test_a_key_is_for_the_algorithms_of_its_type_and_curve(name: str, algorithms: set[str]) -> None:
    """As JWK and as PEM alike; its owner's alg narrows it to one (RFC 8725 section 3.1)."""
    key = jwk_key(public(name))
    assert key.algorithms == algorithms
    assert pem_key(pem_of(key._material)).algorithms == algorithms
    for algorithm in algorithms:
        assert jwk_key(public(name, alg=algorithm)).algorithms == {algorithm}


def test_none_is_no_algorithm() -> None:
    """Not in the table, so no key is for it and no allow-list can name it."""
    assert not {name for name in KINDS if name.lower() == "none"}
    assert secret_key(b"x" * 64).algorithms == {"HS256", "HS384", "HS512"}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"kty": "oct"}, "kty"),
        ({"kty": None}, "kty"),
        ({"kty": "EC"}, "x is not base64url"),
        ({"kty": ["RSA"]}, "kty"),
        ({"use": "enc"}, "use"),
        ({"use": None, "key_ops": ["sign"]}, "key_ops"),
        ({"key_ops": "verify"}, "key_ops"),
        ({"d": "AQAB"}, "private"),
        ({"kid": 7}, "kid"),
        ({"kid": ""}, "kid"),
        ({"kid": "k" * 257}, "kid"),
        ({"alg": "ES256"}, "alg"),
        ({"alg": "HS256"}, "alg"),
        ({"alg": "none"}, "alg"),
        ({"alg": "RSA-OAEP"}, "alg"),
        ({"alg": ["RS256"]}, "alg"),
        ({"n": None}, "n is not base64url"),
        ({"n": 7}, "n is not base64url"),
        ({"n": "AQAB=="}, "n is not base64url"),
        ({"e": "AA"}, "numbers"),
        ({"e": "Ag"}, "numbers"),
        ({"e": "_" * 12}, "exponent"),
    ],
)
def test_what_is_no_usable_rsa_key(changes: dict[str, Any], problem: str) -> None:
    """Wrong purpose, private parts, a kid that is none, an alg of another kind, numbers that are no key."""
    with pytest.raises(ValueError, match=problem):
        jwk_key({key: value for key, value in (public("rsa") | changes).items() if value is not None})


@pytest.mark.parametrize(
    ("jwk", "problem"),
    [
        (public("rsa1024"), "1024 bits"),
        (public("secp256k1"), "crv"),
        (public("x25519"), "crv"),
        (public("p256", crv="P-384"), "numbers"),
        (public("p256", crv="Ed25519"), "crv"),
        (public("p256", x=PRIVATE["p256b"]["x"]), "numbers"),
        (public("p256", x="AA"), "numbers"),
        (public("ed25519", crv="Ed448"), "numbers"),
        (public("ed25519", x="AA"), "numbers"),
        (public("ed25519", alg="Ed448"), "alg"),
        (public("p256", crv=["P-256"]), "crv"),
        (None, "object"),
        ("rsa", "object"),
    ],
)
def test_other_keys_that_are_none(jwk: object, problem: str) -> None:
    """Too short, on a curve that no algorithm here uses, not on the curve it names (RFC 8725 section 3.4)."""
    with pytest.raises(ValueError, match=problem):
        jwk_key(jwk)


def test_a_key_set_keeps_its_usable_keys() -> None:
    """Others are left out (RFC 7517 section 5); members that are not known do no harm."""
    ring = parse_key_set(json.dumps({
        "x": 1,
        "keys": [
            public("rsa", kid="a", use="sig", x5c=["MIIB"], x5t="abc", foo={"bar": 1}),
            public("rsa1024", kid="b"),
            {"kty": "oct", "kid": "c", "k": "AAAA"},
            public("p256"),
            7,
        ],
    }).encode())  # fmt: skip
    assert [key.kid for key in ring.keys] == ["a", None]
    assert ring.has("a")
    assert not ring.has("b")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"null", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[]}', b'{"keys":[7]}', b"<html>",
        b'{"keys":[],"keys":[]}', b'{"keys":[{"kty":[]}]}',
        b"\xff\xfe", json.dumps({"keys": [{"kty": "oct", "k": "AAAA"}]}).encode(), b'{"keys":' + b"[" * 100000,
        json.dumps(public("rsa")).encode(),
    ],
)  # fmt: skip
def test_what_is_no_key_set(data: bytes) -> None:
    """Garbage, a bare key, an empty set, a set without a usable key: all ValueError, nothing else."""
    with pytest.raises(ValueError):
        parse_key_set(data)


def test_a_kid_finds_its_key_and_no_kid_tries_a_few() -> None:
    """Keys of one kid but different types may stand side by side; without kid at most MAX_TRIES of the algorithm."""
    ring = KeyRing([
        jwk_key(public("rsa", kid="a")), jwk_key(public("p256", kid="a")), jwk_key(public("p256b", kid="b")),
        *(jwk_key(public("rsa2", kid=str(number))) for number in range(10)),
    ])  # fmt: skip
    assert [key.kind for key in ring.candidates("a", "RS256")] == ["RSA"]
    assert [key.kind for key in ring.candidates("a", "ES256")] == ["P-256"]
    assert ring.candidates("a", "ES384") == []
    assert ring.candidates("b", "RS256") == []
    assert ring.candidates("", "RS256") == []
    assert [key.kid for key in ring.candidates(None, "ES256")] == ["a", "b"]
    assert len(ring.candidates(None, "RS256")) == MAX_TRIES


def test_pem_texts() -> None:
    """One public key, or a certificate's; not a private key, not two, not a kind that signs nothing here."""
    p256 = pem_of(jwk_key(public("p256"))._material)
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, private.public_key(), 1, start, start + datetime.timedelta(1))
        .sign(private, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )
    secret = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    assert pem_key(p256).kind == pem_key(certificate).kind == pem_key("# issuer\n" + p256).kind == "P-256"
    for text, problem in (
        (secret, "private key"),
        (p256 + secret, "private key"),
        (p256 + p256, "not one PEM"),
        ("", "not one PEM"),
        ("ssh-ed25519 AAAA", "not one PEM"),
        (p256.replace("PUBLIC", "ANY"), "cannot be read|can be read"),
        (p256[:60] + p256[70:], "can be read"),
        (pem_of(ec.generate_private_key(ec.SECP256K1()).public_key()), "curve"),
        (pem_of(_dsa_key()), "neither"),
    ):
        with pytest.raises(ValueError, match=problem):
            pem_key(text)


def _dsa_key() -> Any:
    numbers = dsa.DSAParameterNumbers(
        p=int(
            "E0A67598CD1B763BC98C8ABB333E5DDA0CD3AA0E5E1FB5BA8A7B4EABC10BA338FAE06DD4B90FDA70D7CF0CB0C638BE3341BEC0AF8A7330A3"
            "307DED2299A0EE606DF035177A239C34A912C202AA5F83B9C4A7CF0235B5316BFC6EFB9A248411258B30B839AF172440F32563056CB67A86"
            "1158DDD90E6A894C72A5BBEF9E286C6B",
            16,
        ),
        q=0xE950511EAB424B9A19A2AEB4E159B7844C589C4F,
        g=int(
            "D29D5121B0423C2769AB21843E5A3240FF19CACC792264E3BB6BE4F78EDD1B15C4DFF7F1D905431F0AB16790E1F773B5CE01C804E509066A"
            "9919F5195F4ABC58189FD9FF987389CB5BEDF21B4DAB4F8B76A055FFE2770988FE2EC2DE11AD92219F0B351869AC24DA3D7BA87011A701CE"
            "8EE7BFE49486ED4527B7186CA4610A75",
            16,
        ),
    )
    return numbers.parameters().generate_private_key().public_key()


def test_hmac_needs_no_heavy_library() -> None:
    """A worker that knows secrets only stays small: neither PyJWT nor cryptography is loaded for them."""
    program = (
        "import sys\n"
        "from gogate_py.policy.signature_keys import secret_key\n"
        "key = secret_key(b'k' * 64)\n"
        "assert key.verify('HS256', b'a', key.verify('HS256', b'a', b'') and b'' or "
        "__import__('hmac').digest(b'k' * 64, b'a', 'sha256'))\n"
        "print([name for name in ('jwt', 'cryptography', 'bcrypt') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("data", "value"),
    [(b'{"a":[1,2.5,"x",null,true]}', {"a": [1, 2.5, "x", None, True]}), (b' "\\ud83d\\ude00" ', "😀")],
)
def test_json_with_one_meaning(data: bytes, value: object) -> None:
    """Ordinary JSON in UTF-8, surrogate pairs included."""
    assert strict_json(data) == value


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}', b'{"a":1,"\\u0061":1}', b'[{"x":{"a":1,"a":2}}]', b"NaN", b"-Infinity", b'"\\ud83d"',
        b"{} {}", b'{"a":1,}', b"\xef\xbb\xbf{}", '"a"'.encode("utf-16"), b'"\xc3"', b"", b"[" * 100000, b"1" * 5000,
        b'"a\nb"', b"'a'", b'{"\\ud800":1}',
    ],
)  # fmt: skip
def test_json_with_two_meanings_or_none(data: bytes) -> None:
    """Always ValueError."""
    with pytest.raises(ValueError):
        strict_json(data)


def test_sizes_of_secrets_are_those_of_the_hashes() -> None:
    """RFC 7518 section 3.2."""
    assert signature_keys.SECRET_SIZES == {"HS256": 32, "HS384": 48, "HS512": 64}
