"""``gogate register``: a service in the registry for as long as a command (or this program) runs.

Order: the first registration (what is refused ends here, before the command starts) → the command → heartbeats → the
command ends, or a signal comes: deregister first, so that the gateway sends nothing more, then pass the signal on →
the command's exit code. An unreachable gateway never keeps the command from running.

Exit codes: the command's own, 128 + N when signal N ended it, 126/127 when it cannot be started (as in a shell);
without a command 0; 1 when the gateway refuses; 2 for wrong usage.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any, Final

import click

from gogate_py import addresses
from gogate_py.cli.help import examples
from gogate_py.cli.lease import AdminClient, Lease, Refused, Service
from gogate_py.config.values import BadValue, Duration

_WAITED_FOR: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1})
#: siginfo's code of a signal that a terminal sent: then it went to the whole foreground group, the command included.
_SI_KERNEL: Final = 0x80


def _say(message: str) -> None:
    click.echo(f"gogate register: {message}", err=True)


def _address(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        return str(addresses.parse(value, allow_unix=False))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _ttl(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if value:
        try:
            Duration(1, 300).parse(value, False)
        except BadValue as error:
            raise click.BadParameter(error.message) from None
    return value


def _metadata(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in value:
        key, equals, item = text.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE")
        pairs[key] = item
    return pairs


@click.command(epilog=examples(
    "gogate register --name api --address :9001 -- python3 -m http.server 9001",
    "gogate register --name api --address 10.0.0.5:8080 --tags v2,canary --ttl 10s      until Ctrl-C",
))  # fmt: skip
@click.option("--name", required=True, help="The service's name; pools take instances by it.")
@click.option("--address", required=True, callback=_address, help="host:port, or :port for this machine.")
@click.option("--id", "identity", default="", help="[made by the gateway]")
@click.option("--tags", default="", metavar="A,B", help="Tags, separated by commas.")
@click.option("--tag", "more_tags", multiple=True, help="One tag; may be repeated.")
@click.option("--weight", type=click.IntRange(0, 1000), help="Share of the work. [1]")
@click.option("--ttl", default="", callback=_ttl, help="Lease, 1s to 300s; renewed three times in it. [the gateway's]")
@click.option("--metadata", multiple=True, callback=_metadata, metavar="KEY=VALUE", help="May be repeated.")
@click.option("--admin", envvar="GOGATE_ADMIN", default="http://127.0.0.1:9090", show_default=True, show_envvar=True,
              metavar="URL", help="The gateway's admin API.")
@click.option("--token", envvar="GOGATE_TOKEN", default="", show_envvar=True,
              help="Bearer token, needed from another host. An argument is visible to others: prefer the variable.")
@click.option("--token-file", type=click.Path(dir_okay=False), help="A file that holds the token.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def register(
    name: str, address: str, identity: str, tags: str, more_tags: tuple[str, ...], weight: int | None, ttl: str,
    metadata: dict[str, str], admin: str, token: str, token_file: str | None, command: tuple[str, ...],
) -> None:  # fmt: skip
    """Register a service and renew its lease while COMMAND runs, or until Ctrl-C without one.

    Exit code: the command's own (128 + N: ended by signal N; 126, 127: cannot be started); without one 0. 1: the
    gateway refuses.
    """
    if token_file is not None:
        if token:
            raise click.UsageError("--token and --token-file exclude each other")
        token = _read_token(token_file)
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise click.UsageError("a token has visible ASCII characters only")
    all_tags = tuple(dict.fromkeys(tag.strip() for tag in [*tags.split(","), *more_tags] if tag.strip()))
    try:
        client = AdminClient(admin, token)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    lease = Lease(client, Service(name, address, identity, all_tags, metadata, weight, ttl), _say)
    sys.exit(_run(lease, list(command)))


def _read_token(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        _say(f"cannot read the token file {path}: {error}")
        sys.exit(1)


def _run(lease: Lease, command: list[str]) -> int:
    """Everything after the arguments; → exit code."""
    # Signals are waited for, not handled: only so can be told who sent a SIGINT, and none comes at a bad moment.
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
    try:
        lease.try_register()
    except Refused as error:
        _say(f"the gateway refused: {error}")
        return 1
    if not command:
        return _until_signal(lease)
    try:
        # No thread runs yet, which makes preexec_fn safe; without it the command could not be interrupted.
        child = subprocess.Popen(command, preexec_fn=_unblock)  # noqa: PLW1509
    except OSError as error:
        _say(f"cannot run {command[0]}: {error.strerror or error}")
        lease.leave()
        return 127 if isinstance(error, FileNotFoundError) else 126
    lease.start()
    code = _while_running(lease, child)
    lease.leave()
    return 128 - code if code < 0 else code


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITED_FOR)


def _until_signal(lease: Lease) -> int:
    # Without a command there is nothing that would go on after a refusal: the loop's thread ends the wait.
    lease.on_refused = lambda: os.kill(os.getpid(), signal.SIGUSR1)
    lease.start()
    while True:
        number = signal.sigwaitinfo(_WAITED_FOR).si_signo
        if number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            break
    lease.leave()
    return 1 if number == signal.SIGUSR1 else 0


def _while_running(lease: Lease, child: subprocess.Popen[Any]) -> int:
    """Pass signals on until the command ends; → its return code (negative: minus the signal)."""
    while True:
        code = child.poll()
        if code is not None:
            return code
        info = signal.sigwaitinfo(_WAITED_FOR)
        if info.si_signo == signal.SIGCHLD:
            continue
        lease.leave()
        if info.si_code != _SI_KERNEL:
            child.send_signal(info.si_signo)
