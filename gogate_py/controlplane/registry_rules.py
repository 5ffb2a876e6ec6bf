"""What may be registered (SECURITY.md T23): who registers an address makes the gateway connect to it.

An IP literal is judged when it registers. A name is let in and every address it resolves to is judged then, each time
it is resolved (:meth:`AddressRules.refusal`), so that a name that turns to another address later gains nothing. File
backends are the operator's word and are not judged.

Pure, except that whether an address is this machine's own is asked of a given function.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Final

from gogate_py.addresses import Address, is_ip, parse
from gogate_py.errors import GogateError

_IP = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Where clouds serve credentials to whoever can connect: AWS and most others, AWS over IPv6, GCP over IPv6, Alibaba,
#: Oracle, Azure's host agent. Refused even when allowCIDRs contains them.
_METADATA: Final = frozenset(
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16")
)
_THIS_NETWORK: Final = ipaddress.IPv4Network("0.0.0.0/8")
# RFC 6052: addresses through which a translator reaches the IPv4 address in the last 32 bits.
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
# IPv4 as inet_aton() reads it: the resolver would take 0x7f.1 or 2130706433 for an address, not for a name.
_NUMERIC_LABEL: Final = re.compile(r"(?:[0-9]+|0[xX][0-9a-fA-F]*)\Z")


class RegistrationError(GogateError):
    """A registration that cannot be taken: the field of the body, and why (answered with 400)."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class AddressForbidden(GogateError):
    """An address that is understood, but may not be registered (answered with 403)."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class AddressRules:
    """The rules of one configuration. ``own``: the addresses this gateway itself listens on; ``is_local`` tells whether
    an IP address is one of this machine's."""

    def __init__(self, allow_cidrs: Iterable[str], own: Iterable[Address], is_local: Callable[[str], bool]) -> None:
        self._allowed = [ipaddress.ip_network(text) for text in allow_cidrs]
        self._own = [address for address in own if not address.is_unix]
        self._is_local = is_local

    def check(self, text: str) -> str:
        """The address as it is kept: IP literals in their canonical form, names in lower case.

        Raises RegistrationError for what is not host:port, AddressForbidden for an IP literal that may not register.
        """
        try:
            address = parse(text, need_host=True, allow_unix=False)
        except ValueError as error:
            raise RegistrationError("address", str(error)) from None
        host = address.host
        if "%" in host:
            raise RegistrationError("address", "an IPv6 address with a zone means another thing on every machine")
        if not is_ip(host):
            if _NUMERIC_LABEL.match(host.removesuffix(".").rpartition(".")[2]):
                raise RegistrationError("address", f"{host!r} is neither a dotted IPv4 address nor a host name")
            return str(Address(host.lower(), address.port))
        ip = _plain(ipaddress.ip_address(host))
        refusal = self.refusal(str(ip), address.port)
        if refusal:
            raise AddressForbidden("address", refusal)
        return str(Address(str(ip), address.port))

    def refusal(self, ip_text: str, port: int) -> str:
        """Why a registered backend may not be at this IP address and port; "" when it may."""
        ip = _plain(ipaddress.ip_address(ip_text))
        kind = _always_refused(ip)
        if kind:
            return f"{ip} is {kind}: it cannot be registered"
        if not any(ip.version == network.version and ip in network for network in self._allowed):
            return f"{ip} is not in server.registry.allowCIDRs"
        if self._is_own(ip, port):
            return f"{Address(str(ip), port)} is an address of this gateway itself"
        return ""

    def _is_own(self, ip: _IP, port: int) -> bool:
        for own in self._own:
            if own.port != port:
                continue
            if is_ip(own.host):
                bound = _plain(ipaddress.ip_address(own.host))
                if bound == ip:
                    return True
                if not bound.is_unspecified:
                    continue
            # all interfaces, or a name (which may be any of them)
            if ip.is_loopback or self._is_local(str(ip)):
                return True
        return False


def _plain(ip: _IP) -> _IP:
    """A v4-mapped IPv6 address as the IPv4 address that it reaches."""
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip


def _always_refused(ip: _IP) -> str:
    """What an address is that no configuration can allow; "" for all others."""
    if ip in _METADATA:
        return "a cloud metadata address"
    if ip.is_unspecified:
        return "the unspecified address"
    if ip.is_link_local:
        return "a link-local address"
    if ip.is_multicast:
        return "a multicast address"
    if isinstance(ip, ipaddress.IPv4Address):
        if ip in _THIS_NETWORK:
            return 'in 0.0.0.0/8 ("this network")'
        if ip.is_reserved:  # 240.0.0.0/4, the broadcast address included
            return "a reserved or broadcast address"
        return ""
    # An allowed network (::/0, say) must not smuggle in an IPv4 address that is refused as itself.
    inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else ip.sixtofour
    if inner is not None and (kind := _always_refused(inner)):
        return f"a way to {inner}, {kind}"
    return ""
