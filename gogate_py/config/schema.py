"""The configuration, as classes: what may be written, its default, its range, what it means.

This is the one description: the loader reads files by it, config.example.yaml is generated from it. Canonical keys are
the camelCase of the attributes; durations are float seconds and sizes are bytes. ``NOT_YET`` lists the keys of
config.reference.yaml that are refused as not supported yet. The classes hold what was written (with inherited values
filled in), not what follows from it: compiling is the control plane's business.
"""

# ruff: noqa: RUF009  setting() returns an attrs field, which is how attrs takes defaults

from __future__ import annotations

from typing import ClassVar, Final

import attrs

from gogate_py.config.names import (
    BALANCER,
    REQUEST_PATH,
    BackendAddress,
    Cidr,
    FieldName,
    HostPattern,
    ListenAddress,
    Method,
    Name,
    PathPattern,
    PathPrefix,
    StatusRanges,
)
from gogate_py.config.settings import Group, GroupList, GroupMap, ListOf, setting
from gogate_py.config.values import (
    DAY,
    Boolean,
    Choice,
    Duration,
    FailureThreshold,
    Fraction,
    Integer,
    Number,
    Size,
    Text,
    Workers,
)

#: The pool and the routes that the short form stands for.
DEFAULT_POOL: Final = "default"
DEFAULT_TCP_ROUTE: Final = "default-tcp"
DEFAULT_HTTP_ROUTE: Final = "default-http"

#: A wait that may not be zero: a probe or a connect without time cannot succeed.
_WAIT: Final = Duration(0.001, DAY)
_LIMIT: Final = Duration(0, 30 * DAY, zero="off")

_SERVER_DEFAULT: Final = "as server.{}, each key on its own; every key of it may be set"


@attrs.frozen
class Backend:
    """One address in a pool."""

    addr: str = setting(BackendAddress(), "host:port, [v6]:port or unix:/path", required=True, default="",
                        aliases=("url",), example="localhost:9001")
    weight: int = setting(Integer(0, 1000), "share of the work; 0 = kept, but gets none", default=1)


@attrs.frozen
class Health:
    """Active probes of a pool's backends."""

    enabled: bool = setting(Boolean(), "off: backends count as up as long as their names resolve", default=True)
    check_type: str = setting(Choice(("tcp", "http")), "connect, or GET httpPath", default="tcp")
    http_path: str = setting(REQUEST_PATH, "asked for when checkType is http", default="/health")
    expect_status: str = setting(StatusRanges(), "statuses that count as success", default="200-399")
    interval: float = setting(Duration(0.01, DAY), "from one probe to the next, jittered by 10 %", default=5.0)
    timeout: float = setting(_WAIT, "a probe that takes longer has failed", default=2.0)
    unhealthy_threshold: int = setting(Integer(1, 1000), "consecutive failures that take a backend out", default=3)
    healthy_threshold: int = setting(Integer(1, 1000), "consecutive successes that bring it back", default=2)
    initial_state: str = setting(Choice(("up", "down")), "before the thresholds are reached", default="up")


@attrs.frozen
class CircuitBreaker:
    """One breaker per backend, counted over all workers."""

    NOT_YET: ClassVar = ("window", "minRequests")

    enabled: bool = setting(Boolean(), "stop asking a backend that keeps failing", default=False)
    failure_threshold: int = setting(FailureThreshold(1, 1_000_000), "consecutive failures that open it", default=5)
    success_threshold: int = setting(Integer(1, 1_000_000), "successful trials that close it", default=1)
    timeout: float = setting(_WAIT, "from open to the first trial", default=30.0)
    half_open_requests: int = setting(Integer(1, 1_000_000), "trials let through at once", default=1)


@attrs.frozen
class TcpPool:
    """Fresh connections kept ready for L4; a connection that carried bytes is never used again."""

    enabled: bool = setting(Boolean(), "saves the connect round trip", default=False)
    max_idle: int = setting(Integer(1, 65536), "connections per backend, over all workers", default=64)
    idle_timeout: float = setting(_WAIT, "one that waited longer is replaced", default=30.0)
    max_lifetime: float = setting(_LIMIT, "age at which one is replaced", default=120.0)


@attrs.frozen
class HttpTransport:
    """Connections to backends; the kept ones are per worker and backend."""

    max_idle_conns_per_host: int = setting(Integer(0, 65536), "kept without a request; 0 = none", default=64)
    max_conns_per_host: int = setting(Integer(0, 1_000_000, zero="no limit"), "beyond it requests wait", default=0)
    idle_conn_timeout: float = setting(_WAIT, "kept without a request for this long", default=90.0)
    max_lifetime: float = setting(_LIMIT, "age at which one is not used again", default=0.0)
    dial_timeout: float = setting(_WAIT, "to connect, TCP listeners too", default=3.0)


