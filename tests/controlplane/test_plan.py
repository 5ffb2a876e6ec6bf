"""Plans: what a change of configuration adds, removes, changes and keeps, and what comes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from textwrap import dedent
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gogate_py.config.example import example
from gogate_py.config.loader import load_text
from gogate_py.config.schema import Config, Pool, Route, Server
from gogate_py.config.settings import Group, GroupList, GroupMap, ListOf, TextMap, settings_of
from gogate_py.controlplane.plan import KINDS, Item, Plan, plan, render, to_json

BASE = """\
server:
  httpListenAddr: ":8081"
  admin: {token: s3cret}
  rateLimit: {enabled: true, rate: 10}
pools:
  api: {backends: ["10.0.0.1:80", {addr: "10.0.0.2:80", weight: 2}]}
  db: {backends: ["10.0.0.9:5432"]}
routes:
  - {name: api, match: {pathPrefix: /api}, pool: api, requestHeaders: {set: {Authorization: "Bearer a", X-A: a}}}
  - {name: db, type: tcp, listenAddr: ":5432", pool: db}
  - name: split
    match: {pathPrefix: /s}
    split: [{pool: api, weight: 9}, {pool: db, weight: 1}]
    rateLimit: [{rate: 5}, {rate: 1, per: 1m, keyBy: ip, name: slow}]
