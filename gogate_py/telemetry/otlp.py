"""Spans as OTLP (OpenTelemetry protocol, protobuf). Loaded only where traces are on: it needs the extra ``otel``."""

from __future__ import annotations

from collections.abc import Iterable

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from gogate_py import __version__
from gogate_py.messages import Span, Value

# Whether the parent is in another process is known (bit 8), and for spans of tries it is not (bit 9).
_REMOTE = 0x300
_LOCAL = 0x100
_SAMPLED = 0x01


def request(service: str, spans: Iterable[Span]) -> bytes:
    """One export request with all of them."""
    message = ExportTraceServiceRequest()
    of_resource = message.resource_spans.add()
    of_resource.resource.attributes.extend([
        KeyValue(key="service.name", value=AnyValue(string_value=service)),
        KeyValue(key="service.version", value=AnyValue(string_value=__version__)),
    ])  # fmt: skip
    of_scope = of_resource.scope_spans.add()
    of_scope.scope.name = "gogate"
    of_scope.scope.version = __version__
    of_scope.spans.extend(map(_span, spans))
    return bytes(message.SerializeToString())


def rejected(body: bytes) -> int:
    """How many of the spans a collector did not take, by its answer."""
    answer = ExportTraceServiceResponse()
    answer.ParseFromString(body)
    return int(answer.partial_success.rejected_spans)


def _span(span: Span) -> OtlpSpan:
    remote = span.parent_id and span.kind == OtlpSpan.SPAN_KIND_SERVER
    return OtlpSpan(
        trace_id=bytes.fromhex(span.trace_id.decode()),
        span_id=bytes.fromhex(span.span_id.decode()),
        parent_span_id=bytes.fromhex(span.parent_id.decode()),
        trace_state=span.trace_state,
        flags=_SAMPLED | (_REMOTE if remote else _LOCAL),
        kind=span.kind,  # type: ignore[arg-type]  # the number of the enum's value
        name=span.name,
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=max(span.start_ns, span.end_ns),
        attributes=[KeyValue(key=key, value=_value(value)) for key, value in span.attributes],
        status=Status(code=Status.STATUS_CODE_ERROR) if span.failed else None,
    )


def _value(value: Value) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=one) for one in value]))
    return AnyValue(string_value=value)
