"""config.example.yaml, written from the classes: every supported key with its default, range and meaning.

``python -m gogate_py.config.example > config.example.yaml`` writes it; a test holds the two together.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from gogate_py.config.schema import Backend, Config, Listener, Logging, Pool, Route, Server, Tracing
from gogate_py.config.settings import Group, GroupList, ListOf, NamedSetting, TextMap, settings_of
from gogate_py.config.values import Kind, quote

_COMMENT_COLUMN = 48
_WIDTH = 120
#: A line of the file, and the comment that explains it.
_Line = tuple[str, str]

_HEADER = """\
# Every setting of gogate with its default; where an example is shown instead, the comment names the default.
# Everything is optional but one listener: leave out what you do not change. A key behind a # without a blank goes not
# together with what stands beside it, or is not in force by default.
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
    "api-v2": {"service": "api", "tags": ("v2",)},
    "postgres": {"backends": (Backend("10.0.0.9:5432"),)},
}
_JWT = ("type", "secret", "public_key_file", "jwks_url", "algorithms", "issuers", "audiences", "leeway",
        "forward_claims", "require_claims", "realm")
# Several routes, so that keys that exclude each other are all shown. A tuple names the keys of a group that is written
# out, "*" is for all of them; what is None is shown as its example.
_ROUTES: tuple[Mapping[str, Any], ...] = (
    {"name": "api", "type": "http", "listeners": None, "match": ("host", "path_prefix", "methods", "headers", "query"),
     "split": None, "sticky": "*", "canary_header": None, "split_fallback": None, "strip_prefix": None, "rewrite": "*",
     "allow_cidrs": None, "deny_cidrs": None, "rate_limit": None, "auth": _JWT, "forward_auth": "*", "cors": "*",
     "cache": "*", "request_headers": "*", "response_headers": None, "websocket": None, "timeouts": None, "retry": None,
     "limits": None, "openapi": None},
    {"name": "user", "match": ("path",), "pool": "api-v1",
     "auth": ("type", "header", "query", "keys", "keys_file", "forward_name")},
    {"name": "internal", "match": {"path_prefix": "/internal"}, "pool": "api-v1",
     "auth": ("type", "users", "users_file", "forward_user")},
    {"name": "to-https", "match": {"host": "www.example.com"}, "redirect": "*"},
    {"name": "closed", "match": {"path_prefix": "/private"}, "fixed_response": "*"},
    {"name": "postgres", "type": "tcp", "listen_addr": ":5432", "tls": None, "sni": None, "pool": "postgres",
     "idle_timeout": 3600.0, "accept_proxy_protocol": False, "send_proxy_protocol": "none"},
)
#: The type of authentication that goes with the keys which are shown beside it.
_AUTH_TYPES = {"header": "api_key", "users": "basic"}


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
            case "tracing":
                lines += writer.group(Tracing, "  ")
            case "listeners":
                lines += _as_item(list(writer.group(Listener, "    ")))
            case "pools":
                for name, values in _POOLS.items():
                    # The first is shown in full.
                    only = None if name == next(iter(_POOLS)) else values
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
        if isinstance(shape, Group) and about.commented:
            # Line by line, so that taking away every # leaves a configuration.
            yield f"{indent}#{named.key}:", comment
            for line, help in self.group(shape.cls, indent + "  "):
                yield re.sub(r"^( *)#?", r"\1#", line), help
            return
        if isinstance(shape, Group):
            yield from self._group_setting(named, shape, indent, value, comment)
            return
        if about.commented and value is None:
            key = f"{indent}#{named.key}:"
        if value is None:
            value = named.make_default() if about.example is None else about.example
        if isinstance(shape, GroupList) and shape.single and len(value) == 1:
            yield key, comment
            (item,) = value
            values = None if item == shape.cls() else attrs.asdict(item, recurse=False)
            yield from self.group(shape.cls, indent + "  ", values)
        elif isinstance(shape, GroupList) and shape.flow:
            shown = tuple({one.key: getattr(item, one.attribute) for one in settings_of(shape.cls)} for item in value)
            yield f"{key} {_flow(shown)}", comment
        elif isinstance(shape, GroupList):
            yield key, comment
            for item in value:
                values = attrs.asdict(item, recurse=False)
                yield from _as_item(list(self.group(shape.cls, indent + "    ", values)))
        elif isinstance(shape, ListOf | TextMap):
            yield f"{key} {_flow(value, shape)}", comment
        elif isinstance(shape, Kind):
            yield f"{key} {shape.show(value)}", comment

    def _group_setting(
        self, named: NamedSetting, shape: Group, indent: str, value: Any, comment: str
    ) -> Iterator[_Line]:
        """A group: ``value`` says which of its keys are written out (with which values); else its example."""
        key, shown = f"{indent}{named.key}:", named.setting.example
        if value is None and shown is not None and not isinstance(shown, Mapping):
            value = attrs.asdict(shown, recurse=False)
        if value is None and shown is not None:
            # Nothing of it is in force by default: so is the line.
            off = shape.optional and not named.setting.inherits
            yield f"{indent}{'#' if off else ''}{named.key}: {_flow(shown)}", comment
        elif value is None and shape.scalar_key:
            (scalar,) = [one for one in settings_of(shape.cls) if one.key == shape.scalar_key]
            assert isinstance(scalar.setting.shape, Kind)
            kind = scalar.setting.shape
            yield f"{key} {kind.show(scalar.make_default())}", _joined(comment, kind.unit)
        else:
            yield key, comment
            if value in (None, "*"):
                only, values = None, None
            elif isinstance(value, Mapping):
                only = values = value
            else:
                only = dict.fromkeys(value)
                types = [name for mark, name in _AUTH_TYPES.items() if mark in value]
                values = {"type": types[0]} if types else None
            yield from self.group(shape.cls, indent + "  ", values, only)


def _flow(value: Any, shape: ListOf | TextMap | None = None) -> str:
    """A value in YAML's flow style; ``shape`` says how the texts in it are written, if it is known."""
    if isinstance(value, Mapping):
        inner = shape.value if isinstance(shape, TextMap) else None
        if isinstance(inner, Kind):
            return "{" + ", ".join(f"{quote(name)}: {inner.show(one)}" for name, one in value.items()) + "}"
        return "{" + ", ".join(f"{quote(name)}: {_flow(one)}" for name, one in value.items()) + "}"
    if isinstance(value, tuple):
        show = shape.kind.show if isinstance(shape, ListOf) else _flow
        if isinstance(shape, ListOf) and shape.scalar and len(value) == 1:
            return show(value[0])
        return f"[{', '.join(show(item) for item in value)}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return text if re.fullmatch(r"[0-9]+[A-Za-z]*", text) else quote(text)


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _comment(named: NamedSetting, replaced: bool) -> str:
    """Help, unit and (where something else is shown) the default."""
    shape, default = named.setting.shape, named.make_default()
    parts = [named.setting.help]
    if isinstance(shape, Kind):
        parts.append(shape.unit)
        if named.setting.required:
            parts.append("(required)")
        elif (replaced or named.setting.example is not None) and not (named.setting.inherits or default in ("", None)):
            parts.append(f"default: {shape.show(default)}")
    elif isinstance(shape, ListOf) and default and (replaced or named.setting.example is not None):
        parts.append(f"default: {_flow(default, shape)}")
    aliases = ", ".join(named.setting.aliases)
    return _joined(*parts, f"also: {aliases}" if aliases else "")


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
