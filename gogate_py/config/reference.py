"""The tables of docs/configuration.md, written from the classes: every key with its values, default and meaning.

``python -m gogate_py.config.reference`` prints them, with the name of the page it writes them into it, between the
marks; a test holds the two together. What stands around the marks is written by hand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from gogate_py.config.names import BackendAddress, Cidr, FieldName, ListenAddress, Name
from gogate_py.config.schema import Config
from gogate_py.config.settings import (
    Group,
    GroupList,
    GroupMap,
    ListOf,
    NamedSetting,
    Shape,
    TextMap,
    settings_of,
)
from gogate_py.config.traffic_values import Factor, FailureThreshold, Percent
from gogate_py.config.values import (
    Boolean,
    Choice,
    Duration,
    Integer,
    Kind,
    Number,
    Size,
    Workers,
    format_duration,
    format_size,
)

BEGIN: Final = "<!-- reference: begin -->"
END: Final = "<!-- reference: end -->"

#: Kinds of text that have a name of their own; any other one is a text, and its meaning says which.
_NAMED_KINDS: Final[tuple[tuple[type, str], ...]] = (
    (ListenAddress, "address"), (BackendAddress, "address"), (Cidr, "network"), (FieldName, "field name"),
    (Name, "name"))


#: Every path under which a class may be written; the first is the heading of its table.
_Places = dict[type[attrs.AttrsInstance], list[str]]
#: A limit that nobody reaches is not shown.
_ENDLESS: Final = 1 << 40


def reference() -> str:
    """The tables, in the order in which keys are written."""
    places: _Places = {}
    _collect(Config, "", places)
    return "\n\n".join("\n".join(_lines(cls, places)) for cls in places) + "\n"


def renewed(page: str) -> str:
    """A page with the tables between its marks."""
    before, rest = page.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


def _collect(cls: type[attrs.AttrsInstance], place: str, places: _Places) -> None:
    """A class and those below it, each once, with all of its places."""
    if cls in places:
        places[cls].append(place)
        return
    places[cls] = [place]
    for named in settings_of(cls):
        shape = named.setting.shape
        inner = f"{place}.{named.key}" if place else named.key
        match shape:
            case Group():
                _collect(shape.cls, inner, places)
            case GroupList():
                _collect(shape.cls, f"{inner}[]", places)
            case GroupMap():
                _collect(shape.cls, f"{inner}.NAME", places)


def _lines(cls: type[attrs.AttrsInstance], places: _Places) -> Iterator[str]:
    first, *others = places[cls]
    yield f"### {first or 'The file'}"
    yield ""
    if others:
        yield f"Also: {', '.join(f'`{place}`' for place in others)}."
        yield ""
    yield "| Key | Values | Default | |"
    yield "|---|---|---|---|"
    for named in settings_of(cls):
        cells = (_key(named, places), _values(named.setting.shape), _default(named), _meaning(named))
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _key(named: NamedSetting, places: _Places) -> str:
    shape = named.setting.shape
    if not isinstance(shape, Group | GroupList | GroupMap):
        return f"`{named.key}`"
    return f"[`{named.key}`](#{anchor(places[shape.cls][0])})"


def anchor(heading: str) -> str:
    """The fragment of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _values(shape: Shape) -> str:
    match shape:
        case Group():
            return f"mapping, or its `{shape.scalar_key}` alone" if shape.scalar_key else "mapping"
        case GroupList():
            item = f"mappings, or their `{shape.scalar_key}` alone" if shape.scalar_key else "mappings"
            return f"list of {item}" + (", or one mapping" if shape.single else "")
        case GroupMap():
            return "name → mapping"
        case TextMap():
            return f"{_kind(shape.name_kind)} → {_values(shape.value)}"
        case ListOf():
            word = _kind(shape.kind)
            return f"list of {word}{'es' if word.endswith('s') else 's'}" + (", or one alone" if shape.scalar else "")
        case _:
            return _kind(shape)


def _kind(kind: Kind) -> str:
    """What a scalar may be, with its range."""
    match kind:
        case Boolean():
            return "`true`, `false`"
        case Choice():
            return ", ".join(f"`{option}`" for option in kind.options)
        case Duration():
            return _range("duration", kind.low, kind.high, format_duration, kind.zero)
        case Size():
            return _range("size", kind.low, kind.high, format_size, kind.zero)
        case Workers():
            return f"`auto`, 1 to {kind.high}"
        case FailureThreshold():
            return f"integer, {kind.low} to {kind.high}, {kind.unit}"
        case Factor():
            return f"number; {kind.unit}"
        case Percent():
            return _range("percentage", kind.low, kind.high, str, kind.zero)
        case Integer():
            return _range("integer", kind.low, kind.high, str, kind.zero)
        case Number():
            return _range("number", kind.low, kind.high, lambda value: f"{value:g}", "")
    return next((word for cls, word in _NAMED_KINDS if isinstance(kind, cls)), kind.unit or "text")


def _range(word: str, low: Any, high: Any, show: Any, zero: str) -> str:
    text = f"{word}, {show(low)} to {show(high)}" if high < _ENDLESS else f"{word}, from {show(low)}"
    return f"{text}; `0` = {zero}" if zero else text


def _default(named: NamedSetting) -> str:
    about, shape = named.setting, named.setting.shape
    if about.required or "(required)" in about.help:
        return "required"
    if about.inherits:
        return "the server's"
    value = named.make_default()
    if isinstance(shape, ListOf):
        return f"`[{', '.join(shape.kind.show(item) for item in value)}]`" if value else ""
    if isinstance(shape, Kind) and value != "":
        return f"`{shape.show(value)}`"
    return ""


def _meaning(named: NamedSetting) -> str:
    text = named.setting.help.replace("; (required)", "").removeprefix("(required) ")
    aliases = ", ".join(f"`{alias}`" for alias in named.setting.aliases)
    return "; ".join(part for part in (text, f"also written {aliases}" if aliases else "") if part)


def main(arguments: list[str]) -> None:
    """Print the tables, or write them into the page that is named."""
    if arguments:
        page = Path(arguments[0])
        page.write_text(renewed(page.read_text()))
    else:
        sys.stdout.write(reference())


if __name__ == "__main__":
    main(sys.argv[1:])
