"""The command line: ``gogate`` runs the gateway, ``gogate COMMAND`` does everything else.

Exit codes: 0 fine, 1 bad configuration or failed start, 2 wrong usage. Commands are imported when they are used, so
that ``gogate --version`` does not load a web framework.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

import click

from gogate_py import __version__
from gogate_py.cli.config_option import DEFAULT, config_option
from gogate_py.cli.help import first_screen

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

#: name → (module, attribute, one line for the list in --help)
_COMMANDS = {
    "run": ("gogate_py.cli.run", "run", "Run the gateway (the same as no command)."),
    "check": ("gogate_py.cli.check", "check", "Check a configuration without running it."),
    "fmt": ("gogate_py.cli.fmt", "fmt", "Write a configuration in its canonical spelling."),
    "schema": ("gogate_py.cli.schema", "schema", "Print a JSON Schema of configurations, for editors."),
    "explain": ("gogate_py.cli.explain", "explain", "Say what would happen to a request, and why."),
    "reload": ("gogate_py.cli.operate", "reload", "Make a running gateway read its configuration again."),
    "plan": ("gogate_py.cli.operate", "plan", "Show what another configuration would do to a running gateway."),
    "status": ("gogate_py.cli.operate", "status", "Show what a running gateway does."),
    "top": ("gogate_py.cli.top.command", "top", "Show live what happens at a running gateway."),
    "health": ("gogate_py.cli.health", "health", "Say whether a running gateway is alive, by the exit code."),
    "drain": ("gogate_py.cli.operate", "drain", "Give a backend no new work, or work again."),
    "services": ("gogate_py.cli.operate", "services", "List the registered services."),
    "register": ("gogate_py.cli.register", "register", "Register a service, keep its heartbeat while a command runs."),
    "hash": ("gogate_py.cli.hash", "hash_command", "Make API keys and password hashes."),
    "demo": ("gogate_py.cli.demo", "demo", "Run a gateway with three demo backends."),
    "completion": ("gogate_py.cli.completion", "completion", "Print the completion script for bash, zsh or fish."),
}

_NOTHING_TO_RUN = """\
gogate: there is no config.yaml here, and no other file was named
  gogate -config FILE   run with this configuration
  gogate demo           see it work, without a configuration
  gogate --help         everything else"""


class _Commands(click.Group):
    """The group; knows its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = getattr(importlib.import_module(entry[0]), entry[1])
        return command

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        first_screen(ctx, formatter, {name: does for name, (_, _, does) in _COMMANDS.items()})

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands, without importing them, and the options."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=does) for name, (_, _, does) in _COMMANDS.items()]
        found = [one for one in found if one.value.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = args[0]
        if name in _COMMANDS or name.startswith("-"):
            return super().resolve_command(ctx, args)
        if "." in name or "/" in name:
            hint = f"To run with this configuration: gogate -config {name}"
        elif ctx.params.get("config"):  # -confg FILE is -c onfg, and then a command
            hint = f"The configuration before it was {ctx.params['config']!r}."
        else:
            from difflib import get_close_matches

            near = get_close_matches(name, _COMMANDS, 3, 0.65)
            hint = f"Did you mean {' or '.join(near)}?" if near else "gogate --help lists them."
        raise click.UsageError(f"No such command {name!r}. {hint}", ctx)


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "-help", "--help"], "max_content_width": 100},
)
@config_option("Run with this configuration.", default=None)
@click.version_option(__version__, "-version", "--version", message="gogate %(version)s")
@click.pass_context
def main(ctx: click.Context, config: str | None) -> None:
    """gogate: a dual-layer L4/L7 proxy and API gateway."""
    if ctx.invoked_subcommand is None:
        if config is None and not os.path.exists(DEFAULT):
            click.echo(_NOTHING_TO_RUN, err=True)
            ctx.exit(1)
        from gogate_py.cli.run import run_gateway

        ctx.exit(run_gateway(config or DEFAULT))
    elif config is not None:
        raise click.UsageError(f"-config stands behind the command: gogate {ctx.invoked_subcommand} -config {config}")
