"""What listeners with TLS show, and clients that speak it: settings of a listener, contexts, a client one can stop.

The authority is the one of doubles/tls_backends.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl

import trustme
from doubles.tls_backends import CA, pem

from gogate_py.snapshot import Certificate, ListenerTls

#: The names of the usual certificate.
NAMES = ("a.test", "*.wild.test", "127.0.0.1")


def certificate(*names: str, key_type: trustme.KeyType = trustme.KeyType.ECDSA) -> Certificate:
    """A certificate for these names or IP addresses."""
    leaf = CA.issue_cert(*names, key_type=key_type)
    return Certificate(names, "".join(pem(blob) for blob in leaf.cert_chain_pems), pem(leaf.private_key_pem))


USUAL = certificate(*NAMES)


def listener_tls(*certificates: Certificate, clients: trustme.CA | None = None, **settings: object) -> ListenerTls:
    """What a snapshot says of a listener. ``clients``: whose certificates are believed, and needed unless
    ``client_auth`` says optional."""
    if clients is not None:
        settings = {"client_auth": "require", "client_ca": pem(clients.cert_pem), **settings}
    shown = certificates or (USUAL,)
    digest = hashlib.sha256(repr((shown, sorted(settings.items()))).encode()).hexdigest()
    return ListenerTls(digest, shown, **settings)  # type: ignore[arg-type]


def client_context(
    *,
    alpn: tuple[str, ...] = (),
    own: trustme.LeafCert | None = None,
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    verify: bool = True,
    ciphers: str = "",
) -> ssl.SSLContext:
    """A client that believes our authority. ``own``: its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = newest
    context.check_hostname = verify
    if verify:
        CA.configure_trust(context)
    else:
        context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if own is not None:
        own.configure_cert(context)
    if ciphers:
        context.set_ciphers(ciphers)
    return context


class TlsPeer:
    """A client on a raw socket that reads only what a test asks for; TLS through buffers, so that it can half-close."""

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, name: str | None, session: ssl.SSLSession | None = None
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._loop = asyncio.get_running_loop()
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.spoken = context.wrap_bio(self._in, self._out, server_hostname=name, session=session)

    @classmethod
    async def connect(
        cls,
        port: int,
        context: ssl.SSLContext | None = None,
        name: str | None = "a.test",
        session: ssl.SSLSession | None = None,
    ) -> TlsPeer:
        """Connect and shake hands."""
        peer = await cls.plain(port, context, name, session)
        await peer.shake_hands()
        return peer

    @classmethod
    async def plain(
        cls,
        port: int,
        context: ssl.SSLContext | None = None,
        name: str | None = "a.test",
        session: ssl.SSLSession | None = None,
    ) -> TlsPeer:
        """Connect only."""
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        return cls(sock, context or client_context(verify=name is not None), name, session)

    async def shake_hands(self) -> None:
        """The handshake; raises ssl.SSLError, ConnectionError."""
        while True:
            try:
                self.spoken.do_handshake()
            except ssl.SSLWantReadError:
                await self.flush()
                await self._more()
            else:
                await self.flush()
                return

    def hello(self) -> bytes:
        """The bytes of its ClientHello."""
        try:
            self.spoken.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return self._out.read()

    async def flush(self) -> None:
        """Send what TLS has to send."""
        if self._out.pending:
            await self._loop.sock_sendall(self.sock, self._out.read())

    async def _more(self) -> bool:
        data = await self._loop.sock_recv(self.sock, 1 << 16)
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()
        return bool(data)

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        self.spoken.write(data)
        await self.flush()

    async def some(self) -> bytes:
        """What there is; b"" at close_notify; raises ssl.SSLEOFError where it is missing."""
        while True:
            try:
                return self.spoken.read(1 << 16)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                if not await self._more():
                    raise ssl.SSLEOFError("no close_notify") from None

    async def exactly(self, size: int) -> bytes:
        """So many bytes."""
        data = bytearray()
        while len(data) < size:
            more = await self.some()
            assert more, f"EOF after {len(data)} of {size} bytes"
            data += more
        assert len(data) == size
        return bytes(data)

    async def until_eof(self) -> bytes:
        """Everything up to close_notify."""
        data = bytearray()
        while more := await self.some():
            data += more
        return bytes(data)

    async def notify(self) -> None:
        """Send close_notify, go on reading."""
        try:
            self.spoken.unwrap()
        except ssl.SSLWantReadError:
            pass
        await self.flush()

    def fin(self) -> None:
        """Send FIN, without close_notify."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()
