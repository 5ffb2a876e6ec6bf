"""The short form of bench/reload_under_load.py: what reloads, broken files, killed workers and the end cost clients."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from doubles.gateway import ROOT


@pytest.mark.slow
def test_nothing_fails_but_what_a_killed_worker_had() -> None:
    """Every kind of reload twice, ten broken files, two kills and a SIGTERM under load of HTTP, WebSockets and TCP: no
    request, no message and no connection is lost, but those on the killed workers' own connections."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "reload_under_load.py"), "--short", "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=55, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert done.returncode == 0
    assert len(found["gogate"]) >= 13
    assert all(row["ok"] > 0 for what, row in found["gogate"].items() if what != "growth")
