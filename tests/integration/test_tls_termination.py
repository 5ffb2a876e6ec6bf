"""TLS on listeners through a whole gateway with two workers: curl, openssl, Python; what must never be agreed on;
client certificates; certificates that change while it runs."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import need_program
from doubles.certificates import replace, write_pair
from doubles.configs import ANY, gateway_config
from doubles.gateway import Gateway, echo_server, wait_for
from doubles.gateway_clients import field_of
from doubles.http_backend import HttpBackend
from doubles.load import Load
from doubles.raw_hello import GOOD, SCSV, TLS_1_0, TLS_1_1, WEAK, Answer, ask
from doubles.servers import free_port
from doubles.tls_backends import CA, STRANGER, server_context
from doubles.tls_clients import client_context

pytestmark = pytest.mark.slow

NO_PROBES: dict[str, Any] = {"enabled": False}
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def pair(folder: Path, name: str) -> dict[str, str]:
    """What a configuration says of a certificate."""
    return {"certFile": str(folder / f"{name}.crt"), "keyFile": str(folder / f"{name}.key")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of this module, and the authority of its clients."""
    path = tmp_path_factory.mktemp("tls")
    write_pair(path, "local", "localhost", "127.0.0.1")
    write_pair(path, "rsa", "localhost", "127.0.0.1", rsa_key=True)
    write_pair(path, "wild", "*.wild.test", "wild.test")
    CA.cert_pem.write_to_path(str(path / "ca.pem"))
    return path


