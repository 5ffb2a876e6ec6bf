"""Request keys: the one grammar for "the same client as before" — of limits, consistent hashing and sticky splits.

    spec            value                                                  none
    global          one for all
    ip              the client's address: all of IPv4, the /64 of IPv6
    user            who was authenticated (of a token: its sub)            nobody was
    api_key         the name of the API key that was checked               nobody was authenticated
    basic:username  the user name whose password was checked               nobody was authenticated
    jwt:CLAIM       a claim of a verified token: text, number or boolean   no token, no such claim, a list or an object
    header:NAME     a header field; several lines joined with ", "         absent or empty
    query:NAME      a query parameter, decoded                             absent, empty, or there twice
    cookie:NAME     a cookie (RFC 6265 section 4.1.1)                      absent, empty, malformed, or with two values
    form:NAME       of a form in the body (x-www-form-urlencoded)          no form, or as query
    path            the canonical path
    host            Host in lower case, without port and trailing dot      no Host

A key is a list of specs: the first that yields a value is the key. Identity (user, api_key, basic, jwt) comes from what
an authentication stage has verified and never from the header itself, so that nobody is counted as somebody else
(SECURITY.md T26). The others are whatever the client sends, but for ip and path: they tell honest clients apart and
stop nobody who changes them with every request.

A query or form that servers would read in different ways raises WireError (SECURITY.md T12): no key is a guess.
Values longer than MAX_VALUE are replaced by a digest. Values are for hashing: they never go into logs or answers.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

from gogate_py.errors import Failure, WireError
from gogate_py.middleware.chain import RequestView
from gogate_py.policy.token_check import plain_text
from gogate_py.wire.query import parameter

#: Bytes of a form that is read for its key (a larger one is 413).
MAX_FORM: Final = 65536
#: Bytes of a value that are kept as they are.
MAX_VALUE: Final = 256

Source = Callable[[RequestView], bytes | None]

#: Kinds of keys without a name, and with one behind a colon.
PLAIN_KEYS: Final = ("global", "ip", "user", "api_key", "path", "host")
NAMED_KEYS: Final = ("header", "query", "cookie", "form", "jwt", "basic")
_IDENTITY: Final = frozenset(("user", "api_key", "basic", "jwt"))

_is_token: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch  # RFC 9110 section 5.6.2
_has_control: Final = re.compile(r"[\x00-\x1f\x7f]").search
# RFC 6265 section 4.1.1: cookie-value. The quotes of a quoted one belong to the value.
_is_cookie_value: Final = re.compile(rb'[!#-+\--:<-\[\]-~]*|"[!#-+\--:<-\[\]-~]*"').fullmatch
_is_form: Final = re.compile(rb"application/x-www-form-urlencoded[ \t]*(?:;.*)?", re.IGNORECASE).fullmatch


class Key:
    """A list of specs, compiled."""

    __slots__ = ("_sources", "needs_form", "needs_identity", "specs")

    def __init__(self, specs: tuple[str, ...]) -> None:
        """Raises ValueError for specs that :func:`valid_key` refuses."""
        for spec in specs:
            if wrong := valid_key(spec):
                raise ValueError(wrong)
        self.specs = specs
        self._sources = tuple((spec, _source(spec)) for spec in specs)
        kinds = [spec.partition(":")[0] for spec in specs]
        #: It can only be told after authentication.
        self.needs_identity = any(kind in _IDENTITY for kind in kinds)
        #: It may have to be told from the body.
        self.needs_form = "form" in kinds

    def __call__(self, request: RequestView) -> tuple[str, bytes] | None:
        """The first spec that yields a value, and the value (1 to MAX_VALUE bytes); None when no spec does.

        Raises WireError for a query or form that cannot be read. 0.2 to 0.4 µs; 0.9 for a header, 1.3 for a form,
        1.6 for a cookie (bench/rate_limit_cost.py).
        """
        for spec, source in self._sources:
            value = source(request)
            if value:
                return (spec, value) if len(value) <= MAX_VALUE else (spec, blake2b(value, digest_size=32).digest())
        return None

    def wants_body(self, request: RequestView) -> bool:
        """Whether the request's form must be read first: a form is there, and no spec before ``form:`` yields a value.
        """
        if not self.needs_form or request.body is not None:
            return False
        kind = request.field(b"content-type")
        if kind is None or not _is_form(kind):
            return False
        for spec, source in self._sources:
            if spec.startswith("form:"):
                return True
            if source(request):
                return False
        return False


@lru_cache(maxsize=1024)
def compile_key(specs: tuple[str, ...]) -> Key:
    """The key of these specs. Raises ValueError for specs that :func:`valid_key` refuses."""
    return Key(specs)


def valid_key(spec: str) -> str:
    """What is wrong with a spec, "" if nothing is (for the configuration)."""
    kind, colon, name = spec.partition(":")
    if kind in PLAIN_KEYS:
        return f'"{kind}" takes no name' if colon else ""
    if kind not in NAMED_KEYS:
        known = ", ".join((*PLAIN_KEYS, *(f"{named}:NAME" for named in NAMED_KEYS[:-1]), "basic:username"))
        return f"is not a key; known are {known}"
    if not name:
        return f'needs a name: "{kind}:NAME"'
    if kind == "basic" and name != "username":
        return 'only "basic:username" is there: a password is no key'
    if kind in ("header", "cookie") and not _is_token(name):
        return f"has a name that no {'header field' if kind == 'header' else 'cookie'} can have"
    if _has_control(name):
        return "has a control character in its name"
    return ""


def cookie_value(header: bytes, name: bytes) -> bytes | None:
    """The value of a cookie in a Cookie field; None when it is absent, malformed, or there with two different values.

    Only the cookie that is asked for must be well-formed: browsers send what servers of the past have set.
    """
    found: bytes | None = None
    for pair in header.split(b";"):
        key, equals, value = pair.strip(b" \t").partition(b"=")
        if key == name and equals:
            if not _is_cookie_value(value) or (found is not None and found != value):
                return None
            found = value
    return found


# Few clients send most of the requests of a moment; 0.9 µs without.
@lru_cache(maxsize=4096)
def address_value(client: str) -> bytes:
    """A client's address as a key: 4 bytes of IPv4 (mapped ones included), 8 of IPv6 (a client has no less than a /64),
    the text of what is no address (a Unix socket's client)."""
    if ":" in client:
        try:
            packed = socket.inet_pton(socket.AF_INET6, client.partition("%")[0])
        except OSError:
            return client.encode("utf-8", "surrogatepass")
        return packed[12:] if packed.startswith(b"\0" * 10 + b"\xff\xff") else packed[:8]
    try:
        return socket.inet_pton(socket.AF_INET, client)
    except OSError:
        return client.encode("utf-8", "surrogatepass")


def _source(spec: str) -> Source:
    """Where the value of a valid spec comes from."""
    kind, _, name = spec.partition(":")
    match kind:
        case "global":
            return lambda request: b"global"
        case "ip":
            return lambda request: address_value(request.client)
        case "user" | "api_key" | "basic":
            return _user
        case "jwt":
            return lambda request: _text(request.claims.get(name))
        case "header":
            field = name.lower().encode()
            return lambda request: request.field(field)
        case "query":
            # Not asked without a query: most requests have none.
            return lambda request: parameter(request.query, name) if request.query else None
        case "cookie":
            return _cookie(name.encode())
        case "form":
            return _form(name)
        case "path":
            return lambda request: request.path
        case _:
            return _host


def _user(request: RequestView) -> bytes | None:
    return request.user.encode("utf-8", "surrogatepass") if request.user else _text(request.claims.get("sub"))


def _text(claim: Any) -> bytes | None:
    text = plain_text(claim)
    # A token may have half a surrogate pair (JSON has), which UTF-8 has not: any bytes do that stay one per value.
    return None if text is None else text.encode("utf-8", "surrogatepass")


def _cookie(name: bytes) -> Source:
    def source(request: RequestView) -> bytes | None:
        header = request.field(b"cookie")
        return None if header is None else cookie_value(header, name)

    return source


def _form(name: str) -> Source:
    def source(request: RequestView) -> bytes | None:
        if not request.body:
            return None
        kind = request.field(b"content-type")
        # Only a leading "?" belongs to a query; in a form it is a part of the first name.
        if kind is None or not _is_form(kind):
            return None
        body = request.body
        try:
            return parameter(b"?" + body if body.startswith(b"?") else body, name)
        except WireError as error:
            raise WireError(Failure.BAD_FORM, error.detail.replace("query", "form")) from None

    return source


def _host(request: RequestView) -> bytes | None:
    host = request.host.lower()
    if host.startswith(b"["):
        return host.partition(b"]")[0]
    return host.partition(b":")[0].rstrip(b".")
