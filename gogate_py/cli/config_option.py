"""The one way to name a configuration file on the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

#: What is taken where none is named.
DEFAULT = "config.yaml"


def config_option(does: str = "", *, default: str | None = DEFAULT) -> Callable[[Any], Any]:
    """-config FILE; ``does`` says what for. Shells complete it with files."""
    text = f"{does}  [./{DEFAULT}]" if default else does
    return click.option("-config", "--config", "-c", "config", type=click.Path(), metavar="FILE", default=default,
                        help=text.strip())  # fmt: skip
