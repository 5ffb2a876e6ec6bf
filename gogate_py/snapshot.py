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
    # monotonic seconds since which it warms up (slowStart); 0 = it is warm
    warming_since: float = 0.0
    # monotonic seconds at which its drain ends, and what still runs there is cut; 0 = never
    drain_by: float = 0.0


class Backend(Struct, frozen=True, array_like=True):
    """One address in one pool. ``row`` is its place in the arena and its identity over snapshots."""

    row: int
    # as configured or registered; the label in metrics and logs
    address: str
    # what to connect to, in order: (ip, port), or ("/path", 0) for a Unix socket. Empty: the name does not resolve
    endpoints: tuple[tuple[str, int], ...]
    weight: int
    state: BackendState
    # takes work only while no other backend of its pool is usable
    backup: bool = False
    # the name or IP address its certificate must have; "" = plain TCP. Needs the pool's ``tls``
    tls_name: str = ""


class BackendTls(Struct, frozen=True, array_like=True):
    """How TLS is spoken with a pool's backends; contents, not files. ``digest`` is different when anything is."""

    digest: str
    authorities: str = ""  # PEM; "" = the system's store
    certificate: str = ""  # PEM chain, shown to backends that ask for one; "" = none
    key: str = ""  # PEM
    verify: bool = True


class Breaker(Struct, frozen=True, array_like=True):
    """Circuit breaker settings of a pool; counts are over all workers, in the arena."""

    failure_threshold: int  # consecutive failures; 0 = by ratio
    success_threshold: int
    half_open_requests: int
    timeout: float  # open → half-open; doubled for each re-opening in a row, up to max_timeout
    max_timeout: float = 300.0
    ratio: float = 0.0  # share of failures in the window that opens it; 0 = by consecutive failures
    min_requests: int = 0  # outcomes in the window before the ratio counts
    window: float = 60.0
    failure_statuses: tuple[tuple[int, int], ...] = ((500, 599),)  # closed ranges of answers that are failures


class Outlier(Struct, frozen=True, array_like=True):
    """Ejection of backends that answer 5xx again and again; counts are over all workers."""

    consecutive_5xx: int
    base_ejection: float  # times the ejections in a row, up to MAX_EJECTION
    max_ejection_percent: int  # of a pool's backends; never its last usable one


class Retry(Struct, frozen=True, array_like=True):
    """When a request is tried again on another backend."""

    attempts: int  # tries in all, the first included
    per_try_timeout: float  # 0 = none
    body_buffer: int  # bytes of a request body that are kept to be sent again
    connect: bool  # a connection could not be made
    reset: bool  # the connection was closed before an answer
    timeout: bool  # perTryTimeout was over
    statuses: tuple[int, ...]
    backoff: float
    max_backoff: float
    budget_percent: int  # retries per 100 requests of the route; 0 = no bound
    methods: tuple[str, ...]  # not idempotent ones only with an Idempotency-Key

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
    hash_key: str = "ip"  # of consistent_hash, see middleware/request_keys
    balance_factor: float = 1.25  # of consistent_hash: no backend gets more than this times the average; 0 = no bound
    outlier: Outlier | None = None
    slow_start: float = 0.0  # seconds; 0 = off
    panic_threshold: int = 0  # percent of usable backends below which health is ignored; 0 = off
    max_connections: int = 0  # requests and TCP connections per backend, over all workers; 0 = no limit
    queue_timeout: float = 5.0  # how long a request waits for one of max_connections or max_conns_per_host
    tls: BackendTls | None = None  # of the backends that have a ``tls_name``


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
    """One limit: ``rate`` per ``per`` seconds for each value of its key. ``row`` is its identity in the arena: the cell
    of its one bucket when it is global, a part of every key otherwise."""

    row: int
    rate: float
    per: float
    burst: int  # of token_bucket and leaky_bucket
    algorithm: str = "token_bucket"  # token_bucket | leaky_bucket | sliding_window | fixed_window
    keys: tuple[str, ...] = ("global",)  # the first that yields a value, see middleware/request_keys
    name: str = ""  # in RateLimit-Policy, metrics and explain


class ValueMatch(Struct, frozen=True, array_like=True):
    """A condition on a header field or query parameter."""

    name: str  # lower case for a field, as it is for a parameter
    kind: str  # present | exact | regex (which must match the whole value)
    value: str = ""


