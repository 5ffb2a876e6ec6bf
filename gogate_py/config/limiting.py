"""Checks of rate limits, and of every other key that tells clients apart: a key must be able to yield a value.

    user              any authentication (not none)
    api_key           auth of type api_key
    basic:username    auth of type basic
    jwt:CLAIM         auth of type jwt
    route of type tcp global and ip only

Limits at server level, and keys of a pool's consistent_hash, need one route that has it.
"""

from __future__ import annotations

from collections.abc import Iterable

from gogate_py.config.authentication import auth_of
from gogate_py.config.problems import Findings, Path
from gogate_py.config.schema import Config, RateLimit, Route

#: A full bucket that takes longer to come back is a mistake; it also keeps the bucket's arithmetic within 64 bits.
MAX_REFILL = 366 * 86400.0

_WINDOWS = ("sliding_window", "fixed_window")


def check_limits(config: Config, findings: Findings) -> None:
    """Add every problem of rate limits and keys."""
    # The short form's catch-all has the server's authentication.
    everyone = {auth_of(route) for route in config.effective_routes() if route.type == "http"}
    for place, limit in _limits(config.server.rate_limit, ("server", "rateLimit"), findings):
        _check_limit(limit, place, findings)
        _check_keys(limit.key_by, (*place, "keyBy"), everyone, "no route has", findings)
    for number, route in enumerate(config.routes):
        path: Path = ("routes", number)
        limits = _limits(route.rate_limit, (*path, "rateLimit"), findings)
        for place, limit in limits:
            _check_limit(limit, place, findings)
            if route.type == "tcp":
                _check_tcp(limit, (*place, "keyBy"), findings)
            elif findings.was_read((*path, "auth")):
                _check_keys(limit.key_by, (*place, "keyBy"), {auth_of(route)}, "this route has no", findings)
        if route.sticky is not None and route.type == "http" and findings.was_read((*path, "auth")):
            key: Path = (*path, "sticky", "by") if findings.given((*path, "sticky", "by")) else (*path, "sticky")
            _check_keys((route.sticky.by,), key, {auth_of(route)}, "this route has no", findings)
    _check_pool_keys(config, findings)


def _limits(
    limits: tuple[RateLimit, ...], path: Path, findings: Findings
) -> Iterable[tuple[Path, RateLimit]]:
    """Each limit with the place where it is written: the key itself when it stands there without a list."""
    if not findings.was_read(path):
        return
    in_list = findings.given((*path, 0))
    names: dict[str, Path] = {}
    for number, limit in enumerate(limits):
        place: Path = (*path, number) if in_list else path
        if limit.name:
            first = names.setdefault(limit.name, place)
            if first != place:
                findings.add((*place, "name"), f"the name {limit.name} is taken by the limit in "
                                               f"{findings.line_of(first)}")
        yield place, limit


def _check_limit(limit: RateLimit, path: Path, findings: Findings) -> None:
    if not findings.is_sound(path):
        return
    if limit.algorithm in _WINDOWS:
        if limit.rate != int(limit.rate) or limit.rate < 1:
            findings.add(
                (*path, "rate"), f"{limit.algorithm} counts requests in `per`: a whole number is needed (a longer per "
                "allows less)")
    elif limit.algorithm == "token_bucket" and not limit.burst:
        findings.add((*path, "burst"), "the number is too small; a bucket without tokens lets nothing pass")
    elif limit.burst * limit.per / limit.rate > MAX_REFILL:
        findings.add((*path, "burst"), "an empty bucket would take more than a year to fill at this rate")


def _check_tcp(limit: RateLimit, path: Path, findings: Findings) -> None:
    for number, spec in enumerate(limit.key_by):
        if spec not in ("global", "ip"):
            findings.add(
                _item(path, number, findings), f"{spec} cannot be told of a TCP connection", ("global", "ip"))


def _check_keys(specs: tuple[str, ...], path: Path, auths: set[str], who: str, findings: Findings) -> None:
    """Whether each spec can yield a value with one of these types of authentication."""
    for number, spec in enumerate(specs):
        kind = spec.partition(":")[0]
        needed = {"user": ("jwt", "api_key", "basic"), "api_key": ("api_key",), "basic": ("basic",), "jwt": ("jwt",)}
        if kind in needed and not auths & set(needed[kind]):
            of_type = "" if kind == "user" else f" of type {needed[kind][0]}"
            findings.add(
                _item(path, number, findings),
                f"{spec} is known of authenticated requests only, and {who} auth{of_type}")


def _item(path: Path, number: int, findings: Findings) -> Path:
    return (*path, number) if findings.given((*path, number)) else path


def _check_pool_keys(config: Config, findings: Findings) -> None:
    used: dict[str, set[str]] = {}
    for route in config.effective_routes():
        if route.type == "http":
            for target in _pools_of(route):
                used.setdefault(target, set()).add(auth_of(route))
    server = config.server
    if server.load_balancer.type == "consistent_hash":
        # What no pool overrides is the default pool's; a default that nothing uses is looked at all the same.
        everyone = {auth for auths in used.values() for auth in auths}
        _check_keys((server.load_balancer.key,), ("server", "loadBalancer", "key"), everyone, "no route has", findings)
    for name, pool in config.pools.items():
        path: Path = ("pools", name, "loadBalancer")
        if findings.given(path) and pool.load_balancer.type == "consistent_hash":
            _check_keys(
                (pool.load_balancer.key,), (*path, "key"), used.get(name, set()), "no route to this pool has", findings)


def _pools_of(route: Route) -> tuple[str, ...]:
    return tuple(arm.pool for arm in route.split) or (route.pool,)
