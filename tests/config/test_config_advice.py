"""Advice of ``gogate check``: every code where it should be, and silence where it should not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

import pytest
from config_loading import MINIMAL, PRODUCTION

from gogate_py.config.codes import CODES, ERROR
from gogate_py.config.example import example
from gogate_py.config.loader import examine_text
from gogate_py.config.problems import Problem

ROOT = Path(__file__).parents[2]


def findings(text: str, environ: Mapping[str, str] | None = None) -> list[Problem]:
    """Everything that is found in an indented text, which must be without problems."""
    examined = examine_text(dedent(text), "test.yaml", environ or {})
    assert not examined.problems, [str(problem) for problem in examined.problems]
    return examined.advice


def said(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """``CODE key`` of each finding."""
    return [f"{finding.code} {finding.key}" for finding in findings(text, environ)]


def short(inside: str) -> str:
    """A short form with more keys in ``server``."""
    return f"server: {{httpListenAddr: ':81', backends: ['a:1', 'b:1'], {inside}}}"


def route(inside: str, server: str = "") -> str:
    """A long form with one route."""
    return (f"server: {{httpListenAddr: ':81'{', ' if server else ''}{server}}}\n"
            f"pools: {{one: {{backends: ['a:1']}}, two: {{backends: ['b:1']}}}}\n"
            f"routes: [{{name: rest, pool: two}}, {{name: r, match: {{pathPrefix: /r}}, {inside}}}]")


USERS = 'users: {al: "$2b$12$BpVHP1y6YUtFXNLTjqCU..ZafncDu645NiFBBPwl.rNcEh9WKWIe6"}'
KEYS = f"keys: {{ci: {'ab' * 32}}}"
BASIC = f"auth: {{type: basic, {USERS}}}"
JWT = "type: jwt, issuer: i, audience: a"

#: (code, key) → a text with exactly this finding, and texts without any.
CASES: list[tuple[str, str, str, list[str]]] = [
    ("GG010", "pools.two", route("pool: one").replace("{name: rest, pool: two}, ", ""), [
        route("split: [one, two]").replace("{name: rest, pool: two}, ", ""), route("pool: one")]),
    ("GG010", "server.backends",
     "server: {httpListenAddr: ':81', backends: ['a:1']}\npools: {p: {backends: ['b:1']}}\nroutes: [{pool: p}]", [
         "server: {httpListenAddr: ':81', backends: ['a:1']}\npools: {p: {backends: ['b:1']}}\n"
         "routes: [{pool: p, match: {path: /p}}]"]),
    ("GG011", "pools.two", route("pool: one").replace("two: {backends: ['b:1']}", "two: {service: s, tags: [t]}"), []),
    ("GG011", "server.backends", "server: {httpListenAddr: ':81'}", [short("")]),
    ("GG012", "routes[1].split[1]", route("split: [{pool: two, weight: 1}, {pool: one, weight: 9}]"), [
        route("split: [{pool: one, weight: 9}, {pool: two, weight: 1}]"),
        route("split: [{pool: two, weight: 1, canary: true}, {pool: one, weight: 9}]"),
        route("split: [{pool: two, weight: 1}, {pool: one, weight: 9}], canaryHeader: ''")]),
    ("GG013", "server.loadBalancer", short("loadBalancer: weighted"), [
        "server: {httpListenAddr: ':81', backends: [{addr: 'a:1', weight: 2}, 'b:1'], loadBalancer: weighted}",
        "server: {httpListenAddr: ':81', backends: ['a:1'], loadBalancer: weighted}"]),
    ("GG014", "server.backends[1].weight",
     "server: {httpListenAddr: ':81', backends: ['a:1', {addr: 'b:1', weight: 2}]}", [
         "server: {httpListenAddr: ':81', backends: ['a:1', {addr: 'b:1', weight: 2}], loadBalancer: least_conn}",
         "server: {httpListenAddr: ':81', backends: ['a:1', {addr: 'b:1', weight: 0}]}"]),
    ("GG015", "server.backends", "server: {httpListenAddr: ':81', backends: [{addr: 'a:1', weight: 0}]}", []),
    ("GG016", "server.slowStart", short("slowStart: 10s, loadBalancer: ip_hash"), [short("slowStart: 10s")]),
    ("GG020", "server.health.timeout", short("health: {interval: 1s, timeout: 2s}"), [
        short("health: {interval: 2s, timeout: 2s}"), short("health: {enabled: false, interval: 1s}")]),
    ("GG020", "server.health.interval", short("health: {interval: 1s}"), []),
    ("GG021", "server.health.httpPath", short("health: {httpPath: /up}"), [
        short("health: {httpPath: /up, checkType: http}"), short("health: {httpPath: /health}")]),
    ("GG030", "server.circuitBreaker.failureThreshold",
     short("circuitBreaker: {enabled: true, failureThreshold: 50}"), [
        short("circuitBreaker: {enabled: true, failureThreshold: 50%}"),
        short("circuitBreaker: {enabled: true, failureThreshold: 5}"),
        short("circuitBreaker: {enabled: false, failureThreshold: 50}")]),
    ("GG031", "server.circuitBreaker.minRequests",
     short("circuitBreaker: {enabled: true, failureThreshold: 50%, minRequests: 200, window: 10s}, "
           "rateLimit: {enabled: true, rate: 10, burst: 99}"), [
         short("circuitBreaker: {enabled: true, failureThreshold: 50%, minRequests: 200, window: 10s}, "
               "rateLimit: {enabled: true, rate: 10, burst: 100}"),
         short("circuitBreaker: {enabled: true, failureThreshold: 50%, minRequests: 200, window: 10s}, "
               "rateLimit: {enabled: true, rate: 10, burst: 99, keyBy: ip}")]),
    ("GG032", "server.circuitBreaker", short("circuitBreaker: {timeout: 9s}"), [
        short("circuitBreaker: {enabled: true, timeout: 9s}"), short("circuitBreaker: {enabled: false, timeout: 9s}"),
        "server: {httpListenAddr: ':81', circuitBreaker: {timeout: 9s}}\n"
        "pools: {p: {backends: ['a:1'], circuitBreaker: {enabled: true}}}\nroutes: [{pool: p}]"]),
    ("GG032", "server.rateLimit", short("rateLimit: {rate: 5}"), [short("rateLimit: [{rate: 5}]")]),
    ("GG032", "routes[1].cache", route("pool: one, cache: {ttl: 5s}"), [route("pool: one, cache: {enabled: true}")]),
    ("GG033", "server.retry.methods", short("retry: {methods: [GET, POST]}"), [
        short("retry: {methods: [GET, PUT]}"), short("retry: {attempts: 1, methods: [POST]}")]),
    ("GG034", "routes[1].retry.perTryTimeout",
     route("pool: one, timeouts: {request: 5s}, retry: {attempts: 3, perTryTimeout: 2s, on: [timeout]}"), [
         route("pool: one, timeouts: {request: 6s}, retry: {attempts: 3, perTryTimeout: 2s, on: [timeout]}"),
         route("pool: one, retry: {attempts: 3, perTryTimeout: 2s, on: [timeout]}")]),
    ("GG035", "server.retry.perTryTimeout", short("retry: {perTryTimeout: 2s}"), [
        short("retry: {perTryTimeout: 2s, on: [connect, timeout]}")]),
    ("GG036", "server.timeouts.responseHeader",
     short("timeouts: {request: 5s, responseHeader: 6s}, retry: {perTryTimeout: 1s, on: [timeout]}"), [
         short("timeouts: {request: 5s}"), short("timeouts: {request: 5s, responseHeader: 4s}")]),
    ("GG037", "server.timeouts.request", short("timeouts: {request: 31s}"), [
        short("timeouts: {request: 30s}"), short("timeouts: {request: 31s}, shutdown: {gracePeriod: 31s}")]),
    ("GG040", "routes[1].rateLimit.keyBy", route("pool: one, rateLimit: {keyBy: 'header:X-Key'}"), [
        route("pool: one, rateLimit: {keyBy: user}, " + BASIC, "trustedProxies: [10.0.0.0/8]"),
        route("pool: one, rateLimit: {keyBy: 'header:X-Key'}, " + BASIC, "trustedProxies: [10.0.0.0/8]"),
        route("pool: one, rateLimit: [{keyBy: 'header:X-Key'}, {keyBy: ip}]"),
        route("pool: one, rateLimit: {keyBy: 'header:X-Key'}", "rateLimit: {enabled: true}"),
        route("pool: one, rateLimit: {keyBy: ip}")]),
    ("GG040", "routes[1].rateLimit[0].keyBy", route("pool: one, rateLimit: [{keyBy: ['cookie:a', ip]}]"), []),
    ("GG040", "server.rateLimit.keyBy", short("rateLimit: {enabled: true, keyBy: 'query:k'}"), []),
    ("GG041", "server.rateLimit.burst", short("rateLimit: {enabled: true, algorithm: sliding_window, burst: 5}"), [
        short("rateLimit: {enabled: true, burst: 5}")]),
    ("GG042", "server.rateLimit.keyBy", short("rateLimit: {enabled: true, keyBy: [ip, host]}"), [
        short("rateLimit: {enabled: true, keyBy: [host, ip]}")]),
    ("GG050", "server.admin.listenAddr", short("admin: {listenAddr: ':9'}"), [
        short("admin: {listenAddr: ':9', token: '${T:-t}'}"), short("admin: {listenAddr: '[::1]:9'}"),
        short("admin: {listenAddr: 'localhost:9'}"), short("admin: {listenAddr: 'unix:/a'}"),
        short("admin: {enabled: false, listenAddr: ':9'}")]),
    ("GG050", "server.registry.listenAddr", short("registry: {listenAddr: '0.0.0.0:9'}"), []),
    ("GG051", "server.trustedProxies[1]", short("trustedProxies: [10.0.0.0/8, 0.0.0.0/0]"), [
        short("trustedProxies: [10.0.0.0/8]")]),
    ("GG052", "server.admin.token", short("admin: {token: abc}"), [
        short("admin: {token: '${TOKEN:-abc}'}"), short("admin: {token: ''}")]),
    ("GG052", "routes[1].auth.secret",
     route(f"pool: one, auth: {{{JWT}, secret: '{'x' * 32}'}}", "trustedProxies: ['::1']"), [
        route(f"pool: one, auth: {{{JWT}, secret: '${{S:-{'x' * 32}}}'}}", "trustedProxies: ['::1']")]),
    ("GG053", "server.auth", short(BASIC), [
        short(BASIC + ", trustedProxies: [10.0.0.0/8]"), short(BASIC).replace(":81", "127.0.0.1:81"),
        short("auth: none")]),
    ("GG054", "server.registry.allowCIDRs[0]", short("registry: {allowCIDRs: ['::/0']}"), []),
    ("GG055", "server.auth.query", short(f"auth: {{type: api_key, query: k, {KEYS}}}, trustedProxies: ['::1']"), [
        short(f"auth: {{type: api_key, {KEYS}}}, trustedProxies: ['::1']")]),
    ("GG056", "server.backendTLS.insecureSkipVerify", short("backendTLS: {enabled: true, insecureSkipVerify: true}"), [
        short("backendTLS: {enabled: true}")]),
    ("GG056", "pools.two.tls.insecureSkipVerify", route("pool: one").replace(
        "{backends: ['b:1']}", "{backends: ['https://b:1'], tls: {insecureSkipVerify: true}}"), []),
]


@pytest.mark.parametrize(("code", "key", "text", "silent"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES])
def test_a_finding_and_its_absence(code: str, key: str, text: str, silent: list[str]) -> None:
    """The finding is there, alone, with its severity, place and fix; texts that do it right have none of its code."""
    assert said(text) == [f"{code} {key}"]
    (finding,) = findings(text)
    assert finding.severity == CODES[code][0] != ERROR
    assert finding.fix
    for other in silent:
        assert said(other) == [], other


def test_every_code_of_advice_has_a_case() -> None:
    """No code without a test of its presence; those of --probe and the environment are tested with the command, those
    about certificates (GG06x) in test_config_advice_tls.py."""
    advice = {code for code, (severity, _) in CODES.items() if severity != ERROR and not code.startswith("GG06")}
    assert advice - {"GG006", "GG022", "GG023"} == {case[0] for case in CASES}


def test_what_is_inherited_is_told_where_it_is_written() -> None:
    """Three pools with the server's mistake are one finding, at the server; a pool's own is at the pool."""
    text = """\
    server:
      httpListenAddr: ":81"
      health: {interval: 1s, timeout: 2s}
    pools:
      a: {backends: ["a:1"]}
      b: {backends: ["b:1"], health: {timeout: 3s}}
    routes: [{split: [a, b]}]
    """
    assert said(text) == ["GG020 server.health.timeout", "GG020 pools.b.health.timeout"]


def test_a_finding_has_a_place() -> None:
    """Line, column and the column behind the value, from 1."""
    text = "server:\n  httpListenAddr: ':81'\n  backends: ['a:1']\n  slowStart: 3s\n  loadBalancer: ip_hash"
    (finding,) = findings(text)
    assert (finding.line, finding.column, finding.end_column) == (4, 3, 12)
    assert finding.source_line == "  slowStart: 3s"


def test_a_secret_is_not_shown() -> None:
    """The line with the secret is not repeated, whatever is said of it."""
    (finding,) = findings(short("admin: {token: hunter2}"))
    assert "hunter2" not in finding.render()


def test_a_variable_is_the_place_of_what_it_brings() -> None:
    """Advice about an overridden value names the variable; a token from one is not in the file."""
    environ = {"GOGATE_SERVER_ADMIN_LISTEN_ADDR": ":9"}
    (finding,) = findings(short(""), environ)
    assert str(finding).startswith("GOGATE_SERVER_ADMIN_LISTEN_ADDR: warning: server.admin.listenAddr: ")
    assert said(short(""), {**environ, "GOGATE_SERVER_ADMIN_TOKEN": "t"}) == []


def test_the_files_of_gogate() -> None:
    """GoGate's README: its minimal file is without findings, its production file opens the admin listener."""
    assert said(MINIMAL) == []
    assert said(PRODUCTION) == ["GG050 server.admin.listenAddr"]
    assert {finding.severity for finding in findings(example())} == {"note"}


