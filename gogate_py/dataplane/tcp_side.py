"""RelaySide: one connection of an L4 relay, as the event loop sees it.

Bytes go straight to the other side's ``write``; everything else (EOF, loss, reset) goes to the relay. This object and
its ``forward`` are the whole of copying in user space: for bulk, ``splice`` takes one direction over by pausing this
side and moving its descriptor's bytes itself, and gives back by resuming it.

A side without a relay is a ready connection (tcp_pool), or one that was dialed just now. What the backend says
meanwhile is kept, up to a limit; that it ended is kept too for a dialed one, and makes a ready one useless.

A TLS connection to a backend cannot end one direction alone (``half_closes``): its transport closes itself behind an
EOF, and cannot send one. What that means for the other side is the relay's business. A client's can (tls_transport).
"""

from __future__ import annotations

import asyncio
import select
import ssl
from typing import TYPE_CHECKING, Any, Final

from gogate_py.backend_tls import explain
from gogate_py.dataplane.dial import DialError, dial
from gogate_py.dataplane.hangups import send_reset
from gogate_py.errors import Failure

if TYPE_CHECKING:
    from gogate_py.dataplane.live_backend import LiveBackend
    from gogate_py.dataplane.plane import Plane
    from gogate_py.dataplane.splice import Splice
    from gogate_py.dataplane.tcp_pool import ReadyConnections
    from gogate_py.dataplane.tcp_relay import TcpRelay

#: Water marks of the write buffer: above HIGH the other side is not read, below LOW it is again (SECURITY.md T17).
HIGH_WATER: Final = 64 * 1024
LOW_WATER: Final = 16 * 1024
#: Bytes kept while there is nobody to forward them to.
EARLY_LIMIT: Final = 64 * 1024
#: A direction that brought so many bytes in reads of at least LARGE_READ is bulk, and goes on by splice(2).
BULK: Final = 1 << 20
LARGE_READ: Final = 32 * 1024
NEVER: Final = float("-inf")
#: What makes a ready connection unusable. Bytes do not: they are the backend's greeting.
_GONE: Final = select.POLLRDHUP | select.POLLERR | select.POLLHUP


