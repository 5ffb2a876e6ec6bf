"""What make dist makes: an sdist, and a wheel of that sdist, that install and run where nothing of this checkout is.

Short form: installed without its dependencies, which are taken from where the tests run. GOGATE_SOAK=1: with its
dependencies, from PyPI, the wheel as well as the sdist.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from doubles.gateway import ROOT, Gateway

from gogate_py import __version__

pytestmark = pytest.mark.slow

SOAK = bool(os.environ.get("GOGATE_SOAK"))
#: What setuptools may look at; .git and what was built here before are not part of it.
#: Python before 3.11.4 has no such filter.
SAFELY = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
SOURCE = ("pyproject.toml", "setup.cfg", "README.md", "README.dev.md", "LICENSE", "CHANGELOG.md", "config.example.yaml")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from what it contains, as ``python -m build`` does both."""
    folder = tmp_path_factory.mktemp("dist")
    source = folder / "source"
    source.mkdir()
    for name in SOURCE:
        shutil.copy(ROOT / name, source)
    for name in ("gogate_py", "docs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    sdist = folder / build("sdist", source, folder)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", **SAFELY)
    (unpacked,) = (folder / "unpacked").iterdir()
    return sdist, folder / build("wheel", unpacked, folder)


def build(kind: str, source: Path, into: Path) -> str:
    """Ask the build system of pyproject.toml for an sdist or a wheel; → its file name."""
    code = f"import sys; from setuptools import build_meta; print(build_meta.build_{kind}(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(into)]
    done = subprocess.run(command, cwd=source, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def installed(made: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a virtual environment with the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    install(folder, made[1])
    return folder / "bin"


def install(folder: Path, package: Path) -> None:
    """A virtual environment in ``folder`` with a wheel or an sdist."""
    venv.create(folder, with_pip=True, symlinks=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if not SOAK:
        pip += ["--no-deps", "--no-index"]
        (site,) = folder.glob("lib/python*/site-packages")
        # A path in a .pth file comes behind the environment's own packages, and .pth files in it do not count: no
        # editable gogate of the tests' environment can stand in for this one.
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([*pip, package], check=True, cwd=folder, env=environment())


def environment() -> dict[str, str]:
    """The environment without what would lead to this checkout."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH" and not key.startswith("GOGATE_")}


def run(program: Path, *arguments: str) -> str:
    """What an installed program prints, run elsewhere."""
    done = subprocess.run([program, *arguments], cwd=program.parent, env=environment(), check=False,
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_names_and_version(made: tuple[Path, Path]) -> None:
    """The version is the package's; the wheel is for every machine, and its metadata has the README."""
    sdist, wheel = made
    assert (sdist.name, wheel.name) == (f"gogate-{__version__}.tar.gz", f"gogate-{__version__}-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"gogate-{__version__}.dist-info/METADATA").decode()
    assert f"\nVersion: {__version__}\n" in metadata
    assert "A dual-layer proxy and API gateway" in metadata


def test_everything_is_in_it(made: tuple[Path, Path]) -> None:
    """Every module and every file of the package, the documentation and the licence; no tests, no benches."""
    with zipfile.ZipFile(made[1]) as archive:
        names = set(archive.namelist())
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "gogate_py").rglob("*")
               if path.is_file() and "__pycache__" not in path.parts}  # fmt: skip
    assert package <= names
    shared = {name.partition(".data/data/share/doc/gogate/")[2] for name in names if ".data/data/" in name}
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").iterdir()}
    assert shared == pages | {"README.md", "README.dev.md", "CHANGELOG.md", "config.example.yaml"}
    assert not [name for name in names if name.startswith(("tests/", "bench/"))]


def test_the_installed_command(installed: Path) -> None:
    """Version, help that leads to the installed documentation, a check, a completion script."""
    gogate = installed / "gogate"
    assert run(gogate, "--version") == f"gogate {__version__}\n"
    page = Path(re.findall(r"^Documentation: (.*)$", run(gogate, "--help"), re.MULTILINE)[0])
    assert page.is_relative_to(installed.parent)
    links = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text())
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert ": ok" in run(gogate, "check", "-config", str(page.parent.parent / "config.example.yaml"))
    assert "_gogate_completion" in run(gogate, "completion", "bash")


def test_the_installed_gateway(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs, with its dashboard, and ends in order."""
    monkeypatch.setattr(sys, "executable", str(installed / "python"))
    config = "server: {httpListenAddr: '127.0.0.1:0', admin: {listenAddr: '127.0.0.1:0'}, backends: ['127.0.0.1:9']}"
    with Gateway(config, env={"PYTHONPATH": str(installed)}) as gateway:  # a folder without modules
        command = Path(f"/proc/{gateway.process.pid}/cmdline").read_bytes().split(b"\0")[0]
        assert command == str(installed / "python").encode()
        assert gateway.get()[0] == 502
        status, headers, body = gateway.admin_request("GET", "/", headers={"Accept": "text/html"})
        assert (status, headers["content-type"].partition(";")[0]) == (200, "text/html")
        assert b"<title>" in body
        assert gateway.stop(signal.SIGTERM) == 0


@pytest.mark.skipif(not SOAK, reason="builds and downloads: GOGATE_SOAK=1")
def test_the_sdist_installs(made: tuple[Path, Path], tmp_path: Path) -> None:
    """pip builds it in an environment of its own."""
    install(tmp_path, made[0])
    assert run(tmp_path / "bin" / "gogate", "--version") == f"gogate {__version__}\n"
