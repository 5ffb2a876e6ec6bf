"""Fuzzing of wire/: bytes near the grammar and far from it; no exception but WireError, no hang, no second meaning.

Two generators: a seeded one that mutates this folder's messages (fast: a million inputs under GOGATE_SOAK=1), and
Hypothesis, which shrinks what it finds. What is checked besides "no other exception":

- where the bytes are cut changes nothing;
- what is forwarded is accepted again, and forwarding it again changes nothing: there is one canonical form;
- the hot path (fast_head) accepts nothing that the full check refuses;
- a decoded body, encoded anew, decodes to itself.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import DISAGREED, stream

from gogate_py.errors import WireError
from gogate_py.wire import proxy_protocol
from gogate_py.wire.chunked import LAST_CHUNK, ChunkedDecoder, encode_chunk, is_plain
from gogate_py.wire.fast_head import fast_body_request, fast_request, fast_response, set_apart
from gogate_py.wire.forwarding import client_address, forwarded_lines, request_head, response_head
from gogate_py.wire.head_check import (
    HeadLimits,
    RequestHead,
    ResponseHead,
    check_request_head,
    check_response_head,
    find_head_end,
    strip_leading_empty_line,
)
from gogate_py.wire.llhttp_check import RequestFraming
from gogate_py.wire.target import canonical_path, is_valid_host

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "conformance"))
# The path has to be there first: the tests have no packages.
from wire_vectors import Received, RequestReceiver, ResponseReceiver  # noqa: E402

SOAK = bool(os.environ.get("GOGATE_SOAK"))
#: Inputs of the seeded generator, for requests, responses and bodies each.
INPUTS = 350_000 if SOAK else 15_000
SEED = int(os.environ.get("GOGATE_SEED", "1"))
LIMITS = HeadLimits()
KEEP = HeadLimits(header_names="keep")
#: For what gogate sends: a Host that was not there, or framing in its long form, may be more than a client may send.
FORWARDED = HeadLimits(10_000, 40_000, 110, header_names="keep")

RESPONSES = [
    row["bytes"].encode("latin-1")
    for row in yaml.safe_load((HERE / "corpora" / "responses.yaml").read_text("utf-8"))["vectors"]
]
BODIES = [
    b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    b'1A;name=value;q="x y"\r\nabcdefghijklmnopqrstuvwxyz\r\n00\r\nX-T: 1\r\n\r\n',
    b"0\r\nA: b\r\nC: d\r\n\r\nrest", b"10\r\n0123456789abcdef\r\n1\r\nx\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
]


def cut_up(chance: random.Random, data: bytes) -> list[bytes]:
    """The data in one to six pieces."""
    edges = sorted([0, len(data), *(chance.randrange(len(data) + 1) for _ in range(chance.randrange(6)))])
    return [data[start:end] for start, end in pairwise(edges)]


def disturb(chance: random.Random, data: bytes) -> bytes:
    """A few mutations that know nothing of the grammar."""
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(5)
        if kind == 0:
            data = data[:at] + chance.choice(DISAGREED) + data[at:]
        elif kind == 1:
            data = data[:at] + chance.choice(DISAGREED) + data[at + 1 :]
        elif kind == 2:
            data = data[:at] + data[at + chance.randint(1, 8) :]
        elif kind == 3:
            end = at + chance.randint(1, 30)
            data = data[:end] + data[at:]
        else:
            data = data[:at] + chance.randbytes(chance.randint(1, 4)) + data[at + 1 :]
    return data


def meaning(head: RequestHead) -> tuple[object, ...]:
    """Everything of a head that a backend sees."""
    return (head.method, head.path, head.query, head.host, head.fields, head.content_length, head.chunked,
            head.expect_continue, head.websocket)


def same_verdict(cut: Received, whole: Received) -> None:
    """Where the bytes are cut changes nothing, but which of several faults is seen first."""
    assert cut == whole or (cut.refused and whole.refused)


def check_request(data: bytes, pieces: list[bytes], limits: HeadLimits = LIMITS) -> Received:
    """Everything that holds of any bytes from a client."""
    whole, cut = RequestReceiver(limits), RequestReceiver(limits)
    whole.feed(data)
    for piece in pieces:
        cut.feed(piece)
    same_verdict(cut.result, whole.result)
    bare = strip_leading_empty_line(data)
    end = find_head_end(bare)
    if end > 0:
        apart = set_apart(bare[:end])
        clean = apart.clean if apart is not None else bare[:end]
        fast = fast_request(clean) or fast_body_request(clean)
        assert fast is None or isinstance(whole.result.head, RequestHead) or whole.result.refused in ("bad_chunk",)
        RequestFraming.accepts_head(bare[:end], True)
    head = whole.result.head
    if isinstance(head, RequestHead):
        forwards = request_head(head, b"", default_host=b"backend:1")
        again = check_request_head(forwards, FORWARDED)
        if head.host:
            assert meaning(again) == meaning(head)
        assert request_head(again, b"") == forwards
        assert RequestFraming.accepts_head(forwards, again.chunked or again.content_length > 0)
        forwarded_lines(b"10.0.0.1", b"http", head.host, head.forwarded, True)
        client_address("10.0.0.1", [value for _, value in head.forwarded], lambda address: address.startswith("1"))
    return whole.result


def check_response(data: bytes, pieces: list[bytes], method: bytes) -> Received:
    """Everything that holds of any bytes from a backend."""
    whole, cut = ResponseReceiver(LIMITS, method), ResponseReceiver(LIMITS, method)
    whole.feed(data)
    for piece in pieces:
        cut.feed(piece)
    same_verdict(cut.result, whole.result)
    end = find_head_end(data)
    if end > 0:
        fast = fast_response(data[:end])
        if fast is not None:
            head = check_response_head(data[:end], LIMITS)
            length = head.content_length if head.status not in (204, 304) else 0
            assert fast[:2] == (head.status, length)
            assert head.chunked == (fast[1] < 0)
            assert head.keep_alive
    head = whole.result.head
    if isinstance(head, ResponseHead) and head.status != 101:
        forwards = response_head(head, 1, length=head.content_length, chunked=head.chunked)
        again = check_response_head(forwards, LIMITS)
        assert (again.status, again.reason, again.fields) == (head.status, head.reason, head.fields)
        assert response_head(again, 1, length=again.content_length, chunked=again.chunked) == forwards
    return whole.result


def check_body(data: bytes, pieces: list[bytes]) -> bool:
    """Everything that holds of any bytes of a chunked body → whether it is complete."""
    results = []
    for parts in ([data], pieces):
        decoder = ChunkedDecoder(keep_trailers=frozenset((b"x-t", b"a")))
        try:
            payload = b"".join(decoder.feed(part) for part in parts)
        except WireError as error:
            results.append(error.failure)
        else:
            results.append((payload, decoder.done, decoder.rest, decoder.trailers))
    assert results[0] == results[1]
    assert not is_plain(data, 0) or results[0][1:] == (True, b"", [])
    if not isinstance(results[0], tuple) or not results[0][1]:
        return False
    payload = results[0][0]
    again = ChunkedDecoder()
    assert again.feed(encode_chunk(payload) + LAST_CHUNK) == payload
    assert again.done
    return True


def test_mutated_requests() -> None:
    """Requests that were mutated by people who know the grammar, then by chance, have one meaning or none."""
    accepted = 0
    for seed in range(SEED * 10_000_000, SEED * 10_000_000 + INPUTS):
        chance = random.Random(seed)
        data = stream(seed).data
        if chance.random() < 0.4:
            data = disturb(chance, data)
        limits = KEEP if seed % 5 == 0 else LIMITS
        accepted += check_request(data, cut_up(chance, data), limits).head is not None
    assert INPUTS // 20 < accepted < INPUTS // 2


def test_mutated_responses() -> None:
    """Answers that were mutated by chance have one meaning or none."""
    accepted = 0
    for seed in range(SEED * 10_000_000, SEED * 10_000_000 + INPUTS):
        chance = random.Random(seed)
        data = disturb(chance, chance.choice(RESPONSES)[:4000])
        accepted += check_response(data, cut_up(chance, data), chance.choice((b"GET", b"HEAD"))).head is not None
    assert INPUTS // 20 < accepted < INPUTS * 3 // 4


def test_mutated_bodies() -> None:
    """Chunked bodies that were mutated by chance have one meaning or none."""
    complete = 0
    for seed in range(SEED * 10_000_000, SEED * 10_000_000 + INPUTS):
        chance = random.Random(seed)
        data = disturb(chance, chance.choice(BODIES))
        complete += check_body(data, cut_up(chance, data))
    assert INPUTS // 20 < complete < INPUTS * 3 // 4


# --- Hypothesis: less, but it shrinks

tokens = st.sampled_from([
    b"GET", b"POST", b"HEAD", b"OPTIONS", b" ", b"/", b"/a", b"*", b"?q", b"%2e", b"%2F", b"..", b"//", b";", b"http://h",
    b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"Host: h\r\n", b"Content-Length: 3\r\n", b":",
    b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    b"Expect: 100-continue\r\n", b"X-Forwarded-For: 1.2.3.4\r\n", b"X_A: b\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b"abc",
    b"\x00", b"HTTP/1.1 ", b"200 OK", b"304", b"101 x", b"103 y", b"204 z", b"\t", b"\xff",
])
near_grammar = st.lists(tokens | st.binary(max_size=3), max_size=24).map(b"".join)
request_like = near_grammar.map(lambda rest: b"GET / HTTP/1.1\r\nHost: h\r\n" + rest)
response_like = near_grammar.map(lambda rest: b"HTTP/1.1 200 OK\r\n" + rest)
chances = st.randoms(use_true_random=False)
fuzz = settings(
    max_examples=20_000 if SOAK else 150, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@fuzz
@given(near_grammar | request_like | st.binary(max_size=200), chances)
def test_any_request_bytes(data: bytes, chance: random.Random) -> None:
    """Any bytes of a client have one meaning or none."""
    check_request(data, cut_up(chance, data))


@fuzz
@given(near_grammar | response_like | st.binary(max_size=200), chances, st.sampled_from([b"GET", b"HEAD"]))
def test_any_response_bytes(data: bytes, chance: random.Random, method: bytes) -> None:
    """Any bytes of a backend have one meaning or none."""
    check_response(data, cut_up(chance, data), method)


@fuzz
@given(st.lists(tokens | st.binary(max_size=4), max_size=12).map(b"".join), st.booleans())
def test_any_path(path: bytes, escaped_slashes: bool) -> None:
    """A path is refused, or has one form; decoded once more it leads out of nothing (T11)."""
    try:
        canonical = canonical_path(b"/" + path.replace(b"\\", b""), escaped_slashes)
    except WireError:
        return
    assert canonical_path(canonical, escaped_slashes) == canonical
    assert canonical.startswith(b"/")
    segments = canonical.replace(b"%2F", b"/").split(b"/")
    assert b"." not in segments
    assert b".." not in segments
    assert b"%2F" not in canonical or escaped_slashes
    assert b"%5C" not in canonical
    assert b"%00" not in canonical
    assert b"//" not in canonical


@pytest.mark.parametrize(
    "function",
    [is_valid_host, fast_request, fast_body_request, fast_response, set_apart],
    ids=["host", "request", "body_request", "response", "apart"],
)
def test_any_bytes_are_no_exception(function: Callable[[bytes], object]) -> None:
    """Functions that answer yes or no do so for any bytes."""
    chance = random.Random(SEED)
    for _ in range(INPUTS):
        function(chance.randbytes(chance.randrange(64)))
        function(disturb(chance, b"[::1]:80" if function is is_valid_host else chance.choice(RESPONSES)))


def test_any_proxy_header() -> None:
    """Mutated PROXY headers are read, refused, or need more bytes; more bytes change no verdict."""
    ends = (("192.0.2.1", 1234), ("2001:db8::1", 443))
    chance = random.Random(SEED)
    good = [proxy_protocol.encode(version, end, end) for version in (1, 2) for end in ends]
    good += [b"PROXY UNKNOWN\r\n", proxy_protocol.encode(2, None, None)]
    read = 0
    for _ in range(INPUTS):
        data = disturb(chance, chance.choice(good) + b"GET / HTTP/1.1\r\n")
        verdicts = []
        for end in sorted({chance.randrange(len(data) + 1), len(data)}):
            try:
                header = proxy_protocol.parse(data[:end])
            except WireError:
                verdicts.append("refused")
            else:
                verdicts.append("wanted" if header is None else f"read {header}")
                read += header is not None
                assert header is None or 0 < header.size <= end
        assert verdicts[0] in ("wanted", verdicts[-1])
    assert read > INPUTS // 10
