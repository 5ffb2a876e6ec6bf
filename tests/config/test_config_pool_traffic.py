"""Balancers, breakers, outlier ejection, caps: what may be written of a pool, and what is inherited."""

from __future__ import annotations

import attrs
import pytest
from config_loading import load, problems, server, told

from gogate_py.config.schema import Backend, LoadBalancer, Pool, Route, Server, inherited
from gogate_py.config.settings import settings_of
from gogate_py.config.traffic_values import FailureThreshold, Threshold
from gogate_py.policy.balancers import BALANCERS

BASE = "server: {httpListenAddr: ':1'%s}\npools: {p: {backends: ['a:1']%s}}\nroutes: [{pool: p}]"


def one_pool(of_server: str = "", of_pool: str = "") -> Pool:
    """The pool of a file with something more at server level and in the pool."""
    text = BASE % (of_server and ", " + of_server, of_pool and ", " + of_pool)
    return load(text).effective_pools()["p"]


@pytest.mark.parametrize(
    ("written", "balancer"),
    [("p2c", LoadBalancer("p2c")), ("{type: ewma}", LoadBalancer("ewma")), ("ip-hash", LoadBalancer("ip_hash")),
     ("consistent_hash", LoadBalancer("consistent_hash")),
     ("{type: consistent_hash, key: 'header:X-User'}", LoadBalancer("consistent_hash", "header:X-User")),
     ("{type: hash, key: path, balanceFactor: 0}", LoadBalancer("consistent_hash", "path", 0)),
     ("{type: consistent-hash, balance_factor: 1.5}", LoadBalancer("consistent_hash", "ip", 1.5))])
def test_a_balancer_is_a_name_or_a_mapping(written: str, balancer: LoadBalancer) -> None:
    """A name alone stands for the mapping without further keys."""
    assert load(server(f"loadBalancer: {written}")).server.load_balancer == balancer


def test_every_balancer_can_be_configured() -> None:
    """Each balancer that exists is accepted under its name."""
    for name in BALANCERS:
        assert load(server(f"loadBalancer: {name}")).server.load_balancer.type == name


@pytest.mark.parametrize(
    ("inside", "key", "message", "suggestion"),
    [("loadBalancer: fastest", "loadBalancer", "not a known value", ""),
     ("loadBalancer: {key: ip}", "loadBalancer", "type is required", ""),
     ("loadBalancer: [p2c]", "loadBalancer", "expected a mapping, not a list", ""),
     ("loadBalancer: {type: p2c, key: ip}", "loadBalancer.key", "belongs to consistent_hash, this is p2c", ""),
     ("loadBalancer: {type: ip_hash, key: ip}", "loadBalancer.key", "by the client's address", ""),
     ("loadBalancer: {type: p2c, balanceFactor: 2}", "loadBalancer.balanceFactor", "belongs to consistent_hash", ""),
     ("loadBalancer: {type: consistent_hash, key: hedder:X}", "loadBalancer.key", "is not a key", ""),
     ("loadBalancer: {type: consistent_hash, key: 'header:'}", "loadBalancer.key", "needs a name", ""),
     ("loadBalancer: {type: consistent_hash, key: 'jwt:sub'}", "loadBalancer.key", "no route has auth of type jwt", ""),
     ("loadBalancer: {type: consistent_hash, balanceFactor: 0.5}", "loadBalancer.balanceFactor", "neither 0 nor", ""),
     ("loadBalancer: {type: consistent_hash, balanceFactor: -1}", "loadBalancer.balanceFactor", "not a number", ""),
     ("loadBalancer: {type: consistent_hash, hashOn: path}", "loadBalancer.hashOn", "unknown key", "key"),
     ("lbPolicy: p2c", "lbPolicy", "unknown key", "loadBalancer"),
     ("outlierDetection: {}", "outlierDetection", "unknown key", "outlier"),
     ("outlier: {consecutive5xx: 0}", "outlier.consecutive5xx", "the least is 1", ""),
     ("outlier: {baseEjection: 0s}", "outlier.baseEjection", "the least is 1ms", ""),
     ("outlier: {maxEjectionPercent: 101%}", "outlier.maxEjectionPercent", "the most is 100", ""),
     ("outlier: {maxEjectionPercent: 0}", "outlier.maxEjectionPercent", "the least is 1", ""),
     ("outlier: {baseEjectionTime: 5s}", "outlier.baseEjectionTime", "unknown key", "baseEjection"),
     ("slowStart: 2h", "slowStart", "the most is 1h", ""),
     ("panicThreshold: 101", "panicThreshold", "the most is 100", ""),
     ("panicThreshold: 0.5", "panicThreshold", "not a whole number", ""),
     ("maxConnections: -1", "maxConnections", "the least is 0", ""),
     ("queueTimeout: 0s", "queueTimeout", "the least is 1ms", ""),
     ("circuitBreaker: {failureThreshold: 0}", "circuitBreaker.failureThreshold", "the least is 1", ""),
     ("circuitBreaker: {failureThreshold: 0%}", "circuitBreaker.failureThreshold", "percentage above 0%", ""),
     ("circuitBreaker: {failureThreshold: 101%}", "circuitBreaker.failureThreshold", "up to 100%", ""),
     ("circuitBreaker: {failureThreshold: half}", "circuitBreaker.failureThreshold", "not a whole number", ""),
     ("circuitBreaker: {minRequests: 10}", "circuitBreaker.minRequests", "inherited or the default", ""),
     ("circuitBreaker: {failureThreshold: 50, minRequests: 10}", "circuitBreaker.minRequests", '"50%"', ""),
     ("circuitBreaker: {failureThreshold: 5, window: 10s}", "circuitBreaker.window", "leave window out", ""),
     ("circuitBreaker: {failureThreshold: 9%, minRequests: 0}", "circuitBreaker.minRequests", "the least is 1", ""),
     ("circuitBreaker: {failureThreshold: 9%, window: 2h}", "circuitBreaker.window", "the most is 1h", ""),
     ("circuitBreaker: {timeout: 9s, maxTimeout: 8s}", "circuitBreaker.maxTimeout", "shorter than timeout", ""),
     ("circuitBreaker: {failureStatuses: 399-500}", "circuitBreaker.failureStatuses", "from 400 to 599", ""),
     ("circuitBreaker: {failureStatuses: 5xx}", "circuitBreaker.failureStatuses", "not a list of statuses", ""),
     ("circuitBreaker: {openDurationSeconds: 5}", "circuitBreaker.openDurationSeconds", "unknown key", "timeout")])
