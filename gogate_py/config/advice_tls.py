"""Advice about TLS on listeners, and about the certificates that backends are shown.

    GG060  a certificate that has expired, or is not valid yet
    GG061  one that expires within 14 days, or has a third of its time left
    GG062  a route's host that no certificate of a TLS listener which has the route is for
    GG063  a key that everybody on the machine can read
    GG064  a certificate that is never shown: those before it have all of its names, and a key of its kind
    GG065  a listener of type http for other hosts that serves without TLS what another one serves with it

A date is told once for each file, where it is first named.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from gogate_py.clock import wall
from gogate_py.config.advice_access import reachable_from_outside
from gogate_py.config.advice_traffic import http_routes
from gogate_py.config.certificates import Facts, facts
from gogate_py.config.listeners import DataListener, data_listeners, http_listeners, serves
from gogate_py.config.problems import Findings, Path
from gogate_py.config.schema import CertificateFiles, Config

_RENEW: Final = "renew it; gogate takes new files by itself"


def advise_tls(config: Config, findings: Findings) -> None:
    """Add what is to be said of TLS on listeners."""
    told: set[str] = set()
    for listener in data_listeners(config):
        shown: list[Facts] = []
        for path, one in _certificates(listener):
            about = facts(one.chain)
            if one.cert_file not in told:
                told.add(one.cert_file)
                _advise_dates(about, one.cert_file, (*path, "certFile"), findings)
                if one.exposed:
                    findings.advise(
                        (*path, "keyFile"), "GG063", f"everybody on this machine can read {one.key_file}",
                        "chmod o-r, or a mount of the secret with defaultMode 0400")
            before = {name for other in shown if other.kind == about.kind for name in other.names}
            if about.names and set(about.names) <= before:
                findings.advise(
                    path, "GG064", f"{one.cert_file} is never shown: certificates before it have all of its names "
                    f"({', '.join(about.names)}), and {about.kind} keys, too", "leave one of them out")
            shown.append(about)
    for name, pool in config.effective_pools().items():
        tls = pool.backend_tls
        if tls.certificate and tls.cert_file not in told:
            told.add(tls.cert_file)
            own: Path = ("pools", name, "tls", "certFile")
            at = own if findings.given(own) else ("server", "backendTLS", "certFile")
            with suppress(ValueError):  # what OpenSSL can show, and nobody here can read
                _advise_dates(facts(tls.certificate), tls.cert_file, at, findings)
    _advise_hosts(config, findings)
    _advise_plain(config, findings)


def _certificates(listener: DataListener) -> Iterator[tuple[Path, CertificateFiles]]:
    for number, one in enumerate(listener.tls.certificates if listener.tls is not None else ()):
        yield (*listener.tls_path, "certificates", number), one


def _advise_dates(about: Facts, file: str, at: Path, findings: Findings) -> None:
    now = wall()
    state = about.state(now)
    if state:
        day = about.not_before if now < about.not_before else about.not_after
        findings.advise(at, "GG060", f"{file} {state}: {_day(day)}", _RENEW)
    elif about.ends_soon(now):
        findings.advise(at, "GG061", f"{file} expires on {_day(about.not_after)}", _RENEW)


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat()


def _advise_hosts(config: Config, findings: Findings) -> None:
    secured = [one for one in http_listeners(config) if one.tls is not None]
    for path, route in http_routes(config):
        host = route.match.host.strip("[]")
        for one in secured if host else ():
            if serves(one, route) and not any(
                facts(certificate.chain).covers(host) for _, certificate in _certificates(one)
            ):
                findings.advise(
                    (*path, "match", "host"), "GG062", f"no certificate of the listener {one.id} is for {host}: "
                    "clients refuse the connection", "add a certificate with this name")


def _advise_plain(config: Config, findings: Findings) -> None:
    served = http_listeners(config)
    routes = [route for _, route in http_routes(config)]
    for plain in served:
        if plain.tls is not None or not reachable_from_outside(plain.address) or config.server.trusted_proxies:
            continue
        for other in served:
            both = other.tls is not None and any(serves(plain, route) and serves(other, route) for route in routes)
            if both:
                findings.advise(
                    plain.path, "GG065", f"what the listener {other.id} serves with TLS is served here without",
                    "let routes name their listener, or take redirectHTTP in its place")
                break
