"""What a listener shows to whom: certificates by name and kind of key, versions, ciphers, and what a reload keeps."""

from __future__ import annotations

import asyncio
import re
import shutil
import ssl

import pytest
import trustme
from doubles.http_plane import HttpPlane, run, until
from doubles.stub_upstream import StubUpstream
from doubles.tls_clients import TlsPeer, certificate, client_context, listener_tls

from gogate_py.listener_tls import ListenerContexts
from gogate_py.snapshot import Certificate, ListenerTls

A = certificate("a.test", "www.a.test")
WILD = certificate("*.wild.test", "wild.test")
ADDRESS = certificate("192.0.2.1", "2001:db8::1")


def contexts(spec: ListenerTls, before: ListenerContexts | None = None) -> ListenerContexts:
    """Those of an HTTP listener."""
    return ListenerContexts(spec, http=True, before=before)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a.test", 0),
        ("www.a.test", 0),
        ("x.wild.test", 1),
        ("wild.test", 1),
        ("x.y.wild.test", 0),
        ("b.test", 0),
        ("192.0.2.1", 2),
        ("", 0),
    ],
)
def test_the_certificate_for_a_name(name: str, shown: int) -> None:
    """Exactly, by a wildcard for one label, else the first."""
    made = contexts(listener_tls(A, WILD, ADDRESS))
    assert made.choose(name) is made.choose(("a.test", "wild.test", "192.0.2.1")[shown])


def test_the_hosts_of_a_certificate() -> None:
    """One label for a wildcard, names and addresses as they are."""
    made = contexts(listener_tls(A, WILD, ADDRESS))
    wild = made.choose("wild.test")
    hosts = ("wild.test", "x.wild.test", "x.y.wild.test", "a.test", ".wild.test", "")
    assert [host for host in hosts if wild.covers(host)] == ["wild.test", "x.wild.test", ".wild.test"]
    assert made.choose("192.0.2.1").covers("2001:db8::1")


def test_a_reload_keeps_the_contexts_of_what_is_the_same() -> None:
    """One certificate changed: the others' contexts, with their tickets, stay; another rule: none does."""
    before = contexts(listener_tls(A, WILD))
    renewed = certificate(*A.names)
    after = contexts(listener_tls(renewed, WILD), before)
    assert after.choose("wild.test") is before.choose("wild.test")
    assert after.choose("a.test") is not before.choose("a.test")
    stricter = contexts(listener_tls(A, WILD, min_version="1.3"), before)
    assert stricter.choose("wild.test") is not before.choose("wild.test")
    tcp = ListenerContexts(listener_tls(A, WILD), http=False, before=before)
    assert tcp.choose("a.test") is not before.choose("a.test")


def test_what_cannot_be_used() -> None:
    """A key that is not the certificate's, an encrypted one, or no PEM."""
    encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----"
    for broken in (
        Certificate(A.names, A.chain, WILD.key),
        Certificate(A.names, "no certificate", A.key),
        Certificate(A.names, A.chain, encrypted),
    ):
        with pytest.raises((OSError, ValueError)):
            contexts(listener_tls(broken))


def test_two_kinds_of_key_and_the_first_of_two_of_a_kind() -> None:
    """A client that knows only RSA gets the RSA certificate of the same name, any other the ECDSA one; of two with the
    same kind of key the first is shown, as everywhere."""

    async def main() -> None:
        first, second = (certificate("a.test", key_type=trustme.KeyType.RSA) for _ in range(2))
        shown = (first, certificate("a.test"), second)
        async with HttpPlane(StubUpstream(), listener={"tls": listener_tls(*shown)}) as bed:
            for ciphers, expected in (("ECDHE-RSA-AES128-GCM-SHA256", 0), ("ECDHE-ECDSA-AES128-GCM-SHA256", 1)):
                context = client_context(newest=ssl.TLSVersion.TLSv1_2, ciphers=ciphers)
                peer = await TlsPeer.connect(bed.port, context)
                got = peer.spoken.getpeercert(binary_form=True)
                assert got == ssl.PEM_cert_to_DER_cert(_first(shown[expected].chain))
                peer.close()

    run(main())


def _first(chain: str) -> str:
    return chain.partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n"


async def s_client(port: int, *options: str, say: bytes = b"") -> str:
    """What openssl s_client tells."""
    process = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    told, _ = await process.communicate(say)
    return told.decode("utf-8", "replace")


needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@needs_openssl
@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("-tls1_3",), "TLSv1.3"),
        (("-tls1_2",), "TLSv1.2"),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"), "TLSv1.2"),
        (("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), ""),
        (("-tls1", "-cipher", "ALL:@SECLEVEL=0"), ""),
        (("-tls1_2", "-cipher", "AES128-GCM-SHA256"), ""),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"), ""),
        (("-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"), ""),
    ],
)
def test_versions_and_ciphers(options: tuple[str, ...], line: str) -> None:
    """TLS 1.2 and 1.3 with forward secrecy and AEAD; nothing older, weaker or anonymous."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), listener={"tls": listener_tls()}) as bed:
            told = await s_client(bed.port, *options)
            agreed = re.search(r"^New, (TLSv[\d.]+), Cipher is (?!\(NONE\))", told, re.MULTILINE)
            assert (agreed[1] if agreed else "") == line, told
            assert "Compression: NONE" in told or not line
            assert bool(bed.listener.refused.get("tls_handshake")) is not bool(line)

    run(main())


@needs_openssl
def test_minimum_version() -> None:
    """With minVersion 1.3 there is no TLS 1.2."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), listener={"tls": listener_tls(min_version="1.3")}) as bed:
            assert "alert protocol version" in await s_client(bed.port, "-tls1_2")
            assert "New, TLSv1.3" in await s_client(bed.port)

    run(main())


@needs_openssl
def test_no_renegotiation() -> None:
    """A client that asks for new keys in TLS 1.2 is told no, whatever OpenSSL's own default is."""
    options = contexts(listener_tls()).choose("").context.options
    assert options & ssl.OP_NO_RENEGOTIATION
    assert options & ssl.OP_NO_COMPRESSION

    async def main() -> None:
        async with HttpPlane(StubUpstream(), listener={"tls": listener_tls()}) as bed:
            told = await s_client(bed.port, "-tls1_2", say=b"R\n")
            assert "RENEGOTIATING" in told
            assert "no renegotiation" in told
            await until(lambda: not bed.listener.active, "it is gone")

    run(main())


@pytest.mark.parametrize(
    ("offered", "chosen"), [((), None), (("http/1.1",), "http/1.1"), (("h2", "http/1.1"), "http/1.1"), (("h2",), None)]
)
def test_alpn(offered: tuple[str, ...], chosen: str | None) -> None:
    """http/1.1 where it is offered; who offers only others goes on without, and may speak HTTP/1.1."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), listener={"tls": listener_tls()}) as bed:
            client = await bed.client(tls=client_context(alpn=offered), name="a.test")
            assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == chosen
            assert (await client.get()).status == 200
            client.close()

    run(main())


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_resumption(newest: ssl.TLSVersion) -> None:
    """A ticket saves the next handshake, also behind a reload that changed something else; not behind a new
    certificate."""

    async def main() -> None:
        context = client_context(newest=newest)
        other = certificate("other.test")
        usual = listener_tls().certificates[0]

        async def visit(session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession | None]:
            peer = await TlsPeer.connect(bed.port, context, session=session)
            await peer.send(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
            assert (await peer.until_eof()).startswith(b"HTTP/1.1 200 ")
            peer.close()
            return bool(peer.spoken.session_reused), peer.spoken.session

        async with HttpPlane(StubUpstream(), listener={"tls": listener_tls(usual)}) as bed:
            reused, session = await visit(None)
            assert not reused
            assert (await visit(session))[0]
            bed.listener_settings["tls"] = listener_tls(usual, other)
            await bed.apply()
            assert (await visit(session))[0]
            assert bed.listener.handshakes[("resumed", newest.name.replace("_", "."))] == 2
            bed.listener_settings["tls"] = listener_tls(certificate(*usual.names))
            await bed.apply()
            assert not (await visit(session))[0]

    run(main())


def test_a_reload_changes_what_new_clients_are_shown() -> None:
    """Who is here goes on with what it has; a certificate that cannot be used leaves the old one, counted and told."""

    async def main() -> None:
        async with HttpPlane(StubUpstream(), listener={"tls": listener_tls()}) as bed:
            old = await bed.client(tls=client_context(), name="a.test")
            assert (await old.get()).status == 200
            renewed = certificate("a.test")
            bed.listener_settings["tls"] = listener_tls(renewed)
            await bed.apply()
            broken = listener_tls(Certificate(renewed.names, renewed.chain, A.key), client_auth="none")
            bed.listener_settings["tls"] = broken
            await bed.apply()
            new = await bed.client(tls=client_context(), name="a.test")
            shown = new.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            assert shown == ssl.PEM_cert_to_DER_cert(_first(renewed.chain))
            for client in (old, new):
                assert (await client.get()).status == 200
            assert bed.listener.unusable == 1
            counts = bed.plane._report.collect().counters
            assert ("gogate_tls_unusable_certificates_total", ("http:default",), 1) in counts
            assert ("gogate_tls_handshakes_total", ("http:default", "ok", "TLSv1.3"), 2) in counts

    run(main())


def test_without_a_usable_certificate_nobody_is_let_in() -> None:
    """Least of all without TLS."""

    async def main() -> None:
        broken = listener_tls(Certificate(A.names, A.chain, WILD.key))
        async with HttpPlane(backend := StubUpstream(), listener={"tls": broken}) as bed:
            client = await bed.client()
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await client.ends() in ("eof", "reset")
            assert bed.listener.refused == {"tls_unavailable": 1}
            assert not backend.received

    run(main())
