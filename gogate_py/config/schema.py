"""The configuration, as classes: what may be written, its default, its range, what it means.

This is the one description: the loader reads files by it, config.example.yaml is generated from it. Canonical keys are
the camelCase of the attributes; durations are float seconds and sizes are bytes. The classes hold what was written
(with inherited values filled in), not what follows from it: compiling is the control plane's business.

Here are the sections; the groups in them stand in pool_schema.py, traffic_schema.py, access_schema.py, tls_schema.py
and operation_schema.py, and everybody imports them from here.
"""

# ruff: noqa: RUF009  setting() returns an attrs field, which is how attrs takes defaults

from __future__ import annotations

from typing import Any, ClassVar, Final

import attrs

from gogate_py.config.access_schema import Auth, Cache, Cors, ForwardAuth
from gogate_py.config.backend_tls_schema import BackendTls
from gogate_py.config.dns_schema import Dns
from gogate_py.config.names import Cidr, FieldName, ListenAddress, Name, ServerNamePattern
from gogate_py.config.operation_schema import Access, Admin, Logging, Metrics, Registry, Shutdown, Trace
from gogate_py.config.pool_schema import (
    Backend,
    CircuitBreaker,
    Health,
    HttpTransport,
    LoadBalancer,
    Outlier,
    TcpPool,
)
from gogate_py.config.settings import Group, GroupList, GroupMap, ListOf, setting, settings_of
from gogate_py.config.tls_schema import CertificateFiles, Listener, ListenerTls
from gogate_py.config.tracing_schema import Tracing
from gogate_py.config.traffic_schema import (
    FieldEdits,
    FixedResponse,
    Limits,
    Match,
    RateLimit,
    Redirect,
    Retry,
    Rewrite,
    RouteLimits,
    SplitArm,
    Sticky,
    Timeouts,
)
from gogate_py.config.traffic_values import DocumentSource, Percent, StripPrefix
from gogate_py.config.values import DAY, Boolean, Choice, Duration, Integer, Size, Text, Workers

__all__ = [
    "DEFAULT_HTTP_ROUTE", "DEFAULT_LISTENER", "DEFAULT_POOL", "DEFAULT_TCP_ROUTE", "Access", "Admin", "Auth", "Backend",
    "BackendTls", "Cache", "CertificateFiles", "CircuitBreaker", "Config", "Cors", "Dns", "FieldEdits", "FixedResponse",
    "ForwardAuth", "Health", "HttpTransport", "Limits", "Listener", "ListenerTls", "LoadBalancer", "Logging", "Match",
    "Metrics", "Outlier", "Pool", "RateLimit", "Redirect", "Registry", "Retry", "Rewrite", "Route", "RouteLimits",
    "Server", "Shutdown", "SplitArm", "Sticky", "TcpPool", "Timeouts",
    "Trace", "Tracing"]

#: The pool and the routes that the short form stands for.
DEFAULT_POOL: Final = "default"
DEFAULT_TCP_ROUTE: Final = "default-tcp"
DEFAULT_HTTP_ROUTE: Final = "default-http"
#: What routes call the listener of httpListenAddr.
DEFAULT_LISTENER: Final = "default"

_LIMIT: Final = Duration(0, 30 * DAY, zero="off")
_BACKENDS: Final = GroupList(Backend, scalar_key="addr")
_BALANCER: Final = Group(LoadBalancer, scalar_key="type", whole=True)
_RATE_LIMIT: Final = GroupList(RateLimit, single=True)
_AUTH: Final = Group(Auth, scalar_key="type", optional=True, whole=True)
_CORS: Final = Group(Cors, optional=True)
_CACHE: Final = Group(Cache, optional=True)
_EDITS: Final = Group(FieldEdits, optional=True)
_FORWARD_AUTH: Final = Group(ForwardAuth, optional=True)
_TLS: Final = Group(ListenerTls, optional=True)
_SLOW_START: Final = Duration(0, 3600, zero="off")
_PANIC: Final = Percent(0, 100, zero="off")
_MAX_CONNECTIONS: Final = Integer(0, 1_000_000, zero="no limit")
_QUEUE: Final = Duration(0.001, 3600)

