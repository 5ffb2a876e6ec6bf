"""JSON that has one meaning: what a signature covers must read the same in every program.

Refused, though Python's reader would take it: a name twice in one object (RFC 8259 section 4 leaves the meaning open,
so that gateway and backend could read different claims), NaN and Infinity, UTF-16 and UTF-32, a byte order mark,
strings with half a surrogate pair (they have no UTF-8 form, so no field and no log line could carry them).
"""

from __future__ import annotations

import json
from typing import Any, NoReturn


def strict_json(data: bytes) -> Any:
    """The value of a JSON text in UTF-8. Raises ValueError for anything that is not one, or has two readings."""
    try:
        value = json.loads(data.decode(), object_pairs_hook=_object, parse_constant=_no_constant)
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name occurs twice in an object")
    return made


def _no_constant(name: str) -> NoReturn:
    raise ValueError("not a JSON number")
