"""Route compiler: the configuration's routes as the data plane is told them. Pure; a part of the compiler."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from gogate_py.config import schema
from gogate_py.config.listeners import listener_id
from gogate_py.controlplane.overrides import Override
from gogate_py.snapshot import (
    ApiKeyAuth,
    Arm,
    BasicAuth,
    Cache,
    Cors,
    FieldEdits,
    FixedResponse,
    ForwardAuth,
    HttpRoute,
    JwtAuth,
    RateLimit,
    Redirect,
    Retry,
    Sticky,
    Timeouts,
    ValueMatch,
)

#: Limit's identity → its row in the arena.
LimitRows = Callable[[str], int]


def http_route(
    route: schema.Route,
    limit_rows: LimitRows,
    split: Mapping[str, Override],
    secret: bytes,
    default_auth: schema.Auth | None,
) -> HttpRoute:
    """One route of type http. ``split``: overridden weights of its arms; ``secret``: what sticky cookies are signed
    with, unless the route names one."""
    match = route.match
    auth = route.auth if route.auth is not None else default_auth
    return HttpRoute(
        name=route.name,
        pool=route.pool,
        host=match.host,
        path=match.path,
        path_prefix=match.path_prefix,
        methods=match.methods,
        timeouts=timeouts(route.timeouts),
        websocket=route.websocket,
        headers=_conditions(match.headers, lower=True),
        query=_conditions(match.query, lower=False),
        arms=tuple(
            Arm(arm.pool, split[arm.pool].value if arm.pool in split else arm.weight, arm.canary)
            for arm in route.split
        ),
        sticky=Sticky(
            route.sticky.by, route.sticky.cookie, route.sticky.max_age, route.sticky.secret.encode() or secret
        )
        if route.sticky is not None
        else None,
        canary_header=route.canary_header,
        arm_fallback=route.split_fallback == "other",
        allow=route.allow_cidrs,
        deny=route.deny_cidrs,
        rate_limits=rate_limits(route.rate_limit, f"route/{route.name}", limit_rows),
        server_limits=not route.exempt,
        auth=_auth(auth),
        forward_auth=ForwardAuth(
            route.forward_auth.url,
            route.forward_auth.timeout,
            route.forward_auth.request_headers,
            route.forward_auth.response_headers,
        )
        if route.forward_auth is not None
        else None,
        cors=_cors(route.cors),
        cache=Cache(route.cache.ttl, route.cache.max_entries, route.cache.max_bytes)
        if route.cache is not None and route.cache.enabled
        else None,
        strip_prefix=route.strip_prefix,
        rewrite_path=route.rewrite.path if route.rewrite is not None else "",
        request_fields=_edits(route.request_headers),
        response_fields=_edits(route.response_headers),
        redirect=Redirect(route.redirect.to, route.redirect.status) if route.redirect is not None else None,
        fixed=FixedResponse(
            route.fixed_response.status, route.fixed_response.body.encode(), route.fixed_response.content_type
        )
        if route.fixed_response is not None
        else None,
        retry=_retry(route.retry),
        max_body=route.limits.request_body,
        listeners=tuple(listener_id(name) for name in route.listeners),
    )


def timeouts(given: schema.Timeouts) -> Timeouts:
    """Times of requests."""
    return Timeouts(
        given.request,
        given.response_header,
        given.body_idle,
        given.idle,
        given.request_header,
        given.tunnel_idle,
        given.min_body_rate,
    )


def rate_limits(given: Sequence[schema.RateLimit], scope: str, limit_rows: LimitRows) -> tuple[RateLimit, ...]:
    """The limits of the server or of one route. The row goes with scope, name, algorithm and key: a limit that is
    changed otherwise (rate, burst) goes on with what it counted."""
    found = []
    names: set[str] = set()
    for number, limit in enumerate(given, 1):
        if not limit.enabled:
            continue
        name = limit.name or (limit.algorithm if len(given) == 1 else f"{limit.algorithm}-{number}")
        while name in names:
            name += "-2"
        names.add(name)
        row = limit_rows(f"{scope}/{name}/{limit.algorithm}/{','.join(limit.key_by)}")
        found.append(RateLimit(row, limit.rate, limit.per, limit.burst, limit.algorithm, limit.key_by, name))
    return tuple(found)


def identity_fields(routes: Sequence[HttpRoute]) -> tuple[str, ...]:
    """Every field that an authentication may set: no client may, on any route (SECURITY.md T8)."""
    names: set[str] = set()
    for route in routes:
        auth = route.auth
        if isinstance(auth, JwtAuth):
            names.update(field for _, field in auth.forward_claims)
        elif isinstance(auth, ApiKeyAuth) and auth.forward_name:
            names.add(auth.forward_name)
        elif isinstance(auth, BasicAuth) and auth.forward_user:
            names.add(auth.forward_user)
        if route.forward_auth is not None:
            names.update(route.forward_auth.response_headers)
    return tuple(sorted(name.lower() for name in names))


def _conditions(given: Mapping[str, str], *, lower: bool) -> tuple[ValueMatch, ...]:
    found = []
    for name, value in given.items():
        key = name.lower() if lower else name
        if not value:
            found.append(ValueMatch(key, "present"))
        elif value.startswith("~"):
            found.append(ValueMatch(key, "regex", value[1:]))
        else:
            found.append(ValueMatch(key, "exact", value))
    return tuple(found)


def _auth(auth: schema.Auth | None) -> JwtAuth | ApiKeyAuth | BasicAuth | None:
    if auth is None or auth.type == "none":
        return None
    if auth.type == "jwt":
        return JwtAuth(
            algorithms=auth.algorithms,
            issuers=auth.issuers,
            audiences=auth.audiences,
            secret=auth.secret.encode(),
            public_key=auth.public_key,
            jwks_url=auth.jwks_url,
            leeway=auth.leeway,
            forward_claims=tuple(auth.forward_claims.items()),
            require_claims=tuple(auth.require_claims.items()),
            realm=auth.realm,
        )
    if auth.type == "api_key":
        return ApiKeyAuth(auth.api_keys, auth.header, auth.query, auth.forward_name, auth.realm)
    return BasicAuth(auth.basic_users, auth.forward_user, auth.realm)


def _cors(cors: schema.Cors | None) -> Cors | None:
    if cors is None:
        return None
    return Cors(
        cors.allow_origins,
        cors.allow_methods,
        cors.allow_headers,
        cors.expose_headers,
        cors.allow_credentials,
        cors.max_age,
    )


def _edits(edits: schema.FieldEdits | None) -> FieldEdits | None:
    if edits is None or not (edits.remove or edits.set or edits.add):
        return None
    return FieldEdits(edits.remove, tuple(edits.set.items()), tuple(edits.add.items()))


def _retry(retry: schema.Retry) -> Retry:
    return Retry(
        attempts=retry.attempts,
        per_try_timeout=retry.per_try_timeout,
        body_buffer=retry.body_buffer,
        connect="connect" in retry.on,
        reset="reset" in retry.on,
        timeout="timeout" in retry.on,
        statuses=tuple(int(word) for word in retry.on if re.fullmatch("[0-9]{3}", word)),
        backoff=retry.backoff,
        max_backoff=retry.max_backoff,
        budget_percent=retry.budget_percent,
        methods=retry.methods,
    )
