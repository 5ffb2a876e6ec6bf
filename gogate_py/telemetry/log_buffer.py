"""LogBuffer: lines made on the hot path, carried away in batches.

A worker appends finished lines (bytes, newline included); a batch leaves when FLUSH_LINES are there or at the next
tick. What the batch is handed to is not this module's business; when it cannot take it, the lines are dropped and
counted, never waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FLUSH_LINES: Final = 512


class LogBuffer:
    """Lines of one kind in one worker. ``deliver(lines, count)`` returns whether it took them."""

    __slots__ = ("_deliver", "_lines", "dropped")

    def __init__(self, deliver: Callable[[bytes, int], bool]) -> None:
        self._deliver = deliver
        self._lines: list[bytes] = []
        self.dropped = 0

    def append(self, line: bytes) -> None:
        """Add one line."""
        lines = self._lines
        lines.append(line)
        if len(lines) >= FLUSH_LINES:
            self.flush()

    def flush(self) -> None:
        """Hand over what is there."""
        lines = self._lines
        if lines:
            self._lines = []
            if not self._deliver(b"".join(lines), len(lines)):
                self.dropped += len(lines)
