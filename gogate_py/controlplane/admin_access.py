"""Who may do what on the admin API (SECURITY.md T22): one pure decision over a request's head.

    who asks                        reads        changes
    from this machine               yes          yes
    from elsewhere, valid token     yes          yes
    from elsewhere, no token        yes          401, or 403 that says what to set when no token is configured
    anybody with a wrong token      401          401; after 10 in a minute 429

A question to /explain counts as a change: it tells whether a password or key is right, and checking one costs time.

"From this machine" is the peer's address, never a header; a request that a proxy forwarded (X-Forwarded-For,
Forwarded, X-Real-IP) is from elsewhere wherever the proxy runs.

Against a web page in the operator's browser: the Host must be an IP literal or a listed name (else 421: DNS rebinding),
an Origin must be this very host or listed (else 403), a body must be application/json (else 415: a page cannot send it
without a preflight, and no preflight is ever answered). Health, readiness, metrics and requests with a valid token are
exempt from the Host and Origin checks.

Bodies, routing and sockets are not known here.
"""

from __future__ import annotations

import hmac
import ipaddress
import math
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from attrs import frozen

#: Wrong tokens a client may send in WINDOW seconds before its tokens are no longer looked at.
MAX_WRONG_TOKENS: Final = 10
WINDOW: Final = 60.0
#: Clients remembered for their wrong tokens; the longest known goes first.
MAX_CLIENTS: Final = 4096

#: Peer of a Unix socket: file permissions said who may connect.
UNIX_PEER: Final = "unix"

READ_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
HEALTH_PATHS: Final = frozenset({"/health", "/healthz", "/ready", "/readyz"})
#: Read like a change: explain says whether a password or key is right.
GUARDED_PATHS: Final = frozenset({"/explain"})

_FORWARDED: Final = frozenset({b"x-forwarded-for", b"forwarded", b"x-real-ip"})


@frozen
class AccessSettings:
    """What of the configuration the rules need. ``open_paths``: health, readiness and metrics."""

    token: bytes
    allowed_hosts: frozenset[str]  # names without port: what Host may say
    allowed_origins: frozenset[str]  # the entries as they were written: what may stand behind an Origin's scheme
    open_paths: frozenset[str]

    @classmethod
    def make(cls, token: str, allowed_hosts: Iterable[str], metrics_path: str) -> AccessSettings:
        """From the values of ``server.admin`` and ``server.metrics.path``."""
        listed = [entry.lower() for entry in allowed_hosts]
        return cls(
            token.encode(),
            frozenset(host_name(entry) for entry in listed),
            frozenset(listed),
            HEALTH_PATHS | {"/metrics", metrics_path},
        )


class Refusal(NamedTuple):
    """What is answered instead."""

    status: int
    title: str
    detail: str
    headers: tuple[tuple[str, str], ...] = ()


