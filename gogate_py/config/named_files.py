"""The files that a configuration names: read once at load, remembered with what tells their contents apart, so that
whoever watches them notices any change since.

The only module of the configuration that reads files besides the loader.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path as FilePath
from typing import Final

from gogate_py.config.problems import Findings, Path

#: No file of keys or users is as large; a device or a log given by mistake is not read into memory.
MAX_FILE_SIZE: Final = 16 << 20

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class NamedFiles:
    """The files of one configuration; names are relative to its folder."""

    def __init__(self, folder: FilePath, findings: Findings) -> None:
        self.folder = folder
        self._findings = findings
        #: Path → digest of what was read, b"" for what could not be.
        self.digests: dict[str, bytes] = findings.files

    def read(self, name: str, path: Path) -> str:
        """The text of the file that the value of ``path`` names; "" for none, and for one that cannot be read, which is
        a problem."""
        if not name or not self._findings.was_read(path):
            return ""
        file = self.folder / name
        self.digests[str(file)] = b""
        try:
            data = read_bytes(str(file))
            self.digests[str(file)] = digest(data)
            if len(data) > MAX_FILE_SIZE:
                problem = f"is larger than {MAX_FILE_SIZE >> 20} MiB"
            else:
                text = data.decode("utf-8-sig")
                strange = _CONTROL.search(text)
                if strange is None:
                    return text
                problem = f"is not a text file: it has the character U+{ord(strange[0]):04X}"
        except OSError as error:
            problem = f"cannot be read: {error.strerror or error}"
        except UnicodeDecodeError:
            problem = "is not a text file: not UTF-8"
        self._findings.spoil(path)
        self._findings.add(path, f"{file} {problem}")
        return ""

    def open_to_others(self, name: str) -> bool:
        """Whether everybody on this machine may read a file."""
        try:
            return bool(os.stat(self.folder / name).st_mode & stat.S_IROTH)
        except OSError:
            return False


def read_bytes(path: str) -> bytes:
    """The content of a file, as far as one may be long. Raises OSError."""
    with open(path, "rb") as file:
        return file.read(MAX_FILE_SIZE + 1)


def digest(data: bytes) -> bytes:
    """What tells contents apart."""
    return hashlib.sha256(data).digest()