@attrs.frozen
class RateLimit:
    """The token bucket of the whole gateway; a request or a TCP connection costs one token, exact over all workers."""

    enabled: bool = setting(Boolean(), "beyond it: 429 with Retry-After, or closed", default=False)
    algorithm: str = setting(
        Choice(("token_bucket",), later=("sliding_window", "fixed_window", "leaky_bucket")), "", default="token_bucket")
    rate: float = setting(Number(0.000_001, 1e9), "tokens that come back every `per`", default=1000.0)
    per: float = setting(Duration(0.001, 30 * DAY), "", default=1.0)
    burst: int = setting(Integer(1, 1_000_000_000), "tokens of a full bucket", default=100)
    key_by: str = setting(
        Choice(("global",), later=("ip", "user", "api_key"), later_pattern=r"(header|query|cookie|form|jwt|basic):.+"),
        "what has a bucket of its own", default="global", later_form="a list of keys")


@attrs.frozen
class Timeouts:
    """Times of a request."""

    NOT_YET: ClassVar = ("handshake",)

    request: float = setting(_LIMIT, "from the request's head to the end of the answer", default=0.0)
    response_header: float = setting(_LIMIT, "from the request sent to the answer's head", default=15.0)
    body_idle: float = setting(_LIMIT, "no byte of a body for this long", default=60.0)
    idle: float = setting(_LIMIT, "a kept-alive client without a request", default=60.0)
    request_header: float = setting(_LIMIT, "from its first byte to the end of the request's head", default=10.0)
    tunnel_idle: float = setting(_LIMIT, "no byte on an upgraded connection (WebSocket)", default=3600.0)
    min_body_rate: int = setting(
        Integer(0, 1_000_000_000, zero="off"), "bytes per second, after 5 s of grace", default=240)


@attrs.frozen
class Limits:
    """Sizes and counts beyond which a message or connection is refused."""

    # A head beyond 64 KiB that comes byte by byte costs quadratic time in the parser (SECURITY.md H15).
    request_line: int = setting(Size(64, 64 << 10), "beyond it: 414", default=8 << 10)
    request_head: int = setting(Size(256, 64 << 10), "beyond it: 431", default=32 << 10)
    request_fields: int = setting(Integer(1, 1000), "header fields; beyond it: 431", default=100)
    request_body: int = setting(Size(0, 1 << 62, zero="no limit"), "beyond it: 413", default=0)
    response_head: int = setting(Size(256, 64 << 10), "of a backend; beyond it: 502", default=64 << 10)
    response_fields: int = setting(Integer(1, 1000), "of a backend; beyond it: 502", default=128)
    connections: int = setting(Integer(1, 1_000_000), "per worker; beyond it: closed", default=10_000)
    connections_per_client: int = setting(
        Integer(0, 1_000_000, zero="off"), "of an address (IPv6 /64), all workers; trustedProxies exempt", default=1024)
    in_flight: int = setting(Integer(1, 1_000_000), "requests per worker; beyond it: 503", default=1000)
    pending_per_backend: int = setting(
        Integer(0, 1_000_000), "waiting when maxConnsPerHost is reached; beyond it: 503", default=1024)
    methods: tuple[str, ...] = setting(
        ListOf(Method()), "others: 501", default=("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"))


@attrs.frozen
class Admin:
    """The admin listener: health, state, registration."""

    enabled: bool = setting(Boolean(), "", default=True)
    listen_addr: str = setting(ListenAddress(), "", default="127.0.0.1:9090", aliases=("listen",))
    token: str = setting(
        Text(r"[!-~]*", "visible ASCII characters without spaces"),
        "bearer token, needed to change anything from another host", default="", example="${GOGATE_ADMIN_TOKEN:-}")
    allowed_hosts: tuple[str, ...] = setting(
        ListOf(Text(r"[!-~]+", "a host name")), "names it may be called by; IP addresses always pass",
        default=("localhost", "127.0.0.1", "[::1]"))


@attrs.frozen
class Metrics:
    """Prometheus metrics."""

    enabled: bool = setting(Boolean(), "", default=True)
    listen_addr: str = setting(
        ListenAddress(), "a listener of its own; on admin in any case", default="", aliases=("listen",))
    path: str = setting(Text(r"/[A-Za-z0-9._~/-]+", "a path such as /metrics"), "", default="/metrics")