_SERVER_DEFAULT: Final = "as server.{}, each key on its own; every key of it may be set"
_ROUTE_DEFAULT: Final = "default of every HTTP route; a route changes each key on its own, or switches it off with none"

#: Words of other programs for keys of a route, and of the server where they are defaults of routes.
_ROUTE_HINTS: Final = {
    "jwt": "auth", "jwtAuth": "auth", "oidc": "auth", "authentication": "auth", "apiKey": "auth", "basicAuth": "auth",
    "retries": "retry", "retryPolicy": "retry", "rateLimits": "rateLimit", "ratelimiting": "rateLimit",
    "throttle": "rateLimit", "requestTimeout": "timeouts", "timeout": "timeouts", "corsPolicy": "cors",
    "extAuthz": "forwardAuth", "authRequest": "forwardAuth", "caching": "cache", "proxyCache": "cache",
    "headersToAdd": "requestHeaders", "setHeaders": "requestHeaders", "headerUp": "requestHeaders",
    "headerDown": "responseHeaders"}
_POOL_HINTS: Final = {
    "outlierDetection": "outlier", "passiveHealth": "outlier", "breaker": "circuitBreaker", "lb": "loadBalancer",
    "lbPolicy": "loadBalancer", "balancer": "loadBalancer", "algorithm": "loadBalancer", "healthCheck": "health",
    "healthChecks": "health", "maxConn": "maxConnections", "maxconns": "maxConnections", "healthyPanicThreshold":
    "panicThreshold", "slowstart": "slowStart", "queue": "queueTimeout"}


