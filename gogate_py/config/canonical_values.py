"""The canonical spelling of one value: words as gogate calls them, numbers of seconds and bytes with their units.

Pure. What a value means never changes: each result is read again by the value's own kind. Addresses, paths, names and
texts stay as they are, and so do values with variables: what is in those is not known here.
"""

from __future__ import annotations

import re
from typing import Any

from gogate_py.config.store_values import Store
from gogate_py.config.traffic_values import Algorithm, KeySpec, RetryMethod, RetryReason, StripPrefix
from gogate_py.config.values import (
    SIZE_UNITS,
    BadValue,
    Boolean,
    Choice,
    Duration,
    Kind,
    Size,
    Workers,
    format_duration,
    format_size,
)


def spelled(kind: Kind, text: str, quoted: bool) -> str:
    """The canonical spelling of a value; the text itself where there is none, or where it is not a value at all."""
    if "$" in text:
        return text
    try:
        value = kind.parse(text, quoted)
        new = _spelling(kind, text, value)
        return new if kind.parse(new, quoted) == value else text
    except BadValue:
        return text


def _spelling(kind: Kind, text: str, value: Any) -> str:
    match kind:
        case Choice() | RetryReason() | RetryMethod() | KeySpec() | Algorithm() | Store():
            return str(value)
        case Boolean():
            return kind.show(value)
        case StripPrefix():
            return text.lower() if text.lower() in ("true", "false") else text
        case Workers():
            return "auto" if value is None else text
        case Duration():
            return _duration(text, value)
        case Size():
            return _size(text, value)
    return text


def _duration(text: str, seconds: float) -> str:
    if text[-1] not in "0123456789.":
        return text
    # 1.5 is easier to read as 1.5s than as 1500ms.
    return f"{text}s" if re.fullmatch(r"[0-9]+\.[0-9]+", text) else format_duration(seconds)


def _size(text: str, value: int) -> str:
    number = text.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
    if number != text:
        return number.rstrip(" ") + _UNITS[text[len(number):].lower()]
    shown = format_size(value)
    return f"{shown}B" if value and shown.isdigit() else shown


#: A unit in small letters → as it is written.
_UNITS = {unit.lower(): unit for unit in SIZE_UNITS}
