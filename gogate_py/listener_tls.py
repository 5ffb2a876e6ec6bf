"""TLS of our own listeners: the contexts of a listener from what a snapshot says of it, by server name.

    certificate        the one that has the name asked for (SNI), exactly or by a wildcard for one label; else the
                       first. Several that have the name (one with an ECDSA key, one with an RSA key) are in one
                       context, and OpenSSL takes what the client can check; of two with the same kind of key the first
    versions           TLS 1.2 and 1.3, or 1.3 alone
    ciphers            of TLS 1.2 those with forward secrecy and AEAD (Mozilla's "intermediate" without DHE), in the
                       client's order: it knows whether it has AES in hardware. Of TLS 1.3 OpenSSL's, all are good
    never              compression, renegotiation
    ALPN               http/1.1 on HTTP listeners. Who offers only others goes on without: it may fall back to HTTP/1.1
    client's own       none | optional | require, from the authorities given: one rule for the whole listener
    resumption         by tickets, whose keys belong to one context of one worker

Contexts are made when a snapshot comes and kept as long as their content is the same: tickets stay good, and of many
certificates only the changed ones are read again. Files are not known here: contents are.
"""

from __future__ import annotations

import ssl
from typing import Final

from gogate_py.backend_tls import HTTP, load_pair
from gogate_py.snapshot import Certificate, ListenerTls

#: Of TLS 1.2.
CIPHERS: Final = ":".join(
    f"ECDHE-{key}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for key in ("ECDSA", "RSA")
)
_VERIFY: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "require": ssl.CERT_REQUIRED}
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

#: Certificates that are shown by one context.
Group = tuple[Certificate, ...]


class Shown:
    """What a connection is shown: the context of its certificates, and the hosts they are for."""

    __slots__ = ("_hosts", "_parents", "context")

    def __init__(self, context: ssl.SSLContext, group: Group) -> None:
        self.context = context
        names = {name for certificate in group for name in certificate.names}
        self._hosts = {name for name in names if not name.startswith("*.")}
        self._parents = {name[2:] for name in names if name.startswith("*.")}

    def covers(self, host: str) -> bool:
        """Whether one of the certificates is for this host: a name in lower case or an IP address."""
        return host in self._hosts or host.partition(".")[2] in self._parents


class ListenerContexts:
    """The contexts of one listener. ``spec`` is what they were made of."""

    __slots__ = ("_below", "_default", "_exact", "_shown", "http", "spec")

    def __init__(self, spec: ListenerTls, *, http: bool, before: ListenerContexts | None = None) -> None:
        """``before``: where contexts of the same content are taken from. Raises OSError (ssl.SSLError is one) or
        ValueError when one cannot be made."""
        self.spec = spec
        self.http = http
        kept = before._shown if before is not None and before.same_rules(spec, http=http) else {}
        self._shown: dict[Group, Shown] = {}
        groups: dict[str, Group] = {}
        for certificate in spec.certificates:
            for name in certificate.names:
                groups[name] = (*groups.get(name, ()), certificate)
        first = spec.certificates[0]
        same = [one for one in spec.certificates[1:] if first.names and set(first.names) <= set(one.names)]
        self._exact: dict[str, Shown] = {}
        self._below: dict[str, Shown] = {}
        self._default = self._show((first, *same), kept)
        for name, group in groups.items():
            if name.startswith("*."):
                self._below[name[2:]] = self._show(group, kept)
            else:
                self._exact[name] = self._show(group, kept)

    def _show(self, group: Group, kept: dict[Group, Shown]) -> Shown:
        shown = self._shown.get(group) or kept.get(group) or Shown(_new_context(self.spec, group, self.http), group)
        self._shown[group] = shown
        return shown

    def choose(self, server_name: str) -> Shown:
        """What is shown to a client that asks for this name ("" for none)."""
        return (
            self._exact.get(server_name) or self._below.get(server_name.partition(".")[2]) or self._default
        )

    def same_rules(self, spec: ListenerTls, *, http: bool) -> bool:
        """Whether all but the certificates is as ``spec`` has it."""
        ours = self.spec
        return (self.http, ours.min_version, ours.client_auth, ours.client_ca) == (
            http, spec.min_version, spec.client_auth, spec.client_ca,
        )  # fmt: skip


def _new_context(spec: ListenerTls, group: Group, http: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[spec.min_version]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(CIPHERS)
    for certificate in reversed(group):  # of the same kind of key the last one stays
        load_pair(context, certificate.chain, certificate.key)
    context.verify_mode = _VERIFY[spec.client_auth]
    if spec.client_auth != "none":
        context.load_verify_locations(cadata=spec.client_ca)
    if http:
        context.set_alpn_protocols(list(HTTP))
    return context
