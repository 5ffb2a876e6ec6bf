"""A reverse proxy as one writes it with aiohttp, on uvloop: ``python aiohttp_proxy.py SETTINGS.json``, a peer of the
benchmarks. Bodies are streamed, connections kept; one process per worker."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import ssl
import sys
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from aiohttp import web

_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host"}
_PR_SET_PDEATHSIG = 1


async def serve(settings: dict[str, Any]) -> None:
    """Serve until killed."""
    target = f"http://127.0.0.1:{settings['web']}"
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=90)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:

        async def forward(request: web.BaseRequest) -> web.StreamResponse:
            fields = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
            fields["X-Forwarded-For"] = request.remote or ""
            body = request.content.iter_any() if request.can_read_body else None
            async with session.request(request.method, target + request.raw_path, headers=fields, data=body,
                                       allow_redirects=False) as answer:  # fmt: skip
                kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
                down = web.StreamResponse(status=answer.status, headers=kept)
                await down.prepare(request)
                async for chunk in answer.content.iter_any():
                    await down.write(chunk)
                await down.write_eof()
                return down

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings["certificate"], settings["key"])
        runner = web.ServerRunner(web.Server(forward, access_log=None, keepalive_timeout=3600))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", settings["http"], backlog=4096, reuse_port=True).start()
        await web.TCPSite(
            runner, "127.0.0.1", settings["https"], backlog=4096, reuse_port=True, ssl_context=context
        ).start()
        await asyncio.Event().wait()


def main() -> None:
    """One process per worker; the first is the parent of the others, and they end with it."""
    settings = json.loads(Path(sys.argv[1]).read_text())
    parent = os.getpid()
    for _ in range(settings["workers"] - 1):
        if not os.fork():
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                return  # it was gone before the line above
            break
    uvloop.run(serve(settings))


if __name__ == "__main__":
    main()
