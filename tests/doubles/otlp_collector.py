"""OtlpCollector: a real OTLP/HTTP receiver that decodes what it is sent with opentelemetry-proto."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue


def plain(value: AnyValue) -> Any:
    """An attribute's value."""
    kind = value.WhichOneof("value")
    found = getattr(value, kind or "string_value")
    return [plain(one) for one in found.values] if kind == "array_value" else found


class Received:
    """One span as it came."""

    def __init__(self, span: Any, service: str) -> None:
        self.service = service
        self.trace_id = span.trace_id.hex()
        self.span_id = span.span_id.hex()
        self.parent_id = span.parent_span_id.hex()
        self.state = span.trace_state
        self.kind = {2: "server", 3: "client"}[span.kind]
        self.name = span.name
        self.start, self.end = span.start_time_unix_nano, span.end_time_unix_nano
        self.failed = span.status.code == 2
        self.attributes = {one.key: plain(one.value) for one in span.attributes}

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name} {self.trace_id[:6]}/{self.span_id[:4]} ← {self.parent_id[:4]}>"


class OtlpCollector:
    """``with OtlpCollector() as collector``: spans that came are in ``spans``. ``statuses``: to be answered in turn,
    then 200; ``rejects``: spans that it says it did not take."""

    def __init__(self, port: int = 0) -> None:
        self.spans: list[Received] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.statuses: list[int] = []
        self.rejects = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = outer.statuses.pop(0) if outer.statuses else 200
                answer = ExportTraceServiceResponse()
                if status == 200:
                    outer.take(body, self.path, {name.lower(): value for name, value in self.headers.items()})
                    answer.partial_success.rejected_spans = outer.rejects
                data = answer.SerializeToString()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                if status == 503:
                    self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def take(self, body: bytes, path: str, headers: dict[str, str]) -> None:
        """What was sent."""
        message = ExportTraceServiceRequest()
        message.ParseFromString(body)
        self.paths.append(path)
        self.headers.append(headers)
        for of_resource in message.resource_spans:
            resource = {one.key: plain(one.value) for one in of_resource.resource.attributes}
            for of_scope in of_resource.scope_spans:
                self.spans += [Received(span, resource["service.name"]) for span in of_scope.spans]

    def of(self, trace_id: str) -> list[Received]:
        """The spans of a trace, by when they began."""
        return sorted((one for one in self.spans if one.trace_id == trace_id), key=lambda one: (one.start, one.kind))

    def __enter__(self) -> OtlpCollector:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
