"""ClientHello: the table of cases, hellos of real TLS stacks, cut and mutated in every way."""

from __future__ import annotations

import itertools
import ssl
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gogate_py.errors import WireError
from gogate_py.wire.client_hello import MAX_HELLO, ClientHelloReader


def record(payload: bytes, kind: int = 22, version: bytes = b"\x03\x01") -> bytes:
    """One TLS record."""
    return bytes([kind]) + version + struct.pack("!H", len(payload)) + payload


def message(body: bytes, kind: int = 1) -> bytes:
    """One handshake message."""
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


def extension(kind: int, content: bytes) -> bytes:
    """One extension."""
    return struct.pack("!HH", kind, len(content)) + content


def names(*entries: tuple[int, bytes]) -> bytes:
    """A server_name extension."""
    listed = b"".join(struct.pack("!BH", kind, len(name)) + name for kind, name in entries)
    return extension(0, struct.pack("!H", len(listed)) + listed)


def sni(name: bytes) -> bytes:
    """The server_name extension with one host name."""
    return names((0, name))


def body(
    extensions: bytes | None = b"", session: bytes = b"", suites: bytes = b"\x13\x01", compression: bytes = b"\x00"
) -> bytes:
    """The body of a ClientHello; None: without the extensions field."""
    fixed = b"\x03\x03" + bytes(32) + bytes([len(session)]) + session
    rest = struct.pack("!H", len(suites)) + suites + bytes([len(compression)]) + compression
    return fixed + rest + (b"" if extensions is None else struct.pack("!H", len(extensions)) + extensions)


def hello(extensions: bytes | None = b"") -> bytes:
    """A whole ClientHello in one record."""
    return record(message(body(extensions)))


def read(data: bytes, *cuts: int) -> str | None:
    """The server name, fed in pieces; None: more is needed."""
    reader = ClientHelloReader()
    edges = [0, *sorted(cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        if reader.feed(data[start:end]):
            return reader.server_name
    return None


def real(name: str | None, *, newest: ssl.TLSVersion | None = None, alpn: tuple[str, ...] = ()) -> bytes:
    """What OpenSSL says first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if newest is not None:
        context.maximum_version = newest
    if alpn:
        context.set_alpn_protocols(list(alpn))
    out = ssl.MemoryBIO()
    spoken = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        spoken.do_handshake()
    return out.read()


GREASE = extension(0x0A0A, b"") + extension(0xFAFA, b"\0")
#: An outer hello of Encrypted Client Hello: the extension is opaque, the outer name is the public one.
ECH = extension(0xFE0D, bytes(200)) + sni(b"public.example.com")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (hello(sni(b"db.example.com")), "db.example.com"),
        (hello(sni(b"DB.Example.COM")), "db.example.com"),
        (hello(sni(b"db.example.com.")), "db.example.com"),
        (hello(sni(b"localhost")), "localhost"),
        (hello(sni(b"_srv.a_b.xn--bcher-kva.example")), "_srv.a_b.xn--bcher-kva.example"),
        (hello(sni(b"1.2.3.4.example")), "1.2.3.4.example"),
        (hello(sni(b".".join([b"a" * 63] * 3 + [b"b" * 61]))), ".".join(["a" * 63] * 3 + ["b" * 61])),
        (hello(GREASE + sni(b"a.example") + extension(0x1A1A, b"x")), "a.example"),
        (hello(ECH), "public.example.com"),
        (hello(b""), ""),
        (hello(None), ""),
        (hello(extension(16, b"\0\x03\x02h2")), ""),
        (record(message(body(sni(b"a.test"), session=bytes(32)))), "a.test"),
        (record(message(body(sni(b"a.test"))), version=b"\x03\x03"), "a.test"),
        (hello(sni(b"a.test")) + record(b"early data", 23), "a.test"),
        (hello(sni(b"a.test") + extension(21, bytes(8000))), "a.test"),
    ],
)
def test_a_hello_and_its_name(data: bytes, name: str) -> None:
    """The table of what is accepted."""
    assert read(data) == name


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x80\x2e\x01\x00\x02",  # SSL 2
        b"\0",
        b"\x16\x02",
        record(b"\x02\x28", 21),  # an alert
        record(b"x", 23),
        b"\x16\x03\x01\0\0",  # a record of length 0
        b"\x16\x03\x01\x40\x01",  # 16 385
        record(message(b"", 0)),  # HelloRequest
        record(message(b"", 2)),
        record(b"\x01\x00\x3f\xfd"),  # 16 381 + 4
        record(b"\x01\xff\xff\xff"),
        record(message(b"")),
        record(message(body(sni(b"a.test"))[:-1])),
        record(message(body(sni(b"a.test")) + b"\0")),
        record(message(body(session=bytes(33)))),
        record(message(body(suites=b""))),
        record(message(body(suites=b"\x13"))),
        record(message(body(compression=b""))),
        hello(sni(b"a.test") + sni(b"a.test")),
        hello(extension(16, b"") + extension(16, b"")),
        hello(extension(0, b"")),
        hello(extension(0, b"\0\0")),
        hello(names((0, b"a.test"), (0, b"b.test"))),
        hello(names((0, b"a.test"), (1, b"x"))),
        hello(names((1, b"a.test"))),
        hello(sni(b"a.test")[:-1] + b"\0t"),
        hello(extension(0, b"\0\x05\0\0\x01a\0\0")),
        *(hello(sni(name)) for name in (
            b"", b".", b"a..b", b".a", b"-a", b"a-", b"a b", b"a\0b", b"b\xc3\xbccher", b"*.a", b"127.0.0.1", b"::1",
            b"a/b", b"a:443", b"x" * 64, b".".join([b"a" * 63] * 4))),
    ],
)
def test_what_is_refused(data: bytes) -> None:
    """The table of what is not a ClientHello; it is refused in one piece and byte for byte alike."""
    with pytest.raises(WireError):
        read(data)
    with pytest.raises(WireError):
        read(data, *range(1, len(data)))


@pytest.mark.parametrize("data", [b"", b"\x16", hello(sni(b"a.test"))[:-1], record(b"\x01")])
def test_a_part_of_one_needs_more(data: bytes) -> None:
    """Nothing is decided before the last byte."""
    assert read(data) is None


def test_garbage_is_told_by_its_first_byte() -> None:
    """Who does not speak TLS is not waited for."""
    with pytest.raises(WireError, match="not a TLS handshake"):
        ClientHelloReader().feed(b"G")


def test_a_size_is_refused_before_the_bytes_are_here() -> None:
    """Four bytes of the message say that it is too long; one of the largest size passes."""
    with pytest.raises(WireError, match="16 KiB"):
        ClientHelloReader().feed(b"\x16\x03\x01\x40\x00" + b"\x01\x00\x3f\xfd")
    with pytest.raises(WireError, match="16 KiB"):  # spread over records
        ClientHelloReader().feed(record(b"\x01\x00") + record(b"\x3f\xfd")[:-1] + b"\xfd")
    empty = len(body(sni(b"a.test") + extension(21, b"")))
    largest = message(body(sni(b"a.test") + extension(21, bytes(MAX_HELLO - 4 - empty))))
    assert len(largest) == MAX_HELLO
    assert read(record(largest)) == "a.test"


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", ["db.example.com", "a.b.c.test", "localhost", "127.0.0.1", None])
def test_openssl(newest: ssl.TLSVersion, name: str | None) -> None:
    """OpenSSL's own hellos, with and without ALPN; it does not send IP addresses."""
    for alpn in ((), ("h2", "http/1.1")):
        expected = "" if name in (None, "127.0.0.1") else name
        assert read(real(name, newest=newest, alpn=alpn)) == expected


_LABEL = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,20}[a-z_])?", fullmatch=True).filter(lambda label: not label.isdigit())


