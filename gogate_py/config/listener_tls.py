"""TLS of gogate's own listeners, from what is written to what can be served: the contents of files, and rules.

    certificates       at least one; certificate and key of each belong together (pem.py), and can be read
    clientAuth         needs clientCA to check with; clientCA alone would check nobody, which is not what was meant
    redirectHTTP,      of HTTP listeners only; a redirect must know the port that it leads to
    clientSubjectHeader

A certificate that has expired is no problem: gogate must start with it (advice_tls.py and the log tell of it).
"""

from __future__ import annotations

import attrs

from gogate_py import addresses
from gogate_py.config import pem
from gogate_py.config.certificates import facts
from gogate_py.config.named_files import NamedFiles
from gogate_py.config.problems import Findings, Path
from gogate_py.config.schema import CertificateFiles, Config, ListenerTls

_ONLY_HTTP = ("redirectHTTP", "clientSubjectHeader")


def resolve_listener_tls(config: Config, findings: Findings, files: NamedFiles) -> Config:
    """The configuration with what the files of its listeners' TLS say."""
    handshake = config.server.timeouts.handshake

    def resolved(tls: ListenerTls | None, path: Path) -> ListenerTls | None:
        return None if tls is None else _with_files(tls, handshake, (*path, "tls"), findings, files)

    return attrs.evolve(
        config,
        server=attrs.evolve(config.server, tls=resolved(config.server.tls, ("server",))),
        listeners=tuple(
            attrs.evolve(one, tls=resolved(one.tls, ("listeners", number)))
            for number, one in enumerate(config.listeners)),
        routes=tuple(
            attrs.evolve(one, tls=resolved(one.tls, ("routes", number))) for number, one in enumerate(config.routes)))


def _with_files(
    tls: ListenerTls, handshake: float, path: Path, findings: Findings, files: NamedFiles
) -> ListenerTls:
    certificates = tuple(
        _read_pair(one, (*path, "certificates", number), findings, files)
        for number, one in enumerate(tls.certificates))
    authorities = files.read(tls.client_ca, (*path, "clientCA"))
    # An empty file must not let everybody in.
    if tls.client_ca and findings.is_sound((*path, "clientCA")):
        authorities = pem.authorities(authorities, tls.client_ca, (*path, "clientCA"), findings)
    return attrs.evolve(
        tls, certificates=certificates, authorities=authorities,
        handshake_timeout=tls.handshake_timeout or handshake)


def _read_pair(one: CertificateFiles, path: Path, findings: Findings, files: NamedFiles) -> CertificateFiles:
    if not findings.is_sound(path):
        return one
    chain = files.read(one.cert_file, (*path, "certFile"))
    key = files.read(one.key_file, (*path, "keyFile"))
    if not findings.is_sound(path):
        return one
    chain, key = pem.pair(chain, key, (one.cert_file, one.key_file), path, findings)
    try:
        if chain:
            facts(chain)
    except ValueError as error:
        findings.spoil(path)
        findings.add((*path, "certFile"), f"{one.cert_file}: the certificate cannot be read: {error}")
    return attrs.evolve(one, chain=chain, key=key, exposed=files.open_to_others(one.key_file))


def check_listener_tls(config: Config, findings: Findings) -> None:
    """Add every problem of TLS on listeners."""
    server = config.server
    if server.tls is not None:
        path: Path = ("server", "tls")
        if not server.http_listen_addr and findings.was_read(("server", "httpListenAddr")):
            findings.add(
                path, "is for server.httpListenAddr, which is not set; other listeners have a tls of their own",
                at="key")
        else:
            _check(server.tls, path, server.http_listen_addr, True, findings)
    for number, one in enumerate(config.listeners):
        if one.tls is not None and findings.was_read(("listeners", number, "type")):
            _check(one.tls, ("listeners", number, "tls"), one.listen_addr, one.type == "http", findings)
    for number, route in enumerate(config.routes):
        handshake: Path = ("routes", number, "timeouts", "handshake")
        if findings.given(handshake):
            findings.add(
                handshake, "is over before a route is known: set server.timeouts.handshake, or handshakeTimeout in the "
                "tls of a listener", at="key")
        if route.tls is not None and route.type == "tcp":
            _check(route.tls, ("routes", number, "tls"), route.listen_addr, False, findings)


def _check(tls: ListenerTls, path: Path, listen_addr: str, http: bool, findings: Findings) -> None:
    if not findings.was_read(path):
        return
    if not tls.certificates and findings.is_sound((*path, "certificates")):
        findings.add(path, "certificates is required: at least one of certFile and keyFile", at="key")
    if not http:
        for key in _ONLY_HTTP:
            if findings.given((*path, key)):
                findings.add((*path, key), "is for HTTP, and this listener is of type tcp", at="key")
    elif tls.redirect_http and findings.was_read((*path, "redirectHTTP")):
        _check_redirect(listen_addr, (*path, "redirectHTTP"), findings)
    if not all(findings.is_sound((*path, key)) for key in ("clientCA", "clientAuth")):
        return
    if tls.client_auth != "none" and not tls.client_ca:
        findings.add((*path, "clientAuth"), f"{tls.client_auth} needs clientCA: whose certificates are good")
    elif tls.client_ca and tls.client_auth == "none" and not findings.given((*path, "clientAuth")):
        findings.add(
            (*path, "clientCA"), "without clientAuth nobody is asked for a certificate: write clientAuth: require, or "
            "optional", at="key")


def _check_redirect(listen_addr: str, path: Path, findings: Findings) -> None:
    if not listen_addr:
        return
    address = addresses.parse(listen_addr, allow_port_zero=True)
    if address.is_unix or not address.port:
        what = "a Unix socket" if address.is_unix else "any free port (port 0)"
        findings.add(path, f"the listener is at {what}: there is no port that clients could be sent to", at="key")
