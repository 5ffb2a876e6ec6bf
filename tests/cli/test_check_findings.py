"""``gogate check``: severities and exit codes, output for programs, and --probe against real backends."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gogate_py.cli import check_probe
from gogate_py.cli.check import check
from gogate_py.config.loader import load_text

DOUBTFUL = "server:\n  httpListenAddr: ':81'\n  backends: ['a:1']\n  health: {interval: 1s, timeout: 2s}\n"
NOTED = "server: {httpListenAddr: ':81'}\n"
BAD = "server:\n  listenAddr: x\n  wrokers: 1\n"


def run(tmp_path: Path, text: str, *options: str, env: dict[str, str] | None = None) -> Result:
    """The command on a file with this text."""
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return CliRunner().invoke(check, ["-c", str(path), *options], env=env or {})


def test_a_warning_is_told_and_the_file_is_fine(tmp_path: Path) -> None:
    """Place, severity, code, the line with a caret, and what to do; exit code 0."""
    result = run(tmp_path, DOUBTFUL)
    path = tmp_path / "config.yaml"
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        f"{path}:4:35: warning: server.health.timeout: a probe may take 2s, and the next is due after 1s: it waits, "
        "and a silent backend is found late [GG020]",
        "      health: {interval: 1s, timeout: 2s}",
        "                                      ^",
        "    make timeout shorter than interval"]
    assert result.stdout.splitlines()[0] == f"{path}: ok, 1 warning"


@pytest.mark.parametrize(("text", "code"), [(DOUBTFUL, 1), (NOTED, 0), (BAD, 1)])
def test_strict(tmp_path: Path, text: str, code: int) -> None:
    """With --strict warnings fail; notes never do."""
    result = run(tmp_path, text, "--strict")
    assert result.exit_code == code
    assert ("--strict takes warnings for problems" in result.stderr) is (text == DOUBTFUL)


def test_json(tmp_path: Path) -> None:
    """One object, whatever is found; nothing on standard error."""
    good, doubtful, bad = (json.loads(run(tmp_path, text, "--format", "json").stdout)
                           for text in (DOUBTFUL.replace("2s", "1s"), DOUBTFUL, BAD))
    assert (good["ok"], good["findings"], good["counts"]) == (True, [], {"error": 0, "warning": 0, "note": 0})
    assert good["summary"].startswith("1 pool, 1 backend, 1 route")
    (finding,) = doubtful["findings"]
    assert (doubtful["ok"], doubtful["counts"]["warning"]) == (True, 1)
    assert finding | {"message": "", "file": ""} == {
        "code": "GG020", "severity": "warning", "file": "", "line": 4, "column": 35, "endColumn": 37,
        "key": "server.health.timeout", "variable": "", "message": "", "fix": "make timeout shorter than interval",
        "allowed": [], "suggestion": ""}
    assert (bad["ok"], bad["counts"]["error"], bad["summary"]) == (False, 2, "")
    assert bad["findings"][1]["code"] == "GG002"
    assert bad["findings"][1]["suggestion"] == "workers"


def test_github(tmp_path: Path) -> None:
    """Workflow commands: a line each, with what would end one escaped."""
    result = run(tmp_path, BAD, "--format", "github", env={"GOGATE_SERVER_WROKERS": "2"})
    lines = result.stdout.splitlines()
    path = tmp_path / "config.yaml"
    assert result.exit_code == 1
    assert lines[0] == (f"::notice file={path},title=GG006 GOGATE_SERVER_WROKERS::overrides nothing; "
                        "did you mean GOGATE_SERVER_WORKERS?")
    assert lines[1].startswith(
        f"::error file={path},line=2,col=15,endLine=2,endColumn=16,title=GG003 server.listenAddr::")
    assert lines[2].startswith(f"::error file={path},line=3,col=3,title=GG002 server.wrokers::unknown key; allowed: ")
    odd = run(tmp_path, "a: [\n", "--format", "github").stdout
    assert odd.count("\n") == 1


@pytest.mark.parametrize("form", ["json", "github"])
def test_a_missing_file_for_programs(tmp_path: Path, form: str) -> None:
    """A file that cannot be read is a finding, too; exit code 1."""
    result = CliRunner().invoke(check, ["-c", str(tmp_path / "none.yaml"), "--format", form])
    assert (result.exit_code, result.stderr) == (1, "")
    assert "GG001" in result.stdout
    assert "No such file" in result.stdout


# --- --probe

class _Backend(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """200 on /up, else 404."""
        self.send_response(200 if self.path == "/up" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def backend() -> Iterator[int]:
    """The port of an HTTP server that knows /up only."""
    with HTTPServer(("127.0.0.1", 0), _Backend) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where connections are accepted by the kernel, and nobody answers."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


def test_probe(tmp_path: Path, backend: int, silent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A health path that answers 404 is told, so is a backend that does not answer; a good one is not; exit code 0."""
    monkeypatch.setattr(check_probe, "LIMIT", 1.0)
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        text = (
            "server: {httpListenAddr: ':81', health: {checkType: http, httpPath: /up}}\n"
            "pools:\n"
            f"  good: {{backends: ['localhost:{backend}']}}\n"
            f"  wrong: {{backends: ['127.0.0.1:{backend}'], health: {{httpPath: /down}}}}\n"
            f"  dead: {{backends: ['127.0.0.1:{silent}', '127.0.0.1:{dead.getsockname()[1]}', 'no.invalid:1']}}\n"
            f"  off: {{backends: ['127.0.0.1:{dead.getsockname()[1]}'], health: {{enabled: false}}}}\n"
            "routes: [{split: [good, wrong, dead, off]}]\n")
        result = run(tmp_path, text, "--probe")
    assert result.exit_code == 0, result.stderr
    told = [line.partition("warning: ")[2] for line in result.stderr.splitlines() if "warning: " in line]
    assert told[0] == f"pools.wrong.backends[0]: 127.0.0.1:{backend}: status 404 on /down [GG022]"
    assert told[1] == f"pools.dead.backends[0]: 127.0.0.1:{silent}: no answer within 1 s [GG023]"
    assert told[2].endswith("connection refused [GG023]")
    assert told[3].startswith("pools.dead.backends[2]: no.invalid:1: name does not resolve: ")
    assert len(told) == 4
    assert f"{tmp_path}/config.yaml:4:22: warning" in result.stderr


def test_probe_speaks_tls(tmp_path: Path, backend: int) -> None:
    """A backend with TLS is asked over TLS: one that speaks plain HTTP is told."""
    text = f"server: {{httpListenAddr: ':81', backends: ['https://127.0.0.1:{backend}']}}"
    result = run(tmp_path, text, "--probe")
    assert "[GG023]" in result.stderr
    assert "SSL" in result.stderr or "TLS" in result.stderr, result.stderr


def test_nothing_is_asked_without_probe(tmp_path: Path, backend: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --probe, and with a file that has problems, no backend is asked."""
    def never(*args: object) -> None:
        raise AssertionError("a backend was asked")

    monkeypatch.setattr(check_probe, "probe_backends", never)
    assert run(tmp_path, f"server: {{httpListenAddr: ':81', backends: ['127.0.0.1:{backend}']}}").exit_code == 0
    assert run(tmp_path, BAD, "--probe").exit_code == 1


def test_loading_for_a_run_knows_no_advice() -> None:
    """Warnings never stop a start."""
    assert load_text(DOUBTFUL, "x", {}).server.health.timeout == 2.0
