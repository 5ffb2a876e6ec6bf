"""Spans on their way to a real OTLP receiver: batches, what is tried again, and what becomes of every one of them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from doubles.gateway import wait_for
from doubles.otlp_collector import OtlpCollector
from doubles.servers import free_port

from gogate_py.messages import Span
from gogate_py.telemetry import span_export
from gogate_py.telemetry.span_export import BATCH, MAX_SPANS, Collector, SpanExport


class Slow(OtlpCollector):
    """Takes nothing before it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.may = threading.Event()

    def take(self, body: bytes, path: str, headers: dict[str, str]) -> None:
        """Wait until it may."""
        self.asked.set()
        assert self.may.wait(30)
        super().take(body, path, headers)


@pytest.fixture
def collector() -> Iterator[OtlpCollector]:
    """One that takes everything."""
    with OtlpCollector() as found:
        yield found


class Exporting:
    """``with Exporting(endpoint) as export``: ``counted`` says what became of spans."""

    def __init__(self, endpoint: str) -> None:
        self.counted: Counter[str] = Counter()
        self.export = SpanExport(Collector(f"{endpoint}/v1/traces", "edge", {"X-Token": "t"}), self._count)

    def _count(self, result: str, number: int) -> None:
        self.counted[result] += number

    def __enter__(self) -> Exporting:
        return self

    def __exit__(self, *exc: object) -> None:
        self.export.close(5.0)
        self.export.join()


def spans(number: int) -> list[Span]:
    """Spans that differ in their ids."""
    return [
        Span(b"%032x" % 7, b"%016x" % (one + 1), b"", "", 2, "GET", 1, 2, [("url.path", f"/{one}")], False)
        for one in range(number)
    ]


def test_all_arrive_once_in_batches(collector: OtlpCollector) -> None:
    """More than fits into two requests: three of them, each span in one, with the headers that were asked for."""
    with Exporting(collector.endpoint) as exporting:
        exporting.export.add(spans(2 * BATCH + 1))
        wait_for(lambda: exporting.counted["exported"] == 2 * BATCH + 1, what="all spans to be taken")
    assert len({one.span_id for one in collector.spans}) == len(collector.spans) == 2 * BATCH + 1
    assert collector.paths == ["/v1/traces"] * 3
    assert {headers["x-token"] for headers in collector.headers} == {"t"}
    assert exporting.counted.total() == 2 * BATCH + 1


def test_what_finds_no_room_is_dropped_and_counted() -> None:
    """A collector that takes its time: one batch is on its way, MAX_SPANS wait; add never does."""
    with Slow() as collector, Exporting(collector.endpoint) as exporting:
        exporting.export.add(spans(BATCH))
        assert collector.asked.wait(10)
        exporting.export.add(spans(MAX_SPANS - 3))
        exporting.export.add(spans(10))
        assert exporting.counted == {"queue_full": 7}
        exporting.export.add(spans(5))
        assert exporting.counted == {"queue_full": 12}
        collector.may.set()
        wait_for(lambda: exporting.counted["exported"] == BATCH + MAX_SPANS, what="the rest to be taken")
        assert exporting.counted["queue_full"] == 12


def test_answers_that_may_be_tried_again_are(collector: OtlpCollector) -> None:
    """503 with Retry-After, twice, then taken."""
    collector.statuses = [503, 503]
    with Exporting(collector.endpoint) as exporting:
        exporting.export.add(spans(3))
        wait_for(lambda: exporting.counted.total() == 3, what="the spans to be taken")
    assert exporting.counted == {"exported": 3}
    assert len(collector.spans) == 3


def test_answers_that_may_not_are_not(collector: OtlpCollector) -> None:
    """400 says that the same request will not do: dropped at once; the next batch is tried."""
    collector.statuses = [400]
    with Exporting(collector.endpoint) as exporting:
        exporting.export.add(spans(3))
        wait_for(lambda: exporting.counted["failed"] == 3, what="the spans to be dropped")
        exporting.export.add(spans(2))
        wait_for(lambda: exporting.counted["exported"] == 2, what="the next ones")


def test_what_a_collector_rejects_is_counted(collector: OtlpCollector) -> None:
    """A partial success: as many as it says, at most those that were sent."""
    collector.rejects = 2
    with Exporting(collector.endpoint) as exporting:
        exporting.export.add(spans(3))
        wait_for(lambda: exporting.counted.total() == 3)
        assert exporting.counted == {"exported": 1, "rejected": 2}
        collector.rejects = 99
        exporting.export.add(spans(1))
        wait_for(lambda: exporting.counted.total() == 4)
        assert exporting.counted == {"exported": 1, "rejected": 3}


def test_after_its_few_tries_a_batch_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens: tried as often as there are pauses, and once more."""
    monkeypatch.setattr(span_export, "PAUSES", (0.01, 0.01))
    with Exporting(f"http://127.0.0.1:{free_port()}") as exporting:
        exporting.export.add(spans(4))
        wait_for(lambda: exporting.counted["failed"] == 4, what="the spans to be given up")


def test_the_end_takes_no_longer_than_it_may() -> None:
    """At the end what is left is sent if that is possible in time; else it is counted as failed."""
    with Slow() as collector:
        exporting = Exporting(collector.endpoint)
        exporting.export.add(spans(BATCH))
        assert collector.asked.wait(10)
        exporting.export.add(spans(5))
        exporting.export.close(0.0)
        exporting.export.join()  # comes back, though the batch on its way is still not answered
        assert exporting.counted["exported"] == 0
        collector.may.set()
        wait_for(lambda: exporting.counted == {"exported": BATCH, "failed": 5}, what="the accounts to be settled")
