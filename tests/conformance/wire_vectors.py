"""Load the vectors and run one through the wire package the way the data plane does: buffer, head, body.

The receivers below are the smallest drivers that keep the data plane's order of calls, so that a vector's verdict can
be compared for every way of cutting its bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gogate_py.errors import WireError
from gogate_py.wire.chunked import ChunkedDecoder
from gogate_py.wire.forwarding import interim_head, request_head, response_head
from gogate_py.wire.head_check import (
    HeadLimits,
    RequestHead,
    ResponseHead,
    check_request_head,
    check_response_head,
    early_refusal,
    find_head_end,
    has_body,
    strip_leading_empty_line,
)

HERE = Path(__file__).parent


def load(name: str) -> list[Any]:
    """The vectors of one file as pytest parameters, each identified by its name."""
    import pytest

    text = (HERE / name).read_text("utf-8")
    vectors = [Vector(row) for row in yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))]
    assert len({vector.name for vector in vectors}) == len(vectors), "two vectors have one name"
    return [pytest.param(vector, id=vector.name.replace(" ", "-")) for vector in vectors]


def accepted(parameters: list[Any]) -> list[Any]:
    """Those of them that gogate does not refuse: what it refuses, nobody else is asked about."""
    return [parameter for parameter in parameters if "refused" not in parameter.values[0].row]


class Vector:
    """One row of a vector file, its text turned into bytes."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.row = row
        self.name: str = row["name"]
        self.raw = self.octets("bytes")

    def octets(self, key: str, default: str = "") -> bytes:
        """The value of a key as bytes, with its repetition filled in."""
        text, count = self.row.get("repeat", ("", 0))
        value: str = self.row.get(key, default)
        return value.replace("@R@", text * count).encode("latin-1")

    def get(self, key: str, default: Any) -> Any:
        """The value of a key that is not bytes."""
        return self.row.get(key, default)

    def cuts(self) -> list[int]:
        """Where to cut the bytes in two: everywhere, or for large vectors near both ends and now and then between."""
        size = len(self.raw)
        if size <= 600:
            return list(range(1, size))
        return [*range(1, 40), *range(40, size - 40, size // 40), *range(size - 40, size)]


@dataclass
class Received:
    """What became of the bytes of one message; equal for every way of cutting them."""

    refused: str = ""
    forwards: bytes = b""
    body: bytes = b""
    rest: bytes = b""
    complete: bool = False
    head: RequestHead | ResponseHead | None = field(default=None, compare=False)


class Body:
    """The body of either kind of message: counted, chunked or until the connection closes."""

    def __init__(self, length: int, decoder: ChunkedDecoder | None) -> None:
        self.length = length
        self.decoder = decoder

    def feed(self, data: bytes, into: Received) -> None:
        """Take a piece; what is behind the body goes into ``rest``."""
        if self.decoder is not None:
            into.body += self.decoder.feed(data)
            into.complete = self.decoder.done
            into.rest = self.decoder.rest
        elif self.length < 0:
            into.body += data
        else:
            taken = data[: self.length]
            into.body += taken
            into.rest += data[len(taken) :]
            self.length -= len(taken)
            into.complete = self.length == 0


class RequestReceiver:
    """Receives one request."""

    def __init__(self, limits: HeadLimits) -> None:
        self.limits = limits
        self.result = Received()
        self.buffer = b""
        self.seen = 0
        self.body: Body | None = None

    def feed(self, data: bytes) -> None:
        """Take a piece; nothing happens after a refusal."""
        if self.result.refused:
            return
        try:
            if self.body is None:
                self._head(data)
            else:
                self.body.feed(data, self.result)
        except WireError as error:
            self.result = Received(refused=error.failure.reason)

    def _head(self, data: bytes) -> None:
        self.buffer += data
        head_bytes = strip_leading_empty_line(self.buffer)
        end = find_head_end(head_bytes)
        if end < 0:
            failure = early_refusal(head_bytes, self.limits, self.seen)
            # A lone CR may be half of the empty line that is not part of the head.
            self.seen = 0 if head_bytes == b"\r" else len(head_bytes)
            if failure is not None:
                raise WireError(failure)
            return
        head = check_request_head(head_bytes[:end], self.limits)
        self.result.head = head
        self.result.forwards = request_head(head, b"")
        self.body = Body(max(head.content_length, 0), ChunkedDecoder() if head.chunked else None)
        self.body.feed(head_bytes[end:], self.result)


class ResponseReceiver:
    """Receives the answer to one request: interim heads, the final head and its body."""

    def __init__(self, limits: HeadLimits, method: bytes) -> None:
        self.limits = limits
        self.method = method
        self.result = Received()
        self.buffer = b""
        self.body: Body | None = None

    def feed(self, data: bytes) -> None:
        """Take a piece; nothing happens after a refusal."""
        if self.result.refused:
            return
        try:
            if self.body is not None:
                self.body.feed(data, self.result)
                return
            self.buffer += data
            while self.body is None:
                end = find_head_end(self.buffer)
                if end < 0:
                    return
                head = check_response_head(self.buffer[:end], self.limits)
                self.buffer = self.buffer[end:]
                self._take_head(head)
            self.body.feed(self.buffer, self.result)
        except WireError as error:
            self.result = Received(refused=error.failure.reason)

    def _take_head(self, head: ResponseHead) -> None:
        if head.status < 200 and head.status != 101:
            self.result.forwards += interim_head(head)
            return
        self.result.head = head
        if head.status == 101:
            self.result.forwards += interim_head(head)
            self.body = Body(0, None)
        elif not has_body(self.method, head):
            self.result.forwards += response_head(head, 1, length=head.content_length)
            self.body = Body(0, None)
        else:
            chunked = head.content_length < 0
            self.result.forwards += response_head(head, 1, length=head.content_length, chunked=chunked)
            self.body = Body(head.content_length, ChunkedDecoder(response=True) if head.chunked else None)
