"""What an exchange knows, grouped by what it is about, and the request as its stages see it.

Class attributes are the defaults, and an instance sets only what differs: an ordinary request touches a third of them,
and pays neither time nor memory for the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from gogate_py.dataplane.body_watch import BodyWatch
from gogate_py.dataplane.deadlines import INFINITE
from gogate_py.dataplane.tunnel import Tunnel
from gogate_py.middleware.request_view import field_of_head, field_of_list
from gogate_py.wire.head_check import RequestHead
from gogate_py.wire.headers import REQUEST_SPECIAL, is_forwarding_name

if TYPE_CHECKING:
    from gogate_py.dataplane.decision import Timeline
    from gogate_py.dataplane.downstream import Downstream
    from gogate_py.dataplane.http_site import HttpSite
    from gogate_py.dataplane.live_backend import LiveBackend
    from gogate_py.dataplane.live_pool import LivePool
    from gogate_py.dataplane.live_route import LiveRoute
    from gogate_py.dataplane.tracing import TraceContext
    from gogate_py.dataplane.upstream import Upstream
    from gogate_py.dataplane.upstream_connections import UpstreamConnections
    from gogate_py.middleware.response_cache import Recording


Fields = Sequence[tuple[bytes, bytes]]

_NO_CLAIMS: Final[Mapping[str, Any]] = MappingProxyType({})
_NO_STATUSES: Final[frozenset[int]] = frozenset()


class ExchangeState:
    """The state of one exchange. Public names are read by its neighbours, underscored ones by Exchange only."""

    # --- the request, set by request_intake before start()
    method: bytes
    path: bytes
    host: bytes
    client: str
    request_id: bytes
    id_claimed = False  # it came with the request
    started: float
    raw_head: bytes  # for what is rarely asked (Accept of a local answer)
    clean_head = b""  # the same without the lines of a proxy in front, where it had some
    outbound = b""  # the head as it goes to the backend; b"" until it is made of the two below
    checked: RequestHead | None = None
    backend_lines = b""
    trace_line = b""  # of a trace that is not sampled, while the head is forwarded as a slice
    trace: TraceContext | None = None  # where it is sampled
    query = b""
    minor = 1
    scheme = b"http"
    websocket = False  # the switch was asked for, and the route allows it
    # --- what stages found out and want (middleware.chain.RequestView)
    body: bytes | None = None  # whole, where a stage asked for it
    user = ""
    claims = _NO_CLAIMS
    _forwarded: list[tuple[bytes, bytes]] | None = None
    _withheld: set[bytes] | None = None
    _stage = 0  # the one that is to be asked next
    _stage_task: asyncio.Task[None] | None = None
    _form: list[bytes] | None = None  # the body so far, for the stage that needs it
    _form_left = 0
    # --- request body
    body_open = False  # more of it is to come from the client
    body_here = False  # and some of it in a moment, so that the head can go with it
    body_chunked = False
    body_left = -1
    body_seen = 0
    request_trailers: Fields = ()  # those to be passed on
    request_paused = False  # the backend does not take it: the client is not read
    _continued = False  # the backend said 100 Continue
    _head_held = b""  # the head, not written yet, because bytes of the body are about to be
    _pending: list[bytes] | None = None  # not sent yet
    _pending_size = 0
    _kept: list[bytes] | None = None  # sent, and kept to be sent again
    _kept_size = 0
    # --- routing and attempt
    route: LiveRoute | None = None
    pool: LivePool | None = None
    pool_key = 0  # hash for the balancers that need one
    backend: LiveBackend | None = None
    upstream: Upstream | None = None
    head_sent_at = INFINITE  # when the whole request was here: the answer's head is due from then on
    asked_at = INFINITE  # when the head went to the backend of this try, while the body is still to come
    queued_until = INFINITE
    waiting = False  # for a backend with room
    retry_statuses = _NO_STATUSES  # answers that are not passed on while another try is possible
    attempts = 0
    last_backend = ""
    _trial = False
    _tried: tuple[LiveBackend, ...] = ()
    _dialing: UpstreamConnections | None = None
    _timer: asyncio.TimerHandle | None = None  # of a back-off, or of perTryTimeout
    _sent = False
    _stale = False  # a kept connection was dead under it once
    _begun_at = 0.0  # of this attempt
    _timed = False  # something waits for the head of the answer: a timer, or the balancer
    # --- response
    fast_answer = False  # the answer may be forwarded as a slice, when the request is complete
    status = 0
    sent_bytes = 0
    head_out = False
    _answer_held = b""  # its head, not written yet, because bytes of its body are about to be
    _interim_out = False  # a 1xx went to the client: it belongs to this try, and there can be no other
    response_paused = False  # the client does not take it: the backend is not read
    event_stream = False
    answer_trailers: Fields = ()  # those to be passed on
    tunnel: Tunnel | None = None
    new_cookie = b""  # that keeps the client in its arm
    _recording: Recording | None = None
    _chunked = False
    _close_delimited = False
    # --- the end
    watch: BodyWatch | None = None
    reason = ""
    detail = ""  # what is behind the reason, for the log
    cut = False  # the answer had begun, and could not be brought to its end
    timeline: Timeline | None = None  # of one that is watched (decision.py)
    over = False

    def __init__(self, site: HttpSite, downstream: Downstream) -> None:
        self.site = site
        self.downstream = downstream

    # --- for its record

    def tried(self) -> tuple[LiveBackend, ...]:
        """The backends that failed it."""
        return self._tried

    def stage(self) -> int:
        """The place of the stage that is to be asked next, or has answered."""
        return self._stage

    # --- as stages see it (middleware.chain.RequestView)

    def field(self, name: bytes) -> bytes | None:
        """A header field's value; lines that the head check dropped (identity fields, alias names), or that say where
        the request came from, are not there."""
        checked = self.checked
        if name == b"host":
            return self.host
        if checked is None:
            if name in REQUEST_SPECIAL or is_forwarding_name(name):
                return None
            return field_of_head(self.raw_head, name)
        return field_of_list(checked.fields, name)

    def forward(self, name: bytes, value: bytes) -> None:
        """Set a field of the request to the backend."""
        if self._forwarded is None:
            self._forwarded = []
        self._forwarded.append((name, value))

    def withhold(self, name: bytes) -> None:
        """Do not send a field to the backend."""
        if self._withheld is None:
            self._withheld = set()
        self._withheld.add(name)
