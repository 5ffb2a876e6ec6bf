"""From text to classes: spellings, inheritance, places, and every problem at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_loading import MINIMAL, PRODUCTION, load, problems, server, told
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gogate_py.config.loader import load_file, load_text
from gogate_py.config.schema import Backend, Config
from gogate_py.config.traffic_values import Threshold
from gogate_py.errors import ConfigError, StartError


def test_the_minimal_file_of_gogates_readme_runs_unchanged() -> None:
    """The first file a user of GoGate has means what it says."""
    config = load(MINIMAL)
    assert config.server.listen_addr == ":8080"
    assert config.server.http_listen_addr == ":8081"
    assert config.server.backends == (Backend("localhost:9001"), Backend("localhost:9002"))
    assert config.server.load_balancer.type == "round_robin"
    assert (config.logging.level, config.logging.format) == ("info", "json")


def test_the_production_file_of_gogates_readme_runs_unchanged() -> None:
    """Every value of the production file arrives."""
    config = load(PRODUCTION)
    read = config.server
    assert [backend.weight for backend in read.backends] == [5, 3, 1]
    assert read.load_balancer.type == "weighted_round_robin"
    assert (read.health.interval, read.health.timeout, read.health.check_type) == (10, 2, "http")
    (limit,) = read.rate_limit
    assert (limit.enabled, limit.rate, limit.burst) == (True, 1000, 100)
    assert (limit.per, limit.key_by, limit.algorithm) == (1, ("global",), "token_bucket")
    breaker = read.circuit_breaker
    assert (breaker.enabled, breaker.failure_threshold, breaker.success_threshold) == (True, Threshold(5), 2)
    assert breaker.timeout == 30
    assert (read.admin.listen_addr, read.metrics.listen_addr) == (":9090", ":9091")
    assert (read.tcp_pool.enabled, read.tcp_pool.max_idle, read.tcp_pool.idle_timeout) == (True, 10, 60)


def test_every_spelling_of_a_key_is_the_same_key() -> None:
    """camelCase, snake_case and kebab-case of every key, and the names of GoGate's code, mean the same."""
    camel = load("server: {httpListenAddr: ':1', registry: {defaultTTL: 9s, allowCIDRs: [10.0.0.0/8]}}")
    for text in (
        "server: {http_listen_addr: ':1', registry: {default_ttl: 9s, allow_cidrs: [10.0.0.0/8]}}",
        "server: {http-listen-addr: ':1', registry: {default-ttl: 9s, allow-cidrs: [10.0.0.0/8]}}",
        "server: {httpListenAddr: ':1', registry: {defaultTtl: 9s, allowCidrs: [10.0.0.0/8]}}",
        "server: {httpListenAddr: ':1', registry: {ttl: 9s, allowCIDRs: [10.0.0.0/8]}}",
    ):
        assert load(text) == camel
    aliased = load(
        "server: {listen: ':1', backends: [url: 'http://h:2'], admin: {listen: ':3'}, metrics: {listen: ':4'}}")
    assert (aliased.server.listen_addr, aliased.server.backends) == (":1", (Backend("h:2"),))
    assert (aliased.server.admin.listen_addr, aliased.server.metrics.listen_addr) == (":3", ":4")


def test_backends_may_be_plain_addresses() -> None:
    """A backend is a mapping or just its address."""
    config = load("server: {listenAddr: ':1', backends: ['a:1', {addr: 'b:2', weight: 0}, {url: 'c:3'}]}")
    assert config.server.backends == (Backend("a:1"), Backend("b:2", 0), Backend("c:3"))


def test_logging_and_metrics_stand_in_either_place() -> None:
    """``logging`` and ``metrics`` mean the same at top level and under ``server``."""
    top = load("server: {listenAddr: ':1'}\nlogging: {level: warn}\nmetrics: {path: /m}")
    below = load("server: {listenAddr: ':1', logging: {level: warn}, metrics: {path: /m}}")
    assert top == below
    assert (top.logging.level, top.server.metrics.path) == ("warn", "/m")


def test_logging_and_metrics_in_both_places_are_refused() -> None:
    """Two places for one section would leave open which one counts."""
    text = "server: {listenAddr: ':1', logging: {}, metrics: {}}\nlogging: {}\nmetrics: {}"
    assert told(text) == ["server.logging: given already in line 2", "server.metrics: given already in line 3"]


