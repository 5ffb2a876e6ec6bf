"""SNI passthrough in a real data plane: which route a connection takes, and what is closed."""

from __future__ import annotations

import ssl
from typing import Any

import msgspec
import pytest
from doubles.http_plane import run, until
from doubles.raw_peer import Target
from doubles.tcp_plane import LISTENER, TcpPlane, both_loops

from gogate_py.snapshot import Listener, RateLimit, Snapshot, SniRoute, TcpRoute
from gogate_py.wire.proxy_protocol import encode

NAMED, OTHER, REST = (TcpRoute(name, name, 3600.0) for name in ("named", "other", "rest"))
BY_NAME = (SniRoute(("db.test",), NAMED), SniRoute(("*.db.test", "other.test"), OTHER))


def hello(name: str | None) -> bytes:
    """What OpenSSL says first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    out = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name).do_handshake()
    return out.read()


class SniPlane(TcpPlane):
    """A data plane whose listener has three routes, with a backend each; ``default``: the last is for the rest."""

    def __init__(self, *, default: bool = True, **settings: Any) -> None:
        super().__init__(Target(), Target(), Target(), **settings)
        self.default = default

    async def apply(self) -> None:
        plane = self.plane
        real = plane.apply

        async def apply(snapshot: Snapshot) -> None:
            pool = snapshot.pools[0]
            pools = tuple(
                msgspec.structs.replace(pool, name=name, backends=(pool.backends[row],))
                for row, name in enumerate(("named", "other", "rest"))
            )
            rest = REST if self.default else None
            listener = Listener(LISTENER, f":{self.port}", rest, sni=BY_NAME, **self.listener_settings)
            await real(msgspec.structs.replace(snapshot, pools=pools, listeners=(listener,)))

        plane.apply = apply  # type: ignore[method-assign]  # the bed's snapshot has one route
        try:
            await super().apply()
        finally:
            plane.apply = real  # type: ignore[method-assign]  # as above

    def refused(self) -> dict[str, int]:
        """Closed connections by reason."""
        return self.listener.refused


@both_loops
@pytest.mark.parametrize(
    ("name", "row"),
    [("db.test", 0), ("DB.test", 0), ("a.b.db.test", 1), ("other.test", 1), ("elsewhere.test", 2), (None, 2)],
)
def test_a_name_leads_to_its_route(loop: str, name: str | None, row: int) -> None:
    """The backend gets every byte as it came, however the hello is cut, with what comes behind it; and answers."""

    async def main() -> None:
        data = hello(name)
        for cuts in ([len(data)], [1, 6, 50, len(data)], list(range(1, len(data) + 1))):
            async with SniPlane() as bed:
                client = await bed.client()
                start = 0
                for end in cuts:
                    await client.send(data[start:end])
                    start = end
                    if len(cuts) < 10:
                        await until(lambda: bed.plane.admission.arriving or bed.plane.relays)
                await client.send(b"early data")
                backend = await bed.targets[row].accept()
                assert await backend.exactly(len(data) + 10) == data + b"early data"
                await backend.send(b"answer")
                assert await client.exactly(6) == b"answer"
                client.eof()
                backend.eof()
                assert await client.ends() == "eof"
                (line,) = await bed.logged()
                assert (line["route"], line["result"]) == (("named", "other", "rest")[row], "ok")
                assert line["bytes_in"] == len(data) + 10

    run(main(), loop)


@both_loops
@pytest.mark.parametrize("first", [b"SSH-2.0-x\r\n", b"\x16\x03\x01\x00\x00", b"\0"])
def test_what_is_not_tls_goes_to_the_route_without_names(loop: str, first: bytes) -> None:
    """Another protocol on the same port is possible, as long as its client speaks first."""

    async def main() -> None:
        async with SniPlane() as bed:
            client = await bed.client()
            await client.send(first)
            backend = await bed.targets[2].accept()
            assert await backend.exactly(len(first)) == first
            client.reset()
            assert await backend.ends() == "reset"

    run(main(), loop)


@both_loops
@pytest.mark.parametrize(
    ("first", "reason"),
    [(hello("elsewhere.test"), "server_name"), (hello(None), "server_name"), (b"GET /", "client_hello")],
)
def test_without_a_route_it_is_closed(loop: str, first: bytes, reason: str) -> None:
    """Closed and counted by reason; no backend hears of it."""

    async def main() -> None:
        async with SniPlane(default=False) as bed:
            client = await bed.client()
            await client.send(first)
            await client.ends()
            assert bed.refused() == {reason: 1}
            assert not any(target.waiting() for target in bed.targets)
            assert bed.listener.name == LISTENER

    run(main(), loop)


@both_loops
def test_who_says_nothing_is_closed_in_time(loop: str) -> None:
    """Five seconds for the whole hello; half a hello and an end is counted, only looking is not."""

    async def main() -> None:
        async with SniPlane() as bed:
            silent, slow = await bed.client(), await bed.client()
            await slow.send(hello("db.test")[:40])
            await until(lambda: len(bed.plane.admission.arriving) == 2)
            bed.pass_time(4.0)
            assert bed.refused() == {}
            bed.pass_time(2.0)
            assert {await silent.ends(), await slow.ends()} <= {"eof", "reset"}
            assert bed.refused() == {"client_hello_timeout": 2}
            looks = await bed.client()
            looks.eof()
            await looks.ends()
            halves = await bed.client()
            await halves.send(hello("db.test")[:40])
            halves.eof()
            await halves.ends()
            await until(lambda: bed.refused() == {"client_hello_timeout": 2, "client_hello": 1})

    run(main(), loop)


@both_loops
def test_a_client_has_its_share_from_accept_on(loop: str) -> None:
    """connectionsPerClient counts those who say nothing yet; the place goes with the connection to its route, once."""

    async def main() -> None:
        async with SniPlane(per_client=1) as bed:
            first = await bed.client()
            await until(lambda: bed.plane.admission.arriving)
            second = await bed.client()
            await second.ends()
            assert bed.refused() == {"connections_per_client": 1}
            await first.send(hello("db.test"))
            backend = await bed.targets[0].accept()
            third = await bed.client()
            await third.ends()
            assert bed.refused() == {"connections_per_client": 2}
            first.reset()
            await backend.ends()
            await until(lambda: not bed.listener.active)
            fourth = await bed.client()
            await fourth.send(hello("db.test"))
            await bed.targets[0].accept()
            assert bed.listener.accepted == 4
            fourth.reset()

    run(main(), loop)


@both_loops
def test_limits_are_those_of_the_route(loop: str) -> None:
    """A rate limit of the whole gateway applies once the route is known: what is closed before does not use it up."""

    async def main() -> None:
        limit = RateLimit(0, 1.0, 3600.0, 1)
        async with SniPlane(default=False, rate_limit=limit) as bed:
            stranger = await bed.client()
            await stranger.send(hello("elsewhere.test"))
            await stranger.ends()
            first = await bed.client()
            await first.send(hello("db.test"))
            await bed.targets[0].accept()
            second = await bed.client()
            await second.send(hello("db.test"))
            await second.ends()
            assert bed.refused() == {"server_name": 1, "rate_limited": 1}
            first.reset()

    run(main(), loop)


@both_loops
def test_behind_a_proxy_header(loop: str) -> None:
    """A PROXY header comes first and is not the backend's; the client is the one that it names."""

    async def main() -> None:
        header = encode(2, ("203.0.113.9", 4711), ("198.51.100.1", 443))
        data = hello("db.test")
        async with SniPlane(accept_proxy=True, trusted=("127.0.0.0/8",)) as bed:
            for cut in (0, len(header), len(header) + 30):
                client = await bed.client()
                await client.send((header + data)[:cut])
                await until(lambda cut=cut: not cut or bed.plane.admission.arriving)
                await client.send((header + data)[cut:])
                backend = await bed.targets[0].accept()
                assert await backend.exactly(len(data)) == data
                client.reset()
                await backend.ends()
                await until(lambda: not bed.plane.relays)
            lines = await bed.logged(3)
            assert {line["client"] for line in lines} == {"203.0.113.9:4711"}

    run(main(), loop)


def test_a_drain_ends_who_says_nothing() -> None:
    """After the grace time a connection without a hello is cut like any other."""

    async def main() -> None:
        async with SniPlane() as bed:
            client = await bed.client()
            await until(lambda: bed.plane.admission.arriving)
            assert await bed.plane.drain(0.0, 0.0) == 1
            assert await client.ends() in ("eof", "reset")

    run(main())
