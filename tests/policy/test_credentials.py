"""Credentials as operators write them: files, secrets, keys, addresses; and what they are told when they are wrong."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gogate_py.policy.credentials import (
    check_algorithms,
    check_jwks_url,
    check_public_key,
    check_secret,
    parse_api_keys,
    parse_users,
)

A, B = hashlib.sha256(b"key a").hexdigest(), hashlib.sha256(b"key b").hexdigest()
HASH = "$2y$05$" + "a" * 53
EMPTY = hashlib.sha256(b"").hexdigest()


class TestApiKeys:
    """name:SHA-256 lines."""

    def test_a_file(self) -> None:
        """Comments, empty lines, blanks around a line, CRLF, a byte order mark and capital hex are all fine."""
        text = f"\ufeff# clients\r\n\r\nmobile:{A}\r\n  batch.job-1:{B.upper()}  \n\n#old:{A}\n"
        assert parse_api_keys(text) == ((("mobile", A), ("batch.job-1", B)), ())

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ("mobile", "is not name:hash"),
            (f":{B}", "a key's name has"),
            (f"a b:{B}", "a key's name has"),
            (f"Zoë:{B}", "a key's name has"),
            (f"{'n' * 129}:{B}", "a key's name has"),
            ("mobile:my secret key", "mobile is not followed by a SHA-256"),
            (f"mobile:{B[:-1]}", "mobile is not followed by a SHA-256"),
            (f"mobile:{B} # comment", "mobile is not followed by a SHA-256"),
            (f"mobile:{B[:-1]}\u0661", "mobile is not followed by a SHA-256"),
            (f"mobile:{EMPTY}", "mobile has the SHA-256 of an empty key"),
            (f"first:{B}", "first is there already, in line 1"),
            (f"mobile:{A}", "the key of mobile is that of first, too"),
        ],
    )
    def test_a_bad_line_is_named_and_never_shown(self, line: str, problem: str) -> None:
        """The line's number and the name, but nothing that stands behind the colon."""
        _, problems = parse_api_keys(f"first:{A}\n{line}\nlast:{hashlib.sha256(b'c').hexdigest()}")
        assert [number for number, _ in problems] == [2]
        assert problems[0][1].startswith(problem)
        assert "my secret key" not in problems[0][1]

    def test_every_problem_is_reported_in_order(self) -> None:
        """Good lines count although others are bad."""
        entries, problems = parse_api_keys(f"a:{A}\nb\nb2:{A}\nc:x\n")
        assert [number for number, _ in problems] == [2, 3, 4]
        assert entries[0] == ("a", A)

    @given(st.text())
    def test_any_text_is_judged(self, text: str) -> None:
        """No text makes the parsers fail, and what they let through is well formed."""
        for name, digest in parse_api_keys(text)[0]:
            assert name.isascii()
            assert len(digest) == 64
        for name, hashed in parse_users(text)[0]:
            assert ":" not in name
            assert len(hashed) == 60


class TestUsers:
    """htpasswd lines."""

    def test_a_file(self) -> None:
        """bcrypt under each of its three names."""
        text = f"# team\nalice:{HASH}\nZoë Ñ:{HASH.replace('2y', '2b')}\nbob:{HASH.replace('2y', '2a')}\n"
        entries, problems = parse_users(text)
        assert [name for name, _ in entries] == ["alice", "Zoë Ñ", "bob"]
        assert problems == ()

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ("bob", "is not name:hash"),
            (f":{HASH}", "a user name has"),
            (f"b\x1bob:{HASH}", "a user name has"),
            (f"bob :{HASH}", "a user name has"),
            ("bob:hunter2", "bob has no hash that is known; only bcrypt"),
            ("bob:$apr1$abc$def", "bob has an Apache MD5 hash; only bcrypt"),
            ("bob:{SHA}abc=", "bob has an unsalted SHA-1 hash"),
            ("bob:$6$abc$def", "bob has a SHA-512-crypt hash"),
            ("bob:$argon2id$v=19$x", "bob has an Argon2 hash"),
            (f"bob:{HASH[:-1]}", "bob has a damaged bcrypt hash"),
            (f"bob:{HASH}:x", "bob has a damaged bcrypt hash"),
            (f"bob:{HASH.replace('2y', '2x')}", "bob has a damaged bcrypt hash"),
            (f"bob:{HASH.replace('$05$', '$15$')}", "bob has a bcrypt cost of 15"),
            (f"bob:{HASH.replace('$05$', '$03$')}", "bob has a bcrypt cost of 3"),
            (f"alice:{HASH}", "alice is there already, in line 1"),
        ],
    )
    def test_a_bad_line_is_named_and_never_shown(self, line: str, problem: str) -> None:
        """What kind of hash it is, and how to get one that is taken."""
        entries, problems = parse_users(f"alice:{HASH}\n{line}\n")
        assert [number for number, _ in problems] == [2]
        assert problems[0][1].startswith(problem)
        assert "hunter2" not in problems[0][1]
        assert len(entries) == 1


