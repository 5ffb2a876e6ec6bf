"""The floors of the HTTP parsers."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from gogate_py.errors import StartError
from gogate_py.process.parsers import FLOORS, check_parsers, version_of


def test_the_installed_parsers_will_do() -> None:
    """What this suite runs with is what gogate may be started with."""
    check_parsers()


@pytest.mark.parametrize(("name", "version"), [("httptools", "0.6.4"), ("h11", "0.14.0"), ("h11", "0.15")])
def test_an_old_parser_ends_the_start(name: str, version: str) -> None:
    """One line names it, the version needed and the command (SECURITY.md section 4)."""
    versions = dict.fromkeys(FLOORS, "9.9") | {name: version}
    with pytest.raises(StartError, match=f"{name} {version} is too old to be safe; pip install"):
        check_parsers(versions)


@pytest.mark.parametrize("version", ["0.9.0", "0.10.1", "1.0rc1", "0.16.0"])
def test_newer_ones_pass(version: str) -> None:
    """Versions are numbers: 0.10 is newer than 0.9."""
    check_parsers({"httptools": version, "h11": "0.16.1"})


def test_the_version_is_what_the_package_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read from the package, and from its metadata where the package says it otherwise."""
    for name in FLOORS:
        assert version_of(name) == metadata.version(name)
    for text in ("", "__version__ = get_version()\n"):
        package = tmp_path / "httptools"
        package.mkdir(exist_ok=True)
        (package / "__init__.py").touch()
        (package / "_version.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "httptools", raising=False)
        assert version_of("httptools") == metadata.version("httptools")
    (tmp_path / "httptools" / "_version.py").write_text('# x\n__version__ = "0.6.1+dev"\n')
    assert version_of("httptools") == "0.6.1+dev"
