"""What gogate top computes from two looks at a gateway."""

from __future__ import annotations

from typing import Any

import pytest
from top_looks import backend, counts, look

from gogate_py.cli.top.figures import NO_ROUTE, Backend, Figures, compare


def one_backend(before: dict[str, Any], now: dict[str, Any], **said: Any) -> Backend:
    """The figures of one backend over two seconds."""
    one = [backend("a:1", **said)]
    (found,) = compare(look(1, backends=one, counted=before), look(3, backends=one, counted=now)).backends
    return found


def test_rates_are_of_the_time_in_between() -> None:
    """Counters are since the start, rates per second between two looks."""
    found = one_backend({"a:1": counts(100, 10, 4, 1000, 2000)}, {"a:1": counts(120, 14, 6, 5000, 2000)})
    assert (found.requests, found.failures, found.tcp) == (12, 2, 1)
    assert (found.bytes_sent, found.bytes_received) == (2000, 0)


def test_counters_that_began_anew() -> None:
    """After a restart of the gateway what is counted is what happened; nothing is negative."""
    assert one_backend({"a:1": counts(1000)}, {"a:1": counts(30)}).requests == 15


def test_a_backend_that_came_in_between() -> None:
    """One that is known to one of the two questions only has no past."""
    assert one_backend({}, {"a:1": counts(30)}).requests == 15
    assert one_backend({}, {}).requests == 0


def test_no_rates_without_time_in_between() -> None:
    """The first look: states and totals, no rates."""
    first = look(1, routes={"api": {"by_code": {"200": 5}}}, backends=[backend("a:1")])
    figures = compare(first, first)
    assert (figures.totals.requests, figures.backends[0].requests, figures.routes[0].requests) == (None, None, None)
    assert figures.routes[0].requests_total == 5


class TestRoutes:
    """Requests by status, percentiles."""

    FIGURES: Figures = compare(
        look(0, routes={"api": {"by_code": {"200": 10}, "buckets": [10, 0, 0, 0]}}),
        look(10, routes={
            "api": {"by_code": {"200": 60, "404": 30, "503": 20}, "buckets": [10, 100, 0, 0]},
            "": {"by_code": {"404": 10}, "buckets": [0, 0, 100, 0]},
            "db": {"tcp": {"ok": 40, "backend_reset": 10}},
        }),
    )  # fmt: skip

    def test_by_status(self) -> None:
        """4xx and 5xx apart; what no route matched has a name; finished TCP connections."""
        api, none, db = self.FIGURES.routes
        assert (api.requests, api.client_errors, api.server_errors, api.requests_total) == (10, 3, 2, 110)
        assert (none.name, none.client_errors) == (NO_ROUTE, 1)
        assert (db.requests, db.tcp) == (0, 5)

    def test_percentiles_are_those_of_the_time_in_between(self) -> None:
        """Ten fast requests of before do not make this minute faster."""
        api, none, db = self.FIGURES.routes
        assert (api.p50_ms, api.p95_ms, api.p99_ms) == (5.5, 9.55, 9.91)
        assert (none.p50_ms, db.p50_ms) == (55, None)

    def test_the_whole_gateway(self) -> None:
        """Half of all requests took up to 10 ms: the routes' histograms together."""
        totals = self.FIGURES.totals
        assert (totals.requests, totals.by_status["4xx"], totals.tcp_ended) == (11, 4, 5)
        assert (totals.p50_ms, totals.p99_ms) == (10, 98.2)

    def test_a_histogram_that_began_anew(self) -> None:
        """Fewer observations than before: those that are there are new."""
        before = look(0, routes={"api": {"buckets": [0, 0, 50, 0]}})
        (api,) = compare(before, look(1, routes={"api": {"buckets": [10, 0, 0, 0]}})).routes
        assert api.p50_ms == 0.5


@pytest.mark.parametrize(("said", "state"), [
    ({}, "up"),
    ({"healthy": False, "draining": True}, "down"),
    ({"ejected": True, "breaker": "open"}, "ejected"),
    ({"breaker": "open"}, "breaker open"),
    ({"breaker": "half_open"}, "breaker half-open"),
    ({"draining": True, "active_connections": 2}, "draining"),
    ({"draining": True}, "drained"),
    ({"warming_up": True}, "warming up"),
])  # fmt: skip
def test_states(said: dict[str, Any], state: str) -> None:
    """One word for what keeps a backend from taking work, the gravest first."""
    assert one_backend({}, {}, **said).state == state


def test_errors_by_reason() -> None:
    """Every reason that was ever counted, with its rate and where it is counted."""
    before = look(0, local={"no_backend": 4}, counted={"a:1": counts(failure=1)})
    now = look(
        2, local={"no_backend": 10, "rate_limited": 2}, by_limit={"": {"ip": 2}, "api": {"user": 0}},
        counted={"a:1": counts(failure=5)}, routes={"db": {"tcp": {"ok": 9, "idle": 1}}},
        retries={"by_reason": {"connect": 8}, "denied_by_budget": 1}, auth_failures={"expired": 3},
    )  # fmt: skip
    found = {(one.kind, one.reason): (one.per_second, one.total) for one in compare(before, now).errors}
    assert found == {
        ("answered by gogate", "no_backend"): (3, 10),
        ("answered by gogate", "rate_limited"): (1, 2),
        ("failed at a backend", "pool web"): (2, 5),
        ("TCP ended", "idle"): (0.5, 1),
        ("authentication", "expired"): (1.5, 3),
        ("rate limit", "server: ip"): (1, 2),
        ("tried again", "connect"): (4, 8),
        ("not tried again", "retry budget"): (0.5, 1),
    }


def test_listeners() -> None:
    """Open connections, new ones and refused ones a second."""
    before = look(0, listeners={"http": {"total": 5, "active": 2, "refused": 0}})
    now = look(5, listeners={"http": {"total": 15, "active": 4, "refused": 5},
                             "tls": {"total": 5, "active": 1, "refused": 0}})  # fmt: skip
    figures = compare(before, now)
    assert [(one.name, one.active, one.accepted, one.refused) for one in figures.listeners] == [
        ("http", 4, 2, 1), ("tls", 1, 1, 0)]  # fmt: skip
    assert (figures.totals.connections, figures.totals.accepted, figures.totals.refused) == (5, 3, 1)
