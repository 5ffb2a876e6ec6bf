"""PROXY headers at the listeners: needed, believed from few, and then the client is who they say (SECURITY.md T28)."""

from __future__ import annotations

import pytest
from doubles.http_plane import LISTENER, HttpPlane, field, run, until
from doubles.stub_upstream import StubUpstream
from doubles.tcp_plane import Target, TcpPlane, both_loops

from gogate_py.dataplane.proxy_intake import HEADER_TIME
from gogate_py.snapshot import TcpPool
from gogate_py.wire.proxy_protocol import encode, parse

LOCALHOST = ("127.0.0.0/8",)
CLIENT, SERVER = ("203.0.113.9", 4711), ("198.51.100.1", 443)
REQUEST = b"GET /p HTTP/1.1\r\nHost: a.test\r\n\r\n"
HEADERS = {
    "v1": encode(1, CLIENT, SERVER),
    "v2": encode(2, CLIENT, SERVER),
    "v1 for IPv6": encode(1, ("2001:db8::9", 4711), ("2001:db8::1", 443)),
}


@both_loops
@pytest.mark.parametrize("name", HEADERS)
def test_the_client_is_who_the_header_says(name: str, loop: str) -> None:
    """In the forwarding fields and in the access line; bytes behind the header are the request, whatever the cut."""

    async def main() -> None:
        header = HEADERS[name]
        address = "2001:db8::9" if "IPv6" in name else CLIENT[0]
        async with HttpPlane(backend := StubUpstream(), accept_proxy=True, trusted=LOCALHOST) as bed:
            whole = header + REQUEST
            for pieces in ([whole], [header, REQUEST], [whole[:5], whole[5:]], [bytes([byte]) for byte in whole]):
                client = await bed.client()
                await client.send_pieces(pieces)
                assert (await client.response()).status == 200
                client.close()
            lines = await bed.logged(4)
            assert {line["client"] for line in lines} == {address}
            for talk in backend.talks:
                assert field(talk.received.partition(b"\r\n\r\n")[0] + b"\r\n", "X-Forwarded-For") == address
                assert field(talk.received.partition(b"\r\n\r\n")[0] + b"\r\n", "X-Real-IP") == address
            listener = bed.plane.listeners.by_id[LISTENER]
            assert (listener.accepted, listener.refused) == (4, {})
            await until(lambda: not listener.active)

    run(main(), loop)


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", encode(2, None, None)])
def test_a_header_without_addresses(header: bytes) -> None:
    """The proxy speaks for itself (LOCAL, UNKNOWN): the client is the peer."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), accept_proxy=True, trusted=LOCALHOST) as bed:
            client = await bed.client()
            await client.send(header + REQUEST)
            assert (await client.response()).status == 200
            assert (await bed.logged())[0]["client"] == "127.0.0.1"

    run(main())


def test_forwarding_fields_behind_a_header() -> None:
    """X-Forwarded-For is believed if the client of the header is trusted, not because the proxy in front is."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), accept_proxy=True, trusted=(*LOCALHOST, "203.0.113.0/24")) as bed:
            cases = ((CLIENT, "192.0.2.7"), (("198.51.100.77", 1), "198.51.100.77"))
            for count, (source, seen) in enumerate(cases, 1):
                client = await bed.client()
                await client.send(encode(1, source, SERVER) + REQUEST[:-2] + b"X-Forwarded-For: 192.0.2.7\r\n\r\n")
                assert (await client.response()).status == 200
                assert (await bed.logged(count))[-1]["client"] == seen

    run(main())


