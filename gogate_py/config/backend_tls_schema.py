"""TLS towards backends in the configuration.

A part of schema.py.
"""



from __future__ import annotations

import re
from typing import Any, ClassVar, Final

import attrs

from gogate_py import addresses
from gogate_py.config.settings import setting
from gogate_py.config.values import BadValue, Boolean, Text, quote

_FILE: Final = Text(r"\S.*", "a path")
_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)\Z")


class ServerName:
    """The name or IP address that a certificate must have; lower case, without a dot at the end. "" is none."""

    @property
    def unit(self) -> str:
        return ""

    def parse(self, text: str, quoted: bool) -> str:
        name = text.lower().removesuffix(".")
        if name and not addresses.is_ip(name) and (
            len(name) > 253 or not all(_LABEL.match(label) for label in name.split("."))
        ):
            raise BadValue(f"{text!r} is neither a host name nor an IP address")
        return name

    def show(self, value: Any) -> str:
        return quote(value)


@attrs.frozen
class BackendTls:
    """How the backends of a pool are spoken to.

    The last three are not written but read from the files that are (backend_tls.py): PEM texts.
    """

    HINTS: ClassVar = {
        "sni": "serverName", "hostname": "serverName", "tlsServerName": "serverName", "ca": "caFile",
        "rootCAs": "caFile", "trustedCA": "caFile", "cert": "certFile", "certificate": "certFile", "key": "keyFile",
        "insecure": "insecureSkipVerify", "skipVerify": "insecureSkipVerify", "verify": "insecureSkipVerify"}

    enabled: bool = setting(
        Boolean(), "for all backends of the pool; https://host:port turns it on for one", default=False)
    server_name: str = setting(
        ServerName(), "what is asked for (SNI), and what the certificate must be for; default: the backend's host",
        default="", example="api.internal", commented=True)
    ca_file: str = setting(
        _FILE, "PEM; its authorities are trusted in place of the system's", default="", example="ca.pem",
        commented=True)
    cert_file: str = setting(
        _FILE, "PEM; shown to backends that ask for a certificate", default="", example="client.pem", commented=True)
    key_file: str = setting(_FILE, "PEM, not encrypted; of certFile", default="", example="client-key.pem",
                            commented=True)
    insecure_skip_verify: bool = setting(
        Boolean(), "any certificate will do: whoever is in between can read and change everything", default=False)
    authorities: str = ""
    certificate: str = attrs.field(default="", repr=False)
    key: str = attrs.field(default="", repr=False)
