"""Compiler: configuration + registered instances + what is known of addresses and health → Snapshot. Pure.

The only place where they meet. Members of a pool are its own backends and the instances that join it (by service name
and all of the pool's tags; without ``pools:`` in the file every instance joins "default"). One address is one backend
in a pool: the file's entry wins over a registration, an earlier registration over a later one; the others are kept as
further ids of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from ipaddress import ip_address

from attrs import evolve, field, frozen
from msgspec.msgpack import encode
from msgspec.structs import replace

from gogate_py.addresses import Address, parse
from gogate_py.config import schema
from gogate_py.config.certificates import facts
from gogate_py.config.listeners import DataListener, data_listeners
from gogate_py.config.names import status_ranges
from gogate_py.controlplane.overrides import Overrides
from gogate_py.controlplane.registry import Registration
from gogate_py.controlplane.route_compiler import LimitRows, http_route, identity_fields, rate_limits, timeouts
from gogate_py.controlplane.rows import Key
from gogate_py.snapshot import (
    AccessLog,
    Backend,
    BackendState,
    BackendTls,
    Breaker,
    Certificate,
    Decisions,
    HeadRules,
    HttpTransport,
    Limits,
    Listener,
    ListenerTls,
    Outlier,
    Pool,
    Snapshot,
    SniRoute,
    TcpPool,
    TcpRoute,
    Tracing,
)


@frozen
class Member:
    """One backend of one pool. ``ids`` are the registrations that stand behind it; none for a backend of the file."""

    pool: str
    address: Address
    text: str
    weight: int
    from_file: bool
    backup: bool = False
    ids: tuple[str, ...] = field(default=())
    # the name that its certificate must have; "" = plain TCP
    tls_name: str = ""

    @property
    def key(self) -> Key:
        """Its identity over snapshots."""
        return (self.pool, self.text)


def members(config: schema.Config, instances: Sequence[Registration]) -> dict[str, list[Member]]:
    """Every pool's backends, the file's first, then instances in order of registration."""
    result: dict[str, list[Member]] = {}
    for name, pool in config.effective_pools().items():
        found: dict[Address, Member] = {}
        ids: dict[Address, list[str]] = {}
        for backend in pool.backends:
            address = _parse(backend.addr)
            secure = _tls_name(pool.backend_tls, address, backend.tls)
            member = Member(name, address, str(address), backend.weight, True, backend.backup, tls_name=secure)
            found.setdefault(_place(address), member)
        for instance in instances:
            if not joins(config, pool, instance):
                continue
            address = _parse(instance.address)
            place = _place(address)
            if place not in found:
                secure = _tls_name(pool.backend_tls, address, False)
                found[place] = Member(name, address, instance.address, instance.weight, False, tls_name=secure)
            ids.setdefault(place, []).append(instance.id)
        result[name] = [
            evolve(member, ids=tuple(ids[place])) if place in ids else member for place, member in found.items()
        ]
    return result


def _tls_name(tls: schema.BackendTls, address: Address, asked: bool) -> str:
    """What the certificate of a backend must be for; "" without TLS. ``asked``: its own address asks for it."""
    if not (tls.enabled or asked):
        return ""
    # A Unix socket without serverName is one whose certificate is not verified.
    return tls.server_name or address.host.lower().removesuffix(".") or "localhost"


@lru_cache(maxsize=256)
def backend_tls(tls: schema.BackendTls) -> BackendTls:
    """What the pool's settings are for who connects."""
    parts = (tls.authorities, tls.certificate, tls.key, not tls.insecure_skip_verify)
    return BackendTls(sha256(repr(parts).encode()).hexdigest(), *parts)


@lru_cache(maxsize=32768)
def _parse(text: str) -> Address:
    """Addresses were checked when they came; with thousands of instances each recompile would parse them all again."""
    return parse(text, need_host=True)


@lru_cache(maxsize=32768)
def _place(address: Address) -> Address:
    """An address as it is compared: names have no case, and IPv6 addresses one spelling."""
    if ":" in address.host:
        return Address(str(ip_address(address.host)), address.port)
    return Address(address.host.lower(), address.port, address.path)


