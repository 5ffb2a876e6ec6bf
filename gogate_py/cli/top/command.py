"""``gogate top``: the command, and what it prints with ``--once``."""

from __future__ import annotations

import sys
import time

import click
from attrs import asdict

from gogate_py.cli.admin_options import admin_command, fail, print_json
from gogate_py.cli.help import examples
from gogate_py.cli.lease import AdminClient
from gogate_py.cli.top.figures import Figures, compare, look
from gogate_py.cli.top.frame import plain
from gogate_py.cli.top.poller import Poller
from gogate_py.cli.top.state import State
from gogate_py.cli.top.tables import BACKENDS, TABLES
from gogate_py.config.values import BadValue, Duration


def _interval(context: click.Context, parameter: click.Parameter, value: str) -> float:
    try:
        return Duration(0.2, 60).parse(value, False)
    except BadValue as error:
        raise click.BadParameter(error.message) from None


@click.command(epilog=examples(
    "gogate top",
    "gogate top --admin http://10.0.0.5:9090                      GOGATE_TOKEN to drain there",
    "gogate top --once --table backends --filter api",
    "gogate top --once --json --interval 5s | jq .totals.p99_ms",
))  # fmt: skip
@click.option("--interval", metavar="TIME", default="1s", show_default=True, callback=_interval,
              help="How often to look (200ms to 60s); with --once the time that is looked at.")
@click.option("--table", "table_name", type=click.Choice(tuple(TABLES)),
              help="The table that is shown first; with --once, the only one.")
@click.option("--sort", "sort", metavar="COLUMN", help="Sort it by this column (--json has their names).")
@click.option("--reverse", is_flag=True, help="The other way round.")
@click.option("--filter", "wanted", metavar="TEXT", default="", help="Only rows in which every word of TEXT stands.")
@click.option("--once", is_flag=True, help="Print the tables once, as plain text, and end.")
@admin_command
def top(
    client: AdminClient, interval: float, table_name: str | None, sort: str | None, reverse: bool, wanted: str,
    once: bool, as_json: bool,
) -> None:  # fmt: skip
    """Show what happens at a running gateway, live: rates, percentiles, errors, routes, backends, listeners.

    Keys: Tab another table, s sort, / filter, d and u drain and undrain a backend, ? all of them, q quit. Figures are
    of the time since the last look, over all workers.
    """
    if as_json and not once:
        raise click.UsageError("--json is for --once")
    table = TABLES[table_name] if table_name else BACKENDS
    state = State(table=table, wanted=wanted)
    sorting = state.sorting[table.name]
    if sort is not None:
        columns = table.keys()
        if sort not in columns:
            raise click.BadParameter(f"{sort!r} is no column of {table.name}: {', '.join(columns)}",
                                     param_hint="--sort")  # fmt: skip
        sorting.column = sort
    sorting.backwards = reverse
    if not once and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("gogate top draws on a terminal; for scripts: gogate top --once (--json)")
    first = look(client)
    if once:
        time.sleep(interval)
        _print(compare(first, look(client)), state, client.url, only=table_name, as_json=as_json)
        return
    from gogate_py.cli.top.screen import NoScreen, show  # here: --once needs no curses

    poller = Poller(client, first, interval)
    poller.start()
    try:
        show(state, poller, client.url)
    except NoScreen as error:
        fail(f"{error}; gogate top --once needs none")


def _print(figures: Figures, state: State, url: str, *, only: str | None, as_json: bool) -> None:
    if not as_json:
        click.echo("\n".join(plain(state, figures, url, only)))
        return
    shown = asdict(figures)
    for name, table in TABLES.items():
        sorting = state.sorting[name]
        shown[name] = [asdict(row) for row in table.chosen(figures, sorting.column, sorting.backwards, state.wanted)]
        if only is not None and name != only:
            del shown[name]
    print_json(shown)
