"""Live backends outlive snapshots, and what they counted is never lost."""

from __future__ import annotations

from doubles.http_plane import HttpPlane, run
from doubles.stub_upstream import StubUpstream

from gogate_py.messages import Counts


def counted(bed: HttpPlane, name: str) -> float:
    """The sum of a counter over everything that was reported."""
    reports = [message for message in bed.outbox.messages if isinstance(message, Counts)]
    return sum(value for report in reports for counter, _, value in report.counters if counter == name)


def test_a_backend_that_leaves_takes_no_counts_with_it() -> None:
    """Requests counted since the last report are in the next one, also when their backend left in between."""

    async def main() -> None:
        first, second = StubUpstream(), StubUpstream()
        async with HttpPlane(first, second) as bed:
            client = await bed.client()
            for _ in range(4):
                assert (await client.get()).status == 200
            bed.backends = (first,)
            await bed.apply()
            bed.plane._tick()
            assert counted(bed, "gogate_requests_total") == 4
            assert bed.plane.table.leaving == []
            bed.backends = (first, second)

    run(main())