"""


def load(text: str) -> Config:
    return load_text(dedent(text), "config.yaml", {})


def plan_of(*changes: tuple[str, str]) -> Plan:
    """The plan from BASE to BASE with texts replaced."""
    text = BASE
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return plan(load(BASE), load(text))


def lines(*changes: tuple[str, str]) -> list[str]:
    """That plan for people, without what is unchanged."""
    return [line for line in render(plan_of(*changes)) if not line.startswith(("= ", "keeps state"))]


GOES = "gets no new work; what runs on it ends by itself"
CLOSED = "accepts no more connections; those that are open end by themselves"
CASES: dict[str, tuple[list[tuple[str, str]], list[str]]] = {
    "a backend more": ([('"10.0.0.1:80", ', '"10.0.0.1:80", "10.0.0.3:80", ')], ["+ backend api/10.0.0.3:80"]),
    "a backend less": ([('"10.0.0.1:80", ', "")], [
        "- backend api/10.0.0.1:80", f"drains: backend api/10.0.0.1:80: {GOES}"]),
    "a backend's weight": ([("weight: 2", "weight: 3")], ["~ backend api/10.0.0.2:80", "    weight: 2 → 3"]),
    "a listener elsewhere": ([(":8081", ":8082")], [
        "~ listener http:default", "    listenAddr: :8081 → :8082", "rebinds: http:default :8081 → :8082",
        "binds: :8082", "closes: :8081"]),
    "addresses that swap": ([(":8081", ":1"), (":5432\", pool", ":8081\", pool"), (":1", ":5432")], [
        "~ listener tcp:db", "    listenAddr: :5432 → :8081", "~ listener http:default",
        "    listenAddr: :8081 → :5432", "rebinds: tcp:db :5432 → :8081", "rebinds: http:default :8081 → :5432"]),
    "a TCP route that goes": ([("  - {name: db, type: tcp, listenAddr: \":5432\", pool: db}\n", "")], [
        "- listener tcp:db", "- route db", "closes: :5432", f"drains: listener tcp:db: {CLOSED}"]),
    "a pool's own setting": ([("db: {", "db: {health: {interval: 7s}, ")], [
        "~ pool db", "    health.interval: 5s → 7s"]),
    "a default of pools": ([("  admin:", "  health: {interval: 7s}\n  admin:")], [
        "~ pool api", "    health.interval: 5s → 7s", "~ pool db", "    health.interval: 5s → 7s"]),
    "a default that nobody takes": (
        [("  admin:", "  circuitBreaker: {enabled: true}\n  admin:"),
         ("api: {", "api: {circuitBreaker: {enabled: false}, "), ("db: {", "db: {circuitBreaker: {enabled: false}, ")],
        ["~ server.circuitBreaker.enabled: false → true"]),
    "the rate of a limit": ([("rate: 10}", "rate: 11}")], [
        "~ limit server/token_bucket/token_bucket/global", "    rate: 10 → 11"]),
    "the key of a limit": ([("keyBy: ip", "keyBy: path")], [
        "- limit route/split/slow/token_bucket/ip", "+ limit route/split/slow/token_bucket/path"]),
    "a limit that is switched off": ([("enabled: true, rate: 10", "enabled: false, rate: 10")], [
        "- limit server/token_bucket/token_bucket/global"]),
    "a weight of a split": ([("weight: 9", "weight: 8")], ["~ route split", "    split[api].weight: 9 → 8"]),
    "an arm of a split": ([("{pool: db, weight: 1}", "{pool: api}"), ("{pool: api, weight: 9}", "db")], [
        "~ route split", "    split[api].weight: 9 → 1", "    split (order): api, db → db, api"]),
    "an authentication": ([("pool: api, req", "auth: {type: basic, users: {al: "
                            '"$2b$12$BpVHP1y6YUtFXNLTjqCU..ZafncDu645NiFBBPwl.rNcEh9WKWIe6"}}, pool: api, req')], [
        "~ route api", "    auth: none → {type: basic, users: {al: (secret)}}"]),
    "a secret header value": ([("Bearer a", "Bearer b")], [
        "~ route api", "    requestHeaders.set.Authorization: changed (secret)"]),
    "a header value": ([("X-A: a", "X-B: b")], [
        "~ route api", "    requestHeaders.set.X-A: a → none", "    requestHeaders.set.X-B: none → b"]),
    "the token": ([("s3cret", "other")], ["~ server.admin.token: changed (secret)"]),
    "no token any more": ([("token: s3cret", "")], ['~ server.admin.token: (secret) → ""']),
    "the log level": ([("pools:", "logging: {level: debug, access: {sample: 0.5}}\npools:")], [
        "~ logging.level: info → debug", "~ logging.access.sample: 1.0 → 0.5"]),
    "workers": ([("  admin:", "  workers: 4\n  admin:")], [
        "! server.workers: auto → 4: needs a restart: every worker has sockets and memory of its own from the start"]),
    "the admin listener": ([("token: s3cret", "token: s3cret, listenAddr: ':9000'")], [
        "~ server.admin.listenAddr: 127.0.0.1:9090 → :9000"]),
    "metrics that were not bound": ([("  admin:", "  metrics: {enabled: false}\n  admin:")], [
        "~ server.metrics.enabled: true → false"]),
    "a listener for metrics": ([("  admin:", "  metrics: {listenAddr: ':9'}\n  admin:")], [
        '~ server.metrics.listenAddr: "" → :9']),
    "a route that answers itself": ([("pool: api, requestHeaders: {set: {Authorization: \"Bearer a\", X-A: a}}",
                                      "fixedResponse: {body: no}")], [
        "~ route api", '    pool: api → ""', '    fixedResponse: none → {body: no}',
        "    requestHeaders: {set: {Authorization: (secret), X-A: a}} → none"]),
    "another type": ([("name: db, type: tcp, listenAddr: \":5432\"", "name: db, match: {host: a}")], [
        "- listener tcp:db", "~ route db", "    type: tcp → http", "closes: :5432",
        f"drains: listener tcp:db: {CLOSED}"]),
    "exempt from the server's limits": ([("  - {name: api,", "  - {name: api, rateLimit: {enabled: false},")], [
        "~ route api", "    exempt: false → true"]),
    "TLS to a backend": ([('"10.0.0.9:5432"', '"https://10.0.0.9:5432"')], [
        "~ backend db/10.0.0.9:5432", "    tls: none → 10.0.0.9"]),
    "a default by another name": ([("  admin:", "  backendTLS: {serverName: a}\n  admin:")], [
        '~ pool api', '    tls.serverName: "" → a', '~ pool db', '    tls.serverName: "" → a']),
    "only another spelling": ([("httpListenAddr", "http-listen-addr"), ("per: 1m", "per: 60s")], ["nothing changes"]),
}


@pytest.mark.parametrize(("changes", "expected"), CASES.values(), ids=CASES)
def test_a_change_is_told(changes: list[tuple[str, str]], expected: list[str]) -> None:
    """Each change is told where it has an effect, once, as it is written, and without secrets."""
    assert lines(*changes) == expected


def test_what_stays_keeps_its_state() -> None:
    """Backends with another weight and limits with another rate keep what they know; others are counted as unchanged.
    """
    made = plan_of(("weight: 2", "weight: 3"), ("rate: 10}", "rate: 11}"))
    assert made.keeps_state == tuple(
        [Item("backend", name) for name in ("api/10.0.0.1:80", "api/10.0.0.2:80", "db/10.0.0.9:5432")]
        + [Item("limit", name) for name in (
            "server/token_bucket/token_bucket/global", "route/split/token_bucket-1/token_bucket/global",
            "route/split/slow/token_bucket/ip")])
    assert render(made)[-1] == "keeps state: 3 backends, 3 limits"
    assert "= 2 backends unchanged" in render(made)


def test_the_short_form_is_the_long_one() -> None:
    """Spelling the short form out changes nothing but the names of its routes."""
    short = load("server: {httpListenAddr: ':1', backends: ['a:1']}")
    long = load("server: {httpListenAddr: ':1'}\npools: {default: {backends: ['a:1']}}\n"
                "routes: [{name: default-http, pool: default}]")
    assert plan(short, long).is_empty


def test_another_key_file_is_told_without_its_contents(tmp_path: Any) -> None:
    """A file of keys with other contents is a change of the route, and none of its lines is in the plan."""
    def with_key(digest: str) -> Config:
        (tmp_path / "keys").write_text(f"ci:{digest}\n")
        text = "server: {httpListenAddr: ':1', backends: ['a:1'], auth: {type: api_key, keysFile: keys}}"
        return load_text(text, str(tmp_path / "config.yaml"), {})

    one, other = with_key("ab" * 32), with_key("cd" * 32)
    made = plan(one, other)
    assert render(made)[:2] == ["~ route default-http", "    auth.apiKeys: changed (contents)"]
    assert "cdcd" not in json.dumps(to_json(made))


def test_a_plan_for_programs() -> None:
    """The JSON form has every list by name, as flat objects."""
    shown = json.loads(json.dumps(to_json(plan_of((":8081", ":8082"), ("weight: 2", "weight: 3")))))
    assert shown["empty"] is False
    assert shown["rebinds"] == [{"name": "http:default", "before": ":8081", "after": ":8082"}]
    assert {"kind": "backend", "name": "api/10.0.0.2:80",
            "fields": [{"path": "weight", "before": "2", "after": "3"}]} in shown["changed"]
    assert set(shown) == {"empty", *(field.name for field in attrs.fields(Plan))}


# --- properties

_POOLS = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.tuples(
        st.dictionaries(st.sampled_from(["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]), st.integers(0, 2), max_size=3),
        st.sampled_from(["", "health: {interval: 7s}", "maxConnections: 5"])),
    min_size=1, max_size=3)
_ROUTES = st.lists(
    st.tuples(st.sampled_from(["r1", "r2", "r3"]), st.booleans(), st.integers(1, 3), st.integers(0, 2)),
    max_size=3, unique_by=(lambda one: one[0], lambda one: one[2]))


@st.composite
def configs(draw: Any) -> Config:
    """Configurations that have much in common."""
    pools = draw(_POOLS)
    text = f"server: {{httpListenAddr: ':{draw(st.sampled_from([81, 82]))}', workers: {draw(st.integers(1, 2))}}}\n"
    text += "pools:\n"
    for name, (backends, more) in pools.items():
        shown = ", ".join(f"{{addr: '{addr}', weight: {weight}}}" for addr, weight in backends.items())
        text += f"  {name}: {{backends: [{shown}]{', ' if more else ''}{more}}}\n"
    some = next(iter(pools))
    text += f"routes:\n  - {{name: any, pool: {some}}}\n"
    for name, tcp, number, rate in draw(_ROUTES):
        where = f"type: tcp, listenAddr: ':{number}'" if tcp else f"match: {{path: /{number}}}"
        limit = f", rateLimit: {{rate: {rate}}}" if rate else ""
        text += f"  - {{name: {name}, {where}, pool: {some}{limit}}}\n"
    return load(text)


def names(config: Config, kind: str) -> set[str]:
    """Everything of a kind that a configuration has: what is added to nothing but a listener."""
    nothing = load("server: {httpListenAddr: ':9', backends: ['zz:1']}")
    made = plan(nothing, config)
    there = {item.name for item in (*made.added, *made.kept) if item.kind == kind}
    return there | {one.name for one in made.changed if one.kind == kind}


@given(configs(), configs())
def test_additions_and_removals_add_up(old: Config, new: Config) -> None:
    """Old minus removed plus added is new; what is in both is kept or changed; the way back is the reverse."""
    there, back = plan(old, new), plan(new, old)
    for kind in KINDS:
        added, removed, changed, kept = (
            {item.name for item in part if item.kind == kind}
            for part in (there.added, there.removed, there.changed, there.kept))
        assert (names(old, kind) - removed) | added == names(new, kind)
        assert changed | kept == names(old, kind) & names(new, kind)
        assert not changed & kept
    assert {*there.added} == {*back.removed}
    assert {one.name for one in there.changed} == {one.name for one in back.changed}
    assert ({*there.binds}, {*there.closes}) == ({*back.closes}, {*back.binds})
    assert len(there.restart) == len(back.restart)


@given(configs(), configs())
def test_a_plan_is_empty_for_the_same_only(old: Config, new: Config) -> None:
    """plan(x, x) is empty; a plan between configurations that differ (in more than order) is not."""
    assert plan(old, old).is_empty
    same = unordered(old) == unordered(new)
    assert plan(old, new).is_empty is same
    assert (render(plan(old, new)) == ["nothing changes"]) is same


def unordered(config: Config) -> tuple[Config, dict[str, Route]]:
    """A configuration in which the order of routes, and of backends in a pool, makes no difference."""

    def sorted_pool(one: Pool | Server) -> Any:
        return attrs.evolve(one, backends=tuple(sorted(one.backends, key=lambda backend: backend.addr)))

    pools = {name: sorted_pool(pool) for name, pool in config.pools.items()}
    rest = attrs.evolve(config, routes=(), pools=pools, server=sorted_pool(config.server))
    return rest, {route.name: route for route in config.routes}


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every setting of a group and those in it, with the group where that setting has another value."""
    cls: type[attrs.AttrsInstance] = type(value)
    for named in settings_of(cls):
        one, shape = getattr(value, named.attribute), named.setting.shape
        where = f"{path}.{named.key}"
        if isinstance(shape, Group) and one is not None:
            for inner, other in leaves(one, where):
                yield inner, attrs.evolve(value, **{named.attribute: other})
            continue
        if isinstance(shape, GroupList | GroupMap):
            continue
        if isinstance(shape, ListOf):
            other = one[1:] if one else None
        elif isinstance(shape, TextMap):
            other = {} if one else None
        elif isinstance(one, bool):
            other = not one
        elif isinstance(one, int | float):
            other = one + 1
        elif isinstance(one, str):
            other = one + "x"
        else:
            continue
        if other is not None:
            yield where, attrs.evolve(value, **{named.attribute: other})


