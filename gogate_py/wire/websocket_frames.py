"""WebSocket frames (RFC 6455): where one ends and the next begins, and the close frame that may stand between two.

One direction of a connection is followed from the 101 on, header by header; payloads are stepped over. Nothing is
checked beyond what says how long a frame is: what both ends make of it is their business. A length that cannot be is
a frame that never ends, so nothing is ever put inside of what might still be one.
"""

from __future__ import annotations

from typing import Final

#: The peer's endpoint goes away: a server that stops, a client that leaves (RFC 6455 section 7.4.1).
GOING_AWAY: Final = 1001

_CLOSE: Final = 0x8
#: FIN and the opcode of a close frame.
_CLOSE_FRAME: Final = 0x80 | _CLOSE
_MASKED: Final = 0x80
_KEY: Final = 4
#: Bytes of extended length by the 7-bit length that announces them.
_WIDE: Final = {126: 2, 127: 8}


class FrameWalk:
    """Where one direction stands. ``closing``: a close frame has begun in it, and no other may follow."""

    __slots__ = ("_begun", "_left", "closing")

    def __init__(self) -> None:
        self._begun = b""  # of a header that is not complete
        self._left = 0  # of the frame at hand, its masking key included
        self.closing = False

    @property
    def between(self) -> bool:
        """Whether the next byte is the first of a frame."""
        return not self._left and not self._begun

    def feed(self, data: bytes) -> None:
        """Bytes that went this way."""
        size = len(data)
        at = self._left
        if at >= size:
            self._left = at - size
            return
        if self._begun:
            data = self._begun + data
            size = len(data)
            self._begun = b""
        while at < size:
            if size - at < 2:
                break
            second = data[at + 1]
            length = second & 0x7F
            wide = 0
            if length > 125:
                wide = _WIDE[length]
                if size - at < 2 + wide:
                    break
                length = int.from_bytes(data[at + 2 : at + 2 + wide], "big")
            if data[at] & 0x0F == _CLOSE:
                self.closing = True
            at += 2 + wide + length + (_KEY if second & _MASKED else 0)
        if at < size:
            self._begun = data[at:]
            self._left = 0
        else:
            self._left = at - size


def close_frame(code: int, key: bytes = b"") -> bytes:
    """A close frame without a reason; with a masking ``key`` (4 bytes that nobody can foresee) as a client sends it."""
    payload = code.to_bytes(2, "big")
    if not key:
        return bytes((_CLOSE_FRAME, len(payload))) + payload
    masked = bytes(byte ^ key[index] for index, byte in enumerate(payload))
    return bytes((_CLOSE_FRAME, _MASKED | len(payload))) + key + masked
