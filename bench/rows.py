"""The rows of the benchmark that a load measures: what each asks, of which listener, and what a unit of it is."""

from __future__ import annotations

from typing import NamedTuple

KB, MB = 10**3, 10**6


class Row(NamedTuple):
    """One row. ``load`` is what http_load.py or tcp_load.py is told; ``size`` is the bytes of a unit where the cost is
    given per GB. ``quick`` rows are those of daily use."""

    key: str
    title: str
    listener: str
    load: tuple[str, ...]
    connections: int
    unit: str = "request"
    size: int = 0
    quick: bool = False


class Scale(NamedTuple):
    """gogate alone: a row's cost with many of something, beside its cost with one of it. {many} in the load is how
    many; ``variant`` is what its configuration is made for (peer_configs.gogate)."""

    key: str
    title: str
    variant: str
    many: int
    load: tuple[str, ...]
    base_variant: str
    base_load: tuple[str, ...]
    #: Runs' worth of load before the first round, so that everything is in use: a choice by chance takes some 7 000
    #: requests until each of 1 000 backends has a connection.
    fill: float


def _down(size: int) -> tuple[str, ...]:
    return ("--down", str(size))


def _up(size: int) -> tuple[str, ...]:
    return ("--up", str(size))


#: What a load balancer adds, for another client each time.
_BEHIND = "X-Forwarded-For: 10.1.2.{n}\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 443"

ROWS = (
    Row("http-1", "GET, kept connection, 1 client", "http", (), 1),
    Row("http-64", "GET, 64 clients", "http", (), 64, quick=True),
    Row("http-256", "GET, 256 clients", "http", (), 256, quick=True),
    Row("http-paths", "GET, another path each time, 64 clients", "http",
        ("--path", "/path-{n}", "--variety", "100000"), 64),
    Row("http-chunked", "GET, chunked answer, 64 clients", "http", ("--chunked",), 64),
    Row("http-behind", "GET, behind another proxy, 64 clients", "http", ("--field", _BEHIND, "--variety", "250"), 64),
    Row("http-close", "GET, connection per request", "http", ("--close",), 64, quick=True),
    Row("http-10k-down", "10 KB down, 64 clients", "http", _down(10 * KB), 64),
    Row("http-10k-up", "10 KB up, 64 clients", "http", _up(10 * KB), 64),
    Row("http-100k-down", "100 KB down, 16 clients", "http", _down(100 * KB), 16),
    Row("http-100k-up", "100 KB up, 16 clients", "http", _up(100 * KB), 16),
    Row("http-10m-down", "10 MB down, 8 clients", "http", _down(10 * MB), 8, "GB", 10 * MB, quick=True),
    Row("http-10m-up", "10 MB up, 8 clients", "http", _up(10 * MB), 8, "GB", 10 * MB),
    Row("https-64", "TLS, GET, 64 clients", "https", ("--tls",), 64),
    Row("https-close", "TLS, full handshake per request", "https", ("--tls", "--close"), 8),
    Row("tcp-echo-1", "TCP, 64-byte messages, 1 client", "tcp", ("echo",), 1, "message"),
    Row("tcp-echo-64", "TCP, 64-byte messages, 64 clients", "tcp", ("echo",), 64, "message", quick=True),
    Row("tcp-connect", "TCP, connect, one message, close", "tcp", ("connect",), 32, "connection", quick=True),
    Row("tcp-down-1", "TCP, bytes down, 1 client", "tcp", ("down",), 1, "GB", 1, quick=True),
    Row("tcp-down-8", "TCP, bytes down, 8 clients", "tcp", ("down",), 8, "GB", 1),
    Row("tcp-up-1", "TCP, bytes up, 1 client", "tcp", ("up",), 1, "GB", 1),
    Row("tcp-up-8", "TCP, bytes up, 8 clients", "tcp", ("up",), 8, "GB", 1),
)  # fmt: skip
BY_KEY = {row.key: row for row in ROWS}
#: Rows that are measured once more with one worker and with two, side by side: key → the row.
WORKERS = {"workers-http": BY_KEY["http-64"], "workers-tcp": BY_KEY["tcp-echo-64"]}

_PATHS = ("--path", "/route-{n}/x", "--variety", "{many}")
_KEYS = ("--field", "X-Key: {n}", "--variety", "{many}")
SCALES = (
    Scale("scale-routes", "routes, all in use (with 1: the same paths)", "routes", 10_000, _PATHS, "", _PATHS, 1.0),
    Scale("scale-backends", "backends of a pool, round robin", "backends", 1000, (), "", (), 2.0),
    Scale("scale-least", "backends of a pool, least connections", "least", 1000, (), "", (), 10.0),
    Scale("scale-keys", "keys of a rate limit", "keys", 100_000, _KEYS, "keys", ("--field", "X-Key: 0"), 7.0),
)
#: What is not measured by a load.
OTHERS = ("start", "memory-idle", "memory-http", "memory-tcp")
KEYS = (*BY_KEY, *WORKERS, *(scale.key for scale in SCALES), *OTHERS)
QUICK = (*(row.key for row in ROWS if row.quick), "start", "memory-idle")
