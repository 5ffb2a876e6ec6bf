"""The chunked coding: h11 as the oracle, cuts anywhere, hostile bytes (RFC 9112 section 7.1, SECURITY.md T2, T3)."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.errors import Failure, WireError
from gogate_py.wire.chunked import (
    LAST_CHUNK,
    MAX_LINE,
    MAX_OVERHEAD,
    MAX_TRAILERS,
    ChunkedDecoder,
    encode_chunk,
    is_plain,
)

cuts = st.lists(st.integers(0, 400), max_size=8)
chunks = st.lists(st.binary(min_size=1, max_size=40), max_size=8)
extensions = st.sampled_from([b"", b";a", b";a=b", b';a="b;\\"c";d'])
# Mostly the bytes that mean something to the coding.
hostile = st.lists(
    st.sampled_from([b"\r\n", b"\r", b"\n", b"0", b"1", b"2", b"f", b";", b"=", b'"', b"a", b" ", b"-", b":"])
    | st.sampled_from([b"0\r\n\r\n", b"1\r\nx\r\n"])
    | st.binary(max_size=3),
    max_size=25,
).map(b"".join)


def pieces(data: bytes, places: list[int]) -> list[bytes]:
    """The data, cut at these places."""
    ends = sorted({min(place, len(data)) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def decode(parts: list[bytes]) -> tuple[bytes, bool, bytes] | Failure:
    """What a decoder makes of these pieces."""
    decoder = ChunkedDecoder()
    try:
        payload = b"".join(decoder.feed(part) for part in parts)
    except WireError as error:
        return error.failure
    return payload, decoder.done, decoder.rest


def decode_by_h11(body: bytes) -> tuple[bytes, bool]:
    """What h11 makes of the same body."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    connection.next_event()
    payload = b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Data):
            payload += event.data
        else:
            return payload, isinstance(event, h11.EndOfMessage)


@settings(max_examples=200, deadline=None)
@given(
    chunks,
    st.lists(extensions, min_size=8, max_size=8),
    st.sampled_from([b"", b"X-T: v\r\n"]),
    st.binary(max_size=9),
    cuts,
)
def test_valid_bodies_as_h11_reads_them(
    payloads: list[bytes], exts: list[bytes], trailers: bytes, behind: bytes, places: list[int]
) -> None:
    """A valid body has the payload that h11 reads, wherever it is cut, and what is behind it is left over."""
    body = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), ext, chunk) for chunk, ext in zip(payloads, exts, strict=False))
    body += b"0\r\n%b\r\n" % trailers
    assert decode_by_h11(body) == (b"".join(payloads), True)
    assert decode(pieces(body + behind, places)) == (b"".join(payloads), True, behind)


@settings(max_examples=500, deadline=None)
@given(hostile, cuts)
def test_the_verdict_does_not_depend_on_cuts(data: bytes, places: list[int]) -> None:
    """Any bytes decode to the same thing or are refused, whole, cut, or one by one; nothing but WireError is raised."""
    whole = decode([data])
    assert decode(pieces(data, places)) == whole
    assert decode([data[index : index + 1] for index in range(len(data))]) == whole


@settings(max_examples=300, deadline=None)
@given(hostile)
def test_what_is_accepted_h11_accepts(data: bytes) -> None:
    """Whatever gogate accepts, h11 reads as the same payload."""
    verdict = decode([data])
    if isinstance(verdict, Failure):
        return
    payload, done, _ = verdict
    assert decode_by_h11(data) == (payload, done)


@settings(max_examples=100, deadline=None)
@given(chunks)
def test_what_is_encoded_is_decoded(payloads: list[bytes]) -> None:
    """Encoding chunks and decoding them again gives the payload."""
    body = b"".join(encode_chunk(chunk) for chunk in payloads) + LAST_CHUNK
    assert decode([body]) == (b"".join(payloads), True, b"")


@settings(max_examples=500, deadline=None)
@given(hostile | st.builds(lambda body, behind: body + behind, hostile, st.just(LAST_CHUNK)), st.binary(max_size=3))
def test_what_is_plain_is_a_whole_body(data: bytes, before: bytes) -> None:
    """Whatever passes as plain is a body that ends with its last byte, without extensions and trailers."""
    if is_plain(before + data, len(before)):
        verdict = decode([data])
        assert not isinstance(verdict, Failure)
        payload, done, rest = verdict
        assert (done, rest) == (True, b"")
        assert decode_by_h11(data) == (payload, True)
        assert b";" not in b"".join(line for line in data.split(b"\r\n")[::2] if line not in payload)


