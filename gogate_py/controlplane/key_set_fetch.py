"""One fetch of a key set: a GET whose every step is bounded, because what it brings decides who is let in.

OpenAPI documents of backends are fetched likewise, but over http from anywhere: they decide nothing.

    https, or http to an address of this machine    anything else is refused; so is http to a name that leads elsewhere
    no redirect is followed                         the configuration names the place
    200 with at most 512 KiB, no content coding     anything else is an error
    5 s for all of it                               connect, TLS, head and body together

Certificates are checked against the system's trust store (SSL_CERT_FILE and SSL_CERT_DIR are respected), or one CA
file. Proxies from the environment are not used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from typing import Final
from urllib.parse import urlsplit

from gogate_py import __version__
from gogate_py.errors import GogateError
from gogate_py.policy.credentials import check_jwks_url

TIMEOUT: Final = 5.0
MAX_BYTES: Final = 512 * 1024
_KEY_SET: Final = "application/jwk-set+json, application/json"
_MAX_HEAD: Final = 32 * 1024
_READ: Final = 64 * 1024


class FetchError(GogateError):
    """Nothing that can be used came; the text says why, and holds nothing that the other side sent."""


class Fetcher:
    """Fetches key sets; keeps the TLS settings, no connections."""

    def __init__(
        self, ca_file: str = "", timeout: float = TIMEOUT, *, anywhere: bool = False, most: int = MAX_BYTES,
        accept: str = _KEY_SET,
    ) -> None:
        """``ca_file``: PEM of the only CAs to trust, "" = the system's. It is read at the first https fetch.
        ``anywhere``: http is not for this machine only, and the configuration has checked the URL. ``most``: bytes."""
        self._ca_file = ca_file
        self._timeout = timeout
        self._anywhere = anywhere
        self._most = most
        self._accept = accept
        self._tls: ssl.SSLContext | None = None

    async def __call__(self, url: str) -> bytes:
        """The body at this URL. Raises FetchError."""
        problem = "" if self._anywhere else check_jwks_url(url)
        if problem:
            raise FetchError(f"the URL {problem}")
        try:
            async with asyncio.timeout(self._timeout):
                return await self._fetch(url)
        except TimeoutError:
            raise FetchError(f"no complete answer within {self._timeout:g} s") from None
        except ssl.SSLCertVerificationError as error:
            raise FetchError(f"its certificate is not trusted: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise FetchError(f"no TLS: {error.reason or 'it failed'}") from error
        except UnicodeError as error:
            raise FetchError("its host is not a name that can be looked up") from error
        except OSError as error:
            raise FetchError(error.strerror or str(error) or type(error).__name__) from error

    async def _fetch(self, url: str) -> bytes:
        parts = urlsplit(url)
        host = parts.hostname or ""
        secure = parts.scheme == "https"
        if secure and self._tls is None:
            self._tls = ssl.create_default_context(cafile=self._ca_file or None)
        port = parts.port or (443 if secure else 80)
        reader, writer = await asyncio.open_connection(host, port, ssl=self._tls if secure else None, limit=_READ)
        try:
            peer = str(writer.get_extra_info("peername")[0]).partition("%")[0]
            if not secure and not self._anywhere and not ipaddress.ip_address(peer).is_loopback:
                raise FetchError("the name does not lead to this machine, which http is for")
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            return await self._get(parts.netloc, target, reader, writer)
        finally:
            # abort rather than close: the answer is complete or worthless, and a silent peer must not keep the socket
            writer.transport.abort()

    async def _get(
        self, host: str, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        import h11  # 10 ms: not before somebody is asked

        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        request = h11.Request(
            method="GET",
            target=target,
            headers=[
                ("Host", host),
                ("User-Agent", f"gogate/{__version__}"),
                ("Accept", self._accept),
                ("Accept-Encoding", "identity"),
                ("Connection", "close"),
            ],
        )
        body = bytearray()
        try:
            writer.write((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await reader.read(_READ))
                elif isinstance(event, h11.Response):
                    if event.status_code != 200:
                        where = ", a redirect, which is not followed" if 300 <= event.status_code < 400 else ""
                        raise FetchError(f"status {event.status_code}{where}")
                    if any(name == b"content-encoding" and value != b"identity" for name, value in event.headers):
                        raise FetchError("its answer has a content coding that was not asked for")
                elif isinstance(event, h11.Data):
                    body += event.data
                    if len(body) > self._most:
                        raise FetchError(f"its answer is larger than {self._most // 1024} KiB")
                elif isinstance(event, h11.EndOfMessage):
                    return bytes(body)
                elif isinstance(event, h11.ConnectionClosed):
                    raise FetchError("it closed the connection without an answer")
        except h11.RemoteProtocolError as error:
            raise FetchError("its answer is not HTTP, or ends too early") from error
