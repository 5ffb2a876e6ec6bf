"""The response cache: what is kept, for whom, for how long."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from doubles.asked import Asked
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.errors import Failure
from gogate_py.middleware.chain import Answer, NeedBody, Refusal
from gogate_py.middleware.response_cache import BODY_LIMIT, CHUNKED, UNTIL_CLOSE, Recording, ResponseCache
from gogate_py.snapshot import ApiKeyAuth, BasicAuth, Cache, FieldEdits, ForwardAuth, HttpRoute, JwtAuth, Timeouts
from gogate_py.wire.serializer import parse_lines

Fields = list[tuple[bytes, bytes]]
WALL = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT
FRESH = (b"Cache-Control", b"max-age=60")
SHARED = (b"Cache-Control", b"public, max-age=60")


def asked(path: bytes = b"/", **other: Any) -> Asked:
    """A request whose body is known to be empty."""
    fields = {name.replace("_", "-").encode(): value for name, value in other.pop("fields", {}).items()}
    request = Asked(path=path, fields=fields, **other)
    request.body = b""
    return request


class World:
    """A cache with a clock that is moved by hand, in front of a backend that answers as told."""

    def __init__(self, ttl: float = 30.0, max_entries: int = 100, max_bytes: int = 1 << 20) -> None:
        self.now = 1000.0
        self.cache = ResponseCache(Cache(ttl, max_entries, max_bytes), now=lambda: self.now, wall=lambda: WALL)

    def fetch(
        self,
        request: Asked,
        *fields: tuple[bytes, bytes],
        status: int = 200,
        body: bytes = b"body",
        length: int | None = None,
    ) -> bytes:
        """Send a request through; → what X-Cache says: of the store's answer, or of the backend's, which is given."""
        outcome = self.cache(request)
        if isinstance(outcome, Answer):
            return dict(parse_lines(outcome.lines))[b"X-Cache"]
        assert outcome is None
        passing: Fields = list(fields)
        recording = self.cache.begin(request, status, passing, len(body) if length is None else length)
        if recording is not None:
            recording.feed(body[:2])
            recording.feed(body[2:])
            recording.finish()
        assert passing[:-1] == list(fields)
        assert passing[-1][0] == b"X-Cache"
        return passing[-1][1]

    def hit(self, request: Asked) -> Answer:
        """The stored answer, which must be there."""
        outcome = self.cache(request)
        assert isinstance(outcome, Answer)
        assert outcome.reason == "cache_hit"
        return outcome


def kept(*fields: tuple[bytes, bytes], request: Asked | None = None, **answer: Any) -> bool:
    """Whether an answer is kept."""
    world = World()
    world.fetch(request or asked(), *fields, **answer)
    return world.cache.entries == 1


# --- hit and miss


def test_a_hit_is_the_backends_answer_with_its_age() -> None:
    """Status, fields, body as they came; Age counts seconds, Date is added where there was none."""
    world = World()
    assert world.fetch(asked(), FRESH, (b"Content-Type", b"text/html"), (b"X-A", b"1"), (b"X-A", b"2")) == b"miss"
    world.now += 7.9
    answer = world.hit(asked())
    assert (answer.status, answer.body) == (200, b"body")
    assert parse_lines(answer.lines) == [
        FRESH,
        (b"Content-Type", b"text/html"),
        (b"X-A", b"1"),
        (b"X-A", b"2"),
        (b"Date", b"Sun, 06 Nov 1994 08:49:37 GMT"),
        (b"Age", b"7"),
        (b"X-Cache", b"hit"),
    ]
    cache = world.cache
    assert (cache.hits, cache.misses, cache.bypassed, cache.stored, cache.evicted) == (1, 1, 0, 1, 0)
    assert cache.bytes > len(answer.lines)


def test_it_is_fresh_until_its_lifetime_is_over() -> None:
    """Lifetime less Age; after it the answer is gone."""
    world = World()
    world.fetch(asked(), FRESH, (b"Age", b"20"))
    world.now += 39.9
    assert (b"Age", b"59") in parse_lines(world.hit(asked()).lines)
    world.now += 0.2
    assert world.cache(asked()) is None
    assert world.cache.entries == 0
    assert world.cache.bytes == 0


def test_the_configured_time_is_for_answers_that_do_not_say() -> None:
    """ttl counts, and 0 switches it off."""
    world = World(ttl=5.0)
    world.fetch(asked())
    world.now += 4.9
    world.hit(asked())
    world.now += 0.2
    assert world.cache(asked()) is None
    world = World(ttl=0.0)
    world.fetch(asked())
    assert world.cache.entries == 0


@pytest.mark.parametrize(
    "other",
    [
        {"path": b"/b"}, {"query": b"?"}, {"query": b"?a=1"}, {"host": b"b.example"}, {"host": b"a.example:8080"},
        {"scheme": b"https"},
    ],
)  # fmt: skip
def test_the_key_is_the_whole_uri(other: dict[str, bytes]) -> None:
    """Scheme, host with port, path and query are the key; the host without regard to case."""
    world = World()
    world.fetch(asked(), FRESH)
    assert world.cache(asked(**other)) is None
    world.hit(asked(host=b"A.Example"))


def test_head_is_answered_from_get_and_fills_nothing() -> None:
    """A HEAD gets the whole stored answer (the body is left out by who sends it), and is not stored itself."""
    world = World()
    assert world.fetch(asked(method=b"HEAD"), FRESH, body=b"", length=0) == b"miss"
    assert world.cache.entries == 0
    world.fetch(asked(), FRESH)
    assert world.hit(asked(method=b"HEAD")).body == b"body"


def test_nothing_of_another_cache_or_client_is_kept() -> None:
    """Age, X-Cache and fields for one hop are not stored; a backend's X-Cache is replaced on the way, too."""
    world = World()
    fields: Fields = [FRESH, (b"x-cache", b"HIT from cdn"), (b"Age", b"1"), (b"Proxy-Authenticate", b"Basic")]
    recording = world.cache.begin(asked(), 200, fields, 0)
    assert recording is not None
    recording.finish()
    assert [value for name, value in fields if name.lower() == b"x-cache"] == [b"miss"]
    names = [name for name, _ in parse_lines(world.hit(asked()).lines)]
    assert names == [b"Cache-Control", b"Date", b"Age", b"X-Cache"]