@attrs.frozen
class Server:
    """Listeners, the short form, defaults for pools and routes, the operator's side."""

    HINTS: ClassVar = {**_ROUTE_HINTS, **_POOL_HINTS, "addr": "listenAddr", "port": "listenAddr"}

    workers: int | None = setting(Workers(64), "processes that carry traffic; auto = usable CPUs", default=None)
    listen_addr: str = setting(ListenAddress(), "TCP listener of the short form; leave out for none", default="",
                               aliases=("listen",), example=":8080")
    http_listen_addr: str = setting(ListenAddress(), "HTTP listener; leave out for none", default="",
                                    example=":8081")
    tls: ListenerTls | None = setting(
        _TLS, "terminated on httpListenAddr; others have a tls of their own", commented=True)
    backends: tuple[Backend, ...] = setting(
        _BACKENDS, "of the pool named default", example=(Backend("localhost:9001"), Backend("localhost:9002")))
    load_balancer: LoadBalancer = setting(_BALANCER, "how a backend is chosen; a name, or a mapping as in pools")
    health: Health = setting(Group(Health), "probes; default of every pool")
    circuit_breaker: CircuitBreaker = setting(Group(CircuitBreaker), "per backend; default of every pool")
    outlier: Outlier = setting(Group(Outlier), "default of every pool")
    slow_start: float = setting(
        _SLOW_START, "a backend that comes back gets its share little by little; default of every pool", default=0.0)
    panic_threshold: int = setting(
        _PANIC, "share of usable backends below which health is ignored; default of every pool", default=0)
    max_connections: int = setting(
        _MAX_CONNECTIONS, "requests and TCP connections per backend, all workers; beyond it they wait", default=0)
    queue_timeout: float = setting(_QUEUE, "for one of maxConnections or maxConnsPerHost; then 503", default=5.0)
    dns: Dns = setting(Group(Dns), "names of backends; default of every pool")
    tcp_pool: TcpPool = setting(Group(TcpPool), "fresh connections kept ready; default of every pool")
    http_transport: HttpTransport = setting(Group(HttpTransport), "connections to backends; default of every pool")
    backend_tls: BackendTls = setting(
        Group(BackendTls), "TLS to backends; default of every pool, where it is called tls", key="backendTLS")
    rate_limit: tuple[RateLimit, ...] = setting(
        _RATE_LIMIT, "of the whole gateway; one, or a list of them", example=(RateLimit(),))
    timeouts: Timeouts = setting(Group(Timeouts), "of requests; default of every HTTP route")
    retry: Retry = setting(Group(Retry), "on another backend; default of every HTTP route")
    auth: Auth | None = setting(
        _AUTH, "default of every HTTP route; a route's own takes the place of all of it", example={"type": "none"})
    forward_auth: ForwardAuth | None = setting(
        _FORWARD_AUTH, _ROUTE_DEFAULT, example={"url": "http://127.0.0.1:9000/verify"})
    cors: Cors | None = setting(_CORS, _ROUTE_DEFAULT, example={"allowOrigins": ("https://app.example.com",)})
    cache: Cache | None = setting(_CACHE, _ROUTE_DEFAULT, example={"enabled": True})
    request_headers: FieldEdits | None = setting(
        _EDITS, f"before a request goes to a backend; {_ROUTE_DEFAULT}", example={"set": {"X-Env": "prod"}})
    response_headers: FieldEdits | None = setting(
        _EDITS, f"before an answer goes to a client; {_ROUTE_DEFAULT}", example={"remove": ("Server",)})
    limits: Limits = setting(Group(Limits), "what is refused")
    trusted_proxies: tuple[str, ...] = setting(
        ListOf(Cidr()), "networks whose X-Forwarded-* fields and PROXY headers are believed")
    accept_proxy_protocol: bool = setting(
        Boolean(), "httpListenAddr: needed from all, believed from trustedProxies", default=False)
    header_names: str = setting(
        Choice(("drop", "reject", "keep")), "fields named with others than A-Z a-z 0-9 -", default="drop")
    identity_headers: tuple[str, ...] = setting(
        ListOf(FieldName()), "fields that no client may set: removed from every request, in any spelling")
    path_policy: str = setting(
        Choice(("strict", "escaped_slashes")), "escaped_slashes: %2F in a path is data; strict: it is 400",
        default="strict")
    forward_trailers: tuple[str, ...] = setting(
        ListOf(FieldName(trailer=True)), "trailer fields that are passed on; others are dropped")
    max_memory: int = setting(
        Size(0, 1 << 50, zero="no limit"), "of a worker; at 85 % no keep-alive, at 95 % no new connections", default=0)
    admin: Admin = setting(Group(Admin), "health, state, registration")
    metrics: Metrics = setting(Group(Metrics), "for Prometheus; may stand at top level")
    trace: Trace = setting(Group(Trace), "what was decided about single requests")
    registry: Registry = setting(Group(Registry), "services that register themselves")
    shutdown: Shutdown = setting(Group(Shutdown), "between SIGTERM and the end")


