"""The chunked transfer coding (RFC 9112 section 7.1), read strictly and written canonically.

Nothing of a peer's chunking is passed on: extensions and trailers are checked and dropped, and the payload is chunked
anew, so that no hop behind gogate sees a byte of it that could be read in two ways. (Of an answer that is plain, see
is_plain, only the places where chunks begin are passed on.) Rules (SECURITY.md T2, T3):

- Lines end in CRLF, chunk data is followed by CRLF: CVE-2025-22871 and CVE-2025-43859 are parsers that disagree on it.
- A size has 1 to 15 hexadecimal digits: no sign, no 0x, no blank, no overflow in any implementation.
- A size line has at most 4096 bytes, and all that is neither payload nor 16 bytes of ordinary overhead per chunk adds
  up to at most 16 KiB: one-byte chunks with long extensions cost the sender nothing (CVE-2023-39326).
- Trailers: field lines as in a head, at most 8 KiB and 32 of them, none of them about framing. Those of the names asked
  for are handed over, the others dropped.

The verdict does not depend on how the bytes were cut. Does not know requests, responses or connections.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from gogate_py.errors import Failure, WireError
from gogate_py.wire.headers import NOT_TRAILERS, TOKEN, split_fields

MAX_LINE: Final = 4096
MAX_OVERHEAD: Final = 16 * 1024
FREE_OVERHEAD: Final = 16
MAX_TRAILERS: Final = 8 * 1024
MAX_TRAILER_FIELDS: Final = 32

LAST_CHUNK: Final = b"0\r\n\r\n"

# Extensions: ;name[=token or "quoted string"]. The RFC's blanks around ";" and "=" are only for old senders to read,
# and llhttp refuses them as well.
_size_line: Final = re.compile(
    rb'([0-9A-Fa-f]{1,15})(?:;%b++(?:=(?:%b++|"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+"))?)*+' % (TOKEN, TOKEN)
).fullmatch

_plain_size: Final = re.compile(rb"([1-9A-Fa-f][0-9A-Fa-f]{0,7})\r\n").match

# What the decoder waits for. Plain integers: this is compared for every piece of every chunked body.
_SIZE: Final = 0
_DATA: Final = 1
_DATA_END: Final = 2
_TRAILERS: Final = 3
_DONE: Final = 4


def encode_chunk(data: bytes) -> bytes:
    """One chunk with this payload; b"" for no payload, because an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def last_chunk(trailers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The end of a chunked body, with these trailer fields."""
    if not trailers:
        return LAST_CHUNK
    return b"0\r\n%b\r\n" % b"".join([b"%b: %b\r\n" % field for field in trailers])


def is_plain(data: bytes, start: int) -> bool:
    """Whether ``data`` is, from ``start`` on, a whole body as it is written here, and nothing behind: chunks with
    nothing but a size of at most 8 digits and no zero in front, and the last chunk without trailers. About 0.5 µs, and
    0.5 more for each chunk; the decoder takes 4 and 2."""
    end = len(data) - len(LAST_CHUNK)
    if end < start or not data.endswith(LAST_CHUNK):
        return False
    position = start
    while position < end:
        found = _plain_size(data, position, end)
        if found is None:
            return False
        position = found.end() + int(found[1], 16)
        if data[position : position + 2] != b"\r\n":
            return False
        position += 2
    return position == end


class ChunkedDecoder:
    """Decodes one chunked body. Owned by the exchange whose body it is; useless after it has raised.

    ``done`` turns true with the last byte of the body; what was fed behind it is in ``rest``, untouched.
    """

    __slots__ = ("_buffer", "_excess", "_failure", "_keep", "_left", "_state", "_trailers", "done", "rest", "trailers")

    def __init__(self, response: bool = False, keep_trailers: frozenset[bytes] = frozenset()) -> None:
        # trailer fields to be passed on: those of the lower-case names asked for, once ``done``
        self.trailers: list[tuple[bytes, bytes]] = []
        self._keep = keep_trailers
        self.done = False
        self.rest = b""
        self._failure = Failure.BAD_RESPONSE if response else Failure.BAD_CHUNK
        self._state = _SIZE
        # bytes of an unfinished line; bounded by the limits of that line
        self._buffer = b""
        # payload of the current chunk that is still to come
        self._left = 0
        # overhead beyond FREE_OVERHEAD per chunk so far
        self._excess = 0
        # finished trailer lines, each with its CRLF
        self._trailers = b""

    def feed(self, data: bytes) -> bytes:
        """The payload in ``data``, maybe b"". Raises WireError (BAD_CHUNK, or BAD_RESPONSE for a response)."""
        if self._state == _DATA and len(data) <= self._left:
            # The common case of a large chunk: all of it is payload, and nothing is copied.
            self._left -= len(data)
            if not self._left:
                self._state = _DATA_END
            return data
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        payload: list[bytes] = []
        position = 0
        size = len(data)
        while position < size:
            state = self._state
            if state == _DATA:
                end = min(position + self._left, size)
                payload.append(data[position:end])
                self._left -= end - position
                position = end
                if not self._left:
                    self._state = _DATA_END
            elif state == _DONE:
                self.rest += data[position:]
                break
            elif state == _DATA_END:
                found = data[position : position + 2]
                if found == b"\r":
                    self._buffer = found
                    break
                if found != b"\r\n":
                    raise WireError(self._failure, "chunk data is not followed by CRLF")
                position += 2
                self._state = _SIZE
            else:
                end = data.find(b"\n", position)
                if end < 0:
                    self._keep_unfinished(data[position:])
                    break
                # Found by its LF and not by CRLF, so that a bare LF is refused where it stands.
                if data[position:end][-1:] != b"\r":
                    raise WireError(self._failure, "a line of the chunked body does not end in CRLF")
                line = data[position : end - 1]
                position = end + 1
                if state == _SIZE:
                    self._take_size(line)
                else:
                    self._take_trailer(line)
        return payload[0] if len(payload) == 1 else b"".join(payload)

    def _keep_unfinished(self, line: bytes) -> None:
        """Keep the beginning of a line for the next bytes, unless it is over the limit whatever they are."""
        length = len(line) - line.endswith(b"\r")
        limit = MAX_LINE if self._state == _SIZE else MAX_TRAILERS - len(self._trailers) - 2
        if length > limit:
            raise WireError(self._failure, "a line of the chunked body is too long")
        self._buffer = line

    def _take_size(self, line: bytes) -> None:
        found = _size_line(line) if len(line) <= MAX_LINE else None
        if found is None:
            raise WireError(self._failure, "a chunk size line is malformed or too long")
        # the line's CRLF and the one behind the data
        overhead = len(line) + 4
        if overhead > FREE_OVERHEAD:
            self._excess += overhead - FREE_OVERHEAD
            if self._excess > MAX_OVERHEAD:
                raise WireError(self._failure, "the chunked body has too much overhead")
        self._left = int(found[1], 16)
        self._state = _DATA if self._left else _TRAILERS

    def _take_trailer(self, line: bytes) -> None:
        if not line:
            # Checked for their syntax like any field, then forgotten: fields that arrive behind the body have passed
            # none of the checks of a head (H12).
            for name, raw in split_fields(self._trailers + b"\r\n", self._failure):
                lower = name.lower()
                # A parser that does merge trailers would frame this message, or the next one, differently.
                if lower in (b"content-length", b"transfer-encoding"):
                    raise WireError(self._failure, "the trailers have a framing field")
                if lower in self._keep and lower not in NOT_TRAILERS:
                    self.trailers.append((name, raw.strip(b" \t")))
            self._trailers = b""
            self._state = _DONE
            self.done = True
            return
        self._trailers += line + b"\r\n"
        if len(self._trailers) > MAX_TRAILERS or self._trailers.count(b"\n") > MAX_TRAILER_FIELDS:
            raise WireError(self._failure, "the trailers are too large")
