"""Certificates in use, and how long they will be: for metrics, the admin API, and the log.

    at the start and at a reload    those that have expired, or will soon; keys that everybody can read
    once a day                      the same again, for as long as it is so
    at a reload                     certificates that are other ones now

An expired certificate is served all the same: clients say what they think of it, and gogate is not down. The dates are
on the wall clock, as certificates are; the days between two warnings are not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from attrs import frozen

from gogate_py.clock import monotonic, wall
from gogate_py.config.certificates import DAY, Facts, facts
from gogate_py.config.listeners import DataListener, data_listeners
from gogate_py.config.schema import Config

log = logging.getLogger("gogate.tls")

#: How often the dates are looked at, seconds.
LOOK: Final = 3600.0


@frozen
class InUse:
    """A certificate, and who shows it: a listener to clients, or ``pool/NAME`` to backends."""

    listener: str
    file: str
    about: Facts
    content: str
    exposed: bool = False

    @property
    def name(self) -> str:
        """Its first name; that of the file when it has none."""
        return self.about.names[0] if self.about.names else self.file


def in_use(config: Config) -> list[InUse]:
    """Every certificate of a configuration, listeners' first."""
    found = [
        InUse(listener.id, one.cert_file, facts(one.chain), one.chain + one.key, one.exposed)
        for listener in data_listeners(config) if listener.tls is not None
        for one in listener.tls.certificates]
    for name, pool in config.effective_pools().items():
        tls = pool.backend_tls
        if tls.certificate and (tls.enabled or any(backend.tls for backend in pool.backends)):
            try:
                about = facts(tls.certificate)
            except ValueError:  # OpenSSL can show it to backends all the same
                continue
            found.append(InUse(f"pool/{name}", tls.cert_file, about, tls.certificate + tls.key))
    return found


def expiry_gauge(certificates: list[InUse]) -> dict[tuple[str, ...], float]:
    """gogate_tls_certificate_expiry_seconds."""
    return {(one.listener, one.name, one.file): one.about.not_after for one in certificates}


def listener_object(one: DataListener) -> dict[str, Any]:
    """One listener for the admin API."""
    shown: dict[str, Any] = {"name": one.id, "kind": one.kind, "address": one.address}
    if one.accept_proxy_protocol:
        shown["accept_proxy_protocol"] = True
    if one.https_port:
        shown["https_port"] = one.https_port
    if one.tls is not None:
        shown["tls"] = {
            "min_version": one.tls.min_version,
            "client_auth": one.tls.client_auth,
            "certificates": [
                {"file": certificate.cert_file, **_facts_object(facts(certificate.chain))}
                for certificate in one.tls.certificates
            ],
        }
    return shown


def _facts_object(about: Facts) -> dict[str, Any]:
    return {
        "names": about.names,
        "key": about.kind,
        "not_before": _time(about.not_before),
        "not_after": _time(about.not_after),
        "state": about.state(wall()) or "valid",
    }


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()


class CertificateWatch:
    """Tells the log about the certificates of one gateway. ``start`` and ``stop`` in the event loop."""

    def __init__(
        self, config: Config, *, now: Callable[[], float] = wall, ticks: Callable[[], float] = monotonic
    ) -> None:
        self._certificates = in_use(config)
        self._now = now
        self._ticks = ticks
        self._told: dict[tuple[str, str], float] = {}  # message, file → when it was said
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look now, and from now on."""
        self.look()
        self._timer = asyncio.get_running_loop().call_later(LOOK, self.start)

    def stop(self) -> None:
        """No more."""
        if self._timer is not None:
            self._timer.cancel()

    def serve(self, config: Config) -> None:
        """Another configuration is served."""
        before = {(one.listener, one.file): one for one in self._certificates}
        self._certificates = in_use(config)
        for one in self._certificates:
            other = before.get((one.listener, one.file))
            if other is not None and other.content != one.content:
                log.info("certificate changed", extra={**_extra(one), "not_after_before": _time(other.about.not_after)})
        # What is mended, and breaks again, is news.
        self._told = {said: at for said, at in self._told.items() if said in self._worries()}
        self.look()

    def look(self) -> None:
        """Say what is wrong, each once a day."""
        now = self._ticks()
        for said, one in self._worries().items():
            if now - self._told.get(said, now - DAY) >= DAY:
                self._told[said] = now
                log.warning(said[0], extra=_extra(one))

    def _worries(self) -> dict[tuple[str, str], InUse]:
        """Message and file → the first that has it: a file that several listeners show is told once."""
        found: dict[tuple[str, str], InUse] = {}
        now = self._now()
        for one in self._certificates:
            state = one.about.state(now)
            if state:
                found.setdefault((f"a certificate {state}", one.file), one)
            elif one.about.ends_soon(now):
                found.setdefault(("a certificate expires soon", one.file), one)
            if one.exposed:
                found.setdefault(("everybody on this machine can read the key of a certificate", one.file), one)
        return found


def _extra(one: InUse) -> dict[str, Any]:
    return {
        "listener": one.listener,
        "certificate": one.file,
        "names": list(one.about.names),
        "not_after": _time(one.about.not_after),
    }