@attrs.frozen
class Pool:
    """A named set of interchangeable backends; from loadBalancer on everything is inherited from the server."""

    HINTS: ClassVar = {
        **_POOL_HINTS, "upstream": "backends", "upstreams": "backends", "targets": "backends", "servers": "backends",
        "endpoints": "backends"}

    name: str
    backends: tuple[Backend, ...] = setting(
        _BACKENDS, "may be empty when services register",
        example=(Backend("10.0.0.1:8080"), Backend("10.0.0.2:8080", 3), Backend("10.0.0.3:8080", backup=True)))
    service: str = setting(
        Text(r"\S+", "a name without spaces"), "registered instances of this name join; default: the pool's name",
        default="", example="api")
    tags: tuple[str, ...] = setting(
        ListOf(Text(r"[^\s,]+", "a tag without spaces and commas")), "… if they carry all of these tags",
        example=("v2",))
    load_balancer: LoadBalancer = setting(
        _BALANCER, "as server.loadBalancer, as a whole", inherits=True,
        example=LoadBalancer("consistent_hash", "header:X-User"))
    health: Health = setting(Group(Health), _SERVER_DEFAULT.format("health"), inherits=True,
                             example={"checkType": "http", "httpPath": "/healthz"})
    circuit_breaker: CircuitBreaker = setting(
        Group(CircuitBreaker), _SERVER_DEFAULT.format("circuitBreaker"), inherits=True,
        example={"enabled": True, "failureThreshold": "50%", "minRequests": 20})
    outlier: Outlier = setting(
        Group(Outlier), _SERVER_DEFAULT.format("outlier"), inherits=True, example={"enabled": True})
    slow_start: float = setting(_SLOW_START, "as server.slowStart", default=0.0, inherits=True)
    panic_threshold: int = setting(_PANIC, "as server.panicThreshold", default=0, inherits=True)
    max_connections: int = setting(
        _MAX_CONNECTIONS, "as server.maxConnections", default=0, inherits=True, example=100)
    queue_timeout: float = setting(_QUEUE, "as server.queueTimeout", default=5.0, inherits=True)
    dns: Dns = setting(
        Group(Dns), _SERVER_DEFAULT.format("dns"), inherits=True, example={"refresh": "10s"})
    tcp_pool: TcpPool = setting(
        Group(TcpPool), _SERVER_DEFAULT.format("tcpPool"), inherits=True, example={"enabled": False})
    http_transport: HttpTransport = setting(
        Group(HttpTransport), _SERVER_DEFAULT.format("httpTransport"), inherits=True, example={"dialTimeout": "1s"})
    backend_tls: BackendTls = setting(
        Group(BackendTls), _SERVER_DEFAULT.format("backendTLS"), key="tls", inherits=True, example={"enabled": True})


