"""TLS towards backends: who is believed, what a failure says, and how connections end, with real TLS servers."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from typing import Any

import pytest
from doubles.http_plane import HttpPlane, run, until
from doubles.stub_upstream import StubUpstream, Talk, answer
from doubles.tcp_plane import TcpPlane, both_loops
from doubles.tls_backends import CA, NAME, STRANGER, TlsTarget, server_context, settings

from gogate_py.backend_tls import HTTP, TlsClient
from gogate_py.dataplane.dial import DialError, dial
from gogate_py.errors import Failure
from gogate_py.snapshot import TcpPool

TRUSTED = settings()


class Note:
    """A protocol that notes what happens to it."""

    def __init__(self) -> None:
        self.data = b""
        self.lost = False
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True


async def _silent(talk: Talk) -> None:
    await talk.until_eof()


async def _hello(talk: Talk) -> None:
    await talk.send(b"hello")
    await talk.until_eof()


async def _echo(talk: Talk) -> None:
    while data := await talk.some():
        await talk.send(data)


def descriptors() -> set[str]:
    """The sockets and files in memory that this process has open."""
    links = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            links.add(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            pass
    return {link for link in links if link.startswith("socket:") or "memfd:gogate-certificate" in link}


async def dialed(port: int, tls: TlsClient, limit: float = 3.0) -> Note:
    """A connection made by dial."""
    _, note = await dial(asyncio.get_running_loop(), Note, ("127.0.0.1", port), limit, tls, HTTP)
    assert isinstance(note, Note)
    return note


async def refused(port: int, tls: TlsClient, limit: float = 3.0) -> DialError:
    """Why there is no connection."""
    with pytest.raises(DialError) as caught:
        await dialed(port, tls, limit)
    return caught.value


@both_loops
@pytest.mark.parametrize(
    ("names", "asked", "tls"),
    [
        ((NAME,), NAME, TRUSTED),
        (("*.backend.test",), "a.backend.test", TRUSTED),
        (("127.0.0.1",), "127.0.0.1", TRUSTED),
        (("::1",), "::1", TRUSTED),
        (("elsewhere.test",), NAME, settings(verify=False)),
        ((NAME,), NAME, settings(authority=STRANGER, verify=False)),
    ],
)
def test_a_certificate_that_fits_is_believed(loop: str, names: tuple[str, ...], asked: str, tls: Any) -> None:
    """By name, wildcard or IP address; with insecureSkipVerify any. TLS 1.3, http/1.1 by ALPN, closed in order."""

    async def main() -> None:
        context = server_context(*names)
        context.set_alpn_protocols(["h2", "http/1.1"])
        async with StubUpstream(_hello, tls=context) as backend:
            note = await dialed(backend.port, TlsClient(tls, asked))
            await until(lambda: note.data == b"hello")
            spoken = note.transport.get_extra_info("ssl_object")
            assert (spoken.version(), spoken.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")
            note.transport.close()
            await until(lambda: note.lost)

    run(main(), loop)


@both_loops
@pytest.mark.parametrize(
    ("names", "asked", "tls", "text"),
    [
        (("elsewhere.test",), NAME, TRUSTED, "certificate verify failed: hostname mismatch, certificate is not valid"),
        (("*.backend.test",), NAME, TRUSTED, "certificate verify failed: hostname mismatch"),
        ((NAME,), "127.0.0.1", TRUSTED, "certificate verify failed: IP address mismatch, certificate is not valid"),
        ((NAME,), NAME, settings(authority=STRANGER), "certificate verify failed: unable to get local issuer"),
    ],
)
def test_another_certificate_is_a_failure_that_says_why(
    loop: str, names: tuple[str, ...], asked: str, tls: Any, text: str
) -> None:
    """TLS_FAILED, counted as tls; the backend, the name asked for and OpenSSL's reason are told."""

    async def main() -> None:
        before = descriptors()
        async with StubUpstream(_silent, tls=server_context(*names)) as backend:
            error = await refused(backend.port, TlsClient(tls, asked))
            assert (error.failure, error.result) == (Failure.TLS_FAILED, "tls")
            assert error.text.startswith(f"TLS with 127.0.0.1:{backend.port} ({asked}): {text}")
            assert "_ssl.c" not in error.text
        await until(lambda: descriptors() <= before, "nothing is left open")

    run(main(), loop)


