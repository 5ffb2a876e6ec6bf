"""From accept to the end of the handshake: who gets in, who is refused, with which reason, and what it costs whom."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from typing import Any

import msgspec
import pytest
import trustme
from doubles.http_plane import HttpPlane, field, run, until
from doubles.raw_peer import Target
from doubles.stub_upstream import StubUpstream
from doubles.tcp_plane import TcpPlane, both_loops
from doubles.tls_backends import STRANGER
from doubles.tls_clients import TlsPeer, client_context, listener_tls

from gogate_py.dataplane.intake import Intake
from gogate_py.snapshot import RateLimit

TLS = {"tls": listener_tls()}
GET = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
LOCALHOST = ("127.0.0.0/8",)
OWN = trustme.CA()
VERSIONS = pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


def with_clients(**settings: Any) -> dict[str, Any]:
    """A listener that asks clients for certificates of OWN."""
    return {"tls": listener_tls(clients=OWN, **settings)}


async def connected(bed: HttpPlane | TcpPlane) -> socket.socket:
    """A plain connection."""
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", bed.port))
    return sock


async def last_words(sock: socket.socket) -> bytes:
    """All that is said until the end."""
    said = b""
    while True:
        try:
            data = await asyncio.get_running_loop().sock_recv(sock, 65536)
        except ConnectionResetError:
            return said
        if not data:
            return said
        said += data


async def alone(bed: HttpPlane | TcpPlane) -> None:
    """Nobody is left, and nothing waits for anybody."""
    await until(lambda: not bed.listener.active and not bed.plane.admission.open(), "nobody is left")
    assert not [one for one in bed.plane.deadlines._members if isinstance(one, Intake)]


async def asked(peer: TlsPeer) -> bytes:
    """Shake hands, ask, and read all that comes."""
    await peer.shake_hands()
    await peer.send(GET)
    return await peer.until_eof()


@both_loops
def test_a_handshake_in_single_bytes(loop: str) -> None:
    """However it is cut, with a request right behind it."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), listener=TLS) as bed:
            peer = await TlsPeer.plain(bed.port)
            asyncio_loop = asyncio.get_running_loop()
            for octet in peer.hello():
                await asyncio_loop.sock_sendall(peer.sock, bytes((octet,)))
                await asyncio.sleep(0)
            await peer._more()
            while True:
                try:
                    peer.spoken.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await peer._more()
            peer.spoken.write(GET)
            for octet in peer._out.read():
                await asyncio_loop.sock_sendall(peer.sock, bytes((octet,)))
                await asyncio.sleep(0)
            assert (await peer.some()).startswith(b"HTTP/1.1 200 ")
            peer.close()

    run(main(), loop)


@both_loops
def test_a_request_in_one_piece_with_the_end_of_the_handshake(loop: str) -> None:
    """What comes behind Finished in the same segment is the request."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), listener=TLS) as bed:
            peer = await TlsPeer.plain(bed.port)
            await asyncio.get_running_loop().sock_sendall(peer.sock, peer.hello())
            while True:
                await peer._more()
                try:
                    peer.spoken.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    pass
            await peer.send(GET + GET)
            answers = await peer.some()
            while answers.count(b"HTTP/1.1 200 ") < 2:
                answers += await peer.some()
            peer.close()

    run(main(), loop)


@both_loops
def test_plain_http_is_told_so(loop: str) -> None:
    """A 400 in words, on the plain connection; nothing reaches a backend."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(), listener=TLS) as bed:
            client = await bed.client()
            await client.send(GET)
            response = await client.response()
            assert (response.status, response.fields["connection"]) == (400, "close")
            assert response.body == b"This port speaks https, not http.\n"
            assert await client.until_eof() == b""
            client.close()
            await alone(bed)
            assert bed.listener.refused == {"not_tls": 1}
            assert bed.listener.handshakes == {("not_tls", ""): 1}
            assert not backend.received

    run(main(), loop)


@both_loops
@pytest.mark.parametrize("data", [b"\x00", b"SSH-2.0-x\r\n", b"\x80\x2e\x01\x00\x02", GET])
def test_what_is_no_tls_on_a_tcp_listener(loop: str, data: bytes) -> None:
    """Closed without a word."""

    async def main() -> None:
        async with TcpPlane(Target(), listener=TLS) as bed:
            sock = await connected(bed)
            await asyncio.get_running_loop().sock_sendall(sock, data)
            assert await last_words(sock) == b""
            sock.close()
            await alone(bed)
            assert bed.listener.refused == {"not_tls": 1}

    run(main(), loop)


