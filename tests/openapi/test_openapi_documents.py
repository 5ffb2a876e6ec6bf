"""Documents of backends are fetched in the background: from what the configuration names, bounded, kept."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from doubles.configs import gateway_config
from doubles.gateway import Gateway, wait_for
from openapi_spec_validator import OpenAPIV31SpecValidator
from test_openapi_merge import USERS

from gogate_py.config.loader import load_text
from gogate_py.config.schema import Config
from gogate_py.controlplane.key_set_fetch import Fetcher, FetchError
from gogate_py.controlplane.openapi_documents import MAX_BYTES, Documents


class Backend(ThreadingHTTPServer):
    """A backend with a document; ``body`` is what it answers, ``asked`` the paths that were asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body = json.dumps(USERS).encode()
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        """Of its document."""
        return f"http://127.0.0.1:{self.server_address[1]}/openapi.json"


class _Handler(BaseHTTPRequestHandler):
    server: Backend

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(302 if self.path == "/moved" else 200)
        self.send_header("Location", self.server.url)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def backend() -> Iterator[Backend]:
    """One that runs."""
    with Backend() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_the_document_of_a_running_backend_is_merged(backend: Backend) -> None:
    """Fetched at the start and after a reload that names it; what cannot be fetched is told. Two workers."""
    def config(**api: Any) -> str:
        return gateway_config(
            {"httpListenAddr": "127.0.0.1:0", "health": {"enabled": False}},
            pools={"p": {"backends": [backend.url.split("/")[2]]}},
            routes=[{"name": "api", "match": {"pathPrefix": "/api"}, "stripPrefix": True, "pool": "p", **api},
                    {"name": "gone", "match": {"path": "/gone"}, "pool": "p", "openapi": "http://127.0.0.1:9/x?k=secret"}])

    def told(gateway: Gateway, name: str) -> Callable[[], Any]:
        return lambda: (lambda one: one if one and one["error"] != "not fetched yet" else None)(
            gateway.admin_json("GET", "/openapi/routes.json").get("x-gogate-documents", {}).get(name))

    with Gateway(config()) as gateway:
        gone = wait_for(told(gateway, "gone"), 20, "the fetch that fails")
        assert (gone["source"], gone["error"], gone["age_s"]) == ("http://127.0.0.1:9/x", "Connection refused", None)
        assert not backend.asked
        gateway.config_path.write_text(config(openapi=backend.url))
        assert gateway.admin_json("POST", "/reload")["result"] in ("success", "unchanged")
        assert wait_for(told(gateway, "api"), 20, "the document")["operations"] == 3
        document = gateway.admin_json("GET", "/openapi/routes.json")
        OpenAPIV31SpecValidator(document).validate()
        assert "/api/v1/users/{id}" in document["paths"]
        assert backend.asked == ["/openapi.json"]
        assert [one["url"] for one in gateway.logged("openapi document cannot be used")] == ["http://127.0.0.1:9/x"]


def configured(*urls: str) -> Config:
    """A configuration whose routes name these documents."""
    return load_text(json.dumps({
        "server": {"httpListenAddr": ":8081", "backends": ["127.0.0.1:9"]},
        "routes": [{"name": f"r{number}", "match": {"path": f"/{number}"}, "fixedResponse": {}, "openapi": url}
                   for number, url in enumerate(urls)]}), "config.yaml", {})


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it, not for ever."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0)


def test_the_last_good_document_stays() -> None:
    """After a failure it is still used, with the error beside it; what is not named any more is forgotten."""
    answers: list[bytes | Exception] = [json.dumps(USERS).encode(), FetchError("status 500"), b"[]", ValueError("bug")]
    asked: list[str] = []

    async def fetch(url: str) -> bytes:
        asked.append(url)
        answer = answers[min(len(asked), len(answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def main() -> None:
        config = configured("http://a.example/openapi.json?key=secret")
        documents = Documents(fetch, retry=0.0)
        documents.follow(config)
        documents.follow(config)
        assert documents.of(config.routes)["r0"].told(0) == {
            "source": "http://a.example/openapi.json", "age_s": None, "error": "not fetched yet"}
        await until(lambda: documents.of(config.routes)["r0"].document is not None)
        assert documents.of(config.routes)["r0"].error == ""
        assert asked == ["http://a.example/openapi.json?key=secret"]
        documents.follow(configured())
        assert documents.of(config.routes) == {}
        documents.follow(config)  # fetched anew: it fails from now on, in each way
        for error in ("status 500", "is not an OpenAPI document: not an object", "internal error"):
            await until(lambda error=error: documents.of(config.routes)["r0"].error == error)  # type: ignore[misc]
        await documents.stop()
        assert documents.of(config.routes) == {}

    asyncio.run(main())


@pytest.mark.parametrize(("path", "size", "error"), [
    ("/moved", 0, "a redirect, which is not followed"), ("/openapi.json", MAX_BYTES + 1, "larger than 2048 KiB")])
def test_fetches_are_bounded(backend: Backend, path: str, size: int, error: str) -> None:
    """No redirect is followed: the configuration names the place. Nothing large is kept."""
    backend.body = b" " * size
    fetch = Fetcher(anywhere=True, most=MAX_BYTES)
    with pytest.raises(FetchError, match=error):
        asyncio.run(fetch(backend.url.replace("/openapi.json", path)))
    assert backend.asked == [path]
