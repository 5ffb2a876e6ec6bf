"""The structure that DESIGN.md and README.dev.md promise, read from the imports themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gogate_py"

#: folder → what it may import of gogate_py besides itself and the modules that everybody may
ALLOWED = {
    "wire": set(),
    "policy": {"wire", "snapshot"},
    "middleware": {"policy", "wire", "snapshot"},
    "config": {"middleware", "policy", "snapshot"},
    "dataplane": {"middleware", "policy", "wire", "snapshot", "telemetry"},
    "controlplane": {"config", "middleware", "policy", "wire", "snapshot", "telemetry"},
    "process": {"config", "controlplane", "dataplane", "middleware", "policy", "snapshot", "telemetry"},
    "telemetry": {"snapshot"},
}
EVERYBODY = {
    "__init__", "__version__", "addresses", "arena", "backend_tls", "clock", "errors", "listener_tls", "messages"
}  # fmt: skip
#: sans-io: no event loop, no socket, no clock, no log
NO_IO = {"asyncio", "socket", "select", "time", "logging", "threading", "ssl", "uvloop"}


def imports_of(path: Path) -> set[str]:
    """Dotted names of everything a module imports at run time (TYPE_CHECKING blocks are left out)."""
    tree = ast.parse(path.read_text())
    found: set[str] = set()
    skip: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skip.update(id(inner) for inner in ast.walk(node))
    for node in ast.walk(tree):
        if id(node) in skip:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names if node.module == "gogate_py")
    return found


def modules() -> list[Path]:
    """Every module in one of the layered folders."""
    return sorted(path for folder in ALLOWED for path in (PACKAGE / folder).rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    """A layer imports only the layers below it."""
    layer = path.relative_to(PACKAGE).parts[0]
    for name in imports_of(path):
        if name.startswith("gogate_py."):
            target = name.split(".")[1]
            assert target == layer or target in EVERYBODY or target in ALLOWED[layer], f"{path.name} imports {name}"


@pytest.mark.parametrize("folder", ["wire", "policy"])
def test_wire_and_policy_do_no_io(folder: str) -> None:
    """Bytes to meaning, and decisions, know no event loop, socket, clock or log."""
    for path in (PACKAGE / folder).rglob("*.py"):
        roots = {name.split(".")[0] for name in imports_of(path)}
        assert not roots & NO_IO, f"{path.name} imports {roots & NO_IO}"


def loaded_by(module: str, heavy: tuple[str, ...]) -> str:
    """Which of these a fresh interpreter has after it imported a module, as a list's text."""
    program = f"import sys, {module}\nprint([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )
    return result.stdout.strip()


def test_workers_do_not_load_what_only_the_control_plane_needs() -> None:
    """The zygote's modules leave out YAML, click, watchdog, attrs and the web framework (workers stay small)."""
    heavy = ("yaml", "click", "watchdog", "prometheus_client", "starlette", "uvicorn", "attr", "gogate_py.config")
    assert loaded_by("gogate_py.process.worker", heavy) == "[]"


def test_requests_do_not_wait_for_what_serves_no_request() -> None:
    """The supervisor starts its workers before it loads the web framework and the watcher of files, and never the data
    plane; the zygote is started before anything of the configuration is loaded."""
    heavy = ("starlette", "uvicorn", "prometheus_client", "watchdog", "gogate_py.dataplane.plane")
    assert loaded_by("gogate_py.process.supervisor", (*heavy, "cryptography", "h11", "importlib.metadata")) == "[]"
    assert loaded_by("gogate_py.cli.run", (*heavy, "asyncio", "msgspec", "attr", "yaml", "gogate_py.config")) == "[]"


def test_parsing_code_avoids_python_conveniences_that_accept_too_much() -> None:
    """In wire/: no strip() without arguments, isdigit, splitlines, or int() of unchecked text (SECURITY.md 4)."""
    for path in (PACKAGE / "wire").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                name = node.func.attr
                bare_strip = name in ("strip", "lstrip", "rstrip") and not node.args
                assert not bare_strip, f"{path.name}:{node.lineno}: {name}() strips more than HTTP's white space"
                loose = name in ("isdigit", "isdecimal", "isnumeric", "splitlines")
                assert not loose, f"{path.name}:{node.lineno}: {name}"
