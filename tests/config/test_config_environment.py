"""Variables in values, and variables that override values."""

from __future__ import annotations

import pytest
from config_loading import load, problems, server, told
from hypothesis import given
from hypothesis import strategies as st

from gogate_py.config.environment import expand, unknown_overrides
from gogate_py.config.values import BadValue

ENVIRON = {"HOST": "db", "PORT": "5432", "EMPTY": "", "ODD": "${HOST}$"}


@pytest.mark.parametrize(
    ("text", "value"),
    [("", ""), ("plain", "plain"), ("${HOST}:${PORT}", "db:5432"), ("${NONE:-x}", "x"), ("${NONE:-}", ""),
     ("${EMPTY:-x}", "x"), ("${EMPTY}", ""), ("${HOST:-x}", "db"), ("${NONE:-a:-b}", "a:-b"), ("$$", "$"),
     ("$${HOST}", "${HOST}"), ("$$$${HOST}", "$${HOST}"), ("a$", "a$"), ("$HOST", "$HOST"), ("~^a$|b", "~^a$|b"),
     ("${ODD}", "${HOST}$")])
def test_expansion(text: str, value: str) -> None:
    """``${VAR}`` and ``${VAR:-default}`` are replaced once, ``$$`` is a dollar sign, as is any other one."""
    assert expand(text, ENVIRON) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [("${NONE}", "NONE is not set"), ("${", "begins a variable"), ("${A", "begins a variable"),
     ("${A-b}", "begins a variable"), ("${1}", "begins a variable"), ("${A:-${B}}", "begins a variable")])
def test_expansion_refuses(text: str, message: str) -> None:
    """A variable that is not set, and a form that is not one of the two, are errors."""
    with pytest.raises(BadValue, match=message):
        expand(text, ENVIRON)


@given(st.text())
def test_doubled_dollars_protect_any_text(text: str) -> None:
    """A text with every dollar sign doubled stands for itself."""
    assert expand(text.replace("$", "$$"), {}) == text


def test_values_of_any_kind_may_come_from_a_variable() -> None:
    """A quoted variable gives numbers and booleans too, in every place of the file."""
    config = load(
        """
        server:
          httpListenAddr: ":${PORT}"
          workers: "${N}"
          backends: ["${HOST}:1", {addr: "${HOST}:2", weight: "${N}"}]
          tcpPool: {enabled: "${ON}"}
          trustedProxies: ["${NET:-10.0.0.0/8}"]
        """,
        {"PORT": "80", "N": "3", "HOST": "h", "ON": "true"})
    assert config.server.http_listen_addr == ":80"
    assert config.server.workers == 3
    assert [(backend.addr, backend.weight) for backend in config.server.backends] == [("h:1", 1), ("h:2", 3)]
    assert config.server.tcp_pool.enabled is True
    assert config.server.trusted_proxies == ("10.0.0.0/8",)


def test_an_unset_variable_is_a_problem_at_its_value() -> None:
    """The problem of an unset variable has the place of the value, and other values are still read."""
    (problem,) = problems(server('admin: {token: "${NOPE}", listenAddr: ":1"}'))
    assert (problem.line, problem.column, problem.key) == (4, 18, "server.admin.token")
    assert "NOPE is not set" in problem.message


@pytest.mark.parametrize(
    ("variable", "value", "read"),
    [("GOGATE_SERVER_WORKERS", "4", lambda c: c.server.workers == 4),
     ("GOGATE_SERVER_HTTP_LISTEN_ADDR", ":1234", lambda c: c.server.http_listen_addr == ":1234"),
     ("GOGATE_SERVER_LOAD_BALANCER", "p2c", lambda c: c.server.load_balancer.type == "p2c"),
     ("GOGATE_SERVER_LOAD_BALANCER_TYPE", "p2c", lambda c: c.server.load_balancer.type == "p2c"),
     ("GOGATE_SERVER_RATE_LIMIT_ENABLED", "true", lambda c: c.server.rate_limit[0].enabled),
     ("GOGATE_SERVER_RATE_LIMIT_KEY_BY", "ip", lambda c: c.server.rate_limit[0].key_by == ("ip",)),
     ("GOGATE_SERVER_RETRY_ATTEMPTS", "1", lambda c: c.server.retry.attempts == 1),
     ("GOGATE_SERVER_OUTLIER_CONSECUTIVE_5XX", "9", lambda c: c.server.outlier.consecutive_5xx == 9),
     ("GOGATE_SERVER_HEALTH_INTERVAL", "1m", lambda c: c.server.health.interval == 60),
     ("GOGATE_SERVER_REGISTRY_DEFAULT_TTL", "9s", lambda c: c.server.registry.default_ttl == 9),
     ("GOGATE_SERVER_METRICS_ENABLED", "false", lambda c: c.server.metrics.enabled is False),
     ("GOGATE_SERVER_ADMIN_TOKEN", "a$b", lambda c: c.server.admin.token == "a$b"),
     ("GOGATE_LOGGING_LEVEL", "debug", lambda c: c.logging.level == "debug"),
     ("GOGATE_LOGGING_ACCESS_SAMPLE", "5%", lambda c: c.logging.access.sample == 0.05)])
