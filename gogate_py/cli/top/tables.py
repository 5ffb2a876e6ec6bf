"""The four tables of gogate top: their columns, how they are sorted and filtered. Pure.

A column has a place in the order in which columns are left out where the terminal is too narrow: the least telling
ones first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import frozen

from gogate_py.cli.top.figures import Backend, Failing, Figures, Listener, Route

Row = Backend | Route | Failing | Listener

#: States of backends from the worst to the best, with their colour.
STATES: Final = {
    "down": "bad", "breaker open": "bad", "ejected": "bad", "draining": "warn", "drained": "warn",
    "breaker half-open": "warn", "warming up": "warn", "up": "good",
}  # fmt: skip
_GAP: Final = "  "
#: So much of the first column is always shown: an IPv4 address with its port tells backends apart.
_LEAST_NAME: Final = 21
#: On a screen, of any column but the first: one long error must not take the place of everything else.
_WIDEST: Final = 32
_DIGITS: Final = re.compile(r"([0-9]+)")
#: Text that a terminal would take for an order, or that would break a line.
_CONTROL: Final = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029), "?")


@frozen
class Column:
    """One column: ``key`` names the figure (and is what --sort takes), ``form`` writes it. ``keep``: the higher the
    later it is left out. Numbers stand right and are sorted from the largest."""

    key: str
    title: str
    form: Callable[[Any], str]
    keep: int
    number: bool = True
    style: Callable[[Any], str] = lambda _: ""


def clean(text: str) -> str:
    """A text of somebody else's without anything that a terminal obeys."""
    return text.translate(_CONTROL)


def short(value: float | None) -> str:
    """A number in at most five characters or so: 0, 0.3, 12.5, 1234, 56.1k, 7.2M."""
    if value is None:
        return "-"
    if value < 0.05:
        return "0"
    if value < 99.95:
        text = f"{value:.1f}"
        return text.removesuffix(".0")
    if value < 10_000:
        return f"{value:.0f}"
    for unit, size in (("k", 1e3), ("M", 1e6)):
        if value < 999.95 * size:
            return f"{value / size:.1f}{unit}"
    return f"{value / 1e9:.1f}G"


def milliseconds(value: float | None) -> str:
    """A duration: 0.52, 12.3, 1234."""
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def _alarm(value: float | None) -> str:
    return "bad" if value else ""


def _state(value: str) -> str:
    return STATES.get(value, "")


def _rank(key: str, row: Row) -> Any:
    """What a row is sorted by: what needs a look first."""
    value = getattr(row, key)
    if key == "state":
        return list(STATES).index(value)
    return _natural(value) if isinstance(value, str) else value


def _natural(text: str) -> list[str | int]:
    """Text with its numbers as numbers: 10.0.0.9 comes before 10.0.0.10. Text and numbers alternate, beginning with
    text, so that two of these can always be compared."""
    return [int(part) if at % 2 else part for at, part in enumerate(_DIGITS.split(text.lower()))]


@frozen
class Table:
    """One table. ``order``: the column it is sorted by at first."""

    name: str
    columns: tuple[Column, ...]
    rows: Callable[[Figures], Sequence[Row]]
    order: str

    def column(self, key: str) -> Column:
        """A column by its key."""
        return next(column for column in self.columns if column.key == key)

    def keys(self) -> list[str]:
        """The keys of all columns."""
        return [column.key for column in self.columns]

    def chosen(self, figures: Figures, sort: str, backwards: bool, wanted: str) -> list[Row]:
        """The rows in which every word of ``wanted`` stands, sorted; what has no value stands last either way."""
        words = wanted.lower().split()
        rows = [row for row in self.rows(figures) if all(word in self._text(row) for word in words)]
        rows.sort(key=self._name)
        known = [row for row in rows if getattr(row, sort) is not None]
        unknown = [row for row in rows if getattr(row, sort) is None]
        known.sort(key=lambda row: _rank(sort, row), reverse=self.column(sort).number != backwards)
        return known + unknown

    def _text(self, row: Row) -> str:
        return " ".join(str(getattr(row, column.key)) for column in self.columns if not column.number).lower()

    def _name(self, row: Row) -> list[list[str | int]]:
        return [_natural(str(getattr(row, column.key))) for column in self.columns if not column.number]

    def fit(self, rows: Sequence[Row], width: int | None) -> list[tuple[Column, int]]:
        """Columns with their widths for a terminal of this width, or all of them for None. The first column is
        shortened before others are left out, and is what remains."""
        widths = [max([len(column.title), *(len(cell(column, row)) for row in rows)]) for column in self.columns]
        if width is None:
            return list(zip(self.columns, widths, strict=True))
        widths[1:] = [min(wide, _WIDEST) for wide in widths[1:]]
        columns = list(zip(self.columns, widths, strict=True))
        while len(columns) > 1 and _least(columns) > width:
            del columns[min(range(1, len(columns)), key=lambda place: columns[place][0].keep)]
        first, wide = columns[0]
        over = sum(n for _, n in columns) + len(_GAP) * (len(columns) - 1) - width
        if over > 0:
            columns[0] = (first, max(1, wide - over))
        return columns


