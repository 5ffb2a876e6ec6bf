"""Allow and deny lists of a route."""

from __future__ import annotations

import ipaddress

import pytest
from doubles.asked import Asked
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.errors import Failure
from gogate_py.middleware import ip_rules
from gogate_py.middleware.ip_rules import IpRules, Networks

PRIVATE = ("10.0.0.0/8", "fc00::/7")


def passes(allow: tuple[str, ...], deny: tuple[str, ...], client: str) -> bool:
    """Whether a client passes; asked twice (the second answer comes from memory), and explained."""
    rules = IpRules(allow, deny)
    request = Asked(client=client)
    first = rules(request)
    assert rules(request) is first
    assert rules.explain(request).outcome is first
    assert first is None or first.failure is Failure.FORBIDDEN_ADDRESS
    return first is None


@pytest.mark.parametrize(
    ("allow", "deny", "client", "expected"),
    [
        ((), (), "192.0.2.1", True),
        ((), (), "2001:db8::1", True),
        (PRIVATE, (), "10.255.0.1", True),
        (PRIVATE, (), "11.0.0.1", False),
        (PRIVATE, (), "fd00::1", True),
        (PRIVATE, (), "2001:db8::1", False),
        ((), PRIVATE, "10.0.0.1", False),
        ((), PRIVATE, "192.0.2.1", True),
        # deny beats allow, whichever is longer
        (("10.1.2.3/32",), ("10.0.0.0/8",), "10.1.2.3", False),
        (("10.0.0.0/8",), ("10.1.2.3/32",), "10.1.2.3", False),
        (("10.0.0.0/8",), ("10.1.2.3/32",), "10.1.2.4", True),
        # IPv4 in IPv6's clothes, on either side
        (("10.0.0.0/8",), (), "::ffff:10.0.0.1", True),
        (("10.0.0.0/8",), (), "::ffff:a00:1", True),
        (("::ffff:10.0.0.0/104",), (), "10.9.9.9", True),
        (("::ffff:10.0.0.0/104",), (), "11.9.9.9", False),
        ((), ("::ffff:0:0/96",), "192.0.2.1", False),
        ((), ("::/0",), "192.0.2.1", True),
        ((), ("::/0",), "::ffff:192.0.2.1", True),
        ((), ("::/0",), "2001:db8::1", False),
        ((), ("0.0.0.0/0",), "2001:db8::1", True),
        # a zone says which interface, not who
        ((), ("fe80::/10",), "fe80::1%eth0", False),
        # Unix sockets are in no network
        ((), PRIVATE, "", True),
        ((), ("0.0.0.0/0", "::/0"), "unix:", True),
        (("0.0.0.0/0", "::/0"), (), "unix:", False),
        (("0.0.0.0/0",), (), "", False),
        # what is no address at all
        ((), PRIVATE, "10.0.0.256", False),
        ((), (), "localhost", False),
    ],
)
def test_verdicts(allow: tuple[str, ...], deny: tuple[str, ...], client: str, expected: bool) -> None:
    """Deny beats allow, an empty allow list is everybody, and IPv4 is IPv4 however it is written."""
    assert passes(allow, deny, client) is expected


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "example.com", ""])
def test_a_network_that_is_none_is_refused(text: str) -> None:
    """A list with something that is no network is not compiled."""
    with pytest.raises(ValueError):
        Networks((text,))


def test_explain_names_the_most_specific_network() -> None:
    """What decided is the longest prefix that contains the address, as it was written."""
    rules = IpRules(("10.0.0.0/8", "10.1.0.0/16"), ("10.1.2.0/24",))
    assert rules.explain(Asked(client="10.1.9.9")).facts == {"allowed": True, "network": "10.1.0.0/16"}
    refused = rules.explain(Asked(client="10.1.2.9"))
    assert refused.facts == {"allowed": False, "network": "10.1.2.0/24"}
    assert refused.text == "10.1.2.9 is in 10.1.2.0/24, which is denied"


def test_memory_of_verdicts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More clients than the memory holds make it forget, and change no verdict."""
    monkeypatch.setattr(ip_rules, "CACHE_SIZE", 8)
    rules = IpRules((), ("10.0.0.0/28",))
    for _ in range(2):
        verdicts = [rules(Asked(client=f"10.0.0.{last}")) is None for last in range(40)]
        assert verdicts == [last >= 16 for last in range(40)]
        assert len(rules._verdicts) <= 8


V4 = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)


@settings(max_examples=60, deadline=None)
@given(
    networks=st.lists(st.tuples(V4, st.integers(0, 32)), max_size=6),
    address=V4,
    near=st.integers(0, 32),
)
def test_networks_agree_with_the_standard_library(
    networks: list[tuple[ipaddress.IPv4Address, int]], address: ipaddress.IPv4Address, near: int
) -> None:
    """An address is found exactly when one of the networks contains it, also in its IPv6-mapped form."""
    # A network around the address itself makes hits as common as misses.
    networks = [*networks, (address, near)] if near % 2 else networks
    texts = tuple(str(ipaddress.ip_network((base, length), strict=False)) for base, length in networks)
    expected = any(address in ipaddress.ip_network(text) for text in texts)
    assert bool(Networks(texts).find(address)) is expected
    assert (IpRules((), texts)(Asked(client=f"::ffff:{address}")) is not None) is expected
