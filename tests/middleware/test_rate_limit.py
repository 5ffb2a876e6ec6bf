"""The rate limit stage: which limits count a request, what the answer says, and what explain promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.errors import Failure, WireError
from gogate_py.middleware.chain import NeedBody, Refusal
from gogate_py.middleware.rate_limit import RateLimitStage, connection_limits, split_limits
from gogate_py.middleware.request_view import field_of_list
from gogate_py.policy.rate_limiter import EMPTY, State, new_algorithm
from gogate_py.snapshot import RateLimit

S = 1_000_000_000
FORM = (b"Content-Type", b"application/x-www-form-urlencoded")


class Request:
    """A request as stages see it."""

    method = b"GET"
    path = b"/"
    host = b"a"
    scheme = b"http"
    request_id = b"1"

    def __init__(
        self,
        *fields: tuple[bytes, bytes],
        client: str = "192.0.2.1",
        query: bytes = b"",
        body: bytes | None = None,
        user: str = "",
    ) -> None:
        self.fields = fields
        self.client = client
        self.query = query
        self.body = body
        self.user = user
        self.claims: Mapping[str, Any] = {}

    def field(self, name: bytes) -> bytes | None:
        """A header field's value."""
        return field_of_list(self.fields, name)

    def forward(self, name: bytes, value: bytes) -> None:
        """A limit changes nothing."""
        raise AssertionError(name)

    def withhold(self, name: bytes) -> None:
        """A limit changes nothing."""
        raise AssertionError(name)


class Memory:
    """A limiter that keeps its states in a dictionary; time stands still unless it is moved."""

    def __init__(self, limit: RateLimit) -> None:
        self.algorithm = new_algorithm(limit)
        self.states: dict[bytes, State] = {}
        self.now = 10**15
        self.rejected = 0
        self.asked = 0

    def try_take(self, key: bytes) -> bool:
        """Count one."""
        self.asked += 1
        admitted, self.states[key] = self.algorithm.take(self.states.get(key, EMPTY), self.now)
        self.rejected += not admitted
        return admitted

    def give_back(self, key: bytes) -> None:
        """Uncount one."""
        self.states[key] = self.algorithm.charge(self.states[key], -1, self.now, self.now)

    def peek(self, key: bytes) -> tuple[int, int]:
        """How many are left, and the wait for one."""
        return self.algorithm.peek(self.states.get(key, EMPTY), self.now)


def limited(
    *keys: str, burst: int = 2, name: str = "", rate: float = 1.0, per: float = 1.0
) -> tuple[RateLimit, Memory]:
    """A token bucket by these keys."""
    limit = RateLimit(0, rate, per, burst, "token_bucket", keys, name)
    return limit, Memory(limit)


def admits(stage: RateLimitStage, request: Request) -> bool:
    """Whether a request passes."""
    return stage(request) is None


def test_each_request_takes_one_and_the_answer_says_when_to_come_again() -> None:
    """429 with the time until the next token, rounded up, and with the limit's policy."""
    stage = RateLimitStage([limited("global", burst=2, name="all", rate=6, per=60.0)])
    assert [admits(stage, Request()) for _ in range(2)] == [True, True]
    refusal = stage(Request())
    assert isinstance(refusal, Refusal)
    assert (refusal.failure, refusal.retry_after, refusal.counted) == (Failure.RATE_LIMITED, 10, "all")
    assert refusal.lines == b'RateLimit-Policy: "all";q=6;w=60\r\nRateLimit: "all";r=0;t=10\r\n'


@pytest.mark.parametrize(("rate", "per", "seconds"), [(2, 3.0, 2), (1, 2.0, 2), (1000, 1.0, 1), (1, 2.001, 3)])
def test_the_wait_is_rounded_up(rate: float, per: float, seconds: int) -> None:
    """Who waits for Retry-After is admitted: never a second too early, and at least one."""
    limit, limiter = limited("global", burst=1, rate=rate, per=per)
    stage = RateLimitStage([(limit, limiter)])
    stage(Request())
    refusal = stage(Request())
    assert isinstance(refusal, Refusal)
    assert refusal.retry_after == seconds
    limiter.now += seconds * S
    assert admits(stage, Request())