# --- what a request may ask


@pytest.mark.parametrize(
    ("fields", "result"),
    [
        ({"cache_control": b"no-cache"}, b"miss"),
        ({"pragma": b"no-cache"}, b"miss"),
        ({"cache_control": b"max-age=9"}, b"miss"),
        ({"cache_control": b"max-age=10"}, b"hit"),
        ({"cache_control": b"min-fresh=51"}, b"miss"),
        ({"cache_control": b"min-fresh=50"}, b"hit"),
        ({"cache_control": b"max-stale=50"}, b"hit"),
        ({"cache_control": b"no-store"}, b"bypass"),
        ({"cache_control": b"max-age=10; x"}, b"bypass"),
        ({"range": b"bytes=0-1"}, b"bypass"),
        ({"if_match": b'"a"'}, b"bypass"),
        ({"if_unmodified_since": b"Sun, 06 Nov 1994 08:49:37 GMT"}, b"bypass"),
        ({"sec_websocket_key": b"x"}, b"bypass"),
        ({"if_range": b'"a"'}, b"hit"),
    ],
)
def test_request_terms(fields: dict[str, bytes], result: bytes) -> None:
    """A request may refuse what is stored; a bypass leaves the store alone, a miss replaces what it did not take."""
    world = World()
    world.fetch(asked(), FRESH, body=b"old")
    world.now += 10
    assert world.fetch(asked(fields=fields), FRESH, body=b"new") == result
    assert world.hit(asked()).body == (b"new" if result == b"miss" else b"old")
    counters = {b"hit": world.cache.hits - 1, b"miss": world.cache.misses - 1, b"bypass": world.cache.bypassed}
    assert counters == {name: int(name == result) for name in counters}


def test_only_if_cached() -> None:
    """504 rather than asking the backend (RFC 9111 section 5.2.1.7)."""
    world = World()
    only = asked(fields={"cache_control": b"only-if-cached"})
    outcome = world.cache(only)
    assert isinstance(outcome, Refusal)
    assert outcome.failure is Failure.NOT_CACHED
    assert world.cache.explain(only).outcome == outcome
    world.fetch(asked(), FRESH)
    world.hit(only)
    ranged = asked(fields={"cache_control": b"only-if-cached", "range": b"bytes=0-1"})
    assert isinstance(world.cache(ranged), Refusal)


