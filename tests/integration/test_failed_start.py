"""A gogate that cannot start says so in one line (or one for each problem), exits with 1, and has started nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from doubles.configs import ANY, gateway_config, http_gateway
from doubles.gateway import ROOT, Gateway
from doubles.http_backend import HttpBackend


def _failed_start(config: str, tmp_path: Path) -> tuple[int, list[str], int]:
    """→ exit code, lines on stderr, how many workers there ever were. Nothing is left behind: neither is the zygote,
    which is started beside the reading of the configuration."""
    path = tmp_path / "config.yaml"
    path.write_text(config)
    environ = {key: value for key, value in os.environ.items() if not key.startswith("GOGATE_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "gogate_py", "-config", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
    )
    zygotes: set[int] = set()
    workers: set[int] = set()
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            for child in watched.children(recursive=True):
                (zygotes if child.ppid() == process.pid else workers).add(child.pid)
    out, err = process.communicate()
    assert out == ""
    assert not [pid for pid in zygotes | workers if psutil.pid_exists(pid)]
    return process.returncode, err.splitlines(), len(workers)


@pytest.mark.parametrize("which", ["httpListenAddr", "listenAddr", "admin"])
def test_a_taken_port(tmp_path: Path, which: str) -> None:
    """A port that somebody else has: one line that names it, exit code 1, and no worker was started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        settings: dict[str, Any] = {"admin": {"listenAddr": address}} if which == "admin" else {which: address}
        config = gateway_config({"httpListenAddr": ANY, "backends": ["127.0.0.1:1"], **settings})
        code, lines, workers = _failed_start(config, tmp_path)
    assert (code, len(lines), workers) == (1, 1, 0)
    assert address in lines[0]
    assert "in use" in lines[0]


def test_a_port_that_a_running_gogate_has(tmp_path: Path) -> None:
    """A second gogate on the same port does not silently share it, and the first goes on."""
    with HttpBackend() as backend, Gateway(http_gateway(backend.address)) as gateway:
        address = "{}:{}".format(*gateway.address("http:default"))
        code, lines, workers = _failed_start(http_gateway(backend.address, httpListenAddr=address), tmp_path)
        assert (code, len(lines), workers) == (1, 1, 0)
        assert address in lines[0]
        assert gateway.get()[0] == 200


def test_a_bad_configuration(tmp_path: Path) -> None:
    """Every problem of a configuration is printed with its place, exit code 1, and nothing was started."""
    config = "server:\n  httpListenAddr: 'nonsense'\n  loadBalancer: best\n  backends: [{addr: 'a:1', wait: 3}]\n"
    code, lines, workers = _failed_start(config, tmp_path)
    assert (code, workers) == (1, 0)
    text = "\n".join(lines)
    for place in ("config.yaml:2:19", "config.yaml:3:17", "config.yaml:4:"):
        assert place in text
    assert "round_robin" in text  # the allowed values
    assert "weight" in text  # did you mean


def test_a_missing_configuration(tmp_path: Path) -> None:
    """A file that is not there: one line that names it, exit code 1."""
    done = subprocess.run(
        [sys.executable, "-m", "gogate_py", "-config", "none.yaml"], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "none.yaml" in done.stderr


def test_an_access_log_that_cannot_be_written(tmp_path: Path) -> None:
    """A path that cannot be opened is one line at the start, not lines that are lost in silence."""
    for path in (str(tmp_path / "nowhere" / "access.log"), str(tmp_path)):
        config = gateway_config({"httpListenAddr": ANY}, logging={"access": {"path": path}})
        code, lines, workers = _failed_start(config, tmp_path)
        assert (code, workers) == (1, 0)
        assert len(lines) == 1
        assert lines[0].startswith(f"gogate: cannot write the access log {path}: ")
