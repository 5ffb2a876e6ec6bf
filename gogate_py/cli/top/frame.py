"""A screen of gogate top as lines of styled text, for any width and height; and the plain text of ``--once``. Pure.

Styles: "" plain, bold, dim, good, warn, bad, selected, title, title-sorted. What they look like is
the terminal's matter (screen.py).
"""

from __future__ import annotations

from typing import Final

from gogate_py.cli.operate import span
from gogate_py.cli.top.figures import Figures, Rate
from gogate_py.cli.top.state import Mode, State
from gogate_py.cli.top.tables import TABLES, Row, Table, cell, clean, laid_out, milliseconds, short

#: One line: pieces of text, each with its style.
Line = list[tuple[str, str]]

_GAP: Final = "  "
_KEYS: Final = "Tab table  s sort  r reverse  / filter  d drain  u undrain  ? help  q quit"
_HELP: Final = (
    "Tab, Back-Tab, 1 to 4   the tables: backends, routes, errors, listeners",
    "↑ ↓ j k Page Home End   select a row",
    "s S                     sort by the next, the previous column",
    "r                       reverse the order",
    "/                       filter: rows with every word that you type; Enter keeps, Esc takes back",
    "Esc                     no filter",
    "d u                     drain the selected backend (no new work; what runs goes on), undrain it",
    "q Ctrl-C                quit",
    "",
    "REQ/S, FAIL/S: requests a second; failures are answers from 500 up and none at all",
    "TCP/S: L4 connections that ended; ACTIVE: requests and connections now, over all workers",
    "P50, P95, P99: milliseconds to the last byte, of the requests since the last look",
)
#: Reasons that have room in the line of errors.
_REASONS: Final = 6


def summary(figures: Figures, url: str) -> list[Line]:
    """What is above the tables: state, requests, clients, errors; then what a look should be given to."""
    gateway, totals = figures.gateway, figures.totals
    state, style = _readiness(figures)
    serving = sum(worker["state"] == "serving" for worker in gateway["workers"])
    workers = f"{serving} of {len(gateway['workers'])} workers"
    lines: list[Line] = [
        [
            (f"gogate {clean(gateway['version'])}", "bold"), (_GAP, ""), (state, style),
            (f"  up {span(gateway['uptime_s'])}  generation {gateway['generation']}  ", ""),
            (workers, "" if serving == len(gateway["workers"]) else "warn"), (f"  {url}", "dim"),
        ],
        [
            ("requests   ", "dim"), (_per_s(totals.requests), "bold"),
            (f"{_GAP}p50 {milliseconds(totals.p50_ms)}  p95 {milliseconds(totals.p95_ms)}"
             f"  p99 {milliseconds(totals.p99_ms)} ms", ""),
            *_by_status(totals.by_status), (f"{_GAP}{totals.in_flight} in flight", ""),
        ],
        [
            ("clients    ", "dim"), (f"{totals.connections} open", "bold"),
            (f"  {_per_s(totals.accepted)} new  {_per_s(totals.refused)} refused"
             f"  {_per_s(totals.tcp_ended)} TCP ended", ""),
        ],
        [("errors     ", "dim"), *_errors(figures)],
    ]  # fmt: skip
    lines += [[("not ready  ", "bad"), (clean(reason), "")] for reason in gateway["reasons"] if reason != state]
    lines += [[("warning    ", "warn"), (clean(warning), "")] for warning in gateway["warnings"]]
    return lines


def _readiness(figures: Figures) -> tuple[str, str]:
    gateway = figures.gateway
    if gateway["draining"]:
        return "draining", "warn"
    return ("ready", "good") if gateway["ready"] else ("not ready", "bad")


def _per_s(rate: Rate) -> str:
    return f"{short(rate)}/s"


def _by_status(rates: dict[str, Rate]) -> Line:
    styles = {"5xx": "bad"}
    return [
        (f"{_GAP}{name} {short(rate)}", styles.get(name, "") if rate else "")
        for name, rate in rates.items()
        if name != "1xx"
    ]


def _errors(figures: Figures) -> Line:
    now = [one for one in figures.errors if one.per_second]
    now.sort(key=lambda one: -(one.per_second or 0.0))
    if not now:
        in_all = sum(one.total for one in figures.errors)
        return [("none now" + (f", {short(in_all)} in all" if in_all else ""), "")]
    said = ", ".join(f"{clean(one.reason)} {_per_s(one.per_second)}" for one in now[:_REASONS])
    return [(said + (" …" if len(now) > _REASONS else ""), "bad")]


