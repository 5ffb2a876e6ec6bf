"""What happens to a request, in the configuration: times, limits, retries, splits, rewriting, answers of gogate's own.

A part of schema.py.
"""

# ruff: noqa: RUF009  setting() returns an attrs field, which is how attrs takes defaults

from __future__ import annotations

from typing import ClassVar, Final

import attrs

from gogate_py.config.names import FieldName, HostPattern, Method, Name, PathPattern, PathPrefix
from gogate_py.config.settings import ListOf, TextMap, setting
from gogate_py.config.traffic_values import (
    Condition,
    KeySpec,
    LongText,
    OneOf,
    Percent,
    PlainText,
    RetryMethod,
    RetryReason,
    Secret,
    StickyKey,
)
from gogate_py.config.values import DAY, Boolean, Choice, Duration, Integer, Number, Size, Text
from gogate_py.middleware.fixed_answers import REDIRECT_STATUSES

_LIMIT: Final = Duration(0, 30 * DAY, zero="off")
#: RFC 6265 section 4.1.1.
_COOKIE_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}"


@attrs.frozen
class RateLimit:
    """One rate limit; a request or a TCP connection costs one token, exact over all workers."""

    HINTS: ClassVar = {
        "rps": "rate", "requests": "rate", "limit": "rate", "average": "rate", "refillRate": "rate",
        "requestsPerSecond": "rate", "window": "per", "period": "per", "interval": "per", "capacity": "burst",
        "type": "algorithm", "strategy": "algorithm", "key": "keyBy", "by": "keyBy", "userIdKey": "keyBy"}

    enabled: bool = setting(Boolean(), "beyond it: 429, or closed; in a route or list: true", default=False)
    name: str = setting(
        Text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", "a name of A-Z a-z 0-9 . _ - (63 at most, a letter or digit first)"),
        "in RateLimit-Policy and metrics; default: the algorithm", default="")
    algorithm: str = setting(
        Choice(("token_bucket", "sliding_window", "fixed_window", "leaky_bucket"),
               aliases={"bucket": "token_bucket", "gcra": "token_bucket", "window": "fixed_window"}),
        "", default="token_bucket")
    rate: float = setting(Number(0.000_001, 1e9), "tokens that come back every `per`; of windows: requests in it",
                          default=1000.0)
    per: float = setting(Duration(0.001, 30 * DAY), "", default=1.0)
    burst: int = setting(
        Integer(0, 1_000_000_000),
        "tokens of a full bucket; of leaky_bucket: how many may be early; windows have none", default=100)
    key_by: tuple[str, ...] = setting(
        ListOf(KeySpec(), scalar=True),
        "what has a limit of its own; global, ip, user, api_key, jwt:CLAIM, header:NAME, query:NAME, cookie:NAME, "
        "form:NAME, basic:username, path, host, or a list: the first that yields a value", default=("global",))


@attrs.frozen
class Timeouts:
    """Times of a request."""

    request: float = setting(_LIMIT, "from the request's head to the end of the answer, retries included", default=0.0)
    response_header: float = setting(_LIMIT, "from the request sent to the answer's head", default=15.0)
    body_idle: float = setting(_LIMIT, "no byte of a body for this long", default=60.0)
    idle: float = setting(_LIMIT, "a kept-alive client without a request", default=60.0)
    request_header: float = setting(_LIMIT, "from its first byte to the end of the request's head", default=10.0)
    tunnel_idle: float = setting(_LIMIT, "no byte on an upgraded connection (WebSocket)", default=3600.0)
    min_body_rate: int = setting(
        Integer(0, 1_000_000_000, zero="off"), "bytes per second, after 5 s of grace", default=240)
    handshake: float = setting(
        Duration(0.1, 3600), "server only: of TLS on listeners; default of tls.handshakeTimeout", default=10.0)


