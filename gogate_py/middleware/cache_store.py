"""Cache store: stored answers by key and variant, bounded by entries and bytes, the least recently used going first.

A key is a URI as clients see it. Its answers may differ by request fields (Vary); those are its variants, at most
MAX_VARIANTS, the oldest going first. The newest answer decides by which fields: when they change, the older variants
are dropped, because what they depend on is not known any more.

Knows nothing of freshness, requests or time: what may be stored and used is response_cache's to decide.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

#: Answers of one key that differ by Vary. More is a field with a value of its own for everybody.
MAX_VARIANTS: Final = 16
#: Bytes of an entry besides its answer, key and variant: objects and places in tables (tracemalloc said 995).
OVERHEAD: Final = 1000

#: scheme, host in lower case, path, query with its "?"
Key = tuple[bytes, bytes, bytes, bytes]
#: The values of the fields that an answer depends on, None where the request had none.
Variant = tuple[bytes | None, ...]
FieldOf = Callable[[bytes], bytes | None]


class Stored:
    """One answer. Moments are on the monotonic clock."""

    __slots__ = (
        "body", "born", "etag", "expires", "key", "lines", "modified", "not_modified_lines", "shared", "size", "status",
        "variant",
    )  # fmt: skip

    def __init__(
        self,
        key: Key,
        variant: Variant,
        status: int,
        lines: bytes,
        not_modified_lines: bytes,
        body: bytes,
        *,
        born: float,
        expires: float,
        shared: bool,
        etag: bytes,
        modified: int | None,
    ) -> None:
        """``lines``: finished header lines; ``not_modified_lines``: those of them that a 304 has. ``born``: when it was
        made; ``shared``: it may serve anybody; ``modified``: seconds since 1970."""
        self.key = key
        self.variant = variant
        self.status = status
        self.lines = lines
        self.not_modified_lines = not_modified_lines
        self.body = body
        self.born = born
        self.expires = expires
        self.shared = shared
        self.etag = etag
        self.modified = modified
        self.size = (
            OVERHEAD
            + len(lines)
            + len(not_modified_lines)
            + len(body)
            + sum([len(part) for part in key])
            + sum([len(value) for value in variant if value is not None])
        )


class _Variants:
    """The stored answers of one key, oldest first, and the fields that they differ by."""

    __slots__ = ("answers", "names")

    def __init__(self, names: tuple[bytes, ...]) -> None:
        self.names = names
        self.answers: dict[Variant, Stored] = {}


class CacheStore:
    """The answers of one route in one worker."""

    __slots__ = ("_by_key", "_max_bytes", "_max_entries", "_used", "bytes", "evicted")

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._by_key: dict[Key, _Variants] = {}
        self._used: OrderedDict[Stored, None] = OrderedDict()  # least recently used first
        self.bytes = 0
        #: entries that were dropped for want of room
        self.evicted = 0

    @property
    def entries(self) -> int:
        """How many answers there are."""
        return len(self._used)

    def find(self, key: Key, field: FieldOf) -> Stored | None:
        """The answer to a request for ``key`` whose fields ``field`` gives; None without one."""
        variants = self._by_key.get(key)
        if variants is None:
            return None
        names = variants.names
        return variants.answers.get(tuple([field(name) for name in names]) if names else ())

    def touch(self, stored: Stored) -> None:
        """It was used just now."""
        self._used.move_to_end(stored)

    def put(self, stored: Stored, names: tuple[bytes, ...]) -> None:
        """Store an answer that depends on the request fields ``names`` in place of the one before, and make room."""
        variants = self._by_key.get(stored.key)
        if variants is not None and variants.names != names:
            self.drop_key(stored.key)
            variants = None
        if variants is None:
            variants = self._by_key[stored.key] = _Variants(names)
        before = variants.answers.pop(stored.variant, None)  # popped: the new one is the youngest again
        if before is not None:
            self._take_out(before)
        elif len(variants.answers) >= MAX_VARIANTS:
            self._take_out(variants.answers.pop(next(iter(variants.answers))))
            self.evicted += 1
        variants.answers[stored.variant] = stored
        self._used[stored] = None
        self.bytes += stored.size
        while len(self._used) > self._max_entries or self.bytes > self._max_bytes:
            self.drop(next(iter(self._used)))
            self.evicted += 1

    def drop(self, stored: Stored) -> None:
        """Drop one answer."""
        variants = self._by_key[stored.key]
        del variants.answers[stored.variant]
        if not variants.answers:
            del self._by_key[stored.key]
        self._take_out(stored)

    def drop_key(self, key: Key) -> None:
        """Drop every answer of a key."""
        variants = self._by_key.pop(key, None)
        if variants is not None:
            for stored in variants.answers.values():
                self._take_out(stored)

    def _take_out(self, stored: Stored) -> None:
        del self._used[stored]
        self.bytes -= stored.size
