"""Advice about pools: backends, balancing, probes, breakers.

    GG010  no route uses the pool                            GG020  health.timeout > health.interval
    GG011  no backends, services can register                GG021  httpPath, expectStatus with checkType tcp
    GG012  the last arm is the canary, and the largest       GG030  20 … 100 consecutive failures, a round number
    GG013  weighted_round_robin, all weights equal           GG031  percentage; server.rateLimit lets fewer than
    GG014  round_robin, weights differ                              minRequests through in window
    GG015  all weights 0                                     GG032  other keys than enabled, and it is off
    GG016  slowStart with a balancer by hash
"""

from __future__ import annotations

from typing import Final

import attrs

from gogate_py.config.problems import Findings, Path
from gogate_py.config.schema import CircuitBreaker, Config, Health, Pool, RateLimit, Route
from gogate_py.config.settings import settings_of
from gogate_py.config.values import format_duration

_BY_HASH: Final = ("ip_hash", "consistent_hash")
#: Counts of consecutive failures that people mean as percentages: nobody waits for that many in a row.
_LIKE_PERCENTAGES: Final = frozenset((20, 25, 30, 33, 40, 50, 60, 66, 70, 75, 80, 90, 95, 99, 100))
_SERVER: Final[Path] = ("server",)


def advise_pools(config: Config, findings: Findings) -> None:
    """Add what is to be said of pools."""
    routes = config.effective_routes()
    used = {pool for route in routes for pool in (route.pool, *(arm.pool for arm in route.split))}
    for name, pool in config.effective_pools().items():
        path: Path = ("pools", name) if name in config.pools else _SERVER
        if name not in used:
            here = (*_SERVER, "backends") if path == _SERVER else path
            findings.advise(here, "GG010", f"no route uses the pool {name}", "name it in a route, or leave it out",
                            at="key")
        if not pool.backends:
            _advise_empty(config, name, pool, path, findings)
        _advise_weights(pool, path, findings)
        _advise_probes(pool, path, findings)
        _advise_breaker(config, pool.circuit_breaker, written(findings, path, "circuitBreaker"), findings)
    for number, route in enumerate(config.routes):
        _advise_canary(route, ("routes", number), findings)
    _advise_off(config, findings)


def written(findings: Findings, path: Path, *keys: str) -> Path:
    """Where the value of ``keys`` in a pool or route comes from: there, or from the server, whose default it is."""
    for start in (path, _SERVER):
        if findings.given((*start, *keys)):
            return (*start, *keys)
    return (*path, *keys)


def _advise_empty(config: Config, name: str, pool: Pool, path: Path, findings: Findings) -> None:
    who = "any service" if config.every_instance_joins_default else f"a service {pool.service}"
    tags = f" with the tags {', '.join(pool.tags)}" if pool.tags else ""
    what = f"the pool {name} has no backends: requests get 503 until {who}{tags} registers"
    # Without pools and backends there is nothing of it in the file.
    at = path if path != _SERVER else (*_SERVER, "backends")
    findings.advise(at, "GG011", what, "list backends, or start services with gogate register", at="key")


def _advise_weights(pool: Pool, path: Path, findings: Findings) -> None:
    weights = [backend.weight for backend in pool.backends if not backend.backup]
    balancer = pool.load_balancer.type
    at = written(findings, path, "loadBalancer")
    backends = (*path, "backends")
    if weights and not any(weights):
        findings.advise(
            backends, "GG015", "every weight is 0: requests get 503 until a weight is set at run time",
            "give a backend a weight of 1 or more", at="key")
    elif balancer == "weighted_round_robin" and len(weights) > 1 and len(set(weights)) == 1:
        findings.advise(
            at, "GG013", f"all weights of the pool {pool.name} are {weights[0]}: this is round_robin",
            "give backends the weights that they should have, or write round_robin")
    elif balancer == "round_robin" and len({weight for weight in weights if weight}) > 1:
        number = next(number for number, backend in enumerate(pool.backends) if backend.weight not in (0, 1))
        findings.advise(
            (*backends, number, "weight"), "GG014", "round_robin takes no notice of weights",
            "write loadBalancer: weighted_round_robin")
    if pool.slow_start and balancer in _BY_HASH:
        findings.advise(
            written(findings, path, "slowStart"), "GG016",
            f"{balancer} gives a key to its backend at once: no slowStart",
            "leave slowStart out, or take another balancer", at="key")


