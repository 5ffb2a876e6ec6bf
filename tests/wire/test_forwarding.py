"""Outbound heads and forwarding fields (SECURITY.md T6, T7); whole messages are in tests/conformance."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.wire.forwarding import client_address, forwarded_lines, interim_head, request_head, response_head
from gogate_py.wire.head_check import HeadLimits, ResponseHead, check_request_head, check_response_head

TRUSTED = {"10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1"}
PEER = "10.0.0.1"
CLIENT = "203.0.113.7"

# peer, X-Forwarded-For lines, the client
CHAINS: list[tuple[str, list[str], str]] = [
    # an untrusted peer is the client, whatever it claims
    (CLIENT, [], CLIENT),
    (CLIENT, ["1.1.1.1"], CLIENT),
    (CLIENT, ["10.0.0.2"], CLIENT),
    (CLIENT, ["junk"], CLIENT),
    ("2001:db8::1", ["1.1.1.1"], "2001:db8::1"),
    # a trusted peer without a chain is the client
    (PEER, [], PEER),
    # the right-most that is not trusted
    (PEER, ["1.1.1.1"], "1.1.1.1"),
    (PEER, ["1.1.1.1, 2.2.2.2"], "2.2.2.2"),
    (PEER, ["1.1.1.1, 10.0.0.2"], "1.1.1.1"),
    (PEER, ["6.6.6.6, 1.1.1.1, 10.0.0.3, 10.0.0.2"], "1.1.1.1"),
    (PEER, ["10.0.0.2, 1.1.1.1"], "1.1.1.1"),
    (PEER, ["6.6.6.6", "1.1.1.1"], "1.1.1.1"),
    (PEER, ["6.6.6.6, 1.1.1.1", "10.0.0.2"], "1.1.1.1"),
    # all trusted: the left-most
    (PEER, ["10.0.0.2"], "10.0.0.2"),
    (PEER, ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
    ("fd00::1", ["10.0.0.2"], "10.0.0.2"),
    # spelling
    (PEER, ["1.1.1.1,2.2.2.2"], "2.2.2.2"),
    (PEER, [" \t1.1.1.1\t "], "1.1.1.1"),
    (PEER, ["1.1.1.1:4711"], "1.1.1.1"),
    (PEER, ["2001:db8::2"], "2001:db8::2"),
    (PEER, ["2001:DB8:0::2"], "2001:db8::2"),
    (PEER, ["[2001:db8::2]"], "2001:db8::2"),
    (PEER, ["[2001:db8::2]:4711"], "2001:db8::2"),
    (PEER, ["::ffff:1.1.1.1"], "1.1.1.1"),
    (PEER, ["1.1.1.1, ::ffff:10.0.0.2"], "1.1.1.1"),
    # malformed: the peer
    (PEER, [""], PEER),
    (PEER, ["unknown"], PEER),
    (PEER, ["_hidden"], PEER),
    (PEER, ["1.1.1"], PEER),
    (PEER, ["1.1.1.256"], PEER),
    (PEER, ["01.1.1.1"], PEER),
    (PEER, ["1.1.1.1."], PEER),
    (PEER, ["1.1.1.1:"], PEER),
    (PEER, ["1.1.1.1:x"], PEER),
    (PEER, ["[1.1.1.1]"], PEER),
    (PEER, ["[2001:db8::2"], PEER),
    (PEER, ["2001:db8::2]:80"], PEER),
    (PEER, ["fe80::1%eth0"], PEER),
    (PEER, ["0x01010101"], PEER),
    (PEER, ["16843009"], PEER),
    (PEER, ["a.example"], PEER),
    (PEER, ["1.1.1.1,"], PEER),
    (PEER, ["1.1.1.1,,10.0.0.2"], PEER),
    (PEER, ["1.1.1.1, junk"], PEER),
    (PEER, ["1.1.1.1\xa0"], PEER),
    (PEER, ["\xb9.1.1.1"], PEER),
    # malformed left of the client is the client's own invention and not reached
    (PEER, ["junk, 1.1.1.1"], "1.1.1.1"),
    (PEER, ["junk, 1.1.1.1, 10.0.0.2"], "1.1.1.1"),
    (PEER, ["junk, 10.0.0.2"], PEER),
]


@pytest.mark.parametrize(("peer", "chain", "expected"), CHAINS)
def test_client_address(peer: str, chain: list[str], expected: str) -> None:
    """The client is the right-most address of the chain that is not trusted; a malformed chain leaves the peer."""
    assert client_address(peer, [line.encode("latin-1") for line in chain], TRUSTED.__contains__) == expected


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=3))
def test_any_chain_gives_an_address(chain: list[bytes]) -> None:
    """Whatever a trusted peer sends, there is a client, and forwarding lines that are two hops or more at best."""
    assert client_address(PEER, chain, TRUSTED.__contains__)
    inbound = [(b"x-forwarded-for", line) for line in chain]
    lines = forwarded_lines(PEER.encode(), b"http", b"a", inbound, True)
    assert lines.count(b"\r\n") == lines.count(b"\n") == lines.count(b"\r") == 4


INBOUND = [
    (b"x-forwarded-for", b"junk, 1.1.1.1"),
    (b"x-forwarded-for", b"10.0.0.2"),
    (b"x-forwarded-host", b"public.example"),
    (b"x-forwarded-proto", b"https"),
    (b"x-forwarded-port", b"443"),
    (b"x-real-ip", b"6.6.6.6"),
    (b"forwarded", b"for=6.6.6.6"),
]


def test_an_untrusted_peer_replaces_everything() -> None:
    """Nothing that an untrusted peer claims reaches a backend, not even with a client address computed from it."""
    assert forwarded_lines(b"203.0.113.7", b"http", b"a:80", INBOUND, False, client_ip=b"6.6.6.6") == (
        b"X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Host: a:80\r\n"
        b"X-Forwarded-Proto: http\r\nX-Real-IP: 203.0.113.7\r\n"
    )


def test_a_trusted_peer_is_appended() -> None:
    """A trusted peer's chain is continued as far as it is valid, its Host and Proto are kept, the rest ends here."""
    assert forwarded_lines(b"10.0.0.1", b"http", b"a", INBOUND, True, client_ip=b"1.1.1.1") == (
        b"X-Forwarded-For: 1.1.1.1, 10.0.0.2, 10.0.0.1\r\nX-Forwarded-Host: public.example\r\n"
        b"X-Forwarded-Proto: https\r\nX-Real-IP: 1.1.1.1\r\n"
    )