class RelaySide:
    """The client's or the backend's connection."""

    __slots__ = (
        "_bulk",
        "_early",
        "_early_size",
        "_plane",
        "_read_paused",
        "_watched_fd",
        "encrypted",
        "eof",
        "failed",
        "feed",
        "forward",
        "half_closes",
        "lost",
        "owner",
        "received",
        "relay",
        "splice",
        "transport",
    )

    def __init__(self, plane: Plane, owner: ReadyConnections | None = None) -> None:
        self._plane = plane
        self.relay: TcpRelay | None = None
        self.owner = owner
        self.transport: Any = None
        self.forward: Any = None  # the other side's write, once there is one
        self.splice: Splice | None = None  # what moves its bytes to the other side in its stead
        self.feed: Splice | None = None  # what moves the other side's bytes to it
        self.received = 0
        self.eof = False
        self.lost = False
        self.half_closes = True
        self.encrypted = False  # its descriptor carries other bytes than those that are relayed
        self.failed = ""  # why TLS broke it, in words
        self._early: list[bytes] = []
        self._early_size = 0
        self._bulk: float = 0  # bytes in large reads since it was spliced last
        self._read_paused = False
        self._watched_fd = -1

    # --- asyncio

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.half_closes = transport.can_write_eof()
        self.encrypted = transport.get_extra_info("ssl_object") is not None
        transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)

    def data_received(self, data: bytes) -> None:
        size = len(data)
        self.received += size
        forward = self.forward
        if forward is not None:
            forward(data)
            if size >= LARGE_READ:
                self._bulk += size
                if self._bulk >= BULK and self.relay is not None:
                    other = self.relay.other(self)
                    if not self._plane.splicer.start(self, other):
                        self._bulk = NEVER
        else:
            self._early.append(data)
            self._early_size += size
            if self._early_size >= EARLY_LIMIT:
                self.pause_reading()

    def eof_received(self) -> bool:
        self.eof = True
        if self.relay is not None:
            self.relay.side_ended(self)
            if self.half_closes:
                self.watch()  # no more is read: a reset would go unseen
        elif self.owner is not None:
            self.owner.lost(self)
            return False
        return self.half_closes  # uvloop can be faster with it than the dialing task with its relay, which will look

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self.forward = None
        self._stop_splicing()
        if isinstance(error, ssl.SSLError):
            self.failed = explain(error)
        elif error is None and not self.half_closes and not self.eof:
            # FIN without close_notify, as many servers end: asyncio calls that an EOF, uvloop does not.
            self.eof = True
            if self.relay is not None:
                self.relay.side_ended(self)
        self.unwatch()
        if self.relay is not None:
            self.relay.side_lost(self)
        elif self.owner is not None:
            self.owner.lost(self)

    def pause_writing(self) -> None:
        if self.relay is not None:
            self.relay.other(self).pause_reading()

    def resume_writing(self) -> None:
        if self.feed is not None:
            self.feed.emptied()
        elif self.relay is not None:
            self.relay.other(self).resume_reading()

    def on_hangup(self, reset: bool) -> None:
        """Reset while it was not being read."""
        if reset:
            if self.relay is not None:
                self.relay.side_lost(self)
            self.abort()

    # --- for the relay

    def start_forwarding(self, other: RelaySide) -> None:
        """Forward to the other side from now on, what came early first."""
        self.forward = other.transport.write
        if self._early:
            early, self._early, self._early_size = b"".join(self._early), [], 0
            other.write(early)
            if other.open() and other.transport.get_write_buffer_size() <= HIGH_WATER:
                self.resume_reading()

    def open(self) -> bool:
        """Whether it can be written to."""
        return not self.lost and self.transport is not None and not self.transport.is_closing()

    def is_fresh(self) -> bool:
        """Whether a ready connection may be given to a client: open, and the backend did not end it.

        The kernel is asked, because what it knows may not have come to the event loop yet.
        """
        if not self.open() or self.eof:
            return False
        poll = select.poll()
        poll.register(self.fileno(), _GONE)
        return not poll.poll(0)

    def write(self, data: bytes) -> None:
        """Bytes from the other side."""
        if self.open():
            self.transport.write(data)

    def write_eof(self) -> None:
        """The other side ended: FIN, after what was written, where that can be said."""
        if self.half_closes and self.open():
            self.transport.write_eof()

    def pause_reading(self) -> None:
        """Stop reading: the other side does not take more. A reset would now go unseen, so it is watched for."""
        if not self._read_paused and self.open() and not self.eof:
            self._read_paused = True
            self.transport.pause_reading()
            self.watch()

    def resume_reading(self) -> None:
        """Go on reading."""
        if self._read_paused and self.open() and self.splice is None:
            self._read_paused = False
            self.unwatch()
            self.transport.resume_reading()

    def unsent(self) -> int:
        """Bytes for it that the kernel has not taken, or has in a pipe; also while it is being closed."""
        if self.lost:
            return 0
        return int(self.transport.get_write_buffer_size()) + (self.feed.inside if self.feed is not None else 0)

    def close(self) -> None:
        """Close after what was written."""
        if self.open():
            self.transport.close()

    def abort(self, *, reset: bool = False) -> None:
        """Close at once; with RST if ``reset``."""
        if not self.lost and self.transport is not None:
            self._stop_splicing()
            if reset:
                send_reset(self.transport)
            self.transport.abort()

    def abandon(self) -> None:
        """Close a ready connection that nobody needs."""
        self.owner = None
        self.abort()

    def watch(self) -> None:
        """Have a reset noticed although it is not read."""
        if self.open():
            self._watched_fd = self.fileno()
            self._plane.hangups.watch(self._watched_fd, self, fin=False)

    def unwatch(self) -> None:
        """Its resets are noticed by who reads it."""
        if self._watched_fd >= 0:
            self._plane.hangups.forget(self._watched_fd, self)
            self._watched_fd = -1

    def fileno(self) -> int:
        """Its descriptor."""
        return int(self.transport.get_extra_info("socket").fileno())

    # --- for splice

    def empty_buffer(self) -> bool:
        """Have ``resume_writing`` called when everything written is sent; False: it is already."""
        if not self.transport.get_write_buffer_size():
            return False
        self.transport.set_write_buffer_limits(0, 0)
        return True

    def usual_buffer(self) -> None:
        """Everything was sent: the water marks are the usual ones again."""
        self.transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)

    def relay_again(self, *, for_good: bool) -> None:
        """Its bytes are read by its transport again."""
        self._bulk = NEVER if for_good else 0
        self.resume_reading()

    def _stop_splicing(self) -> None:
        for one in (self.splice, self.feed):
            if one is not None:
                one.stop()


async def connect(plane: Plane, backend: LiveBackend) -> RelaySide:
    """A connection to the backend: every address of its name is tried once, before it is given up.

    Raises the DialError of the last address.
    """
    side: RelaySide
    failed = DialError(Failure.CONNECT_FAILED, "error", "its name does not resolve")
    for _ in backend.endpoints:
        if not backend.endpoints:  # a snapshot came meanwhile
            break
        try:
            _, side = await dial(
                plane.loop, lambda: RelaySide(plane), backend.endpoint(), backend.transport.dial_timeout, backend.tls
            )
            if side.lost and not side.eof:  # reset before we could look at it: as good as refused
                raise DialError(Failure.CONNECT_FAILED, "refused", "connection reset")
        except DialError as error:
            backend.count_connect(error.result)
            failed = error
            if error.failure is Failure.NO_DESCRIPTORS:  # ours, whatever the address
                break
        else:
            backend.count_connect("ok")
            return side
    raise failed