def test_a_request_with_a_body_passes_by() -> None:
    """The body is read to see whether there is one; it is not in the key, so the answer is nobody else's."""
    world = World()
    unknown = asked()
    unknown.body = None
    assert world.cache(unknown) == NeedBody(BODY_LIMIT)
    fat = asked()
    fat.body = b"user=mallory"
    assert world.fetch(fat, FRESH) == b"bypass"
    assert world.cache.entries == 0
    post = asked(method=b"POST")
    post.body = None
    assert world.cache(post) is None


@pytest.mark.parametrize(
    ("fields", "status", "body"),
    [
        ({"if_none_match": b'W/"v1"'}, 304, b""),
        ({"if_none_match": b"*"}, 304, b""),
        ({"if_none_match": b'"v2"'}, 200, b"body"),
        ({"if_modified_since": b"Sun, 06 Nov 1994 08:49:37 GMT"}, 304, b""),
        ({"if_modified_since": b"Sun, 06 Nov 1994 08:49:36 GMT"}, 200, b"body"),
        ({"if_none_match": b'"v2"', "if_modified_since": b"Sun, 06 Nov 1994 08:49:37 GMT"}, 200, b"body"),
    ],
)
def test_conditions_are_answered_from_the_store(fields: dict[str, bytes], status: int, body: bytes) -> None:
    """A client that has it already gets 304, without the fields that describe the content."""
    world = World()
    world.fetch(
        asked(), FRESH, (b"ETag", b'"v1"'), (b"Last-Modified", b"Sun, 06 Nov 1994 08:49:37 GMT"),
        (b"Content-Type", b"text/html"), (b"Content-Location", b"/x"), (b"Vary", b"Accept"),
    )  # fmt: skip
    answer = world.hit(asked(fields=fields))
    assert (answer.status, answer.body) == (status, body)
    names = [name for name, _ in parse_lines(answer.lines)]
    if status == 304:
        assert names == [b"Cache-Control", b"ETag", b"Content-Location", b"Vary", b"Date", b"Age", b"X-Cache"]
    else:
        assert b"Content-Type" in names


def test_only_a_success_becomes_304() -> None:
    """A stored 404 stays one, whatever the condition (RFC 9110 section 13.2.1)."""
    world = World()
    world.fetch(asked(), FRESH, (b"ETag", b'"v1"'), status=404)
    assert world.hit(asked(fields={"if_none_match": b'"v1"'})).status == 404


# --- what an answer allows


@pytest.mark.parametrize(
    "fields",
    [
        [(b"Cache-Control", b"private, max-age=60")],
        [(b"Cache-Control", b"no-store")],
        [(b"Cache-Control", b"no-cache, max-age=60")],
        [FRESH, (b"Set-Cookie", b"id=1")],
        [SHARED, (b"set-cookie", b"id=1")],
        [FRESH, (b"Vary", b"*")],
        [FRESH, (b"Vary", b"Accept, *")],
        [FRESH, (b"Vary", b"X-Forwarded-For")],
        [FRESH, (b"Vary", b"X-Real-IP")],
        [FRESH, (b"Vary", b"X-Request-ID")],
        [FRESH, (b"Vary", b"Connection")],
        [FRESH, (b"Vary", b"not a token")],
        [FRESH, (b"Vary", b",".join(b"x%d" % number for number in range(17)))],
        [FRESH, (b"Access-Control-Allow-Origin", b"https://a.example")],
        [FRESH, (b"Access-Control-Allow-Origin", b"https://a.example"), (b"Vary", b"Accept")],
    ],
)
def test_answers_that_are_not_kept(fields: Fields) -> None:
    """Forbidden, one client's, or not to be chosen by what is known of a request."""
    assert not kept(*fields)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [FRESH],
        [FRESH, (b"Vary", b"Accept-Encoding, Host"), (b"vary", b"accept")],
        [FRESH, (b"Access-Control-Allow-Origin", b"*")],
        [FRESH, (b"Access-Control-Allow-Origin", b"https://a.example"), (b"Vary", b"Origin")],
    ],
)
def test_answers_that_are_kept(fields: Fields) -> None:
    """Ordinary ones, and those that say what they depend on."""
    assert kept(*fields)


@pytest.mark.parametrize(
    ("status", "said", "heuristic"),
    [
        (200, True, True), (203, True, True), (204, True, True), (300, True, False), (301, True, True),
        (404, True, True), (405, True, False), (410, True, True), (414, True, False), (501, True, False),
        (206, False, False), (302, False, False), (304, False, False), (401, False, False), (500, False, False),
        (503, False, False),
    ],
)  # fmt: skip
def test_statuses(status: int, said: bool, heuristic: bool) -> None:
    """Some statuses are kept when they say for how long, some for the configured time."""
    assert kept(FRESH, status=status) is said
    assert kept(status=status) is heuristic


