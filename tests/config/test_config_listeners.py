"""Listeners of the long form: what is on them, which there are, and what does not go together."""

from __future__ import annotations

import pytest
from config_loading import load, problems, told

from gogate_py.config.listeners import data_listeners, http_listeners, serves


def text(listeners: str, *routes: str, server: str = "backends: ['z:1']") -> str:
    """Listeners in line 2, routes from line 5 on; a pool p."""
    lines = [f"server: {{{server}}}", f"listeners: [{listeners}]", "pools: {p: {backends: ['a:1']}}", "routes:"]
    return "\n".join([*lines, *(f"- {{pool: p, {route}}}" for route in routes)]) + "\n"


def on(config: str) -> dict[str, list[str]]:
    """Each HTTP listener's routes."""
    loaded = load(config)
    routes = [route for route in loaded.effective_routes() if route.type == "http"]
    return {one.id: [route.name for route in routes if serves(one, route)] for one in http_listeners(loaded)}


def test_a_route_is_on_all_listeners_of_type_http_unless_it_names_some() -> None:
    """One name or a list; httpListenAddr is called default; listener is another word for listeners."""
    assert on(text(
        "{name: a, listenAddr: ':2'}, {name: b, listenAddr: ':3', type: HTTP}", "name: all, match: {path: /all}",
        "name: one, match: {path: /one}, listener: a", "name: two, match: {path: /two}, listeners: [default, b]",
        server="httpListenAddr: ':1', backends: ['z:1']")) == {
        "http:default": ["all", "two", "default-http"], "a": ["all", "one", "default-http"],
        "b": ["all", "two", "default-http"]}


def test_the_short_forms_catch_all_yields_listener_by_listener() -> None:
    """A catch-all that was written takes its place where it is, and nowhere else."""
    listeners = "{name: a, listenAddr: ':2'}, {name: b, listenAddr: ':3'}"
    assert on(text(listeners, "name: mine, listeners: a")) == {"a": ["mine"], "b": ["default-http"]}
    assert on(text(listeners, "name: mine")) == {"a": ["mine"], "b": ["mine"]}
    assert on(text(listeners, "name: x, match: {path: /x}")) == {"a": ["x", "default-http"], "b": ["x", "default-http"]}


def test_tcp_routes_name_their_listener() -> None:
    """Its sockets have the listener's name, whatever routes come and go; server names tell several routes apart."""
    config = load(text(
        "{name: db, listenAddr: ':5', type: tcp, acceptProxyProtocol: true}",
        "name: one, type: tcp, listener: db, sni: a.test", "name: rest, type: tcp, listener: db",
        "name: own, type: tcp, listenAddr: ':6'", server="trustedProxies: [10.0.0.0/8]"))
    found = [(x.id, x.address, x.accept_proxy_protocol, x.default and x.default.name, [r.name for r in x.named])
             for x in data_listeners(config)]
    assert found == [("db", ":5", True, "rest", ["one"]), ("tcp:own", ":6", False, "own", [])]


