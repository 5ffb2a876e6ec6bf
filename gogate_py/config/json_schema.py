"""``gogate schema``: a JSON Schema (2020-12) of configuration files, made from the classes that the loader reads by.

Each class is one entry of ``$defs``. Canonical keys are ``properties``, which editors offer; the other spellings are
``patternProperties``, which they only accept. It takes every file that the loader takes; what it cannot say is what the
checks say: what goes together, where names lead.
"""

from __future__ import annotations

import re
from typing import Any, Final

import attrs
import yaml

from gogate_py.config.json_schema_values import VARIABLE, Schema, ignoring_case, name_schema, value_schema
from gogate_py.config.reader import ELSEWHERE
from gogate_py.config.schema import Config
from gogate_py.config.settings import (
    Group,
    GroupList,
    GroupMap,
    ListOf,
    NamedSetting,
    Shape,
    TextMap,
    known_keys,
    settings_of,
)
from gogate_py.config.values import Kind

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> Schema:
    """The schema of a whole file."""
    schemas = _Schemas()
    root = schemas.of(Config, required=True)
    return {
        "$schema": DIALECT,
        "title": "gogate configuration",
        "$ref": root["$ref"],
        "$defs": {**dict(sorted(schemas.definitions.items())), "variable": VARIABLE},
    }


class _Schemas:
    """Collects the definitions of the classes, each once."""

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}

    def of(self, cls: type[attrs.AttrsInstance], required: bool) -> Schema:
        """A reference to a class; ``required`` is false where what is left out may be inherited."""
        needed = [named for named in settings_of(cls) if named.setting.required] if required else []
        inherits = not required and any(named.setting.required for named in settings_of(cls))
        name = f"{cls.__name__}Change" if inherits else cls.__name__
        reference = {"$ref": f"#/$defs/{name}"}
        if name not in self.definitions:
            self.definitions[name] = {}  # a place in case of a class within itself
            self.definitions[name] = self._definition(cls, reference["$ref"], needed)
        return reference

    def _definition(self, cls: type[attrs.AttrsInstance], place: str, needed: list[NamedSetting]) -> Schema:
        settings = settings_of(cls)
        others: Schema = {}
        for named in settings:
            further = _spellings(cls, named)[1:]
            if further:
                others[f"^(?:{'|'.join(map(re.escape, further))})$"] = {"$ref": f"{place}/properties/{named.key}"}
        for (where, key), section in ELSEWHERE.items():
            if where is cls:
                others[f"^{key}$"] = self.of(section, required=True)
        # An empty value is an empty mapping.
        definition: Schema = {"type": "object" if needed or cls is Config else ["object", "null"]}
        definition["properties"] = {named.key: self._property(named) for named in settings}
        definition |= {"patternProperties": others} if others else {}
        definition["additionalProperties"] = False
        given = [[{"required": [key]} for key in _spellings(cls, named)] for named in needed]
        one = [ways[0]["required"][0] for ways in given if len(ways) == 1]
        definition |= {"required": one} if one else {}
        several = [{"anyOf": ways} for ways in given if len(ways) > 1]
        definition |= {"allOf": several} if several else {}
        return definition

    def _property(self, named: NamedSetting) -> Schema:
        about = named.setting
        described: Schema = {}
        meaning = "; ".join(part for part in (about.help, _unit(about.shape), _also(named)) if part)
        if meaning:
            described["description"] = meaning
        default = None if about.inherits or about.required else _default(named)
        if default is not None:
            described["default"] = default
        return described | self._shape(about.shape, required=not about.inherits)

    def _shape(self, shape: Shape, required: bool) -> Schema:
        match shape:
            case Group():
                return _one_of(self._group(shape, required))
            case GroupList():
                items = _one_of([self.of(shape.cls, required=True), *self._alone(shape.cls, shape.scalar_key)])
                alone = [self.of(shape.cls, required=True)] if shape.single else []
                return _one_of([{"type": ["array", "null"], "items": items}, *alone])
            case GroupMap():
                return {"type": ["object", "null"], "propertyNames": name_schema(shape.name_kind),
                        "additionalProperties": self.of(shape.cls, required=True)}
            case TextMap():
                return {"type": ["object", "null"], "propertyNames": name_schema(shape.name_kind),
                        "additionalProperties": self._shape(shape.value, required=True)}
            case ListOf():
                value = value_schema(shape.kind)
                return _one_of([{"type": ["array", "null"], "items": value}, *([value] if shape.scalar else [])])
            case _:
                return value_schema(shape)

    def _group(self, shape: Group, required: bool) -> list[Schema]:
        ways = [self.of(shape.cls, required or shape.whole), *self._alone(shape.cls, shape.scalar_key)]
        if shape.optional and not shape.scalar_key:
            ways.append({"enum": ["none"]})
            ways.append({"type": "string", "pattern": f"^{ignoring_case('none')}$"})
        return ways

    def _alone(self, cls: type[attrs.AttrsInstance], scalar_key: str) -> list[Schema]:
        """The scalar that stands for one key of a mapping."""
        return [value_schema(named.setting.shape) for named in settings_of(cls)
                if named.key == scalar_key and isinstance(named.setting.shape, Kind)]


def _one_of(ways: list[Schema]) -> Schema:
    return ways[0] if len(ways) == 1 else {"anyOf": ways}


def _spellings(cls: type[attrs.AttrsInstance], named: NamedSetting) -> list[str]:
    """Every spelling of a key, the canonical one first."""
    return sorted((key for key, known in known_keys(cls).items() if known == named), key=lambda key: key != named.key)


def _unit(shape: Shape) -> str:
    """Unit or range, in words, for what the forms do not tell by themselves."""
    kind = shape.kind if isinstance(shape, ListOf) else shape
    return kind.unit if isinstance(kind, Kind) else ""


def _also(named: NamedSetting) -> str:
    return f"also: {', '.join(named.setting.aliases)}" if named.setting.aliases else ""


def _default(named: NamedSetting) -> Any:
    """The value of a key that was left out, as it would be written; None where it stands for nothing."""
    shape, value = named.setting.shape, named.make_default()
    if isinstance(shape, ListOf):
        return [yaml.safe_load(shape.kind.show(item)) for item in value] if value else None
    # "" is a key that was left out.
    return yaml.safe_load(shape.show(value)) if isinstance(shape, Kind) and value != "" else None
