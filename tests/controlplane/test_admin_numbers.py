"""/stats and /metrics of the admin API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from admin_harness import CONFIG, AdminHarness, admin_api
from prometheus_client.parser import text_string_to_metric_families

from gogate_py.messages import Counts
from gogate_py.telemetry.metrics import DURATION_BOUNDS


@pytest.fixture
def api() -> Iterator[AdminHarness]:
    """The short form: pool default with two backends."""
    with admin_api() as harness:
        yield harness


def report(api: AdminHarness) -> None:
    """Two workers report."""
    labels = ("default", "127.0.0.1:9001")
    counters: list[tuple[str, tuple[str, ...], float]] = [
        ("gogate_requests_total", (*labels, "success"), 30),
        ("gogate_route_requests_total", ("default-http", "200"), 30),
        ("gogate_route_requests_total", ("default-http", "503"), 2),
        ("gogate_connections_total", ("http",), 4),
        ("gogate_connections_refused_total", ("http", "no_backend"), 1),
        ("gogate_local_responses_total", ("no_backend",), 2),
        ("gogate_rate_limit_rejected_total", ("", "ip"), 5),
        ("gogate_tcp_connections_total", ("db", *labels, "ok"), 6),
        ("gogate_backend_bytes_sent_total", labels, 1000),
    ]
    buckets = [0] * (len(DURATION_BOUNDS) + 1)
    buckets[2] = 30
    for slot in (0, 1):
        api.totals.add(slot, Counts(
            counters,
            [("gogate_connections_active", ("http",), 2), ("gogate_http_requests_in_flight", (), 1)],
            [("gogate_request_duration_seconds", (), buckets, 0.24)],
        ))  # fmt: skip


def test_stats(api: AdminHarness) -> None:
    """Identity, workers, and the counters of all workers at a glance."""
    report(api)
    stats = api.ask("GET", "/stats").json
    assert [worker["state"] for worker in stats["workers"]] == ["serving", "dead"]
    assert stats["workers"][1] == {"slot": 1, "pid": 4712, "state": "dead", "started_s": 0.0, "restarts": 3}
    assert stats["generation"] >= 1
    assert stats["ready"] is True
    assert stats["requests"]["by_status"] == {"1xx": 0, "2xx": 60, "3xx": 0, "4xx": 0, "5xx": 4}
    assert (stats["requests"]["total"], stats["requests"]["in_flight"]) == (64, 2)
    assert stats["requests"]["local"] == {"no_backend": 4}
    assert stats["connections"]["listeners"] == {"http": {"total": 8, "active": 4, "refused": 2}}
    assert stats["rate_limit"] == {"rejected": 10, "by_limit": {"": {"ip": 10}}}
    assert stats["connections"]["refused_by_reason"] == {"no_backend": 2}
    assert stats["tcp_by_result"] == {"ok": 12}
    assert (stats["latency_ms"]["count"], stats["latency_ms"]["mean"]) == (60, 8.0)
    latency = stats["latency_ms"]
    assert 5 < latency["p50"] < latency["p90"] < latency["p95"] < latency["p99"] <= 10
    assert "routes" not in stats
    assert stats["tcp_duration_ms"]["p99"] is None
    pool = stats["pools"]["default"]
    assert (pool["backends"], pool["healthy"], pool["active_connections"]) == (2, 2, 14)
    backend = pool["by_backend"]["127.0.0.1:9001"]
    assert backend["requests"] == {"success": 60, "failure": 0}
    assert (backend["tcp_connections"], backend["bytes_sent"]) == (12, 2000)


def test_stats_by_route(api: AdminHarness) -> None:
    """?by=route: every route with its counters and its histogram, also those without a request; other words are 400."""
    untouched: dict[str, Any] = {"by_code": {}, "tcp": {}, "buckets": []}
    assert api.ask("GET", "/stats?by=route").json["routes"] == {"default-http": untouched}
    report(api)
    buckets = [0] * len(DURATION_BOUNDS) + [4]
    api.totals.add(0, Counts([], [], [("gogate_route_duration_seconds", ("default-http",), buckets, 99.0)]))
    stats = api.ask("GET", "/stats?by=route").json
    assert stats["routes"] == {
        "default-http": {"by_code": {"200": 60, "503": 4}, "tcp": {}, "buckets": buckets},
        "db": {"by_code": {}, "tcp": {"ok": 12}, "buckets": []},
    }
    assert stats["bucket_bounds_ms"] == [bound * 1000 for bound in DURATION_BOUNDS]
    assert stats["requests"]["total"] == 64
    wrong = api.ask("GET", "/stats?by=pool")
    assert (wrong.status, wrong.json["field"]) == (400, "by")


def test_metrics(api: AdminHarness) -> None:
    """Counters of the workers, gauges of the control plane, dropped log lines: one exposition."""
    report(api)
    api.ask("POST", "/v1/services", {"id": "one", "name": "api", "address": "127.0.0.1:9100"})
    api.ask("POST", "/backends/127.0.0.1:9002/drain")
    api.supervisor.breakers[api.control.backends()[0].row] = "open"
    samples = _samples(api)
    first, second = ('backend="127.0.0.1:9001",pool="default"', 'backend="127.0.0.1:9002",pool="default"')
    assert samples[f'gogate_requests_total{{{first},status="success"}}'] == 60
    assert samples[f"gogate_backend_healthy{{{first}}}"] == 1
    assert samples[f"gogate_backend_draining{{{second}}}"] == 1
    assert samples[f"gogate_circuit_breaker_state{{{first}}}"] == 1
    assert samples[f"gogate_backend_connections_active{{{first}}}"] == 7
    assert samples["gogate_registry_services{}"] == 1
    assert samples["gogate_workers{}"] == 1
    assert samples['gogate_worker_restarts_total{worker="1"}'] == 3
    assert samples["gogate_config_generation{}"] >= 1
    assert samples["gogate_uptime_seconds{}"] > 0
    assert [value for name, value in samples.items() if name.startswith("gogate_build_info")] == [1]


def test_dropped_log_lines_are_counted_at_a_scrape(api: AdminHarness) -> None:
    """What the log writer dropped since the last scrape is in the next one."""
    api.supervisor.dropped = 3
    assert _samples(api)["gogate_log_lines_dropped_total{}"] == 3
    assert _samples(api)["gogate_log_lines_dropped_total{}"] == 3


def test_openmetrics_and_the_configured_path() -> None:
    """metrics.path is served besides /metrics, in the format that Accept asks for."""
    with admin_api(CONFIG % "" + "  metrics: {path: /prom}\n") as api:
        answer = api.ask("GET", "/prom", headers={"Accept": "application/openmetrics-text"})
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert answer.body.endswith(b"# EOF\n")
        assert api.ask("GET", "/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")


def test_metrics_that_are_off() -> None:
    """metrics.enabled: false: 404 that names the setting."""
    with admin_api(CONFIG % "" + "  metrics: {enabled: false}\n") as api:
        answer = api.ask("GET", "/metrics")
        assert (answer.status, "server.metrics.enabled" in answer.json["detail"]) == (404, True)


def _samples(api: AdminHarness) -> dict[str, float]:
    text = api.ask("GET", "/metrics").body.decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found
