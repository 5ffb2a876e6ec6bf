"""The rate limit stage."""

from __future__ import annotations

from gogate_py.errors import Failure
from gogate_py.middleware.rate_limit import RateLimitStage


class Request:
    """What a stage sees of a request."""

    method = b"GET"
    path = b"/"
    query = b""
    host = b"a"
    client = "127.0.0.1"


class Limiter:
    """So many tokens, then a wait of 7 s."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def try_take(self) -> bool:
        self.tokens -= 1
        return self.tokens >= 0

    def retry_after(self) -> int:
        return 7


def test_lets_pass_while_there_are_tokens() -> None:
    """One token a request; without one it is refused with the time until the next."""
    stage = RateLimitStage(Limiter(2))
    assert stage(Request()) is None
    assert stage(Request()) is None
    refusal = stage(Request())
    assert refusal is not None
    assert (refusal.failure, refusal.retry_after) == (Failure.RATE_LIMITED, 7)
