"""The PROXY protocol header, versions 1 and 2 (haproxy's doc/proxy-protocol.txt, SECURITY.md T28)."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.errors import WireError
from gogate_py.wire.proxy_protocol import MAX_V1, MAX_V2, SIGNATURE, ProxyHeader, crc32c, encode, parse

V4 = (("192.0.2.1", 56324), ("198.51.100.7", 443))
V6 = (("2001:db8::1", 56324), ("2001:db8::2", 443))
V4_BLOCK = bytes([192, 0, 2, 1, 198, 51, 100, 7]) + struct.pack("!HH", 56324, 443)
V6_BLOCK = ipaddress.ip_address(V6[0][0]).packed + ipaddress.ip_address(V6[1][0]).packed + V4_BLOCK[8:]
UNIX_BLOCK = b"/run/client.sock".ljust(108, b"\0") + b"/run/gogate.sock".ljust(108, b"\0")


def v2(command: int, family: int, block: bytes, length: int | None = None) -> bytes:
    """A version 2 frame, put together by hand."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(block) if length is None else length) + block


def tlv(kind: int, value: bytes) -> bytes:
    """One TLV."""
    return struct.pack("!BH", kind, len(value)) + value


def with_checksum(frame: bytes, at: int) -> bytes:
    """A frame with the right CRC32c at this place."""
    return frame[:at] + struct.pack("!I", crc32c(frame)) + frame[at + 4 :]


CHECKED = with_checksum(v2(0x21, 0x11, V4_BLOCK + tlv(0x03, b"\0\0\0\0") + tlv(0x04, b"")), 31)

