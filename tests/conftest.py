"""Fixtures and rules for every test."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no finding: speed is looked at in bench/.
settings.register_profile("gogate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gogate")

sys.path.insert(0, str(Path(__file__).parent))  # doubles.* from anywhere in the tests

#: Fixtures that only some folders use. Not in a conftest.py of theirs: it would be what `from conftest import` finds.
pytest_plugins = ["doubles.relay_ways"]


def need_program(name: str) -> str:
    """The path of a real server or client, or a skip with its name; in CI a missing one is a failure."""
    for folder in (None, "/usr/sbin:/usr/lib/postgresql/15/bin:/sbin"):
        found = shutil.which(name, path=folder)
        if found:
            return found
    if os.environ.get("CI"):
        pytest.fail(f"{name} is not installed, and in CI it must be")
    pytest.skip(f"{name} is not installed")
