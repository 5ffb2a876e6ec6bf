"""``gogate check`` speaks of variables that override nothing, whatever it finds in the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from config_loading import MINIMAL

from gogate_py.cli.check import check


@pytest.mark.parametrize(("text", "code"), [(MINIMAL, 0), ("server: {}", 1)])
def test_a_misspelt_variable_is_a_note(text: str, code: int, tmp_path: Path) -> None:
    """A note is one line on standard error and changes neither the verdict nor the exit code."""
    path = tmp_path / "config.yaml"
    path.write_text(text)
    result = CliRunner().invoke(check, ["--config", str(path)], env={"GOGATE_SERVER_WROKERS": "2"})
    assert result.exit_code == code
    assert "note: GOGATE_SERVER_WROKERS overrides nothing; did you mean GOGATE_SERVER_WORKERS?\n" in result.output
    assert ("config.yaml: ok" in result.output) is (code == 0)


def test_files_that_are_named_are_checked(tmp_path: Path) -> None:
    """What is wrong in a file of users is told with that file's name and line."""
    (tmp_path / "users").write_text("al:in-clear\n")
    path = tmp_path / "config.yaml"
    path.write_text("server: {httpListenAddr: ':1', auth: {type: basic, usersFile: users}}\n")
    result = CliRunner().invoke(check, ["--config", str(path)])
    assert result.exit_code == 1
    assert f"{tmp_path}/users:1:1: server.auth.usersFile: al has no hash" in result.output
    assert "in-clear" not in result.output