@both_loops
def test_a_backend_without_tls(loop: str) -> None:
    """What speaks plain HTTP, closes at once or resets is told apart from a bad certificate."""

    async def plain(talk: Talk) -> None:
        await talk.some()
        await talk.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def closes(talk: Talk) -> None:
        await talk.some()

    async def resets(talk: Talk) -> None:
        await talk.some()
        talk.reset()

    async def main() -> None:
        tls = TlsClient(TRUSTED, NAME)
        async with StubUpstream(plain) as backend:
            assert (await refused(backend.port, tls)).text.endswith(
                "it does not seem to speak TLS (wrong version number)"
            )
        for script in (closes, resets):
            async with StubUpstream(script) as backend:
                error = await refused(backend.port, tls)
                assert error.failure is Failure.TLS_FAILED
                assert error.text.endswith("it closed the connection during the handshake")

    run(main(), loop)


@both_loops
def test_the_time_to_connect_includes_the_handshake(loop: str) -> None:
    """A backend that accepts and says nothing is a timeout, as one that does not accept."""

    async def main() -> None:
        async with StubUpstream(_silent) as backend:
            error = await refused(backend.port, TlsClient(TRUSTED, NAME), 0.05)
            assert (error.failure, error.result) == (Failure.CONNECT_TIMEOUT, "timeout")
            assert error.text == f"TLS with 127.0.0.1:{backend.port} ({NAME}): timed out"

    run(main(), loop)


@both_loops
def test_a_cancelled_handshake_leaves_nothing(loop: str) -> None:
    """Who does not want the connection any more gives back its socket."""

    async def main() -> None:
        before = descriptors()
        async with StubUpstream(_silent) as backend:
            task = asyncio.create_task(dialed(backend.port, TlsClient(TRUSTED, NAME)))
            await until(lambda: backend.talks, "the connection stands")
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            await until(lambda: backend.closed, "the backend sees the end")
        await until(lambda: descriptors() <= before, "nothing is left open")

    run(main(), loop)


@both_loops
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_our_own_certificate(loop: str, newest: ssl.TLSVersion) -> None:
    """A backend that asks for a certificate gets certFile; the key never has a name in the file system."""

    async def main() -> None:
        leaf = CA.issue_cert("client.test")
        async with StubUpstream(_hello, tls=server_context(clients=CA, newest=newest)) as backend:
            note = await dialed(backend.port, TlsClient(settings(client=leaf), NAME))
            await until(lambda: note.data == b"hello")
            note.transport.abort()
        assert not any("memfd" in link for link in descriptors())

    run(main(), loop)


def test_contexts_are_made_once_for_a_content() -> None:
    """Equal content is one context, whatever snapshot it came with; other content, or HTTP beside TCP, another."""
    one, again = TlsClient(settings(), NAME), TlsClient(settings(), "other.test")
    assert one.context(HTTP) is again.context(HTTP)
    assert one.context(HTTP) is not one.context()
    assert one.context(HTTP) is not TlsClient(settings(authority=STRANGER), NAME).context(HTTP)


def test_no_old_protocol() -> None:
    """TLS 1.2 is the least that is spoken, and certificates are verified unless that is switched off."""
    context = TlsClient(settings(), NAME).context()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert TlsClient(settings(verify=False), NAME).context().verify_mode is ssl.CERT_NONE


# --- HTTP


def _http(backend: StubUpstream, **more: Any) -> HttpPlane:
    return HttpPlane(backend, pool={"tls": TRUSTED}, **more)


@both_loops
def test_requests_over_tls_keep_their_connection(loop: str) -> None:
    """Two requests are one connection; bodies of some megabytes pass both ways."""

    async def large(talk: Talk) -> None:
        while True:
            head, body = await talk.request()
            if not head:
                return
            await talk.send(answer(body[::-1]))

    async def main() -> None:
        async with _http(StubUpstream(large, tls=server_context())) as bed:
            body = bytes(range(256)) * 8192
            client = await bed.client()
            for _ in range(2):
                await client.send(
                    b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
                )
                response = await client.response()
                assert (response.status, response.body) == (200, body[::-1])
            client.close()
            assert len(bed.backends[0].talks) == 1
            assert bed.live().connects == {"ok": 1}

    run(main(), loop)


@both_loops
def test_a_request_to_a_stranger_is_502(loop: str) -> None:
    """tls_failed in log and metric, and the client is told nothing about names behind the gateway."""

    async def main() -> None:
        async with _http(StubUpstream(tls=server_context("elsewhere.test"))) as bed:
            client = await bed.client()
            response = await client.get()
            assert response.status == 502
            assert b"elsewhere" not in response.body
            assert NAME.encode() not in response.body
            client.close()
            (line,) = await bed.logged()
            assert line["reason"] == "tls_failed"
            assert bed.live().connects == {"tls": 1}
            assert bed.backends[0].requests == 0

    run(main(), loop)


