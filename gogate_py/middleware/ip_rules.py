"""IP rules stage: which client addresses may use a route.

    deny    allow    client                        outcome
    -----   -----    ---------------------------   --------
    hit     any      an address                    refused (403)
    miss    empty    an address                    passes
    miss    hit      an address                    passes
    miss    miss     an address                    refused
    any     empty    a Unix socket                 passes
    any     not      a Unix socket                 refused

- deny beats allow, whatever the lengths of the prefixes are; an empty allow list lets everybody in.
- IPv4 is IPv4 however it is written: ``::ffff:10.1.2.3`` is 10.1.2.3, and the network ``::ffff:10.0.0.0/104`` is
  10.0.0.0/8. An IPv6 network that merely contains the mapped range (``::/0``) says nothing about IPv4 clients.
- A client behind a Unix socket has no address ("" or "unix:"): no network contains it. Who may open the socket is what
  the socket's file mode says.
- Text that is no address (it cannot come from the data plane) is refused.

The client is the resolved one (SECURITY.md T7), so a header field cannot change the verdict unless a trusted proxy
wrote it. Must not know who is trusted, nor anything of the request but its client.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from gogate_py import addresses
from gogate_py.errors import Failure
from gogate_py.middleware.chain import Explained, Refusal, RequestView

#: Verdicts that are remembered. Beyond it all are forgotten: a scan over many addresses costs time, never memory.
CACHE_SIZE: Final = 4096

_REFUSED: Final = Refusal(Failure.FORBIDDEN_ADDRESS, Failure.FORBIDDEN_ADDRESS.detail, counted="address")


class Networks:
    """A set of networks. Asking costs one dictionary probe for each prefix length in it, however many there are."""

    __slots__ = ("_by_length",)

    def __init__(self, networks: tuple[str, ...]) -> None:
        """``networks`` in CIDR notation. Raises ValueError for one that is not."""
        by_length: dict[tuple[int, int], dict[int, str]] = {}
        for text in networks:
            network = _unmapped(ipaddress.ip_network(text))
            shift = network.max_prefixlen - network.prefixlen
            prefix = int(network.network_address) >> shift
            by_length.setdefault((network.version, shift), {}).setdefault(prefix, text)
        # Longest prefix first: what explain names is the most specific network.
        self._by_length = sorted(by_length.items())

    def find(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
        """The most specific network with this address, as it was written; "" when there is none."""
        version, number = address.version, int(address)
        for (of_version, shift), prefixes in self._by_length:
            if of_version == version:
                found = prefixes.get(number >> shift)
                if found is not None:
                    return found
        return ""


class IpRules:
    """The allow and deny lists of one route."""

    name = "ip_rules"

    __slots__ = ("_allow", "_allow_all", "_deny", "_verdicts")

    def __init__(self, allow: tuple[str, ...], deny: tuple[str, ...]) -> None:
        """Networks in CIDR notation, as HttpRoute has them; ``allow`` empty: all."""
        self._allow = Networks(allow)
        self._deny = Networks(deny)
        self._allow_all = not allow
        self._verdicts: dict[str, Refusal | None] = {}

    def __call__(self, request: RequestView) -> Refusal | None:
        """Refuse what the lists do not let in; one dictionary probe for a client seen before."""
        client = request.client
        verdicts = self._verdicts
        if client in verdicts:
            return verdicts[client]
        verdict = None if self._judge(client)[0] else _REFUSED
        if len(verdicts) >= CACHE_SIZE:
            verdicts.clear()
        verdicts[client] = verdict
        return verdict

    def explain(self, request: RequestView) -> Explained:
        """The verdict with the network that decided."""
        passes, why, network = self._judge(request.client)
        facts = {"allowed": passes, "network": network}
        return Explained(None if passes else _REFUSED, why, facts)

    def _judge(self, client: str) -> tuple[bool, str, str]:
        """Whether the client passes, why, and the network that decided ("" for none)."""
        if not client or client.startswith("unix:"):
            if self._allow_all:
                return True, "a Unix socket has no address, and there is no allow list", ""
            return False, "a Unix socket has no address, so no allowed network contains it", ""
        try:
            address = _address(client)
        except ValueError:
            return False, "the client's address cannot be read", ""
        network = self._deny.find(address)
        if network:
            return False, f"{address} is in {network}, which is denied", network
        if self._allow_all:
            return True, f"{address} is in no denied network, and there is no allow list", ""
        network = self._allow.find(address)
        if network:
            return True, f"{address} is in {network}, which is allowed", network
        return False, f"{address} is in no allowed network", ""


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(addresses.plain(text))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _unmapped(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """A network inside of ::ffff:0:0/96 as the IPv4 network that it is. A larger one does not begin there."""
    if isinstance(network, ipaddress.IPv6Network):
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network
