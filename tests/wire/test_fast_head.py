"""The hot path and the full check: what the first accepts, the second accepts with the same meaning."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.errors import WireError
from gogate_py.wire.fast_head import (
    fast_body_request,
    fast_request,
    fast_response,
    make_fast_body_request,
    make_fast_request,
    make_fast_response,
    set_apart,
)
from gogate_py.wire.forwarding import request_head
from gogate_py.wire.head_check import HeadLimits, check_request_head, check_response_head
from gogate_py.wire.llhttp_check import RequestFraming

HOSTILE_LINES = [
    b"Host: a",
    b"host: b.example:8080",
    b"HOST:\ta ",
    b"Host: a b",
    b"Host: a:99999",
    b"User-Agent: x/1 (y; z)",
    b"Accept: */*",
    b"accept:",
    b"X-A:  v\t",
    b"X-A: caf\xc3\xa9",
    b"Cookie: a=b; c=d",
    b"Tea: x",
    b"Texture: x",
    b"Trail: x",
    b"Hosts: x",
    b"Expected: x",
    b"Upgrade-Insecure-Requests: 1",
    b"X-Forwarded: x",
    b"Content-Type: text/plain",
    b"Connection: keep-alive",
    b"connection:Keep-Alive ",
    b"Connection: close",
    b"Connection: keep-alive, x-a",
    b"CONNECTION: upgrade",
    b"Upgrade: websocket",
    b"Keep-Alive: timeout=5",
    b"Proxy-Connection: keep-alive",
    b"TE: trailers",
    b"trailer: X",
    b"Transfer-Encoding: chunked",
    b"Content-Length: 5",
    b"content-length: 0",
    b"Content-Length: 05",
    b"Content-Length:5",
    b"Content-Length: 5 ",
    b"Content-Length: +5",
    b"Content-Length: 5, 5",
    b"Content-Length: 1234567890123456789",
    b"Expect: 100-continue",
    b"X-Forwarded-For: 1.2.3.4",
    b"x-forwarded-x: 1",
    b"X-Real-IP: 1.2.3.4",
    b"Forwarded: for=x",
    b"X-Request-ID: abc",
    b"X_Forwarded_For: 1",
    b"X.A: 1",
    b"A : b",
    b": b",
    b" folded",
    b"A: \x00",
    b"A: b\nC: d",
]
# Weighted towards clean heads, which a free choice of lines nearly never makes.
CLEAN_LINES = st.sampled_from(
    [b"Accept: */*", b"User-Agent: x", b"X-A:  v\t", b"Cookie: a=b", b"Tea: x", b"X-Forwarded: x"]
)
BODY_METHODS = [b"POST", b"PUT", b"PATCH", b"GET", b"DELETE", b"PROPFIND", b"post"]
METHODS = [b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"POST", b"TRACE", b"get", b"GETS"]
CLEAN_TARGETS = [b"/", b"/a/b?c=d", b"/a?", b"/a/", b"/a.b/c..d", b"/?a|b", b"/[a]/$&'()*+,=:@-_~!"]
CLEAN_TARGETS += [b"/a%20b/c", b"/%C3%A9t%C3%A9/", b"/%20../%FF."]
TARGETS = [b"/a//b", b"/./a", b"/a/..", b"/a/.b", b"/%41", b"/a;b", b"/a|b", b"/?#", b"/#", b"*", b"http://x/y"]
TARGETS += [b"/%c3%a9", b"/%7F", b"/%2F", b"/%5c", b"/%00", b"/%", b"/%2", b"/%2E%2E/a", b"/a/%20/..", b"/%20%3B"]
TARGETS += [b"/a b", b"/\xe9", b"//", b"", b"/a?b c"]
VERSIONS = [b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0"]
STATUSES = st.sampled_from(
    [b"200 OK", b"200 OK", b"404 Not Found", b"500", b"299 ", b"204 No Content", b"304 X", b"304 ", b"101 X", b"600 X"]
)
OCTETS = st.sampled_from([b"", b" ", b"\r", b"\n", b":", b"\0", b"a", b"-", b"_", b"%", b"/", b".", b"\x7f", b"\xff"])


def mostly(usual: list[bytes], other: list[bytes]) -> st.SearchStrategy[bytes]:
    """One of the usual, and once in six times one of the other."""
    return st.integers(0, 5).flatmap(lambda die: st.sampled_from(other if die == 5 else usual))


@st.composite
def fields(draw: st.DrawFn, needed: list[bytes]) -> bytes:
    """Field lines: clean ones around the needed ones, and in one of three cases one that is anything."""
    lines = draw(st.lists(CLEAN_LINES, max_size=5))
    if draw(st.integers(0, 2)) == 0:
        needed = [*needed, draw(st.sampled_from(HOSTILE_LINES))]
    for line in needed:
        lines.insert(draw(st.integers(0, len(lines))), line)
    return b"".join(line + b"\r\n" for line in lines)


@st.composite
def mutated(draw: st.DrawFn, base: st.SearchStrategy[bytes]) -> bytes:
    """The bytes, or the bytes with one octet replaced, put in or left out."""
    data = draw(base)
    if draw(st.integers(0, 3)):
        return data
    at = draw(st.integers(0, len(data)))
    return data[:at] + draw(OCTETS) + data[at + draw(st.integers(0, 1)) :]


requests = mutated(
    st.builds(
        lambda method, target, version, lines: b"%b %b %b\r\n%b\r\n" % (method, target, version, lines),
        mostly(METHODS[:4], METHODS),
        mostly(CLEAN_TARGETS, TARGETS),
        mostly(VERSIONS[:1], VERSIONS),
        st.sampled_from(
            [
                [b"Host: a.b"],
                [b"host: a:80"],
                [b"Host: a", b"Connection: keep-alive"],
                [b"Host: a", b"Connection: close"],
            ]
        ).flatmap(fields),
    )
)
body_requests = mutated(
    st.builds(
        lambda method, target, version, lines: b"%b %b %b\r\n%b\r\n" % (method, target, version, lines),
        mostly(BODY_METHODS[:3], BODY_METHODS),
        mostly(CLEAN_TARGETS, TARGETS),
        mostly(VERSIONS[:1], VERSIONS),
        st.sampled_from(
            [
                [b"Host: a.b", b"Content-Length: 5"],
                [b"content-length: 123456789012345678", b"host: a:80"],
                [b"Host: a", b"Connection: keep-alive", b"Content-Length: 5"],
                [b"Connection: Close", b"Content-length: 5", b"Host: a"],
                [b"Content-Length: 5", b"Host: a", b"Content-Length: 5"],
            ]
        ).flatmap(fields),
    )
)
responses = mutated(
    st.builds(
        lambda version, status, lines: b"%b %b\r\n%b\r\n" % (version, status, lines),
        mostly(VERSIONS[:1], VERSIONS),
        STATUSES,
        st.sampled_from(
            [
                [b"Content-Length: 5"],
                [b"content-length:0", b"Connection: keep-alive"],
                [b"Content-Length: 5", b"X-Request-ID: abc"],
                [b"Content-Length: 5", b"Keep-Alive: timeout=5"],
                [b"Transfer-Encoding: chunked"],
                [b"transfer-encoding: chunked", b"Connection: keep-alive"],
                [b"Transfer-Encoding: chunked", b"Content-Type: text/event-stream"],
                [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
                [],
                [b"Connection: keep-alive"],
            ]
        ).flatmap(fields),
    )
)


def parse_lines(head: bytes) -> list[tuple[bytes, bytes]]:
    """Field lines of a head known to be clean, by the plainest means."""
    lines = head.split(b"\r\n")[1:-2]
    return [(name, value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]


def without_cut(head: bytes, start: int, end: int) -> bytes:
    """The head without the region to cut, which must be whole lines."""
    assert start == end or (head[start - 2 : start] == b"\r\n" == head[end - 2 : end])
    return head[:start] + head[end:]


def what_is_clean(head: bytes) -> bytes:
    """What the hot path looks at: the head, or what it is without the lines of a proxy in front, of which the full
    check, if it takes the head, says the same."""
    apart = set_apart(head)
    if apart is None:
        return head
    assert apart.whole is head
    try:
        checked = check_request_head(head, HeadLimits())
    except WireError:
        assert fast_request(apart.clean) is None
        assert fast_body_request(apart.clean) is None
    else:
        if checked.minor:
            assert (apart.forwarded(), apart.request_id()) == (checked.forwarded, checked.request_id)
    assert set_apart(apart.clean) is None
    return apart.clean


def assert_same_request(head: bytes) -> None:
    """If the hot path takes the head, the full check takes it, too, and forwards the same meaning; llhttp agrees."""
    clean = what_is_clean(head)
    found = fast_request(clean)
    if found is None:
        return
    checked = check_request_head(head, HeadLimits())
    method, path, query, host, cut, closes = found.groups()
    assert (method, path, query or b"", host) == (checked.method, checked.path, checked.query, checked.host)
    assert checked.keep_alive == (closes is None)
    assert (checked.chunked, checked.content_length) == (False, -1)
    assert (checked.websocket, checked.expect_continue) == (False, False)
    assert clean is not head or (checked.forwarded, checked.request_id) == ([], b"")
    start, end = found.span(5) if cut is not None else (0, 0)
    sliced = without_cut(clean, start, end)
    slow = request_head(checked, b"")
    assert sliced.split(b"\r\n")[0] == slow.split(b"\r\n")[0]
    sent = parse_lines(sliced)
    assert [value for name, value in sent if name.lower() == b"host"] == [host]
    assert [field for field in sent if field[0].lower() != b"host"] == parse_lines(slow)[1:]
    assert RequestFraming().agrees_one_message(head, closes is not None)


def assert_same_body_request(head: bytes) -> None:
    """The same of a head that announces a body."""
    clean = what_is_clean(head)
    found = fast_body_request(clean)
    if found is None:
        return
    checked = check_request_head(head, HeadLimits())
    assert found[:4] == (checked.method, checked.path, checked.query, checked.host)
    assert found.keep_alive == checked.keep_alive
    assert (checked.chunked, checked.content_length) == (False, found.length)
    assert (checked.websocket, checked.expect_continue) == (False, False)
    assert clean is not head or (checked.forwarded, checked.request_id) == ([], b"")
    sliced = without_cut(clean, found.cut_start, found.cut_end)
    slow = request_head(checked, b"")
    assert sliced.split(b"\r\n")[0] == slow.split(b"\r\n")[0]
    framing = [field for field in parse_lines(sliced) if field[0].lower() in (b"host", b"content-length")]
    assert sorted((name.lower(), value) for name, value in framing) == [
        (b"content-length", b"%d" % found.length),
        (b"host", found.host),
    ]
    assert [field for field in parse_lines(sliced) if field not in framing] == checked.fields
    assert RequestFraming.accepts_head(sliced, True)
    assert not RequestFraming.accepts_head(sliced, False)


FRAMING = (b"content-length", b"transfer-encoding")


def assert_same_response(head: bytes) -> None:
    """If the hot path takes the head, the full check takes it, too, and passes on the same meaning."""
    fast = fast_response(head)
    if fast is None:
        return
    checked = check_response_head(head, HeadLimits())
    status, length, start, end = fast
    bodiless = status in (204, 304)
    assert (status, -1 if bodiless else length) == (checked.status, checked.content_length)
    assert checked.keep_alive
    assert checked.chunked == (length < 0)
    sent = parse_lines(without_cut(head, start, end))
    framing = [(name.lower(), value) for name, value in sent if name.lower() in FRAMING]
    if bodiless:
        assert (length, framing) == (0, [])
    else:
        assert framing == [(b"transfer-encoding", b"chunked") if length < 0 else framing[0]]
    assert [field for field in sent if field[0].lower() not in FRAMING] == checked.fields


@settings(max_examples=500, deadline=None)
@given(requests)
def test_a_fast_request_means_the_same_to_the_full_check(head: bytes) -> None:
    """Whatever is forwarded as a slice would have been forwarded with the same meaning."""
    assert_same_request(head)


@settings(max_examples=500, deadline=None)
@given(body_requests)
def test_a_fast_request_with_a_body_means_the_same_to_the_full_check(head: bytes) -> None:
    """Whatever is forwarded as a slice would have been forwarded with the same meaning, and the same body behind it."""
    assert_same_body_request(head)


@settings(max_examples=500, deadline=None)
@given(responses)
def test_a_fast_response_means_the_same_to_the_full_check(head: bytes) -> None:
    """Whatever answer is passed on as a slice would have been passed on with the same meaning."""
    assert_same_response(head)


@pytest.mark.parametrize("line", HOSTILE_LINES)
def test_every_unusual_line_in_an_otherwise_clean_head(line: bytes) -> None:
    """Each line that needs work, or nearly looks like it, means the same on both roads wherever it stands."""
    for lines in ([line, b"Host: a"], [b"Host: a", line], [b"Host: a", b"Connection: keep-alive", line], [line]):
        assert_same_request(b"GET / HTTP/1.1\r\n%b\r\n\r\n" % b"\r\n".join(lines))
    for lines in (
        [line, b"Host: a", b"Content-Length: 5"],
        [b"Content-Length: 5", line, b"Host: a"],
        [b"Connection: close", b"Host: a", b"Content-Length: 5", line],
        [b"Host: a", line],
    ):
        assert_same_body_request(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % b"\r\n".join(lines))
    framed = (b"Content-Length: 5", b"Transfer-Encoding: chunked")
    for lines in ([line], *([line, one] for one in framed), *([one, line] for one in framed)):
        assert_same_response(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % b"\r\n".join(lines))


@pytest.mark.parametrize("target", CLEAN_TARGETS + TARGETS)
def test_every_target(target: bytes) -> None:
    """Each target, canonical or not, means the same on both roads, and the clean ones take the hot one."""
    assert (fast_request(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target) is not None) == (target in CLEAN_TARGETS)
    assert_same_request(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target)
    assert_same_body_request(b"PUT %b HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n" % target)


@pytest.mark.parametrize(
    ("fields_", "cut"),
    [
        (b"Host: a\r\n", None),
        (b"Accept: */*\r\nhOsT:a.b:80 \r\nUser-Agent: x\r\n", None),
        (b"Host: a\r\nConnection: keep-alive\r\n", b"Connection: keep-alive\r\n"),
        (b"Host: a\r\nA: b\r\nconnection:Keep-Alive\r\nC: d\r\n", b"connection:Keep-Alive\r\n"),
        (b"Host: a\r\nConnection: close\r\nA: b\r\n", b"Connection: close\r\n"),
        (b"Host: a\r\nUpgrade-Insecure-Requests: 1\r\nTea: x\r\nExpected: x\r\nX-Forwarded: y\r\nHosts: z\r\n", None),
        (b"Host: a\r\n" + b"A: b\r\n" * 99, None),
    ],
)
def test_ordinary_requests_are_fast(fields_: bytes, cut: bytes | None) -> None:
    """The heads that ordinary clients send take the hot path."""
    found = fast_request(b"GET /a/b.c?d=e HTTP/1.1\r\n%b\r\n" % fields_)
    assert found is not None
    assert found.group(1, 2, 3, 5) == (b"GET", b"/a/b.c", b"?d=e", cut)


@pytest.mark.parametrize(
    ("fields_", "keep_alive", "cut"),
    [
        (b"Host: a\r\nA: b\r\nContent-Length: 5\r\n", True, b""),
        (b"Content-Type: a/b\r\ncontent-length: 5\r\nHost: a\r\n", True, b""),
        (b"Host: a\r\nConnection: keep-alive\r\nContent-Length: 5\r\n", True, b"Connection: keep-alive\r\n"),
        (b"connection: close\r\nContent-Length: 5\r\nA: b\r\nHost: a\r\n", False, b"connection: close\r\n"),
        (b"Content-Length: 5\r\nHost: a\r\nA: b\r\nConnection: close\r\n", False, b"Connection: close\r\n"),
        (b"Host: a\r\nContent-Length: 5\r\n" + b"A: b\r\n" * 98, True, b""),
    ],
)
def test_ordinary_requests_with_a_body_are_fast(fields_: bytes, keep_alive: bool, cut: bytes) -> None:
    """Host, length and Connection in whatever order clients have them."""
    head = b"POST /a/b.c?d=e HTTP/1.1\r\n%b\r\n" % fields_
    found = fast_body_request(head)
    assert found is not None
    assert found[:6] == (b"POST", b"/a/b.c", b"?d=e", b"a", 5, keep_alive)
    assert head[found.cut_start : found.cut_end] == cut


@pytest.mark.parametrize(
    "fields_",
    [
        b"Host: a\r\n",
        b"Content-Length: 5\r\n",
        b"Host: a\r\nContent-Length: 0\r\n",
        b"Host: a\r\nContent-Length: 05\r\n",
        b"Host: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n",
        b"Host: a\r\nHost: a\r\nContent-Length: 5\r\n",
        b"Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Host: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n",
        b"Connection: close\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n",
        b"Host: a\r\nConnection: close, content-length\r\nContent-Length: 5\r\n",
        b"Host: a\r\nContent-Length: 5\r\n" + b"A: b\r\n" * 99,
        b"Host: %b\r\nContent-Length: 5\r\n" % (b"a" * 256),
    ],
)
def test_unusual_requests_with_a_body_are_not_fast(fields_: bytes) -> None:
    """No length, no body, two of anything, other framing, a limit: the full check decides."""
    assert fast_body_request(b"POST / HTTP/1.1\r\n%b\r\n" % fields_) is None


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nx",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: keep-alive\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % (b"a" * 256),
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 100 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: %b\r\n\r\n" % (b"b" * 8192),
        b"POST / HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_what_is_not_provably_clean_is_not_fast(head: bytes) -> None:
    """A body, a second Host, a limit, anything behind the head: the full check decides."""
    assert fast_request(head) is None


NODE = b"HTTP/1.1 200 OK\r\nDate: x\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 7\r\n\r\n"
NGINX = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 7\r\nConnection: keep-alive\r\nETag: y\r\n\r\n"
UVICORN = b"HTTP/1.1 404 Not Found\r\ndate: x\r\nserver: uvicorn\r\ncontent-length: 0\r\ncontent-type: a/b\r\n\r\n"

FLASK = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\ntransfer-encoding: chunked\r\nDate: x\r\n\r\n"


def test_ordinary_responses_are_fast() -> None:
    """The heads of ordinary backends take the hot path; adjacent lines are cut together."""
    assert fast_response(UVICORN) == (404, 0, 0, 0)
    node = fast_response(NODE)
    assert node is not None
    assert node[:2] == (200, 7)
    assert NODE[node[2] : node[3]] == b"Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n"
    assert fast_response(FLASK) == (200, -1, 0, 0)
    assert fast_response(b"HTTP/1.1 204 No Content\r\nDate: x\r\n\r\n") == (204, 0, 0, 0)
    unchanged = b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nConnection: keep-alive\r\nDate: x\r\n\r\n"
    assert fast_response(unchanged) == (304, 0, 36, 60)
    assert unchanged[36:60] == b"Connection: keep-alive\r\n"
    node = fast_response(NODE.replace(b"Content-Length: 7", b"Transfer-Encoding: chunked"))
    assert node is not None
    assert node[:2] == (200, -1)
    nginx = fast_response(NGINX)
    assert nginx is not None
    assert NGINX[nginx[2] : nginx[3]] == b"Connection: keep-alive\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\ncontent-type: Text/Event-Stream; a=b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1234567890123456789\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Request-ID: a\r\nA: b\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n" + b"A: b\r\n" * 128 + b"\r\n",
    ],
)
def test_unusual_responses_are_not_fast(head: bytes) -> None:
    """Other framing, two regions to cut, statuses without a body: the full check decides."""
    assert fast_response(head) is None


@pytest.mark.parametrize(
    ("lines", "forwarded", "request_id"),
    [
        ((b"X-Forwarded-For: 1.2.3.4",), [(b"x-forwarded-for", b"1.2.3.4")], b""),
        ((b"x-forwarded-A:1, 2 ", b"X-Forwarded-B:"), [(b"x-forwarded-a", b"1, 2"), (b"x-forwarded-b", b"")], b""),
        ((b"X-Real-IP: a", b"Forwarded: for=\xff"), [(b"x-real-ip", b"a"), (b"forwarded", b"for=\xff")], b""),
        ((b"X-Request-ID: abc", b"X-Forwarded-Port: 443"), [(b"x-forwarded-port", b"443")], b"abc"),
        ((b"X-Request-ID: abc", b"X-Request-ID: abc"), [], b""),
        ((b"X-Request-ID: a b",), [], b""),
    ],
)
def test_lines_of_a_proxy_in_front(
    lines: tuple[bytes, ...], forwarded: list[tuple[bytes, bytes]], request_id: bytes
) -> None:
    """They are taken out wherever they stand, and nothing else is; the request is as fast as without them."""
    others = [b"Host: a", b"Accept: */*", b"Connection: keep-alive"]
    for at in range(len(others) + 1):
        head = b"".join(line + b"\r\n" for line in (b"GET / HTTP/1.1", *others[:at], *lines, *others[at:], b""))
        apart = set_apart(head)
        assert apart is not None
        assert apart.clean == b"".join(line + b"\r\n" for line in (b"GET / HTTP/1.1", *others, b""))
        assert (apart.forwarded(), apart.request_id()) == (forwarded, request_id)
        assert fast_request(apart.clean) is not None
        assert_same_request(head)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded: a\r\nX-Real-IPs: b\r\nX-Forwarded-: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: a\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: a\rb\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For_A: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-" + b"a" * 245 + b": a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-Forwarded-For: a\r\n" * 100 + b"\r\n",
    ],
)
def test_what_stays_in_a_head(head: bytes) -> None:
    """Other names, and lines that are not clean, are left for the proof, and heads over a limit for the full check."""
    assert set_apart(head) is None
    assert_same_request(head)


def test_a_line_behind_a_folded_one_is_no_line() -> None:
    """The value of the line goes on: the head is refused, not forwarded without its middle."""
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: a\r\n b\r\n\r\n"
    apart = set_apart(head)
    assert apart is not None
    assert fast_request(apart.clean) is None


def test_limits_and_methods_are_part_of_the_proof() -> None:
    """A snapshot with narrower limits makes a narrower hot path."""
    request = b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n"
    assert make_fast_request(HeadLimits())(request) is not None
    assert make_fast_request(HeadLimits(request_fields=1))(request) is None
    assert make_fast_request(HeadLimits(request_head=len(request)))(request) is not None
    assert make_fast_request(HeadLimits(request_head=len(request) - 1))(request) is None
    assert make_fast_request(HeadLimits(request_line=13))(request) is None
    assert make_fast_request(HeadLimits(methods=frozenset((b"HEAD",))))(request) is None
    assert make_fast_request(HeadLimits(methods=frozenset((b"POST",))))(request) is None
    posted = b"POST / HTTP/1.1\r\nHost: a\r\nA: b\r\nContent-Length: 5\r\n\r\n"
    assert make_fast_body_request(HeadLimits())(posted) is not None
    assert make_fast_body_request(HeadLimits(request_fields=2))(posted) is None
    assert make_fast_body_request(HeadLimits(request_head=len(posted) - 1))(posted) is None
    assert make_fast_body_request(HeadLimits(request_line=13))(posted) is None
    assert make_fast_body_request(HeadLimits(methods=frozenset((b"GET",))))(posted) is None
    assert make_fast_body_request(HeadLimits(identity=frozenset((b"a",))))(posted) is None
    assert make_fast_response(HeadLimits(response_fields=2))(NGINX) is None
    assert make_fast_response(HeadLimits(response_head=50))(NGINX) is None
