"""forwardAuth: an external HTTP service decides about each request of a route, as in Traefik.

It is asked by GET, without a body, about

    X-Forwarded-Method, -Proto, -Host, -For      what was asked, of whom, by whom
    X-Forwarded-Uri                              path and query as they are matched: canonical, not yet rewritten
    X-Request-ID
    traceparent, tracestate                      where the request's trace is sampled: below our span of it
    the fields of the request                    those named by requestHeaders, as the client sent them; by default all

Never shown: hop-by-hop and framing fields, what the client claims about forwarding, identity fields. By default neither
are those that describe a body (there is none) or make an answer partial or conditional (Range, If-*: a 304 of the
service would be nobody's answer).

    its answer        what becomes of the request
    2xx               it passes; the backend gets the fields named by responseHeaders from the answer
    anything else     that is the answer: status, body, and the fields in _PASSED
    none              503 forward_auth_failed: not reachable, late, cut, not HTTP, too large (fail closed)

A field named by responseHeaders reaches the backend from the service or not at all: the head check removes it from
every request (SECURITY.md T8), and where the answer has none it is withheld here once more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING, Final

from gogate_py.addresses import is_ip
from gogate_py.dataplane.exchange_state import ExchangeState
from gogate_py.errors import Failure
from gogate_py.middleware.chain import Answer, Explained, Outcome, Refusal, RequestView
from gogate_py.snapshot import ForwardAuth
from gogate_py.wire.headers import REQUEST_SPECIAL, is_forwarding_name, split_fields

if TYPE_CHECKING:
    from gogate_py.dataplane.forward_auth_client import ServiceAnswer

# What an answer to a client may need of the service's: who to be, where to go, what this is and how to show it. Others
# are the service's own business (Server, Date), the gateway's (CORS) or for backends.
_PASSED: Final = {
    name.lower().encode(): name.encode()
    for name in (
        "Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Security-Policy",
        "Content-Type", "Expires", "Link", "Location", "Pragma", "Referrer-Policy", "Refresh", "Retry-After",
        "Set-Cookie", "Vary", "WWW-Authenticate", "X-Content-Type-Options", "X-Frame-Options",
    )
}  # fmt: skip
_OF_ANSWERS: Final = (b"content-", b"if-")


class ForwardAuthStage:
    """Asks one service; shared by the routes with the same settings."""

    name = "forward_auth"

    __slots__ = ("_client", "_copied", "_settings", "_shown")

    def __init__(self, settings: ForwardAuth) -> None:
        # Loads h11, which a worker without a forwardAuth does not need.
        from gogate_py.dataplane.forward_auth_client import ServiceClient

        self._settings = settings
        self._client = ServiceClient(settings.url)
        self._shown = frozenset(name.lower().encode() for name in settings.request_headers)
        self._copied = [(name.encode(), name.lower().encode()) for name in settings.response_headers]

    def __call__(self, request: RequestView) -> Awaitable[Outcome]:
        """Wait for the service's decision."""
        return self._decide(request)

    def explain(self, request: RequestView) -> Explained:
        """Nobody is asked."""
        settings = self._settings
        facts = {
            "url": settings.url,
            "timeout": settings.timeout,
            "request_headers": list(settings.request_headers) or "all",
            "response_headers": list(settings.response_headers),
        }
        return Explained(None, f"would ask {settings.url}: 2xx passes, anything else is the answer", facts)

    def close(self) -> None:
        """Let go of idle connections; questions under way are answered."""
        self._client.close()

    async def _decide(self, request: RequestView) -> Outcome:
        from gogate_py.dataplane.forward_auth_client import AskError

        try:
            answer = await self._client.ask(self._question(request), self._settings.timeout)
        except AskError as error:
            return Refusal(Failure.FORWARD_AUTH_FAILED, error.text, counted=error.word)
        if not 200 <= answer.status <= 299:
            return _as_answer(answer)
        for name, lower in self._copied:
            values = [value for field, value in answer.fields if field == lower]
            if values:
                request.forward(name, b", ".join(values))
            else:
                request.withhold(lower)
        return None

    def _question(self, request: RequestView) -> list[tuple[bytes, bytes]]:
        """The fields that the service is asked with."""
        fields = [
            (b"X-Forwarded-Method", request.method),
            (b"X-Forwarded-Proto", request.scheme),
            (b"X-Forwarded-Uri", request.path + request.query),
        ]
        if request.host:  # HTTP/1.0 may have none
            fields.append((b"X-Forwarded-Host", request.host))
        if is_ip(request.client):  # no address behind a Unix socket
            fields.append((b"X-Forwarded-For", request.client.encode()))
        if request.request_id:
            fields.append((b"X-Request-ID", request.request_id))
        assert isinstance(request, ExchangeState)
        if request.trace is not None:
            for line in request.trace.lines(request.trace.span_id).splitlines():
                name, _, value = line.partition(b": ")
                fields.append((name, value))
        shown = self._shown
        for field in _fields_of(request):
            lower = field[0].lower()
            if lower in REQUEST_SPECIAL or is_forwarding_name(lower):
                continue
            if lower in shown if shown else lower != b"range" and not lower.startswith(_OF_ANSWERS):
                fields.append(field)
        return fields


def _fields_of(request: ExchangeState) -> Iterable[tuple[bytes, bytes]]:
    """Every field line of a request as it came: joined lines (two Cookie fields) could mean something else to the
    service than to the backend."""
    if request.checked is not None:
        return request.checked.fields
    head = request.raw_head  # found clean as a whole
    lines = split_fields(head[head.index(b"\r\n") + 2 :], Failure.BAD_REQUEST)
    return [(name, value.strip(b" \t")) for name, value in lines]


def _as_answer(answer: ServiceAnswer) -> Answer:
    """The service's answer for the client."""
    lines = [b"%b: %b\r\n" % (_PASSED[name], value) for name, value in answer.fields if name in _PASSED]
    return Answer(answer.status, b"".join(lines), answer.body, "forward_auth")
