"""``gogate completion``: what a shell needs to complete commands, options, files and backends."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import CompletionItem, get_completion_class

from gogate_py.cli.help import examples
from gogate_py.cli.lease import AdminClient, Refused, UnknownInstance, Unreachable

#: The variable by which the script asks gogate for completions; click derives it from the program's name.
_VARIABLE: Final = "_GOGATE_COMPLETE"
_SHELLS: Final = ("bash", "zsh", "fish")
#: Seconds that somebody who pressed Tab may wait for a gateway.
_PATIENCE: Final = 1.0


@click.command(epilog=examples(
    "eval \"$(gogate completion bash)\"                                  this shell; for all: in ~/.bashrc",
    "gogate completion zsh > ~/.zfunc/_gogate                          a folder of $fpath",
    "gogate completion fish > ~/.config/fish/completions/gogate.fish",
))  # fmt: skip
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> None:
    """Print the completion script for SHELL.

    It completes commands, options with their words, files, and for drain the backends of a running gateway.
    """
    from gogate_py.cli import main

    found = get_completion_class(shell)
    assert found is not None, shell
    click.echo(found(main, {}, "gogate", _VARIABLE).source())


def backends(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The backends of the gateway that the command line means, by address; none where it does not answer."""
    given = ctx.params
    try:
        client = AdminClient(given.get("admin") or "http://127.0.0.1:9090", given.get("token") or "", _PATIENCE)
        found = client.call("GET", "/backends")["backends"]
    except (ValueError, Refused, UnknownInstance, Unreachable):
        return []
    addresses = {one["addr"]: f"pool {one['pool']}" for one in found}
    return [CompletionItem(each, help=pool) for each, pool in addresses.items() if each.startswith(incomplete)]