def test_problems_of_a_moved_section_have_its_place() -> None:
    """A problem is told with the path under which the section was written."""
    (first, second) = problems("server: {listenAddr: ':1', logging: {level: x}}\nmetrics: {listenAddr: x}")
    assert (first.key, first.line) == ("server.logging.level", 1)
    assert (second.key, second.line) == ("metrics.listenAddr", 2)


def test_pools_inherit_from_the_server_key_by_key() -> None:
    """What a pool leaves out it takes from the server, each key on its own."""
    config = load(
        """
        server:
          httpListenAddr: ":1"
          loadBalancer: random
          health: {interval: 9s, timeout: 8s}
          circuitBreaker: {enabled: true, timeout: 7s}
        pools:
          plain: {backends: ["a:1"]}
          own: {backends: ["a:1"], loadBalancer: p2c, health: {timeout: 1s}, circuitBreaker: {enabled: false}}
        routes: [{pool: plain}]
        """)
    plain, own = config.pools["plain"], config.pools["own"]
    assert plain.load_balancer.type == "random"
    assert (plain.health, plain.tcp_pool) == (config.server.health, config.server.tcp_pool)
    assert (own.load_balancer.type, own.health.interval, own.health.timeout) == ("p2c", 9, 1)
    assert (own.circuit_breaker.enabled, own.circuit_breaker.timeout) == (False, 7)
    assert own.name == "own"


def test_inheritance_sees_overrides_of_the_environment() -> None:
    """A pool inherits what the environment set at server level."""
    config = load(
        "server: {httpListenAddr: ':1'}\npools: {a: {backends: ['a:1']}}\nroutes: [{pool: a}]",
        {"GOGATE_SERVER_HEALTH_INTERVAL": "7s"})
    assert config.pools["a"].health.interval == 7


def test_routes_inherit_timeouts_key_by_key() -> None:
    """A route's timeouts are the server's but for those it sets."""
    config = load(
        "server: {httpListenAddr: ':1', backends: ['a:1'], timeouts: {idle: 5s}}\n"
        "routes: [{match: {path: /a}, pool: default, timeouts: {request: 3s}}]")
    (route,) = config.routes
    assert (route.timeouts.idle, route.timeouts.request, route.timeouts.body_idle) == (5, 3, 60)
    assert config.server.timeouts.request == 0


def test_routes_without_names_are_numbered() -> None:
    """A route's name is its place in the list, unless it has one."""
    config = load(
        "server: {httpListenAddr: ':1'}\nroutes: [{match: {path: /a}, pool: default}, {name: x, pool: default}]")
    assert [route.name for route in config.routes] == ["route-1", "x"]


def test_anchors_and_merge_keys_work() -> None:
    """Aliases repeat a value, ``<<`` merges mappings, and a mapping's own keys win."""
    config = load(
        """
        server: {httpListenAddr: ":1"}
        pools:
          a: &a {backends: ["a:1"], health: &h {interval: 9s, timeout: 8s}}
          b: {<<: *a, backends: ["b:1"], health: {<<: [*h, {httpPath: /x}], timeout: 1s}}
        routes: [{pool: a}]
        """)
    assert config.pools["b"].backends == (Backend("b:1"),)
    health = config.pools["b"].health
    assert (health.interval, health.timeout, health.http_path) == (9, 1, "/x")


def test_a_mapping_that_contains_itself_ends() -> None:
    """A recursive alias is read as far as the schema goes."""
    assert "server.admin.admin: unknown key" in told("server: &a {listenAddr: ':1', admin: *a}")
    assert told("server: &a {listenAddr: ':1', <<: *a}") == []


