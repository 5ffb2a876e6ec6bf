"""Routes that share a listener by server name: what is one listener, and what is ambiguous."""

from __future__ import annotations

import pytest
from config_loading import load, told

from gogate_py.config.listeners import tcp_listeners
from gogate_py.controlplane.compiler import listener_addresses


def text(*routes: str, server: str = "") -> str:
    """A configuration with these TCP routes, from line 4 on."""
    lines = [f"server: {{httpListenAddr: ':1', backends: ['z:1'], {server}}}", "pools: {p: {backends: ['a:1']}}"]
    return "\n".join([*lines, "routes:", *(f"- {{type: tcp, pool: p, {route}}}" for route in routes)]) + "\n"


def test_names_share_one_listener() -> None:
    """Routes of one address are one listener as soon as one has sni; the one without is its default."""
    config = load(text(
        "name: a, listenAddr: ':443', sni: a.test", "name: b, listenAddr: ':443', sni: ['B.test.', '*.c.test']",
        "name: rest, listenAddr: ':443'", "name: own, listenAddr: ':5432'",
        "name: alone, listenAddr: ':444', sni: [a.test]"))
    found = {one.id: (one.default and one.default.name, [r.name for r in one.named])
             for one in tcp_listeners(config)}
    assert found == {"sni::443": ("rest", ["a", "b"]), "tcp:own": ("own", []), "sni::444": (None, ["alone"])}
    assert config.routes[1].sni == ("b.test", "*.c.test")
    bound = {"sni::443": ":443", "tcp:own": ":5432", "sni::444": ":444", "http:default": ":1"}
    assert listener_addresses(config) == bound


def test_the_short_form_can_be_the_default() -> None:
    """server.listenAddr shares its address, too."""
    config = load(text("name: a, listenAddr: ':443', sni: a.test", server="listenAddr: ':443'"))
    (one,) = tcp_listeners(config)
    assert one.default is not None
    assert one.default.name == "default-tcp"


def test_any_free_port_is_shared_only_by_names() -> None:
    """Port 0 is another one for each route, but where server names decide."""
    config = load(text("name: a, listenAddr: 'localhost:0'", "name: b, listenAddr: 'localhost:0'"))
    assert len(tcp_listeners(config)) == 2
    config = load(text("name: a, listenAddr: 'localhost:0', sni: a.test", "name: b, listenAddr: 'localhost:0'"))
    assert len(tcp_listeners(config)) == 1


@pytest.mark.parametrize(
    ("routes", "server", "problem"),
    [
        (("name: a, listenAddr: ':443', sni: [a.test, '*.b.test']", "name: b, listenAddr: ':443', sni: ['*.B.test']"),
         "", "routes[1].sni[0]: *.b.test leads to route a already (line 4)"),
        (("name: a, listenAddr: ':443', sni: [a.test, A.test]",), "", "routes[0].sni[1]: a.test is in the list twice"),
        (("name: a, listenAddr: ':443', sni: a.test", "name: b, listenAddr: ':443'", "name: c, listenAddr: ':443'"),
         "", "routes[2].listenAddr: :443 has a route without sni already (line 5): only one can be"),
        (("name: a, listenAddr: ':443', sni: a.test", "name: b, listenAddr: ':443'"), "listenAddr: ':443'",
         "routes[1].listenAddr: :443 has a route without sni already (line 1): only one can be"),
        (("name: a, listenAddr: ':443', sni: a.test, acceptProxyProtocol: true", "name: b, listenAddr: ':443'"),
         "trustedProxies: [10.0.0.0/8]", "routes[1].acceptProxyProtocol: must be the same for all routes of :443 "
         "(line 4 has true): it comes before the name is known"),
        (("name: a, listenAddr: ':443', sni: a.test", "name: b, listenAddr: '127.0.0.1:443', sni: b.test"), "",
         "routes[1].listenAddr: 127.0.0.1:443 overlaps :443 of route a (line 4)"),
        (("name: a, listenAddr: ':1', sni: a.test",), "",
         "routes[0].listenAddr: :1 is the same address as server.httpListenAddr (line 1)"),
        (("name: a, listenAddr: ':443', sni: 10.0.0.1",), "", "routes[0].sni: a server name is never an IP address"),
        (("name: a, listenAddr: ':443', sni: ['']",), "", "routes[0].sni[0]: a name is missing"),
        (("name: a, listenAddr: ':443', sni: ['a.*.test']",), "", "routes[0].sni[0]: a * can only stand for whole"),
        (("name: a, listenAddr: ':443', sni: ['a.test:443']",), "", "routes[0].sni[0]: a route's host has no port"),
    ],
)
def test_what_is_ambiguous(routes: tuple[str, ...], server: str, problem: str) -> None:
    """One problem, at the later of two routes, which names the earlier."""
    (message,) = told(text(*routes, server=server))
    assert message.startswith(problem)


def test_only_tcp_routes_have_server_names() -> None:
    """An HTTP route matches Host."""
    (message,) = told("server: {httpListenAddr: ':1', backends: ['z:1']}\nroutes: [{pool: default, sni: [a.test]}]\n")
    assert message == "routes[0].sni: does not apply to a route of type http"