@pytest.mark.parametrize(
    ("listeners", "routes", "server", "problem"),
    [
        ("{name: a, listenAddr: ':2'}", ("listener: aa",), "", "routes[0].listeners[0]: there is no listener aa"),
        ("{name: a, listenAddr: ':2', type: tcp}", ("listener: a", "type: tcp, listener: a"), "httpListenAddr: ':1'",
         "routes[0].listeners[0]: the listener a is of type tcp, this route of type http"),
        ("{name: a, listenAddr: ':2'}", ("name: x", "type: tcp, listener: a"), "",
         "routes[1].listeners[0]: the listener a is of type http, this route of type tcp"),
        ("{name: a, listenAddr: ':2'}", ("name: x", "type: tcp, listener: default"), "httpListenAddr: ':1'",
         "routes[1].listeners[0]: the listener default is of type http, this route of type tcp"),
        ("{name: a, listenAddr: ':2'}", ("listener: default",), "",
         "routes[0].listeners[0]: there is no listener default"),
        ("{name: a, listenAddr: ':2'}", ("listeners: []",), "",
         "routes[0].listeners: is empty: no request would reach"),
        ("{name: a, listenAddr: ':2'}", ("listener: a, listeners: [a]",), "",
         "routes[0].listeners: given already as listener in line 5"),
        ("{name: a, listenAddr: ':2', type: tcp}, {name: b, listenAddr: ':3', type: tcp}",
         ("type: tcp, listeners: [a, b]",), "", "routes[0].listeners: a route of type tcp has one listener"),
        ("{name: a, listenAddr: ':2', type: tcp}", ("type: tcp, listener: a, listenAddr: ':3'",), "",
         "routes[0].listenAddr: is the listener's to say, and this route names one (line 5)"),
        ("{name: a, listenAddr: ':2', type: tcp}", ("type: tcp, listener: a, acceptProxyProtocol: true",),
         "trustedProxies: [10.0.0.0/8]", "routes[0].acceptProxyProtocol: is the listener's to say"),
        ("{name: a, listenAddr: ':2', type: tcp}", ("type: tcp, listener: a", "type: tcp, listener: a"), "",
         "routes[1].listeners: the listener a has a route without sni already (line 5)"),
        ("{name: a, listenAddr: ':2', type: tcp}", ("type: tcp, listener: a, sni: x.test",
         "type: tcp, listener: a, sni: [y.test, x.test]"), "",
         "routes[1].sni[1]: x.test leads to route route-1 already"),
        ("{name: a, listenAddr: ':2', type: tcp}", ("name: x",), "httpListenAddr: ':1'",
         "listeners[0]: no route leads on from here: a route of type tcp names it with listener: a"),
        ("{name: a, listenAddr: ':2'}", ("listener: default",), "httpListenAddr: ':1'",
         "listeners[0].listenAddr: no route is served here: every HTTP route names other listeners"),
        ("{name: a, listenAddr: ':2'}", ("listener: a",), "httpListenAddr: ':1'",
         "server.httpListenAddr: no route is served here: every HTTP route names other listeners"),
        ("{name: a, listenAddr: ':2'}", ("type: tcp, listenAddr: ':3'",), "",
         "listeners[0].listenAddr: no route is served here: there is no HTTP route"),
        ("{name: a, listenAddr: ':2'}, {name: a, listenAddr: ':3'}", ("name: x",), "",
         "listeners[1].name: the name a is taken by the listener in line 2"),
        ("{name: default, listenAddr: ':2'}", ("name: x",), "",
         "listeners[0].name: default is what routes call server.httpListenAddr"),
        ("{name: a, listenAddr: ':2'}", ("name: x",), "httpListenAddr: ':2'",
         "listeners[0].listenAddr: :2 is the same address as server.httpListenAddr (line 1)"),
        ("{name: a, listenAddr: ':2'}, {name: b, listenAddr: '127.0.0.1:2'}", ("name: x",), "",
         "listeners[1].listenAddr: 127.0.0.1:2 overlaps :2 of listener a (line 2)"),
        ("{name: a, listenAddr: ':2'}, {name: b, listenAddr: ':3'}", ("name: x", "type: tcp, listenAddr: ':3'"), "",
         "routes[1].listenAddr: :3 is the same address as listener b (line 2)"),
        ("{name: a, listenAddr: ':2', acceptProxyProtocol: true}", ("name: x",), "",
         "listeners[0].acceptProxyProtocol: server.trustedProxies is empty"),
        ("{name: a, listenAddr: 'localhost:9001'}", ("name: x",), "backends: ['localhost:9001']",
         "server.backends[0].addr: localhost:9001 is gogate's own listener listener a"),
        ("{listenAddr: ':2'}", ("name: x",), "", "listeners[0]: name is required"),
        ("{name: a, addr: ':2'}", ("name: x",), "", "listeners[0].addr: unknown key"),
        ("{name: a, listenAddr: ':2', type: udp}", ("name: x",), "", "listeners[0].type: 'udp' is not a known value"),
    ],
)
def test_what_does_not_go_together_is_told(listeners: str, routes: tuple[str, ...], server: str, problem: str) -> None:
    """Once, at its place."""
    (found,) = told(text(listeners, *routes, server=server))
    assert found.startswith(problem), found


def test_a_misspelt_name_is_guessed() -> None:
    """The names that there are of this type are shown, and the one that was meant."""
    (found,) = problems(text(
        "{name: public, listenAddr: ':2'}, {name: inner, listenAddr: ':3'}, {name: db, listenAddr: ':4', type: tcp}",
        "listener: pubic", "listener: inner, match: {path: /x}", "type: tcp, listener: db"))
    assert (found.allowed, found.suggestion) == (("public", "inner"), "public")


def test_a_name_is_looked_for_beside_other_mistakes() -> None:
    """What is wrong with the listener itself does not hide that a route leads nowhere; an unread name does."""
    assert [one.key for one in problems(text("{name: a, listenAddr: ':2', x: 1}", "listener: b"))] == [
        "listeners[0].x", "routes[0].listeners[0]"]
    assert [one.key for one in problems(text("{name: '-', listenAddr: ':2'}", "listener: b"))] == ["listeners[0].name"]


def test_equal_routes_on_different_listeners_are_no_conflict() -> None:
    """They never meet; where they do, both are named."""
    listeners = "{name: a, listenAddr: ':2'}, {name: b, listenAddr: ':3'}"
    assert told(text(listeners, "name: x, listener: a", "name: y, listener: b")) == []
    (found,) = told(text(listeners, "name: x, listener: a", "name: y"))
    assert found.startswith("routes[1].match: the routes x and y match the same requests")
    assert found.endswith("(x is in line 5)")


def test_a_route_is_unreachable_only_if_it_is_so_everywhere() -> None:
    """A more specific route on one listener leaves it the others."""
    listeners = "{name: a, listenAddr: ':2'}, {name: b, listenAddr: ':3'}"
    pattern, prefix = "match: {path: '/*'}", "match: {pathPrefix: /x}"
    assert told(text(listeners, f"name: p, {pattern}, listener: a", f"name: x, {prefix}")) == []
    (found,) = told(text(listeners, f"name: p, {pattern}", f"name: x, {prefix}"))
    assert "the route x is never reached" in found
    only = "listener: a"
    (found,) = told(text(listeners, f"name: p, {pattern}, {only}", f"name: x, {prefix}, {only}", "listener: b"))
    assert "the route x is never reached" in found