BAD = {
    "no header": (REQUEST, "proxy_header"),
    "TLS": (b"\x16\x03\x01", "proxy_header"),
    "malformed": (b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 99999\r\n" + REQUEST, "proxy_header"),
    "too long": (b"PROXY UNKNOWN " + b"x" * 100, "proxy_header"),
    "UDP": (encode(2, CLIENT, SERVER).replace(b"\x21\x11", b"\x21\x12"), "proxy_header"),
}


@both_loops
@pytest.mark.parametrize("name", BAD)
def test_what_is_no_header_closes_the_connection(name: str, loop: str) -> None:
    """Nothing is answered, the backend hears nothing, and it is counted."""

    async def main() -> None:
        data, reason = BAD[name]
        async with HttpPlane(backend := StubUpstream(), accept_proxy=True, trusted=LOCALHOST) as bed:
            client = await bed.client()
            await client.send(data)
            assert await client.ends() in ("eof", "reset")
            assert client.received == b""
            assert backend.talks == []
            listener = bed.plane.listeners.by_id[LISTENER]
            assert (listener.accepted, listener.refused) == (1, {reason: 1})
            assert bed.lines() == []

    run(main(), loop)


def test_a_header_of_nobody_that_is_trusted() -> None:
    """An untrusted peer is closed at once, its header unread."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), accept_proxy=True, trusted=("10.0.0.0/8",)) as bed:
            client = await bed.client()
            assert await client.ends() in ("eof", "reset")
            assert bed.plane.listeners.by_id[LISTENER].refused == {"proxy_untrusted": 1}

    run(main())


@pytest.mark.parametrize("sent", [b"", HEADERS["v2"][:-1]])
def test_a_header_that_does_not_come(sent: bytes) -> None:
    """Three seconds from accept to the header's last byte, then the connection is closed."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), accept_proxy=True, trusted=LOCALHOST) as bed:
            client = await bed.client()
            await client.send(sent)
            admission = bed.plane.admission
            await until(lambda: [one for one in admission.arriving if len(one._buffer) == len(sent)])
            bed.pass_time(HEADER_TIME - 0.5)
            assert admission.open() == 1
            bed.pass_time(1.0)
            assert await client.ends() in ("eof", "reset")
            assert bed.plane.listeners.by_id[LISTENER].refused == {"proxy_timeout": 1}

    run(main())


@pytest.mark.parametrize(("sent", "refused"), [(b"", {}), (b"PROXY TC", {"proxy_header": 1})])
def test_a_peer_that_goes_before_its_header(sent: bytes, refused: dict[str, int]) -> None:
    """A health check that connects and goes is no fault; one that goes inside the header is."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), accept_proxy=True, trusted=LOCALHOST) as bed:
            client = await bed.client()
            await client.send(sent)
            client.eof()
            assert await client.ends() == "eof"
            listener = bed.plane.listeners.by_id[LISTENER]
            await until(lambda: not listener.active)
            assert (listener.accepted, listener.refused) == (1, refused)

    run(main())


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_on_a_plain_listener(name: str) -> None:
    """Where no header is expected it is a request, and a bad one: 400, whoever sends it."""

    async def main() -> None:
        async with HttpPlane(backend := StubUpstream(), trusted=LOCALHOST) as bed:
            client = await bed.client()
            await client.send(HEADERS[name] + REQUEST)
            assert (await client.response()).status == 400
            assert backend.talks == []

    run(main())


def test_connections_that_wait_for_a_header_count() -> None:
    """Against the worker's limit they are connections like others, and a drain cuts them in the end."""

    async def main() -> None:
        limits = {"connections": 1}
        async with HttpPlane(StubUpstream(), accept_proxy=True, trusted=LOCALHOST, limits=limits) as bed:
            waiting = await bed.client()
            await until(lambda: bed.plane.admission.arriving)
            late = await bed.client()
            assert await late.ends() in ("eof", "reset")
            assert bed.plane.listeners.by_id[LISTENER].refused == {"connections": 1}
            assert await bed.plane.drain(0.0, 0.0) == 1
            assert await waiting.ends() in ("eof", "reset")

    run(main())


# --- TCP


@both_loops
def test_tcp_behind_a_header(loop: str) -> None:
    """The relay's client is who the header says; what is behind the header goes to the backend, first and whole."""

    async def main() -> None:
        async with TcpPlane(target := Target(), accept_proxy=True, trusted=LOCALHOST) as bed:
            client = await bed.client()
            await client.send(HEADERS["v2"] + b"hello")
            backend = await target.accept()
            assert await backend.exactly(5) == b"hello"
            assert bed.relay().view().client == "203.0.113.9:4711"
            await backend.send(b"hi")
            assert await client.exactly(2) == b"hi"
            client.eof()
            assert await backend.until_eof() == b""
            backend.close()
            (line,) = await bed.logged()
            assert (line["client"], line["bytes_in"], line["bytes_out"]) == ("203.0.113.9:4711", 5, 2)

    run(main(), loop)


@both_loops
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("ready", [False, True])
def test_tcp_backends_are_told(version: int, ready: bool, loop: str) -> None:
    """The backend gets the header before the client's bytes, on a ready connection too, and once."""

    async def main() -> None:
        pool = TcpPool(2, 30.0, 120.0) if ready else None
        async with TcpPlane(target := Target(), send_proxy=version, tcp_pool=pool) as bed:
            for _ in range(3):
                client, backend = await bed.pair()
                await client.send(b"hello")
                client.eof()
                data = await backend.until_eof()
                header = parse(data)
                assert header is not None
                assert header.source == client.sock.getsockname()
                assert header.destination == ("127.0.0.1", bed.port)
                assert data[header.size :] == b"hello"
                assert data.startswith(b"PROXY TCP4 " if version == 1 else b"\r\n\r\n\0")
                backend.close()
                assert await client.until_eof() == b""
            if ready:
                assert bed.live().pool_hits > 0
                await until(lambda: target.waiting() or len(target.peers) > 3)  # nothing was written to it yet

    run(main(), loop)


def test_a_header_is_passed_on() -> None:
    """In and out: the backend hears of the client, not of the proxy in front."""

    async def main() -> None:
        async with TcpPlane(target := Target(), accept_proxy=True, trusted=LOCALHOST, send_proxy=1) as bed:
            client = await bed.client()
            await client.send(HEADERS["v2"] + b"hello")
            backend = await target.accept()
            expected = HEADERS["v1"] + b"hello"
            assert await backend.exactly(len(expected)) == expected
            client.close()
            backend.close()

    run(main())


def test_a_backend_that_failed_gets_no_header() -> None:
    """The header goes with the connection that was made, whichever attempt made it."""

    async def main() -> None:
        first, second = Target(), Target()
        async with TcpPlane(first, second, send_proxy=2) as bed:
            first.refuse()
            for _ in range(2):
                client = await bed.client()
                await client.send(b"hello")
                backend = await second.accept()
                size = len(HEADERS["v2"])
                header = parse(await backend.exactly(size))
                assert header is not None
                assert header.source == client.sock.getsockname()
                assert await backend.exactly(5) == b"hello"
                client.close()
                backend.close()

    run(main())