def test_an_empty_section_is_its_defaults() -> None:
    """A section whose keys are all commented out is there with its defaults."""
    assert load("server:\n  listenAddr: ':1'\n  health:\n  backends:\npools:\nroutes:\nlogging:\n") == load(
        "server: {listenAddr: ':1'}")


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [("", 1, 1, "the file is empty"),
     ("# nothing\n", 1, 1, "the file is empty"),
     ("---\n", 1, 1, "the file is empty"),
     ("server", 1, 1, "expected a mapping, not a single value"),
     ("\n- a\n", 2, 1, "expected a mapping, not a list"),
     ("server:\n\tlisten: x", 2, 1, "indent with spaces, not tabs"),
     ("a: [1,2\nb: c", 2, 2, "not valid YAML"),
     ("server: *x", 1, 9, "undefined alias"),
     ("server: {listenAddr: ${PORT}}", 1, 23, "in quotes"),
     ("server: {listenAddr: ':1'}\n---\nserver: {}", 2, 1, "one YAML document"),
     ("a: 1\nb: \x07", 2, 4, "U+0007"),
     ("[" * 10000, 1, 51, "nested deeper"),
     ("server: " + "{a: " * 10000, 1, 205, "nested deeper")])
def test_what_is_no_configuration_at_all(text: str, line: int, column: int, message: str) -> None:
    """A text that is empty, not YAML or not a mapping has exactly one problem, with its place."""
    (problem,) = problems(text)
    assert (problem.line, problem.column) == (line, column)
    assert message in problem.message


@pytest.mark.parametrize(
    ("inside", "column", "key", "message", "suggestion"),
    [("wrokers: 1", 3, "server.wrokers", "unknown key", "workers"),
     ("listen_adr: ':1'", 3, "server.listen_adr", "unknown key", "listenAddr"),
     ("http2: true", 3, "server.http2", "unknown key", ""),
     ("health: {intervall: 1s}", 12, "server.health.intervall", "unknown key", "interval"),
     ("health: {interval: 1x}", 22, "server.health.interval", "'1x' is not a duration", ""),
     ("health: [1]", 11, "server.health", "expected a mapping, not a list", ""),
     ("health: tcp", 11, "server.health", "expected a mapping, not a single value", ""),
     ("workers: [1]", 12, "server.workers", "expected a single value, not a list", ""),
     ("workers:", 11, "server.workers", "has no value", ""),
     ("workers: ~", 12, "server.workers", "has no value", ""),
     ("workers: !!python/name:os.system x", 12, "server.workers", "tagged !!python/name:os.system", ""),
     ("health: !env {}", 11, "server.health", "tagged !env", ""),
     ("loadBalancer: round_robbin", 17, "server.loadBalancer", "not a known value", "round_robin"),
     ('registry: {store: "redis://h:6379/0"}', 21, "server.registry.store", "not supported yet", ""),
     ('registry: {store: "file://var/x"}', 21, "server.registry.store", "absolute path", ""),
     ('registry: {store: "/var/x"}', 21, "server.registry.store", "absolute path", "file:///var/x"),
     ("registry: {defaultTTL: 301s}", 26, "server.registry.defaultTTL", "the most is 5m", ""),
     ("registry: {defaultTTL: 500ms}", 26, "server.registry.defaultTTL", "the least is 1s", ""),
     ("trustedProxies: 10.0.0.0/8", 19, "server.trustedProxies", "expected a list, not a single value", ""),
     ("trustedProxies: [10.0.0.0/8, 10.0.0.0/8]", 32, "server.trustedProxies[1]", "in the list twice", ""),
     ("trustedProxies: [{a: b}]", 20, "server.trustedProxies[0]", "expected a single value, not a mapping", ""),
     ("health: {unhealthyThreshold: 0}", 32, "server.health.unhealthyThreshold", "the least is 1", ""),
     ("health: {interval: 0s}", 22, "server.health.interval", "the least is 10ms", ""),
     ("timeouts: {idle: -1s}", 20, "server.timeouts.idle", "cannot be negative", ""),
     ("health: {enabled: yes}", 21, "server.health.enabled", "neither true nor false", "true"),
     ('health: {enabled: "true"}', 21, "server.health.enabled", "text because of the quotes", "true"),
     ('admin: {token: "a b"}', 18, "server.admin.token", "visible ASCII", "")])
def test_one_wrong_value(inside: str, column: int, key: str, message: str, suggestion: str) -> None:
    """One mistake is one problem, at its place, with what was meant."""
    (problem,) = problems(server(inside))
    assert (problem.line, problem.column, problem.key) == (4, column, key)
    assert message in problem.message
    assert problem.suggestion == suggestion


def test_an_unknown_key_lists_the_known_ones() -> None:
    """The keys that are possible are listed in their canonical spelling."""
    (problem,) = problems(server("admin: {lisen: x}"))
    assert problem.allowed == ("enabled", "listenAddr", "token", "allowedHosts")


