"""OpenAPI documents of backends: fetched from the URLs that routes name, in the background, kept until newer ones come.

    at first          at once; then every REFRESH seconds
    a fetch fails     after RETRY seconds again; the last good document stays
    no redirect is followed, 2 MiB and 5 s at most (key_set_fetch.py)

Only URLs that the configuration names are asked. What comes is data for a description; nothing is decided by it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from attrs import define

from gogate_py.clock import monotonic
from gogate_py.config.openapi_document import UnusableDocument, read_document
from gogate_py.config.schema import Config, Route
from gogate_py.controlplane.key_set_fetch import Fetcher, FetchError
from gogate_py.controlplane.key_sets import shown_url

log = logging.getLogger("gogate.openapi")

REFRESH: Final = 300.0
RETRY: Final = 10.0
MAX_BYTES: Final = 2 << 20


@define
class Source:
    """One document: where it is from, what is known of it. ``good_at``: monotonic seconds of the last good fetch."""

    source: str  # as it is shown
    document: dict[str, Any] | None = None
    error: str = "not fetched yet"
    good_at: float | None = None

    def told(self, now: float) -> dict[str, Any]:
        """For the description."""
        age = None if self.good_at is None else round(now - self.good_at, 3)
        return {"source": self.source, "age_s": age, "error": self.error}


class Documents:
    """The documents of the configuration that is served. Lives in the supervisor's loop."""

    def __init__(self, fetch: Callable[[str], Awaitable[bytes]] | None = None, retry: float = RETRY) -> None:
        self._fetch = fetch or Fetcher(anywhere=True, most=MAX_BYTES, accept="application/json")
        self._retry = retry
        self._config: Config | None = None
        self._known: dict[str, Source] = {}
        self._files: dict[str, Source] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def follow(self, config: Config) -> None:
        """Fetch what this configuration names, and nothing else."""
        if config is self._config:
            return
        self._config = config
        named = [route for route in config.effective_routes() if route.openapi]
        self._files = {
            route.openapi: Source(route.openapi, read_document(route.openapi_text.encode()), "")
            for route in named if route.openapi_text}
        self._keep({route.openapi for route in named if not route.openapi_text})

    def _keep(self, urls: Iterable[str]) -> None:
        wanted = set(urls)
        for url in self._tasks.keys() - wanted:
            self._tasks.pop(url).cancel()
            del self._known[url]
        for url in sorted(wanted - self._tasks.keys()):
            self._known[url] = Source(shown_url(url))
            self._tasks[url] = asyncio.get_running_loop().create_task(self._keep_fetching(url, self._known[url]))

    def of(self, routes: Iterable[Route]) -> dict[str, Source]:
        """Route's name → what is known of its document now (a copy: it may be used in a thread)."""
        known = {**self._known, **self._files}
        return {
            route.name: Source(one.source, one.document, one.error, one.good_at)
            for route in routes if (one := known.get(route.openapi)) is not None}

    async def stop(self) -> None:
        """End all fetches."""
        tasks = list(self._tasks.values())
        self._keep(())
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_fetching(self, url: str, source: Source) -> None:
        while True:
            before = source.error
            try:
                source.document = read_document(await self._fetch(url))
                source.good_at, source.error = monotonic(), ""
            except (FetchError, UnusableDocument) as error:
                source.error = str(error)
                if before != source.error:
                    log.warning("openapi document cannot be used", extra={"url": source.source, "error": source.error})
            except Exception as error:  # the document of one route must not end with whatever its server does
                source.error = "internal error"
                log.error("internal error", exc_info=error, extra={"where": "openapi", "url": source.source})
            await asyncio.sleep(self._retry if source.error else REFRESH)