@both_loops
@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",  # a hello without content
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",  # another message
        b"\x16\x03\x01\xff\xff" + bytes(100),
        b"\x16\x02\x00\x00\x05hello",
    ],
)
def test_a_broken_hello(loop: str, data: bytes) -> None:
    """OpenSSL says what is wrong with it, in an alert; no bug of ours."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), listener=TLS) as bed:
            sock = await connected(bed)
            await asyncio.get_running_loop().sock_sendall(sock, data)
            said = await last_words(sock)
            assert not said or said[0] == 21
            sock.close()
            await alone(bed)
            assert bed.listener.refused == {"tls_handshake": 1}
            assert bed.plane.internal_errors == 0

    run(main(), loop)


@both_loops
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_time_runs_from_accept(loop: str, share: float) -> None:
    """Whoever says nothing, or not all, is closed after handshakeTimeout."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), listener={"tls": listener_tls(handshake_timeout=7.0)}) as bed:
            peer = await TlsPeer.plain(bed.port)
            hello = peer.hello()
            await asyncio.get_running_loop().sock_sendall(peer.sock, hello[: int(len(hello) * share)])
            await until(lambda: bed.plane.admission.arriving, "it waits")
            bed.pass_time(6)
            assert bed.plane.admission.arriving
            bed.pass_time(2)
            assert await last_words(peer.sock) == b""
            peer.close()
            await alone(bed)
            assert bed.listener.refused == {"tls_timeout": 1}
            assert bed.listener.handshakes == {("tls_timeout", ""): 1}

    run(main(), loop)


@both_loops
def test_a_refused_client_that_does_not_go(loop: str) -> None:
    """It has two seconds to read why."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), listener=TLS) as bed:
            client = await bed.client()
            await client.send(GET)
            assert (await client.response()).status == 400
            await client.send(b"more" * 1000)
            assert bed.plane.admission.arriving
            bed.pass_time(3)
            await alone(bed)

    run(main(), loop)


@both_loops
def test_who_goes_in_between(loop: str) -> None:
    """A connection without a byte is a look whether somebody listens; one that ends in a handshake has failed."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), listener=TLS) as bed:
            (await connected(bed)).close()
            await until(lambda: bed.listener.accepted == 1)
            await alone(bed)
            assert not bed.listener.refused
            peer = await TlsPeer.plain(bed.port)
            await asyncio.get_running_loop().sock_sendall(peer.sock, peer.hello())
            await peer._more()
            peer.close()
            await alone(bed)
            untrusting = await TlsPeer.plain(bed.port, ssl.create_default_context())
            with pytest.raises(ssl.SSLCertVerificationError):
                await untrusting.shake_hands()
            await untrusting.flush()
            untrusting.close()
            await alone(bed)
            assert bed.listener.handshakes == {("tls_handshake", ""): 2}

    run(main(), loop)


@both_loops
@VERSIONS
@pytest.mark.parametrize("auth", ["require", "optional"])
def test_a_certificate_of_a_client(loop: str, newest: ssl.TLSVersion, auth: str) -> None:
    """Its subject goes to the backend in the field that clients cannot set, in whatever spelling, on both ways in."""

    async def main() -> None:
        own = OWN.issue_cert("client.test", common_name="alice", organization_name="A, B")
        settings = with_clients(client_auth=auth, subject_header="X-SSL-Client-DN")
        async with HttpPlane(backend := StubUpstream(), listener=settings) as bed:
            client = await bed.client(tls=client_context(own=own, newest=newest), name="a.test")
            for forged in ("", "X-SSL-Client-DN: CN=root\r\n", "x_ssl_client_dn: CN=root\r\n", "Accept: */*\r\n"):
                assert (await client.get("/", forged)).status == 200
            for head in backend.received.split(b"\r\n\r\n")[:-1]:
                subject = field(b"\r\n" + head, "X-SSL-Client-DN")
                assert re.fullmatch(r"CN=alice,OU=Testing cert #[\w-]+,O=A\\, B", subject or ""), subject
                assert b"root" not in head
            client.close()

    run(main(), loop)


@both_loops
def test_no_field_without_a_certificate(loop: str) -> None:
    """Where it is optional and there is none, a backend gets no subject, and none that the client made up."""

    async def main() -> None:
        settings = with_clients(client_auth="optional", subject_header="X-SSL-Client-DN")
        async with HttpPlane(backend := StubUpstream(), listener=settings) as bed:
            client = await bed.client(tls=client_context(), name="a.test")
            for forged in ("", "X-SSL-Client-DN: CN=root\r\n", "X_SSL-client_dn: CN=root\r\n"):
                assert (await client.get("/", forged)).status == 200
            assert b"ssl" not in backend.received.lower()
            client.close()

    run(main(), loop)


