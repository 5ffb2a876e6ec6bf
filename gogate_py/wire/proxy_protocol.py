"""PROXY protocol, versions 1 and 2: the header in which a proxy in front says whose connection it passes on.

The specification is haproxy's doc/proxy-protocol.txt. Rules of ours (SECURITY.md T28):

- a listener either requires the header on every connection or does not know it: nothing here tries to find out whether
  there is one, because a client could then choose;
- the first byte decides between the versions; whatever is not exactly a header is refused as soon as that is certain;
- version 1 takes at most 107 bytes, version 2 at most 536 (its own 16 and 520 of addresses and TLVs);
- UDP families are refused: what arrives here is a stream. UNKNOWN (1), LOCAL and UNSPEC (2) are headers without
  addresses: the connection speaks for itself (health checks of the proxy in front);
- TLVs are walked (one that does not fit ends the connection), a CRC32c is verified, everything else in them is ignored.

Knows bytes only. Whom to believe, and for how long to wait, is the driver's business.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from typing import Final, NamedTuple

from gogate_py.errors import Failure, WireError

#: "PROXY TCP6 " with two addresses and ports of full length, and CRLF.
MAX_V1: Final = 107
MAX_V2: Final = 536
SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"

#: ("ip", port), or ("/path", 0) for a Unix socket ("" for one without a name).
Endpoint = tuple[str, int]


class ProxyHeader(NamedTuple):
    """A whole header: ``size`` bytes at the start of the connection; what is behind them is the client's.

    ``source`` and ``destination`` are the connection as the client made it; None when the header names no addresses.
    Addresses are in shortest form, IPv4-mapped IPv6 as IPv4.
    """

    size: int
    source: Endpoint | None = None
    destination: Endpoint | None = None


_PREFIX_V1: Final = b"PROXY "
# Decimal without leading zeros, because some read those as octal; the ranges are checked afterwards.
_ip4: Final = rb"(?:0|[1-9][0-9]{0,2})(?:\.(?:0|[1-9][0-9]{0,2})){3}"
_ip6: Final = rb"[0-9A-Fa-f:.]{2,45}"
_port: Final = rb"(0|[1-9][0-9]{0,4})"
_line_v1: Final = re.compile(
    rb"PROXY (?:TCP4 (%b) (%b) %b %b|TCP6 (%b) (%b) %b %b|UNKNOWN(?: [^\r\n]*)?)\r\n"
    % (_ip4, _ip4, _port, _port, _ip6, _ip6, _port, _port)
).match

_HEAD_V2: Final = struct.Struct("!12sBBH")
_LOCAL: Final = 0x20
_PROXY: Final = 0x21
_TCP4: Final = 0x11
_TCP6: Final = 0x21
_UNIX: Final = 0x31
#: Family and protocol → bytes of the address block. UNSPEC has none that means anything.
_ADDRESS_BYTES: Final = {0x00: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}
_UNIX_PATH: Final = 108
_TLV_CRC32C: Final = 0x03


def _refused(rule: str) -> WireError:
    return WireError(Failure.BAD_REQUEST, f"PROXY protocol: {rule}.")


def parse(data: bytes) -> ProxyHeader | None:
    """The header at the start of a connection; None while it is not complete.

    Raises WireError as soon as the bytes cannot become a header. To be asked again with all bytes so far: they are few.
    """
    if data[:1] == b"P":
        return _parse_v1(data)
    if data[: len(SIGNATURE)] != SIGNATURE[: len(data)]:
        raise _refused("the connection does not begin with a header")
    if len(data) < _HEAD_V2.size:
        return None
    return _parse_v2(data)


def _parse_v1(data: bytes) -> ProxyHeader | None:
    if data[: len(_PREFIX_V1)] != _PREFIX_V1[: len(data)]:
        raise _refused("the connection does not begin with a header")
    end = data.find(b"\n", 0, MAX_V1)
    if end < 0:
        if len(data) >= MAX_V1:
            raise _refused("a version 1 header is longer than 107 bytes")
        return None
    found = _line_v1(data)
    if found is None:
        raise _refused("a malformed version 1 header")
    source4, to4, port4, to_port4, source6, to6, port6, to_port6 = found.groups()
    if source4 is not None:
        return ProxyHeader(end + 1, _endpoint_v1(source4, port4, 4), _endpoint_v1(to4, to_port4, 4))
    if source6 is not None:
        return ProxyHeader(end + 1, _endpoint_v1(source6, port6, 6), _endpoint_v1(to6, to_port6, 6))
    return ProxyHeader(end + 1)


def _endpoint_v1(host: bytes, port: bytes, version: int) -> Endpoint:
    try:
        address = ipaddress.IPv4Address(host.decode()) if version == 4 else ipaddress.IPv6Address(host.decode())
    except ValueError:
        raise _refused("a version 1 header with an invalid address") from None
    number = int(port)
    if number > 65535:
        raise _refused("a version 1 header with an invalid port")
    return _shortest(address), number


def _parse_v2(data: bytes) -> ProxyHeader | None:
    _, command, family, length = _HEAD_V2.unpack_from(data)
    if command not in (_LOCAL, _PROXY):
        raise _refused("an unknown version or command")
    size = _HEAD_V2.size + length
    if size > MAX_V2:
        raise _refused("a version 2 header is longer than 536 bytes")
    # LOCAL: the family is whatever the sender had; addresses and TLVs are for nobody.
    needed = 0 if command == _LOCAL else _ADDRESS_BYTES.get(family)
    if needed is None:
        raise _refused("an address family that is not a stream's")
    if length < needed:
        raise _refused("a version 2 header without room for its addresses")
    if len(data) < size:
        return None
    if command == _LOCAL:
        return ProxyHeader(size)
    at = _HEAD_V2.size
    if family != 0x00:
        _check_tlvs(data[:size], at + needed)
    if family == _TCP4:
        ends: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...] = tuple(
            ipaddress.IPv4Address(data[start : start + 4]) for start in (at, at + 4)
        )
        ports = struct.unpack_from("!HH", data, at + 8)
    elif family == _TCP6:
        ends = tuple(ipaddress.IPv6Address(data[start : start + 16]) for start in (at, at + 16))
        ports = struct.unpack_from("!HH", data, at + 32)
    elif family == _UNIX:
        source, destination = (_path(data[start : start + _UNIX_PATH]) for start in (at, at + _UNIX_PATH))
        return ProxyHeader(size, (source, 0), (destination, 0))
    else:
        return ProxyHeader(size)
    return ProxyHeader(size, (_shortest(ends[0]), ports[0]), (_shortest(ends[1]), ports[1]))


def _path(field: bytes) -> str:
    """A Unix socket's path; one without a name, or in the abstract namespace, is ""."""
    return field.partition(b"\0")[0].decode("utf-8", "backslashreplace")


