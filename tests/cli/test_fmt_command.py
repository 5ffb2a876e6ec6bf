"""``gogate fmt`` and ``gogate schema``: what is printed, what is written, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gogate_py.cli import fmt as module
from gogate_py.cli import main

BEFORE = b"# \xc3\xbc\nserver:\n  http_listen_addr: ':1'  # here\n  timeouts: {request: 5}\n"
AFTER = b"# \xc3\xbc\nserver:\n  httpListenAddr: ':1'  # here\n  timeouts: {request: 5s}\n"
MARK = b"\xef\xbb\xbf"


def gogate(*arguments: str) -> Result:
    """Run a command of gogate."""
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with something to change."""
    path = tmp_path / "config.yaml"
    path.write_bytes(BEFORE)
    return path


def test_prints_the_result(file: Path) -> None:
    """Without an option nothing is written."""
    result = gogate("fmt", str(file))
    assert (result.exit_code, result.stdout_bytes, result.stderr) == (0, AFTER, "")
    assert file.read_bytes() == BEFORE


def test_writes_it(file: Path) -> None:
    """-w prints nothing, and leaves nothing else in the folder; a second time it does not touch the file."""
    file.chmod(0o640)
    assert (gogate("fmt", "-w", str(file)).output, file.read_bytes()) == ("", AFTER)
    assert file.stat().st_mode & 0o777 == 0o640
    assert os.listdir(file.parent) == [file.name]
    before = file.stat()
    assert gogate("fmt", "--write", str(file)).exit_code == 0
    assert file.stat() == before


@pytest.mark.parametrize("mark", [b"", MARK])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_bytes_that_nobody_asked_about_stay(file: Path, mark: bytes, end: bytes, last: bool) -> None:
    """Byte order mark, line ends, a last line without one; printed and written alike."""
    def dressed(data: bytes) -> bytes:
        return mark + (data if last else data[:-1]).replace(b"\n", end)

    file.write_bytes(dressed(BEFORE))
    assert gogate("fmt", str(file)).stdout_bytes == dressed(AFTER)
    assert gogate("fmt", "-w", str(file)).exit_code == 0
    assert file.read_bytes() == dressed(AFTER)


def test_a_link_stays_one(file: Path, tmp_path: Path) -> None:
    """What it leads to is replaced, through links of links."""
    (tmp_path / "data").mkdir()
    file.rename(tmp_path / "data" / "real.yaml")
    (tmp_path / "one.yaml").symlink_to("data/real.yaml")
    file.symlink_to("one.yaml")
    assert gogate("fmt", "-w", str(file)).exit_code == 0
    assert (file.is_symlink(), (tmp_path / "one.yaml").is_symlink()) == (True, True)
    assert (tmp_path / "data" / "real.yaml").read_bytes() == AFTER
    assert os.listdir(tmp_path / "data") == ["real.yaml"]


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_diff_is_for_patch(file: Path, last: bool, end: bytes) -> None:
    """--diff writes nothing; patch makes the result of it."""
    before, after = ((data if last else data[:-1]).replace(b"\n", end) for data in (BEFORE, AFTER))
    file.write_bytes(before)
    result = gogate("fmt", "--diff", str(file))
    assert (result.exit_code, file.read_bytes()) == (0, before)
    assert b"-  http_listen_addr: ':1'  # here" + end in result.stdout_bytes
    applied = subprocess.run(
        ["git", "apply", "-p0", "--unsafe-paths", f"--directory={file.parent}"], cwd=file.parent, capture_output=True,
        input=result.stdout_bytes.replace(str(file).encode(), b"config.yaml"))
    assert applied.returncode == 0, applied.stderr
    assert file.read_bytes() == after


