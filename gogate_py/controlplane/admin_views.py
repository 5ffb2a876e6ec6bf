"""What the admin API shows: values of the control plane and the totals as JSON objects and as gauges.

Pure: everything is given. Field names are the API's promise; durations end in ``_s`` or ``_ms``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from gogate_py import __version__
from gogate_py.config import schema
from gogate_py.config.values import format_duration
from gogate_py.controlplane.operations import ArmView, BackendView
from gogate_py.controlplane.overrides import Override
from gogate_py.controlplane.registry import Registration
from gogate_py.controlplane.rows import Key
from gogate_py.controlplane.supervision import Live
from gogate_py.policy.circuit_breaker import STATE_NAMES
from gogate_py.telemetry.exposition import Gauges
from gogate_py.telemetry.totals import Labels, Totals, quantile


def backend_object(view: BackendView, live: Live) -> dict[str, Any]:
    """One backend of one pool."""
    state = live(view.row)
    return {
        "id": view.id,
        "addr": view.addr,
        "pool": view.pool,
        "origin": view.origin,
        "weight": view.weight,
        **_overridden("configured_weight", view.configured_weight, view.weight_override),
        "backup": view.backup,
        "healthy": view.healthy,
        "last_error": view.last_error,
        "active_connections": state.active,
        "breaker": state.breaker,
        "ejected": state.ejected,
        "warming_up": view.warming_since > 0,
        "draining": view.draining,
        **_drain_left(view.drain_left),
        "registrations": view.registration_ids,
    }


def _overridden(name: str, configured: int, override: Override | None) -> dict[str, Any]:
    """What an overridden value was configured as, and since when it is not any more; nothing without an override."""
    if override is None:
        return {}
    return {name: configured, "overridden_since": datetime.fromtimestamp(override.since, UTC).isoformat()}


def drain_object(key: Key, since: float, left: float | None) -> dict[str, Any]:
    """A drained backend among the overrides. ``left``: seconds until what runs there is cut."""
    return {
        "pool": key[0],
        "backend": key[1],
        "overridden_since": datetime.fromtimestamp(since, UTC).isoformat(),
        **_drain_left(left),
    }


def _drain_left(left: float | None) -> dict[str, float]:
    return {} if left is None else {"drain_ends_in_s": round(left, 3)}


def override_object(override: Override, **what: str) -> dict[str, Any]:
    """An override with what it is of."""
    since = datetime.fromtimestamp(override.since, UTC).isoformat()
    return {**what, "value": override.value, "overridden_since": since}


def split_object(arms: Sequence[ArmView]) -> list[dict[str, Any]]:
    """The arms of a split with their weights and shares."""
    total = sum(arm.weight for arm in arms)
    return [
        {
            "pool": arm.pool,
            "weight": arm.weight,
            "share": round(arm.weight / total, 4) if total else 0.0,
            "canary": arm.canary,
            **_overridden("configured_weight", arm.configured_weight, arm.override),
        }
        for arm in arms
    ]


def route_shape(route: schema.Route, arms: Sequence[ArmView]) -> dict[str, Any]:
    """One route: what it matches and where it goes."""
    match = route.match
    matched: dict[str, Any] = {
        "host": match.host,
        "path": match.path,
        "path_prefix": match.path_prefix,
        "methods": match.methods,
        "headers": match.headers,
        "query": match.query,
    }
    shown: dict[str, Any] = {"name": route.name, "type": route.type}
    if route.listeners:
        shown["listeners"] = route.listeners
    if route.type == "tcp":
        if route.listen_addr:
            shown["listen_addr"] = route.listen_addr
        if route.sni:
            shown["sni"] = route.sni
    else:
        shown["match"] = {key: value for key, value in matched.items() if value}
    if arms:
        shown["split"] = split_object(arms)
        if route.sticky is not None:
            shown["sticky"] = route.sticky.by
    elif route.redirect is not None:
        shown["redirect"] = route.redirect.to
    elif route.fixed_response is not None:
        shown["fixed_response"] = route.fixed_response.status
    else:
        shown["pool"] = route.pool
    return shown


def route_object(route: schema.Route, arms: Sequence[ArmView], totals: Totals) -> dict[str, Any]:
    """One route: what it matches, where it goes, and what happened on it."""
    by_code = {
        code: int(n) for (name, code), n in totals.counter("gogate_route_requests_total").items() if name == route.name
    }
    return {
        **route_shape(route, arms),
        "requests": {"total": sum(by_code.values()), "by_code": by_code},
        "rate_limited": _of_route(totals, "gogate_rate_limit_rejected_total", route.name),
        "auth_failures": _of_route(totals, "gogate_auth_failures_total", route.name),
        "split_requests": _of_route(totals, "gogate_split_requests_total", route.name),
        "split_fallbacks": _of_route(totals, "gogate_split_fallbacks_total", route.name),
        "cache": _of_route(totals, "gogate_cache_requests_total", route.name),
        "retries_denied": sum(
            int(n) for (name,), n in totals.counter("gogate_retries_denied_total").items() if name == route.name
        ),
    }


def _of_route(totals: Totals, metric: str, route: str) -> dict[str, int]:
    """A counter of (route, word) by word, for one route."""
    return {word: int(n) for (name, word), n in totals.counter(metric).items() if name == route}


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
        "state": one.shown_state(now),
        "since": one.since,
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
            "refused_by_reason": _by_last(totals.counter("gogate_connections_refused_total")),
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
        "tcp_by_result": _by_last(totals.counter("gogate_tcp_connections_total")),
        "rate_limit": {
            "rejected": int(totals.counter_sum("gogate_rate_limit_rejected_total")),
            "by_limit": _nested(totals, "gogate_rate_limit_rejected_total"),
        },
        "retries": {
            "by_reason": _by_last(totals.counter("gogate_request_retries_total")),
            "denied_by_budget": int(totals.counter_sum("gogate_retries_denied_total")),
        },
        "auth_failures": _by_last(totals.counter("gogate_auth_failures_total")),
        "cache": _by_last(totals.counter("gogate_cache_requests_total")),
        "splits": _nested(totals, "gogate_split_requests_total"),
        "pools": _pools(totals, backends, live),
    }


def gauges(
    backends: Iterable[BackendView],
    live: Live,
    *,
    panics: Mapping[str, bool],
    services: int,
    preserved: Mapping[str, int],
    stale_names: Mapping[str, bool],
    certificates: Mapping[Labels, float],
    generation: int,
    in_sync: bool,
    serving: int,
    uptime: float,
) -> Gauges:
    """The gauges of the catalogue that only the control plane knows, for one scrape."""
    healthy: dict[Labels, float] = {}
    draining: dict[Labels, float] = {}
    active: dict[Labels, float] = {}
    breaker: dict[Labels, float] = {}
    ejected: dict[Labels, float] = {}
    weights: dict[Labels, float] = {}
    for view in backends:
        labels = (view.pool, view.addr)
        state = live(view.row)
        healthy[labels] = float(view.healthy)
        draining[labels] = float(view.draining)
        active[labels] = state.active
        breaker[labels] = STATE_NAMES.index(state.breaker)
        ejected[labels] = float(state.ejected)
        weights[labels] = view.weight
    return {
        "gogate_backend_healthy": healthy,
        "gogate_backend_draining": draining,
        "gogate_backend_connections_active": active,
        "gogate_circuit_breaker_state": breaker,
        "gogate_backend_ejected": ejected,
        "gogate_backend_weight": weights,
        "gogate_pool_panic": {(name,): float(panic) for name, panic in panics.items()},
        "gogate_registry_services": {(): services},
        "gogate_registry_preserving": {(name,): count for name, count in preserved.items()},
        "gogate_dns_stale": {(name,): float(stale) for name, stale in stale_names.items()},
        "gogate_tls_certificate_expiry_seconds": dict(certificates),
        "gogate_config_generation": {(): generation},
        "gogate_config_last_reload_success": {(): float(in_sync)},
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
        state = live(view.row)
        pools.setdefault(view.pool, {})[view.addr] = {
            "healthy": view.healthy,
            "draining": view.draining,
            "breaker": state.breaker,
            "ejected": state.ejected,
            "active_connections": state.active,
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
        "p95": ms(quantile(histogram, 0.95)),
        "p99": ms(quantile(histogram, 0.99)),
    }


def _by_first(table: Mapping[Labels, float]) -> dict[str, int]:
    """Summed by the first label."""
    summed: dict[str, int] = defaultdict(int)
    for labels, n in table.items():
        summed[labels[0]] += int(n)
    return dict(summed)


def _by_last(table: Mapping[Labels, float]) -> dict[str, int]:
    """Summed by the last label."""
    summed: dict[str, int] = defaultdict(int)
    for labels, n in table.items():
        summed[labels[-1]] += int(n)
    return dict(summed)


def _nested(totals: Totals, metric: str) -> dict[str, dict[str, int]]:
    """A counter with two labels as a mapping of mappings."""
    found: dict[str, dict[str, int]] = {}
    for (first, second), n in totals.counter(metric).items():
        found.setdefault(first, {})[second] = int(n)
    return found


def _whole(table: Mapping[Labels, float]) -> dict[Labels, int]:
    """Numbers of things, which travel as floats."""
    return {labels: int(n) for labels, n in table.items()}
