"""``host:port`` values: parse, format, compare.

Accepted: ``host:port``, ``:port`` (all interfaces), ``[v6]:port``, ``unix:/path``. Parsing says nothing about whether
a name resolves; that is the resolver's business.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple

#: Connections that may wait at a listening socket; the kernel caps it at net.core.somaxconn.
BACKLOG: Final = 4096

# RFC 1123 labels, plus "_" which service names in the wild (Docker Compose, SRV style) really carry.
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\Z")


class Address(NamedTuple):
    """One TCP address or Unix socket path. ``host`` is "" for all interfaces, an IP literal without brackets or a
    name."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_unix(self) -> bool:
        """Whether this is a Unix socket path."""
        return bool(self.path)


def plain(host: str) -> str:
    """A peer's address as people know it: an IPv4 client of a dual-stack socket as IPv4, and without a scope."""
    if host.startswith("::ffff:") and "." in host:
        return host[7:]
    return host.partition("%")[0]


def is_ip(host: str) -> bool:
    """Whether ``host`` is an IPv4 or IPv6 literal (no brackets)."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def parse(text: str, *, need_host: bool = False, allow_unix: bool = True, allow_port_zero: bool = False) -> Address:
    """Parse an address.

    Raises ValueError with a sentence a user can act on. ``need_host`` refuses ``:port`` (a backend needs a host);
    ``allow_port_zero`` accepts port 0 (a listener that takes any free port).
    """
    if text.startswith("unix:"):
        if not allow_unix:
            raise ValueError("a Unix socket path is not possible here; expected host:port")
        path = text[5:]
        if not path.startswith("/"):
            raise ValueError("a Unix socket needs an absolute path, as in unix:/run/gogate.sock")
        return Address("", 0, path)
    if "://" in text:
        raise ValueError("expected host:port without a scheme, as in localhost:9001")
    host, colon, port_text = text.rpartition(":")
    if not colon:
        raise ValueError("expected host:port, as in localhost:9001 (the port is missing)")
    if not (port_text.isascii() and port_text.isdecimal() and len(port_text) <= 5):
        raise ValueError(f"{port_text!r} is not a port number (1-65535)")
    port = int(port_text)
    if port > 65535 or (port == 0 and not allow_port_zero):
        raise ValueError(f"port {port} is out of range (1-65535)")
    if host.startswith("["):
        if not host.endswith("]"):
            raise ValueError("an IPv6 address is written [address]:port")
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError(f"{host!r} is not an IPv6 address") from None
    elif ":" in host:
        raise ValueError("an IPv6 address is written in brackets, as in [::1]:8080")
    elif host == "":
        if need_host:
            raise ValueError("expected host:port (the host is missing)")
    elif not is_ip(host):
        name = host[:-1] if host.endswith(".") else host
        if len(name) > 253 or not all(_LABEL.match(label) for label in name.split(".")):
            raise ValueError(f"{host!r} is not a host name or IP address")
        if re.fullmatch(r"[0-9.]+|0[xX][0-9a-fA-F]+", name):
            raise ValueError(f"{host!r} is neither a dotted IPv4 address nor a host name")
    return Address(host, port)
