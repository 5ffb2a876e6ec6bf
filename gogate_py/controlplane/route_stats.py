"""What ``GET /stats?by=route`` adds: the counters of every route, with its histogram as it is.

Percentiles cannot be subtracted, buckets can: a client that asks twice gets the percentiles of the time in between
(``gogate top`` does). Apart from the rest of /stats because with thousands of routes it is most of the answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gogate_py.telemetry.metrics import DURATION_BOUNDS
from gogate_py.telemetry.totals import Totals


def route_stats(totals: Totals, names: Iterable[str]) -> dict[str, Any]:
    """Every route of ``names``, and every one that was counted on ("": no route matched; removed ones for a while).

    ``buckets`` are not cumulative; the last one is for what is slower than every bound. It is empty for a route without
    a request. ``tcp`` counts finished L4 connections by how they ended.
    """
    routes: dict[str, dict[str, Any]] = {name: _new() for name in names}
    for (name, code), n in totals.counter("gogate_route_requests_total").items():
        routes.setdefault(name, _new())["by_code"][code] = int(n)
    for (name, _, _, result), n in totals.counter("gogate_tcp_connections_total").items():
        by_result = routes.setdefault(name, _new())["tcp"]
        by_result[result] = by_result.get(result, 0) + int(n)
    for (name,), histogram in totals.histograms("gogate_route_duration_seconds").items():
        routes.setdefault(name, _new())["buckets"] = list(histogram.buckets)
    return {"bucket_bounds_ms": [round(bound * 1000, 3) for bound in DURATION_BOUNDS], "routes": routes}


def _new() -> dict[str, Any]:
    return {"by_code": {}, "tcp": {}, "buckets": []}
