"""Rules between fields: listeners, pools, routes, limits."""

from __future__ import annotations

import pytest
from config_loading import load, problems, server, told

HTTP = "server: {httpListenAddr: ':8081', backends: ['a:1']}\n"


def test_at_least_one_listener_is_needed() -> None:
    """A file without a listener has nothing to do; admin does not count."""
    (message,) = told("server: {backends: ['a:1']}")
    assert "there is no listener" in message
    assert told("server: {listenAddr: ':1'}") == []
    assert told("server: {httpListenAddr: ':1'}") == []
    assert told("pools: {p: {backends: ['a:1']}}\nroutes: [{type: tcp, listenAddr: ':1', pool: p}]") == []


@pytest.mark.parametrize(
    ("first", "second"),
    [(":80", ":80"), (":80", "127.0.0.1:80"), ("127.0.0.1:80", ":80"), ("0.0.0.0:80", "10.0.0.1:80"),
     ("[::]:80", "[::1]:80"), ("localhost:80", "127.0.0.1:80"), ("localhost:80", "[::1]:80"), (":80", "[::1]:80"),
     (":80", "somewhere:80"), ("0.0.0.0:80", "somewhere:80"), ("a.b:80", "A.B:80"), ("unix:/x", "unix:/x"),
     ("[::1]:80", "[0:0::1]:80")])
def test_listeners_that_overlap(first: str, second: str) -> None:
    """Two listeners on one port of one address are refused, and the earlier one is named."""
    (message,) = told(f"server: {{listenAddr: '{first}', httpListenAddr: '{second}'}}")
    assert message.startswith("server.httpListenAddr: ")
    assert "server.listenAddr (line 1)" in message


@pytest.mark.parametrize(
    ("first", "second"),
    [(":80", ":81"), ("127.0.0.1:80", "127.0.0.2:80"), ("0.0.0.0:80", "[::1]:80"), (":0", ":0"), ("unix:/x", "unix:/y"),
     ("unix:/x", ":80"), ("localhost:80", "10.0.0.1:80"), ("a.b:80", "c.d:80")])
def test_listeners_side_by_side(first: str, second: str) -> None:
    """Different ports, addresses, families and sockets do not disturb each other; port 0 is any free one."""
    assert told(f"server: {{listenAddr: '{first}', httpListenAddr: '{second}'}}") == []


def test_every_listener_is_compared() -> None:
    """TCP routes, admin, metrics and registry bind too, but not when they are off."""
    text = """
        server:
          listenAddr: ":1"
          backends: ["a:1"]
          admin: {listenAddr: ":2"}
          metrics: {listenAddr: ":2"}
          registry: {listenAddr: "127.0.0.1:3"}
        routes:
          - {type: tcp, name: t, listenAddr: ":3", pool: default}
        """
    assert [problem.key for problem in problems(text)] == ["server.metrics.listenAddr", "server.registry.listenAddr"]
    for section in ("metrics", "registry"):
        text = text.replace(section + ": {", section + ": {enabled: false, ")
    assert told(text) == []


def test_an_address_that_a_default_takes() -> None:
    """A conflict with the default of another key is told where something was written."""
    (problem,) = problems("server: {listenAddr: ':9090'}")
    assert (problem.column, problem.key) == (22, "server.listenAddr")
    assert problem.message == ":9090 overlaps 127.0.0.1:9090 of server.admin (its default)"
    assert told("server: {listenAddr: ':9090', backends: ['a:1'], admin: {enabled: false}}") == []


def test_admin_needs_an_address_while_it_is_on() -> None:
    """An admin API without an address must be switched off by name."""
    (message,) = told(server("admin: {listenAddr: ''}"))
    assert message == "server.admin.listenAddr: needed while server.admin.enabled is true"
    assert told(server("admin: {listenAddr: '', enabled: false}")) == []


@pytest.mark.parametrize(
    ("listener", "backend"),
    [(":8080", "localhost:8080"), (":8080", "127.0.0.1:8080"), (":8080", "127.9.9.9:8080"), (":8080", "[::1]:8080"),
     ("0.0.0.0:8080", "127.0.0.1:8080"), ("127.0.0.1:8080", "localhost:8080"), ("10.0.0.5:8080", "10.0.0.5:8080"),
     (":8080", "0.0.0.0:8080"), ("gate.local:8080", "Gate.local:8080"), ("unix:/x", "unix:/x")])
