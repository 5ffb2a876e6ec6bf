"""ClientHellos that no library would send any more, byte by byte (RFC 5246 section 7.4.1), and what is answered."""

from __future__ import annotations

import socket
import struct
from typing import Final, NamedTuple

TLS_1_0: Final = 0x0301
TLS_1_1: Final = 0x0302
TLS_1_2: Final = 0x0303
#: Says that the client knows of secure renegotiation (RFC 5746).
SCSV: Final = 0x00FF

#: What must never be agreed on, by what is wrong with it.
WEAK: Final = {
    "NULL": (0x0001, 0x0002, 0x003B, 0xC006, 0xC010),
    "EXPORT": (0x0003, 0x0006, 0x0008, 0x000E, 0x0014, 0x0017, 0x0019, 0x0062, 0x0064),
    "anonymous": (0x0018, 0x001B, 0x0034, 0x003A, 0x006C, 0x006D, 0x00A6, 0x00A7, 0xC018, 0xC019),
    "RC4": (0x0004, 0x0005, 0xC007, 0xC011),
    "3DES and DES": (0x0009, 0x000A, 0x0016, 0xC008, 0xC012),
    "without forward secrecy": (0x002F, 0x0035, 0x003C, 0x003D, 0x009C, 0x009D),
    "CBC": (0xC009, 0xC00A, 0xC013, 0xC014, 0xC023, 0xC024, 0xC027, 0xC028),
}
#: Those of TLS 1.2 that are left, for ECDSA and RSA.
GOOD: Final = (0xC02B, 0xC02C, 0xC02F, 0xC030, 0xCCA8, 0xCCA9)


class Answer(NamedTuple):
    """The first record of the answer: an alert's number, or a ServerHello's choice. "" and 0: closed without one."""

    alert: int = 0
    suite: int = 0
    compression: int = 0
    extensions: tuple[int, ...] = ()


def ask(
    address: tuple[str, int], suites: tuple[int, ...], *, version: int = TLS_1_2, compression: bytes = b"\0",
    name: str = "localhost",
) -> Answer:
    """Send a ClientHello of an old client, and read the first record."""
    with socket.create_connection(address, timeout=10) as sock:
        sock.sendall(_hello(suites, version, compression, name))
        head = _exactly(sock, 5)
        if not head:
            return Answer()
        kind, _, length = struct.unpack("!BHH", head)
        body = _exactly(sock, length)
    if kind == 21:
        return Answer(alert=body[1])
    assert (kind, body[0]) == (22, 2), (kind, body[:1])  # a handshake record with a ServerHello
    session = body[38]
    suite, chosen = struct.unpack_from("!HB", body, 39 + session)
    found, at = [], 44 + session
    while at < 4 + int.from_bytes(body[1:4], "big"):
        number, size = struct.unpack_from("!HH", body, at)
        found.append(number)
        at += 4 + size
    return Answer(0, suite, chosen, tuple(found))


def _hello(suites: tuple[int, ...], version: int, compression: bytes, name: str) -> bytes:
    server_name = struct.pack("!HBH", len(name) + 3, 0, len(name)) + name.encode()
    groups = struct.pack("!HHH", 4, 0x001D, 0x0017)
    formats = b"\1\0"
    schemes = (0x0403, 0x0804, 0x0401, 0x0203, 0x0201)
    signatures = struct.pack(f"!H{len(schemes)}H", 2 * len(schemes), *schemes)
    extensions = b"".join(
        struct.pack("!HH", number, len(body)) + body
        for number, body in ((0, server_name), (10, groups), (11, formats), (13, signatures)))
    body = (
        struct.pack("!H", version) + bytes(range(32)) + b"\0"
        + struct.pack(f"!H{len(suites)}H", 2 * len(suites), *suites)
        + bytes((len(compression),)) + compression
        + struct.pack("!H", len(extensions)) + extensions)
    handshake = b"\1" + len(body).to_bytes(3, "big") + body
    return struct.pack("!BHH", 22, min(version, TLS_1_0), len(handshake)) + handshake


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    try:
        while len(data) < size and (more := sock.recv(size - len(data))):
            data += more
    except ConnectionError:
        return b""
    return data if len(data) == size else b""
