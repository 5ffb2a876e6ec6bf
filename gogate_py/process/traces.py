"""Traces: the supervisor's side of tracing. Follows the configuration, and passes spans of the workers on to the thread
that exports them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gogate_py.config.schema import Tracing
from gogate_py.messages import Span
from gogate_py.telemetry.totals import Totals

if TYPE_CHECKING:
    from gogate_py.telemetry.span_export import SpanExport

#: How long the last spans may take to get to the collector, seconds.
GOODBYE: Final = 2.0


class Traces:
    """Spans on their way; nothing while traces are off."""

    def __init__(self, totals: Totals) -> None:
        self._totals = totals
        self._served = Tracing()
        self._export: SpanExport | None = None

    def serve(self, tracing: Tracing) -> None:
        """Take over a configuration."""
        if tracing == self._served:
            return
        self._served = tracing
        if self._export is not None:
            self._export.close(GOODBYE)
            self._export = None
        if tracing.enabled:
            # Loaded where it is needed: protobuf and an HTTP client.
            from gogate_py.telemetry.span_export import Collector, SpanExport

            loop = asyncio.get_running_loop()

            def count(result: str, n: int) -> None:
                try:
                    loop.call_soon_threadsafe(self._totals.count, "gogate_trace_spans_total", (result,), n)
                except RuntimeError:  # the loop is closed: nobody asks for numbers any more
                    pass

            collector = Collector(tracing.url, tracing.service_name, dict(tracing.headers))
            self._export = SpanExport(collector, count)

    def add(self, spans: list[Span]) -> None:
        """Spans of a worker."""
        if self._export is not None:
            self._export.add(spans)

    async def stop(self) -> None:
        """Send what there is, for GOODBYE seconds at most."""
        if self._export is not None:
            self._export.close(GOODBYE)
            await asyncio.to_thread(self._export.join)
