"""Parsers: the versions of httptools and h11 that gogate's promises were made with (SECURITY.md section 4).

Before h11 0.16 any two bytes passed for the end of a chunk (CVE-2025-43859); what httptools accepts was measured with
0.9. An older one, pulled in by some other package, ends the start with a line that says so.
"""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from typing import Final

from gogate_py.errors import StartError

FLOORS: Final = {"httptools": (0, 9), "h11": (0, 16)}

_assigned: Final = re.compile(r"""^__version__ = ["']([0-9][^"']*)["']$""", re.MULTILINE).search


def check_parsers(versions: dict[str, str] | None = None) -> None:
    """Raise StartError when a parser is older than its floor."""
    for name, floor in FLOORS.items():
        version = versions[name] if versions is not None else version_of(name)
        if tuple(int(part) for part in re.findall(r"[0-9]+", version)[:2]) < floor:
            wanted = f"{name}>={floor[0]}.{floor[1]}"
            raise StartError(f"{name} {version} is too old to be safe; pip install '{wanted}'")


def version_of(name: str) -> str:
    """The version of an installed package. Both say it in a file of one line, which is read without an import:
    importlib.metadata alone takes 15 ms of a start."""
    spec = find_spec(name)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        try:
            with open(os.path.join(folder, "_version.py"), encoding="utf-8") as file:
                found = _assigned(file.read())
        except OSError:
            continue
        if found is not None:
            return found[1]
    from importlib import metadata

    return metadata.version(name)
