"""A request as stages see it, without connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gogate_py.middleware.request_view import field_of_list


class Asked:
    """A RequestView over plain values; remembers what stages forwarded and withheld."""

    def __init__(
        self,
        method: bytes = b"GET",
        path: bytes = b"/",
        query: bytes = b"",
        host: bytes = b"a.example",
        client: str = "192.0.2.1",
        scheme: bytes = b"http",
        fields: Mapping[bytes, bytes] | None = None,
        request_id: bytes = b"id-1",
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.host = host
        self.client = client
        self.scheme = scheme
        self.body: bytes | None = None
        self.user = ""
        self.claims: Mapping[str, Any] = {}
        self.request_id = request_id
        self.fields = list((fields or {}).items())
        self.forwarded: dict[bytes, bytes] = {}
        self.withheld: set[bytes] = set()

    def field(self, name: bytes) -> bytes | None:
        """A field's value."""
        return field_of_list(self.fields, name)

    def forward(self, name: bytes, value: bytes) -> None:
        """Remember what the backend is told."""
        self.forwarded[name] = value

    def withhold(self, name: bytes) -> None:
        """Remember what the backend is not told."""
        self.withheld.add(name)
