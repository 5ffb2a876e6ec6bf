"""Python habits that have made HTTP parsers disagree are not used in the wire package (SECURITY.md section 4)."""

from __future__ import annotations

import ast
from pathlib import Path

import gogate_py.wire

FILES = sorted(Path(gogate_py.wire.__file__).parent.glob("*.py"))
# Each reads digits that a regular expression has just matched; file → how many.
KNOWN_INT = {"chunked.py": 2, "fast_head.py": 4, "framing.py": 1, "head_check.py": 1}
# What they take for a blank, a digit or a line end goes beyond ASCII or beyond the protocol.
FORBIDDEN = {"isdigit", "isnumeric", "isdecimal", "splitlines", "casefold", "isspace"}
TRIMMING = {"strip", "lstrip", "rstrip", "split"}


def calls(path: Path) -> list[ast.Call]:
    """Every call in a file."""
    return [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]


def test_no_function_with_ideas_of_its_own() -> None:
    """No isdigit, splitlines and the like, and no trimming or splitting at whatever Python takes for white space."""
    assert len(FILES) > 8
    for path in FILES:
        for call in calls(path):
            if isinstance(call.func, ast.Attribute):
                where = f"{path.name}:{call.lineno}"
                assert call.func.attr not in FORBIDDEN, where
                assert call.func.attr not in TRIMMING or call.args, where


def test_text_is_never_folded() -> None:
    """Bytes are folded before they are decoded, never after."""
    for path in FILES:
        for call in calls(path):
            if isinstance(call.func, ast.Attribute) and call.func.attr in ("lower", "upper"):
                receiver = call.func.value
                decoded = isinstance(receiver, ast.Call) and getattr(receiver.func, "attr", "") == "decode"
                assert not decoded, f"{path.name}:{call.lineno}"


def test_int_only_reads_checked_digits() -> None:
    """int() takes signs, underscores and blanks: every use in the HTTP files is known."""
    for name, count in KNOWN_INT.items():
        path = next(path for path in FILES if path.name == name)
        found = [call for call in calls(path) if isinstance(call.func, ast.Name) and call.func.id == "int"]
        assert len(found) == count, name
    for path in FILES:
        if path.name in ("headers.py", "target.py", "forwarding.py", "serializer.py", "llhttp_check.py"):
            assert not [call for call in calls(path) if isinstance(call.func, ast.Name) and call.func.id == "int"]
