"""Access lines: one JSON object (or logfmt text) a line, made in batches (access_log.py).

Every value comes from the configuration, from closed sets, or from what the strict head check let through (visible
ASCII); values a client chose are cut at MAX_FIELD. The time is formatted once per millisecond at most.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from gogate_py.clock import wall
from gogate_py.messages import Timers

MAX_FIELD: Final = 2048


class RequestLine(msgspec.Struct, omit_defaults=True, gc=False):
    """One HTTP request. ``duration_ms`` from the complete head to the last byte of the answer; ``bytes`` of answer
    body and head. The other times are there where they are asked for (messages.Timers)."""

    time: str
    level: str
    msg: str
    method: str
    path: str
    status: int
    duration_ms: float
    backend: str
    route: str
    request_id: str
    client: str
    bytes: int
    reason: str = ""
    host: str = ""
    retries: int = 0
    detail: str = ""
    receive_ms: float | None = None
    queue_ms: float | None = None
    connect_ms: float | None = None
    first_byte_ms: float | None = None


class TcpLine(msgspec.Struct, omit_defaults=True, gc=False):
    """One L4 connection at its end. ``bytes_in`` from the client, ``bytes_out`` to it."""

    time: str
    level: str
    msg: str
    listener: str
    route: str
    pool: str
    backend: str
    client: str
    bytes_in: int
    bytes_out: int
    duration_ms: float
    result: str
    connection_id: str
    reason: str = ""


#: The end of a request: when (monotonic seconds), method, path, status, seconds it took, backend, route, request id,
#: client, bytes, reason, host, retries, detail, and its timers where they are asked for. A plain tuple, which is what
#: the hot path can afford.
RequestEnd = tuple[
    float, bytes, bytes, int, float, str, str, bytes, str, int, str, bytes, int, str, Timers | None
]  # fmt: skip

#: The end of an L4 connection: when (monotonic seconds), listener, route, pool, backend, client, bytes in, bytes out,
#: seconds it took, result, connection id, reason.
ConnectionEnd = tuple[float, str, str, str, str, str, int, int, float, str, str, str]

_encode_lines = msgspec.json.Encoder().encode_lines
_last_second, _last_text = -1, ""


def time_text() -> str:
    """The wall clock as RFC 3339 in UTC with milliseconds."""
    return _text_of(int(wall() * 1000))


def time_of(seconds: float) -> str:
    """Seconds since 1970, written the same way."""
    return _text_of(int(seconds * 1000))


def _text_of(milli: int) -> str:
    """Milliseconds since 1970. The date and the time up to the second are made once in a second."""
    global _last_second, _last_text
    second, rest = divmod(milli, 1000)
    if second != _last_second:
        _last_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        _last_second = second
    return f"{_last_text}.{rest:03d}Z"


def quoted(value: str) -> str:
    """A logfmt value: quoted and escaped as JSON when it needs to be."""
    if value and value.isascii() and value.isprintable() and not any(c in ' "=\\' for c in value):
        return value
    # Controls, quotes and non-ASCII escaped: a value can never end its line.
    return _ascii_json(value)


def _ascii_json(value: str) -> str:
    text = msgspec.json.encode(value).decode()
    return text if text.isascii() else text.encode("ascii", "backslashreplace").decode()


def as_text(line: msgspec.Struct) -> bytes:
    """A line as logfmt: time level msg key=value …"""
    fields = msgspec.structs.asdict(line)
    head = f"{fields.pop('time')} {fields.pop('level')} {fields.pop('msg')}"
    # What JSON leaves out as a default is left out here too, and so is what is empty.
    rest = " ".join(
        f"{key}={quoted(str(value))}"
        for key, value in fields.items()
        if value not in ("", None) and (key, value) != ("retries", 0)
    )
    return f"{head} {rest}\n".encode()


def request_lines(ends: Sequence[RequestEnd], zero: float, log_format: str) -> bytes:
    """The lines of HTTP requests; ``zero``: seconds since 1970 at monotonic 0."""
    return _written(_request_lines(ends, zero), log_format)


def connection_lines(ends: Sequence[ConnectionEnd], zero: float, log_format: str) -> bytes:
    """The lines of L4 connections."""
    return _written(_connection_lines(ends, zero), log_format)


def _written(lines: Iterator[msgspec.Struct], log_format: str) -> bytes:
    return _encode_lines(lines) if log_format == "json" else b"".join(map(as_text, lines))


def _request_lines(ends: Sequence[RequestEnd], zero: float) -> Iterator[RequestLine]:
    milli, text = -1, ""
    for (
        end, method, path, status, took, backend, route, request_id, client, sent, reason, host, retries, detail, timers
    ) in ends:  # fmt: skip
        now = int((zero + end) * 1000)
        if now != milli:
            milli, text = now, _text_of(now)
        line = RequestLine(
            text,
            "INFO",
            "request completed",
            method.decode("latin-1"),
            path[:MAX_FIELD].decode("latin-1"),
            status,
            _milliseconds(took),
            backend,
            route,
            request_id.decode("latin-1"),
            client,
            sent,
            reason,
            host.decode("latin-1"),
            retries,
            detail,
        )
        if timers is not None:
            line.receive_ms, line.queue_ms = timers.receive, timers.queue
            line.connect_ms, line.first_byte_ms = timers.connect, timers.first_byte
        yield line


def _connection_lines(ends: Sequence[ConnectionEnd], zero: float) -> Iterator[TcpLine]:
    for end, listener, route, pool, backend, client, received, sent, took, result, connection_id, reason in ends:
        yield TcpLine(
            time_of(zero + end),
            "INFO",
            "connection closed",
            listener,
            route,
            pool,
            backend,
            client,
            received,
            sent,
            _milliseconds(took),
            result,
            connection_id,
            reason,
        )


def _milliseconds(seconds: float) -> float:
    """With three digits; a third of what round takes."""
    return int(seconds * 1e6 + 0.5) / 1000
