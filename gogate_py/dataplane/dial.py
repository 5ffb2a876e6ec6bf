"""Dial: connect to one endpoint and put a protocol on it, for L4 and L7 alike; every OSError becomes a DialError here.

The socket is ours and is connected before a transport is made of it: a refused or slow connect then costs no transport,
and one that is connected at once costs no turn of the loop. Asked a second time, connect(2) says whether it is: on
loopback it always is by then. Measured under uvloop on loopback, per connection: 17 µs, where create_connection(host,
port) inside asyncio.timeout takes 19 to 24 and sock_connect 37 and more (asyncio's own loop: 30, 71 and 44).

Where the backend speaks TLS, the handshake is a part of connecting: it has what is left of the time, and a certificate
that does not verify is a backend that failed, in words (backend_tls.explain).

Endpoints are addresses, never names: resolving is the control plane's business.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

from gogate_py.backend_tls import CLOSE_TIME, TlsClient, explain
from gogate_py.clock import monotonic
from gogate_py.errors import Failure, GogateError

_NON_BLOCKING: Final = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
_UNDER_WAY: Final = (errno.EINPROGRESS, errno.EALREADY)
#: This process or machine has run out of something; the backend is not to blame.
_OWN_SHORTAGE: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)
#: Nobody takes connections there: no listener, no such Unix socket, or (EAGAIN, Unix only) its accept queue is full.
_REFUSED: Final = (errno.ECONNREFUSED, errno.ENOENT, errno.EAGAIN)


class DialError(GogateError):
    """A connection that did not come about.

    ``failure``: CONNECT_FAILED, CONNECT_TIMEOUT, TLS_FAILED or NO_DESCRIPTORS (then it is not the backend's fault, and
    another one would not do better). ``result``: refused, timeout, error or tls, for LiveBackend.count_connect.
    ``text``: for logs.
    """

    def __init__(self, failure: Failure, result: str, text: str) -> None:
        super().__init__(text)
        self.failure = failure
        self.result = result
        self.text = text


async def dial(
    plane_loop: asyncio.AbstractEventLoop,
    factory: Callable[[], Any],
    endpoint: tuple[str, int],
    timeout: float,  # noqa: ASYNC109 - asyncio.timeout around it costs a cancelled task where a timer does
    tls: TlsClient | None = None,
    alpn: tuple[str, ...] = (),
) -> tuple[Any, Any]:
    """Connect to ``(ip, port)`` or ``("/path", 0)`` within ``timeout`` seconds, TLS included if asked for; →
    (transport, protocol).

    A timeout of 0 leaves it to the kernel, which gives up after some two minutes, and to asyncio, which gives up a
    handshake after one. The protocol is made only once the connection stands. Raises DialError; cancelled, it leaves
    nothing behind.
    """
    begun = monotonic() if tls is not None else 0.0
    try:
        sock = await _connect(plane_loop, endpoint, timeout)
    except OSError as error:
        raise _explained(error, endpoint) from None
    if tls is not None:
        left = max(0.001, begun + timeout - monotonic()) if timeout else None
        return await _secure(plane_loop, factory, sock, endpoint, left, tls, alpn)
    try:
        # Stream transports set TCP_NODELAY themselves, under asyncio and uvloop alike.
        return await plane_loop.create_connection(factory, sock=sock)
    except OSError as error:  # the peer was faster to go away than we to look
        sock.close()
        raise _explained(error, endpoint) from None
    except BaseException:
        sock.close()
        raise


async def _secure(
    loop: asyncio.AbstractEventLoop,
    factory: Callable[[], Any],
    sock: socket.socket,
    endpoint: tuple[str, int],
    limit: float | None,
    tls: TlsClient,
    alpn: tuple[str, ...],
) -> tuple[Any, Any]:
    """The handshake on a connected socket, within ``limit`` seconds."""
    try:
        return await loop.create_connection(
            factory,
            sock=sock,
            ssl=tls.context(alpn),
            server_hostname=tls.server_name,
            ssl_handshake_timeout=limit,
            ssl_shutdown_timeout=CLOSE_TIME,
        )
    except OSError as error:
        sock.close()
        where = f"TLS with {_shown(endpoint)} ({tls.server_name})"
        if isinstance(error, ConnectionAbortedError) and error.errno is None:  # how asyncio tells a timeout
            raise DialError(Failure.CONNECT_TIMEOUT, "timeout", f"{where}: timed out") from None
        if not isinstance(error, ssl.SSLError) and error.errno in _OWN_SHORTAGE:
            raise _explained(error, endpoint) from None
        raise DialError(Failure.TLS_FAILED, "tls", f"{where}: {explain(error)}") from None
    except BaseException:
        sock.close()
        raise


async def _connect(loop: asyncio.AbstractEventLoop, endpoint: tuple[str, int], limit: float) -> socket.socket:
    """A connected non-blocking socket; raises OSError (TimeoutError is one)."""
    host = endpoint[0]
    if host.startswith("/"):
        address: Any = host
        sock = socket.socket(socket.AF_UNIX, _NON_BLOCKING)
    else:
        address = endpoint
        # Without its protocol's number asyncio's transport would not set TCP_NODELAY.
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, _NON_BLOCKING, socket.IPPROTO_TCP)
    try:
        if address is endpoint:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        code = sock.connect_ex(address)
        if code == errno.EINPROGRESS:
            code = sock.connect_ex(address)
        if code in _UNDER_WAY:
            await _writable(loop, sock.fileno(), limit)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, errno.errorcode.get(code, "unknown error"))
        if address is endpoint and sock.getsockname()[:2] == endpoint:
            # A local port without a listener can be chosen as our own source port: TCP connects the socket to itself.
            raise ConnectionRefusedError(errno.ECONNREFUSED, "connected to itself")
    except BaseException:
        sock.close()
        raise
    return sock


async def _writable(loop: asyncio.AbstractEventLoop, fd: int, limit: float) -> None:
    """Wait until a connect is decided; raises TimeoutError after ``limit`` seconds (0: never)."""
    decided = loop.create_future()

    def on_writable() -> None:
        loop.remove_writer(fd)  # at once: level-triggered, it would be called again before the waiter runs
        if not decided.done():
            decided.set_result(None)

    def on_timeout() -> None:
        if not decided.done():
            decided.set_exception(TimeoutError())

    timer = loop.call_later(limit, on_timeout) if limit > 0 else None
    loop.add_writer(fd, on_writable)
    try:
        await decided
    finally:
        loop.remove_writer(fd)
        if timer is not None:
            timer.cancel()


def _explained(error: OSError, endpoint: tuple[str, int]) -> DialError:
    """The DialError for what the kernel said."""
    where = _shown(endpoint)
    if isinstance(error, TimeoutError):  # ETIMEDOUT is one, too
        return DialError(Failure.CONNECT_TIMEOUT, "timeout", f"connect to {where}: timed out")
    code = error.errno
    name = str(error) if code is None else errno.errorcode.get(code, str(code))
    if code in _OWN_SHORTAGE:
        return DialError(Failure.NO_DESCRIPTORS, "error", f"connect to {where}: short of resources here ({name})")
    result = "refused" if code in _REFUSED else "error"
    return DialError(Failure.CONNECT_FAILED, result, f"connect to {where}: {name}")


def _shown(endpoint: tuple[str, int]) -> str:
    """An endpoint as it is written."""
    host, port = endpoint
    return f"unix:{host}" if host.startswith("/") else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
