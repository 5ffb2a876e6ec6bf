"""What an exchange knows, grouped by what it is about.

Class attributes are the defaults, and an instance sets only what differs: an ordinary request touches a third of them,
and pays neither time nor memory for the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gogate_py.dataplane.body_watch import BodyWatch
from gogate_py.dataplane.deadlines import INFINITE
from gogate_py.dataplane.tunnel import Tunnel
from gogate_py.wire.head_check import RequestHead

if TYPE_CHECKING:
    from gogate_py.dataplane.backend_table import LiveBackend
    from gogate_py.dataplane.downstream import Downstream
    from gogate_py.dataplane.http_site import HttpSite, LiveRoute
    from gogate_py.dataplane.upstream import Upstream
    from gogate_py.dataplane.upstream_connections import UpstreamConnections


Fields = Sequence[tuple[bytes, bytes]]


class ExchangeState:
    """The state of one exchange. Public names are read by its neighbours, underscored ones by Exchange only."""

    # --- the request, set by request_intake before start()
    method: bytes
    path: bytes
    host: bytes
    client: str
    request_id: bytes
    started: float
    raw_head: bytes  # for what is rarely asked (Accept of a local answer)
    outbound = b""  # the head as it goes to the backend; b"" until it is made of the two below
    checked: RequestHead | None = None
    backend_lines = b""
    query = b""
    minor = 1
    websocket = False  # the switch was asked for, and the route allows it
    # --- request body
    body_open = False  # more of it is to come from the client
    body_chunked = False
    body_left = -1
    body_seen = 0
    request_trailers: Fields = ()  # those to be passed on
    request_paused = False  # the backend does not take it: the client is not read
    _continued = False  # the backend said 100 Continue
    _pending: list[bytes] | None = None
    _pending_size = 0
    # --- routing and attempt
    route: LiveRoute | None = None
    backend: LiveBackend | None = None
    upstream: Upstream | None = None
    head_sent_at = INFINITE  # when the whole request was here: the answer's head is due from then on
    queued_until = INFINITE
    _trial = False
    _tried: tuple[LiveBackend, ...] = ()
    attempts = 0
    _dialing: UpstreamConnections | None = None
    _sent = False
    last_backend = ""
    # --- response
    fast_answer = False  # the answer may be forwarded as a slice
    status = 0
    sent_bytes = 0
    head_out = False
    response_paused = False  # the client does not take it: the backend is not read
    event_stream = False
    answer_trailers: Fields = ()  # those to be passed on
    tunnel: Tunnel | None = None
    _chunked = False
    _close_delimited = False
    # --- the end
    watch: BodyWatch | None = None
    reason = ""
    detail = ""  # what is behind the reason, for the log
    over = False

    def __init__(self, site: HttpSite, downstream: Downstream) -> None:
        self.site = site
        self.downstream = downstream