@both_loops
@pytest.mark.parametrize("other", [settings(authority=STRANGER, verify=False), settings(authority=STRANGER)])
def test_new_settings_are_for_kept_connections_too(loop: str, other: Any) -> None:
    """A connection that was verified by other rules is not used again after a change, though it was at work."""

    async def main() -> None:
        let = asyncio.Event()

        async def slow(talk: Talk) -> None:
            while (await talk.request())[0]:
                await let.wait()
                await talk.send(answer())

        async with _http(StubUpstream(slow, tls=server_context())) as bed:
            busy = await bed.client()
            asking = asyncio.create_task(busy.get())
            await until(lambda: bed.backends[0].requests == 1)
            bed.pool["tls"] = other
            await bed.apply()
            let.set()
            assert (await asking).status == 200
            response = await busy.get()
            assert response.status == (502 if other.verify else 200)
            assert bed.live().connects == ({"ok": 1, "tls": 1} if other.verify else {"ok": 2})
            busy.close()

    run(main(), loop)


@both_loops
def test_a_websocket_over_tls(loop: str) -> None:
    """Bytes pass both ways; the backend's end is the client's, and the client's the backend's, after what was sent."""
    handshake = (
        b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )

    async def tunnel(talk: Talk) -> None:
        await talk.head()
        await talk.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        )
        while data := await talk.some():
            if data == b"bye":
                await talk.send(b"last words")
                return
            await talk.send(data)

    async def main() -> None:
        async with _http(StubUpstream(tunnel, tls=server_context())) as bed:
            for end in ("backend", "client"):
                client = await bed.client()
                await client.send(handshake)
                assert (await client.head()).startswith(b"HTTP/1.1 101 ")
                await client.send(b"ping")
                assert await client.exactly(4) == b"ping"
                closed = bed.backends[0].closed
                if end == "backend":
                    await client.send(b"bye")
                    assert await client.until_eof() == b"last words"
                    client.close()
                else:
                    client.eof()
                    assert await client.ends() == "eof"
                    await until(lambda closed=closed: bed.backends[0].closed > closed, "the backend hears of it")
                    client.close()

    run(main(), loop)


# --- TCP


def _tcp(target: TlsTarget, **more: Any) -> TcpPlane:
    return TcpPlane(target, tls=TRUSTED, **more)  # type: ignore[arg-type]  # it has what the bed needs of a Target


@both_loops
@pytest.mark.usefixtures("way")
def test_a_relay_over_tls(loop: str) -> None:
    """Megabytes pass unchanged both ways; the backend's close_notify is the end of both, after its last byte."""

    async def main() -> None:
        async def counted(talk: Talk) -> None:
            data = await talk.exactly(len(sent))
            await talk.send(data[::-1])

        sent = bytes(range(256)) * 8192
        async with TlsTarget(counted) as target, _tcp(target) as bed:
            client = await bed.client()
            sending = asyncio.create_task(client.send(sent))
            assert await client.until_eof() == sent[::-1]
            await sending
            client.close()
            (line,) = await bed.logged()
            assert (line["result"], line["bytes_in"], line["bytes_out"]) == ("ok", len(sent), len(sent))

    run(main(), loop)


@both_loops
def test_a_backend_that_ends_without_close_notify(loop: str) -> None:
    """Many servers just send FIN: for a relay that is an end in order, too."""

    async def rude(talk: Talk) -> None:
        await talk.send(b"all of it")
        with socket.socket(fileno=os.dup(talk.writer.get_extra_info("socket").fileno())) as raw:
            raw.shutdown(socket.SHUT_WR)
        await talk.until_eof()

    async def main() -> None:
        async with TlsTarget(rude) as target, _tcp(target) as bed:
            client = await bed.client()
            assert await client.until_eof() == b"all of it"
            client.close()
            assert (await bed.logged())[0]["result"] == "ok"

    run(main(), loop)


