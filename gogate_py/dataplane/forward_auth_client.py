"""The client of a forwardAuth service: GETs over a few kept connections, every step of them bounded.

What the service answers decides who is let in, so nothing but a whole and valid answer counts: h11 reads it, and
whatever h11 refuses, is too large, ends early or is late becomes an AskError.

    at most 64 questions at once          the others wait, inside of their time
    one time limit for all of it          the wait, the name, connect, TLS, head and body
    head up to 64 KiB, body up to 256 KiB
    a kept connection that was closed     another one is tried, as long as no byte of an answer came
    bytes that nobody asked for           the connection is closed: they would be taken for the next answer
    unused for 30 s                       closed

Redirects are answers like others. Certificates are checked against the system's trust store. Not loaded before a
configuration has a forwardAuth (services.py); knows nothing of exchanges.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from typing import Final, NamedTuple, cast
from urllib.parse import urlsplit

import h11

from gogate_py.errors import GogateError
from gogate_py.wire.headers import VALUE

MAX_AT_ONCE: Final = 64
MAX_HEAD: Final = 64 * 1024
MAX_BODY: Final = 256 * 1024
IDLE: Final = 30.0

Fields = list[tuple[bytes, bytes]]

# h11 lets control characters through, which no backend and no client is to see.
_is_value: Final = re.compile(VALUE + rb"*").fullmatch


class AskError(GogateError):
    """No answer. ``word``: unreachable, timeout or bad_answer, for a metric; the text is for the log, and holds nothing
    that the other side sent."""

    def __init__(self, word: str, text: str) -> None:
        super().__init__(text)
        self.word = word
        self.text = text


class _Stale(AskError):
    """The connection was closed before a byte of an answer came."""


class ServiceAnswer(NamedTuple):
    """A whole answer; names of ``fields`` are in lower case, values are valid field values."""

    status: int
    fields: Fields
    body: bytes


class ServiceClient:
    """Asks one service. Owned by its stage; of one event loop."""

    def __init__(self, url: str) -> None:
        """``url``: http or https, with a host; checked by the configuration."""
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._tls: ssl.SSLContext | None = None
        self._secure = parts.scheme == "https"
        self._port = parts.port or (443 if self._secure else 80)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._authority = parts.netloc.encode("ascii")
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        self._idle: list[_Connection] = []  # the most recently used last
        self._closed = False

    @property
    def idle(self) -> int:
        """Kept connections that wait for a question."""
        return len(self._idle)

    async def ask(self, fields: Fields, limit: float) -> ServiceAnswer:
        """The answer to a GET with these fields (Host is added), within ``limit`` seconds. Raises AskError."""
        try:
            async with asyncio.timeout(limit), self._slots:
                return await self._ask(fields)
        except TimeoutError:
            raise AskError("timeout", f"no complete answer within {limit:g} s") from None

    async def _ask(self, fields: Fields) -> ServiceAnswer:
        request = h11.Request(method=b"GET", target=self._target, headers=[(b"Host", self._authority), *fields])
        while True:
            kept = bool(self._idle)
            connection = self._idle.pop() if kept else await self._connect()
            try:
                answer = await connection.ask(request)
                if not all(_is_value(value) for _, value in answer.fields):
                    connection.abort()
                    raise AskError("bad_answer", "its answer has a field with control characters")
            except _Stale:
                if kept:
                    continue
                raise
            except BaseException:  # late, cancelled, or not HTTP: what comes next on it belongs to this question
                connection.abort()
                raise
            if connection.usable and not self._closed:
                self._idle.append(connection)
                connection.rest()
            else:
                connection.abort()
            return answer

    async def _connect(self) -> _Connection:
        """A new connection. Raises AskError."""
        if self._secure and self._tls is None:
            self._tls = ssl.create_default_context()
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: _Connection(self, loop), self._host, self._port, ssl=self._tls
            )
        except ssl.SSLCertVerificationError as error:
            raise AskError("unreachable", f"its certificate is not trusted: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise AskError("unreachable", f"no TLS: {error.reason or 'it failed'}") from error
        except socket.gaierror as error:
            raise AskError("unreachable", f"its name does not resolve: {error.strerror}") from error
        except UnicodeError as error:
            raise AskError("unreachable", "its host is not a name that can be looked up") from error
        except TimeoutError:  # of the kernel or of ask(), it is the same
            raise
        except OSError as error:
            raise AskError("unreachable", f"cannot connect: {error.strerror or type(error).__name__}") from error
        return connection

    def forget(self, connection: _Connection) -> None:
        """A connection was lost."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Close what is idle now, and the others after their answers."""
        self._closed = True
        for connection in self._idle:
            connection.abort()
        self._idle.clear()


