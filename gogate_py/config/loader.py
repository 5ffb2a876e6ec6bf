"""File or text → Config, or every problem of it at once.

Three steps: the reader builds the classes of schema.py from nodes (unknown keys, wrong shapes, bad values, inheritance,
environment), resolving.py fills in what follows (the contents of files that are named, too), then checks.py looks at
rules between fields. A value that cannot be read is replaced by its default, so that the rest is still looked at.
What ``gogate check`` says beyond problems (advice.py) costs nothing at a start.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path as FilePath

import attrs

from gogate_py.config.advice import advise
from gogate_py.config.checks import check
from gogate_py.config.positions import compose, is_null
from gogate_py.config.problems import Findings, Problem
from gogate_py.config.reader import Reader
from gogate_py.config.resolving import resolve
from gogate_py.config.schema import Config
from gogate_py.errors import ConfigError, StartError

#: No configuration is as large; a device or a log given by mistake is not read into memory.
MAX_FILE_SIZE = 16 << 20


@attrs.frozen
class Examined:
    """What ``gogate check`` finds. ``config`` is None when there are problems; advice there is only without them, and
    more of it may be added to ``findings``."""

    config: Config | None
    problems: list[Problem]
    findings: Findings

    @property
    def advice(self) -> list[Problem]:
        """Warnings and notes, in the file's order."""
        return self.findings.sorted_advice()


def load_file(path: str, environ: Mapping[str, str] = os.environ) -> Config:
    """Read and check a file.

    Raises StartError when it cannot be read, ConfigError with every :class:`~gogate_py.config.problems.Problem` when it
    is not a configuration that can run.
    """
    return load_text(read_text(path), path, environ)


def examine_file(path: str, environ: Mapping[str, str] = os.environ) -> Examined:
    """Read, check and judge a file. Raises StartError when it cannot be read."""
    try:
        return examine_text(read_text(path), path, environ)
    except ConfigError as error:
        return Examined(None, [one for one in error.problems if isinstance(one, Problem)], Findings(path, ""))


def understood(text: str, file: str) -> tuple[Config, list[Problem]]:
    """What is made of a text, problems or not, for comparing it with another spelling of it: the configuration and the
    problems, without their columns. The environment is left out: it would hide differences behind what it overrides."""
    config, findings = _load(text, file, {})
    return config, [
        attrs.evolve(problem, column=0, end_column=0, source_line="") for problem in findings.sorted_problems()]


def read_text(path: str) -> str:
    """The text of a configuration file. Raises StartError, and ConfigError for one that is not UTF-8."""
    return decoded(read_bytes(path), path)


def read_bytes(path: str) -> bytes:
    """What a configuration file holds. Raises StartError."""
    try:
        with FilePath(path).open("rb") as file:
            data = file.read(MAX_FILE_SIZE + 1)
    except OSError as error:
        raise StartError(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > MAX_FILE_SIZE:
        raise StartError(f"cannot read {path}: larger than {MAX_FILE_SIZE >> 20} MiB")
    return data


def decoded(data: bytes, path: str) -> str:
    """The text of a configuration file, without a byte order mark. Raises ConfigError where it is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        findings = Findings(path, data.decode("utf-8", "replace"))
        column = len(before) - (before.rfind("\n") + 1) + 1
        findings.add_at(
            before.count("\n") + 1, column, (), f"not UTF-8: byte 0x{data[error.start]:02x}", code="GG001")
        raise ConfigError(list(findings.sorted_problems())) from error


def load_text(text: str, file: str, environ: Mapping[str, str] = os.environ) -> Config:
    """Read and check a text; ``file`` is the name that problems carry, and its folder that of the files which the text
    names. Raises ConfigError."""
    config, findings = _load(text, file, environ)
    problems = findings.sorted_problems()
    if problems:
        raise ConfigError(list(problems), findings.files)
    return config


def examine_text(text: str, file: str, environ: Mapping[str, str] = os.environ) -> Examined:
    """Read, check and judge a text."""
    config, findings = _load(text, file, environ)
    problems = findings.sorted_problems()
    if problems:
        return Examined(None, problems, findings)
    advise(config, findings)
    return Examined(config, [], findings)


def _load(text: str, file: str, environ: Mapping[str, str]) -> tuple[Config, Findings]:
    findings = Findings(file, text)
    findings.code = "GG001"
    root = compose(text, findings)
    if findings.sorted_problems():
        return Config(), findings
    if root is None or is_null(root):
        findings.add_at(1, 1, (), "the file is empty; at least server: with a listener is needed")
        return Config(), findings
    findings.code = "GG003"
    config = Reader(findings, environ).read(root)
    findings.code = "GG004"
    config = resolve(config, findings, FilePath(file).parent)
    check(config, findings)
    return config, findings