def frame(state: State, figures: Figures, url: str, trouble: str, width: int, height: int) -> list[Line]:
    """A whole screen: at most ``height`` lines of at most ``width`` characters. ``trouble``: why the figures are old,
    "" when they are not."""
    top = summary(figures, url)
    # What is left must have room for the tabs, a heading, three rows and the last line.
    top = top[: max(1, height - 6)] if height > 1 else []
    lines = [*top, _tabs(state, figures)] if height > 3 else top
    room = height - len(lines) - 1  # the last line
    if state.mode is Mode.HELP:
        lines += [[(text, "")] for text in _HELP[:room]]
    elif room > 0:
        lines += _table(state, figures, width, room)
    lines += [[] for _ in range(height - len(lines) - 1)]
    lines.append(_last(state, trouble))
    return [_cut(line, width) for line in lines[:height]]


def _tabs(state: State, figures: Figures) -> Line:
    line: Line = []
    for table in TABLES.values():
        count = len(table.rows(figures))
        chosen = table is state.table
        line += [(f" {table.name} {count} ", "selected" if chosen else "dim"), (" ", "")]
    sorting = state.sorting[state.table.name]
    line.append((f" by {sorting.column}{' reversed' if sorting.backwards else ''}", "dim"))
    if state.wanted and state.mode is not Mode.FILTER:
        line.append((f"  filter: {clean(state.wanted)}", "warn"))
    return line


def _table(state: State, figures: Figures, width: int, room: int) -> list[Line]:
    rows = state.rows(figures)
    columns = state.table.fit(rows, width)
    sorted_by = state.sorting[state.table.name].column
    heading = _joined(
        [(laid_out(column, wide, column.title), "title-sorted" if column.key == sorted_by else "title")
         for column, wide in columns], "title"
    )  # fmt: skip
    if not rows:
        return [heading, [("nothing to show" + (" with this filter" if state.wanted else ""), "dim")]][:room]
    place = state.place(rows)
    first = state.scroll(place, room - 1, len(rows))
    lines = [heading]
    for at, row in enumerate(rows[first : first + room - 1], first):
        selected = "selected" if at == place else ""
        cells = [
            (laid_out(column, wide, cell(column, row)), selected or column.style(getattr(row, column.key)))
            for column, wide in columns
        ]
        lines.append(_joined(cells, selected))
    return lines


def _joined(cells: Line, between: str) -> Line:
    """Cells with gaps of this style."""
    return [piece for one in cells for piece in ((_GAP, between), one)][1:]


def _last(state: State, trouble: str) -> Line:
    if state.mode is Mode.FILTER:
        return [("filter: ", "bold"), (clean(state.wanted), ""), ("▏", "dim"), ("  Enter keep  Esc take back", "dim")]
    if state.asked is not None:
        backend = state.asked.backend
        return [(f"{state.asked.verb} {clean(backend.addr)} in pool {clean(backend.pool)}? y/n", "warn")]
    if trouble:
        return [(clean(trouble), "bad")]
    if state.message:
        return [(clean(state.message), "bold")]
    return [(_KEYS if state.mode is Mode.TABLE else "any key: back", "dim")]


def _cut(line: Line, width: int) -> Line:
    """A line without what does not fit; … says that there was more."""
    if sum(len(text) for text, _ in line) <= width:
        return line
    fits: Line = []
    left = width - 1
    for text, style in line:
        fits.append((text[:left], style))
        left -= len(text)
        if left <= 0:
            break
    return [*fits, ("…", "dim")]


def plain(state: State, figures: Figures, url: str, only: str | None) -> list[str]:
    """Everything as lines of plain text, unshortened: what --once prints. The tables that have rows, or the one of
    the name ``only``; ``state`` says how they are sorted and filtered."""
    lines = ["".join(text for text, _ in line).rstrip() for line in summary(figures, url)]
    for table in TABLES.values():
        sorting = state.sorting[table.name]
        rows = table.chosen(figures, sorting.column, sorting.backwards, state.wanted)
        if table.name == only or (rows and only is None):
            lines += ["", *_plain_table(table, rows)]
    return lines


def _plain_table(table: Table, rows: list[Row]) -> list[str]:
    columns = table.fit(rows, None)
    lines = [_GAP.join(laid_out(column, wide, column.title) for column, wide in columns)]
    lines += [_GAP.join(laid_out(column, wide, cell(column, row)) for column, wide in columns) for row in rows]
    return [line.rstrip() for line in lines]
