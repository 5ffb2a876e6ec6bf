"""Rewriting: templates with ``{...}`` variables, the path towards the backend, and which fields may be changed.

Variables of field values and redirects:

    {host}        Host without its port, in lower case (validated: SECURITY.md T10)
    {hostport}    Host as received
    {path}        the canonical path, before it is rewritten
    {query}       the query without its "?"
    {uri}         path and query
    {scheme}      http or https, as the client used it
    {method}  {client_ip}  {request_id}
    {name}        what the parameter {name} of the route's path stands for
    {rest}        what a trailing /* or the prefix leaves over, without leading slash

A path template knows parameters, {rest} and {path} only. A literal brace is written {{ or }}. A parameter that is named
like a variable does not hide it: else a path could choose the {host} of a redirect.

Values of the request stay escaped, just as they were received and checked: visible ASCII, without CR, LF or blanks. So
no value can end a line or add a field, and none is decoded twice.

The path: first the prefix is cut off (by segment: /api from /api and /api/x, never from /apix), then the template is
filled in; {path} is what the cut left, parameters and {rest} are those of the path as it was matched. Repeated slashes
are merged. What then is not canonical would mean something else to a backend than it says, and is refused (400): a
request cannot leave the fixed beginning of a template.

    strip /api           /api → /     /api/ → /     /api/x/ → /x/     /apix → /apix (does not match)
    /v1/{rest}           (prefix /api) /api/x → /v1/x      /api → /v1/
    /u/{id}/files        (path /users/{id}) /users/7 → /u/7/files
    /v1/.{rest}          /api → refused (/v1/. would be /v1/)

Must not know of connections and configuration files; field edits are applied by field_edits.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from gogate_py.errors import Failure, WireError
from gogate_py.middleware.chain import RequestView
from gogate_py.policy.router import compile_captures, is_parameter
from gogate_py.snapshot import HttpRoute
from gogate_py.wire.headers import HOP_BY_HOP, MAX_NAME, REQUEST_ID, dashed, is_forwarding_name, is_token
from gogate_py.wire.target import PATH_CHARACTERS, canonical_path

#: A path → its parameters and "rest"; policy.router.compile_captures makes them.
Captures = Callable[[bytes], dict[str, bytes]]

_part: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_slashes: Final = re.compile(rb"//+")
_path_text: Final = re.compile(rb"[%%%b]*" % PATH_CHARACTERS).fullmatch


def _host(request: RequestView) -> bytes:
    host = request.host
    colon = host.rfind(b":")
    # A colon inside of brackets belongs to an IPv6 address.
    return (host[:colon] if colon > host.rfind(b"]") else host).lower()


def _request_id(request: RequestView) -> bytes:
    # A request that is only explained has none.
    found = getattr(request, "request_id", b"")
    return found if isinstance(found, bytes) else b""


_VALUES: Final[dict[str, Callable[[RequestView], bytes]]] = {
    "host": _host,
    "hostport": lambda request: request.host,
    "path": lambda request: request.path,
    "query": lambda request: request.query[1:],
    "uri": lambda request: request.path + request.query,
    "scheme": lambda request: request.scheme,
    "method": lambda request: request.method,
    "client_ip": lambda request: request.client.encode("ascii", "replace"),
    "request_id": _request_id,
}

#: What field values and redirects may hold besides the parameters of the path.
VARIABLES: Final = tuple(_VALUES)


def parameter_names(path: str) -> tuple[str, ...]:
    """The names that a route's path gives to templates: its parameters, and "rest" where something is left over (by a
    trailing /*, or by a prefix, which is what a route without ``path`` has)."""
    names = [segment.strip("{}").lstrip(":") for segment in path.split("/") if is_parameter(segment)]
    if not path or path.endswith("/*"):
        names.append("rest")
    return tuple(names)


def value_names(path: str) -> tuple[str, ...]:
    """Every name that field values and redirects of a route with this path may hold."""
    return (*VARIABLES, *parameter_names(path))


def path_names(path: str) -> tuple[str, ...]:
    """Every name that a path template of a route with this path may hold."""
    return ("path", *parameter_names(path))


def split_template(text: str) -> list[tuple[str, str]]:
    """A valid template as (literal text, name of the variable behind it); the last name is ""."""
    parts: list[tuple[str, str]] = []
    literal = ""
    at = 0
    for found in _part.finditer(text):
        literal += text[at : found.start()]
        at = found.end()
        if found[1] is None:
            literal += found[0][0]
        else:
            parts.append((literal, found[1]))
            literal = ""
    parts.append((literal + text[at:], ""))
    return parts


def valid_template(text: str, names: Iterable[str]) -> str:
    """What is wrong with a template whose variables are ``names``, in words; "" for nothing."""
    known = tuple(dict.fromkeys(names))
    for found in _part.finditer(text):
        name = found[1]
        if name is None:
            if len(found[0]) == 1:
                return f"a {found[0]} stands alone; a literal brace is written {{{{ or }}}}"
        elif name not in known:
            # Only the control plane comes here; workers do without the module.
            from difflib import get_close_matches

            near = get_close_matches(name, known, n=1)
            meant = f" (did you mean {{{near[0]}}}?)" if near else ""
            return f"{{{name}}} is not known here{meant}; known: " + ", ".join(f"{{{word}}}" for word in known)
    return ""


class Template:
    """One value with variables, compiled once; ``constant`` is the whole value where there are none."""

    __slots__ = ("_captures", "_parts", "constant", "names")

    def __init__(self, text: str, captures: Captures | None = None) -> None:
        """``text`` must be valid (see :func:`valid_template`); ``captures`` those of the route's path."""
        parts = split_template(text)
        self.names = frozenset(name for _, name in parts if name)
        self.constant = None if self.names else parts[0][0].encode()
        self._captures = captures if self.names - _VALUES.keys() else None
        self._parts = [(literal.encode(), _VALUES.get(name), name) for literal, name in parts]

    def render(self, request: RequestView) -> bytes:
        """The value for one request."""
        if self.constant is not None:
            return self.constant
        path = request.path
        # OPTIONS * has no path, so no parameters.
        found = self._captures(path) if self._captures is not None and path.startswith(b"/") else {}
        out = b""
        for literal, value, name in self._parts:
            out += literal
            if value is not None:
                out += value(request)
            elif name:
                out += found.get(name, b"")
        return out


def compile_rewrite(route: HttpRoute) -> Callable[[bytes], bytes] | None:
    """What makes a route's canonical path into the one that its backend gets; None when it is the same.

    The result raises WireError(BAD_TARGET) for a path that would not be canonical. ``*`` stays what it is.
    """
    prefix = route.strip_prefix.rstrip("/").encode()
    if not prefix and not route.rewrite_path:
        return None
    parts = [(literal.encode(), name) for literal, name in split_template(route.rewrite_path)]
    needs_captures = any(name not in ("", "path") for _, name in parts)
    captures = compile_captures(route.path, route.path_prefix) if needs_captures else None
    below = prefix + b"/"
    use_template = bool(route.rewrite_path)

    def rewrite(path: bytes) -> bytes:
        if not path.startswith(b"/"):
            return path  # OPTIONS * asks about the server, not about a path
        left = path
        if prefix and (path.startswith(below) or path == prefix):
            left = path[len(prefix) :] or b"/"
        if use_template:
            found = {**captures(path), "path": left} if captures is not None else {"path": left}
            left = b"".join([literal + found.get(name, b"") for literal, name in parts])
            if b"//" in left:
                left = _slashes.sub(b"/", left)
        # %2F can only be in it where pathPolicy let it in, or the configuration says so.
        if not left.startswith(b"/") or canonical_path(left, escaped_slashes=True) != left:
            raise WireError(Failure.BAD_TARGET, "the rewritten path is not canonical")
        return left

    return rewrite


def valid_rewrite(text: str, names: Iterable[str]) -> str:
    """What is wrong with a path template whose variables are ``names`` (see :func:`path_names`); "" for nothing."""
    wrong = valid_template(text, names)
    if wrong:
        return wrong
    parts = split_template(text)
    if not (parts[0][0].startswith("/") or (not parts[0][0] and parts[0][1] == "path")):
        return "a path begins with / or with {path}"
    if not all(_path_text(literal.encode()) for literal, _ in parts):
        return "a path cannot have this character; what is not ASCII, and ? # and blanks, is written as %XX"
    # Values are whole segments: what is canonical with a harmless one is at fault only where a value makes it so.
    sample = _slashes.sub(b"/", b"".join((literal + ("/x" if name == "path" else "x" if name else "")).encode()
                                         for literal, name in parts))  # fmt: skip
    try:
        canonical = canonical_path(sample)
    except WireError as error:
        return error.detail
    if canonical != sample:
        return "a path is written in its canonical form: without dot segments and needless escapes"
    return ""


# Have one value: a second line would be read differently by different servers (RFC 9110 section 5.3).
_SINGLE: Final = frozenset(
    (b"age", b"authorization", b"content-location", b"content-type", b"cookie", b"date", b"etag", b"expires", b"from",
     b"host", b"if-modified-since", b"if-unmodified-since", b"last-modified", b"location", b"max-forwards",
     b"proxy-authorization", b"range", b"referer", b"retry-after", b"server", b"user-agent")
)  # fmt: skip


def editable_name(name: str, response: bool, change: str = "set") -> str:
    """Why a header field may not be changed by configuration, in words; "" when it may.

    ``response``: of an answer, otherwise of the request to the backend. ``change`` is set, add or remove. Host may be
    set (it becomes the Host that the backend sees), not added or removed.
    """
    raw = name.encode()
    if not is_token(raw) or len(raw) > MAX_NAME:
        return "not a field name; use letters, digits and hyphens"
    lower = raw.lower()
    # A CGI-like backend reads X_Forwarded_For as the real one (SECURITY.md T5).
    read_as = dashed(lower)
    if read_as in HOP_BY_HOP or read_as in (b"content-length", b"expect"):
        return f"{name} says how this connection or the body is to be read, gogate writes it itself"
    if read_as == REQUEST_ID:
        return f"{name} is set by gogate on every request and answer"
    if not response:
        if is_forwarding_name(read_as):
            return f"{name} is set by gogate (see trustedProxies)"
        if read_as == b"host" and (lower != b"host" or change != "set"):
            return "Host can only be set: every request has exactly one"
    if change == "add" and lower in _SINGLE:
        return f"{name} has one value only; use set"
    return ""
