"""Hostile requests, made from good ones: seeded, so that a number is enough to make the same bytes again.

``stream(seed)`` is what one connection sends: a message with zero to three mutations, now and then with a second, good
one pipelined behind it. Every stream has a target of its own, so that a request that a mutation smuggled shows.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

CRLF = b"\r\n"

#: @ is the stream's own target; each is valid as it stands.
GOOD = (
    b"GET @ HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET @?q=1&r=%2F HTTP/1.1\r\nHost: a.example:8080\r\nUser-Agent: x/1\r\nAccept: */*\r\nCookie: a=b; c=d\r\n\r\n",
    b"HEAD @ HTTP/1.1\r\nHost: [::1]:80\r\nConnection: keep-alive\r\n\r\n",
    b"DELETE @/%7Euser/./x HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\nX-Real-IP: 9.9.9.9\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
    b"GET http://b.example@ HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST @ HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 11\r\n\r\nhello world",
    b"PUT @ HTTP/1.1\r\nHost: a\r\nContent-Length: 38\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n\r\n",
    b"POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    b"POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n"
    b'1A;name=value;q="x y"\r\nabcdefghijklmnopqrstuvwxyz\r\n00\r\nX-T: 1\r\n\r\n',
    b"PATCH @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"26\r\nGET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n\r\n\r\n0\r\n\r\n",
    b"POST @ HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    b"GET @ HTTP/1.0\r\n\r\n",
    b"POST @ HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
    b"GET @ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n\r\n",
    b"GET @ HTTP/1.1\r\nHost: a\r\nConnection: close, x-a\r\nX-A: 1\r\nX-B: 2\r\nTE: trailers\r\nKeep-Alive: 5\r\n\r\n",
    b"\r\nGET @ HTTP/1.1\r\nHost: a\r\nX-Obs: caf\xe9 \t x\r\nX-Empty:\r\nX-Request-ID: my-id\r\n\r\n",
)

#: Whole lines that change the framing, the routing or the trust of a message when a parser believes them.
LINES = (
    b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: +5", b"Content-Length: 0x5",
    b"Content-Length: 5, 5", b"Content-Length: ", b"Content-Length:5 ", b"Content-Length: 1_0", b"Content-Length: -1",
    b"content-length: 005", b"Content-Length : 5", b"Content-Length\t: 5", b" Content-Length: 5",
    b"Content_Length: 5", b"Content-Length\x00: 5", b"Content-Length: 9223372036854775808",
    b"Content-Length: 99999999999999999999", b"Content-Length: \xb2", b"Transfer-Encoding: chunked",
    b"transfer-encoding:chunked", b"Transfer-Encoding: \tchunked", b"Transfer-Encoding : chunked",
    b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: ,chunked", b"Transfer-Encoding: chunked\x0b", b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding: chunked\t", b'Transfer-Encoding: "chunked"', b"Transfer_Encoding: chunked",
    b"Transfer-Encoding: gzip", b"Transfer-Encoding:", b"Transfer-Encoding: chunked;a=b",
    b"X: y\nTransfer-Encoding: chunked", b"X: y\rTransfer-Encoding: chunked", b"\tTransfer-Encoding: chunked",
    b"Host: b", b"host : b", b"Host: a, b", b"Host: a/b", b"Host: a@b", b"Host:", b"X-Host: b", b"Connection: close",
    b"Connection: keep-alive", b"Connection: Content-Length", b"Connection: X-Forwarded-For, host",
    b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"Upgrade: websocket", b"Upgrade: TLS/1.0, HTTP/1.1",
    b"Expect: 100-continue", b"Expect: 200-ok", b"Expect: ", b"TE: trailers, chunked", b"Trailer: Content-Length",
    b"X-Forwarded-For: 1.2.3.4", b"X_Forwarded_For: 1.2.3.4", b"X.Forwarded.For: 1.2.3.4", b"Forwarded: for=1.2.3.4",
    b"X-Request-ID: a b", b"X-Request-ID: \xff", b": nameless", b"no colon", b"", b" folded", b"\tfolded",
    b"a" * 300 + b": x", b"X-Long: " + b"x" * 5000, b"Proxy-Connection: close", b"X-Nul: a\x00b", b"X-Del: a\x7fb",
    b"X-Bel: \x07",
)
TARGETS = (
    b"@/../x", b"@/%2e%2e/x", b"@//x", b"@%2fx", b"@%5cx", b"@\\x", b"@%00", b"@%zz", b"@%", b"@#f", b"@;/..;/x",
    b"@?a b", b"@ x", b"@\x7f", b"@\xe9", b"@|x", b'@"x"', b"@?a[]=1|2", b"//evil@", b"http://a:b@evil@",
    b"http://evil:99999@", b"ftp://a@", b"http:/@", b"https://evil@", b"*", b"/..@", b"", b"@?" + b"x" * 9000,
    b"@%41%2D", b"@/.", b"@/...", b"@%u0041", b"@^", b"@`",
)
VERSIONS = (
    b"HTTP/1.0", b"HTTP/1.2", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.1 ", b"http/1.1", b"HTTP/1.10", b"HTTP/11", b"",
    b"RTSP/1.0", b" HTTP/1.1", b"HTTP/1,1", b"HTTP/1.1\t", b"HTTP/ 1.1", b"ICE/1.0", b"HTTP/+1.1",
)
METHODS = (
    b"get", b"CONNECT", b"TRACE", b"PRI", b"PURGE", b"GE T", b"G\x00T", b"", b" GET", b"\tGET", b"M-SEARCH", b"POST",
    b"HEAD", b"DESCRIBE", b"GET\t", b"OPTIONS",
)
SIZES = (
    b"0x5", b"+5", b"-5", b" 5", b"5 ", b"05", b"5;", b"5;a", b"5;a=", b'5;a="', b"5;a=b\nc", b"g", b"", b"5\r",
    b"5\n", b"5_0", b"5\x00", b"000000000000000000005", b"FFFFFFFFFFFFFFFF", b"7fffffffffffffff", b"5;" + b"x" * 5000,
    b"5.0", b"\xb2", b"5\t", b"5,5",
)
SPECIAL = (
    b"\x00", b"\r", b"\n", b"\r\n", b"\t", b" ", b"\x0b", b"\x0c", b"\x85", b"\xa0", b"\xff", b":", b",", b";", b'"',
    b"\x7f", b"\x1b", b"%", b"\\",
)
#: Bytes and sequences for mutations that know nothing of the grammar.
DISAGREED = (
    b"\x00", b"\r", b"\n", b"\r\n", b"\t", b" ", b"\x0b", b"\xa0", b":", b",", b";", b"0", b"9", b"x", b"\r\n\r\n",
)
LINE_ENDS = (b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n ", b"\r\n\t", b"\r\x00\n", b"\x85", b"\r\n\r", b" \r\n")
SURPLUS = (b"x", CRLF, CRLF * 2, b"\x00", b"\n", b"0\r\n\r\n", b"GET /surplus HTTP/1.1\r\nHost: a\r\n\r\n")
LENGTHS = (
    b"0", b"1", b"12", b"4294967297", b"+3", b"3 ", b"3\t", b"03", b"3,3", b"\x0b3", b"3\xa0", b"3;", b"3 3", b"",
)
TRAILERS = (b"Content-Length: 5", b"Host: x", b"X: \x00", b"bad line", b"X : y", b" folded", b"X: " + b"y" * 9000)


@dataclass
class Stream:
    """What one connection sends: the bytes, where they are cut, and the names of the mutations."""

    seed: int
    data: bytes
    cuts: tuple[int, ...]
    mutations: list[str]

    def pieces(self) -> list[bytes]:
        """The bytes as they are sent."""
        edges = (0, *self.cuts, len(self.data))
        return [self.data[start:end] for start, end in pairwise(edges) if start < end]

    def __repr__(self) -> str:
        return f"stream {self.seed} {self.mutations} cut at {self.cuts}: {self.data[:600]!r}"


def flip_bits(chance: random.Random, message: bytes) -> bytes:
    """Change a bit of one to three bytes."""
    data = bytearray(message)
    for _ in range(chance.randint(1, 3)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def insert_special(chance: random.Random, message: bytes) -> bytes:
    """Put a byte that parsers disagree about somewhere into the head."""
    at = chance.randrange(message.find(CRLF * 2) + 4 or len(message))
    return message[:at] + chance.choice(SPECIAL) * chance.choice((1, 1, 1, 2)) + message[at:]


def replace_special(chance: random.Random, message: bytes) -> bytes:
    """Replace any byte by one that parsers disagree about."""
    at = chance.randrange(len(message))
    return message[:at] + chance.choice(SPECIAL) + message[at + 1 :]


def add_line(chance: random.Random, message: bytes) -> bytes:
    """Add a line of LINES to the head."""
    lines, body = _split(message)
    lines.insert(chance.randint(1, len(lines)), chance.choice(LINES))
    return CRLF.join(lines) + CRLF * 2 + body


def double_line(chance: random.Random, message: bytes) -> bytes:
    """Say a line twice."""
    lines, body = _split(message)
    line = chance.choice(lines)
    lines.insert(chance.randint(0, len(lines)), line)
    return CRLF.join(lines) + CRLF * 2 + body


def drop_line(chance: random.Random, message: bytes) -> bytes:
    """Leave a line out."""
    lines, body = _split(message)
    del lines[chance.randrange(len(lines))]
    return CRLF.join(lines) + CRLF * 2 + body


def shuffle_lines(chance: random.Random, message: bytes) -> bytes:
    """Change the order of the fields."""
    lines, body = _split(message)
    fields = lines[1:]
    chance.shuffle(fields)
    return CRLF.join([lines[0], *fields]) + CRLF * 2 + body


def line_endings(chance: random.Random, message: bytes) -> bytes:
    """End one line, or all, in something else than CRLF."""
    other = chance.choice(LINE_ENDS)
    if chance.random() < 0.3:
        return message.replace(CRLF, other)
    places = [at for at in range(len(message)) if message.startswith(CRLF, at)]
    at = chance.choice(places) if places else 0
    return message[:at] + other + message[at + 2 :]


def truncate(chance: random.Random, message: bytes) -> bytes:
    """Stop somewhere."""
    return message[: chance.randrange(1, len(message))] if len(message) > 1 else message


def surplus(chance: random.Random, message: bytes) -> bytes:
    """Send more than was announced."""
    return message + chance.choice(SURPLUS)


def change_target(chance: random.Random, message: bytes) -> bytes:
    """Another target; @ stands for the old one's place in it."""
    return message.replace(b"@", chance.choice(TARGETS), 1)


