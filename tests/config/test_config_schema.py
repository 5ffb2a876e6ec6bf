"""What the classes say of themselves, and what the short form stands for."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import pytest
from config_loading import MINIMAL, load

from gogate_py.config.schema import Auth, Backend, BackendTls, CertificateFiles, Config, ListenerTls, Pool, Route
from gogate_py.config.settings import (
    Group,
    GroupList,
    GroupMap,
    ListOf,
    camel_case,
    known_keys,
    settings_of,
    spellings,
)
from gogate_py.config.values import Kind


def every_class(cls: type[attrs.AttrsInstance] = Config) -> Iterator[type[attrs.AttrsInstance]]:
    """The classes of the configuration, each as often as it is used."""
    yield cls
    for named in settings_of(cls):
        if isinstance(named.setting.shape, Group | GroupList | GroupMap):
            yield from every_class(named.setting.shape.cls)


CLASSES = sorted(set(every_class()), key=lambda cls: cls.__name__)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_default_is_a_value_that_may_be_written(cls: type[attrs.AttrsInstance]) -> None:
    """A default, written out, is accepted and reads as itself."""
    for named in settings_of(cls):
        shape, default = named.setting.shape, named.make_default()
        kind = shape.kind if isinstance(shape, ListOf) else shape
        # "" stands for a key that is left out.
        if not isinstance(kind, Kind) or named.setting.required or default == "":
            continue
        for value in default if isinstance(shape, ListOf) else (default,):
            assert kind.parse(kind.show(value).strip('"'), False) == value, named.key


@pytest.mark.parametrize("cls", CLASSES)
def test_keys_do_not_clash(cls: type[attrs.AttrsInstance]) -> None:
    """No spelling means two settings."""
    count = sum(
        len({spelling for key in (named.key, *named.setting.aliases)
             for spelling in spellings(key, named.attribute if key == named.key else "")})
        for named in settings_of(cls))
    assert len(known_keys(cls)) == count


@pytest.mark.parametrize("cls", CLASSES)
def test_hints_lead_to_keys(cls: type[attrs.AttrsInstance]) -> None:
    """What is suggested for a word of another program is a key of this one, and no hint hides a key."""
    hints: dict[str, str] = getattr(cls, "HINTS", {})
    assert set(hints.values()) <= {named.key for named in settings_of(cls)}
    assert not {word for word in hints if word in known_keys(cls)}


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_is_described(cls: type[attrs.AttrsInstance]) -> None:
    """Every field but a pool's name and what is derived is a setting, and every class has a docstring."""
    described = {named.attribute for named in settings_of(cls)}
    derived = {Pool: {"name"}, Route: {"exempt", "openapi_text"}, Backend: {"tls"},
               Auth: {"public_key", "api_keys", "basic_users"},
               BackendTls: {"authorities", "certificate", "key"}, ListenerTls: {"authorities"},
               CertificateFiles: {"chain", "key", "exposed"}, Config: {"files"}}
    assert {field.name for field in attrs.fields(cls)} - described == derived.get(cls, set())
    assert cls.__doc__


@pytest.mark.parametrize(
    ("name", "key"), [("http_listen_addr", "httpListenAddr"), ("workers", "workers"), ("max_conns_per_host",
    "maxConnsPerHost")])
def test_camel_case(name: str, key: str) -> None:
    """The canonical key is the camelCase of the attribute."""
    assert camel_case(name) == key


def routes(config: Config) -> dict[str, tuple[str, str, str]]:
    """Name → type, pool and address of every effective route."""
    return {route.name: (route.type, route.pool, route.listen_addr) for route in config.effective_routes()}


def test_the_short_form_is_a_pool_and_two_routes() -> None:
    """The minimal file has the pool default, its TCP listener and an HTTP catch-all."""
    config = load(MINIMAL)
    assert routes(config) == {"default-tcp": ("tcp", "default", ":8080"), "default-http": ("http", "default", "")}
    (pool,) = config.effective_pools().values()
    assert (pool.name, pool.service, len(pool.backends)) == ("default", "default", 2)
    assert pool.health == config.server.health
    assert config.every_instance_joins_default
    assert config.effective_routes()[1].match.everything


def test_the_short_forms_routes_have_the_servers_timeouts() -> None:
    """The catch-all obeys server.timeouts."""
    config = load("server: {httpListenAddr: ':1', timeouts: {request: 9s}}")
    assert config.effective_routes()[0].timeouts.request == 9


def test_an_empty_pool_default_waits_for_registrations() -> None:
    """Without pools and backends the pool default is there, for whatever registers."""
    config = load("server: {httpListenAddr: ':1'}")
    assert list(config.effective_pools()) == ["default"]
    assert routes(config) == {"default-http": ("http", "default", "")}


def test_pools_take_only_what_matches() -> None:
    """With pools, an instance joins by name and tags; a pool's service is its own name unless given."""
    config = load(
        "server: {httpListenAddr: ':1'}\npools: {a: {}, b: {service: s, tags: [x]}}\nroutes: [{pool: a}]")
    assert not config.every_instance_joins_default
    assert not config.has_default_pool
    pools = config.effective_pools()
    assert [(pool.service, pool.tags) for pool in pools.values()] == [("a", ()), ("s", ("x",))]
    assert routes(config) == {"route-1": ("http", "a", "")}


def test_both_forms_together() -> None:
    """With backends at server level, pools and routes come on top of the short form."""
    config = load(
        "server: {listenAddr: ':1', httpListenAddr: ':2', backends: ['a:1']}\npools: {p: {backends: ['b:1']}}\n"
        "routes: [{name: x, match: {path: /x}, pool: p}]")
    assert list(config.effective_pools()) == ["p", "default"]
    assert list(routes(config)) == ["x", "default-tcp", "default-http"]


@pytest.mark.parametrize("match", ["{}", "{pathPrefix: /}"])
def test_a_catch_all_that_was_written_takes_the_place_of_the_short_forms(match: str) -> None:
    """There is one catch-all, and the user's wins."""
    config = load(
        f"server: {{httpListenAddr: ':2', backends: ['a:1']}}\nroutes: [{{name: x, match: {match}, pool: default}}]")
    assert list(routes(config)) == ["x"]


def test_routes_to_registered_services_only_open_what_they_say() -> None:
    """Without server.backends, HTTP routes replace the catch-all: nothing else is reachable."""
    config = load("server: {httpListenAddr: ':2'}\nroutes: [{name: x, match: {host: a.com}, pool: default}]")
    assert list(routes(config)) == ["x"]


def test_a_pool_named_default_serves_the_short_forms_listeners() -> None:
    """``pools.default`` is the pool of listenAddr and httpListenAddr."""
    config = load("server: {listenAddr: ':1'}\npools: {default: {backends: ['a:1']}}")
    assert routes(config) == {"default-tcp": ("tcp", "default", ":1")}
    assert config.effective_pools()["default"].backends[0].addr == "a:1"


def test_configurations_compare_by_value() -> None:
    """Two loads of one file are equal: a reload that changes nothing can be told."""
    assert load(MINIMAL) == load(MINIMAL)
    assert load(MINIMAL) != load(MINIMAL.replace("9002", "9003"))
    assert Route("a", pool="p") == Route("a", pool="p")