def joins(config: schema.Config, pool: schema.Pool, instance: Registration) -> bool:
    """Whether an instance is a member of a pool: by name and tags, or any instance where the file has no pools."""
    if config.every_instance_joins_default:
        return True
    return instance.name == pool.service and (not pool.tags or set(pool.tags) <= set(instance.tags))


Endpoints = tuple[tuple[str, int], ...]

#: (name of a listener, its address) → the id of its sockets, which is another one after its address has changed.
ListenerIds = Callable[[str, str], str]


def default_listener_id(name: str, address: str) -> str:
    """The id of a listener whose address never changed: its name."""
    return name


def compile_snapshot(
    config: schema.Config,
    pool_members: Mapping[str, Sequence[Member]],
    rows: Mapping[Key, int],
    endpoints: Callable[[Member], Endpoints],
    state: Callable[[Member, int], BackendState],
    generation: int,
    workers: int,
    overrides: Overrides,
    limit_rows: LimitRows,
    secret: bytes,
    listener_id: ListenerIds = default_listener_id,
) -> Snapshot:
    """The snapshot of this moment. ``endpoints`` and ``state`` say what is known of a member; ``secret`` signs cookies.
    """
    server = config.server
    routes = config.effective_routes()
    pools = config.effective_pools()
    http_routes = tuple(
        http_route(route, limit_rows, overrides.split(route.name), secret, server.auth)
        for route in routes
        if route.type == "http"
    )
    listeners = tuple(_listener(one, limit_rows, listener_id) for one in data_listeners(config))
    identity = {name.lower() for name in server.identity_headers} | set(identity_fields(http_routes))
    # On every listener: a backend cannot tell by which one a request came.
    identity |= {one.tls.subject_header.lower() for one in listeners if one.tls is not None and one.tls.subject_header}
    traces = config.tracing
    return Snapshot(
        generation=generation,
        listeners=listeners,
        pools=tuple(
            _pool(pools[name], found, rows, endpoints, state, server.limits.pending_per_backend, workers, overrides)
            for name, found in pool_members.items()
        ),
        http_routes=http_routes,
        limits=_limits(server),
        timeouts=timeouts(server.timeouts),
        access_log=_access_log(config.logging),
        log_level=config.logging.level,
        log_format=config.logging.format,
        trusted_proxies=server.trusted_proxies,
        rate_limits=rate_limits(server.rate_limit, "server", limit_rows),
        head_rules=HeadRules(
            server.header_names,
            tuple(sorted(identity)),
            server.path_policy == "escaped_slashes",
            tuple(name.lower() for name in server.forward_trailers),
        ),
        tracing=Tracing(traces.sample, traces.parents == "trusted") if traces.enabled else None,
        decisions=Decisions(server.trace.allow_cidrs, server.trace.keep, server.trace.slow, server.trace.sample),
    )


def _access_log(logging: schema.Logging) -> AccessLog:
    access = logging.access
    return AccessLog(access.enabled, logging.format, access.sample, access.timers)


def limit_identities(config: schema.Config) -> set[str]:
    """Every rate limit of a configuration, by its identity (see route_compiler.rate_limits)."""
    found: set[str] = set()

    def note(identity: str) -> int:
        found.add(identity)
        return 0

    rate_limits(config.server.rate_limit, "server", note)
    for route in config.effective_routes():
        rate_limits(route.rate_limit, f"route/{route.name}", note)
    return found


_PROXY_VERSIONS = {"none": 0, "v1": 1, "v2": 2}


def listener_addresses(config: schema.Config) -> dict[str, str]:
    """Name of each listener of the data plane → its address as configured."""
    return {one.id: one.address for one in data_listeners(config)}


def listener_rules(config: schema.Config) -> dict[str, str]:
    """Name of each listener that terminates TLS → what it asks of clients. Those who came under other rules have to
    come again: a client that was let in without a certificate is not one that may stay."""
    found = {}
    for one in data_listeners(config):
        if one.tls is not None:
            tls = _listener_tls(one.tls, one.http)
            asked = (tls.min_version, tls.client_auth, tls.client_ca, tls.subject_header)
            found[one.id] = sha256(repr(asked).encode()).hexdigest()
    return found