@pytest.mark.parametrize(
    ("rate", "per", "policy"),
    [
        (1000, 1.0, b"q=1000;w=1"),
        (100, 60.0, b"q=100;w=60"),
        (10, 0.5, b"q=20;w=1"),
        (0.5, 1.0, b"q=1;w=2"),
        (2.5, 1.0, b"q=2;w=1"),
        (1, 90.5, b"q=1;w=91"),
    ],
)
def test_policies_are_in_whole_seconds_and_requests(rate: float, per: float, policy: bytes) -> None:
    """RateLimit fields hold integers: what does not come out even promises less rather than more."""
    stage = RateLimitStage([limited("global", burst=1, name="x", rate=rate, per=per)])
    stage(Request())
    refusal = stage(Request())
    assert isinstance(refusal, Refusal)
    assert refusal.lines.split(b"\r\n")[0] == b'RateLimit-Policy: "x";' + policy


@pytest.mark.parametrize(
    ("name", "shown"),
    [("per client", b"per client"), ("", b"token_bucket"), ('a"b\\c', b"a?b?c"), ("\r\nX: y", b"??X: y"), ("ä", b"?")],
)
def test_names_cannot_leave_their_quotes(name: str, shown: bytes) -> None:
    """A limit's name is a structured field's string (RFC 9651 section 3.3.3), whatever it was called."""
    stage = RateLimitStage([limited("global", burst=1, name=name)])
    stage(Request())
    refusal = stage(Request())
    assert isinstance(refusal, Refusal)
    assert refusal.lines.count(b'"%b";' % shown) == 2
    assert refusal.lines.count(b"\r\n") == 2


def test_each_value_of_a_key_is_limited_by_itself() -> None:
    """One client that uses up its share takes nothing from another."""
    stage = RateLimitStage([limited("ip", burst=1)])
    assert admits(stage, Request(client="192.0.2.1"))
    assert not admits(stage, Request(client="192.0.2.1"))
    assert admits(stage, Request(client="192.0.2.2"))


def test_a_value_of_one_kind_is_not_the_same_value_of_another() -> None:
    """A header that looks like another client's key does not use up that client's share."""
    stage = RateLimitStage([limited("header:X", "query:x", "ip", burst=1)])
    assert admits(stage, Request((b"X", b"acme")))
    assert admits(stage, Request(query=b"?x=acme"))
    assert not admits(stage, Request((b"X", b"acme")))
    assert admits(stage, Request((b"X", bytes((192, 0, 2, 1)))))
    assert admits(stage, Request())
    assert not admits(stage, Request())


def test_a_request_without_any_value_is_limited_by_its_address() -> None:
    """Leaving out the header that a limit counts by is no way around it."""
    stage = RateLimitStage([limited("header:X-API-Key", burst=1)])
    assert admits(stage, Request((b"X-API-Key", b"a")))
    assert admits(stage, Request())
    assert not admits(stage, Request())
    assert admits(stage, Request(client="192.0.2.2"))


def test_global_first_in_a_list_is_global() -> None:
    """What comes after a spec that always yields a value is never asked for."""
    limit = limited("global", "header:X", burst=1)
    stage = RateLimitStage([limit])
    assert admits(stage, Request((b"X", b"1")))
    assert not admits(stage, Request((b"X", b"2")))
    assert list(limit[1].states) == [b""]


def test_all_limits_must_admit_and_a_refused_request_counts_for_none() -> None:
    """A client that is over its own limit does not use up what it shares with others."""
    shared, own = limited("global", burst=5, name="shared"), limited("ip", burst=2, name="own")
    stage = RateLimitStage([shared, own])
    verdicts = [admits(stage, Request()) for _ in range(20)]
    assert verdicts == [True] * 2 + [False] * 18
    assert shared[1].peek(b"")[0] == 3
    assert own[1].rejected == 18
    assert shared[1].rejected == 0
    assert [admits(stage, Request(client="192.0.2.9")) for _ in range(3)] == [True, True, False]


def test_the_limit_that_refused_last_is_asked_first() -> None:
    """Under overload a refusal costs one question, not one for each limit."""
    shared, own = limited("global", burst=5), limited("ip", burst=1)
    stage = RateLimitStage([shared, own])
    for _ in range(2):
        stage(Request())
    asked = shared[1].asked
    for _ in range(10):
        assert not admits(stage, Request())
    assert shared[1].asked == asked


def test_the_longest_wait_counts() -> None:
    """When several limits are full, Retry-After is when all of them have room again."""
    stage = RateLimitStage([limited("global", burst=1, rate=1), limited("ip", burst=1, rate=1, per=30.0, name="slow")])
    assert admits(stage, Request())
    refusal = stage(Request())
    assert isinstance(refusal, Refusal)
    assert refusal.retry_after == 30


