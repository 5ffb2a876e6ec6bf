"""What the commands share that talk to a running gateway: where its admin API is, the token, text or JSON, and failing
with one line.

Exit codes of all of them: 0 done, 1 refused or no answer, 2 wrong usage.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, NoReturn

import click

from gogate_py.cli.lease import AdminClient, Refused, UnknownInstance, Unreachable

#: A reload may wait for names and for every worker, seconds.
CALL_TIMEOUT: Final = 30.0


def admin_command(work: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of the admin API; ``work`` gets the client first, and may raise what it raises."""

    @wraps(work)
    def command(admin: str, token: str, token_file: str | None, **given: Any) -> None:
        client = _client(admin, token, token_file)
        try:
            work(client, **given)
        except (Refused, UnknownInstance) as error:
            fail(str(error))
        except Unreachable as error:
            fail(f"the admin API at {client.url} does not answer: {error}; "
                 "another address: --admin URL or GOGATE_ADMIN")

    for option in (
        click.option("--json", "as_json", is_flag=True, help="JSON instead of text, for programs."),
        click.option("--token-file", type=click.Path(dir_okay=False), help="A file that holds the token."),
        click.option("--token", envvar="GOGATE_TOKEN", default="", show_envvar=True,
                     help="Its token. An argument is visible to others: prefer the variable."),
        click.option("--admin", envvar="GOGATE_ADMIN", default="http://127.0.0.1:9090", show_default=True,
                     show_envvar=True, metavar="URL", help="The gateway's admin API."),
    ):  # fmt: skip
        command = option(command)
    return command


def _client(admin: str, token: str, token_file: str | None) -> AdminClient:
    if token_file is not None:
        if token:
            raise click.UsageError("--token and --token-file exclude each other")
        try:
            with open(token_file, encoding="utf-8") as file:
                token = file.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            fail(f"cannot read the token file {token_file}: {error}")
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise click.UsageError("a token has visible ASCII characters only")
    try:
        return AdminClient(admin, token, CALL_TIMEOUT)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def fail(message: str) -> NoReturn:
    """One line on standard error, exit code 1."""
    click.echo(f"gogate: {message}", err=True)
    sys.exit(1)


def print_json(value: Any) -> None:
    """A value for programs."""
    click.echo(json.dumps(value, indent=2))
