"""Decision records, made of what an exchange knows at its end: route, what each stage said, arm, pick, tries, timers,
and why it ended. Of an exchange that was watched (decision.py) all of it; of another one what is known without clocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gogate_py.clock import monotonic, wall
from gogate_py.dataplane.decision import WatchedExchange
from gogate_py.errors import Failure
from gogate_py.messages import RequestRecord, RequestSummary, StageVerdict, Timers, Try
from gogate_py.snapshot import ApiKeyAuth
from gogate_py.telemetry import redaction
from gogate_py.telemetry.access_line import MAX_FIELD, time_of
from gogate_py.wire.headers import split_fields

if TYPE_CHECKING:
    from gogate_py.dataplane.exchange_end import ExchangeEnd
    from gogate_py.dataplane.live_route import LiveRoute

_FAILURES: Final = {failure.reason: failure for failure in Failure}
#: Answered on a route, but before its stages were asked.
_BEFORE_STAGES: Final = (Failure.OVERLOADED.reason, Failure.BODY_TOO_LARGE.reason)


def record_of(exchange: ExchangeEnd, kept: str, now: float) -> RequestRecord:
    """The record of an exchange that ended ``now``; ``kept``: why there is one."""
    route, pool, listener = exchange.route, exchange.pool, exchange.downstream.listener
    watched = exchange if isinstance(exchange, WatchedExchange) else None
    tries = _tries(exchange, watched)
    secret_field, secret_parameter = key_names(route)
    backend = exchange.backend.address if exchange.backend is not None else exchange.last_backend
    return RequestRecord(
        RequestSummary(
            (watched.id() if watched is not None else exchange.request_id).decode("latin-1"),
            exchange.request_id.decode("latin-1"),
            time_of(wall() - (monotonic() - exchange.started)),
            exchange.site.plane.slot,
            kept,
            exchange.method.decode("latin-1"),
            exchange.host.decode("latin-1"),
            exchange.path[:MAX_FIELD].decode("latin-1"),
            exchange.status,
            exchange.reason,
            round((now - exchange.started) * 1000, 3),
            route.name if route is not None else "",
            pool.name if pool is not None else "",
            backend,
            len(tries),
            exchange.client,
            watched.trace.trace_id.decode() if watched is not None and watched.trace is not None else "",
        ),
        watched is not None,
        watched.timeline.timers(exchange.started, now)
        if watched is not None
        else Timers(round((now - exchange.started) * 1000, 3)),
        listener.name,
        exchange.scheme.decode(),
        redaction.query(exchange.query.decode("latin-1"), secret_parameter),
        redaction.fields(split_fields(_section(exchange.raw_head), Failure.INTERNAL), secret_field),
        exchange.user,
        _verdicts(exchange, route, watched),
        _arm(route, watched),
        pool.spec.balancer if pool is not None else "",
        tries,
        exchange.detail,
        exchange.sent_bytes,
        exchange.body_seen,
    )


def _section(head: bytes) -> bytes:
    return head[head.find(b"\r\n") + 2 :]


def key_names(route: LiveRoute | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The field and the query parameter that a route takes API keys from."""
    auth = route.spec.auth if route is not None else None
    if not isinstance(auth, ApiKeyAuth):
        return (), ()
    return (auth.header,) if auth.header else (), (auth.query,) if auth.query else ()


def _tries(exchange: ExchangeEnd, watched: WatchedExchange | None) -> list[Try]:
    if watched is not None:
        return [one.shown(exchange.started) for one in watched.timeline.tries]
    found = [Try(backend.address) for backend in exchange.tried()]
    if exchange.attempts > len(found):
        last = exchange.backend.address if exchange.backend is not None else exchange.last_backend
        found.append(Try(last, status=exchange.status if not exchange.reason else 0, reason=exchange.reason))
    return found


def _verdicts(exchange: ExchangeEnd, route: LiveRoute | None, watched: WatchedExchange | None) -> list[StageVerdict]:
    if route is None:
        return []
    asked = exchange.stage()
    waited = watched.timeline.waited if watched is not None else {}
    found = []
    for place, stage in enumerate(route.stages):
        reason = ""
        if place < asked:
            verdict = "passed"
        elif place > asked or exchange.reason in _BEFORE_STAGES:
            verdict = "not asked"
        else:
            reason = exchange.reason
            verdict = (
                "interrupted" if not exchange.head_out else "refused" if exchange.reason in _FAILURES else "answered"
            )
        found.append(StageVerdict(stage.name, verdict, reason, round(waited.get(place, 0.0) * 1000, 3)))
    return found


def _arm(route: LiveRoute | None, watched: WatchedExchange | None) -> str:
    if route is None or route.split is None:
        return ""
    return watched.timeline.split if watched is not None else "not watched"
