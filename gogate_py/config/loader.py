"""File or text → Config, or every problem of it at once.

Three steps: the reader builds the classes of schema.py from nodes (unknown keys, wrong shapes, bad values, inheritance,
environment), resolving.py fills in what follows (the contents of files that are named, too), then checks.py looks at
rules between fields. A value that cannot be read is replaced by its default, so that the rest is still looked at.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path as FilePath

from gogate_py.config.checks import check
from gogate_py.config.positions import compose, is_null
from gogate_py.config.problems import Findings
from gogate_py.config.reader import Reader
from gogate_py.config.resolving import resolve
from gogate_py.config.schema import Config
from gogate_py.errors import ConfigError, StartError

#: No configuration is as large; a device or a log given by mistake is not read into memory.
MAX_FILE_SIZE = 16 << 20


def load_file(path: str, environ: Mapping[str, str] = os.environ) -> Config:
    """Read and check a file.

    Raises StartError when it cannot be read, ConfigError with every :class:`~gogate_py.config.problems.Problem` when it
    is not a configuration that can run.
    """
    try:
        with FilePath(path).open("rb") as file:
            data = file.read(MAX_FILE_SIZE + 1)
    except OSError as error:
        raise StartError(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > MAX_FILE_SIZE:
        raise StartError(f"cannot read {path}: larger than {MAX_FILE_SIZE >> 20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        findings = Findings(path, data.decode("utf-8", "replace"))
        column = len(before) - (before.rfind("\n") + 1) + 1
        findings.add_at(before.count("\n") + 1, column, (), f"not UTF-8: byte 0x{data[error.start]:02x}")
        raise ConfigError(list(findings.sorted_problems())) from error
    return load_text(text, path, environ)


def load_text(text: str, file: str, environ: Mapping[str, str] = os.environ) -> Config:
    """Read and check a text; ``file`` is the name that problems carry, and its folder that of the files which the text
    names. Raises ConfigError."""
    findings = Findings(file, text)
    config = Config()
    root = compose(text, findings)
    if not findings.sorted_problems():
        if root is None or is_null(root):
            findings.add_at(1, 1, (), "the file is empty; at least server: with a listener is needed")
        else:
            config = resolve(Reader(findings, environ).read(root), findings, FilePath(file).parent)
            check(config, findings)
    problems = findings.sorted_problems()
    if problems:
        raise ConfigError(list(problems))
    return config