def test_a_backend_that_is_gogate_itself(listener: str, backend: str) -> None:
    """A backend that leads back into a listener of gogate is refused: requests would go in circles."""
    (message,) = told(f"server: {{listenAddr: '{listener}', backends: ['{backend}']}}")
    assert message.startswith("server.backends[0].addr: ")
    assert "in circles" in message


@pytest.mark.parametrize(
    ("listener", "backend"),
    [(":8080", "10.0.0.9:8080"), (":8080", "backend-1:8080"), (":8080", "localhost:8081"),
     ("127.0.0.1:8080", "127.0.0.2:8080"),
     ("10.0.0.5:8080", "localhost:8080"), ("unix:/x", "unix:/y")])
def test_a_backend_elsewhere_on_the_same_port(listener: str, backend: str) -> None:
    """The same port on another address is the ordinary case."""
    assert told(f"server: {{listenAddr: '{listener}', backends: ['{backend}']}}") == []


def test_the_admin_api_is_no_backend() -> None:
    """The admin API trusts loopback, so it must not be reached through the proxy, where everyone is loopback."""
    (message,) = told("server: {listenAddr: ':1'}\npools: {p: {backends: ['localhost:9090']}, default: {}}")
    assert message.startswith("pools.p.backends[0].addr: localhost:9090 is gogate's own listener server.admin")


def test_a_backend_is_once_in_a_pool() -> None:
    """The same address twice in a pool is refused, without regard to case; in two pools it may be."""
    (message,) = told("server: {listenAddr: ':1', backends: ['a:1', 'b:1', {url: 'http://A:1'}]}")
    assert message == "server.backends[2].addr: A:1 is in this pool already (line 1); use weight"
    assert told("server: {listenAddr: ':1', backends: ['a:1']}\npools: {p: {backends: ['a:1']}}") == []
    (message,) = told("server: {listenAddr: ':1', backends: ['a:2']}\npools: {p: {backends: ['a:1', 'a:1']}}")
    assert message.startswith("pools.p.backends[1].addr: ")


def test_a_pool_needs_backends_or_a_way_to_register() -> None:
    """A pool without backends is refused when nothing can ever join it."""
    long = "pools: {p: {}}\nroutes: [{pool: p}]\nserver: {httpListenAddr: ':1', "
    assert told(long + "}") == []
    (message,) = told(long + "registry: {enabled: false}}")
    assert message == "pools.p: has no backends, and nothing can join it: server.registry.enabled is false"
    (message,) = told(long + "admin: {enabled: false}}")
    assert "server.registry.listenAddr is not set" in message
    assert told(long + "admin: {enabled: false}, registry: {listenAddr: ':8500'}}") == []
    (message,) = told("server: {httpListenAddr: ':1', registry: {enabled: false}}")
    assert message.startswith("server.backends: there are no backends")


def test_names_that_do_not_resolve_are_no_problem() -> None:
    """Whether a backend's name resolves is a matter of the moment, not of the configuration."""
    assert load("server: {listenAddr: ':1', backends: ['no-such-host.invalid:1']}").server.backends


def test_the_pool_default_exists_once() -> None:
    """``pools.default`` next to ``server.backends`` would be two pools of one name."""
    (message,) = told(HTTP + "pools: {default: {backends: ['b:1']}}")
    assert message.startswith("pools.default: this pool exists already: server.backends are in it (line 1)")
    assert told("server: {httpListenAddr: ':1'}\npools: {default: {backends: ['b:1']}}") == []


def test_a_route_names_a_pool_that_exists() -> None:
    """An unknown pool is a problem with the known ones and what was meant."""
    (problem,) = problems(HTTP + "pools: {api-v1: {backends: ['b:1']}}\nroutes: [{pool: api-v2}]")
    assert problem.message == "there is no pool api-v2"
    assert problem.allowed == ("api-v1", "default")
    assert problem.suggestion == "api-v1"
    (message,) = told("server: {httpListenAddr: ':1'}\npools: {p: {backends: ['b:1']}}\nroutes: [{pool: default}]")
    assert "exists only with server.backends" in message


