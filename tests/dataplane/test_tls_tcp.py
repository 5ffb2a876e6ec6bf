"""TLS on a TCP listener: what is relayed, how either side ends it, back-pressure, and routes by server name."""

from __future__ import annotations

from doubles.http_plane import run, until
from doubles.raw_peer import Peer, Target
from doubles.tcp_plane import TcpPlane, both_loops, flooded
from doubles.tls_clients import TlsPeer, listener_tls

TLS = {"tls": listener_tls()}
BIG = 10 << 20


async def tls_pair(bed: TcpPlane) -> tuple[TlsPeer, Peer]:
    """A client that shook hands, and its backend's end."""
    client = await TlsPeer.connect(bed.port)
    backend = await bed.targets[0].accept()
    await until(lambda: bed.relay().view().state == "open", "the relay is open")
    return client, backend


@both_loops
def test_bytes_pass_both_ways(loop: str) -> None:
    """The backend gets what was encrypted, the client what the backend says, and either may end first."""

    async def main() -> None:
        async with TcpPlane(Target(), listener=TLS) as bed:
            client, backend = await tls_pair(bed)
            await client.send(b"hello")
            assert await backend.exactly(5) == b"hello"
            await backend.send(b"good day")
            assert await client.exactly(8) == b"good day"
            await client.notify()
            assert await backend.until_eof() == b""
            await backend.send(b"still here")
            backend.close()
            assert await client.until_eof() == b"still here"
            client.close()
            (line,) = await bed.logged()
            assert (line["result"], line["bytes_in"], line["bytes_out"]) == ("ok", 5, 18)

    run(main(), loop)


@both_loops
def test_a_slow_reader_gets_every_byte(loop: str) -> None:
    """10 MB to a client that does not read at first, and to a backend that does not: all arrives, little is held."""

    async def main() -> None:
        async with TcpPlane(Target(), listener=TLS) as bed:
            client, backend = await tls_pair(bed)
            relay = bed.relay()
            assert relay._backend_side is not None
            await bed.flood(backend, relay._backend_side)
            assert relay._client.unsent() < 1 << 20
            sent = relay._backend_side.received
            backend.eof()
            got = await client.until_eof()
            assert len(got) >= sent
            assert got == flooded(len(got))
            data = flooded(BIG)
            sending = bed.loop.create_task(client.send(data))
            await until(lambda: not relay._client.transport.is_reading(), "the client is not read any more")
            assert await backend.exactly(BIG) == data
            await sending
            client.close()

    run(main(), loop)
