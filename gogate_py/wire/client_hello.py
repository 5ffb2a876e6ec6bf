"""ClientHello: the server name (SNI) out of the first bytes of a TLS connection, without terminating it.

RFC 8446 sections 4.1.2 and 5.1 (TLS 1.3; older versions look the same), RFC 6066 section 3 (server_name). What comes:

    bytes                                          verdict
    a ClientHello, in any pieces                   its server name, lower case, without a dot at the end
    … without server_name, or without extensions   ""
    a part of one                                  more is needed
    not a handshake record, or one of length 0     refused at the first byte that says so
    a handshake that is not a ClientHello          refused
    a message longer than 16 KiB                   refused, before it is here
    lengths that do not add up                     refused
    an extension twice                             refused (RFC 8446 4.2): two parsers could take different ones
    not exactly one name, of type host_name        refused, as OpenSSL and BoringSSL do
    a name that is no host name                    refused; IP addresses are none (RFC 6066)

Versions, cipher suites and unknown extensions (GREASE, RFC 8701) are the backend's business. With Encrypted Client
Hello the name is that of the outer hello: the public name, which is what may be seen on the way. The bytes themselves
are not changed here, and what follows the hello (early data) is not looked at.

Knows bytes only: how long to wait, and what a name stands for, is the driver's business.
"""

from __future__ import annotations

import re
from typing import Final

from gogate_py.errors import Failure, WireError

#: The longest ClientHello, its own header included; the largest ones seen (post-quantum keys) are below 4 KiB.
MAX_HELLO: Final = 16 * 1024

_RECORD_HEADER: Final = 5
_MAX_RECORD: Final = 1 << 14
_MESSAGE_HEADER: Final = 4
_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_HOST_NAME: Final = 0
#: Version and random.
_FIXED: Final = 2 + 32
_host = re.compile(rb"(?=.{1,253}\Z)(?:(?!-)[a-z0-9_-]{1,63}(?<!-)\.)*(?!-)(?![0-9]+\Z)[a-z0-9_-]{1,63}(?<!-)\Z").match


def _refused(rule: str) -> WireError:
    return WireError(Failure.BAD_REQUEST, f"ClientHello: {rule}.")


class ClientHelloReader:
    """Fed with what comes, in pieces of any size; holds at most one hello and one record."""

    __slots__ = ("_message", "_rest", "server_name")

    def __init__(self) -> None:
        self._rest = b""  # of an incomplete record
        self._message = b""
        #: Meaningful once :meth:`feed` said True.
        self.server_name = ""

    def feed(self, data: bytes) -> bool:
        """Some more bytes; → whether the hello is complete. Raises WireError. Not to be called again after either."""
        data = self._rest + data
        at = 0
        while at < len(data):
            if data[at] != _HANDSHAKE:
                raise _refused("not a TLS handshake")
            if len(data) - at > 1 and data[at + 1] != 3:
                raise _refused("not a version of TLS")
            if len(data) - at < _RECORD_HEADER:
                break
            length = int.from_bytes(data[at + 3 : at + 5], "big")
            if not 0 < length <= _MAX_RECORD:
                raise _refused("a record of an impossible length")
            end = at + _RECORD_HEADER + length
            first = data[at + _RECORD_HEADER : min(end, at + _RECORD_HEADER + _MESSAGE_HEADER)]
            self._check_message(self._message[:_MESSAGE_HEADER] + first)
            if len(data) < end:
                break
            self._message += data[at + _RECORD_HEADER : end]
            at = end
            size = _message_size(self._message)
            if size and len(self._message) >= size:
                self.server_name = _server_name(self._message[_MESSAGE_HEADER:size])
                return True
        self._rest = data[at:]
        return False

    @staticmethod
    def _check_message(start: bytes) -> None:
        """Refuse as soon as it is certain: a few bytes say what will not be waited for."""
        if start and start[0] != _CLIENT_HELLO:
            raise _refused("another handshake message")
        if _message_size(start) > MAX_HELLO:
            raise _refused("longer than 16 KiB")


def _message_size(message: bytes) -> int:
    """Bytes of the handshake message, its header included; 0 while unknown."""
    if len(message) < _MESSAGE_HEADER:
        return 0
    return _MESSAGE_HEADER + int.from_bytes(message[1:_MESSAGE_HEADER], "big")


class _Parts:
    """Takes bytes off the front of a structure; a length that does not fit is refused."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """So many bytes."""
        start = self._at
        self._at = end = start + size
        if end > len(self._data):
            raise _refused("lengths that do not add up")
        return self._data[start:end]

    def number(self, size: int) -> int:
        """An unsigned integer of so many bytes."""
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """A vector: its length in ``size`` bytes, and as many bytes."""
        return self.take(self.number(size))


def _server_name(body: bytes) -> str:
    """The server name of a ClientHello's body; "" for none."""
    hello = _Parts(body)
    hello.take(_FIXED)
    if len(hello.vector(1)) > 32:
        raise _refused("a session id that is too long")
    suites = hello.vector(2)
    if not suites or len(suites) % 2:
        raise _refused("cipher suites that are none")
    if not hello.vector(1):
        raise _refused("no compression method")
    if not hello:
        return ""  # TLS 1.2 without extensions
    extensions = _Parts(hello.vector(2))
    if hello:
        raise _refused("something behind its extensions")
    seen: set[int] = set()
    name = ""
    while extensions:
        kind = extensions.number(2)
        content = extensions.vector(2)
        if kind in seen:
            raise _refused("an extension twice")
        seen.add(kind)
        if kind == _SERVER_NAME:
            name = _host_name(content)
    return name


def _host_name(content: bytes) -> str:
    """The one name of a server_name extension."""
    extension = _Parts(content)
    names = _Parts(extension.vector(2))
    if extension or not names or names.number(1) != _HOST_NAME:
        raise _refused("a server_name that is not one host name")
    name = names.vector(2).lower()
    if names:
        raise _refused("a server_name that is not one host name")
    name = name.removesuffix(b".")
    if _host(name) is None:
        raise _refused("a server_name that is no host name")
    return name.decode("ascii")