def test_a_route_needs_a_pool() -> None:
    """A route without a pool leads nowhere."""
    assert told(HTTP + "routes: [{match: {path: /a}}]") == [
        "routes[0]: pool is required (or split, redirect, fixedResponse)"]
    assert told(HTTP + "routes: [{type: tcp, listenAddr: ':5'}]") == ["routes[0]: pool is required"]


def test_tcp_routes_need_a_listener() -> None:
    """A route of type tcp is a listener, so it has an address."""
    assert told(HTTP + "routes: [{type: tcp, pool: default}]") == [
        "routes[0]: listenAddr, or listener, is required for a route of type tcp"]


def test_http_routes_need_the_http_listener() -> None:
    """Routes of type http are served on server.httpListenAddr; its absence is told once."""
    text = "server: {listenAddr: ':1'}\nroutes: [{match: {path: /a}, pool: default}, {pool: default}]"
    assert told(text) == [
        "routes[0]: a route of type http needs server.httpListenAddr, or one of listeners of type http"]


@pytest.mark.parametrize(
    "route",
    ["{pool: default, listenAddr: ':5'}", "{pool: default, idleTimeout: 1s}",
     "{type: tcp, listenAddr: ':5', pool: default, match: {path: /}}",
     "{type: tcp, listenAddr: ':5', pool: default, websocket: true}",
     "{type: tcp, listenAddr: ':5', pool: default, timeouts: {idle: 1s}}"])
def test_keys_of_the_other_type_of_route(route: str) -> None:
    """A key that does nothing for a route's type is refused."""
    (message,) = told(HTTP + f"routes: [{route}]")
    assert "does not apply to a route of type" in message


def test_route_names_are_unique() -> None:
    """Two routes of one name could not be told apart in metrics; the short form's names count."""
    routes = "[{name: a, match: {path: /a}, pool: default}, {name: a, match: {path: /b}, pool: default}]"
    (message,) = told(HTTP + f"routes: {routes}")
    assert message == "routes[1].name: the name a is taken by the route in line 2"
    (message,) = told(HTTP + "routes: [{name: default-http, match: {path: /a}, pool: default}]")
    assert message == "routes[0].name: the name default-http is taken by server.httpListenAddr (line 1)"


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [("{path: /a}", "{path: /a}", "the same requests"),
     ("{path: '/a/{x}'}", "{path: '/a/:y'}", "the same requests"),
     ("{pathPrefix: /a}", "{pathPrefix: /a/}", "the same requests"),
     ("{host: a.com}", "{host: A.com}", "the same requests"),
     ("{}", "{pathPrefix: /}", "the same requests"),
     ("{path: /a, methods: [GET, POST]}", "{path: /a, methods: [PUT, POST]}", "POST"),
     ("{methods: [GET]}", "{methods: [GET]}", "the same requests"),
     ("{headers: {X-A: '1'}}", "{headers: {x-a: '1'}}", "the same requests"),
     ("{query: {a: '1'}}", "{headers: {X-A: '1'}}", "requests that meet the conditions of both")])
def test_routes_of_which_neither_is_more_specific(first: str, second: str, what: str) -> None:
    """Two routes that would take the same request with equal rank are refused, and both are named."""
    routes = f"[{{name: one, match: {first}, pool: default}}, {{name: two, match: {second}, pool: default}}]"
    expected = f"routes[1].match: the routes one and two match {what}, and neither is more specific (one is in line 2)"
    assert told(HTTP + f"routes: {routes}") == [expected]


@pytest.mark.parametrize(
    ("first", "second"),
    [("{path: /a}", "{pathPrefix: /a}"), ("{path: /a}", "{path: /a, methods: [GET]}"),
     ("{host: a.com}", "{host: '*.com'}"),
     ("{path: /a, methods: [GET]}", "{path: /a, methods: [PUT]}"), ("{path: '/{x}'}", "{path: '/*'}"),
     ("{}", "{path: /a}"), ("{headers: {X-A: '1'}}", "{headers: {X-A: '2'}}"), ("{}", "{query: {a: ''}}"),
     ("{path: /a}", "{path: /a/}")])
