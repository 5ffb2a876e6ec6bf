"""What a route's path pattern captures of a path: its parameters, and what is left over.

    pattern or prefix      path               captured
    /users/{id}            /users/7           id = "7"
    /users/:id/posts/*     /users/7/posts/a/b id = "7", rest = "a/b"
    prefix /api            /api/x/y           rest = "x/y"
    prefix /api            /api, /api/        rest = ""
    neither                /x                 rest = "x"
    /exact                 /exact             nothing

Values are pieces of the canonical path, escapes and all: they never hold a "/" (rest may), and are never a dot segment.
A path that the pattern does not match captures nothing at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

#: What a trailing /* or a prefix leaves over; a parameter of this name is hidden by it.
REST: Final = "rest"


def is_parameter(segment: str) -> bool:
    """Whether a path segment stands for any one segment: ``{name}`` or ``:name``."""
    return (segment.startswith("{") and segment.endswith("}")) or (segment.startswith(":") and len(segment) > 1)


def parameter_name(segment: str) -> str:
    """The name of a parameter segment."""
    return segment[1:-1] if segment.startswith("{") else segment[1:]


def compile_captures(path_pattern: str, prefix: str) -> Callable[[bytes], dict[str, bytes]]:
    """A function from a canonical path to what a route with this ``path`` or ``pathPrefix`` captures of it (about 1 µs
    a path). Of two parameters of one name the last counts."""
    if not path_pattern:
        trimmed = prefix.rstrip("/").encode()
        return lambda path: _left_over(path, trimmed)
    names: list[str] = []
    pieces = []
    for segment in path_pattern.split("/")[1:]:
        if segment == "*":
            names.append(REST)
            pieces.append(b"(.*)")
        elif is_parameter(segment):
            names.append(parameter_name(segment))
            pieces.append(b"([^/]+)")
        else:
            pieces.append(re.escape(segment.encode()))
    if not names:
        return lambda path: {}
    fullmatch = re.compile(b"/" + b"/".join(pieces), re.DOTALL).fullmatch

    def captures(path: bytes) -> dict[str, bytes]:
        found = fullmatch(path)
        return dict(zip(names, found.groups(), strict=True)) if found is not None else {}

    return captures


def _left_over(path: bytes, prefix: bytes) -> dict[str, bytes]:
    if path == prefix or (path == b"*" and not prefix):
        return {REST: b""}
    if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] == b"/":
        return {REST: path[len(prefix) + 1 :]}
    return {}
