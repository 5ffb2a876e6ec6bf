"""Which addresses may be registered (SECURITY.md T23)."""

from __future__ import annotations

import pytest

from gogate_py.addresses import Address
from gogate_py.config.schema import Registry as RegistrySettings
from gogate_py.controlplane.registry_rules import AddressForbidden, AddressRules, RegistrationError

#: What this machine has, in the tests' world.
LOCAL = {"10.0.0.1", "fd00::1"}
OWN = (
    Address("", 8080),  # all interfaces
    Address("127.0.0.1", 9090),
    Address("0.0.0.0", 8081),
    Address("10.0.0.1", 8443),
    Address("::", 8082),
    Address("", 0, "/run/gogate.sock"),
)


def rules(*allow: str) -> AddressRules:
    return AddressRules(allow or RegistrySettings().allow_cidrs, OWN, lambda ip: ip in LOCAL)


OK = "ok"
BAD = "400"  # not an address, or not in a form that means one thing everywhere
NO = "403"

# 60 addresses under the default allowCIDRs
TABLE = [
    # --- plain and good
    ("127.0.0.1:9001", OK),
    ("127.8.8.8:9001", OK),
    ("10.0.0.5:8080", OK),
    ("172.16.0.1:80", OK),
    ("172.31.255.254:80", OK),
    ("192.168.1.1:80", OK),
    ("[::1]:9001", OK),
    ("[fd12:3456::1]:80", OK),
    ("[fc00::7]:65535", OK),
    # --- names, judged when they resolve
    ("localhost:9001", OK),
    ("LOCALHOST:9001", OK),
    ("localhost.:9001", OK),
    ("api.internal:80", OK),
    ("metadata.google.internal:80", OK),
    ("127.0.0.1.nip.io:80", OK),
    ("my_service:80", OK),
    # --- outside of allowCIDRs
    ("8.8.8.8:53", NO),
    ("172.32.0.1:80", NO),
    ("11.0.0.1:80", NO),
    ("192.169.0.1:80", NO),
    ("[2001:db8::1]:80", NO),
    ("[2606:4700::1111]:443", NO),
    # --- never, whatever allowCIDRs says
    ("169.254.169.254:80", NO),
    ("169.254.0.1:80", NO),
    ("[fe80::1]:80", NO),
    ("224.0.0.1:80", NO),
    ("239.255.255.255:80", NO),
    ("[ff02::1]:80", NO),
    ("0.0.0.0:80", NO),
    ("0.1.2.3:80", NO),
    ("[::]:80", NO),
    ("255.255.255.255:80", NO),
    ("240.0.0.1:80", NO),
    ("100.100.100.200:80", NO),
    ("[fd00:ec2::254]:80", NO),
    # --- the same in IPv6 clothes
    ("[::ffff:169.254.169.254]:80", NO),
    ("[::ffff:a9fe:a9fe]:80", NO),
    ("[::ffff:8.8.8.8]:80", NO),
    ("[::ffff:10.0.0.5]:80", OK),
    ("[::ffff:127.0.0.1]:80", OK),
    # --- gogate itself
    ("127.0.0.1:8080", NO),
    ("10.0.0.1:8080", NO),
    ("10.0.0.2:8080", OK),  # the same port of another machine
    ("127.0.0.1:9090", NO),
    ("127.0.0.2:9090", OK),  # bound to 127.0.0.1 only
    ("10.0.0.1:8081", NO),
    ("10.0.0.1:8443", NO),
    ("[::ffff:127.0.0.1]:9090", NO),
    ("[::1]:8082", NO),
    ("[fd00::1]:8080", NO),
    # --- other ways to write IPv4: decimal, octal, hexadecimal, short
    ("2130706433:80", BAD),
    ("0177.0.0.1:80", BAD),
    ("0x7f000001:80", BAD),
    ("0x7f.0.0.1:80", BAD),
    ("127.1:80", BAD),
    ("010.0.0.1:80", BAD),
    ("169.254.169.254.:80", BAD),
    ("a.0x1:80", BAD),
    # --- not an address
    ("http://10.0.0.5:80", BAD),
    ("user@10.0.0.5:80", BAD),
    ("10.0.0.5:80/path", BAD),
    ("10.0.0.5", BAD),
    (":9001", BAD),
    ("10.0.0.5:0", BAD),
    ("10.0.0.5:65536", BAD),
    ("::1:80", BAD),
    ("[fd00::1%eth0]:80", BAD),
    ("unix:/run/app.sock", BAD),
    ("10.0.0.5 :80", BAD),
    ("\uff11\uff10.0.0.5:80", BAD),  # full-width digits
    ("10.0.0.5:\uff18\uff10", BAD),
    ("a\r\nb:80", BAD),
]


