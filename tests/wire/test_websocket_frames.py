"""WebSocket frames: however a direction is cut into pieces, it is known where a frame ends."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.streams import StreamReader

from gogate_py.wire.websocket_frames import GOING_AWAY, FrameWalk, close_frame

OPCODES = [Opcode.CONT, Opcode.TEXT, Opcode.BINARY, Opcode.PING, Opcode.PONG]


@dataclass
class Made:
    """A frame as an independent implementation writes it."""

    opcode: Opcode
    size: int
    masked: bool

    def bytes(self) -> bytes:
        frame = Frame(self.opcode, bytes(index * 7 % 256 for index in range(self.size)))
        return frame.serialize(mask=self.masked, extensions=[])


SIZES = st.one_of(st.integers(0, 3), st.sampled_from([124, 125, 126, 127, 255, 65535, 65536, 66000]))
FRAMES = st.lists(st.builds(Made, st.sampled_from(OPCODES), SIZES, st.booleans()), max_size=6)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data cut at these places."""
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


def sizes_of(made: Made) -> Made:
    """Control frames are small (RFC 6455 section 5.5)."""
    return Made(made.opcode, min(made.size, 125), made.masked) if made.opcode >= Opcode.PING else made


@given(frames=FRAMES, cuts=st.lists(st.integers(0, 70_000), max_size=12), stop=st.integers(0, 200_000))
def test_any_pieces_make_the_same_state(frames: list[Made], cuts: list[int], stop: int) -> None:
    """After any prefix of valid frames in any pieces: between two frames exactly where one ended."""
    whole = [sizes_of(one).bytes() for one in frames]
    ends = {0}
    for one in whole:
        ends.add(max(ends) + len(one))
    data = b"".join(whole)[: min(stop, max(ends))]
    walk = FrameWalk()
    for piece in pieces(data, cuts):
        walk.feed(piece)
    assert walk.between == (len(data) in ends)
    assert not walk.closing


@given(frames=FRAMES)
def test_byte_by_byte(frames: list[Made]) -> None:
    """One byte at a time is no exception."""
    data = b"".join(Made(one.opcode, one.size % 130, one.masked).bytes() for one in map(sizes_of, frames))
    at_once, slowly = FrameWalk(), FrameWalk()
    at_once.feed(data)
    for byte in data:
        slowly.feed(bytes((byte,)))
    assert at_once.between
    assert slowly.between


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("cut", range(1, 8))
def test_a_close_frame_is_noticed(cut: int, masked: bool) -> None:
    """From its header on a close frame counts: no other may follow it."""
    data = Frame(Opcode.CLOSE, Close(1000, "x").serialize()).serialize(mask=masked, extensions=[])
    walk = FrameWalk()
    walk.feed(b"\x81\x00" + data[:cut])
    assert walk.closing == (cut >= 2)
    walk.feed(data[cut:])
    assert walk.closing
    assert walk.between


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_any_bytes_are_followed(chunks: list[bytes]) -> None:
    """Bytes that are no frames raise nothing, and the state does not depend on the pieces either."""
    walk, whole = FrameWalk(), FrameWalk()
    for chunk in chunks:
        walk.feed(chunk)
    whole.feed(b"".join(chunks))
    assert (walk.between, walk.closing) == (whole.between, whole.closing)


def test_a_length_that_cannot_be_never_ends() -> None:
    """The highest bit of a 64-bit length must be 0: such a frame has no end, and nothing is put into it."""
    walk = FrameWalk()
    walk.feed(b"\x82\x7f" + b"\xff" * 8)
    walk.feed(b"\x00" * 100_000)
    assert not walk.between


def test_close_frames() -> None:
    """As RFC 6455 writes them: unmasked from a server, masked from a client; another implementation reads both."""
    assert close_frame(GOING_AWAY) == b"\x88\x02\x03\xe9"
    assert close_frame(GOING_AWAY, b"\x01\x02\x03\x04") == b"\x88\x82\x01\x02\x03\x04\x02\xeb"
    for key in (b"", b"\xff\x00\xaa\x55"):
        reader = StreamReader()
        reader.feed_data(close_frame(GOING_AWAY, key))
        parsing = Frame.parse(reader.read_exact, mask=bool(key), extensions=[])
        with pytest.raises(StopIteration) as done:
            next(parsing)
        frame = done.value.value
        assert (frame.opcode, Close.parse(frame.data).code) == (Opcode.CLOSE, 1001)
