"""ServerNames: which pattern a name takes."""

from __future__ import annotations

import pytest

from gogate_py.policy.server_names import ServerNames

PATTERNS = [("db.example.com", "exact"), ("*.example.com", "below"), ("*.db.example.com", "deeper"), ("*.com", "com")]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("db.example.com", "exact"),
        ("a.db.example.com", "deeper"),
        ("a.b.db.example.com", "deeper"),
        ("x.example.com", "below"),
        ("x.y.example.com", "below"),
        ("example.com", "com"),
        ("com", "default"),
        ("xexample.com", "com"),
        ("example.org", "default"),
        ("", "default"),
    ],
)
def test_the_table(name: str, found: str) -> None:
    """Exact before wildcard, the longest wildcard first; a wildcard is not for its own domain."""
    assert ServerNames(PATTERNS, "default").find(name) == found
    assert ServerNames(PATTERNS).find(name) == (None if found == "default" else found)
