"""Header fields of a request, as stages and conditions ask for them: by lower-case name, lines joined.

Two sources with the same meaning: the bytes of a clean head that nobody took apart (wire.fast_head), and the list of a
checked head. In both every name is a token and every value valid already.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache


@lru_cache(maxsize=256)
def _line(name: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"\r\n(?i:%b):[ \t]*([^\r\n]*)" % re.escape(name))


def field_of_head(head: bytes, name: bytes) -> bytes | None:
    """The value in a whole head; several lines joined with ", ", None without any."""
    values = _line(name).findall(head)
    if not values:
        return None
    if len(values) == 1:
        value: bytes = values[0]
        return value.rstrip(b" \t")
    return b", ".join(value.rstrip(b" \t") for value in values)


def field_of_list(fields: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The same of a list of (name, value)."""
    values = [value for field, value in fields if field.lower() == name]
    if not values:
        return None
    return values[0] if len(values) == 1 else b", ".join(values)
