"""Checks of what a route does with requests: where they go (exactly one of pool, split, redirect, fixedResponse), how
path and fields are changed, how they are tried again.

What is a right template, field name or answer is decided by the middleware that will use it.
"""

from __future__ import annotations

from typing import Final

from gogate_py.config.problems import Findings, Path
from gogate_py.config.schema import DEFAULT_POOL, Config, FieldEdits, Retry, Route, Timeouts
from gogate_py.config.traffic_values import WHOLE_PREFIX
from gogate_py.config.values import closest, format_duration
from gogate_py.middleware.field_edits import valid_value
from gogate_py.middleware.fixed_answers import valid_fixed, valid_redirect
from gogate_py.middleware.rewriting import editable_name, path_names, valid_rewrite, value_names
from gogate_py.policy.router import is_parameter

_TARGETS: Final = ("pool", "split", "redirect", "fixedResponse")
_ONLY_SPLIT: Final = ("sticky", "canaryHeader", "splitFallback")
#: What only makes sense where a backend answers.
_ONLY_BACKEND: Final = ("stripPrefix", "rewrite", "requestHeaders", "cache", "retry", "websocket")
#: 256 bits, as for any other HMAC here.
MIN_STICKY_SECRET: Final = 32


def check_handling(config: Config, findings: Findings) -> None:
    """Add every problem of what routes do, and of the defaults that the server has for them."""
    server = config.server
    pools = tuple(config.effective_pools())
    # A default holds for routes of any path: no parameter is there everywhere.
    names = value_names("/")
    _check_edits(server.request_headers, ("server", "requestHeaders"), False, names, findings)
    _check_edits(server.response_headers, ("server", "responseHeaders"), True, names, findings)
    _check_retry(server.retry, server.timeouts, ("server",), findings)
    for number, route in enumerate(config.routes):
        path: Path = ("routes", number)
        _check_target(route, path, findings)
        _check_pool(pools, route.pool, (*path, "pool"), findings)
        if route.type != "http":
            continue
        _check_split(pools, route, path, findings)
        _check_answer(route, path, findings)
        _check_path_changes(route, path, findings)
        names = value_names(route.match.path)
        if findings.given((*path, "requestHeaders")):
            _check_edits(route.request_headers, (*path, "requestHeaders"), False, names, findings)
        if findings.given((*path, "responseHeaders")):
            _check_edits(route.response_headers, (*path, "responseHeaders"), True, names, findings)
        if findings.given((*path, "retry")) or findings.given((*path, "timeouts")):
            _check_retry(route.retry, route.timeouts, path, findings)


def _check_target(route: Route, path: Path, findings: Findings) -> None:
    possible = _TARGETS if route.type == "http" else _TARGETS[:1]
    given = [key for key in possible if findings.given((*path, key))]
    if len(given) > 1:
        findings.add(
            (*path, given[1]), f"a route has exactly one of {', '.join(_TARGETS)}; {given[0]} is in "
            f"{findings.line_of((*path, given[0]))}", at="key")
    elif (not given or (given == ["pool"] and not route.pool)) and findings.is_sound(path):
        findings.spoil((*path, "pool"))
        alternatives = " (or split, redirect, fixedResponse)" if route.type == "http" else ""
        findings.add(path, f"pool is required{alternatives}")
    if route.type != "http" or len(given) != 1:
        return
    for key in _ONLY_SPLIT if given != ["split"] else ():
        if findings.given((*path, key)):
            findings.add((*path, key), "does not apply to a route without split", at="key")
    for key in _ONLY_BACKEND if given[0] in ("redirect", "fixedResponse") else ():
        if findings.given((*path, key)):
            findings.add((*path, key), f"does not apply to a route with {given[0]}: no backend is asked", at="key")


def _check_pool(known: tuple[str, ...], pool: str, path: Path, findings: Findings) -> None:
    if pool and pool not in known and findings.was_read(("pools",)) and findings.was_read(path):
        if pool == DEFAULT_POOL:
            findings.add(path, "the pool default exists only with server.backends, or without pools", known)
        else:
            findings.add(path, f"there is no pool {pool}", known, closest(pool, known))


