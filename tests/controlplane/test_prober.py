"""Prober: real TCP and HTTP probes against real servers."""

from __future__ import annotations

import asyncio
import errno
import random
import socket

import pytest
from attrs import evolve
from control_world import Backends, backend, turns, until

from gogate_py.addresses import Address, parse
from gogate_py.config.schema import Health
from gogate_py.controlplane import prober as module
from gogate_py.controlplane.prober import Endpoint, OwnFault, Prober, ProbeSettings, Target, probe

TCP = ProbeSettings.of(Health(interval=0.01, timeout=1.0))
HTTP = ProbeSettings.of(Health(check_type="http", http_path="/health?x=1", interval=0.01, timeout=1.0))


def target(port: int, settings: ProbeSettings = TCP, host: str = "127.0.0.1") -> Target:
    return Target(Address(host, port), False, settings)


def at(port: int, host: str = "127.0.0.1") -> tuple[Endpoint, ...]:
    return ((host, port),)


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def response(status: int, text: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(text), text)


def ask(answer: bytes, settings: ProbeSettings = HTTP) -> str:
    """The verdict of one HTTP probe on a server that gives this answer."""

    async def main() -> str:
        async with backend(answer) as server:
            return (await probe(target(server.port, settings), at(server.port)))[1]

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (response(200, b"fine"), ""),
        (response(204), ""),
        (response(302), ""),
        (response(399), ""),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" + response(200), ""),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", ""),
        (response(404), "status 404 on /health?x=1"),
        (response(500), "status 500 on /health?x=1"),
        (b"+PONG\r\n\r\n", "its answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000, "its answer is not HTTP"),
    ],
)
def test_an_http_probe_judges_the_status(answer: bytes, error: str) -> None:
    """200 to 399 is fine by default; whatever is not an HTTP answer is a failure that says so."""
    found = ask(answer)
    assert found.startswith(error)
    assert bool(found) == bool(error)


@pytest.mark.parametrize(("status", "fine"), [(200, True), (201, False), (204, True), (503, True), (504, False)])
def test_expected_statuses_can_be_chosen(status: int, fine: bool) -> None:
    """expectStatus is a list of statuses and ranges."""
    settings = ProbeSettings.of(Health(check_type="http", expect_status="200,204,500-503"))
    assert (ask(response(status), settings) == "") is fine


def test_an_http_probe_is_one_plain_get() -> None:
    """GET httpPath, with the backend's address as Host, on a connection of its own."""

    async def main() -> tuple[bytes, int]:
        async with backend(response(200)) as server:
            assert (await probe(target(server.port, HTTP), at(server.port)))[1] == ""
            return server.requests[0], server.port

    request, port = asyncio.run(main())
    lines = request.decode().split("\r\n")
    assert lines[0] == "GET /health?x=1 HTTP/1.1"
    assert f"Host: 127.0.0.1:{port}" in lines
    assert "Connection: close" in lines


def test_a_tcp_probe_only_connects() -> None:
    """A server that accepts is up for a TCP probe, whatever it says; a closed port is refused."""

    async def main() -> None:
        async with backend() as server:
            assert await probe(target(server.port), at(server.port)) == (("127.0.0.1", server.port), "")
        port = closed_port()
        assert await probe(target(port), at(port)) == (None, "connection refused")

    asyncio.run(main())


