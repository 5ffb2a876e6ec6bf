"""``gogate reload``, ``plan``, ``status``, ``drain``, ``services``: what operators ask a running gateway.

Text for people on standard output, a line each; ``--json`` prints what the API answered. Exit codes: 0 done, 1 refused,
not ready (status) or no answer, 2 wrong usage.
"""

from __future__ import annotations

import math
import sys
import time
from typing import Any, Final
from urllib.parse import quote, urlencode

import click

from gogate_py.cli.admin_options import admin_command, fail, print_json
from gogate_py.cli.completion import backends
from gogate_py.cli.config_option import config_option
from gogate_py.cli.help import examples
from gogate_py.cli.lease import AdminClient, Refused

#: Seconds between two looks at a backend that drains.
_POLL: Final = 0.25


@click.command(epilog=examples("gogate reload", "gogate reload --admin http://10.0.0.5:9090 --token-file token"))
@admin_command
def reload(client: AdminClient, as_json: bool) -> None:
    """Make the gateway read its configuration file again.

    Returns when every worker serves it, and prints what that changed. A configuration with problems changes nothing:
    they are printed with their places, and the exit code is 1.
    """
    try:
        done = client.call("POST", "/reload")
    except Refused as error:
        problems = error.answer.get("problems")
        if not problems:
            raise
        if as_json:
            print_json(error.answer)
        else:
            click.echo("\n".join(problems), err=True)
        fail("the configuration is not served; the old one goes on")
    if as_json:
        print_json(done)
    elif done["result"] == "unchanged":
        click.echo(f"the configuration is unchanged: generation {done['generation']}")
    else:
        click.echo(f"the configuration is served: generation {done['generation']}, after {done['duration_s']:g} s")
        for change in done["changes"]:
            click.echo(f"  {change}")
        for note in done["problems"]:
            click.echo(f"note: {note}", err=True)


@click.command(epilog=examples("gogate plan -config new.yaml", "gogate plan -config new.yaml --json"))
@config_option("The other configuration.")
@admin_command
def plan(client: AdminClient, config: str, as_json: bool) -> None:
    """Show what serving another configuration would do; nothing changes.

    Added (+), removed (-), changed (~) and kept (=) things, listeners that rebind, what drains, what keeps its state,
    what needs a restart (!). Variables in the file are those of the gateway. Exit code 1: it cannot be served.
    """
    try:
        with open(config, encoding="utf-8-sig") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"cannot read {config}: {error}")
    try:
        found = client.call("POST", "/plan", {"config": text})
    except Refused as error:
        problems = error.answer.get("problems")
        if not problems:
            raise
        click.echo("\n".join(problems), err=True)
        fail("this configuration cannot be served")
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join(found["text"]))


@click.command(epilog=examples("gogate status", "gogate status --json | jq .stats.requests"))
@admin_command
def status(client: AdminClient, as_json: bool) -> None:
    """Show readiness, configuration, workers, backends and what is overridden.

    Exit code 0: ready for traffic. 1: not ready, or no answer.
    """
    stats = client.call("GET", "/stats")
    config = client.call("GET", "/config/status")
    backends = client.call("GET", "/backends")["backends"]
    if as_json:
        print_json({"stats": stats, "config": config, "backends": backends})
    else:
        pools = [one["name"] for one in client.call("GET", "/topology")["pools"]]
        shown = [*_overview(stats, config), *_pools(pools, backends), *_overrides(config["overrides"])]
        click.echo("\n".join(shown))
    if not stats["ready"]:
        sys.exit(1)


def _overview(stats: dict[str, Any], config: dict[str, Any]) -> list[str]:
    state = "draining" if stats["draining"] else "ready" if stats["ready"] else "not ready"
    lines = [f"gogate {stats['version']} is {state}, pid {stats['pid']}, up {span(stats['uptime_s'])}"]
    lines += [f"not ready {reason}" for reason in stats["reasons"] if reason != state]
    lines += [f"warning   {warning}" for warning in stats["warnings"]]
    failing = config["failing"]
    served = f"config    {config['file'] or 'no file'}, generation {config['generation']}"
    if failing is None:
        lines.append(f"{served}, is served")
    else:
        lines.append(f"{served}: NOT SERVED as it is since {failing['time']} ({failing['cause']}); the old one goes on")
        lines += [f"          {problem}" for problem in failing["problems"]]
    workers = ", ".join(f"{one['slot']} {one['state']} (pid {one['pid']})" for one in stats["workers"])
    lines.append(f"workers   {workers}")
    connections, requests = stats["connections"], stats["requests"]
    lines.append(f"clients   {connections['active']} connected, {connections['total']} in all")
    lines.append(f"requests  {requests['in_flight']} in flight, {requests['total']} in all")
    return lines


def _pools(pools: list[str], backends: list[dict[str, Any]]) -> list[str]:
    lines = []
    for pool in pools:
        mine = [one for one in backends if one["pool"] == pool]
        takes = f"{sum(map(_takes_work, mine))} of {len(mine)} backends take work" if mine else "no backend is known"
        lines.append(f"pool      {pool}: {takes}")
        lines += [f"          {backend_line(one)}" for one in mine]
    return lines


def _takes_work(one: dict[str, Any]) -> bool:
    return one["healthy"] and not one["draining"] and not one["ejected"] and one["breaker"] != "open"


