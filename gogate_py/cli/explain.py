"""``gogate explain``: what would happen to a request, and why, by the code that serves requests.

Live (``--admin``) the running gateway answers, with the health, breakers, limits and overrides of this moment. From a
file (``--config``) every backend counts as up and every limit as untouched. Nothing is changed and no backend is asked.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import click
from click.core import ParameterSource

from gogate_py.cli.config_option import config_option
from gogate_py.cli.help import examples
from gogate_py.errors import ConfigError, StartError, WireError


@click.command(epilog=examples(
    "gogate explain GET http://api.example.com/users/7",
    "gogate explain POST /v1/orders -H 'Host: api.example.com' -H 'X-Canary: always' -config config.yaml",
    "gogate explain GET http://api.example.com/ --client-ip 203.0.113.9 --admin http://127.0.0.1:9090",
))  # fmt: skip
@click.argument("method")
@click.argument("url")
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header field; repeatable.")
@click.option("--client-ip", default="", metavar="IP", help="Where the request comes from.  [127.0.0.1]")
@click.option("--listener", default="", metavar="NAME", help="The listener it comes in by.  [any]")
@config_option("Explain with this file, offline.", default=None)
@click.option("--admin", envvar="GOGATE_ADMIN", metavar="URL", show_envvar=True, help="Ask a running gateway.")
@click.option("--token", envvar="GOGATE_TOKEN", default="", show_envvar=True, help="Its admin token.")
@click.option("--json", "as_json", is_flag=True, help="The facts as JSON.")
@click.pass_context
def explain(
    ctx: click.Context,
    method: str,
    url: str,
    headers: Sequence[str],
    client_ip: str,
    listener: str,
    config: str | None,
    admin: str | None,
    token: str,
    as_json: bool,
) -> None:
    """Say which route, stages, arm and backend a request would meet.

    URL is http://host/path, or /path with -H 'Host: …'. Without --config and --admin: ./config.yaml.

    Exit code 0: explained (whatever would become of the request). 1: not possible.
    """
    if config is not None and ctx.get_parameter_source("admin") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--config explains with a file, --admin asks a running gateway: give one of them")
    try:
        if admin is not None and config is None:
            facts = _ask(admin, token, method, url, headers, client_ip, listener)
        else:
            facts = _from_file(config or "config.yaml", method, url, headers, client_ip, listener)
    except _Failed as error:
        click.echo(f"gogate: {error}", err=True)
        sys.exit(1)
    click.echo(json.dumps(facts, indent=2) if as_json else "\n".join(render(facts)))


class _Failed(Exception):
    """The one line that is printed before exit code 1."""


def _from_file(
    path: str, method: str, url: str, headers: Sequence[str], client_ip: str, listener: str
) -> dict[str, Any]:
    from gogate_py.config.listeners import find_http_listener
    from gogate_py.config.loader import load_file
    from gogate_py.middleware.question import BadQuestion, Question
    from gogate_py.process.offline import explain_offline

    try:
        question = Question.of(method, url, headers, client_ip)
        loaded = load_file(path, os.environ)
        return explain_offline(loaded, question, find_http_listener(loaded, listener))
    except BadQuestion as error:
        raise _Failed(str(error)) from None
    except StartError as error:
        raise _Failed(str(error)) from None
    except ConfigError as error:
        raise _Failed(f"{path} has {len(error.problems)} problem(s); see: gogate check -config {path}") from None
    except (WireError, ValueError) as error:
        raise _Failed(str(error)) from None


def _ask(
    admin: str, token: str, method: str, url: str, headers: Sequence[str], client_ip: str, listener: str
) -> dict[str, Any]:
    from urllib.parse import urlencode

    from gogate_py.cli.lease import AdminClient, Refused, UnknownInstance, Unreachable

    asked = [("method", method), ("url", url), ("client_ip", client_ip), ("listener", listener)]
    query = urlencode([*asked, *(("header", field) for field in headers)])
    try:
        return AdminClient(admin, token).call("GET", f"/explain?{query}")
    except (Refused, UnknownInstance, ValueError) as error:
        raise _Failed(str(error)) from None
    except Unreachable as error:
        raise _Failed(f"{admin} does not answer: {error}") from None


def render(facts: dict[str, Any]) -> list[str]:
    """The facts for people, a line each."""
    lines: list[str] = []
    request = facts.get("request")
    if request:
        url = f"{request['host']}{request['path']}{request['query']}"
        lines.append(f"{request['method']} {url} from {request['client']}")
    for one in facts.get("candidates", ()):
        mark = "✓" if one["matched"] else "·"
        lines.append(f"route     {mark} {one['route']}: {one['why'] or 'matches, and is the most specific'}")
    for stage in facts.get("stages", ()):
        lines.append(f"stage     {stage['stage']} {stage['verdict']}: {stage['text']}")
    forwarded = facts.get("forwarded")
    if forwarded:
        lines.append(f"forwarded as {forwarded['host']}{forwarded['path']}")
    split = facts.get("split")
    if split:
        arms = ", ".join(
            f"{arm['pool']} {arm['share']:.1%}{'' if arm['usable'] else ' (no usable backend)'}"
            for arm in split["arms"]
        )
        arm = split["arm"] or "one of them"
        fallback = f", falls back to {split['fallback']}" if "fallback" in split else ""
        lines.append(f"split     {arm}: {split['why']}{fallback} ({arms})")
    for pool in facts.get("pools", ()):
        lines += _pool_lines(pool)
    if "timeouts" in facts:
        shown = ", ".join(f"{name} {value:g}s" for name, value in facts["timeouts"].items() if value)
        lines.append(f"timeouts  {shown}")
        retry = facts["retry"]
        if retry["attempts"] > 1:
            lines.append(f"retry     {retry['attempts']} tries in all, after {', '.join(retry['on']) or 'nothing'}")
        else:
            lines.append("retry     none")
    lines.append(f"outcome   {_outcome(facts['outcome'])}")
    return lines


def _pool_lines(pool: dict[str, Any]) -> list[str]:
    panic = "; panic: health is ignored" if pool["panic"] else ""
    lines = [f"pool      {pool['name']}: {pool['balancer']}, {pool['text']}{panic}"]
    for one in pool["backends"]:
        state = "takes work" if one["takes"] and one["candidate"] else one["why_not"] or "takes no work"
        about = f"weight {one['weight']}, {one['active']} active"
        if one["breaker"] != "none":
            about += f", breaker {one['breaker']}"
        if one.get("warming_up"):
            about += ", warming up"
        mark = "→" if pool["pick"] == one["address"] else " "
        lines.append(f"        {mark} {one['address']}: {state} ({about})")
    return lines


def _outcome(outcome: dict[str, Any]) -> str:
    if outcome["kind"] == "backend":
        if outcome.get("backend"):
            return f"goes to {outcome['backend']} of pool {outcome['pool']}"
        refused = outcome.get("or_refused_in")
        but = f", or 503 where chance takes {' or '.join(refused)}" if refused else ""
        return f"goes to a backend of {' or '.join(outcome['pools'])}{but}"
    if outcome["kind"] == "answer":
        return f"{outcome['status']} from the gateway ({outcome['reason']}, stage {outcome['stage']})"
    wait = f"; Retry-After {outcome['retry_after']}" if outcome.get("retry_after") else ""
    return f"{outcome['status']} {outcome['reason']}: {outcome['detail']} (stage {outcome['stage']}){wait}"
