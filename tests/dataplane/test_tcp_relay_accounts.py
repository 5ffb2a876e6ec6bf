"""The end of an L4 relay and its books: idle times, cuts, drain, access line and admin view."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from doubles.http_plane import run, until
from doubles.raw_peer import Peer, Target
from doubles.tcp_plane import TcpPlane, both_loops

from gogate_py.dataplane import tcp_side
from gogate_py.dataplane.tcp_relay import HALF_CLOSED_IDLE, LINGER, TcpRelay
from gogate_py.dataplane.tcp_side import RelaySide

pytestmark = [both_loops, pytest.mark.usefixtures("way")]


async def _talk(a: Peer, b: Peer) -> None:
    await a.send(b"x")
    assert await b.exactly(1) == b"x"


def test_idle_timeout(loop: str) -> None:
    """Without a byte either way for the idle timeout the relay is cut: not earlier, and at most an eighth later."""

    async def main() -> None:
        async with TcpPlane(Target(), idle_timeout=80.0) as bed:
            client, server = await bed.pair()
            bed.pass_time(79)
            assert bed.plane.relays
            bed.pass_time(11)
            assert await asyncio.gather(client.ends(), server.ends()) == ["eof", "eof"]
            (line,) = await bed.logged()
            assert line["result"] == "idle_timeout"

    run(main(), loop)


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_byte_either_way_is_enough(loop: str, way: str) -> None:
    """One byte before each idle timeout keeps the relay, whichever way it goes."""

    async def main() -> None:
        async with TcpPlane(Target(), idle_timeout=80.0) as bed:
            client, server = await bed.pair()
            for _ in range(5):
                bed.pass_time(70)
                await (_talk(client, server) if way == "up" else _talk(server, client))
            assert bed.plane.relays
            client.close()
            server.close()

    run(main(), loop)


def test_no_idle_timeout(loop: str) -> None:
    """A route without idle timeout keeps a relay for days."""

    async def main() -> None:
        async with TcpPlane(Target(), idle_timeout=0.0) as bed:
            client, server = await bed.pair()
            bed.pass_time(7 * 86400, step=600)
            await _talk(client, server)
            client.close()
            server.close()

    run(main(), loop)


@pytest.mark.parametrize("idle_timeout", [0.0, 80.0])
def test_half_closed_idle(loop: str, idle_timeout: float) -> None:
    """A half-closed relay ends when idle too, after the route's time or an hour; the time begins with the EOF."""
    limit = idle_timeout or HALF_CLOSED_IDLE

    async def main() -> None:
        async with TcpPlane(Target(), idle_timeout=idle_timeout) as bed:
            client, server = await bed.pair()
            bed.relay()._idle_since -= limit * 0.9  # it has been idle for long already
            client.eof()
            assert await server.some() == b""
            bed.pass_time(limit * 0.98, step=limit / 100)
            assert bed.relay().view().state == "client_closed"
            bed.pass_time(limit * 0.15, step=limit / 100)
            assert await client.ends() == "eof"
            assert (await bed.logged())[0]["result"] == "idle_timeout"

    run(main(), loop)


