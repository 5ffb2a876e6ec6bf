"""Compiler: configuration, instances and states become a snapshot."""

from __future__ import annotations

import pytest

from gogate_py.config.loader import load_text
from gogate_py.config.schema import Config
from gogate_py.controlplane.compiler import Member, compile_snapshot, listener_addresses, members
from gogate_py.controlplane.overrides import Overrides
from gogate_py.controlplane.registry import Registration
from gogate_py.controlplane.rows import LimitRows
from gogate_py.messages import Configure, decode_down, encode
from gogate_py.snapshot import (
    BackendState,
    Breaker,
    HttpTransport,
    Listener,
    Pool,
    RateLimit,
    Snapshot,
    TcpPool,
    TcpRoute,
    Tracing,
)

SHORT = """
server:
  listenAddr: ":8080"
  httpListenAddr: ":8081"
  backends: [{addr: "localhost:9001", weight: 2}, "10.0.0.2:9002"]
  loadBalancer: weighted
"""
LONG = """
server:
  httpListenAddr: "127.0.0.1:8081"
  health: {interval: 7s}
  circuitBreaker: {enabled: true, failureThreshold: 4, successThreshold: 2, halfOpenRequests: 3, timeout: 9s}
  tcpPool: {enabled: true, maxIdle: 9, idleTimeout: 8s, maxLifetime: 1m}
  httpTransport: {maxIdleConnsPerHost: 5, maxConnsPerHost: 6, idleConnTimeout: 7s, maxLifetime: 8s, dialTimeout: 1s}
  rateLimit: {enabled: true, rate: 50, per: 2s, burst: 7}
  limits: {pendingPerBackend: 11, requestBody: 1MiB, methods: [GET]}
  timeouts: {request: 5s, responseHeader: 6s}
  trustedProxies: [10.0.0.0/8]
  headerNames: reject
pools:
  v1: {backends: ["10.0.0.1:80"], service: api, tags: [v1]}
  v2: {service: api, tags: [v2, eu], loadBalancer: p2c, circuitBreaker: {enabled: false}, tcpPool: {enabled: false}}
  web: {}
  pg: {backends: ["10.0.0.9:5432"]}
routes:
  - {name: api, pool: v1, match: {host: api.example.com, pathPrefix: /api, methods: [GET]}, timeouts: {request: 30s}}
  - {name: item, pool: v2, match: {path: "/items/{id}"}, websocket: false}
  - {name: pg, type: tcp, listenAddr: ":5432", pool: pg, idleTimeout: 10m}
logging: {level: warn, format: text, access: {enabled: false, sample: 0.5}}
"""


def config(text: str) -> Config:
    return load_text(text, "config.yaml", {})


def instance(name: str, address: str, *tags: str, weight: int = 1, identity: str = "") -> Registration:
    return Registration(identity or f"{name}@{address}", name, address, tags, {}, weight, 30.0, "", 0.0, 0.0)


def keys(found: dict[str, list[Member]]) -> dict[str, list[str]]:
    return {name: [member.text for member in pool] for name, pool in found.items()}


def compiled(text: str, *instances: Registration, workers: int = 2) -> Snapshot:
    loaded = config(text)
    found = members(loaded, instances)
    rows = {member.key: row for row, member in enumerate(one for pool in found.values() for one in pool)}
    return compile_snapshot(
        loaded,
        found,
        rows,
        lambda member: ((member.address.host, member.address.port),),
        lambda _, row: BackendState(row, row != 1, False, "" if row != 1 else "refused"),
        7,
        workers,
        Overrides(lambda: 0.0),
        LimitRows(),
        b"s" * 32,
    )


def pools(snapshot: Snapshot) -> dict[str, Pool]:
    return {pool.name: pool for pool in snapshot.pools}


# --- who is in which pool


def test_the_short_form_takes_every_instance() -> None:
    """Without pools, instances of any name and tags join the pool named default, after the file's backends."""
    found = members(config(SHORT), [instance("api", "10.0.0.3:80"), instance("db", "10.0.0.4:80", "x")])
    assert keys(found) == {"default": ["localhost:9001", "10.0.0.2:9002", "10.0.0.3:80", "10.0.0.4:80"]}


def test_an_instance_joins_by_name_and_all_tags() -> None:
    """With pools, the service name must be the pool's and every tag of the pool must be the instance's."""
    found = members(
        config(LONG),
        [
            instance("api", "10.1.0.1:80", "v1"),
            instance("api", "10.1.0.2:80", "v2"),
            instance("api", "10.1.0.3:80", "v2", "eu", "more"),
            instance("api", "10.1.0.4:80", "v1", "v2", "eu"),
            instance("web", "10.1.0.5:80"),
            instance("v1", "10.1.0.6:80", "v1"),
            instance("other", "10.1.0.7:80"),
        ],
    )
    assert keys(found) == {
        "v1": ["10.0.0.1:80", "10.1.0.1:80", "10.1.0.4:80"],
        "v2": ["10.1.0.3:80", "10.1.0.4:80"],
        "web": ["10.1.0.5:80"],
        "pg": ["10.0.0.9:5432"],
    }


