"""``gogate fmt``: canonical spelling, and nothing else is touched."""

from __future__ import annotations

import difflib
import random
import re
from pathlib import Path
from textwrap import dedent

import pytest
from config_loading import MINIMAL, PRODUCTION
from hypothesis import given
from hypothesis import strategies as st
from test_config_schema import CLASSES

from gogate_py.config import canonical as module
from gogate_py.config.canonical import NotTheSame, canonical
from gogate_py.config.canonical_values import spelled
from gogate_py.config.loader import understood
from gogate_py.config.settings import known_keys, settings_of
from gogate_py.config.traffic_values import RetryMethod
from gogate_py.config.values import BadValue, Boolean, Choice, Duration, Size
from gogate_py.errors import ConfigError

EXAMPLE = (Path(__file__).parents[2] / "config.example.yaml").read_text()


def formatted(text: str) -> str:
    """The canonical spelling of an indented text."""
    return canonical(dedent(text), "test.yaml")


@pytest.mark.parametrize("text", [EXAMPLE, MINIMAL, PRODUCTION, "", "# nothing\n", "\n"])
def test_what_is_canonical_stays(text: str) -> None:
    """The example, which is generated from the classes, is canonical to the letter; so is nothing."""
    assert canonical(text, "test.yaml") == text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("server: {listen_addr: ':1'}", "server: {listenAddr: ':1'}"),
        ("server: {http-listen-addr: ':1'}", "server: {httpListenAddr: ':1'}"),
        ("server: {listen: ':1', backends: [url: 'a:1']}", "server: {listenAddr: ':1', backends: [addr: 'a:1']}"),
        ("server: {registry: {allow_cidrs: []}}", "server: {registry: {allowCIDRs: []}}"),
        ("server: {registry: {ttl: 9}}", "server: {registry: {defaultTTL: 9s}}"),
        ("server: {'listen_addr': ':1'}", "server: {'listenAddr': ':1'}"),
        ("server: {? max_memory : 1000}", "server: {? maxMemory : 1000B}"),
        ("server: {loadBalancer: Least-Conn}", "server: {loadBalancer: least_connections}"),
        ("server: {loadBalancer: {type: \"rr\"}}", "server: {loadBalancer: {type: \"round_robin\"}}"),
        ("server: {timeouts: {request: 3600, idle: 0, bodyIdle: '1.5'}}",
         "server: {timeouts: {request: 1h, idle: 0s, bodyIdle: '1.5s'}}"),
        ("server: {maxMemory: 65536, limits: {requestBody: 0, requestHead: 8 kib}}",
         "server: {maxMemory: 64KiB, limits: {requestBody: 0, requestHead: 8KiB}}"),
        ("server: {tls: {minVersion: TLSv1.2}}", 'server: {tls: {minVersion: "1.2"}}'),
        ("server: {health: {enabled: TRUE}, workers: AUTO, cors: None}",
         "server: {health: {enabled: true}, workers: auto, cors: none}"),
        ("server: {rateLimit: {keyBy: [API-Key, 'Header:X-A']}}",
         "server: {rateLimit: {keyBy: [api_key, 'header:X-A']}}"),
        ("server: {retry: {retry_on: [Connect, 503, per_try], methods: Idempotent}}",
         "server: {retry: {retryOn: [connect, 503, timeout], methods: idempotent}}"),
        ("server: {retry: {on: [reset]}}", "server: {retry: {on: [reset]}}"),
        ("metrics: {listen: ':1'}\nserver: {logging: {add_source: True}}",
         "metrics: {listenAddr: ':1'}\nserver: {logging: {addSource: true}}"),
        ("pools: {max_idle: {tcp_pool: {max_idle: 1}}}", "pools: {max_idle: {tcpPool: {maxIdle: 1}}}"),
        ("routes: [{match: {headers: {path_prefix: A}}, auth: KEY-AUTH}]",
         "routes: [{match: {headers: {path_prefix: A}}, auth: api_key}]"),
        ("server: {listen_addr: &a ':1', admin: &b {listen_addr: *a}}",
         "server: {listenAddr: &a ':1', admin: &b {listenAddr: *a}}"),
    ],
)
def test_spelling(before: str, after: str) -> None:
    """Keys, words, units; in the quotes that were there."""
    assert formatted(before) == after
    assert formatted(after) == after


