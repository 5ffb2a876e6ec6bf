"""TLS of gogate's own listeners in the configuration, and the long form of listeners. A part of schema.py."""

# ruff: noqa: RUF009  setting() returns an attrs field, which is how attrs takes defaults

from __future__ import annotations

from typing import ClassVar, Final

import attrs

from gogate_py.config.names import FieldName, ListenAddress, Name
from gogate_py.config.settings import Group, GroupList, setting
from gogate_py.config.values import Boolean, Choice, Duration, Text

_FILE: Final = Text(r"\S.*", "a path")


@attrs.frozen
class CertificateFiles:
    """One certificate of a listener.

    What follows the two names is read from the files (listener_tls.py): PEM texts; certificates.py tells what is in
    them. ``exposed``: others on this machine can read the key; that is no part of what is served, so a change of the
    file's mode alone is no change of the configuration.
    """

    HINTS: ClassVar = {
        "cert": "certFile", "certificate": "certFile", "crt": "certFile", "chain": "certFile", "fullchain": "certFile",
        "key": "keyFile", "privateKey": "keyFile"}

    cert_file: str = setting(_FILE, "PEM: the certificate, then those between it and its authority", default="",
                             required=True, example="server.crt")
    key_file: str = setting(_FILE, "PEM, not encrypted", default="", required=True, example="server.key")
    chain: str = ""
    key: str = attrs.field(default="", repr=False)
    exposed: bool = attrs.field(default=False, eq=False)


@attrs.frozen
class ListenerTls:
    """How TLS is terminated. ``authorities`` is what clientCA holds (PEM)."""

    HINTS: ClassVar = {
        "certs": "certificates", "certFile": "certificates", "keyFile": "certificates", "cert": "certificates",
        "key": "certificates", "certificate": "certificates", "minProtocolVersion": "minVersion",
        "protocols": "minVersion", "ca": "clientCA", "caFile": "clientCA", "clientCAFile": "clientCA",
        "clientCAFiles": "clientCA", "mtls": "clientAuth", "verifyClient": "clientAuth",
        "clientAuthType": "clientAuth", "httpRedirect": "redirectHTTP", "redirect": "redirectHTTP",
        "redirectToHTTPS": "redirectHTTP", "subjectHeader": "clientSubjectHeader"}

    certificates: tuple[CertificateFiles, ...] = setting(
        GroupList(CertificateFiles, flow=True),
        "(required) chosen by the name that a client asks for; the first is the default",
        example=(CertificateFiles("server.crt", "server.key"),))
    min_version: str = setting(Choice(("1.2", "1.3"), aliases={
        "TLS1.2": "1.2", "TLSv1.2": "1.2", "VersionTLS12": "1.2", "TLS1.3": "1.3", "TLSv1.3": "1.3",
        "VersionTLS13": "1.3"}), "", default="1.2")
    client_ca: str = setting(
        _FILE, "PEM; authorities of clients' certificates", default="", key="clientCA", example="clients.pem",
        commented=True)
    client_auth: str = setting(
        Choice(("none", "optional", "require"), aliases={"required": "require", "mandatory": "require"}),
        "certificates of clients: not asked for, checked if there is one, needed", default="none")
    client_subject_header: str = setting(
        FieldName(optional=True), 'http, with clientAuth: the subject, for backends; no client may set it; "" = off',
        default="X-SSL-Client-DN")
    handshake_timeout: float = setting(
        Duration(0, 3600, zero="as server.timeouts.handshake"), "", default=0.0, commented=True)
    redirect_http: str = setting(
        ListenAddress(), "http: here every request is answered with 308 to https", default="", key="redirectHTTP",
        example=":80", commented=True)
    authorities: str = ""


@attrs.frozen
class Listener:
    """A listener of the long form."""

    HINTS: ClassVar = {
        "addr": "listenAddr", "address": "listenAddr", "port": "listenAddr", "bind": "listenAddr", "protocol": "type",
        "mode": "type", "certificates": "tls", "proxyProtocol": "acceptProxyProtocol", "routes": "name"}

    name: str = setting(Name(), "what routes call it, and its name in logs and metrics", default="", required=True,
                        example="public")
    listen_addr: str = setting(ListenAddress(), "", default="", required=True, aliases=("listen",), example=":8443")
    type: str = setting(Choice(("http", "tcp")), "", default="http")
    tls: ListenerTls | None = setting(
        Group(ListenerTls, optional=True), "as server.tls",
        example={"certificates": ({"certFile": "server.crt", "keyFile": "server.key"},)})
    accept_proxy_protocol: bool = setting(
        Boolean(), "needed from all, believed from trustedProxies", default=False)
