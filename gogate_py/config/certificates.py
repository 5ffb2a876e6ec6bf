"""What is in certificates: the names they are for, and when they are valid.

Only the supervisor and the commands read them, and ``cryptography`` is loaded with the first one: 0.1 s and 8 MB
that a gateway without TLS, and every worker, does without.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import attrs

from gogate_py.addresses import is_ip

DAY: Final = 86400.0
#: A certificate that ends sooner should have been renewed, seconds; of one that lives for days only, a third of them.
SOON: Final = 14 * DAY


@attrs.frozen
class Facts:
    """One certificate. ``names``: DNS names and IP addresses, lower case; times are Unix seconds. ``kind``: of its
    key, for which a listener can show one certificate of each."""

    names: tuple[str, ...]
    not_before: float
    not_after: float
    kind: str

    def covers(self, host: str) -> bool:
        """Whether it is for a host; for ``*.domain``, whether it is for all names one label below."""
        return host in self.names or (f"*.{host.partition('.')[2]}" in self.names and not is_ip(host))

    def ends_soon(self, now: float) -> bool:
        """Whether it should have been renewed."""
        return self.not_after - now <= min(SOON, (self.not_after - self.not_before) / 3)

    def state(self, now: float) -> str:
        """"" while it is valid, else what is wrong."""
        if now < self.not_before:
            return "is not valid yet"
        return "has expired" if now >= self.not_after else ""


@lru_cache(maxsize=1024)
def facts(chain: str) -> Facts:
    """What the first certificate of a PEM chain says. Raises ValueError for one that cannot be read."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.x509.oid import NameOID

    certificate = x509.load_pem_x509_certificate(chain.encode())
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [name.lower() for name in alternatives.get_values_for_type(x509.DNSName)]
        names += [str(address) for address in alternatives.get_values_for_type(x509.IPAddress)]
    except x509.ExtensionNotFound:
        names = [str(one.value).lower() for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    key = certificate.public_key()
    kind = "RSA" if isinstance(key, rsa.RSAPublicKey) else "ECDSA" if isinstance(key, ec.EllipticCurvePublicKey) else (
        "EdDSA")
    return Facts(
        tuple(dict.fromkeys(names)), certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(), kind)