class Arm(Struct, frozen=True, array_like=True):
    """One arm of a split. Weight 0: only for those who are stuck to it, or ask for it."""

    pool: str
    weight: int
    canary: bool = False


class Sticky(Struct, frozen=True, array_like=True):
    """What keeps a client in its arm."""

    by: str  # cookie | ip | header:NAME | jwt:CLAIM
    cookie: str = "gogate_arm"
    max_age: float = 30 * 86400.0  # of the cookie
    secret: bytes = b""  # what the cookie is signed with


class FieldEdits(Struct, frozen=True, array_like=True):
    """Changes of header fields, in this order: remove, set, add. Names as they are to be written; values may hold
    ``{...}`` variables, see middleware/rewriting."""

    remove: tuple[str, ...] = ()
    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()


class JwtAuth(Struct, frozen=True, array_like=True, tag="jwt"):
    """A bearer token is needed. Exactly one of secret, public_key and jwks_url is set."""

    algorithms: tuple[str, ...]
    issuers: tuple[str, ...]
    audiences: tuple[str, ...]
    secret: bytes = b""
    public_key: str = ""  # PEM
    jwks_url: str = ""  # keys come as messages.KeySet
    leeway: float = 30.0
    forward_claims: tuple[tuple[str, str], ...] = ()  # claim → header field
    require_claims: tuple[tuple[str, tuple[str, ...]], ...] = ()  # claim → one of these values, else 403
    realm: str = "gogate"


class ApiKeyAuth(Struct, frozen=True, array_like=True, tag="api_key"):
    """An API key is needed, in a header field or a query parameter."""

    keys: tuple[tuple[str, str], ...]  # name → lower-case hex SHA-256 of the key
    header: str = "X-API-Key"
    query: str = ""
    forward_name: str = ""  # field that tells the backend the key's name
    realm: str = "gogate"


class BasicAuth(Struct, frozen=True, array_like=True, tag="basic"):
    """A user name and password are needed (RFC 7617)."""

    users: tuple[tuple[str, str], ...]  # name → bcrypt hash as htpasswd -B writes it
    forward_user: str = ""  # field that tells the backend the user's name
    realm: str = "gogate"


class ForwardAuth(Struct, frozen=True, array_like=True):
    """An HTTP service is asked about every request: 2xx lets it pass, anything else is the answer."""

    url: str
    timeout: float
    request_headers: tuple[str, ...]  # fields of the request that it is shown; () = all but hop-by-hop ones
    response_headers: tuple[str, ...]  # fields of its answer that the backend gets


class Cors(Struct, frozen=True, array_like=True):
    """Cross-origin rules of a route (Fetch standard)."""

    allow_origins: tuple[str, ...]  # exact; ("*",) = any
    allow_methods: tuple[str, ...]
    allow_headers: tuple[str, ...]  # ("*",) = whatever is asked for
    expose_headers: tuple[str, ...]
    allow_credentials: bool
    max_age: float


class Cache(Struct, frozen=True, array_like=True):
    """A response cache, one per worker and route."""

    ttl: float  # for answers that do not say how long they are fresh; 0 = those are not stored
    max_entries: int
    max_bytes: int


class Redirect(Struct, frozen=True, array_like=True):
    """Answered with a Location; ``to`` may hold ``{...}`` variables."""

    to: str
    status: int


class FixedResponse(Struct, frozen=True, array_like=True):
    """Answered by the gateway."""

    status: int
    body: bytes
    content_type: str


class HttpRoute(Struct, frozen=True, array_like=True):
    """A rule from request to a pool. Empty host, path, methods, headers and query match everything."""

    name: str
    pool: str  # "" where the gateway itself answers, or the split decides
    host: str  # lower case; "*.example.com" = any one or more labels before it
    path: str  # exact, with {name} parameters and a trailing /*; "" = not by path
    path_prefix: str  # by segment; "" = not by prefix
    methods: tuple[str, ...]
    timeouts: Timeouts
    websocket: bool
    headers: tuple[ValueMatch, ...] = ()
    query: tuple[ValueMatch, ...] = ()
    arms: tuple[Arm, ...] = ()
    sticky: Sticky | None = None
    canary_header: str = "X-Canary"  # always | never overrides the split; "" = off
    arm_fallback: bool = True  # an arm without a usable backend: another one; False: 503
    allow: tuple[str, ...] = ()  # networks; () = all
    deny: tuple[str, ...] = ()
    rate_limits: tuple[RateLimit, ...] = ()
    server_limits: bool = True  # Snapshot.rate_limits apply, too
    auth: JwtAuth | ApiKeyAuth | BasicAuth | None = None
    forward_auth: ForwardAuth | None = None
    cors: Cors | None = None
    cache: Cache | None = None
    strip_prefix: str = ""
    rewrite_path: str = ""  # may hold {parameters} of the path, {rest} and {path}; "" = not rewritten
    request_fields: FieldEdits | None = None
    response_fields: FieldEdits | None = None
    redirect: Redirect | None = None
    fixed: FixedResponse | None = None
    retry: Retry | None = None  # None = one try
    max_body: int = 0  # 0 = no limit
    listeners: tuple[str, ...] = ()  # names of the HTTP listeners that have it; () = all


