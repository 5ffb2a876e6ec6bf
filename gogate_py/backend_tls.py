"""TLS towards backends: the context of a connection from what a snapshot says of a pool, and what failed in words.

Both planes speak to backends (workers relay, the supervisor probes) and the configuration checks the files, so that all
three mean the same by a certificate; hence a module at top level. Rules:

    the certificate    verified against the authorities given, else the system's store; the name or IP address must
                       match; insecureSkipVerify alone turns this off
    versions           TLS 1.2 and 1.3
    ALPN               http/1.1 for HTTP, nothing for a relay, which does not know what it carries
    own certificate    presented when the backend asks for one

Contexts are made when the first connection needs one (reading the system's store takes some 20 ms) and kept by content,
so that a reload with the same files changes nothing. Files are not known here: contents are.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from typing import Final, NamedTuple

from gogate_py.snapshot import BackendTls

#: ALPN protocols (RFC 7301) for HTTP.
HTTP: Final = ("http/1.1",)
#: How long a backend may take for its part of closing a TLS connection (close_notify), seconds.
CLOSE_TIME: Final = 2.0
_MAX_CONTEXTS: Final = 128

_contexts: dict[tuple[str, tuple[str, ...]], ssl.SSLContext] = {}


class TlsClient(NamedTuple):
    """How one backend is spoken to: its pool's settings, and the name or IP address that its certificate must have."""

    settings: BackendTls
    server_name: str

    def context(self, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
        """The context for a connection. Raises OSError (ssl.SSLError is one) when none can be made."""
        key = (self.settings.digest, alpn)
        context = _contexts.get(key)
        if context is None:
            if len(_contexts) >= _MAX_CONTEXTS:  # content of many reloads ago
                del _contexts[next(iter(_contexts))]
            context = _contexts[key] = _new_context(self.settings, alpn)
        return context

    def same_as(self, other: TlsClient | None) -> bool:
        """Whether a connection made by the one could have been made by the other."""
        return other is not None and (self.settings.digest, self.server_name) == (
            other.settings.digest,
            other.server_name,
        )


def _new_context(settings: BackendTls, alpn: tuple[str, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif settings.authorities:
        context.load_verify_locations(cadata=settings.authorities)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if settings.certificate:
        load_pair(context, settings.certificate, settings.key)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Give a context a certificate chain and its key, both PEM. Raises ssl.SSLError, OSError.

    Python's ssl takes files only: this one is in memory and has no name that others could open.
    """

    def ask() -> str:  # without it OpenSSL would ask at the terminal
        raise ValueError("the key is encrypted")

    _with_file(f"{key}\n{certificate}\n", lambda path: context.load_cert_chain(path, password=ask))


def _with_file(text: str, use: Callable[[str], None]) -> None:
    fd = os.memfd_create("gogate-certificate")
    try:
        with open(fd, "w", encoding="ascii", closefd=False) as file:
            file.write(text)
        use(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def explain(error: BaseException) -> str:
    """A failed handshake in a few words: ``certificate verify failed: hostname mismatch, …``."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {_plain(error.verify_message)}"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "it failed").lower().replace("_", " ")
        # What a server of another protocol says is read as a TLS record.
        return f"it does not seem to speak TLS ({reason})" if reason == "wrong version number" else reason
    if isinstance(error, ConnectionResetError):
        return "it closed the connection during the handshake"
    return str(error) or type(error).__name__


def _plain(message: str) -> str:
    """OpenSSL's sentence as part of one: no capital, unless it begins with an abbreviation, and no full stop."""
    message = message.rstrip(".")
    return message if message[1:2].isupper() else message[:1].lower() + message[1:]
