"""Rules between fields: what each value alone cannot tell. Nothing is resolved or bound here.

A rule looks only at values that could be read, so that one mistake is reported once.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from gogate_py import addresses
from gogate_py.config.authentication import check_access
from gogate_py.config.backend_tls import check_backend_tls
from gogate_py.config.handling import check_handling
from gogate_py.config.limiting import check_limits
from gogate_py.config.listener_tls import check_listener_tls
from gogate_py.config.listening import check_listeners
from gogate_py.config.problems import Findings, Path
from gogate_py.config.routing import check_routes
from gogate_py.config.schema import DEFAULT_POOL, Backend, CircuitBreaker, Config, LoadBalancer
from gogate_py.config.sni import check_server_names


def check(config: Config, findings: Findings) -> None:
    """Add every problem between the fields of a configuration."""
    check_routes(config, findings)  # first: it spoils names that lead nowhere, so that nothing else is made of them
    check_listeners(config, findings)
    _check_pools(config, findings)
    check_handling(config, findings)
    check_access(config, findings)
    check_limits(config, findings)
    if not config.server.limits.methods:
        _add_if_read(findings, ("server", "limits", "methods"), "is empty: every request would be refused")
    if config.server.limits.request_line > config.server.limits.request_head:
        _add_if_read(findings, ("server", "limits", "requestLine"), "is larger than requestHead, of which it is a part")
    _check_backups(config, findings)
    own = {name: pool.dns for name, pool in config.pools.items() if pool.dns != config.server.dns}
    for path, dns in [(("server", "dns"), config.server.dns), *((("pools", name, "dns"), own[name]) for name in own)]:
        if dns.floor > dns.refresh:
            _add_if_read(findings, path, "floor is longer than refresh: names cannot be asked for that often")
    check_backend_tls(config, findings)
    check_listener_tls(config, findings)
    check_server_names(config, findings)
    if config.tracing.enabled and not _has_otel():
        _add_if_read(
            findings, ("tracing", "enabled"), "needs what is not installed: pip install 'gogate[otel]' "
            "(opentelemetry-proto)")


def _has_otel() -> bool:
    try:
        return find_spec("opentelemetry.proto.collector.trace.v1") is not None
    except ModuleNotFoundError:
        return False


def registrations_possible(config: Config) -> bool:
    """Whether anything can register: the registry is on and has a listener to be reached by."""
    server = config.server
    return server.registry.enabled and bool(server.registry.listen_addr or server.admin.enabled)


def _check_pools(config: Config, findings: Findings) -> None:
    server = config.server
    if DEFAULT_POOL in config.pools and server.backends:
        findings.add(
            ("pools", DEFAULT_POOL), "this pool exists already: server.backends are in it "
            f"({findings.line_of(('server', 'backends'))}); rename it, or leave server.backends out", at="key")
    _check_backends(server.backends, ("server", "backends"), findings)
    _check_balancer(server.load_balancer, ("server", "loadBalancer"), findings)
    _check_breaker(server.circuit_breaker, ("server", "circuitBreaker"), findings)
    for name, pool in config.pools.items():
        path: Path = ("pools", name)
        _check_backends(pool.backends, (*path, "backends"), findings)
        _check_balancer(pool.load_balancer, (*path, "loadBalancer"), findings)
        _check_breaker(pool.circuit_breaker, (*path, "circuitBreaker"), findings)
        if not pool.backends and not registrations_possible(config) and findings.is_sound(path):
            findings.add(path, f"has no backends, and nothing can join it: {_why_closed(config)}", at="key")
    if not config.pools and not server.backends and not registrations_possible(config) and _all_sound(
        findings, [("server", "backends"), ("pools",)]
    ):
        findings.add(
            ("server", "backends"), f"there are no backends, and nothing can register: {_why_closed(config)}", at="key")


def _why_closed(config: Config) -> str:
    if not config.server.registry.enabled:
        return "server.registry.enabled is false"
    return "server.admin.enabled is false and server.registry.listenAddr is not set"


def _check_backends(backends: tuple[Backend, ...], path: Path, findings: Findings) -> None:
    seen: dict[str, Path] = {}
    for number, backend in enumerate(backends):
        if not backend.addr:
            continue
        place = (*path, number, "addr")
        first = seen.setdefault(_same_address(backend.addr), place)
        if first != place:
            findings.add(place, f"{backend.addr} is in this pool already ({findings.line_of(first)}); use weight")


def _check_backups(config: Config, findings: Findings) -> None:
    """Backups stand in for others: a pool of nothing but backups has them as its ordinary backends."""
    pools: list[tuple[Path, tuple[Backend, ...]]] = [(("server", "backends"), config.server.backends)]
    pools += [(("pools", name, "backends"), pool.backends) for name, pool in config.pools.items()]
    for path, backends in pools:
        if backends and all(backend.backup for backend in backends) and findings.is_sound(path) and not (
            registrations_possible(config)
        ):
            findings.add((*path, 0, "backup"), "every backend of this pool is a backup, and nothing can register")


def _same_address(addr: str) -> str:
    """What two spellings of one backend have in common: host names compare without case."""
    return addr if addresses.parse(addr).is_unix else addr.lower()


def _check_balancer(balancer: LoadBalancer, path: Path, findings: Findings) -> None:
    for key in ("key", "balanceFactor"):
        if balancer.type != "consistent_hash" and findings.given((*path, key)) and findings.is_sound(path):
            hint = "; ip_hash is by the client's address" if key == "key" and balancer.type == "ip_hash" else ""
            findings.add((*path, key), f"belongs to consistent_hash, this is {balancer.type}{hint}", at="key")


def _check_breaker(breaker: CircuitBreaker, path: Path, findings: Findings) -> None:
    if not findings.is_sound(path):
        return
    count = breaker.failure_threshold.count
    for key in ("minRequests", "window"):
        if count and findings.given((*path, key)):
            where = "" if findings.given((*path, "failureThreshold")) else " (which is inherited or the default)"
            meant = f'"{count}%"' if count <= 100 else "a percentage"
            findings.add(
                (*path, key), f"goes with a percentage, and failureThreshold {count}{where} is a count of consecutive "
                f"failures; write failureThreshold: {meant}, or leave {key} out", at="key")
    if breaker.max_timeout < breaker.timeout and findings.given((*path, "maxTimeout")):
        findings.add((*path, "maxTimeout"), "is shorter than timeout, which it is the longest form of")


def _add_if_read(findings: Findings, path: Path, message: str) -> None:
    if findings.is_sound(path[:-1]):
        findings.add(path, message)


def _all_sound(findings: Findings, paths: Iterable[Path]) -> bool:
    return all(findings.is_sound(path) for path in paths)
