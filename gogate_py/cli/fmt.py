"""``gogate fmt``: a configuration file in its canonical spelling (config/canonical.py says what that changes)."""

from __future__ import annotations

import codecs
import contextlib
import difflib
import os
import re
import stat
import sys
import tempfile

import click

from gogate_py.cli.help import examples
from gogate_py.config.canonical import NotTheSame, canonical
from gogate_py.config.loader import decoded, read_bytes
from gogate_py.config.problems import Problem
from gogate_py.errors import ConfigError, StartError


@click.command("fmt", epilog=examples(
    "gogate fmt --diff config.yaml     what would change",
    "gogate fmt -w config.yaml         change it",
))  # fmt: skip
@click.argument("file", type=click.Path(), metavar="FILE")
@click.option("-w", "--write", is_flag=True, help="Write the result to the file, in one step.")
@click.option("--diff", is_flag=True, help="Print what changes.")
@click.option("--check", is_flag=True, help="Print nothing and write nothing; exit code 1 if something would change.")
def fmt(file: str, write: bool, diff: bool, check: bool) -> None:
    """Write a configuration in its canonical spelling, with comments, order, quotes and blank lines as they are.

    Without an option the result is printed. It means the same: it is loaded and compared first.

    Exit code 0: fine. 1: the file cannot be read or written, or is not YAML; with --check also: something would change.
    """
    if write and check:
        raise click.UsageError("--check writes nothing: -w cannot be given with it")
    try:
        before = read_bytes(file)
        after = _formatted(before, file)
        if diff:
            _print(_difference(before, after, file))
        if write and after != before:
            _replace(file, before, after)
    except ConfigError as error:
        for problem in error.problems:
            assert isinstance(problem, Problem)
            click.echo(problem.render(), err=True)
        sys.exit(1)
    except (StartError, NotTheSame) as error:
        raise SystemExit(_say(f"{error}" if isinstance(error, StartError) else f"{file}: {error}")) from None
    except OSError as error:
        raise SystemExit(_say(f"cannot write {file}: {error.strerror or error}")) from None
    if not (write or diff or check):
        _print(after)
    if check and after != before:
        sys.exit(1)


def _say(message: str) -> int:
    click.echo(f"gogate: {message}", err=True)
    return 1


def _formatted(data: bytes, file: str) -> bytes:
    """The canonical spelling, with the byte order mark that was there."""
    mark = codecs.BOM_UTF8 if data.startswith(codecs.BOM_UTF8) else b""
    return mark + canonical(decoded(data, file), file).encode()


def _print(data: bytes) -> None:
    """To standard output, with line ends as they are."""
    click.echo(data, nl=False)


def _difference(before: bytes, after: bytes, file: str) -> bytes:
    """A diff that patch takes."""
    old, new = (re.findall(r"[^\n]*\n|[^\n]+", decoded(data, file)) for data in (before, after))
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        for line in difflib.unified_diff(old, new, file, file)).encode()


def _replace(file: str, before: bytes, after: bytes) -> None:
    """Write the file that a name leads to, whole or not at all. Raises OSError, StartError."""
    path = os.path.realpath(file)
    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode):
        raise StartError(f"cannot write {file}: not a regular file")
    if not os.access(path, os.W_OK):
        raise StartError(f"cannot write {file}: it is read-only")
    folder = os.path.dirname(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=folder)
    try:
        with open(descriptor, "wb") as out:
            out.write(after)
            if about.st_uid != os.geteuid() or about.st_gid != os.getegid():
                os.fchown(out.fileno(), about.st_uid, about.st_gid)
            # After the owner: a change of it takes bits away.
            os.fchmod(out.fileno(), stat.S_IMODE(about.st_mode))
            out.flush()
            os.fsync(out.fileno())
        if read_bytes(path) != before:
            raise StartError(f"{file} was changed meanwhile: nothing was written")
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    with contextlib.suppress(OSError):  # a file system that cannot sync a folder has written it all the same
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