@pytest.mark.parametrize(("text", "code"), [
    ("a: [", "GG001"), ("", "GG001"), ("a: 1\n---\nb: 2", "GG001"), ("server: {prot: 1}", "GG002"),
    ("server: {workers: 1, workers: 2}", "GG002"), ("server: {workers: x}", "GG003"),
    ("server: {workers: '${NONE}'}", "GG003"), ("server: []", "GG003"), ("server: {}", "GG004"),
    ("server: {listenAddr: ':1', httpListenAddr: ':1'}", "GG004"),
    (route("pool: one").replace("routes: [", "routes: [{name: x, pool: one},"), "GG005"),
])
def test_codes_of_errors(text: str, code: str) -> None:
    """Errors have codes, too, by what is wrong; with an error there is no advice."""
    examined = examine_text(text, "test.yaml", {})
    assert code in {problem.code for problem in examined.problems}
    assert {problem.severity for problem in examined.problems} == {ERROR}
    assert (examined.config, examined.advice) == (None, [])


def test_the_documentation_lists_every_code() -> None:
    """docs/check.md has a row for each code: its severity and what it is about."""
    rows = re.findall(r"^\| (GG\d{3}) \| (\w+) \| (.+?) \|", (ROOT / "docs" / "check.md").read_text(), re.MULTILINE)
    assert {code: (severity, about.replace("`", "")) for code, severity, about in rows} == CODES
