"""Certificates and keys in PEM, as listeners and backends have them: each text is checked to be what it is there for.

A problem names the file, never what is in it. What stands between the blocks of a bundle is for people, and goes.
"""

from __future__ import annotations

import re
import ssl
from typing import Final

from gogate_py.backend_tls import load_pair
from gogate_py.config.problems import Findings, Path

_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
_KEY: Final = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----[^-]+-----END \1-----")


def authorities(text: str, file: str, path: Path, findings: Findings) -> str:
    """The certificates of a file of authorities; "" and a problem when it has none that can be used."""
    found = "\n".join(_CERTIFICATE.findall(text))
    problem = "" if found else "no PEM certificate is in it"
    try:
        if found:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=found)
    except ssl.SSLError:
        problem = "a certificate in it cannot be read"
    if problem:
        findings.spoil(path)
        findings.add(path, f"{file}: {problem}")
        return ""
    return found


def pair(certificate: str, key: str, files: tuple[str, str], path: Path, findings: Findings) -> tuple[str, str]:
    """The certificates and the key out of the texts of two files, whose names are certFile and keyFile of ``path``; ""
    for both when they are not of use together."""
    cert_file, key_file = files
    chain, private = _CERTIFICATE.findall(certificate), _KEY.search(key)
    if not chain:
        findings.add((*path, "certFile"), f"{cert_file}: no PEM certificate is in it")
    elif private is None and "ENCRYPTED" not in key:
        findings.add((*path, "keyFile"), f"{key_file}: no PEM private key is in it")
    elif private is None or private[1].startswith("ENCRYPTED") or "ENCRYPTED" in private[0]:
        findings.add(
            (*path, "keyFile"), f"{key_file}: the key is encrypted, and nobody is there to ask; "
            "decrypt it with openssl pkey, and protect the file")
    else:
        found = "\n".join(chain), private[0]
        try:
            load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), *found)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                findings.add((*path, "keyFile"), f"{key_file}: not the key of {cert_file}")
            else:
                reason = (error.reason or "unknown").lower().replace("_", " ")
                findings.add((*path, "certFile"), f"{cert_file} with {key_file} cannot be used: {reason}")
        else:
            return found
    findings.spoil(path)
    return "", ""