@attrs.frozen
class Limits:
    """Sizes and counts beyond which a message or connection is refused."""

    # A head beyond 64 KiB that comes byte by byte costs quadratic time in the parser (SECURITY.md H15).
    request_line: int = setting(Size(64, 64 << 10), "beyond it: 414", default=8 << 10)
    request_head: int = setting(Size(256, 64 << 10), "beyond it: 431", default=32 << 10)
    request_fields: int = setting(Integer(1, 1000), "header fields; beyond it: 431", default=100)
    request_body: int = setting(
        Size(0, 1 << 62, zero="no limit"), "beyond it: 413; default of every HTTP route", default=0)
    response_head: int = setting(Size(256, 64 << 10), "of a backend; beyond it: 502", default=64 << 10)
    response_fields: int = setting(Integer(1, 1000), "of a backend; beyond it: 502", default=128)
    connections: int = setting(Integer(1, 1_000_000), "per worker; beyond it: closed", default=10_000)
    connections_per_client: int = setting(
        Integer(0, 1_000_000, zero="off"), "of an address (IPv6 /64), all workers; trustedProxies exempt", default=1024)
    in_flight: int = setting(Integer(1, 1_000_000), "requests per worker; beyond it: 503", default=1000)
    pending_per_backend: int = setting(
        Integer(0, 1_000_000), "waiting when maxConnsPerHost or maxConnections is reached; beyond it: 503",
        default=1024)
    methods: tuple[str, ...] = setting(
        ListOf(Method()), "others: 501", default=("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"))


@attrs.frozen
class RouteLimits:
    """What of the limits a route may change."""

    request_body: int = setting(Size(0, 1 << 62, zero="no limit"), "beyond it: 413", default=0, inherits=True)


@attrs.frozen
class Retry:
    """When a request is tried again on another backend: never after a byte of an answer went out, and one that a
    backend may have seen only if it may be repeated."""

    HINTS: ClassVar = {
        "maxTries": "attempts", "maxAttempts": "attempts", "retries": "attempts", "numRetries": "attempts",
        "initialInterval": "backoff", "baseTimeMs": "backoff", "backoffMs": "backoff", "maxInterval": "maxBackoff",
        "timeout": "perTryTimeout", "true": "on", "budget": "budgetPercent"}

    attempts: int = setting(Integer(1, 10), "tries in all, the first included; 1 = never again", default=2)
    per_try_timeout: float = setting(
        _LIMIT, "a try without an answer after this has failed; tried again if on names timeout", default=0.0)
    body_buffer: int = setting(
        Size(0, 16 << 20), "of a request's body that is kept to be sent again", default=64 << 10)
    on: tuple[str, ...] = setting(
        ListOf(RetryReason()), "connect, reset, timeout and statuses from 500 to 599",
        # Tools of YAML 1.1 read a bare "on" as true (and a template may write it back as that): hence the other name.
        aliases=("retryOn",), default=("connect", "reset", "502", "503", "504"))
    backoff: float = setting(Duration(0, 60), "the first wait is from 0 to this, each next up to twice as long",
                             default=0.025)
    max_backoff: float = setting(Duration(0, 60), "… up to this", default=0.25)
    budget_percent: int = setting(
        Percent(0, 100, zero="no budget"), "retries per 100 requests of the route", default=20)
    methods: tuple[str, ...] = setting(
        ListOf(RetryMethod(), scalar=True),
        "idempotent, or a list of methods; POST and PATCH only with an Idempotency-Key", default=("idempotent",))


@attrs.frozen
class Match:
    """Which requests a route takes; what is left out matches everything."""

    HINTS: ClassVar = {
        "method": "methods", "hosts": "host", "prefix": "pathPrefix", "paths": "path", "pathExact": "path",
        "queryParams": "query", "header": "headers"}

    host: str = setting(
        HostPattern(), "exact, or *.example.com for any name below it", default="", example="api.example.com")
    path: str = setting(PathPattern(), "exact; {id} or :id is one segment, a trailing /* the rest", default="",
                        example="/users/{id}")
    path_prefix: str = setting(PathPrefix(), "by segment: /api is /api and /api/x, not /apix", default="",
                               example="/api")
    methods: tuple[str, ...] = setting(ListOf(Method()), "default: all", example=("GET", "POST"))
    headers: dict[str, str] = setting(
        TextMap(FieldName(), Condition(), fold=True), 'exact, "~…" for a regular expression of the whole, "" = present',
        example={"X-Api-Version": "2"})
    query: dict[str, str] = setting(
        TextMap(Text(r"[^\x00-\x1f\x7f]{1,256}", "a parameter's name"), Condition()), "likewise, decoded",
        example={"debug": ""})

    @property
    def everything(self) -> bool:
        """Whether every request matches."""
        return not (self.host or self.path or self.path_prefix.strip("/") or self.methods or self.headers or self.query)


