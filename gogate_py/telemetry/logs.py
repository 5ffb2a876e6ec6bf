"""Logs: the program's own lines and the way of all lines to their target.

Lines are made where things happen (stdlib logging in the program, access_line on the hot path) and written by
threads of the supervisor, so that a slow or full target never holds up an event loop: queues are bounded, what does
not fit is dropped and counted (SECURITY.md F12). Workers send their lines to the supervisor in batches.

One JSON object (or one logfmt text line) a line, always: controls, quotes and non-ASCII characters are escaped.

Event names (``msg``) of the program are listed where they are logged; fields are given as ``extra``.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, Final

import msgspec

from gogate_py.clock import monotonic
from gogate_py.telemetry.access_line import quoted, time_text

#: Lines of each kind that may wait for their target.
MAX_LINES: Final = 10_000

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({})).keys()) | {"message", "asctime", "taskName"}


class LineFormatter(logging.Formatter):
    """A log record as one line."""

    def __init__(self, log_format: str, add_source: bool = False) -> None:
        super().__init__()
        self._json = log_format == "json"
        self._add_source = add_source

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": time_text(),
            "level": "WARN" if record.levelno == logging.WARNING else record.levelname,
            "msg": record.getMessage(),
            "logger": record.name,
        }
        fields.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        if self._add_source:
            fields["source"] = f"{os.path.basename(record.pathname)}:{record.lineno}"
        if record.exc_info and record.exc_info[1] is not None:
            fields["error"] = repr(record.exc_info[1])
            fields["stack"] = "".join(traceback.format_exception(record.exc_info[1]))
        if self._json:
            text = msgspec.json.encode(fields, enc_hook=str).decode()
            return text if text.isascii() else _escape(text)
        head = f"{fields.pop('time')} {fields.pop('level')} {quoted(fields.pop('msg')).strip(chr(34))}"
        return f"{head} " + " ".join(f"{key}={quoted(str(value))}" for key, value in fields.items())


def _escape(text: str) -> str:
    """Non-ASCII characters of a JSON text as \\uXXXX (pairs above the BMP)."""
    return "".join(
        c if c.isascii() else "".join(f"\\u{unit:04x}" for unit in _utf16(c)) for c in text
    )


def _utf16(character: str) -> list[int]:
    data = character.encode("utf-16-be", "surrogatepass")
    return [data[i] << 8 | data[i + 1] for i in range(0, len(data), 2)]


class _CallHandler(logging.Handler):
    """Hands each finished line to a callable."""

    def __init__(self, deliver: Callable[[bytes, int], object]) -> None:
        super().__init__()
        self._deliver = deliver

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._deliver(self.format(record).encode() + b"\n", 1)
        except Exception:  # logging must never raise into what it reports on
            self.handleError(record)


def _install(deliver: Callable[[bytes, int], object], level: str, log_format: str, add_source: bool) -> None:
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    handler = _CallHandler(deliver)
    handler.setFormatter(LineFormatter(log_format, add_source))
    root.addHandler(handler)
    root.setLevel(logging.WARNING)  # libraries
    logging.getLogger("gogate").setLevel(level.upper())
    logging.raiseExceptions = False


def set_up_worker(deliver: Callable[[bytes, int], object], slot: int) -> None:
    """Send this worker's own lines to the supervisor; JSON and level info until a snapshot says otherwise."""

    def with_slot(record: logging.LogRecord) -> bool:
        record.worker = slot
        return True

    _install(deliver, "info", "json", False)
    logging.getLogger().handlers[0].addFilter(with_slot)


def set_format(level: str, log_format: str) -> None:
    """Take over a snapshot's level and format."""
    logging.getLogger("gogate").setLevel(level.upper())
    logging.getLogger().handlers[0].setFormatter(LineFormatter(log_format))


