"""The terminal of gogate top, by curses: draws frames, names keys, leaves everything as it was, whatever ends it.

curses is of the standard library, knows every terminal that has a description, stops and goes on with Ctrl-Z and hears
of new sizes by itself. A loop looks for new figures five times a second and for a key in between.
"""

from __future__ import annotations

import contextlib
import curses
import locale
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Final

from gogate_py.cli.top.figures import Figures
from gogate_py.cli.top.frame import Line, frame
from gogate_py.cli.top.poller import Poller
from gogate_py.cli.top.state import Change, Quit, State

#: Milliseconds that a key is waited for before the figures are looked at.
_TICK: Final = 200

_KEYS: Final = {
    curses.KEY_UP: "up", curses.KEY_DOWN: "down", curses.KEY_PPAGE: "page-up", curses.KEY_NPAGE: "page-down",
    curses.KEY_HOME: "home", curses.KEY_END: "end", curses.KEY_BTAB: "back-tab", curses.KEY_ENTER: "enter",
    curses.KEY_BACKSPACE: "backspace", curses.KEY_RESIZE: "resize",
}  # fmt: skip
_CHARACTERS: Final = {
    "\t": "tab", "\n": "enter", "\r": "enter", "\x1b": "escape", "\x7f": "backspace", "\b": "backspace",
}  # fmt: skip


class NoScreen(Exception):
    """The terminal cannot be used for this; the message says why."""


def show(state: State, poller: Poller, url: str) -> None:
    """Show it until the user quits. Raises NoScreen."""
    locale.setlocale(locale.LC_ALL, "")
    with _ended_by_signals(), contextlib.suppress(KeyboardInterrupt):
        try:
            window = curses.initscr()
        except curses.error as error:
            raise NoScreen(f"the terminal {os.environ.get('TERM', '')!r} cannot be used: {error}") from None
        try:
            _prepare(window)
            _loop(window, state, poller, url, _styles())
        finally:
            window.keypad(False)
            curses.nocbreak()
            curses.echo()
            curses.endwin()


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the program as exit does: the terminal is put in order first."""

    def leave(number: int, at: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _prepare(window: curses.window) -> None:
    curses.noecho()
    curses.cbreak()
    window.keypad(True)
    window.timeout(_TICK)
    curses.set_escdelay(25)  # Esc by itself is a key here; a second of waiting for the rest of one would be felt
    with contextlib.suppress(curses.error):  # not every terminal can
        curses.curs_set(0)


def _styles() -> dict[str, int]:
    """Style → attributes of this terminal; without colours where it has none, or NO_COLOR asks for it."""
    styles = {
        "": curses.A_NORMAL, "bold": curses.A_BOLD, "dim": curses.A_DIM, "good": curses.A_NORMAL,
        "warn": curses.A_BOLD, "bad": curses.A_BOLD, "selected": curses.A_REVERSE, "title": curses.A_UNDERLINE,
        "title-sorted": curses.A_UNDERLINE | curses.A_BOLD,
    }  # fmt: skip
    if os.environ.get("NO_COLOR"):
        return styles
    try:
        curses.start_color()
        curses.use_default_colors()
        for number, (style, color) in enumerate(
            (("good", curses.COLOR_GREEN), ("warn", curses.COLOR_YELLOW), ("bad", curses.COLOR_RED)), 1
        ):
            curses.init_pair(number, color, -1)
            styles[style] |= curses.color_pair(number)
    except curses.error:
        pass
    return styles


def _loop(window: curses.window, state: State, poller: Poller, url: str, styles: dict[str, int]) -> None:
    shown: Figures | None = None
    told: tuple[str, str, int, int] | None = None
    while True:
        if poller.said:
            state.message, poller.said = poller.said, ""
        height, width = window.getmaxyx()
        # With a thousand backends a frame takes 14 ms: it is made when there is something new, and after keys.
        figures, news = poller.figures, (poller.trouble, state.message, height, width)
        if figures is not shown or news != told:
            _draw(window, frame(state, figures, url, news[0], width, height), styles)
            shown, told = figures, news
        key = _key(window)
        if key in ("", "resize"):
            continue
        shown = None
        match state.press(key, poller.figures):
            case Quit():
                return
            case Change() as change:
                state.message = f"{change.verb} {change.backend.addr} …"
                poller.change(change)


def _key(window: curses.window) -> str:
    """The name of the next key; "" when none came."""
    try:
        found = window.get_wch()
    except curses.error:
        return ""
    if isinstance(found, int):
        return _KEYS.get(found, "")
    return _CHARACTERS.get(found, found if found.isprintable() else "")


def _draw(window: curses.window, lines: list[Line], styles: dict[str, int]) -> None:
    window.erase()
    for y, line in enumerate(lines):
        x = 0
        for text, style in line:
            with contextlib.suppress(curses.error):  # the last cell of the last line moves the cursor off the screen
                window.addstr(y, x, text.encode(window.encoding, "replace").decode(window.encoding), styles[style])
            x += len(text)
    window.refresh()
