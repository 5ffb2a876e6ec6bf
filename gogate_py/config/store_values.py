"""Where the registry is kept: ``memory``, or ``file:///path``; ``redis://`` is known, but not built yet."""

from __future__ import annotations

import re
from urllib.parse import unquote

import attrs

from gogate_py.config.values import BadValue, quote

_FILE = re.compile(r"file://(/[^?#\x00-\x20]*[^/?#\x00-\x20])\Z")


@attrs.frozen
class Store:
    """``memory`` or the URL of a file (an absolute path; %20 and the like are decoded)."""

    @property
    def unit(self) -> str:
        return "memory | file:///path"

    def parse(self, text: str, quoted: bool) -> str:
        if text.lower() == "memory":
            return "memory"
        if re.match(r"rediss?(://|\Z)", text):
            raise BadValue(f"{text!r} is not supported yet", allowed=("memory", "file:///path"))
        found = _FILE.match(text)
        if found is None or "\x00" in unquote(found[1]):
            near = f"file://{text.removeprefix('file:')}" if re.match(r"(file:)?/[^/]", text) else ""
            raise BadValue(
                "is neither memory nor the URL of a file with an absolute path", allowed=("memory", "file:///path"),
                suggestion=near)
        return text

    def show(self, value: str) -> str:
        return value if value == "memory" else quote(value)


def store_path(store: str) -> str:
    """The file's path, "" for memory."""
    found = _FILE.match(store)
    return unquote(found[1]) if found else ""
