"""Hangups: notices a peer that went away where asyncio reports nothing.

A transport that is paused, or whose peer has already sent EOF, is not read; a RST (or, for a paused one, a FIN) then
goes unseen until the next write. One auxiliary epoll per worker, edge-triggered, watches exactly such connections; its
own descriptor is readable in the event loop when something happened. Works under asyncio and uvloop alike, which refuse
a second reader on a transport's descriptor.

A descriptor that the transport closes leaves the epoll by itself (epoll(7)), provided nobody keeps a duplicate.
"""

from __future__ import annotations

import asyncio
import select
import socket
from typing import Protocol

_MAX_EVENTS = 256


class Watched(Protocol):
    """Who wants to know. Called at most once per watch."""

    def on_hangup(self, reset: bool) -> None:
        """The peer is gone: ``reset`` by RST (or both directions closed), otherwise by FIN with nothing said about
        bytes still unread."""
        ...


class Hangups:
    """The auxiliary epoll of one worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._watched: dict[int, Watched] = {}
        loop.add_reader(self._epoll.fileno(), self._ready)

    def watch(self, fd: int, owner: Watched, *, fin: bool) -> None:
        """Tell ``owner`` of a RST on this descriptor, and of a FIN too if ``fin``."""
        events = select.EPOLLET | (select.EPOLLRDHUP if fin else 0)
        try:
            if fd in self._watched:
                self._epoll.modify(fd, events)
            else:
                self._epoll.register(fd, events)
        except FileExistsError:
            self._epoll.modify(fd, events)
        except FileNotFoundError:  # the descriptor was closed and its number used again
            self._epoll.register(fd, events)
        except OSError:
            return
        self._watched[fd] = owner

    def forget(self, fd: int, owner: Watched) -> None:
        """Stop watching; harmless when the descriptor is closed or watched for somebody else.

        To be called when a watched connection is lost, too: else its owner is kept until the number is used again."""
        if self._watched.get(fd) is not owner:
            return
        del self._watched[fd]
        try:
            self._epoll.unregister(fd)
        except OSError:
            pass

    def _ready(self) -> None:
        for fd, events in self._epoll.poll(0, _MAX_EVENTS):
            owner = self._watched.get(fd)
            if owner is None:
                continue
            # EPOLLHUP alone is both directions closed in order, possibly with bytes still unread: that is not a reset.
            reset = bool(events & select.EPOLLERR)
            if reset or events & select.EPOLLRDHUP:
                self.forget(fd, owner)  # a FIN may be followed by a RST, but its owner has been told
                owner.on_hangup(reset)

    def close(self) -> None:
        """Let go of the epoll."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()


def send_reset(transport: asyncio.BaseTransport) -> None:
    """Make the next ``abort()`` of this TCP transport send RST instead of FIN (SO_LINGER with zero seconds)."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        except OSError:
            pass
