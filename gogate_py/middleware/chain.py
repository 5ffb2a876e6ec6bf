"""Stages: what stands between a matched route and the pick of a backend.

A stage is a synchronous callable compiled into its route's tuple. It returns None to let the request pass, or a
Refusal, which is answered by the gateway. The order is fixed (DESIGN.md section 4):

    request id → route → CORS → rate limits without identity → authentication → rate limits by identity → cache →
    transform → split → pick

A stage sees the request through RequestView and nothing of connections.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from gogate_py.errors import Failure


class RequestView(Protocol):
    """What a stage sees of a request. Bytes as they will be forwarded; ``client`` is the resolved client address."""

    method: bytes
    path: bytes
    query: bytes
    host: bytes
    client: str


class Refusal(NamedTuple):
    """A stage's answer instead of the backend's. ``retry_after`` seconds, 0 = not sent."""

    failure: Failure
    detail: str
    retry_after: int = 0


class Stage(Protocol):
    """One stage of one route."""

    def __call__(self, request: RequestView) -> Refusal | None:
        """Let pass (None) or refuse."""
        ...