def change_version(chance: random.Random, message: bytes) -> bytes:
    """Another version in the request line."""
    return message.replace(b"HTTP/1.1", chance.choice(VERSIONS), 1)


def change_method(chance: random.Random, message: bytes) -> bytes:
    """Another method."""
    _, space, rest = message.partition(b" ")
    return chance.choice(METHODS) + space + rest


def change_length(chance: random.Random, message: bytes) -> bytes:
    """Announce another length than there is."""
    for length in (b"11", b"38", b"3", b"2"):
        line = b"Content-Length: " + length
        if line in message:
            return message.replace(line, b"Content-Length: " + chance.choice(LENGTHS), 1)
    return add_line(chance, message)


def change_chunk_size(chance: random.Random, message: bytes) -> bytes:
    """Another size line in a chunked body."""
    lines, body = _split(message)
    sizes = [size for size in (b"5", b"6", b"1A", b"26", b"0", b"00") if body.startswith(size) or CRLF + size in body]
    if not sizes:
        return change_length(chance, message)
    return CRLF.join(lines) + CRLF * 2 + body.replace(chance.choice(sizes), chance.choice(SIZES), 1)


def change_chunk_end(chance: random.Random, message: bytes) -> bytes:
    """Something else behind the data of a chunk, or as trailers."""
    lines, body = _split(message)
    if not body:
        return surplus(chance, message)
    trailer = b"0\r\n" + chance.choice(TRAILERS) + CRLF
    old, new = chance.choice((
        (b"0\r\n", trailer), (CRLF, b"XX"), (CRLF, b"\n"), (CRLF * 2, CRLF), (b"0\r\n\r\n", b"0\n\n"),
        (b"0\r\n\r\n", b"0\r\n"), (body[-1:], b""),
    ))
    body = body.replace(old, new, chance.choice((-1, 1)))
    return CRLF.join(lines) + CRLF * 2 + body


