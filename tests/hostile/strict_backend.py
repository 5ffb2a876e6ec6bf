"""A backend that accepts nothing but canonical requests, and keeps every one it got and every byte it should not have.

It is its own parser on purpose: it shares no line with gogate_py/wire, and it is far stricter than RFC 9112, because
gogate promises that what it sends is unambiguous to any parser, strict or lenient:

    request line    a standard method, an origin-form target in its normal form (or OPTIONS *), HTTP/1.1
    fields          names of letters, digits and hyphens; no control byte but HTAB; CRLF and nothing else ends a line
    exactly one     Host, X-Forwarded-For, X-Forwarded-Proto, X-Real-IP, X-Request-ID
    framing         at most one of ``Content-Length: <no leading zeros>`` and ``Transfer-Encoding: chunked``
    chunks          lower-case hexadecimal sizes without leading zeros, no extensions, no trailers
    never           other hop-by-hop fields; Connection and Upgrade only for a WebSocket without a body

Each complete request is answered 200 with its number in ``X-Backend-Number``, so that a client can tell which of its
requests an answer belongs to. The server has a thread and a loop of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from dataclasses import dataclass

METHODS = rb"(GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH)"
PCHAR = rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@\[\]]|%[0-9A-F]{2})"
QUERY = rb"[!$-;=?-\[\]_a-z|~]"
REQUEST_LINE = re.compile(METHODS + rb" (\*|(?:/%b*)+(?:\?%b*)?) HTTP/1\.1" % (PCHAR, QUERY))
FIELD = re.compile(rb"([A-Za-z0-9\-]{1,256}):[ \t]*((?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*")
UNRESERVED_ESCAPE = re.compile(rb"%(?:4[1-9A-F]|5[0-9A]|6[1-9A-F]|7[0-9A]|3[0-9]|2D|2E|5F|7E)")
ONCE = (b"host", b"x-forwarded-for", b"x-forwarded-proto", b"x-real-ip", b"x-request-id")
AT_MOST_ONCE = (b"content-length", b"transfer-encoding", b"expect", b"connection", b"upgrade", b"x-forwarded-host")
NEVER = frozenset((b"keep-alive", b"proxy-connection", b"te", b"trailer", b"forwarded", b"http2-settings"))
VALUES = {
    b"host": rb"(?:[A-Za-z0-9_\-.]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?",
    b"x-forwarded-for": rb"[0-9a-f:., ]+",
    b"x-forwarded-proto": rb"http",
    b"x-real-ip": rb"[0-9a-f:.]+",
    b"x-request-id": rb"[A-Za-z0-9._\-]{1,128}",
    b"content-length": rb"0|[1-9][0-9]{0,18}",
    b"transfer-encoding": rb"chunked",
    b"expect": rb"100-continue",
    b"connection": rb"Upgrade",
    b"upgrade": rb"websocket",
}
CHUNK_LINE = re.compile(rb"(0|[1-9a-f][0-9a-f]{0,14})\r\n")
HEAD_LIMIT = 64 * 1024


class Violation(Exception):
    """A byte that gogate must never have sent."""


@dataclass
class Seen:
    """One complete request."""

    number: int
    method: bytes
    target: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes


def check_head(head: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]]:
    """Take a head apart: method, target, fields. Raises Violation."""
    lines = head[:-4].split(b"\r\n")
    if b"\x00" in head or any(b"\r" in line or b"\n" in line for line in lines):
        raise Violation("a bare CR, a bare LF or a NUL")
    line = REQUEST_LINE.fullmatch(lines[0])
    if line is None:
        raise Violation("request line")
    method, target = line[1], line[2]
    check_target(method, target)
    fields = []
    for raw in lines[1:]:
        field = FIELD.fullmatch(raw)
        if field is None:
            raise Violation(f"field line {raw!r}")
        fields.append((field[1], field[2]))
    names = [name.lower() for name, _ in fields]
    for name in ONCE:
        if names.count(name) != 1:
            raise Violation(f"{names.count(name)} times {name!r}")
    for name in AT_MOST_ONCE:
        if names.count(name) > 1:
            raise Violation(f"{names.count(name)} times {name!r}")
    for name, value in fields:
        pattern = VALUES.get(name.lower())
        if pattern is not None and re.fullmatch(pattern, value) is None:
            raise Violation(f"value of {name!r}: {value!r}")
    if NEVER.intersection(names):
        raise Violation(f"hop-by-hop fields {NEVER.intersection(names)}")
    if b"content-length" in names and b"transfer-encoding" in names:
        raise Violation("Content-Length and Transfer-Encoding")
    upgrades = b"upgrade" in names
    if upgrades != (b"connection" in names):
        raise Violation("Connection without Upgrade, or the other way round")
    has_body = b"transfer-encoding" in names or any(n == b"Content-Length" and v != b"0" for n, v in fields)
    if upgrades and (method != b"GET" or has_body):
        raise Violation("an upgrade with a body, or not by GET")
    return method, target, fields


def check_target(method: bytes, target: bytes) -> None:
    """The path is in its one normal form. Raises Violation."""
    if target == b"*":
        if method != b"OPTIONS":
            raise Violation("target *")
        return
    path = target.partition(b"?")[0]
    if b"//" in path or re.search(rb"/\.\.?(?:/|$|;)", path) or UNRESERVED_ESCAPE.search(path):
        raise Violation(f"path not in normal form: {path!r}")
    if re.search(rb"%(?:2F|5C|00)", path):
        raise Violation(f"encoded separator in the path: {path!r}")


class StrictBackend:
    """The server. ``requests`` and ``violations`` may be read when the gateway is quiet."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self.violations: list[str] = []
        self.cut_off: list[bytes] = []  # what had come of a request whose connection ended
        self.connections = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    async def _start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=HEAD_LIMIT, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        so_far = bytearray()
        try:
            while True:
                so_far.clear()
                await self._one(reader, writer, so_far)
        except Violation as violation:
            with contextlib.suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
                so_far += await asyncio.wait_for(reader.read(4096), 0.2) if not so_far else b""
            self.violations.append(f"{violation} in {bytes(so_far)!r}")
        except asyncio.LimitOverrunError:
            self.violations.append("a head or line without end")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            so_far += getattr(error, "partial", b"")
            if so_far:
                self.cut_off.append(bytes(so_far))
        except asyncio.CancelledError:
            pass  # the end of the test
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, so_far: bytearray) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        so_far += head
        method, target, fields = check_head(head)
        values = {name.lower(): value for name, value in fields}
        body = b""
        if b"expect" in values:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if b"content-length" in values:
            body = await reader.readexactly(int(values[b"content-length"]))
        elif b"transfer-encoding" in values:
            body = await self._chunks(reader, so_far)
        seen = Seen(len(self.requests), method, target, fields, body)
        self.requests.append(seen)
        answer = b"%b %b %d" % (method, target, len(body))
        writer.write(
            b"HTTP/1.1 200 OK\r\nX-Backend-Number: %d\r\nX-Backend-Method: %b\r\nContent-Length: %d\r\n\r\n"
            % (seen.number, method, len(answer))
            + (b"" if method == b"HEAD" else answer)
        )
        await writer.drain()

    @staticmethod
    async def _chunks(reader: asyncio.StreamReader, so_far: bytearray) -> bytes:
        body = bytearray()
        while True:
            line = await reader.readuntil(b"\r\n")
            so_far += line
            size = CHUNK_LINE.fullmatch(line)
            if size is None:
                raise Violation("chunk size line")
            data = await reader.readexactly(int(size[1], 16) + 2)
            so_far += data
            if data[-2:] != b"\r\n":
                raise Violation("chunk data without CRLF, or a trailer")
            if len(data) == 2:
                return bytes(body)
            body += data[:-2]

    def __enter__(self) -> StrictBackend:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *exc: object) -> None:
        async def stop() -> None:
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

