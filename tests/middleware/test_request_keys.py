"""Request keys: what each spec yields, and what it must not be fooled by (SECURITY.md T11, T12, T26)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gogate_py.errors import Failure, WireError
from gogate_py.middleware.request_keys import MAX_VALUE, address_value, compile_key, cookie_value, valid_key
from gogate_py.middleware.request_view import field_of_list

FORM = b"application/x-www-form-urlencoded"


class Request:
    """A request as stages see it."""

    method = b"POST"
    scheme = b"http"
    request_id = b"1"

    def __init__(
        self,
        *fields: tuple[bytes, bytes],
        path: bytes = b"/a",
        query: bytes = b"",
        host: bytes = b"a.example",
        client: str = "192.0.2.1",
        body: bytes | None = None,
        user: str = "",
        claims: Mapping[str, Any] | None = None,
    ) -> None:
        self.fields = fields
        self.path = path
        self.query = query
        self.host = host
        self.client = client
        self.body = body
        self.user = user
        self.claims = claims or {}

    def field(self, name: bytes) -> bytes | None:
        """A header field's value."""
        return field_of_list(self.fields, name)

    def forward(self, name: bytes, value: bytes) -> None:
        """Keys change nothing."""
        raise AssertionError(name)

    def withhold(self, name: bytes) -> None:
        """Keys change nothing."""
        raise AssertionError(name)


def value(spec: str, request: Request) -> bytes | None:
    """What one spec yields."""
    found = compile_key((spec,))(request)
    if found is None:
        return None
    assert found[0] == spec
    return found[1]


