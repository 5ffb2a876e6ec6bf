"""What an L4 connection tells the breaker of its backend."""

from __future__ import annotations

from typing import Any

import pytest
from doubles.http_plane import run
from doubles.raw_peer import Peer, Target
from doubles.tcp_plane import TcpPlane, both_loops

from gogate_py.arena import BREAKER_FAILURES
from gogate_py.dataplane.tcp_downstream import TcpDownstream
from gogate_py.snapshot import Breaker

pytestmark = [both_loops, pytest.mark.usefixtures("way")]


async def _talk(a: Peer, b: Peer) -> None:
    await a.send(b"x")
    assert await b.exactly(1) == b"x"


#: (what happens, failures the breaker counts afterwards, having counted 1 before). A success makes it 0.
OUTCOMES: list[tuple[str, int]] = [
    ("connect refused", 2),
    ("backend resets before its first byte", 2),
    ("backend resets before its first byte, the client spoke", 2),
    ("backend resets after its first byte", 0),
    ("backend ends without a byte", 0),
    ("backend speaks and ends", 0),
    ("backend speaks, the client resets", 0),
    ("client resets before a byte", 1),
    ("client resets after its own bytes", 1),
    ("idle before a byte", 1),
    ("cut before a byte", 1),
    ("cut after the backend's first byte", 0),
    ("reported after the backend's first byte", 0),
]


async def _play(bed: TcpPlane, happens: str) -> None:
    if happens == "connect refused":
        bed.targets[0].refuse()
        await (await bed.client()).ends()
        return
    client, server = await bed.pair()
    if "speaks" in happens or "after the backend's first" in happens or happens.endswith("after its first byte"):
        await _talk(server, client)
    if "client spoke" in happens or "own bytes" in happens:
        await _talk(client, server)
    if happens.startswith("backend resets"):
        server.reset()
    elif "client resets" in happens:
        client.reset()
    elif happens.startswith("idle"):
        bed.pass_time(2 * bed.idle_timeout, step=100)
    elif happens.startswith("cut"):
        bed.relay().cut("closed_by_admin")
    elif happens.startswith("reported"):
        bed.plane._report.collect()
        return
    else:
        server.eof()
        client.eof()
    await bed.quiet()


@pytest.mark.parametrize(("happens", "failures"), OUTCOMES)
def test_outcomes_for_the_breaker(loop: str, happens: str, failures: int) -> None:
    """A backend is judged by its own acts only: refused, or reset without a byte, is a failure; what clients do is
    nothing (SECURITY.md T21)."""

    async def main() -> None:
        async with TcpPlane(Target(), breaker=Breaker(5, 1, 1, 60.0)) as bed:
            cell = bed.plane.arena.backend(0) + BREAKER_FAILURES
            bed.live().record(False, False)
            assert bed.plane.arena.cells[cell] == 1
            await _play(bed, happens)
            assert bed.plane.arena.cells[cell] == failures

    run(main(), loop)


@pytest.mark.parametrize("happens", ["connect refused", "backend resets before its first byte"])
def test_a_client_sees_no_failure_that_is_not_counted(
    loop: str, happens: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its next connection may come to another worker."""
    counted: list[bool] = []

    async def main() -> None:
        async with TcpPlane(Target(), breaker=Breaker(1, 1, 1, 60.0)) as bed:
            for way_out in ("close", "abort"):
                leave = getattr(TcpDownstream, way_out)

                def left(client: TcpDownstream, leave: Any = leave, **how: bool) -> None:
                    counted.append(bed.live().breaker.is_open())
                    leave(client, **how)

                monkeypatch.setattr(TcpDownstream, way_out, left)
            await _play(bed, happens)

    run(main(), loop)
    assert counted[0]


@pytest.mark.parametrize(
    ("happens", "closed"),
    [("backend speaks and ends", True), ("connect refused", False), ("client resets before a byte", None),
     ("backend resets before its first byte", False), ("cut before a byte", None),
     ("reported after the backend's first byte", True)],
)
def test_the_trial_of_a_half_open_breaker(loop: str, happens: str, closed: bool | None) -> None:
    """A trial's outcome closes or opens the breaker; without one (None) the permit goes to the next client."""

    async def main() -> None:
        async with TcpPlane(Target(), breaker=Breaker(1, 1, 1, 0.0)) as bed:
            bed.live().record(False, False)
            breaker: Any = bed.live().breaker
            assert breaker.is_open()
            await _play(bed, happens)
            assert breaker.closed() is bool(closed)
            if closed is None:
                assert not breaker.is_open()  # half-open
                await _play(bed, "backend speaks and ends")
                assert breaker.closed()

    run(main(), loop)
