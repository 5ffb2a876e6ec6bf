"""TlsTransport: what a client's protocol writes to and reads from where TLS is spoken, over the plain transport.

It is the protocol of the plain transport and the transport of the protocol above, from the end of the handshake
(tls_intake) on. Bytes go through an ssl.SSLObject between two buffers in memory; nothing waits here:

    written             encrypted at once and given to the plain transport: its water marks are those of the protocol
    read                decrypted record by record while the protocol reads; what it does not want yet stays encrypted
    write_eof           close_notify, then FIN; reading goes on (RFC 8446 section 6.1)
    close_notify, FIN   the end of what the client sends, after all that was before it
    close               close_notify and FIN after what was written, without waiting for the client's close_notify
    a broken record     an alert, and the end; the protocol gets the error

The transports of asyncio and uvloop are not used, because they cannot end one direction alone, close a connection at
the client's end whatever is still to be written, and uvloop's drops what it has decrypted when the client ends while it
is not being read. A FIN without close_notify counts as an end: many clients end that way, and every protocol relayed
here that has to know where a message ends says so itself.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Final

#: The most plain bytes in a record: a read of this size leaves nothing inside of OpenSSL.
_RECORD: Final = 16384
#: Beyond this, answers of TLS itself (alerts) to a client that reads nothing end the connection.
_MOST_UNREAD: Final = 256 * 1024


class TlsTransport:
    """One connection, its handshake done."""

    __slots__ = (
        "_closing",
        "_ended",
        "_ended_told",
        "_eof_sent",
        "_error",
        "_incoming",
        "_loop",
        "_outgoing",
        "_paused",
        "_protocol",
        "_raw",
        "_spoken",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        raw: Any,
        spoken: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
    ) -> None:
        """``spoken`` reads from ``incoming``, which may hold bytes already, and writes to ``outgoing``."""
        self._loop = loop
        self._raw = raw
        self._spoken = spoken
        self._incoming = incoming
        self._outgoing = outgoing
        self._protocol: Any = None
        self._paused = False
        self._closing = False
        self._eof_sent = False
        self._ended = False  # the client's close_notify or FIN is here
        self._ended_told = False
        self._error: ssl.SSLError | None = None

    def __repr__(self) -> str:
        return f"<TLS over {self._raw!r}{', closing' if self._closing else ''}>"

    def begin(self, protocol: Any) -> None:
        """Take over the plain transport, for this protocol; what is here already is read."""
        self._protocol = protocol
        self._raw.set_protocol(self)
        protocol.connection_made(self)
        self._read()

    # --- as the protocol of the plain transport

    def data_received(self, data: bytes) -> None:
        """Encrypted bytes."""
        if not (self._closing or self._ended):
            self._incoming.write(data)
            self._read()

    def eof_received(self) -> bool:
        """FIN."""
        self._ended = True
        self._read()
        return True  # closed by us

    def connection_lost(self, error: Exception | None) -> None:
        """The plain transport is closed."""
        self._closing = True
        protocol, self._protocol = self._protocol, None  # the two refer to each other
        protocol.connection_lost(self._error or error)

    def pause_writing(self) -> None:
        """The plain transport's buffer is full."""
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """It is not any more."""
        if self._protocol is not None:
            self._protocol.resume_writing()

    # --- reading

    def _read(self) -> None:
        """Give the protocol what is here, as long as it reads."""
        incoming, spoken = self._incoming, self._spoken
        while incoming.pending and not (self._paused or self._closing):
            try:
                data = spoken.read(_RECORD)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:  # close_notify, after ours
                data = b""
            except ssl.SSLError as error:
                self._fail(error)
                return
            if data:
                self._protocol.data_received(data)
            else:
                self._ended = True
                incoming.read()  # what is behind close_notify does not count
        if self._outgoing.pending:
            self._answer()
        if self._ended and not (self._ended_told or self._paused or self._closing):
            self._ended_told = True
            if not self._protocol.eof_received():
                self.close()

    def _answer(self) -> None:
        """What TLS itself has to say to what was read (an alert, new keys)."""
        data = self._outgoing.read()
        if self._closing or self._eof_sent:
            return
        self._raw.write(data)
        if self._raw.get_write_buffer_size() > _MOST_UNREAD:
            self.abort()

    def _read_on(self) -> None:
        if not (self._paused or self._closing):
            self._read()

    def pause_reading(self) -> None:
        """Read no more for the moment."""
        self._paused = True
        if not self._raw.is_closing():
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading; what is here already comes in a turn of its own, as from any transport."""
        if not self._paused:
            return
        self._paused = False
        if not self._raw.is_closing():
            self._raw.resume_reading()
        if self._incoming.pending or self._ended:
            self._loop.call_soon(self._read_on)

    def is_reading(self) -> bool:
        """Whether it is not paused."""
        return not (self._paused or self._closing)

    # --- writing

    def write(self, data: bytes) -> None:
        """Encrypt and send; nothing happens once it is closing."""
        if self._closing or not data:
            return
        if self._eof_sent:
            raise RuntimeError("write after write_eof")
        spoken = self._spoken
        try:
            sent = spoken.write(data)
            while sent < len(data):
                sent += spoken.write(memoryview(data)[sent:])
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._raw.write(self._outgoing.read())

    def can_write_eof(self) -> bool:
        """It can."""
        return True

    def write_eof(self) -> None:
        """Say that no more comes; reading goes on."""
        if self._closing or self._eof_sent:
            return
        # OpenSSL looks for the client's close_notify at once, and takes what it finds instead for a fault.
        waiting = self._incoming.read()
        self._notify()
        self._incoming.write(waiting)
        self._eof_sent = True
        self._raw.write_eof()

    def _notify(self) -> None:
        try:
            self._spoken.unwrap()
        except ssl.SSLError:  # the client's part of it is not here, and is not waited for
            pass
        if self._outgoing.pending:
            self._raw.write(self._outgoing.read())

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        """The water marks, in encrypted bytes."""
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Encrypted bytes that the kernel has not taken."""
        return int(self._raw.get_write_buffer_size())

    # --- the end

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._closing or bool(self._raw.is_closing())

    def close(self) -> None:
        """Close after what was written. Who calls it sees to it that it does not take for ever."""
        if self._closing:
            return
        self._closing = True
        if not self._eof_sent and not self._raw.is_closing():
            self._notify()
        self._raw.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self._raw.abort()

    def _fail(self, error: ssl.SSLError) -> None:
        """The client broke the protocol: say so, and close."""
        self._closing = True
        self._error = error
        alert = self._outgoing.read()
        if alert and not (self._eof_sent or self._raw.is_closing() or self._raw.get_write_buffer_size()):
            self._raw.write(alert)
            self._raw.close()
        else:  # it does not read, or cannot be told
            self._raw.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As the plain transport has it; ``ssl_object`` besides."""
        return self._spoken if name == "ssl_object" else self._raw.get_extra_info(name, default)
