"""Certificates of listeners in files: trustme's, and such as it does not make (another key, other dates, no names)."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from doubles.tls_backends import CA


def write_pair(
    folder: Path, name: str, *names: str, days: float | None = None, lived: float = 90, rsa_key: bool = False,
    mode: int = 0o600,
) -> tuple[Path, Path]:
    """NAME.crt and NAME.key for these host names (default: NAME.test), signed by CA; → their paths. ``days``: from now
    until it ends; it began ``lived`` days ago. Each is replaced in one step."""
    now = datetime.datetime.now(datetime.UTC)
    ends = None if days is None else now + datetime.timedelta(days=days)
    begins = None if days is None else now - datetime.timedelta(days=lived)
    leaf = CA.issue_cert(
        *(names or (f"{name}.test",)), not_before=begins, not_after=ends,
        key_type=trustme.KeyType.RSA if rsa_key else trustme.KeyType.ECDSA)
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    replace(certificate, b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    replace(key, leaf.private_key_pem.bytes(), mode)
    return certificate, key


def replace(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file beside it and rename: nobody sees half of it."""
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(content)
    os.chmod(beside, mode)
    os.replace(beside, path)


def self_signed(
    common_name: str, *, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None, days: int = 1
) -> tuple[str, str]:
    """A certificate with a common name and no other names, that begins now (or ``days`` later, if they are negative:
    it is not valid yet), and its key, as texts."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    begins = now if days > 0 else now - datetime.timedelta(days=days)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + datetime.timedelta(days=abs(days)))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()
