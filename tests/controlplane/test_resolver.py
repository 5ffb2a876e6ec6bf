"""Resolver: names stay current, a dead name server takes nothing away, the event loop never waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from control_world import NameServer, turns, until

from gogate_py.addresses import Address, parse
from gogate_py.controlplane import resolver as module
from gogate_py.controlplane.resolver import Resolver, is_local, system_lookup

WEB = Address("web", 80)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same machine with short periods."""
    monkeypatch.setattr(module, "REFRESH", 0.005)
    monkeypatch.setattr(module, "FLOOR", 0.001)
    monkeypatch.setattr(module, "RETRY", 0.002)
    monkeypatch.setattr(module, "LOOKUP_TIMEOUT", 0.01)


class World:
    """A resolver under observation."""

    def __init__(self, server: NameServer) -> None:
        self.now = 1000.0
        self.changes = 0
        self.resolver = Resolver(self._changed, server, lambda: self.now)
        self.refused: Callable[[str], str] = lambda ip: ""

    def _changed(self) -> None:
        self.changes += 1

    def watch(self, *addresses: Address, registered: bool = False) -> None:
        self.resolver.watch([(one, registered) for one in addresses], lambda ip, port: self.refused(ip))

    def ips(self, address: Address = WEB, registered: bool = False) -> list[str]:
        return [ip for ip, _ in self.resolver.get(address, registered).endpoints]

    def error(self, address: Address = WEB, registered: bool = False) -> str:
        return self.resolver.get(address, registered).error


def test_literals_and_paths_are_their_own_answer() -> None:
    """IP addresses and Unix paths have their endpoints at once, and nobody is asked."""

    async def main() -> None:
        server = NameServer()
        world = World(server)
        v4, v6, unix = parse("10.0.0.1:80"), parse("[::1]:81"), parse("unix:/run/app.sock")
        world.watch(v4, v6, unix)
        assert world.resolver.get(v4, False).endpoints == (("10.0.0.1", 80),)
        assert world.resolver.get(v6, False).endpoints == (("::1", 81),)
        assert world.resolver.get(unix, False).endpoints == (("/run/app.sock", 0),)
        await turns()
        assert server.asked == []
        await world.resolver.stop()

    asyncio.run(main())


def test_a_name_has_all_its_addresses_and_follows_them() -> None:
    """All addresses become endpoints; new answers replace them and are told once."""

    async def main() -> None:
        server = NameServer(web=["::1", "127.0.0.1"])
        world = World(server)
        world.watch(WEB)
        assert (world.ips(), world.error()) == ([], "name is being looked up")
        await world.resolver.settle(5)
        assert world.ips() == ["::1", "127.0.0.1"]
        server.names["web"] = ["127.0.0.9"]
        await until(lambda: world.ips() == ["127.0.0.9"])
        assert world.changes == 2
        await world.resolver.stop()

    asyncio.run(main())


def test_answers_that_only_turn_round_change_nothing() -> None:
    """A name server that rotates its answers does not make snapshots."""

    async def main() -> None:
        server = NameServer(web=["10.0.0.1", "10.0.0.2", "10.0.0.3"])
        world = World(server)
        world.watch(WEB)
        await world.resolver.settle(5)
        server.names["web"] = ["10.0.0.3", "10.0.0.1", "10.0.0.2"]
        asked = len(server.asked)
        await until(lambda: len(server.asked) > asked + 2)
        assert (world.ips(), world.changes) == (["10.0.0.1", "10.0.0.2", "10.0.0.3"], 1)
        server.names["web"] = ["10.0.0.4", "10.0.0.3", "10.0.0.2"]
        await until(lambda: world.changes == 2)
        assert world.ips() == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
        await world.resolver.stop()

    asyncio.run(main())


