"""The JSON Schema takes what the loader takes, and refuses what is wrong by type, word, range or key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from config_loading import MINIMAL, PRODUCTION, problems
from jsonschema import Draft202012Validator
from test_config_schema import CLASSES
from yaml_documents import as_json

from gogate_py.config.json_schema import json_schema
from gogate_py.config.json_schema_values import VARIABLE, value_schema
from gogate_py.config.names import FieldName
from gogate_py.config.settings import ListOf, TextMap, known_keys, settings_of
from gogate_py.config.values import BadValue, Boolean, Choice, Kind

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / "config.example.yaml").read_text()
SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def errors(text: str) -> list[str]:
    """What the schema has against a configuration."""
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(as_json(text))]


def documented() -> Iterator[Any]:
    """Every YAML block of the documentation."""
    for page in PAGES:
        for number, text in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)):
            yield pytest.param(text, id=f"{page.name}-{number}")


def test_the_schema_is_a_schema() -> None:
    """By the rules of its own dialect, and every reference leads somewhere."""
    Draft202012Validator.check_schema(SCHEMA)
    for reference in set(re.findall(r"'\$ref': '#/([^']+)'", repr(SCHEMA))):
        found: Any = SCHEMA
        for part in reference.split("/"):
            found = found[part]
        assert found


@pytest.mark.parametrize("text", [*documented(), EXAMPLE, MINIMAL, PRODUCTION])
def test_takes_what_is_documented(text: str) -> None:
    """config.example.yaml and every block of every page."""
    assert errors(text) == []


#: Texts at which kinds may be wrong, and those that YAML makes something else of.
TEXTS = [
    "", "0", "1", "-1", "+5", "007", "1_000", "1.5", "1.", ".5", "1e3", "1e400", "99999999999999999999", "true", "True",
    "FALSE", "no", "on", "null", "~", "auto", "AUTO", "none", "off", "None", "30s", "-0", "-0s", "1h30m", "+5s", ".5s",
    "250ms", "5 s", "1µs", "8KiB", "8 kib", "10MB", "1.5KiB", "0.3KiB", "8k", "50%", "50 %", "0%", "100.5%", "101%",
    "200", "399", "503", "600", "200-399", "200,204-206", "200 - 399 , 500", "500-599", "5xx", "8080", ":8080", ":0",
    "a:1", "a:99999", "[::1]:80", "::1:80", "unix:/run/a", "unix:a", "http://a", "HTTPS://a:1/", "https://a/b", "a b:1",
    "10.0.0.0/8", "10.0.0.1/8", "10.0.0.0/255.0.0.0", "::1", "fe80::%eth0/64", "GET", "get", "M-SEARCH", "*", "CONNECT",
    "X-A", "x_a", "Content-Length", "Example.COM", "*.a.b", "a..b", "ü.de", "127.0.0.1", "[::1]", "a.b.", "/",
    "/a/{id}", "/a/*", "a", "/a b", "/%2F", "round-robin", "Round Robin", "wrr", "LEASTCONN", "token_bucket", "GCRA",
    "TLSv1.2", "1.2", "1.3", "ip", "IP", "clientIp", "API-Key", "api_key:x", "header:X-A", "Header:X-A", "jwt:a b",
    "header:",
    "basic:username", "basic:x", "cookie", "cookie:a", "per-try", "Connect", "idempotent", "IDEMPOTENT", "RS256",
    "rs-256", "EdDSA", "HS256", "https://a.example.com", "https://a.example.com/", "http://localhost:1/k",
    "http://example.com", "https://u@a", "memory", "MEMORY", "file:///a/b", "file:///a/", "file://a", "redis://x",
    "~^a$", "~(", "tab\there", "line\nbreak", "ü", "a" * 64, "a" * 300, "${A}", "2024-01-01", "0x10", "0o10", "1:30"]


def kinds() -> dict[str, Kind]:
    """Every kind of value that any key has, by where it is used first."""
    found: dict[str, Kind] = {}
    for cls in CLASSES:
        for named in settings_of(cls):
            shape = named.setting.shape
            inner = shape.value if isinstance(shape, TextMap) else shape
            kind = inner.kind if isinstance(inner, ListOf) else inner
            if isinstance(kind, Kind) and not any(kind == other for other in found.values()):
                found[f"{cls.__name__}.{named.key}"] = kind
    return found


@pytest.mark.parametrize("kind", [pytest.param(kind, id=where) for where, kind in kinds().items()])
def test_no_value_is_refused_that_the_loader_takes(kind: Kind) -> None:
    """In quotes or plain, whatever YAML makes of a plain one."""
    check = Draft202012Validator({**value_schema(kind), "$defs": {"variable": VARIABLE}})
    for text in TEXTS:
        for quoted in (True, False):
            value = text if quoted else plain(text)
            if value is not None and taken(kind, text, quoted):
                assert check.is_valid(value), (text, value)


def plain(text: str) -> Any:
    """What YAML makes of a text without quotes; None for nothing, and where it is no plain text."""
    try:
        value = as_json(f"a: {text}")["a"]
    except Exception:  # some of them are not YAML
        return None
    return value if str(value) == text or not isinstance(value, str | dict | list) else None


def taken(kind: Kind, text: str, quoted: bool) -> bool:
    """Whether the loader takes a value."""
    try:
        kind.parse(text, quoted)
    except BadValue:
        return False
    return True


@pytest.mark.parametrize("cls", CLASSES)
def test_every_spelling_of_every_key_is_known(cls: Any) -> None:
    """Exactly those of the loader: canonical ones are offered, others are accepted."""
    definition = SCHEMA["$defs"][cls.__name__]
    assert list(definition["properties"]) == [named.key for named in settings_of(cls)]
    patterns = [re.compile(pattern) for pattern in definition.get("patternProperties", {})]
    for key in known_keys(cls):
        assert key in definition["properties"] or any(pattern.search(key) for pattern in patterns), key
    assert not any(pattern.search(key) for pattern in patterns for key in definition["properties"])
    assert definition["additionalProperties"] is False


def test_keys_are_explained() -> None:
    """Help, unit, further names and default, as the example has them."""
    backends = SCHEMA["$defs"]["Backend"]["properties"]
    assert backends["weight"]["description"] == "share of the work; 0 = kept, but gets none"
    assert backends["weight"]["default"] == 1
    assert backends["addr"]["description"].endswith("; also: url")
    assert SCHEMA["$defs"]["Health"]["properties"]["interval"]["default"] == "5s"
    assert SCHEMA["$defs"]["Limits"]["properties"]["requestLine"]["default"] == "8KiB"
    assert SCHEMA["$defs"]["Server"]["properties"]["workers"]["default"] == "auto"
    # What is inherited has the server's.
    assert "default" not in SCHEMA["$defs"]["Pool"]["properties"]["slowStart"]


@pytest.mark.parametrize(
    "text",
    [
        "server: {http-listen-addr: ':1', load_balancer: Least-Conn}",
        "server: {httpListenAddr: ':1', backends: [{url: 'a:1'}, 'b:2']}",
        'server: {httpListenAddr: ":${PORT:-1}", workers: "${W:-2}", retry: {retry_on: ["${WHY:-502}", 503, per_try]}}',
        "server: {httpListenAddr: ':1', timeouts: {request: 90, idle: 1.5}, limits: {request_body: 100}}",
        "server: {httpListenAddr: ':1', health: , rateLimit: [{rate: 5}, {rate: 6, keyBy: ip}]}",
        "server: {httpListenAddr: ':1', rateLimit: {rate: 5}, auth: none, cors: None, logging: {level: warning}}",
        "server: {httpListenAddr: ':1', tls: none}\nmetrics: {path: /m}",
        "server: {httpListenAddr: ':1', forwardAuth: {url: 'http://a'}}\nroutes: "
        "[{pool: default, forwardAuth: {timeout: 1s}}]",
        "server: {httpListenAddr: ':1'}\nroutes: [{pool: default, stripPrefix: true, match: {pathPrefix: /a, "
        "headers: {X-A: 2}, query: {debug: 1}}}]",
        "server: {httpListenAddr: ':1'}\npools: {a: , b: &b {backends: ['a:1']}, c: {<<: *b, service: x}}\n"
        "routes: [{pool: a}]",
    ],
)
def test_takes_what_the_loader_takes(text: str) -> None:
    """Other spellings, variables, empty sections, one in place of a list, what is inherited."""
    assert problems(text) == []
    assert errors(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "[]", "server: 5", "server: {listeners: []}", "server: {httpListenAdress: ':1'}", "servers: {}",
        "server: {httpListenAddr: 8080}", "server: {backends: 'a:1'}", "server: {backends: [{weight: 1}]}",
        "server: {backends: ['a']}", "server: {health: {interval: fast}}", "server: {health: {interval: 0}}",
        "server: {health: {healthyThreshold: 0}}", "server: {health: {enabled: 'true'}}", "server: {loadBalancer: x}",
        "server: {loadBalancer: {key: ip}}", "server: {workers: 65}", "server: {limits: {requestLine: 70000}}",
        "server: {trustedProxies: [10.0.0.x]}", "server: {retry: {on: [400]}}", "server: {retry: {attempts: many}}",
        "server: {rateLimit: {keyBy: who}}", "server: {auth: {type: magic}}", "pools: []", "pools: {'a b': {}}",
        "pools: {a: {workers: 1}}", "routes: {}", "routes: [{pool: 'a b'}]",
        "routes: [{redirect: {to: /, status: 200}}]",
        "routes: [{forwardAuth: 5}]", "listeners: [{name: a}]", "logging: {level: loud}",
        "logging: {access: {sample: 2}}",
    ],
)
def test_refuses_what_the_loader_refuses(text: str) -> None:
    """Wrong types, words, ranges, forms, names and keys."""
    assert {problem.code for problem in problems(text)} & {"GG002", "GG003"}
    assert errors(text)


def mutations() -> Iterator[Any]:
    """config.example.yaml with one line changed, by what is on it."""
    lines = EXAMPLE.splitlines(keepends=True)
    for number, line in enumerate(lines):
        found = re.match(r"( *(?:- )?)(\w+): *([^ \n#{\[&*][^ \n#]*)?( *(?:#.*)?\n)", line)
        if not found or line.lstrip().startswith("#"):
            continue
        start, key, value, rest = found.groups()
        changes = {
            "list": "[[1]]", "mapping": "{x: 1}", "large": "99999999999999999999", "negative": "-7",
            "word": "surely-not-a-word", "empty": "~"}
        # One of them for each line: keys stand there several times, and kinds of values more often than that.
        name, other = list(changes.items())[number % len(changes)]
        yield f"{number + 1} {key} {name}", "".join(
            [*lines[:number], f"{start}{key}: {other}{rest}", *lines[number + 1 :]])
        if number % 4 == 0:
            yield f"{number + 1} {key} unknown", "".join(
                [*lines[:number], f"{start}{key}X: {value or ''}{rest}", *lines[number + 1 :]])


def test_mutations_of_the_example_are_refused_as_the_loader_does() -> None:
    """Other keys, and values of other types, out of range, or of no known word."""
    refused = 0
    for where, text in mutations():
        found = [problem for problem in problems(text) if problem.code in ("GG002", "GG003")]
        if not found:
            continue
        assert not VALIDATOR.is_valid(as_json(text)), (where, [str(problem) for problem in found])
        refused += 1
    assert refused > 200


def test_a_kind_without_a_schema_is_not_forgotten() -> None:
    """A new kind of value needs its forms: nothing is assumed of it."""

    class Strange(FieldName.__base__):  # type: ignore[misc, name-defined]
        """A kind that json_schema_values.py has not heard of."""

        def parse(self, text: str, quoted: bool) -> str:
            return text

    with pytest.raises(TypeError, match="Strange"):
        value_schema(Strange())
    assert value_schema(Boolean())["anyOf"][0] == {"type": "boolean"}
    assert value_schema(Choice(("a", "b")))["anyOf"][0] == {"enum": ["a", "b"]}
