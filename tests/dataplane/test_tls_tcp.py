"""TLS on a TCP listener: what is relayed, how either side ends it, back-pressure, and routes by server name."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import msgspec
import pytest
from doubles.http_plane import run, until
from doubles.raw_peer import Peer, Target
from doubles.tcp_plane import LISTENER, TcpPlane, both_loops, flooded
from doubles.tls_backends import TlsTarget, settings
from doubles.tls_clients import TlsPeer, certificate, client_context, listener_tls

from gogate_py.dataplane.tls_transport import TlsTransport
from gogate_py.listener_tls import ListenerContexts
from gogate_py.snapshot import Listener, Snapshot, SniRoute, TcpRoute

TLS = {"tls": listener_tls()}
BIG = 10 << 20

#: Also with splice from the first byte: what TLS carries must never go past it.
pytestmark = pytest.mark.usefixtures("way")


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


@both_loops
def test_the_client_ends_while_the_backend_does_not_read(loop: str) -> None:
    """Everything that came before its close_notify and FIN is delivered, however late it is read."""

    async def main() -> None:
        async with TcpPlane(Target(), listener=TLS) as bed:
            client, backend = await tls_pair(bed)
            relay = bed.relay()
            data = flooded(BIG)

            async def say_all() -> None:
                await client.send(data)
                await client.notify()
                client.fin()

            saying = asyncio.create_task(say_all())
            await until(lambda: not relay._client.transport.is_reading(), "the client is not read any more")
            assert await backend.exactly(len(data)) == data
            await saying
            assert await backend.until_eof() == b""
            await backend.send(b"thanks")
            backend.close()
            assert await client.until_eof() == b"thanks"
            client.close()

    run(main(), loop)


@both_loops
@pytest.mark.parametrize("size", [1, 65536])
def test_the_backend_ends_first(loop: str, size: int) -> None:
    """Its end is a close_notify; the client may still speak, and end later."""

    async def main() -> None:
        async with TcpPlane(Target(), listener=TLS) as bed:
            client, backend = await tls_pair(bed)
            await backend.send(flooded(size))
            backend.eof()
            assert await client.until_eof() == flooded(size)
            for _ in range(3):
                await client.send(flooded(size))
                assert await backend.exactly(size) == flooded(size)
            await client.notify()
            assert await backend.until_eof() == b""
            await until(lambda: not bed.plane.relays)
            client.close()
            assert (await bed.logged())[0]["result"] == "ok"

    run(main(), loop)


@both_loops
def test_an_end_without_close_notify(loop: str) -> None:
    """FIN alone is an end as well, as many clients do it."""

    async def main() -> None:
        async with TcpPlane(Target(), listener=TLS) as bed:
            client, backend = await tls_pair(bed)
            await client.send(b"hello")
            client.fin()
            assert await backend.until_eof() == b"hello"
            await backend.send(b"answer")
            backend.close()
            assert await client.until_eof() == b"answer"
            client.close()
            assert (await bed.logged())[0]["result"] == "ok"

    run(main(), loop)


@both_loops
def test_what_comes_behind_close_notify_does_not_count(loop: str) -> None:
    """RFC 8446 section 6.1: data after a closure alert is ignored, whatever it is."""

    async def main() -> None:
        async with TcpPlane(Target(), listener=TLS) as bed:
            client, backend = await tls_pair(bed)
            await client.send(b"hello")
            await client.notify()
            for _ in range(3):
                await asyncio.get_running_loop().sock_sendall(client.sock, b"GET / HTTP/1.1\r\n\r\n")
                await asyncio.sleep(0)
            assert await backend.until_eof() == b"hello"
            await backend.send(b"bye")
            backend.close()
            assert await client.until_eof() == b"bye"
            client.close()

    run(main(), loop)


@both_loops
def test_the_backend_resets(loop: str) -> None:
    """The client hears of it: no end in order."""

    async def main() -> None:
        async with TcpPlane(Target(), listener=TLS) as bed:
            client, backend = await tls_pair(bed)
            backend.reset()
            with pytest.raises((ssl.SSLEOFError, ConnectionError)):
                await client.until_eof()
            client.close()
            assert (await bed.logged())[0]["result"] == "backend_reset"

    run(main(), loop)


@both_loops
def test_the_client_breaks_the_protocol(loop: str) -> None:
    """A record that was changed on the way: the backend is reset, the log says why; the client gets an alert."""

    async def main() -> None:
        async with TcpPlane(Target(), listener=TLS) as bed:
            client, backend = await tls_pair(bed)
            client.spoken.write(b"hello")
            record = bytearray(client._out.read())
            record[-1] ^= 1
            await asyncio.get_running_loop().sock_sendall(client.sock, bytes(record))
            assert await backend.ends() == "reset"
            with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
                await client.until_eof()
            client.close()
            (line,) = await bed.logged()
            assert line["result"] == "client_reset"
            assert "mac" in line["reason"]

    run(main(), loop)


@both_loops
def test_tls_on_both_sides(loop: str) -> None:
    """Terminated here, and spoken anew with the backend, which cannot be told of the client's end: it has two seconds
    of quiet to finish."""

    async def main() -> None:
        async def echo(talk: Any) -> None:
            while data := await talk.some():
                await talk.send(data)

        async with TlsTarget(echo) as target, TcpPlane(target, listener=TLS, tls=settings()) as bed:  # type: ignore[arg-type]  # as good as a Target
            client = await TlsPeer.connect(bed.port)
            data = flooded(BIG // 4)
            sending = asyncio.create_task(client.send(data))
            assert await client.exactly(len(data)) == data
            await sending
            await client.notify()
            await until(lambda: bed.relay().view().state == "client_closed")
            bed.pass_time(4)
            assert await client.until_eof() == b""
            client.close()

    run(main(), loop)


def test_cut_at_the_end_of_the_grace_time() -> None:
    """A relay that goes on is cut, also while its client takes nothing."""

    async def main() -> None:
        async with TcpPlane(Target(), listener=TLS) as bed:
            client, backend = await tls_pair(bed)
            relay = bed.relay()
            await bed.flood(backend, relay._backend_side)
            assert await bed.plane.drain(0.05, 0.0) == 1
            await until(lambda: not bed.plane.relays)
            client.close()

    run(main())


class NamedPlane(TcpPlane):
    """Two routes by server name and, if ``default``, one for all others, with a backend each."""

    def __init__(self, *, default: bool) -> None:
        super().__init__(Target(), Target(), Target())
        self.default = default

    async def apply(self) -> None:
        real = self.plane.apply

        async def apply(snapshot: Snapshot) -> None:
            pool = snapshot.pools[0]
            names = ("a", "wild", "rest")
            pools = tuple(
                msgspec.structs.replace(pool, name=name, backends=(pool.backends[row],))
                for row, name in enumerate(names)
            )
            a, wild, rest = (TcpRoute(name, name, 3600.0) for name in names)
            tls = listener_tls(certificate("a.test"), certificate("*.wild.test"))
            sni = (SniRoute(("a.test",), a), SniRoute(("*.wild.test",), wild))
            listener = Listener(LISTENER, f":{self.port}", rest if self.default else None, sni=sni, tls=tls)
            await real(msgspec.structs.replace(snapshot, pools=pools, listeners=(listener,)))

        self.plane.apply = apply  # type: ignore[method-assign]  # the bed's snapshot has one route
        try:
            await super().apply()
        finally:
            self.plane.apply = real  # type: ignore[method-assign]  # as above


@both_loops
@pytest.mark.parametrize(("name", "row"), [("a.test", 0), ("x.wild.test", 1), ("x.y.wild.test", 1), ("b.test", 2)])
def test_a_route_by_server_name(loop: str, name: str, row: int) -> None:
    """The name in the handshake chooses certificate and route; the rest goes to the route for all others."""

    async def main() -> None:
        async with NamedPlane(default=True) as bed:
            client = await TlsPeer.connect(bed.port, client_context(verify=row < 2 and name.count(".") == 2), name)
            await client.send(b"hello")
            backend = await bed.targets[row].accept()
            assert await backend.exactly(5) == b"hello"
            client.close()
            backend.close()

    run(main(), loop)


@both_loops
def test_a_server_name_without_a_route(loop: str) -> None:
    """The client is told that nobody has this name, before anything is computed for it."""

    async def main() -> None:
        async with NamedPlane(default=False) as bed:
            for name in ("b.test", None):
                peer = await TlsPeer.plain(bed.port, client_context(verify=False), name)
                with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
                    await peer.shake_hands()
                peer.close()
            assert bed.listener.refused == {"server_name": 2}
            assert bed.listener.handshakes == {("server_name", ""): 2}

    run(main(), loop)


class _Raw:
    """A plain transport that keeps what is written, and counts it as not taken by the peer."""

    def __init__(self) -> None:
        self.written = b""
        self.aborted = False

    def pause_reading(self) -> None:
        """Nothing is read here."""

    def resume_reading(self) -> None:
        """Nothing is read here."""

    def write_eof(self) -> None:
        """The test looks at what was written before."""

    def set_protocol(self, protocol: object) -> None:
        """Nothing is read here."""

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.written += data

    def get_write_buffer_size(self) -> int:
        """All of it."""
        return len(self.written)

    def is_closing(self) -> bool:
        """Only when it was aborted."""
        return self.aborted

    def abort(self) -> None:
        """Note it."""
        self.aborted = True


class _Note:
    """A protocol that notes what it gets, and reads one record at a time."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.ended = False

    def connection_made(self, transport: TlsTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got.append(data)
        self.transport.pause_reading()

    def eof_received(self) -> bool:
        self.ended = True
        return True


def shaken(context: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO, TlsPeer]:
    """A server's end of a handshake in memory, its two buffers, and a client without a socket."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    spoken = context.wrap_bio(incoming, outgoing, server_side=True)
    with socket.socket() as nowhere:
        peer = TlsPeer(nowhere, client_context(), "a.test")
    done = 0
    while done < 2:
        done = 0
        for one, sent, to in ((peer.spoken, peer._out, incoming), (spoken, outgoing, peer._in)):
            try:
                one.do_handshake()
                done += 1
            except ssl.SSLWantReadError:
                pass
            to.write(sent.read())
    return spoken, incoming, outgoing, peer


def test_what_waits_is_read_behind_our_own_end() -> None:
    """Records that the protocol did not want yet outlast write_eof, where OpenSSL looks into them; one by one, in
    order, and the client's end comes last."""

    async def main() -> None:
        context = ListenerContexts(listener_tls(), http=False).choose("a.test").context
        spoken, incoming, outgoing, peer = shaken(context)
        note = _Note()
        transport = TlsTransport(asyncio.get_running_loop(), _Raw(), spoken, incoming, outgoing)
        transport.begin(note)
        for data in (b"one", b"two", b"three"):
            peer.spoken.write(data)
        with pytest.raises(ssl.SSLWantReadError):
            peer.spoken.unwrap()
        transport.data_received(peer._out.read())
        transport.eof_received()
        assert note.got == [b"one"]
        transport.write_eof()
        for number in (2, 3):
            transport.resume_reading()
            await until(lambda number=number: len(note.got) == number)
            assert not note.ended
        transport.resume_reading()
        await until(lambda: note.ended)
        assert note.got == [b"one", b"two", b"three"]

    run(main())


def test_answers_of_tls_itself_are_not_kept_without_bound() -> None:
    """A client that makes TLS answer (renegotiation is refused each time) and does not read is cut at 256 KiB."""

    async def main() -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        raw = _Raw()
        spoken = context.wrap_bio(incoming, outgoing, server_side=True)
        transport = TlsTransport(asyncio.get_running_loop(), raw, spoken, incoming, outgoing)
        transport.begin(_Note())
        rounds = 0
        while not raw.aborted:
            outgoing.write(bytes(1024))  # in OpenSSL's stead
            transport.data_received(b"")
            rounds += 1
            assert rounds < 1000
        assert len(raw.written) <= 257 * 1024
        assert transport.is_closing()

    run(main())
