"""Nodes → the classes of schema.py, by what settings.py tells of each field. Knows no particular setting but the two
sections that may stand in two places (``logging`` and ``metrics``).

Whatever is wrong goes into the findings, and reading goes on with the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import attrs
import yaml

from gogate_py.config.environment import LOGGING_PREFIX, SERVER_PREFIX, expand, variable_name
from gogate_py.config.positions import Entries, Entry, has_foreign_tag, is_null, width
from gogate_py.config.problems import Findings, Path, Place
from gogate_py.config.schema import Config, Listener, Logging, Metrics, Pool, Route, Server, Tracing, inherited
from gogate_py.config.settings import (
    Group,
    GroupList,
    GroupMap,
    ListOf,
    NamedSetting,
    TextMap,
    hint,
    known_keys,
    settings_of,
)
from gogate_py.config.traffic_values import Secret
from gogate_py.config.values import BadValue, Kind, closest

T = TypeVar("T", bound=attrs.AttrsInstance)

#: Sections that may stand elsewhere than in their own class: the class that may have them, too, and the key → theirs.
ELSEWHERE: Final[Mapping[tuple[type[attrs.AttrsInstance], str], type[attrs.AttrsInstance]]] = {
    (Config, "metrics"): Metrics, (Server, "logging"): Logging}


class Reader:
    """Reads one file. ``environ`` is what values may refer to and what overrides scalars."""

    def __init__(self, findings: Findings, environ: Mapping[str, str]) -> None:
        self._findings = findings
        self._environ = environ
        self._entries = Entries(findings)

    def read(self, root: yaml.Node) -> Config:
        """The configuration of a whole document."""
        entries = self._known(Config, self._mapping(root, (), Config), (), extra=("metrics",))
        section = entries.get("server")
        server_entries = self._mapping(section.value, ("server",), Server) if section else []
        if section:
            self._findings.place(("server",), section.place())
        server_entries, logging = self._move(entries, server_entries)
        server = self._group(Server, server_entries, ("server",), Server(), SERVER_PREFIX)
        pools: dict[str, Pool] = {}
        routes: tuple[Route, ...] = ()
        listeners: tuple[Listener, ...] = ()
        for named in settings_of(Config):
            if named.attribute == "listeners" and "listeners" in entries:
                listeners = self._value(named, entries["listeners"], ("listeners",), (), None, "")
            elif named.attribute == "pools" and "pools" in entries:
                pools = self._value(named, entries["pools"], ("pools",), {}, server, "")
            elif named.attribute == "routes" and "routes" in entries:
                routes = self._value(named, entries["routes"], ("routes",), (), server, "")
        routes = tuple(route if route.name else attrs.evolve(route, name=f"route-{number}")
                       for number, route in enumerate(routes, 1))
        path = (logging.path or ("logging",)) if logging else ("logging",)
        if logging:
            self._findings.place(path, logging.place())
        logging_entries = self._mapping(logging.value, path, Logging) if logging else []
        logs = self._group(Logging, logging_entries, path, Logging(), LOGGING_PREFIX)
        traces = self._mapping(entries["tracing"].value, ("tracing",), Tracing) if "tracing" in entries else []
        tracing = self._group(Tracing, traces, ("tracing",), Tracing(), "")
        return Config(server, listeners, pools, routes, logs, tracing)

    def _move(self, top: dict[str, Entry], server: list[Entry]) -> tuple[list[Entry], Entry | None]:
        """``metrics`` belongs to the server, ``logging`` to the top; each may stand in the other place, not in both."""
        logging, metrics = top.get("logging"), top.get("metrics")
        kept = []
        for entry in server:
            if entry.key == "logging":
                moved = attrs.evolve(entry, path=("server", "logging"))
                if logging:
                    self._twice(moved, logging)
                else:
                    logging = moved
            elif entry.key == "metrics" and metrics:
                self._twice(attrs.evolve(entry, path=("server", "metrics")), metrics)
            else:
                kept.append(entry)
        if metrics:
            kept.append(attrs.evolve(metrics, path=("metrics",)))
        return kept, logging

    def _twice(self, entry: Entry, first: Entry) -> None:
        place = entry.place()
        also = f" as {first.key}" if first.key != entry.key else ""
        self._findings.add_at(
            place.key_line, place.key_column, entry.path, f"given already{also} in line {first.place().key_line}",
            code="GG002")

    # --- mappings

    def _mapping(self, node: yaml.Node, path: Path, cls: type[attrs.AttrsInstance]) -> list[Entry]:
        """The entries of a mapping node; none, and a problem, when it is something else. Empty is an empty mapping."""
        if isinstance(node, yaml.MappingNode) and not has_foreign_tag(node):
            return self._entries.of(node, path)
        if not is_null(node):
            keys = tuple(named.key for named in settings_of(cls))
            self._bad(node, path, f"expected a mapping, not {_name_of(node)}", allowed=keys)
        return []

    def _known(
        self, cls: type[attrs.AttrsInstance], entries: list[Entry], path: Path, extra: tuple[str, ...] = ()
    ) -> dict[str, Entry]:
        """Attribute → entry for the keys of a class; every other key is a problem. ``extra`` keys are let through."""
        known = known_keys(cls)
        found: dict[str, Entry] = {}
        for entry in entries:
            named = known.get(entry.key)
            name = named.attribute if named else entry.key if entry.key in extra else ""
            if name in found:
                key_path = (*path, named.key if named else entry.key)
                self._twice(attrs.evolve(entry, path=key_path), found[name])
            elif name:
                found[name] = entry
            else:
                key_path = (*path, entry.key)
                self._findings.spoil(key_path)
                place = entry.place()
                keys = tuple(named.key for named in settings_of(cls)) + extra
                meant = hint(cls, entry.key) or closest(entry.key, (*known, *extra))
                meant = known[meant].key if meant in known else meant
                if meant:
                    self._findings.spoil((*path, meant))  # it only seems to be missing
                self._findings.add_at(
                    place.key_line, place.key_column, key_path, "unknown key", keys, meant, code="GG002")
        return found

    def _group(
        self, cls: type[T], entries: list[Entry], path: Path, fallback: attrs.AttrsInstance | None, prefix: str,
        **more: Any,
    ) -> T:
        """An instance of ``cls``.

        Keys left out take ``fallback``'s value: all of them if it is of the same class, else the inherited ones.
        ``prefix`` begins the variables that override its scalars; "" for none.
        """
        found = self._known(cls, entries, path)
        values = dict(more)
        same = isinstance(fallback, cls)
        for named in settings_of(cls):
            entry = found.get(named.attribute)
            key_path = (entry.path if entry else ()) or (*path, named.key)
            if named.setting.required and entry is None and not same and self._findings.is_sound(path):
                self._findings.spoil(key_path)
                self._findings.add(path, f"{named.key} is required")
            take = fallback is not None and (same or named.setting.inherits)
            default = getattr(fallback, named.attribute) if take else named.make_default()
            variable = variable_name(prefix, named.attribute) if prefix else ""
            values[named.attribute] = self._value(named, entry, key_path, default, fallback, variable)
        return cls(**values)

    def _value(
        self, named: NamedSetting, entry: Entry | None, path: Path, default: Any, fallback: attrs.AttrsInstance | None,
        variable: str,
    ) -> Any:
        """The value of one setting: overridden by the environment, else as written, else its default."""
        shape = named.setting.shape
        if entry is not None:
            self._findings.place(path, entry.place())
        if isinstance(shape, Group):
            return self._one_group(shape, entry, path, default, variable)
        if isinstance(shape, GroupList) and shape.single:
            return self._one_or_more(shape, entry, path, default, variable)
        if isinstance(shape, GroupList | GroupMap | TextMap):
            return default if entry is None else self._collection(shape, entry.value, path, fallback)
        # Nothing is asked of Kind itself above: an isinstance of a Protocol costs 70 µs, and a file has many settings.
        if variable and variable in self._environ and not (isinstance(shape, ListOf) and not shape.scalar):
            self._findings.place(path, Place(0, 0, 0, 0, variable))
            kind = shape.kind if isinstance(shape, ListOf) else shape
            value = self._parse(kind, self._environ[variable], False, path, None)
            return default if value is None else (value,) if isinstance(shape, ListOf) else value
        if entry is None:
            return default
        if isinstance(shape, ListOf):
            return self._scalars(shape, entry.value, path)
        return self._scalar(shape, entry.value, path, default)

    def _collection(
        self, shape: GroupList | GroupMap | TextMap, node: yaml.Node, path: Path, fallback: attrs.AttrsInstance | None
    ) -> Any:
        if isinstance(shape, TextMap):
            return self._text_map(shape, node, path)
        if isinstance(shape, GroupMap):
            return self._group_map(shape, node, path, fallback)
        items = self._items(node, path)
        return tuple(self._item(shape, item, (*path, number), fallback) for number, item in enumerate(items))

    def _one_group(self, shape: Group, entry: Entry | None, path: Path, default: Any, variable: str) -> Any:
        """The value of a group: of its keys, of the scalar that stands for one of them, or None."""
        if shape.scalar_key and variable and variable in self._environ:
            self._findings.place(path, Place(0, 0, 0, 0, variable))
            (named,) = [one for one in settings_of(shape.cls) if one.key == shape.scalar_key]
            assert isinstance(named.setting.shape, Kind)
            value = self._parse(named.setting.shape, self._environ[variable], False, path, None)
            return default if value is None else shape.cls(**{named.attribute: value})
        if entry is None:
            if shape.optional or (not variable and isinstance(default, shape.cls)):
                return default
            if not variable:
                return shape.cls(**inherited(shape.cls, default))
            return self._group(shape.cls, [], path, default, variable)
        if isinstance(entry.value, yaml.ScalarNode) and not is_null(entry.value):
            if shape.scalar_key:
                entries = [Entry(shape.scalar_key, entry.key_node, entry.value, path)]
                return self._group(shape.cls, entries, path, None, variable)
            if shape.optional and entry.value.value.lower() == "none":
                return None
        entries = self._mapping(entry.value, path, shape.cls)
        return self._group(shape.cls, entries, path, None if shape.whole else default, variable)

    def _one_or_more(self, shape: GroupList, entry: Entry | None, path: Path, default: Any, variable: str) -> Any:
        """The value of a list of groups that may be one group alone; only that one can be overridden."""
        if entry is None:
            if not variable or not any(
                variable_name(variable, named.attribute) in self._environ for named in settings_of(shape.cls)
            ):
                return default
            return (self._group(shape.cls, [], path, None, variable),)
        if isinstance(entry.value, yaml.SequenceNode):
            return tuple(
                self._item(shape, node, (*path, number), None)
                for number, node in enumerate(self._items(entry.value, path)))
        return (self._group(shape.cls, self._mapping(entry.value, path, shape.cls), path, None, variable),)

    # --- lists and maps

    def _items(self, node: yaml.Node, path: Path) -> list[yaml.Node]:
        """The items of a list; an empty value is an empty list."""
        if isinstance(node, yaml.SequenceNode) and not has_foreign_tag(node):
            items: list[yaml.Node] = node.value
            return items
        if not is_null(node):
            self._bad(node, path, f"expected a list, not {_name_of(node)}; write [a, b], or one item a line after -")
        return []

    def _scalars(self, shape: ListOf, node: yaml.Node, path: Path) -> tuple[Any, ...]:
        if shape.scalar and isinstance(node, yaml.ScalarNode) and not is_null(node):
            value = self._scalar(shape.kind, node, path, None)
            return () if value is None else (value,)
        values: list[Any] = []
        for number, item in enumerate(self._items(node, path)):
            item_path = (*path, number)
            self._findings.place(item_path, _place_of(item))
            value = self._scalar(shape.kind, item, item_path, None)
            if value is None:
                continue
            if value in values:
                self._findings.add(item_path, f"{shape.kind.show(value)} is in the list twice")
            values.append(value)
        return tuple(values)

    def _item(self, shape: GroupList, node: yaml.Node, path: Path, fallback: attrs.AttrsInstance | None) -> Any:
        self._findings.place(path, _place_of(node))
        if shape.scalar_key and isinstance(node, yaml.ScalarNode) and not is_null(node):
            entries = [Entry(shape.scalar_key, node, node)]
        else:
            entries = self._mapping(node, path, shape.cls)
        return self._group(shape.cls, entries, path, fallback, "")

    def _named(self, shape: GroupMap | TextMap, node: yaml.Node, path: Path) -> list[Entry]:
        """The entries of a mapping from names of the user's choice, each name once and as it must be."""
        if not isinstance(node, yaml.MappingNode) or has_foreign_tag(node):
            if not is_null(node):
                self._bad(node, path, f"expected a mapping of names, not {_name_of(node)}")
            return []
        fold = isinstance(shape, TextMap) and shape.fold
        seen: dict[str, Entry] = {}
        for entry in self._entries.of(node, path):
            entry = attrs.evolve(entry, path=(*path, entry.key))
            name = entry.key.lower() if fold else entry.key
            if name in seen:
                self._twice(entry, seen[name])
                continue
            seen[name] = entry
            self._findings.place(entry.path, entry.place())
            try:
                shape.name_kind.parse(entry.key, False)
                if not entry.key:
                    raise BadValue("a name is missing")
            except BadValue as bad:
                self._findings.spoil(entry.path)
                self._findings.add(entry.path, bad.message, bad.allowed, bad.suggestion, at="key")
        return list(seen.values())

    def _group_map(
        self, shape: GroupMap, node: yaml.Node, path: Path, fallback: attrs.AttrsInstance | None
    ) -> dict[str, Any]:
        groups: dict[str, Any] = {}
        for entry in self._named(shape, node, path):
            entries = self._mapping(entry.value, entry.path, shape.cls)
            groups[entry.key] = self._group(shape.cls, entries, entry.path, fallback, "", name=entry.key)
        return groups

    def _text_map(self, shape: TextMap, node: yaml.Node, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for entry in self._named(shape, node, path):
            if isinstance(shape.value, ListOf):
                values[entry.key] = self._scalars(shape.value, entry.value, entry.path)
            else:
                value = self._scalar(shape.value, entry.value, entry.path, None)
                if value is not None:
                    values[entry.key] = value
        return values

    # --- scalars

    def _scalar(self, kind: Kind, node: yaml.Node, path: Path, default: Any) -> Any:
        if not isinstance(node, yaml.ScalarNode) or has_foreign_tag(node):
            self._bad(node, path, f"expected a single value, not {_name_of(node)}")
            return default
        if is_null(node):
            self._bad(node, path, "has no value; write one, or leave the key out")
            return default
        try:
            text = expand(node.value, self._environ)
        except BadValue as bad:
            self._findings.spoil(path)
            self._findings.add(path, bad.message)
            return default
        if isinstance(kind, Secret) and text == node.value:
            self._findings.conceal(node.start_mark.line + 1, node.end_mark.line + 1)
        if text != node.value:
            self._findings.expand(path)
        # What a variable brought is not text because of the quotes around the variable.
        quoted = bool(node.style) and text == node.value
        return self._parse(kind, text, quoted, path, default)

    def _parse(self, kind: Kind, text: str, quoted: bool, path: Path, default: Any) -> Any:
        try:
            return kind.parse(text, quoted)
        except BadValue as bad:
            self._findings.spoil(path)
            self._findings.add(path, bad.message, bad.allowed, bad.suggestion)
            return default

    def _bad(self, node: yaml.Node, path: Path, message: str, allowed: tuple[str, ...] = ()) -> None:
        """A node that is not what it should be: its value is not read."""
        self._findings.spoil(path)
        place = _place_of(node)
        self._findings.add_at(place.line, place.column, path, message, allowed)


def _place_of(node: yaml.Node) -> Place:
    line, column = node.start_mark.line + 1, node.start_mark.column + 1
    return Place(line, column, line, column, "", width(node), width(node))


def _name_of(node: yaml.Node) -> str:
    """What a node is, in words."""
    if has_foreign_tag(node):
        return f"something tagged {node.tag.replace('tag:yaml.org,2002:', '!!')}"
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return "nothing" if is_null(node) else "a single value"
