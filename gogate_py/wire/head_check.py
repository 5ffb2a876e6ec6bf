"""The strict check of a request or response head: every rule about the syntax of a message that gogate promises.

No parser is strict enough alone (SECURITY.md section 1), so this check decides, and a second opinion (llhttp_check) may
only refuse more. A head that passes is taken apart so completely that nothing of its bytes is forwarded unread:
framing, hop-by-hop fields and fields that gogate sets are out of the list and written anew (forwarding).

Refusals are WireErrors whose Failure says the status. The order is fixed: sizes, request line, version, method, fields,
Host, framing, expectations.

Does not know: bodies (chunked), what is forwarded (forwarding), who may be believed (the data plane).
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

from gogate_py.errors import Failure, WireError
from gogate_py.wire.framing import content_length, has_body, is_chunked
from gogate_py.wire.headers import (
    NOT_NOMINABLE,
    REQUEST_ID,
    REQUEST_SPECIAL,
    RESPONSE_SPECIAL,
    TOKEN,
    TRACE_ASKED,
    VALUE,
    dashed,
    is_alias,
    is_clean_name,
    is_forwarding_name,
    is_token,
    list_elements,
    split_fields,
    without,
)
from gogate_py.wire.target import is_valid_host, split_target

__all__ = [
    "DEFAULT_METHODS",
    "HeadLimits",
    "RequestHead",
    "ResponseHead",
    "check_request_head",
    "check_response_head",
    "early_refusal",
    "find_head_end",
    "has_body",
    "strip_leading_empty_line",
]

Buffer = TypeVar("Buffer", bytes, bytearray)

DEFAULT_METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"))

_request_line: Final = re.compile(rb"(%b+) ([!-~]+) HTTP/([0-9])\.([0-9])" % TOKEN).fullmatch
_status_line: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: (%b*))?" % VALUE).fullmatch
# A bare LF (a CR at the end of the buffer is no CRLF yet, so the look is back from the LF) or a NUL.
_hopeless: Final = re.compile(rb"(?<!\r)\n|\x00").search
_request_id: Final = re.compile(rb"[A-Za-z0-9._\-]{1,128}").fullmatch


class HeadLimits:
    """Sizes in bytes, counts, the methods taken and what happens to names outside [A-Za-z0-9-] (T5, T13, T20)."""

    __slots__ = (
        "escaped_slashes",
        "header_names",
        "identity",
        "methods",
        "request_fields",
        "request_head",
        "request_line",
        "response_fields",
        "response_head",
        "trace_context",
    )

    def __init__(
        self,
        request_line: int = 8192,
        request_head: int = 32768,
        request_fields: int = 100,
        response_head: int = 65536,
        response_fields: int = 128,
        methods: frozenset[bytes] = DEFAULT_METHODS,
        header_names: str = "drop",
        identity: frozenset[bytes] = frozenset(),
        escaped_slashes: bool = False,
        trace_context: bool = False,
    ) -> None:
        self.request_line = request_line
        self.request_head = request_head
        self.request_fields = request_fields
        self.response_head = response_head
        self.response_fields = response_fields
        self.methods = methods
        self.header_names = header_names
        # Lower-case names that only this gateway may set: deleted from every request, with their aliases (T8).
        self.identity = identity
        self.escaped_slashes = escaped_slashes
        # Traces are on: a head with a traceparent is only clean if that may be passed on as it is.
        self.trace_context = trace_context


class RequestHead:
    """A request head that passed the check. Owned by its exchange, which may change it before it is forwarded.

    ``fields`` holds (name as received, value without OWS) in order, without Host, Expect, X-Request-ID, framing,
    hop-by-hop and forwarding fields. ``forwarded`` holds the inbound X-Forwarded-*, X-Real-IP and Forwarded fields with
    their names in lower case: only for peers that are trusted.
    """

    __slots__ = (
        "chunked",
        "content_length",
        "expect_continue",
        "fields",
        "forwarded",
        "host",
        "keep_alive",
        "method",
        "minor",
        "path",
        "query",
        "request_id",
        "target",
        "trace_asked",
        "websocket",
    )

    def __init__(self, method: bytes, target: bytes, minor: int, escaped_slashes: bool = False) -> None:
        self.method = method
        self.target = target
        self.path, self.query, self.host = split_target(method, target, escaped_slashes)
        self.minor = minor
        self.fields: list[tuple[bytes, bytes]] = []
        self.content_length = -1
        self.chunked = False
        self.keep_alive = False
        self.expect_continue = False
        self.websocket = False
        self.request_id = b""
        self.trace_asked = False  # by X-Gogate-Trace: 1
        self.forwarded: list[tuple[bytes, bytes]] = []

    def copy(self) -> RequestHead:
        """One that may be changed for itself. Written out: copy.copy takes 3 µs."""
        other = RequestHead.__new__(RequestHead)
        other.method, other.target, other.minor = self.method, self.target, self.minor
        other.path, other.query, other.host = self.path, self.query, self.host
        other.fields, other.forwarded = self.fields.copy(), self.forwarded.copy()
        other.content_length, other.chunked, other.keep_alive = self.content_length, self.chunked, self.keep_alive
        other.expect_continue, other.websocket = self.expect_continue, self.websocket
        other.request_id, other.trace_asked = self.request_id, self.trace_asked
        return other


class ResponseHead:
    """A response head that passed the check; ``fields`` have neither framing nor hop-by-hop fields nor X-Request-ID.

    ``content_length`` is -1 where a length says nothing (1xx, 204). ``upgrade`` is the protocol a 101 switches to, in
    lower case, and b"" for every other answer and for a 101 that does not name one properly.
    """

    __slots__ = ("chunked", "content_length", "fields", "keep_alive", "minor", "reason", "status", "upgrade")

    def __init__(self, status: int, minor: int, reason: bytes) -> None:
        self.status = status
        self.minor = minor
        self.reason = reason
        self.fields: list[tuple[bytes, bytes]] = []
        self.content_length = -1
        self.chunked = False
        self.keep_alive = False
        self.upgrade = b""

    def copy(self) -> ResponseHead:
        """One that may be changed for itself."""
        other = ResponseHead(self.status, self.minor, self.reason)
        other.fields, other.upgrade = self.fields.copy(), self.upgrade
        other.content_length, other.chunked, other.keep_alive = self.content_length, self.chunked, self.keep_alive
        return other


def find_head_end(buffer: bytes | bytearray, start: int = 0) -> int:
    """Index just past the CRLF CRLF that ends a head, or -1. Pass as ``start`` what was searched before, minus 3."""
    end = buffer.find(b"\r\n\r\n", start if start > 0 else 0)
    return end + 4 if end >= 0 else -1


def strip_leading_empty_line(buffer: Buffer) -> Buffer:
    """The buffer without the one empty line that may precede a request (RFC 9112 section 2.2; H11: at most one).

    For the first bytes of each message; a lone CR at the end of the buffer is left for the next bytes to decide.
    """
    return buffer[2:] if buffer.startswith(b"\r\n") else buffer


def early_refusal(buffer: bytes | bytearray, limits: HeadLimits, start: int = 0) -> Failure | None:
    """Why a request head that is still incomplete can be refused already, or None. Leading empty line stripped.

    Sizes (T13), and bytes that no continuation can make valid: a client that ends its lines with a bare LF, or speaks
    TLS, is answered at once instead of at its head timeout. ``start``: how much of the buffer an earlier call has seen;
    without it a head that drips in byte by byte costs quadratic time (bounded by the head limit, as in H15).
    """
    line_end = buffer.find(b"\r\n")
    if line_end == 0:
        return Failure.BAD_REQUEST
    # A CR at the end may be half of the CRLF and is not part of the line then.
    if line_end < 0:
        line_end = len(buffer) - buffer.endswith(b"\r")
    if line_end > limits.request_line:
        return Failure.URI_TOO_LONG
    if len(buffer) >= limits.request_head:
        return Failure.HEAD_TOO_LARGE
    # The look back for the CR sees what is before start.
    if _hopeless(buffer, start) is not None:
        return Failure.BAD_REQUEST
    return None


def check_request_head(head: bytes, limits: HeadLimits) -> RequestHead:
    """Check one whole request head, ended by CRLF CRLF and without a leading empty line. Raises WireError.

    After a refusal the connection has to be closed, whatever the Failure says: nobody knows where the body ends.
    """
    line_end = head.find(b"\r\n")
    if line_end > limits.request_line:
        raise WireError(Failure.URI_TOO_LONG)
    if len(head) > limits.request_head:
        raise WireError(Failure.HEAD_TOO_LARGE, "the request head is too large")
    # The request line and the empty line that ends the head are not fields.
    if head.count(b"\n") - 2 > limits.request_fields:
        raise WireError(Failure.HEAD_TOO_LARGE, "the request head has too many fields")
    line = _request_line(head[:line_end]) if line_end > 0 else None
    if line is None:
        raise WireError(Failure.BAD_REQUEST, "the request line is malformed")
    method, target, major, minor = line.groups()
    if major != b"1" or minor not in (b"0", b"1"):
        raise WireError(Failure.BAD_VERSION)
    _check_method(method, limits.methods)
    request = RequestHead(method, target, 1 if minor == b"1" else 0, limits.escaped_slashes)
    identity = limits.identity
    special: dict[bytes, list[bytes]] = {}
    for name, raw in split_fields(head[line_end + 2 :], Failure.BAD_REQUEST):
        lower = name.lower()
        if lower in REQUEST_SPECIAL:
            special.setdefault(lower, []).append(raw)
        elif is_forwarding_name(lower):
            request.forwarded.append((lower, raw.strip(b" \t")))
        elif identity and dashed(lower) in identity:
            continue
        elif is_clean_name(name) or _keep_unclean(lower, limits.header_names):
            request.fields.append((name, raw.strip(b" \t")))
    _take_host(request, special.get(b"host", []))
    _take_framing(request, special)
    _take_connection(request, special)
    _take_expectation(request, special.get(b"expect", []))
    request.request_id = request_id_of([value.strip(b" \t") for value in special.get(REQUEST_ID, ())])
    request.trace_asked = [value.strip(b" \t") for value in special.get(TRACE_ASKED, ())] == [b"1"]
    return request


def request_id_of(values: list[bytes]) -> bytes:
    """The X-Request-ID to be passed on, of all that came; b"" for none."""
    # Two ids are no id: which of them a backend would log is anybody's guess.
    return values[0] if len(values) == 1 and _request_id(values[0]) is not None else b""


def check_response_head(head: bytes, limits: HeadLimits) -> ResponseHead:
    """Check one whole response head, ended by CRLF CRLF. Raises WireError(BAD_RESPONSE) for every fault (T20, R1).

    Whether a 1xx was asked for, how many there were and which method is answered is the caller's to judge (R3, R4).
    """
    bad = Failure.BAD_RESPONSE
    if len(head) > limits.response_head:
        raise WireError(bad, "the response head is too large")
    if head.count(b"\n") - 2 > limits.response_fields:
        raise WireError(bad, "the response head has too many fields")
    line_end = head.find(b"\r\n")
    line = _status_line(head[:line_end]) if line_end > 0 else None
    if line is None:
        raise WireError(bad, "the status line is malformed")
    minor, status, reason = line.groups()
    response = ResponseHead(int(status), 1 if minor == b"1" else 0, reason or b"")
    special: dict[bytes, list[bytes]] = {}
    for name, raw in split_fields(head[line_end + 2 :], bad):
        lower = name.lower()
        if lower in RESPONSE_SPECIAL:
            special.setdefault(lower, []).append(raw)
        else:
            response.fields.append((name, raw.strip(b" \t")))
    length = content_length(special.get(b"content-length", []), bad)
    chunked = is_chunked(special.get(b"transfer-encoding", []), response.minor, bad, bad)
    if chunked and length >= 0:
        raise WireError(bad, "there are both Content-Length and Transfer-Encoding")
    options = list_elements(special.get(b"connection", []))
    response.keep_alive = b"close" not in options and (response.minor == 1 or b"keep-alive" in options)
    if response.status < 200:
        if chunked:
            raise WireError(bad, "an interim answer has a Transfer-Encoding")
    elif response.status == 204:
        # Sloppy backends announce a body here, and some then send one: it is never read, and nothing that follows on
        # this connection can be told from it.
        if chunked or length > 0:
            response.keep_alive = False
    else:
        response.content_length, response.chunked = length, chunked
    if response.status == 101 and b"upgrade" in options:
        protocols = list_elements(special.get(b"upgrade", []))
        response.upgrade = protocols[0] if len(protocols) == 1 else b""
    nominated = {option for option in options if option not in NOT_NOMINABLE and option != b"upgrade"}
    if nominated:
        response.fields = without(response.fields, nominated)
    return response


def _check_method(method: bytes, allowed: frozenset[bytes]) -> None:
    """Refuse the method unless it is allowed. CONNECT and TRACE never are (H2, T9), whatever the configuration says."""
    if method == b"TRACE":
        raise WireError(Failure.METHOD_NOT_ALLOWED, "TRACE is not answered here")
    if method == b"CONNECT" or method not in allowed:
        raise WireError(Failure.UNKNOWN_METHOD)


def _keep_unclean(lower: bytes, header_names: str) -> bool:
    """Whether a name outside [A-Za-z0-9-] stays in the list (T5). Raises WireError when the setting refuses it."""
    if header_names == "reject":
        raise WireError(Failure.BAD_REQUEST, "a field name has a character outside A-Z a-z 0-9 -")
    return header_names == "keep" and not is_alias(lower)


def _take_host(request: RequestHead, values: list[bytes]) -> None:
    """Exactly one valid Host, or none in HTTP/1.0; the authority of an absolute-form target replaces it (T10)."""
    if len(values) > 1:
        raise WireError(Failure.BAD_HOST, "there is more than one Host")
    if not values:
        if request.minor == 1:
            raise WireError(Failure.BAD_HOST, "there is no Host")
        return
    host = values[0].strip(b" \t")
    if not is_valid_host(host):
        raise WireError(Failure.BAD_HOST, "Host is not a valid host")
    if not request.host:
        request.host = host


def _take_framing(request: RequestHead, special: dict[bytes, list[bytes]]) -> None:
    """Body length and coding; both together are refused, never ranked (T1)."""
    lengths = special.get(b"content-length", [])
    codings = special.get(b"transfer-encoding", [])
    if lengths and codings:
        raise WireError(Failure.BAD_FRAMING, "there are both Content-Length and Transfer-Encoding")
    request.content_length = content_length(lengths, Failure.BAD_FRAMING)
    request.chunked = is_chunked(codings, request.minor, Failure.BAD_FRAMING, Failure.UNKNOWN_CODING)


def _take_connection(request: RequestHead, special: dict[bytes, list[bytes]]) -> None:
    """Persistence, what Connection nominates, and whether this asks for a WebSocket (T6, T9, H1)."""
    options = list_elements(special.get(b"connection", []))
    if not all(is_token(option) for option in options):
        raise WireError(Failure.BAD_REQUEST, "Connection is not a list of tokens")
    request.keep_alive = b"close" not in options and (request.minor == 1 or b"keep-alive" in options)
    upgrades = special.get(b"upgrade", [])
    if upgrades:
        # llhttp ends such a message at its head: whoever goes on parsing takes the body for the next request.
        if request.chunked or request.content_length > 0:
            raise WireError(Failure.BAD_FRAMING, "a request with Upgrade has a body")
        request.websocket = (
            request.method == b"GET"
            and request.minor == 1
            and b"upgrade" in options
            and list_elements(upgrades) == [b"websocket"]
        )
    nominated = {option for option in options if option not in NOT_NOMINABLE}
    if nominated:
        request.fields = without(request.fields, nominated)


def _take_expectation(request: RequestHead, values: list[bytes]) -> None:
    """100-continue is passed on where a body is to come; HTTP/1.0 does not know it (RFC 9110 section 10.1.1)."""
    if not values:
        return
    if any(expectation != b"100-continue" for expectation in list_elements(values)):
        raise WireError(Failure.BAD_EXPECTATION)
    request.expect_continue = request.minor == 1 and (request.chunked or request.content_length > 0)
