"""Distinguished names (the subject of a certificate) as text: RFC 4514, in ASCII, so that a header field can carry it.

    ((("countryName", "DE"),), (("commonName", "A, B"),))      CN=A\\, B,C=DE
    several attributes in one step                              OU=x+CN=y
    bytes outside visible ASCII, as UTF-8                       \\C3\\A4

The last step comes first, as in RFC 4514 (and in nginx's $ssl_client_s_dn). Whatever the certificate says, the text is
one line of visible characters and blanks: every control character is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

#: One attribute, as ssl.SSLObject.getpeercert() names it.
Attribute = tuple[str, str]

#: OpenSSL's long names → those that RFC 4514 section 3 and RFC 4519 have for them. Others stay as they are.
_SHORT: Final = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "STREET",
    "surname": "SN",
    "givenName": "GN",
    "userId": "UID",
}
_special: Final = re.compile(r'[",+;<>\\=]|\A[# ]| \Z')
_not_visible: Final = re.compile(r"[^ -~]")


def distinguished_name(steps: Sequence[Sequence[Attribute]]) -> str:
    """The text of a name; "" for an empty one."""
    return ",".join(
        "+".join(f"{_SHORT.get(kind, kind)}={_escaped(value)}" for kind, value in step) for step in reversed(steps)
    )


def _escaped(value: str) -> str:
    value = _special.sub(lambda found: "\\" + found[0], value)
    return _not_visible.sub(_as_hex, value)


def _as_hex(found: re.Match[str]) -> str:
    return "".join(f"\\{octet:02X}" for octet in found[0].encode("utf-8", "replace"))
