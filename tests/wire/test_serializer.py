"""Local answers as bytes."""

from __future__ import annotations

from http import HTTPStatus

import h11
import pytest

from gogate_py.errors import Failure
from gogate_py.wire.serializer import PHRASES, STATUS_LINES, local_response, status_line


def parse(response: bytes, method: str = "GET") -> tuple[h11.Response, bytes]:
    """An answer as h11, the client of our tests, reads it; nothing may be left over."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(response)
    head = connection.next_event()
    assert isinstance(head, h11.Response)
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert connection.trailing_data[0] == b""
    return head, body


def test_every_failure_has_a_phrase() -> None:
    """Each status that gogate answers with has its registered phrase; 499 is logged and never sent."""
    for failure in Failure:
        if failure is not Failure.CLIENT_GONE:
            assert PHRASES[failure.status]


def test_phrases_are_those_of_the_registry() -> None:
    """Phrases agree with Python's table, apart from those that RFC 9110 renamed."""
    renamed = {413, 414, 416, 422}
    for status, phrase in PHRASES.items():
        if status not in renamed:
            assert phrase.decode() == HTTPStatus(status).phrase
    assert STATUS_LINES[413] == b"HTTP/1.1 413 Content Too Large\r\n"
    assert status_line(299) == b"HTTP/1.1 299 \r\n"


@pytest.mark.parametrize("close", [True, False])
def test_local_response(close: bool) -> None:
    """A whole answer has its type, its length, the extra lines and, when it is the last, Connection: close."""
    head, body = parse(local_response(429, b"slow", b"text/plain", close=close, extra=b"Retry-After: 1\r\n"))
    assert (head.status_code, bytes(head.reason), body) == (429, b"Too Many Requests", b"slow")
    fields = dict(head.headers)
    assert fields[b"content-type"] == b"text/plain"
    assert fields[b"content-length"] == b"4"
    assert fields[b"retry-after"] == b"1"
    assert (fields.get(b"connection") == b"close") is close


def test_an_answer_to_head_has_a_length_and_no_body() -> None:
    """HEAD gets the head that GET would have got."""
    response = local_response(404, b"gone", b"text/plain", close=False, head_only=True)
    head, body = parse(response, "HEAD")
    assert (dict(head.headers)[b"content-length"], body) == (b"4", b"")
    assert response.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(status: int) -> None:
    """204 and 304 get neither framing nor body."""
    assert parse(local_response(status, b"x", b"text/plain", close=False)) == (
        h11.Response(status_code=status, headers=[], reason=PHRASES[status], http_version="1.1"),
        b"",
    )
