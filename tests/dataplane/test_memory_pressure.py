"""Near its share of memory a worker keeps nobody idle, then accepts nobody, then goes on (SECURITY.md F18)."""

from __future__ import annotations

import mmap
import socket

import pytest
from doubles.gateway import wait_for
from doubles.http_plane import HttpPlane, run, until
from doubles.stub_upstream import StubUpstream

from gogate_py.dataplane.memory_pressure import MemoryPressure, resident


@pytest.mark.parametrize(
    ("used", "tight", "full"),
    [(0, False, False), (849, False, False), (850, True, False), (949, True, False), (950, True, True)],
)
def test_the_marks_are_85_and_95_percent(used: int, tight: bool, full: bool) -> None:
    """From 85 % no keep-alive, from 95 % no new connections."""
    pressure = MemoryPressure(lambda: used)
    pressure.limit = 1000
    pressure.look()
    assert (pressure.tight, pressure.full) == (tight, full)


def test_without_a_limit_nothing_is_measured() -> None:
    """maxMemory: 0 is no limit, also after there was one."""
    pressure = MemoryPressure(lambda: 1000)
    pressure.limit = 1
    pressure.look()
    assert pressure.full
    pressure.limit = 0
    pressure.look()
    assert (pressure.tight, pressure.full) == (False, False)


def test_the_kernel_says_what_this_process_holds() -> None:
    """What is measured grows with what is allocated."""
    before = resident()
    # Pages of its own: what malloc gives may be resident already, in a process that has freed much.
    with mmap.mmap(-1, 64 << 20) as block:
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
        wait_for(lambda: resident() - before > 48 << 20, what="64 MiB")


@pytest.mark.parametrize("slow", [False, True])
def test_a_tight_worker_ends_kept_alive_connections_and_recovers(slow: bool) -> None:
    """Answers carry Connection: close while memory is tight, on both ways through, and not afterwards."""

    async def main() -> None:
        backend = StubUpstream()
        async with HttpPlane(backend) as bed:
            fields = "TE: trailers\r\n" if slow else ""
            used = 900
            bed.plane.memory._measure = lambda: used
            bed.plane.memory.limit = 1000
            bed.plane.memory.look()
            client = await bed.client()
            response = await client.get(fields=fields)
            assert response.fields["connection"] == "close"
            assert await client.ends() == "eof"
            used = 100
            bed.plane.memory.look()
            client = await bed.client()
            assert "connection" not in (await client.get(fields=fields)).fields

    run(main())


def test_a_full_worker_accepts_again_when_there_is_room() -> None:
    """Who comes meanwhile waits in the kernel's queue and is served afterwards."""

    async def main() -> None:
        backend = StubUpstream()
        async with HttpPlane(backend) as bed:
            plane = bed.plane
            used = 1000
            plane.memory._measure = lambda: used
            plane.memory.limit = 1000
            plane.start()
            await until(plane.listeners.is_paused, "the pause")
            with socket.create_connection(("127.0.0.1", bed.port), 5) as early:
                early.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                early.setblocking(False)
                assert not plane.http.clients
                used = 10
                await until(lambda: not plane.listeners.is_paused(), "the end of the pause")
                await until(lambda: backend.requests == 1, "the waiting client to be served")

    run(main())
