"""Every error gogate raises, and the one table that says what a client, a log line and a metric see of it.

    GogateError
        ConfigError         a configuration that cannot run; carries every problem found
        StartError          a port taken, a file not readable: one line, exit code 1
        WireError           bytes that are not the message they should be; carries its Failure

A :class:`Failure` is one row of the table below: a reason code (log, metric), the status that is answered, whose fault
it was and whether another backend may be tried. Local answers, access-log reasons and metric labels are all read from
these rows, so that they cannot disagree. Statuses follow RFC 9110 section 15 and SECURITY.md section 2; 499 (as
in nginx) marks a client that went away: it is logged, never sent.
"""

from __future__ import annotations

from enum import Enum


class Side(Enum):
    """Whose fault a failure is. Only UPSTREAM counts against a backend (SECURITY.md T21)."""

    CLIENT = "client"
    GATEWAY = "gateway"
    UPSTREAM = "upstream"


class Failure(Enum):
    """``(status, side, retryable, close, detail)``.

    ``retryable``: nothing of an answer can have reached the client and another backend may do better (the exchange
    still asks whether the request may be sent again). ``close``: the client connection cannot be used after the answer.
    """

    # --- the client's message
    BAD_REQUEST = (400, Side.CLIENT, False, True, "The request is not valid HTTP/1.1.")
    BAD_HOST = (400, Side.CLIENT, False, True, "A request needs exactly one valid Host.")
    BAD_TARGET = (400, Side.CLIENT, False, True, "The request target is not acceptable.")
    BAD_FRAMING = (400, Side.CLIENT, False, True, "Where the request body ends is ambiguous.")
    BAD_CHUNK = (400, Side.CLIENT, False, True, "The chunked request body is malformed.")
    REQUEST_TIMEOUT = (408, Side.CLIENT, False, True, "The request did not arrive in time.")
    BODY_TOO_LARGE = (413, Side.CLIENT, False, True, "The request body is larger than this gateway accepts.")
    URI_TOO_LONG = (414, Side.CLIENT, False, True, "The request line is too long.")
    BAD_EXPECTATION = (417, Side.CLIENT, False, True, "Only Expect: 100-continue is understood.")
    HEAD_TOO_LARGE = (431, Side.CLIENT, False, True, "The request head is too large or has too many fields.")
    MISDIRECTED = (421, Side.CLIENT, False, False, "This connection's certificate is not for the host of this request.")
    CLIENT_GONE = (499, Side.CLIENT, False, True, "The client went away.")
    UNKNOWN_METHOD = (501, Side.CLIENT, False, True, "This method is not implemented here.")
    UNKNOWN_CODING = (501, Side.CLIENT, False, True, "This transfer coding is not implemented here.")
    BAD_VERSION = (505, Side.CLIENT, False, True, "Only HTTP/1.0 and HTTP/1.1 are spoken here.")
    # --- the gateway's decision
    NO_ROUTE = (404, Side.GATEWAY, False, False, "No route matches this request.")
    METHOD_NOT_ALLOWED = (405, Side.GATEWAY, False, False, "This route does not take this method.")
    BAD_QUERY = (400, Side.CLIENT, False, False, "The query cannot be read in one way only.")
    BAD_FORM = (400, Side.CLIENT, False, True, "The form in the request body cannot be read.")
    FORBIDDEN_ADDRESS = (403, Side.GATEWAY, False, False, "This address may not use this route.")
    UNAUTHORIZED = (401, Side.GATEWAY, False, False, "Valid credentials are needed.")
    FORBIDDEN = (403, Side.GATEWAY, False, False, "These credentials do not allow this request.")
    AUTH_UNAVAILABLE = (503, Side.GATEWAY, False, False, "Credentials cannot be checked at the moment.")
    FORWARD_AUTH_FAILED = (503, Side.GATEWAY, False, False, "The authentication service does not answer.")
    NOT_CACHED = (504, Side.GATEWAY, False, False, "No stored answer, and only a stored one was asked for.")
    RATE_LIMITED = (429, Side.GATEWAY, False, False, "Too many requests.")
    INTERNAL = (500, Side.GATEWAY, False, True, "The gateway failed on this request.")
    NO_BACKEND = (503, Side.GATEWAY, False, False, "No backend is available.")
    BREAKER_OPEN = (503, Side.GATEWAY, False, False, "Every backend's circuit breaker is open.")
    OVERLOADED = (503, Side.GATEWAY, False, False, "The gateway is at its limit of requests in flight.")
    QUEUE_FULL = (503, Side.GATEWAY, False, False, "Too many requests wait for a connection to the backend.")
    QUEUE_TIMEOUT = (503, Side.GATEWAY, False, False, "No backend came free in time.")
    NO_DESCRIPTORS = (503, Side.GATEWAY, False, True, "The gateway is out of file descriptors.")
    BACKEND_DRAINED = (502, Side.GATEWAY, True, False, "The backend was taken out of service.")
    # --- the backend's fault
    CONNECT_FAILED = (502, Side.UPSTREAM, True, False, "The backend refused the connection.")
    TLS_FAILED = (502, Side.UPSTREAM, True, False, "The TLS handshake with the backend failed.")
    UPSTREAM_RESET = (502, Side.UPSTREAM, True, False, "The backend closed the connection without an answer.")
    BAD_RESPONSE = (502, Side.UPSTREAM, False, False, "The backend's answer is not valid HTTP.")
    TRUNCATED = (502, Side.UPSTREAM, False, True, "The backend's answer ended too early.")
    CONNECT_TIMEOUT = (504, Side.UPSTREAM, True, False, "The backend did not accept a connection in time.")
    RESPONSE_TIMEOUT = (504, Side.UPSTREAM, False, False, "The backend did not answer in time.")

    def __init__(self, status: int, side: Side, retryable: bool, close: bool, detail: str) -> None:
        self.status = status
        self.side = side
        self.retryable = retryable
        self.close = close
        self.detail = detail

    # Two rows with equal values must stay two rows (Enum would make them aliases): the name is part of the value.
    def __new__(cls, *args: object) -> Failure:
        member = object.__new__(cls)
        member._value_ = (len(cls.__members__), *args)
        return member

    @property
    def reason(self) -> str:
        """The code in logs and metrics: the row's name in lower case."""
        return self.name.lower()


class GogateError(Exception):
    """Base of everything gogate raises on purpose."""


class StartError(GogateError):
    """gogate cannot start (port taken, file unreadable): the message is the one line printed before exit code 1."""


class ConfigError(GogateError):
    """A configuration with at least one problem. ``problems`` are :class:`gogate_py.config.problems.Problem` values;
    ``files`` are those that it names, as far as they were read (config/named_files.py)."""

    def __init__(self, problems: list[object], files: dict[str, bytes] | None = None) -> None:
        super().__init__(f"{len(problems)} problem(s) in the configuration")
        self.problems = problems
        self.files = files or {}


class WireError(GogateError):
    """Bytes refused by the wire package. ``failure`` says status and side, ``detail`` names the rule that was broken.

    ``detail`` is for logs and for the answer's "detail" member: it never repeats bytes that the peer sent.
    """

    def __init__(self, failure: Failure, detail: str = "") -> None:
        super().__init__(detail or failure.detail)
        self.failure = failure
        self.detail = detail or failure.detail
