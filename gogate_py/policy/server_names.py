"""Server names (SNI) → what they stand for: exact names first, then wildcards, the longest first, then the default.

    pattern         names
    db.example.com  db.example.com
    *.example.com   every name below example.com, at any depth, not example.com itself

Names and patterns are lower case, without a dot at the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class ServerNames(Generic[T]):
    """A table of patterns. Finding costs as many lookups as a name has labels."""

    __slots__ = ("_below", "_default", "_exact")

    def __init__(self, patterns: Iterable[tuple[str, T]], default: T | None = None) -> None:
        self._exact: dict[str, T] = {}
        self._below: dict[str, T] = {}
        self._default = default
        for pattern, value in patterns:
            if pattern.startswith("*."):
                self._below[pattern[2:]] = value
            else:
                self._exact[pattern] = value

    def find(self, name: str) -> T | None:
        """What a name ("" for none) stands for; None without a default."""
        found = self._exact.get(name)
        while found is None and name:
            name = name.partition(".")[2]
            found = self._below.get(name) if name else None
        return self._default if found is None else found
