"""The operator's side of the configuration: admin API, metrics, registry, shutdown, logs. A part of schema.py."""

# ruff: noqa: RUF009  setting() returns an attrs field, which is how attrs takes defaults

from __future__ import annotations

import attrs

from gogate_py.config.names import Cidr, ListenAddress
from gogate_py.config.settings import Group, ListOf, setting
from gogate_py.config.store_values import Store
from gogate_py.config.values import DAY, Boolean, Choice, Duration, Fraction, Integer, Text


@attrs.frozen
class Admin:
    """The admin listener: health, state, registration."""

    enabled: bool = setting(Boolean(), "", default=True)
    listen_addr: str = setting(ListenAddress(), "", default="127.0.0.1:9090", aliases=("listen",))
    token: str = setting(
        Text(r"[!-~]*", "visible ASCII characters without spaces"),
        "bearer token, needed to change anything from another host", default="", example="${GOGATE_ADMIN_TOKEN:-}")
    allowed_hosts: tuple[str, ...] = setting(
        ListOf(Text(r"[!-~]+", "a host name")), "names it may be called by; IP addresses always pass",
        default=("localhost", "127.0.0.1", "[::1]"))


@attrs.frozen
class Metrics:
    """Prometheus metrics."""

    enabled: bool = setting(Boolean(), "", default=True)
    listen_addr: str = setting(
        ListenAddress(), "a listener of its own; on admin in any case", default="", aliases=("listen",))
    path: str = setting(Text(r"/[A-Za-z0-9._~/-]+", "a path such as /metrics"), "", default="/metrics")


@attrs.frozen
class Trace:
    """Decision records: what gogate did with single requests, at /requests of the admin listener."""

    allow_cidrs: tuple[str, ...] = setting(
        ListOf(Cidr()), "clients that may ask for one by X-Gogate-Trace: 1; [] = nobody", key="allowCIDRs",
        default=("127.0.0.0/8", "::1/128"))
    keep: int = setting(Integer(0, 10_000, zero="none"), "the last ones, in each worker", default=200)
    slow: float = setting(
        Duration(0, 3600, zero="off"), "requests that take longer are kept, as are those that fail", default=1.0)
    sample: float = setting(Fraction(), "share of all requests that are kept, too", default=0.0)


@attrs.frozen
class Registry:
    """Services that register themselves and send heartbeats."""

    enabled: bool = setting(Boolean(), "", default=True)
    listen_addr: str = setting(ListenAddress(), "a listener of its own besides admin", default="",
                               aliases=("listen",))
    default_ttl: float = setting(Duration(1, 300), "of a registration that names none", default=30.0, key="defaultTTL",
                                 aliases=("ttl",))
    cleanup_interval: float = setting(Duration(0.05, 60), "how often missed heartbeats are noticed", default=1.0)
    max_services: int = setting(Integer(1, 10_000), "instances; beyond it: 503", default=10_000)
    allow_cidrs: tuple[str, ...] = setting(
        ListOf(Cidr()), "addresses that may be registered", key="allowCIDRs",
        default=("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"))
    store: str = setting(Store(), "what survives a restart: registrations, overrides, drains", default="memory")


@attrs.frozen
class Shutdown:
    """What happens between SIGTERM and the end."""

    drain_delay: float = setting(Duration(0, 3600), "not ready, but still accepting", default=0.0)
    grace_period: float = setting(Duration(0, DAY), "for what is running; then it is cut", default=30.0)
    drain_idle: float = setting(Duration(0, 3600), "a kept-alive client may still ask for this long", default=2.0)


@attrs.frozen
class Access:
    """Access lines: one per request or TCP connection."""

    enabled: bool = setting(Boolean(), "", default=True)
    path: str = setting(Text(r"\S.*", "a path"), "a file, or - for standard output", default="-")
    sample: float = setting(Fraction(), "share of the lines that are written", default=1.0)
    timers: bool = setting(
        Boolean(), "HTTP: receive_ms, queue_ms, connect_ms, first_byte_ms; costs some µs a request", default=False)


@attrs.frozen
class Logging:
    """gogate's own log lines and the access lines."""

    level: str = setting(Choice(("debug", "info", "warn", "error"), aliases={"warning": "warn"}), "", default="info")
    format: str = setting(Choice(("json", "text")), "", default="json")
    add_source: bool = setting(Boolean(), "name the place in the code", default=False)
    access: Access = setting(Group(Access), "one line per request or TCP connection")
