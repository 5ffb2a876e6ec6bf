"""The spans of a watched exchange: one of kind server for the request, one of kind client for each try.

Names and attributes follow OpenTelemetry's semantic conventions for HTTP (stable since 1.23); what they have no word
for is ``gogate.*``. Queries are redacted as in decision records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gogate_py.clock import monotonic, wall
from gogate_py.dataplane.decision_record import key_names
from gogate_py.messages import Attribute, Span
from gogate_py.telemetry import redaction
from gogate_py.telemetry.access_line import MAX_FIELD

if TYPE_CHECKING:
    from gogate_py.dataplane.decision import TryTimes, WatchedExchange
    from gogate_py.dataplane.tracing import TraceContext

SERVER: Final = 2
CLIENT: Final = 3


def spans_of(exchange: WatchedExchange, trace: TraceContext, now: float) -> list[Span]:
    """All spans of an exchange that ended ``now``."""
    offset = wall() - monotonic()
    method = exchange.method.decode("latin-1")
    path = exchange.path[:MAX_FIELD].decode("latin-1")
    query = redaction.query(exchange.query.decode("latin-1"), key_names(exchange.route)[1])
    found = [_server(exchange, trace, now, offset, (method, path, query))]
    found += [_client(exchange, trace, one, offset, (method, path, query)) for one in exchange.timeline.tries]
    return found


def _server(
    exchange: WatchedExchange, trace: TraceContext, now: float, offset: float, asked: tuple[str, str, str]
) -> Span:
    method, path, query = asked
    name, port = _authority(exchange.host.decode("latin-1"), 443 if exchange.scheme == b"https" else 80)
    attributes: list[Attribute] = [
        ("http.request.method", method),
        ("url.scheme", exchange.scheme.decode()),
        ("url.path", path),
        ("server.address", name),
        ("server.port", port),
        ("client.address", exchange.client),
        ("network.protocol.version", f"1.{exchange.minor}"),
        ("http.request.header.x-request-id", [exchange.request_id.decode("latin-1")]),
    ]
    if query:
        attributes.append(("url.query", query.removeprefix("?")))
    if exchange.status:
        attributes.append(("http.response.status_code", exchange.status))
    agent = exchange.field(b"user-agent")
    if agent is not None:
        attributes.append(("user_agent.original", agent[:256].decode("latin-1")))
    shown = method
    if exchange.route is not None:
        attributes.append(("gogate.route", exchange.route.name))
        template = exchange.route.spec.path or exchange.route.spec.path_prefix
        if template:
            attributes.append(("http.route", template))
            shown = f"{method} {template}"
    if exchange.pool is not None:
        attributes.append(("gogate.pool", exchange.pool.name))
    if exchange.reason:
        attributes.append(("gogate.reason", exchange.reason))
    failed = exchange.status >= 500 or exchange.cut
    if failed:
        attributes.append(("error.type", exchange.reason or str(exchange.status)))
    return Span(
        trace.trace_id, trace.span_id, trace.parent, trace.state.decode("latin-1"), SERVER, shown,
        _nanoseconds(exchange.started + offset), _nanoseconds(now + offset), attributes, failed,
    )  # fmt: skip


def _client(
    exchange: WatchedExchange, trace: TraceContext, one: TryTimes, offset: float, asked: tuple[str, str, str]
) -> Span:
    method, path, query = asked
    backend = one.backend
    scheme = "https" if backend.tls is not None else "http"
    name, port = _authority(backend.address, 443 if scheme == "https" else 80)
    attributes: list[Attribute] = [
        ("http.request.method", method),
        ("url.full", f"{scheme}://{backend.address}{path}{query}"),
        ("server.address", name),
        ("server.port", port),
        ("gogate.pool", backend.pool_name),
        ("gogate.connection.reused", one.reused),
    ]
    if one.number:
        attributes.append(("http.request.resend_count", one.number))
    if one.status:
        attributes.append(("http.response.status_code", one.status))
    failed = bool(one.reason) or one.status >= 400
    if failed:
        attributes.append(("error.type", one.reason or str(one.status)))
    return Span(
        trace.trace_id, one.span_id, trace.span_id, trace.state.decode("latin-1"), CLIENT, method,
        _nanoseconds(one.begun + offset), _nanoseconds(one.ended + offset), attributes, failed,
    )  # fmt: skip


def _authority(text: str, usual: int) -> tuple[str, int]:
    """Host and port of ``host``, ``host:port`` or ``[v6]:port``; a Unix socket has no port."""
    if text.startswith("unix:"):
        return text.removeprefix("unix:"), 0
    host, colon, port = text.rpartition(":")
    if colon and port.isdecimal() and not host.endswith(":"):
        return host.strip("[]"), int(port)
    return text.strip("[]"), usual


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