def obscure_name(chance: random.Random, message: bytes) -> bytes:
    """A field name that is nearly the one it was."""
    lines, body = _split(message)
    at = chance.randrange(len(lines))
    name, colon, value = lines[at].partition(b":")
    lines[at] = chance.choice((
        name + b" ", name + b"\t", b" " + name, name.swapcase(), name + b"\x00", name[:-1] + b"\xe9", name + b":",
        name.replace(b"-", b"%2D"), name.replace(b"-", b"_"), name.replace(b"-", b"."), b"\xef\xbb\xbf" + name,
        name + b"\r", b'"' + name + b'"',
    )) + colon + value
    return CRLF.join(lines) + CRLF * 2 + body


def many_fields(chance: random.Random, message: bytes) -> bytes:
    """More fields than the limit, or just as many."""
    lines, body = _split(message)
    lines[1:1] = [b"X-%d: y" % number for number in range(chance.choice((95, 98, 99, 100, 101, 500)))]
    return CRLF.join(lines) + CRLF * 2 + body


def huge_field(chance: random.Random, message: bytes) -> bytes:
    """A field near the limit of the head."""
    lines, body = _split(message)
    lines.insert(1, b"X-Huge: " + b"h" * chance.choice((8200, 32400, 32600, 32768, 70000)))
    return CRLF.join(lines) + CRLF * 2 + body


