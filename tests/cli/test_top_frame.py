"""What gogate top shows, and what keys do: without a terminal."""

from __future__ import annotations

import pytest
from top_looks import backend, counts, look

from gogate_py.cli.top.figures import Figures, compare
from gogate_py.cli.top.frame import frame, plain
from gogate_py.cli.top.state import Change, Mode, Order, Quit, State
from gogate_py.cli.top.tables import BACKENDS, ERRORS, ROUTES, clean, milliseconds, short

URL = "http://127.0.0.1:9090"


def figures() -> Figures:
    """Three backends, two routes, an error: over one second."""
    backends = [
        backend("10.0.0.1:80"), backend("10.0.0.2:80", healthy=False, last_error="refused"),
        backend("10.0.0.3:80", pool="api", draining=True, active_connections=4, weight=5),
    ]  # fmt: skip
    return compare(
        look(0, backends=backends, routes={"web": {}, "api": {}}),
        look(1, backends=backends, counted={"10.0.0.1:80": counts(90), "10.0.0.2:80": counts(200, 10)},
             routes={"web": {"by_code": {"200": 300}, "buckets": [300, 0, 0, 0]}, "api": {}}, local={"no_backend": 2},
             listeners={"http": {"total": 1, "active": 1, "refused": 0}}),
    )  # fmt: skip


def shown(state: State, width: int = 120, height: int = 24, trouble: str = "") -> list[str]:
    """A screen as text."""
    lines = frame(state, figures(), URL, trouble, width, height)
    return ["".join(text for text, _ in line).rstrip() for line in lines]


def press(state: State, *keys: str) -> Order | None:
    """Press keys; → what the last one ordered."""
    order = None
    for key in keys:
        order = state.press(key, figures())
    return order


def addresses(state: State) -> list[str]:
    """The backends that are shown, in their order."""
    return [str(getattr(row, "addr", "")) for row in state.rows(figures())]


class TestNumbers:
    """Numbers in little room."""

    @pytest.mark.parametrize(("value", "text"), [
        (None, "-"), (0, "0"), (0.04, "0"), (0.3, "0.3"), (5.0, "5"), (99.94, "99.9"), (99.96, "100"), (1234.4, "1234"),
        (10_000, "10.0k"), (999_949, "999.9k"), (999_999, "1.0M"), (2.5e9, "2.5G"),
    ])  # fmt: skip
    def test_short(self, value: float | None, text: str) -> None:
        """At most six characters."""
        assert short(value) == text

    @pytest.mark.parametrize(("value", "text"), [(None, "-"), (0.516, "0.52"), (12.34, "12.3"), (1234.5, "1234")])
    def test_milliseconds(self, value: float | None, text: str) -> None:
        """As many digits as mean something."""
        assert milliseconds(value) == text


class TestSortingAndFilter:
    """s, S, r, /, Esc."""

    def test_sorts_by_rate_at_first(self) -> None:
        """The busiest first; r turns it round."""
        state = State()
        assert addresses(state) == ["10.0.0.2:80", "10.0.0.1:80", "10.0.0.3:80"]
        press(state, "r")
        assert addresses(state) == ["10.0.0.3:80", "10.0.0.1:80", "10.0.0.2:80"]

    def test_next_and_previous_column(self) -> None:
        """Each column in turn, the last one leads to the first; text from a to z, states from the worst."""
        state = State()
        press(state, "S")
        assert state.sorting["backends"].column == "state"
        assert addresses(state) == ["10.0.0.2:80", "10.0.0.3:80", "10.0.0.1:80"]
        press(state, *"s" * (len(BACKENDS.columns) - 2))
        assert (state.sorting["backends"].column, addresses(state)[0]) == ("addr", "10.0.0.1:80")

    def test_rows_without_a_value_are_last(self) -> None:
        """A route without requests has no percentile: last in both directions."""
        for backwards in (False, True):
            assert [row.name for row in ROUTES.chosen(figures(), "p99_ms", backwards, "")] == ["web", "api"]  # type: ignore[union-attr]

    def test_filter(self) -> None:
        """Every word must stand in the row, in any column of text; Esc takes back what was typed."""
        state = State()
        press(state, "/", *"WEB down", "backspace")
        assert (state.mode, state.wanted) == (Mode.FILTER, "WEB dow")
        assert shown(state)[-1].startswith("filter: WEB dow")
        press(state, "enter")
        assert addresses(state) == ["10.0.0.2:80"]
        assert any("filter: WEB dow" in line for line in shown(state))
        press(state, "/", "x", "escape")
        assert (state.mode, state.wanted) == (Mode.TABLE, "WEB dow")
        press(state, "escape")
        assert len(addresses(state)) == 3

    def test_keys_are_text_while_it_is_typed(self) -> None:
        """q and d are letters there."""
        state = State()
        assert press(state, "/", "q", "d") is None
        assert state.wanted == "qd"

    def test_nothing_left(self) -> None:
        """A filter that nothing passes says so; a drain has nothing to ask about."""
        state = State(wanted="nobody")
        assert "nothing to show with this filter" in shown(state)
        press(state, "down", "d")
        assert (state.mode, state.message) == (Mode.TABLE, "no backend is shown")


