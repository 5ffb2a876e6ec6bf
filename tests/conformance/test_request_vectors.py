"""Every request vector: our verdict, whole and cut, and the second opinions of httptools and h11."""

from __future__ import annotations

import h11
import httptools
import pytest
from wire_vectors import Received, RequestReceiver, Vector, accepted, load

from gogate_py.wire.fast_head import fast_body_request, fast_request, set_apart
from gogate_py.wire.head_check import HeadLimits, RequestHead, find_head_end, strip_leading_empty_line
from gogate_py.wire.llhttp_check import RequestFraming

VECTORS = load("requests.yaml")
ACCEPTED = accepted(VECTORS)


def receive(vector: Vector, *cuts: int) -> Received:
    """Run a vector, cut at these places."""
    receiver = RequestReceiver(HeadLimits(header_names=vector.get("header_names", "drop")))
    for start, end in zip((0, *cuts), (*cuts, len(vector.raw)), strict=True):
        receiver.feed(vector.raw[start:end])
    return receiver.result


def head_of(vector: Vector) -> RequestHead:
    """The checked head of a vector that is accepted."""
    head = receive(vector).head
    assert isinstance(head, RequestHead)
    return head


@pytest.mark.parametrize("vector", VECTORS)
def test_verdict(vector: Vector) -> None:
    """The request is refused for the reason that the vector names, or forwarded as exactly the bytes that it names."""
    result = receive(vector)
    assert result.refused == vector.get("refused", "")
    if result.refused:
        return
    assert result.forwards == vector.octets("forwards")
    assert result.body == vector.octets("body")
    assert result.rest == vector.octets("rest")
    assert result.complete is vector.get("complete", True)
    head = result.head
    assert isinstance(head, RequestHead)
    assert head.keep_alive is not vector.get("close", False)
    assert head.websocket is vector.get("websocket", False)
    assert head.request_id == vector.octets("request_id")
    claimed = [[name.decode(), value.decode()] for name, value in head.forwarded]
    assert claimed == vector.get("forwarded", [])


@pytest.mark.parametrize("vector", VECTORS)
def test_every_cut(vector: Vector) -> None:
    """Where the network cuts a request changes nothing about the verdict."""
    whole = receive(vector)
    for cut in vector.cuts():
        assert receive(vector, cut) == whole, f"cut at {cut}"
    if len(vector.raw) <= 600:
        assert receive(vector, *range(1, len(vector.raw))) == whole, "byte by byte"


@pytest.mark.parametrize("vector", VECTORS)
def test_fast_path_never_takes_what_is_refused(vector: Vector) -> None:
    """The hot path accepts no head that the full check refuses, and none that it would change."""
    raw = strip_leading_empty_line(vector.raw)
    whole = raw[: find_head_end(raw)]
    apart = set_apart(whole)
    data = apart.clean if apart is not None else whole
    claims = apart.forwarded() if apart is not None else []
    posted = fast_body_request(data)
    if posted is not None:
        # The head is: of its body the hot path says nothing.
        assert vector.row.get("refused") in (None, "bad_chunk")
        head = head_of(vector)
        assert posted[:5] == (head.method, head.path, head.query, head.host, head.content_length)
        assert head.forwarded == claims
        assert not (head.chunked, head.expect_continue, head.websocket).count(True)
    found = fast_request(data)
    if found is None:
        return
    assert "refused" not in vector.row
    head = head_of(vector)
    assert (found[1], found[2], found[3] or b"", found[4]) == (head.method, head.path, head.query, head.host)
    assert head.forwarded == claims
    assert head.content_length == -1
    assert not head.chunked


class Observed:
    """What httptools reports of a message."""

    def __init__(self) -> None:
        self.url = b""
        self.body = b""
        self.completed = 0

    def on_url(self, url: bytes) -> None:
        """Part of the target."""
        self.url += url

    def on_body(self, body: bytes) -> None:
        """Part of the payload."""
        self.body += body

    def on_message_complete(self) -> None:
        """The end of a message."""
        self.completed += 1


@pytest.mark.parametrize("vector", ACCEPTED)
def test_httptools_agrees(vector: Vector) -> None:
    """What gogate accepts, llhttp accepts with the same method, target and body."""
    head = head_of(vector)
    result = receive(vector)
    observed = Observed()
    parser = httptools.HttpRequestParser(observed)
    message = vector.raw[: len(vector.raw) - len(result.rest)]
    try:
        parser.feed_data(message)
    except httptools.HttpParserUpgrade:
        assert head.websocket or b"upgrade" in vector.raw.lower()
    assert parser.get_method() == head.method
    assert observed.url == head.target
    assert observed.body == result.body
    assert observed.completed == int(result.complete)
    end = find_head_end(strip_leading_empty_line(vector.raw))
    has_body = head.chunked or head.content_length > 0
    assert RequestFraming.accepts_head(strip_leading_empty_line(vector.raw)[:end], has_body)


@pytest.mark.parametrize("vector", ACCEPTED)
def test_h11_agrees(vector: Vector) -> None:
    """What gogate accepts, h11 accepts with the same method, target and body, without an exception to the rule."""
    head = head_of(vector)
    result = receive(vector)
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=40000)
    connection.receive_data(strip_leading_empty_line(vector.raw))
    body = b""
    complete = False
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    while not complete:
        event = connection.next_event()
        if isinstance(event, h11.EndOfMessage):
            complete = True
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            assert event is h11.NEED_DATA
            break
    assert (request.method, request.target) == (head.method, head.target)
    assert (body, complete) == (result.body, result.complete)
