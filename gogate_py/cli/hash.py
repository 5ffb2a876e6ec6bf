"""``gogate hash``: what a keysFile and a usersFile consist of.

Secrets come from a prompt or from standard input, never from an argument: arguments are visible to everybody on the
machine. Standard output carries exactly the lines that a script wants, everything else goes to standard error.
"""

from __future__ import annotations

import hashlib
import secrets
import sys
from typing import Final

import click

from gogate_py.cli.help import examples
from gogate_py.policy import credentials

#: 256 bits; the prefix tells scanners of leaked secrets, and people, what it is.
_KEY_BYTES: Final = 32
_KEY_PREFIX: Final = "gg_"
#: A stored SHA-256 can be guessed at by the billion per second: shorter texts are not keys.
_LEAST_KEY: Final = 20
_DIGEST: Final = "0" * 63 + "1"


@click.group("hash", epilog=examples(
    "gogate hash api-key --name ci >> keys          the key itself is shown once",
    "gogate hash password --user alice >> users     asks for the password",
))  # fmt: skip
def hash_command() -> None:
    """Make API keys and password hashes for auth in a configuration."""


@hash_command.command("api-key", epilog=examples("gogate hash api-key --name ci", "gogate hash api-key --stdin < key"))
@click.option("--name", default="client", show_default=True, help="What the key is called in files and logs.")
@click.option("--stdin", "from_stdin", is_flag=True, help="Hash the key on standard input instead of making one.")
def api_key(name: str, from_stdin: bool) -> None:
    """Make a random API key; print it, then its line for keysFile (name:SHA-256).

    The key is shown this once; only the hash is stored.
    """
    problem = credentials.api_key_problem(name, _DIGEST)
    if problem:
        raise click.UsageError(problem)
    if from_stdin:
        key = _line_of_stdin()
        if len(key) < _LEAST_KEY:
            raise click.ClickException(f"a key of fewer than {_LEAST_KEY} characters can be found from its hash")
    else:
        key = _KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)
        click.echo("the key, for the client (shown once), and its line for keysFile:", err=True)
        click.echo(key)
    click.echo(f"{name}:{hashlib.sha256(key.encode()).hexdigest()}")


@hash_command.command("password", epilog=examples(
    "gogate hash password --user alice", "gogate hash password --user alice --cost 12",
))  # fmt: skip
@click.option("--user", required=True, help="The user's name.")
@click.option("--cost", type=click.IntRange(credentials.MIN_COST, credentials.MAX_COST), default=11, show_default=True,
              help="One more doubles the time of a check (11: about 0.1 s).")
def password(user: str, cost: int) -> None:
    """Hash a password with bcrypt; print its line for usersFile, as htpasswd -B would.

    Asks for the password twice on a terminal; otherwise it is the first line of standard input.
    """
    import bcrypt

    problem = credentials.name_problem(user)
    if problem:
        raise click.UsageError(problem)
    if sys.stdin.isatty():
        text: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        text = _line_of_stdin()
    data = text.encode()
    if not data or any(byte < 0x20 or byte == 0x7F for byte in data):
        raise click.ClickException("a password has at least one character, and no control characters")
    if len(data) > credentials.MAX_PASSWORD:
        raise click.ClickException(f"bcrypt looks at {credentials.MAX_PASSWORD} bytes only; this password is longer")
    # $2y$ is the same as $2b$, and the name that Apache's tools know.
    hashed = bcrypt.hashpw(data, bcrypt.gensalt(cost)).decode().replace("$2b$", "$2y$", 1)
    click.echo(f"{user}:{hashed}")


def _line_of_stdin() -> str:
    """The first line of standard input without its line end. Ends the command when it is not UTF-8."""
    try:
        return sys.stdin.buffer.readline().decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise click.ClickException("standard input is not UTF-8") from None
