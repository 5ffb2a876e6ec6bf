"""SpanExport: spans on their way to a collector (OTLP over HTTP), from a thread of the supervisor.

Never waited for: the queue is bounded, and what does not fit, or is not taken after a few tries, is dropped and counted
by what became of it. One thread, one connection, for all workers; they know nothing of collectors.
"""

from __future__ import annotations

import http.client
import logging
import ssl
import threading
from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Final
from urllib.parse import urlsplit

from attrs import frozen

from gogate_py.clock import monotonic
from gogate_py.messages import Span

log = logging.getLogger("gogate.tracing")

MAX_SPANS: Final = 8192
BATCH: Final = 512
#: How long a batch waits for more, and for how long a collector may take, seconds.
LINGER: Final = 1.0
TIMEOUT: Final = 10.0
#: Pauses between the tries of one batch, seconds; a Retry-After up to the last of them is respected.
PAUSES: Final = (1.0, 2.0, 4.0)
#: What the specification of OTLP calls retryable.
_RETRYABLE: Final = frozenset((429, 502, 503, 504))
_MAX_ANSWER: Final = 1 << 20


@frozen
class Collector:
    """Where spans go. ``headers`` are sent with each batch."""

    endpoint: str
    service: str
    headers: Mapping[str, str]


class SpanExport:
    """The way to one collector, until :meth:`close`. ``count(result, n)`` is called in its thread."""

    def __init__(self, collector: Collector, count: Callable[[str, int], None]) -> None:
        from gogate_py.telemetry import otlp  # 5 MB and 50 ms, for those who trace

        self._otlp = otlp
        self._collector = collector
        self._count = count
        self._queue: deque[Span] = deque()
        self._news = threading.Condition()
        self._close_by = 0.0
        self._connection: http.client.HTTPConnection | None = None
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="gogate-spans", daemon=True)
        self._thread.start()

    def add(self, spans: list[Span]) -> None:
        """Queue spans; never waits."""
        with self._news:
            room = MAX_SPANS - len(self._queue)
            self._queue.extend(islice(spans, max(0, room)))
            if len(self._queue) >= BATCH:
                self._news.notify()
        if len(spans) > room:
            self._count("queue_full", len(spans) - max(0, room))

    def close(self, within: float) -> None:
        """Send what there is, if that is possible within so many seconds; does not wait for it (see :meth:`join`)."""
        with self._news:
            self._close_by = monotonic() + within
            self._news.notify()

    def join(self) -> None:
        """Wait for the end after :meth:`close`."""
        self._thread.join(max(0.0, self._close_by - monotonic()) + 0.1)

    # --- the thread

    def _run(self) -> None:
        while True:
            with self._news:
                if not self._close_by and len(self._queue) < BATCH:
                    self._news.wait(LINGER)
                batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
                closing = self._close_by
            if closing and monotonic() >= closing:
                self._count("failed", len(batch) + len(self._queue))
                break
            if batch:
                self._send(batch)
            elif closing:
                break
        if self._connection is not None:
            self._connection.close()

    def _send(self, batch: list[Span]) -> None:
        try:
            body = self._otlp.request(self._collector.service, batch)
        except Exception as error:  # the top of a thread: one odd span must not end it
            self._fail(batch, repr(error))
            return
        for pause in (*PAUSES, None):
            try:
                status, answer, wait = self._post(body)
                if status == 200:
                    self._sent(batch, answer)
                    return
                wrong = f"HTTP status {status}"
                if status not in _RETRYABLE:
                    pause = None
                elif pause is not None and wait is not None:
                    pause = min(wait, PAUSES[-1])
            except (OSError, http.client.HTTPException) as failed:
                wrong = str(failed) or type(failed).__name__
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            if pause is None or not self._pause(pause):
                self._fail(batch, wrong)
                return

    def _pause(self, seconds: float) -> bool:
        """Wait before the next try; False when there is none because of the end."""
        with self._news:
            if not self._close_by:
                self._news.wait_for(lambda: self._close_by, seconds)
            return not self._close_by

    def _post(self, body: bytes) -> tuple[int, bytes, float | None]:
        url = urlsplit(self._collector.endpoint)
        if self._connection is None:
            host = url.hostname or ""
            if url.scheme == "https":
                context = ssl.create_default_context()
                self._connection = http.client.HTTPSConnection(host, url.port, timeout=TIMEOUT, context=context)
            else:
                self._connection = http.client.HTTPConnection(host, url.port, timeout=TIMEOUT)
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        headers = {"Content-Type": "application/x-protobuf", "User-Agent": "gogate", **self._collector.headers}
        self._connection.request("POST", path, body, headers)
        answer = self._connection.getresponse()
        data = answer.read(_MAX_ANSWER)
        after = answer.getheader("Retry-After") or ""
        return answer.status, data, float(after) if after.isascii() and after.isdecimal() else None

    def _sent(self, batch: list[Span], answer: bytes) -> None:
        try:
            rejected = min(len(batch), self._otlp.rejected(answer))
        except Exception:  # an answer that is not what it should be; the status said that the spans are taken
            rejected = 0
        if rejected:
            self._count("rejected", rejected)
        self._count("exported", len(batch) - rejected)
        if self._failing:
            self._failing = False
            log.info("spans are exported again", extra={"endpoint": self._collector.endpoint})

    def _fail(self, batch: list[Span], error: str) -> None:
        self._count("failed", len(batch))
        if not self._failing:  # once, not with every batch
            self._failing = True
            log.warning("spans cannot be exported", extra={"endpoint": self._collector.endpoint, "error": error})