@settings(max_examples=100, deadline=None)
@given(chunks, st.binary(max_size=3))
def test_what_is_encoded_is_plain(payloads: list[bytes], before: bytes) -> None:
    """What is written here needs no work when it comes back, and does with anything missing or behind it."""
    body = b"".join(encode_chunk(chunk) for chunk in payloads) + LAST_CHUNK
    assert is_plain(before + body, len(before))
    assert not is_plain(before + body + b"\r\n", len(before))
    assert not any(is_plain(before + body[:end], len(before)) for end in range(len(body)))


@pytest.mark.parametrize(
    "body",
    [
        b"", b"0\r\n\r", b"00\r\n\r\n", b"0;a\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"01\r\nx\r\n0\r\n\r\n",
        b"1;a\r\nx\r\n0\r\n\r\n", b"1 \r\nx\r\n0\r\n\r\n", b"+1\r\nx\r\n0\r\n\r\n", b"0x1\r\nx\r\n0\r\n\r\n",
        b"1\nx\r\n0\r\n\r\n", b"1\r\nxx\r\n0\r\n\r\n", b"3\r\nx\r\n0\r\n\r\n", b"6\r\nx\r\n0\r\n\r\n",
        b"1\r\nx\r\n0\r\n\r\n0\r\n\r\n", b"5\r\n0\r\n\r\n", b"100000000\r\nx\r\n0\r\n\r\n",
    ],
)  # fmt: skip
def test_what_is_not_plain(body: bytes) -> None:
    """Anything but sizes, data and the last chunk, or a size that does not fit, is the decoder's."""
    assert not is_plain(body, 0)


def test_no_payload_is_no_chunk() -> None:
    """Encoding nothing gives nothing: an empty chunk would end the body."""
    assert encode_chunk(b"") == b""
    assert encode_chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"


def test_large_chunks_are_not_copied() -> None:
    """A piece that is payload only comes out as the very same object."""
    decoder = ChunkedDecoder()
    decoder.feed(b"100000\r\n")
    piece = b"x" * 65536
    assert decoder.feed(piece) is piece


def test_bytes_after_the_end_are_collected() -> None:
    """What is fed after the body ended belongs to nobody yet and is kept."""
    decoder = ChunkedDecoder()
    assert decoder.feed(LAST_CHUNK + b"GE") == b""
    assert decoder.feed(b"T /") == b""
    assert (decoder.done, decoder.rest) == (True, b"GET /")


def test_responses_fail_as_the_backend() -> None:
    """A malformed response body is the backend's fault, a request body the client's (T21)."""
    with pytest.raises(WireError) as caught:
        ChunkedDecoder(response=True).feed(b"x\r\n")
    assert caught.value.failure is Failure.BAD_RESPONSE
    assert decode([b"x\r\n"]) is Failure.BAD_CHUNK


def test_overhead_is_bounded() -> None:
    """Ordinary small chunks may go on for ever; extensions beyond 16 bytes a chunk add up to 16 KiB at most (T2)."""
    decoder = ChunkedDecoder()
    assert decoder.feed(b"1\r\nx\r\n" * 100_000) == b"x" * 100_000
    padded = b"1;" + b"e" * 110 + b"\r\nx\r\n"  # 100 bytes more than what is free
    allowed = MAX_OVERHEAD // 100
    decoder = ChunkedDecoder()
    assert decoder.feed(padded * allowed) == b"x" * allowed
    with pytest.raises(WireError):
        decoder.feed(padded)


def test_unfinished_lines_are_bounded() -> None:
    """A size line or trailer that does not end is refused at its limit, not held."""
    decoder = ChunkedDecoder()
    decoder.feed(b"1;" + b"e" * (MAX_LINE - 2))
    decoder.feed(b"\r")
    with pytest.raises(WireError):
        decoder.feed(b"e")
    decoder = ChunkedDecoder()
    decoder.feed(b"0\r\nA: b\r\nB:" + b"e" * (MAX_TRAILERS - 10))
    with pytest.raises(WireError):
        decoder.feed(b"e")
