"""Rate limits: one or several, at server level and in routes, and keys that must be able to yield a value."""

from __future__ import annotations

import pytest
from config_loading import load, problems, server, told

from gogate_py.config.schema import RateLimit

POOLS = "pools: {a: {backends: ['a:1']}}\n"
JWT = f"auth: {{type: jwt, secret: {'s' * 32}, issuer: i, audience: a}}"
API_KEY = f"auth: {{type: api_key, keys: {{ci: {'a' * 64}}}}}"


def text(of_route: str = "", of_server: str = "") -> str:
    """A file with one HTTP route."""
    of_server = of_server and f", {of_server}"
    return f"server: {{httpListenAddr: ':1'{of_server}}}\n{POOLS}routes: [{{pool: a{of_route and ', ' + of_route}}}]"


def test_a_mapping_is_a_list_of_one() -> None:
    """One limit may be written without a list; nothing is a limit when nothing is written."""
    assert load(text()).server.rate_limit == ()
    limit = RateLimit(True, rate=5.0)
    assert load(text(of_server="rateLimit: {enabled: true, rate: 5}")).server.rate_limit == (limit,)
    assert load(text(of_server="rateLimit: [{enabled: true, rate: 5}]")).server.rate_limit == (limit,)
    assert load(text(of_server="rateLimit: []")).server.rate_limit == ()


def test_every_key_of_a_limit() -> None:
    """Everything that a limit may say arrives; spellings of keys are canonical."""
    (limit,) = load(text(
        f"{JWT}, rateLimit: {{enabled: true, name: burst, algorithm: sliding-window, rate: 100, per: 1m, burst: 7, "
        "keyBy: [jwt:sub, Header:X-API-Key, User, IP]}")).routes[0].rate_limit
    assert limit == RateLimit(
        True, "burst", "sliding_window", 100, 60, 7, ("jwt:sub", "header:X-API-Key", "user", "ip"))


@pytest.mark.parametrize("algorithm", ["token_bucket", "sliding_window", "fixed_window", "leaky_bucket"])
def test_algorithms(algorithm: str) -> None:
    """All four algorithms can be chosen."""
    (limit,) = load(server(f"rateLimit: {{enabled: true, algorithm: {algorithm}}}")).server.rate_limit
    assert limit.algorithm == algorithm


@pytest.mark.parametrize(
    "spec", ["global", "ip", "path", "host", "header:X-A", "query:a b", "cookie:id", "form:user"])
def test_keys_of_any_request(spec: str) -> None:
    """Keys that do not depend on authentication are possible everywhere, also without a list."""
    (limit,) = load(server(f"rateLimit: {{enabled: true, keyBy: '{spec}'}}")).server.rate_limit
    assert limit.key_by == (spec,)


@pytest.mark.parametrize(
    ("inside", "key", "message", "suggestion"),
    [("{algorithm: xyzzy}", "algorithm", "not a known value", ""),
     ("{rps: 5}", "rps", "unknown key", "rate"), ("{capacity: 5}", "capacity", "unknown key", "burst"),
     ("{window: 5s}", "window", "unknown key", "per"), ("{rate: 0}", "rate", "the least is", ""),
     ("{per: 0s}", "per", "the least is 1ms", ""), ("{burst: 0}", "burst", "lets nothing pass", ""),
     ("{burst: 1.5}", "burst", "not a whole number", ""), ("{name: 'a b'}", "name", "a name of", ""),
     ("{keyBy: ipp}", "keyBy", "is not a key", "ip"), ("{keyBy: [ip, ip]}", "keyBy[1]", "in the list twice", ""),
     ("{keyBy: 'header:a b'}", "keyBy", "no header field can have", ""),
     ("{keyBy: 'basic:password'}", "keyBy", 'only "basic:username"', ""),
     ("{keyBy: {a: b}}", "keyBy", "expected a list, not a mapping", ""),
     ("{algorithm: fixed_window, rate: 0.5}", "rate", "a whole number is needed", ""),
     ("{algorithm: sliding_window, rate: 1.5}", "rate", "a whole number is needed", ""),
     ("{rate: 1, per: 1h, burst: 100000}", "burst", "more than a year", ""),
     ("5", "", "expected a mapping, not a single value", "")])
def test_one_wrong_value(inside: str, key: str, message: str, suggestion: str) -> None:
    """One mistake is one problem, at its place."""
    (problem,) = problems(server(f"rateLimit: {inside}"))
    assert problem.key == f"server.rateLimit.{key}".rstrip(".")
    assert message in problem.message
    assert problem.suggestion == suggestion


def test_a_bucket_that_fills_in_time() -> None:
    """A year is the longest a full bucket may take; windows have none."""
    assert told(server("rateLimit: {rate: 1, per: 1m, burst: 100000}")) == []
    assert told(server("rateLimit: {algorithm: fixed_window, rate: 1, per: 1h, burst: 100000}")) == []


