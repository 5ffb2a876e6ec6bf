"""What the admin API shows: values of the control plane and the totals as JSON objects and as gauges.

Pure: everything is given. Field names are the API's promise; durations end in ``_s`` or ``_ms``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gogate_py import __version__
from gogate_py.config.values import format_duration
from gogate_py.controlplane.control import BackendView
from gogate_py.controlplane.registry import Registration
from gogate_py.policy.circuit_breaker import STATE_NAMES
from gogate_py.telemetry.exposition import Gauges
from gogate_py.telemetry.totals import Labels, Totals, quantile

#: Arena row → (active requests and connections, name of the breaker's state).
Live = Callable[[int], tuple[int, str]]


def backend_object(view: BackendView, live: Live) -> dict[str, Any]:
    """One backend of one pool."""
    active, breaker = live(view.row)
    return {
        "id": view.id,
        "addr": view.addr,
        "pool": view.pool,
        "origin": view.origin,
        "weight": view.weight,
        "healthy": view.healthy,
        "last_error": view.last_error,
        "active_connections": active,
        "breaker": breaker,
        "draining": view.draining,
        "registrations": view.registration_ids,
    }


def service_object(one: Registration, pools: list[str], now: float) -> dict[str, Any]:
    """One registered instance; ``now`` is monotonic seconds, the clock of its lease."""
    return {
        "id": one.id,
        "name": one.name,
        "address": one.address,
        "tags": one.tags,
        "metadata": one.metadata,
        "weight": one.weight,
        "ttl": format_duration(one.ttl),
        "registered_at": one.registered_at,
        "last_heartbeat": one.last_heartbeat,
        "expires_in_s": round(one.expires_in(now), 3),
        "pools": pools,
        "unrouted": not pools,
    }


def stats_object(totals: Totals, backends: Iterable[BackendView], live: Live) -> dict[str, Any]:
    """The counters as an operator wants them at a glance; identity and workers are added by the endpoint."""
    by_class = {f"{digit}xx": 0 for digit in "12345"}
    answered = _whole(totals.counter("gogate_route_requests_total"))
    for (_, code), n in answered.items():
        key = f"{code[:1]}xx"
        if key in by_class:
            by_class[key] += n
    accepted = _whole(totals.counter("gogate_connections_total"))
    active = _whole(totals.gauge("gogate_connections_active"))
    refused = _by_first(totals.counter("gogate_connections_refused_total"))
    listeners = sorted({labels[0] for labels in (*accepted, *active)} | refused.keys())
    return {
        "connections": {
            "total": sum(accepted.values()),
            "active": sum(active.values()),
            "refused": sum(refused.values()),
            "listeners": {
                name: {
                    "total": accepted.get((name,), 0),
                    "active": active.get((name,), 0),
                    "refused": refused.get(name, 0),
                }
                for name in listeners
            },
        },
        "requests": {
            "total": sum(answered.values()),
            "in_flight": sum(_whole(totals.gauge("gogate_http_requests_in_flight")).values()),
            "by_status": by_class,
            "local": _by_first(totals.counter("gogate_local_responses_total")),
        },
        "latency_ms": _latency(totals, "gogate_request_duration_seconds"),
        "tcp_duration_ms": _latency(totals, "gogate_connection_duration_seconds"),
        "rate_limit": {"rejected": int(totals.counter_sum("gogate_rate_limit_rejected_total"))},
        "pools": _pools(totals, backends, live),
    }


def gauges(
    backends: Iterable[BackendView], live: Live, *, services: int, generation: int, serving: int, uptime: float
) -> Gauges:
    """The gauges of the catalogue that only the control plane knows, for one scrape."""
    healthy: dict[Labels, float] = {}
    draining: dict[Labels, float] = {}
    active: dict[Labels, float] = {}
    breaker: dict[Labels, float] = {}
    for view in backends:
        labels = (view.pool, view.addr)
        count, state = live(view.row)
        healthy[labels] = float(view.healthy)
        draining[labels] = float(view.draining)
        active[labels] = count
        breaker[labels] = STATE_NAMES.index(state)
    return {
        "gogate_backend_healthy": healthy,
        "gogate_backend_draining": draining,
        "gogate_backend_connections_active": active,
        "gogate_circuit_breaker_state": breaker,
        "gogate_registry_services": {(): services},
        "gogate_config_generation": {(): generation},
        "gogate_workers": {(): serving},
        "gogate_uptime_seconds": {(): round(uptime, 3)},
        "gogate_build_info": {(__version__,): 1},
    }


def _pools(totals: Totals, backends: Iterable[BackendView], live: Live) -> dict[str, Any]:
    requests = _whole(totals.counter("gogate_requests_total"))
    sent = _whole(totals.counter("gogate_backend_bytes_sent_total"))
    received = _whole(totals.counter("gogate_backend_bytes_received_total"))
    tcp: dict[Labels, int] = defaultdict(int)
    for (_, pool, addr, _), n in _whole(totals.counter("gogate_tcp_connections_total")).items():
        tcp[pool, addr] += n
    pools: dict[str, dict[str, Any]] = {}
    for view in backends:
        labels = (view.pool, view.addr)
        active, breaker = live(view.row)
        pools.setdefault(view.pool, {})[view.addr] = {
            "healthy": view.healthy,
            "draining": view.draining,
            "breaker": breaker,
            "active_connections": active,
            "requests": {
                "success": requests.get((*labels, "success"), 0),
                "failure": requests.get((*labels, "failure"), 0),
            },
            "tcp_connections": tcp.get(labels, 0),
            "bytes_sent": sent.get(labels, 0),
            "bytes_received": received.get(labels, 0),
        }
    return {
        name: {
            "backends": len(members),
            "healthy": sum(member["healthy"] for member in members.values()),
            "active_connections": sum(member["active_connections"] for member in members.values()),
            "by_backend": members,
        }
        for name, members in pools.items()
    }


def _latency(totals: Totals, name: str) -> dict[str, float | None]:
    """Percentiles estimated from the histogram, and the mean."""
    histogram = totals.histogram(name)
    count = sum(histogram.buckets)

    def ms(seconds: float | None) -> float | None:
        return None if seconds is None else round(seconds * 1000, 3)

    return {
        "count": count,
        "mean": ms(histogram.total / count) if count else None,
        "p50": ms(quantile(histogram, 0.5)),
        "p90": ms(quantile(histogram, 0.9)),
        "p99": ms(quantile(histogram, 0.99)),
    }


def _by_first(table: Mapping[Labels, float]) -> dict[str, int]:
    """Summed by the first label."""
    summed: dict[str, int] = defaultdict(int)
    for labels, n in table.items():
        summed[labels[0]] += int(n)
    return dict(summed)


def _whole(table: Mapping[Labels, float]) -> dict[Labels, int]:
    """Numbers of things, which travel as floats."""
    return {labels: int(n) for labels, n in table.items()}
