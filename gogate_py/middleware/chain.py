"""Stages: what stands between a matched route and the pick of a backend.

A stage is a synchronous callable compiled into its route's tuple (pipeline). Its outcome decides what becomes of the
request:

    None        it passes
    Refusal     the gateway answers with a failure of errors.py
    Answer      the gateway answers with this (a redirect, a preflight, a stored answer)
    NeedBody    asked again when the request's body is here, up to a limit
    awaitable   asked for its outcome when it is done; only that request waits

The order is fixed (DESIGN.md section 4):

    request id → route → addresses → CORS → rate limits without identity → authentication → forwardAuth → rate limits by
    identity → cache → redirect, fixed response → transform → split → pick

A stage sees the request through RequestView and nothing of connections. ``explain`` says what the stage would do and
changes nothing: no token is taken, nobody is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, NamedTuple, Protocol

from gogate_py.errors import Failure


class RequestView(Protocol):
    """What a stage sees of a request. Bytes as they will be forwarded."""

    method: bytes
    path: bytes  # canonical (SECURITY.md T11)
    query: bytes  # with its "?", or b""
    host: bytes  # as received, port included
    client: str  # the resolved client address
    scheme: bytes  # http | https
    request_id: bytes
    body: bytes | None  # what a NeedBody asked for
    user: str  # who was authenticated; "" = nobody
    claims: Mapping[str, Any]  # of a verified token; {} without

    def field(self, name: bytes) -> bytes | None:
        """The value of a header field (name in lower case); several lines are joined with ", ", None without any."""
        ...

    def forward(self, name: bytes, value: bytes) -> None:
        """Set a field of the request to the backend: it replaces what the client sent under any spelling of the name.
        ``value`` must be a valid field value (no CR, LF, NUL)."""
        ...

    def withhold(self, name: bytes) -> None:
        """Do not send a field (name in lower case) to the backend."""
        ...


class Refusal(NamedTuple):
    """A failure instead of the backend's answer. ``retry_after`` seconds, 0 = not sent; ``lines`` are finished header
    lines, each ending in CRLF (WWW-Authenticate)."""

    failure: Failure
    detail: str = ""
    retry_after: int = 0
    lines: bytes = b""
    counted: str = ""  # a word for the metric of the stage (auth failures by reason)


class Answer(NamedTuple):
    """An answer of the gateway's own. ``lines`` are finished header lines without framing, Content-Length is added;
    ``reason`` is for log and metric."""

    status: int
    lines: bytes
    body: bytes
    reason: str


class NeedBody(NamedTuple):
    """The stage must read the request's body, of at most ``limit`` bytes (413 beyond); it is sent on afterwards."""

    limit: int


Outcome = Refusal | Answer | NeedBody | None


class Explained(NamedTuple):
    """What a stage would do: its outcome, a sentence for people, and the facts behind it for --json."""

    outcome: Refusal | Answer | None
    text: str
    facts: dict[str, Any]


class Stage(Protocol):
    """One stage of one route."""

    #: What explain and metrics call it: "rate_limit", "auth", "cors" …
    name: str

    def __call__(self, request: RequestView) -> Outcome | Awaitable[Outcome]:
        """Let pass (None), refuse, answer, or wait."""
        ...

    def explain(self, request: RequestView) -> Explained:
        """What :meth:`__call__` would do, without doing it."""
        ...


class ResponseFilter(Protocol):
    """Changes the header fields of an answer, the gateway's own ones included."""

    def __call__(self, request: RequestView, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        """Change ``fields`` (names as received, no framing, no hop-by-hop) in place."""
        ...
