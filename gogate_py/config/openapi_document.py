"""An OpenAPI document as it comes from a backend or a file: bytes → JSON whose outline is right. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from gogate_py.errors import GogateError

_VERSION: Final = re.compile(r"3\.[01](\.[0-9]+)?(-.*)?").fullmatch


class UnusableDocument(GogateError):
    """Not a document that can be merged; the text goes on behind its name."""


def read_document(data: bytes) -> dict[str, Any]:
    """The document. Raises UnusableDocument."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UnusableDocument(f"is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise UnusableDocument("is not an OpenAPI document: not an object")
    version = found.get("openapi", found.get("swagger"))
    if not isinstance(version, str) or _VERSION(version) is None:
        shown = f"its version is {version[:20]}" if isinstance(version, str) else "it names no version"
        raise UnusableDocument(f"is not an OpenAPI document of version 3.0 or 3.1: {shown}")
    paths = found.get("paths", {})
    if not isinstance(paths, dict) or not all(
        path.startswith("/") and isinstance(item, dict) for path, item in paths.items()
    ):
        raise UnusableDocument("is not an OpenAPI document: its paths are no objects at paths")
    components = found.get("components", {})
    if not isinstance(components, dict) or not all(isinstance(one, dict) for one in components.values()):
        raise UnusableDocument("is not an OpenAPI document: its components are no objects")
    return found
