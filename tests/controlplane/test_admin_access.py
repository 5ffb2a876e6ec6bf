"""Who may do what on the admin API (SECURITY.md T22), decided from a request's head alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.controlplane.admin_access import (
    MAX_CLIENTS,
    MAX_WRONG_TOKENS,
    UNIX_PEER,
    WINDOW,
    AccessSettings,
    Refusal,
    WrongTokens,
    client_key,
    decide,
    host_name,
    is_local,
)

LOCAL, FAR = "127.0.0.1", "203.0.113.7"
ALLOWED = ("localhost", "127.0.0.1", "[::1]", "Gate.Example", "dash.example:8443")
WITH_TOKEN = AccessSettings.make("s3cret", ALLOWED, "/metrics")
NO_TOKEN = AccessSettings.make("", ALLOWED, "/custom-metrics")
HOST = ("Host", "127.0.0.1:9090")
GOOD = ("Authorization", "Bearer s3cret")
JSON = (("Content-Type", "application/json"), ("Content-Length", "2"))


def judge(
    method: str,
    path: str,
    peer: str | None,
    *headers: tuple[str, str],
    settings: AccessSettings = WITH_TOKEN,
    wrong: WrongTokens | None = None,
    now: float = 0.0,
    version: str = "1.1",
) -> Refusal | None:
    """The decision about one request."""
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    return decide(method, path, version, peer, raw, settings, WrongTokens() if wrong is None else wrong, now)


def status(refusal: Refusal | None) -> int:
    """The status of a refusal, 0 when the request may go on."""
    return refusal.status if refusal is not None else 0


@pytest.mark.parametrize(("expected", "method", "path", "peer", "headers"), [
    # reading
    (0,   "GET",    "/backends", LOCAL,     [HOST]),
    (0,   "GET",    "/backends", FAR,       [HOST]),
    (0,   "HEAD",   "/stats",    FAR,       [HOST]),
    (0,   "GET",    "/stats",    None,      [HOST]),
    # changes from this machine
    (0,   "POST",   "/x",        LOCAL,     [HOST]),
    (0,   "POST",   "/x",        "127.9.9.9", [HOST]),
    (0,   "DELETE", "/x",        "::1",     [("Host", "[::1]:9090")]),
    (0,   "POST",   "/x",        "::ffff:127.0.0.1", [HOST]),
    (0,   "POST",   "/x",        UNIX_PEER, [("Host", "localhost")]),
    (0,   "POST",   "/x",        LOCAL,     [HOST, *JSON]),
    # changes from elsewhere
    (401, "POST",   "/x",        FAR,       [HOST]),
    (401, "DELETE", "/x",        "::ffff:203.0.113.7", [HOST]),
    (401, "PUT",    "/x",        "10.0.0.1", [HOST]),
    (401, "BREW",   "/x",        FAR,       [HOST]),
    (401, "POST",   "/x",        None,      [HOST]),
    (401, "POST",   "/health",   FAR,       [HOST]),
    (0,   "POST",   "/x",        FAR,       [HOST, GOOD]),
    (0,   "POST",   "/x",        FAR,       [HOST, ("Authorization", "bearer   s3cret ")]),
    (0,   "POST",   "/x",        FAR,       [HOST, GOOD, *JSON]),
    # a proxy on this machine does not make its clients local
    (401, "POST",   "/x",        LOCAL,     [HOST, ("X-Forwarded-For", "127.0.0.1")]),
    (401, "POST",   "/x",        LOCAL,     [HOST, ("Forwarded", "for=127.0.0.1")]),
    (401, "POST",   "/x",        LOCAL,     [HOST, ("X-Real-IP", "127.0.0.1")]),
    (0,   "POST",   "/x",        LOCAL,     [HOST, ("X-Real-IP", "127.0.0.1"), GOOD]),
    (0,   "GET",    "/x",        LOCAL,     [HOST, ("X-Forwarded-For", "1.2.3.4")]),
    # a wrong token is refused whatever is asked
    (401, "POST",   "/x",        FAR,       [HOST, ("Authorization", "Bearer wrong")]),
    (401, "POST",   "/x",        LOCAL,     [HOST, ("Authorization", "Bearer wrong")]),
    (401, "GET",    "/x",        LOCAL,     [HOST, ("Authorization", "Bearer s3cre")]),
    (401, "GET",    "/x",        LOCAL,     [HOST, ("Authorization", "Bearer s3cret2")]),
    (401, "GET",    "/x",        LOCAL,     [HOST, ("Authorization", "Basic s3cret")]),
    (401, "GET",    "/x",        LOCAL,     [HOST, ("Authorization", "Bearer")]),
    (401, "GET",    "/x",        LOCAL,     [HOST, ("Authorization", "")]),
    (401, "GET",    "/x",        LOCAL,     [HOST, GOOD, GOOD]),
    (0,   "GET",    "/metrics",  FAR,       [HOST, ("Authorization", "Bearer wrong")]),
    # Host: DNS rebinding
    (0,   "GET",    "/x",        LOCAL,     [("Host", "localhost:9090")]),
    (0,   "GET",    "/x",        LOCAL,     [("Host", "LOCALHOST")]),
    (0,   "GET",    "/x",        LOCAL,     [("Host", "gate.example.:1")]),
    (0,   "GET",    "/x",        LOCAL,     [("Host", "dash.example:1")]),
    (0,   "GET",    "/x",        LOCAL,     [("Host", "192.168.1.5:9090")]),
    (0,   "GET",    "/x",        LOCAL,     [("Host", "[fd00::1]")]),
    (421, "GET",    "/x",        LOCAL,     [("Host", "evil.example:9090")]),
    (421, "POST",   "/x",        LOCAL,     [("Host", "evil.example:9090")]),
    (421, "GET",    "/x",        LOCAL,     [("Host", "127.0.0.1.evil.example")]),
    (421, "GET",    "/x",        LOCAL,     [("Host", "2130706433")]),
    (421, "GET",    "/x",        LOCAL,     [("Host", "0x7f000001")]),
    (421, "GET",    "/x",        LOCAL,     [("Host", "localhost.evil")]),
    (421, "GET",    "/x",        LOCAL,     [("Host", "xlocalhost")]),
    (421, "GET",    "/x",        LOCAL,     [("Host", "localhost@evil.example")]),
    (421, "GET",    "/x",        LOCAL,     [("Host", "")]),
    (421, "GET",    "/x",        LOCAL,     [("Host", "\xff")]),
    (0,   "GET",    "/x",        LOCAL,     [("Host", "evil.example"), GOOD]),
    (0,   "GET",    "/health",   FAR,       [("Host", "evil.example")]),
    (0,   "GET",    "/readyz",   FAR,       [("Host", "evil.example"), ("Origin", "https://evil.example")]),
    (0,   "HEAD",   "/metrics",  FAR,       [("Host", "evil.example")]),
    (421, "POST",   "/metrics",  LOCAL,     [("Host", "evil.example")]),
    (400, "GET",    "/x",        LOCAL,     []),
    (400, "GET",    "/x",        LOCAL,     [HOST, HOST]),
    (400, "GET",    "/health",   LOCAL,     [HOST, ("Host", "localhost")]),
    # Origin: pages in the operator's browser
    (0,   "GET",    "/x",        LOCAL,     [HOST, ("Origin", "http://127.0.0.1:9090")]),
    (0,   "POST",   "/x",        LOCAL,     [("Host", "localhost:9090"), ("Origin", "http://LocalHost:9090")]),
    (0,   "POST",   "/x",        LOCAL,     [HOST, ("Origin", "https://dash.example:8443")]),
    (0,   "POST",   "/x",        LOCAL,     [HOST, ("Origin", "https://gate.example")]),
    (0,   "POST",   "/x",        FAR,       [HOST, ("Origin", "https://evil.example"), GOOD]),
    (403, "GET",    "/x",        LOCAL,     [HOST, ("Origin", "http://evil.example")]),
    (403, "POST",   "/x",        LOCAL,     [HOST, ("Origin", "http://127.0.0.1:8000")]),
    (403, "POST",   "/x",        LOCAL,     [HOST, ("Origin", "http://gate.example:8000")]),
    (403, "POST",   "/x",        LOCAL,     [HOST, ("Origin", "null")]),
    (403, "POST",   "/x",        LOCAL,     [HOST, ("Origin", "")]),
    (403, "POST",   "/x",        LOCAL,     [HOST, ("Origin", "http://127.0.0.1:9090.evil.example")]),
    (403, "OPTIONS", "/x",       LOCAL,     [HOST, ("Origin", "http://evil.example")]),
    (403, "POST",   "/x",        LOCAL,     [HOST, ("Origin", "http://127.0.0.1:9090"), ("Origin", "http://evil")]),
    # bodies
    (415, "POST",   "/x",        LOCAL,     [HOST, ("Content-Length", "5")]),
    (415, "POST",   "/x",        LOCAL,     [HOST, ("Content-Length", "5"), ("Content-Type", "text/plain")]),
    (415, "POST",   "/x",        FAR,       [HOST, GOOD, ("Transfer-Encoding", "chunked")]),
    (415, "POST",   "/x",        LOCAL,     [HOST, ("Content-Length", "5"), ("Content-Type", "application/jsonx")]),
    (0,   "POST",   "/x",        LOCAL,     [HOST, ("Content-Length", "00")]),
    (0,   "POST",   "/x",        LOCAL,     [HOST, ("Content-Length", "5"), ("Content-Type", "Application/JSON ;a=b")]),
    (401, "POST",   "/x",        FAR,       [HOST, ("Content-Length", "5")]),
    # questions that tell whether a password is right
    (0,   "GET",    "/explain",  LOCAL,     [HOST]),
    (0,   "GET",    "/explain",  FAR,       [HOST, GOOD]),
    (401, "GET",    "/explain",  FAR,       [HOST]),
    (401, "GET",    "/explain",  LOCAL,     [HOST, ("X-Forwarded-For", "10.0.0.9")]),
])  # fmt: skip
def test_decisions(
    expected: int, method: str, path: str, peer: str | None, headers: list[tuple[str, str]]
) -> None:
    """Reading is open; changes are for this machine or the token; browsers are kept out."""
    assert status(judge(method, path, peer, *headers)) == expected


def test_without_a_token_changes_from_elsewhere_say_what_to_set() -> None:
    """No token configured: 403 from other hosts that names the setting, whatever token they show."""
    for headers in ((HOST,), (HOST, ("Authorization", "Bearer x")), (HOST, ("Authorization", "Bearer "))):
        refusal = judge("POST", "/x", FAR, *headers, settings=NO_TOKEN)
        assert refusal is not None
        assert refusal.status == 403
        assert "server.admin.token" in refusal.detail
    assert judge("POST", "/x", LOCAL, HOST, settings=NO_TOKEN) is None
    assert judge("GET", "/x", FAR, HOST, settings=NO_TOKEN) is None


def test_refused_tokens_name_the_scheme() -> None:
    """401 comes with WWW-Authenticate (RFC 9110 section 15.5.2), and never repeats what was sent."""
    for headers in ((HOST,), (HOST, ("Authorization", "Bearer hunter2"))):
        refusal = judge("POST", "/x", FAR, *headers)
        assert refusal is not None
        assert dict(refusal.headers)["WWW-Authenticate"].startswith("Bearer")
        assert "hunter2" not in refusal.detail


def test_the_metrics_path_of_the_configuration_is_exempt() -> None:
    """Scrapers come by whatever name, on /metrics and on the configured path."""
    evil = ("Host", "evil.example")
    assert judge("GET", "/custom-metrics", FAR, evil, settings=NO_TOKEN) is None
    assert status(judge("GET", "/custom-metrics", FAR, evil)) == 421


def test_http_1_0_may_come_without_host() -> None:
    """A probe in HTTP/1.0 without Host passes: browsers always send one."""
    assert judge("GET", "/x", LOCAL, version="1.0") is None
    assert status(judge("POST", "/x", FAR, version="1.0")) == 401


class TestWrongTokens:
    """More than ten wrong tokens a minute from one address: 429, the right one included."""

    wrong = ("Authorization", "Bearer wrong")

    def test_ten_are_answered_then_none_is_looked_at(self) -> None:
        """The eleventh is 429 with Retry-After; a minute after the first they are looked at again."""
        table = WrongTokens()
        for second in range(MAX_WRONG_TOKENS):
            assert status(judge("POST", "/x", FAR, HOST, self.wrong, wrong=table, now=100.0 + second)) == 401
        for header in (self.wrong, GOOD):
            refusal = judge("POST", "/x", FAR, HOST, header, wrong=table, now=110.0)
            assert refusal is not None
            assert (refusal.status, dict(refusal.headers)["Retry-After"]) == (429, "50")
        assert judge("POST", "/x", FAR, HOST, GOOD, wrong=table, now=100.0 + WINDOW) is None

    def test_others_and_requests_without_token_go_on(self) -> None:
        """Another address, and requests that show no token, are not hit."""
        table = WrongTokens()
        for _ in range(20):
            judge("GET", "/x", FAR, HOST, self.wrong, wrong=table)
        assert judge("POST", "/x", "203.0.113.8", HOST, GOOD, wrong=table) is None
        assert judge("GET", "/x", FAR, HOST, wrong=table) is None
        assert judge("GET", "/metrics", FAR, HOST, self.wrong, wrong=table) is None
        assert status(judge("POST", "/x", FAR, HOST, wrong=table)) == 401

    def test_a_network_of_ipv6_counts_as_one_client(self) -> None:
        """An IPv6 client owns its /64: changing the lower half does not help."""
        table = WrongTokens()
        for number in range(MAX_WRONG_TOKENS):
            judge("POST", "/x", f"2001:db8::{number:x}", HOST, self.wrong, wrong=table)
        assert status(judge("POST", "/x", "2001:db8::ffff", HOST, GOOD, wrong=table)) == 429
        assert judge("POST", "/x", "2001:db8:0:1::1", HOST, GOOD, wrong=table) is None

    def test_the_table_is_bounded(self) -> None:
        """However many addresses guess, the table does not grow beyond its size."""
        table = WrongTokens()
        for number in range(MAX_CLIENTS + 100):
            table.note(f"10.0.{number >> 8}.{number & 255}", 0.0)
        assert len(table) == MAX_CLIENTS


@pytest.mark.parametrize(
    ("authority", "name"),
    [("a:1", "a"), ("A.B", "a.b"), ("a.b.", "a.b"), ("[::1]:9", "::1"), ("[::1]", "::1"), ("::1", "::1"), (":9", "")],
)
def test_host_names(authority: str, name: str) -> None:
    """Port, brackets, case and the root's dot do not matter."""
    assert host_name(authority) == name


