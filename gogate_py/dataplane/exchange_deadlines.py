"""When an exchange has taken too long, and whose fault that is.

One function, called by the sweep when the deadline of a client connection has passed. Who is blamed decides what is
answered and whether the backend's breaker hears of it (SECURITY.md T21):

    what stands still                                        answer              counts against the backend
    the client sends its body too slowly, or not             408                 no
    the backend does not take the request body               504                 yes
    the backend does not say "100 Continue" to a client
    that waits for it, nor anything else                     504                 yes
    no answer after the whole request                        504                 yes
    waiting for one of maxConnsPerHost connections           503                 no
    the client does not take the answer                      reset               no
    the backend stops inside its answer                      connection cut      yes
    timeouts.request                                         by who is waited for
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gogate_py.dataplane.body_watch import BODY_CHECK, BodyWatch, Verdict
from gogate_py.dataplane.deadlines import INFINITE
from gogate_py.errors import Failure

if TYPE_CHECKING:
    from gogate_py.dataplane.exchange import Exchange
    from gogate_py.snapshot import Timeouts


def check(exchange: Exchange, now: float) -> float:
    """Look at an exchange; → when to look again. It is over afterwards if its time is up."""
    route = exchange.route
    assert route is not None  # without a route there is nothing to wait for: answered at once
    timeouts = route.timeouts
    if exchange.tunnel is not None:
        return exchange.tunnel.check(now, timeouts.tunnel_idle)
    by = exchange.started + timeouts.request if timeouts.request else INFINITE
    if now >= by:
        _request_time_out(exchange)
        return INFINITE
    if now >= exchange.queued_until:
        exchange.answer(Failure.QUEUE_TIMEOUT, "No connection to the backend came free in time.", retry_after=1)
        return INFINITE
    watch = exchange.watch
    if watch is None:
        # What is looked at for the first time when its answer has begun, a second ago, is not judged by the time that
        # the backend took for it.
        watch = exchange.watch = BodyWatch(now - BODY_CHECK if exchange.head_out else exchange.started)
    watch.look(now)
    if exchange.body_open:
        _check_request_body(exchange, watch, now, timeouts)
    if exchange.over:
        return INFINITE
    if exchange.head_out:
        _check_response_body(exchange, watch, now, timeouts)
    elif not exchange.body_open:
        answer_by = exchange.head_sent_at + route.response_header
        if now >= answer_by:
            exchange.answer(Failure.RESPONSE_TIMEOUT)
            return INFINITE
        return min(by, answer_by, exchange.queued_until)
    return min(by, now + BODY_CHECK)


def _request_time_out(exchange: Exchange) -> None:
    """``timeouts.request`` is over: blame who is being waited for."""
    detail = "The request took longer than timeouts.request."
    if exchange.head_out and exchange.response_paused:
        exchange.abandon_client("slow_client")
    elif exchange.body_open and not exchange.request_paused and not exchange.awaits_continue():
        exchange.answer(Failure.REQUEST_TIMEOUT, detail)
    elif exchange.waiting or exchange.queued_until < INFINITE:
        exchange.answer(Failure.QUEUE_TIMEOUT, detail, retry_after=1)
    else:
        exchange.upstream_failed(Failure.RESPONSE_TIMEOUT, detail)


def _check_request_body(exchange: Exchange, watch: BodyWatch, now: float, timeouts: Timeouts) -> None:
    if exchange.head_out:
        watch.request_excused(now)
    elif exchange.awaits_continue():
        watch.request_excused(now)
        if timeouts.response_header and now >= exchange.asked_at + timeouts.response_header:
            exchange.answer(Failure.RESPONSE_TIMEOUT)
    elif exchange.request_paused:
        if not watch.backend_reads(now, exchange.body_seen, timeouts.body_idle):
            exchange.answer(Failure.RESPONSE_TIMEOUT, "The backend does not take the request body.")
    elif not watch.request_moves(now, exchange.body_seen, timeouts.body_idle, timeouts.min_body_rate):
        exchange.answer(Failure.REQUEST_TIMEOUT, "The request body came too slowly.")


def _check_response_body(exchange: Exchange, watch: BodyWatch, now: float, timeouts: Timeouts) -> None:
    waiting, unacknowledged = exchange.downstream.backlog()
    verdict = watch.response(
        now,
        # A body that still comes in is progress too: the answer may be waiting for it.
        exchange.sent_bytes - waiting - unacknowledged + exchange.body_seen,
        waiting,
        timeouts.body_idle,
        0.0 if exchange.event_stream else timeouts.body_idle,
        timeouts.min_body_rate,
    )
    if verdict is Verdict.SLOW_CLIENT:
        exchange.abandon_client("slow_client")
    elif verdict is Verdict.SILENT_BACKEND:
        if exchange.body_open and not exchange.request_paused:
            exchange.abandon_client("request_timeout")
        else:
            exchange.upstream_failed(Failure.RESPONSE_TIMEOUT, "The backend stopped inside its answer.")
