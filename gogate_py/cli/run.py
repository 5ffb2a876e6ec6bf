"""``gogate -config FILE``: load, check, run. One clear line (or one per problem) and exit code 1 when it cannot.

Modules are imported in the order of need: the zygote imports the data plane while the configuration is read here.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

import click

from gogate_py.cli.config_option import config_option
from gogate_py.cli.help import examples
from gogate_py.errors import ConfigError, StartError
from gogate_py.process.zygote_process import ZygoteProcess

if TYPE_CHECKING:
    import socket


@click.command(epilog=examples(
    "gogate run -config /etc/gogate/config.yaml",
    "GOGATE_LOGGING_LEVEL=debug gogate run -config config.yaml",
))  # fmt: skip
@config_option("Configuration file.")
def run(config: str) -> None:
    """Run the gateway until SIGTERM or Ctrl-C."""
    sys.exit(run_gateway(config))


def _check_access_log(path: str) -> None:
    """Whether access lines can be written there; a FIFO may get its reader later. Raises StartError."""
    if path == "-":
        return
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC, 0o640))
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise StartError(f"cannot write the access log {path}: {error.strerror}") from None


def run_gateway(path: str) -> int:
    """Run the gateway with a configuration file; → exit code."""
    zygote = ZygoteProcess()
    try:
        return _run_told(path, zygote)
    finally:
        zygote.end(0.0)  # of a gateway that ran it has ended long since


def _run_told(path: str, zygote: ZygoteProcess) -> int:
    from gogate_py.config.problems import Problem
    from gogate_py.process.handover import inherited, say_failed
    from gogate_py.telemetry.logs import plain_stderr

    old = inherited(os.environ)
    try:
        return _run(path, old, zygote)
    except ConfigError as error:
        for problem in error.problems:
            assert isinstance(problem, Problem)
            plain_stderr(problem.render())
        plain_stderr(f"gogate: {error}; nothing was started")
        reason = "; ".join(str(problem) for problem in error.problems)
    except StartError as error:
        plain_stderr(f"gogate: {error}")
        reason = str(error)
    if old is not None:
        say_failed(old, reason)
    return 1


def _run(path: str, old: socket.socket | None, zygote: ZygoteProcess) -> int:
    """``old``: the way to the gogate that this one is to take over from. Raises ConfigError, StartError."""
    from gogate_py.config.environment import unknown_overrides
    from gogate_py.config.loader import load_file
    from gogate_py.telemetry.logs import LogWriter, plain_stderr, set_up_supervisor

    config = load_file(path, os.environ)
    for note in unknown_overrides(os.environ):
        plain_stderr(f"note: {note}")
    # The control plane is imported only for a configuration that is good.
    import asyncio

    import uvloop

    from gogate_py.process.supervisor import Supervisor

    logging_config = config.logging
    _check_access_log(logging_config.access.path)
    writer = LogWriter(logging_config.access.path)
    set_up_supervisor(writer, logging_config.level, logging_config.format, logging_config.add_source)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(Supervisor(config, writer, path, old, zygote=zygote).run())
    finally:
        writer.close()
