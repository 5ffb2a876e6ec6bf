"""A gateway whose program is a copy of ours on disk, which tests change and upgrade to; whoever of the line of gateways
is left at the end is ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from doubles.gateway import ROOT, Gateway, wait_for

SERVES = "the new gogate serves; this one finishes what runs"
ENDED = "the gogate before this one has ended"
FAILED = "upgrade failed; this gogate goes on"


class Upgrading(Gateway):
    """``limit``: the seconds that the first gateway gives another one; orphans of that have as long. ``edits``: what is
    changed in the program before it starts, file → (text, its replacement)."""

    def __init__(
        self, config: str, *, limit: int = 0, edits: Mapping[str, tuple[str, str]] | None = None, **options: Any
    ) -> None:
        self._program = tempfile.TemporaryDirectory(prefix="gogate-program-")
        self.folder = Path(self._program.name)
        shutil.copytree(
            ROOT / "gogate_py", self.folder / "gogate_py", ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        if limit:
            self.edit("process/upgrade.py", "LIMIT: Final = 30.0", f"LIMIT: Final = {limit}.0")
            self.edit("process/channel.py", "ORPHAN_GRACE: Final = 30.0", f"ORPHAN_GRACE: Final = {limit}.0")
        for name, (before, after) in (edits or {}).items():
            self.edit(name, before, after)
        env = {**options.pop("env", {}), "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        super().__init__(config, env=env, **options)

    def edit(self, name: str, before: str, after: str) -> None:
        """Change the program on disk."""
        path = self.folder / "gogate_py" / name
        text = path.read_text()
        assert text.count(before) == 1, (name, before)
        path.write_text(text.replace(before, after))

    @property
    def line(self) -> list[int]:
        """The processes of all gateways that ever were ready, in order."""
        return [line["pid"] for line in self.logged("gogate is ready")]

    def begin_upgrade(self) -> None:
        """Ask the newest gateway for an upgrade."""
        os.kill(self.newest, signal.SIGUSR2)

    @property
    def newest(self) -> int:
        """The gateway that serves."""
        return next(pid for pid in reversed(self.line) if not gone(pid))

    def upgrade(self, *, until_gone: bool = True, limit: float = 30.0) -> int:
        """Upgrade the newest gateway; → the pid of the new one, when it serves (within ``limit`` seconds), and when the
        old one is gone."""
        old = self.newest
        count = len(self.line)
        self.begin_upgrade()
        wait_for(lambda: len(self.line) > count, limit, lambda: f"the new gateway: {self.log[-9:]} {self.broken}")
        new = self.line[-1]
        wait_for(lambda: any(one["old_pid"] == old for one in self.logged(SERVES)), what="the change")
        self.wait_ready()
        if until_gone:
            wait_for(lambda: gone(old), 20.0, "the end of the old one")
            wait_for(lambda: any(one["pid"] == new for one in self.logged(ENDED)), what="the new one to know it")
        return new

    def wait_ready(self) -> None:
        """Take the addresses from the newest ready line."""
        if len(self.line) <= 1:
            super().wait_ready()
            return
        line = self.logged("gogate is ready")[-1]
        self.listeners = {name: self._local(address) for name, address in line["listeners"].items()}
        self.admin = self._local(line["admin"].get("admin", ""))

    def end(self) -> None:
        """End the newest one, as a service manager would."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.newest, signal.SIGTERM)
        wait_for(lambda: all(map(gone, self.line)), 20.0, "the end of the last one")

    def __exit__(self, *exc: object) -> None:
        for pid in self.line:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        for pid in self.line:
            if pid != self.process.pid:
                with contextlib.suppress(AssertionError):
                    wait_for(lambda pid=pid: gone(pid), 10.0)
                if not gone(pid):
                    os.kill(pid, signal.SIGKILL)
        super().__exit__(*exc)
        self._program.cleanup()


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
