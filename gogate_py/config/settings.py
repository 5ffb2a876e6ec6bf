"""How a configuration class describes its fields: shape, help, spellings, default.

The description is read by the loader (what to accept), the example (what to show) and the tests (that both agree).
``HINTS`` of a class are words of other programs and the keys that mean the same here. This module knows no particular
setting.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import attrs

from gogate_py.config.values import Kind, squash

_METADATA_KEY = "gogate_setting"
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@attrs.frozen
class ListOf:
    """A list of scalars of one kind, without duplicates; becomes a tuple. ``scalar``: one value alone is a list of one.
    """

    kind: Kind
    scalar: bool = False


@attrs.frozen
class TextMap:
    """A mapping from names of the user's choice to values; becomes a dict.

    ``fold``: names that differ in case only are the same (those of header fields).
    """

    name_kind: Kind
    value: Kind | ListOf
    fold: bool = False


@attrs.frozen
class Group:
    """A mapping that becomes one instance of ``cls``.

    ``scalar_key``: the key that a plain scalar in place of the mapping stands for. ``optional``: None when it was not
    written (or, without a scalar_key, when ``none`` was), so that nothing of it is in force. ``whole``: inherited as a
    whole only: what is written takes the place of all of it.
    """

    cls: type[attrs.AttrsInstance]
    scalar_key: str = ""
    optional: bool = False
    whole: bool = False


@attrs.frozen
class GroupList:
    """A list of mappings, each an instance of ``cls``; becomes a tuple.

    ``scalar_key``: the key that a plain scalar item stands for. ``single``: one mapping alone is a list of one.
    ``flow``: short enough to be shown on one line.
    """

    cls: type[attrs.AttrsInstance]
    scalar_key: str = ""
    single: bool = False
    flow: bool = False


@attrs.frozen
class GroupMap:
    """A mapping from a name of the user's choice to a mapping; ``cls`` has a ``name`` attribute that takes the key."""

    cls: type[attrs.AttrsInstance]
    name_kind: Kind


Shape = Kind | ListOf | TextMap | Group | GroupList | GroupMap


@attrs.frozen
class Setting:
    """What one key of the file is. ``shape`` says what it may hold; units are the kind's.

    ``aliases`` are further names (each in its three spellings); ``inherits``: a missing key takes the value of the same
    name at server level, groups key by key; ``example`` is shown in config.example.yaml instead of the default;
    ``commented``: shown there as a comment, because it goes not together with what stands beside it.
    """

    shape: Shape
    help: str
    key: str = ""
    aliases: tuple[str, ...] = ()
    required: bool = False
    inherits: bool = False
    example: Any = None
    commented: bool = False


@attrs.frozen
class NamedSetting:
    """A setting with the attribute that holds it and its canonical key."""

    attribute: str
    key: str
    setting: Setting
    default: Any

    def make_default(self) -> Any:
        """The value of a key that was left out."""
        if isinstance(self.default, attrs.Factory):  # type: ignore[arg-type]  # attrs types Factory as a function
            return self.default.factory()
        return self.default


def setting(shape: Shape, help: str, *, default: Any = attrs.NOTHING, **about: Any) -> Any:
    """An attrs field that is a setting; ``about`` are further fields of :class:`Setting`."""
    if default is attrs.NOTHING:
        if isinstance(shape, Group):
            default = None if shape.optional else attrs.Factory(shape.cls)
        elif isinstance(shape, GroupMap | TextMap):
            default = attrs.Factory(dict)
        elif isinstance(shape, ListOf | GroupList):
            default = ()
    return attrs.field(default=default, metadata={_METADATA_KEY: Setting(shape, help, **about)})


@cache
def settings_of(cls: type[attrs.AttrsInstance]) -> tuple[NamedSetting, ...]:
    """The settings of a class in the order in which they are written; attributes that are not settings are left out."""
    found = []
    for field in attrs.fields(cls):
        about: Setting | None = field.metadata.get(_METADATA_KEY)
        if about is not None:
            found.append(NamedSetting(field.name, about.key or camel_case(field.name), about, field.default))
    return tuple(found)


def hint(cls: type[attrs.AttrsInstance], key: str) -> str:
    """The canonical key that another program's key most likely means here, "" if none is known."""
    hints: dict[str, str] = getattr(cls, "HINTS", {})
    return {squash(word): meant for word, meant in hints.items()}.get(squash(key), "")


def camel_case(name: str) -> str:
    """``http_listen_addr`` → ``httpListenAddr``."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def spellings(key: str, attribute: str = "") -> Iterator[str]:
    """Every accepted way to write a key: camelCase, snake_case (``attribute``, if given), kebab-case."""
    snake = attribute or _HUMP.sub("_", key).lower()
    yield key
    yield camel_case(snake)
    yield snake
    yield snake.replace("_", "-")


@cache
def known_keys(cls: type[attrs.AttrsInstance]) -> dict[str, NamedSetting]:
    """Accepted spelling → setting, for every setting of a class."""
    known: dict[str, NamedSetting] = {}
    for named in settings_of(cls):
        for spelling in spellings(named.key, named.attribute):
            known[spelling] = named
        for alias in named.setting.aliases:
            for spelling in spellings(alias):
                known[spelling] = named
    return known
