"""API key stage: a key in a header field or a query parameter, known by its SHA-256 only.

    the field is there          it decides; the query is not looked at
    no such field               the query parameter, where one is configured; a query that cannot be read in one way
                                only is a 400
    no key                      401 ApiKey realm    missing
    a key nobody has            401 ApiKey realm    unknown
    otherwise                   on, with request.user = the key's name

Keys are random and long (gogate hash api-key makes 256 bits), so that one SHA-256 is enough, and looking its digest up
in a dict tells nobody how much of a guess was right. The header field is withheld from the backend, which learns the
key's name from ``forward_name``. A key in the query stays there, since the query is passed on byte for byte, and shows
in the access logs of backends: prefer the field. Several field lines of the name are one value that is no key.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from gogate_py.errors import Failure, WireError
from gogate_py.middleware.auth_fields import challenge, field_value
from gogate_py.middleware.chain import Explained, Refusal, RequestView
from gogate_py.snapshot import ApiKeyAuth
from gogate_py.wire.query import parameter

MAX_KEY: Final = 1024
#: Every word that this stage's refusals are counted under.
REASONS: Final = ("missing", "unknown", "bad_query")


class ApiKeyAuthStage:
    """The API keys of one route."""

    __slots__ = ("_bad_query", "_field", "_forward", "_missing", "_names", "_query", "_unknown")

    name = "auth"

    def __init__(self, rules: ApiKeyAuth) -> None:
        self._field = rules.header.lower().encode()
        self._query = rules.query
        self._forward = rules.forward_name.encode()
        # digest → (name, name as a field value)
        self._names = {bytes.fromhex(digest): (name, field_value(name)) for name, digest in rules.keys}
        line = challenge("ApiKey", rules.realm)
        detail = Failure.UNAUTHORIZED.detail
        self._missing = Refusal(Failure.UNAUTHORIZED, detail, 0, line, "missing")
        self._unknown = Refusal(Failure.UNAUTHORIZED, detail, 0, line, "unknown")
        self._bad_query = Refusal(Failure.BAD_QUERY, Failure.BAD_QUERY.detail, 0, b"", "bad_query")

    def __call__(self, request: RequestView) -> Refusal | None:
        found = self._find(request)
        if isinstance(found, Refusal):
            return found
        request.user, value = found
        if self._field:
            request.withhold(self._field)
        if self._forward and value is not None:
            request.forward(self._forward, value)
        return None

    def explain(self, request: RequestView) -> Explained:
        """The same verdict; the request stays as it is."""
        found = self._find(request)
        facts: dict[str, Any] = {"type": "api_key", "reason": ""}
        if isinstance(found, Refusal):
            facts["reason"] = found.counted
            texts = {"missing": "no API key", "unknown": "an API key that nobody has"}
            return Explained(found, texts.get(found.counted, "the query cannot be read in one way only"), facts)
        facts["user"] = found[0]
        return Explained(None, f"the API key of {found[0]}", facts)

    def identify(self, request: RequestView) -> None:
        """Do to a request what passing does, when explain has let it pass: what comes later depends on it."""
        self(request)

    def _find(self, request: RequestView) -> tuple[str, bytes | None] | Refusal:
        key = request.field(self._field) if self._field else None
        if key is None and self._query:
            try:
                key = parameter(request.query, self._query)
            except WireError:
                return self._bad_query
        if not key:
            return self._missing
        if len(key) > MAX_KEY:
            return self._unknown
        return self._names.get(hashlib.sha256(key).digest()) or self._unknown