@pytest.mark.parametrize(
    ("algorithms", "source", "problem"),
    [
        (["HS256", "HS512"], "secret", ""),
        (["RS256", "ES256"], "jwks", ""),
        (["EdDSA"], "public_key", ""),
        (["Ed25519"], "jwks", ""),
        ([], "jwks", "at least one"),
        (["none"], "secret", "never accepted"),
        (["NoNe"], "jwks", "never accepted"),
        (["RS256", "none"], "jwks", "never accepted"),
        (["rs256"], "jwks", "rs256 is not an algorithm"),
        (["ES256K"], "jwks", "ES256K is not an algorithm"),
        (["HS256"], "jwks", "HS256 needs a secret"),
        (["RS256", "HS256"], "public_key", "HS256 needs a secret"),
        (["RS256"], "secret", "RS256 needs a public key"),
    ],
)
def test_algorithms_go_with_the_kind_of_key(algorithms: list[str], source: str, problem: str) -> None:
    """HS* with a secret only, everything else with a public key only, none never."""
    found = check_algorithms(algorithms, source)
    assert problem in found
    assert bool(found) == bool(problem)


@pytest.mark.parametrize(
    ("secret", "algorithms", "problem"),
    [
        ("x" * 32, ["HS256"], ""),
        (b"\xff" * 32, ["HS256"], ""),
        ("ü" * 16, ["HS256"], ""),
        ("x" * 31, ["HS256"], "has 31 bytes; HS256 needs at least 32"),
        ("", ["HS256"], "has 0 bytes"),
        ("x" * 47, ["HS256", "HS384"], "at least 48"),
        ("x" * 63, ["HS512"], "at least 64"),
        ("x" * 64, ["HS256", "HS384", "HS512"], ""),
        ("-----BEGIN PUBLIC KEY-----\n" + "x" * 64, ["HS256"], "looks like a PEM"),
        ("\n -----BEGIN CERTIFICATE-----\n" + "x" * 64, ["HS256"], "looks like a PEM"),
        ('{"kty":"RSA","n":"' + "x" * 64, ["HS256"], "looks like a PEM or JWK"),
        ("ssh-rsa " + "x" * 64, ["HS256"], "looks like a PEM"),
    ],
)
def test_secrets(secret: str | bytes, algorithms: list[str], problem: str) -> None:
    """Long enough for the longest hash, and not a public key."""
    found = check_secret(secret, algorithms)
    assert problem in found
    assert bool(found) == bool(problem)
    assert "xxx" not in found


def test_public_keys() -> None:
    """A key that can be read, and can be used with every algorithm of the route."""
    rsa = json.loads((Path(__file__).parent.parent / "middleware" / "data" / "jwt_keys.json").read_text())["rsa"]
    from cryptography.hazmat.primitives import serialization
    from jwt.algorithms import RSAAlgorithm

    form = serialization.PublicFormat.SubjectPublicKeyInfo
    key = RSAAlgorithm.from_jwk(rsa).public_key()  # type: ignore[union-attr]  # it is the private one
    pem = key.public_bytes(serialization.Encoding.PEM, form).decode()
    assert check_public_key(pem, ["RS256", "PS512"]) == ""
    assert check_public_key(pem, ["RS256", "ES256"]).startswith("is an RSA key, which ES256 cannot be used with")
    assert check_public_key("rubbish", ["RS256"]) == "is not one PEM public key"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://auth.example.com/.well-known/jwks.json", ""),
        ("https://auth.example.com:8443/jwks?tenant=1", ""),
        ("https://[2001:db8::1]/jwks", ""),
        ("http://127.0.0.1:9000/jwks", ""),
        ("http://localhost/jwks", ""),
        ("http://[::1]:1/jwks", ""),
        ("http://127.9.9.9/jwks", ""),
        ("http://auth.example.com/jwks", "must be https"),
        ("http://127.0.0.1.evil.example/jwks", "must be https"),
        ("http://localhost.evil.example/jwks", "must be https"),
        ("http://10.0.0.1/jwks", "must be https"),
        ("http://0.0.0.0/jwks", "must be https"),
        ("http://2130706433/jwks", "must be https"),
        ("file:///etc/passwd", "is not a URL like"),
        ("ftp://127.0.0.1/x", "is not a URL like"),
        ("auth.example.com/jwks", "is not a URL like"),
        ("https:///jwks", "is not a URL like"),
        ("https://a:0/", "is not a URL like"),
        ("https://a:99999/", "is not a URL"),
        ("https://[::1/", "is not a URL"),
        ("https://user:pass@auth.example.com/", "must not have a user"),
        ("https://a/#x", "must not have"),
        ("https://a b/", "characters"),
        ("https://a/\r\nX: y", "characters"),
        ("http://127.0.0.1\\@evil.example/", "characters"),
        ("https://ü.example/", "characters"),
        ("", "is not a URL like"),
    ],
)
def test_addresses_of_key_sets(url: str, problem: str) -> None:
    """https anywhere; http to this machine only."""
    found = check_jwks_url(url)
    assert problem in found
    assert bool(found) == bool(problem)
