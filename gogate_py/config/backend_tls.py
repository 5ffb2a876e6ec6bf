"""TLS towards backends, from what is written to what can be used: https:// addresses, and the contents of files.

    https://host:port     the backend's address is host:port (443 without one), and TLS is on for it
    tls.enabled           TLS is on for every backend of the pool, registered ones included
    a pool's tls keys     each on its own, the others as in server.backendTLS; files likewise

Every file is read once at load, and checked to be what it is there for (pem.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from gogate_py.config import pem
from gogate_py.config.backend_tls_schema import BackendTls
from gogate_py.config.problems import Findings, Path
from gogate_py.config.schema import Backend, Config, Pool

#: The text of the file that a value names; "" for none, and for one that cannot be read, which it reports.
Read = Callable[[str, Path], str]

_HTTPS: Final = "https://"
_OWN: Final = ("serverName", "caFile", "certFile", "keyFile", "insecureSkipVerify")


def resolve_backend_tls(config: Config, findings: Findings, read: Read) -> Config:
    """The configuration with addresses without scheme, and with what the files say."""
    server = config.server
    path: Path = ("server", "backendTLS")
    shared = _with_files(server.backend_tls, None, path, findings, read)
    backends = _plain(server.backends)
    server = attrs.evolve(server, backend_tls=shared, backends=backends)
    pools = {}
    for name, pool in config.pools.items():
        tls = shared
        if findings.given(("pools", name, "tls")):
            tls = _with_files(pool.backend_tls, shared, ("pools", name, "tls"), findings, read)
        pools[name] = attrs.evolve(pool, backend_tls=tls, backends=_plain(pool.backends))
    return attrs.evolve(config, server=server, pools=pools)


def _plain(backends: tuple[Backend, ...]) -> tuple[Backend, ...]:
    return tuple(
        attrs.evolve(backend, addr=backend.addr.removeprefix(_HTTPS), tls=True)
        if backend.addr.startswith(_HTTPS)
        else backend
        for backend in backends)


def _with_files(tls: BackendTls, shared: BackendTls | None, path: Path, findings: Findings, read: Read) -> BackendTls:
    """The settings with the contents of their files; those of files that are not named here are ``shared``'s."""
    if not findings.is_sound(path):
        return tls

    def content(key: str, name: str, inherited: str) -> str:
        own = shared is None or findings.given((*path, key))
        return read(name, (*path, key)) if own else inherited

    authorities = content("caFile", tls.ca_file, shared.authorities if shared else "")
    certificate = content("certFile", tls.cert_file, shared.certificate if shared else "")
    key = content("keyFile", tls.key_file, shared.key if shared else "")
    # An empty file must not mean the system's store.
    if tls.ca_file and findings.is_sound((*path, "caFile")):
        authorities = pem.authorities(authorities, tls.ca_file, (*path, "caFile"), findings)
    if bool(tls.cert_file) != bool(tls.key_file):
        given, missing = ("certFile", "keyFile") if tls.cert_file else ("keyFile", "certFile")
        findings.add((*path, given), f"needs {missing}, too", at="key")
    elif tls.cert_file and findings.is_sound(path):
        certificate, key = pem.pair(certificate, key, (tls.cert_file, tls.key_file), path, findings)
    return attrs.evolve(tls, authorities=authorities, certificate=certificate, key=key)


def check_backend_tls(config: Config, findings: Findings) -> None:
    """TLS settings that nothing would read, and backends whose certificate could not be told from another's."""
    pools: list[tuple[Path, Path, BackendTls, tuple[Backend, ...]]] = [
        (("server", "backendTLS"), ("server", "backends"), config.server.backend_tls, config.server.backends)]
    for name, pool in config.pools.items():
        pools.append((("pools", name, "tls"), ("pools", name, "backends"), pool.backend_tls, pool.backends))
        _check_used(pool, ("pools", name, "tls"), findings)
    for path, place, tls, backends in pools:
        for number, backend in enumerate(backends):
            if backend.tls and not tls.enabled and findings.given((*path, "enabled")) and findings.is_sound(path):
                findings.add(
                    (*place, number, "addr"), f"https:// asks for TLS, and enabled is false "
                    f"({findings.line_of((*path, 'enabled'))}); leave enabled out, or write host:port")
            unnamed = not tls.server_name and not tls.insecure_skip_verify
            if tls.enabled and unnamed and backend.addr.startswith("unix:") and findings.is_sound(path):
                findings.add(
                    (*place, number, "addr"), "a Unix socket has no name that its certificate could be for: "
                    "set tls.serverName")


def _check_used(pool: Pool, path: Path, findings: Findings) -> None:
    if pool.backend_tls.enabled or any(backend.tls for backend in pool.backends) or not findings.is_sound(path[:-1]):
        return
    written = [key for key in _OWN if findings.given((*path, key))]
    if written and not findings.given((*path, "enabled")):
        findings.add(
            (*path, written[0]), "TLS is not on in this pool: set enabled: true, or write its backends as "
            "https://host:port", at="key")
