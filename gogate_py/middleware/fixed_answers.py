"""Routes that the gateway answers itself: redirects and fixed responses. Both are the last stage of their route.

A redirect's target comes from configuration, and a request fills in parts of it. No request may choose the host that a
client is sent to (an open redirect), so:

- What decides the host (everything between "//" and the next "/") is literal text, {host} or {hostport}. {host} is the
  validated Host: a page cannot make a browser send a foreign one. Configuration with anything else there is refused.
- A target without a host begins with "/" and never with "//" (which browsers read as a host): leading slashes that a
  value adds are merged.
- Nothing is decoded. Characters that are no part of a URI are percent-encoded, those of values and of literal text.

    to                        request http://a.com:8080/x?y=1      Location
    https://{host}{uri}                                            https://a.com/x?y=1
    /new/{rest}?{query}       (prefix /x)                          /new/?y=1
    /{path}                                                        /x

A request without Host (HTTP/1.0) cannot be answered where the target needs one: 400. ``OPTIONS *`` has no path: 400
where the target needs that. The query is not kept unless {query} or {uri} says so.

HEAD and statuses without a body (204, 304) are the caller's and the status's business: the answer here is the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from gogate_py.errors import Failure
from gogate_py.middleware.chain import Answer, Explained, Refusal, RequestView
from gogate_py.middleware.rewriting import VARIABLES, Captures, Template, split_template, valid_template
from gogate_py.snapshot import FixedResponse, Redirect
from gogate_py.wire.target import is_valid_host

#: RFC 9110 section 15.4: the ones with a Location that is followed. 307 and 308 keep method and body.
REDIRECT_STATUSES: Final = (301, 302, 303, 307, 308)

# RFC 3986: unreserved, reserved and "%" stand for themselves.
_outside_uri: Final = re.compile(rb"[^!#$%&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~]")
_outside_text: Final = re.compile(r"[\x00-\x20\x7f\"<>\\^`|]|%(?![0-9A-Fa-f]{2})").search
_with_host: Final = re.compile(r"(?:(?:https?|\{scheme\}):)?//(.*)", re.DOTALL | re.IGNORECASE).fullmatch
_ends_host: Final = re.compile(r"[/?#]").search
_media_type: Final = re.compile(
    r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*;[ \t]*[ -~]+)?"
).fullmatch
_PATHLESS: Final = frozenset(VARIABLES) - {"path", "uri"}
_NO_HOST: Final = Refusal(Failure.BAD_HOST, "the redirect needs a Host", counted="no_host")
_NO_PATH: Final = Refusal(Failure.BAD_TARGET, "the redirect needs a path", counted="no_path")


def valid_redirect(to: str, names: Iterable[str]) -> str:
    """What is wrong with the target of a redirect whose variables are ``names`` (rewriting.value_names); "" for
    nothing."""
    wrong = valid_template(to, names)
    if wrong:
        return wrong
    if any(_outside_text(literal) for literal, _ in split_template(to)):
        return "a URL cannot have blanks, control characters or \" < > \\ ^ ` |, and % begins an escape as in %20"
    absolute = _with_host(to)
    if absolute is None:
        first, variable = split_template(to)[0]
        if first.startswith("/") or (not first and variable in ("path", "uri")):
            return ""
        return "the target begins with https://, http://, {scheme}:// or /"
    return _valid_authority(absolute[1])


def _valid_authority(text: str) -> str:
    """What is wrong with the host and port at the beginning of ``text``; "" for nothing."""
    sample = ""
    for literal, variable in split_template(text):
        end = _ends_host(literal)
        sample += literal[: end.start()] if end else literal
        if end or variable in ("", "path", "uri"):
            break
        if variable not in ("host", "hostport"):
            return f"{{{variable}}} would let a request choose where the client is sent; before the path, only {{host}}"
        sample += "h" if variable == "host" else "h:1"
    if "@" in sample:
        return "a redirect has no user name or password"
    if not is_valid_host(sample.encode()):
        return "the target has no valid host"
    return ""


class RedirectStage:
    """The redirect of one route."""

    name = "redirect"

    __slots__ = ("_needs_host", "_needs_path", "_relative", "_status", "_template")

    def __init__(self, redirect: Redirect, captures: Captures) -> None:
        """``captures``: rewriting.compile_captures of the route's path."""
        self._template = Template(redirect.to, captures)
        self._status = redirect.status
        self._relative = _with_host(redirect.to) is None
        self._needs_host = not self._template.names.isdisjoint(("host", "hostport"))
        self._needs_path = bool(self._template.names - _PATHLESS)

    def __call__(self, request: RequestView) -> Answer | Refusal:
        """The answer with its Location."""
        if self._needs_host and not request.host:
            return _NO_HOST
        if self._needs_path and not request.path.startswith(b"/"):
            return _NO_PATH
        location = self._template.render(request)
        if _outside_uri.search(location) is not None:
            location = _outside_uri.sub(_escaped, location)
        if self._relative and location.startswith(b"//"):
            location = b"/" + location.lstrip(b"/")
        return Answer(self._status, b"Location: %b\r\n" % location, b"", "redirect")

    def explain(self, request: RequestView) -> Explained:
        """The same; nothing has to be held back."""
        answer = self(request)
        if isinstance(answer, Refusal):
            return Explained(answer, answer.detail, {})
        location = answer.lines[len("Location: ") : -2].decode("ascii")
        return Explained(answer, f"{answer.status} to {location}", {"status": answer.status, "location": location})


class FixedResponseStage:
    """The fixed response of one route."""

    name = "fixed_response"

    __slots__ = ("_answer",)

    def __init__(self, fixed: FixedResponse) -> None:
        no_body = fixed.status in (204, 304)
        lines = b"" if no_body else b"Content-Type: %b\r\n" % fixed.content_type.encode("ascii")
        self._answer = Answer(fixed.status, lines, b"" if no_body else fixed.body, "fixed_response")

    def __call__(self, request: RequestView) -> Answer:
        """The answer, made once."""
        return self._answer

    def explain(self, request: RequestView) -> Explained:
        """The same; nothing has to be held back."""
        status, size = self._answer.status, len(self._answer.body)
        return Explained(self._answer, f"{status} with {size} bytes", {"status": status, "bytes": size})


def valid_fixed(status: int, body: bytes, content_type: str) -> str:
    """What is wrong with a fixed response, in words; "" for nothing."""
    if not 200 <= status <= 599:
        return "a status is 200 to 599"
    if status in (204, 304) and body:
        return f"an answer with status {status} has no body"
    if status not in (204, 304) and not _media_type(content_type):
        return "contentType is not a media type; write it as text/plain; charset=utf-8"
    return ""


def _escaped(found: re.Match[bytes]) -> bytes:
    return b"%%%02X" % found[0][0]