@pytest.mark.parametrize(
    "inbound",
    [
        [],
        [(b"x-forwarded-host", b"a b"), (b"x-forwarded-proto", b"gopher")],
        [(b"x-forwarded-host", b"b"), (b"x-forwarded-host", b"c")],
        [(b"x-forwarded-proto", b"https"), (b"x-forwarded-proto", b"http")],
        [(b"x-forwarded-proto", b"HTTPS, http")],
        [(b"x-forwarded-for", b"junk")],
    ],
)
def test_invalid_claims_of_a_trusted_peer_are_replaced(inbound: list[tuple[bytes, bytes]]) -> None:
    """Claims that are not valid, or made twice, are replaced by what gogate knows."""
    assert forwarded_lines(b"10.0.0.1", b"http", b"a", inbound, True) == (
        b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Host: a\r\nX-Forwarded-Proto: http\r\nX-Real-IP: 10.0.0.1\r\n"
    )


def test_no_host_is_no_line() -> None:
    """An HTTP/1.0 request without Host has no X-Forwarded-Host."""
    assert b"Host" not in forwarded_lines(b"10.0.0.1", b"http", b"", [], False)


def test_request_head_order() -> None:
    """Request line, Host, fields, framing, gogate's own lines, empty line."""
    raw = b"POST /x?y HTTP/1.1\r\nA: 1\r\nContent-Length: 3\r\nHost: h\r\nB: 2\r\nExpect: 100-continue\r\n\r\n"
    assert request_head(check_request_head(raw, HeadLimits()), b"X-Request-ID: i\r\n") == (
        b"POST /x?y HTTP/1.1\r\nHost: h\r\nA: 1\r\nB: 2\r\n"
        b"Content-Length: 3\r\nExpect: 100-continue\r\nX-Request-ID: i\r\n\r\n"
    )


def test_default_host() -> None:
    """The default stands in for a missing Host and never replaces one."""
    without = check_request_head(b"GET / HTTP/1.0\r\n\r\n", HeadLimits())
    assert request_head(without, b"", default_host=b"b:1") == b"GET / HTTP/1.1\r\nHost: b:1\r\n\r\n"
    with_host = check_request_head(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", HeadLimits())
    assert request_head(with_host, b"", default_host=b"b:1") == b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def test_websocket_can_be_refused_by_the_caller() -> None:
    """Without the flag, the request goes out as an ordinary one."""
    raw = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    head = check_request_head(raw, HeadLimits())
    assert b"Upgrade" in request_head(head, b"")
    head.websocket = False
    assert request_head(head, b"") == b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def answer(status: int, fields: bytes = b"A: 1\r\n") -> ResponseHead:
    """A checked response head."""
    return check_response_head(b"HTTP/1.1 %d X\r\n%b\r\n" % (status, fields), HeadLimits())


def test_response_head_lines() -> None:
    """Status line, fields, one kind of framing, persistence, request id."""
    assert response_head(answer(200), 1, length=3, close=True, request_id=b"i") == (
        b"HTTP/1.1 200 X\r\nA: 1\r\nContent-Length: 3\r\nConnection: close\r\nX-Request-ID: i\r\n\r\n"
    )
    assert response_head(answer(200), 1, chunked=True) == (
        b"HTTP/1.1 200 X\r\nA: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    assert response_head(answer(200), 0, length=0, keep_alive_10=True) == (
        b"HTTP/1.0 200 X\r\nA: 1\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"
    )
    assert response_head(answer(200), 1, close=True, keep_alive_10=True).count(b"Connection") == 1


def test_statuses_without_a_body_get_no_wrong_framing() -> None:
    """204 never has framing, 304 only the length of what it stands for."""
    assert response_head(answer(204), 1, length=0, chunked=True) == b"HTTP/1.1 204 X\r\nA: 1\r\n\r\n"
    assert response_head(answer(204), 1, length=0) == b"HTTP/1.1 204 X\r\nA: 1\r\n\r\n"
    assert response_head(answer(304), 1, length=5) == b"HTTP/1.1 304 X\r\nA: 1\r\nContent-Length: 5\r\n\r\n"
    assert response_head(answer(304), 1, chunked=True) == b"HTTP/1.1 304 X\r\nA: 1\r\n\r\n"


def test_interim_heads() -> None:
    """1xx heads pass without framing; a 101 says again what it switches to."""
    assert interim_head(answer(103)) == b"HTTP/1.1 103 X\r\nA: 1\r\n\r\n"
    assert interim_head(answer(101, b"Connection: Upgrade\r\nUpgrade: WebSocket\r\n")) == (
        b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