@attrs.frozen
class Route:
    """A rule that sends requests (type http) or the connections of one listener (type tcp) to a pool, or answers them.

    ``strip_prefix`` is the prefix itself once the file is read. ``exempt``: its ``rateLimit`` is written, but none is
    enabled: the server's do not apply either. ``openapi_text``: that of a file. These follow from what is written
    (resolving.py).
    """

    HINTS: ClassVar = {
        **_ROUTE_HINTS, "service": "pool", "backend": "pool", "upstream": "pool", "cluster": "pool",
        "backends": "pool", "canary": "split", "weights": "split", "traffic": "split", "directResponse":
        "fixedResponse", "respond": "fixedResponse", "return": "fixedResponse", "redir": "redirect", "rewritePath":
        "rewrite", "prefixRewrite": "rewrite", "ipAllowList": "allowCIDRs", "ipWhiteList": "allowCIDRs",
        "allow": "allowCIDRs", "deny": "denyCIDRs", "stickySessions": "sticky", "sessionAffinity": "sticky",
        "serverNames": "sni", "hostSNI": "sni",
        "path": "match", "pathPrefix": "match", "host": "match", "methods": "match", "maxBodySize": "limits"}

    name: str = setting(
        Name(), "in logs and metrics; default: route- and its place in the list", default="", example="api")
    type: str = setting(Choice(("http", "tcp")), "", default="http")
    listeners: tuple[str, ...] = setting(
        ListOf(Name(), scalar=True), "of listeners, by name; http: default: all of type http (httpListenAddr is called "
        "default); tcp: one, in place of listenAddr", aliases=("listener",), example=("public",))
    match: Match = setting(Group(Match), "http: the most specific route wins")
    pool: str = setting(
        Name(), "where its requests or connections go; this or (http) split, redirect or fixedResponse is required",
        default="", example="api-v1")
    split: tuple[SplitArm, ...] = setting(
        GroupList(SplitArm, scalar_key="pool"), "http: by weight over several pools",
        example=(SplitArm("api-v1", 90), SplitArm("api-v2", 10, True)))
    sticky: Sticky | None = setting(
        Group(Sticky, scalar_key="by", optional=True), "split: the same client keeps its arm; default: by chance")
    canary_header: str = setting(
        FieldName(optional=True), 'split: always = the canary, never = the first other; "" = off', default="X-Canary")
    split_fallback: str = setting(
        Choice(("other", "none")), "split: without a usable backend in an arm another one is taken, or 503",
        default="other")
    redirect: Redirect | None = setting(Group(Redirect, scalar_key="to", optional=True), "http: answered by gogate")
    fixed_response: FixedResponse | None = setting(Group(FixedResponse, optional=True), "http: answered by gogate")
    strip_prefix: str = setting(
        StripPrefix(), "http: true = match.pathPrefix, or a beginning of what matches", default="", example="/api")
    rewrite: Rewrite | None = setting(
        Group(Rewrite, scalar_key="path", optional=True), "http: the path for the backend, after stripPrefix")
    allow_cidrs: tuple[str, ...] = setting(
        ListOf(Cidr()), "http: clients that may ask; default: all", key="allowCIDRs", example=("10.0.0.0/8",))
    deny_cidrs: tuple[str, ...] = setting(
        ListOf(Cidr()), "http: clients that may not, whatever allowCIDRs says", key="denyCIDRs",
        example=("10.9.0.0/16",))
    rate_limit: tuple[RateLimit, ...] = setting(
        _RATE_LIMIT, "beside the server's; {enabled: false}: those do not apply either; tcp: keyBy global and ip only",
        example=(RateLimit(True, rate=100.0, per=60.0, key_by=("jwt:sub", "ip")),))
    auth: Auth | None = setting(_AUTH, "http: as server.auth, as a whole", inherits=True)
    forward_auth: ForwardAuth | None = setting(_FORWARD_AUTH, _SERVER_DEFAULT.format("forwardAuth"), inherits=True)
    cors: Cors | None = setting(_CORS, _SERVER_DEFAULT.format("cors"), inherits=True)
    cache: Cache | None = setting(_CACHE, _SERVER_DEFAULT.format("cache"), inherits=True)
    request_headers: FieldEdits | None = setting(
        _EDITS, "http: as server.requestHeaders, each key on its own: first remove, then set, then add", inherits=True)
    response_headers: FieldEdits | None = setting(
        _EDITS, "http: likewise", inherits=True, example={"remove": ("Server",)})
    openapi: str = setting(
        DocumentSource(), "http: OpenAPI document (JSON) of its backends, URL or file, for /openapi/routes.json",
        default="", commented=True, example="http://127.0.0.1:9001/openapi.json")
    websocket: bool = setting(Boolean(), "http: whether Upgrade: websocket is let through", default=True)
    timeouts: Timeouts = setting(Group(Timeouts), _SERVER_DEFAULT.format("timeouts"), inherits=True,
                                 example={"request": "30s"})
    retry: Retry = setting(Group(Retry), _SERVER_DEFAULT.format("retry"), inherits=True, example={"attempts": 3})
    limits: RouteLimits = setting(Group(RouteLimits), "http: as server.limits", inherits=True,
                                  example={"requestBody": "1MiB"})
    listen_addr: str = setting(ListenAddress(), "tcp: this or listener is required", default="", aliases=("listen",),
                               example=":5432")
    tls: ListenerTls | None = setting(
        _TLS, "tcp: terminated on listenAddr; as server.tls",
        example={"certificates": ({"certFile": "db.crt", "keyFile": "db.key"},)})
    sni: tuple[str, ...] = setting(
        ListOf(ServerNamePattern(), scalar=True), "tcp: names in the TLS ClientHello; TLS is passed through, routes "
        "may share a listenAddr, and one without sni is for the rest", example=("db.example.com", "*.db.example.com"))
    idle_timeout: float = setting(_LIMIT, "tcp: no byte either way for this long", default=3600.0)
    accept_proxy_protocol: bool = setting(Boolean(), "tcp: as server.acceptProxyProtocol", default=False)
    send_proxy_protocol: str = setting(Choice(("none", "v1", "v2")), "tcp: to its backends", default="none")
    exempt: bool = False
    openapi_text: str = ""


