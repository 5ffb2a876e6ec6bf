"""Kinds of scalar values: text of the file → Python value, or a :class:`BadValue` that says what would be right.

Pure: no YAML, no environment, no resolver. ``quoted`` tells whether the text stood in quotes, which only booleans care
about. A range is closed at both ends.
"""

from __future__ import annotations

import math
import re
from difflib import get_close_matches
from typing import Any, Final, Protocol, runtime_checkable

import attrs

DAY: Final = 86400.0

_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h)")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\Z")
_INTEGER: Final = re.compile(r"[+-]?(?:0|[1-9][0-9]*(?:_[0-9]+)*)\Z")
_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)\Z")
#: The units of sizes as they are written; any case is read.
SIZE_UNITS: Final = ("B", "KiB", "MiB", "GiB", "kB", "MB", "GB")
_SIZE_UNITS: Final = {
    "": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "kb": 1000, "mb": 1000**2, "gb": 1000**3}


class BadValue(ValueError):
    """A value that is refused: what is wrong, what is allowed instead, what was probably meant."""

    def __init__(self, message: str, allowed: tuple[str, ...] = (), suggestion: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.allowed = allowed
        self.suggestion = suggestion


@runtime_checkable
class Kind(Protocol):
    """A kind of value. ``unit`` is what config.example.yaml says of it beside the default."""

    @property
    def unit(self) -> str:
        """Unit, range or choices, for people; "" where the value speaks for itself."""
        ...

    def parse(self, text: str, quoted: bool) -> Any:
        """The value, or :class:`BadValue`."""
        ...

    def show(self, value: Any) -> str:
        """How the value is written in a file."""
        ...


def closest(word: str, known: tuple[str, ...] | list[str]) -> str:
    """The known word that was probably meant, "" if none is near."""
    by_shape = {squash(candidate): candidate for candidate in known}
    near = get_close_matches(squash(word), by_shape, n=1, cutoff=0.6)
    return by_shape[near[0]] if near else ""


def quote(text: str) -> str:
    """A text as it is safely written in YAML: plain where that cannot be misread, else in double quotes."""
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9._/*-]*", text) and text.lower() not in _WORDS_OF_YAML:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


_WORDS_OF_YAML: Final = ("true", "false", "yes", "no", "on", "off", "null", "y", "n")


def squash(word: str) -> str:
    """A word without case and separators, by which spellings are compared."""
    return re.sub(r"[-_ ]", "", word).lower()


def _refuse_outside(what: str, value: float, low: float, high: float, show: Any) -> None:
    if value < low:
        raise BadValue(f"{what} is too small; the least is {show(low)}")
    if value > high:
        raise BadValue(f"{what} is too large; the most is {show(high)}")


def _number(text: str) -> float:
    if not _NUMBER.match(text):
        raise BadValue(f"{text!r} is not a number")
    value = float(text)
    if not math.isfinite(value):
        raise BadValue(f"{text!r} is not a finite number")
    return value


def format_duration(seconds: float) -> str:
    """Seconds in short Go style, exact to a nanosecond: ``1h``, ``90s``, ``250ms``."""
    if seconds >= 3600 and seconds % 3600 == 0:
        return f"{seconds / 3600:.0f}h"
    if seconds >= 120 and seconds % 60 == 0:
        return f"{seconds / 60:.0f}m"
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        count = seconds / factor
        if math.isclose(count, round(count), rel_tol=1e-12):
            return f"{round(count)}{unit}"
    return f"{seconds:.9f}s"


def format_size(size: int) -> str:
    """Bytes in the largest binary unit that divides them: ``8KiB``, ``1000``."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


@attrs.frozen
class Duration:
    """Seconds: Go style ("250ms", "1h30m") or a plain number. ``zero`` says what 0 means, where it is special."""

    low: float
    high: float
    zero: str = ""

    @property
    def unit(self) -> str:
        return f"0 = {self.zero}" if self.zero else ""

    def parse(self, text: str, quoted: bool) -> float:
        sign, body = (text[:1], text[1:]) if text[:1] in ("-", "+") else ("", text)
        if _NUMBER.match(text):
            value = abs(_number(text))
        elif body and not _DURATION.sub("", body):
            pairs = ((part.rstrip("nuµμmsh"), part) for part in _DURATION.findall(body))
            value = sum(float(number) * _UNITS[part[len(number):]] for number, part in pairs)
        else:
            raise BadValue(
                f'{text!r} is not a duration; write it as "250ms", "30s" or "1h30m", or as a number of seconds',
                allowed=("ns", "us", "ms", "s", "m", "h"))
        if sign == "-" and value:
            raise BadValue("a duration cannot be negative")
        _refuse_outside("the duration", value, self.low, self.high, format_duration)
        return value

    def show(self, value: Any) -> str:
        return format_duration(value)


@attrs.frozen
class Size:
    """Bytes: a whole number, or one with a unit ("8KiB", "10MiB")."""

    low: int
    high: int
    zero: str = ""

    @property
    def unit(self) -> str:
        return "bytes" + (f"; 0 = {self.zero}" if self.zero else "")

    def parse(self, text: str, quoted: bool) -> int:
        match = _SIZE.match(text)
        factor = _SIZE_UNITS.get(match[2].lower()) if match else None
        if match is None or factor is None:
            raise BadValue(
                f'{text!r} is not a size; write it in bytes, or as "8KiB" or "10MiB"',
                allowed=SIZE_UNITS)
        if "." in match[1]:
            exact = float(match[1]) * factor
            if exact != int(exact):
                raise BadValue(f"{text!r} is not a whole number of bytes")
            value = int(exact)
        else:
            value = int(match[1]) * factor
        _refuse_outside("the size", value, self.low, self.high, lambda limit: format_size(int(limit)))
        return value

    def show(self, value: Any) -> str:
        return format_size(value)


@attrs.frozen
class Integer:
    """A whole number. ``zero`` says what 0 means, where it is special."""

    low: int
    high: int
    zero: str = ""

    @property
    def unit(self) -> str:
        return f"0 = {self.zero}" if self.zero else ""

    def parse(self, text: str, quoted: bool) -> int:
        if not _INTEGER.match(text):
            raise BadValue(f"{text!r} is not a whole number")
        # One longer than any limit here is out of range whatever it is: int() would spend quadratic time on it.
        value = int(text.replace("_", "")) if len(text) <= 30 else (self.low - 1 if text[0] == "-" else self.high + 1)
        _refuse_outside("the number", value, self.low, self.high, lambda limit: f"{limit:.0f}")
        return value

    def show(self, value: Any) -> str:
        return str(value)


@attrs.frozen
class Number:
    """A number that need not be whole."""

    low: float
    high: float

    @property
    def unit(self) -> str:
        return ""

    def parse(self, text: str, quoted: bool) -> float:
        value = _number(text)
        _refuse_outside("the number", value, self.low, self.high, lambda limit: f"{limit:g}")
        return value

    def show(self, value: Any) -> str:
        return f"{value:g}"


@attrs.frozen
class Fraction:
    """A share from 0 to 1, or a percentage from 0% to 100%."""

    @property
    def unit(self) -> str:
        return "0 to 1, or a percentage"

    def parse(self, text: str, quoted: bool) -> float:
        value = _number(text[:-1].rstrip(" ")) / 100 if text.endswith("%") else _number(text)
        if not 0 <= value <= 1:
            raise BadValue(f"{text!r} is not between 0 and 1 (or 0% and 100%)")
        return value

    def show(self, value: Any) -> str:
        return str(value)


@attrs.frozen
class Boolean:
    """true or false, and nothing that merely looks like it."""

    @property
    def unit(self) -> str:
        return ""

    def parse(self, text: str, quoted: bool) -> bool:
        word = text.lower()
        if word in ("true", "false") and not quoted:
            return word == "true"
        if word in ("true", "false"):
            raise BadValue(f"{text!r} is text because of the quotes", suggestion=word)
        meant = "true" if word in ("yes", "on", "y", "1") else "false" if word in ("no", "off", "n", "0") else ""
        raise BadValue(f"{text!r} is neither true nor false", allowed=("true", "false"), suggestion=meant)

    def show(self, value: Any) -> str:
        return "true" if value else "false"


@attrs.frozen
class Choice:
    """One word of a closed set, spelled with any of ``-_ `` or none between its parts, in any case.

    ``aliases``: other words for the same; ``later``, ``later_pattern``: values that are known, but not built yet.
    """

    options: tuple[str, ...]
    aliases: dict[str, str] = attrs.field(factory=dict, kw_only=True)
    later: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    later_pattern: str = attrs.field(default="", kw_only=True)

    @property
    def unit(self) -> str:
        return " | ".join(self.options) if len(self.options) > 1 else ""

    def parse(self, text: str, quoted: bool) -> str:
        word = squash(text)
        for option in self.options:
            if squash(option) == word:
                return option
        for alias, option in self.aliases.items():
            if squash(alias) == word:
                return option
        if any(squash(option) == word for option in self.later) or (
            self.later_pattern and re.fullmatch(self.later_pattern, text)
        ):
            raise BadValue(f"{text!r} is not supported yet", allowed=self.options)
        meant = closest(text, (*self.options, *self.aliases))
        meant = self.aliases.get(meant, meant)
        raise BadValue(f"{text!r} is not a known value", allowed=self.options, suggestion=meant)

    def show(self, value: Any) -> str:
        return quote(value)


@attrs.frozen
class Text:
    """Text that matches ``pattern`` wholly, or none. ``expected`` says in words what the pattern asks for."""

    pattern: str
    expected: str

    @property
    def unit(self) -> str:
        return ""

    def parse(self, text: str, quoted: bool) -> str:
        # The value is not repeated: it may be a secret.
        if text and not re.fullmatch(self.pattern, text):
            raise BadValue(f"expected {self.expected}")
        return text

    def show(self, value: Any) -> str:
        return quote(value)


@attrs.frozen
class Workers:
    """How many worker processes: a number, or auto (None)."""

    high: int

    @property
    def unit(self) -> str:
        return f"1 to {self.high}"

    def parse(self, text: str, quoted: bool) -> int | None:
        if text.lower() == "auto":
            return None
        if not _INTEGER.match(text):
            raise BadValue(f"{text!r} is neither auto nor a number of workers", suggestion=closest(text, ("auto",)))
        return Integer(1, self.high).parse(text, quoted)

    def show(self, value: Any) -> str:
        return "auto" if value is None else str(value)