def test_one_wrong_value_of_a_pool(inside: str, key: str, message: str, suggestion: str) -> None:
    """One mistake is one problem, at its key, with what was meant."""
    (problem,) = problems(server(inside))
    assert problem.key == f"server.{key}"
    assert problem.line == 4
    assert message in problem.message
    assert problem.suggestion == suggestion


@pytest.mark.parametrize(
    ("text", "threshold"),
    [("5", Threshold(5)), ("50%", Threshold(0, 0.5)), ("12.5 %", Threshold(0, 0.125)), ("100%", Threshold(0, 1.0))])
def test_a_threshold_is_a_count_or_a_percentage(text: str, threshold: Threshold) -> None:
    """The percent sign alone tells which is meant; a threshold that is shown reads as itself."""
    kind = FailureThreshold(1, 100)
    assert kind.parse(text, False) == threshold
    assert kind.parse(kind.show(threshold).strip('"'), False) == threshold


def test_a_percentage_has_its_defaults() -> None:
    """A percentage counts from 20 outcomes in 60 s on, unless told otherwise."""
    breaker = one_pool(of_pool='circuitBreaker: {failureThreshold: "50%"}').circuit_breaker
    assert (breaker.failure_threshold, breaker.min_requests, breaker.window) == (Threshold(0, 0.5), 20, 60)
    assert (breaker.failure_statuses, breaker.timeout, breaker.max_timeout) == ("500-599", 30, 300)
    breaker = one_pool(of_pool="circuitBreaker: {failureThreshold: 50%, minRequests: 5, window: 9s, "
                               "failureStatuses: '429,500-599', timeout: 1s, maxTimeout: 2s}").circuit_breaker
    assert (breaker.min_requests, breaker.window, breaker.failure_statuses) == (5, 9, "429,500-599")
    assert (breaker.timeout, breaker.max_timeout) == (1, 2)


def test_a_pool_may_replace_a_percentage_by_a_count() -> None:
    """What the server says of percentages is not in the way of a pool with a count, nor the other way round."""
    of_server = "circuitBreaker: {failureThreshold: 50%, minRequests: 7}"
    assert one_pool(of_server, "circuitBreaker: {failureThreshold: 3}").circuit_breaker.failure_threshold.count == 3
    assert one_pool(of_server, "circuitBreaker: {minRequests: 9}").circuit_breaker.min_requests == 9
    (message,) = told(BASE % ("", ", circuitBreaker: {minRequests: 9}"))
    assert message.startswith("pools.p.circuitBreaker.minRequests: goes with a percentage")


def test_a_long_timeout_needs_no_longest_one() -> None:
    """The default of maxTimeout is not in the way of a longer timeout."""
    assert told(server("circuitBreaker: {timeout: 10m}")) == []