@attrs.frozen
class Config:
    """A whole configuration file, inherited values filled in.

    ``files``: every file that it names, with what told its content apart when it was read (named_files.py). Two
    configurations are compared by what the files said.
    """

    HINTS: ClassVar = {"upstreams": "pools", "clusters": "pools", "services": "pools", "log": "logging",
                       "opentelemetry": "tracing", "otel": "tracing", "traces": "tracing",
                       "entryPoints": "listeners", "frontends": "listeners"}

    server: Server = setting(Group(Server), "")
    listeners: tuple[Listener, ...] = setting(
        GroupList(Listener), "long form: further listeners; a route of type http is on all of type http unless it "
        "names some, a route of type tcp names one")
    pools: dict[str, Pool] = setting(GroupMap(Pool, Name()), "long form: sets of backends, by name")
    routes: tuple[Route, ...] = setting(
        GroupList(Route), "long form: the most specific wins: host, then exact path, parameters, prefix, then the "
        "number of further conditions")
    logging: Logging = setting(Group(Logging), "")
    tracing: Tracing = setting(Group(Tracing), "traces of OpenTelemetry")
    files: dict[str, bytes] = attrs.field(factory=dict, eq=False, repr=False)

    @property
    def http_listeners(self) -> tuple[str, ...]:
        """What routes call the listeners of type http."""
        default = (DEFAULT_LISTENER,) if self.server.http_listen_addr else ()
        return (*default, *(one.name for one in self.listeners if one.type == "http"))

    @property
    def has_default_pool(self) -> bool:
        """Whether the pool named default exists: when ``server.backends`` is given or no pools are."""
        return bool(self.server.backends) or not self.pools or DEFAULT_POOL in self.pools

    @property
    def every_instance_joins_default(self) -> bool:
        """Whether every registered instance joins the default pool, whatever its name and tags: without ``pools``."""
        return not self.pools

    def effective_pools(self) -> dict[str, Pool]:
        """Every pool by name, the short form's included; ``service`` is never empty."""
        pools = {name: attrs.evolve(pool, service=pool.service or name) for name, pool in self.pools.items()}
        if DEFAULT_POOL not in pools and self.has_default_pool:
            server = self.server
            pools[DEFAULT_POOL] = Pool(
                DEFAULT_POOL, backends=server.backends, service=DEFAULT_POOL, **inherited(Pool, server))
        return pools

    def effective_routes(self) -> tuple[Route, ...]:
        """Every route, the short form's included: default-tcp for ``listenAddr``, the catch-all default-http.

        The catch-all is there when an HTTP listener is, and either ``server.backends`` is given or there is no HTTP
        route; on each listener it yields to a catch-all that was written.
        """
        routes = list(self.routes)
        server = self.server
        if not self.has_default_pool:
            return self.routes
        if server.listen_addr:
            routes.append(Route(DEFAULT_TCP_ROUTE, "tcp", pool=DEFAULT_POOL, listen_addr=server.listen_addr))
        http = [route for route in self.routes if route.type == "http"]
        if server.backends or not http:
            everything = [route.listeners for route in http if route.match.everything]
            left = tuple(
                name for name in self.http_listeners if not any(not on or name in on for on in everything))
            if left:
                on = () if left == self.http_listeners else left
                routes.append(Route(DEFAULT_HTTP_ROUTE, pool=DEFAULT_POOL, listeners=on, **inherited(Route, server)))
        return tuple(routes)


def inherited(cls: type[attrs.AttrsInstance], source: attrs.AttrsInstance) -> dict[str, Any]:
    """Attribute → value for everything that an instance of ``cls`` takes from the server when nothing is written."""
    values: dict[str, Any] = {}
    for named in settings_of(cls):
        shape = named.setting.shape
        if not named.setting.inherits:
            continue
        value = getattr(source, named.attribute)
        if isinstance(shape, Group) and value is not None and not isinstance(value, shape.cls):
            value = shape.cls(**inherited(shape.cls, value))  # a class of its own for the part that may be changed
        values[named.attribute] = value
    return values
