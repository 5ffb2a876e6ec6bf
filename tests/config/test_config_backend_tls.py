"""TLS to backends in the configuration: https://, tls of pools, defaults of the server, and the files they name."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
import trustme
from doubles.tls_backends import CA, STRANGER, pem, write_files

from gogate_py.config.loader import load_text
from gogate_py.config.problems import Problem
from gogate_py.config.schema import Config
from gogate_py.errors import ConfigError


def load(text: str, folder: Path) -> Config:
    """The configuration of a text that stands in a folder."""
    return load_text(dedent(text), str(folder / "c.yaml"), {})


def told(text: str, folder: Path) -> list[str]:
    """``line: key: message`` of every problem."""
    try:
        load(text, folder)
    except ConfigError as error:
        found = [problem for problem in error.problems if isinstance(problem, Problem)]
        return [f"{one.line}: {one.key}: {one.message}" for one in found]
    return []


def pool(tls: str, backends: str = "a.test:1") -> str:
    """A pool with TLS settings in line 4."""
    return (
        "server: {httpListenAddr: ':1', registry: {enabled: false}}\n"
        f"pools:\n  p:\n    tls: {tls}\n    backends: ['{backends}']\nroutes: [{{pool: p}}]\n"
    )


def test_an_address_with_https_is_one_with_tls(tmp_path: Path) -> None:
    """The scheme goes, the port is 443 if there is none; the other backends of the pool stay as they are."""
    config = load("server: {httpListenAddr: ':1', backends: ['https://A.test', 'b.test:2']}", tmp_path)
    assert [(one.addr, one.tls) for one in config.server.backends] == [("A.test:443", True), ("b.test:2", False)]


def test_files_are_read_once_and_inherited(tmp_path: Path) -> None:
    """A pool takes each key of the server's that it does not have itself; what stands around PEM blocks goes."""
    write_files(tmp_path)
    (tmp_path / "own.pem").write_text("Ünsere Stelle:\n" + pem(STRANGER.cert_pem), encoding="utf-8")
    config = load(
        """\
        server:
          httpListenAddr: ":1"
          backendTLS: {caFile: ca.pem, certFile: cert.pem, keyFile: key.pem}
        pools:
          all: {backends: ["a.test:1"], tls: {enabled: true}}
          own: {backends: ["https://a.test"], tls: {caFile: own.pem, serverName: Other.Test.}}
          off: {backends: ["a.test:1"]}
        routes: [{pool: all}]
        """,
        tmp_path,
    )
    server, all_, own = config.server.backend_tls, config.pools["all"].backend_tls, config.pools["own"].backend_tls
    assert server.authorities == pem(CA.cert_pem).rstrip("\n")
    assert all_.enabled
    assert (all_.authorities, all_.certificate, all_.key) == (server.authorities, server.certificate, server.key)
    assert own.authorities == pem(STRANGER.cert_pem).rstrip("\n")
    assert (own.certificate, own.server_name, own.enabled) == (server.certificate, "other.test", False)
    assert server.key.startswith("-----BEGIN ")
    assert server.key not in repr(config)


@pytest.mark.parametrize(
    ("tls", "problem"),
    [
        ("{enabled: true, caFile: none.pem}", "caFile: {0}/none.pem cannot be read: No such file or directory"),
        ("{enabled: true, caFile: empty.pem}", "caFile: empty.pem: no PEM certificate is in it"),
        ("{enabled: true, caFile: broken.pem}", "caFile: broken.pem: a certificate in it cannot be read"),
        ("{enabled: true, certFile: cert.pem}", "certFile: needs keyFile, too"),
        ("{enabled: true, keyFile: key.pem}", "keyFile: needs certFile, too"),
        ("{enabled: true, certFile: key.pem, keyFile: key.pem}", "certFile: key.pem: no PEM certificate is in it"),
        ("{enabled: true, certFile: cert.pem, keyFile: cert.pem}", "keyFile: cert.pem: no PEM private key is in it"),
        ("{enabled: true, certFile: cert.pem, keyFile: other.pem}", "keyFile: other.pem: not the key of cert.pem"),
        ("{enabled: true, certFile: cert.pem, keyFile: locked.pem}", "keyFile: locked.pem: the key is encrypted"),
        ("{enabled: true, serverName: 'a b'}", "serverName: 'a b' is neither a host name nor an IP address"),
        ("{serverName: b.test}", "serverName: TLS is not on in this pool: set enabled: true"),
        ("{enabled: true, sni: b.test}", "sni: unknown key"),
    ],
)
def test_what_cannot_be_used_is_told_at_its_key(tls: str, problem: str, tmp_path: Path) -> None:
    """One problem at the line of the key, with the file's name and never its content."""
    write_files(tmp_path)
    (tmp_path / "empty.pem").write_text("")
    (tmp_path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    trustme.CA().issue_cert("x.test").private_key_pem.write_to_path(str(tmp_path / "other.pem"))
    kind = "ENCRYPTED PRIVATE KEY-----"
    (tmp_path / "locked.pem").write_text(f"-----BEGIN {kind}\nAA==\n-----END {kind}\n")
    (message,) = told(pool(tls), tmp_path)
    assert message.startswith("4: pools.p.tls." + problem.format(tmp_path))


def test_https_where_tls_is_switched_off(tmp_path: Path) -> None:
    """enabled: false and https:// say two things."""
    (message,) = told(pool("{enabled: false}", "https://a.test"), tmp_path)
    assert message.startswith("5: pools.p.backends[0].addr: https:// asks for TLS, and enabled is false (line 4)")


def test_a_unix_socket_needs_a_name(tmp_path: Path) -> None:
    """There is no host that its certificate could be for."""
    (message,) = told(pool("{enabled: true}", "unix:/run/x"), tmp_path)
    assert "set tls.serverName" in message
    assert told(pool("{enabled: true, serverName: a.test}", "unix:/run/x"), tmp_path) == []
    assert told(pool("{enabled: true, insecureSkipVerify: true}", "unix:/run/x"), tmp_path) == []


def test_settings_of_a_pool_that_is_off_on_purpose(tmp_path: Path) -> None:
    """enabled: false keeps the others for later."""
    assert told(pool("{enabled: false, serverName: a.test}"), tmp_path) == []