def test_pools_inherit_everything_of_traffic() -> None:
    """Each setting that a pool leaves out is the server's; groups key by key, the balancer as a whole."""
    of_server = ("loadBalancer: {type: consistent_hash, key: path}, outlier: {enabled: true, baseEjection: 9s}, "
                 "slowStart: 8s, panicThreshold: 40%, maxConnections: 7, queueTimeout: 6s")
    plain = one_pool(of_server)
    assert plain.load_balancer == LoadBalancer("consistent_hash", "path")
    assert (plain.outlier.enabled, plain.outlier.base_ejection, plain.outlier.consecutive_5xx) == (True, 9, 5)
    assert (plain.slow_start, plain.panic_threshold, plain.max_connections, plain.queue_timeout) == (8, 40, 7, 6)
    own = one_pool(of_server, "loadBalancer: consistent_hash, outlier: {consecutive5xx: 2}, slowStart: 0, "
                              "panicThreshold: 0, maxConnections: 0, queueTimeout: 1s")
    assert own.load_balancer == LoadBalancer("consistent_hash", "ip")
    assert (own.outlier.enabled, own.outlier.base_ejection, own.outlier.consecutive_5xx) == (True, 9, 2)
    assert (own.slow_start, own.panic_threshold, own.max_connections, own.queue_timeout) == (0, 0, 0, 1)


def test_the_short_forms_pool_and_route_are_the_servers() -> None:
    """The pool default and its catch-all have every default of the server that a pool or route would inherit."""
    config = load(server(
        "loadBalancer: p2c\n  maxConnections: 3\n  outlier: {enabled: true}\n  slowStart: 2s\n"
        "  auth: {type: api_key, keys: {ci: %s}}\n  cors: {allowOrigins: [https://a.com]}\n"
        "  cache: {enabled: true}\n  requestHeaders: {remove: [X-A]}\n  responseHeaders: {remove: [X-B]}\n"
        "  forwardAuth: {url: 'http://127.0.0.1:1/'}\n  retry: {attempts: 3}\n  limits: {requestBody: 9}" % ("a" * 64)))
    (pool,), (route,) = config.effective_pools().values(), config.effective_routes()
    for cls, made in ((Pool, pool), (Route, route)):
        for name, value in inherited(cls, config.server).items():
            assert getattr(made, name) == value, name
    assert (pool.load_balancer.type, pool.max_connections, pool.slow_start) == ("p2c", 3, 2)
    assert route.auth is not None
    assert route.auth.api_keys == (("ci", "a" * 64),)
    assert (route.limits.request_body, route.retry.attempts) == (9, 3)
    assert None not in (route.cors, route.cache, route.request_headers, route.response_headers, route.forward_auth)


def test_what_is_inherited_is_there_at_server_level() -> None:
    """Every setting that a pool or route inherits is one of the server, by the same name and key; but for TLS to
    backends, because the server's tls is that of its own listeners."""
    keys = {named.attribute: named.key for named in settings_of(Server)}
    for cls in (Pool, Route):
        for named in settings_of(cls):
            if named.setting.inherits:
                assert keys[named.attribute] == {"tls": "backendTLS"}.get(named.key, named.key)


def test_backups() -> None:
    """A backend may be a backup; a pool of nothing else has no one to stand in for."""
    config = load("server: {listenAddr: ':1', backends: ['a:1', {addr: 'b:1', backup: true}]}")
    assert config.server.backends == (Backend("a:1"), Backend("b:1", backup=True))
    text = "server: {listenAddr: ':1', backends: [{addr: 'b:1', backup: true}], registry: {enabled: %s}}"
    assert told(text % "true") == []
    (message,) = told(text % "false")
    assert message.startswith("server.backends[0].backup: every backend")


def test_a_pools_key_needs_a_route_that_has_it() -> None:
    """A hash key of an identity is possible where a route to the pool verifies one."""
    jwt = ", auth: {type: jwt, secret: %s, issuer: i, audience: a}" % ("s" * 32)
    text = ("server: {httpListenAddr: ':1'}\npools: {p: {backends: ['a:1'], loadBalancer: {type: consistent_hash, "
            "key: '%s'}}}\nroutes: [{pool: p%s}]")
    assert told(text % ("jwt:sub", jwt)) == []
    assert told(text % ("user", jwt)) == []
    (message,) = told(text % ("jwt:sub", ""))
    assert message == ("pools.p.loadBalancer.key: jwt:sub is known of authenticated requests only, and no route to "
                       "this pool has auth of type jwt")
    (message,) = told(text % ("basic:username", jwt))
    assert message.endswith("auth of type basic")


def test_every_class_compares_by_value() -> None:
    """Groups with mappings in them are values like the others."""
    assert attrs.evolve(Pool("a"), slow_start=1.0) == Pool("a", slow_start=1.0) != Pool("a")