@attrs.frozen
class SplitArm:
    """One arm of a split."""

    HINTS: ClassVar = {"name": "pool", "service": "pool", "backend": "pool", "percent": "weight", "percentage":
                       "weight"}

    pool: str = setting(Name(), "", default="", required=True, example="api-v1")
    weight: int = setting(
        Integer(0, 1_000_000), "share of the requests or clients; 0 = only who is there already", default=1)
    canary: bool = setting(Boolean(), "where canaryHeader: always leads; with none it is the last arm", default=False)


@attrs.frozen
class Sticky:
    """What keeps a client in its arm of a split; what it is kept by stands for it without further keys."""

    HINTS: ClassVar = {"type": "by", "key": "by", "cookieName": "cookie", "ttl": "maxAge"}

    by: str = setting(StickyKey(), "cookie | ip | header:NAME | jwt:CLAIM", default="", required=True, example="cookie")
    cookie: str = setting(Text(_COOKIE_NAME, "a cookie's name"), "its name", default="gogate_arm")
    max_age: float = setting(Duration(60, 400 * DAY), "of the cookie", default=30 * DAY)
    secret: str = setting(
        Secret(), "32 characters or more to sign it with; default: one per start, after which clients are placed anew",
        default="", commented=True, example="${STICKY_SECRET}")


@attrs.frozen
class Rewrite:
    """How the path towards the backend is made."""

    HINTS: ClassVar = {"uri": "path", "target": "path", "regex": "path"}

    path: str = setting(
        PlainText(), "parameters of match.path, {rest} (of /* or the prefix) and {path}", default="", required=True,
        example="/v1/{rest}")


@attrs.frozen
class FieldEdits:
    """Changes of header fields: first remove, then set, then add. Values may hold {host}, {path}, {query}, {uri},
    {scheme}, {method}, {client_ip}, {request_id} and the parameters of match.path."""

    HINTS: ClassVar = {"delete": "remove", "append": "add", "replace": "set", "del": "remove"}

    set: dict[str, str] = setting(
        TextMap(FieldName(), PlainText(), fold=True),
        "values may hold {client_ip}, {host}, {path}, {uri}, {method}, {scheme}, {request_id} and parameters",
        example={"X-Env": "prod"})
    add: dict[str, str] = setting(TextMap(FieldName(), PlainText(), fold=True), "beside lines that are there",
                                  example={"X-Via": "{host}"})
    remove: tuple[str, ...] = setting(ListOf(FieldName()), "", example=("X-Debug",))


@attrs.frozen
class Redirect:
    """An answer with a Location."""

    HINTS: ClassVar = {"url": "to", "location": "to", "target": "to", "code": "status", "statusCode": "status"}

    to: str = setting(
        PlainText(), "may hold variables as requestHeaders.set; before the path only {host}", default="",
        required=True, example="https://{host}{uri}")
    status: int = setting(OneOf(REDIRECT_STATUSES), "", default=308)


@attrs.frozen
class FixedResponse:
    """An answer of gogate's own."""

    HINTS: ClassVar = {"code": "status", "statusCode": "status", "text": "body", "content": "body"}

    status: int = setting(Integer(200, 599), "", default=200)
    body: str = setting(LongText(), "", default="", example="no\n")
    content_type: str = setting(PlainText(), "", default="text/plain; charset=utf-8")