def _advise_probes(pool: Pool, path: Path, findings: Findings) -> None:
    health = pool.health
    if not health.enabled:
        return
    if health.timeout > health.interval:
        at = written(findings, path, "health", "timeout")
        if not findings.given(at):
            at = written(findings, path, "health", "interval")
        findings.advise(
            at, "GG020", f"a probe may take {format_duration(health.timeout)}, and the next is due after "
            f"{format_duration(health.interval)}: it waits, and a silent backend is found late",
            "make timeout shorter than interval")
    for key, value, default in (
        ("httpPath", health.http_path, Health().http_path),
        ("expectStatus", health.expect_status, Health().expect_status),
    ):
        at = written(findings, path, "health", key)
        if health.check_type == "tcp" and value != default:
            findings.advise(
                at, "GG021", "is for HTTP probes, and checkType is tcp: backends are only connected to",
                "write checkType: http", at="key")


def _advise_breaker(config: Config, breaker: CircuitBreaker, path: Path, findings: Findings) -> None:
    if not breaker.enabled:
        return
    threshold = breaker.failure_threshold
    at = written(findings, path[:-1], "circuitBreaker", "failureThreshold")
    if threshold.count in _LIKE_PERCENTAGES and findings.given(at):
        findings.advise(
            at, "GG030", f"{threshold.count} is a count: the breaker opens after {threshold.count} failures in a row",
            f'write "{threshold.count}%" if a percentage is meant')
    if threshold.count:
        return
    for limit in config.server.rate_limit:
        if limit.enabled and limit.key_by == ("global",) and _most(limit, breaker.window) < breaker.min_requests:
            at = written(findings, path[:-1], "circuitBreaker", "minRequests")
            if not findings.given(at):
                at = written(findings, path[:-1], "circuitBreaker", "failureThreshold")
            findings.advise(
                at, "GG031", f"server.rateLimit lets at most {_most(limit, breaker.window):.0f} requests through in "
                f"window ({format_duration(breaker.window)}): fewer than minRequests ({breaker.min_requests}), so that "
                "the breaker never opens", "make minRequests smaller, or window longer")


def _most(limit: RateLimit, window: float) -> float:
    """The most requests that a limit lets through in ``window`` seconds."""
    burst = limit.burst if limit.algorithm in ("token_bucket", "leaky_bucket") else limit.rate
    return limit.rate / limit.per * window + burst


def _advise_canary(route: Route, path: Path, findings: Findings) -> None:
    arms = route.split
    if not route.canary_header or len(arms) < 2 or any(arm.canary for arm in arms):
        return
    last = arms[-1]
    if last.weight > max(arm.weight for arm in arms[:-1]):
        findings.advise(
            (*path, "split", len(arms) - 1), "GG012", f"{route.canary_header}: always leads to {last.pool}: without a "
            "canary the last arm is it, and it has the largest weight", "mark an arm with canary: true")


def _advise_off(config: Config, findings: Findings) -> None:
    """Settings of what is off because nobody wrote ``enabled: true``."""
    pools = config.effective_pools().values()
    for key, attribute in (
        ("circuitBreaker", "circuit_breaker"), ("outlier", "outlier"), ("tcpPool", "tcp_pool"),
    ):
        # A default that some pool switches on is not idle.
        if not any(getattr(pool, attribute).enabled for pool in pools):
            _advise_idle(getattr(config.server, attribute), (*_SERVER, key), findings)
        for name, pool in config.pools.items():
            _advise_idle(getattr(pool, attribute), ("pools", name, key), findings)
    if not any(route.cache is not None and route.cache.enabled for route in config.routes):
        _advise_idle(config.server.cache, (*_SERVER, "cache"), findings)
    for number, route in enumerate(config.routes):
        _advise_idle(route.cache, ("routes", number, "cache"), findings)
    if len(config.server.rate_limit) == 1 and not findings.given((*_SERVER, "rateLimit", 0)):
        _advise_idle(config.server.rate_limit[0], (*_SERVER, "rateLimit"), findings)


def _advise_idle(group: attrs.AttrsInstance | None, path: Path, findings: Findings) -> None:
    if group is None or getattr(group, "enabled", True) or findings.given((*path, "enabled")):
        return
    given = [named.key for named in settings_of(type(group)) if findings.given((*path, named.key))]
    if given and findings.given(path):
        findings.advise(
            path, "GG032", f"is off: {', '.join(given)} {'has' if len(given) == 1 else 'have'} no effect",
            "add enabled: true, or enabled: false if that is meant", at="key")


