"""Every response vector: our verdict, whole and cut, and the second opinions of httptools and h11."""

from __future__ import annotations

import contextlib

import h11
import httptools
import pytest
from wire_vectors import Received, ResponseReceiver, Vector, accepted, load

from gogate_py.wire.fast_head import fast_response
from gogate_py.wire.head_check import HeadLimits, ResponseHead, check_response_head, find_head_end

VECTORS = load("responses.yaml")
ACCEPTED = accepted(VECTORS)


def receive(vector: Vector, *cuts: int) -> Received:
    """Run a vector, cut at these places."""
    receiver = ResponseReceiver(HeadLimits(), vector.octets("method", "GET"))
    for start, end in zip((0, *cuts), (*cuts, len(vector.raw)), strict=True):
        receiver.feed(vector.raw[start:end])
    return receiver.result


@pytest.mark.parametrize("vector", VECTORS)
def test_verdict(vector: Vector) -> None:
    """The answer is refused, or passed on with exactly the head and body that the vector names."""
    result = receive(vector)
    assert result.refused == vector.get("refused", "")
    if result.refused:
        return
    assert result.forwards == vector.octets("forwards")
    assert result.body == vector.octets("body")
    assert result.rest == vector.octets("rest")
    assert result.complete is vector.get("complete", True)
    if isinstance(result.head, ResponseHead):
        assert result.head.keep_alive is not vector.get("close", False)
        assert result.head.upgrade == vector.octets("upgrade")


@pytest.mark.parametrize("vector", VECTORS)
def test_every_cut(vector: Vector) -> None:
    """Where the network cuts an answer changes nothing about the verdict."""
    whole = receive(vector)
    for cut in vector.cuts():
        assert receive(vector, cut) == whole, f"cut at {cut}"
    if len(vector.raw) <= 600:
        assert receive(vector, *range(1, len(vector.raw))) == whole, "byte by byte"


@pytest.mark.parametrize("vector", VECTORS)
def test_fast_path_never_takes_what_is_refused(vector: Vector) -> None:
    """The hot path accepts no head that the full check refuses or would frame differently."""
    data = vector.raw[: find_head_end(vector.raw)]
    fast = fast_response(data)
    if fast is None:
        return
    head = check_response_head(data, HeadLimits())
    assert fast[:2] == (head.status, head.content_length if head.status not in (204, 304) else 0)
    assert head.keep_alive
    assert head.chunked == (fast[1] < 0)


class Observed:
    """What httptools reports of an answer."""

    def __init__(self) -> None:
        self.body = b""
        self.completed = 0

    def on_body(self, body: bytes) -> None:
        """Part of the payload."""
        self.body += body

    def on_message_complete(self) -> None:
        """The end of a message."""
        self.completed += 1


@pytest.mark.parametrize("vector", ACCEPTED)
def test_httptools_agrees(vector: Vector) -> None:
    """What gogate accepts, llhttp accepts with the same status and body, but for the reasons given in the vector."""
    result = receive(vector)
    observed = Observed()
    parser = httptools.HttpResponseParser(observed)
    message = vector.raw[: len(vector.raw) - len(result.rest)]
    agrees = True
    try:
        with contextlib.suppress(httptools.HttpParserUpgrade):
            parser.feed_data(message)
        if isinstance(result.head, ResponseHead):
            agrees = parser.get_status_code() == result.head.status and observed.body == result.body
            agrees = agrees and bool(observed.completed) is result.complete
    except httptools.HttpParserError:
        agrees = False
    assert agrees is (vector.get("httptools", None) is None)


@pytest.mark.parametrize("vector", ACCEPTED)
def test_h11_agrees(vector: Vector) -> None:
    """What gogate accepts, h11 accepts with the same status and body, but for the reasons given in the vector."""
    result = receive(vector)
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=70000)
    fields = [("Host", "a")]
    if vector.octets("upgrade"):
        fields += [("Connection", "upgrade"), ("Upgrade", vector.octets("upgrade").decode())]
    connection.send(h11.Request(method=vector.octets("method", "GET"), target="/", headers=fields))
    connection.send(h11.EndOfMessage())
    connection.receive_data(vector.raw)
    body = b""
    status = 0
    complete = False
    refused = False
    try:
        while not complete:
            event = connection.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                break
            if isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.Response | h11.InformationalResponse):
                status = event.status_code
                complete = status == 101
            else:
                complete = isinstance(event, h11.EndOfMessage)
    except h11.RemoteProtocolError:
        refused = True
    agrees = not refused and (body, complete) == (result.body, result.complete)
    if isinstance(result.head, ResponseHead):
        agrees = agrees and status == result.head.status
    assert agrees is (vector.get("h11", None) is None)
