"""Secured: what is known of a client connection because TLS was spoken — which hosts it may ask for, and whose it is.

A request's Host has to fit the server name that the client asked for (SECURITY.md T10): else a client could talk its
way past what stands in front of another host. Who asked for no name, because it uses an address or is old, is not held
to one.

    Host                                                     verdict
    the server name itself                                   served
    a host of the certificate that was shown                 served
    another one                                              421
    any, of a client that gave no server name                served
"""

from __future__ import annotations

import ssl

from gogate_py.listener_tls import Shown
from gogate_py.wire.distinguished_name import distinguished_name


class Secured:
    """One connection's; in its Downstream for life. ``line``: the finished header line with the subject of the client's
    certificate, b"" without."""

    __slots__ = ("_fits", "_name", "_shown", "line")

    def __init__(self, spoken: ssl.SSLObject, server_name: str, shown: Shown, subject_header: str) -> None:
        self._name = server_name
        self._shown = shown
        self._fits: bytes | None = None  # the last host that did
        self.line = b""
        if subject_header:
            subject = _subject(spoken)
            if subject:
                self.line = f"{subject_header}: {subject}\r\n".encode("ascii")

    def serves(self, host: bytes) -> bool:
        """Whether a request for this host (as routes are keyed) may come over this connection."""
        if not self._name or host == self._fits:
            return True
        name = host.decode("latin-1").strip("[]")
        if name != self._name and not self._shown.covers(name):
            return False
        self._fits = host
        return True


def _subject(spoken: ssl.SSLObject) -> str:
    """The subject of the client's certificate, which was verified; "" without one."""
    certificate = spoken.getpeercert()
    steps = certificate.get("subject", ()) if certificate else ()
    return distinguished_name(steps)  # type: ignore[arg-type]  # typeshed: one type for all values of the dictionary
