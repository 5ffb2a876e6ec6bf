"""Request intake: from a head that passed the check to an Exchange ready to start — client address, ids, forwarding
lines.

Two ways in, one meaning (a test compares the bytes that the backend gets): a clean head is forwarded as a slice with
our lines behind it, everything else is written anew from its checked parts.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gogate_py.clock import monotonic
from gogate_py.dataplane.decision import WatchedExchange
from gogate_py.dataplane.decisions import END_OF_HEAD, SAMPLED
from gogate_py.dataplane.exchange import Exchange
from gogate_py.wire.fast_head import Apart, FastBodyRequest
from gogate_py.wire.forwarding import client_address, forwarded_lines
from gogate_py.wire.head_check import RequestHead, check_request_head

if TYPE_CHECKING:
    from gogate_py.dataplane.downstream import Downstream
    from gogate_py.dataplane.tracing import TraceContext


def fast_exchange(
    downstream: Downstream, head: bytes, found: re.Match[bytes], apart: Apart | None = None
) -> Exchange:
    """The exchange of a clean head without a body (wire.fast_head); ``apart``: of one that is clean without some lines.
    """
    site = downstream.site
    if site.watcher is None:
        exchange, behind = Exchange(site, downstream), END_OF_HEAD
    else:
        watched, behind = site.watcher.of_clean_head(downstream, head)
        if watched is None:
            return _anew(downstream, head, behind)
        exchange = watched
    exchange.method, exchange.path, query, host, cut, _ = found.groups()
    if query is not None:
        exchange.query = query
    exchange.host = host
    exchange.client = downstream.client
    exchange.raw_head = head
    exchange.fast_answer = exchange.method != b"HEAD"
    exchange.request_id = rid = site.request_id()
    if host != downstream.forward_host:
        _make_forward_lines(downstream, host)
    lines = downstream.forward_lines
    if apart is not None:
        head = exchange.clean_head = apart.clean
        lines, rid = _claimed(downstream, exchange, apart, host)
    if cut is None:
        exchange.outbound = b"".join((head[:-2], lines, rid, behind))
    else:
        start, end = found.span(5)
        exchange.outbound = b"".join((head[:start], head[end:-2], lines, rid, behind))
    if downstream.secured is not None:
        exchange.scheme = downstream.scheme
    exchange.started = monotonic()
    return exchange


def fast_body_exchange(
    downstream: Downstream, head: bytes, found: FastBodyRequest, apart: Apart | None = None
) -> Exchange:
    """The exchange of a clean head with a body of a known length (wire.fast_head); ``apart`` as in fast_exchange."""
    site = downstream.site
    if site.watcher is None:
        exchange, behind = Exchange(site, downstream), END_OF_HEAD
    else:
        watched, behind = site.watcher.of_clean_head(downstream, head)
        if watched is None:
            return _anew(downstream, head, behind)
        exchange = watched
    exchange.method, exchange.path, exchange.query, exchange.host, exchange.body_left, _, start, end = found
    exchange.body_open = True
    exchange.client = downstream.client
    exchange.raw_head = head
    exchange.fast_answer = True
    exchange.request_id = rid = site.request_id()
    if found.host != downstream.forward_host:
        _make_forward_lines(downstream, found.host)
    lines = downstream.forward_lines
    if apart is not None:
        head = exchange.clean_head = apart.clean
        lines, rid = _claimed(downstream, exchange, apart, found.host)
    exchange.outbound = b"".join((head[:start], head[end:-2], lines, rid, behind))
    if downstream.secured is not None:
        exchange.scheme = downstream.scheme
    exchange.started = monotonic()
    return exchange


def _anew(downstream: Downstream, head: bytes, why: bytes) -> Exchange:
    """The exchange of a clean head whose trace is sampled, and so is written anew for each try, or replaced."""
    checked = check_request_head(head, downstream.site.limits)
    return checked_exchange(downstream, checked, head, sampled=why is SAMPLED)


def _make_forward_lines(downstream: Downstream, host: bytes) -> None:
    """The same for every request of a connection, but for the id: made once. A trusted peer that sends no forwarding
    fields is the client itself."""
    lines = forwarded_lines(downstream.client.encode(), downstream.scheme, host, [], False)
    downstream.forward_lines = lines + downstream.own_lines + b"X-Request-ID: "
    downstream.forward_host = host


def _claimed(downstream: Downstream, exchange: Exchange, apart: Apart, host: bytes) -> tuple[bytes, bytes]:
    """Take over what a proxy in front says of the request, as far as it is believed; → the lines for the backend, the
    name of the id's line at their end, and the id."""
    rid = apart.request_id()
    if rid:
        exchange.request_id = rid
        exchange.id_claimed = True
    else:
        rid = exchange.request_id
    if not downstream.trusted:
        return downstream.forward_lines, rid
    peer, forwarded = downstream.client, apart.forwarded()
    exchange.client = client = _client_of(downstream, forwarded)
    lines = forwarded_lines(peer.encode(), downstream.scheme, host, forwarded, True, client_ip=client.encode())
    lines += downstream.own_lines + b"X-Request-ID: "
    exchange.backend_lines = lines + rid + b"\r\n" + exchange.trace_line
    return lines, rid


def checked_exchange(
    downstream: Downstream, head: RequestHead, head_bytes: bytes, *, sampled: bool = False
) -> Exchange:
    """The exchange of a head that passed head_check. ``sampled``: that was decided already."""
    site = downstream.site
    has_body = head.chunked or head.content_length > 0
    client = _client_of(downstream, head.forwarded)
    trace = site.watcher.trace_of(downstream, head, sampled=sampled) if site.watcher is not None else None
    exchange = _exchange(downstream, head, client, trace)
    exchange.method = head.method
    exchange.path = head.path
    exchange.query = head.query
    exchange.host = head.host
    exchange.minor = head.minor
    exchange.checked = head
    exchange.raw_head = head_bytes
    exchange.started = monotonic()
    exchange.request_id = rid = head.request_id or site.request_id()
    exchange.id_claimed = bool(head.request_id)
    exchange.fast_answer = bool(head.minor) and head.method != b"HEAD"
    peer = downstream.client
    exchange.client = client
    lines = forwarded_lines(
        peer.encode(), downstream.scheme, head.host, head.forwarded, downstream.trusted, client_ip=client.encode()
    )
    exchange.backend_lines = lines + downstream.own_lines + b"X-Request-ID: " + rid + b"\r\n"
    if trace is not None and not trace.sampled:
        exchange.backend_lines += trace.lines(trace.span_id)
    if downstream.secured is not None:
        exchange.scheme = downstream.scheme
    if has_body:
        exchange.body_open = True
        exchange.body_chunked = head.chunked
        exchange.body_left = head.content_length
    return exchange


def _exchange(downstream: Downstream, head: RequestHead, client: str, trace: TraceContext | None) -> Exchange:
    """An ordinary exchange, or one that is watched."""
    site = downstream.site
    if head.trace_asked and site.decisions.may_ask(downstream, head, client):
        return WatchedExchange(site, downstream, "asked", trace)
    return Exchange(site, downstream) if site.watcher is None else site.watcher.exchange(downstream, trace)


def _client_of(downstream: Downstream, forwarded: list[tuple[bytes, bytes]]) -> str:
    """The client's address: the peer, unless it may be believed about who is behind it (T7)."""
    if not downstream.trusted:
        return downstream.client
    chain = [value for name, value in forwarded if name == b"x-forwarded-for"]
    return client_address(downstream.client, chain, downstream.site.is_trusted)