@pytest.mark.parametrize(
    ("spec", "request_", "expected"),
    [
        ("global", Request(), b"global"),
        ("ip", Request(client="192.0.2.1"), bytes((192, 0, 2, 1))),
        ("ip", Request(client="unix"), b"unix"),
        ("user", Request(user="alice"), b"alice"),
        ("user", Request(claims={"sub": "bob"}), b"bob"),
        ("user", Request((b"Authorization", b"Basic YWxpY2U6eA==")), None),
        ("api_key", Request(user="mobile-app"), b"mobile-app"),
        ("api_key", Request((b"X-API-Key", b"secret")), None),
        ("basic:username", Request(user="carol"), b"carol"),
        ("basic:username", Request((b"Authorization", b"Basic YWxpY2U6eA==")), None),
        ("jwt:tenant", Request(claims={"tenant": "acme"}), b"acme"),
        ("jwt:tenant", Request(claims={"tenant": 7}), b"7"),
        ("jwt:tenant", Request(claims={"tenant": True}), b"true"),
        ("jwt:tenant", Request(claims={"tenant": ["acme"]}), None),
        ("jwt:tenant", Request(claims={"tenant": {"id": 1}}), None),
        ("jwt:tenant", Request(claims={"tenant": None}), None),
        ("jwt:tenant", Request(claims={"tenant": ""}), None),
        ("jwt:tenant", Request(claims={"tenant": "\ud800"}), b"\xed\xa0\x80"),
        ("jwt:tenant", Request((b"Authorization", b"Bearer eyJ0ZW5hbnQiOiJhIn0")), None),
        ("jwt:https://acme.example/id", Request(claims={"https://acme.example/id": "x"}), b"x"),
        ("header:X-Tenant", Request((b"x-tenant", b"acme")), b"acme"),
        ("header:X-Tenant", Request((b"X-Tenant", b"a"), (b"X-TENANT", b"b")), b"a, b"),
        ("header:X-Tenant", Request((b"X-Tenant", b"")), None),
        ("header:X-Tenant", Request(), None),
        ("query:tenant", Request(query=b"?a=1&tenant=ac%6De"), b"acme"),
        ("query:tenant", Request(query=b"?tenant=a&tenant=b"), None),
        ("query:tenant", Request(query=b"?tenant="), None),
        ("query:tenant", Request(query=b"?TENANT=a"), None),
        ("cookie:sid", Request((b"Cookie", b"a=b; sid=12; c=d")), b"12"),
        ("cookie:sid", Request((b"Cookie", b"a=b")), None),
        ("cookie:sid", Request(), None),
        ("form:user", Request((b"Content-Type", FORM), body=b"x=1&user=al+ice"), b"al ice"),
        ("form:user", Request((b"Content-Type", FORM + b"; charset=utf-8"), body=b"user=a"), b"a"),
        ("form:user", Request((b"Content-Type", FORM.upper()), body=b"user=a"), b"a"),
        ("form:?user", Request((b"Content-Type", FORM), body=b"?user=a"), b"a"),
        ("form:user", Request((b"Content-Type", FORM), body=b"?user=a"), None),
        ("form:user", Request((b"Content-Type", FORM), body=b"user=a&user=b"), None),
        ("form:user", Request((b"Content-Type", b"application/json"), body=b"user=a"), None),
        ("form:user", Request((b"Content-Type", FORM + b"x"), body=b"user=a"), None),
        ("form:user", Request(body=b"user=a"), None),
        ("form:user", Request((b"Content-Type", FORM), body=b""), None),
        ("path", Request(path=b"/items/1"), b"/items/1"),
        ("host", Request(host=b"Shop.Example.COM.:8080"), b"shop.example.com"),
        ("host", Request(host=b"[2001:DB8::1]:80"), b"[2001:db8::1"),
        ("host", Request(host=b""), None),
    ],
)
def test_what_a_spec_yields(spec: str, request_: Request, expected: bytes | None) -> None:
    """The table at the head of request_keys: verified identity, canonical forms, and no value rather than a guess."""
    assert value(spec, request_) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"sid=1", b"1"),
        (b"a=2;sid=1", b"1"),
        (b"a=2;  sid=1\t", b"1"),
        (b"sid=1; sid=1", b"1"),
        (b"sid=1; sid=2", None),
        (b"sid=1, sid=2", None),
        (b"a=1, sid=2", None),
        (b"sid=1; a, sid=2", b"1"),
        (b'sid="1"', b'"1"'),
        (b'sid="1', None),
        (b"sid=1 2", None),
        (b"sid=a\\b", None),
        (b"sid=\xe4", None),
        (b"sid=1=2", b"1=2"),
        (b"sid", None),
        (b"SID=1", None),
        (b"xsid=1", None),
        (b"sid =1", None),
        (b"other=caf\xe9 {x}; sid=1", b"1"),
        (b"", None),
    ],
)
def test_cookies(header: bytes, expected: bytes | None) -> None:
    """One well-formed value of a name, or none: with two values, servers differ in which one counts."""
    assert cookie_value(header, b"sid") == expected


@given(st.binary(max_size=60))
def test_a_cookie_is_never_more_than_a_cookie(header: bytes) -> None:
    """Whatever a Cookie field holds, a value has no separator, blank or control character."""
    found = cookie_value(header, b"a")
    assert found is None or not set(found) & set(b"; ,\t\r\n\0\\")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:DB8:0::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("unix", "192.0.2.1", False),
        ("what:is:this", "unix", False),
    ],
)
def test_what_a_client_is(one: str, other: str, same: bool) -> None:
    """An IPv4 address however it is written, an IPv6 /64; what is no address is its own text."""
    assert (address_value(one) == address_value(other)) is same
    assert address_value(one)


def test_the_first_spec_with_a_value_counts() -> None:
    """A list of specs is tried in order; none is no key."""
    key = compile_key(("jwt:sub", "header:X-API-Key", "ip"))
    assert key.specs == ("jwt:sub", "header:X-API-Key", "ip")
    assert key(Request((b"X-API-Key", b"k"), claims={"sub": "alice"})) == ("jwt:sub", b"alice")
    assert key(Request((b"X-API-Key", b"k"))) == ("header:X-API-Key", b"k")
    assert key(Request()) == ("ip", bytes((192, 0, 2, 1)))
    assert compile_key(("jwt:sub", "query:a"))(Request()) is None


