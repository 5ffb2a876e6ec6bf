"""Access lines: one object a line, whatever a client sends."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gogate_py.clock import monotonic, wall
from gogate_py.telemetry.access_line import ConnectionEnd, RequestEnd, connection_lines, request_lines
from gogate_py.telemetry.access_log import FLUSH_ENDS, AccessLog
from gogate_py.telemetry.histogram import Histogram
from gogate_py.telemetry.logs import MAX_LINES, LineFormatter, LogWriter
from gogate_py.telemetry.metrics import CATALOGUE, DURATION_BOUNDS

#: Monotonic 0: 20:00 of November 21, 2026.
ZERO = 1795291200.0


def line(log_format: str = "json", path: bytes = b"/x", host: bytes = b"h", reason: str = "") -> bytes:
    end: RequestEnd = (
        5.25, b"GET", path, 200, 0.0123456, "b:1", "all", b"id-1", "10.0.0.1", 321, reason, host, 0, "", None
    )  # fmt: skip
    return request_lines([end], ZERO, log_format)


def test_a_request_line_has_the_fields_of_the_readme() -> None:
    """time, level, msg, method, path, status, duration_ms, backend, request_id as GoGate has them, and more."""
    fields = json.loads(line())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fields.pop("time"))
    assert fields == {
        "level": "INFO",
        "msg": "request completed",
        "method": "GET",
        "path": "/x",
        "status": 200,
        "duration_ms": 12.346,
        "backend": "b:1",
        "route": "all",
        "request_id": "id-1",
        "client": "10.0.0.1",
        "bytes": 321,
        "host": "h",
    }


@given(st.binary(max_size=3000), st.binary(max_size=100))
def test_every_request_line_is_one_json_object(path: bytes, host: bytes) -> None:
    """Bytes that should never get there still cannot end a line or break the object."""
    data = line(path=path, host=host)
    assert data.endswith(b"\n")
    assert data.count(b"\n") == 1
    fields = json.loads(data)
    assert fields["path"] == path[:2048].decode("latin-1")


@given(st.binary(max_size=200), st.text(max_size=50))
def test_text_lines_are_one_ascii_line(path: bytes, reason: str) -> None:
    """In text format, too: controls, quotes and non-ASCII characters are escaped."""
    data = line("text", path=path, reason=reason)
    assert data.count(b"\n") == 1
    assert data.isascii()
    assert b"\r" not in data


def test_a_tcp_line_says_how_the_connection_ended() -> None:
    """Bytes each way, the result, and who talked to whom."""
    end: ConnectionEnd = (5.25, "l", "r", "p", "b:1", "10.0.0.1:5", 1, 2, 1.5, "ok", "0.1.1", "")
    fields = json.loads(connection_lines([end], ZERO, "json"))
    assert fields == {
        "time": "2026-11-21T20:00:05.250Z",
        "level": "INFO",
        "msg": "connection closed",
        "listener": "l",
        "route": "r",
        "pool": "p",
        "backend": "b:1",
        "client": "10.0.0.1:5",
        "bytes_in": 1,
        "bytes_out": 2,
        "duration_ms": 1500.0,
        "result": "ok",
        "connection_id": "0.1.1",
    }


@pytest.mark.parametrize("log_format", ["json", "text"])
@given(message=st.text(max_size=100), value=st.text(max_size=100))
def test_the_programs_own_lines_are_one_ascii_line(log_format: str, message: str, value: str) -> None:
    """Messages and fields may hold anything; the line stays one line."""
    record = logging.makeLogRecord({"msg": "%s", "args": (message,), "levelname": "INFO", "value": value})
    text = LineFormatter(log_format).format(record)
    assert "\n" not in text
    assert "\r" not in text
    assert text.isascii()
    if log_format == "json":
        assert json.loads(text)["msg"] == message


def test_an_error_carries_its_stack_on_the_same_line() -> None:
    """An exception is logged with type, text and stack, escaped."""
    try:
        raise ValueError("bad\nthing")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "internal error", "exc_info": (ValueError, error, error.__traceback__)})
    fields = json.loads(LineFormatter("json").format(record))
    assert fields["error"] == "ValueError('bad\\nthing')"
    assert "test_access_line" in fields["stack"]


def test_a_log_delivers_in_batches_and_counts_what_was_not_taken() -> None:
    """Lines leave in batches, each with the time of its end; a batch that is not taken is dropped and counted."""
    batches: list[tuple[bytes, int]] = []
    taken = True

    def deliver(lines: bytes, count: int) -> bool:
        batches.append((lines, count))
        return taken

    def request(number: int) -> RequestEnd:
        return (monotonic(), b"GET", b"/%d" % number, 200, 0.1, "b", "r", b"i", "c", 1, "", b"h", 0, "", None)

    access = AccessLog(deliver)
    access.flush()
    assert not batches
    for number in range(FLUSH_ENDS + 3):
        access.request_over(request(number))
    assert [count for _, count in batches] == [FLUSH_ENDS]
    access.connection_over((monotonic(), "l", "r", "p", "b", "c", 1, 2, 0.5, "ok", "0.1.1", ""))
    access.flush()
    lines, count = batches[1]
    assert (count, lines.count(b"\n")) == (4, 4)
    assert [json.loads(line).get("path") for line in lines.splitlines()] == ["/512", "/513", "/514", None]
    for line in lines.splitlines():
        assert abs(datetime.fromisoformat(json.loads(line)["time"]).timestamp() - wall()) < 60
    access.request_over(request(1))
    access.use_format("text")
    access.use_format("text")
    access.request_over(request(2))
    taken = False
    access.flush()
    assert [lines[:1] for lines, _ in batches[2:]] == [b"{", b"2"]
    assert access.dropped == 1


def test_an_end_that_cannot_be_written_takes_no_other_with_it() -> None:
    """It is counted as dropped; the request at whose end the batch was made goes on."""
    batches: list[tuple[bytes, int]] = []
    access = AccessLog(lambda lines, count: not batches.append((lines, count)))
    for name in ("good", "\ud800", "good"):
        access.connection_over((monotonic(), "l", name, "p", "b", "c", 1, 2, 0.5, "ok", "0.1.1", ""))
    access.flush()
    ((lines, count),) = batches
    assert (lines.count(b'"route":"good"'), lines.count(b"\n"), count) == (2, 2, 2)
    assert access.dropped == 1


class TestLogWriter:
    """The thread that writes lines to their target."""

    def test_a_file_gets_every_line_in_order(self, tmp_path: Path) -> None:
        """Lines reach the file in the order in which they were queued."""
        target = tmp_path / "access.log"
        writer = LogWriter(str(target))
        for number in range(100):
            writer.access(b"%d\n" % number, 1)
        writer.close()
        assert target.read_text().split() == [str(number) for number in range(100)]

    def test_a_rotated_file_is_opened_anew(self, tmp_path: Path) -> None:
        """After logrotate moved the file, lines go to a new one of the old name."""
        target = tmp_path / "access.log"
        writer = LogWriter(str(target))
        writer.access(b"before\n", 1)
        while not target.exists() or not target.read_bytes():
            threading.Event().wait(0.005)
        target.rename(tmp_path / "access.log.1")
        writer.access(b"after\n", 1)
        writer.close()
        assert (tmp_path / "access.log.1").read_text() == "before\n"
        assert target.read_text() == "after\n"

    def test_a_full_disk_costs_lines_and_nothing_else(self) -> None:
        """What cannot be written is dropped and counted (SECURITY.md F12)."""
        writer = LogWriter("/dev/full")
        writer.access(b"a\nb\n", 2)
        writer.close()
        assert writer.take_dropped() == 2
        assert writer.take_dropped() == 0

    def test_a_blocked_target_is_never_waited_for(self, tmp_path: Path) -> None:
        """The queue is bounded: beyond it lines are dropped at once, and counted."""
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        writer = LogWriter(str(fifo))
        for _ in range(MAX_LINES + 500):
            writer.access(bytes(1000), 1)
        assert writer.take_dropped() >= 100
        while True:  # let the thread go
            try:
                if not os.read(reader, 1 << 20):
                    break
            except BlockingIOError:
                if writer._access._waiting == 0:
                    break
        writer.close()
        os.close(reader)


def test_histogram_buckets_are_those_of_the_catalogue() -> None:
    """A duration falls into the first bucket whose bound is not below it; the sum is kept."""
    histogram = Histogram()
    assert histogram.take() is None
    for seconds in (0.0005, 0.001, 0.0011, 4.0, 60.0):
        histogram.observe(seconds)
    taken = histogram.take()
    assert taken is not None
    buckets, total = taken
    assert len(buckets) == len(DURATION_BOUNDS) + 1
    assert buckets[0] == 2
    assert buckets[1] == 1
    assert buckets[DURATION_BOUNDS.index(5.0)] == 1
    assert buckets[-1] == 1
    assert total == pytest.approx(64.0026)
    assert histogram.take() is None


def test_the_catalogue_has_the_names_of_gogates_readme() -> None:
    """Users of GoGate find their metrics under the names they know."""
    for name in (
        "gogate_requests_total",
        "gogate_request_duration_seconds",
        "gogate_backend_healthy",
        "gogate_backend_connections_active",
        "gogate_circuit_breaker_state",
        "gogate_rate_limit_rejected_total",
    ):
        assert name in CATALOGUE
