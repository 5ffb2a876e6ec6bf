"""Values in JSON bodies, as JSON Schema has them. Pure; the registry and the endpoints use it."""

from __future__ import annotations


def whole_number(value: object, most: int) -> int | None:
    """A value as a whole number from 0 to ``most``; 2.0 is one, and true is none. None: it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most or value != int(value):
        return None
    return int(value)
