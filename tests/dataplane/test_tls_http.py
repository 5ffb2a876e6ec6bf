"""TLS on an HTTP listener: what backends learn of it, 421, redirects, bodies, WebSockets, and how connections end."""

from __future__ import annotations

import asyncio
import ssl

import msgspec
import pytest
from doubles.http_plane import LISTENER, HttpPlane, Response, field, run, until
from doubles.stub_upstream import StubUpstream, Talk, answer
from doubles.tcp_plane import both_loops
from doubles.tls_clients import TlsPeer, certificate, client_context, listener_tls

from gogate_py.dataplane.explain import Explainer
from gogate_py.middleware.question import Question
from gogate_py.snapshot import Cors, Listener, Redirect

TLS = {"tls": listener_tls()}
UPGRADE = (
    b"GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def get(host: str, path: str = "/", fields: str = "") -> bytes:
    """A request."""
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode()


async def answered(peer: TlsPeer, request: bytes) -> Response:
    """One request with its answer."""
    await peer.send(request)
    data = b""
    while b"\r\n\r\n" not in data:
        more = await peer.some()
        assert more, data
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    response = Response(head + b"\r\n\r\n")
    response.body = body + await peer.exactly(int(response.fields["content-length"]) - len(body))
    return response


@both_loops
def test_requests_over_tls(loop: str) -> None:
    """Requests of a kept-alive connection reach the backend as plain HTTP, which is told https, on the fast way as on
    the complete one; each goes on as the slice that it came as."""

    async def main() -> None:
        backend = StubUpstream()
        async with HttpPlane(backend, listener=TLS) as bed:
            client = await bed.client(tls=client_context(alpn=("h2", "http/1.1")), name="a.test")
            assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            for _ in range(3):
                assert (await client.get("/x", "aCCept:  */*\r\n")).body == b"ok"
            assert (await client.get("/y", "X-Forwarded-Proto: http\r\n")).status == 200
            heads = [b"\r\n" + head for head in backend.received.split(b"\r\n\r\n")[:-1]]
            assert [field(head, "X-Forwarded-Proto") for head in heads] == ["https"] * 4
            assert b"".join(heads).count(b"\r\naCCept:  */*\r\n") == 3
            assert bed.listener.handshakes == {("ok", "TLSv1.3"): 1}
            assert bed.listener.accepted == bed.listener.active == 1
            assert not bed.plane.admission.arriving
            client.close()

    run(main(), loop)


def test_the_scheme_is_https_wherever_it_is_asked_for() -> None:
    """A redirect by {scheme}, and a field by it, on both ways in."""

    async def main() -> None:
        redirect = Redirect("{scheme}://elsewhere.test{path}", 302)
        async with HttpPlane(StubUpstream(), listener=TLS, routes=({"redirect": redirect, "pool": ""},)) as bed:
            client = await bed.client(tls=client_context(), name="a.test")
            for fields in ("", "X-Forwarded-For: 1.1.1.1\r\n", "TE: trailers\r\n"):
                assert (await client.get("/p", fields)).fields["location"] == "https://elsewhere.test/p"
            client.close()

    run(main())


@pytest.mark.parametrize(
    ("asked_for", "host", "status"),
    [
        ("a.test", "a.test", 200),
        ("a.test", "A.TEST.:8443", 200),
        ("a.test", "127.0.0.1", 200),  # in the certificate, too
        ("a.test", "x.wild.test", 200),
        ("a.test", "x.y.wild.test", 421),
        ("a.test", "b.test", 421),
        ("a.test", "other.test", 421),
        ("b.test", "b.test", 200),
        ("b.test", "a.test", 421),
        ("unknown.test", "unknown.test", 200),  # the default certificate; that it does not fit is the client's business
        ("unknown.test", "a.test", 200),
        ("unknown.test", "b.test", 421),
        (None, "b.test", 200),
        (None, "other.test", 200),
        ("a.test", "[::1]", 421),
    ],
)
def test_a_host_that_is_not_the_connections(asked_for: str | None, host: str, status: int) -> None:
    """A request for another host than the certificate is for is misdirected; a client without SNI is not held to it.
    Both ways in agree, and the connection can be used for the right host then."""

    async def main() -> None:
        settings = {"tls": listener_tls(TLS["tls"].certificates[0], certificate("b.test"))}
        async with HttpPlane(backend := StubUpstream(), listener=settings) as bed:
            peer = await TlsPeer.connect(bed.port, client_context(verify=False), asked_for)
            for fields in ("", "X-Real-IP: 1.1.1.1\r\n", "TE: trailers\r\n", ""):
                response = await answered(peer, get(host, "/", fields))
                assert response.status == status
                if status == 421:
                    assert response.problem["reason"] == "misdirected"
            assert backend.requests == (4 if status == 200 else 0)
            assert (await answered(peer, get(asked_for or "any.test"))).status == 200
            peer.close()

    run(main())


@pytest.mark.parametrize(
    ("port", "request_head", "status", "location"),
    [
        (443, get("a.test", "/x?y=1&z"), 308, "https://a.test/x?y=1&z"),
        (443, get("A.test:8080", "/"), 308, "https://a.test/"),
        (8443, get("a.test:8080", "/x"), 308, "https://a.test:8443/x"),
        (443, get("[2001:db8::1]:80", "/"), 308, "https://[2001:db8::1]/"),
        (443, get("a.test", "/.well-known/acme-challenge/x"), 308, "https://a.test/.well-known/acme-challenge/x"),
        (443, get("a.test", "//evil.test/x"), 308, "https://a.test/evil.test/x"),
        (443, get("other.test", "http://a.test/abs"), 308, "https://a.test/abs"),
        (443, get("a.test", "/%0d%0aX:1"), 308, "https://a.test/%0D%0AX:1"),
        (443, b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc", 308, "https://a.test/x"),
        (443, b"GET /x HTTP/1.0\r\n\r\n", 400, None),
        (443, b"OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, None),
        (443, get("a b", "/"), 400, None),
        (443, get("a.test@evil.test", "/"), 400, None),
    ],
)
def test_everything_is_redirected_to_https(port: int, request_head: bytes, status: int, location: str | None) -> None:
    """308 to the same place, whatever routes there are; what names no valid host is a 400."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(), listener={"https_port": port}) as bed:
            response = await bed.exchange(request_head)
            assert response.status == status
            assert response.fields.get("location") == location
            assert not backend.received
            if status == 308:
                line = (await bed.logged())[0]
                assert (line["status"], line["reason"], line["route"]) == (308, "redirect", "")

    run(main())


def test_a_redirected_client_may_stay() -> None:
    """The connection is kept alive, a body that nobody wants is skipped."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), listener={"https_port": 443}) as bed:
            client = await bed.client()
            for _ in range(2):
                await client.send(b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 30\r\n\r\n" + b"b" * 30)
                assert (await client.response()).status == 308
            client.close()

    run(main())


def test_routes_of_a_listener() -> None:
    """A route that names listeners is on those only, by name or id; without any it is everywhere. Explained alike."""

    async def main() -> None:
        routes = (
            {"name": "everywhere"},
            {"name": "private", "path_prefix": "/private", "listeners": ("inside",)},
            {"name": "by id", "path_prefix": "/id", "listeners": (LISTENER,)},
            {"name": "elsewhere", "path_prefix": "/else", "listeners": ("outside", "other")},
        )
        async with HttpPlane(StubUpstream(), routes=routes, listener={"name": "inside"}) as bed:

            async def taken() -> list[str]:
                before = len(bed.lines())
                for path in ("/private", "/id", "/else"):
                    assert (await bed.exchange(get("a.test", path))).status == 200
                await until(lambda: len(bed.lines()) == before + 3)
                return [line["route"] for line in bed.lines()[before:]]

            assert await taken() == ["private", "everywhere", "everywhere"]
            bed.listener_settings["name"] = ""
            await bed.apply()
            assert await taken() == ["everywhere", "by id", "everywhere"]
            bed.listener_settings["name"] = "outside"
            await bed.apply()
            assert await taken() == ["everywhere", "everywhere", "elsewhere"]
            explainer = Explainer(bed.snapshot(), bed.plane.arena, 2)
            question = Question.of("GET", "http://a.test/private", (), "")
            assert explainer.explain(question, "inside")["route"] == "private"
            assert explainer.explain(question, "outside")["route"] == "everywhere"
            assert explainer.explain(question)["route"] == "private"

    run(main())


def test_clients_of_a_gone_listener_keep_its_routes() -> None:
    """A listener moves to another address under its name: who is on the old one is answered by the same routes."""

    async def main() -> None:
        routes = ({"listeners": ("inside",)},)
        async with HttpPlane(StubUpstream(), routes=routes, listener={"name": "inside"}) as bed:
            client = await bed.client()
            assert (await client.get()).status == 200
            snapshot = bed.snapshot()
            moved = Listener("inside@elsewhere", ":1", name="inside")
            await bed.plane.apply(msgspec.structs.replace(snapshot, listeners=(moved,)))
            assert (await client.get()).status == 200

    run(main())


@both_loops
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_bodies_both_ways(loop: str, newest: ssl.TLSVersion) -> None:
    """Megabytes up and down, to a client that does not read at first."""

    async def main() -> None:
        body = bytes(range(256)) * 4096 * 8

        async def play(talk: Talk) -> None:
            while (request := await talk.request())[0]:
                await talk.send(answer(request[1]))

        async with HttpPlane(StubUpstream(play), listener=TLS, send_buffer=65536) as bed:
            context = client_context(newest=newest)
            client = await bed.client(tls=context, name="a.test", limit=65536, receive_buffer=65536)
            head = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\n\r\n" % len(body)
            for _ in range(2):
                sending = asyncio.create_task(client.send(head + body))
                await until(lambda: any(one.write_paused for one in bed.site.clients), "the client does not read")
                assert max(one.transport.get_write_buffer_size() for one in bed.site.clients) < 1 << 20
                assert (await client.response()).body == body
                await sending
            client.close()

    run(main(), loop)


@both_loops
def test_a_websocket(loop: str) -> None:
    """Bytes pass both ways; the client's close_notify is passed on as the end, and what the backend says then arrives,
    and the other way round."""

    async def main() -> None:
        async def echo(talk: Talk) -> None:
            await talk.head()
            await talk.send(SWITCH)
            while data := await talk.some():
                await talk.send(data)
            await talk.send(b"bye")

        async with HttpPlane(StubUpstream(echo), listener=TLS) as bed:
            peer = await TlsPeer.connect(bed.port)
            await peer.send(UPGRADE)
            data = b""
            while b"\r\n\r\n" not in data:
                data += await peer.some()
            assert data.startswith(b"HTTP/1.1 101 ")
            for message in (b"hello", b"x" * 100_000):
                await peer.send(message)
                assert await peer.exactly(len(message)) == message
            await peer.notify()
            assert await peer.until_eof() == b"bye"
            peer.close()
            assert (await bed.logged())[0]["status"] == 101

    run(main(), loop)


@both_loops
def test_the_end_is_said(loop: str) -> None:
    """close_notify before FIN: after an answer with Connection: close, at the idle timeout, after a refusal that
    lingers, and when the gateway drains."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), listener=TLS, timeouts={"idle": 60.0}) as bed:
            peer = await TlsPeer.connect(bed.port)
            await peer.send(get("a.test", "/", "Connection: close\r\n"))
            assert (await peer.until_eof()).startswith(b"HTTP/1.1 200 ")
            peer.close()
            idle = await TlsPeer.connect(bed.port)
            assert (await answered(idle, get("a.test"))).status == 200
            bed.pass_time(70)
            assert await idle.until_eof() == b""
            idle.close()
            bad = await TlsPeer.connect(bed.port)
            await bad.send(b"GET / HTTP/1.1\r\nHost: a\r\nbad line\r\n\r\n" + b"x" * 300_000)
            assert (await bad.until_eof()).startswith(b"HTTP/1.1 400 ")
            bad.close()
            kept = await TlsPeer.connect(bed.port)
            assert (await answered(kept, get("a.test"))).status == 200
            draining = asyncio.create_task(bed.plane.drain(5.0, 0.0))
            await until(lambda: bed.site.draining)
            bed.pass_time(71)
            assert await kept.until_eof() == b""
            kept.close()
            assert await draining == 0

    run(main(), loop)


@both_loops
def test_a_client_that_takes_nothing_is_cut(loop: str) -> None:
    """At the end of the grace time, whatever waits for it."""

    async def main() -> None:
        big = answer(b"x" * (64 << 20))
        async with HttpPlane(StubUpstream(lambda talk: sends(talk, big)), listener=TLS) as bed:
            peer = await TlsPeer.connect(bed.port)
            await peer.send(get("a.test"))
            await until(lambda: any(one.write_paused for one in bed.site.clients), "it does not read")
            assert await bed.plane.drain(0.05, 0.0) == 1
            await until(lambda: not bed.site.clients)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await peer.until_eof()
            peer.close()

    run(main(), loop)


async def sends(talk: Talk, data: bytes) -> None:
    """Answer a request."""
    await talk.request()
    await talk.send(data)


def test_idle_clients_make_room() -> None:
    """Kept-alive clients with TLS are closed for new ones, in order, as others."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), listener=TLS, limits={"connections": 1}) as bed:
            first = await TlsPeer.connect(bed.port)
            assert (await answered(first, get("a.test"))).status == 200
            second = await TlsPeer.connect(bed.port)
            assert (await answered(second, get("a.test"))).status == 200
            assert await first.until_eof() == b""
            assert (bed.listener.shed, bed.listener.refused) == (1, {})
            for one in (first, second):
                one.close()

    run(main())


@both_loops
def test_a_broken_record_ends_the_connection(loop: str) -> None:
    """With an alert; the exchange that runs is over, and nothing of the record is believed."""

    async def main() -> None:
        released = asyncio.Event()

        async def waits(talk: Talk) -> None:
            await talk.head()
            await released.wait()

        async with HttpPlane(StubUpstream(waits), listener=TLS) as bed:
            peer = await TlsPeer.connect(bed.port)
            await peer.send(get("a.test"))
            await until(lambda: bed.site.in_flight == 1)
            peer.spoken.write(b"GET /more HTTP/1.1\r\n")
            record = bytearray(peer._out.read())
            record[-1] ^= 1
            await asyncio.get_running_loop().sock_sendall(peer.sock, bytes(record))
            with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
                await peer.until_eof()
            peer.close()
            assert (await bed.logged())[0]["status"] == 499
            released.set()

    run(main(), loop)


@both_loops
def test_cors_answers_over_tls(loop: str) -> None:
    """Stages and filters work as without TLS."""

    async def main() -> None:
        cors = Cors(("https://app.example.com",), ("GET",), (), (), False, 600.0)
        async with HttpPlane(StubUpstream(), listener=TLS, routes=({"cors": cors},)) as bed:
            client = await bed.client(tls=client_context(), name="a.test")
            response = await client.get("/", "Origin: https://app.example.com\r\n")
            assert response.fields["access-control-allow-origin"] == "https://app.example.com"
            client.close()

    run(main(), loop)