@given(st.lists(_LABEL, min_size=1, max_size=5), st.data())
def test_any_cut_and_any_records(labels: list[str], data: st.DataObject) -> None:
    """However a hello is spread over records, and these over reads, the name is the same."""
    name = ".".join(labels)
    whole = message(body(GREASE + sni(name.encode()) + extension(21, bytes(data.draw(st.integers(0, 300))))))
    edges = sorted(data.draw(st.sets(st.integers(1, len(whole) - 1), max_size=6)))
    pieces = [whole[start:end] for start, end in zip([0, *edges], [*edges, len(whole)], strict=True)]
    stream = b"".join(record(piece) for piece in pieces)
    cuts = data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=10))
    assert read(stream, *cuts) == name
    assert read(stream[:-1], *cuts) is None


@given(st.binary(max_size=600))
def test_any_bytes(data: bytes) -> None:
    """Whatever comes: a name, a refusal, or more is needed; nothing else is raised."""
    for start in (b"", b"\x16\x03\x01", hello(None)[:-1]):
        try:
            read(start + data)
        except WireError:
            pass


_REAL = real("db.example.com", alpn=("h2",))


def _mutations(count: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    place = st.integers(0, len(_REAL) - 1)
    return st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=count)


@given(_mutations(4))
def test_mutated_hellos_agree_with_openssl(changes: list[tuple[int, int]]) -> None:
    """A changed hello whose name OpenSSL's server sees has the same name here, or is refused: never another one."""
    data = bytearray(_REAL)
    for place, value in changes:
        data[place] = value
    try:
        mine: str | None = read(bytes(data))
    except WireError:
        return
    seen = asked(bytes(data))
    if mine is not None and seen is not None:
        assert mine == seen.lower().removesuffix(".")


def asked(data: bytes) -> str | None:
    """The name that OpenSSL's server finds in a hello; None when it does not get that far."""
    found: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _, name, __: found.append(name)
    incoming = ssl.MemoryBIO()
    incoming.write(data)
    with pytest.raises(ssl.SSLError):
        context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
    return (found[0] or "") if found else None


def test_the_oracle_sees_names() -> None:
    """OpenSSL's server calls back with the name of an unchanged hello."""
    assert asked(_REAL) == "db.example.com"