@pytest.mark.parametrize(
    "text",
    [
        "server: {timeouts: {request: '${T:-5}'}, loadBalancer: '${B:-rr}'}",
        "server: {rateLimit: {keyBy: 'Query:${N:-a}'}}",
        "server: {listen_adr: 1, what: {listen_addr: 1}}",
        "server: {listen_addr: ':1', listenAddr: ':2'}",
        "server: {listen_addr: ':1', listen_addr: ':2'}",
        "server: {timeouts: {request: soon}, health: 5, backends: {listen_addr: 1}}",
        "server: {timeouts: {request: !!int 5}, loadBalancer: !mine rr}",
        'server: {"listen\\u005faddr": ":1"}',
        "server:\n  loadBalancer: |-\n    rr\n",
        "server:\n  forwardTrailers: [X-A,\n    X-B]\n  pathPolicy: >-\n    Strict\n",
        "[server, routes]",
        "server:\n  timeouts: ~\n  health:\n",
        # One anchor for two uses: seconds here, a number there; a key here, a name there.
        "server: {queueTimeout: &n 5, health: {healthyThreshold: *n}}",
        "server: {&k listen_addr : ':1'}\npools: {*k : {}}",
        # rate_limit is the key of one, and what overrides it is unknown to the other.
        "pools: {a: &a {slow_start: 1s}}\nroutes: [{<<: *a, slow_start: 2s}]",
    ],
)
def test_left_alone(text: str) -> None:
    """What is not known for certain, or would not be the same for everybody who uses it."""
    assert formatted(text) == text


def test_overridden_keys_change_together() -> None:
    """A key and the merged one that it hides stay the same key."""
    text = "pools:\n  a: &a {slow_start: 1s, queue_timeout: 2}\n  b: {<<: *a, slow_start: 3s}\n  c: {<<: [*a]}\n"
    new = "pools:\n  a: &a {slowStart: 1s, queueTimeout: 2s}\n  b: {<<: *a, slowStart: 3s}\n  c: {<<: [*a]}\n"
    assert formatted(text) == new


def test_what_was_no_override_does_not_become_one() -> None:
    """Two spellings of one key, brought together by <<, are a mistake that stays told."""
    text = "pools:\n  a: &a {slow_start: 1s}\n  b: {<<: *a, slowStart: 3s}\n"
    assert formatted(text) == text


def test_everything_else_stays() -> None:
    """Comments, order, blank lines, quotes, anchors, line ends, characters of any width."""
    text = (
        "# 😀 ü\r\n\r\nrout-es: 1   # unknown\r\nserver:   # the \"listen_addr\"\r\n"
        "  'http_listen_addr' : \":1\"   # listen_addr: 5\r\n\r\n  rate_limit: &r   # anchor\r\n"
        "    per: 60 # 😀\r\n    enabled:   True\r\nroutes:\r\n- {rate_limit: *r, pool: default}")
    new = text
    for old, better in (("'http_listen_addr'", "'httpListenAddr'"), ("rate_limit", "rateLimit"), ("True", "true"),
                        ("per: 60", "per: 60s")):
        new = new.replace(old, better)
    assert canonical(text, "test.yaml") == new


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "a\x00: 1", "a: 1\n---\nb: 2\n", "? [" * 60])
def test_what_is_not_yaml_is_told(text: str) -> None:
    """With its place."""
    with pytest.raises(ConfigError) as caught:
        canonical(text, "test.yaml")
    assert str(caught.value.problems[0]).startswith("test.yaml:")


