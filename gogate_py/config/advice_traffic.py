"""Advice about requests: retries, timeouts, limits.

    GG033  retry.methods names others than idempotent ones
    GG034  timeouts.request < attempts * perTryTimeout         the last tries never get their time
    GG035  perTryTimeout, and on does not name timeout         what took too long is not tried again
    GG036  timeouts.responseHeader > timeouts.request
    GG037  shutdown.gracePeriod < timeouts.request
    GG040  keyBy header:, query:, cookie: or form: where anybody may ask, and no other limit bounds them together
    GG041  burst with a window
    GG042  keyBy goes on behind global, ip or path, which every request has
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gogate_py.config.advice_pools import written
from gogate_py.config.authentication import auth_of
from gogate_py.config.problems import Findings, Path
from gogate_py.config.schema import Config, RateLimit, Retry, Route, Timeouts
from gogate_py.config.values import format_duration
from gogate_py.policy.retry import IDEMPOTENT

_CHOSEN_BY_CLIENTS: Final = ("header", "query", "cookie", "form")
_ALWAYS_THERE: Final = ("global", "ip", "path")
_WINDOWS: Final = ("sliding_window", "fixed_window")


def advise_traffic(config: Config, findings: Findings) -> None:
    """Add what is to be said of requests."""
    server = config.server
    for path, route in http_routes(config):
        if route.redirect is None and route.fixed_response is None:
            _advise_retry(route.retry, route.timeouts, path, findings)
        longest, grace = route.timeouts.request, server.shutdown.grace_period
        if longest > grace:
            findings.advise(
                written(findings, path, "timeouts", "request"), "GG037", f"requests may take "
                f"{format_duration(longest)}, and a shutdown cuts them after {format_duration(grace)}",
                "make server.shutdown.gracePeriod as long")
    open_to_all = any(anybody_may_ask(route) for _, route in http_routes(config))
    _advise_limits(server.rate_limit, ("server", "rateLimit"), open_to_all, False, findings)
    together = _bounds_all(server.rate_limit)
    for number, route in enumerate(config.routes):
        bounded = together and not route.exempt
        open_here = route.type == "http" and anybody_may_ask(route)
        _advise_limits(route.rate_limit, ("routes", number, "rateLimit"), open_here, bounded, findings)


def http_routes(config: Config) -> Iterator[tuple[Path, Route]]:
    """Every HTTP route with its place; the short form's is at the server."""
    for number, route in enumerate(config.effective_routes()):
        if route.type == "http":
            yield ("routes", number) if number < len(config.routes) else ("server",), route


def anybody_may_ask(route: Route) -> bool:
    """Whether a route answers requests without credentials."""
    return auth_of(route) == "none" and route.forward_auth is None


def _advise_retry(retry: Retry, timeouts: Timeouts, path: Path, findings: Findings) -> None:
    if retry.attempts == 1:
        return
    unsafe = [method for method in retry.methods if method != "idempotent" and method.encode() not in IDEMPOTENT]
    if unsafe:
        findings.advise(
            written(findings, path, "retry", "methods"), "GG033", f"{', '.join(unsafe)} with an Idempotency-Key may "
            "reach two backends: what the first has done may be done again",
            "name it only if the backends keep to Idempotency-Key")
    if not retry.per_try_timeout:
        return
    at = written(findings, path, "retry", "perTryTimeout")
    if 0 < timeouts.request < retry.attempts * retry.per_try_timeout:
        findings.advise(
            at, "GG034", f"{retry.attempts} tries of {format_duration(retry.per_try_timeout)} take longer than "
            f"timeouts.request ({format_duration(timeouts.request)})",
            "make perTryTimeout or attempts smaller, or timeouts.request longer")
    if "timeout" not in retry.on:
        findings.advise(
            at, "GG035", "a try that takes longer is given up, and not tried again: retry.on does not name timeout",
            "add timeout to retry.on")
    header = written(findings, path, "timeouts", "responseHeader")
    if findings.given(header) and 0 < timeouts.request < timeouts.response_header:
        findings.advise(header, "GG036", f"is never reached: timeouts.request is {format_duration(timeouts.request)}",
                        "make it shorter than timeouts.request, or leave it out")


def _advise_limits(
    limits: tuple[RateLimit, ...], path: Path, open_to_all: bool, bounded: bool, findings: Findings
) -> None:
    """``bounded``: another limit holds for all of these clients together."""
    in_list = findings.given((*path, 0))
    bounded = bounded or _bounds_all(limits)
    for number, limit in enumerate(limits):
        place: Path = (*path, number) if in_list else path
        if not limit.enabled:
            continue
        chosen = [spec for spec in limit.key_by if spec.partition(":")[0] in _CHOSEN_BY_CLIENTS]
        if chosen and open_to_all and not bounded:
            findings.advise(
                (*place, "keyBy"), "GG040", f"{chosen[0]} is what clients say: with another value in every request "
                "nobody is ever limited", "add a limit by ip beside it, or an authentication, and its user as the key")
        if limit.algorithm in _WINDOWS and findings.given((*place, "burst")):
            findings.advise((*place, "burst"), "GG041", f"has no effect: {limit.algorithm} allows `rate` in `per`",
                            "leave it out", at="key")
        for position, spec in enumerate(limit.key_by[:-1]):
            if spec in _ALWAYS_THERE:
                findings.advise(
                    (*place, "keyBy"), "GG042", f"{limit.key_by[position + 1]} is never used: every request has "
                    f"{spec}, and the first that yields a value is the key", f"put {spec} last, or make two limits")
                break


def _bounds_all(limits: tuple[RateLimit, ...]) -> bool:
    """Whether one of these limits holds whatever a client says."""
    return any(limit.enabled and limit.key_by[:1] in (("ip",), ("global",)) for limit in limits)
