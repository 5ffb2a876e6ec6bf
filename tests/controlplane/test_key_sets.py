"""Key sets in the supervisor: when they are fetched, what is believed, what workers hear of it."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from control_world import turns, until

from gogate_py.controlplane import key_sets
from gogate_py.controlplane.key_set_fetch import MAX_BYTES, Fetcher, FetchError
from gogate_py.controlplane.key_sets import KeySetFetcher, Schedule, shown_url
from gogate_py.messages import KeySet

PRIVATE: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "middleware" / "data" / "jwt_keys.json").read_text()
)


def key_set(*kids: str) -> bytes:
    """A set of one key under these kids."""
    key = {name: PRIVATE["p256"][name] for name in ("kty", "crv", "x", "y")}
    return json.dumps({"keys": [key | {"kid": kid} for kid in kids]}).encode()


class Middle:
    """A random source without chance: no jitter."""

    def random(self) -> float:
        return 0.5

    def getrandbits(self, k: int, /) -> int:
        return 0


class TestSchedule:
    """When one URL is fetched next."""

    def test_good_ones_refresh_and_failures_back_off(self) -> None:
        """Every 300 s; failures after 1, 2, 4 … 30 s; a good one ends the row."""
        schedule = Schedule(0.0, Middle())
        assert schedule.next_at == 0.0
        assert schedule.good(0.0, b"a", 1) is True
        assert schedule.next_at == 300.0
        waits = []
        now = 300.0
        for _ in range(8):
            assert schedule.failed(now, "down") is False
            waits.append(schedule.next_at - now)
            now = schedule.next_at
        assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
        assert (schedule.jwks, schedule.keys, schedule.error) == (b"a", 1, "down")
        assert schedule.good(now, b"a", 1) is False
        assert (schedule.error, schedule.next_at) == ("", now + 300)
        schedule.failed(now, "down")
        assert schedule.next_at == now + 1

    def test_every_wait_is_jittered_by_a_tenth(self) -> None:
        """So that gateways that started together do not ask together."""
        schedule = Schedule(0.0, random.Random(1))
        waits = set()
        for _ in range(50):
            schedule.good(0.0, b"a", 1)
            waits.add(schedule.next_at)
        assert len(waits) > 40
        assert 270 <= min(waits) <= max(waits) <= 330

    def test_the_last_good_keys_are_kept_for_an_hour(self) -> None:
        """Then they are dropped, once; there is nothing to drop before the first."""
        schedule = Schedule(0.0, Middle())
        assert schedule.failed(7200.0, "down") is False
        schedule.good(10.0, b"a", 1)
        assert schedule.failed(3609.9, "down") is False
        assert schedule.failed(3610.0, "down") is True
        assert (schedule.jwks, schedule.keys) == (b"", 0)
        assert schedule.failed(3640.0, "down") is False
        assert schedule.good(3700.0, b"a", 1) is True

    def test_unknown_kids_are_asked_for_at_most_every_30_seconds(self) -> None:
        """At once, then not before the time is over, and then; an answer is owed once."""
        schedule = Schedule(0.0, Middle())
        assert schedule.begin(0.0) is False
        schedule.good(0.0, b"a", 1)
        schedule.unknown(100.0)
        assert schedule.next_at == 100.0
        assert schedule.begin(100.0) is True
        schedule.good(100.0, b"a", 1)
        for moment in (101.0, 110.0, 129.0):
            schedule.unknown(moment)
            assert schedule.next_at == 130.0
        assert schedule.begin(130.0) is True
        schedule.good(130.0, b"a", 1)
        assert schedule.next_at == 430.0
        assert schedule.begin(430.0) is False

    def test_asked_while_a_fetch_is_under_way(self) -> None:
        """What that fetch brings may be older than the key: one more follows, in its time."""
        schedule = Schedule(0.0, Middle())
        assert schedule.begin(0.0) is False
        schedule.unknown(0.5)
        schedule.good(1.0, b"a", 1)
        assert schedule.next_at == 1.0
        assert schedule.begin(1.0) is True
        schedule.unknown(1.5)
        schedule.failed(2.0, "down")
        assert schedule.next_at == 3.0
        assert schedule.begin(3.0) is True
        schedule.good(3.0, b"a", 1)
        assert schedule.next_at == 303.0


class Issuer:
    """A key set server on loopback that answers what it is told."""

    def __init__(self) -> None:
        self.body = key_set("a")
        self.raw: bytes | None = None
        self.head = b""
        self.status = b"200 OK"
        self.silent = False
        self.asked: list[bytes] = []
        self.port = 0
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/jwks.json?tenant=7"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.asked.append(await reader.readuntil(b"\r\n\r\n"))
            if self.silent:
                await reader.read()
            elif self.raw is not None:
                writer.write(self.raw)
            else:
                length = b"Content-Length: %d\r\n" % len(self.body)
                writer.write(b"HTTP/1.1 " + self.status + b"\r\n" + length + self.head + b"\r\n" + self.body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def issuer() -> AsyncIterator[Issuer]:
    """A key set server."""
    server = Issuer()
    await server.open()
    try:
        yield server
    finally:
        await turns()
        await server.close()


class World:
    """A fetcher whose time goes on when the test says so."""

    def __init__(self, fetch: Callable[[str], Awaitable[bytes]] | None = None) -> None:
        self.now = 1000.0
        self.published: list[KeySet] = []
        self.waiting: list[tuple[asyncio.Event, float]] = []
        self.fetcher = KeySetFetcher(self.published.append, fetch, lambda: self.now, Middle(), self._wait)

    async def _wait(self, event: asyncio.Event, seconds: float) -> None:
        until_ = self.now + seconds
        self.waiting.append((event, until_))
        try:
            while self.now < until_ and not event.is_set():  # noqa: ASYNC110  the test's clock is no event
                await asyncio.sleep(0.001)
        finally:
            self.waiting.remove((event, until_))

    async def rest(self) -> None:
        """Until every URL waits for its time."""
        await turns(3)
        await until(lambda: len(self.waiting) == len(self.fetcher._watches))
        assert all(self.now < moment and not event.is_set() for event, moment in self.waiting)

    async def go(self, seconds: float) -> None:
        """Let time go on; rests when what was due is done."""
        self.now += seconds
        await asyncio.sleep(0.003)
        await self.rest()

    async def ask(self, url: str) -> None:
        """A worker met an unknown kid; rests when what follows from that is done."""
        self.fetcher.unknown(url)
        await asyncio.sleep(0.003)
        await self.rest()

    @property
    def error(self) -> str:
        return self.fetcher.status()[0].error


class TestFetcher:
    """The life of a key set, against a real server."""

    def test_fetched_at_once_then_every_five_minutes(self) -> None:
        """Published when it came and when it changed, not when it is the same; whoever joins gets the current one."""

        async def main() -> None:
            async with issuer() as server:
                world = World()
                assert world.fetcher.current() == []
                world.fetcher.watch([server.url])
                await world.fetcher.settle(5)
                await world.rest()
                first = KeySet(server.url, key_set("a"))
                assert world.published == world.fetcher.current() == [first]
                await world.go(299)
                assert len(server.asked) == 1
                await world.go(1)
                assert (len(server.asked), world.published) == (2, [first])
                server.body = key_set("a", "b")
                await world.go(300)
                second = KeySet(server.url, key_set("a", "b"))
                assert world.published == [first, second]
                assert world.fetcher.current() == [second]
                head = server.asked[0]
                assert head.startswith(b"GET /jwks.json?tenant=7 HTTP/1.1\r\n")
                assert b"accept-encoding: identity" in head.lower()
                await world.fetcher.stop()

        asyncio.run(main())

    def test_an_outage_changes_nothing_for_an_hour(self) -> None:
        """Errors are shown, the keys stay in use and are dropped after an hour; back again, they are published."""

        async def main() -> None:
            async with issuer() as server:
                world = World()
                world.fetcher.watch([server.url])
                await world.fetcher.settle(5)
                await world.rest()
                await server.close()
                await world.go(300)
                status = world.fetcher.status()[0]
                assert (status.keys, status.age_s) == (1, 300.0)
                assert "refused" in status.error.lower() or "connect" in status.error.lower()
                while world.now < 1000 + 3599 - 31:
                    await world.go(30)
                assert len(world.published) == 1
                await world.go(31)
                await world.go(31)
                assert world.published[1:] == [KeySet(server.url, b"")]
                assert world.fetcher.current() == []
                assert (world.fetcher.status()[0].keys, world.fetcher.status()[0].age_s) == (0, None)
                await server.open()
                await world.go(31)
                assert world.published[2:] == [KeySet(server.url, key_set("a"))]
                assert world.error == ""
                await world.fetcher.stop()

        asyncio.run(main())

    def test_unknown_kids_fetch_at_once_but_seldom(self) -> None:
        """A rotation is seen at once, the result told even if it is the same; then not again for 30 s, then yes."""

        async def main() -> None:
            async with issuer() as server:
                world = World()
                world.fetcher.watch([server.url])
                await world.fetcher.settle(5)
                await world.rest()
                server.body = key_set("b")
                await world.go(50)
                await world.ask(server.url)
                assert world.published[-1] == KeySet(server.url, key_set("b"))
                assert len(server.asked) == 2
                server.body = key_set("c")
                for _ in range(20):
                    await world.ask(server.url)
                await world.go(29)
                assert (len(server.asked), len(world.published)) == (2, 2)
                await world.go(1)
                assert (len(server.asked), world.published[-1]) == (3, KeySet(server.url, key_set("c")))
                await world.go(100)
                await world.ask(server.url)
                assert world.published[-2:] == [KeySet(server.url, key_set("c"))] * 2
                world.fetcher.unknown("https://nobody.asked.for/this")
                await world.fetcher.stop()

        asyncio.run(main())

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            ({"body": b"<html>"}, "is not JSON"),
            ({"body": b'{"keys":[]}'}, "has no key"),
            ({"body": b'{"keys":[{"kty":"oct","k":"AAAA"}]}'}, "has no key"),
            ({"body": b""}, "is not JSON"),
            ({"body": key_set("a") + b" " * MAX_BYTES}, "larger than 512 KiB"),
            ({"raw": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b" " * (MAX_BYTES + 1)}, "larger than"),
            ({"raw": b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + key_set("a")}, "ends too early"),
            ({"raw": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20000 + b"\r\n"}, "is not HTTP"),
            ({"raw": b"SSH-2.0-x\r\n"}, "is not HTTP"),
            ({"raw": b""}, "is not HTTP"),
            ({"status": b"500 Broken"}, "status 500"),
            ({"status": b"204 No Content", "body": b""}, "status 204"),
            ({"status": b"302 Found", "head": b"Location: /x\r\n"}, "status 302, a redirect, which is not followed"),
            ({"head": b"Content-Encoding: gzip\r\n"}, "content coding"),
            ({"silent": True}, "no complete answer within 0.05 s"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_what_is_not_believed(self, change: dict[str, Any], error: str) -> None:
        """Garbage, oversize, cut, redirected, slow: the old keys stay, the error is shown, the next fetch is in 1 s."""

        async def main() -> None:
            async with issuer() as server:
                world = World(Fetcher(timeout=0.05) if "silent" in change else None)
                world.fetcher.watch([server.url])
                await world.fetcher.settle(5)
                await world.rest()
                for name, value in change.items():
                    setattr(server, name, value)
                await world.go(300)
                assert error in world.error
                assert world.published == world.fetcher.current() == [KeySet(server.url, key_set("a"))]
                asked = len(server.asked)
                await world.go(1.0)
                assert len(server.asked) == asked + 1
                await world.fetcher.stop()

        asyncio.run(main())

    def test_urls_come_and_go(self) -> None:
        """A new configuration keeps what stays, and has workers let go of what goes."""

        async def main() -> None:
            asked: list[str] = []

            async def fetch(url: str) -> bytes:
                asked.append(url)
                return key_set("a")

            world = World(fetch)
            world.fetcher.watch(["https://a/", "https://b/"])
            await world.fetcher.settle(5)
            await world.rest()
            world.fetcher.watch(["https://b/", "https://c/"])
            await world.fetcher.settle(5)
            await world.rest()
            assert asked == ["https://a/", "https://b/", "https://c/"]
            assert world.published[2:] == [KeySet("https://a/", b""), KeySet("https://c/", key_set("a"))]
            assert [one.url for one in world.fetcher.current()] == ["https://b/", "https://c/"]
            await world.fetcher.stop()
            assert world.fetcher.current() == []

        asyncio.run(main())

    def test_one_fetch_that_fails_strangely_ends_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        """An error that nobody thought of is logged and the URL is tried again."""

        async def main() -> None:
            answers: list[Exception | bytes] = [RuntimeError("strange"), key_set("a")]

            async def fetch(url: str) -> bytes:
                answer = answers.pop(0)
                if isinstance(answer, Exception):
                    raise answer
                return answer

            world = World(fetch)
            world.fetcher.watch(["https://user:pass@a/x?token=secret"])
            await world.fetcher.settle(5)
            await world.rest()
            assert world.error == "internal error"
            await world.go(1)
            assert world.error == ""
            assert len(world.published) == 1
            await world.fetcher.stop()

        asyncio.run(main())
        assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["internal error"]
        assert "secret" not in caplog.text
        assert not any("secret" in str(vars(record)) for record in caplog.records)

    def test_the_real_clock_wakes_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a clock of the test: the same machine with short periods."""
        monkeypatch.setattr(key_sets, "REFRESH", 0.005)

        async def main() -> None:
            async with issuer() as server:
                published: list[KeySet] = []
                fetcher = KeySetFetcher(published.append)
                fetcher.watch([server.url])
                await until(lambda: len(server.asked) >= 3)
                server.body = key_set("z")
                await until(lambda: published[-1:] == [KeySet(server.url, key_set("z"))])
                await fetcher.stop()

        asyncio.run(main())


