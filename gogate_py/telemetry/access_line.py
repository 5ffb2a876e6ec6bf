"""Access lines: one JSON object (or logfmt text) a line, made on the hot path.

Every value comes from the configuration, from closed sets, or from what the strict head check let through (visible
ASCII); values a client chose are cut at MAX_FIELD. The time is formatted once per millisecond at most.
"""

from __future__ import annotations

import time
from typing import Final

import msgspec

from gogate_py.clock import wall
from gogate_py.messages import Timers

MAX_FIELD: Final = 2048


class RequestLine(msgspec.Struct, omit_defaults=True):
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


class TcpLine(msgspec.Struct, omit_defaults=True):
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


_encode = msgspec.json.Encoder().encode
_last_second = _last_milli = 0
_last_text = _last_time = ""


def time_text() -> str:
    """The wall clock as RFC 3339 in UTC with milliseconds; made once in a millisecond."""
    global _last_second, _last_milli, _last_text, _last_time
    milli = int(wall() * 1000)
    if milli != _last_milli:
        _last_milli = milli
        second, rest = divmod(milli, 1000)
        if second != _last_second:
            _last_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            _last_second = second
        _last_time = f"{_last_text}.{rest:03d}Z"
    return _last_time


def time_of(seconds: float) -> str:
    """Seconds since 1970, written the same way."""
    second, rest = divmod(int(seconds * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(second))}.{rest:03d}Z"


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


def request_line(
    log_format: str,
    method: bytes,
    path: bytes,
    status: int,
    duration_s: float,
    backend: str,
    route: str,
    request_id: bytes,
    client: str,
    sent: int,
    reason: str,
    host: bytes,
    retries: int,
    detail: str = "",
    timers: Timers | None = None,
) -> bytes:
    """The line of one HTTP request."""
    line = RequestLine(
        time_text(),
        "INFO",
        "request completed",
        method.decode("latin-1"),
        path[:MAX_FIELD].decode("latin-1"),
        status,
        round(duration_s * 1000, 3),
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
    return _encode(line) + b"\n" if log_format == "json" else as_text(line)


def tcp_line(
    log_format: str,
    *,
    listener: str,
    route: str,
    pool: str,
    backend: str,
    client: str,
    bytes_in: int,
    bytes_out: int,
    duration_s: float,
    result: str,
    connection_id: str,
    reason: str = "",
) -> bytes:
    """The line of one L4 connection."""
    line = TcpLine(
        time_text(),
        "INFO",
        "connection closed",
        listener,
        route,
        pool,
        backend,
        client,
        bytes_in,
        bytes_out,
        round(duration_s * 1000, 3),
        result,
        connection_id,
        reason,
    )
    return _encode(line) + b"\n" if log_format == "json" else as_text(line)
