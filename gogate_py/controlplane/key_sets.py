"""Key sets of jwksUrl settings: fetched again and again, published when they changed, never on a worker's way.

    at first                        at once; then every REFRESH seconds, jittered by 10 %
    a fetch fails                   1, 2, 4 … RETRY_MAX seconds, jittered; the last good keys stay in use
    no good fetch for KEEP          the keys are dropped: KeySet(url, b"") is published, workers answer 503
    a worker meets an unknown kid   a fetch at once, but such fetches at least UNKNOWN_EVERY apart: asked too early it
                                    comes when that time is over. Its result is always published, changed or not: a
                                    request may be waiting for it
    not a key set, or no usable key counts as a failed fetch (policy/signature_keys judges, as the workers will)

:class:`Schedule` says when, and is given the clock; :class:`KeySetFetcher` drives one task for each URL.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

from attrs import frozen

from gogate_py.clock import Random, monotonic, new_random
from gogate_py.controlplane.key_set_fetch import Fetcher, FetchError
from gogate_py.messages import KeySet
from gogate_py.policy.signature_keys import parse_key_set

log = logging.getLogger("gogate.keys")

REFRESH: Final = 300.0
RETRY_MIN: Final = 1.0
RETRY_MAX: Final = 30.0
KEEP: Final = 3600.0
UNKNOWN_EVERY: Final = 30.0

#: The bytes at a URL. Raises FetchError.
Fetch = Callable[[str], Awaitable[bytes]]
#: Returns when the event is set, or after so many seconds.
Wait = Callable[[asyncio.Event, float], Awaitable[None]]


class Schedule:
    """When one URL is fetched next, and what is known of it. Moments are monotonic seconds, given."""

    __slots__ = ("_answers", "_asked_at", "_failures", "_random", "error", "good_at", "jwks", "keys", "next_at")

    def __init__(self, now: float, random: Random) -> None:
        self._random = random
        self._failures = 0
        self._asked_at = float("-inf")  # the last fetch that an unknown kid caused
        self._answers = False  # the fetch to come answers a worker
        self.next_at = now
        self.good_at = now  # of the last good fetch; the start before there was one
        self.jwks = b""
        self.keys = 0
        self.error = "not fetched yet"

    def recall(self, jwks: bytes, good_at: float) -> None:
        """These were fetched at that moment, and checked."""
        self.jwks, self.good_at, self.error = jwks, good_at, ""
        self.keys = len(parse_key_set(jwks).keys)

    def unknown(self, now: float) -> None:
        """A worker met a kid that the keys do not have."""
        self._answers = True
        self.next_at = min(self.next_at, max(now, self._asked_at + UNKNOWN_EVERY))

    def begin(self, now: float) -> bool:
        """A fetch begins; → whether its result is to be published even if it is the same."""
        answers, self._answers = self._answers, False
        if answers:
            self._asked_at = now
        return answers

    def good(self, now: float, jwks: bytes, keys: int) -> bool:
        """A fetch brought this; → whether it is something else than before."""
        changed = jwks != self.jwks
        self.jwks, self.keys, self.error = jwks, keys, ""
        self.good_at = now
        self._failures = 0
        self._next(now, REFRESH)
        return changed

    def failed(self, now: float, error: str) -> bool:
        """A fetch failed; → whether the keys are too old now and were dropped."""
        self.error = error
        self._failures += 1
        self._next(now, min(RETRY_MAX, RETRY_MIN * 2.0 ** min(self._failures - 1, 10)))
        if not self.jwks or now - self.good_at < KEEP:
            return False
        self.jwks, self.keys = b"", 0
        return True

    def _next(self, now: float, period: float) -> None:
        self.next_at = now + period * (0.9 + 0.2 * self._random.random())
        if self._answers:  # a worker asked while the fetch was under way: what came may be older than its key
            self.unknown(now)


@frozen
class KeySetStatus:
    """One key set for the admin API. ``age_s``: seconds since the last good fetch, None before the first."""

    url: str  # without query
    keys: int
    age_s: float | None
    error: str


class _Watch:
    """One URL under watch."""

    __slots__ = ("answered", "hurry", "schedule", "task", "url")

    def __init__(self, url: str, schedule: Schedule) -> None:
        self.url = url
        self.schedule = schedule
        self.hurry = asyncio.Event()
        self.answered = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class KeySetFetcher:
    """Keeps the key sets of a configuration current. Lives in the supervisor's loop."""

    def __init__(
        self,
        publish: Callable[[KeySet], None],
        fetch: Fetch | None = None,
        now: Callable[[], float] = monotonic,
        random: Random | None = None,
        wait: Wait | None = None,
    ) -> None:
        """``publish`` tells all workers; whoever joins later gets :meth:`current`."""
        self._publish = publish
        self._fetch = fetch or Fetcher()
        self._now = now
        self._random = random or new_random()
        self._wait = wait or _wait
        self._watches: dict[str, _Watch] = {}
        self._recalled: dict[str, tuple[bytes, float]] = {}

    def known(self) -> dict[str, tuple[bytes, float]]:
        """The URLs that have keys: these, and when they were fetched."""
        schedules = {url: watch.schedule for url, watch in self._watches.items()}
        return {url: (one.jwks, one.good_at) for url, one in schedules.items() if one.jwks}

    def recall(self, sets: Mapping[str, tuple[bytes, float]]) -> None:
        """What another gateway of this machine knows; before the first :meth:`watch`, which takes it over."""
        self._recalled = dict(sets)

    def watch(self, urls: Iterable[str]) -> None:
        """Watch exactly these URLs. Those that go are published empty, so that workers let their keys go."""
        wanted = set(urls)
        for url in [url for url in self._watches if url not in wanted]:
            gone = self._watches.pop(url)
            if gone.task is not None:
                gone.task.cancel()
            if gone.schedule.jwks:
                self._publish(KeySet(url, b""))
        for url in sorted(wanted - self._watches.keys()):
            watch = self._watches[url] = _Watch(url, Schedule(self._now(), self._random))
            if url in self._recalled:
                watch.schedule.recall(*self._recalled[url])
                watch.answered.set()
            watch.task = asyncio.get_running_loop().create_task(self._keep_fetching(watch))
        self._recalled = {}

    def unknown(self, url: str) -> None:
        """A worker met a token whose kid this key set does not have (messages.UnknownKey)."""
        watch = self._watches.get(url)
        if watch is not None:
            watch.schedule.unknown(self._now())
            watch.hurry.set()

    def current(self) -> list[KeySet]:
        """What a worker that joins has to be told."""
        return [KeySet(url, watch.schedule.jwks) for url, watch in self._watches.items() if watch.schedule.jwks]

    def status(self) -> list[KeySetStatus]:
        """All key sets, by URL."""
        now = self._now()
        return [
            KeySetStatus(
                shown_url(url),
                watch.schedule.keys,
                round(now - watch.schedule.good_at, 3) if watch.schedule.jwks else None,
                watch.schedule.error,
            )
            for url, watch in sorted(self._watches.items())
        ]

    async def settle(self, limit: float) -> None:
        """Wait until every URL was fetched or failed once, at most ``limit`` seconds."""
        waits = [asyncio.create_task(watch.answered.wait()) for watch in self._watches.values()]
        if waits:
            _, late = await asyncio.wait(waits, timeout=limit)
            for wait in late:
                wait.cancel()

    async def stop(self) -> None:
        """End all fetches; nothing is published any more."""
        tasks = [watch.task for watch in self._watches.values() if watch.task is not None]
        self._watches.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_fetching(self, watch: _Watch) -> None:
        while True:
            watch.hurry.clear()
            period = watch.schedule.next_at - self._now()
            if period > 0:
                await self._wait(watch.hurry, period)
                continue
            try:
                await self._once(watch)
            except Exception as error:  # the keys of one URL must not end with whatever its server does
                log.error("internal error", exc_info=error, extra={"where": "key sets", "url": shown_url(watch.url)})
                watch.schedule.failed(self._now(), "internal error")
            watch.answered.set()

    async def _once(self, watch: _Watch) -> None:
        schedule, shown = watch.schedule, shown_url(watch.url)
        answers = schedule.begin(self._now())
        before = schedule.error
        try:
            jwks = await self._fetch(watch.url)
            keys = len(parse_key_set(jwks).keys)
        except (FetchError, ValueError) as error:
            reason = str(error)
            publish = schedule.failed(self._now(), reason)
            if publish or reason != before:
                log.warning("key set cannot be fetched", extra={
                    "url": shown, "error": reason, "kept": schedule.keys, "dropped": publish,
                })  # fmt: skip
        else:
            publish = schedule.good(self._now(), jwks, keys)
            if publish or before:
                log.info("key set fetched", extra={"url": shown, "keys": keys})
        if publish or answers:
            self._publish(KeySet(watch.url, schedule.jwks))


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


def shown_url(url: str) -> str:
    """A URL for logs and the admin API: without what may be secret in it (user, password, query)."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
