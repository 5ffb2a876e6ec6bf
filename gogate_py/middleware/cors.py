"""CORS: cross-origin rules of a route, as the Fetch standard has them (section 3.2, "CORS protocol").

Two parts. CorsStage answers preflights, before rate limits by identity and before authentication (a browser sends no
credentials with them). CorsFilter puts the fields on every other answer, the gateway's own included: without them a
page could not even read a 401 or 429.

What is what:

    a preflight is OPTIONS with Origin and Access-Control-Request-Method; every other OPTIONS goes to the backend

    preflight, origin allowed       204, Allow-Origin, -Methods, -Headers, -Credentials, Max-Age
    preflight, origin not allowed   204 without any of these: the browser refuses, and says which origin it missed
    other request, origin allowed   Allow-Origin, -Credentials, Expose-Headers
    other request, not allowed      none of these; the request is served (CORS protects readers, not servers)

- A preflight never reaches a backend, allowed or not. Which methods and fields it asked for does not change the answer:
  the browser gets the route's full lists and names what is missing, and the answer is a constant.
- An origin is compared byte for byte with the list. No patterns, no suffixes; ``null`` is never in the list (any
  sandboxed frame or local file is "null").
- ``*`` is answered with ``*``, to every request and without Vary: such an answer is the same for all. It goes without
  credentials only; together they are void (SECURITY.md T25).
- ``allowHeaders: ["*"]`` answers with the names that were asked for rather than ``*``, which would not cover
  Authorization. It goes without credentials only, as well.
- Every Access-Control-* field of a backend is removed: two sources of these fields are how browsers come to see two
  Allow-Origin values, which they refuse.
- ``Vary: Origin`` is there whenever the answer depends on the origin, also when it has none or a foreign one: a cache
  between would else keep an answer without Allow-Origin for everybody.
- A private-network preflight (Access-Control-Request-Private-Network) gets no permission: the field is not answered.

A route that names its methods must be matched by the method that a preflight asks for, see :func:`requested_method`.
"""

from __future__ import annotations

import re
from typing import Final

from gogate_py.middleware.chain import Answer, Explained, RequestView
from gogate_py.snapshot import Cors
from gogate_py.wire.headers import is_token, list_elements

#: Names that one preflight may ask for where all are allowed; far above what a page sets by hand.
MAX_REQUESTED: Final = 100

_PREFIX: Final = b"access-control-"
_FIRST: Final = b"Aa"
_PREFLIGHT_VARY: Final = (
    b"Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\r\n"
)
# RFC 6454 section 6.2: scheme, host and port as a browser serialises them: lower case, no path.
_origin: Final = re.compile(
    r"([a-z][a-z0-9+.-]*)://(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?"
).fullmatch
_DEFAULT_PORTS: Final = {"http": "80", "https": "443", "ws": "80", "wss": "443"}


def requested_method(request: RequestView) -> bytes:
    """The method that a preflight asks for; b"" when the request is not a preflight.

    The value is the client's: to be compared only, never to be shown.
    """
    if request.method != b"OPTIONS" or request.field(b"origin") is None:
        return b""
    return request.field(b"access-control-request-method") or b""


class _Rules:
    """The fields of one route's answers, made once."""

    __slots__ = ("actual", "any_header", "any_origin", "max_age", "origins", "preflight")

    def __init__(self, cors: Cors) -> None:
        self.any_origin = cors.allow_origins == ("*",) and not cors.allow_credentials
        self.origins = frozenset(
            origin.encode() for origin in cors.allow_origins if origin not in ("*", "null")
        )
        self.any_header = cors.allow_headers == ("*",) and not cors.allow_credentials
        credentials = [(b"Access-Control-Allow-Credentials", b"true")] if cors.allow_credentials else []
        self.actual = list(credentials)
        if cors.expose_headers:
            self.actual.append((b"Access-Control-Expose-Headers", _joined(cors.expose_headers)))
        self.preflight = list(credentials)
        if cors.allow_methods:
            self.preflight.append((b"Access-Control-Allow-Methods", _joined(cors.allow_methods)))
        if cors.allow_headers and not self.any_header:
            self.preflight.append((b"Access-Control-Allow-Headers", _joined(cors.allow_headers)))
        # Always sent: without it a browser keeps a preflight for 5 s, whatever was configured.
        self.preflight.append((b"Access-Control-Max-Age", b"%d" % int(cors.max_age)))

    def allowed(self, origin: bytes | None) -> bytes:
        """The value of Access-Control-Allow-Origin; b"" when this origin may not read."""
        if self.any_origin:
            return b"*"
        return origin if origin in self.origins and origin is not None else b""


