"""The table of retries, back-off, and the budget over time."""

from __future__ import annotations

import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.policy.retry import Kind, RetryBudget, RetryPolicy, Verdict
from gogate_py.snapshot import Retry


def policy(
    *,
    attempts: int = 3,
    connect: bool = True,
    reset: bool = True,
    timeout: bool = True,
    statuses: tuple[int, ...] = (502, 503, 504),
    methods: tuple[str, ...] = ("idempotent",),
) -> RetryPolicy:
    """A policy with back-off 25 ms to 250 ms."""
    return RetryPolicy(
        Retry(attempts, 0.0, 65536, connect, reset, timeout, statuses, 0.025, 0.25, budget_percent=20, methods=methods)
    )


IDEMPOTENT = (b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE")


@pytest.mark.parametrize("methods", [("idempotent",), (), ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE")])
def test_idempotent_methods(methods: tuple[str, ...]) -> None:
    """Idempotent methods may be repeated, others never, with an Idempotency-Key or without (RFC 9110 section 9.2.2)."""
    for key in (False, True):
        for method in IDEMPOTENT:
            assert policy(methods=methods).may_repeat(method, key)
        for method in (b"POST", b"PATCH", b"get", b"", b"CONNECT", b"idempotent"):
            assert not policy(methods=methods).may_repeat(method, key)


def test_named_methods() -> None:
    """A method that is not idempotent is repeated where it is named and has a key; naming idempotent ones leaves only
    those."""
    post = policy(methods=("POST",))
    assert post.may_repeat(b"POST", True)
    assert not post.may_repeat(b"POST", False)
    assert not post.may_repeat(b"PATCH", True)
    assert post.may_repeat(b"GET", False)
    some = policy(methods=("GET", "POST"))
    assert some.may_repeat(b"GET", False)
    assert not some.may_repeat(b"PUT", True)
    assert some.may_repeat(b"POST", True)
    assert policy(methods=("idempotent", "GET", "POST")).may_repeat(b"PUT", False)


@pytest.mark.parametrize(
    ("kind", "sent", "repeatable", "replayable", "expected"),
    [
        # nothing was sent: whatever the method
        ("connect", False, True, True, "connect"),
        ("connect", False, False, True, "connect"),
        ("connect", False, True, False, "body not held"),
        ("reset", False, False, True, "reset"),
        ("reset", False, False, False, "body not held"),
        # a byte may have reached a backend
        ("reset", True, True, True, "reset"),
        ("reset", True, False, True, "not idempotent"),
        ("reset", True, True, False, "body not held"),
        ("timeout", True, True, True, "timeout"),
        ("timeout", True, False, True, "not idempotent"),
        ("timeout", True, True, False, "body not held"),
        (503, True, True, True, "503"),
        (503, True, False, True, "not idempotent"),
        (503, True, True, False, "body not held"),
        # an answer means that it was sent, whatever the caller says
        (503, False, False, True, "not idempotent"),
        (500, True, True, True, "not configured"),
        (200, True, True, True, "not configured"),
    ],
)
def test_the_table(kind: Kind, sent: bool, repeatable: bool, replayable: bool, expected: str) -> None:
    """Each line of the table, with attempts left."""
    verdict = policy().verdict(kind, attempts=1, sent=sent, repeatable=repeatable, replayable=replayable)
    assert verdict == Verdict(expected == str(kind), expected)


KINDS: tuple[Kind, ...] = ("connect", "reset", "timeout", 502, 500)


@pytest.mark.parametrize("kind", KINDS)
def test_never_twice_what_must_not_be(kind: Kind) -> None:
    """Over all cases: no retry after a byte of the answer, none when attempts are used up, none of a request that may
    not be repeated once a byte was sent, none without its body."""
    flags = (False, True)
    for attempts, sent, repeatable, replayable, answered, another, after in product(
        range(1, 5), flags, flags, flags, flags, flags, (None, 0.1, 10.0)
    ):
        verdict = policy().verdict(
            kind, attempts=attempts, sent=sent, repeatable=repeatable, replayable=replayable, answered=answered,
            another=another, retry_after=after)  # fmt: skip
        if answered or attempts >= 3 or not replayable or (sent and not repeatable):
            assert not verdict.retry
        if not verdict.retry:
            assert verdict.wait == 0.0


def test_kinds_are_selectable() -> None:
    """Only the kinds that are configured are retried; a dead kept connection counts as either of two."""

    def retried(chosen: RetryPolicy, kind: Kind, *, sent: bool) -> bool:
        return chosen.verdict(kind, attempts=1, sent=sent, repeatable=True, replayable=True).retry

    assert not retried(policy(connect=False), "connect", sent=False)
    assert not retried(policy(reset=False), "reset", sent=True)
    assert not retried(policy(timeout=False), "timeout", sent=True)
    assert not retried(policy(statuses=()), 503, sent=True)
    assert retried(policy(reset=False), "reset", sent=False)
    assert retried(policy(connect=False), "reset", sent=False)
    assert not retried(policy(connect=False, reset=False), "reset", sent=False)
    assert not retried(policy(timeout=False), "timeout", sent=False)


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_attempts(attempts: int) -> None:
    """Tries in all, the first included: 1 means never again."""
    made = 1
    while policy(attempts=attempts).verdict(
        "connect", attempts=made, sent=False, repeatable=True, replayable=True
    ).retry:
        made += 1
    assert made == attempts


@pytest.mark.parametrize(
    ("another", "retry_after", "expected"),
    [
        (True, None, Verdict(True, "503")),
        (True, 3600.0, Verdict(True, "503")),
        (False, None, Verdict(True, "503")),
        (False, 0.0, Verdict(True, "503", 0.0)),
        (False, 0.2, Verdict(True, "503", 0.2)),
        (False, 0.25, Verdict(True, "503", 0.25)),
        (False, 0.26, Verdict(False, "Retry-After too long")),
        (False, -5.0, Verdict(True, "503", 0.0)),
        (False, float("inf"), Verdict(False, "Retry-After too long")),
    ],
)
def test_retry_after(another: bool, retry_after: float | None, expected: Verdict) -> None:
    """Another backend is asked at once; the same one only after its Retry-After, if that is not above maxBackoff."""
    assert expected == policy().verdict(
        503, attempts=1, sent=True, repeatable=True, replayable=True, another=another, retry_after=retry_after
    )


def test_backoff_is_full_jitter() -> None:
    """The delay is uniform below a bound that doubles from backoff to maxBackoff, however high the number."""
    generator = random.Random(1)
    for attempt, bound in [(1, 0.025), (2, 0.05), (3, 0.1), (4, 0.2), (5, 0.25), (6, 0.25), (100000, 0.25)]:
        delays = [policy().backoff(attempt, generator) for _ in range(500)]
        assert 0.0 <= min(delays) < bound * 0.05
        assert bound * 0.95 < max(delays) < bound
        assert abs(sum(delays) / 500 - bound / 2) < bound * 0.06


class TestBudget:
    """Retries in proportion to requests, over ten seconds."""

    def test_the_reserve(self) -> None:
        """Without any traffic ten retries are there, and ten more when those have expired."""
        budget = RetryBudget(20)
        for start in (1000.0, 1010.0, 5000.0):
            assert [budget.withdraw(start + i / 100) for i in range(12)] == [True] * 10 + [False] * 2
            assert not budget.withdraw(start + 9.9)

    def test_requests_deposit(self) -> None:
        """A hundred requests are worth twenty retries at 20 percent, besides the reserve."""
        budget = RetryBudget(20)
        for _ in range(100):
            budget.deposit(50.0)
        assert budget.balance(50.0) == 30.0
        assert sum(budget.withdraw(50.5) for _ in range(100)) == 30
        assert budget.balance(50.5) == 0.0

    def test_deposits_expire(self) -> None:
        """What was not used within ten seconds is gone: a quiet hour saves nothing up for a storm."""
        budget = RetryBudget(20)
        for _ in range(1000):
            budget.deposit(50.0)
        assert budget.balance(59.9) == 210.0
        assert budget.balance(60.0) == 10.0
        assert sum(budget.withdraw(3600.0) for _ in range(1000)) == 10

    def test_no_budget(self) -> None:
        """0 percent means no bound."""
        budget = RetryBudget(0)
        assert all(budget.withdraw(1.0) for _ in range(1000))
        assert budget.balance(1.0) == float("inf")

    def test_time_that_goes_back_a_little(self) -> None:
        """An earlier moment counts for the current second and clears nothing."""
        budget = RetryBudget(50)
        for _ in range(4):
            budget.deposit(100.0)
        budget.deposit(98.0)
        assert budget.balance(97.0) == 12.5
        assert budget.balance(100.5) == 12.5

    @settings(max_examples=80, deadline=None)
    @given(
        percent=st.integers(1, 100),
        events=st.lists(st.tuples(st.floats(0.0, 4.0), st.integers(0, 30), st.integers(0, 30)), max_size=30),
    )
    def test_against_a_plain_count(self, percent: int, events: list[tuple[float, int, int]]) -> None:
        """It allows exactly what counting every deposit and withdrawal of the last ten whole seconds allows."""
        budget = RetryBudget(percent)
        deposits: list[int] = []
        taken: list[int] = []
        now = 1234.5
        for later, requests, retries in events:
            now += later
            second = int(now)
            for _ in range(requests):
                budget.deposit(now)
            deposits += [second] * requests
            for _ in range(retries):
                had = sum(percent for s in deposits if s > second - 10) - sum(100 for s in taken if s > second - 10)
                allowed = had + 1000 >= 100
                assert budget.withdraw(now) == allowed
                if allowed:
                    taken.append(second)
