"""``gogate check``: every problem of a configuration at once, by the code that loads it for a run, and advice about
what runs but most likely does not do what was meant."""

from __future__ import annotations

import os
import sys

import click

from gogate_py.cli.check_output import as_github, as_json, as_text, counted
from gogate_py.cli.config_option import config_option
from gogate_py.cli.help import examples
from gogate_py.config.codes import ERROR, WARNING
from gogate_py.config.environment import unknown_overrides
from gogate_py.config.listeners import data_listeners
from gogate_py.config.loader import examine_file
from gogate_py.config.problems import Problem
from gogate_py.config.schema import Config
from gogate_py.errors import StartError


@click.command(epilog=examples(
    "gogate check -config config.yaml",
    "gogate check -config config.yaml --strict --format github",
    "gogate check -config config.yaml --probe",
))  # fmt: skip
@config_option("The file to check.")
@click.option("--strict", is_flag=True, help="Warnings fail, too.")
@click.option("--probe", is_flag=True, help="Ask every backend for its health, 2 s at most each.")
@click.option(
    "--format", "form", type=click.Choice(("text", "json", "github")), default="text", show_default=True,
    help="github: annotations of GitHub Actions.")
def check(config: str, strict: bool, probe: bool, form: str) -> None:
    """Report every problem of a configuration, without running it.

    Files of keys and users that it names are read, too. Warnings and notes are about what runs, but most likely does
    not do what was meant; a note may also be about a variable that overrides nothing.

    Exit code 0: it can run. 1: it has problems, or cannot be read; with --strict also: it has warnings.
    """
    findings = [_about_variable(config, name, message) for name, message in map(_split, unknown_overrides(os.environ))]
    loaded: Config | None = None
    try:
        examined = examine_file(config, os.environ)
        loaded = examined.config
        if probe and loaded is not None:
            from gogate_py.cli.check_probe import probe_backends

            probe_backends(loaded, examined.findings)
        findings += examined.problems + examined.advice
    except StartError as error:
        if form == "text":
            _say_text(findings)
            click.echo(f"gogate: {error}", err=True)
            sys.exit(1)
        findings.append(Problem(config, 0, 0, "", str(error), code="GG001"))
    failing = (ERROR, WARNING) if strict else (ERROR,)
    failed = any(finding.severity in failing for finding in findings)
    match form:
        case "json":
            click.echo(as_json(config, findings, failed, summary(loaded) if loaded else ""))
        case "github":
            for finding in findings:
                click.echo(as_github(finding))
        case _:
            _say_text(findings)
            _say_verdict(config, loaded, findings, failed)
    if failed:
        sys.exit(1)


def _split(said: str) -> tuple[str, str]:
    """``NAME overrides nothing…`` → the variable, and all of it."""
    return said.partition(" ")[0], said


def _about_variable(file: str, name: str, message: str) -> Problem:
    return Problem(file, 0, 0, "", message.removeprefix(f"{name} "), variable=name, code="GG006")


def _say_text(findings: list[Problem]) -> None:
    for finding in findings:
        # A variable has no place in the file.
        text = f"note: {finding.variable} {finding.message}" if finding.code == "GG006" else as_text(finding)
        click.echo(text, err=True)


def _say_verdict(file: str, loaded: Config | None, findings: list[Problem], failed: bool) -> None:
    if loaded is None:
        count = sum(finding.severity == ERROR for finding in findings)
        click.echo(f"{file}: {count} problem{'s' if count > 1 else ''}", err=True)
        return
    advice = counted([finding for finding in findings if finding.code != "GG006"])
    if failed:
        click.echo(f"{file}: {advice}; --strict takes warnings for problems", err=True)
        return
    click.echo(f"{file}: ok{', ' if advice else ''}{advice}")
    click.echo(summary(loaded))


def summary(config: Config) -> str:
    """What a configuration amounts to, in one line: pools, routes, listeners."""
    pools, routes, server = config.effective_pools(), config.effective_routes(), config.server
    backends = sum(len(pool.backends) for pool in pools.values())
    listeners = [f"{one.kind} {one.address}" for one in data_listeners(config)]
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
