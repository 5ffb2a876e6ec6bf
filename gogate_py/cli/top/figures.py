"""Figures: what happened at a gateway between two looks at it. Pure, but for :func:`look`.

The admin API has counters since the start; rates are their differences by the time in between, and percentiles those of
the differences of the histograms' buckets. A counter that is smaller than before began anew (another gateway, or a
series that was forgotten): what it has now is what happened. Without time in between there are no rates: None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from gogate_py.cli.lease import AdminClient
from gogate_py.clock import monotonic
from gogate_py.telemetry.totals import bucket_quantile

Rate = float | None
Percentiles = tuple[float | None, float | None, float | None]

#: The name of what no route matched.
NO_ROUTE: Final = "(no route)"
_FINE: Final = "ok"


@frozen
class Look:
    """What the admin API said at monotonic second ``at``."""

    at: float
    stats: dict[str, Any]
    backends: list[dict[str, Any]]


@frozen
class Totals:
    """The gateway as a whole. Rates are per second."""

    requests: Rate
    by_status: dict[str, Rate]
    in_flight: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    connections: int
    accepted: Rate
    refused: Rate
    tcp_ended: Rate


@frozen
class Route:
    """One route. ``tcp``: L4 connections that ended."""

    name: str
    requests: Rate
    client_errors: Rate
    server_errors: Rate
    tcp: Rate
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    requests_total: int


@frozen
class Backend:
    """One backend of one pool. ``state`` is the first that holds of: down, ejected, breaker open, draining, drained,
    breaker half-open, warming up, up."""

    pool: str
    id: str
    addr: str
    state: str
    last_error: str
    healthy: bool
    draining: bool
    ejected: bool
    breaker: str
    weight: int
    active: int
    requests: Rate
    failures: Rate
    tcp: Rate
    bytes_sent: Rate
    bytes_received: Rate


@frozen
class Failing:
    """One reason why something did not go as it should. ``kind``: where it is counted."""

    kind: str
    reason: str
    per_second: Rate
    total: int


@frozen
class Listener:
    """One listener for clients."""

    name: str
    active: int
    accepted: Rate
    refused: Rate
    total: int


@frozen
class Figures:
    """All of it. ``seconds``: the time in between."""

    seconds: float
    gateway: dict[str, Any]
    totals: Totals
    routes: list[Route]
    backends: list[Backend]
    errors: list[Failing]
    listeners: list[Listener]


def look(client: AdminClient) -> Look:
    """Ask a gateway. Raises what the client raises."""
    stats = client.call("GET", "/stats?by=route")
    at = monotonic()
    return Look(at, stats, client.call("GET", "/backends")["backends"])


def compare(before: Look, now: Look) -> Figures:
    """What happened between two looks."""
    seconds = now.at - before.at
    routes, percentiles = _routes(before.stats, now.stats, seconds)
    return Figures(
        round(seconds, 3),
        {key: now.stats[key] for key in _OF_THE_GATEWAY},
        _totals(before.stats, now.stats, seconds, percentiles),
        routes,
        _backends(before.stats, now, seconds),
        _errors(before.stats, now.stats, seconds),
        _listeners(before.stats, now.stats, seconds),
    )


_OF_THE_GATEWAY: Final = (
    "version", "pid", "uptime_s", "generation", "ready", "draining", "reasons", "warnings", "workers", "registry"
)  # fmt: skip


def _grown(before: float, now: float) -> float:
    return now - before if now >= before else now


def _rate(before: float, now: float, seconds: float) -> Rate:
    return round(_grown(before, now) / seconds, 3) if seconds > 0 else None


def _totals(before: dict[str, Any], now: dict[str, Any], seconds: float, percentiles: Percentiles) -> Totals:
    old, new = before["requests"], now["requests"]
    were, are = before["connections"], now["connections"]
    return Totals(
        _rate(old["total"], new["total"], seconds),
        {name: _rate(old["by_status"][name], n, seconds) for name, n in new["by_status"].items()},
        new["in_flight"],
        *percentiles,
        are["active"],
        _rate(were["total"], are["total"], seconds),
        _rate(were["refused"], are["refused"], seconds),
        _rate(sum(before["tcp_by_result"].values()), sum(now["tcp_by_result"].values()), seconds),
    )


def _routes(
    before: dict[str, Any], now: dict[str, Any], seconds: float
) -> tuple[list[Route], Percentiles]:
    """Every route, and the percentiles of all requests: every one ends on a route."""
    bounds = now["bucket_bounds_ms"]
    all_buckets = [0.0] * (len(bounds) + 1)
    found = []
    for name, one in now["routes"].items():
        old = before["routes"].get(name, _NO_COUNTS)
        buckets = _grown_buckets(old["buckets"], one["buckets"])
        if buckets:
            all_buckets = [a + b for a, b in zip(all_buckets, buckets, strict=True)]
        found.append(Route(
            name or NO_ROUTE,
            _rate(_coded(old, ""), _coded(one, ""), seconds),
            _rate(_coded(old, "4"), _coded(one, "4"), seconds),
            _rate(_coded(old, "5"), _coded(one, "5"), seconds),
            _rate(sum(old["tcp"].values()), sum(one["tcp"].values()), seconds),
            *_percentiles(buckets, bounds),
            _coded(one, ""),
        ))  # fmt: skip
    return found, _percentiles(all_buckets, bounds)


_NO_COUNTS: Final[Mapping[str, Any]] = {"by_code": {}, "tcp": {}, "buckets": []}


def _coded(route: Mapping[str, Any], digit: str) -> int:
    """Requests that were answered with a status that begins with this digit."""
    return sum(n for code, n in route["by_code"].items() if code.startswith(digit))


def _grown_buckets(before: Sequence[float], now: Sequence[float]) -> list[float]:
    if len(before) != len(now) or sum(before) > sum(now):
        return list(now)
    return [max(0.0, new - old) for old, new in zip(before, now, strict=True)]


def _percentiles(buckets: Sequence[float], bounds: Sequence[float]) -> Percentiles:
    if not buckets:
        return None, None, None
    p50, p95, p99 = (bucket_quantile(buckets, bounds, q) for q in (0.5, 0.95, 0.99))
    return _rounded(p50), _rounded(p95), _rounded(p99)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _backends(before: dict[str, Any], now: Look, seconds: float) -> list[Backend]:
    found = []
    for one in now.backends:
        old = _counts_of(before, one)
        new = _counts_of(now.stats, one)

        def rate(*path: str, old: Mapping[str, Any] = old, new: Mapping[str, Any] = new) -> Rate:
            return _rate(_at(old, path), _at(new, path), seconds)

        failures = rate("requests", "failure")
        successes = rate("requests", "success")
        found.append(Backend(
            one["pool"], one["id"], one["addr"], _state(one), one["last_error"], one["healthy"], one["draining"],
            one["ejected"], one["breaker"], one["weight"], one["active_connections"],
            None if failures is None or successes is None else round(successes + failures, 3), failures,
            rate("tcp_connections"), rate("bytes_sent"), rate("bytes_received"),
        ))  # fmt: skip
    return found


def _counts_of(stats: Mapping[str, Any], backend: Mapping[str, Any]) -> Mapping[str, Any]:
    """Its counters; nothing for one that came between the two questions."""
    counts: Mapping[str, Any] = stats["pools"].get(backend["pool"], {}).get("by_backend", {}).get(backend["addr"], {})
    return counts


def _at(counts: Mapping[str, Any], path: Sequence[str]) -> int:
    value: Any = counts
    for key in path:
        value = value.get(key, {})
    return value or 0


def _state(one: Mapping[str, Any]) -> str:
    if not one["healthy"]:
        return "down"
    if one["ejected"]:
        return "ejected"
    if one["breaker"] == "open":
        return "breaker open"
    if one["draining"]:
        return "draining" if one["active_connections"] else "drained"
    if one["breaker"] != "closed":
        return "breaker half-open"
    return "warming up" if one["warming_up"] else "up"


def _errors(before: dict[str, Any], now: dict[str, Any], seconds: float) -> list[Failing]:
    found = []
    for kind, table in _reasons(now):
        old = dict(_reasons(before))[kind]
        found += [Failing(kind, reason, _rate(old.get(reason, 0), n, seconds), n) for reason, n in table.items() if n]
    return found


def _reasons(stats: dict[str, Any]) -> list[tuple[str, dict[str, int]]]:
    """Every table of reasons that the admin API has, by what it is about."""
    limits = stats["rate_limit"]["by_limit"].items()
    failed = {
        f"pool {name}": sum(one["requests"]["failure"] for one in pool["by_backend"].values())
        for name, pool in stats["pools"].items()
    }
    return [
        ("answered by gogate", stats["requests"]["local"]),
        ("failed at a backend", failed),
        ("connection refused", stats["connections"]["refused_by_reason"]),
        ("TCP ended", {result: n for result, n in stats["tcp_by_result"].items() if result != _FINE}),
        ("authentication", stats["auth_failures"]),
        ("rate limit", {f"{route or 'server'}: {name}": n for route, by in limits for name, n in by.items()}),
        ("tried again", stats["retries"]["by_reason"]),
        ("not tried again", {"retry budget": stats["retries"]["denied_by_budget"]}),
    ]


def _listeners(before: dict[str, Any], now: dict[str, Any], seconds: float) -> list[Listener]:
    were = before["connections"]["listeners"]
    found = []
    for name, one in now["connections"]["listeners"].items():
        old = were.get(name, {"total": 0, "refused": 0})
        found.append(Listener(
            name, one["active"], _rate(old["total"], one["total"], seconds),
            _rate(old["refused"], one["refused"], seconds), one["total"],
        ))  # fmt: skip
    return found
