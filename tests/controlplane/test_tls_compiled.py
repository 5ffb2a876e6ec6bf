"""TLS of listeners from a configuration to the snapshot, and what is told of a change."""

from __future__ import annotations

from pathlib import Path

import pytest
from doubles.certificates import write_pair
from doubles.tls_backends import CA, STRANGER, pem

from gogate_py.config.loader import load_text
from gogate_py.config.schema import Config
from gogate_py.controlplane.compiler import compile_snapshot, listener_rules, members
from gogate_py.controlplane.overrides import Overrides
from gogate_py.controlplane.plan import plan, render
from gogate_py.snapshot import BackendState, Listener, ListenerTls, Snapshot

TEXT = """\
server:
  httpListenAddr: ":443"
  backends: ["z:1"]
  tls: {certificates: [{certFile: a.crt, keyFile: a.key}, {certFile: b.crt, keyFile: b.key}], redirectHTTP: ":80"}
listeners:
  - name: inner
    listenAddr: ":8443"
    acceptProxyProtocol: true
    tls:
      certificates: [{certFile: b.crt, keyFile: b.key}]
      minVersion: "1.3"
      clientCA: ca.pem
      clientAuth: require
      handshakeTimeout: 3s
  - {name: db, listenAddr: ":5432", type: tcp, tls: {certificates: [{certFile: a.crt, keyFile: a.key}]}}
routes:
  - {name: only, match: {path: /only}, listeners: [inner, default], pool: default}
  - {name: db, type: tcp, listener: db, pool: default}
"""
EVERYBODY = TEXT.replace("server:\n", "server:\n  trustedProxies: [10.0.0.0/8]\n", 1)


@pytest.fixture(autouse=True)
def _files(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", "a.test", "*.a.test", days=99)
    write_pair(tmp_path, "b", days=99)
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))


def load(folder: Path, text: str = EVERYBODY) -> Config:
    return load_text(text, str(folder / "c.yaml"), {})


def compiled(config: Config) -> Snapshot:
    """The snapshot of a configuration of which nothing else is known."""
    found = members(config, ())
    return compile_snapshot(
        config, found, {one.key: 0 for pool in found.values() for one in pool}, lambda member: (),
        lambda _, row: BackendState(row, True, False), 1, 2, Overrides(lambda: 0.0), lambda name: 0, b"")


def listener(snapshot: Snapshot, name: str) -> Listener:
    return next(one for one in snapshot.listeners if one.name == name)


def tls(snapshot: Snapshot, name: str) -> ListenerTls:
    found = listener(snapshot, name).tls
    assert found is not None
    return found


def test_listeners_have_their_certificates_and_rules(tmp_path: Path) -> None:
    """Contents, names, rules; the time for handshakes; no subject without client certificates, or for TCP."""
    snapshot = compiled(load(tmp_path))
    first, inner, db = (tls(snapshot, name) for name in ("http:default", "inner", "db"))
    assert [one.names for one in first.certificates] == [("a.test", "*.a.test"), ("b.test",)]
    assert first.certificates[0].chain.strip() == (tmp_path / "a.crt").read_text().strip()
    assert first.certificates[0].key.strip() == (tmp_path / "a.key").read_text().strip()
    assert (first.min_version, first.client_auth, first.client_ca, first.subject_header) == ("1.2", "none", "", "")
    assert (inner.min_version, inner.client_auth, inner.subject_header) == ("1.3", "require", "X-SSL-Client-DN")
    assert inner.client_ca.strip() == pem(CA.cert_pem).strip()
    assert (first.handshake_timeout, inner.handshake_timeout) == (10.0, 3.0)
    assert len({first.digest, inner.digest, db.digest}) == 3
    assert db.certificates == first.certificates[:1]


def test_redirects_and_routes_by_listener(tmp_path: Path) -> None:
    """A redirect knows the port of its listener; routes name listeners as they are named in metrics."""
    snapshot = compiled(load(tmp_path))
    redirect = listener(snapshot, "redirect::80")
    assert (redirect.id, redirect.address, redirect.https_port, redirect.tls) == ("redirect::80", ":80", 443, None)
    assert [(one.name, one.listeners) for one in snapshot.http_routes] == [
        ("only", ("inner", "http:default")), ("default-http", ())]
    assert listener(snapshot, "inner").accept_proxy


def test_the_subject_is_an_identity_field_everywhere(tmp_path: Path) -> None:
    """No client may set it on any listener, once one sets it; without client certificates nobody does."""
    assert compiled(load(tmp_path)).head_rules.identity_headers == ("x-ssl-client-dn",)
    text = EVERYBODY.replace("clientAuth: require", "clientAuth: optional\n      clientSubjectHeader: X-Client")
    assert compiled(load(tmp_path, text)).head_rules.identity_headers == ("x-client",)
    text = EVERYBODY.replace("clientAuth: require", 'clientAuth: optional\n      clientSubjectHeader: ""')
    assert compiled(load(tmp_path, text)).head_rules.identity_headers == ()
    text = EVERYBODY.replace("clientAuth: require", "clientAuth: none")
    assert compiled(load(tmp_path, text)).head_rules.identity_headers == ()