@attrs.frozen
class Registry:
    """Services that register themselves and send heartbeats."""

    enabled: bool = setting(Boolean(), "", default=True)
    listen_addr: str = setting(ListenAddress(), "a listener of its own besides admin", default="",
                               aliases=("listen",))
    default_ttl: float = setting(Duration(1, 300), "of a registration that names none", default=30.0, key="defaultTTL",
                                 aliases=("ttl",))
    cleanup_interval: float = setting(Duration(0.05, 60), "how often missed heartbeats are noticed", default=1.0)
    max_services: int = setting(Integer(1, 10_000), "instances; beyond it: 503", default=10_000)
    allow_cidrs: tuple[str, ...] = setting(
        ListOf(Cidr()), "addresses that may be registered", key="allowCIDRs",
        default=("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"))
    store: str = setting(
        Choice(("memory",), later=("file", "redis"), later_pattern=r"(file|rediss?)://.*"), "", default="memory")


@attrs.frozen
class Shutdown:
    """What happens between SIGTERM and the end."""

    drain_delay: float = setting(Duration(0, 3600), "not ready, but still accepting", default=0.0)
    grace_period: float = setting(Duration(0, DAY), "for what is running; then it is cut", default=30.0)
    drain_idle: float = setting(Duration(0, 3600), "a kept-alive client may still ask for this long", default=2.0)


@attrs.frozen
class Server:
    """Listeners, the short form, defaults for pools and routes, the operator's side."""

    NOT_YET: ClassVar = (
        "tls", "outlier", "slowStart", "panicThreshold", "maxConnections", "queueTimeout", "retry", "dns", "auth",
        "cors", "cache", "requestHeaders", "responseHeaders")

    workers: int | None = setting(Workers(64), "processes that carry traffic; auto = usable CPUs", default=None)
    listen_addr: str = setting(ListenAddress(), "TCP listener of the short form; leave out for none", default="",
                               aliases=("listen",), example=":8080")
    http_listen_addr: str = setting(ListenAddress(), "HTTP listener; leave out for none", default="",
                                    example=":8081")
    backends: tuple[Backend, ...] = setting(
        GroupList(Backend, scalar_key="addr"), "of the pool named default",
        example=(Backend("localhost:9001"), Backend("localhost:9002")))
    load_balancer: str = setting(
        BALANCER, "how a backend is chosen", default="round_robin", later_form="a mapping with type and key")
    health: Health = setting(Group(Health), "probes; default of every pool")
    circuit_breaker: CircuitBreaker = setting(Group(CircuitBreaker), "per backend; default of every pool")
    tcp_pool: TcpPool = setting(Group(TcpPool), "fresh connections kept ready; default of every pool")
    http_transport: HttpTransport = setting(Group(HttpTransport), "connections to backends; default of every pool")
    rate_limit: RateLimit = setting(Group(RateLimit), "one bucket for the whole gateway",
                                    later_form="a list of rate limits")
    timeouts: Timeouts = setting(Group(Timeouts), "of requests; default of every HTTP route")
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
    registry: Registry = setting(Group(Registry), "services that register themselves")
    shutdown: Shutdown = setting(Group(Shutdown), "between SIGTERM and the end")


@attrs.frozen
class Pool:
    """A named set of interchangeable backends; from loadBalancer on everything is inherited from the server."""

    NOT_YET: ClassVar = (
        "tls", "outlier", "slowStart", "panicThreshold", "maxConnections", "queueTimeout", "retry", "dns")

    name: str
    backends: tuple[Backend, ...] = setting(
        GroupList(Backend, scalar_key="addr"), "may be empty when services register",
        example=(Backend("10.0.0.1:8080"), Backend("10.0.0.2:8080", 3)))
    service: str = setting(
        Text(r"\S+", "a name without spaces"), "registered instances of this name join; default: the pool's name",
        default="", example="api")
    tags: tuple[str, ...] = setting(
        ListOf(Text(r"[^\s,]+", "a tag without spaces and commas")), "… if they carry all of these tags",
        example=("v2",))
    load_balancer: str = setting(BALANCER, "as server.loadBalancer", default="round_robin", inherits=True,
                                 example="least_connections", later_form="a mapping with type and key")
    health: Health = setting(Group(Health), _SERVER_DEFAULT.format("health"), inherits=True,
                             example={"checkType": "http", "httpPath": "/healthz"})
    circuit_breaker: CircuitBreaker = setting(
        Group(CircuitBreaker), _SERVER_DEFAULT.format("circuitBreaker"), inherits=True, example={"enabled": "true"})
    tcp_pool: TcpPool = setting(
        Group(TcpPool), _SERVER_DEFAULT.format("tcpPool"), inherits=True, example={"enabled": "false"})
    http_transport: HttpTransport = setting(
        Group(HttpTransport), _SERVER_DEFAULT.format("httpTransport"), inherits=True, example={"dialTimeout": "1s"})