@pytest.mark.parametrize(
    "text",
    ["server: {listenAddr: ':1', listenAddr: ':2'}", "server: {listenAddr: ':1', listen_addr: ':1'}",
     "server: {listenAddr: ':1', listen: ':1'}", "server: {listenAddr: ':1'}\nserver: {}",
     "server: {listenAddr: ':1', backends: [{addr: 'a:1', url: 'a:1'}]}",
     "server: {httpListenAddr: ':1'}\npools: {a: {backends: ['a:1']}, a: {}}\nroutes: [{pool: a}]"])
def test_a_key_given_twice_is_refused(text: str) -> None:
    """A key may be given once, in one of its spellings; YAML itself would let the last one win silently."""
    (problem,) = problems(text)
    assert "given already" in problem.message


def test_every_problem_is_reported_at_once_in_the_order_of_the_file() -> None:
    """Problems of every sort come together, each with its place."""
    found = problems(
        """\
        server:
          listenAddr: 8080
          loadBalncer: random
          slowStart: -1s
          health: {timeout: soon}
          backends:
            - {adr: "a:1"}
            - "b:2"
            - "B:2"
        routes:
          - {match: {host: "a:80"}, pool: nowhere}
        """)
    assert [(problem.line, problem.key) for problem in found] == [
        (2, "server.listenAddr"), (3, "server.loadBalncer"), (4, "server.slowStart"), (5, "server.health.timeout"),
        (7, "server.backends[0].adr"), (9, "server.backends[2].addr"), (11, "routes[0]"), (11, "routes[0].match.host"),
        (11, "routes[0].pool")]


def test_a_file_that_cannot_be_read_is_a_start_error(tmp_path: Path) -> None:
    """A missing file, a folder and a device without end are one line each."""
    for path in (str(tmp_path / "none.yaml"), str(tmp_path), "/dev/zero"):
        with pytest.raises(StartError, match="cannot read"):
            load_file(path, {})


def test_a_file_is_utf_8_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    """A byte order mark is let pass; what is not UTF-8 is a problem at its place."""
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xef\xbb\xbfserver: {listenAddr: ':1'}\r\n")
    assert load_file(str(path), {}).server.listen_addr == ":1"
    path.write_bytes(b"\xef\xbb\xbfsrver: {}")
    with pytest.raises(ConfigError) as caught:
        load_file(str(path), {})
    assert str(caught.value.problems[0]).startswith(f"{path}:1:1: srver: unknown key")
    path.write_bytes(b"server:\n  a: \xc3\xa4 \xff\n")
    with pytest.raises(ConfigError) as caught:
        load_file(str(path), {})
    (problem,) = caught.value.problems
    assert str(problem) == f"{path}:2:8: not UTF-8: byte 0xff"


FRAGMENTS = st.sampled_from(
    ["server", "listenAddr", "pools", "routes", "backends", "match", "health", ": ", ":1", "a:1", "- ", "\n", "\n  ",
     "\n    ",
     "{", "}", "[", "]", ", ", "'", '"', "&a ", "*a", "<<: ", "${X}", "!t ", "#", "? ", "| ", "~", "5", "true", "\t",
     "é", "\x00"])


@settings(max_examples=150)
@given(st.lists(FRAGMENTS, max_size=25).map("".join))
@example("server: {backends: [&a {addr: *a}]}")
@example("? {a: b}\n: c")
def test_any_text_is_a_configuration_or_has_problems(text: str) -> None:
    """Whatever the text, the answer is a Config, or problems whose places are in the text."""
    found = problems(text)
    assert found or isinstance(load_text(text, "x", {}), Config)
    for problem in found:
        assert problem.message
        assert 1 <= problem.line <= text.count("\n") + 2
        assert problem.render()


@settings(max_examples=100)
@given(st.integers(0, len(PRODUCTION) - 1), st.integers(0, 8), FRAGMENTS)
def test_a_damaged_file_never_breaks_the_loader(at: int, length: int, fragment: str) -> None:
    """A good file with any piece replaced loads or has problems."""
    text = PRODUCTION[:at] + fragment + PRODUCTION[at + length :]
    for problem in problems(text):
        assert problem.render().startswith("test.yaml:")
