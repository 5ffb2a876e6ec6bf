"""Reports of a worker with thousands of routes: not every tick has one, and not every route a histogram."""

from __future__ import annotations

from doubles.http_plane import HttpPlane, run
from doubles.stub_upstream import StubUpstream, Talk, answer

from gogate_py.dataplane.report import MANY, TICKS
from gogate_py.telemetry.metrics import OTHER, ROUTE_HISTOGRAMS


async def fine(talk: Talk) -> None:
    """Answer every request."""
    while await talk.head():
        await talk.send(answer())


def observed(bed: HttpPlane) -> dict[tuple[str, tuple[str, ...]], int]:
    """Requests in the histograms of a report."""
    found: dict[tuple[str, tuple[str, ...]], int] = {}
    for name, labels, buckets, _ in bed.plane._report.collect().histograms:
        found[name, labels] = found.get((name, labels), 0) + sum(buckets)
    return found


def test_routes_beyond_the_cap_share_one_histogram() -> None:
    """The first routes of the configuration have their own, the rest counts together; the sum is of all. One that moves
    up gets its own, and one that has its own keeps it."""

    async def main() -> None:
        routes = tuple({"name": f"r{n}", "path_prefix": f"/r{n}"} for n in range(ROUTE_HISTOGRAMS + 2))
        async with HttpPlane(StubUpstream(fine), routes=routes) as bed:
            last, before_last = f"r{ROUTE_HISTOGRAMS + 1}", f"r{ROUTE_HISTOGRAMS}"

            async def ask() -> dict[tuple[str, tuple[str, ...]], int]:
                client = await bed.client()
                for route in ("r0", "r0", before_last, last):
                    assert (await client.get(f"/{route}")).status == 200
                return observed(bed)

            by_route = "gogate_route_duration_seconds"
            whole = {("gogate_request_duration_seconds", ()): 4}
            assert await ask() == {(by_route, ("r0",)): 2, (by_route, (OTHER,)): 2, **whole}
            bed.routes = (routes[-1], *routes[:-1])
            await bed.apply()
            assert await ask() == {(by_route, ("r0",)): 2, (by_route, (last,)): 1, (by_route, (OTHER,)): 1, **whole}
            bed.routes = routes
            await bed.apply()
            assert await ask() == {(by_route, ("r0",)): 2, (by_route, (last,)): 1, (by_route, (OTHER,)): 1, **whole}

    run(main())


def test_a_worker_with_many_routes_reports_less_often() -> None:
    """Every tick has a report, every TICKS-th beyond MANY; nothing is lost."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(fine)) as bed:
            report = bed.plane._report
            assert [report.due() for _ in range(3)] == [True] * 3
            bed.routes = tuple({"name": f"r{n}", "path_prefix": f"/r{n}"} for n in range(MANY))
            await bed.apply()
            assert [report.due() for _ in range(2 * TICKS)] == ([False] * (TICKS - 1) + [True]) * 2

    run(main())