@attrs.frozen
class Match:
    """Which requests a route takes; what is left out matches everything."""

    NOT_YET: ClassVar = ("headers", "query")

    host: str = setting(
        HostPattern(), "exact, or *.example.com for any name below it", default="", example="api.example.com")
    path: str = setting(PathPattern(), "exact; {id} or :id is one segment, a trailing /* the rest", default="",
                        example="/users/{id}")
    path_prefix: str = setting(PathPrefix(), "by segment: /api is /api and /api/x, not /apix", default="",
                               example="/api")
    methods: tuple[str, ...] = setting(ListOf(Method()), "default: all", example=("GET", "POST"))

    @property
    def everything(self) -> bool:
        """Whether every request matches."""
        return not (self.host or self.path or self.path_prefix.strip("/") or self.methods)


@attrs.frozen
class Route:
    """A rule that sends requests (type http) or the connections of one listener (type tcp) to a pool."""

    NOT_YET: ClassVar = (
        "listener", "listeners", "split", "sticky", "stripPrefix", "rewrite", "requestHeaders", "responseHeaders",
        "rateLimit", "auth", "cors", "cache", "redirect", "fixedResponse", "retry", "sni", "tls", "limits")

    name: str = setting(
        Name(), "in logs and metrics; default: route- and its place in the list", default="", example="api")
    type: str = setting(Choice(("http", "tcp")), "", default="http")
    match: Match = setting(Group(Match), "http: the most specific route wins")
    pool: str = setting(Name(), "where its requests or connections go", required=True, default="", example="api-v1")
    websocket: bool = setting(Boolean(), "http: whether Upgrade: websocket is let through", default=True)
    timeouts: Timeouts = setting(Group(Timeouts), _SERVER_DEFAULT.format("timeouts"), inherits=True,
                                 example={"request": "30s"})
    listen_addr: str = setting(ListenAddress(), "tcp: (required)", default="", aliases=("listen",),
                               example=":5432")
    idle_timeout: float = setting(_LIMIT, "tcp: no byte either way for this long", default=3600.0)
    accept_proxy_protocol: bool = setting(Boolean(), "tcp: as server.acceptProxyProtocol", default=False)
    send_proxy_protocol: str = setting(Choice(("none", "v1", "v2")), "tcp: to its backends", default="none")


@attrs.frozen
class Access:
    """Access lines: one per request or TCP connection."""

    enabled: bool = setting(Boolean(), "", default=True)
    path: str = setting(Text(r"\S.*", "a path"), "a file, or - for standard output", default="-")
    sample: float = setting(Fraction(), "share of the lines that are written", default=1.0)


@attrs.frozen
class Logging:
    """gogate's own log lines and the access lines."""

    level: str = setting(Choice(("debug", "info", "warn", "error"), aliases={"warning": "warn"}), "", default="info")
    format: str = setting(Choice(("json", "text")), "", default="json")
    add_source: bool = setting(Boolean(), "name the place in the code", default=False)
    access: Access = setting(Group(Access), "one line per request or TCP connection")


@attrs.frozen
class Config:
    """A whole configuration file, inherited values filled in."""

    NOT_YET: ClassVar = ("listeners",)

    server: Server = setting(Group(Server), "")
    pools: dict[str, Pool] = setting(GroupMap(Pool, Name()), "long form: sets of backends, by name")
    routes: tuple[Route, ...] = setting(
        GroupList(Route), "long form: the most specific wins: host, then exact path, parameters, prefix, then methods")
    logging: Logging = setting(Group(Logging), "")

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
                DEFAULT_POOL,
                backends=server.backends,
                service=DEFAULT_POOL,
                load_balancer=server.load_balancer,
                health=server.health,
                circuit_breaker=server.circuit_breaker,
                tcp_pool=server.tcp_pool,
                http_transport=server.http_transport,
            )
        return pools

    def effective_routes(self) -> tuple[Route, ...]:
        """Every route, the short form's included: default-tcp for ``listenAddr``, the catch-all default-http.

        The catch-all is there when ``httpListenAddr`` is, and either ``server.backends`` is given or there is no HTTP
        route; it yields to a catch-all that was written.
        """
        routes = list(self.routes)
        server = self.server
        if not self.has_default_pool:
            return self.routes
        if server.listen_addr:
            routes.append(Route(DEFAULT_TCP_ROUTE, "tcp", pool=DEFAULT_POOL, listen_addr=server.listen_addr))
        http = [route for route in self.routes if route.type == "http"]
        if server.http_listen_addr and (server.backends or not http) and not any(r.match.everything for r in http):
            routes.append(Route(DEFAULT_HTTP_ROUTE, pool=DEFAULT_POOL, timeouts=server.timeouts))
        return tuple(routes)

