"""Recording: the body of one answer on its way through, and what of its head is stored.

Nothing is stored before the answer is whole: the coding has ended as it should, or exactly as many bytes came as were
announced. Which answers are recorded, and which fields of them are kept, is in the tables of response_cache.
"""

from __future__ import annotations

from typing import Final, Protocol

from gogate_py.middleware.cache_store import Key, Stored, Variant
from gogate_py.wire.freshness import AnswerTerms, http_date, is_etag, parse_date
from gogate_py.wire.headers import REQUEST_SPECIAL, is_forwarding_name, is_token, list_elements

#: ``length`` of an answer whose end is marked by the chunked coding.
CHUNKED: Final = -1
#: ``length`` of an answer that ends where its connection does: whether it is whole, nobody knows.
UNTIL_CLOSE: Final = -2

#: Request fields that one answer may depend on.
MAX_VARY: Final = 16

# What the head check takes out of the list, or the gateway writes itself, is not what a request can be told apart by.
_NOT_VARIANTS: Final = REQUEST_SPECIAL - {b"host"}
# Never stored: Age and X-Cache are made anew; the others are for one hop (RFC 9111 section 3.1).
_NOT_STORED: Final = frozenset((
    b"age", b"x-cache", b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization", b"x-request-id",
))  # fmt: skip
# RFC 9110 section 15.4.5: a 304 does not describe the content again, but for what chooses and dates it.
_CONTENT: Final = b"content-"

Fields = list[tuple[bytes, bytes]]


class Owner(Protocol):
    """The cache that a recording is for."""

    @property
    def item_limit(self) -> int:
        """Bytes of one answer at most."""
        ...

    def hold(self, size: int) -> bool:
        """Count bytes that a recording holds; → whether they may be held."""
        ...

    def recorded(self, recording: Recording, held: int, stored: Stored | None) -> None:
        """A recording is over, with what is to be stored; it held this many bytes."""
        ...


class Recording:
    """The body of one answer on its way through, kept when it turns out to be whole. Owned by its exchange, which ends
    it with finish() or abandon(); afterwards every call does nothing."""

    __slots__ = (
        "_body", "_born", "_cache", "_fields", "_length", "_open", "_status", "_terms", "_variant", "key", "names",
    )  # fmt: skip

    def __init__(
        self,
        cache: Owner,
        key: Key,
        names: tuple[bytes, ...],
        variant: Variant,
        status: int,
        fields: Fields,
        length: int,
        terms: AnswerTerms,
        now: float,
    ) -> None:
        """``names``: the request fields that the answer depends on, with this request's values ``variant``; ``now``:
        monotonic seconds."""
        self.key = key
        self.names = names
        self._variant = variant
        self._cache = cache
        self._status = status
        self._fields = fields
        self._length = length
        self._terms = terms
        self._born = now - terms.age
        # Not a list of pieces: a backend that sends few bytes at a time would make a multiple of them here.
        self._body = bytearray()
        self._open = True

    def feed(self, data: bytes) -> None:
        """Bytes of the body, without its coding. Too many of them, and the recording is over."""
        if not self._open:
            return
        self._body += data
        limit = self._length if self._length >= 0 else self._cache.item_limit
        if not self._cache.hold(len(data)) or len(self._body) > limit:
            self.abandon()

    def finish(self) -> None:
        """The answer has ended as it should: keep it, if its body is as long as announced."""
        if not self._open:
            return
        whole = self._length in (CHUNKED, len(self._body))
        self._close(self._made() if whole else None)

    def abandon(self) -> None:
        """The answer will not be whole, or is not to be kept."""
        if self._open:
            self._close(None)

    def _close(self, stored: Stored | None) -> None:
        self._open = False
        held = len(self._body)
        self._body = bytearray()
        self._cache.recorded(self, held, stored)

    def _made(self) -> Stored:
        etag = b""
        modified = None
        for name, value in self._fields:
            lower = name.lower()
            if lower == b"etag" and is_etag(value):
                etag = value
            elif lower == b"last-modified":
                modified = parse_date(value)
        unchanged = [field for field in self._fields if _in_not_modified(field[0].lower(), etag != b"")]
        return Stored(
            self.key,
            self._variant,
            self._status,
            b"".join([b"%b: %b\r\n" % field for field in self._fields]),
            b"".join([b"%b: %b\r\n" % field for field in unchanged]),
            bytes(self._body),
            born=self._born,
            expires=self._born + self._terms.lifetime,
            shared=self._terms.shared,
            etag=etag,
            modified=modified,
        )


def kept_fields(fields: Fields, received_at: float) -> Fields:
    """The fields of an answer that are stored; with a Date in any case (RFC 9110 section 6.6.1)."""
    kept = [field for field in fields if field[0].lower() not in _NOT_STORED]
    if not any(name.lower() == b"date" for name, _ in kept):
        kept.append((b"Date", http_date(received_at)))
    return kept


def vary_names(fields: Fields) -> tuple[bytes, ...] | None:
    """The request fields that an answer depends on, in one order; None when it is not to be kept for any request."""
    lines = []
    origin = b"*"
    for name, value in fields:
        lower = name.lower()
        if lower == b"vary":
            lines.append(value)
        elif lower == b"access-control-allow-origin":
            origin = value
        elif lower in (b"set-cookie", b"set-cookie2"):
            return None
    names = set(list_elements(lines))
    if origin != b"*" and b"origin" not in names:
        return None
    if len(names) > MAX_VARY or b"*" in names:
        return None
    for name in names:
        if name in _NOT_VARIANTS or is_forwarding_name(name) or not is_token(name):
            return None
    names.discard(b"host")  # it is in the key
    return tuple(sorted(names))


def _in_not_modified(lower: bytes, tagged: bool) -> bool:
    """Whether a 304 has this field: Last-Modified only where there is no ETag to go by."""
    if lower == b"last-modified":
        return not tagged
    return not lower.startswith(_CONTENT) or lower == b"content-location"
