"""Certificates and backends that speak TLS: an authority of the tests' own, contexts signed by it, a scripted one."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path

import trustme
from doubles.stub_upstream import Script, StubUpstream

from gogate_py.snapshot import BackendTls

#: Who signs everything, and somebody else.
CA = trustme.CA()
STRANGER = trustme.CA()
#: The name that most backends have.
NAME = "backend.test"


def pem(blob: trustme.Blob) -> str:
    """A certificate or key as text."""
    return blob.bytes().decode()


def server_context(
    *names: str, clients: trustme.CA | None = None, newest: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    """A backend's context with a certificate for these names or IP addresses (default: NAME). ``clients``: it asks for
    a certificate of theirs and refuses whoever has none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert(*(names or (NAME,))).configure_cert(context)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        clients.configure_trust(context)
    if newest is not None:
        context.maximum_version = newest
    return context


def settings(*, authority: trustme.CA = CA, client: trustme.LeafCert | None = None, verify: bool = True) -> BackendTls:
    """What a snapshot says of backends with such certificates."""
    certificate = "".join(pem(blob) for blob in client.cert_chain_pems) if client is not None else ""
    key = pem(client.private_key_pem) if client is not None else ""
    parts = (pem(authority.cert_pem), certificate, key, verify)
    return BackendTls(hashlib.sha256(repr(parts).encode()).hexdigest(), *parts)


def write_files(folder: Path, client: trustme.LeafCert | None = None) -> None:
    """ca.pem, and a client's cert.pem and key.pem, for configurations that name files."""
    CA.cert_pem.write_to_path(str(folder / "ca.pem"))
    leaf = client or CA.issue_cert("client.test")
    (folder / "cert.pem").write_text("".join(pem(blob) for blob in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(str(folder / "key.pem"))


class TlsTarget(StubUpstream):
    """A scripted TLS backend for a TcpPlane; to be used ``async with`` around it."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(*scripts, tls=tls or server_context())

    @property
    def endpoints(self) -> tuple[tuple[str, int], ...]:
        """What to connect to."""
        return (("127.0.0.1", self.port),)

    def close(self) -> None:
        """Its own block ends it."""

