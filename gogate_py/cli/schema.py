"""``gogate schema``: the JSON Schema of configuration files."""

from __future__ import annotations

import json

import click

from gogate_py.cli.help import examples
from gogate_py.config.json_schema import json_schema


@click.command("schema", epilog=examples("gogate schema > gogate.schema.json"))
def schema() -> None:
    """Print a JSON Schema (2020-12) of configuration files.

    Editors complete and explain keys with it; # yaml-language-server: $schema=FILE in the first line of a configuration
    names it.
    """
    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