def verdict(text: str, judge: AddressRules) -> str:
    try:
        judge.check(text)
    except AddressForbidden:
        return NO
    except RegistrationError:
        return BAD
    return OK


@pytest.mark.parametrize(("address", "expected"), TABLE)
def test_addresses_under_the_default_settings(address: str, expected: str) -> None:
    """Loopback and private addresses may register, everything else is refused with the right status."""
    assert verdict(address, rules()) == expected


@pytest.mark.parametrize("address", [address for address, expected in TABLE if expected is NO])
def test_what_is_never_allowed(address: str) -> None:
    """With every network in allowCIDRs, only public addresses become possible."""
    public = address.startswith(("8.", "11.", "172.32.", "192.169.", "[2001:db8", "[2606", "[::ffff:8."))
    assert verdict(address, rules("0.0.0.0/0", "::/0")) == (OK if public else NO)


@pytest.mark.parametrize(
    "ip", ["64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "::ffff:169.254.169.254"]
)
def test_translated_addresses_are_judged_by_what_they_reach(ip: str) -> None:
    """NAT64 and 6to4 addresses of the metadata service are refused like itself."""
    assert "metadata" in rules("::/0").refusal(ip, 80)


def test_a_refusal_names_the_field() -> None:
    """Both kinds of refusal say that it is the address, and why."""
    with pytest.raises(AddressForbidden) as forbidden:
        rules().check("169.254.169.254:80")
    assert (forbidden.value.field, "metadata" in forbidden.value.message) == ("address", True)
    with pytest.raises(RegistrationError) as bad:
        rules().check("10.0.0.5")
    assert (bad.value.field, "port" in bad.value.message) == ("address", True)


def test_a_resolved_address_is_judged_like_a_literal() -> None:
    """refusal() says why, for each address of a name, whatever it said before."""
    judge = rules()
    assert judge.refusal("10.0.0.5", 80) == ""
    assert "metadata" in judge.refusal("169.254.169.254", 80)
    assert "allowCIDRs" in judge.refusal("8.8.8.8", 80)
    assert "this gateway itself" in judge.refusal("127.0.0.1", 8080)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("LocalHost:9001", "localhost:9001"),
        ("[0:0:0:0:0:0:0:1]:9001", "[::1]:9001"),
        ("[::ffff:10.0.0.5]:80", "10.0.0.5:80"),
        ("[FD00::AB]:80", "[fd00::ab]:80"),
        ("10.0.0.5:00080", "10.0.0.5:80"),
    ],
)
def test_an_address_is_kept_in_one_spelling(text: str, kept: str) -> None:
    """Two spellings of one address are one backend."""
    assert rules().check(text) == kept


def test_a_name_is_the_own_address_of_all_that_it_may_be() -> None:
    """A listener bound by name refuses its port on every address of this machine, and on no other."""
    judge = AddressRules(["10.0.0.0/8", "127.0.0.0/8"], [Address("gate.internal", 80)], lambda ip: ip in LOCAL)
    assert judge.refusal("10.0.0.1", 80) != ""
    assert judge.refusal("127.0.0.1", 80) != ""
    assert judge.refusal("10.0.0.9", 80) == ""