def test_a_unix_socket_is_probed_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Backends at unix:/path are probed over the socket; a missing path is a failure with its reason."""
    path = str(tmp_path_factory.mktemp("u") / "s")

    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(response(200))
            writer.close()

        one = Target(parse(f"unix:{path}"), False, HTTP)
        assert (await probe(one, ((path, 0),)))[1] == "No such file or directory"
        server = await asyncio.start_unix_server(serve, path)
        assert (await probe(one, ((path, 0),)))[1] == ""
        server.close()
        await turns()

    asyncio.run(main())


def test_a_silent_backend_times_out() -> None:
    """A probe that is not answered within the timeout has failed."""

    async def main() -> str:
        async with backend() as server:
            server.silent = True
            return (await probe(target(server.port, evolve(HTTP, timeout=0.02)), at(server.port)))[1]

    assert asyncio.run(main()) == "no answer within 0.02 s"


def test_one_good_address_is_enough() -> None:
    """A name with several addresses is up while one of them is; the errors of all are told when none is."""

    async def main() -> None:
        async with backend() as server:
            both = (("127.0.0.2", closed_port()), ("127.0.0.1", server.port))
            assert await probe(target(server.port, host="web"), both) == (both[1], "")
        port = closed_port()
        none = (("127.0.0.1", port), ("/nowhere", 0))
        assert (await probe(target(port, host="web"), none))[1].startswith("127.0.0.1: connection refused; /nowhere: ")

    asyncio.run(main())


class World:
    """A prober with everything that it said."""

    def __init__(self, *endpoints: Endpoint) -> None:
        self.endpoints = endpoints
        self.changes: list[tuple[Target, bool]] = []
        self.results: list[tuple[Target, bool]] = []
        self.prober = Prober(
            lambda _: self.endpoints, self._changed, lambda one, ok: self.results.append((one, ok)), random.Random(1)
        )

    def _changed(self, one: Target) -> None:
        state = self.prober.state(one)
        assert state is not None
        self.changes.append((one, state.up))


def test_down_after_three_failures_and_up_after_two_successes() -> None:
    """A backend that dies and returns goes through both thresholds, and each change is told once."""

    async def main() -> None:
        async with backend() as server:
            world = World(*at(server.port))
            one = target(server.port)
            world.prober.watch([one])
            await until(lambda: len(world.results) > 2)
            assert world.changes == []
            await server.close()
            failed = len(world.results)
            await until(lambda: world.changes)
            assert world.changes == [(one, False)]
            assert [ok for _, ok in world.results[failed:]].count(False) >= 3
            assert world.prober.state(one).last_error == "connection refused"  # type: ignore[union-attr]  # watched
            await server.open()
            await until(lambda: len(world.changes) == 2)
            assert world.changes[1] == (one, True)
            assert [ok for _, ok in world.results[-3:]] == [False, True, True]
            await world.prober.stop()

    asyncio.run(main())


def test_the_first_probe_comes_at_once() -> None:
    """The first probe does not wait for an interval."""

    async def main() -> None:
        async with backend() as server:
            world = World(*at(server.port))
            world.prober.watch([target(server.port, evolve(TCP, interval=3600.0))])
            await until(lambda: world.results)
            await world.prober.stop()

    asyncio.run(main())


def test_what_stays_keeps_its_state() -> None:
    """A target that is watched again has its health and is not probed anew; one that is gone is forgotten."""

    async def main() -> None:
        port = closed_port()
        world = World(*at(port))
        settings = evolve(TCP, interval=3600.0, unhealthy_threshold=1)
        one, other = target(port, settings), target(port, evolve(settings, initially_up=False))
        world.prober.watch([one, other])
        await until(lambda: len(world.results) == 2)
        world.prober.watch([one])
        await turns()
        assert len(world.results) == 2
        assert world.prober.state(other) is None
        assert not world.prober.state(one).up  # type: ignore[union-attr]  # watched
        await world.prober.stop()

    asyncio.run(main())


def test_without_an_address_there_is_nothing_to_probe() -> None:
    """An unresolved backend is not probed; when its address is there, the first probe comes at once."""

    async def main() -> None:
        async with backend() as server:
            world = World()
            one = target(server.port, evolve(TCP, interval=3600.0))
            world.prober.watch([one])
            await turns()
            assert world.results == []
            world.endpoints = at(server.port)
            world.prober.arrived(one)
            await until(lambda: world.results == [(one, True)])
            world.prober.arrived(one)
            await turns()
            assert len(world.results) == 1
            await world.prober.stop()

    asyncio.run(main())


def test_a_failed_connect_finds_the_first_failure_sooner() -> None:
    """hurry() probes out of turn while all seems well, and never when failures are counted already."""

    async def main() -> None:
        async with backend() as server:
            world = World(*at(server.port))
            one = target(server.port, evolve(TCP, interval=3600.0))
            world.prober.watch([one])
            await until(lambda: len(world.results) == 1)
            world.prober.hurry(one)
            await turns()
            assert len(world.results) == 1  # the last probe was just now
            await server.close()
            watch = world.prober._watches[one]
            watch.probed_at -= 2
            world.prober.hurry(one)
            await until(lambda: len(world.results) == 2)
            watch.probed_at -= 2
            world.prober.hurry(one)
            await turns()
            assert [ok for _, ok in world.results] == [True, False]
            await world.prober.stop()

    asyncio.run(main())


def test_our_own_shortage_is_not_the_backends_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of descriptors, nothing is recorded: backends must not go down because gogate is short."""

    async def no_descriptors(*args: object, **options: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async def main() -> None:
        monkeypatch.setattr(asyncio, "open_connection", no_descriptors)
        with pytest.raises(OwnFault):
            await probe(target(80), at(80))
        world = World(*at(80))
        one = target(80, evolve(TCP, interval=0.001, unhealthy_threshold=1))
        world.prober.watch([one])
        await asyncio.sleep(0.02)
        assert world.results == []
        assert world.prober.state(one).up  # type: ignore[union-attr]  # watched
        await world.prober.stop()

    asyncio.run(main())


def test_probes_at_once_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many backends are not probed all in the same moment."""

    async def main() -> None:
        running = 0
        most = 0

        async def slow(one: Target, endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, str]:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.001)
            running -= 1
            return endpoints[0], ""

        monkeypatch.setattr(module, "probe", slow)
        monkeypatch.setattr(module, "_SPREAD_OVER", 10**9)
        world = World(("127.0.0.1", 1))
        world.prober.watch([target(port) for port in range(1, 301)])
        await until(lambda: len(world.results) >= 600)
        assert 1 < most <= module.MAX_AT_ONCE
        await world.prober.stop()

    asyncio.run(main())


def test_only_what_matters_makes_two_targets() -> None:
    """Two TCP pools whose unused HTTP settings differ share their probes."""
    assert ProbeSettings.of(Health(http_path="/a")) == ProbeSettings.of(Health(http_path="/b", expect_status="200"))
    assert ProbeSettings.of(Health(check_type="http", http_path="/a")) != HTTP


def test_a_backends_server_serves_again() -> None:
    """The test's own server really closes and opens its port."""

    async def main() -> None:
        server = Backends()
        await server.open()
        await server.close()
        assert (await probe(target(server.port), at(server.port)))[1] == "connection refused"
        await server.open()
        assert (await probe(target(server.port), at(server.port)))[1] == ""
        await until(lambda: server.accepted)
        await server.end()

    asyncio.run(main())
