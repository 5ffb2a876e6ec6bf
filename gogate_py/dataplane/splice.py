"""Splice: one direction of an L4 relay at kernel speed: socket → pipe → socket by splice(2), past user space.

A direction begins as a Protocol (tcp_side: read, write to the other side), which is best for messages. Once it has
brought BULK bytes in large reads it moves here, and goes back when it becomes messages again, when there is no pipe,
and at its end: then the transport reads the EOF itself, so that ends are the relay's business alone in both modes.

    state      event                                 becomes    done
    relay      BULK bytes came in large reads        switching  the source is paused, the target's buffer emptied
    switching  the target's buffer is empty          spliced    the source is read by splice
    switching  reset of the source (hangups)         relay      as for any paused side
    spliced    the source has bytes                  spliced    to the pipe, and from there to the target
    spliced    the target does not take them         spliced    blocked: the source is not read, but a reset of it heard
    spliced    the target takes bytes again          spliced    the pipe is emptied, the source is read
    spliced    EOF; messages again; no pipe          relay      (the pipe is empty) the source's transport reads on
    spliced    error of the source or of the target  relay      as a reset of that side
    any        a side is lost, cut, aborted          relay      the pipe is closed if it has bytes

What it promises as the Protocol way does: a source is read only when everything before was taken or lies in its pipe
(back-pressure, bounded memory); ``received`` and ``unsent`` of the sides count while it runs.

Readiness comes from an epoll of its own, whose descriptor is readable in the event loop (as in hangups): the loop
refuses a reader on a transport's descriptor, and a duplicate would keep a connection open that was aborted. A pipe is
held only by a direction that has bytes in it, so few are enough; they count against what the kernel allows a user
(fs.pipe-user-pages-soft: 64 MiB), and who gets none goes on without.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from gogate_py.dataplane.tcp_side import RelaySide

#: Size of the first LARGE_PIPES pipes of a worker, and of the others; smaller ones are not worth their calls.
PIPE_SIZE: Final = 1024 * 1024
LARGE_PIPES: Final = 16
SMALL_PIPE: Final = 256 * 1024
#: Pipes of a worker, and how many of them are kept when nobody needs them.
MAX_PIPES: Final = 64
KEPT_PIPES: Final = 8
#: So many times in a row a direction is served before others have their turn.
ROUNDS: Final = 4
#: Less than this at once: there is hardly more to be had now.
FULL_READ: Final = 64 * 1024
#: After PATIENCE reads in a row below SMALL_READ, the direction is messages again.
SMALL_READ: Final = 8 * 1024
PATIENCE: Final = 64

_MAX_EVENTS: Final = 256
_BROKEN: Final = select.EPOLLERR | select.EPOLLHUP
_splice: Any = getattr(os, "splice", None)  # Linux only
_FLAGS: Final = getattr(os, "SPLICE_F_MOVE", 0) | getattr(os, "SPLICE_F_NONBLOCK", 0)


class Pipes:
    """The pipes of a worker: bounded, and used again only when empty."""

    __slots__ = ("_free", "made")

    def __init__(self) -> None:
        self._free: list[tuple[int, int]] = []
        self.made = 0

    def take(self) -> tuple[int, int] | None:
        """An empty pipe: (read end, write end)."""
        if self._free:
            return self._free.pop()
        if self.made >= MAX_PIPES:
            return None
        try:
            ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # no descriptor left
            return None
        self.made += 1
        try:
            wanted = PIPE_SIZE if self.made <= LARGE_PIPES else SMALL_PIPE
            size = fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, wanted)
        except OSError:  # this user has all the pages it may have
            size = fcntl.fcntl(ends[1], fcntl.F_GETPIPE_SZ)
        if size < SMALL_PIPE:
            self.drop(ends)
            return None
        return ends

    def give(self, ends: tuple[int, int]) -> None:
        """Back, empty."""
        if len(self._free) < KEPT_PIPES:
            self._free.append(ends)
        else:
            self.drop(ends)

    def drop(self, ends: tuple[int, int]) -> None:
        """Close one, whatever is in it."""
        self.made -= 1
        os.close(ends[0])
        os.close(ends[1])

    def close(self) -> None:
        """Close those that are not in use."""
        while self._free:
            self.drop(self._free.pop())


class Splicer:
    """What the spliced directions of a worker share: pipes and readiness. ``failed`` hears of exceptions."""

    def __init__(self, loop: asyncio.AbstractEventLoop, failed: Callable[[BaseException, str], None]) -> None:
        self._loop = loop
        self._failed = failed
        self._epoll: select.epoll | None = None  # made when first needed
        self._out_of: dict[int, Splice] = {}  # by the source's descriptor
        self._into: dict[int, Splice] = {}  # by the target's
        self._masks: dict[int, int] = {}
        self.pipes = Pipes()

    def __len__(self) -> int:
        return len(self._out_of)

    def start(self, source: RelaySide, target: RelaySide) -> bool:
        """Move what comes from ``source`` to ``target`` this way from now on; False: it never can be."""
        if _splice is None or source.encrypted or target.encrypted:
            return False
        if source.splice is None and source.open() and target.open():
            Splice(self, source, target).switch()
        return True

    def add(self, one: Splice) -> None:
        """A direction begins."""
        if self._epoll is None:
            self._epoll = select.epoll()
            self._loop.add_reader(self._epoll.fileno(), self._ready)
        self._out_of[one.source_fd] = one
        self._into[one.target_fd] = one
        self.watch(one)

    def discard(self, one: Splice) -> None:
        """A direction ends. Its descriptors are still open."""
        if self._out_of.get(one.source_fd) is one:
            del self._out_of[one.source_fd], self._into[one.target_fd]
            self.watch(one)

    def watch(self, one: Splice) -> None:
        """Have told what its descriptors wait for, as things are now."""
        for fd in (one.source_fd, one.target_fd):
            mask = self._wanted(fd)
            before = self._masks.get(fd, 0)
            if mask == before or self._epoll is None:
                continue
            if not mask:
                del self._masks[fd]
                self._epoll.unregister(fd)
                continue
            self._masks[fd] = mask
            if before:
                self._epoll.modify(fd, mask)
            else:
                self._epoll.register(fd, mask)

    def _wanted(self, fd: int) -> int:
        out, into = self._out_of.get(fd), self._into.get(fd)
        mask = 0
        if out is not None and not out.inside:
            mask |= select.EPOLLIN
        if into is not None and into.inside:
            mask |= select.EPOLLOUT
        if out is not None and not mask:
            mask = select.EPOLLET  # errors only, and once: HUP would be told for ever
        return mask

    def _ready(self) -> None:
        assert self._epoll is not None
        for fd, events in self._epoll.poll(0, _MAX_EVENTS):
            out = self._out_of.get(fd)
            if out is not None and events & ~select.EPOLLOUT:
                if not out.inside:
                    self._run(out)
                elif events & select.EPOLLERR:
                    out.source.on_hangup(True)
            if events & (select.EPOLLOUT | _BROKEN):
                into = self._into.get(fd)
                if into is not None and into.inside:
                    self._run(into)

    def _run(self, one: Splice) -> None:
        try:
            one.run()
        except Exception as error:  # the event loop would log it, and call again at once
            self._failed(error, "splice")
            if one.source.relay is not None:
                one.source.relay.cut("internal")

    def close(self) -> None:
        """Let go of epoll and pipes."""
        self.pipes.close()
        if self._epoll is not None:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None


class Splice:
    """One direction, from the decision to splice until it goes back or a side is lost. ``inside``: bytes that left the
    source and that the target has not taken (blocked, if there are any between two calls)."""

    __slots__ = ("_pipe", "_small", "_splicer", "_switched", "inside", "source", "source_fd", "target", "target_fd")

    def __init__(self, splicer: Splicer, source: RelaySide, target: RelaySide) -> None:
        self._splicer = splicer
        self._pipe: tuple[int, int] | None = None
        self._small = 0
        self._switched = False
        self.source = source
        self.target = target
        self.source_fd = source.fileno()
        self.target_fd = target.fileno()
        self.inside = 0

    def __repr__(self) -> str:
        state = "spliced" if self._switched else "switching"
        return f"<{state} {self.source_fd} to {self.target_fd}, {self.inside} bytes inside>"

    def is_reading(self) -> bool:
        """Whether it takes what its source has."""
        return self._switched and not self.inside

    def switch(self) -> None:
        """Read no more; begin when the target's transport has sent what it has."""
        self.source.splice = self.target.feed = self
        self.source.pause_reading()
        if not self.target.empty_buffer():
            self.emptied()

    def emptied(self) -> None:
        """The target's transport has sent everything."""
        if not self._switched:
            self._switched = True
            self.target.usual_buffer()
            self.source.unwatch()
            self._splicer.add(self)

    def run(self) -> None:
        """Move what can be moved."""
        pipe = self._pipe or self._splicer.pipes.take()
        if pipe is None:
            self.go_back()
            return
        self._pipe = pipe
        inside = blocked = self.inside
        for _ in range(ROUNDS):
            more = True
            if not inside:
                try:
                    inside = _splice(self.source_fd, pipe[1], PIPE_SIZE, flags=_FLAGS)
                except BlockingIOError:
                    break
                except OSError as error:
                    self.inside = 0
                    self._source_failed(error)
                    return
                if not inside:
                    self.inside = 0
                    self.go_back()
                    return
                self.source.received += inside
                more = self._judge(inside)
            try:
                inside -= _splice(pipe[0], self.target_fd, inside, flags=_FLAGS)
            except BlockingIOError:
                pass
            except OSError:
                self.inside = inside
                self.target.on_hangup(True)
                return
            if inside or not more:
                break
        self.inside = inside
        if not inside:
            self._release()
        if bool(inside) != bool(blocked):
            self._splicer.watch(self)
        if self._small >= PATIENCE and not inside:
            self.go_back()

    def _judge(self, size: int) -> bool:
        """Look at the size of a read; → whether it is worth asking for more at once."""
        if size < SMALL_READ:
            self._small += 1
        elif size >= FULL_READ:
            self._small = 0
            return True
        return False

    def _source_failed(self, error: OSError) -> None:
        if error.errno == errno.EINVAL:  # a kind of socket that cannot be spliced: its transport reads on, for good
            self.go_back(for_good=True)
        else:
            self.source.on_hangup(True)

    def go_back(self, *, for_good: bool = False) -> None:
        """The source's transport reads on. Nothing is in the pipe."""
        self.stop()
        self.source.relay_again(for_good=for_good)

    def stop(self) -> None:
        """Move no more bytes. Those in the pipe are lost."""
        self.source.splice = self.target.feed = None
        if self._switched:
            self._splicer.discard(self)
        self._release()

    def _release(self) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is None:
            return
        if self.inside:
            self.inside = 0
            self._splicer.pipes.drop(pipe)
        else:
            self._splicer.pipes.give(pipe)
