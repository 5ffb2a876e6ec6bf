"""Tracer: whose traces requests of this worker belong to, which are sampled, and the spans of those that are.

    the request's traceparent       the trace                  sampled          goes on to the backend
    valid, sampled                  that one                   yes              with a client span of ours as parent
    valid, not sampled              that one                   no               as it came
    none, or not valid              a new one                  by chance        ours; a tracestate is dropped

With ``trusted_only`` only a trusted proxy's is the request's; anybody else's is as if it were not valid.

A sampled request is a watched one (decision.py): its spans are made of its timeline when it is over, and leave with the
next tick. Everything that is not sampled stays on the fast road: a line is added, and no id needs to be random there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from gogate_py import snapshot
from gogate_py.clock import Random
from gogate_py.messages import Span, Spans, Up
from gogate_py.wire.head_check import RequestHead
from gogate_py.wire.trace_context import TRACEPARENT, TRACESTATE, lines, parse_parent, parse_state

if TYPE_CHECKING:
    from gogate_py.dataplane.plane import Outbox

#: Spans that leave at once, and do not wait for the next tick.
_BATCH: Final = 256
#: Bytes that the supervisor has not taken, beyond which spans are dropped: well below the bound of log lines.
_MAX_BACKLOG: Final = 2 << 20

#: Is in a clean head with a traceparent, in either of the spellings that are clean. In one with this in the value of
#: another field no line is added.
HAS_PARENT: Final = b"raceparent: 00-"


class TraceContext:
    """The trace of one request. ``parent``: span id of who called, b"" for the first of a trace."""

    __slots__ = ("parent", "sampled", "span_id", "state", "trace_id")

    def __init__(self, trace_id: bytes, parent: bytes, span_id: bytes, sampled: bool, state: bytes) -> None:
        self.trace_id = trace_id
        self.parent = parent
        self.span_id = span_id
        self.sampled = sampled
        self.state = state

    def lines(self, span_id: bytes) -> bytes:
        """For a backend that is called by this span."""
        return lines(self.trace_id, span_id, self.sampled, self.state)


class Tracer:
    """Traces of one worker."""

    def __init__(self, random: Random, outbox: Outbox) -> None:
        self._random = random
        self._outbox = outbox
        self.sample = 0.0
        self._trusted_only = False
        self._spans: list[Span] = []
        self._prefix = os.urandom(8).hex().encode()
        self._unsampled = 0
        self.dropped = 0

    def apply(self, rules: snapshot.Tracing) -> None:
        """Take over a snapshot's rules."""
        self.sample = rules.sample
        self._trusted_only = rules.trusted_only

    def span_id(self) -> bytes:
        """A new one."""
        return b"%016x" % (self._random.getrandbits(64) or 1)

    def _root(self, sampled: bool) -> TraceContext:
        return TraceContext(b"%032x" % (self._random.getrandbits(128) or 1), b"", self.span_id(), sampled, b"")

    # --- a request begins

    def unsampled(self) -> bytes:
        """The line of a new trace that is not sampled: its ids have to differ, and no more."""
        self._unsampled = number = self._unsampled + 1
        return b"traceparent: 00-%b%016x-%016x-00\r\n" % (self._prefix, number, number)

    def believes(self, trusted: bool) -> bool:
        """Whether a traceparent that comes by a connection of a trusted proxy, or of another client, counts."""
        return trusted or not self._trusted_only

    def of_checked_head(self, head: RequestHead, *, believed: bool, sampled: bool) -> TraceContext:
        """Of a checked head, from which its fields are taken. ``believed``: a traceparent counts; ``sampled``: that was
        decided already."""
        parents: list[bytes] = []
        states: list[bytes] = []
        kept = []
        for field in head.fields:
            name = field[0].lower()
            if name == TRACEPARENT:
                parents.append(field[1])
            elif name == TRACESTATE:
                states.append(field[1])
            else:
                kept.append(field)
        head.fields = kept
        parent = parse_parent(parents) if believed else None
        if parent is None:
            return self._root(sampled or self._random.random() < self.sample)
        # One that is not sampled has no span here: who called us is who calls the backend.
        span_id = self.span_id() if parent.sampled else parent.span_id
        return TraceContext(parent.trace_id, parent.span_id, span_id, parent.sampled, parse_state(states))

    # --- and is over

    def add(self, spans: list[Span]) -> None:
        """Spans that are complete."""
        self._spans += spans
        if len(self._spans) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Send what there is; what the supervisor has no room for is dropped and counted."""
        if not self._spans:
            return
        spans, self._spans = self._spans, []
        if self._outbox.backlog() > _MAX_BACKLOG:
            self.dropped += len(spans)
        else:
            message: Up = Spans(spans)
            self._outbox.send(message)
