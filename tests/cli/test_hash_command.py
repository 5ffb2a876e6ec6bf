"""``gogate hash``: lines that the files take, and nothing that could leak."""

from __future__ import annotations

import hashlib

import bcrypt
import pytest
from click.testing import CliRunner, Result

from gogate_py.cli import main
from gogate_py.policy.credentials import parse_api_keys, parse_users


def gogate(*arguments: str, stdin: str | bytes = "") -> Result:
    """Run a command of gogate."""
    return CliRunner().invoke(main, ["hash", *arguments], input=stdin)


class TestApiKey:
    """gogate hash api-key."""

    def test_makes_a_key_and_its_line(self) -> None:
        """Standard output: the key, then its line for keysFile; no two keys are the same."""
        result = gogate("api-key", "--name", "mobile")
        assert result.exit_code == 0
        key, line = result.stdout.splitlines()
        assert key.startswith("gg_")
        assert len(key) >= 46
        assert parse_api_keys(line) == ((("mobile", hashlib.sha256(key.encode()).hexdigest()),), ())
        assert gogate("api-key").stdout.splitlines()[0] != key

    def test_hashes_a_key_that_exists(self) -> None:
        """From standard input, which is not echoed."""
        result = gogate("api-key", "--name", "old", "--stdin", stdin="0123456789abcdefghij\n")
        assert result.stdout == f"old:{hashlib.sha256(b'0123456789abcdefghij').hexdigest()}\n"
        assert "0123456789" not in result.stderr

    @pytest.mark.parametrize(
        ("arguments", "stdin", "code", "message"),
        [
            (("--name", "a:b"), "", 2, "a key's name has"),
            (("--name", ""), "", 2, "a key's name has"),
            (("--stdin",), "short\n", 1, "fewer than 20 characters"),
            (("--stdin",), b"\xff" * 30, 1, "not UTF-8"),
        ],
    )
    def test_refuses(self, arguments: tuple[str, ...], stdin: str | bytes, code: int, message: str) -> None:
        """A name that no line can have, a key that could be guessed from its hash."""
        result = gogate("api-key", *arguments, stdin=stdin)
        assert (result.exit_code, result.stdout) == (code, "")
        assert message in result.stderr


class TestPassword:
    """gogate hash password."""

    def test_makes_an_htpasswd_line(self) -> None:
        """bcrypt as Apache's tools name it; the password comes from standard input and is shown nowhere."""
        result = gogate("password", "--user", "Zoë", "--cost", "4", stdin="correct horse \r\nnext line\n")
        assert result.exit_code == 0
        ((name, hashed),), problems = parse_users(result.stdout)
        assert (name, hashed[:7], problems) == ("Zoë", "$2y$04$", ())
        assert bcrypt.checkpw(b"correct horse ", hashed.encode())
        assert "horse" not in result.output

    @pytest.mark.parametrize(
        ("user", "stdin", "code", "message"),
        [
            ("a:b", "x\n", 2, "a user name has"),
            ("#a", "x\n", 2, "a user name has"),
            ("", "x\n", 2, "a user name has"),
            ("bob", "", 1, "at least one character"),
            ("bob", "\n", 1, "at least one character"),
            ("bob", "a\tb\n", 1, "no control characters"),
            ("bob", "x" * 73 + "\n", 1, "72 bytes only"),
            ("bob", b"\xff\n", 1, "not UTF-8"),
        ],
    )
    def test_refuses(self, user: str, stdin: str | bytes, code: int, message: str) -> None:
        """What the gateway would not take either."""
        result = gogate("password", "--user", user, "--cost", "4", stdin=stdin)
        assert (result.exit_code, result.stdout) == (code, "")
        assert message in result.stderr

    def test_a_cost_that_nobody_can_pay_is_no_option(self) -> None:
        """At most the cost that a users file may have."""
        assert gogate("password", "--user", "bob", "--cost", "15", stdin="x\n").exit_code == 2