class _Connection(asyncio.Protocol):
    """One connection; one question at a time."""

    def __init__(self, client: ServiceClient, loop: asyncio.AbstractEventLoop) -> None:
        self._client = client
        self._loop = loop
        self._codec = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._timer: asyncio.TimerHandle | None = None
        # --- of the connection
        self.usable = False  # for another question
        self._lost = False
        # --- of the question
        self._waiter: asyncio.Future[ServiceAnswer] | None = None
        self._seen = False  # a byte of the answer
        self._head: h11.Response | None = None
        self._body = bytearray()

    def ask(self, request: h11.Request) -> asyncio.Future[ServiceAnswer]:
        """Send a question; the result is its answer, or AskError."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiter = self._loop.create_future()
        self._seen = self.usable = False
        self._head = None
        self._body = bytearray()
        if self._lost:
            self._fail(_Stale("unreachable", "the connection was closed"))
        else:
            self._transport.write((self._codec.send(request) or b"") + (self._codec.send(h11.EndOfMessage()) or b""))
        return self._waiter

    def rest(self) -> None:
        """Nothing is asked for now."""
        self._timer = self._loop.call_later(IDLE, self.abort)

    def abort(self) -> None:
        """Close at once. The answer is complete or worthless, and a silent peer must not keep the socket."""
        self.usable = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport.abort()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not to be asserted: uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._waiter is None or self._waiter.done():
            self.abort()
            return
        self._seen = True
        self._codec.receive_data(data)
        self._read()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self.usable = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._client.forget(self)
        if self._waiter is None or self._waiter.done():
            return
        if not self._seen:
            self._fail(_Stale("bad_answer", "it closed the connection without an answer"))
            return
        if exc is None:  # the end of an answer that has no length
            self._codec.receive_data(b"")
            self._read()
        self._fail(AskError("bad_answer", "it closed the connection before the end of its answer"))

    # --- the answer

    def _read(self) -> None:
        """Take the answer from what has come."""
        try:
            while True:
                event = self._codec.next_event()
                if isinstance(event, h11.Response):
                    # h11's own limit is for heads that are not whole yet: one that came in a single read passes it.
                    if sum([len(name) + len(value) + 4 for name, value in event.headers.raw_items()]) > MAX_HEAD:
                        self._fail(AskError("bad_answer", f"its answer's head is larger than {MAX_HEAD // 1024} KiB"))
                        return
                    self._head = event
                elif isinstance(event, h11.Data):
                    self._body += event.data
                    if len(self._body) > MAX_BODY:
                        self._fail(AskError("bad_answer", f"its answer is larger than {MAX_BODY // 1024} KiB"))
                        return
                elif isinstance(event, h11.EndOfMessage):
                    self._done()
                    return
                elif not isinstance(event, h11.InformationalResponse):  # NEED_DATA, PAUSED, ConnectionClosed
                    return
        except h11.RemoteProtocolError:
            self._fail(AskError("bad_answer", "its answer is not HTTP, ends too early, or has too large a head"))

    def _done(self) -> None:
        head, codec = self._head, self._codec
        assert head is not None
        assert self._waiter is not None
        if not 200 <= head.status_code <= 599:
            self._fail(AskError("bad_answer", "its answer has a status that HTTP does not have"))
            return
        # Bytes behind the answer would be taken for the next one.
        if codec.our_state is h11.DONE and codec.their_state is h11.DONE and not codec.trailing_data[0]:
            codec.start_next_cycle()
            self.usable = True
        if not self._waiter.done():
            self._waiter.set_result(ServiceAnswer(head.status_code, list(head.headers), bytes(self._body)))

    def _fail(self, error: AskError) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