@pytest.mark.parametrize("query", [b"?a=%zz", b"?a=1;b=2", b"?a=%00", b"?" + b"a&" * 1001])
def test_a_query_that_servers_read_differently_is_refused(query: bytes) -> None:
    """SECURITY.md T12: no key is guessed from it, whatever comes after in the list."""
    with pytest.raises(WireError) as error:
        compile_key(("query:a", "ip"))(Request(query=query))
    assert error.value.failure is Failure.BAD_QUERY


def test_a_form_that_servers_read_differently_is_refused() -> None:
    """The same for a form, which is a form's failure; and what stands in it is not repeated."""
    with pytest.raises(WireError) as error:
        compile_key(("form:a",))(Request((b"Content-Type", FORM), body=b"a=hidden;b=2"))
    assert error.value.failure is Failure.BAD_FORM
    assert "form" in error.value.detail
    assert "hidden" not in error.value.detail


def test_long_values_are_cut_to_a_digest() -> None:
    """Two long values are two keys, however long their common beginning; and none of them is kept."""
    values = {value("header:X", Request((b"X", b"a" * 9000 + last))) for last in (b"1", b"2")}
    assert len(values) == 2
    assert all(found is not None and len(found) == 32 for found in values)
    assert value("header:X", Request((b"X", b"a" * MAX_VALUE))) == b"a" * MAX_VALUE


@pytest.mark.parametrize(
    ("specs", "request_", "wanted"),
    [
        (("form:a",), Request((b"Content-Type", FORM)), True),
        (("form:a",), Request((b"Content-Type", FORM), body=b""), False),
        (("form:a",), Request((b"Content-Type", b"multipart/form-data")), False),
        (("form:a",), Request(), False),
        (("header:X", "form:a"), Request((b"Content-Type", FORM)), True),
        (("header:X", "form:a"), Request((b"Content-Type", FORM), (b"X", b"1")), False),
        (("ip", "form:a"), Request((b"Content-Type", FORM)), False),
        (("header:X",), Request((b"Content-Type", FORM)), False),
    ],
)
def test_when_the_body_is_wanted(specs: tuple[str, ...], request_: Request, wanted: bool) -> None:
    """Only a form is read, only when no earlier spec yields a value, and only once."""
    assert compile_key(specs).wants_body(request_) is wanted


@pytest.mark.parametrize(
    ("specs", "identity", "form"),
    [
        (("global",), False, False),
        (("ip", "header:Authorization"), False, False),
        (("header:X", "user"), True, False),
        (("api_key",), True, False),
        (("basic:username", "form:a"), True, True),
        (("jwt:sub",), True, False),
    ],
)
def test_what_a_key_needs(specs: tuple[str, ...], identity: bool, form: bool) -> None:
    """A key with any identity in it waits for authentication, one with a form may wait for the body."""
    key = compile_key(specs)
    assert (key.needs_identity, key.needs_form) == (identity, form)


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        ("global", ""), ("ip", ""), ("user", ""), ("api_key", ""), ("path", ""), ("host", ""),
        ("header:X-Tenant", ""), ("query:a b", ""), ("cookie:sid", ""), ("form:user", ""), ("jwt:a:b", ""),
        ("basic:username", ""),
        ("", "is not a key"), ("IP", "is not a key"), ("ips", "is not a key"), ("session:x", "is not a key"),
        ("ip:1", "takes no name"), ("ip:", "takes no name"), ("header", "needs a name"), ("jwt:", "needs a name"),
        ("basic:password", "only"), ("header:X Y", "header field"), ("header:Ä", "header field"),
        ("cookie:a=b", "cookie"), ("query:a\n", "control"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_spec(spec: str, wrong: str) -> None:
    """valid_key says why in words, and compile_key takes nothing that it refuses."""
    assert (valid_key(spec) == "") if not wrong else (wrong in valid_key(spec))
    if wrong:
        with pytest.raises(ValueError, match=re.escape(valid_key(spec))):
            compile_key((spec,))
