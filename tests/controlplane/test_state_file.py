"""State file: whatever goes wrong at whichever step, a whole copy is left, and what is broken is kept aside."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gogate_py.controlplane import state_file
from gogate_py.controlplane.saved_state import (
    FORMAT,
    BadState,
    SavedBackend,
    SavedInstance,
    SavedOverride,
    SavedState,
    SavedWeight,
    from_bytes,
    to_bytes,
)
from gogate_py.controlplane.state_file import StateFile

STEPS = ("unlink", "open", "write", "fsync", "close", "replace")


def state(number: int) -> SavedState:
    """A state that differs by number."""
    one = SavedInstance(
        f"api-{number}", "api", "10.0.0.5:80", ("v2",), {"zone": "ä"}, 3, 30.0, "2026-01-01T00:00:00.000Z", 1.5)
    return SavedState(
        (one,), (SavedWeight("default", "10.0.0.5:80", SavedOverride(number, 2.5)),),
        {"web": {"canary": SavedOverride(5, 2.5)}}, (SavedBackend("default", "10.0.0.5:80", True, "refused", 3.5),))


class Faulty:
    """The os module; the n-th call of the steps (all counted together) fails, or ends the process before or after."""

    def __init__(self, number: int, fault: Callable[[Callable[[], Any]], Any]) -> None:
        self.left = number
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in STEPS:
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            return self._fault(lambda: real(*args, **kwargs)) if self.left == 0 else real(*args, **kwargs)

        return call


def fails(code: int) -> Callable[[Callable[[], Any]], Any]:
    """The call fails with this error."""

    def fault(call: Callable[[], Any]) -> Any:
        raise OSError(code, os.strerror(code))

    return fault


def short(call: Callable[[], Any]) -> Any:
    """The process is killed before the call."""
    os._exit(9)


def late(call: Callable[[], Any]) -> Any:
    """The process is killed after the call."""
    try:
        call()
    finally:
        os._exit(9)


def steps_of_a_save(folder: Path) -> int:
    """How many steps a save over an earlier one has."""
    file = StateFile(str(folder / "count.json"))
    file.save(to_bytes(state(1)))
    counter = Faulty(1000, short)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state_file, "os", counter)
        file.save(to_bytes(state(2)))
    return 1000 - counter.left


@pytest.fixture
def file(tmp_path: Path) -> Iterator[StateFile]:
    """A file with two generations saved."""
    file = StateFile(str(tmp_path / "state.json"))
    file.save(to_bytes(state(1)))
    file.save(to_bytes(state(2)))
    yield file
    file.unlock()


def test_a_state_comes_back_whole(file: StateFile) -> None:
    """Everything that was saved is there again; only the owner can read it."""
    assert file.load(from_bytes) == (state(2), file.path, ())
    assert from_bytes(Path(f"{file.path}.1").read_bytes()) == state(1)
    assert os.stat(file.path).st_mode & 0o777 == 0o600
    assert not os.path.exists(f"{file.path}.tmp")


def test_nothing_there_is_no_complaint(tmp_path: Path) -> None:
    """A first start finds nothing and says nothing."""
    assert StateFile(str(tmp_path / "new.json")).load(from_bytes) == (None, "", ())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_error_at_any_step_leaves_a_whole_copy(tmp_path: Path, code: int) -> None:
    """Disk full or an I/O error at each step in turn: the earlier state or the new one can be read, nothing is torn,
    and the next save works."""
    count = steps_of_a_save(tmp_path)
    assert count >= 10
    for number in range(1, count + 1):
        file = StateFile(str(tmp_path / f"{number}.json"))
        file.save(to_bytes(state(1)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(state_file, "os", Faulty(number, fails(code)))
            with pytest.raises(OSError, match=os.strerror(code)):
                file.save(to_bytes(state(2)))
        found, _, complaints = file.load(from_bytes)
        assert found in (state(1), state(2)), number
        assert complaints == (), number
        file.save(to_bytes(state(3)))
        assert file.load(from_bytes)[0] == state(3)


@pytest.mark.parametrize("fault", [short, late])
def test_a_kill_between_steps_leaves_a_whole_copy(tmp_path: Path, fault: Callable[[Callable[[], Any]], Any]) -> None:
    """A process that ends before or after each step leaves a state that can be read."""
    for number in range(1, steps_of_a_save(tmp_path) + 1):
        file = StateFile(str(tmp_path / f"{number}.json"))
        file.save(to_bytes(state(1)))
        child = os.fork()
        if child == 0:
            state_file.os = Faulty(number, fault)  # type: ignore[assignment]  # stands for the module, in this child
            file.save(to_bytes(state(2)))
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9, number
        found, _, complaints = file.load(from_bytes)
        assert found in (state(1), state(2)), number
        assert complaints == (), number


def test_a_write_in_pieces_is_whole(file: StateFile) -> None:
    """A write that takes only a part is gone on with."""
    real = os.write

    class Narrow(Faulty):
        def __getattr__(self, name: str) -> Any:
            return (lambda fd, data: real(fd, data[:7])) if name == "write" else getattr(os, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state_file, "os", Narrow(0, short))
        file.save(to_bytes(state(4)))
    assert file.load(from_bytes)[0] == state(4)


def test_every_torn_file_is_kept_aside(file: StateFile) -> None:
    """Cut anywhere, a file is never taken for a state: the copy before it is used, the torn one is there as .bad."""
    whole = Path(file.path).read_bytes()
    for length in [*range(0, len(whole) - 1, 7), len(whole) - 2]:
        Path(file.path).write_bytes(whole[:length])
        found, source, complaints = file.load(from_bytes)
        assert (found, source) == (state(1), f"{file.path}.1")
        assert len(complaints) == 1
        assert Path(f"{file.path}.bad").read_bytes() == whole[:length]
        assert not os.path.exists(file.path)


def test_every_flipped_byte_is_noticed() -> None:
    """A changed byte is refused, or changes nothing that is read (white space at the end)."""
    whole = to_bytes(state(1))
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x20
        try:
            assert from_bytes(bytes(damaged)) == state(1), position
        except BadState:
            pass


@pytest.mark.parametrize(
    ("data", "word"),
    [(to_bytes(state(1)).replace(b'"version":1', b'"version":2'), "version 2"),
     (to_bytes(state(1)).replace(FORMAT.encode(), b"other"), "not a state file"),
     (to_bytes(state(1)).replace(b"api-1", b"api-9"), "checksum"),
     (b"", "torn"), (b"\xff\xfe", "torn"), (b"[" * 100_000, "torn"), (b"{}", "torn")],
)
def test_what_is_wrong_is_said(file: StateFile, data: bytes, word: str) -> None:
    """A newer version, another program's file, a changed one: the complaint says which, and where it is kept."""
    Path(file.path).write_bytes(data)
    _, source, (complaint,) = file.load(from_bytes)
    assert word in complaint
    assert complaint.endswith(f"kept as {file.path}.bad")
    assert source == f"{file.path}.1"