@pytest.mark.parametrize("personal", ["authorization", "cookie", "user", "claims", "route"])
def test_personal_requests_need_the_answers_permission(personal: str) -> None:
    """Their answers are not kept and they get none that was kept for the anonymous, unless it says it is for all."""

    def ask() -> Asked:
        request = asked(fields={personal: b"x"} if personal in ("authorization", "cookie") else {})
        request.user = "alice" if personal == "user" else ""
        request.claims = {"sub": ""} if personal == "claims" else {}
        return request

    world = World()
    if personal == "route":
        world.cache.serve(route(forward_auth=ForwardAuth("http://127.0.0.1:1/", 1.0, (), ())))
    assert world.fetch(ask(), FRESH, body=b"alice's") == b"miss"
    assert world.cache.entries == 0
    assert world.fetch(ask(), SHARED, body=b"for all") == b"miss"
    assert world.hit(ask()).body == b"for all"
    if personal != "route":
        world.fetch(asked(b"/anonymous"), FRESH)
        request = ask()
        request.path = b"/anonymous"
        assert world.cache(request) is None
        world.hit(asked(b"/anonymous"))


@pytest.mark.parametrize(
    "control", [b"public, max-age=9", b"s-maxage=9", b"must-revalidate, max-age=9"]
)
def test_permission_for_authorized_requests(control: bytes) -> None:
    """public, s-maxage and must-revalidate are permission (RFC 9111 section 3.5)."""
    assert kept((b"Cache-Control", control), request=asked(fields={"authorization": b"Basic x"}))


# --- Vary


def test_vary_chooses_by_request_fields() -> None:
    """Each value of the named fields has an answer of its own."""
    world = World()
    vary = (b"Vary", b"Accept-Language")
    world.fetch(asked(fields={"accept_language": b"de"}), FRESH, vary, body=b"ja")
    assert world.fetch(asked(fields={"accept_language": b"en"}), FRESH, vary, body=b"yes") == b"miss"
    assert world.fetch(asked(), FRESH, vary, body=b"-") == b"miss"
    assert world.hit(asked(fields={"accept_language": b"de"})).body == b"ja"
    assert world.hit(asked(fields={"accept_language": b"en"})).body == b"yes"
    assert world.hit(asked()).body == b"-"
    assert world.cache.entries == 3


def route(**settings: Any) -> HttpRoute:
    """A route with these settings."""
    plain = HttpRoute("r", "p", "", "", "", (), Timeouts(0, 0, 0, 0, 0, 0, 0), True)
    return msgspec.structs.replace(plain, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"auth": JwtAuth(("HS256",), ("i",), ("a",), secret=b"x" * 32, forward_claims=(("sub", "X-Who"),))},
        {"auth": ApiKeyAuth((), forward_name="X-Who")},
        {"auth": BasicAuth((), forward_user="X-Who")},
        {"forward_auth": ForwardAuth("http://127.0.0.1:1/", 1.0, (), ("X-Who",))},
        {"request_fields": FieldEdits(set=(("X-Who", "{client_ip}"),))},
        {"request_fields": FieldEdits(add=(("x-who", "1"),))},
    ],
)
def test_what_the_gateway_writes_chooses_no_variant(settings: dict[str, Any]) -> None:
    """An answer that depends on a field which is not the client's own cannot be told apart by its requests."""
    world = World()
    world.cache.serve(route(**settings))
    world.fetch(asked(), SHARED, (b"Vary", b"X-Who"))
    assert world.cache.entries == 0
    world.fetch(asked(), SHARED, (b"Vary", b"X-Other"))
    assert world.cache.entries == 1


def test_a_field_that_is_the_same_for_all_chooses_no_variant() -> None:
    """What the route removes or sets to a constant is no difference to the backend."""
    world = World()
    world.cache.serve(route(request_fields=FieldEdits(remove=("Accept-Encoding",), set=(("X-Env", "prod"),))))
    world.fetch(asked(), FRESH, (b"Vary", b"Accept-Encoding, X-Env"))
    world.hit(asked(fields={"accept_encoding": b"gzip", "x_env": b"dev"}))


# --- whole answers only


