"""``gogate check``: every problem of a configuration at once, by the code that loads it for a run."""

from __future__ import annotations

import os
import sys

import click

from gogate_py.config.environment import unknown_overrides
from gogate_py.config.loader import load_file
from gogate_py.config.problems import Problem
from gogate_py.config.schema import Config
from gogate_py.errors import ConfigError, StartError


@click.command()
@click.option("-config", "--config", "-c", "config", metavar="FILE", default="config.yaml", help="[./config.yaml]")
def check(config: str) -> None:
    """Report every problem of a configuration, without running it.

    Files of keys and users that it names are read, too. A note is about a variable that overrides nothing.

    Exit code 0: it can run. 1: it has problems, or cannot be read.
    """
    for note in unknown_overrides(os.environ):
        click.echo(f"note: {note}", err=True)
    try:
        loaded = load_file(config, os.environ)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(problem.render() if isinstance(problem, Problem) else str(problem), err=True)
        count = len(error.problems)
        click.echo(f"{config}: {count} problem{'s' if count > 1 else ''}", err=True)
        sys.exit(1)
    except StartError as error:
        click.echo(f"gogate: {error}", err=True)
        sys.exit(1)
    click.echo(f"{config}: ok")
    click.echo(summary(loaded))


def summary(config: Config) -> str:
    """What a configuration amounts to, in one line: pools, routes, listeners."""
    pools, routes, server = config.effective_pools(), config.effective_routes(), config.server
    backends = sum(len(pool.backends) for pool in pools.values())
    listeners = [f"tcp {route.listen_addr}" for route in routes if route.type == "tcp"]
    if server.http_listen_addr:
        listeners.append(f"http {server.http_listen_addr}")
    if server.admin.enabled:
        listeners.append(f"admin {server.admin.listen_addr}")
    if server.metrics.enabled and server.metrics.listen_addr:
        listeners.append(f"metrics {server.metrics.listen_addr}")
    if server.registry.enabled and server.registry.listen_addr:
        listeners.append(f"registry {server.registry.listen_addr}")
    counts = ", ".join((_count(len(pools), "pool"), _count(backends, "backend"), _count(len(routes), "route")))
    return f"{counts}; listeners: {', '.join(listeners)}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
