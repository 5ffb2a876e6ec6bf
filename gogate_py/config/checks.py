"""Rules between fields: what each value alone cannot tell. Nothing is resolved or bound here.

A rule looks only at values that could be read, so that one mistake is reported once.
"""

from __future__ import annotations

from collections.abc import Iterable

from gogate_py import addresses
from gogate_py.config.listening import check_listeners
from gogate_py.config.problems import Findings, Path
from gogate_py.config.routing import check_routes
from gogate_py.config.schema import DEFAULT_POOL, Backend, Config, RateLimit

#: A full bucket that takes longer to come back is a mistake; it also keeps the bucket's arithmetic within 64 bits.
MAX_REFILL = 366 * 86400.0


def check(config: Config, findings: Findings) -> None:
    """Add every problem between the fields of a configuration."""
    check_listeners(config, findings)
    _check_pools(config, findings)
    check_routes(config, findings)
    _check_rate_limit(config.server.rate_limit, findings)
    if not config.server.limits.methods:
        _add_if_read(findings, ("server", "limits", "methods"), "is empty: every request would be refused")
    if config.server.limits.request_line > config.server.limits.request_head:
        _add_if_read(findings, ("server", "limits", "requestLine"), "is larger than requestHead, of which it is a part")


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
    for name, pool in config.pools.items():
        path: Path = ("pools", name)
        _check_backends(pool.backends, (*path, "backends"), findings)
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


def _same_address(addr: str) -> str:
    """What two spellings of one backend have in common: host names compare without case."""
    return addr if addresses.parse(addr).is_unix else addr.lower()


def _check_rate_limit(limit: RateLimit, findings: Findings) -> None:
    if limit.burst * limit.per / limit.rate > MAX_REFILL:
        message = "an empty bucket would take more than a year to fill at this rate"
        _add_if_read(findings, ("server", "rateLimit", "burst"), message)


def _add_if_read(findings: Findings, path: Path, message: str) -> None:
    if findings.is_sound(path[:-1]):
        findings.add(path, message)


def _all_sound(findings: Findings, paths: Iterable[Path]) -> bool:
    return all(findings.is_sound(path) for path in paths)
