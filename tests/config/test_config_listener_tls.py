"""TLS on listeners in the configuration: where it may stand, the files it names, and what does not go together."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import rsa
from doubles.certificates import self_signed, write_pair
from doubles.tls_backends import CA, pem

from gogate_py.config.certificates import facts
from gogate_py.config.listeners import data_listeners
from gogate_py.config.loader import load_text
from gogate_py.config.problems import Problem
from gogate_py.config.schema import Config
from gogate_py.errors import ConfigError

A = "certificates: [{certFile: a.crt, keyFile: a.key}]"


@pytest.fixture(autouse=True)
def _files(tmp_path: Path) -> None:
    write_pair(tmp_path, "a")
    write_pair(tmp_path, "b")
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))


def load(text: str, folder: Path) -> Config:
    """The configuration of a text that stands in a folder."""
    return load_text(text, str(folder / "c.yaml"), {})


def told(text: str, folder: Path) -> list[str]:
    """``line: key: message`` of every problem."""
    try:
        load(text, folder)
    except ConfigError as error:
        found = [problem for problem in error.problems if isinstance(problem, Problem)]
        return [f"{one.line}: {one.key}: {one.message}" for one in found]
    return []


def server(tls: str, more: str = "httpListenAddr: ':443'") -> str:
    """A short form with TLS settings in line 2."""
    return f"server:\n  tls: {tls}\n  {more}\n  backends: ['z:1']\n"


def test_every_sort_of_listener_may_have_it(tmp_path: Path) -> None:
    """httpListenAddr, listeners of both types, and the address of a TCP route; a redirect is a listener of its own."""
    config = load(
        f"server: {{httpListenAddr: ':443', backends: ['z:1'], tls: {{{A}, redirectHTTP: ':80', minVersion: 1.3}}}}\n"
        f"listeners:\n- {{name: inner, listenAddr: ':8443', tls: {{{A}, redirectHTTP: ':8080'}}}}\n"
        f"- {{name: plain, listenAddr: ':81'}}\n- {{name: db, listenAddr: ':5432', type: tcp, tls: {{{A}}}}}\n"
        "pools: {p: {backends: ['a:1']}}\nroutes:\n- {pool: p, type: tcp, listener: db}\n"
        f"- {{name: own, pool: p, type: tcp, listenAddr: ':5433', tls: {{{A}}}}}\n"
        "- {pool: p, name: web}\n", tmp_path)
    found = {one.id: (one.kind, one.address, one.https_port) for one in data_listeners(config)}
    assert found == {
        "http:default": ("https", ":443", 0), "inner": ("https", ":8443", 0), "plain": ("http", ":81", 0),
        "db": ("tls", ":5432", 0), "tcp:own": ("tls", ":5433", 0),
        "redirect::80": ("redirect", ":80", 443), "redirect::8080": ("redirect", ":8080", 8443)}
    tls = config.server.tls
    assert tls is not None
    assert tls.min_version == "1.3"
    assert tls.certificates[0].chain.startswith("-----BEGIN CERTIFICATE-----")
    assert facts(tls.certificates[0].chain).names == ("a.test",)
    assert tls.certificates[0].key not in repr(config)


def test_files_are_remembered_with_their_digests(tmp_path: Path) -> None:
    """Whoever watches them knows what was read; those of backends and of authentication, too."""
    (tmp_path / "users").write_text("u:$2b$04$" + "a" * 53 + "\n")
    config = load(
        server(f"{{{A}, clientCA: ca.pem, clientAuth: require}}",
               "httpListenAddr: ':443'\n  backendTLS: {caFile: ca.pem}\n  auth: {type: basic, usersFile: users}"),
        tmp_path)
    names = {os.path.basename(path) for path in config.files}
    assert names == {"a.crt", "a.key", "ca.pem", "users"}
    assert all(config.files.values())
    again = load(server(f"{{{A}}}"), tmp_path)
    assert again.files[str(tmp_path / "a.crt")] == config.files[str(tmp_path / "a.crt")]


def test_the_time_for_a_handshake_is_the_listeners_or_the_servers(tmp_path: Path) -> None:
    """tls.handshakeTimeout, else server.timeouts.handshake."""
    more = "httpListenAddr: ':443'\n  timeouts: {handshake: 3s}"
    for tls, expected in ((f"{{{A}}}", 3.0), (f"{{{A}, handshakeTimeout: 7s}}", 7.0)):
        found = load(server(tls, more), tmp_path).server.tls
        assert found is not None
        assert found.handshake_timeout == expected


@pytest.mark.parametrize(
    ("tls", "problem"),
    [
        ("{}", "2: server.tls: certificates is required"),
        ("", "2: server.tls: certificates is required"),
        ("{certificates: []}", "2: server.tls: certificates is required"),
        ("{certificates: [{certFile: a.crt}]}", "2: server.tls.certificates[0]: keyFile is required"),
        ("{certificates: [{certFile: a.crt, keyFile: a.key, ca: x}]}",
         "2: server.tls.certificates[0].ca: unknown key"),
        ("{cert: a.crt}", "2: server.tls.cert: unknown key"),
        ("{certificates: [{certFile: none.crt, keyFile: a.key}]}",
         "2: server.tls.certificates[0].certFile: {0}/none.crt cannot be read: No such file or directory"),
        ("{certificates: [{certFile: a.crt, keyFile: b.key}]}",
         "2: server.tls.certificates[0].keyFile: b.key: not the key of a.crt"),
        ("{certificates: [{certFile: a.key, keyFile: a.key}]}",
         "2: server.tls.certificates[0].certFile: a.key: no PEM certificate is in it"),
        ("{certificates: [{certFile: a.crt, keyFile: a.crt}]}",
         "2: server.tls.certificates[0].keyFile: a.crt: no PEM private key is in it"),
        ("{certificates: [{certFile: a.crt, keyFile: locked.key}]}",
         "2: server.tls.certificates[0].keyFile: locked.key: the key is encrypted"),
        ("{A, minVersion: 1.1}", "2: server.tls.minVersion: '1.1' is not a known value"),
        ("{A, clientAuth: require}", "2: server.tls.clientAuth: require needs clientCA"),
        ("{A, clientAuth: optional}", "2: server.tls.clientAuth: optional needs clientCA"),
        ("{A, clientCA: ca.pem}", "2: server.tls.clientCA: without clientAuth nobody is asked"),
        ("{A, clientCA: a.key, clientAuth: require}", "2: server.tls.clientCA: a.key: no PEM certificate is in it"),
        ("{A, redirectHTTP: ':443'}",
         "2: server.tls.redirectHTTP: :443 is the same address as server.httpListenAddr"),
        ("{A, redirectHTTP: '127.0.0.1:9090'}",
         "2: server.tls.redirectHTTP: 127.0.0.1:9090 is the same address as server.admin (its default)"),
        ("{A, clientSubjectHeader: 'a b'}", "2: server.tls.clientSubjectHeader: 'a b' is not a field name"),
        ("{A, mtls: true}", "2: server.tls.mtls: unknown key"),
    ],
)
def test_what_cannot_be_served_is_told_at_its_key(tls: str, problem: str, tmp_path: Path) -> None:
    """One problem at the line of the key, with the file's name and never its content."""
    (tmp_path / "locked.key").write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
    (found,) = told(server(tls.replace("{A", "{" + A)), tmp_path)
    assert found.startswith(problem.replace("{0}", str(tmp_path))), found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (server(f"{{{A}}}", "listenAddr: ':443'"), "2: server.tls: is for server.httpListenAddr, which is not set"),
        (server(f"{{{A}, redirectHTTP: ':80'}}", "httpListenAddr: ':0'"),
         "2: server.tls.redirectHTTP: the listener is at any free port (port 0)"),
        (server(f"{{{A}, redirectHTTP: ':80'}}", "httpListenAddr: 'unix:/tmp/x'"),
         "2: server.tls.redirectHTTP: the listener is at a Unix socket"),
        (f"server: {{httpListenAddr: ':1', backends: ['z:1']}}\nroutes:\n- {{pool: default, tls: {{{A}}}}}\n",
         "3: routes[0].tls: does not apply to a route of type http; it is a property of listeners"),
        (f"server: {{backends: ['z:1']}}\nlisteners:\n- {{name: d, listenAddr: ':5', type: tcp, tls: {{{A}, "
         "redirectHTTP: ':80'}}\nroutes: [{type: tcp, listener: d, pool: default}]\n",
         "3: listeners[0].tls.redirectHTTP: is for HTTP, and this listener is of type tcp"),
        (f"server: {{backends: ['z:1']}}\nroutes:\n- {{type: tcp, listenAddr: ':5', pool: default, tls: {{{A}, "
         "clientSubjectHeader: X-A}}\n", "3: routes[0].tls.clientSubjectHeader: is for HTTP"),
        (f"server: {{backends: ['z:1']}}\nroutes:\n- {{type: tcp, listenAddr: ':5', pool: default, sni: a.test, "
         f"tls: {{{A}}}}}\n- {{type: tcp, listenAddr: ':5', pool: default, sni: b.test}}\n",
         "4: routes[1]: TLS at :5 ends for one route (line 3) and is passed through for another (here)"),
        (f"server: {{backends: ['z:1'], listenAddr: ':5'}}\nroutes:\n- {{type: tcp, listenAddr: ':5', pool: default, "
         f"sni: a.test, tls: {{{A}}}}}\n",
         "3: routes[0].tls: TLS at :5 ends for one route (here) and is passed through for another (line 1)"),
        (f"server: {{backends: ['z:1']}}\nroutes:\n- {{type: tcp, listenAddr: ':5', pool: default, sni: a.test, "
         f"tls: {{{A}}}}}\n- {{type: tcp, listenAddr: ':5', pool: default, tls: {{{A}, minVersion: 1.3}}}}\n",
         "4: routes[1].tls: TLS at :5 is another one in line 3"),
        ("server: {httpListenAddr: ':1', backends: ['z:1']}\nroutes:\n- {pool: default, timeouts: {handshake: 1s}}\n",
         "3: routes[0].timeouts.handshake: is over before a route is known"),
        (f"server: {{backends: ['z:1']}}\nlisteners:\n- {{name: a, listenAddr: ':5', tls: {{{A}, redirectHTTP: ':8'}}}}"
         f"\n- {{name: b, listenAddr: ':6', tls: {{{A}, redirectHTTP: ':8'}}}}\n",
         "4: listeners[1].tls.redirectHTTP: :8 is the same address as redirectHTTP of listener a (line 3)"),
        (f"server: {{backends: ['z:1']}}\nlisteners:\n- {{name: a, listenAddr: ':5', tls: {{{A}, clientCA: ca.pem, "
         f"clientAuth: require}}}}\n- {{name: b, listenAddr: ':5', tls: {{{A}}}}}\n",
         "4: listeners[1].listenAddr: :5 is the same address as listener a (line 3)"),
    ],
)
def test_what_does_not_go_together_is_told(text: str, problem: str, tmp_path: Path) -> None:
    """Once, at its place."""
    (found,) = told(text, tmp_path)
    assert found.startswith(problem), found


