"""Advice about TLS on listeners: each code where it should be, and silence where it should not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from doubles.certificates import self_signed, write_pair

from gogate_py.config.codes import CODES, WARNING
from gogate_py.config.loader import examine_text
from gogate_py.config.problems import Problem


@pytest.fixture(autouse=True)
def _files(tmp_path: Path) -> None:
    for name, days in (("good", 90.0), ("soon", 13.5), ("over", -1.0)):
        write_pair(tmp_path, name, "a.test", "*.a.test", days=days)
    write_pair(tmp_path, "rsa", "a.test", days=90, rsa_key=True)
    write_pair(tmp_path, "part", "x.a.test", "a.test", days=90)
    write_pair(tmp_path, "less", "a.test", days=90)
    write_pair(tmp_path, "seen", "a.test", days=90, mode=0o644)
    certificate, key = self_signed("a.test", days=-30)
    (tmp_path / "early.crt").write_text(certificate)
    (tmp_path / "early.key").write_text(key)
    os.chmod(tmp_path / "early.key", 0o640)


def findings(text: str, folder: Path) -> list[Problem]:
    """Everything that is found in a text, which must be without problems."""
    examined = examine_text(text, str(folder / "c.yaml"), {})
    assert not examined.problems, [str(problem) for problem in examined.problems]
    return examined.advice


def said(text: str, folder: Path) -> list[str]:
    """``CODE key: message`` of each finding."""
    return [f"{one.code} {one.key}: {one.message}" for one in findings(text, folder)]


def tls(*files: str) -> str:
    """The certificates of a listener."""
    return f"tls: {{certificates: [{', '.join(f'{{certFile: {one}.crt, keyFile: {one}.key}}' for one in files)}]}}"


def short(*files: str, more: str = "") -> str:
    """A short form with these certificates in line 3."""
    return f"server:\n  httpListenAddr: ':443'\n  {tls(*files)}\n  backends: ['z:1']\n{more}"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("good",), []),
        (("good", "rsa", "part"), []),
        (("over",), ["GG060 server.tls.certificates[0].certFile: over.crt has expired: 2"]),
        (("early",), ["GG060 server.tls.certificates[0].certFile: early.crt is not valid yet: 2"]),
        (("soon",), ["GG061 server.tls.certificates[0].certFile: soon.crt expires on 2"]),
        (("seen",), ["GG063 server.tls.certificates[0].keyFile: everybody on this machine can read seen.key"]),
        (("good", "less"), ["GG064 server.tls.certificates[1]: less.crt is never shown: certificates before it have "
                            "all of its names (a.test), and ECDSA keys, too"]),
        (("less", "good"), []),
    ],
)
def test_certificates(files: tuple[str, ...], expected: list[str], tmp_path: Path) -> None:
    """Dates, modes and what is never shown, at the file's key."""
    found = said(short(*files), tmp_path)
    assert len(found) == len(expected)
    for one, begins in zip(found, expected, strict=True):
        assert one.startswith(begins)


def test_dates_are_told_once_for_a_file(tmp_path: Path) -> None:
    """However many listeners show it; a certificate for backends is looked at, too."""
    text = (
        f"server:\n  httpListenAddr: ':443'\n  {tls('soon')}\n  backends: ['https://z:1']\n"
        "  backendTLS: {certFile: over.crt, keyFile: over.key}\n"
        f"listeners: [{{name: b, listenAddr: ':444', {tls('soon')}}}]\n")
    assert [one.partition(":")[0] for one in said(text, tmp_path)] == [
        "GG061 server.tls.certificates[0].certFile", "GG060 server.backendTLS.certFile"]


@pytest.mark.parametrize(
    ("route", "there"),
    [("host: a.test", False), ("host: x.a.test", False), ("host: '*.a.test'", False), ("host: b.test", True),
     ("host: x.y.a.test", True), ("host: '*.b.test'", True), ("pathPrefix: /x", False), ("host: 10.0.0.1", True)],
)
def test_hosts_without_a_certificate(route: str, there: bool, tmp_path: Path) -> None:
    """On every TLS listener that has the route; a wildcard is for one label."""
    text = short("good", more=f"routes: [{{name: r, match: {{{route}}}, pool: default}}]\n")
    assert [one.partition(":")[0] for one in said(text, tmp_path)] == ["GG062 routes[0].match.host"] * there


def test_hosts_on_a_listener_without_tls_need_none(tmp_path: Path) -> None:
    """A route that is only there is not looked at."""
    more = ("listeners: [{name: plain, listenAddr: '127.0.0.1:80'}]\n"
            "routes: [{name: r, match: {host: b.test}, listener: plain, pool: default}]\n")
    assert said(short("good", more=more), tmp_path) == []


def test_the_same_with_and_without_tls(tmp_path: Path) -> None:
    """A note, for other hosts only, and not behind a proxy; never where a redirect takes the plain port."""
    plain = short("good", more="listeners: [{name: plain, listenAddr: ':80'}]\n")
    (found,) = findings(plain, tmp_path)
    assert (found.code, found.key, found.severity) == ("GG065", "listeners[0].listenAddr", "note")
    assert said(plain.replace("':80'", "'127.0.0.1:80'"), tmp_path) == []
    assert said(plain.replace("backends", "trustedProxies: [10.0.0.0/8]\n  backends"), tmp_path) == []
    redirect = short("good").replace("tls: {", "tls: {redirectHTTP: ':80', ")
    assert said(redirect, tmp_path) == []


def test_credentials_over_tls_are_not_in_clear(tmp_path: Path) -> None:
    """GG053 is of listeners without TLS that have the route."""
    user = 'auth: {type: basic, users: {al: "$2b$12$BpVHP1y6YUtFXNLTjqCU..ZafncDu645NiFBBPwl.rNcEh9WKWIe6"}}'
    routes = f"routes: [{{name: r, match: {{path: /r}}, pool: default, {user}%s}}]\n"
    assert said(short("good", more=routes.replace("%s", "")), tmp_path) == []
    plain = "listeners: [{name: plain, listenAddr: ':80'}]\n"
    codes = [one.code for one in findings(short("good", more=plain + routes.replace("%s", "")), tmp_path)]
    assert sorted(codes) == ["GG053", "GG065"]
    only = routes.replace("%s", ", listener: default")
    assert "GG053" not in [one.code for one in findings(short("good", more=plain + only), tmp_path)]


def test_all_but_one_are_warnings() -> None:
    """--strict fails on what clients will not accept."""
    severities = {code: severity for code, (severity, _) in CODES.items() if code.startswith("GG06")}
    assert {code for code, severity in severities.items() if severity != WARNING} == {"GG065"}


def test_short_lives_are_not_always_nearly_over(tmp_path: Path) -> None:
    """A certificate for six days, renewed after four, is no warning until then."""
    write_pair(tmp_path, "short", "a.test", days=2.5, lived=3.5)
    assert said(short("short"), tmp_path) == []
    write_pair(tmp_path, "short", "a.test", days=1.5, lived=4.5)
    assert [one.partition(" ")[0] for one in said(short("short"), tmp_path)] == ["GG061"]
