"""TlsIntake: an accepted connection of a listener with TLS until its handshake is done.

Its client was admitted before (limits count it from accept on), and the PROXY header, which is not encrypted, is read
already. The ClientHello is read along (wire/client_hello): the server name in it chooses the certificate, and on a TCP
listener the route, whose limits are asked before anything is computed for a stranger.

    what comes                                      what happens, and the reason it is counted with
    a handshake that succeeds                       given to HTTP or to the relay
    … that fails                                    alert, closed: tls_handshake
    no certificate where one is needed, or a bad    alert, closed: tls_client_certificate
    a server name without a route (TCP)             alert, closed: server_name
    HTTP without TLS, on an HTTP listener           400 that says so, closed: not_tls
    anything else that is no TLS                    closed: not_tls
    an end inside of it                             closed: tls_handshake
    no end of it within handshakeTimeout            closed: tls_timeout
    anything, while there is no certificate         closed: tls_unavailable

With TLS 1.3 a client that has no certificate believes the handshake done before we refuse it; nothing it sends then is
ever decrypted. Nobody that connects and goes without a byte is counted: it looked whether somebody listens.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Final

from gogate_py.backend_tls import explain
from gogate_py.clock import monotonic
from gogate_py.dataplane.intake import Intake
from gogate_py.dataplane.secured import Secured
from gogate_py.dataplane.tcp_downstream import TcpDownstream, within_limits
from gogate_py.dataplane.tls_transport import TlsTransport
from gogate_py.errors import Failure, WireError
from gogate_py.listener_tls import Shown
from gogate_py.wire.client_hello import ClientHelloReader
from gogate_py.wire.serializer import local_response

if TYPE_CHECKING:
    from gogate_py.dataplane.listeners import LiveListener
    from gogate_py.dataplane.plane import Plane
    from gogate_py.snapshot import TcpRoute
    from gogate_py.wire.proxy_protocol import ProxyHeader

#: How long a client that was refused may take to read why, seconds.
LINGER: Final = 2.0

# Reasons of gogate_connections_refused_total, and results of gogate_tls_handshakes_total.
FAILED: Final = "tls_handshake"
BAD_CLIENT: Final = "tls_client_certificate"
NOT_TLS: Final = "not_tls"
TIMED_OUT: Final = "tls_timeout"
UNAVAILABLE: Final = "tls_unavailable"
NO_ROUTE: Final = "server_name"
# Further results.
OK: Final = "ok"
RESUMED: Final = "resumed"

_HANDSHAKE: Final = 22
#: The fatal alert unrecognized_name (RFC 6066 section 3), in a record.
_UNRECOGNIZED_NAME: Final = b"\x15\x03\x03\x00\x02\x02\x70"
_SPEAKS_HTTPS: Final = local_response(
    400, b"This port speaks https, not http.\n", b"text/plain; charset=utf-8", close=True
)
_CLIENT_FAULTS: Final = ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "CERTIFICATE_VERIFY_FAILED")


class TlsIntake(Intake):
    """One connection, until its handshake is done, or its end."""

    __slots__ = (
        "_incoming",
        "_leaving",
        "_outgoing",
        "_reader",
        "_received",
        "_route",
        "_server_name",
        "_shown",
        "_spoken",
        "_subject_header",
    )

    def __init__(self, plane: Plane, listener: LiveListener, header: ProxyHeader | None = None) -> None:
        super().__init__(plane, listener, header)
        self._reader = ClientHelloReader()
        self._received: list[bytes] = []
        self._server_name = ""
        self._route: TcpRoute | None = None
        self._shown: Shown | None = None
        self._spoken: ssl.SSLObject | None = None  # once the ClientHello is here
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._subject_header = ""
        self._leaving = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Accepted: may its client have one more?"""
        host = self._accepted(transport)
        if not self._admit(host):
            return
        contexts = self._listener.contexts
        if contexts is None:
            self._refuse(UNAVAILABLE, "there is no certificate that could be used")
        else:
            self._wait(contexts.spec.handshake_timeout)

    # --- what comes

    def data_received(self, data: bytes) -> None:
        """Some of the handshake, perhaps with what is behind it."""
        if self._leaving or self._transport.is_closing():
            return
        try:
            if self._spoken is None:
                self._received.append(data)
                if self._has_hello(data):
                    self._begin()
            else:
                self._incoming.write(data)
                self._shake_hands(self._spoken)
        except Exception as error:  # the top of a connection
            self._fail(error, "tls")

    def _has_hello(self, data: bytes) -> bool:
        """Whether the ClientHello is complete; or something else came, of which OpenSSL shall say what it is."""
        try:
            complete = self._reader.feed(data)
            self._server_name = self._reader.server_name
        except WireError as error:
            if self._received[0][0] == _HANDSHAKE:
                return True
            self._not_tls(error.detail)
            return False
        return complete

    def _not_tls(self, detail: str) -> None:
        spec = self._listener.spec
        assert spec is not None
        self._turn_away(NOT_TLS, detail, b"" if spec.tcp_routes() else _SPEAKS_HTTPS)

    def _begin(self) -> None:
        """The ClientHello is here: the route, if it decides about it, and the certificate."""
        listener = self._listener
        contexts, spec = listener.contexts, listener.spec
        assert contexts is not None
        assert spec is not None
        if spec.tcp_routes():
            self._route = listener.names.find(self._server_name) if listener.names is not None else spec.tcp
            if self._route is None:
                self._turn_away(NO_ROUTE, self._server_name, _UNRECOGNIZED_NAME)
                return
            if not within_limits(self._plane, self._route, self._host()):
                self._refuse(Failure.RATE_LIMITED.reason, "")
                return
        self._subject_header = contexts.spec.subject_header
        self._shown = contexts.choose(self._server_name)
        self._spoken = self._shown.context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._incoming.write(b"".join(self._received))
        self._received.clear()
        self._shake_hands(self._spoken)

    def _shake_hands(self, spoken: ssl.SSLObject) -> None:
        """One more step, with what is here."""
        try:
            spoken.do_handshake()
        except ssl.SSLWantReadError:
            if self._outgoing.pending:
                self._transport.write(self._outgoing.read())
        except ssl.SSLError as error:
            reason = BAD_CLIENT if error.reason in _CLIENT_FAULTS else FAILED
            self._turn_away(reason, explain(error), self._outgoing.read())
        else:
            if self._outgoing.pending:  # tickets
                self._transport.write(self._outgoing.read())
            self._done(spoken)

    def _done(self, spoken: ssl.SSLObject) -> None:
        """Give the connection, and what is behind the handshake, to whom it is for."""
        plane, listener = self._plane, self._listener
        assert self._shown is not None
        listener.shook_hands(RESUMED if spoken.session_reused else OK, spoken.version() or "")
        transport = TlsTransport(plane.loop, self._transport, spoken, self._incoming, self._outgoing)
        ticket = self._hand_over()
        if self._route is not None:
            transport.begin(TcpDownstream(plane, listener, self._route, self._header, ticket, counted=True))
        else:
            secured = Secured(spoken, self._server_name, self._shown, self._subject_header)
            transport.begin(plane.http.accept(listener, self._header, secured, ticket))

    # --- refused

    def _turn_away(self, reason: str, detail: str, last: bytes) -> None:
        """Refuse with a last word. Closing at once could reset the connection before it is read."""
        self._leaving = True
        self._received.clear()
        self._listener.shook_hands(reason, "")
        self._count_refused(reason, detail)
        if last:
            self.deadline = monotonic() + LINGER
            self._transport.write(last)
            self._transport.write_eof()
        else:
            self._transport.close()

    def eof_received(self) -> bool:
        """Gone before it was done."""
        if not self._leaving and (self._received or self._spoken is not None):
            self._listener.shook_hands(FAILED, "")
            self._refuse(FAILED, "The connection ended inside the handshake.")
        return False

    def on_deadline(self, now: float) -> None:
        """Not done in time, or refused and not gone."""
        if self._leaving:
            self._transport.abort()
        else:
            self._listener.shook_hands(TIMED_OUT, "")
            self._refuse(TIMED_OUT, "")