def test_both_broken_is_a_start_from_nothing(file: StateFile) -> None:
    """When the copy before is broken too, nothing is loaded, and both are kept."""
    for name in (file.path, f"{file.path}.1"):
        Path(name).write_bytes(b"?")
    found, source, complaints = file.load(from_bytes)
    assert (found, source, len(complaints)) == (None, "", 2)
    assert os.path.exists(f"{file.path}.bad")
    assert os.path.exists(f"{file.path}.1.bad")


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    """A folder or a FIFO in its place neither stops nor blocks the start."""
    (tmp_path / "folder").mkdir()
    _, _, (complaint,) = StateFile(str(tmp_path / "folder")).load(from_bytes)
    assert "cannot be read" in complaint
    os.mkfifo(tmp_path / "fifo")
    assert StateFile(str(tmp_path / "fifo")).load(from_bytes)[0] is None


def test_a_link_is_not_followed(file: StateFile, tmp_path: Path) -> None:
    """A link put in place of the temporary file does not lead a save astray."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    os.symlink(victim, f"{file.path}.tmp")
    file.save(to_bytes(state(3)))
    assert victim.read_text() == "mine"
    assert file.load(from_bytes)[0] == state(3)


def test_one_gateway_at_a_time(file: StateFile) -> None:
    """A path that another process saves to is refused until that one lets it go."""
    reader, writer = os.pipe()
    asked, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"1" if StateFile(file.path).lock() else b"0")
        os.read(asked, 1)
        os._exit(0)
    assert os.read(reader, 1) == b"1"
    assert not file.lock()
    os.write(tell, b"x")
    os.waitpid(child, 0)
    assert file.lock()
    assert file.lock()
    for descriptor in (reader, writer, asked, tell):
        os.close(descriptor)
