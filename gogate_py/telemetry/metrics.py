"""Every metric once: name, kind, labels, help. Workers count in plain integers and report deltas under these names.

Label values come from the configuration and the registry only (route, pool, backend, listener names) or from closed
sets in this program (status, reason): never from a request. telemetry/totals.py caps them all the same.

Names are those of GoGate's README where it has one. ``backend`` is the address as configured or registered; ``pool`` is
added where one address may stand in several pools.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Metric(NamedTuple):
    """One metric: ``kind`` is counter, gauge or histogram."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


#: Upper bounds of the duration histograms, seconds (GoGate's, and 10 s for what is slower than its last).
DURATION_BOUNDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0)
#: Label sets per metric; a gateway with more backends than this reports the rest together.
MAX_SERIES: Final = 10_000
#: Series of a histogram are this many lines; it gets accordingly fewer label sets.
LINES: Final = len(DURATION_BOUNDS) + 3
#: Routes with a histogram of their own: the first of the configuration. Beside them there are "" and OTHER.
ROUTE_HISTOGRAMS: Final = MAX_SERIES // LINES - 2
#: The label value of what is beyond.
OTHER: Final = "other"

_ALL = (
    # --- requests (L7)
    Metric("gogate_requests_total", "counter", ("pool", "backend", "status"),
           "HTTP requests that a backend was asked, by outcome (success: an answer below 500; failure: the rest)."),
    Metric("gogate_request_duration_seconds", "histogram", (),
           "Seconds from a complete request head to the last byte of its answer."),
    Metric("gogate_route_requests_total", "counter", ("route", "code"),
           "HTTP requests by route and status code answered (route is empty when none matched)."),
    Metric("gogate_route_duration_seconds", "histogram", ("route",),
           "The same by route; tunnels (WebSocket) have no end that would be an answer's, and are left out of both."),
    Metric("gogate_local_responses_total", "counter", ("reason",),
           "Answers that gogate gave itself, by reason code."),
    Metric("gogate_http_requests_in_flight", "gauge", (), "HTTP requests being served now."),
    Metric("gogate_request_retries_total", "counter", ("pool", "reason"),
           "Requests and TCP connections that were tried again on another connection or backend."),
    # --- connections and bytes
    Metric("gogate_connections_total", "counter", ("listener",), "Client connections accepted."),
    Metric("gogate_connections_active", "gauge", ("listener",), "Client connections open now."),
    Metric("gogate_connections_refused_total", "counter", ("listener", "reason"),
           "Client connections closed at once, by reason code."),
    Metric("gogate_connections_shed_total", "counter", ("listener",),
           "Idle client connections closed to make room for others."),
    Metric("gogate_tls_handshakes_total", "counter", ("listener", "result", "version"),
           "TLS handshakes with clients, by result (ok, resumed, or the reason they failed for) and version."),
    Metric("gogate_tls_unusable_certificates_total", "counter", ("listener",),
           "Times a worker could not use the certificates of a listener and kept those of before."),
    Metric("gogate_connection_duration_seconds", "histogram", (), "Seconds a TCP (L4) connection lasted."),
    Metric("gogate_tcp_connections_total", "counter", ("route", "pool", "backend", "result"),
           "L4 connections finished, by how they ended."),
    Metric("gogate_backend_connects_total", "counter", ("pool", "backend", "result"),
           "Connection attempts to backends, by result (ok, refused, timeout, error, tls)."),
    Metric("gogate_backend_connections_reused_total", "counter", ("pool", "backend"),
           "Requests that went out on a kept upstream connection."),
    Metric("gogate_backend_connections_idle", "gauge", ("pool", "backend"),
           "Upstream connections kept for the next request."),
    Metric("gogate_backend_bytes_sent_total", "counter", ("pool", "backend"), "Bytes sent to backends."),
    Metric("gogate_backend_bytes_received_total", "counter", ("pool", "backend"), "Bytes received from backends."),
    Metric("gogate_backend_connections_active", "gauge", ("pool", "backend"),
           "Requests and TCP connections a backend serves now."),
    Metric("gogate_pool_hits_total", "counter", ("pool", "backend"),
           "L4 connections that found a ready connection (tcpPool)."),
    Metric("gogate_pool_misses_total", "counter", ("pool", "backend"),
           "L4 connections that found none ready (tcpPool)."),
    Metric("gogate_pool_size", "gauge", ("pool", "backend"), "Ready connections waiting (tcpPool)."),
    # --- health, breaker, limiter
    Metric("gogate_backend_healthy", "gauge", ("pool", "backend"),
           "Whether probes call the backend healthy (1) or not (0)."),
    Metric("gogate_backend_draining", "gauge", ("pool", "backend"),
           "Whether the backend is being drained (1) or not (0)."),
    Metric("gogate_backend_drain_cuts_total", "counter", ("pool", "backend", "kind"),
           "What still ran at the deadline of a drain and was cut (request, websocket, tcp)."),
    Metric("gogate_health_transitions_total", "counter", ("pool", "backend", "to"), "Changes of a backend's health."),
    Metric("gogate_health_probes_total", "counter", ("pool", "backend", "result"), "Active probes, by result."),
    Metric("gogate_circuit_breaker_state", "gauge", ("pool", "backend"),
           "Circuit breaker per backend: 0 closed, 1 open, 2 half-open."),
    Metric("gogate_circuit_breaker_opened_total", "counter", ("pool", "backend"), "Times the circuit breaker opened."),
    Metric("gogate_backend_ejected", "gauge", ("pool", "backend"),
           "Whether outlier detection has taken the backend out for a while (1) or not (0)."),
    Metric("gogate_outlier_ejections_total", "counter", ("pool", "backend"), "Times outlier detection ejected it."),
    Metric("gogate_backend_weight", "gauge", ("pool", "backend"), "Its weight, overrides included."),
    Metric("gogate_pool_panic", "gauge", ("pool",),
           "Whether so few backends are healthy that health is ignored (panicThreshold)."),
    Metric("gogate_pool_waiting", "gauge", ("pool",),
           "Requests and TCP connections that wait for a backend below maxConnections."),
    Metric("gogate_pool_wait_timeouts_total", "counter", ("pool",), "Those that waited in vain for queueTimeout."),
    Metric("gogate_rate_limit_rejected_total", "counter", ("route", "limit"),
           "Requests and connections refused by a rate limit (route is empty for server.rateLimit)."),
    Metric("gogate_rate_limit_keys_evicted_total", "counter", (),
           "Rate limit keys that were forgotten because newer ones needed the room."),
    # --- routes
    Metric("gogate_split_requests_total", "counter", ("route", "pool"), "Requests by arm of a split."),
    Metric("gogate_split_fallbacks_total", "counter", ("route", "pool"),
           "Requests whose arm had no usable backend and that went to another one."),
    Metric("gogate_retries_denied_total", "counter", ("route",), "Retries that the retry budget did not allow."),
    Metric("gogate_auth_failures_total", "counter", ("route", "reason"), "Requests refused by authentication."),
    Metric("gogate_route_refusals_total", "counter", ("route", "stage", "reason"),
           "Requests refused by another stage of a route (addresses, rewriting)."),
    Metric("gogate_cache_requests_total", "counter", ("route", "result"),
           "Requests by what the response cache did: hit, miss, bypass."),
    Metric("gogate_cache_evicted_total", "counter", ("route",), "Stored answers dropped for want of room."),
    Metric("gogate_cache_entries", "gauge", ("route",), "Answers in the response caches of all workers."),
    Metric("gogate_cache_bytes", "gauge", ("route",), "Their size in bytes."),
    # --- registry
    Metric("gogate_registry_services", "gauge", (), "Registered instances."),
    Metric("gogate_registry_events_total", "counter", ("event",),
           "Registry events: registered, updated, deregistered, critical, suspect, passing, expired."),
    Metric("gogate_registry_preserving", "gauge", ("service",),
           "Silent instances of the service that are kept because most of it is silent; 0 or absent: none."),
    Metric("gogate_registry_saves_total", "counter", ("result",),
           "Times the registry was written to its store, by result (ok, failed)."),
    Metric("gogate_dns_stale", "gauge", ("name",),
           "Whether the name's last question failed and an older answer is used (1) or not (0)."),
    # --- TLS
    Metric("gogate_tls_certificate_expiry_seconds", "gauge", ("listener", "name", "file"),
           "When the certificate ends to be valid, Unix time; listener is pool/NAME for one that backends are shown."),
    # --- the program
    Metric("gogate_config_reloads_total", "counter", ("result",),
           "Configurations loaded, by result; the first one counts."),
    Metric("gogate_config_last_reload_success", "gauge", (),
           "Whether the last configuration loaded is served (1), or was refused and the one before goes on (0)."),
    Metric("gogate_config_generation", "gauge", (), "Number of the snapshot that is served."),
    Metric("gogate_worker_restarts_total", "counter", ("worker",), "Times the worker was replaced because it died."),
    Metric("gogate_workers", "gauge", (), "Workers serving now."),
    Metric("gogate_worker_connections", "gauge", ("worker",), "Client connections that the worker has now."),
    Metric("gogate_worker_connections_limit", "gauge", ("worker",),
           "Client connections that it may have: server.limits.connections, or what its descriptors allow."),
    Metric("gogate_process_open_fds", "gauge", ("worker",), "Open descriptors of the worker, or of the supervisor."),
    Metric("gogate_process_max_fds", "gauge", ("worker",), "Descriptors it may have."),
    Metric("gogate_process_resident_memory_bytes", "gauge", ("worker",),
           "Its resident memory; pages that the processes share are in each."),
    Metric("gogate_process_cpu_seconds_total", "counter", ("worker",), "CPU time it has used, user and system."),
    Metric("gogate_event_loop_lag_seconds", "gauge", ("worker",),
           "How late the last timer of the worker's event loop ran."),
    Metric("gogate_log_lines_dropped_total", "counter", (), "Log lines dropped because the target was slow or failed."),
    Metric("gogate_trace_spans_total", "counter", ("result",),
           "Spans by what became of them: exported, rejected by the collector, failed, queue_full, worker_backlog."),
    Metric("gogate_internal_errors_total", "counter", ("worker",),
           "Unhandled exceptions; anything but 0 is a bug of gogate."),
    Metric("gogate_arena_contention_total", "counter", (),
           "Decisions taken locally because a shared lock was busy (settled later) or the table of clients full."),
    Metric("gogate_uptime_seconds", "gauge", (), "Seconds since the supervisor started."),
    Metric("gogate_build_info", "gauge", ("version",), "Always 1; the version is in the label."),
)  # fmt: skip

CATALOGUE: Final = {metric.name: metric for metric in _ALL}