def _least(columns: Sequence[tuple[Column, int]]) -> int:
    name = min(columns[0][1], max(_LEAST_NAME, len(columns[0][0].title)))
    return name + sum(n for _, n in columns[1:]) + len(_GAP) * (len(columns) - 1)


def cell(column: Column, row: Row) -> str:
    """What stands in a column of a row."""
    return clean(column.form(getattr(row, column.key)))


def laid_out(column: Column, width: int, text: str) -> str:
    """A text in its place; … where it does not fit."""
    if len(text) > width:
        text = text[: width - 1] + "…"
    return text.rjust(width) if column.number else text.ljust(width)


BACKENDS: Final = Table(
    "backends",
    (
        Column("addr", "BACKEND", str, 99, number=False),
        Column("pool", "POOL", str, 80, number=False),
        Column("state", "STATE", str, 95, number=False, style=_state),
        Column("requests", "REQ/S", short, 90),
        Column("failures", "FAIL/S", short, 85, style=_alarm),
        Column("tcp", "TCP/S", short, 60),
        Column("active", "ACTIVE", short, 70),
        Column("weight", "WEIGHT", str, 40),
        Column("bytes_sent", "OUT B/S", short, 20),
        Column("bytes_received", "IN B/S", short, 30),
        Column("id", "ID", str, 15, number=False),
        Column("last_error", "LAST ERROR", str, 10, number=False),
    ),
    lambda figures: figures.backends,
    "requests",
)
ROUTES: Final = Table(
    "routes",
    (
        Column("name", "ROUTE", str, 99, number=False),
        Column("requests", "REQ/S", short, 90),
        Column("client_errors", "4XX/S", short, 60),
        Column("server_errors", "5XX/S", short, 80, style=_alarm),
        Column("p50_ms", "P50 MS", milliseconds, 50),
        Column("p95_ms", "P95 MS", milliseconds, 55),
        Column("p99_ms", "P99 MS", milliseconds, 70),
        Column("tcp", "TCP/S", short, 40),
        Column("requests_total", "REQUESTS", short, 30),
    ),
    lambda figures: figures.routes,
    "requests",
)
ERRORS: Final = Table(
    "errors",
    (
        Column("reason", "REASON", str, 99, number=False),
        Column("kind", "WHERE", str, 80, number=False),
        Column("per_second", "PER S", short, 90, style=_alarm),
        Column("total", "IN ALL", short, 50),
    ),
    lambda figures: figures.errors,
    "per_second",
)
LISTENERS: Final = Table(
    "listeners",
    (
        Column("name", "LISTENER", str, 99, number=False),
        Column("active", "OPEN", short, 90),
        Column("accepted", "NEW/S", short, 80),
        Column("refused", "REFUSED/S", short, 70, style=_alarm),
        Column("total", "IN ALL", short, 50),
    ),
    lambda figures: figures.listeners,
    "active",
)
TABLES: Final = {table.name: table for table in (BACKENDS, ROUTES, ERRORS, LISTENERS)}