@pytest.mark.parametrize(
    ("length", "fed", "end", "whole"),
    [
        (4, b"body", "finish", True), (4, b"bod", "finish", False), (4, b"body!", "finish", False),
        (4, b"body", "abandon", False), (0, b"", "finish", True), (CHUNKED, b"body", "finish", True),
        (CHUNKED, b"", "finish", True), (CHUNKED, b"body", "abandon", False), (4, b"body", "", False),
    ],
)  # fmt: skip
def test_only_whole_answers_are_kept(length: int, fed: bytes, end: str, whole: bool) -> None:
    """Exactly the announced length, or a chunked body that ended as it should."""
    world = World()
    recording = world.cache.begin(asked(), 200, [FRESH], length)
    assert recording is not None
    recording.feed(fed)
    if end:
        getattr(recording, end)()
        getattr(recording, "abandon" if end == "finish" else "finish")()
    recording.feed(b"late")
    assert world.cache.entries == int(whole)
    if whole:
        assert world.hit(asked()).body == fed


def test_an_end_that_nobody_marked_is_not_kept() -> None:
    """A body that ends with its connection may have been cut."""
    assert World().cache.begin(asked(), 200, [FRESH], UNTIL_CLOSE) is None


def test_large_answers_are_not_kept() -> None:
    """An eighth of the room is the most for one, announced or found out on the way."""
    world = World(max_bytes=80_000)
    assert world.cache.begin(asked(), 200, [FRESH], 10_001) is None
    for length in (CHUNKED, 10_000):
        recording = world.cache.begin(asked(), 200, [FRESH], length)
        assert recording is not None
        for _ in range(11):
            recording.feed(b"x" * 1000)
        recording.finish()
        assert world.cache.entries == 0
    world.fetch(asked(), FRESH, body=b"x" * 8000)
    assert world.cache.entries == 1


def test_a_recording_that_became_too_large_gives_its_room_back_at_once() -> None:
    """Not only at its end, which may be far away."""
    world = World(max_bytes=80_000)
    recordings = [world.cache.begin(asked(b"/%d" % number), 200, [FRESH], CHUNKED) for number in range(3)]
    for recording, size in zip(recordings, (10_001, 8000, 8000), strict=True):
        assert recording is not None
        recording.feed(b"x" * size)
    for recording in recordings:
        assert recording is not None
        recording.finish()
    assert world.cache.entries == 2


def test_recordings_share_a_quarter_of_the_room() -> None:
    """Beyond it a recording is given up; what the others held comes free with their end."""
    world = World(max_bytes=80_000)
    recordings = []
    for number in range(5):
        recording = world.cache.begin(asked(b"/%d" % number), 200, [FRESH], CHUNKED)
        assert recording is not None
        recording.feed(b"x" * 4800)
        recordings.append(recording)
    for recording in recordings:
        recording.finish()
    assert world.cache.entries == 4
    assert world.fetch(asked(b"/after"), FRESH, body=b"x" * 8000) == b"miss"
    assert world.cache.entries == 5


def test_entries_are_bounded() -> None:
    """The least recently used goes first, and is counted."""
    world = World(max_entries=2)
    for path in (b"/a", b"/b"):
        world.fetch(asked(path), FRESH)
    world.hit(asked(b"/a"))
    world.fetch(asked(b"/c"), FRESH)
    assert world.cache(asked(b"/b")) is None
    world.hit(asked(b"/a"))
    assert (world.cache.entries, world.cache.evicted) == (2, 1)
    world.cache.evicted = 0
    assert world.cache.evicted == 0


# --- invalidation


@pytest.mark.parametrize(
    ("method", "status", "gone"),
    [
        (b"POST", 201, True), (b"PUT", 204, True), (b"DELETE", 303, True), (b"PATCH", 200, True),
        (b"POST", 404, False), (b"POST", 500, False), (b"OPTIONS", 200, False), (b"HEAD", 200, False),
    ],
)  # fmt: skip
def test_a_change_that_succeeds_invalidates(method: bytes, status: int, gone: bool) -> None:
    """A success of an unsafe method drops every variant of its URI, and what is being recorded (section 4.4)."""
    world = World()
    for value in (b"de", b"en"):
        world.fetch(asked(fields={"accept": value}), FRESH, (b"Vary", b"Accept"))
    world.fetch(asked(b"/other"), FRESH)
    under_way = world.cache.begin(asked(fields={"accept": b"fr"}), 200, [FRESH, (b"Vary", b"Accept")], 1)
    elsewhere = world.cache.begin(asked(b"/elsewhere"), 200, [FRESH], 1)
    assert under_way is not None
    assert elsewhere is not None
    assert world.fetch(asked(method=method), FRESH, status=status) == (b"miss" if method == b"HEAD" else b"bypass")
    for recording in (under_way, elsewhere):
        recording.feed(b"x")
        recording.finish()
    assert world.cache.entries == (2 if gone else 5)
    world.hit(asked(b"/other"))
    world.hit(asked(b"/elsewhere"))


