"""W3C Trace Context: what is a traceparent, and what is none."""

from __future__ import annotations

import pytest

from gogate_py.wire.fast_head import make_fast_request
from gogate_py.wire.head_check import HeadLimits
from gogate_py.wire.trace_context import Parent, lines, parse_parent, parse_state

TRACE, SPAN = b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331"
GOOD = b"00-" + TRACE + b"-" + SPAN + b"-01"


@pytest.mark.parametrize(
    ("value", "sampled"),
    [(GOOD, True), (GOOD[:-2] + b"00", False), (GOOD[:-2] + b"03", True), (GOOD[:-2] + b"fe", False),
     (b"cc" + GOOD[2:], True), (b"01" + GOOD[2:] + b"-what-the-future-holds", True)],
)  # fmt: skip
def test_valid(value: bytes, sampled: bool) -> None:
    """Version 00, and later ones as far as they are like it."""
    assert parse_parent([value]) == Parent(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "value",
    [b"", b"00", GOOD.upper(), b"ff" + GOOD[2:], GOOD + b"-x", GOOD + b"x", b"01" + GOOD[2:] + b".x", GOOD[:-1],
     b"00-" + b"0" * 32 + b"-" + SPAN + b"-01", b"00-" + TRACE + b"-" + b"0" * 16 + b"-01", b"0" + GOOD, b" " + GOOD,
     GOOD.replace(b"-", b"_"), b"00-" + TRACE[:-1] + b"-" + SPAN + b"-01", b"00-" + TRACE + b"g-" + SPAN + b"-01",
     GOOD[:-2] + b"0g", b"\xef\xbc\x90" + GOOD[1:]],
)  # fmt: skip
def test_invalid(value: bytes) -> None:
    """Anything else is as if it had not been sent."""
    assert parse_parent([value]) is None


def test_there_is_one() -> None:
    """Two are none, equal ones too."""
    assert parse_parent([]) is None
    assert parse_parent([GOOD, GOOD]) is None


@pytest.mark.parametrize(
    ("values", "state"),
    [([], b""), ([b"a=1"], b"a=1"), ([b"a=1,b=2", b"c=3"], b"a=1,b=2,c=3"), ([b"a=1, b=2"], b"a=1, b=2"),
     ([b"t@v=x"], b"t@v=x"), ([b"a"], b""), ([b"A=1"], b""), ([b"a=1,a=2"], b""), ([b"a=1=2"], b""),
     ([b"a=" + b"x" * 256], b"a=" + b"x" * 256), ([b"a=" + b"x" * 257], b""), ([b"a=1;\x7f"], b""),
     ([b",".join(b"k%d=1" % number for number in range(33))], b""), ([b"a=" + b"x" * 200, b"b=" + b"x" * 200,
     b"c=" + b"x" * 200], b"")],
)  # fmt: skip
def test_state(values: list[bytes], state: bytes) -> None:
    """Valid as a whole, or dropped as a whole."""
    assert parse_state(values) == state


def test_lines() -> None:
    """As they go to a backend."""
    assert lines(TRACE, SPAN, True, b"a=1") == b"traceparent: " + GOOD + b"\r\ntracestate: a=1\r\n"
    assert lines(TRACE, SPAN, False, b"") == b"traceparent: " + GOOD[:-1] + b"0\r\n"


@pytest.mark.parametrize(
    ("line", "clean"),
    [(b"traceparent: " + GOOD[:-1] + b"0", True), (b"Traceparent: " + GOOD[:-1] + b"0", True), (b"Accept: */*", True),
     (b"traceparent: " + GOOD, False), (b"TraceParent: " + GOOD[:-1] + b"0", False), (b"traceparent: ", False),
     (b"traceparent: " + GOOD[:-1] + b"0 ", False), (b"traceparent:  " + GOOD[:-1] + b"0", False),
     (b"traceparent: 00-" + b"0" * 32 + b"-" + SPAN + b"-00", False), (b"tracestate: a=1", False),
     (b"X-traceparent: x", True)],
)  # fmt: skip
def test_clean_heads(line: bytes, clean: bool) -> None:
    """With traces on a head is only forwarded as a slice with a traceparent that may go on as it is; with traces off
    it is a field like others."""
    head = b"GET / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n\r\n"
    assert (make_fast_request(HeadLimits(trace_context=True))(head) is not None) == clean
    assert make_fast_request(HeadLimits())(head) is not None