class TestDrain:
    """d, u: asked before it is done."""

    def test_drain(self) -> None:
        """The selected backend, after y; sorting keeps it selected."""
        state = State()
        press(state, "down", "r", "d")
        assert shown(state)[-1] == "drain 10.0.0.1:80 in pool web? y/n"
        order = press(state, "y")
        assert isinstance(order, Change)
        assert (order.verb, order.backend.addr, order.backend.pool) == ("drain", "10.0.0.1:80", "web")
        assert state.mode is Mode.TABLE

    def test_anything_but_y_is_no(self) -> None:
        """Also q, which then does not quit."""
        state = State()
        assert press(state, "u", "q") is None
        assert (state.message, state.asked) == ("nothing was changed", None)

    def test_only_backends(self) -> None:
        """In other tables it says where backends are."""
        state = State(table=ERRORS)
        press(state, "d")
        assert "press 1" in shown(state)[-1]


class TestScreen:
    """A frame fits whatever terminal there is."""

    def test_all_of_it(self) -> None:
        """State, figures, errors, tabs, the table, keys."""
        lines = shown(State())
        assert lines[0] == f"gogate 1.2.3  ready  up 1m30s  generation 7  1 of 1 workers  {URL}"
        assert lines[1].startswith("requests   300/s  p50 0.50  p95 0.95  p99 0.99 ms  2xx 300")
        assert lines[2] == "clients    1 open  1/s new  0/s refused  0/s TCP ended"
        assert lines[3] == "errors     pool web 10/s, no_backend 2/s"
        assert lines[4].split() == ["backends", "3", "routes", "2", "errors", "2", "listeners", "1", "by", "requests"]
        assert lines[6].split() == [
            "10.0.0.2:80", "web", "down", "210", "10", "0", "0", "1", "0", "0", "10.0.0.2:80", "refused"]  # fmt: skip
        assert lines[-1].endswith("q quit")

    def test_what_needs_a_look(self) -> None:
        """Why it is not ready, and warnings, above the tables."""
        said = {"ready": False, "reasons": ["pool web has no backend"], "warnings": ["store\x1b[2J"]}
        found = compare(look(0), look(1, **said))
        lines = plain(State(), found, URL, None)
        assert "  not ready  up" in lines[0]
        assert lines[4:6] == ["not ready  pool web has no backend", "warning    store?[2J"]

    @pytest.mark.parametrize("width", [1, 2, 7, 20, 40, 60, 79, 80, 200])
    @pytest.mark.parametrize("height", [1, 2, 3, 4, 5, 8, 24, 100])
    def test_every_size(self, width: int, height: int) -> None:
        """Never more lines or characters than there are, in every mode."""
        for keys in ("", "d", "/", "?", "2", "3", "4"):
            state = State()
            press(state, *keys)
            lines = frame(state, figures(), URL, "", width, height)
            assert len(lines) <= height
            assert max(sum(len(text) for text, _ in line) for line in lines) <= width

    def test_columns_go_where_there_is_no_room(self) -> None:
        """The address stays whole while less telling columns are left out."""
        heading = next(line for line in shown(State(), width=60) if line.startswith("BACKEND"))
        assert heading.split() == ["BACKEND", "POOL", "STATE", "REQ/S", "FAIL/S", "TCP/S", "ACTIVE"]
        heading = next(line for line in shown(State(), width=30) if line.startswith("BACKEND"))
        assert heading.split() == ["BACKEND", "STATE", "REQ/S"]

    def test_the_window_follows_the_selection(self) -> None:
        """Of more rows than have room, the selected one is always shown."""
        many = [backend(f"10.0.0.{number}:80") for number in range(100)]
        found = compare(look(0, backends=many), look(1, backends=many))
        state = State()

        def addresses_shown() -> list[str]:
            lines = frame(state, found, URL, "", 100, 14)
            return [line[0][0].strip() for line in lines if line and line[0][0].startswith("10.")]

        first = addresses_shown()
        assert len(first) == 7
        state.press("end", found)
        assert addresses_shown()[-1] == "10.0.0.99:80"
        for _ in range(3):
            state.press("page-up", found)
        assert "10.0.0.80:80" in addresses_shown()
        state.press("home", found)
        assert addresses_shown() == first

    def test_trouble_stays_below(self) -> None:
        """Old figures are shown with the reason why they are old."""
        assert shown(State(), trouble="does not answer: refused")[-1] == "does not answer: refused"


def test_other_tables() -> None:
    """Tab and numbers; each remembers how it is sorted."""
    state = State()
    press(state, "tab")
    assert state.table is ROUTES
    assert any(line.startswith("ROUTE ") for line in shown(state))
    press(state, "s", "3", "back-tab")
    assert (state.table, state.sorting["routes"].column) == (ROUTES, "client_errors")
    assert isinstance(press(state, "q"), Quit)


def test_texts_of_others_cannot_command_the_terminal() -> None:
    """Escape sequences and line ends of names and errors become question marks."""
    assert clean("a\x1b[2Jb\nc\x9bd\x7f") == "a?[2Jb?c?d?"


def test_plain_text() -> None:
    """--once: whole tables, nothing left out; a filter is for all of them, a named table is shown even if empty."""
    lines = plain(State(), figures(), URL, None)
    assert [line.split()[0] for line in lines if line.isupper() or line.startswith(("BACKEND", "ROUTE"))] == [
        "BACKEND", "ROUTE", "REASON", "LISTENER"]  # fmt: skip
    lines = plain(State(wanted="api"), figures(), URL, None)
    assert [line.split()[0] for line in lines[4:] if line] == ["BACKEND", "10.0.0.3:80", "ROUTE", "api"]
    assert plain(State(wanted="x"), figures(), URL, "errors")[4:] == ["", "REASON  WHERE  PER S  IN ALL"]
