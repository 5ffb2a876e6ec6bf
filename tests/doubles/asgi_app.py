"""A small ASGI application for a real server behind the gateway: what was asked, uploads, downloads, SSE, WebSocket."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any
from urllib.parse import parse_qs

from noise import blocks


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The application."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    elif scope["type"] == "websocket":
        await _websocket(receive, send)
    else:
        query = {key: values[0] for key, values in parse_qs(scope["query_string"].decode()).items()}
        await _ROUTES.get(scope["path"], _echo)(scope, query, receive, send)


async def _start(send: Any, status: int = 200, content_type: str = "application/json", **headers: str) -> None:
    fields = {"content-type": content_type, **{key.replace("_", "-"): value for key, value in headers.items()}}
    encoded = [(key.encode(), value.encode()) for key, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})


async def _json(send: Any, value: Any, status: int = 200) -> None:
    body = json.dumps(value).encode()
    await _start(send, status, content_length=str(len(body)))
    await send({"type": "http.response.body", "body": body})


async def _body(receive: Any) -> tuple[int, str]:
    """Length and SHA-256 of the request's body."""
    size, digest = 0, hashlib.sha256()
    while True:
        message = await receive()
        chunk = message.get("body", b"")
        size += len(chunk)
        digest.update(chunk)
        if not message.get("more_body"):
            return size, digest.hexdigest()


async def _echo(scope: Any, query: dict[str, str], receive: Any, send: Any) -> None:
    size, digest = await _body(receive)
    headers = [[key.decode("latin-1"), value.decode("latin-1")] for key, value in scope["headers"]]
    told = {"method": scope["method"], "path": scope["path"], "query": scope["query_string"].decode(),
            "http_version": scope["http_version"], "headers": headers, "size": size, "sha256": digest}
    await _json(send, told, int(query.get("status", "200")))


async def _download(scope: Any, query: dict[str, str], receive: Any, send: Any) -> None:
    size = int(query["size"])
    # without a length the server sends it chunked, or delimits it by close for HTTP/1.0
    framing = {} if "chunked" in query else {"content_length": str(size)}
    await _start(send, content_type="application/octet-stream", **framing)
    for block in blocks(int(query.get("seed", "1")), size):
        await send({"type": "http.response.body", "body": block, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


_gates: dict[str, asyncio.Queue[None]] = {}


async def _events(scope: Any, query: dict[str, str], receive: Any, send: Any) -> None:
    """Server-sent events: the first at once, each further one when somebody asks for /next with the same gate."""
    gate = _gates.setdefault(query["gate"], asyncio.Queue())
    await _start(send, content_type="text/event-stream", cache_control="no-store")
    for number in range(int(query["count"])):
        if number:
            await gate.get()
        await send({"type": "http.response.body", "body": b"id: %d\ndata: {}\n\n" % number, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _next(scope: Any, query: dict[str, str], receive: Any, send: Any) -> None:
    _gates.setdefault(query["gate"], asyncio.Queue()).put_nowait(None)
    await _json(send, {})


async def _early(scope: Any, query: dict[str, str], receive: Any, send: Any) -> None:
    """Refuses without reading the body."""
    await _json(send, {"error": "not wanted"}, 403)


async def _empty(scope: Any, query: dict[str, str], receive: Any, send: Any) -> None:
    framing = {} if query["status"] in {"204", "304"} else {"content_length": "0"}
    await _start(send, int(query["status"]), **framing)
    await send({"type": "http.response.body", "body": b""})


async def _websocket(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("text") == "close please":
            await send({"type": "websocket.close", "code": 4001, "reason": "as asked"})
            return
        answer = {key: message[key] for key in ("text", "bytes") if message.get(key) is not None}
        await send({"type": "websocket.send", **answer})


_ROUTES = {"/download": _download, "/events": _events, "/next": _next, "/early": _early, "/empty": _empty}