@pytest.mark.parametrize("section_written", [False, True])
def test_a_variable_overrides_a_scalar(variable: str, value: str, read: object, section_written: bool) -> None:
    """GOGATE_SERVER_… and GOGATE_LOGGING_… replace a single value, whether or not its section is in the file."""
    sections = "health: {interval: 3s}, metrics: {enabled: true}, admin: {token: x}, registry: {ttl: 5s}"
    text = server("loadBalancer: random" if not section_written else "workers: 2")
    if section_written:
        text += f"  {sections.replace('}, ', '}' + chr(10) + '  ')}\nlogging: {{level: warn, access: {{sample: 1}}}}\n"
    assert callable(read)
    assert read(load(text, {variable: value}))


def test_a_bad_override_names_the_variable() -> None:
    """The problem of an override names the variable instead of a place, and the value in the file is not looked at."""
    found = problems(server("workers: nonsense"), {"GOGATE_SERVER_WORKERS": "0"})
    assert [str(problem) for problem in found] == [
        "GOGATE_SERVER_WORKERS: server.workers: the number is too small; the least is 1"]
    assert "nonsense" not in found[0].render()


def test_an_override_is_named_by_rules_between_fields() -> None:
    """A rule that is broken by an override refers to the variable."""
    text = server('admin: {listenAddr: ":9090"}')
    assert told(text, {"GOGATE_SERVER_HTTP_LISTEN_ADDR": ":9090"}) == [
        "server.admin.listenAddr: :9090 is the same address as server.httpListenAddr (GOGATE_SERVER_HTTP_LISTEN_ADDR)"]


def test_other_variables_are_ignored() -> None:
    """Names that Kubernetes injects, and names of lists and sections, override nothing."""
    environ = {"GOGATE_SERVER_PORT": "tcp://10.0.0.1:80", "GOGATE_SERVER_SERVICE_HOST": "10.0.0.1", "GOGATE_X": "1",
               "GOGATE_SERVER_HEALTH": "x", "GOGATE_SERVER_BACKENDS": "x", "GOGATE_SERVER_POOLS": "x"}
    assert load(server("workers: 1"), environ) == load(server("workers: 1"))


def test_groups_that_are_not_written_are_not_overridden() -> None:
    """A variable changes a value of an optional group, and does not bring the group about."""
    environ = {"GOGATE_SERVER_CORS_MAX_AGE": "5s"}
    assert load(server("workers: 1"), environ).server.cors is None
    cors = load(server("cors: {allowOrigins: [https://a.com]}"), environ).server.cors
    assert cors is not None
    assert cors.max_age == 5


@pytest.mark.parametrize(
    ("name", "said"),
    [("GOGATE_SERVER_WROKERS", "did you mean GOGATE_SERVER_WORKERS?"),
     ("GOGATE_SERVER_HTTPLISTENADDR", "did you mean GOGATE_SERVER_HTTP_LISTEN_ADDR?"),
     ("GOGATE_SERVER_RATE_LIMIT_BRUST", "did you mean GOGATE_SERVER_RATE_LIMIT_BURST?"),
     ("GOGATE_LOGGING_LEVLE", "did you mean GOGATE_LOGGING_LEVEL?"),
     ("GOGATE_SERVER_TRUSTED_PROXIES", "only single values"),
     ("GOGATE_SERVER_BACKENDS", "only single values"),
     ("GOGATE_SERVER_HEALTH", "only single values")])
def test_variables_that_look_like_overrides_are_spoken_of(name: str, said: str) -> None:
    """A misspelt variable is told with what was meant, and that of a list with why it does nothing."""
    (note,) = unknown_overrides({name: "1", "GOGATE_SERVER_WORKERS": "2"})
    assert note.startswith(f"{name} overrides nothing")
    assert said in note


@pytest.mark.parametrize(
    "name",
    ["GOGATE_SERVER_WORKERS", "GOGATE_SERVER_LOAD_BALANCER", "GOGATE_SERVER_LOAD_BALANCER_KEY",
     "GOGATE_SERVER_RATE_LIMIT_KEY_BY", "GOGATE_LOGGING_ACCESS_SAMPLE", "GOGATE_SERVER_PORT",
     "GOGATE_SERVER_SERVICE_HOST", "GOGATE_SERVER_SERVICE_PORT_HTTP", "GOGATE_SERVER_PORT_80_TCP_ADDR",
     "GOGATE_SERVERX", "GOGATE_ADMIN_TOKEN", "GOGATE_SERVER_XYZZY", "HOME"])
def test_variables_that_nothing_is_said_of(name: str) -> None:
    """Overrides that work, variables that Kubernetes makes for a service, and what resembles nothing."""
    assert unknown_overrides({name: "1"}) == []