# --- explain


def test_explain_says_what_would_be_done_and_changes_nothing() -> None:
    """Hit, miss or bypass with its reason; no counter moves, no entry is touched."""
    world = World()
    explained = world.cache.explain(asked())
    assert (explained.outcome, explained.facts) == (None, {"result": "miss", "personal": False})
    assert "is kept" in explained.text
    world.fetch(asked(), FRESH)
    world.now += 3
    counters = (world.cache.hits, world.cache.misses, world.cache.bypassed)
    explained = world.cache.explain(asked())
    assert explained.facts == {"result": "hit", "personal": False, "age": 3, "fresh_for": 57}
    assert "3 s old" in explained.text
    explained = world.cache.explain(asked(fields={"range": b"bytes=0-"}))
    assert explained.outcome is None
    assert explained.facts == {"result": "bypass", "personal": False, "why": "it asks for a range"}
    explained = world.cache.explain(asked(fields={"cookie": b"a=1"}))
    assert explained.facts == {"result": "miss", "personal": True}
    assert "public" in explained.text
    assert (world.cache.hits, world.cache.misses, world.cache.bypassed) == counters
    assert world.cache.explain(asked()).outcome == world.hit(asked())
    world.now += 60
    assert world.cache.explain(asked()).facts["result"] == "miss"
    assert world.cache.entries == 1


# --- properties

_names = st.sampled_from(["accept", "cookie", "cache_control", "if_none_match", "authorization"])
_values = st.sampled_from([b"a", b"b", b'"v"', b"no-cache", b"max-age=3", b"no-store"])
_controls = st.sampled_from([b"max-age=5", b"public, max-age=5", b"private", b"no-store", b"s-maxage=2", b""])


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"GET", b"GET", b"HEAD", b"POST"]),
            st.sampled_from([b"/a", b"/b"]),
            st.dictionaries(_names, _values, max_size=2),
            _controls,
            st.booleans(),
            st.integers(0, 2),
        ),
        max_size=25,
    )
)
@settings(max_examples=150)
def test_a_stored_answer_is_one_that_this_request_could_have_got(
    steps: list[tuple[bytes, bytes, dict[str, bytes], bytes, bool, int]],
) -> None:
    """Whatever was asked before: a hit was made for the same path and variant, is fresh, and is personal to nobody."""
    world = World(max_entries=4)
    bodies: dict[bytes, tuple[bytes, dict[str, bytes], bytes, bool, float]] = {}
    for number, (method, path, fields, control, varies, passed) in enumerate(steps):
        world.now += passed
        request = asked(path, method=method, fields=fields)
        outcome = world.cache(request)
        if isinstance(outcome, Answer):
            assert method in (b"GET", b"HEAD")
            if outcome.status == 304:
                continue
            stored_path, stored_fields, stored_control, stored_varies, made_at = bodies[outcome.body]
            assert stored_path == path
            assert stored_control not in (b"private", b"no-store")
            assert world.now - made_at < (30 if not stored_control else 2 if b"s-maxage" in stored_control else 5)
            if stored_varies:
                assert stored_fields.get("accept") == fields.get("accept")
            shared = stored_control in (b"public, max-age=5", b"s-maxage=2")
            secrets = {"cookie", "authorization"}
            assert shared or not (secrets & stored_fields.keys() or secrets & fields.keys())
            continue
        body = b"body %d" % number
        bodies[body] = (path, fields, control, varies, world.now)
        answer: Fields = [(b"ETag", b'"v"')]
        answer += [(b"Cache-Control", control)] if control else []
        answer += [(b"Vary", b"Accept")] if varies else []
        recording = world.cache.begin(request, 200, answer, len(body))
        if recording is not None:
            assert isinstance(recording, Recording)
            recording.feed(body)
            recording.finish()
        assert world.cache.entries <= 4
