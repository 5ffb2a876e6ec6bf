"""State file: bytes that survive a crash at any moment, in three names beside each other.

    PATH        the newest copy
    PATH.1      the one before
    PATH.tmp    being written

Saving: write PATH.tmp whole → fsync → rename PATH to PATH.1 → rename PATH.tmp to PATH → fsync the folder. Wherever that
ends (disk full, an error, a kill), a whole copy is left as PATH or PATH.1. Loading: PATH, else PATH.1; what is not
understood is kept aside as PATH.bad (or PATH.1.bad), never overwritten by the next save.

Blocking: for threads, not for the event loop. Knows nothing of what the bytes mean but what ``check`` says.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Final, TypeVar

from gogate_py.errors import GogateError

T = TypeVar("T")

#: A file larger than this is not ours (10 000 instances with all metadata are some 50 MB).
MAX_SIZE: Final = 256 << 20




class StateFile:
    """One path. One gateway at a time saves there (see :meth:`lock`)."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._previous = f"{path}.1"
        self._temporary = f"{path}.tmp"
        self._lock = -1

    def lock(self) -> bool:
        """Take the path for this process, until :meth:`unlock` or its end; False while another process has it.

        Two gateways on one path would overwrite each other's state. A file system without locks is let pass.
        """
        if self._lock >= 0:
            return True
        try:
            self._lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return True  # whatever is wrong there, saving will say it
        try:
            os.lockf(self._lock, os.F_TLOCK, 0)
        except (BlockingIOError, PermissionError):
            self.unlock()
            return False
        except OSError:
            pass
        return True

    def unlock(self) -> None:
        """Let it go."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def save(self, data: bytes) -> None:
        """Make this the newest copy. Raises OSError; then an earlier one is still there."""
        # 0600: metadata of services is nobody else's business. A link that somebody put there is not followed.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary)
        descriptor = os.open(
            self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest):]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.path, self._previous)
        os.replace(self._temporary, self.path)
        self._sync_folder()

    def load(self, check: Callable[[bytes], T]) -> tuple[T | None, str, tuple[str, ...]]:
        """The newest copy that ``check`` takes → (what it made of it, its name, complaints about others).

        (None, "", complaints) when there is none. ``check`` raises GogateError for what it does not understand.
        """
        complaints: list[str] = []
        for name in (self.path, self._previous):
            try:
                data = _read(name)
            except FileNotFoundError:
                continue
            except OSError as error:
                complaints.append(f"{name} cannot be read: {_words(error)}")
                continue
            try:
                return check(data), name, tuple(complaints)
            except GogateError as error:
                complaints.append(f"{name}: {error}; {self._put_aside(name)}")
        return None, "", tuple(complaints)

    def _put_aside(self, name: str) -> str:
        try:
            os.replace(name, f"{name}.bad")
            self._sync_folder()
        except OSError as error:
            return f"it cannot be kept aside: {_words(error)}"
        return f"kept as {name}.bad"

    def _sync_folder(self) -> None:
        descriptor = os.open(os.path.dirname(self.path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read(name: str) -> bytes:
    # O_NONBLOCK: a FIFO in its place must not stop the start.
    with open(os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        data = file.read(MAX_SIZE + 1)
    if len(data) > MAX_SIZE:
        raise OSError("it is larger than any state")
    return data


def _words(error: OSError) -> str:
    return error.strerror or str(error)