@pytest.mark.parametrize("peer", ["10.0.0.1", "::2", "fe80::1%eth0", "0.0.0.0", "", None, "localhost", "127.0.0.1.x"])
def test_what_is_not_local(peer: str | None) -> None:
    """Only loopback addresses and Unix sockets are this machine; an unknown peer is not."""
    assert not is_local(peer)


def test_client_keys() -> None:
    """Wrong tokens are counted per IPv4 address, mapped or not, and per IPv6 /64."""
    assert client_key("::ffff:10.1.2.3") == client_key("10.1.2.3") == "10.1.2.3"
    assert client_key("2001:db8::1") == client_key("2001:db8::2%eth0") != client_key("2001:db8:0:1::1")


_names = st.sampled_from(["host", "origin", "authorization", "content-type", "x-forwarded-for", "accept"])
_values = st.one_of(
    st.sampled_from(["127.0.0.1", "evil.example", "Bearer s3cre", "Bearer", "null", "http://127.0.0.1", "[", "a://b"]),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=30),
)


@settings(max_examples=200)
@given(st.lists(st.tuples(_names, _values), max_size=6), st.sampled_from(["POST", "PUT", "DELETE", "X", "post"]))
def test_nothing_but_the_token_lets_a_stranger_change(headers: list[tuple[str, str]], method: str) -> None:
    """Whatever a stranger's head holds, without the token a change is refused, and nothing raises."""
    if not any("s3cret" in value for _, value in headers):
        assert judge(method, "/x", FAR, *headers) is not None
        assert judge(method, "/x", FAR, *headers, settings=NO_TOKEN) is not None