def mutants() -> Iterator[tuple[str, Config, Config]]:
    """config.example.yaml with one setting changed."""
    config = load(example())
    for where, server in leaves(config.server, "server"):
        yield where, config, attrs.evolve(config, server=server)
    for where, logging in leaves(config.logging, "logging"):
        yield where, config, attrs.evolve(config, logging=logging)
    for name, pool in config.pools.items():
        for where, other in leaves(pool, f"pools.{name}"):
            yield where, config, attrs.evolve(config, pools={**config.pools, name: other})
    for number, route in enumerate(config.routes):
        if route.type == "http":
            for where, changed in leaves(route, f"routes.{route.name}"):
                if where.endswith(".handshake"):
                    continue  # of listeners, which no route may write
                routes = (*config.routes[:number], changed, *config.routes[number + 1 :])
                yield where, config, attrs.evolve(config, routes=routes)


def test_no_change_goes_untold() -> None:
    """Whatever single value of config.example.yaml is changed, the plan is not empty, and names the key."""
    seen = 0
    for where, config, other in mutants():
        made = plan(config, other)
        assert not made.is_empty, where
        if not where.endswith((".name", ".httpListenAddr", ".listenAddr", ".acceptProxyProtocol")):
            key = where.rpartition(".")[2]
            assert any(key in line for line in render(made)), where
        seen += 1
    assert seen > 200
