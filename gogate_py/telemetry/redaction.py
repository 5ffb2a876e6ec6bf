"""Redaction: what records and spans show of a request, without its secrets.

By name: whatever may carry a credential (Authorization, Cookie, tokens, keys, passwords, signatures …), in fields and
in query parameters, and the names that a route's own configuration calls keys. By look: credentials in other places
(``Bearer …``, a JWT). Queries inside of field values (Referer) are treated as queries. Rather too much than too little.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_plus

REDACTED: Final = "[redacted]"
#: Characters of one value that are shown.
MAX_VALUE: Final = 256
#: Fields that are shown of a request; the rest is counted.
MAX_FIELDS: Final = 50

_secret_name: Final = re.compile(
    r"auth|cookie|token|secret|passw|passphrase|passcode|pwd|credential|api[-_.]?key|(?:^|[-_.])key$|private|session"
    r"|signature|jwt|csrf|xsrf|saml|assertion|ticket|client[-_]cert|(?:^|[-_.])(?:code|sig|sid|pass|pin|otp|pw|hmac)$",
    re.IGNORECASE,
).search
_secret_value: Final = re.compile(
    r"\b(?:bearer|basic|digest|negotiate)\s+\S|\beyJ[A-Za-z0-9_-]{8,}\.|://[^/?#\s]*@", re.IGNORECASE
).search


def query(raw: str, names: Iterable[str] = ()) -> str:
    """A query (with its ``?`` or without) as it may be shown; ``names``: further parameters that are secret."""
    if not raw:
        return ""
    start = "?" if raw.startswith("?") else ""
    more = {name.lower() for name in names}
    shown = start + "&".join(_parameter(part, more) for part in raw[len(start) :].split("&"))
    return shown if len(shown) <= 4 * MAX_VALUE else shown[: 4 * MAX_VALUE] + "…"


def _parameter(part: str, more: set[str]) -> str:
    name, equals, value = part.partition("=")
    plain = unquote_plus(name)
    if not equals:
        # A bare parameter may be a key by itself; short words are flags.
        return _cut(name) if len(name) <= 16 and not _secret_name(plain) else REDACTED
    if plain.lower() in more or _secret_name(plain) or _secret_value(unquote_plus(value)):
        return f"{_cut(name)}={REDACTED}"
    return f"{_cut(name)}={_cut(value)}"


def fields(found: Iterable[tuple[bytes, bytes]], names: Iterable[str] = ()) -> list[tuple[str, str]]:
    """Header fields as they may be shown; ``names``: further ones that are secret."""
    more = {name.lower() for name in names}
    shown: list[tuple[str, str]] = []
    left = 0
    for raw_name, raw_value in found:
        if len(shown) >= MAX_FIELDS:
            left += 1
            continue
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1").strip(" \t")
        if name.lower() in more or _secret_name(name) or _secret_value(value):
            value = REDACTED
        elif "?" in value:
            before, _, after = value.partition("?")
            value = f"{_cut(before)}?{query(after)}"
        shown.append((_cut(name), _cut(value)))
    return [*shown, ("…", f"{left} more")] if left else shown


def _cut(value: str) -> str:
    return value if len(value) <= MAX_VALUE else value[:MAX_VALUE] + "…"
