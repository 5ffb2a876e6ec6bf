"""bench/never_down.py: what reloads, broken files, killed workers and the end cost clients of a busy gogate. Short
here, whole under GOGATE_SOAK=1."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from doubles.gateway import ROOT

SOAK = bool(os.environ.get("GOGATE_SOAK"))


@pytest.mark.slow
@pytest.mark.timeout(1800 if SOAK else 120)
def test_nothing_fails_but_what_a_killed_worker_had() -> None:
    """Every way to reload, every kind of change, broken files, kills and a SIGTERM under load of HTTP, WebSockets and
    TCP: no request, no message and no block is lost, but those on the killed workers' own connections."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "never_down.py"), "--json", *(["--alone"] if SOAK else ["--short"])],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert done.returncode == 0
    assert len(found["rows"]) >= 21
    assert all(row["ok"] > 0 for row in found["rows"].values())
