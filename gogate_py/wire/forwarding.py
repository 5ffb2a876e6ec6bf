"""Checked inbound head → new outbound head, both ways.

The inbound head is never copied: what goes out is the request line, the fields that the check left in the list, framing
in canonical form and the lines that gogate sets itself, in that order. Hop-by-hop fields were removed before anything
was added, so a client cannot name one of ours for removal (SECURITY.md T6); forwarding fields of untrusted peers are
replaced, never appended to (T7).

Does not know connections or time; who is trusted is told.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable
from typing import Final

from gogate_py.wire.head_check import RequestHead, ResponseHead
from gogate_py.wire.target import is_valid_host

# IPv4 with an optional port, IPv6 with or without brackets, a port only behind brackets. No zone ids: they mean
# something on one machine only.
_hop: Final = re.compile(
    r"([0-9]{1,3}(?:\.[0-9]{1,3}){3})(?::[0-9]{1,5})?"
    r"|\[([0-9A-Fa-f.]*:[0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?"
    r"|([0-9A-Fa-f.]*:[0-9A-Fa-f:.]+)"
).fullmatch

# Longer than any address with brackets and port.
_MAX_HOP: Final = 64


def request_head(head: RequestHead, backend_lines: bytes, *, default_host: bytes = b"") -> bytes:
    """The outbound request head.

    ``backend_lines`` are finished lines, each ending in CRLF (see forwarded_lines; X-Request-ID). ``default_host``
    stands in where an HTTP/1.0 client sent no Host. An Upgrade is only asked for while ``head.websocket`` is set: the
    caller clears it where a route does not allow it.
    """
    lines = [b"%b %b%b HTTP/1.1\r\nHost: %b\r\n" % (head.method, head.path, head.query, head.host or default_host)]
    lines.extend([b"%b: %b\r\n" % field for field in head.fields])
    if head.chunked:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    elif head.content_length >= 0:
        lines.append(b"Content-Length: %d\r\n" % head.content_length)
    if head.expect_continue:
        lines.append(b"Expect: 100-continue\r\n")
    if head.websocket:
        lines.append(b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
    lines.append(backend_lines)
    lines.append(b"\r\n")
    return b"".join(lines)


def response_head(
    head: ResponseHead,
    status_line_minor: int,
    *,
    length: int = -1,
    chunked: bool = False,
    close: bool = False,
    request_id: bytes = b"",
    keep_alive_10: bool = False,
) -> bytes:
    """The final response head for the client.

    ``length`` (-1: none) and ``chunked`` say how the body is framed towards the client; for HEAD and 304 the length is
    the one the backend announced. 204 gets neither, 304 no coding (RFC 9110 section 8.6, RFC 9112 section 6.1).
    ``keep_alive_10``: the client speaks HTTP/1.0 and the connection stays open, which it must be told.
    """
    lines = [b"HTTP/1.%d %d %b\r\n" % (status_line_minor, head.status, head.reason)]
    lines.extend([b"%b: %b\r\n" % field for field in head.fields])
    if head.status >= 200 and head.status != 204:
        if chunked:
            if head.status != 304:
                lines.append(b"Transfer-Encoding: chunked\r\n")
        elif length >= 0:
            lines.append(b"Content-Length: %d\r\n" % length)
    if close:
        lines.append(b"Connection: close\r\n")
    elif keep_alive_10:
        lines.append(b"Connection: keep-alive\r\n")
    if request_id:
        lines.append(b"X-Request-ID: %b\r\n" % request_id)
    lines.append(b"\r\n")
    return b"".join(lines)


def interim_head(head: ResponseHead) -> bytes:
    """A 1xx head for the client, without framing; a 101 names the protocol it switches to again."""
    lines = [b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason)]
    lines.extend([b"%b: %b\r\n" % field for field in head.fields])
    if head.upgrade:
        lines.append(b"Connection: Upgrade\r\nUpgrade: %b\r\n" % head.upgrade)
    lines.append(b"\r\n")
    return b"".join(lines)


def forwarded_lines(
    peer_ip: bytes,
    proto: bytes,
    host: bytes,
    inbound: list[tuple[bytes, bytes]],
    trusted: bool,
    *,
    client_ip: bytes = b"",
) -> bytes:
    """The X-Forwarded-For, -Host, -Proto and X-Real-IP lines for a backend.

    An untrusted peer is the client, and nothing that it claims survives. A trusted peer's X-Forwarded-For is continued
    with the peer, as far to the left as every hop is an address; its Host and Proto are kept when valid; X-Real-IP is
    ``client_ip`` (see client_address), by default the peer. Other inbound forwarding fields (Forwarded,
    X-Forwarded-Port …) end here: nobody maintains them further on.
    """
    chain = peer_ip
    if trusted and inbound:
        hops = _valid_tail(_values(inbound, b"x-forwarded-for"))
        chain = b", ".join([*hops, peer_ip])
        claimed_hosts = _values(inbound, b"x-forwarded-host")
        if len(claimed_hosts) == 1 and is_valid_host(claimed_hosts[0]):
            host = claimed_hosts[0]
        claimed_protos = _values(inbound, b"x-forwarded-proto")
        if len(claimed_protos) == 1 and claimed_protos[0] in (b"http", b"https"):
            proto = claimed_protos[0]
    host_line = b"X-Forwarded-Host: %b\r\n" % host if host else b""
    return b"X-Forwarded-For: %b\r\n%bX-Forwarded-Proto: %b\r\nX-Real-IP: %b\r\n" % (
        chain,
        host_line,
        proto,
        client_ip if trusted and client_ip else peer_ip,
    )


def client_address(peer_ip: str, inbound_xff: list[bytes], is_trusted: Callable[[str], bool]) -> str:
    """The client's IP address: the right-most one of the chain, the peer included, that is not trusted (T7).

    Each trusted hop vouches for the one to its left. A malformed hop ends the chain without an answer, and the peer
    counts as the client. All trusted: the left-most, a client inside of the trusted networks.
    """
    if not inbound_xff or not is_trusted(peer_ip):
        return peer_ip
    client = peer_ip
    for hop in reversed(b",".join(inbound_xff).split(b",")):
        address = _hop_address(hop)
        if address is None:
            return peer_ip
        client = address
        if not is_trusted(client):
            break
    return client


def _values(fields: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for field, value in fields if field.lower() == name]


def _valid_tail(values: list[bytes]) -> list[bytes]:
    """The longest end of an X-Forwarded-For chain in which every hop is an address, as it was written."""
    tail: list[bytes] = []
    for hop in reversed(b",".join(values).split(b",")):
        if _hop_address(hop) is None:
            break
        tail.append(hop.strip(b" \t"))
    tail.reverse()
    return tail


def _hop_address(hop: bytes) -> str | None:
    """The address of one hop in its shortest form (IPv4-mapped IPv6 as IPv4), or None when it is not one."""
    hop = hop.strip(b" \t")
    return _address(hop) if len(hop) <= _MAX_HOP else None


@functools.lru_cache(maxsize=4096)
def _address(hop: bytes) -> str | None:
    # Remembered: the clients of a proxy come again and again, and parsing an address takes 5 µs.
    found = _hop(hop.decode("latin-1"))
    if found is None:
        return None
    try:
        address = ipaddress.ip_address(found[1] or found[2] or found[3])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
