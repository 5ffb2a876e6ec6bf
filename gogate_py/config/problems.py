"""Problem: one thing that is wrong with a configuration, with the place where it is written; Findings collects them.

Advice is a problem that does not keep gogate from starting (codes.py: warnings and notes).

Every problem of a file is reported at once. The reader and the checks add to the same Findings; a check asks it whether
a value was read at all, so that one mistake does not bring others after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

import attrs

from gogate_py.config.codes import CODES, ERROR

Path = tuple[str | int, ...]
# The line breaks of YAML: marks count all of these.
_LINE_BREAK = re.compile(r"\r\n|[\n\r\x85\u2028\u2029]")
_SHOWN_WIDTH = 150


@attrs.frozen
class Problem:
    """One problem. Lines and columns count from 1; 0 when the value came from the environment ``variable``.

    ``end_column`` is behind the last character of what is meant, 0 where that is not on one line. ``fix``: what to do.
    """

    file: str
    line: int
    column: int
    key: str
    message: str
    source_line: str = ""
    allowed: tuple[str, ...] = ()
    suggestion: str = ""
    variable: str = ""
    code: str = "GG004"
    fix: str = ""
    end_column: int = 0

    @property
    def severity(self) -> str:
        """error, warning or note."""
        return CODES[self.code][0]

    def __str__(self) -> str:
        place = self.variable or (f"{self.file}:{self.line}:{self.column}" if self.line else self.file)
        if self.severity != ERROR:
            place += f": {self.severity}"
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"

    def render(self) -> str:
        """The problem for people: place and message, the source line with a caret, what is allowed, what was meant."""
        lines = [str(self)]
        if self.source_line.strip():
            text, column = _window(self.source_line, self.column)
            # A tab stays one in the line of the caret: both lines are then as wide, whatever a tab is.
            lines += ["    " + text, "    " + "".join("\t" if c == "\t" else " " for c in text[: column - 1]) + "^"]
        if self.allowed:
            lines.append("    allowed: " + ", ".join(self.allowed))
        if self.suggestion:
            lines.append(f"    did you mean {self.suggestion}?")
        if self.fix:
            lines.append(f"    {self.fix}")
        return "\n".join(lines)


def _window(text: str, column: int) -> tuple[str, int]:
    """A printable part of a line around a column, and the column in it."""
    text = "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
    start = max(0, column - 1 - _SHOWN_WIDTH * 2 // 3) if len(text) > _SHOWN_WIDTH else 0
    return text[start : start + _SHOWN_WIDTH].rstrip(" "), column - start


def show_path(path: Path) -> str:
    """``("pools", "api", "backends", 0)`` → ``pools.api.backends[0]``."""
    shown = ""
    for part in path:
        shown += f"[{part}]" if isinstance(part, int) else f".{part}" if shown else part
    return shown


@attrs.frozen
class Place:
    """Where a key and its value are written (lines and columns from 1), or the variable that overrides it.

    ``width`` and ``key_width`` are in characters, 0 for what is not on one line.
    """

    line: int
    column: int
    key_line: int
    key_column: int
    variable: str = ""
    width: int = 0
    key_width: int = 0


class Findings:
    """The problems of one file, and where every value of it is written. Lives while the file is read and checked."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.lines = _LINE_BREAK.split(text)
        self._problems: list[Problem] = []
        self._places: dict[Path, Place] = {}
        self._spoiled: set[Path] = set()
        self._concealed: set[int] = set()
        self._advice: dict[tuple[str, Path], Problem] = {}
        self._expanded: set[Path] = set()
        #: The other files that this one names (named_files.py).
        self.files: dict[str, bytes] = {}
        #: The code of problems that name none: what is being done with the file.
        self.code = "GG004"

    def sorted_problems(self) -> list[Problem]:
        """All problems in the order of the file, those of the environment first, those of other files last. Lines with
        a secret are not shown."""
        return self._sorted(self._problems)

    def sorted_advice(self) -> list[Problem]:
        """All warnings and notes, likewise."""
        return self._sorted(self._advice.values())

    def _sorted(self, problems: Iterable[Problem]) -> list[Problem]:
        found = sorted(problems, key=lambda p: (p.file != self.file, p.file, p.line, p.column))
        return [
            attrs.evolve(problem, source_line="") if problem.line in self._concealed else problem for problem in found]

    def conceal(self, first: int, last: int) -> None:
        """Remember that the lines ``first`` to ``last`` hold a secret: problems end up in logs."""
        self._concealed.update(range(first, last + 1))

    def hide(self, path: Path) -> None:
        """Remember that the value of ``path`` is a secret."""
        line = self._nearest(path).line
        self.conceal(line, line)

    def place(self, path: Path, place: Place) -> None:
        """Remember where a value is written."""
        self._places[path] = place

    def expand(self, path: Path) -> None:
        """Remember that a value was written with variables."""
        self._expanded.add(path)

    def in_clear(self, path: Path) -> bool:
        """Whether a value stands in the file itself: written, without variables, and not overridden by one."""
        place = self._places.get(path)
        return place is not None and not place.variable and path not in self._expanded

    def given(self, path: Path) -> bool:
        """Whether this key was written (or overridden), as opposed to having its default."""
        return path in self._places

    def line_of(self, path: Path) -> str:
        """``line 7`` or the name of a variable: how one problem refers to another place."""
        place = self._nearest(path)
        return place.variable or f"line {place.key_line}"

    def was_read(self, path: Path) -> bool:
        """Whether the value itself could be read; what is inside it may have problems."""
        return not any(path[:length] in self._spoiled for length in range(len(path) + 1))

    def is_sound(self, path: Path) -> bool:
        """Whether the value and everything inside it could be read."""
        return self.was_read(path) and not any(spoiled[: len(path)] == path for spoiled in self._spoiled)

    def spoil(self, path: Path) -> None:
        """Remember that the value of ``path`` is not what was written."""
        self._spoiled.add(path)

    def add(
        self, path: Path, message: str, allowed: tuple[str, ...] = (), suggestion: str = "",
        at: Literal["key", "value"] = "value", code: str = "",
    ) -> None:
        """Report a problem with the value (or the key) of ``path``, at the nearest part of it that was written."""
        self._problems.append(
            attrs.evolve(self._problem(path, message, at, code or self.code), allowed=allowed, suggestion=suggestion))

    def add_at(
        self, line: int, column: int, path: Path, message: str, allowed: tuple[str, ...] = (), suggestion: str = "",
        code: str = "",
    ) -> None:
        """Report a problem at a place."""
        self._problems.append(Problem(
            self.file, line, column, show_path(path), message, self._line(line), allowed, suggestion,
            code=code or self.code))

    def advise(
        self, path: Path, code: str, message: str, fix: str, at: Literal["key", "value"] = "value"
    ) -> None:
        """Report a warning or a note, once for each code and path; ``fix`` says what to do about it."""
        if (code, path) not in self._advice:
            self._advice[code, path] = attrs.evolve(self._problem(path, message, at, code), fix=fix)

    def add_elsewhere(self, file: str, line: int, path: Path, message: str) -> None:
        """Report a problem in another file, which the value of ``path`` names; its lines are not shown."""
        self._problems.append(Problem(file, line, 1, show_path(path), message, code=self.code))

    def _problem(self, path: Path, message: str, at: Literal["key", "value"], code: str) -> Problem:
        place = self._nearest(path)
        line, column, width = (place.key_line, place.key_column, place.key_width) if at == "key" else (
            place.line, place.column, place.width)
        if place.variable:
            return Problem(self.file, 0, 0, show_path(path), message, variable=place.variable, code=code)
        return Problem(
            self.file, line, column, show_path(path), message, self._line(line), code=code,
            end_column=column + width if width else 0)

    def _line(self, line: int) -> str:
        return self.lines[line - 1] if 0 < line <= len(self.lines) else ""

    def _nearest(self, path: Path) -> Place:
        while path and path not in self._places:
            path = path[:-1]
        return self._places.get(path, Place(1, 1, 1, 1))