def test_only_https_and_this_machine() -> None:
    """Checked again where it is fetched; a name for this machine must lead there."""

    async def main() -> None:
        for url in ("http://192.0.2.1/", "file:///etc/passwd", "https://user@a/"):
            with pytest.raises(FetchError, match="the URL"):
                await Fetcher()(url)
        with pytest.raises(FetchError):
            await Fetcher()("http://127.0.0.1:1/")

    asyncio.run(main())


def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    """Refused with the system's trust; taken when its CA is the configured one."""
    certificate, key = _certificate(tmp_path)

    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                await writer.drain()
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate, key)
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(FetchError, match="not trusted"):
            await Fetcher()(url)
        assert await Fetcher(str(certificate))(url) == b"{}"
        with pytest.raises(FetchError, match="No such file"):
            await Fetcher(str(tmp_path / "missing.pem"))(url)
        with pytest.raises(FetchError):
            await Fetcher()(url.replace("https", "http"))
        await turns()
        server.close()
        await server.wait_closed()

    asyncio.run(main())


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(1)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ))  # fmt: skip
    return certificate, private


def test_what_is_shown_of_a_url() -> None:
    """Neither user nor password nor query: they may be secret."""
    assert shown_url("https://user:pass@auth.example.com:8443/a/jwks.json?key=1") == (
        "https://auth.example.com:8443/a/jwks.json"
    )