def backend_line(one: dict[str, Any]) -> str:
    """One backend in words."""
    words = ["up" if one["healthy"] else f"down ({one['last_error'] or 'not probed yet'})"]
    if one["draining"]:
        left = one.get("drain_ends_in_s")
        words.append("draining" if left is None else f"draining, {span(math.ceil(left))} left" if left else "drained")
    if one["ejected"]:
        words.append("ejected")
    if one["breaker"] != "closed":
        words.append(f"breaker {one['breaker'].replace('_', '-')}")
    weight = f"weight {one['weight']}"
    if "configured_weight" in one:
        weight += f" instead of {one['configured_weight']}"
    words += [weight, f"{one['active_connections']} active"]
    name = one["addr"] if one["id"] == one["addr"] else f"{one['addr']} ({one['id']})"
    return f"{name}: {', '.join(words)}"


def _overrides(overrides: dict[str, Any]) -> list[str]:
    lines = [
        f"override  weight of {one['backend']} in pool {one['pool']} is {one['value']} since {one['overridden_since']}"
        for one in overrides["weights"]
    ]
    lines += [
        f"override  weight of {one['pool']} in route {one['route']} is {one['value']} since {one['overridden_since']}"
        for one in overrides["splits"]
    ]
    return lines + [
        f"override  {one['backend']} in pool {one['pool']} is drained since {one['overridden_since']}"
        for one in overrides["drained"]
    ]


def span(seconds: float) -> str:
    """A time for people: its two largest units."""
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    left = int(seconds)
    parts: list[str] = []
    for name, size in units:
        count, left = divmod(left, size)
        if count or parts or size == 1:
            parts.append(f"{count}{name}")
    return "".join(parts[:2])


@click.command(epilog=examples(
    "gogate drain 10.0.0.1:8080 --wait",
    "gogate drain 10.0.0.1:8080 --pool api --deadline 30s",
    "gogate drain api-1 --undrain",
))  # fmt: skip
@click.argument("backend", shell_complete=backends)
@click.option("--undrain", is_flag=True, help="Give it work again; a deadline is off.")
@click.option("--pool", metavar="NAME", help="Only in this pool.  [all]")
@click.option("--deadline", metavar="TIME", help="Cut what still runs after this time (30s, 5m).  [never]")
@click.option("--wait", is_flag=True, help="Return when nothing runs there any more.")
@admin_command
def drain(
    client: AdminClient, backend: str, undrain: bool, pool: str | None, deadline: str | None, wait: bool, as_json: bool
) -> None:
    """Give BACKEND (its address, or the id of a registration) no new work; what runs goes on.

    It stays so, over reloads, until --undrain or the end of the gateway. Draining it again sets another deadline, or
    none.
    """
    if undrain and (deadline is not None or wait):
        raise click.UsageError("--deadline and --wait are for a drain, not for --undrain")
    query = f"?{urlencode({'pool': pool})}" if pool is not None else ""
    verb = "undrain" if undrain else "drain"
    body = None if deadline is None else {"deadline": deadline}
    backends = client.call("POST", f"/backends/{quote(backend, safe='')}/{verb}{query}", body)["backends"]
    if wait:
        backends = _wait_until_idle(client, backends, quiet=as_json)
    if as_json:
        print_json({"backends": backends})
    else:
        click.echo("\n".join(f"pool {one['pool']}: {backend_line(one)}" for one in backends))


def _wait_until_idle(client: AdminClient, drained: list[dict[str, Any]], *, quiet: bool) -> list[dict[str, Any]]:
    """Wait until nothing runs at these backends; → what they are then, without those that are gone. Says how many are
    left when it is another number."""
    names = {(one["pool"], one["addr"]) for one in drained}
    said = None
    while True:
        time.sleep(_POLL)  # also before the first look: a worker may have picked it just before it was told
        found = [one for one in client.call("GET", "/backends")["backends"] if (one["pool"], one["addr"]) in names]
        if not all(one["draining"] for one in found):
            fail("somebody gave it work again")
        active = sum(one["active_connections"] for one in found)
        if not active:
            return found
        if active != said and not quiet:
            click.echo(f"{active} active", err=True)
            said = active


@click.command(epilog=examples("gogate services", "gogate services --name api --tag canary"))
@click.option("--name", help="Only instances of this service.")
@click.option("--tag", help="Only instances with this tag.")
@admin_command
def services(client: AdminClient, name: str | None, tag: str | None, as_json: bool) -> None:
    """List the registered services: id, name, address, tags, state, when the lease ends, pools.

    passing and warning (most of the lease is over) get work; critical (it is over) do not; suspect are kept because
    most of a service fell silent at once.
    """
    asked = urlencode({key: value for key, value in (("name", name), ("tag", tag)) if value is not None})
    answer = client.call("GET", f"/v1/services{'?' if asked else ''}{asked}")
    if as_json:
        print_json(answer)
        return
    found = [
        (one["id"], one["name"], one["address"], ",".join(one["tags"]) or "-", one["state"],
         f"{one['expires_in_s']:.0f}s", ",".join(one["pools"]) or "no pool")
        for one in answer["services"]
    ]  # fmt: skip
    if not found:
        click.echo("no service is registered" + (" with this name or tag" if asked else ""))
        return
    rows = [("ID", "NAME", "ADDRESS", "TAGS", "STATE", "EXPIRES", "POOLS"), *found]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
