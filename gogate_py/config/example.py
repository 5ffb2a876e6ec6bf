"""config.example.yaml, written from the classes: every supported key with its default, range and meaning.

``python -m gogate_py.config.example > config.example.yaml`` writes it; a test holds the two together.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from gogate_py.config.schema import Backend, Config, Logging, Match, Pool, Route, Server
from gogate_py.config.settings import Group, GroupList, ListOf, NamedSetting, settings_of
from gogate_py.config.values import Kind

_COMMENT_COLUMN = 48
_WIDTH = 120
#: A line of the file, and the comment that explains it.
_Line = tuple[str, str]

_HEADER = """\
# Every setting of gogate with its default; where an example is shown instead, the comment names the default.
# Everything is optional but one listener: leave out what you do not change.
#
# Keys may also be written in snake_case or kebab-case. Durations: "250ms", "30s", "1h30m", or seconds as a number.
# Sizes: bytes, or "8KiB", "10MiB". Addresses: "host:port", ":port", "[v6]:port", "unix:/path". ${VAR} and
# ${VAR:-default} are replaced in values ($$ is $). GOGATE_SERVER_WORKERS=4, GOGATE_SERVER_HTTP_LISTEN_ADDR=:8000,
# GOGATE_LOGGING_LEVEL=debug and the like override single values of server and logging.
#
# `gogate check -config FILE` reports every problem of a file with its place.
"""

_POOLS: Mapping[str, Mapping[str, Any]] = {
    "api-v1": {"service": "api", "tags": ("v1",)},
    "postgres": {"backends": (Backend("10.0.0.9:5432"),)},
}
# Three routes, so that keys that exclude each other are all shown.
_ROUTES: tuple[Mapping[str, Any], ...] = (
    {"name": "api", "type": "http", "match": ("host", "path_prefix", "methods"), "pool": "api-v1", "websocket": True,
     "timeouts": None},
    {"name": "user", "match": ("path",), "pool": "api-v1"},
    {"name": "postgres", "type": "tcp", "listen_addr": ":5432", "pool": "postgres", "idle_timeout": 3600.0,
     "accept_proxy_protocol": False, "send_proxy_protocol": "none"},
)


def example() -> str:
    """The text of config.example.yaml."""
    writer = _Writer()
    lines: list[_Line] = []
    for named in settings_of(Config):
        lines += [("", ""), (f"{named.key}:", named.setting.help)]
        match named.key:
            case "server":
                lines += writer.group(Server, "  ")
            case "logging":
                lines += writer.group(Logging, "  ")
            case "pools":
                for name, values in _POOLS.items():
                    only = None if "service" in values else values
                    lines += [(f"  {name}:", ""), *writer.group(Pool, "    ", values, only)]
            case "routes":
                for values in _ROUTES:
                    lines += _as_item(list(writer.group(Route, "    ", values, only=values)))
    return _HEADER + "".join(_format(line, comment) for line, comment in lines)


class _Writer:
    """Writes groups; a comment is written where a key is shown first."""

    def __init__(self) -> None:
        self._explained: set[tuple[type[attrs.AttrsInstance], str]] = set()

    def group(
        self, cls: type[attrs.AttrsInstance], indent: str, values: Mapping[str, Any] | None = None,
        only: Mapping[str, Any] | None = None,
    ) -> Iterator[_Line]:
        """The lines of a class: ``values`` (by attribute) in place of the examples; ``only`` these, if given."""
        for named in settings_of(cls):
            if only is not None and named.attribute not in only:
                continue
            value = (values or {}).get(named.attribute)
            comment = "" if (cls, named.attribute) in self._explained else _comment(named, value is not None)
            self._explained.add((cls, named.attribute))
            yield from self._setting(named, indent, value, comment)

    def _setting(self, named: NamedSetting, indent: str, value: Any, comment: str) -> Iterator[_Line]:
        shape, about = named.setting.shape, named.setting
        key = f"{indent}{named.key}:"
        if isinstance(shape, Group) and shape.cls is not Match:
            if about.example is None:
                yield key, comment
                yield from self.group(shape.cls, indent + "  ")
            else:
                keys = ", ".join(f"{name}: {text}" for name, text in about.example.items())
                yield f"{key} {{{keys}}}", comment
            return
        if isinstance(shape, Group):
            yield key, comment
            yield from self.group(shape.cls, indent + "  ", only=dict.fromkeys(value))
            return
        if value is None:
            value = named.make_default() if about.example is None else about.example
        if isinstance(shape, GroupList):
            yield key, comment
            for item in value:
                values = attrs.asdict(item, recurse=False)
                yield from _as_item(list(self.group(shape.cls, indent + "    ", values)))
        elif isinstance(shape, ListOf):
            yield f"{key} [{', '.join(shape.kind.show(item) for item in value)}]", comment
        elif isinstance(shape, Kind):
            yield f"{key} {shape.show(value)}", comment


def _comment(named: NamedSetting, replaced: bool) -> str:
    """Help, unit and (where something else is shown) the default."""
    shape = named.setting.shape
    parts = [named.setting.help] if named.setting.help else []
    if isinstance(shape, Kind):
        if shape.unit:
            parts.append(shape.unit)
        shown_otherwise = replaced or named.setting.example is not None
        if named.setting.required:
            parts.append("(required)")
        elif shown_otherwise and not named.setting.inherits and named.make_default() not in ("", None):
            parts.append(f"default: {shape.show(named.make_default())}")
    aliases = ", ".join(named.setting.aliases)
    if aliases:
        parts.append(f"also: {aliases}")
    return "; ".join(parts)


def _as_item(lines: list[_Line]) -> list[_Line]:
    """Lines of a mapping as an item of a list: the dash takes the last two columns of the first line's indentation."""
    text, comment = lines[0]
    key = text.lstrip(" ")
    return [(" " * (len(text) - len(key) - 2) + "- " + key, comment), *lines[1:]]


def _format(line: str, comment: str) -> str:
    """The line with its comment behind it, or above it when that would be too wide."""
    whole = f"{line:<{_COMMENT_COLUMN - 1}} # {comment}" if comment else line
    if len(whole) <= _WIDTH:
        return whole + "\n"
    margin = " " * (len(line) - len(line.lstrip(" "))) + "# "
    return textwrap.fill(comment, _WIDTH, initial_indent=margin, subsequent_indent=margin) + f"\n{line}\n"


if __name__ == "__main__":
    sys.stdout.write(example())