def test_nothing_is_counted_for_a_request_that_cannot_be_read() -> None:
    """A malformed query refuses the request before any limit has counted it."""
    shared = limited("global", burst=1)
    stage = RateLimitStage([shared, limited("query:a")])
    with pytest.raises(WireError):
        stage(Request(query=b"?a=%zz"))
    assert shared[1].states == {}


def test_a_form_is_read_before_anything_is_counted() -> None:
    """The stage asks for the body once, then counts by the form's field."""
    shared, by_form = limited("global", burst=9), limited("form:user", burst=1)
    stage = RateLimitStage([shared, by_form])
    request = Request(FORM)
    assert stage(request) == NeedBody(65536)
    assert shared[1].states == {}
    request.body = b"user=alice"
    assert admits(stage, request)
    assert not admits(stage, Request(FORM, body=b"user=alice&x=1"))
    assert admits(stage, Request(FORM, body=b"user=bob"))
    assert admits(stage, Request())


def test_limits_by_identity_come_after_authentication() -> None:
    """split_limits: any identity in a key's list, and the limit waits for it."""
    lists = [("global",), ("header:X", "jwt:sub"), ("ip",), ("user",), ("global", "user")]
    limits = [limited(*keys) for keys in lists]
    before, after = split_limits(limits)
    assert before == [limits[0], limits[2], limits[4]]
    assert after == [limits[1], limits[3]]


def test_explain_says_what_would_happen_and_counts_nothing() -> None:
    """Key, what is left, and when to come again, for every limit; no value of a key is told."""
    limits = [limited("global", burst=3, name="all"), limited("header:X", "ip", burst=1, name="own", per=20.0)]
    stage = RateLimitStage(limits)
    request = Request((b"X", b"topsecret"))
    assert stage.name == "rate_limit"
    assert stage.explain(request).outcome is None
    assert stage(request) is None
    for _ in range(3):
        explained = stage.explain(request)
    assert explained.outcome == stage(request)
    assert explained.text == "all by global: 2 of 3 left; own by header:X: none of 1 left for 20 s"
    facts = explained.facts["limits"]
    assert [(one["name"], one["key"], one["left"], one["most"], one["retry_after"]) for one in facts] == [
        ("all", "global", 2, 3, 0),
        ("own", "header:X", 0, 1, 20),
    ]
    assert "topsecret" not in repr(explained)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["global", "ip", "header:X"]), st.integers(1, 4)), min_size=1, max_size=4),
    st.lists(st.tuples(st.sampled_from(["192.0.2.1", "192.0.2.2"]), st.sampled_from([b"", b"a", b"b"])), max_size=30),
)
def test_what_explain_says_is_what_happens(specs: list[tuple[str, int]], requests: list[tuple[str, bytes]]) -> None:
    """For any limits and requests: refused as explained, and admitted only if every limit had one left."""
    limits = [limited(spec, burst=burst, name=str(number)) for number, (spec, burst) in enumerate(specs)]
    stage = RateLimitStage(limits)
    for client, header in requests:
        request = Request((b"X", header), client=client)
        explained = stage.explain(request)
        before = [one["left"] for one in explained.facts["limits"]]
        outcome = stage(request)
        after = [one["left"] for one in stage.explain(request).facts["limits"]]
        assert (outcome is None) == (explained.outcome is None) == all(before)
        taken = 1 if outcome is None else 0
        assert after == [left - taken for left in before]
        if isinstance(outcome, Refusal) and isinstance(explained.outcome, Refusal):
            assert outcome.retry_after == explained.outcome.retry_after


def test_connections_are_counted_by_address() -> None:
    """The same limiters for connections: all must admit, and one that is refused counts for none."""
    shared, own = limited("global", burst=3), limited("ip", burst=2)
    admit = connection_limits([shared, own])
    assert [admit("192.0.2.1") for _ in range(4)] == [True, True, False, False]
    assert shared[1].peek(b"")[0] == 1
    assert [admit("2001:db8::1"), admit("192.0.2.3")] == [True, False]
    single = connection_limits([limited("ip", burst=1)])
    assert [single("2001:db8::1"), single("2001:db8::2"), single("unix")] == [True, False, True]
    assert connection_limits([])("192.0.2.1")


def test_a_client_has_one_share_over_requests_and_connections() -> None:
    """A connection and a request of the same address are counted by the same key."""
    limit = limited("ip", burst=1)
    assert connection_limits([limit])("192.0.2.1")
    assert not admits(RateLimitStage([limit]), Request(client="192.0.2.1"))
