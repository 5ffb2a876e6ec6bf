"""The benchmark works: a tiny round of every row, against gogate only. Figures mean nothing here; errors do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from doubles.gateway import ROOT

TINY = (
    "--peers", "gogate", "--rounds", "1", "--seconds", "0.05", "--warm-up", "0.02", "--piece", "1000000",
    "--crowd", "20", "--settle", "0.05", "--many", "0.01",
)  # fmt: skip
BENCH = [sys.executable, str(ROOT / "bench" / "run.py")]


@pytest.mark.slow
def test_every_row_is_measured_without_an_error(tmp_path: Path) -> None:
    """Each row that gogate can have does some work, costs something and fails nothing; the page gets the results and
    the configurations, and keeps what is around them."""
    page, raw = tmp_path / "page.md", tmp_path / "raw.json"
    page.write_text("before\n<!-- results: begin -->\nof last year\n<!-- results: end -->\nafter\n")
    done = subprocess.run(
        [*BENCH, *TINY, "--write", str(page), "--json", str(raw)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(raw.read_text())
    for key, proxies in found["runs"].items():
        for name, runs in proxies.items():
            assert [(run["errors"], run["error"]) for run in runs] == [(0, "")], (key, name)
            assert all(run["units"] > 0 and run["cpu_ns"] > 0 for run in runs), (key, name)
    keys = subprocess.run([*BENCH, "--list"], capture_output=True, text=True, check=True).stdout.split()
    measured = {*found["runs"], *(figure.removesuffix("-20") for figure in found["figures"])}
    assert set(keys) <= measured
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "of last year" not in text
    assert done.stdout.strip() in text
    assert "httpListenAddr: 127.0.0.1:8081" in text


def test_a_name_that_is_not_known_is_refused() -> None:
    """The message names what there is."""
    done = subprocess.run([*BENCH, "--only", "http-65"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "the row 'http-65' is not known; there are http-1, http-64" in done.stderr