Mutation = Callable[[random.Random, bytes], bytes]
MUTATIONS: tuple[tuple[Mutation, int], ...] = (
    (flip_bits, 8), (insert_special, 10), (replace_special, 6), (add_line, 16), (double_line, 6), (drop_line, 3),
    (shuffle_lines, 2), (line_endings, 8), (truncate, 2), (surplus, 5), (change_target, 8), (change_version, 4),
    (change_method, 4), (change_length, 6), (change_chunk_size, 8), (change_chunk_end, 6), (obscure_name, 8),
    (many_fields, 1), (huge_field, 1),
)
_FUNCTIONS = [mutation for mutation, _ in MUTATIONS]
_WEIGHTS = [weight for _, weight in MUTATIONS]


def _split(message: bytes) -> tuple[list[bytes], bytes]:
    head, _, body = message.partition(CRLF * 2)
    return head.split(CRLF), body


def stream(seed: int) -> Stream:
    """The stream of this number."""
    chance = random.Random(seed)
    message = chance.choice(GOOD)
    names = []
    for _ in range(chance.choice((0, 1, 1, 1, 1, 2, 2, 3))):
        mutation = chance.choices(_FUNCTIONS, _WEIGHTS)[0]
        if message:
            message = mutation(chance, message)
            names.append(mutation.__name__)
    data = message.replace(b"@", b"/s%d" % seed)
    if chance.random() < 0.3:
        data += chance.choice(GOOD).replace(b"@", b"/s%d-second" % seed)
        names.append("pipelined")
    cuts: tuple[int, ...] = ()
    if len(data) > 1 and chance.random() < 0.5:
        cuts = tuple(sorted(chance.randrange(1, len(data)) for _ in range(chance.randint(1, 4))))
    return Stream(seed, data, cuts, names)
