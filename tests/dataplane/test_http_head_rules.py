"""What an operator can say about fields and paths that servers read differently (SECURITY.md T3, T8, T11)."""

from __future__ import annotations

import msgspec
import pytest
from doubles.http_plane import HttpPlane, run
from doubles.stub_upstream import StubUpstream, answer, answering

from gogate_py.dataplane.http_site import _KNOWN_HEADS
from gogate_py.dataplane.upstream import LARGEST_KNOWN
from gogate_py.snapshot import FieldEdits, HeadRules


@pytest.mark.parametrize(
    "line",
    [
        "X-User-Id: root",
        "x-user-id:root",
        "X-USER-ID: root",
        "X_User_Id: root",
        "X.User.Id: root",
        "X-Role: root\r\nX-Role: root",
    ],
)
@pytest.mark.parametrize("names", ["drop", "keep"])
@pytest.mark.parametrize("extra", ["", "X-Request-ID: of-a-proxy\r\n", "TE: trailers\r\n"])
def test_identity_fields_of_a_client_never_reach_a_backend(line: str, names: str, extra: str) -> None:
    """Fields that only the gateway may set are deleted on both ways through, in every spelling a backend may read."""

    async def main() -> None:
        backend = StubUpstream()
        rules = HeadRules(header_names=names, identity_headers=("x-user-id", "x-role"))
        async with HttpPlane(backend, head_rules=rules) as bed:
            client = await bed.client()
            assert (await client.get(fields=f"{extra}{line}\r\nX-Users: 3\r\n")).status == 200
            assert b"root" not in backend.received
            assert b"X-Users: 3" in backend.received

    run(main())


@pytest.mark.parametrize(
    ("asked_for", "path", "seen"),
    [
        (False, "/@scope%2fpkg", None),
        (True, "/@scope%2fpkg", b"/@scope%2Fpkg"),
        (True, "/a%2Fb/%7Ec", b"/a%2Fb/~c"),
        (True, "/a/..%2Fadmin", None),
        (True, "/a%2F..%2Fadmin", None),
        (True, "/a%2F.", None),
        (True, "/a%2F..;x/b", None),
        (True, "/a%5Cb", None),
        (True, "/a%00b", None),
    ],
)
def test_escaped_slashes_are_data_only_when_asked_for(asked_for: bool, path: str, seen: bytes | None) -> None:
    """pathPolicy: escaped_slashes lets %2F through as it is, never a dot segment that a backend would see behind it."""

    async def main() -> None:
        backend = StubUpstream()
        async with HttpPlane(backend, head_rules=HeadRules(escaped_slashes=asked_for)) as bed:
            response = await (await bed.client()).get(path)
            if seen is None:
                assert (response.status, backend.requests) == (400, 0)
            else:
                assert response.status == 200
                assert backend.received.startswith(b"GET " + seen + b" HTTP/1.1\r\n")

    run(main())


CHUNKED = (
    b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
    b"Server-Timing: a;dur=1\r\nX-Other: 1\r\nSet-Cookie: x=1\r\n\r\n"
)


@pytest.mark.parametrize("forward", [(), ("server-timing", "set-cookie")])
def test_trailers_are_passed_on_by_name_only(forward: tuple[str, ...]) -> None:
    """Trailer fields of the allowed names go through both ways; others are dropped, and some are never passed on."""

    async def main() -> None:
        backend = StubUpstream(answering(b"HTTP/1.1 200 OK\r\n" + CHUNKED))
        async with HttpPlane(backend, head_rules=HeadRules(forward_trailers=forward)) as bed:
            client = await bed.client()
            await client.send(b"POST / HTTP/1.1\r\nHost: h\r\n" + CHUNKED)
            response = await client.response()
            end = b"0\r\nServer-Timing: a;dur=1\r\n\r\n" if forward else b"0\r\n\r\n"
            assert response.raw_body == b"3\r\nabc\r\n" + end
            assert backend.received.endswith(b"3\r\nabc\r\n" + end)

    run(main())


def test_a_change_of_the_rules_counts_from_the_next_request_on() -> None:
    """A new snapshot's rules hold on connections that are open already, on the fast way too."""

    async def main() -> None:
        backend = StubUpstream(answering(answer()))
        async with HttpPlane(backend) as bed:
            client = await bed.client()
            await client.get(fields="X-User-Id: me\r\n")
            assert b"X-User-Id: me" in backend.received
            bed.head_rules = HeadRules(identity_headers=("x-user-id",))
            await bed.apply()
            # the very bytes that were clean before, too
            await client.get(fields="X-User-Id: me\r\n")
            assert backend.received.count(b"X-User-Id: me") == 1
            await client.get(fields="X-User-Id: you\r\n")
            assert b"you" not in backend.received

    run(main())


def test_heads_that_are_known_are_checked_anew_by_new_rules() -> None:
    """A head that many connections brought is not looked at each time, but again when limits change; many different
    ones, and large ones, are not kept."""

    async def main() -> None:
        backend = StubUpstream()
        posted = b"POST /known HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi"
        async with HttpPlane(backend) as bed:
            for _ in range(3):
                client = await bed.client()
                assert [(await client.get("/known")).status for _ in range(2)] == [200, 200]
                await client.send(posted)
                assert (await client.response()).status == 200
            assert len(bed.plane.http._clean_body_heads) == 1
            known = bed.plane.http._clean_heads
            assert len(known) == 1
            for number in range(_KNOWN_HEADS + 5):
                assert (await client.get(f"/{number}", f"X-A: {'a' * (number % 3 * 600)}\r\n")).status == 200
            assert 0 < len(known) <= _KNOWN_HEADS
            assert max(map(len, known)) <= LARGEST_KNOWN
            bed.limits = msgspec.structs.replace(bed.limits, request_line=16)
            await bed.apply()
            for request in (b"GET /known HTTP/1.1\r\nHost: a.test\r\n\r\n", posted):
                assert (await bed.exchange(request)).status == 414

    run(main())


def test_a_proxys_lines_do_not_keep_its_heads_from_being_known() -> None:
    """What differs from client to client is taken out first, also where a route changes fields."""

    async def main() -> None:
        routes = ({"request_fields": FieldEdits(set=(("X-Set", "{client_ip}"),))},)
        async with HttpPlane(backend := StubUpstream(), routes=routes, trusted=("127.0.0.0/8",)) as bed:
            client = await bed.client()
            for number in range(1, 4):
                assert (await client.get("/", f"X-Forwarded-For: 192.0.2.{number}\r\n")).status == 200
            assert len(bed.plane.http._checked_heads) == 1
            for number in range(1, 4):
                assert backend.received.count(b"X-Set: 192.0.2.%d\r\n" % number) == 1
                assert backend.received.count(b"X-Real-IP: 192.0.2.%d\r\n" % number) == 1

    run(main())
