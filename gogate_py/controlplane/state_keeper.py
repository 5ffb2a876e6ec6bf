"""State keeper: reads the state file once at start, and writes it soon after every change, in a thread of its own.

Changes within DELAY make one write; a heartbeat is no change. A write that fails is tried again every RETRY seconds,
said once, and shown as a warning until one succeeds: a full disk costs durability, never service (SECURITY.md F17).
What a crash may lose are the changes of the last DELAY seconds and those a write was under way for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from gogate_py.clock import monotonic
from gogate_py.controlplane.saved_state import SavedState, from_bytes, to_bytes
from gogate_py.controlplane.state_file import StateFile

log = logging.getLogger("gogate.registry")

T = TypeVar("T")

DELAY: Final = 0.2
RETRY: Final = 5.0
#: How long an end waits for the last write, seconds: a disk may hang.
LAST_WRITE: Final = 3.0
#: Collecting 10 000 instances takes some 20 ms of the loop: at most this share of the time goes there.
_SHARE: Final = 20.0


class StateKeeper:
    """``collect`` says what is known now (in the loop); ``count`` counts one write: (ok, failed)."""

    def __init__(self, file: StateFile, collect: Callable[[], SavedState], count: Callable[[str], None]) -> None:
        self._file = file
        self._collect = collect
        self._count = count
        self._delay = DELAY
        self._dirty = False
        self._loaded = False
        self._complaints: tuple[str, ...] = ()
        self._failure = ""
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[bool] | None = None

    def warnings(self) -> list[str]:
        """What is not as it should be: of the start, and of the last write."""
        said = [f"registry store: {one}" for one in self._complaints]
        return [*said, f"registry store: not saved: {self._failure}"] if self._failure else said

    async def load(self) -> SavedState | None:
        """What the gateway before this one knew; None when there is nothing that can be used."""
        state, source, complaints = await _in_thread(lambda: self._file.load(from_bytes))
        if complaints:
            begun = f"started from {source}" if state is not None else "started empty"
            self._complaints = (*complaints, begun)
            log.error("the registry's store is damaged", extra={"error": "; ".join(complaints), "result": begun})
        elif state is not None:
            log.info("registry was read", extra={"file": source, "instances": len(state.instances)})
        self._loaded = True
        return state

    def begin(self) -> None:
        """Keep the file from here on without having read it: what it should have came from a running gateway."""
        if not self._loaded:
            self._loaded = True
            self.changed()

    def changed(self) -> None:
        """Something that is saved is another than it was."""
        if not self._loaded:
            return  # what is taken back from the file is in the file
        self._dirty = True
        if self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(self._delay, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._writing = asyncio.get_running_loop().create_task(self._write())
        self._writing.add_done_callback(self._written)

    def _written(self, task: asyncio.Task[bool]) -> None:
        self._writing = None
        if task.cancelled():
            return
        if not task.result():
            self._dirty = True
            self._timer = asyncio.get_running_loop().call_later(RETRY, self._begin)
        elif self._dirty:
            self.changed()

    async def _write(self) -> bool:
        self._dirty = False
        begun = monotonic()
        state = self._collect()
        self._delay = max(DELAY, _SHARE * (monotonic() - begun))
        failure = ""
        try:
            if not await _in_thread(lambda: self._save(state)):
                failure = f"another gogate uses {self._file.path}"
        except OSError as error:
            failure = error.strerror or str(error)
        self._count("failed" if failure else "ok")
        if failure and failure != self._failure:
            log.error("the registry cannot be saved", extra={"file": self._file.path, "error": failure})
        elif self._failure and not failure:
            log.info("the registry is saved again", extra={"file": self._file.path})
        self._failure = failure
        return not failure

    def _save(self, state: SavedState) -> bool:
        """In the thread."""
        if not self._file.lock():
            return False
        self._file.save(to_bytes(state))
        return True

    async def stop(self) -> None:
        """Write what is not written yet, and let the path go."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WRITE):
                if self._writing is not None:
                    self._writing.remove_done_callback(self._written)
                    await asyncio.wait((self._writing,))
                if self._dirty:
                    await self._write()
                self._file.unlock()


async def _in_thread(work: Callable[[], T]) -> T:
    """Run in a daemon thread: one that hangs on a dead disk must not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # T may be Optional, and is what work() returned

    def run() -> None:
        try:
            result = work()
        except Exception as error:  # whatever it is belongs to who asked
            outcome: tuple[T | None, BaseException | None] = (None, error)
        else:
            outcome = (result, None)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="gogate-store", daemon=True).start()
    return await future
