"""schemathesis against a gateway that runs: thousands of requests made of /openapi.json, and not one finding.

It looks for statuses, media types, fields and bodies that are not described, for valid requests that are refused and
others that are not, for methods that are not refused with Allow, for 500s. Who asks differs from run to run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from doubles.gateway import Gateway
from test_openapi_admin import CONFIG

pytestmark = pytest.mark.slow

SETTINGS = Path(__file__).with_name("schemathesis.toml")
TOKEN = ("--header=Authorization: Bearer secret", "--max-examples=6")
NO_TOKEN = ("--phases=fuzzing", "--max-examples=4")
#: As a proxy forwards it: not from this machine. A method that nobody knows counts as a change then: 401, not 405.
ELSEWHERE = (
    "--phases=coverage", "--header=X-Forwarded-For: 203.0.113.9", "--exclude-checks=unsupported_method")
#: Things that there are, so that what is behind a 404 is reached.
THERE = """
[[operations]]
include-path-regex = "^/backends/"
parameters = { "path.id" = "127.0.0.1:10", "query.pool" = "b" }
[[operations]]
include-path-regex = "^/routes/"
parameters = { "path.name" = "split" }
[[operations]]
include-path = "/dashboard/{file}"
parameters = { "path.file" = "docs.js" }
"""


@pytest.mark.parametrize(
    ("who", "more"), [(TOKEN, THERE), (NO_TOKEN, ""), (ELSEWHERE, "")], ids=["token", "this-machine", "elsewhere"])
def test_schemathesis_finds_nothing(who: tuple[str, ...], more: str, tmp_path: Path) -> None:
    """With the token and things that there are; without, from this machine and from elsewhere, with any names."""
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(SETTINGS.read_text() + more)
    with Gateway(CONFIG) as gateway:
        gateway.admin_request("POST", "/v1/services", {"id": "one", "name": "api", "address": "127.0.0.1:7"})
        done = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings), "run",
             f"http://{gateway.admin}/openapi.json", "--seed=1", "--no-color", *who],
            capture_output=True, text=True, timeout=110, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""})
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
        selected = re.search(r"(\d+) selected / (\d+) total", done.stdout)  # all but the stream that never ends
        assert selected is not None
        assert int(selected[2]) - int(selected[1]) == 1
        assert f"Tested: {selected[1]}" in done.stdout, done.stdout[-2000:]
        assert not [line for line in gateway.log if line.get("message") == "internal error"]
