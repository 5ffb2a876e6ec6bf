"""Kinds of values that name something: addresses, hosts, networks, methods, paths, statuses.

Pure, like values.py. Whether a name resolves is never asked here.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final

import attrs

from gogate_py import addresses
from gogate_py.config.values import BadValue, Choice, Text, closest, quote
from gogate_py.policy.balancers import BALANCERS
from gogate_py.policy.router import is_parameter

#: Methods that may be let through: those the HTTP parser knows, without CONNECT (501), TRACE (405), PRI and SOURCE.
METHODS: Final = (
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "ACL", "BIND", "CHECKOUT", "COPY", "LINK", "LOCK",
    "M-SEARCH", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MOVE", "NOTIFY", "PROPFIND", "PROPPATCH", "PURGE",
    "REBIND", "REPORT", "SEARCH", "SUBSCRIBE", "UNBIND", "UNLINK", "UNLOCK", "UNSUBSCRIBE")

#: A balancer by name, in the spellings of other programs too.
BALANCER: Final = Choice(
    tuple(BALANCERS),
    aliases={
        "rr": "round_robin",
        "weighted": "weighted_round_robin",
        "weighted_rr": "weighted_round_robin",
        "wrr": "weighted_round_robin",
        "least_conn": "least_connections",
        "least_conns": "least_connections",
        "leastconn": "least_connections",
        "power_of_two": "p2c",
        "power_of_two_choices": "p2c",
        "peak_ewma": "ewma",
        "least_time": "ewma",
        "source": "ip_hash",
        "client_ip_hash": "ip_hash",
        "ring_hash": "consistent_hash",
        "hash": "consistent_hash",
    },
)
#: The target of a probe.
REQUEST_PATH: Final = Text(r"/[!-~]*", "a path that begins with /, without spaces")

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)\Z")
_STATUS_RANGE: Final = re.compile(r"([1-5][0-9]{2})(?: ?- ?([1-5][0-9]{2}))?\Z")
# A path is compared in its canonical form (SECURITY.md T11): what that form cannot contain could never match.
_SEGMENT: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()+,;=:@{}-]|%[0-9A-F]{2})*\Z")
_ESCAPED_UNRESERVED: Final = re.compile(r"%(?:2D|2E|3[0-9]|4[1-9A-F]|5[0-9A]|5F|6[1-9A-F]|7[0-9A]|7E)")


@attrs.frozen
class _Named:
    """What all kinds of this module share: no unit, and shown as text."""

    @property
    def unit(self) -> str:
        return ""

    def show(self, value: Any) -> str:
        return quote(value)


class Name(_Named):
    """The name of a pool or route: it becomes a label in metrics and a part of paths in the admin API."""

    def parse(self, text: str, quoted: bool) -> str:
        if not _NAME.match(text):
            raise BadValue(f"{text!r} is not a name; use A-Z a-z 0-9 . _ - (63 at most, a letter or digit first)")
        return text


class ListenAddress(_Named):
    """Where a listener binds: ":8080", "[::1]:8080", "unix:/path"; port 0 takes any free one; "" is none."""

    def parse(self, text: str, quoted: bool) -> str:
        return _address(text, need_host=False) if text else ""


class BackendAddress(_Named):
    """Where a backend is: host:port, or unix:/path. ``http://host:port`` with nothing behind it means the same;
    ``https://host:port`` keeps its scheme until the file is read (backend_tls.py)."""

    def parse(self, text: str, quoted: bool) -> str:
        scheme, separator, rest = text.partition("://")
        scheme = scheme.lower()
        if not separator or scheme not in ("http", "https"):
            return _address(text, need_host=True)
        rest = rest.removesuffix("/")
        if "/" in rest or "?" in rest or "@" in rest:
            raise BadValue("a backend is host:port, without user, path or query")
        if not re.search(r":[0-9]+\Z", rest):
            rest += ":443" if scheme == "https" else ":80"
        address = _address(rest, need_host=True)
        return f"https://{address}" if scheme == "https" else address


def _address(text: str, *, need_host: bool) -> str:
    try:
        return str(addresses.parse(text, need_host=need_host, allow_port_zero=not need_host))
    except ValueError as error:
        bare_port = not need_host and re.fullmatch(r"[0-9]{1,5}", text)
        raise BadValue(str(error), suggestion=f'":{text}"' if bare_port else "") from None


class Cidr(_Named):
    """A network in CIDR notation; a single address is the network of itself."""

    def parse(self, text: str, quoted: bool) -> str:
        try:
            return str(ipaddress.ip_network(text))
        except ValueError:
            pass
        try:
            meant = str(ipaddress.ip_network(text, strict=False))
        except ValueError:
            raise BadValue(f"{text!r} is not a network; write it as 10.0.0.0/8 or fc00::/7") from None
        raise BadValue(f"{text!r} has bits set beyond its prefix length", suggestion=meant)


class Method(_Named):
    """An HTTP method that may be let through."""

    def parse(self, text: str, quoted: bool) -> str:
        if text in METHODS:
            return text
        if text.upper() in ("CONNECT", "TRACE"):
            raise BadValue(f"{text.upper()} is never let through")
        meant = text.upper() if text.upper() in METHODS else closest(text, METHODS)
        raise BadValue(f"{text!r} is not a method that can be let through", allowed=METHODS, suggestion=meant)


# As wire.headers.NOT_TRAILERS; the data plane refuses them on its own.
_NOT_TRAILERS: Final = frozenset((
    "authorization", "cache-control", "connection", "content-encoding", "content-length", "content-range",
    "content-type", "cookie", "expect", "forwarded", "host", "keep-alive", "location", "proxy-authorization",
    "proxy-connection", "range", "set-cookie", "te", "trailer", "transfer-encoding", "upgrade", "www-authenticate",
    "x-real-ip", "x-request-id"))