@pytest.mark.parametrize("gives_up", [False, True])
def test_slow_reader_of_the_last_bytes(loop: str, gives_up: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """When both directions have ended, the last bytes are waited for as long as some are taken; else they are cut."""

    # Room for several steps of the kernel's (64 KiB on loopback) below the high mark: the backend's EOF is seen.
    monkeypatch.setattr(tcp_side, "HIGH_WATER", 4 << 20)
    monkeypatch.setattr(tcp_side, "BULK", float("inf"))  # a spliced direction ends with an empty pipe

    async def main() -> None:
        async with TcpPlane(Target(), small=True) as bed:
            client, server = await bed.pair()
            relay: Any = bed.relay()
            side = relay._client
            client.eof()
            assert await server.some() == b""
            sent = taken = 0
            while side.unsent() < 1 << 20:
                await server.send(bytes(50_000))
                sent += 50_000
                await until(lambda sent=sent: relay._backend_side.received == sent, "it is relayed")
            server.eof()
            await until(lambda: relay.view().state == "closing", "both ended")
            for _ in range(3):
                bed.pass_time(LINGER * 0.8)
                before = side.unsent()
                while side.unsent() == before:
                    taken += len(await bed.loop.sock_recv(client.sock, 10_000))
                    await asyncio.sleep(0)
            assert side.unsent() > 0
            if gives_up:
                bed.pass_time(LINGER * 1.3)
                await bed.quiet()
            taken += len(await _rest(client))
            assert (taken < sent) if gives_up else (taken == sent)
            assert (await bed.logged())[0]["result"] == "ok"

    run(main(), loop)


async def _rest(peer: Peer) -> bytes:
    data = b""
    try:
        while more := await peer.some():
            data += more
    except ConnectionResetError:
        pass
    return data


@pytest.mark.parametrize("state", ["connecting", "connecting_client_closed", "open", "client_closed", "backend_closed"])
def test_cut_in_every_state(loop: str, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The admin API can cut a relay whatever it is doing; both ends are closed, and its result says who did it."""

    async def main() -> None:
        async with TcpPlane(Target()) as bed:
            ends = []
            if state.startswith("connecting"):
                real = tcp_side.dial

                async def dial(*arguments: Any) -> Any:
                    await real(*arguments)
                    await asyncio.Event().wait()

                monkeypatch.setattr(tcp_side, "dial", dial)
                ends.append(await bed.client())
                await until(lambda: bed.plane.relays, "accepted")
            else:
                ends += await bed.pair()
            if state in ("connecting_client_closed", "client_closed"):
                ends[0].eof()
            elif state == "backend_closed":
                ends[1].eof()
            await until(lambda: bed.relay().view().state == state, state)
            bed.relay().cut("closed_by_admin")
            for end in ends:
                await end.ends()
            await bed.quiet()
            assert (await bed.logged())[0]["result"] == "closed_by_admin"
            results: dict[tuple[str, str], int] = bed.live().tcp_results
            assert results == {("echo", "closed_by_admin"): 1}

    run(main(), loop)


def test_drain(loop: str) -> None:
    """Drain lets relays finish, and cuts what is left when its time is over; the last lines are in the log."""

    async def main() -> None:
        async with TcpPlane(Target()) as bed:
            client, server = await bed.pair()
            draining = asyncio.create_task(bed.plane.drain(60.0, 0.0))
            await until(lambda: bed.plane.draining, "draining")
            await _talk(client, server)
            await _talk(server, client)
            client.eof()
            server.eof()
            assert await draining == 0
            assert (await bed.logged())[0]["result"] == "ok"

    run(main(), loop)


def test_drain_cuts_at_the_end_of_its_time(loop: str) -> None:
    """What has not finished when the grace time is over is cut and counted."""

    async def main() -> None:
        async with TcpPlane(Target()) as bed:
            pairs = [await bed.pair() for _ in range(2)]
            assert await bed.plane.drain(0.0, 0.0) == 2
            bed.plane.finish()
            text = bed.text().decode()  # nothing that comes later would be written
            assert text.count('"result":"grace_period"') == 2
            for pair in pairs:
                for end in pair:
                    await end.ends()

    run(main(), loop)


def test_waiting_clients_are_served_by_a_drain(loop: str) -> None:
    """A client whose connection the kernel had accepted when the drain began is still served."""

    async def main() -> None:
        async with TcpPlane(Target()) as bed:
            client = await bed.client()
            draining = asyncio.create_task(bed.plane.drain(60.0, 0.0))
            server = await bed.targets[0].accept()
            await server.send(b"hello")
            server.eof()
            assert await client.until_eof() == b"hello"
            client.eof()
            assert await draining == 0

    run(main(), loop)


def test_access_line(loop: str) -> None:
    """One line a connection: from whom to whom, how many bytes, how long, how it ended, under the admin API's id."""

    async def main() -> None:
        async with TcpPlane(Target()) as bed:
            client, server = await bed.pair()
            view = bed.relay().view()
            host, port = client.sock.getsockname()
            assert (view.id, view.client, view.backend) == ("0.1.1", f"{host}:{port}", bed.targets[0].address)
            assert (view.listener, view.route, view.pool, view.worker) == ("echo", "echo", "default", 0)
            await client.send(b"12345")
            assert await server.exactly(5)
            await server.send(b"123")
            assert await client.exactly(3)
            await until(lambda: (bed.relay().view().bytes_in, bed.relay().view().bytes_out) == (5, 3), "bytes")
            assert 0 <= bed.relay().view().started_s < 30
            assert repr(bed.relay()) == f"<relay 0.1.1 {host}:{port} to {bed.targets[0].address}, open>"
            client.eof()
            server.eof()
            (line,) = await bed.logged()
            assert 0 <= line.pop("duration_ms") < 30_000
            assert line.pop("time").endswith("Z")
            assert line == {
                "level": "INFO",
                "msg": "connection closed",
                "listener": "echo",
                "route": "echo",
                "pool": "default",
                "backend": bed.targets[0].address,
                "client": f"{host}:{port}",
                "bytes_in": 5,
                "bytes_out": 3,
                "result": "ok",
                "connection_id": "0.1.1",
            }
            assert bed.plane.tcp_duration.take() is not None

    run(main(), loop)


def _relays_in_memory() -> int:
    return sum(isinstance(one, TcpRelay | RelaySide) for one in gc.get_objects())


def test_nothing_is_left_to_the_collector(loop: str) -> None:
    """What a connection was made of is freed with it: cycles would be kept for thousands of connections."""

    async def main() -> None:
        async with TcpPlane(Target()) as bed:
            gc.collect()  # what other tests left
            gc.disable()
            try:
                for _ in range(3):
                    client, server = await bed.pair()
                    await _talk(client, server)
                    await _talk(server, client)
                    server.eof()
                    client.eof()
                    await bed.quiet()
                    await until(lambda: not _relays_in_memory(), "the relay is freed")
            finally:
                gc.enable()

    run(main(), loop)


def test_text_line_and_no_line(loop: str) -> None:
    """The line can be logfmt, and can be left out."""

    async def main() -> None:
        async with TcpPlane(Target(), log_format="text") as bed:
            for bed.log in (True, False):
                await bed.apply()
                client, server = await bed.pair()
                client.eof()
                server.eof()
                await bed.quiet()
            (line,) = bed.text().splitlines()
            assert b" INFO connection closed listener=echo route=echo pool=default backend=" in line

    run(main(), loop)


def test_bytes_are_reported_while_the_relay_lives(loop: str) -> None:
    """Each report has the bytes since the last one: a long connection is seen in the metrics before its end."""

    async def main() -> None:
        async with TcpPlane(Target()) as bed:
            client, server = await bed.pair()
            for _ in range(3):
                await client.send(b"abc")
                assert await server.exactly(3)
                counts = {name: value for name, _, value in bed.plane._report.collect().counters}
                assert counts["gogate_backend_bytes_sent_total"] == 3
                assert "gogate_backend_bytes_received_total" not in counts
            client.close()
            server.close()
            await bed.quiet()
            counters = [(name, labels) for name, labels, _ in bed.plane._report.collect().counters]
            address = bed.targets[0].address
            assert counters == [("gogate_tcp_connections_total", ("echo", "default", address, "ok"))]

    run(main(), loop)


def test_counts_over_the_workers(loop: str) -> None:
    """A relay counts as active at its backend from the pick to its end."""

    async def main() -> None:
        async with TcpPlane(Target()) as bed:
            pairs = [await bed.pair() for _ in range(3)]
            assert bed.plane.arena.active(0, 2) == 3
            pairs[0][0].reset()
            await until(lambda: len(bed.plane.relays) == 2, "one is over")
            assert bed.plane.arena.active(0, 2) == 2
            for client, server in pairs[1:]:
                client.close()
                server.close()

    run(main(), loop)