def _listener(one: DataListener, limit_rows: LimitRows, listener_id: ListenerIds) -> Listener:
    return Listener(
        listener_id(one.id, one.address),
        one.address,
        _tcp_route(one.default, limit_rows) if one.default is not None else None,
        one.accept_proxy_protocol,
        one.id,
        tuple(SniRoute(route.sni, _tcp_route(route, limit_rows)) for route in one.named),
        _listener_tls(one.tls, one.http) if one.tls is not None else None,
        one.https_port,
    )


def _listener_tls(tls: schema.ListenerTls, http: bool) -> ListenerTls:
    """What a listener's settings are for who accepts; the digest tells two of them apart."""
    found = ListenerTls(
        "",
        tuple(Certificate(facts(one.chain).names, one.chain, one.key) for one in tls.certificates),
        tls.min_version,
        tls.client_auth,
        tls.authorities if tls.client_auth != "none" else "",
        tls.handshake_timeout,
        tls.client_subject_header if http and tls.client_auth != "none" else "",
    )
    return replace(found, digest=sha256(encode(found)).hexdigest())


def _tcp_route(route: schema.Route, limit_rows: LimitRows) -> TcpRoute:
    return TcpRoute(
        route.name,
        route.pool,
        route.idle_timeout,
        _PROXY_VERSIONS[route.send_proxy_protocol],
        rate_limits(route.rate_limit, f"route/{route.name}", limit_rows),
        not route.exempt,
    )


def _pool(
    pool: schema.Pool,
    found: Sequence[Member],
    rows: Mapping[Key, int],
    endpoints: Callable[[Member], Endpoints],
    state: Callable[[Member, int], BackendState],
    pending: int,
    workers: int,
    overrides: Overrides,
) -> Pool:
    transport, breaker, ready, outlier = pool.http_transport, pool.circuit_breaker, pool.tcp_pool, pool.outlier

    def weight(one: Member) -> int:
        override = overrides.weight(one.key)
        return one.weight if override is None else override.value

    return Pool(
        name=pool.name,
        balancer=pool.load_balancer.type,
        backends=tuple(
            Backend(
                rows[one.key],
                one.text,
                endpoints(one),
                weight(one),
                state(one, rows[one.key]),
                one.backup,
                one.tls_name,
            )
            for one in found
        ),
        transport=HttpTransport(
            transport.max_idle_conns_per_host,
            transport.max_conns_per_host,
            pending,
            transport.idle_conn_timeout,
            transport.max_lifetime,
            transport.dial_timeout,
        ),
        breaker=_breaker(breaker) if breaker.enabled else None,
        # The file says how many in all; each worker keeps its share.
        tcp_pool=TcpPool(max(1, ready.max_idle // workers), ready.idle_timeout, ready.max_lifetime)
        if ready.enabled
        else None,
        hash_key=pool.load_balancer.key,
        balance_factor=pool.load_balancer.balance_factor,
        outlier=Outlier(outlier.consecutive_5xx, outlier.base_ejection, outlier.max_ejection_percent)
        if outlier.enabled
        else None,
        slow_start=pool.slow_start,
        panic_threshold=pool.panic_threshold,
        max_connections=pool.max_connections,
        queue_timeout=pool.queue_timeout,
        tls=backend_tls(pool.backend_tls) if any(one.tls_name for one in found) else None,
    )


def _breaker(breaker: schema.CircuitBreaker) -> Breaker:
    by_ratio = breaker.failure_threshold.ratio > 0
    return Breaker(
        breaker.failure_threshold.count,
        breaker.success_threshold,
        breaker.half_open_requests,
        breaker.timeout,
        breaker.max_timeout,
        breaker.failure_threshold.ratio,
        breaker.min_requests if by_ratio else 0,
        breaker.window,
        status_ranges(breaker.failure_statuses),
    )


def _limits(server: schema.Server) -> Limits:
    limits = server.limits
    return Limits(
        limits.request_line,
        limits.request_head,
        limits.request_fields,
        limits.request_body,
        limits.response_head,
        limits.response_fields,
        limits.connections,
        limits.in_flight,
        limits.methods,
        limits.connections_per_client,
        server.max_memory,
    )