_FIELD_NAME = re.compile(r"[A-Za-z0-9-]{1,256}\Z")


@attrs.frozen
class FieldName(_Named):
    """The name of an HTTP field; ``trailer``: of one that may stand behind a body; ``optional``: "" is none."""

    trailer: bool = False
    optional: bool = False

    def parse(self, text: str, quoted: bool) -> str:
        if not text and self.optional:
            return text
        if _FIELD_NAME.match(text) is None:
            raise BadValue(f"{text!r} is not a field name of letters, digits and hyphens")
        if self.trailer and (text.lower() in _NOT_TRAILERS or text.lower().startswith("x-forwarded-")):
            raise BadValue(f"{text} frames, routes or authenticates a message: it is never passed on as a trailer")
        return text


class HostPattern(_Named):
    """A host that a route takes: exact, or ``*.`` and a domain for every name below it. Lower case, no port."""

    def parse(self, text: str, quoted: bool) -> str:
        host = text.lower()
        if not host.isascii():
            raise BadValue("write an international name in its xn-- form, as it is in the request")
        if addresses.is_ip(host) or (host.startswith("[") and host.endswith("]") and addresses.is_ip(host[1:-1])):
            return f"[{host}]" if ":" in host and not host.startswith("[") else host
        if ":" in host:
            raise BadValue("a route's host has no port", suggestion=host.partition(":")[0])
        name = host.removeprefix("*.")
        if "*" in name:
            raise BadValue("a * can only stand for whole labels in front, as in *.example.com")
        if name and (len(name) > 253 or not all(_LABEL.match(label) for label in name.split("."))):
            raise BadValue(f"{text!r} is not a host name")
        if host == "*.":
            raise BadValue("a domain is missing behind *.")
        return host


class ServerNamePattern(HostPattern):
    """A name in a TLS ClientHello: exact, or ``*.`` and a domain for every name below it."""

    def parse(self, text: str, quoted: bool) -> str:
        host = super().parse(text.removesuffix("."), quoted)
        if not host:
            raise BadValue("a name is missing; a route for all other names has no sni")
        if addresses.is_ip(host.strip("[]")):
            raise BadValue("a server name is never an IP address (RFC 6066): give this route its own listenAddr")
        return host


class PathPattern(_Named):
    """An exact path; a segment ``{name}`` or ``:name`` is any one segment, a ``/*`` at the end the rest."""

    def parse(self, text: str, quoted: bool) -> str:
        if not text:
            return text
        segments = _segments(text.removesuffix("/*") if text != "/*" else "/")
        for segment in segments:
            if not is_parameter(segment) and ("{" in segment or "}" in segment):
                raise BadValue("a parameter is a whole segment, as in /users/{id}")
        return text


class PathPrefix(_Named):
    """The beginning of a path, by whole segments; a ``/`` at the end changes nothing."""

    def parse(self, text: str, quoted: bool) -> str:
        if not text:
            return text
        if text.endswith("*"):
            raise BadValue("a prefix needs no *", suggestion=text.rstrip("*").rstrip("/") or "/")
        trimmed = text.rstrip("/") or "/"
        if any(is_parameter(segment) or "{" in segment for segment in _segments(trimmed)):
            raise BadValue("parameters are possible in path, not in pathPrefix; use path with /* at the end")
        return trimmed


def _segments(path: str) -> list[str]:
    """The segments of a canonical path; :class:`BadValue` for one that no request can have."""
    if not path.startswith("/"):
        raise BadValue("a path begins with /", suggestion=f"/{path}" if _SEGMENT.match(path.replace("/", "")) else "")
    segments = path[1:].split("/")
    for position, segment in enumerate(segments):
        if "*" in segment:
            raise BadValue("a * is only possible as the last segment, as in /files/*")
        if segment in (".", ".."):
            raise BadValue("requests arrive with . and .. segments resolved: this could never match")
        if not segment and position < len(segments) - 1:
            raise BadValue("requests arrive with // merged into /: this could never match")
        if not _SEGMENT.match(segment):
            raise BadValue("a request's path has no such characters; escape them as %XX, in upper case")
        escaped = _ESCAPED_UNRESERVED.search(segment)
        if escaped:
            meant = chr(int(escaped[0][1:], 16))
            raise BadValue(f"requests arrive with {escaped[0]} decoded: write {meant}")
        if re.search(r"%(?:2F|5C|00)", segment):
            raise BadValue("%2F, %5C and %00 are refused in requests: this could never match")
    return segments


class StatusRanges(_Named):
    """Statuses and ranges of them, separated by commas: "200-399", "200,204"."""

    def parse(self, text: str, quoted: bool) -> str:
        return ",".join(f"{low}-{high}" if low != high else str(low) for low, high in status_ranges(text))


def status_ranges(text: str) -> tuple[tuple[int, int], ...]:
    """Closed ranges of statuses from "200-399" or "200,204-206"; ValueError for anything else."""
    ranges = []
    for part in text.split(","):
        match = _STATUS_RANGE.match(part.strip(" "))
        if not match:
            raise BadValue(f'{text!r} is not a list of statuses; write it as "200-399" or "200,204"')
        low, high = int(match[1]), int(match[2] or match[1])
        if low > high:
            raise BadValue(f"the range {low}-{high} is empty", suggestion=f"{high}-{low}")
        ranges.append((low, high))
    return tuple(ranges)