class TcpRoute(Struct, frozen=True, array_like=True):
    """One TCP listener's pool."""

    name: str
    pool: str
    idle_timeout: float  # 0 = never
    send_proxy: int = 0  # version of the PROXY protocol towards backends; 0 = none
    rate_limits: tuple[RateLimit, ...] = ()  # connections; keys global and ip only
    server_limits: bool = True  # Snapshot.rate_limits apply, too


class SniRoute(Struct, frozen=True, array_like=True):
    """A route for connections whose TLS ClientHello names one of these servers; lower case, *.domain for all below."""

    names: tuple[str, ...]
    route: TcpRoute


class Certificate(Struct, frozen=True, array_like=True):
    """A certificate that a listener shows, contents, not files."""

    names: tuple[str, ...]  # of the certificate: DNS names (*.domain too) and IP addresses, lower case
    chain: str  # PEM, its own certificate first
    key: str  # PEM


class ListenerTls(Struct, frozen=True, array_like=True):
    """How TLS is terminated on a listener. ``digest`` is different when anything is."""

    digest: str
    certificates: tuple[Certificate, ...]  # the first is for clients that name no server, or an unknown one
    min_version: str = "1.2"  # 1.2 | 1.3
    client_auth: str = "none"  # none | optional | require
    client_ca: str = ""  # PEM; what certificates of clients must come from
    handshake_timeout: float = 10.0  # from accept, or from the end of the PROXY header, to the end of the handshake
    subject_header: str = ""  # HTTP: field that tells backends the subject of a client's certificate; "" = none


class Listener(Struct, frozen=True, array_like=True):
    """A bound address. ``id`` names its sockets on the channel; ``tcp`` is its route, None for an HTTP listener, or
    for one where ``sni`` decides and other names have no route."""

    id: str
    address: str
    tcp: TcpRoute | None = None
    accept_proxy: bool = False  # every connection begins with a PROXY header, from a trusted proxy
    name: str = ""  # in metrics and logs; "" = the id
    sni: tuple[SniRoute, ...] = ()  # by server name; ``tcp`` is then for all others
    tls: ListenerTls | None = None  # TLS ends here; None: plain, or passed through
    https_port: int = 0  # HTTP: every request is redirected (308) to https:// and this port; 0 = requests are served

    def label(self) -> str:
        """What metrics and logs call it: its route for TCP, if it is the only one, else its name."""
        return self.tcp.name if self.tcp is not None and not self.sni else self.name or self.id

    def tcp_routes(self) -> tuple[TcpRoute, ...]:
        """Every TCP route that connections can take here; none on an HTTP listener."""
        default = (self.tcp,) if self.tcp is not None else ()
        return (*(one.route for one in self.sni), *default)


class AccessLog(Struct, frozen=True, array_like=True):
    """Access lines: whether, in which format, which share of the requests."""

    enabled: bool
    format: str  # json | text
    sample: float
    timers: bool = False  # lines of requests say where the time went


class Decisions(Struct, frozen=True, array_like=True):
    """Which requests are recorded (dataplane/decisions), besides those that failed."""

    allow: tuple[str, ...] = ()  # networks of clients that may ask for it
    keep: int = 0  # records in this worker; 0 = none
    slow: float = 0.0  # a request that takes this long, seconds; 0 = off
    sample: float = 0.0  # share of all requests


class Tracing(Struct, frozen=True, array_like=True):
    """Traces of OpenTelemetry; where they go is the supervisor's business."""

    sample: float  # share of the requests without a parent
    trusted_only: bool = False  # only a trusted proxy's traceparent is a parent


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
    decisions: Decisions = Decisions()
    tracing: Tracing | None = None
