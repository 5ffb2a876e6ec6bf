"""Snapshot: the only contract between the two planes.

The control plane compiles configuration, registry, name resolution and health into a frozen, numbered Snapshot; the
data plane swaps one reference to it and never sees anything else of the control plane. Everything in it is plain data
that msgspec can carry over the channel. Durations are seconds (float), sizes bytes; 0 means "no limit" or "off" where
a comment says so.

A change of health or draining alone does not send a whole Snapshot: :class:`BackendState` changes are carried by a
message (messages.States) with a generation of its own; applying it gives the state the next whole Snapshot would have.
"""

from __future__ import annotations

from msgspec import Struct


class BackendState(Struct, frozen=True, array_like=True):
    """What the control plane knows of one backend of one pool. A backend takes new work when it is up and not
    draining."""

    row: int
    up: bool
    draining: bool
    # why it is down, for the log and the local answer; "" while up
    reason: str = ""


class Backend(Struct, frozen=True, array_like=True):
    """One address in one pool. ``row`` is its place in the arena and its identity over snapshots."""

    row: int
    # as configured or registered; the label in metrics and logs
    address: str
    # what to connect to, in order: (ip, port), or ("/path", 0) for a Unix socket. Empty: the name does not resolve
    endpoints: tuple[tuple[str, int], ...]
    weight: int
    state: BackendState


class Breaker(Struct, frozen=True, array_like=True):
    """Circuit breaker settings of a pool; counts are over all workers, in the arena."""

    failure_threshold: int
    success_threshold: int
    half_open_requests: int
    timeout: float


class TcpPool(Struct, frozen=True, array_like=True):
    """Fresh, never used connections kept ready per backend (L4). ``max_idle`` is this worker's share."""

    max_idle: int
    idle_timeout: float
    max_lifetime: float


class HttpTransport(Struct, frozen=True, array_like=True):
    """Kept upstream connections per worker and backend (L7)."""

    max_idle_per_host: int
    max_conns_per_host: int  # 0 = no limit; beyond it requests queue
    pending_per_backend: int
    idle_timeout: float
    max_lifetime: float  # 0 = no limit
    dial_timeout: float


class Pool(Struct, frozen=True, array_like=True):
    """A named set of interchangeable backends."""

    name: str
    balancer: str
    backends: tuple[Backend, ...]
    transport: HttpTransport
    breaker: Breaker | None = None
    tcp_pool: TcpPool | None = None


class Timeouts(Struct, frozen=True, array_like=True):
    """Seconds; 0 = off."""

    request: float  # head received to answer complete
    response_header: float  # request sent to final response head complete
    body_idle: float  # no byte of a body for this long, either side
    idle: float  # kept-alive client without a request
    request_header: float  # first byte (or accept) to head complete
    tunnel_idle: float  # upgraded connection without a byte
    min_body_rate: int  # bytes per second after 5 s grace


class Limits(Struct, frozen=True, array_like=True):
    """Bytes and counts; SECURITY.md T13, T14, T18, T20."""

    request_line: int
    request_head: int
    request_fields: int
    request_body: int  # 0 = no limit
    response_head: int
    response_fields: int
    connections: int  # per worker
    in_flight: int  # per worker
    methods: tuple[str, ...]
    connections_per_client: int = 0  # over all workers; 0 = no limit
    max_memory: int = 0  # of this worker, bytes; 0 = no limit


class HeadRules(Struct, frozen=True, array_like=True):
    """What is done about fields and paths that different servers read differently (SECURITY.md T3, T5, T8, T11)."""

    header_names: str = "drop"  # drop | reject | keep: names outside [A-Za-z0-9-]
    identity_headers: tuple[str, ...] = ()  # deleted from every request, aliases too; lower case
    escaped_slashes: bool = False  # %2F in a path is data
    forward_trailers: tuple[str, ...] = ()  # trailer fields that are passed on; lower case


class RateLimit(Struct, frozen=True, array_like=True):
    """One token bucket: ``burst`` tokens at most, ``rate`` new ones every ``per`` seconds; ``row`` is its arena
    cell."""

    row: int
    rate: float
    per: float
    burst: int


class HttpRoute(Struct, frozen=True, array_like=True):
    """A rule from request to a pool. Empty host, path and methods match everything."""

    name: str
    pool: str
    host: str  # lower case; "*.example.com" = any one or more labels before it
    path: str  # exact, with {name} parameters and a trailing /*; "" = not by path
    path_prefix: str  # by segment; "" = not by prefix
    methods: tuple[str, ...]
    timeouts: Timeouts
    websocket: bool


class TcpRoute(Struct, frozen=True, array_like=True):
    """One TCP listener's pool."""

    name: str
    pool: str
    idle_timeout: float  # 0 = never
    send_proxy: int = 0  # version of the PROXY protocol towards backends; 0 = none


class Listener(Struct, frozen=True, array_like=True):
    """A bound address. ``id`` names its sockets on the channel; ``tcp`` is its route, None for an HTTP listener."""

    id: str
    address: str
    tcp: TcpRoute | None = None
    accept_proxy: bool = False  # every connection begins with a PROXY header, from a trusted proxy


class AccessLog(Struct, frozen=True, array_like=True):
    """Access lines: whether, in which format, which share of the requests."""

    enabled: bool
    format: str  # json | text
    sample: float


class Snapshot(Struct, frozen=True, array_like=True):
    """All that a worker needs to know; frozen and numbered."""

    generation: int
    listeners: tuple[Listener, ...]
    pools: tuple[Pool, ...]
    http_routes: tuple[HttpRoute, ...]
    limits: Limits
    timeouts: Timeouts
    access_log: AccessLog
    log_level: str
    log_format: str
    trusted_proxies: tuple[str, ...]
    rate_limits: tuple[RateLimit, ...] = ()
    head_rules: HeadRules = HeadRules()
