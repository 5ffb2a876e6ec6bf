"""Response cache: answers to GET are kept in the memory of a worker and given again, as RFC 9111 lets a shared cache.

One cache per worker and route: workers share nothing here, so an answer is fetched once by each of them, and a change
through one worker is seen by the others when their copies expire. Every answer says what was done: ``X-Cache`` is
hit, miss, or bypass where the request could neither use nor fill the cache.

    request                                                           looks it up   fills it
    method other than GET and HEAD                                    no            no; what succeeds invalidates
    HEAD                                                              yes           no
    with a body, Range, If-Match, If-Unmodified-Since, a WebSocket    no            no
    Cache-Control: no-store                                           no            no
    no-cache (Pragma, too), max-age and min-fresh that fail           no            yes
    only-if-cached, without a usable answer                           504           no
    everything else                                                   yes           yes

    answer                                                            kept
    not complete; larger than an eighth of maxBytes                   no
    private, no-store, no-cache, stale already (wire.freshness)       no
    status without a rule for it (wire.freshness)                     no
    with Set-Cookie                                                   no: it is one client's
    Vary: *, or by a field that this gateway writes for the request   no: it cannot be chosen by the request
    Access-Control-Allow-Origin other than * without Vary: Origin     no: it is for one page
    to a personal request, unless public, s-maxage, must-revalidate   no
    everything else                                                   yes

- A request is personal when it has Authorization (RFC 9111 section 3.5) or Cookie, or somebody was authenticated by
  whatever means. It is neither given what was kept without the answer's permission for all, nor is its answer kept.
- The key is scheme, Host, path and query as the client sent them, with the values of the fields that Vary names. What a
  route rewrites does not matter: the same request is rewritten in the same way.
- The cache is asked behind authentication and limits and before the split: a stored answer serves every arm.
- A request with a body is read (64 KiB at most, 413 beyond) to see that it is one: the key does not have it, and a
  backend that minds it would have its answer given to others ("fat GET").
- Kept is what the backend sent, without Age. Everything per client (X-Request-ID, CORS, edits, the cookie of a split)
  is put on each answer anew.
- Stale answers are never given, nor asked about again: the next request fetches the whole answer.

Recordings under way hold at most a quarter of maxBytes together, besides what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from gogate_py import clock
from gogate_py.errors import Failure
from gogate_py.middleware.cache_recording import CHUNKED, UNTIL_CLOSE, Fields, Recording, kept_fields, vary_names
from gogate_py.middleware.cache_store import CacheStore, Key, Stored
from gogate_py.middleware.chain import Answer, Explained, NeedBody, Outcome, Refusal, RequestView
from gogate_py.snapshot import ApiKeyAuth, BasicAuth, Cache, HttpRoute, JwtAuth
from gogate_py.wire.freshness import RequestTerms, answer_terms, not_modified, request_terms

__all__ = ["BODY_LIMIT", "CHUNKED", "UNTIL_CLOSE", "Recording", "ResponseCache"]

#: Of a GET's body, which is read only to find that there is one.
BODY_LIMIT: Final = 64 * 1024

_SAFE: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE"))


class ResponseCache:
    """The cache of one route in one worker, as a stage; Recording fills it."""

    name = "cache"

    __slots__ = (
        "_authenticated", "_constant", "_held", "_now", "_recordings", "_store", "_varying", "_wall", "bypassed",
        "hits", "item_limit", "misses", "settings", "stored",
    )  # fmt: skip

    def __init__(
        self,
        settings: Cache,
        *,
        now: Callable[[], float] = clock.monotonic,
        wall: Callable[[], float] = clock.wall,
    ) -> None:
        """``now``: monotonic seconds, for ages; ``wall``: seconds since 1970, only for answers without a Date."""
        self.settings = settings
        self.item_limit = settings.max_bytes // 8
        # --- counters, zeroed by who reads them
        self.hits = 0
        self.misses = 0
        self.bypassed = 0
        self.stored = 0
        self._now = now
        self._wall = wall
        self._store = CacheStore(settings.max_entries, settings.max_bytes)
        self._recordings: set[Recording] = set()
        self._held = 0  # bytes of recordings
        # --- of the route, see serve()
        self._authenticated = False
        self._constant: frozenset[bytes] = frozenset()
        self._varying: frozenset[bytes] = frozenset()

    def serve(self, route: HttpRoute) -> None:
        """Learn what the route does to requests; called for each snapshot, what is stored stays."""
        # Then every request is personal, however it proved who it is.
        self._authenticated = route.auth is not None or route.forward_auth is not None
        self._varying = frozenset(name.lower().encode() for name in _set_by_requests(route))
        edits = route.request_fields
        constant = (*edits.remove, *[name for name, _ in edits.set]) if edits is not None else ()
        self._constant = frozenset(name.lower().encode() for name in constant) - self._varying

    @property
    def entries(self) -> int:
        """Answers that are stored."""
        return self._store.entries

    @property
    def bytes(self) -> int:
        """Memory that they take, about."""
        return self._store.bytes

    @property
    def evicted(self) -> int:
        """Answers that were dropped for want of room, since it was last set."""
        return self._store.evicted

    @evicted.setter
    def evicted(self, value: int) -> None:
        self._store.evicted = value

    # --- the way down

    def __call__(self, request: RequestView) -> Outcome:
        """A stored answer, 504 where only such a one was asked for, or on to the backend."""
        if request.body is None and request.method in (b"GET", b"HEAD"):
            return NeedBody(BODY_LIMIT)
        bypass, terms = _judge(request)
        stored = None if bypass else self._usable(request, terms)
        if stored is not None:
            self.hits += 1
            self._store.touch(stored)
            return self._answer(request, stored)
        if terms.only_if_cached:
            self.misses += 1
            return Refusal(Failure.NOT_CACHED, counted="not_cached")
        if bypass:
            self.bypassed += 1
        else:
            self.misses += 1
        return None

    def explain(self, request: RequestView) -> Explained:
        """What this very cache has; other processes have others."""
        bypass, terms = _judge(request)
        personal = self._is_personal(request)
        facts: dict[str, Any] = {"result": "bypass" if bypass else "miss", "personal": personal}
        if bypass:
            facts["why"] = bypass
            text = f"not used: {bypass}"
        else:
            stored = self._usable(request, terms, forget=False)
            if stored is not None:
                now = self._now()
                facts |= {"result": "hit", "age": int(now - stored.born), "fresh_for": int(stored.expires - now)}
                return Explained(
                    self._answer(request, stored), f"answered from the store, {facts['age']} s old", facts
                )
            text = "no usable answer in this store (every worker has its own)"
        if terms.only_if_cached:
            return Explained(Refusal(Failure.NOT_CACHED, counted="not_cached"), f"{text}; 504 as asked for", facts)
        if not bypass:
            allowed = " when it is public, s-maxage or must-revalidate" if personal else ""
            text += f"; the backend's answer is kept{allowed}" if request.method == b"GET" else ""
        return Explained(None, text, facts)

    def _usable(self, request: RequestView, terms: RequestTerms, *, forget: bool = True) -> Stored | None:
        """The stored answer that this request may have; one that is found stale is dropped with ``forget``."""
        stored = self._store.find(_key(request), request.field)
        if stored is None:
            return None
        now = self._now()
        left = stored.expires - now
        if left <= 0:
            if forget:
                self._store.drop(stored)
            return None
        if terms.no_cache or now - stored.born > terms.max_age or left < terms.min_fresh:
            return None
        if not stored.shared and self._is_personal(request):
            return None
        return stored

    def _answer(self, request: RequestView, stored: Stored) -> Answer:
        """The stored answer, or that the client has it already (RFC 9110 section 13.2.1: only instead of a success)."""
        lines, status, body = stored.lines, stored.status, stored.body
        if status < 300:
            none_match = request.field(b"if-none-match")
            since = request.field(b"if-modified-since")
            if (none_match is not None or since is not None) and not_modified(
                none_match, since, stored.etag, stored.modified
            ):
                lines, status, body = stored.not_modified_lines, 304, b""
        age = int(self._now() - stored.born)
        return Answer(status, b"%bAge: %d\r\nX-Cache: hit\r\n" % (lines, age), body, "cache_hit")

    def _is_personal(self, request: RequestView) -> bool:
        return bool(
            self._authenticated
            or request.user
            or request.claims
            or request.field(b"authorization") is not None
            or request.field(b"cookie") is not None
        )

    # --- the way up

    def begin(self, request: RequestView, status: int, fields: Fields, length: int) -> Recording | None:
        """The head of a backend's final answer is here; → what is to be fed with its body, if that is to be kept.

        ``fields``: as the backend sent them, without framing and hop-by-hop ones; X-Cache is put there. ``length``: of
        the body, CHUNKED or UNTIL_CLOSE.
        """
        bypass, _ = _judge(request)
        fields[:] = [field for field in fields if field[0].lower() != b"x-cache"]
        recording = None
        if request.method not in _SAFE:
            if 200 <= status < 400:
                self._invalidate(_key(request))
        elif request.method == b"GET" and not bypass:
            recording = self._record(request, status, fields, length)
        fields.append((b"X-Cache", b"bypass" if bypass else b"miss"))
        return recording

    def _record(self, request: RequestView, status: int, fields: Fields, length: int) -> Recording | None:
        """A recording of an answer that may be kept."""
        if length == UNTIL_CLOSE or length > self.item_limit:
            return None
        wall = self._wall()
        terms = answer_terms(status, fields, self.settings.ttl, wall)
        if terms is None or (not terms.shared and self._is_personal(request)):
            return None
        names = vary_names(fields)
        if names is None or not self._varying.isdisjoint(names):
            return None
        # What is the same for every request when it leaves here tells none apart.
        names = tuple([name for name in names if name not in self._constant])
        variant = tuple([request.field(name) for name in names])
        kept = kept_fields(fields, wall)
        recording = Recording(self, _key(request), names, variant, status, kept, length, terms, self._now())
        self._recordings.add(recording)
        return recording

    def _invalidate(self, key: Key) -> None:
        """What this URI stands for was changed: what is kept, or being recorded, is of before (RFC 9111 section 4.4).
        """
        self._store.drop_key(key)
        for recording in [recording for recording in self._recordings if recording.key == key]:
            recording.abandon()

    def hold(self, size: int) -> bool:
        """Count bytes that a recording holds; → whether they may be held."""
        self._held += size
        return self._held <= self.settings.max_bytes // 4

    def recorded(self, recording: Recording, held: int, stored: Stored | None) -> None:
        """A recording is over, with what is to be stored."""
        self._recordings.discard(recording)
        self._held -= held
        if stored is not None and stored.size <= self.item_limit:
            self._store.put(stored, recording.names)
            self.stored += 1


def _set_by_requests(route: HttpRoute) -> Iterator[str]:
    """Names of the fields whose value towards the backend depends on more than the field of the request."""
    auth = route.auth
    if isinstance(auth, JwtAuth):
        yield from [field for _, field in auth.forward_claims]
    elif isinstance(auth, ApiKeyAuth):
        yield auth.forward_name
    elif isinstance(auth, BasicAuth):
        yield auth.forward_user
    if route.forward_auth is not None:
        yield from route.forward_auth.response_headers
    if route.request_fields is not None:
        yield from [name for name, value in route.request_fields.set if "{" in value]
        yield from [name for name, _ in route.request_fields.add]


def _key(request: RequestView) -> Key:
    return request.scheme, request.host.lower(), request.path, request.query


def _judge(request: RequestView) -> tuple[str, RequestTerms]:
    """Why this request can neither use nor fill the cache, "" when it can; and its terms."""
    field = request.field
    if request.method not in (b"GET", b"HEAD"):
        return "its method is neither GET nor HEAD", RequestTerms()
    terms = request_terms(field(b"cache-control"), field(b"pragma"))
    if terms.no_store:
        return "no-store was asked for", terms
    if request.body:
        return "it has a body", terms
    if field(b"range") is not None:
        return "it asks for a range", terms
    if field(b"if-match") is not None or field(b"if-unmodified-since") is not None:
        return "its condition is for the backend", terms
    if field(b"sec-websocket-key") is not None:
        return "it opens a WebSocket", terms
    return "", terms
