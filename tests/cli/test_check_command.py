"""``gogate check``: output and exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from gogate_py.cli.check import check

GOOD = "server: {listenAddr: ':8080', httpListenAddr: ':8081', backends: ['localhost:9001', 'localhost:9002']}\n"


@pytest.mark.parametrize("option", ["-config", "--config", "-c"])
def test_a_good_file(tmp_path: Path, option: str) -> None:
    """A file without problems: its name, what it amounts to, exit code 0, nothing on standard error."""
    path = tmp_path / "config.yaml"
    path.write_text(GOOD)
    result = CliRunner().invoke(check, [option, str(path)])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        f"{path}: ok", "1 pool, 2 backends, 2 routes; listeners: tcp :8080, http :8081, admin 127.0.0.1:9090"]


def test_the_summary_names_every_listener(tmp_path: Path) -> None:
    """Metrics, registry and TCP routes are listeners too; those that are off are not named."""
    path = tmp_path / "config.yaml"
    path.write_text(
        "server: {admin: {enabled: false}, metrics: {listenAddr: ':1'}, registry: {listenAddr: ':2'}}\n"
        "pools: {db: {}}\nroutes: [{type: tcp, listenAddr: ':3', pool: db}]")
    result = CliRunner().invoke(check, ["-c", str(path)])
    assert result.stdout.splitlines()[1] == "1 pool, 0 backends, 1 route; listeners: tcp :3, metrics :1, registry :2"


def test_a_bad_file(tmp_path: Path) -> None:
    """Every problem with its place and then their number on standard error; exit code 1, no standard output."""
    path = tmp_path / "config.yaml"
    path.write_text("server:\n  listenAddr: nonsense\n  wrokers: 1\n")
    result = CliRunner().invoke(check, ["-config", str(path)])
    assert (result.exit_code, result.stdout) == (1, "")
    lines = result.stderr.splitlines()
    assert lines[0].startswith(f"{path}:2:15: server.listenAddr: expected host:port")
    assert lines[1:3] == ["      listenAddr: nonsense", "                  ^"]
    assert lines[-2:] == ["    did you mean workers?", f"{path}: 2 problems"]


def test_one_problem_is_counted_as_one(tmp_path: Path) -> None:
    """The count agrees with its noun."""
    path = tmp_path / "config.yaml"
    path.write_text("")
    assert CliRunner().invoke(check, ["-c", str(path)]).stderr.endswith(": 1 problem\n")


def test_a_missing_file(tmp_path: Path) -> None:
    """A file that cannot be read is one line and exit code 1."""
    result = CliRunner().invoke(check, ["-c", str(tmp_path / "none.yaml")])
    assert result.exit_code == 1
    assert result.stderr == f"gogate: cannot read {tmp_path / 'none.yaml'}: No such file or directory\n"


def test_wrong_usage() -> None:
    """An unknown option is exit code 2."""
    assert CliRunner().invoke(check, ["--bogus"]).exit_code == 2


def test_the_whole_command_with_the_environment(tmp_path: Path) -> None:
    """As a process, the command reads ./config.yaml and the environment's overrides."""
    (tmp_path / "config.yaml").write_text(GOOD)
    root = Path(__file__).parents[2]
    environ = {"PYTHONPATH": str(root), "GOGATE_SERVER_WORKERS": "none", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "gogate_py", "check"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("GOGATE_SERVER_WORKERS: server.workers: 'none' is neither auto nor a number")
