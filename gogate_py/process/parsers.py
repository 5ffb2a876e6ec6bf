"""Parsers: the versions of httptools and h11 that gogate's promises were made with (SECURITY.md section 4).

Before h11 0.16 any two bytes passed for the end of a chunk (CVE-2025-43859); what httptools accepts was measured with
0.9. An older one, pulled in by some other package, ends the start with a line that says so.
"""

from __future__ import annotations

import re
from importlib import metadata
from typing import Final

from gogate_py.errors import StartError

FLOORS: Final = {"httptools": (0, 9), "h11": (0, 16)}


def check_parsers(versions: dict[str, str] | None = None) -> None:
    """Raise StartError when a parser is older than its floor."""
    for name, floor in FLOORS.items():
        version = versions[name] if versions is not None else metadata.version(name)
        if tuple(int(part) for part in re.findall(r"[0-9]+", version)[:2]) < floor:
            wanted = f"{name}>={floor[0]}.{floor[1]}"
            raise StartError(f"{name} {version} is too old to be safe; pip install '{wanted}'")