def _check_split(known: tuple[str, ...], route: Route, path: Path, findings: Findings) -> None:
    place: Path = (*path, "split")
    if not findings.given(place) or not findings.was_read(place):
        return
    seen: dict[str, Path] = {}
    canary: Path = ()
    for number, arm in enumerate(route.split):
        pool_place: Path = (*place, number, "pool")
        _check_pool(known, arm.pool, pool_place, findings)
        first = seen.setdefault(arm.pool, pool_place)
        if arm.pool and first != pool_place:
            findings.add(pool_place, f"{arm.pool} is in this split already ({findings.line_of(first)}); use weight")
        if arm.canary and canary:
            findings.add((*place, number, "canary"), f"one arm is the canary; it is in {findings.line_of(canary)}")
        elif arm.canary:
            canary = (*place, number, "canary")
    if not route.split:
        findings.add(place, "is empty: requests would have nowhere to go", at="key")
    elif not any(arm.weight for arm in route.split) and findings.is_sound(place):
        findings.add(place, "every weight is 0: requests would have nowhere to go", at="key")
    sticky = route.sticky
    if sticky is None:
        return
    for key in ("cookie", "maxAge", "secret"):
        if sticky.by and sticky.by != "cookie" and findings.given((*path, "sticky", key)):
            findings.add((*path, "sticky", key), f"is of sticky by cookie; this one is by {sticky.by}", at="key")
    if findings.given((*path, "sticky", "secret")) and len(sticky.secret) < MIN_STICKY_SECRET:
        findings.add(
            (*path, "sticky", "secret"), f"is shorter than {MIN_STICKY_SECRET} characters: it could be guessed, and "
            "cookies written by others")


def _check_answer(route: Route, path: Path, findings: Findings) -> None:
    redirect, fixed = route.redirect, route.fixed_response
    if redirect is not None and redirect.to and findings.is_sound((*path, "redirect")):
        wrong = valid_redirect(redirect.to, value_names(route.match.path))
        if wrong:
            key: Path = (*path, "redirect", "to")
            findings.add(key if findings.given(key) else (*path, "redirect"), wrong)
    if fixed is not None and findings.is_sound((*path, "fixedResponse")):
        wrong = valid_fixed(fixed.status, fixed.body.encode(), fixed.content_type)
        if wrong:
            about = "contentType" if wrong.startswith("contentType") else "body" if "body" in wrong else "status"
            findings.add((*path, "fixedResponse", about), wrong.removeprefix("contentType "))


def _check_path_changes(route: Route, path: Path, findings: Findings) -> None:
    match, strip = route.match, route.strip_prefix
    if not findings.is_sound((*path, "match")):
        return
    if strip == WHOLE_PREFIX:
        findings.add((*path, "stripPrefix"), "needs match.pathPrefix, or the prefix itself in place of true")
    elif strip and findings.was_read((*path, "stripPrefix")) and not _begins(match.path or match.path_prefix, strip):
        what = f"what this route matches ({match.path or match.path_prefix or 'every path'})"
        findings.add((*path, "stripPrefix"), f"{strip} is not a beginning of {what}")
    if route.rewrite is not None and route.rewrite.path and findings.was_read((*path, "rewrite")):
        wrong = valid_rewrite(route.rewrite.path, path_names(match.path))
        if wrong:
            key: Path = (*path, "rewrite", "path")
            findings.add(key if findings.given(key) else (*path, "rewrite"), wrong)


def _begins(pattern: str, prefix: str) -> bool:
    """Whether every path that matches a route's path or prefix begins with ``prefix``, by whole segments."""
    wanted = prefix.split("/")
    found = pattern.split("/")[: len(wanted)]
    return found == wanted and not any(is_parameter(segment) or segment == "*" for segment in found)


def _check_edits(
    edits: FieldEdits | None, path: Path, response: bool, names: tuple[str, ...], findings: Findings
) -> None:
    if edits is None or not findings.given(path):
        return
    for key, values in (("set", edits.set), ("add", edits.add)):
        for name, value in values.items():
            place: Path = (*path, key, name)
            if not findings.given(place) or not findings.was_read(place):
                continue
            wrong = editable_name(name, response, key)
            if wrong:
                findings.add(place, wrong, at="key")
            elif wrong := valid_value(name, value, names):
                findings.add(place, wrong)
    for number, name in enumerate(edits.remove):
        wrong = editable_name(name, response, "remove")
        if wrong and findings.given((*path, "remove", number)):
            findings.add((*path, "remove", number), wrong)


def _check_retry(retry: Retry, timeouts: Timeouts, path: Path, findings: Findings) -> None:
    place: Path = (*path, "retry")
    if not findings.is_sound(place) or not findings.is_sound((*path, "timeouts")):
        return
    if 0 < timeouts.request < retry.per_try_timeout:
        at: Path = (*place, "perTryTimeout") if findings.given((*place, "perTryTimeout")) else (
            *path, "timeouts", "request")
        findings.add(
            at, f"timeouts.request ({format_duration(timeouts.request)}) is over before retry.perTryTimeout "
            f"({format_duration(retry.per_try_timeout)})")
    first, most = retry.backoff, retry.max_backoff
    if first > most and (findings.given((*place, "maxBackoff")) or findings.given((*place, "backoff"))):
        at = (*place, "maxBackoff") if findings.given((*place, "maxBackoff")) else (*place, "backoff")
        findings.add(at, f"backoff ({format_duration(first)}) is longer than maxBackoff ({format_duration(most)})")
    if not retry.methods and findings.given((*place, "methods")):
        findings.add((*place, "methods"), "is empty: write idempotent, or attempts: 1 for no retries")
