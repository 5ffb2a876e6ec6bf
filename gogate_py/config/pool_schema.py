"""What belongs to a pool in the configuration: backends, balancer, probes, breakers, connections.

A part of schema.py.
"""

# ruff: noqa: RUF009  setting() returns an attrs field, which is how attrs takes defaults

from __future__ import annotations

from typing import ClassVar, Final

import attrs

from gogate_py.config.names import BALANCER, REQUEST_PATH, BackendAddress, StatusRanges
from gogate_py.config.settings import setting
from gogate_py.config.traffic_values import Factor, FailureStatuses, FailureThreshold, KeySpec, Percent, Threshold
from gogate_py.config.values import DAY, Boolean, Choice, Duration, Integer

#: A wait that may not be zero: a probe or a connect without time cannot succeed.
_WAIT: Final = Duration(0.001, DAY)
_LIMIT: Final = Duration(0, 30 * DAY, zero="off")


@attrs.frozen
class Backend:
    """One address in a pool. ``tls`` follows from an address that was written as https:// (backend_tls.py)."""

    addr: str = setting(BackendAddress(), "host:port, [v6]:port or unix:/path; https://host:port: TLS", required=True,
                        default="", aliases=("url",), example="localhost:9001")
    weight: int = setting(Integer(0, 1000), "share of the work; 0 = kept, but gets none", default=1)
    backup: bool = setting(Boolean(), "takes work only while no other backend of its pool can", default=False)
    tls: bool = False


@attrs.frozen
class LoadBalancer:
    """How a backend is chosen; its name alone stands for it without further keys."""

    HINTS: ClassVar = {"name": "type", "policy": "type", "algorithm": "type", "hashKey": "key", "hashOn": "key"}

    type: str = setting(BALANCER, "", default="round_robin", required=True)
    key: str = setting(
        KeySpec(), "consistent_hash: what goes to the same backend; ip, header:NAME, cookie:NAME, query:NAME, path, "
        "host, jwt:CLAIM, user", default="ip", example="header:X-User")
    balance_factor: float = setting(
        Factor(100), "consistent_hash: no backend has more than this times the average", default=1.25)


@attrs.frozen
class Health:
    """Active probes of a pool's backends."""

    enabled: bool = setting(Boolean(), "off: backends count as up as long as their names resolve", default=True)
    check_type: str = setting(Choice(("tcp", "http")), "connect, or GET httpPath", default="tcp")
    http_path: str = setting(REQUEST_PATH, "asked for when checkType is http", default="/health")
    expect_status: str = setting(StatusRanges(), "statuses that count as success", default="200-399")
    interval: float = setting(Duration(0.01, DAY), "from one probe to the next, jittered by 10 %", default=5.0)
    timeout: float = setting(_WAIT, "a probe that takes longer has failed", default=2.0)
    unhealthy_threshold: int = setting(Integer(1, 1000), "consecutive failures that take a backend out", default=3)
    healthy_threshold: int = setting(Integer(1, 1000), "consecutive successes that bring it back", default=2)
    initial_state: str = setting(Choice(("up", "down")), "before the thresholds are reached", default="up")


@attrs.frozen
class CircuitBreaker:
    """One breaker per backend, counted over all workers."""

    HINTS: ClassVar = {
        "maxFailures": "failureThreshold", "consecutiveFailures": "failureThreshold", "errorThreshold":
        "failureThreshold", "openFor": "timeout", "openDuration": "timeout", "openDurationSeconds": "timeout",
        "openSeconds": "timeout", "resetTimeout": "timeout", "halfOpenMaxRequests": "halfOpenRequests",
        "requestVolumeThreshold": "minRequests", "interval": "window"}

    enabled: bool = setting(Boolean(), "stop asking a backend that keeps failing", default=False)
    failure_threshold: Threshold = setting(
        FailureThreshold(1, 1_000_000), "consecutive failures that open it", default=Threshold(5))
    min_requests: int = setting(
        Integer(1, 1_000_000), "outcomes in window before a percentage counts", default=20, commented=True)
    window: float = setting(Duration(1, 3600), "that a percentage is of", default=60.0, commented=True)
    failure_statuses: str = setting(
        FailureStatuses(), "answers that are failures, as no connection, reset and timeout are", default="500-599")
    success_threshold: int = setting(Integer(1, 1_000_000), "successful trials that close it", default=1)
    timeout: float = setting(_WAIT, "from open to the first trial; doubled each time it opens again", default=30.0)
    max_timeout: float = setting(_WAIT, "… up to this", default=300.0)
    half_open_requests: int = setting(Integer(1, 1_000_000), "trials let through at once", default=1)


@attrs.frozen
class Outlier:
    """Ejection of backends that answer 5xx, counted over all workers; never a pool's last usable one."""

    HINTS: ClassVar = {
        "baseEjectionTime": "baseEjection", "consecutiveErrors": "consecutive5xx",
        "consecutiveGatewayErrors": "consecutive5xx", "maxEjectionRatio": "maxEjectionPercent"}

    enabled: bool = setting(Boolean(), "leave out for a while a backend that answers 5xx", default=False)
    consecutive_5xx: int = setting(
        Integer(1, 1_000_000), "answers in a row; no connection, reset and timeout count too", default=5)
    base_ejection: float = setting(_WAIT, "times the ejections in a row, up to 5 minutes", default=30.0)
    max_ejection_percent: int = setting(Percent(1, 100), "of a pool's backends at once", default=50)


@attrs.frozen
class TcpPool:
    """Fresh connections kept ready for L4; a connection that carried bytes is never used again."""

    enabled: bool = setting(Boolean(), "saves the connect round trip", default=False)
    max_idle: int = setting(Integer(1, 65536), "connections per backend, over all workers", default=64)
    idle_timeout: float = setting(_WAIT, "one that waited longer is replaced", default=30.0)
    max_lifetime: float = setting(_LIMIT, "age at which one is replaced", default=120.0)


@attrs.frozen
class HttpTransport:
    """Connections to backends; the kept ones are per worker and backend."""

    max_idle_conns_per_host: int = setting(Integer(0, 65536), "kept without a request; 0 = none", default=256)
    max_conns_per_host: int = setting(Integer(0, 1_000_000, zero="no limit"), "beyond it requests wait", default=0)
    idle_conn_timeout: float = setting(_WAIT, "kept without a request for this long", default=90.0)
    max_lifetime: float = setting(_LIMIT, "age at which one is not used again", default=0.0)
    dial_timeout: float = setting(_WAIT, "to connect, TCP listeners too", default=3.0)
