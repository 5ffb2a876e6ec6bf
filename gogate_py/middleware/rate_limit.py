"""Rate limit stage: one token a request, 429 with a computed Retry-After when there is none."""

from __future__ import annotations

from typing import Protocol

from gogate_py.errors import Failure
from gogate_py.middleware.chain import Refusal, RequestView


class Limiter(Protocol):
    """A bucket, wherever its tokens are kept."""

    def try_take(self) -> bool:
        """Take one token if there is one."""
        ...

    def retry_after(self) -> int:
        """Whole seconds until the next token, at least 1."""
        ...


class RateLimitStage:
    """The limit of one bucket that all requests share."""

    __slots__ = ("_limiter",)

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def __call__(self, request: RequestView) -> Refusal | None:
        if self._limiter.try_take():
            return None
        return Refusal(Failure.RATE_LIMITED, Failure.RATE_LIMITED.detail, self._limiter.retry_after())