@both_loops
def test_a_client_that_ends_still_hears_the_answer(loop: str) -> None:
    """Its end cannot be told to the backend: what comes without a long pause is delivered, then both are closed."""

    async def main() -> None:
        async with TlsTarget(_echo) as target, _tcp(target) as bed:
            client = await bed.client()
            await client.send(b"question")
            client.eof()
            assert await client.exactly(8) == b"question"
            await until(lambda: bed.relay().view().state == "client_closed")
            bed.pass_time(1.0, 0.25)
            assert bed.relay().view().state == "client_closed"
            bed.pass_time(4.0, 0.25)
            assert await client.ends() == "eof"
            client.close()
            await until(lambda: target.closed, "the backend hears of it")
            assert (await bed.logged())[0]["result"] == "ok"

    run(main(), loop)


@both_loops
def test_resets_are_passed_on_through_tls(loop: str) -> None:
    """A RST of the client is one for the backend, and the other way round."""

    async def main() -> None:
        async def resets(talk: Talk) -> None:
            await talk.some()
            talk.reset()

        ends: list[str] = []

        async def watches(talk: Talk) -> None:
            await talk.some()
            ends.append(await talk.ends())

        async with TlsTarget(resets) as target, _tcp(target) as bed:
            client = await bed.client()
            await client.send(b"x")
            assert await client.ends() == "reset"
            assert (await bed.logged())[0]["result"] == "backend_reset"
        async with TlsTarget(watches) as target, _tcp(target) as bed:
            client = await bed.client()
            await client.send(b"x")
            await until(lambda: target.talks and target.talks[0].received)
            client.reset()
            await until(lambda: ends)
            assert ends == ["reset"]
            assert (await bed.logged())[0]["result"] == "client_reset"

    run(main(), loop)


@both_loops
def test_a_relay_to_a_stranger(loop: str) -> None:
    """The client is closed, and the access line has the result tls_failed and the reason."""

    async def main() -> None:
        async with TlsTarget(_echo, tls=server_context("elsewhere.test")) as target, _tcp(target) as bed:
            client = await bed.client()
            assert await client.ends() == "eof"
            (line,) = await bed.logged()
            assert line["result"] == "tls_failed"
            assert "certificate verify failed: hostname mismatch" in line["reason"]
            assert bed.live().tcp_results == {("echo", "tls_failed"): 1}
            assert bed.live().connects == {"tls": 1}
            assert "certificate verify failed" in bed.unreachable()[0]

    run(main(), loop)


@both_loops
def test_a_greeting_and_a_goodbye_at_once(loop: str) -> None:
    """A backend that says something and ends before the relay could look is heard all the same."""

    async def brief(talk: Talk) -> None:
        await talk.send(b"421 too busy\r\n")

    async def main() -> None:
        async with TlsTarget(brief) as target, _tcp(target) as bed:
            for _ in range(5):
                client = await bed.client()
                assert await client.until_eof() == b"421 too busy\r\n"
                client.close()
            lines = await bed.logged(5)
            assert {line["result"] for line in lines} == {"ok"}

    run(main(), loop)


@both_loops
def test_ready_connections_have_shaken_hands(loop: str) -> None:
    """tcpPool keeps connections whose handshake is done; after a change of settings none of them is used."""

    async def main() -> None:
        pool = TcpPool(2, 30.0, 0.0)
        async with TlsTarget(_echo) as target, _tcp(target, tcp_pool=pool) as bed:
            first = await bed.client()
            await first.send(b"1")
            assert await first.exactly(1) == b"1"
            await bed.filled(1)
            bed.tls = settings(authority=STRANGER)
            await bed.apply()
            assert len(bed.ready()) == 0
            second = await bed.client()
            assert await second.ends() == "eof"
            first.reset()  # the first, made by the old settings, lives on until here

    run(main(), loop)


def test_a_refusal_that_comes_after_the_handshake() -> None:
    """TLS 1.3: a backend that wants a certificate says so when the handshake is over for us; it is no plain reset."""

    async def main() -> None:
        # asyncio's server sends no alert, so this one is a thread with a blocking socket.
        listener = socket.create_server(("127.0.0.1", 0))
        context = server_context(clients=CA)

        def serve() -> None:
            sock, _ = listener.accept()
            with sock, pytest.raises(ssl.SSLError):
                context.wrap_socket(sock, server_side=True)

        serving = asyncio.create_task(asyncio.to_thread(serve))
        backend = StubUpstream(tls=context)
        backend.port = listener.getsockname()[1]
        backend._server = await asyncio.start_server(backend._accept, "127.0.0.1", 0)
        async with _http(backend) as bed:
            client = await bed.client()
            assert (await client.get()).status == 502
            client.close()
            (line,) = await bed.logged()
            assert line["reason"] == "tls_failed"
            await serving
        listener.close()

    run(main())
