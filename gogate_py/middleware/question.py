"""Question: a request that is asked about rather than served (``gogate explain``), read from what people type.

It becomes the bytes of a real head, which then pass the same checks as a client's: what explain accepts is what the
proxy accepts. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from gogate_py.addresses import is_ip
from gogate_py.errors import GogateError
from gogate_py.middleware.request_view import field_of_list
from gogate_py.wire.head_check import HeadLimits, RequestHead, check_request_head

_url: Final = re.compile(r"(?:(https?)://([^/?#]*))?(/[^#]*|\?[^#]*)?(#.*)?")
_header: Final = re.compile(r"([^:\r\n]+):[ \t]*([^\r\n]*)")
_visible: Final = re.compile(r"[!-~]+")


class BadQuestion(GogateError):
    """A request that cannot be asked about. ``field`` names the part that is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Question:
    """One request. ``head`` are its bytes, ``client`` is the peer's address."""

    __slots__ = ("client", "head", "scheme")

    def __init__(self, head: bytes, client: str, scheme: str) -> None:
        self.head = head
        self.client = client
        self.scheme = scheme

    @classmethod
    def of(cls, method: str, url: str, headers: Iterable[str], client_ip: str) -> Question:
        """Read one. ``url`` is absolute, or a path with a Host among the ``headers`` ("Name: value"); ``client_ip`` ""
        is 127.0.0.1. Raises BadQuestion."""
        if not _visible.fullmatch(method):
            raise BadQuestion("method", "The method is missing, or has blanks.")
        found = _url.fullmatch(url)
        if not url or found is None or found[4]:
            raise BadQuestion("url", "The URL must be http://host/path or /path, without a fragment.")
        scheme, host, target, _ = found.groups()
        target = target or "/"
        if target.startswith("?"):
            target = "/" + target
        if not _visible.fullmatch(target):
            raise BadQuestion("url", "The URL has blanks or characters that are not ASCII; write them as %XX.")
        lines = []
        hosts = []
        for header in headers:
            line = _header.fullmatch(header)
            if line is None:
                raise BadQuestion("header", f"{header[:60]!r} is not a header field; write it as Name: value.")
            if line[1].lower() == "host":
                hosts.append(line[2])
            else:
                lines.append(f"{line[1]}: {line[2]}\r\n")
        if len(hosts) > 1:
            raise BadQuestion("header", "A request has one Host.")
        name = hosts[0] if hosts else host if host else "localhost"
        if client_ip and not is_ip(client_ip):
            raise BadQuestion("client_ip", f"{client_ip[:60]!r} is not an IP address.")
        text = f"{method} {target} HTTP/1.1\r\nHost: {name}\r\n{''.join(lines)}\r\n"
        return cls(text.encode("utf-8"), client_ip or "127.0.0.1", scheme or "http")


class AskedRequest:
    """A question as stages see it (RequestView). What they want of the backend's request is kept for the answer."""

    def __init__(self, question: Question, head: RequestHead, client: str) -> None:
        self.checked = head
        self.method = head.method
        self.path = head.path
        self.query = head.query
        self.host = head.host
        self.client = client
        self.scheme = question.scheme.encode()
        self.body: bytes | None = b""
        self.user = ""
        self.claims: Mapping[str, Any] = {}
        self.request_id = b""
        self.forwarded: list[tuple[bytes, bytes]] = []
        self.withheld: set[bytes] = set()

    @classmethod
    def of(cls, question: Question, limits: HeadLimits, client: str) -> AskedRequest:
        """The request of a question. Raises WireError where the proxy would answer 4xx."""
        return cls(question, check_request_head(question.head, limits), client)

    def field(self, name: bytes) -> bytes | None:
        """A header field's value."""
        return self.host if name == b"host" else field_of_list(self.checked.fields, name)

    def forward(self, name: bytes, value: bytes) -> None:
        """Set a field of the request to the backend."""
        self.forwarded.append((name, value))

    def withhold(self, name: bytes) -> None:
        """Do not send a field to the backend."""
        self.withheld.add(name)
