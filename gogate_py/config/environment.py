"""What the environment adds to a file: ``${VAR}`` in values, and GOGATE_SERVER_… / GOGATE_LOGGING_… over scalars.

Pure: the environment is given as a mapping.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Final

import attrs

from gogate_py.config.schema import Logging, Server
from gogate_py.config.settings import Group, GroupList, ListOf, settings_of
from gogate_py.config.values import BadValue, Kind

SERVER_PREFIX: Final = "GOGATE_SERVER"
LOGGING_PREFIX: Final = "GOGATE_LOGGING"
#: What begins the variables that override scalars → the class of the section.
PREFIXES: Final[Mapping[str, type[attrs.AttrsInstance]]] = {SERVER_PREFIX: Server, LOGGING_PREFIX: Logging}

# What Kubernetes gives to every container beside a service named gogate-server.
_INJECTED = re.compile(r"_(?:SERVICE_HOST|(?:SERVICE_)?PORT(?:_.*)?)\Z")

_REFERENCE = re.compile(r"\$\$|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\})?")


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Replace ``${VAR}`` and ``${VAR:-default}`` (which, as in a shell, stands for an empty VAR too); ``$$`` is $.

    Raises BadValue for a variable that is not set and has no default, and for a ``${`` that is not one of these forms.
    Any other $ stays what it is.
    """
    if "$" not in text:
        return text

    def replace(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        if match[0] == "$$":
            return "$"
        if name is None:
            raise BadValue("a ${ begins a variable: write ${NAME} or ${NAME:-default}, or $${ for itself")
        value = environ.get(name, "")
        if default is not None:
            return value or str(default)
        if name not in environ:
            raise BadValue(f"the environment variable {name} is not set, and no default is given as in ${{{name}:-…}}")
        return value

    return _REFERENCE.sub(replace, text)


def variable_name(prefix: str, attribute: str) -> str:
    """The variable that overrides an attribute: GOGATE_SERVER and listen_addr → GOGATE_SERVER_LISTEN_ADDR."""
    return f"{prefix}_{attribute.upper()}"


def overrides(cls: type[attrs.AttrsInstance], prefix: str) -> Iterator[tuple[str, bool]]:
    """Every variable of a class and the groups in it, and whether it overrides something: a list or a mapping has a
    name, too, but no variable can replace it."""
    for named in settings_of(cls):
        shape, name = named.setting.shape, variable_name(prefix, named.attribute)
        if isinstance(shape, Group):
            yield name, bool(shape.scalar_key)
            yield from overrides(shape.cls, name)
        elif isinstance(shape, GroupList) and shape.single:
            yield name, False
            yield from overrides(shape.cls, name)
        else:
            yield name, isinstance(shape, Kind) or (isinstance(shape, ListOf) and shape.scalar)


def unknown_overrides(environ: Mapping[str, str]) -> list[str]:
    """What should be said of variables that look like overrides and are none: misspelt ones, and those of lists.

    Variables that resemble nothing are passed over, and so are those that Kubernetes makes for a service named
    gogate-server.
    """
    said = []
    for prefix, cls in PREFIXES.items():
        known = dict(overrides(cls, prefix))
        usable = [name.removeprefix(prefix) for name, scalar in known.items() if scalar]
        for name in sorted(environ):
            if not name.startswith(prefix + "_") or known.get(name) or _INJECTED.search(name):
                continue
            if name in known:
                said.append(f"{name} overrides nothing: only single values can be overridden, not lists and mappings")
                continue
            # Without the prefix, which would make any two of them alike.
            near = get_close_matches(name.removeprefix(prefix), usable, n=1, cutoff=0.75)
            if near:
                said.append(f"{name} overrides nothing; did you mean {prefix}{near[0]}?")
    return said
