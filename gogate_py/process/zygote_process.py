"""Zygote process: the supervisor's end of its zygote, a fresh interpreter and the socket to it.

The first one is started before the configuration is read (cli/run): a machine with a second core imports the data plane
while this process reads the configuration and imports the control plane. So this module itself imports next to nothing.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import gogate_py
from gogate_py.clock import monotonic


class ZygoteProcess:
    """A running zygote. ``sock`` carries what zygote.py describes; ``started``: monotonic seconds."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        # The package's own place first: also when gogate runs from a source tree that is not installed.
        path = os.pathsep.join([str(Path(gogate_py.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]).rstrip(
            os.pathsep
        )
        # What overrides the configuration, and what an older gogate says to us, is no business of the data plane.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GOGATE_")}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "gogate_py.process.zygote", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**environment, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
            )
        self.sock = ours
        self.started = monotonic()

    def end(self, patience: float) -> int:
        """Let it end, and kill it when it has not within so many seconds; → its status."""
        self.sock.close()
        try:
            return self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