def https(
    address: tuple[str, int], path: str = "/", *, name: str = "localhost", host: str = "",
    context: ssl.SSLContext | None = None, headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """One GET over TLS with this server name → (status, headers, body). Raises OSError."""
    with (
        socket.create_connection(address, timeout=10) as plain,
        (context or client_context()).wrap_socket(plain, server_hostname=name) as sock,
    ):
        lines = [f"GET {path} HTTP/1.1", f"Host: {host or name}", "Connection: close"]
        lines += [f"{key}: {value}" for key, value in (headers or {}).items()]
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()


def curl(*options: str) -> str:
    """What curl prints."""
    done = subprocess.run([need_program("curl"), "-sS", *options], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Front:
    """A gateway with TLS before one HTTP backend."""

    def __init__(self, gateway: Gateway, backend: HttpBackend, folder: Path) -> None:
        self.gateway = gateway
        self.backend = backend
        self.folder = folder

    @property
    def address(self) -> tuple[str, int]:
        """Of httpListenAddr."""
        return self.gateway.address("http:default")


@contextlib.contextmanager
def front(folder: Path, certificates: tuple[str, ...] = ("local", "wild"), tls: dict[str, Any] | None = None,
          server: dict[str, Any] | None = None, **top: Any) -> Iterator[Front]:
    with HttpBackend("web") as backend:
        settings = {"certificates": [pair(folder, name) for name in certificates], **(tls or {})}
        config = gateway_config(
            {"httpListenAddr": ANY, "backends": [backend.address], "health": NO_PROBES, "tls": settings,
             **(server or {})}, **top)
        with Gateway(config) as gateway:
            yield Front(gateway, backend, folder)


@pytest.fixture(scope="module")
def plain_front(folder: Path) -> Iterator[Front]:
    """One with two certificates and nothing else."""
    with front(folder) as found:
        yield found


# --- what clients see


def test_curl_is_served(plain_front: Front) -> None:
    """Its certificate is verified, HTTP/1.1 agreed on (it offers HTTP/2, too); the backend hears of https."""
    port = plain_front.address[1]
    for _ in range(4):  # over both workers
        out = curl("--cacert", str(plain_front.folder / "ca.pem"), "-w", "%{http_version} %{ssl_verify_result}",
                   f"https://localhost:{port}/")
        assert out == "hello from web\n1.1 0"
    head = plain_front.backend.heads[-1]
    assert field_of(head, b"x-forwarded-proto") == b"https"


def test_the_certificate_is_chosen_by_the_name(plain_front: Front) -> None:
    """Exactly, by a wildcard of one label, else the first."""
    shown = {}
    for name in ("localhost", "wild.test", "a.wild.test", "a.b.wild.test", "other.test"):
        context = client_context()
        context.check_hostname = False
        with (
            socket.create_connection(plain_front.address, timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=name) as sock,
        ):
            certificate: Any = sock.getpeercert()
            shown[name] = certificate["subjectAltName"][0][1]
    assert shown == {"localhost": "localhost", "wild.test": "*.wild.test", "a.wild.test": "*.wild.test",
                     "a.b.wild.test": "localhost", "other.test": "localhost"}


def test_a_host_of_another_certificate_is_421(plain_front: Front) -> None:
    """What the certificate is not for is not served on this connection."""
    assert https(plain_front.address)[0] == 200
    assert https(plain_front.address, name="a.wild.test")[0] == 200
    assert https(plain_front.address, name="a.wild.test", host="b.wild.test")[0] == 200
    assert https(plain_front.address, name="a.wild.test", host="localhost")[0] == 421
    assert https(plain_front.address, host="a.wild.test")[0] == 421


def test_http_without_tls_is_told_so(plain_front: Front) -> None:
    """400 in plain HTTP, never a route."""
    before = plain_front.backend.requests
    host, port = plain_front.address
    assert curl("-w", "%{http_code}", "-o", "/dev/null", f"http://{host}:{port}/") == "400"
    assert plain_front.backend.requests == before
    wait_for(lambda: plain_front.gateway.metric(
        "gogate_connections_refused_total", listener="http:default", reason="not_tls") >= 1)


def test_http_clients_of_python_are_served(plain_front: Front) -> None:
    """requests keeps its connection, with the system's way of verifying."""
    import requests

    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(plain_front.folder / "ca.pem")
        for number in range(5):
            answer = session.post(f"https://localhost:{plain_front.address[1]}/{number}", data=b"x" * 100_000)
            assert (answer.status_code, answer.content) == (200, b"hello from web\n")


# --- what must never be agreed on


@pytest.mark.parametrize("weak", WEAK)
def test_weak_ciphers_are_refused(plain_front: Front, weak: str) -> None:
    """Alone they fail; beside good ones they are passed over."""
    assert ask(plain_front.address, WEAK[weak]).alert == 40  # handshake_failure
    assert ask(plain_front.address, (*WEAK[weak], *GOOD)).suite in GOOD


@pytest.mark.parametrize("version", [0x0300, TLS_1_0, TLS_1_1])
def test_old_versions_are_refused(plain_front: Front, version: int) -> None:
    """SSL 3, TLS 1.0 and 1.1, whatever they offer."""
    every = tuple(suite for suites in WEAK.values() for suite in suites)
    assert ask(plain_front.address, (*GOOD, *every), version=version).alert in (40, 70)  # protocol_version


def test_no_compression_and_only_secure_renegotiation(plain_front: Front) -> None:
    """Compression is never chosen; that renegotiation is secure is said, and none is done."""
    answer = ask(plain_front.address, (*GOOD, SCSV), compression=b"\1\0")
    assert (answer.alert, answer.compression) == (0, 0)
    assert 0xFF01 in answer.extensions
    assert ask(plain_front.address, (*GOOD, SCSV), compression=b"\1") in (Answer(alert=50), Answer(alert=47))
    out = s_client(plain_front.address, "-tls1_2", send="R\n")
    assert "RENEGOTIATING" in out
    assert "no renegotiation" in out


def s_client(address: tuple[str, int], *options: str, send: str = "") -> str:
    """What openssl s_client prints."""
    host, port = address
    done = subprocess.run(
        [need_program("openssl"), "s_client", "-connect", f"{host}:{port}", "-servername", "localhost", *options],
        input=send, capture_output=True, text=True, timeout=20)
    return done.stdout + done.stderr


def test_openssl_agrees(plain_front: Front) -> None:
    """TLS 1.3 by default, TLS 1.2 if asked; ALPN http/1.1; the chain is good for its verification."""
    ca = ("-CAfile", str(plain_front.folder / "ca.pem"), "-verify_return_error")
    for options, version in ((("-tls1_3",), "TLSv1.3"), (("-tls1_2",), "TLSv1.2")):
        out = s_client(plain_front.address, *options, *ca, "-alpn", "h2,http/1.1")
        assert f"New, {version}, Cipher is" in out or f"Protocol  : {version}" in out, out
        assert "ALPN protocol: http/1.1" in out
        assert "Verify return code: 0 (ok)" in out
        assert "Compression: NONE" in out
    for old in ("-tls1", "-tls1_1"):
        assert "Cipher is (NONE)" in s_client(plain_front.address, old, "-cipher", "ALL:@SECLEVEL=0")


def test_tls_1_3_alone(folder: Path) -> None:
    """minVersion 1.3 refuses 1.2."""
    with front(folder, tls={"minVersion": "1.3"}) as found:
        assert https(found.address)[0] == 200
        assert ask(found.address, GOOD).alert == 70
        with pytest.raises(ssl.SSLError):
            https(found.address, context=client_context(newest=VERSIONS["1.2"]))


def test_a_certificate_of_each_kind(folder: Path) -> None:
    """A client that knows only RSA gets the RSA certificate, one that knows ECDSA the other."""
    with front(folder, ("local", "rsa")) as found:
        for kind in ("ECDSA", "RSA"):
            context = client_context(newest=VERSIONS["1.2"], ciphers=f"ECDHE-{kind}-AES128-GCM-SHA256")
            with (
                socket.create_connection(found.address, timeout=10) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as sock,
            ):
                assert sock.cipher() == (f"ECDHE-{kind}-AES128-GCM-SHA256", "TLSv1.2", 128)


# --- client certificates


def refused(address: tuple[str, int], context: ssl.SSLContext) -> bool:
    """Whether a request over TLS gets no answer. With TLS 1.3 the client learns it only when it reads."""
    try:
        https(address, context=context)
    except (ssl.SSLError, ConnectionError, http.client.HTTPException):
        return True
    return False


@pytest.mark.parametrize("version", VERSIONS)
def test_nobody_without_a_certificate_reaches_a_route(folder: Path, version: str) -> None:
    """None, or a stranger's: no request reaches the backend; with one the backend knows whose it is."""
    tls = {"clientCA": str(folder / "ca.pem"), "clientAuth": "require"}
    with front(folder, tls=tls) as found:
        newest = VERSIONS[version]
        stranger = STRANGER.issue_cert("client.test", common_name="client")
        for _ in range(6):
            assert refused(found.address, client_context(newest=newest))
            assert refused(found.address, client_context(newest=newest, own=stranger))
        assert found.backend.requests == 0
        known = CA.issue_cert("client.test", common_name="a client", organization_name="Test, Inc.")
        status, _, _ = https(found.address, context=client_context(newest=newest, own=known),
                             headers={"X-SSL-Client-DN": "CN=admin", "X_SSL_Client_DN": "CN=admin"})
        assert status == 200
        head = found.backend.heads[-1]
        assert b"CN=a client" in field_of(head, b"x-ssl-client-dn")
        assert b"admin" not in head
        wait_for(lambda: found.gateway.metric(
            "gogate_connections_refused_total", listener="http:default", reason="tls_client_certificate") == 12)


def test_the_subject_cannot_be_claimed_anywhere(folder: Path) -> None:
    """With optional certificates, and on a listener without TLS: who has none has no subject, whatever it says."""
    tls = {"clientCA": str(folder / "ca.pem"), "clientAuth": "optional", "clientSubjectHeader": "X-Client"}
    listeners = [{"name": "plain", "listenAddr": ANY}]
    with front(folder, tls=tls, listeners=listeners) as found:
        claims = {"X-Client": "CN=admin", "x_client": "CN=admin"}
        assert https(found.address, headers=claims)[0] == 200
        host, port = found.gateway.address("plain")
        curl("-H", "X-Client: CN=admin", "-H", "X_Client: CN=admin", f"http://{host}:{port}/")
        assert found.backend.requests == 2
        assert not any(b"x-client" in head.lower() or b"admin" in head for head in found.backend.heads)
        own = CA.issue_cert("client.test", common_name="me")
        assert https(found.address, headers=claims, context=client_context(own=own))[0] == 200
        assert b"CN=me" in field_of(found.backend.heads[-1], b"x-client")
        assert refused(found.address, client_context(own=STRANGER.issue_cert("client.test")))


# --- several listeners


def test_redirects_and_routes_by_listener(folder: Path) -> None:
    """HTTP is sent to https with path and query; a route that names a listener is on no other."""
    port, plain = free_port(), free_port()
    with HttpBackend("all") as everywhere, HttpBackend("inner") as inner:
        config = gateway_config(
            {"httpListenAddr": f"127.0.0.1:{port}", "backends": [everywhere.address], "health": NO_PROBES,
             "tls": {"certificates": [pair(folder, "local")], "redirectHTTP": f"127.0.0.1:{plain}"}},
            listeners=[{"name": "inner", "listenAddr": ANY}],
            pools={"inner": {"backends": [inner.address]}},
            routes=[{"name": "admin", "match": {"pathPrefix": "/admin"}, "pool": "inner", "listener": "inner"}])
        with Gateway(config) as gateway:
            assert set(gateway.listeners) == {"http:default", "inner", f"redirect:127.0.0.1:{plain}"}
            out = curl("-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", "-X", "POST", "-d", "x",
                       f"http://localhost:{plain}/a/b?c=d&e")
            assert out == f"308 https://localhost:{port}/a/b?c=d&e"
            followed = curl("-L", "--cacert", str(folder / "ca.pem"), f"http://localhost:{plain}/admin")
            assert followed == "hello from all\n"
            host, other = gateway.address("inner")
            assert curl(f"http://{host}:{other}/admin") == "hello from inner\n"
            assert curl(f"http://{host}:{other}/") == "hello from all\n"
            shown = {one["name"]: one for one in gateway.admin_json("GET", "/listeners")["listeners"]}
            assert shown["inner"]["kind"] == "http"
            assert shown["http:default"]["tls"]["certificates"][0]["names"] == ["localhost", "127.0.0.1"]


def test_tls_ends_on_tcp_listeners(folder: Path) -> None:
    """Each name leads to its route, plain or with TLS to the backend; an end of one direction is passed on."""
    with echo_server() as echo, tls_speaker("inner.test") as speaker:
        certificates = [pair(folder, "local"), pair(folder, "wild")]
        config = gateway_config(
            {"health": NO_PROBES, "backendTLS": {"caFile": str(folder / "ca.pem")}},
            listeners=[{"name": "db", "listenAddr": ANY, "type": "tcp", "tls": {"certificates": certificates}}],
            pools={"echo": {"backends": [f"{echo[0]}:{echo[1]}"]},
                   "tls": {"backends": [speaker], "tls": {"enabled": True, "serverName": "inner.test"}}},
            routes=[{"name": "echo", "type": "tcp", "listener": "db", "sni": "localhost", "pool": "echo"},
                    {"name": "tls", "type": "tcp", "listener": "db", "sni": "*.wild.test", "pool": "tls"},
                    {"name": "own", "type": "tcp", "listenAddr": ANY, "pool": "echo",
                     "tls": {"certificates": [pair(folder, "local")]}}])
        with Gateway(config) as gateway:
            payload = bytes(range(256)) * 4096
            for _ in range(4):
                for listener in ("db", "tcp:own"):
                    assert exchanged(gateway.address(listener), "localhost", payload) == payload
                assert exchanged(gateway.address("db"), "a.wild.test", b"") == b"this is inner.test"
            with pytest.raises((ssl.SSLError, ConnectionError)):
                exchanged(gateway.address("db"), "other.test", b"x")
            out = s_client(gateway.address("tcp:own"), "-quiet", "-no_ign_eof", "-CAfile", str(folder / "ca.pem"),
                           "-verify_return_error", send="hello\n")
            assert "verify error" not in out


def exchanged(address: tuple[str, int], name: str, payload: bytes) -> bytes:
    """What comes back until the end, when a client has sent this and read as much. One thread does both: OpenSSL's
    connections are not to be used by two at once, and before Python 3.13 nothing keeps them apart."""
    with (
        socket.create_connection(address, timeout=10) as plain,
        client_context().wrap_socket(plain, server_hostname=name) as sock,
    ):
        sock.setblocking(False)
        unsent, found = memoryview(payload), b""
        while len(found) < len(payload) or not payload:
            try:
                more = sock.recv(65536)
            except ssl.SSLWantReadError:
                if unsent:
                    with contextlib.suppress(ssl.SSLWantWriteError):
                        unsent = unsent[sock.send(unsent[:65536]) :]
                poll = select.poll()  # select itself cannot watch a descriptor above 1023
                poll.register(sock, select.POLLIN | (select.POLLOUT if unsent else 0))
                assert poll.poll(10_000), "nothing more came within 10 s"
                continue
            if not more:
                break
            found += more
        return found


@contextlib.contextmanager
def tls_speaker(name: str) -> Iterator[str]:
    """A TLS server that says its name and closes; → its address."""
    context = server_context(name)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), context.wrap_socket(sock, server_side=True) as spoken:
                spoken.sendall(f"this is {name}".encode())
                spoken.unwrap()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def test_a_proxy_header_comes_before_the_handshake(folder: Path) -> None:
    """From a trusted proxy; the backend hears of the client that it names."""
    server = {"acceptProxyProtocol": True, "trustedProxies": ["127.0.0.0/8"]}
    with front(folder, server=server) as found, socket.create_connection(found.address, timeout=10) as plain:
        plain.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 1111 443\r\n")
        with client_context().wrap_socket(plain, server_hostname="localhost") as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
        assert field_of(found.backend.heads[-1], b"x-forwarded-for") == b"192.0.2.7"


# --- certificates that change


def shown_serial(address: tuple[str, int]) -> str:
    """The serial number of the certificate that a new connection is shown."""
    with (
        socket.create_connection(address, timeout=10) as plain,
        client_context().wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        certificate: Any = sock.getpeercert()
        return str(certificate["serialNumber"])


def test_certificates_change_under_load(tmp_path: Path) -> None:
    """New files are served without a signal and without a failed request; broken ones are refused with file and line,
    and the old ones go on; the end is without loss, too."""
    write_pair(tmp_path, "a", "localhost", days=3)
    with front(tmp_path, ("a",)) as found:
        gateway = found.gateway
        assert [line["names"] for line in gateway.logged("a certificate expires soon")] == [["localhost"]]
        first_end = gateway.metric("gogate_tls_certificate_expiry_seconds", listener="http:default")
        with Load(found.address, kept=6, fresh=3, tls=client_context()) as load:
            load.wait_ok(50)
            serial = shown_serial(found.address)
            for number in range(3):
                write_pair(tmp_path, "a", "localhost", days=30 + number)
                wait_for(lambda old=serial: shown_serial(found.address) != old, what="the new certificate")
                # The other worker, too: each has acknowledged the generation before it is reloaded.
                wait_for(lambda n=number: len(gateway.logged("configuration reloaded")) >= n + 1)
                serial = shown_serial(found.address)
                load.wait_ok(20)
            replace(tmp_path / "a.crt", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            wait_for(lambda: not gateway.admin_json("GET", "/config/status")["in_sync"])
            assert gateway.logged("configuration cannot be served; the old one goes on")
            assert {shown_serial(found.address) for _ in range(8)} == {serial}
            status = gateway.admin_json("GET", "/config/status")
            assert "a.crt" in status["failing"]["problems"][0]
            assert gateway.metric("gogate_config_last_reload_success") == 0
            load.wait_ok(20)
            write_pair(tmp_path, "a", "localhost", days=60)
            wait_for(lambda old=serial: shown_serial(found.address) != old, what="the mended certificate")
            wait_for(lambda: gateway.metric("gogate_config_last_reload_success") == 1)
            load.wait_ok(20)
            assert gateway.stop() == 0
        assert load.outcomes["lost"] == load.outcomes["error"] == 0, (load.outcomes, load.lost[:5])
        assert len(gateway.logged("certificate changed")) >= 4
        assert first_end > 0
        assert "BEGIN" not in json.dumps(gateway.log)


def test_what_is_open_goes_on_with_the_old_certificate(tmp_path: Path) -> None:
    """A reload of certificates closes nobody's connection; the metric tells the new end."""
    write_pair(tmp_path, "a", "localhost", days=40)
    with front(tmp_path, ("a",)) as found:
        connection = http.client.HTTPSConnection("localhost", found.address[1], timeout=10, context=client_context())
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"hello from web\n"
        sock = connection.sock
        before = found.gateway.metric("gogate_tls_certificate_expiry_seconds")
        write_pair(tmp_path, "a", "localhost", days=50)
        wait_for(lambda: found.gateway.metric("gogate_tls_certificate_expiry_seconds") > before)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"hello from web\n"
        assert connection.sock is sock
        connection.close()


def test_an_expired_certificate_is_served(tmp_path: Path) -> None:
    """gogate is not down because of it; the log says so."""
    write_pair(tmp_path, "a", "localhost", days=-1)
    with front(tmp_path, ("a",)) as found:
        assert https(found.address, context=client_context(verify=False))[0] == 200
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            https(found.address)
        assert [line["level"] for line in found.gateway.logged("a certificate has expired")] == ["WARN"]


def test_other_named_files_are_watched_too(tmp_path: Path, folder: Path) -> None:
    """A user more in a file of users is let in without a signal."""
    users = tmp_path / "users"
    hashed = b"$2b$04$abcdefghijklmnopqrstuuP1kZ2X7yqNqfdv2RiYyV0mVYzCQv8yG"
    replace(users, b"al:" + hashed + b"\n")
    with front(folder, server={"auth": {"type": "basic", "usersFile": str(users)}}) as found:
        assert https(found.address)[0] == 401
        replace(users, b"al:" + hashed + b"\nbo:" + hashed + b"\n")
        wait_for(lambda: found.gateway.logged("configuration reloaded"))


def test_rules_that_change_are_for_those_who_are_here_too(tmp_path: Path) -> None:
    """A kept-alive client without a certificate does not reach routes once one is needed, and one without TLS not
    once there is TLS; nobody who waits in the accept queue is lost."""
    write_pair(tmp_path, "a", "localhost")
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    mutual = {"certificates": [pair(tmp_path, "a")], "clientCA": str(tmp_path / "ca.pem"), "clientAuth": "require"}
    steps: list[dict[str, Any] | None] = [None, {"certificates": [pair(tmp_path, "a")]}, mutual]
    with HttpBackend("web") as backend:

        def text(tls: dict[str, Any] | None) -> str:
            server = {"httpListenAddr": ANY, "backends": [backend.address], "health": NO_PROBES}
            return gateway_config(server | ({"tls": tls} if tls is not None else {}))

        with Gateway(text(None)) as gateway:
            host, port = gateway.address("http:default")
            for before, after in pairwise(steps):
                kept: http.client.HTTPConnection = (
                    http.client.HTTPConnection(host, port, timeout=10) if before is None
                    else http.client.HTTPSConnection("localhost", port, timeout=10, context=client_context()))
                kept.request("GET", "/before")
                assert kept.getresponse().read()
                sock = kept.sock
                assert sock is not None
                done = len(gateway.logged("configuration reloaded"))
                gateway.config_path.write_text(text(after))
                wait_for(lambda n=done: len(gateway.logged("configuration reloaded")) > n)
                assert sock.recv(1) == b""  # told to go
                kept.close()
            reached = backend.requests
            assert refused((host, port), client_context())
            assert https((host, port), context=client_context(own=CA.issue_cert("client.test")))[0] == 200
            assert backend.requests == reached + 1
