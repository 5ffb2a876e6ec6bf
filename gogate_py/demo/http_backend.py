"""A small HTTP application that shows what reaches a backend: ``python -m gogate_py.demo.http_backend --port 8001``.

    GET  /                who answers
    GET  /headers         the request's head as this backend saw it, as JSON
    GET  /slow?ms=500     answers after a while (at most a minute)
    ANY  /status/503      answers with this status
    POST /echo            sends the body back while it comes
    GET  /events          a few server-sent events, one every half second
    GET  /healthz         for probes

It is Starlette under uvicorn, as a user's own application might be, and knows nothing of gogate.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator

import click
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gogate_py.demo.lifeline import end_with_parent

_LONGEST_WAIT_MS = 60_000
_EVENTS = 5
_EVENT_EVERY = 0.5


def application(name: str) -> Starlette:
    """The application of the instance called ``name``; every answer carries it in X-Instance."""

    def answer_text(text: str, status: int = 200) -> Response:
        return PlainTextResponse(text, status, {"X-Instance": name})

    async def index(request: Request) -> Response:
        return answer_text(f"hello from {name} (pid {os.getpid()})\n")

    async def healthz(request: Request) -> Response:
        return answer_text("ok\n")

    async def headers(request: Request) -> Response:
        head = {
            "instance": name,
            "method": request.method,
            "target": request.url.path,
            "headers": [[key, value] for key, value in request.headers.items()],
        }
        text = json.dumps(head, indent=2) + "\n"  # for people who use curl
        return Response(text, media_type="application/json", headers={"X-Instance": name})

    async def slow(request: Request) -> Response:
        text = request.query_params.get("ms", "1000")
        if not (text.isascii() and text.isdecimal() and int(text) <= _LONGEST_WAIT_MS):
            return answer_text(f"ms is a number of milliseconds up to {_LONGEST_WAIT_MS}\n", 400)
        await asyncio.sleep(int(text) / 1000)
        return answer_text(f"{name} took {text} ms\n")

    async def status(request: Request) -> Response:
        code: int = request.path_params["code"]
        if not 200 <= code <= 599:
            return answer_text("a status between 200 and 599, please\n", 400)
        # 204 and 304 have no content (RFC 9110 section 6.4.1).
        if code in (204, 304):
            return Response(status_code=code, headers={"X-Instance": name})
        return answer_text(f"{name} answers {code}\n", code)

    async def events(request: Request) -> Response:
        async def lines() -> AsyncIterator[str]:
            for number in range(1, _EVENTS + 1):
                yield f"id: {number}\ndata: event {number} of {_EVENTS} from {name}\n\n"
                await asyncio.sleep(_EVENT_EVERY)

        kept = {"X-Instance": name, "Cache-Control": "no-store"}
        return StreamingResponse(lines(), media_type="text/event-stream", headers=kept)

    every_method = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    return Starlette(
        routes=[
            Route("/", index),
            Route("/headers", headers),
            Route("/slow", slow),
            Route("/status/{code:int}", status, methods=every_method),
            Route("/echo", Echo(name), methods=["POST", "PUT"]),
            Route("/events", events),
            Route("/healthz", healthz),
        ]
    )


class Echo:
    """POST /echo as a bare ASGI application.

    Starlette's StreamingResponse listens for a disconnect while it sends, and so takes parts of the request's body
    away from whoever reads it at the same time.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send every part of the body back as it comes."""
        request = Request(scope, receive)
        kind = request.headers.get("content-type", "application/octet-stream")
        head = [(b"content-type", kind.encode("latin-1")), (b"x-instance", self._name.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        with contextlib.suppress(ClientDisconnect):
            async for part in request.stream():
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


@click.command()
@click.option("--name", required=True, help="What this instance calls itself.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), required=True)
def main(name: str, host: str, port: int) -> None:
    """Serve the demo's HTTP application."""
    end_with_parent()
    # One second for what still streams: whoever ends a demo does not want to wait for its events.
    uvicorn.run(
        application(name), host=host, port=port, log_level="warning", access_log=False, lifespan="off",
        timeout_graceful_shutdown=1,
    )  # fmt: skip


if __name__ == "__main__":
    main()