class LogWriter:
    """Writes lines to their targets: "-" (stdout for access lines, stderr for the program's own) or a file path.

    A target that blocks, fails or is full costs the lines that were for it: they are dropped and counted, and nobody
    waits; access lines and the program's own do not hold up each other. A file that was moved away (logrotate) is
    opened anew with the next batch.
    """

    def __init__(self, access_path: str = "-") -> None:
        self._access_path = access_path
        self._own = _Lane("gogate-log")
        # Two threads that write batches to one pipe would break each other's lines: then one does all.
        self._access = self._own if access_path == "-" and _same_file(1, 2) else _Lane("gogate-access-log")

    def retarget(self, access_path: str) -> None:
        """Write access lines there from now on."""
        if access_path == self._access_path:
            return
        self._access_path = access_path
        if access_path == "-" and _same_file(1, 2):
            self._access = self._own
        elif self._access is self._own:
            self._access = _Lane("gogate-access-log")

    def access(self, lines: bytes, count: int) -> None:
        """Queue access lines; never waits."""
        self._access.put(self._access_path, lines, count)

    def own(self, lines: bytes, count: int) -> None:
        """Queue the program's own lines (stderr); never waits."""
        self._own.put("", lines, count)

    def take_dropped(self) -> int:
        """Lines dropped since the last call."""
        return sum(lane.take_dropped() for lane in {self._access, self._own})

    def close(self, timeout: float = 2.0) -> None:
        """Write what is queued, for at most ``timeout`` seconds."""
        lanes = {self._access, self._own}
        for lane in lanes:
            lane.end()
        give_up = monotonic() + timeout
        for lane in lanes:
            lane.join(max(0.0, give_up - monotonic()))


class _Lane:
    """One thread with its queue of at most MAX_LINES lines, and the files it has open."""

    def __init__(self, name: str) -> None:
        self._queue: queue.SimpleQueue[tuple[str, bytes, int] | None] = queue.SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        self._dropped = 0
        self._files: dict[str, tuple[int, tuple[int, int]]] = {}
        self._torn: set[str] = set()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, target: str, lines: bytes, count: int) -> None:
        """Queue lines, or drop them all when they are too many."""
        with self._lock:
            if self._waiting + count > MAX_LINES:
                self._dropped += count
                return
            self._waiting += count
        self._queue.put((target, lines, count))

    def take_dropped(self) -> int:
        """Lines dropped since the last call."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        return dropped

    def end(self) -> None:
        """Stop behind what is queued."""
        self._queue.put(None)

    def join(self, timeout: float) -> None:
        """Wait for the thread to stop."""
        self._thread.join(timeout)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            target, lines, count = item
            written = self._write(target, lines)
            with self._lock:
                self._waiting -= count
                if not written:
                    self._dropped += count

    def _write(self, target: str, lines: bytes) -> bool:
        if target in self._torn:
            lines = b"\n" + lines  # a batch broke off within a line (disk full): that line is lost, the next is not
        left = memoryview(lines)
        try:
            fd = self._fd(target)
            while left:
                left = left[os.write(fd, left) :]
        except OSError:
            if len(left) < len(lines):
                self._torn.add(target)
            return False
        self._torn.discard(target)
        return True

    def _fd(self, target: str) -> int:
        if target == "":
            return 2
        if target == "-":
            return 1
        known = self._files.get(target)
        try:
            info = os.stat(target)
            identity = (info.st_dev, info.st_ino)
        except OSError:
            identity = (0, 0)
        if known is not None:
            if known[1] == identity:
                return known[0]
            os.close(known[0])
            del self._files[target]
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        info = os.fstat(fd)
        self._files[target] = (fd, (info.st_dev, info.st_ino))
        return fd


def _same_file(one: int, other: int) -> bool:
    """Whether two descriptors are of the same file, pipe or terminal."""
    try:
        return os.path.sameopenfile(one, other)
    except OSError:  # one of them is closed
        return False


def set_up_supervisor(writer: LogWriter, level: str, log_format: str, add_source: bool) -> None:
    """Send the supervisor's own lines to the writer."""
    _install(writer.own, level, log_format, add_source)


def plain_stderr(text: str) -> None:
    """A message for whoever started the program, before or beside the logs."""
    print(text, file=sys.stderr, flush=True)