@both_loops
@VERSIONS
@pytest.mark.parametrize("auth", ["require", "optional"])
@pytest.mark.parametrize("shown", ["none", "stranger", "imposter"])
def test_without_a_good_certificate_no_request_gets_anywhere(
    loop: str, newest: ssl.TLSVersion, auth: str, shown: str
) -> None:
    """With TLS 1.3 the client takes the handshake for done, and sends: neither a route nor a backend hears of it.
    Where a certificate is optional, a bad one is as bad."""

    async def main() -> None:
        imposter = trustme.CA()
        own = {"none": None, "stranger": STRANGER.issue_cert("x.test")}.get(shown, imposter.issue_cert("x.test"))
        async with HttpPlane(backend := StubUpstream(), listener=with_clients(client_auth=auth)) as bed:
            peer = await TlsPeer.plain(bed.port, client_context(own=own, newest=newest))
            if auth == "optional" and own is None:
                await peer.shake_hands()
                await peer.send(GET)
                assert (await peer.some()).startswith(b"HTTP/1.1 200 ")
                peer.close()
                return
            with pytest.raises((ssl.SSLError, ConnectionError)) as caught:
                await asked(peer)
            assert "ALERT" in str(caught.value) or isinstance(caught.value, ConnectionError)
            peer.close()
            await alone(bed)
            assert bed.listener.refused == {"tls_client_certificate": 1}
            assert bed.listener.handshakes == {("tls_client_certificate", ""): 1}
            assert not backend.received
            assert not bed.site.unrouted_codes
            assert not any(counts.codes for counts in bed.site.counts.values())

    run(main(), loop)


@both_loops
def test_limits_of_a_client_come_first(loop: str) -> None:
    """Who has as many connections as it may have is refused before a key is used for it; handshakes that never end
    count as connections."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), listener=TLS, limits={"connections_per_client": 2}) as bed:
            waiting = await connected(bed)
            client = await bed.client(tls=client_context(), name="a.test")
            assert (await client.get()).status == 200
            third = await TlsPeer.plain(bed.port)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await third.shake_hands()
            assert bed.listener.refused == {"connections_per_client": 1}
            assert bed.listener.handshakes == {("ok", "TLSv1.3"): 1}
            for one in (waiting, third):
                one.close()
            client.close()
            await alone(bed)
            again = await bed.client(tls=client_context(), name="a.test")
            assert (await again.get()).status == 200
            again.close()

    run(main(), loop)


@both_loops
def test_rate_limits_of_connections_come_first(loop: str) -> None:
    """On a TCP listener the route is known from the hello: beyond its limit nothing is computed."""

    async def main() -> None:
        limit = RateLimit(1, 1.0, 3600.0, 1)
        async with TcpPlane(Target(), listener=TLS, rate_limit=limit) as bed:
            first = await TlsPeer.connect(bed.port)
            second = await TlsPeer.plain(bed.port)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await second.shake_hands()
            assert bed.listener.refused == {"rate_limited": 1}
            assert bed.listener.handshakes == {("ok", "TLSv1.3"): 1}
            for one in (first, second):
                one.close()

    run(main(), loop)


@both_loops
def test_behind_a_proxy_header(loop: str) -> None:
    """The PROXY header comes in plain, before the handshake; the client is the one it names."""

    async def main() -> None:
        settings = {**TLS, "accept_proxy": True}
        async with HttpPlane(backend := StubUpstream(), listener=settings, trusted=LOCALHOST) as bed:
            first = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n"
            client = await bed.client(tls=client_context(), name="a.test", first=first)
            assert (await client.get()).status == 200
            assert field(backend.received, "X-Forwarded-For") == "192.0.2.7"
            assert bed.listener.accepted == bed.listener.active == 1
            peer = await TlsPeer.plain(bed.port)
            data = first + peer.hello()
            await asyncio.get_running_loop().sock_sendall(peer.sock, data)  # in one piece
            await peer._more()
            await peer.shake_hands()
            peer.close()
            client.close()

    run(main(), loop)


@both_loops
def test_a_drain_ends_who_is_still_shaking_hands(loop: str) -> None:
    """At the end of the grace time, and waits for it until then: it is a connection like any other."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), listener=TLS) as bed:
            slow = await connected(bed)
            quick = await TlsPeer.plain(bed.port)
            await until(lambda: len(bed.plane.admission.arriving) == 2)
            draining = asyncio.create_task(bed.plane.drain(0.3, 0.2))
            await quick.shake_hands()
            await quick.send(GET)
            answer = await quick.until_eof()
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"Connection: close" in answer
            assert await draining == 1
            assert await last_words(slow) == b""
            for one in (slow, quick):
                one.close()

    run(main(), loop)


def test_a_listener_that_goes_while_a_client_shakes_hands() -> None:
    """It is answered once, and told to go."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), listener=TLS) as bed:
            peer = await TlsPeer.plain(bed.port)
            await until(lambda: bed.plane.admission.arriving)
            await bed.plane.apply(msgspec.structs.replace(bed.snapshot(), listeners=()))
            await peer.shake_hands()
            await peer.send(GET)
            assert b"Connection: close" in await peer.until_eof()
            peer.close()

    run(main())