def test_a_digest_tells_contents_apart(tmp_path: Path) -> None:
    """The same files: the same; another certificate, authority or rule: another."""
    before = compiled(load(tmp_path))
    assert tls(compiled(load(tmp_path)), "inner").digest == tls(before, "inner").digest
    write_pair(tmp_path, "a")
    after = compiled(load(tmp_path))
    assert tls(after, "http:default").digest != tls(before, "http:default").digest
    assert tls(after, "inner").digest == tls(before, "inner").digest
    STRANGER.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    assert tls(compiled(load(tmp_path)), "inner").digest != tls(before, "inner").digest


def told(old: Config, new: Config) -> list[str]:
    """The plan for people, without what is unchanged."""
    return [line for line in render(plan(old, new)) if not line.startswith(("= ", "keeps state"))]


def test_a_plan_names_certificates_never_contents(tmp_path: Path) -> None:
    """Names and the day of the end, of each listener that has it; a new key alone is told, too."""
    before = load(tmp_path)
    write_pair(tmp_path, "b", "b.test", "c.test", days=200)
    after = load(tmp_path)
    lines = told(before, after)
    assert [line for line in lines if line.startswith("~")] == ["~ listener http:default", "~ listener inner"]
    assert lines[1].startswith("    tls.certificate b.crt: b.test until 2")
    assert " → b.test c.test until 2" in lines[1]
    assert "BEGIN" not in "".join(lines)
    write_pair(tmp_path, "b", "b.test", "c.test", days=200)
    (_, same, *_) = told(after, load(tmp_path))
    assert same.startswith("    tls.certificate b.crt: changed b.test c.test until 2")


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ("clientAuth: require", "clientAuth: optional",
         ["~ listener inner", "    tls.clientAuth: require → optional"]),
        ("      handshakeTimeout: 3s\n", "", ["~ listener inner", "    tls.handshakeTimeout: 3s → 10s"]),
        (', redirectHTTP: ":80"', "",
         ["- listener redirect::80", "closes: :80", "drains: listener redirect::80: accepts no more connections; those "
          "that are open end by themselves"]),
        (":443", ":444", ["~ listener http:default", "    listenAddr: :443 → :444", "~ listener redirect::80",
         "    redirects to port: 443 → 444", "rebinds: http:default :443 → :444", "binds: :444", "closes: :443"]),
        ("[inner, default]", "[inner]", ["~ route only", "    listeners: [inner, default] → [inner]"]),
    ],
)
def test_changes_of_listeners_are_told(
    before: str, after: str, lines: list[str], tmp_path: Path
) -> None:
    """Each where it belongs."""
    assert told(load(tmp_path), load(tmp_path, EVERYBODY.replace(before, after, 1))) == lines


def test_tls_that_comes_and_goes_is_told(tmp_path: Path) -> None:
    """With what it shows."""
    plain = EVERYBODY.replace(', tls: {certificates: [{certFile: a.crt, keyFile: a.key}]}}', "}")
    lines = told(load(tmp_path), load(tmp_path, plain))
    assert lines[0] == "~ listener db"
    assert lines[1].startswith("    tls: a.test *.a.test until 2")
    assert lines[1].endswith(" → none")


def test_other_authorities_in_the_same_file_are_told(tmp_path: Path) -> None:
    """By the name of the file."""
    before = load(tmp_path)
    STRANGER.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    assert told(before, load(tmp_path)) == ["~ listener inner", "    tls.clientCA ca.pem: changed (contents)"]


def test_rules_are_what_is_asked_of_clients(tmp_path: Path) -> None:
    """Another certificate or handshake time: the same; another rule, authority or field: another; none without TLS."""
    before = listener_rules(load(tmp_path))
    assert set(before) == {"http:default", "inner", "db"}
    write_pair(tmp_path, "b")
    assert listener_rules(load(tmp_path, EVERYBODY.replace("handshakeTimeout: 3s", "handshakeTimeout: 4s"))) == before
    for one, other in (("require", "optional"), ('minVersion: "1.3"\n', 'minVersion: "1.2"\n'),
                       ("clientAuth: require", "clientAuth: require\n      clientSubjectHeader: X-A")):
        after = listener_rules(load(tmp_path, EVERYBODY.replace(one, other)))
        assert after["inner"] != before["inner"]
        assert after["http:default"] == before["http:default"]
    STRANGER.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    assert listener_rules(load(tmp_path))["inner"] != before["inner"]