def test_a_result_of_another_meaning_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in the tables above is found before anybody gets the text."""
    monkeypatch.setattr(module, "spelled", lambda kind, text, quoted: "7s" if text == "5s" else text)
    with pytest.raises(NotTheSame, match="would not mean the same"):
        canonical("server: {httpListenAddr: ':1', timeouts: {request: 5s}}", "test.yaml")


def test_many_aliases_cost_little() -> None:
    """What is shared is looked at once: nine levels of nine lists would be 400 million nodes."""
    levels = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 9)]
    text = "\n".join(levels) + "\nroutes: *l8\n"
    assert canonical(text, "test.yaml") == text
    merges = ["m0: &m0 {a: 1}"]
    merges += [f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}" for n in range(1, 9)]
    text = "\n".join(merges) + "\nserver: *m8\n"
    assert canonical(text, "test.yaml") == text


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (Duration(0, 100), "90", "90s"), (Duration(0, 100), "1.5", "1.5s"), (Duration(0, 100), ".5", "500ms"),
        (Duration(0, 100), "1e1", "10s"), (Duration(0, 100), "-0", "0s"), (Duration(0, 100), "90s", "90s"),
        (Duration(0, 100), "1m30s", "1m30s"), (Duration(0, 100), "101", "101"), (Duration(0, 100), "0.1", "0.1s"),
        (Size(0, 1 << 30), "1000", "1000B"), (Size(0, 1 << 30), "1048576", "1MiB"), (Size(0, 1 << 30), "0", "0"),
        (Size(0, 1 << 30), "5 KB", "5kB"), (Size(0, 1 << 30), "1.5mib", "1.5MiB"), (Size(0, 1 << 30), "8k", "8k"),
        (Boolean(), "False", "false"), (Boolean(), "yes", "yes"), (Choice(("a_b",)), "A B", "a_b"),
        (RetryMethod(), "get", "get"), (Choice(("a",)), "$a", "$a"),
    ],
)
def test_values(kind: object, text: str, expected: str) -> None:
    """A value's canonical spelling; what is refused stays as it is."""
    assert spelled(kind, text, False) == expected  # type: ignore[arg-type]


@given(st.text("0123456789.+-e smhnuµkKiIbBMG$_", min_size=1, max_size=8), st.booleans())
def test_values_keep_their_meaning(text: str, quoted: bool) -> None:
    """Whatever is taken reads the same afterwards, and is canonical then."""
    for kind in (Duration(0, 1e9), Size(0, 1 << 60)):
        new = spelled(kind, text, quoted)
        assert spelled(kind, new, quoted) == new
        try:
            value = kind.parse(text, quoted)
        except BadValue:
            assert new == text
        else:
            assert kind.parse(new, quoted) == value


#: Key → every spelling of it that no other key of any class has.
_SPELLINGS = {
    named.key: [one for one, known in known_keys(cls).items() if known is named]
    for cls in CLASSES for named in settings_of(cls)}
_WORDS = {"true": ["True", "TRUE"], "false": ["False"], "round_robin": ["rr", "Round-Robin", "'round robin'"],
          "token_bucket": ["bucket", "token-bucket"], "30s": ["30", "'30'", "30.0"], "64KiB": ["65536", "64kib"],
          "none": ["None"], "auto": ["Auto"], "60s": ["60", "1m"], "0s": ["0"], "info": ["INFO"], "cookie": ["Cookie"]}


def respelled(chance: random.Random) -> str:
    """config.example.yaml with other spellings of keys and words, comments and blank lines thrown in."""
    lines = []
    for line in EXAMPLE.splitlines():
        found = re.match(r"( *(?:- )?)(\w+)(:.*)", line)
        if found and chance.random() < 0.4:
            line = f"{found[1]}{chance.choice(_SPELLINGS.get(found[2]) or [found[2]])}{found[3]}"
        value = re.match(r"([^#]*: )([\w.]+)( *(?:#.*)?)$", line)
        if value and value[2] in _WORDS and chance.random() < 0.5:
            line = f"{value[1]}{chance.choice(_WORDS[value[2]])}{value[3]}"
        if found and chance.random() < 0.1:
            line += f"\n\n# {chance.choice(('listen_addr: 5', 'x', '😀'))}"
        lines.append(line)
    return "\n".join(lines) + chance.choice(("", "\n", "\n\n"))


@pytest.mark.parametrize("seed", range(12))
def test_any_spelling_of_the_example(seed: int) -> None:
    """It means the same, a second time changes nothing, and no comment or line is lost or moved."""
    text = respelled(random.Random(seed))
    new = canonical(text, "test.yaml")
    assert understood(new, "x") == understood(text, "x")
    assert canonical(new, "test.yaml") == new
    assert comments(new) == comments(text)
    assert new != text
    assert new.count("\n") == text.count("\n")
    changed = [line[2:] for line in difflib.ndiff(text.splitlines(), new.splitlines()) if line.startswith("+ ")]
    assert not any(re.match(r" *(?:- )?\w*[_-]\w+:", line) for line in changed), changed
    assert not re.search(r": (?:True|TRUE|rr|bucket|65536|INFO)\b", re.sub(r"#.*", "", new))


def comments(text: str) -> list[str]:
    """Every comment of a text: its behind, as no value of the example has a # behind a blank."""
    return [found[1] for line in text.split("\n") if (found := re.search(r"(?:^| )(#.*)", line))]