def test_routes_that_differ(first: str, second: str) -> None:
    """Routes that overlap in part are told apart by how specific they are."""
    assert told(HTTP + f"routes: [{{match: {first}, pool: default}}, {{match: {second}, pool: default}}]") == []


def test_path_and_prefix_exclude_each_other() -> None:
    """A route is by path or by prefix."""
    (message,) = told(HTTP + "routes: [{match: {path: /a, pathPrefix: /b}, pool: default}]")
    assert message == "routes[0].match.pathPrefix: path and pathPrefix exclude each other; use one"


def test_a_method_that_is_refused_before_routing() -> None:
    """A route for a method that server.limits.methods leaves out would never match."""
    (message,) = told(HTTP + "routes: [{match: {methods: [GET, PURGE]}, pool: default}]")
    assert message.startswith("routes[0].match.methods[1]: PURGE never reaches a route")
    text = "server: {httpListenAddr: ':1', limits: {methods: [GET, PURGE]}}\n"
    assert told(text + "routes: [{match: {methods: [GET, PURGE]}, pool: default}]") == []
    (message,) = told(server("limits: {methods: []}"))
    assert message == "server.limits.methods: is empty: every request would be refused"


def test_short_form_listeners_need_the_default_pool() -> None:
    """With pools and without server.backends, listenAddr and httpListenAddr by themselves lead nowhere."""
    pools = "pools: {p: {backends: ['a:1']}}\n"
    (message,) = told(pools + "server: {listenAddr: ':1'}")
    assert message.startswith("server.listenAddr: the pool default does not exist")
    (message,) = told(pools + "server: {httpListenAddr: ':1'}")
    assert message.startswith("server.httpListenAddr: no route is served here")
    assert told(pools + "server: {httpListenAddr: ':1'}\nroutes: [{pool: p}]") == []


def test_a_part_is_not_larger_than_the_whole() -> None:
    """A request line is a part of the head."""
    (message,) = told(server("limits: {requestLine: 9KiB, requestHead: 8KiB}"))
    assert message == "server.limits.requestLine: is larger than requestHead, of which it is a part"


@pytest.mark.parametrize(
    ("text", "keys"),
    [("server: {listenAddr: nonsense, backends: ['a:1']}", ["server.listenAddr"]),
     ("server: {listenAdr: ':1', backends: ['a:1']}", ["server.listenAdr"]),
     ("server: 5", ["server"]),
     ("routes: [{type: tpc, listenAddr: ':1', pool: default}]", ["routes[0].type"]),
     ("routes: [{type: tcp, listenAddr: x, pool: default}]", ["routes[0].listenAddr"]),
     ("server: {httpListenAddr: ':1'}\npools: 5\nroutes: [{pool: a}]", ["pools"]),
     ("server: {httpListenAddr: ':1'}\npools: {a: {helth: {}}}\nroutes: [{pool: a}]", ["pools.a.helth"]),
     ("server: {httpListenAddr: ':1'}\nroutes: [{poool: default}]", ["routes[0].poool"]),
     ("server: {httpListenAddr: ':1', backends: 5, registry: {enabled: false}}", ["server.backends"]),
     ("server: {httpListenAdr: ':1'}\nroutes: [{pool: default}]", ["server.httpListenAdr"]),
     (HTTP + "routes: [{match: {path: a}, pool: default}, {match: {path: b}, pool: default}]",
      ["routes[0].match.path", "routes[1].match.path"])])
def test_one_mistake_is_told_once(text: str, keys: list[str]) -> None:
    """A value that could not be read brings no problems of rules that depend on it."""
    assert [problem.key for problem in problems(text)] == keys


@pytest.mark.parametrize("name", ["Content-Length", "x-forwarded-for", "Authorization", "Set-Cookie"])
def test_fields_that_frame_or_authenticate_are_never_trailers(name: str) -> None:
    """forwardTrailers refuses names by which a backend or client would frame, route or trust a message (T3)."""
    found = problems(f"server:\n  httpListenAddr: ':0'\n  forwardTrailers: [{name}]\n")
    assert len(found) == 1
    assert "never passed on as a trailer" in found[0].message
