"""The command line: ``gogate`` runs the gateway, ``gogate COMMAND`` does everything else.

Exit codes: 0 fine, 1 bad configuration or failed start, 2 wrong usage. Commands are imported when they are used, so
that ``gogate --version`` does not load a web framework.
"""

from __future__ import annotations

import importlib
from typing import Any

import click

from gogate_py import __version__

#: name → (module, attribute, one line for the list in --help)
_COMMANDS = {
    "run": ("gogate_py.cli.run", "run", "Run the gateway (the same as no command)."),
    "check": ("gogate_py.cli.check", "check", "Check a configuration without running it."),
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
}


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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in _COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if args and ("." in args[0] or "/" in args[0]):
                hint = f"{error.message} To run with this configuration: gogate -config {args[0]}"
                raise click.UsageError(hint, ctx) from None
            raise


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "-help", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  gogate -config config.yaml            run the gateway
  gogate check -config config.yaml      report every problem of a configuration
  gogate demo                           a gateway with backends to play with
  gogate register --name api --address :9001 -- python -m http.server 9001
""",
)
@click.option("-config", "--config", "-c", "config", metavar="FILE", help="Configuration file [./config.yaml].")
@click.version_option(__version__, "-version", "--version", message="gogate %(version)s")
@click.pass_context
def main(ctx: click.Context, config: str | None) -> None:
    """gogate: a dual-layer L4/L7 proxy and API gateway.

    Without a command, runs the gateway with the given configuration until SIGTERM or Ctrl-C.
    """
    if ctx.invoked_subcommand is None:
        from gogate_py.cli.run import run_gateway

        ctx.exit(run_gateway(config or "config.yaml"))
    elif config is not None:
        raise click.UsageError(f"-config stands behind the command: gogate {ctx.invoked_subcommand} -config {config}")
