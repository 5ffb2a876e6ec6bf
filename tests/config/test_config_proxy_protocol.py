"""Settings of the PROXY protocol and of connections per client."""

from __future__ import annotations

import pytest
from config_loading import load, problems, server

from gogate_py.config.schema import Config


def text(trusted: str = "[10.0.0.0/8]", of_server: str = "true", of_route: str = "true", listen: str = ":5432") -> str:
    """A file with the setting in both places."""
    return f"""\
server:
  httpListenAddr: ":8081"
  backends: ["a:1"]
  trustedProxies: {trusted}
  acceptProxyProtocol: {of_server}
routes:
  - {{type: tcp, name: db, listenAddr: "{listen}", pool: default, acceptProxyProtocol: {of_route}}}
"""


def test_both_places() -> None:
    """The HTTP listener has its setting under server, a TCP listener in its route; neither is on by default."""
    config = load(text(of_route="false"))
    assert (config.server.accept_proxy_protocol, config.routes[0].accept_proxy_protocol) == (True, False)
    config = load(text(of_server="false"))
    assert (config.server.accept_proxy_protocol, config.routes[0].accept_proxy_protocol) == (False, True)
    assert not Config().server.accept_proxy_protocol


@pytest.mark.parametrize("version", ["none", "v1", "v2"])
def test_versions_to_send(version: str) -> None:
    """sendProxyProtocol names the version; another one is refused with the known ones."""
    route = f"routes: [{{type: tcp, listenAddr: ':1', pool: p, sendProxyProtocol: {version}}}]"
    config = load("pools: {p: {backends: ['a:1']}}\n" + route)
    assert config.routes[0].send_proxy_protocol == version
    (problem,) = problems("pools: {p: {backends: ['a:1']}}\n" + route.replace(version + "}", "v3}"))
    assert problem.allowed == ("none", "v1", "v2")


def test_somebody_must_be_believed() -> None:
    """A listener that needs the header while nobody's is believed is a mistake, told at the key."""
    found = problems(text(trusted="[]"))
    assert [problem.key for problem in found] == ["server.acceptProxyProtocol", "routes[0].acceptProxyProtocol"]
    assert all("trustedProxies is empty" in problem.message for problem in found)
    assert problems(text(trusted="[]", of_server="false", of_route="false")) == []


def test_a_unix_socket_needs_no_trusted_networks() -> None:
    """Peers of a Unix socket have no address; its permissions say who they are."""
    assert problems(text(trusted="[]", of_server="false", listen="unix:/run/db.sock")) == []


def test_the_setting_of_a_listener_that_is_not_there() -> None:
    """server.acceptProxyProtocol is about httpListenAddr and nothing else."""
    (problem,) = problems(
        "server: {listenAddr: ':1', backends: ['a:1'], trustedProxies: [10.0.0.0/8], acceptProxyProtocol: true}"
    )
    assert problem.key == "server.acceptProxyProtocol"
    assert "needs server.httpListenAddr" in problem.message


def test_an_http_route_has_no_such_settings() -> None:
    """Both keys of a route are for TCP."""
    found = problems(
        "server: {httpListenAddr: ':1', backends: ['a:1'], trustedProxies: [10.0.0.0/8]}\n"
        "routes: [{pool: default, acceptProxyProtocol: true, sendProxyProtocol: v1}]"
    )
    assert [problem.key for problem in found] == ["routes[0].acceptProxyProtocol", "routes[0].sendProxyProtocol"]


def test_connections_per_client() -> None:
    """1024 unless another number is written; 0 is off."""
    assert Config().server.limits.connections_per_client == 1024
    for key, number in (("connectionsPerClient", 0), ("connections-per-client", 7)):
        assert load(server(f"limits: {{{key}: {number}}}")).server.limits.connections_per_client == number