class CorsStage:
    """Answers the preflights of one route; everything else passes."""

    name = "cors"

    __slots__ = ("_lines", "_rules")

    def __init__(self, cors: Cors) -> None:
        self._rules = _Rules(cors)
        self._lines = b"".join(b"%b: %b\r\n" % field for field in self._rules.preflight)

    def __call__(self, request: RequestView) -> Answer | None:
        """204 for a preflight."""
        if request.method != b"OPTIONS" or not requested_method(request):
            return None
        rules = self._rules
        allowed = rules.allowed(request.field(b"origin"))
        if not allowed:
            return Answer(204, _PREFLIGHT_VARY, b"", "preflight")
        lines = b"Access-Control-Allow-Origin: %b\r\n%b" % (allowed, self._lines)
        if rules.any_header:
            names = _requested_names(request.field(b"access-control-request-headers"))
            if names:
                lines += b"Access-Control-Allow-Headers: %b\r\n" % names
        return Answer(204, lines + _PREFLIGHT_VARY, b"", "preflight")

    def explain(self, request: RequestView) -> Explained:
        """The same answer; nothing has to be held back."""
        origin = request.field(b"origin")
        allowed = self._rules.allowed(origin)
        answer = self(request)
        facts = {
            "origin": None if origin is None else origin.decode("latin-1"),
            "allowed": bool(allowed),
            "preflight": answer is not None,
        }
        if answer is not None:
            verdict = "allowed" if allowed else "not allowed: no permission in the answer"
            return Explained(answer, f"a preflight, answered by the gateway; its origin is {verdict}", facts)
        if origin is None:
            return Explained(None, "not a cross-origin request", facts)
        return Explained(None, f"the origin may {'' if allowed else 'not '}read the answer", facts)


class CorsFilter:
    """Puts the fields on the answers of one route that are not preflights."""

    __slots__ = ("_rules",)

    def __init__(self, cors: Cors) -> None:
        self._rules = _Rules(cors)

    def __call__(self, request: RequestView, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        """Replace every Access-Control-* field, and say that the answer depends on the origin."""
        if request.method == b"OPTIONS" and requested_method(request):
            # Answered by the stage, or refused before it: the fields are right, or there are none.
            return
        rules = self._rules
        for name, _ in fields:
            # The first letter alone settles most names, without making a copy.
            if name[0] in _FIRST and name[:15].lower() == _PREFIX:
                fields[:] = [field for field in fields if field[0][:15].lower() != _PREFIX]
                break
        if rules.any_origin:
            fields.append((b"Access-Control-Allow-Origin", b"*"))
            fields += rules.actual
            return
        origin = request.field(b"origin")
        if origin is not None and origin in rules.origins:
            fields.append((b"Access-Control-Allow-Origin", origin))
            fields += rules.actual
        vary_by(fields, b"Origin")


def vary_by(fields: list[tuple[bytes, bytes]], name: bytes) -> None:
    """Add ``name`` to the Vary field of an answer, unless it or ``*`` is there; several Vary lines are one list."""
    last = -1
    for index, (field, value) in enumerate(fields):
        if len(field) == 4 and field.lower() == b"vary":
            elements = list_elements([value])
            if b"*" in elements or name.lower() in elements:
                return
            last = index
    if last < 0:
        fields.append((b"Vary", name))
    else:
        field, value = fields[last]
        fields[last] = (field, b"%b, %b" % (value, name) if value else name)


def valid_origin(text: str) -> str:
    """What is wrong with a configured origin, in words; "" when a browser can send exactly this (or it is ``*``)."""
    if text == "*":
        return ""
    if text == "null":
        return "the origin null is never allowed: every sandboxed frame and local file has it"
    if "*" in text:
        return "an origin is compared whole, patterns are not possible; list each origin, or only *"
    if not text.isascii():
        return "an origin's host name is written in its ASCII form (xn--…), as browsers send it"
    if text.endswith("/") and _origin(text.rstrip("/").lower()):
        return f"an origin has no path; did you mean {text.rstrip('/').lower()}?"
    found = _origin(text)
    if found is None:
        if _origin(text.lower()):
            return f"browsers send origins in lower case; did you mean {text.lower()}?"
        return "not an origin; write scheme://host or scheme://host:port, as in https://app.example.com"
    scheme, port = found.groups()
    if port is not None and _DEFAULT_PORTS.get(scheme) == port:
        return f"browsers leave the default port out; did you mean {text.rpartition(':')[0]}?"
    return ""


def valid_cors(cors: Cors) -> str:
    """What is wrong with a route's rules as a whole, in words; "" for nothing."""
    for values, key in (
        (cors.allow_origins, "allowOrigins"), (cors.allow_methods, "allowMethods"),
        (cors.allow_headers, "allowHeaders"), (cors.expose_headers, "exposeHeaders"),
    ):  # fmt: skip
        if "*" in values and len(values) > 1:
            return f"* in {key} stands alone or not at all"
        if "*" in values and cors.allow_credentials:
            return f"* in {key} does not go together with allowCredentials: browsers would take it as a name"
    if not cors.allow_origins:
        return "allowOrigins is empty: no origin could read an answer"
    return ""


def _joined(names: tuple[str, ...]) -> bytes:
    return ", ".join(names).encode()


def _requested_names(value: bytes | None) -> bytes:
    """The field names a preflight asks for, as a value for Access-Control-Allow-Headers; b"" when one is no name."""
    names = list_elements([value]) if value else []
    if len(names) > MAX_REQUESTED or not all(is_token(name) for name in names):
        return b""
    return b", ".join(names)