def test_check_tells_by_the_exit_code(file: Path) -> None:
    """1 while something would change, with nothing printed but a diff that was asked for."""
    assert (gogate("fmt", "--check", str(file)).exit_code, gogate("fmt", "--check", str(file)).output) == (1, "")
    shown = gogate("fmt", "--check", "--diff", str(file))
    assert (shown.exit_code, "+  httpListenAddr" in shown.stdout) == (1, True)
    assert file.read_bytes() == BEFORE
    file.write_bytes(AFTER)
    for options in (("--check",), ("--diff",), ("--check", "--diff")):
        result = gogate("fmt", *options, str(file))
        assert (result.exit_code, result.output) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "data", "message"),
    [
        ((), b"a: ]\n", "config.yaml:1:4: not valid YAML"),
        (("-w",), b"a: \xff", "config.yaml:1:4: not UTF-8"),
        (("--check",), b"a: 1\n---\n", "a configuration is one YAML document"),
    ],
)
def test_what_is_no_yaml_is_told(file: Path, arguments: tuple[str, ...], data: bytes, message: str) -> None:
    """With its place, and the file stays."""
    file.write_bytes(data)
    result = gogate("fmt", *arguments, str(file))
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    assert file.read_bytes() == data


def test_a_file_with_problems_is_written_all_the_same(file: Path) -> None:
    """Unknown keys and variables that are not set stay; the rest is canonical."""
    file.write_text("server: {listen_adr: 1, httpListenAddr: '${NO_SUCH}', max_memory: 5}\n")
    assert gogate("fmt", "-w", str(file)).exit_code == 0
    assert file.read_text() == "server: {listen_adr: 1, httpListenAddr: '${NO_SUCH}', maxMemory: 5B}\n"


def test_wrong_usage(file: Path) -> None:
    """No file, and options that contradict each other."""
    assert gogate("fmt").exit_code == 2
    result = gogate("fmt", "-w", "--check", str(file))
    assert (result.exit_code, "--check writes nothing" in result.stderr) == (2, True)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Says so."""
    result = gogate("fmt", str(tmp_path / "none.yaml"))
    assert (result.exit_code, "No such file" in result.stderr) == (1, True)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_changes_nothing(file: Path, failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: the old file is whole, nothing is left beside it."""
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, failing, full)
    result = gogate("fmt", "-w", str(file))
    assert (result.exit_code, file.read_bytes()) == (1, BEFORE)
    assert result.stderr == f"gogate: cannot write {file}: No space left on device\n"
    assert os.listdir(file.parent) == [file.name]


def test_what_somebody_else_wrote_meanwhile_is_not_lost(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor that saves while fmt works wins."""
    fsync = os.fsync

    def edited(descriptor: int) -> None:
        file.write_bytes(b"server: {}\n")
        fsync(descriptor)

    monkeypatch.setattr(module.os, "fsync", edited)
    result = gogate("fmt", "-w", str(file))
    assert (result.exit_code, "changed meanwhile" in result.stderr) == (1, True)
    assert (file.read_bytes(), os.listdir(file.parent)) == (b"server: {}\n", [file.name])


def test_only_a_file_is_replaced(tmp_path: Path) -> None:
    """A pipe can be read, and is not written to."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    command = f'cat "$1" > "$2" & {sys.executable} -m gogate_py fmt -w "$2"; code=$?; wait; exit $code'
    (tmp_path / "config.yaml").write_bytes(BEFORE)
    result = subprocess.run(
        ["sh", "-c", command, "sh", str(tmp_path / "config.yaml"), str(fifo)], capture_output=True, text=True)
    assert (result.returncode, "not a regular file" in result.stderr) == (1, True)
    assert sorted(os.listdir(tmp_path)) == ["config.yaml", "fifo"]


def test_the_commands_are_listed() -> None:
    """gogate --help has both."""
    shown = gogate("--help").stdout
    assert "fmt " in shown
    assert "schema " in shown


def test_schema_is_printed_as_json() -> None:
    """For a file of one's own."""
    result = gogate("schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert gogate("schema", "x").exit_code == 2
