"""Sockets: bind every listener once, one SO_REUSEPORT socket per worker slot, and keep them for the supervisor's life.

SO_REUSEPORT alone would let a second gogate share a port silently, so each address is tried once with a plain socket
first: taken → a clear error (after up to a second of retries, for the moment in which an old process goes).

``:port`` is one dual-stack socket (IPv6 with IPV6_V6ONLY off) where the machine has IPv6, otherwise IPv4. A Unix socket
cannot be bound several times: its one socket is shared by all slots.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from typing import Final

from gogate_py.addresses import BACKLOG, Address, parse
from gogate_py.clock import monotonic
from gogate_py.errors import StartError

_RETRY_FOR: Final = 1.0
_RETRY_EVERY: Final = 0.05


class BoundListener:
    """One address with the sockets of all slots; ``address`` is the real one (port 0 resolved)."""

    def __init__(
        self, listener_id: str, address: Address, sockets: list[socket.socket], *, ours: bool = True
    ) -> None:
        """``ours``: its sockets, and the path of a Unix socket, end with us; not those that systemd made."""
        self.ours = ours
        self.id = listener_id
        self.address = address
        self.sockets = sockets

    def for_slot(self, slot: int, slots: int) -> list[socket.socket]:
        """The sockets that a worker slot serves, of so many slots. Every socket is served by somebody: where there are
        more sockets than slots some slots serve several, and where there are fewer they share them."""
        return self.sockets[slot::slots] or [self.sockets[slot % len(self.sockets)]] if self.sockets else []

    def handshaking(self) -> list[socket.socket]:
        """The sockets on which the kernel shakes hands for us alone: none of a Unix socket, or of systemd's."""
        return self.sockets if self.ours and not self.address.is_unix else []

    def close(self, *, keep_path: bool = False) -> None:
        """Close our copies (and remove a Unix socket's path, unless somebody else listens there)."""
        for sock in self.sockets:
            sock.close()
        self.sockets = []
        if self.address.is_unix and self.ours and not keep_path:
            try:
                os.unlink(self.address.path)
            except OSError:
                pass


async def bind(
    listener_id: str,
    text: str,
    slots: int,
    *,
    probe: bool = True,
    passed: dict[str, socket.socket] | None = None,
) -> BoundListener:
    """Bind an address for ``slots`` workers. Raises StartError with one line that says what to do. ``probe``: False
    where a listener of this gateway may have the port already. ``passed``: sockets that systemd opened, by address; one
    that fits is taken."""
    address = parse(text, allow_port_zero=True)
    given = passed.pop(str(address), None) if passed else None
    if given is not None:
        return BoundListener(listener_id, address, [given], ours=False)
    if address.is_unix:
        return BoundListener(listener_id, address, [_bind_unix(address)])
    family, host = _family(address)
    if probe:
        await _probe(family, host, address)
    sockets = []
    port = address.port
    try:
        for _ in range(slots):
            sock = _tcp_socket(family)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            # Accepted sockets inherit these: no system call per connection.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.bind((host, port))
            port = sock.getsockname()[1]
        for sock in sockets:
            sock.listen(BACKLOG)
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise StartError(explain(error, address)) from None
    return BoundListener(listener_id, Address(address.host, port), sockets)


def _family(address: Address) -> tuple[socket.AddressFamily, str]:
    """Family and host to bind."""
    if address.host == "":
        return (socket.AF_INET6, "::") if _has_ipv6() else (socket.AF_INET, "0.0.0.0")
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise StartError(f"cannot listen on {address}: {address.host!r} does not resolve ({error})") from None
    # A name with several addresses: the first, IPv4 before IPv6, so that "localhost" is 127.0.0.1 everywhere.
    found.sort(key=lambda info: info[0] != socket.AF_INET)
    family, _, _, _, sockaddr = found[0]
    return family, str(sockaddr[0])


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::", 0))
    except OSError:
        return False
    return True


def _tcp_socket(family: socket.AddressFamily) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.setblocking(False)
    return sock


async def _probe(family: socket.AddressFamily, host: str, address: Address) -> None:
    """Find out whether anybody else listens there."""
    if address.port == 0:
        return
    give_up = monotonic() + _RETRY_FOR
    while True:
        try:
            with _tcp_socket(family) as sock:
                sock.bind((host, address.port))
                sock.listen(1)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or monotonic() >= give_up:
                raise StartError(explain(error, address)) from None
            await asyncio.sleep(_RETRY_EVERY)
        else:
            return


def _bind_unix(address: Address) -> socket.socket:
    path = address.path
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.setblocking(False)
                answer = probe.connect_ex(path)
            if answer in (0, errno.EAGAIN):  # EAGAIN: its backlog is full
                raise StartError(f"cannot listen on {address}: another program listens there")
            if answer == errno.ECONNREFUSED:
                os.unlink(path)  # left behind by a process that is gone
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StartError(explain(error, address)) from None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        sock.bind(path)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise StartError(explain(error, address)) from None
    return sock


def explain(error: OSError, address: Address) -> str:
    """One line about a failed bind, with what to do."""
    hint = {
        errno.EADDRINUSE: "the address is already in use (is another gogate or server running there?)",
        errno.EACCES: "permission denied (ports below 1024 need CAP_NET_BIND_SERVICE or root)",
        errno.EADDRNOTAVAIL: "this machine has no such address",
    }.get(error.errno or 0, error.strerror or str(error))
    return f"cannot listen on {address}: {hint}"
