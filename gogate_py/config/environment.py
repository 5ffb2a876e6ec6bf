"""What the environment adds to a file: ``${VAR}`` in values, and GOGATE_SERVER_… / GOGATE_LOGGING_… over scalars.

Pure: the environment is given as a mapping.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from gogate_py.config.values import BadValue

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
