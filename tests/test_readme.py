"""README.md is true: its configurations can run, its metrics and commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gogate_py.config.loader import load_text
from gogate_py.controlplane import admin_routes
from gogate_py.telemetry.metrics import CATALOGUE

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CONFIGURATIONS = re.findall(r"^```yaml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", CONFIGURATIONS, ids=range(1, len(CONFIGURATIONS) + 1))
def test_every_configuration_runs(text: str) -> None:
    """Each YAML block loads without a problem."""
    assert load_text(text, "README.md", {}).effective_routes()


def test_there_are_configurations() -> None:
    """The minimal, the production and the long form are shown."""
    assert len(CONFIGURATIONS) == 3


def test_every_metric_that_is_named_exists() -> None:
    """Names of metrics in the README are names of the catalogue."""
    named = set(re.findall(r"\bgogate_[a-z_]+\b", README)) - {"gogate_py"}
    assert len(named) > 10
    assert named <= CATALOGUE.keys()


def test_every_file_that_is_linked_exists() -> None:
    """Relative links lead somewhere."""
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_every_admin_path_that_is_named_exists() -> None:
    """The table of the admin API names paths that the admin side has."""
    source = Path(admin_routes.__file__).read_text() + '"/v1/services"'
    for path in re.findall(r"^\| `[A-Z]+ (/[a-z0-9/]+)", README, re.MULTILINE):
        assert path.rstrip("/").rpartition("/")[2] in source, path