def test_a_name_that_never_resolved_is_down_with_the_reason() -> None:
    """Without an answer there are no endpoints, the reason is told, and the name is asked for again."""

    async def main() -> None:
        server = NameServer()
        world = World(server)
        world.watch(WEB)
        await until(lambda: len(server.asked) > 2)
        assert (world.ips(), world.error()) == ([], "name does not resolve: Name or service not known")
        assert world.changes == 1
        server.names["web"] = ["10.0.0.1"]
        await until(lambda: world.ips() == ["10.0.0.1"])
        assert world.error() == ""
        await world.resolver.stop()

    asyncio.run(main())


def test_the_last_good_answer_is_kept_for_15_minutes() -> None:
    """A failing name server takes no endpoint away, until what it said last is too old (SECURITY.md F5)."""

    async def main() -> None:
        server = NameServer(web=["10.0.0.1"])
        world = World(server)
        world.watch(WEB)
        await world.resolver.settle(5)
        del server.names["web"]
        await until(lambda: world.error() != "")
        assert world.ips() == ["10.0.0.1"]
        world.now += module.KEEP_LAST_GOOD - 1
        asked = len(server.asked)
        await until(lambda: len(server.asked) > asked + 1)
        assert world.ips() == ["10.0.0.1"]
        world.now += 1
        await until(lambda: world.ips() == [])
        await world.resolver.stop()

    asyncio.run(main())


def test_a_silent_name_server_has_one_question_at_a_time() -> None:
    """Questions that nobody answers do not pile up in the thread pool, and other names are not held up."""

    async def main() -> None:
        server = NameServer(web=["10.0.0.1"])
        server.silent.add("db")
        world = World(server)
        db = Address("db", 5432)
        world.watch(WEB, db)
        await until(lambda: world.error(db) == "name does not resolve: no answer in time")
        refreshed = server.asked.count("web")
        await until(lambda: server.asked.count("web") > refreshed + 3)
        assert world.ips() == ["10.0.0.1"]
        assert server.asked.count("db") == 1
        await world.resolver.stop()

    asyncio.run(main())


def test_one_name_is_asked_for_once() -> None:
    """Backends that differ only in their port share the question."""

    async def main() -> None:
        server = NameServer(web=["10.0.0.1"])
        world = World(server)
        other = Address("web", 81)
        world.watch(WEB, other)
        await world.resolver.settle(5)
        assert server.asked == ["web"]
        assert world.resolver.get(other, False).endpoints == (("10.0.0.1", 81),)
        await world.resolver.stop()

    asyncio.run(main())


def test_answers_for_registered_names_are_judged_every_time() -> None:
    """A name that turns to a forbidden address gains nothing (SECURITY.md T23); the file's names are not judged."""

    async def main() -> None:
        server = NameServer(web=["10.0.0.1"])
        world = World(server)
        world.refused = lambda ip: f"{ip} is a trap" if ip.startswith("169.") else ""
        world.resolver.watch([(WEB, True), (WEB, False)], lambda ip, port: world.refused(ip))
        await world.resolver.settle(5)
        assert world.ips(registered=True) == ["10.0.0.1"]
        server.names["web"] = ["169.254.169.254", "10.0.0.1"]
        await until(lambda: len(world.ips()) == 2)
        assert world.ips(registered=True) == ["10.0.0.1"]
        server.names["web"] = ["169.254.169.254"]
        await until(lambda: world.ips(registered=True) == [])
        assert world.error(registered=True) == "169.254.169.254 is a trap"
        assert world.ips() == ["169.254.169.254"]
        await world.resolver.stop()

    asyncio.run(main())


def test_a_lookup_that_breaks_is_asked_again() -> None:
    """An exception that nobody expected does not end the questions."""

    async def main() -> None:
        calls = 0

        async def lookup(host: str) -> list[str]:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise RuntimeError("boom")
            return ["10.0.0.1"]

        found = Resolver(lambda: None, lookup)
        found.watch([(WEB, False)], lambda ip, port: "")
        await until(lambda: found.get(WEB, False).endpoints)
        await found.stop()

    asyncio.run(main())