def test_routes_of_an_address_with_the_same_tls_share_it(tmp_path: Path) -> None:
    """The name of the handshake tells them apart."""
    config = load(
        "server: {backends: ['z:1']}\nroutes:\n- {name: x, type: tcp, listenAddr: ':5', pool: default, "
        f"sni: a.test, tls: {{{A}}}}}\n- {{name: y, type: tcp, listenAddr: ':5', pool: default, tls: {{{A}}}}}\n",
        tmp_path)
    (one,) = data_listeners(config)
    assert (one.id, one.kind) == ("sni::5", "tls")


def test_what_is_in_a_certificate() -> None:
    """Names from the alternative names, the common name only without any; when it ends; the kind of its key."""
    leaf = trustme.CA().issue_cert("A.test", "*.b.test", "10.0.0.1", "::1", common_name="other.test")
    found = facts("".join(pem(blob) for blob in leaf.cert_chain_pems))
    assert found.names == ("a.test", "*.b.test", "10.0.0.1", "::1")
    assert found.kind == "ECDSA"
    text, _ = self_signed("Old.test", key=rsa.generate_private_key(65537, 2048), days=3)
    old = facts(text)
    assert (old.names, old.kind) == (("old.test",), "RSA")
    assert old.not_after - old.not_before == 3 * 86400
    assert old.state(old.not_before) == ""
    assert old.state(old.not_before - 1) == "is not valid yet"
    assert old.state(old.not_after) == "has expired"
    assert found.covers("a.test")
    assert found.covers("x.b.test")
    assert found.covers("*.b.test")
    assert found.covers("10.0.0.1")
    assert not found.covers("b.test")
    assert not found.covers("x.y.b.test")
    assert not found.covers("other.test")


def test_the_mode_of_a_key_is_no_change(tmp_path: Path) -> None:
    """It is seen, and two configurations that differ in it alone are the same."""
    before = load(server(f"{{{A}}}"), tmp_path)
    os.chmod(tmp_path / "a.key", 0o644)
    after = load(server(f"{{{A}}}"), tmp_path)
    assert before.server.tls is not None
    assert after.server.tls is not None
    assert [one.server.tls.certificates[0].exposed for one in (before, after) if one.server.tls] == [False, True]
    assert before == after
