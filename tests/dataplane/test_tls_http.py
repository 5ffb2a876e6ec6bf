"""TLS on an HTTP listener: what backends learn of it, who is answered 421, redirects, closing, and the fast path."""

from __future__ import annotations

from doubles.http_plane import HttpPlane, field, run
from doubles.stub_upstream import StubUpstream
from doubles.tcp_plane import both_loops
from doubles.tls_clients import client_context, listener_tls

TLS = {"tls": listener_tls()}


@both_loops
def test_requests_over_tls(loop: str) -> None:
    """Requests of a kept-alive connection reach the backend as plain HTTP, which is told https."""

    async def main() -> None:
        backend = StubUpstream()
        async with HttpPlane(backend, listener=TLS) as bed:
            client = await bed.client(tls=client_context(alpn=("h2", "http/1.1")), name="a.test")
            assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            for _ in range(3):
                assert (await client.get("/x")).body == b"ok"
            assert (await client.get("/y", "X-Forwarded-Proto: http\r\n")).status == 200
            heads = backend.received.split(b"\r\n\r\n")[:-1]
            assert [field(b"\r\n" + head, "X-Forwarded-Proto") for head in heads] == ["https"] * 4
            assert bed.listener.handshakes == {("ok", "TLSv1.3"): 1}
            assert bed.listener.accepted == bed.listener.active == 1
            assert not bed.plane.admission.arriving
            client.close()

    run(main(), loop)
