"""W3C Trace Context (https://www.w3.org/TR/trace-context/): traceparent and tracestate, in and out.

What a client sends is believed only when it is exactly what the specification says; anything else is as if it had not
been sent, and is never passed on. Sampling is the parent's decision where there is a parent.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

TRACEPARENT: Final = b"traceparent"
TRACESTATE: Final = b"tracestate"

#: A line of a head that may be passed on as it is, behind its first letter: its trace is not sampled. Not all zeros, in
#: either part.
UNSAMPLED_LINE: Final = rb"raceparent: 00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-00\r\n"

# Version 00 has these four parts; a later one may have more (section 3.2.3), ff is none.
_parent: Final = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?"
).fullmatch
_MAX_STATE: Final = 512
_MAX_MEMBERS: Final = 32
_member: Final = re.compile(
    rb"[ \t]*(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    rb"=[ -+\--<>-~]{0,255}[!-+\--<>-~][ \t]*"
).fullmatch


class Parent(NamedTuple):
    """Who called: ids in lower-case hex."""

    trace_id: bytes
    span_id: bytes
    sampled: bool


def parse_parent(values: list[bytes]) -> Parent | None:
    """The one valid traceparent among a request's; None when there is none."""
    if len(values) != 1:
        return None
    found = _parent(values[0])
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if more is not None and version == b"00":
        return None
    return Parent(trace_id, span_id, bool(int(flags, 16) & 1))


def parse_state(values: list[bytes]) -> bytes:
    """The tracestate of a request with a valid traceparent, its lines joined; b"" when it is not valid, or too long."""
    state = b",".join(values)
    members = [member for member in state.split(b",") if member.strip(b" \t")]
    if len(state) > _MAX_STATE or len(members) > _MAX_MEMBERS or not all(map(_member, members)):
        return b""
    keys = [member.strip(b" \t").partition(b"=")[0] for member in members]
    return state if len(set(keys)) == len(keys) else b""


def lines(trace_id: bytes, span_id: bytes, sampled: bool, state: bytes) -> bytes:
    """The lines for a backend."""
    found = b"traceparent: 00-%b-%b-0%d\r\n" % (trace_id, span_id, sampled)
    return found + b"tracestate: %b\r\n" % state if state else found