def test_what_is_not_watched_any_more_is_not_asked_for() -> None:
    """Leaving a set ends the questions; what stays keeps its answer."""

    async def main() -> None:
        server = NameServer(web=["10.0.0.1"], db=["10.0.0.2"])
        world = World(server)
        db = Address("db", 5432)
        world.watch(WEB, db)
        await world.resolver.settle(5)
        world.watch(db)
        assert world.ips(db) == ["10.0.0.2"]
        await turns()
        asked = server.asked.count("web")
        refreshed = server.asked.count("db")
        await until(lambda: server.asked.count("db") > refreshed + 2)
        assert server.asked.count("web") == asked
        await world.resolver.stop()

    asyncio.run(main())


def test_a_failed_connect_hurries_the_next_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """hurry() asks now instead of at the next refresh, but not again just after a question."""
    monkeypatch.setattr(module, "REFRESH", 3600.0)
    monkeypatch.setattr(module, "FLOOR", 5.0)

    async def main() -> None:
        server = NameServer(web=["10.0.0.1"])
        world = World(server)
        world.watch(WEB)
        await world.resolver.settle(5)
        world.resolver.hurry(WEB)
        await turns()
        assert len(server.asked) == 1
        world.now += 6
        world.resolver.hurry(WEB)
        await until(lambda: len(server.asked) == 2)
        world.resolver.hurry(Address("unknown", 1))
        await world.resolver.stop()

    asyncio.run(main())


def test_the_system_knows_localhost_and_this_machine() -> None:
    """The real look-up gives loopback addresses for localhost; loopback is this machine, TEST-NET-1 is not."""

    async def main() -> list[str]:
        return await system_lookup("localhost")

    found = asyncio.run(main())
    assert set(found) <= {"127.0.0.1", "::1"}
    assert found
    assert is_local("127.0.0.1")
    assert is_local("127.99.0.1")
    assert is_local("::1")
    assert not is_local("192.0.2.1")
    assert not is_local("2001:db8::1")


def test_periods_are_each_names_own() -> None:
    """A name is asked for by its own periods, the others by the defaults; a change of them holds from then on."""

    async def main() -> None:
        server = NameServer(web=["10.0.0.1"], slow=["10.0.0.2"])
        world = World(server)
        slow = Address("slow", 80)
        patient = {"slow": module.Periods(3600.0, 0.001, 0.0)}
        world.resolver.watch([(WEB, False), (slow, False)], lambda ip, port: "", patient)
        await world.resolver.settle(5)
        await until(lambda: server.asked.count("web") > 3)
        assert server.asked.count("slow") == 1
        del server.names["slow"]
        world.now += 1
        world.resolver.hurry(slow)
        # keepLastGood of nothing: the first failure takes it away
        await until(lambda: world.ips(slow) == [])
        assert world.resolver.stale() == {"web": False, "slow": False}
        await world.resolver.stop()

    asyncio.run(main())


def test_a_stale_name_is_known_as_such() -> None:
    """While questions fail and an older answer is used, the name is stale; with the next good answer it is not."""

    async def main() -> None:
        server = NameServer(web=["10.0.0.1"])
        world = World(server)
        world.watch(WEB)
        await world.resolver.settle(5)
        assert world.resolver.stale() == {"web": False}
        found = server.names.pop("web")
        await until(lambda: world.resolver.stale() == {"web": True})
        assert world.ips() == ["10.0.0.1"]
        server.names["web"] = found
        await until(lambda: world.resolver.stale() == {"web": False})
        await world.resolver.stop()

    asyncio.run(main())


def test_a_connect_that_fails_asks_at_once_but_not_within_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many connects fail, there is one question a floor."""
    monkeypatch.setattr(module, "REFRESH", 3600.0)
    monkeypatch.setattr(module, "FLOOR", 1.0)

    async def main() -> None:
        server = NameServer(web=["10.0.0.1"])
        world = World(server)
        world.watch(WEB)
        await world.resolver.settle(5)
        world.now += 0.9
        for _ in range(100):
            world.resolver.hurry(WEB)
        await turns()
        assert server.asked == ["web"]
        world.now += 0.1
        world.resolver.hurry(WEB)
        await until(lambda: len(server.asked) == 2)
        await world.resolver.stop()

    asyncio.run(main())