def test_one_address_is_one_backend_of_a_pool() -> None:
    """The file's entry wins and keeps its weight, then the earliest registration; further ids are kept."""
    found = members(
        config(SHORT),
        [
            instance("a", "10.0.0.2:9002", weight=9, identity="one"),
            instance("a", "10.0.0.7:80", weight=3, identity="two"),
            instance("b", "10.0.0.7:80", weight=5, identity="three"),
            instance("b", "LOCALHOST:9001", weight=5, identity="four"),
        ],
    )["default"]
    assert [(m.text, m.weight, m.from_file, m.ids) for m in found] == [
        ("localhost:9001", 2, True, ("four",)),
        ("10.0.0.2:9002", 1, True, ("one",)),
        ("10.0.0.7:80", 3, False, ("two", "three")),
    ]


def test_one_address_in_two_pools_is_two_backends() -> None:
    """A backend is an address in a pool: state and counters are per pool."""
    found = members(config(LONG), [instance("api", "10.1.0.4:80", "v1", "v2", "eu")])
    assert found["v1"][1].key != found["v2"][0].key


# --- the snapshot


def test_the_short_form_becomes_a_pool_and_two_listeners() -> None:
    """listenAddr and httpListenAddr are listeners of the pool default, with a catch-all HTTP route."""
    snapshot = compiled(SHORT)
    assert snapshot.generation == 7
    assert snapshot.listeners == (
        Listener("tcp:default-tcp", ":8080", TcpRoute("default-tcp", "default", 3600.0), name="tcp:default-tcp"),
        Listener("http:default", ":8081", name="http:default"),
    )
    assert [(route.name, route.pool, route.host, route.path_prefix) for route in snapshot.http_routes] == [
        ("default-http", "default", "", "")
    ]
    pool = pools(snapshot)["default"]
    assert pool.balancer == "weighted_round_robin"
    assert [(b.row, b.address, b.endpoints, b.weight) for b in pool.backends] == [
        (0, "localhost:9001", (("localhost", 9001),), 2),
        (1, "10.0.0.2:9002", (("10.0.0.2", 9002),), 1),
    ]
    assert pool.backends[1].state == BackendState(1, False, False, "refused")
    assert pool.breaker is None
    assert pool.tcp_pool is None
    assert snapshot.rate_limits == ()
    assert listener_addresses(config(SHORT)) == {"tcp:default-tcp": ":8080", "http:default": ":8081"}


def test_the_long_form_is_carried_over_whole() -> None:
    """Every setting of pools, routes, limits and logging reaches the snapshot; inherited ones too."""
    snapshot = compiled(LONG)
    found = pools(snapshot)
    assert list(found) == ["v1", "v2", "web", "pg"]
    assert found["v1"].breaker == Breaker(4, 2, 3, 9.0)
    assert found["v1"].transport == HttpTransport(5, 6, 11, 7.0, 8.0, 1.0)
    assert found["v2"].breaker is None
    assert found["v2"].tcp_pool is None
    assert found["v2"].balancer == "p2c"
    assert found["web"].backends == ()
    api, item = snapshot.http_routes
    assert (api.name, api.pool, api.host, api.path, api.path_prefix, api.methods, api.websocket) == (
        "api", "v1", "api.example.com", "", "/api", ("GET",), True)  # fmt: skip
    assert (api.timeouts.request, api.timeouts.response_header) == (30.0, 6.0)
    assert (item.path, item.websocket, item.timeouts.request) == ("/items/{id}", False, 5.0)
    assert snapshot.listeners == (
        Listener("tcp:pg", ":5432", TcpRoute("pg", "pg", 600.0), name="tcp:pg"),
        Listener("http:default", "127.0.0.1:8081", name="http:default"),
    )
    assert (snapshot.limits.request_body, snapshot.limits.methods) == (1 << 20, ("GET",))
    assert snapshot.timeouts.request == 5.0
    assert snapshot.rate_limits == (RateLimit(0, 50.0, 2.0, 7, name="token_bucket"),)
    assert (snapshot.trusted_proxies, snapshot.head_rules.header_names) == (("10.0.0.0/8",), "reject")
    assert (snapshot.log_level, snapshot.log_format) == ("warn", "text")
    access = snapshot.access_log
    assert (access.enabled, access.format, access.sample) == (False, "text", 0.5)


def test_ready_connections_are_shared_out() -> None:
    """tcpPool.maxIdle is for all workers; each has its share, and at least one."""
    shares = {workers: pools(compiled(LONG, workers=workers))["v1"].tcp_pool for workers in (1, 2, 64)}
    assert shares == {1: TcpPool(9, 8.0, 60.0), 2: TcpPool(4, 8.0, 60.0), 64: TcpPool(1, 8.0, 60.0)}


def test_a_snapshot_survives_the_channel() -> None:
    """What a worker decodes is what was compiled."""
    for text in (SHORT, LONG):
        snapshot = compiled(text, instance("api", "[::1]:80", "v1"))
        assert decode_down(encode(Configure(snapshot))) == Configure(snapshot)


@pytest.mark.parametrize(("settings", "expected"), [
    ("{enabled: false, parents: trusted}", None),
    ("{enabled: true, sample: 0.5}", Tracing(0.5)),
    ("{enabled: true, sample: 25%, parents: trusted}", Tracing(0.25, trusted_only=True)),
])  # fmt: skip
def test_traces(settings: str, expected: Tracing | None) -> None:
    """What workers know of them: nothing of collectors."""
    server = "server: {httpListenAddr: ':0', backends: ['127.0.0.1:9001']}"
    assert compiled(f"{server}\ntracing: {settings}\n").tracing == expected
