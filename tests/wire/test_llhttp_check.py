"""The second opinion: llhttp must see the same one message."""

from __future__ import annotations

import pytest

from gogate_py.wire.llhttp_check import RequestFraming

CLEAN = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
NOT_ONE_MESSAGE = [
    b"",
    CLEAN[:-1],
    CLEAN + CLEAN,
    CLEAN + b"G",
    CLEAN + b"\0",
    CLEAN + b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
    b"abc",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nX : y\r\n\r\n",
    b"nonsense\r\n\r\n",
]


def test_one_parser_serves_many_messages() -> None:
    """Whole heads, one after the other, are each one message."""
    framing = RequestFraming()
    for _ in range(100):
        assert framing.agrees_one_message(CLEAN)


def test_a_last_message_is_not_the_last_one_of_its_parser() -> None:
    """Whole heads of other connections come after one that closes its own."""
    framing = RequestFraming()
    for _ in range(2):
        assert framing.agrees_one_message(CLEAN[:-2] + b"Connection: close\r\n\r\n", True)
        assert framing.agrees_one_message(CLEAN)


@pytest.mark.parametrize("data", NOT_ONE_MESSAGE)
def test_disagreement_leaves_no_trace(data: bytes) -> None:
    """What is not exactly one message is refused, and the next clean head is accepted again."""
    framing = RequestFraming()
    assert not framing.agrees_one_message(data)
    assert framing.agrees_one_message(CLEAN)


@pytest.mark.parametrize(
    ("head", "has_body", "agrees"),
    [
        (CLEAN, False, True),
        (CLEAN, True, False),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", True, True),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", False, False),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", False, True),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", True, True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", False, True),
        (b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 1\r\n\r\n", True, False),
        (b"GET / HTTP/1.1\r\nX : y\r\n\r\n", False, False),
    ],
)
def test_accepts_head(head: bytes, has_body: bool, agrees: bool) -> None:
    """llhttp agrees with a head when it accepts it and expects a body exactly where we do (H1)."""
    assert RequestFraming.accepts_head(head, has_body) is agrees