def _shortest(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _check_tlvs(header: bytes, at: int) -> None:
    """Walk the TLVs: each must fit, and a checksum must be right."""
    size = len(header)
    while at < size:
        if size - at < 3:
            raise _refused("a TLV that does not fit")
        kind, length = struct.unpack_from("!BH", header, at)
        value = at + 3
        at = value + length
        if at > size:
            raise _refused("a TLV that does not fit")
        if kind == _TLV_CRC32C:
            if length != 4:
                raise _refused("a checksum of the wrong size")
            (announced,) = struct.unpack_from("!I", header, value)
            if crc32c(header[:value] + b"\0\0\0\0" + header[value + 4 :]) != announced:
                raise _refused("a wrong checksum")


def encode(version: int, source: Endpoint | None, destination: Endpoint | None) -> bytes:
    """The header of ``version`` 1 or 2 for a connection from ``source`` to ``destination``.

    Without both of them, or with a Unix socket in version 1, which has no words for it, the header says that nothing is
    known (UNKNOWN, LOCAL). An IPv4 and an IPv6 end together are written as IPv6, the former IPv4-mapped.
    """
    ends = _ends(source, destination)
    if version == 1:
        return _encode_v1(ends)
    if ends is not None:
        packed_source, packed_destination, ports = ends
        family = _TCP4 if len(packed_source) == 4 else _TCP6
        return _version2(_PROXY, family, packed_source + packed_destination + struct.pack("!HH", *ports))
    if source is None or destination is None or not (_is_path(source) and _is_path(destination)):
        return _version2(_LOCAL, 0x00, b"")
    paths = [path.encode("utf-8", "surrogateescape")[:_UNIX_PATH] for path in (source[0], destination[0])]
    return _version2(_PROXY, _UNIX, b"".join(path.ljust(_UNIX_PATH, b"\0") for path in paths))


def _version2(command: int, family: int, block: bytes) -> bytes:
    return _HEAD_V2.pack(SIGNATURE, command, family, len(block)) + block


def _is_path(endpoint: Endpoint) -> bool:
    return endpoint[0] == "" or endpoint[0].startswith("/")


def _ends(source: Endpoint | None, destination: Endpoint | None) -> tuple[bytes, bytes, tuple[int, int]] | None:
    """Both addresses packed in one family, and the ports; None when they are not two IP addresses."""
    if source is None or destination is None or _is_path(source) or _is_path(destination):
        return None
    addresses = [ipaddress.ip_address(host.partition("%")[0]) for host in (source[0], destination[0])]
    if addresses[0].version != addresses[1].version:
        addresses = [
            ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + one.packed) if one.version == 4 else one
            for one in addresses
        ]
    return addresses[0].packed, addresses[1].packed, (source[1], destination[1])


def _encode_v1(ends: tuple[bytes, bytes, tuple[int, int]] | None) -> bytes:
    if ends is None:
        return b"PROXY UNKNOWN\r\n"
    packed_source, packed_destination, (port, to_port) = ends
    family = "TCP4" if len(packed_source) == 4 else "TCP6"
    source, destination = ipaddress.ip_address(packed_source), ipaddress.ip_address(packed_destination)
    return f"PROXY {family} {source} {destination} {port} {to_port}\r\n".encode()


def _table() -> tuple[int, ...]:
    values = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        values.append(value)
    return tuple(values)


_CRC32C: Final = _table()


def crc32c(data: bytes) -> int:
    """The Castagnoli checksum of at most some hundred bytes (RFC 3720 appendix B.4); 0.1 µs a byte."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _CRC32C[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF
