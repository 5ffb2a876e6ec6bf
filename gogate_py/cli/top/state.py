"""What the user of gogate top looks at, and what each key does to it. Pure: a key goes in, an order may come out.

Keys have names: one character as typed, or up, down, page-up, page-down, home, end, tab, back-tab, enter, escape,
backspace. While something is typed or asked, keys mean that and nothing else.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from attrs import define, field, frozen

from gogate_py.cli.top.figures import Backend, Failing, Figures, Listener, Route
from gogate_py.cli.top.tables import BACKENDS, TABLES, Row, Table


class Mode(Enum):
    """What keys are for at the moment."""

    TABLE = "table"
    FILTER = "filter"  # they are typed into the filter
    CONFIRM = "confirm"  # y or n
    HELP = "help"  # any key ends it


@frozen
class Quit:
    """Leave."""


@frozen
class Change:
    """Drain or undrain this backend in its pool."""

    verb: str
    backend: Backend


Order = Quit | Change


@define
class Sorting:
    """How one table is sorted."""

    column: str
    backwards: bool = False


@define
class State:
    """Everything but the figures. ``selected`` is a row's identity, not its place: sorting keeps it. ``page``: how many
    rows the last frame had room for."""

    table: Table = BACKENDS
    sorting: dict[str, Sorting] = field(factory=lambda: {name: Sorting(one.order) for name, one in TABLES.items()})
    wanted: str = ""
    mode: Mode = Mode.TABLE
    selected: tuple[str, ...] | None = None
    top: int = 0
    page: int = 1
    message: str = ""
    asked: Change | None = None
    before: str = ""  # the filter as it was before it was edited

    def rows(self, figures: Figures) -> list[Row]:
        """The rows of the table, as they are shown."""
        sorting = self.sorting[self.table.name]
        return self.table.chosen(figures, sorting.column, sorting.backwards, self.wanted)

    def place(self, rows: list[Row]) -> int:
        """Where the selected row is; the first, when it is not there."""
        return next((place for place, row in enumerate(rows) if identity(row) == self.selected), 0)

    def scroll(self, place: int, room: int, count: int) -> int:
        """Move the window as little as possible so that ``place`` is in it; → its first row."""
        self.page = max(1, room)
        self.top = max(0, min(self.top, place, count - self.page), place - self.page + 1)
        return self.top

    def press(self, key: str, figures: Figures) -> Order | None:
        """Do what a key means; → what is to be done outside."""
        match self.mode:
            case Mode.FILTER:
                self._type(key)
                return None
            case Mode.CONFIRM:
                return self._answer(key)
            case Mode.HELP:
                self.mode = Mode.TABLE
                return None
            case Mode.TABLE:
                self.message = ""
                if key in ("q", "Q"):
                    return Quit()
                self._in_table(key, figures)
                return None

    def _type(self, key: str) -> None:
        if key == "enter":
            self.mode = Mode.TABLE
        elif key == "escape":
            self.wanted, self.mode = self.before, Mode.TABLE
        elif key == "backspace":
            self.wanted = self.wanted[:-1]
        elif len(key) == 1:
            self.wanted += key
        self.top = 0

    def _answer(self, key: str) -> Order | None:
        asked, self.asked = self.asked, None
        self.mode = Mode.TABLE
        if key in ("y", "Y"):
            return asked
        self.message = "nothing was changed"
        return None

    def _in_table(self, key: str, figures: Figures) -> None:
        sorting = self.sorting[self.table.name]
        keys = self.table.keys()
        match key:
            case "tab" | "back-tab":
                names = list(TABLES)
                step = 1 if key == "tab" else -1
                self._show(names[(names.index(self.table.name) + step) % len(names)])
            case "1" | "2" | "3" | "4":
                self._show(list(TABLES)[int(key) - 1])
            case "s" | "S":
                step = 1 if key == "s" else -1
                sorting.column, sorting.backwards = keys[(keys.index(sorting.column) + step) % len(keys)], False
            case "r":
                sorting.backwards = not sorting.backwards
            case "/":
                self.before, self.mode = self.wanted, Mode.FILTER
            case "escape":
                self.wanted, self.top = "", 0
            case "?" | "h":
                self.mode = Mode.HELP
            case "d" | "u":
                self._ask("drain" if key == "d" else "undrain", figures)
            case _ if key in _MOVES:
                self._move(key, self.rows(figures))

    def _show(self, name: str) -> None:
        self.table, self.selected, self.top = TABLES[name], None, 0

    def _ask(self, verb: str, figures: Figures) -> None:
        if self.table is not BACKENDS:
            self.message = "backends are drained in their table: press 1"
            return
        rows = self.rows(figures)
        if not rows:
            self.message = "no backend is shown"
            return
        backend = rows[self.place(rows)]
        assert isinstance(backend, Backend)
        # While it is asked, others may pass it in the order: it stays the selected one.
        self.selected = identity(backend)
        self.asked, self.mode = Change(verb, backend), Mode.CONFIRM

    def _move(self, key: str, rows: list[Row]) -> None:
        if not rows:
            return
        step = {"up": -1, "k": -1, "down": 1, "j": 1, "page-up": -self.page, "page-down": self.page,
                "home": -len(rows), "end": len(rows)}[key]  # fmt: skip
        self.selected = identity(rows[max(0, min(len(rows) - 1, self.place(rows) + step))])


_MOVES: Final = frozenset({"up", "down", "k", "j", "page-up", "page-down", "home", "end"})


def identity(row: Row) -> tuple[str, ...]:
    """What makes a row the same one at the next look."""
    match row:
        case Backend():
            return (row.pool, row.addr)
        case Failing():
            return (row.kind, row.reason)
        case Route() | Listener():
            return (row.name,)
