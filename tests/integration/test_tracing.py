"""Traces of whole gateways at a real OTLP receiver: two workers, a collector that is away, reloads."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from doubles.gateway import Gateway, wait_for
from doubles.http_backend import HttpBackend
from doubles.otlp_collector import OtlpCollector, Received

pytestmark = pytest.mark.slow

CONFIG = """
server:
  workers: 2
  httpListenAddr: "127.0.0.1:0"
  admin: {{listenAddr: "127.0.0.1:0"}}
  backends: ["127.0.0.1:1", "{backend}"]
  loadBalancer: round_robin
  health: {{enabled: false}}
  retry: {{backoff: 0s}}
tracing: {{enabled: {enabled}, endpoint: "{endpoint}", sample: 1, serviceName: edge, headers: {{X-Key: k1}}}}
"""
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def config(backend: str, endpoint: str, enabled: bool = True) -> str:
    return CONFIG.format(backend=backend, endpoint=endpoint, enabled=str(enabled).lower())


def whole(collector: OtlpCollector, trace_id: str) -> list[Received]:
    """The spans of a trace, when the server span and the one that was answered are there."""
    def there() -> list[Received]:
        found = collector.of(trace_id)
        answered = [one for one in found if one.kind == "client" and not one.failed]
        return found if answered and any(one.kind == "server" for one in found) else []

    return wait_for(there, what=f"the trace {trace_id}")  # type: ignore[no-any-return]


def test_spans_of_two_workers() -> None:
    """What both workers served comes to the collector: parents, retries as spans, attributes, our headers; a trace of
    each request, and no span twice."""
    with HttpBackend() as backend, OtlpCollector() as collector, Gateway(
        config(backend.address, collector.endpoint)
    ) as gateway:
        ids = [f"{number:032x}" for number in range(1, 31)]
        for trace_id in ids:
            sent = {"traceparent": f"00-{trace_id}-{SPAN}-01", "X-Request-ID": f"r{trace_id}", "Connection": "close"}
            assert gateway.get("/path", **sent)[0] == 200
        retried = 0
        for trace_id in ids:
            server, *tries = whole(collector, trace_id)
            assert (server.kind, server.parent_id, server.service) == ("server", SPAN, "edge")
            assert {one.parent_id for one in tries} == {server.span_id}
            assert [one.failed for one in tries] == [True] * (len(tries) - 1) + [False]
            assert [one.attributes.get("http.request.resend_count", 0) for one in tries] == list(range(len(tries)))
            assert server.attributes["http.request.header.x-request-id"] == [f"r{trace_id}"]
            assert server.start <= tries[0].start <= tries[-1].end <= server.end
            retried += len(tries) > 1
        assert retried
        assert set(collector.paths) == {"/v1/traces"}
        assert collector.headers[0]["x-key"] == "k1"
        assert len({one.span_id for one in collector.spans}) == len(collector.spans)
        workers = {one["worker"] for one in gateway.admin_json("GET", "/requests?limit=100")["requests"]}
        assert workers == {0, 1}
        total = len(collector.spans)
        wait_for(lambda: gateway.metric("gogate_trace_spans_total", result="exported") == total)
        answered = gateway.stop()
    assert answered == 0


def test_a_collector_that_is_away(tmp_path: Path) -> None:
    """Nobody notices but the metric and one line of the log; when it comes, spans come; the last ones at the end."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        port = placeholder.getsockname()[1]
    with HttpBackend() as backend, Gateway(config(backend.address, f"http://127.0.0.1:{port}")) as gateway:
        for _ in range(20):
            assert gateway.get("/")[0] == 200
        wait_for(lambda: gateway.metric("gogate_trace_spans_total", result="failed") >= 20, 30, "failed spans")
        assert len(gateway.logged("spans cannot be exported")) == 1
        with OtlpCollector(port) as collector:
            wait_for(lambda: gateway.get("/")[0] == 200 and collector.spans, 20, "spans")
            wait_for(lambda: gateway.logged("spans are exported again"))
            gateway.get("/last", traceparent=f"00-{TRACE}-{SPAN}-01")
            assert gateway.stop() == 0
            assert whole(collector, TRACE)


def test_a_collector_that_is_busy() -> None:
    """503 with Retry-After is tried again, 400 is not; what a collector rejects is counted."""
    with HttpBackend() as backend, OtlpCollector() as collector, Gateway(
        config(backend.address, collector.endpoint)
    ) as gateway:
        collector.statuses = [503, 503]
        assert gateway.get("/", traceparent=f"00-{TRACE}-{SPAN}-01")[0] == 200
        assert whole(collector, TRACE)
        wait_for(lambda: gateway.metric("gogate_trace_spans_total", result="exported") >= 2)
        collector.statuses = [400]
        gateway.get("/")
        wait_for(lambda: gateway.metric("gogate_trace_spans_total", result="failed") >= 2)
        collector.rejects = 1
        gateway.get("/")
        wait_for(lambda: gateway.metric("gogate_trace_spans_total", result="rejected") == 1)


def test_a_reload_switches_traces() -> None:
    """Off, on, to another collector: without a restart."""
    with HttpBackend() as backend, OtlpCollector() as first, OtlpCollector() as second, Gateway(
        config(backend.address, first.endpoint, enabled=False)
    ) as gateway:
        assert gateway.get("/")[0] == 200
        for collector in (first, second):
            gateway.config_path.write_text(config(backend.address, collector.endpoint))
            assert gateway.admin_request("POST", "/reload")[0] == 200
            gateway.get("/", traceparent=f"00-{TRACE}-{SPAN}-01")
            assert whole(collector, TRACE)
        assert {one.trace_id for one in (*first.spans, *second.spans)} == {TRACE}


def test_only_trusted_proxies_decide() -> None:
    """parents: trusted: a client's traceparent is replaced; that of a trusted proxy counts, after a reload."""
    with HttpBackend() as backend, OtlpCollector() as collector:
        text = config(backend.address, collector.endpoint).replace("sample: 1,", "sample: 0, parents: trusted,")
        with Gateway(text) as gateway:
            sent = {"traceparent": f"00-{TRACE}-{SPAN}-01", "Connection": "close"}
            assert gateway.get("/", **sent)[0] == 200
            seen = backend.heads[-1].decode()
            assert "\r\ntraceparent: 00-" in seen
            assert TRACE not in seen
            gateway.config_path.write_text(text.replace("server:", "server:\n  trustedProxies: [127.0.0.0/8]"))
            assert gateway.admin_request("POST", "/reload")[0] == 200
            assert gateway.get("/", **sent)[0] == 200
            assert f"\r\ntraceparent: 00-{TRACE}-" in backend.heads[-1].decode()
            assert whole(collector, TRACE)
            assert {one.trace_id for one in collector.spans} == {TRACE}


def test_without_the_extra(tmp_path: Path) -> None:
    """tracing.enabled without opentelemetry-proto is a mistake of the configuration, with its place."""
    (tmp_path / "config.yaml").write_text(config("127.0.0.1:9", "http://localhost:4318"))
    program = (
        "import sys\n"
        "class No:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'opentelemetry': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, No())\n"
        "from gogate_py.cli import main\n"
        "sys.exit(main(['check', '-config', 'config.yaml']))\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": root}, capture_output=True,
                          text=True)
    assert done.returncode == 1, done.stderr
    assert "config.yaml:10:" in done.stdout + done.stderr
    assert "gogate[otel]" in done.stdout + done.stderr
