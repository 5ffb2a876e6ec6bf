"""The parts of the demo that need no processes: how gogate is called, and which ports are chosen."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from gogate_py.config.loader import load_text
from gogate_py.demo.configuration import HOST, Ports, choose, configuration
from gogate_py.demo.show import own_command, welcome


def test_gogate_is_called_as_a_shell_would_find_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name when PATH leads to this installation, else by its path (short below the current directory), else by
    -m."""
    folder = tmp_path / "env" / "bin"
    folder.mkdir(parents=True)
    python, script = folder / "python", folder / "gogate"
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert own_command() == [str(python), "-m", "gogate_py"]

    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    assert own_command() == [str(script)]
    monkeypatch.chdir(tmp_path)
    assert own_command() == ["env/bin/gogate"]

    elsewhere = tmp_path / "links"
    elsewhere.mkdir()
    os.symlink(script, elsewhere / "gogate")  # as pipx does
    monkeypatch.setenv("PATH", str(elsewhere))
    assert own_command() == ["gogate"]

    (elsewhere / "gogate").unlink()
    (elsewhere / "gogate").write_text("#!/bin/sh\n")  # another installation's
    (elsewhere / "gogate").chmod(0o755)
    assert own_command() == ["env/bin/gogate"]


def test_ports_are_distinct_free_and_as_wished() -> None:
    """A free wish is granted, a taken one and 0 become free ports, and no port is given twice."""
    with socket.create_server((HOST, 0)) as other, socket.create_server((HOST, 0)) as gone:
        taken, free = other.getsockname()[1], gone.getsockname()[1]
        gone.close()
        chosen = choose(taken, free, free, 0)
        assert chosen[1] == free
        assert taken not in chosen
        assert len(set(chosen)) == 4


def test_the_configuration_can_run() -> None:
    """What the demo writes loads without a problem and listens where it should."""
    config = load_text(configuration(Ports(1001, 1002, 1003)), "config.yaml", {})
    assert config.server.http_listen_addr == f"{HOST}:1001"
    assert [route.listen_addr for route in config.effective_routes() if route.type == "tcp"] == [f"{HOST}:1002"]
    assert config.server.admin.listen_addr == f"{HOST}:1003"


@pytest.mark.parametrize(("admin", "named"), [(9090, False), (9099, True)])
def test_only_another_admin_port_is_named_in_the_register_command(admin: int, named: bool) -> None:
    """gogate register needs --admin only when the admin API is not where it looks by itself."""
    text = welcome(Ports(admin=admin), Path("config.yaml"))
    commands = [line for line in text.splitlines() if line.startswith("      ")]
    assert len(commands) == 4
    assert (f"--admin http://{HOST}:{admin}" in commands[2]) is named