GOOD = {
    "v1 tcp4": (b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n", V4),
    "v1 tcp6": (b"PROXY TCP6 2001:db8::1 2001:DB8:0:0::2 56324 443\r\n", V6),
    "v1 mapped": (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c633:6407 56324 443\r\n", V4),
    "v1 longest": (b"PROXY TCP6 %b %b 65535 65535\r\n" % ((b"ffff:" * 8)[:-1], (b"ffff:" * 8)[:-1]),
                   (((":".join(["ffff"] * 8)), 65535), (":".join(["ffff"] * 8), 65535))),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", None),
    "v1 unknown, with something": (b"PROXY UNKNOWN ffff::1 whatever 0 99999\r\n", None),
    "v1 unknown, longest": (b"PROXY UNKNOWN ".ljust(MAX_V1 - 2, b"x") + b"\r\n", None),
    "v2 tcp4": (v2(0x21, 0x11, V4_BLOCK), V4),
    "v2 tcp6": (v2(0x21, 0x21, V6_BLOCK), V6),
    "v2 unix": (v2(0x21, 0x31, UNIX_BLOCK), (("/run/client.sock", 0), ("/run/gogate.sock", 0))),
    "v2 unix without names": (v2(0x21, 0x31, bytes(216)), (("", 0), ("", 0))),
    "v2 local": (v2(0x20, 0x00, b""), None),
    "v2 local, with addresses": (v2(0x20, 0x11, V4_BLOCK), None),
    "v2 local, with rubbish": (v2(0x20, 0xFF, b"x" * 99), None),
    "v2 unspec": (v2(0x21, 0x00, b"rubbish"), None),
    "v2 with TLVs": (v2(0x21, 0x11, V4_BLOCK + tlv(0x01, b"h2") + tlv(0x04, b"") + tlv(0xEA, b"\x01vpce-1")), V4),
    "v2 with a checksum": (CHECKED, V4),
    "v2 longest": (v2(0x21, 0x11, V4_BLOCK + tlv(0x04, bytes(520 - 12 - 3))), V4),
}  # fmt: skip

BAD = {
    "a request": b"GET / HTTP/1.1\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01",
    "nothing of ours": b"\0",
    "POST": b"POST /",
    "v1 lower case": b"proxy TCP4",
    "v1 line feed": b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\n",
    "v1 bare CR": b"PROXY TCP4 192.0.2.1 198.51.100.7\r56324 443\r\n",
    "v1 two blanks": b"PROXY TCP4  192.0.2.1 198.51.100.7 56324 443\r\n",
    "v1 trailing blank": b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443 \r\n",
    "v1 tab": b"PROXY\tTCP4 192.0.2.1 198.51.100.7 56324 443\r\n",
    "v1 a field missing": b"PROXY TCP4 192.0.2.1 198.51.100.7 56324\r\n",
    "v1 UDP": b"PROXY UDP4 192.0.2.1 198.51.100.7 56324 443\r\n",
    "v1 octet": b"PROXY TCP4 192.0.2.256 198.51.100.7 56324 443\r\n",
    "v1 leading zero": b"PROXY TCP4 192.0.2.01 198.51.100.7 56324 443\r\n",
    "v1 short address": b"PROXY TCP4 192.0.513 198.51.100.7 56324 443\r\n",
    "v1 families mixed": b"PROXY TCP4 2001:db8::1 198.51.100.7 56324 443\r\n",
    "v1 IPv4 as TCP6": b"PROXY TCP6 192.0.2.1 198.51.100.7 56324 443\r\n",
    "v1 scope": b"PROXY TCP6 fe80::1%eth0 2001:db8::2 1 2\r\n",
    "v1 port": b"PROXY TCP4 192.0.2.1 198.51.100.7 65536 443\r\n",
    "v1 port with a zero": b"PROXY TCP4 192.0.2.1 198.51.100.7 0443 443\r\n",
    "v1 signed port": b"PROXY TCP4 192.0.2.1 198.51.100.7 +443 443\r\n",
    "v1 Arabic digits": "PROXY TCP4 192.0.2.1 198.51.100.7 ٤٤٣ 443\r\n".encode(),
    "v1 too long": b"PROXY UNKNOWN ".ljust(MAX_V1 - 1, b"x") + b"\r\n",
    "v1 without an end": b"PROXY UNKNOWN ".ljust(MAX_V1, b"x"),
    "v1 no type": b"PROXY \r\n",
    "v1 UNKNOWNS": b"PROXY UNKNOWNS\r\n",
    "v2 signature": SIGNATURE[:-1] + b"\r",
    "v2 version 1": v2(0x11, 0x11, V4_BLOCK),
    "v2 version 3": v2(0x31, 0x11, V4_BLOCK),
    "v2 command": v2(0x22, 0x11, V4_BLOCK),
    "v2 UDP": v2(0x21, 0x12, V4_BLOCK),
    "v2 UDP 6": v2(0x21, 0x22, V6_BLOCK),
    "v2 Unix datagram": v2(0x21, 0x32, UNIX_BLOCK),
    "v2 family": v2(0x21, 0x41, UNIX_BLOCK),
    "v2 transport": v2(0x21, 0x13, V4_BLOCK),
    "v2 without room": v2(0x21, 0x11, V4_BLOCK[:-1]),
    "v2 without room for v6": v2(0x21, 0x21, V4_BLOCK),
    "v2 without room for paths": v2(0x21, 0x31, UNIX_BLOCK[:-1]),
    "v2 too long": v2(0x21, 0x11, V4_BLOCK + tlv(0x04, bytes(521 - 12 - 3))),
    "v2 too long, said in advance": v2(0x21, 0x11, b"", 521),
    "v2 too long, LOCAL": v2(0x20, 0x00, b"", 65535),
    "v2 half a TLV": v2(0x21, 0x11, V4_BLOCK + b"\x04\0"),
    "v2 a TLV beyond the end": v2(0x21, 0x11, V4_BLOCK + b"\x04\0\x02x"),
    "v2 wrong checksum": v2(0x21, 0x11, V4_BLOCK + tlv(0x03, b"\0\0\0\1")),
    "v2 checksum of two bytes": v2(0x21, 0x11, V4_BLOCK + tlv(0x03, b"\0\0")),
    "v2 changed behind the checksum's back": CHECKED[:16] + bytes([CHECKED[16] ^ 1]) + CHECKED[17:],
}


def header(frame: bytes, ends: tuple[tuple[str, int], tuple[str, int]] | None) -> ProxyHeader:
    """What a frame should be read as."""
    return ProxyHeader(len(frame)) if ends is None else ProxyHeader(len(frame), *ends)


@pytest.mark.parametrize("name", GOOD)
def test_good_frames(name: str) -> None:
    """A frame is understood when its last byte is here, at no earlier cut, and whatever comes behind it."""
    frame, ends = GOOD[name]
    for cut in range(len(frame)):
        assert parse(frame[:cut]) is None
    assert parse(frame) == header(frame, ends)
    assert parse(frame + b"GET / HTTP/1.1\r\n\r\n") == header(frame, ends)
    assert parse(frame + frame) == header(frame, ends)


@pytest.mark.parametrize("name", BAD)
def test_bad_frames(name: str) -> None:
    """What cannot become a header is refused, and no part of it taken for one."""
    frame = BAD[name]
    with pytest.raises(WireError) as caught:
        parse(frame)
    assert caught.value.detail.startswith("PROXY protocol: ")
    for cut in range(len(frame)):
        try:
            assert parse(frame[:cut]) is None
        except WireError:
            pass


def test_nothing_longer_than_the_limits_is_waited_for() -> None:
    """At 107 bytes of version 1 and 536 of version 2 the decision is made, whatever the bytes are."""
    with pytest.raises(WireError):
        parse(b"PROXY TCP4 " + b"1" * (MAX_V1 - 11))
    assert parse(GOOD["v2 longest"][0]) is not None
    assert len(GOOD["v2 longest"][0]) == MAX_V2


addresses = st.ip_addresses(v=4) | st.ip_addresses(v=6)
ports = st.integers(0, 65535)


def shortest(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """An IPv4-mapped address is the IPv4 address."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([1, 2]), addresses, ports, addresses, ports, st.binary(max_size=20))
def test_round_trip(
    version: int,
    source: ipaddress.IPv4Address | ipaddress.IPv6Address,
    port: int,
    destination: ipaddress.IPv4Address | ipaddress.IPv6Address,
    to_port: int,
    rest: bytes,
) -> None:
    """What is written for any two addresses, of one family or of two, is read as the same two."""
    frame = encode(version, (str(source), port), (str(destination), to_port))
    ends = ((shortest(source), port), (shortest(destination), to_port))
    assert parse(frame + rest) == header(frame, ends)


@settings(max_examples=100, deadline=None)
@given(*[st.text("abc/._é", max_size=40).map(lambda name: "/" + name)] * 2)
def test_round_trip_of_unix_sockets(source: str, destination: str) -> None:
    """Version 2 names Unix sockets, with and without a path."""
    for one in (source, ""):
        frame = encode(2, (one, 0), (destination, 0))
        assert parse(frame) == header(frame, ((one, 0), (destination, 0)))


def test_written_frames() -> None:
    """The frames are the specification's, byte for byte."""
    assert encode(1, *V4) == GOOD["v1 tcp4"][0]
    assert encode(2, *V4) == GOOD["v2 tcp4"][0]
    assert encode(2, *V6) == GOOD["v2 tcp6"][0]
    assert encode(2, ("/run/client.sock", 0), ("/run/gogate.sock", 0)) == GOOD["v2 unix"][0]


@pytest.mark.parametrize("ends", [(None, None), (V4[0], None), (None, V4[1]), (("", 0), V4[1]), (V4[0], ("/run/x", 0))])
def test_unknown_ends(ends: tuple[tuple[str, int] | None, tuple[str, int] | None]) -> None:
    """Where an end is not known, or the two have nothing in common, the header says so rather than half of it."""
    assert encode(1, *ends) == b"PROXY UNKNOWN\r\n"
    assert encode(2, *ends) == v2(0x20, 0x00, b"")


def test_version_1_has_no_words_for_unix_sockets() -> None:
    """A Unix client is UNKNOWN in version 1."""
    assert encode(1, ("", 0), ("/run/gogate.sock", 0)) == b"PROXY UNKNOWN\r\n"


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([frame for frame, _ in GOOD.values()]),
    st.lists(st.tuples(st.integers(0, 535), st.integers(0, 255)), max_size=4),
    st.integers(0, 600),
)
def test_mutations_are_decided(frame: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    """Whatever arrives, it is a header, not yet one, or refused; a header is never longer than what is here."""
    data = bytearray(frame)
    for at, value in changes:
        data[at % len(data)] = value
    try:
        found = parse(bytes(data[:cut]))
    except WireError:
        return
    if found is not None:
        assert found.size <= min(cut, len(data), MAX_V2)


def test_crc32c() -> None:
    """The check value that everybody's CRC32c gives."""
    assert crc32c(b"123456789") == 0xE3069283