class WrongTokens:
    """Recent wrong tokens by client, in a table of bounded size. Moments are monotonic seconds."""

    def __init__(self) -> None:
        self._by_client: OrderedDict[str, deque[float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_client)

    def blocked_for(self, client: str, now: float) -> float:
        """Seconds until this client's tokens are looked at again; 0 when they are now."""
        times = self._by_client.get(client)
        if times is None or len(times) < MAX_WRONG_TOKENS:
            return 0.0
        return max(0.0, times[0] + WINDOW - now)

    def note(self, client: str, now: float) -> None:
        """One more wrong token."""
        times = self._by_client.get(client)
        if times is None:
            if len(self._by_client) >= MAX_CLIENTS:
                self._by_client.popitem(last=False)
            times = self._by_client[client] = deque(maxlen=MAX_WRONG_TOKENS)
        times.append(now)


class _Head(NamedTuple):
    """The fields of a request head that the rules look at."""

    hosts: list[bytes]
    origins: list[bytes]
    authorization: list[bytes]
    content_type: bytes
    has_body: bool
    forwarded: bool


def is_change(method: str) -> bool:
    """Whether a method may change state: everything that is not known to read."""
    return method not in READ_METHODS


def decide(
    method: str,
    path: str,
    http_version: str,
    peer: str | None,
    headers: Iterable[tuple[bytes, bytes]],
    settings: AccessSettings,
    wrong_tokens: WrongTokens,
    now: float,
) -> Refusal | None:
    """None when the request may go on, else what to answer.

    ``path`` is decoded and without query; ``peer`` is the client's IP address, UNIX_PEER, or None when it is unknown
    (gone already), which counts as from elsewhere. ``headers`` have lower-case names.
    """
    head = _read(headers)
    if len(head.hosts) > 1 or (not head.hosts and http_version == "1.1"):
        return Refusal(400, "Bad Request", "A request needs exactly one Host.", (("Connection", "close"),))
    change = is_change(method)
    if not change and path in settings.open_paths:
        return None
    # 1. The token, when one is shown: a wrong one is refused whatever is asked, so that nobody believes it is right.
    trusted = False
    shown = _bearer(head.authorization) if settings.token else None
    if shown is not None:
        client = client_key(peer)
        wait = wrong_tokens.blocked_for(client, now)
        if wait > 0:
            after = str(math.ceil(wait))
            return Refusal(
                429, "Too Many Requests", "Too many wrong tokens from this address.", (("Retry-After", after),)
            )
        trusted = hmac.compare_digest(shown, settings.token)
        if not trusted:
            wrong_tokens.note(client, now)
            return _unauthorized("The bearer token is wrong.")
    # 2. A browser that was led here.
    if not trusted:
        refusal = _check_browser(head, settings)
        if refusal is not None:
            return refusal
    if not change and path not in GUARDED_PATHS:
        return None
    # 3. Changes from elsewhere.
    if not trusted and (head.forwarded or not is_local(peer)):
        what = "Changes" if change else "Questions about credentials"
        if settings.token:
            return _unauthorized(f"{what} from another host need the bearer token (server.admin.token).")
        return Refusal(
            403,
            "Forbidden",
            f"{what} are accepted from this machine only. To allow them from other hosts, set server.admin.token "
            "and send it as Authorization: Bearer.",
        )
    if not change:
        return None
    if head.has_body and head.content_type.partition(b";")[0].strip(b" \t").lower() != b"application/json":
        return Refusal(415, "Unsupported Media Type", "A body is JSON: send Content-Type: application/json.")
    return None


def is_local(peer: str | None) -> bool:
    """Whether a peer is this machine: loopback (also as IPv4-mapped IPv6) or a Unix socket."""
    if peer == UNIX_PEER:
        return True
    ip = _ip(peer or "")
    return ip is not None and ip.is_loopback


def client_key(peer: str | None) -> str:
    """What wrong tokens are counted by: the IPv4 address, the /64 of an IPv6 one."""
    ip = _ip(peer or "")
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((ip.packed[:8] + bytes(8), 64)))
    return str(ip or peer)


def host_name(authority: str) -> str:
    """``name:port`` → the name in lower case, without the root's dot; an IPv6 literal loses its brackets."""
    text = authority.lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    name = text.rpartition(":")[0] if text.count(":") == 1 else text
    return name.removesuffix(".")


def _read(headers: Iterable[tuple[bytes, bytes]]) -> _Head:
    hosts: list[bytes] = []
    origins: list[bytes] = []
    authorization: list[bytes] = []
    content_type = b""
    has_body = forwarded = False
    for name, value in headers:
        if name == b"host":
            hosts.append(value)
        elif name == b"origin":
            origins.append(value)
        elif name == b"authorization":
            authorization.append(value)
        elif name == b"content-type":
            content_type = value
        elif name == b"content-length":
            has_body = has_body or value.strip(b" \t").lstrip(b"0") != b""
        elif name == b"transfer-encoding":
            has_body = True
        elif name in _FORWARDED:
            forwarded = True
    return _Head(hosts, origins, authorization, content_type, has_body, forwarded)


def _bearer(values: list[bytes]) -> bytes | None:
    """The token shown, None when no Authorization is; anything but one Bearer is a token that is never right."""
    if not values:
        return None
    scheme, _, token = values[0].partition(b" ")
    if scheme.lower() != b"bearer" or len(values) > 1:
        return b""
    return token.strip(b" ")


def _check_browser(head: _Head, settings: AccessSettings) -> Refusal | None:
    host = head.hosts[0].decode("latin-1") if head.hosts else ""
    if head.hosts:
        name = host_name(host)
        if _ip(name) is None and name not in settings.allowed_hosts:
            return Refusal(
                421,
                "Misdirected Request",
                "This Host is not a name of the admin API. IP addresses are; add further names to "
                "server.admin.allowedHosts.",
            )
    for origin in head.origins:
        authority = origin.decode("latin-1").lower().partition("://")[2]
        if not authority or (authority != host.lower() and authority not in settings.allowed_origins):
            return Refusal(
                403,
                "Forbidden",
                "Requests of web pages from this Origin are refused; add its host (and port) to "
                "server.admin.allowedHosts.",
            )
    return None


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address of an IP literal; IPv4-mapped as IPv4, without a zone."""
    try:
        ip = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return mapped or ip


def _unauthorized(detail: str) -> Refusal:
    return Refusal(401, "Unauthorized", detail, (("WWW-Authenticate", 'Bearer realm="gogate"'),))
