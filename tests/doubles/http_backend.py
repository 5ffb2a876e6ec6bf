"""An HTTP backend whose answers a test decides, on an event loop in a thread of its own.

    with HttpBackend("a") as backend:
        backend.status = 503          # from now on
        backend.delay = 0.02          # seconds until an answer
        backend.hold()                # answers wait until release()

It counts requests and connections, and remembers heads. It is no HTTP server: it takes what the gateway writes, which
is one well-formed message at a time with Content-Length or chunks.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any


class HttpBackend:
    """One backend; ``address`` is its host:port. Answers carry ``name`` as X-Backend and as the start of the body."""

    def __init__(self, name: str = "backend", body: bytes = b"", port: int = 0) -> None:
        self.name = name
        self.body = body or f"hello from {name}\n".encode()
        self.status = 200
        self.health_status = 200
        self.delay = 0.0
        self.port = port
        self.requests = 0
        self.probes = 0
        self.connections = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.heads: list[bytes] = []
        self._held: list[Any] | None = None
        self._clients: set[asyncio.Transport] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """host:port"""
        return f"127.0.0.1:{self.port}"

    def hold(self) -> None:
        """Keep answers back."""
        self._held = []

    def release(self) -> None:
        """Send what was kept back, and answer at once again."""
        held, self._held = self._held or [], None
        for answer in held:
            self._loop.call_soon_threadsafe(answer)

    def stop_listening(self) -> None:
        """Refuse connections from now on, and cut those that are open."""
        self._call(self._close())

    def listen(self) -> None:
        """Accept connections, on the same port as before."""
        self._call(self._open())

    def _call(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10.0)

    async def _open(self) -> None:
        self._server = await self._loop.create_server(lambda: _Protocol(self), "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        # Who was just accepted becomes a client in the next turns of the loop.
        for _ in range(5):
            for transport in list(self._clients):
                transport.abort()
            await asyncio.sleep(0)

    def __enter__(self) -> HttpBackend:
        self._thread.start()
        self.listen()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop_listening()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        self._loop.close()

    # --- for the protocol

    def answer(self, protocol: _Protocol, head: bytes, body: bytes) -> None:
        """Answer a request, now, later, or when released."""
        path = head.split(b" ", 2)[1]
        if path.startswith(b"/health"):
            self.probes += 1
            protocol.send(self.health_status, b"health\n")
            return
        self.requests += 1
        self.heads.append(head)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

        def send() -> None:
            self.in_flight -= 1
            protocol.send(self.status, self.body)

        if self._held is not None:
            self._held.append(send)
        elif self.delay:
            self._loop.call_later(self.delay, send)
        else:
            send()


class _Protocol(asyncio.Protocol):
    def __init__(self, backend: HttpBackend) -> None:
        self._backend = backend
        self._data = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._backend.connections += 1
        self._backend._clients.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._backend._clients.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        while True:
            head, found, rest = self._data.partition(b"\r\n\r\n")
            if not found:
                return
            fields = head.lower().split(b"\r\n")
            length = next((int(f[15:]) for f in fields if f.startswith(b"content-length:")), 0)
            if b"transfer-encoding: chunked" in fields:
                body, found, rest = rest.partition(b"0\r\n\r\n")
                if not found:
                    return
            else:
                if len(rest) < length:
                    return
                body, rest = rest[:length], rest[length:]
            self._data = rest
            self._backend.answer(self, head, body)

    def send(self, status: int, body: bytes) -> None:
        """Write an answer, if anybody is left to read it."""
        if not self._transport.is_closing():
            head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nX-Backend: {self._backend.name}\r\n\r\n"
            self._transport.write(head.encode() + body)
