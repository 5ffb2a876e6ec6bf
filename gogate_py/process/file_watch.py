"""File watch: notices that the configuration file, or a file that it names, may have changed, whoever changed it and
how. Certificates and keys are renewed without anybody touching the configuration.

    an editor writes it in place             a change of the file
    an editor writes a new one and renames   a change in its folder
    a Kubernetes ConfigMap or Secret is      the link ..data, on the way to the real file, is swapped
    updated
    a network file system, a bind mount      no event at all: looked at every POLL seconds

Events come from watchdog (inotify) in a thread, for every folder on the way from a file's name to the real file;
those of other files in them are passed over. What is left means only "look": after DEBOUNCE quiet seconds, at the
latest after PATIENCE, ``on_change`` is called if the content of some file is another one. Whether the configuration is
another one is the reloader's to say.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from gogate_py.config.named_files import digest, read_bytes

log = logging.getLogger("gogate.reload")

#: Seconds without further events before the file is read: editors write in several steps.
DEBOUNCE: Final = 0.2
#: Somebody who writes it all the time does not keep it from being read, seconds.
PATIENCE: Final = 2.0
POLL: Final = 5.0


class _Handler(FileSystemEventHandler):
    """Calls ``wake`` when something happens to one of these paths (in watchdog's thread)."""

    def __init__(self, paths: frozenset[str], wake: Callable[[], object]) -> None:
        self._paths = paths
        self._wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Anything but reading."""
        if event.event_type in ("opened", "closed_no_write"):
            return
        if self._paths & {os.fsdecode(event.src_path), os.fsdecode(event.dest_path)}:
            self._wake()


class FileWatch:
    """Watches one file, and those that ``follow`` names. ``start``, ``follow`` and ``stop`` in the event loop;
    ``on_change`` is called there. ``events``: False leaves it at looking every POLL seconds."""

    def __init__(self, path: str, on_change: Callable[[], None], *, events: bool = True) -> None:
        self._path = path
        self._on_change = on_change
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._digests = {path: _digest(path)}
        self._watched: tuple[frozenset[str], frozenset[tuple[str, int]]] | None = None
        self._observer: Any = None
        self._quiet: asyncio.TimerHandle | None = None
        self._first_touch = 0.0
        self._poll: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._watch_places()
        self._poll = self._loop.call_later(POLL, self._polled)

    def follow(self, files: Mapping[str, bytes | None]) -> None:
        """Watch these files besides, and no others any more: path → digest of what was read of it, None where that is
        not known."""
        known = self._digests
        own = {self._path: known[self._path]}
        self._digests = own | {
            path: known.get(path, b"") if read is None else read
            for path, read in files.items() if path != self._path}
        if self._poll is not None:
            self._watch_places()

    def stop(self) -> None:
        """End it."""
        for timer in (self._quiet, self._poll):
            if timer is not None:
                timer.cancel()
        self._stop_observer()

    def _stop_observer(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.stop()

    def _watch_places(self) -> None:
        """Watch every name on the way to the real files; they may be others after a change, and so may their folders.
        """
        paths = frozenset().union(*map(places_of, self._digests))
        folders = frozenset((folder, _inode(folder)) for folder in {os.path.dirname(path) for path in paths})
        if not self._events or (paths, folders) == self._watched:
            return
        self._stop_observer()
        self._watched = (paths, folders)
        observer = Observer()
        try:
            handler = _Handler(paths, self._wake)
            for folder, inode in sorted(folders):
                if inode:
                    observer.schedule(handler, folder)
            observer.daemon = True
            observer.start()
        except OSError as error:  # no inotify left, or a folder is gone: looking now and then goes on
            log.warning("the configuration is looked at every few seconds only", extra={"error": str(error)})
            observer.unschedule_all()
        else:
            self._observer = observer
        self._touched()  # what happened since the files were read, while nobody watched here, sent no event

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._touched)
        except RuntimeError:
            pass  # the loop is closed: the process ends

    def _touched(self) -> None:
        now = self._loop.time()
        if self._quiet is None:
            self._first_touch = now
        else:
            self._quiet.cancel()
        self._quiet = self._loop.call_at(min(now + DEBOUNCE, self._first_touch + PATIENCE), self._look)

    def _polled(self) -> None:
        self._poll = self._loop.call_later(POLL, self._polled)
        if self._quiet is None:
            self._look()

    def _look(self) -> None:
        self._quiet = None
        self._watch_places()
        found = {path: _digest(path) for path in self._digests}
        # A file that is gone for the moment is being replaced, or will be missed by the next start: not a change.
        changed = {path: seen for path, seen in found.items() if seen and seen != self._digests[path]}
        if changed:
            self._digests |= changed
            self._on_change()


def places_of(path: str) -> frozenset[str]:
    """The names whose change may change what a path leads to: its own, that of every link on the way, and those of what
    the links point to."""
    places: set[str] = set()
    waiting = [Path(os.path.abspath(path))]
    while waiting:
        one = waiting.pop()
        if str(one) in places:
            continue
        places.add(str(one))
        for part in (one, *one.parents):
            if part.is_symlink():
                places.add(str(part))
                target = Path(os.path.normpath(part.parent / os.readlink(part)))
                waiting.append(target / one.relative_to(part))
    return frozenset(places)


def _inode(folder: str) -> int:
    """What tells a folder from another one of its name; 0 when it is not there."""
    try:
        return os.stat(folder).st_ino
    except OSError:
        return 0


def _digest(path: str) -> bytes:
    """What tells contents apart; b"" when the file cannot be read."""
    try:
        return digest(read_bytes(path))
    except OSError:
        return b""
