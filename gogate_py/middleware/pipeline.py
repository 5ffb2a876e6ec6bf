"""Pipeline: a route's settings compiled into its stages, filters and changes, in the one fixed order (see chain.py).

The workers and ``gogate explain`` compile the same way; they differ only in the services that they give: what stands
behind a limit, where keys come from, who is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from gogate_py.middleware.auth_api_key import ApiKeyAuthStage
from gogate_py.middleware.auth_basic import BasicAuthStage, Passwords
from gogate_py.middleware.auth_jwt import JwtAuthStage
from gogate_py.middleware.chain import ResponseFilter, Stage
from gogate_py.middleware.cors import CorsFilter, CorsStage
from gogate_py.middleware.field_edits import ResponseEdits
from gogate_py.middleware.fixed_answers import FixedResponseStage, RedirectStage
from gogate_py.middleware.ip_rules import IpRules
from gogate_py.middleware.jwt_keys import KeySets
from gogate_py.middleware.rate_limit import Limiter, RateLimitStage, split_limits
from gogate_py.middleware.response_cache import ResponseCache
from gogate_py.middleware.transform import Transform, compile_transform
from gogate_py.policy.router import compile_captures
from gogate_py.snapshot import ApiKeyAuth, BasicAuth, ForwardAuth, HttpRoute, JwtAuth, RateLimit


class Services(Protocol):
    """What stages need of the process that they run in."""

    @property
    def key_sets(self) -> KeySets:
        """The keys of signed tokens."""
        ...

    @property
    def passwords(self) -> Passwords:
        """Compares passwords."""
        ...

    def limiter(self, limit: RateLimit, route: str) -> Limiter:
        """What counts for a limit; ``route`` is "" for one of the server."""
        ...

    def forward_auth(self, settings: ForwardAuth) -> Stage:
        """The stage that asks an external service."""
        ...


class Pipeline(NamedTuple):
    """What stands between a matched route and its backend, and between the backend's answer and the client."""

    stages: tuple[Stage, ...]
    filters: tuple[ResponseFilter, ...]
    cache: ResponseCache | None
    transform: Transform | None


def compile_pipeline(
    route: HttpRoute, server_limits: Sequence[RateLimit], services: Services, cache: ResponseCache | None
) -> Pipeline:
    """Compile one route. ``cache`` is given where the route has one; it learns what the route does to requests."""
    stages: list[Stage] = []
    filters: list[ResponseFilter] = []
    if route.allow or route.deny:
        stages.append(IpRules(route.allow, route.deny))
    if route.cors is not None:
        stages.append(CorsStage(route.cors))
    before, after = _limits(route, server_limits, services)
    stages += before
    auth = route.auth
    if isinstance(auth, JwtAuth):
        stages.append(JwtAuthStage(auth, services.key_sets))
    elif isinstance(auth, ApiKeyAuth):
        stages.append(ApiKeyAuthStage(auth))
    elif isinstance(auth, BasicAuth):
        stages.append(BasicAuthStage(auth, services.passwords))
    if route.forward_auth is not None:
        stages.append(services.forward_auth(route.forward_auth))
    stages += after
    if cache is not None:
        cache.serve(route)
        stages.append(cache)
    if route.redirect is not None:
        stages.append(RedirectStage(route.redirect, compile_captures(route.path, route.path_prefix)))
    elif route.fixed is not None:
        stages.append(FixedResponseStage(route.fixed))
    if route.response_fields is not None:
        filters.append(ResponseEdits(route.response_fields, compile_captures(route.path, route.path_prefix)))
    if route.cors is not None:  # last: nothing may undo what browsers must see
        filters.append(CorsFilter(route.cors))
    return Pipeline(tuple(stages), tuple(filters), cache, compile_transform(route))


def _limits(
    route: HttpRoute, server_limits: Sequence[RateLimit], services: Services
) -> tuple[list[Stage], list[Stage]]:
    """The stages of the limits that need no identity, and of those that do."""
    limits = [(limit, "") for limit in server_limits] if route.server_limits else []
    limits += [(limit, route.name) for limit in route.rate_limits]
    halves = split_limits([(limit, services.limiter(limit, owner)) for limit, owner in limits])
    before, after = (([RateLimitStage(half)] if half else []) for half in halves)
    return list(before), list(after)
