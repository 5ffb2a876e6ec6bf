"""What differs between two values of the configuration, key by key, as people write it. Pure.

    shape                        told as
    one value                    path: before → after
    group                        each key of it on its own; one that is off on one side, as a whole
    list of values               as a whole
    list of groups               by what names an item (its scalar key), else by place; another order, as a whole
    mapping                      each name on its own
    what is read from files      path: only that it is another one
    secret                       "(secret)" on both sides; "" stays visible, so that setting one can be seen

Nothing here knows a particular setting, but for what is secret without being of the kind Secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import attrs

from gogate_py.config.settings import Group, GroupList, GroupMap, ListOf, NamedSetting, TextMap, camel_case, settings_of
from gogate_py.config.traffic_values import JwksUrl, Secret, ServiceUrl
from gogate_py.config.values import Kind

SECRET: Final = "(secret)"  # noqa: S105  what is shown in place of one
ABSENT: Final = "none"
_CONTENTS: Final = "(contents)"

#: Keys whose values are secret although their kind is not.
_SECRET_KEYS: Final = frozenset(("token",))
#: Names of header fields and the like whose values most likely are.
_SECRET_NAME: Final = re.compile(
    r"authori[sz]ation|cookie|token|secret|password|passwd|credential|api-?key", re.IGNORECASE)
#: Values that are made of what is written and so tell nothing of their own: a route's name is its identity.
_DERIVED: Final = frozenset(("name",))


@attrs.frozen
class Change:
    """One key that has another value. ``path`` is below the thing that was changed; values are as they are written."""

    path: str
    before: str
    after: str


def changes(before: attrs.AttrsInstance, after: attrs.AttrsInstance, leave_out: Iterable[str] = ()) -> list[Change]:
    """What differs between two instances of one class, in the order of its settings; ``leave_out``: attributes."""
    return list(_group(before, after, "", frozenset(leave_out)))


def _group(
    before: attrs.AttrsInstance, after: attrs.AttrsInstance, path: str, leave_out: frozenset[str] = frozenset()
) -> Iterator[Change]:
    if before == after:
        return
    known = {named.attribute: named for named in settings_of(type(before))}
    for field in attrs.fields(type(before)):
        one, other = getattr(before, field.name), getattr(after, field.name)
        if one == other or field.name in leave_out:
            continue
        if field.name in known:
            named = known[field.name]
            yield from _value(named.setting.shape, one, other, _join(path, named.key), named)
        elif field.name not in _DERIVED:
            # Read from a file that a setting names, or worked out of what is written: never shown itself.
            shown = (str(one).lower(), str(other).lower()) if isinstance(one, bool) else (_CONTENTS, _CONTENTS)
            yield Change(_join(path, camel_case(field.name)), *shown)


def _value(shape: Any, one: Any, other: Any, path: str, named: NamedSetting) -> Iterator[Change]:
    if isinstance(shape, Group) and one is not None and other is not None:
        yield from _group(one, other, path)
    elif isinstance(shape, TextMap):
        yield from _mapping(shape, one, other, path)
    elif isinstance(shape, GroupMap):
        for name in dict.fromkeys((*one, *other)):
            yield from _item(one.get(name), other.get(name), f"{path}.{name}")
    elif isinstance(shape, GroupList):
        yield from _list(shape, one, other, path)
    else:
        yield Change(path, show(named, one), show(named, other))


def _mapping(shape: TextMap, one: Mapping[str, Any], other: Mapping[str, Any], path: str) -> Iterator[Change]:
    for name in dict.fromkeys((*one, *other)):
        if one.get(name) != other.get(name):
            yield Change(f"{path}.{name}", _show_entry(shape, name, one), _show_entry(shape, name, other))


def _list(shape: GroupList, one: tuple[Any, ...], other: tuple[Any, ...], path: str) -> Iterator[Change]:
    names, other_names = _names(shape, one), _names(shape, other)
    before, after = dict(zip(names, one, strict=True)), dict(zip(other_names, other, strict=True))
    for name in dict.fromkeys((*names, *other_names)):
        yield from _item(before.get(name), after.get(name), f"{path}[{name}]")
    if [name for name in names if name in after] != [name for name in other_names if name in before]:
        yield Change(f"{path} (order)", ", ".join(names), ", ".join(other_names))


def _names(shape: GroupList, items: tuple[Any, ...]) -> list[str]:
    """What each item is known by: the value that alone stands for it, where that is there and only once."""
    keys = [named.attribute for named in settings_of(shape.cls) if named.key == shape.scalar_key]
    given = [str(getattr(item, keys[0])) for item in items] if keys else []
    if given and len(set(given)) == len(given):
        return given
    return [str(number) for number in range(len(items))]


def _item(one: Any, other: Any, path: str) -> Iterator[Change]:
    if one is not None and other is not None:
        yield from _group(one, other, path)
    elif one != other:
        yield Change(path, _whole(one), _whole(other))


def show(named: NamedSetting, value: Any) -> str:
    """A value of a setting as it is written, secrets hidden."""
    shape = named.setting.shape
    if isinstance(shape, Group):
        return _whole(value)
    if value and (isinstance(shape, Secret) or named.key in _SECRET_KEYS):
        return SECRET
    return _show(shape, value)


def _show(shape: Any, value: Any) -> str:
    if value is None and not isinstance(shape, Kind):
        return ABSENT
    if isinstance(shape, ListOf):
        return "[" + ", ".join(shape.kind.show(item) for item in value) + "]"
    if isinstance(shape, TextMap):
        return "{" + ", ".join(f"{name}: {_show_entry(shape, name, value)}" for name in value) + "}"
    if isinstance(shape, GroupList):
        return "[" + ", ".join(map(_whole, value)) + "]"
    if isinstance(shape, GroupMap):
        return "{" + ", ".join(f"{name}: {_whole(one)}" for name, one in value.items()) + "}"
    if isinstance(shape, ServiceUrl | JwksUrl):
        value = re.sub(r"\?.*", "?…", value)  # a query may carry a key
    # A text that stands alone needs no quotes.
    shown: str = value if isinstance(value, str) and value and value.isprintable() else shape.show(value)
    return shown


def _show_entry(shape: TextMap, name: str, values: Mapping[str, Any]) -> str:
    if name not in values:
        return ABSENT
    value = values[name]
    if value and (isinstance(shape.value, Secret) or _SECRET_NAME.search(name)):
        return SECRET
    return _show(shape.value, value)


def _whole(value: attrs.AttrsInstance | None) -> str:
    """A group as one value: the keys of it that have not their defaults."""
    if value is None:
        return ABSENT
    parts = []
    for named in settings_of(type(value)):
        one = getattr(value, named.attribute)
        if one != named.make_default():
            parts.append(f"{named.key}: {show(named, one)}")
    return "{" + ", ".join(parts) + "}"


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
