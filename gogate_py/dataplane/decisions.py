"""Decisions: which requests of this worker are watched, and the records of the last ones.

    a record is kept of                                   watched from the start
    a request that asks for one, from an allowed client   yes
    a share of all (trace.sample)                         yes
    one whose trace is sampled (tracing.py)               yes
    a request that failed (5xx, or cut), or was slow      only if it is for another reason

Those that failed or were slow are kept KEPT_A_SECOND at most: when everything fails there is neither time to describe
all of it, nor would the ring of the last ones say more than the last moment.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final

from gogate_py import snapshot
from gogate_py.dataplane.deadlines import INFINITE
from gogate_py.dataplane.decision import WatchedExchange
from gogate_py.dataplane.decision_record import record_of
from gogate_py.dataplane.exchange import Exchange
from gogate_py.dataplane.request_spans import spans_of
from gogate_py.dataplane.tracing import HAS_PARENT, TraceContext, Tracer
from gogate_py.messages import RequestRecord, RequestSummary

if TYPE_CHECKING:
    from gogate_py.dataplane.downstream import Downstream
    from gogate_py.dataplane.exchange_end import ExchangeEnd
    from gogate_py.dataplane.http_site import HttpSite
    from gogate_py.wire.head_check import RequestHead

KEPT_A_SECOND: Final = 20
END_OF_HEAD: Final = b"\r\n\r\n"
#: Instead of it, where a clean head is to be written anew: whether its trace is sampled is decided, or not yet.
SAMPLED: Final = b"sampled"
UNDECIDED: Final = b"undecided"


class Decisions:
    """The records of one worker. ``slow``: from how many seconds on a request is one to be kept."""

    def __init__(self, site: HttpSite) -> None:
        self._site = site
        self._random = site.plane.random
        self._allowed: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._sample = 0.0
        self._timers = False
        self.tracer: Tracer | None = None
        self._records: deque[RequestRecord] = deque(maxlen=0)
        self._next_at = 0.0
        self.slow = INFINITE

    def apply(self, rules: snapshot.Decisions, timers: bool, tracing: snapshot.Tracing | None) -> bool:
        """Take over a snapshot's rules; → whether each request is to be asked about (:meth:`exchange`)."""
        if tracing is None:
            self.flush()
            self.tracer = None
        else:
            if self.tracer is None:
                self.tracer = Tracer(self._random, self._site.plane.outbox)
            self.tracer.apply(tracing)
        if rules.keep != self._records.maxlen:
            self._records = deque(self._records, maxlen=rules.keep)
        self._allowed = [ipaddress.ip_network(cidr) for cidr in rules.allow] if rules.keep else []
        self._sample = rules.sample if rules.keep else 0.0
        self._timers = timers
        self.slow = rules.slow if rules.slow and rules.keep else INFINITE
        return timers or self._sample > 0.0 or tracing is not None

    # --- a request begins

    def exchange(self, downstream: Downstream, trace: TraceContext | None = None) -> Exchange:
        """The exchange of a request that asks for nothing."""
        if trace is not None and trace.sampled:
            return WatchedExchange(self._site, downstream, "traced", trace)
        if self._sample and self._random.random() < self._sample:
            return WatchedExchange(self._site, downstream, "sampled")
        return WatchedExchange(self._site, downstream) if self._timers else Exchange(self._site, downstream)

    def of_clean_head(self, downstream: Downstream, head: bytes) -> tuple[Exchange | None, bytes]:
        """The exchange of a head that is forwarded as a slice, and what ends the head for the backend. None, and
        SAMPLED or UNDECIDED, when it is not to go as it is."""
        tracer = self.tracer
        if tracer is None:
            return self.exchange(downstream), END_OF_HEAD
        # A clean head with a traceparent has one that goes on as it is (wire.fast_head).
        if HAS_PARENT in head:
            if not tracer.believes(downstream.trusted):
                return None, UNDECIDED
            return self.exchange(downstream), END_OF_HEAD
        if self._random.random() < tracer.sample:
            return None, SAMPLED
        exchange = self.exchange(downstream)
        exchange.trace_line = line = tracer.unsampled()
        return exchange, b"\r\n" + line + b"\r\n"

    def trace_of(self, downstream: Downstream, head: RequestHead, *, sampled: bool) -> TraceContext | None:
        """The trace of a checked head; None where traces are off."""
        tracer = self.tracer
        if tracer is None:
            return None
        return tracer.of_checked_head(head, believed=tracer.believes(downstream.trusted), sampled=sampled)

    def may_ask(self, downstream: Downstream, head: RequestHead, client: str) -> bool:
        """Whether a request may ask to be recorded."""
        if head.forwarded and not downstream.trusted:
            return False  # a proxy that nobody told of stands for clients that may be anywhere
        try:
            address = ipaddress.ip_address(client)
        except ValueError:
            return False
        return any(address in network for network in self._allowed)

    # --- it ends

    def noteworthy(self, exchange: ExchangeEnd, kept: str, now: float) -> None:
        """It failed, or was slow."""
        if not self._records.maxlen or now < self._next_at:
            return
        self._next_at = max(self._next_at, now - 1.0) + 1.0 / KEPT_A_SECOND
        self._records.append(record_of(exchange, kept, now))

    def watched_to_the_end(self, exchange: WatchedExchange, now: float) -> None:
        """A watched one is complete."""
        if exchange.kept and self._records.maxlen:
            self._records.append(record_of(exchange, exchange.kept, now))
        trace = exchange.trace
        if trace is not None and self.tracer is not None:
            self.tracer.add(spans_of(exchange, trace, now))

    def flush(self) -> None:
        """Send the spans that there are."""
        if self.tracer is not None:
            self.tracer.flush()

    def take_dropped_spans(self) -> int:
        """Spans that were dropped since the last call."""
        if self.tracer is None:
            return 0
        dropped, self.tracer.dropped = self.tracer.dropped, 0
        return dropped

    # --- the supervisor asks

    def newest(self, limit: int, route: str, status: int) -> list[RequestSummary]:
        """The newest records, in short; of one route or status where asked (a status below 10: of its hundred)."""
        found = (
            one.summary
            for one in reversed(self._records)
            if (not route or one.summary.route == route)
            and (not status or status in (one.summary.status, one.summary.status // 100))
        )
        return list(islice(found, limit))

    def find(self, identity: str) -> RequestRecord | None:
        """The newest record with this id, or of a request with this request id."""
        for one in reversed(self._records):
            if identity in (one.summary.id, one.summary.request_id):
                return one
        return None