def test_several_limits() -> None:
    """Limits of a list are told apart by their place, and their names differ."""
    text_ = text(of_server="rateLimit: [{enabled: true, name: a}, {enabled: true, rate: 0}, {enabled: false, name: a}]")
    assert [problem.key for problem in problems(text_)] == ["server.rateLimit[1].rate", "server.rateLimit[2].name"]
    assert "the name a is taken by the limit in line 1" in told(text_)[1]


def test_a_limit_that_is_written_is_on() -> None:
    """In a route and in a list a limit is on unless it says otherwise; the server's single mapping is off, as in
    GoGate."""
    route = load(text("rateLimit: {rate: 5}")).routes[0]
    assert (route.rate_limit[0].enabled, route.exempt) == (True, False)
    limits = load(text("rateLimit: [{enabled: false}, {rate: 5}]")).routes[0].rate_limit
    assert [limit.enabled for limit in limits] == [False, True]
    assert load(text(of_server="rateLimit: [{rate: 5}]")).server.rate_limit[0].enabled
    assert not load(text(of_server="rateLimit: {rate: 5}")).server.rate_limit[0].enabled


@pytest.mark.parametrize(
    ("written", "exempt"),
    [("", False), ("rateLimit: {rate: 5}", False), ("rateLimit: {enabled: true}", False),
     ("rateLimit: {enabled: false}", True), ("rateLimit: []", True),
     ("rateLimit: [{enabled: false}, {enabled: true}]", False), ("rateLimit: [{enabled: false}]", True)])
def test_a_route_may_be_exempt_from_the_servers_limits(written: str, exempt: bool) -> None:
    """A route whose rateLimit has nothing enabled has no limits at all; one without the key has the server's."""
    config = load(text(written, "rateLimit: {enabled: true}"))
    assert config.routes[0].exempt is exempt
    assert len(config.server.rate_limit) == 1


def test_a_route_does_not_inherit_limits() -> None:
    """A route's limits are its own; the server's apply beside them."""
    config = load(text("rateLimit: {enabled: true, rate: 5}", "rateLimit: {enabled: true, burst: 7, keyBy: ip}"))
    assert config.routes[0].rate_limit == (RateLimit(True, rate=5.0),)


@pytest.mark.parametrize(
    ("auth", "spec", "possible"),
    [("", "jwt:sub", False), ("", "user", False), ("", "api_key", False), ("", "basic:username", False),
     (JWT, "jwt:sub", True), (JWT, "user", True), (JWT, "api_key", False), (JWT, "basic:username", False),
     (API_KEY, "api_key", True), (API_KEY, "user", True), (API_KEY, "jwt:sub", False), ("auth: none", "user", False)])
@pytest.mark.parametrize("of_server", [False, True])
def test_keys_of_an_identity(auth: str, spec: str, possible: bool, of_server: bool) -> None:
    """A key of an identity needs an authentication that verifies it: on the route, or for the server's on any."""
    limit = f"rateLimit: {{enabled: true, keyBy: [ip, '{spec}']}}"
    found = told(text(auth, limit) if of_server else text(f"{auth}, {limit}" if auth else limit))
    if possible:
        assert found == []
    else:
        place = "server" if of_server else "routes[0]"
        assert len(found) == 1
        assert found[0].startswith(f"{place}.rateLimit.keyBy[1]: {spec} is known of authenticated requests only")


def test_the_servers_authentication_counts() -> None:
    """A route, and the short form's catch-all, have the identity that the server's auth verifies."""
    limit = "rateLimit: {enabled: true, keyBy: 'jwt:sub'}"
    assert told(text(limit, JWT)) == []
    assert told(server(f"{JWT}\n  {limit}")) == []


def test_connections_are_told_apart_by_address_only() -> None:
    """A route of type tcp has limits of connections; nothing of a request is known there."""
    route = "type: tcp, listenAddr: ':5', pool: a, rateLimit: {enabled: true, keyBy: %s}"
    for spec in ("global", "ip", "[ip, global]"):
        assert told(POOLS + f"routes: [{{{route % spec}}}]") == []
    (problem,) = problems(POOLS + f"routes: [{{{route % '[ip, path]'}}}]")
    assert problem.key == "routes[0].rateLimit.keyBy[1]"
    assert problem.message == "path cannot be told of a TCP connection"
    assert problem.allowed == ("global", "ip")
    exempt = load(POOLS + "routes: [{type: tcp, listenAddr: ':5', pool: a, rateLimit: {enabled: false}}]")
    assert exempt.routes[0].exempt


def test_a_mistake_in_auth_brings_no_others() -> None:
    """Whether a key can be told is not asked where the authentication could not be read."""
    assert [problem.key for problem in problems(text("auth: 5, rateLimit: {enabled: true, keyBy: user}"))] == [
        "routes[0].auth"]
