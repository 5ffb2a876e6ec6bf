"""What the commands' help texts have in common: examples, the first screen of ``gogate --help``, where the
documentation is."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

import gogate_py

#: The first screen: what a newcomer types, in this order.
_START: Final = (
    ("gogate demo", "a gateway with three backends to play with"),
    ("gogate check -config FILE", "every problem of a configuration at once"),
    ("gogate -config FILE", "run it until Ctrl-C or SIGTERM  [./config.yaml]"),
    ("gogate top", "watch it: rates, latencies, errors, backends"),
    ("gogate explain GET URL", "what would happen to a request, and why"),
)


def examples(*lines: str) -> str:
    """Lines of a shell as the end of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def documentation() -> str:
    """Where the documentation is: beside the source, or where the package's installation put it."""
    source = Path(gogate_py.__file__).parent.parent
    for folder in (source, Path(sys.prefix, "share", "doc", "gogate")):
        page = folder / "docs" / "README.md"
        if page.is_file():
            return str(page)
    return "docs/README.md of gogate's source"


def first_screen(ctx: click.Context, formatter: click.HelpFormatter, commands: Mapping[str, str]) -> None:
    """``gogate --help``. ``commands``: name → what it does."""
    formatter.write_usage(ctx.command_path, f"[-config FILE] | {ctx.command_path} COMMAND [OPTIONS]")
    formatter.write_paragraph()
    formatter.write_text("A dual-layer proxy and API gateway: TCP (L4) and HTTP (L7) in front of your backends.")
    with formatter.section("Start here"):
        formatter.write_dl(_START)
    with formatter.section("Commands (gogate COMMAND --help has options and examples)"):
        formatter.write_dl(list(commands.items()))
    with formatter.section("Options"):
        records = (option.get_help_record(ctx) for option in ctx.command.get_params(ctx))
        formatter.write_dl([record for record in records if record])
    formatter.write_paragraph()
    formatter.write(f"Documentation: {documentation()}\n")
