"""Ends: where a client's connection comes from and where it went, as the client made it.

The socket knows; behind a proxy that sends a PROXY header, the header does. Addresses are plain: IPv4-mapped ones as
IPv4, without scope. A Unix socket has a path instead, and a client on it usually none.
"""

from __future__ import annotations

import asyncio
from typing import Final

from gogate_py.addresses import Address, plain
from gogate_py.wire.proxy_protocol import Endpoint, ProxyHeader

#: What a client on a Unix socket is called.
UNIX: Final = "unix"


def source(transport: asyncio.BaseTransport, header: ProxyHeader | None) -> Endpoint:
    """Where the client is."""
    if header is not None and header.source is not None:
        return header.source
    return _endpoint(transport, "peername")


def destination(transport: asyncio.BaseTransport, header: ProxyHeader | None) -> Endpoint:
    """Where it connected to."""
    if header is not None and header.destination is not None:
        return header.destination
    return _endpoint(transport, "sockname")


def _endpoint(transport: asyncio.BaseTransport, which: str) -> Endpoint:
    name = transport.get_extra_info(which)
    if isinstance(name, tuple) and name:
        return plain(name[0]), name[1]
    return (name, 0) if isinstance(name, str) else ("", 0)


def host(endpoint: Endpoint) -> str:
    """Its IP address, or UNIX."""
    name = endpoint[0]
    return UNIX if name == "" or name.startswith("/") else name


def label(endpoint: Endpoint) -> str:
    """How it is shown in logs and by the admin API: ``address:port``, or UNIX."""
    return UNIX if host(endpoint) is UNIX else str(Address(*endpoint))
