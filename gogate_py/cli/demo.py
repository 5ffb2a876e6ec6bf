"""``gogate demo``: a gateway with three backends to play with, and four commands that show what it does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import click

from gogate_py.cli.help import examples
from gogate_py.demo.configuration import Ports


def _port(name: str, what: str, default: int) -> Callable[[Any], Any]:
    return click.option(
        name, metavar="PORT", type=click.IntRange(0, 65535), default=default, show_default=True,
        help=f"Port of the {what}; when it is 0 or taken: any free one.",
    )  # fmt: skip


@click.command(epilog=examples("gogate demo", "gogate demo --http-port 0 --tcp-port 0 --admin-port 9095"))
@_port("--http-port", "HTTP listener", Ports().http)
@_port("--tcp-port", "TCP listener", Ports().tcp)
@_port("--admin-port", "admin API", Ports().admin)
def demo(http_port: int, tcp_port: int, admin_port: int) -> None:
    """Run a gateway with three demo backends until Ctrl-C, and print what to try.

    All of it listens on 127.0.0.1 only.
    """
    from gogate_py.demo.run import Demo  # here: --help needs none of it

    sys.exit(asyncio.run(Demo(Ports(http_port, tcp_port, admin_port)).run()))
