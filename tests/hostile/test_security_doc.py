"""docs/security.md names settings and defaults; this holds them to the configuration's classes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gogate_py.config.schema import Config
from gogate_py.config.settings import Group, GroupList, ListOf, settings_of

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs" / "security.md").read_text("utf-8")


def defaults() -> dict[str, str]:
    """Dotted path below ``server`` → the default as it is written in a file."""
    found: dict[str, str] = {}

    def walk(cls: type, prefix: str) -> None:
        for named in settings_of(cls):
            shape = named.setting.shape
            path = f"{prefix}{named.key}"
            if isinstance(shape, Group) or (isinstance(shape, GroupList) and named.key == "rateLimit"):
                walk(shape.cls, f"{path}.")
            elif isinstance(shape, ListOf):
                found[path] = f"[{', '.join(shape.kind.show(item) for item in named.make_default())}]"
            elif hasattr(shape, "show"):
                found[path] = shape.show(named.make_default())

    walk(Config, "")
    return {path.removeprefix("server."): text for path, text in found.items()}


CLAIMS = re.findall(r"`([a-zA-Z.]+)` \(`([^`]*)`\)", TEXT)


def test_there_are_claims() -> None:
    """The document names its settings with their defaults."""
    assert len(CLAIMS) > 30


@pytest.mark.parametrize(("setting", "default"), sorted(set(CLAIMS)))
def test_setting_has_this_default(setting: str, default: str) -> None:
    """Each setting in the document exists, with the default that stands beside it."""
    assert defaults()[setting].strip('"') == default


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:tests|bench)/[\w./]+)`", TEXT))))
def test_files_exist(path: str) -> None:
    """Each file that the document names is there."""
    assert (ROOT / path).exists()


def test_top_level_policy_points_here() -> None:
    """SECURITY.md, where people look first, leads to the document."""
    assert "docs/security.md" in (ROOT / "SECURITY.md").read_text("utf-8")
