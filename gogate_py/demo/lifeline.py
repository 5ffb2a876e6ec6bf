"""Ties a process to the one that started it, so that a demo that is killed (even with SIGKILL) leaves nothing behind.

Linux only (prctl(2), PR_SET_PDEATHSIG); elsewhere nothing happens. The kernel sends the signal when the *thread* that
forked us ends: who starts such a process must do it from its main thread.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
# Looked up at import: between fork and exec there must be no import and no dlopen.
_PRCTL = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None


def end_with_parent(parent: int | None = None) -> None:
    """Have the kernel send us SIGTERM when our parent dies; it survives exec.

    ``parent`` is the pid that the caller knows as its parent: when that one is gone already, we end at once.
    """
    if _PRCTL is None:
        return
    _PRCTL(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os._exit(1)
