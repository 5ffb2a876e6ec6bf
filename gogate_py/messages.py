"""What supervisor and worker say to each other over their channel (process/channel.py frames and carries it).

Down: sockets, snapshots, state changes, questions, drain. Up: acknowledgements, counters, log batches, answers. Both
sides are always the same version of gogate, except during an upgrade of the program: then :data:`VERSION` differs and
the worker is drained rather than talked to.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from gogate_py.snapshot import BackendState, Snapshot

VERSION = 1


# --- down


class Welcome(Struct, frozen=True, tag="welcome"):
    """The first message: who the worker is. ``column``: its place in the arena, ``columns``: how many places are to be
    summed. While the program is upgraded the workers of both gateways have places of their own."""

    version: int
    slot: int
    column: int
    columns: int
    incarnation: int  # counts the processes that have had this slot; part of every id a worker makes


class Listen(Struct, frozen=True, tag="listen"):
    """Serve these listener ids; one descriptor for each comes with the message, in order. Before the Snapshot that
    names them. An id may come more than once: a worker may serve several sockets of a listener."""

    ids: tuple[str, ...]


class Configure(Struct, frozen=True, tag="configure"):
    """Swap to this snapshot; answered with Applied, or Unapplied."""

    snapshot: Snapshot


class States(Struct, frozen=True, tag="states"):
    """Backends changed health or draining; answered as Configure is."""

    generation: int
    changes: tuple[BackendState, ...]


class Drain(Struct, frozen=True, tag="drain"):
    """Accept nothing more, finish what runs, leave. ``drain_idle``: how long a kept-alive client may still ask."""

    grace: float
    drain_idle: float


class KeySet(Struct, frozen=True, tag="keys"):
    """The keys of a jwksUrl that signed tokens are checked with from now on; b"": none yet, or too old."""

    url: str
    jwks: bytes  # RFC 7517, as fetched and checked


class ListConnections(Struct, frozen=True, tag="list"):
    """Answered with Connections."""

    question: int


class CloseConnection(Struct, frozen=True, tag="close"):
    """Cut the L4 connection with this id; answered with Closed."""

    question: int
    id: str


class ListRequests(Struct, frozen=True, tag="list_requests"):
    """Answered with Requests: the newest ``limit`` records, of one route and of one status where asked."""

    question: int
    limit: int
    route: str = ""
    status: int = 0


class FindRequest(Struct, frozen=True, tag="find_request"):
    """Answered with RequestFound: the newest record with this id, or of a request with this X-Request-ID."""

    question: int
    id: str


Down = (
    Welcome
    | Listen
    | Configure
    | States
    | KeySet
    | Drain
    | ListConnections
    | CloseConnection
    | ListRequests
    | FindRequest
)


# --- up


class Applied(Struct, frozen=True, tag="applied"):
    """The worker serves this generation."""

    generation: int


class Unapplied(Struct, frozen=True, tag="unapplied"):
    """The worker could not take over this generation, or none since: what it serves is neither the old nor the new."""

    generation: int
    error: str


class Counts(Struct, frozen=True, tag="counts"):
    """Deltas since the last report. Names and labels: telemetry/metrics.py. ``gauges`` are absolute, summed over
    workers.

    ``histograms``: (name, labels, bucket increments (not cumulative, the last is +Inf), sum increment).
    """

    counters: list[tuple[str, tuple[str, ...], float]]
    gauges: list[tuple[str, tuple[str, ...], float]]
    histograms: list[tuple[str, tuple[str, ...], list[int], float]]


class LogLines(Struct, frozen=True, tag="log"):
    """Finished lines, each ending in a newline, for the log target. ``access`` tells access lines from the program's
    own."""

    access: bool
    lines: bytes
    count: int


class Connection(Struct, frozen=True):
    """One live L4 connection."""

    id: str
    listener: str
    route: str
    pool: str
    client: str
    backend: str
    state: str  # connecting | connecting_client_closed | open | client_closed | backend_closed | closing
    bytes_in: int  # client → backend
    bytes_out: int  # backend → client
    started_s: float  # seconds ago
    worker: int


class Connections(Struct, frozen=True, tag="connections"):
    """Answer to ListConnections."""

    question: int
    connections: list[Connection]


class Closed(Struct, frozen=True, tag="closed"):
    """Answer to CloseConnection: whether such a connection was there."""

    question: int
    found: bool


class RequestSummary(Struct, frozen=True):
    """One recorded request, in short."""

    id: str
    request_id: str
    time: str  # when its head was complete
    worker: int
    kept: str  # why: asked | failed | slow | sampled | traced
    method: str
    host: str
    path: str
    status: int
    reason: str  # as in its access line; "": the backend's answer was passed on
    duration_ms: float
    route: str
    pool: str
    backend: str
    tries: int
    client: str
    trace_id: str = ""


class StageVerdict(Struct, frozen=True):
    """What a stage of the route said: passed | refused | answered | interrupted | not asked."""

    name: str
    verdict: str
    reason: str = ""
    waited_ms: float = 0.0  # for others: a service that was asked, a body


class Try(Struct, frozen=True):
    """One try at a backend; times in ms, the first since the head was complete. What is not there did not happen, or
    was not watched."""

    backend: str
    started_ms: float | None = None
    queue_ms: float | None = None  # for one of maxConnsPerHost connections
    connect_ms: float | None = None
    reused: bool = False  # a kept connection
    trial: bool = False  # of a breaker that is half-open
    first_byte_ms: float | None = None  # from the request's head sent to the answer's head
    duration_ms: float | None = None
    status: int = 0
    reason: str = ""  # why it failed
    detail: str = ""


class Timers(Struct, frozen=True):
    """Where the time of a request went, ms. ``receive`` is from the first byte of the head (from accept, for the first
    request of a connection) to the last of the body; everything else begins with the complete head."""

    total: float
    receive: float | None = None
    queue: float | None = None  # for a backend with room, and for a connection
    connect: float | None = None  # all tries
    first_byte: float | None = None  # of the last try


class RequestRecord(Struct, frozen=True):
    """What was decided about one request. ``watched``: from its start; else only what was known at its end."""

    summary: RequestSummary
    watched: bool
    timers: Timers
    listener: str
    scheme: str
    query: str  # secrets redacted, here and in the fields
    fields: list[tuple[str, str]]
    user: str
    stages: list[StageVerdict]
    arm: str  # why the split chose the pool; "" without a split
    balancer: str
    tries: list[Try]
    detail: str
    bytes_sent: int  # of the answer, to the client
    body_bytes: int  # of the request's body


class Requests(Struct, frozen=True, tag="requests"):
    """Answer to ListRequests, the newest first."""

    question: int
    requests: list[RequestSummary]


class RequestFound(Struct, frozen=True, tag="request_found"):
    """Answer to FindRequest."""

    question: int
    record: RequestRecord | None


Value = str | int | bool | list[str]
Attribute = tuple[str, Value]


class Span(Struct, frozen=True, array_like=True):
    """A span of OpenTelemetry; ids in hex, ``parent_id`` b"" for the first of a trace, ``kind`` 2 server, 3 client."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    trace_state: str
    kind: int
    name: str
    start_ns: int
    end_ns: int
    attributes: list[Attribute]
    failed: bool


class Spans(Struct, frozen=True, tag="spans"):
    """Spans that are complete, to be exported."""

    spans: list[Span]


class Unreachable(Struct, frozen=True, tag="unreachable"):
    """A connect to this backend failed: the resolver may look again, the prober may hurry."""

    row: int
    error: str


class UnknownKey(Struct, frozen=True, tag="unknown_key"):
    """A token names a key that this key set does not have: it may have been changed."""

    url: str


class Drained(Struct, frozen=True, tag="drained"):
    """Nothing is left; the worker ends now. ``cut`` connections were ended by the grace time."""

    cut: int


Up = (
    Applied
    | Unapplied
    | Counts
    | LogLines
    | Connections
    | Closed
    | Requests
    | RequestFound
    | Spans
    | Unreachable
    | UnknownKey
    | Drained
)

encode = msgspec.msgpack.Encoder().encode
decode_down = msgspec.msgpack.Decoder(Down).decode
decode_up = msgspec.msgpack.Decoder(Up).decode
