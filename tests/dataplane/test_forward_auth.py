"""forwardAuth against real local services: what they are asked, what their answers do, and what can go wrong."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.dataplane import forward_auth_client
from gogate_py.dataplane.exchange_state import ExchangeState
from gogate_py.dataplane.forward_auth import ForwardAuthStage
from gogate_py.dataplane.forward_auth_client import MAX_AT_ONCE, MAX_BODY, MAX_HEAD, AskError, ServiceClient
from gogate_py.dataplane.tracing import TraceContext
from gogate_py.errors import Failure
from gogate_py.middleware.chain import Answer, Outcome, Refusal
from gogate_py.snapshot import ForwardAuth
from gogate_py.wire.head_check import HeadLimits, check_request_head
from gogate_py.wire.headers import REQUEST_SPECIAL
from gogate_py.wire.serializer import parse_lines

Reply = Callable[["Service", asyncio.StreamWriter], Awaitable[bool]]

PASS = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Service:
    """What a service saw: heads of questions, in order, and how many connections."""

    def __init__(self) -> None:
        self.port = 0
        self.heads: list[bytes] = []
        self.connections = 0
        self.open = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/verify?x=1"

    def fields(self) -> list[tuple[str, str]]:
        """The fields of the last question, names in lower case."""
        lines = self.heads[-1].decode("latin-1").split("\r\n")[1:-2]
        return [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]


def says(*answers: bytes) -> Reply:
    """Answer with these in turn, the last one again and again; b"" closes instead."""
    left = list(answers)

    async def reply(service: Service, writer: asyncio.StreamWriter) -> bool:
        answer = left.pop(0) if len(left) > 1 else left[0]
        writer.write(answer)
        return answer != b""

    return reply


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(reply: Reply, **options: Any) -> AsyncIterator[Service]:
    """A service that calls ``reply`` for each question; → false closes the connection."""
    service = Service()
    writers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        service.connections += 1
        service.open += 1
        writers.append(writer)
        try:
            while True:
                service.heads.append(await reader.readuntil(b"\r\n\r\n"))
                if not await reply(service, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            service.open -= 1
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, **options)
    service.port = server.sockets[0].getsockname()[1]
    try:
        yield service
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await until(lambda: service.open == 0)


def request(head: bytes = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", *, clean: bool = False) -> ExchangeState:
    """A request of this head; ``clean``: as one that nobody took apart."""
    made = ExchangeState(cast(Any, None), cast(Any, None))
    checked = check_request_head(head, HeadLimits())
    made.method, made.path, made.query, made.host = checked.method, checked.path, checked.query, checked.host
    made.client = "192.0.2.7"
    made.request_id = b"id-1"
    made.raw_head = head
    if not clean:
        made.checked = checked
    return made


def stage(
    url: str, shown: tuple[str, ...] = (), copied: tuple[str, ...] = (), timeout: float = 5.0
) -> ForwardAuthStage:
    """A stage that asks this URL."""
    return ForwardAuthStage(ForwardAuth(url, timeout, shown, copied))


def decided(reply: Reply, asked: ExchangeState | None = None, **options: Any) -> tuple[Outcome, Service]:
    """What becomes of one request."""

    async def run() -> tuple[Outcome, Service]:
        async with serving(reply) as service:
            made = stage(service.url, **options)
            outcome = await made(asked or request())
            made.close()
            return outcome, service

    return asyncio.run(run())


def test_the_service_is_in_the_trace_of_the_request() -> None:
    """Where that is sampled: the service's own spans are below ours of the request."""
    asked = request()
    asked.trace = TraceContext(b"1" * 32, b"2" * 16, b"3" * 16, True, b"a=1")
    fields = decided(says(PASS), asked)[1].fields()
    assert [value for name, value in fields if name == "traceparent"] == [f"00-{'1' * 32}-{'3' * 16}-01"]
    assert [value for name, value in fields if name == "tracestate"] == ["a=1"]
    assert not {"traceparent", "tracestate"} & dict(decided(says(PASS))[1].fields()).keys()


def refused(outcome: Outcome, word: str) -> str:
    """The detail of the refusal that this must be."""
    assert isinstance(outcome, Refusal)
    assert outcome.failure is Failure.FORWARD_AUTH_FAILED
    assert outcome.counted == word
    return outcome.detail


# --- the question

HEAD = (
    b"POST /a%20b/?q=1 HTTP/1.1\r\nHost: a.example:8080\r\nCookie: a=1\r\nCOOKIE: b=2\r\nAuthorization: Basic eDp5\r\n"
    b"Content-Length: 4\r\nContent-Type: text/plain\r\nRange: bytes=0-1\r\nIf-None-Match: *\r\nConnection: x-hop\r\n"
    b"X-Hop: 1\r\nX-Forwarded-User: root\r\nX-Real-IP: 10.0.0.1\r\nExpect: 100-continue\r\nX-Request-ID: theirs\r\n"
    b"X-Empty:\r\n\r\n"
)


def test_the_service_is_asked_about_the_request() -> None:
    """GET without a body, with what was asked, of whom and by whom, and with the client's fields line by line."""
    outcome, service = decided(says(PASS), request(HEAD))
    assert outcome is None
    assert service.heads[-1].startswith(b"GET /verify?x=1 HTTP/1.1\r\n")
    assert service.fields() == [
        ("host", f"127.0.0.1:{service.port}"),
        ("x-forwarded-method", "POST"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-uri", "/a%20b/?q=1"),
        ("x-forwarded-host", "a.example:8080"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-request-id", "id-1"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("authorization", "Basic eDp5"),
        ("x-empty", ""),
    ]


def test_a_clean_head_is_shown_the_same() -> None:
    """Whether the head was taken apart before makes no difference."""
    head = b"GET /x HTTP/1.1\r\nHost: a.example\r\nX-A:  1 \r\nAccept: */*\r\nRange: bytes=0-1\r\n\r\n"
    seen = []
    for clean in (True, False):
        _, service = decided(says(PASS), request(head, clean=clean))
        seen.append(service.fields()[1:])
    assert seen[0] == seen[1]
    assert seen[0][-2:] == [("x-a", "1"), ("accept", "*/*")]


def test_claims_about_forwarding_are_never_shown() -> None:
    """Whichever way they came: the service believes X-Forwarded-* to be ours."""
    head = b"GET / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-Method: GET\r\nX-Real-IP: 1.2.3.4\r\n\r\n"
    for clean in (True, False):
        for shown in ((), ("X-Forwarded-Method", "X-Real-IP")):
            _, service = decided(says(PASS), request(head, clean=clean), shown=shown)
            assert len(service.fields()) == 7


def test_only_the_named_fields_are_shown() -> None:
    """requestHeaders is the whole list; framing and forwarding fields are not the client's even if named."""
    names = ("authorization", "RANGE", "X-None", "Content-Length", "X-Real-IP", "Host", "X-Request-ID")
    _, service = decided(says(PASS), request(HEAD), shown=names)
    assert service.fields()[7:] == [("authorization", "Basic eDp5"), ("range", "bytes=0-1")]
    assert [name for name, _ in service.fields()].count("host") == 1


def test_what_is_not_known_is_not_claimed() -> None:
    """No Host in HTTP/1.0, no address behind a Unix socket: then there is no such field."""
    asked = request(b"GET / HTTP/1.0\r\n\r\n")
    asked.client = ""
    _, service = decided(says(PASS), asked)
    assert [name for name, _ in service.fields()] == [
        "host", "x-forwarded-method", "x-forwarded-proto", "x-forwarded-uri", "x-request-id"
    ]  # fmt: skip


@given(
    st.lists(
        st.tuples(
            st.from_regex(rb"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True),
            st.from_regex(rb"[\t -~\x80-\xff]{0,30}", fullmatch=True),
        ),
        max_size=8,
    )
)
@settings(max_examples=100)
def test_every_field_that_the_head_check_lets_through_can_be_asked_with(fields: list[tuple[bytes, bytes]]) -> None:
    """h11, which writes the question, is not stricter than what reads the client's."""
    lines = b"".join(b"%b: %b\r\n" % field for field in fields if field[0].lower() not in REQUEST_SPECIAL)
    asked = request(b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n")
    question = stage("http://127.0.0.1:1/")._question(asked)
    h11.Request(method=b"GET", target="/", headers=[(b"Host", b"a"), *question])


# --- the answer


def test_a_success_lets_pass_with_its_fields() -> None:
    """The named fields go to the backend, several lines joined; one that is missing is withheld, others are ignored."""
    answer = b"HTTP/1.1 204 No Content\r\nX-User: alice\r\nX-Group: a\r\nx-group: b\r\nX-Secret: no\r\n\r\n"
    asked = request()
    outcome, _ = decided(says(answer), asked, copied=("X-User", "X-Group", "X-Tenant"))
    assert outcome is None
    assert asked._forwarded == [(b"X-User", b"alice"), (b"X-Group", b"a, b")]
    assert asked._withheld == {b"x-tenant"}


@pytest.mark.parametrize("status", [302, 401, 403, 404, 429, 500, 503])
def test_anything_else_is_the_answer(status: int) -> None:
    """Status, body and what a client needs of the fields; nothing that is for backends, one hop or the service."""
    answer = (
        b"HTTP/1.1 %d Anything\r\nContent-Type: text/html\r\nlocation: https://login.example/?rd=1\r\n"
        b"WWW-Authenticate: Basic realm=x\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\nX-User: alice\r\n"
        b"Server: s\r\nX-Request-ID: 7\r\nAccess-Control-Allow-Origin: *\r\nConnection: close\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n" % status
    )
    asked = request()
    outcome, _ = decided(says(answer), asked, copied=("X-User",))
    assert isinstance(outcome, Answer)
    assert (outcome.status, outcome.body, outcome.reason) == (status, b"no", "forward_auth")
    assert parse_lines(outcome.lines) == [
        (b"Content-Type", b"text/html"),
        (b"Location", b"https://login.example/?rd=1"),
        (b"WWW-Authenticate", b"Basic realm=x"),
        (b"Set-Cookie", b"a=1; Path=/"),
        (b"Set-Cookie", b"b=2"),
    ]
    assert asked._forwarded is None


def test_interim_answers_are_not_the_answer() -> None:
    """103 and 100 are skipped."""
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    outcome, _ = decided(says(interim + PASS))
    assert outcome is None


def test_an_answer_may_end_with_its_connection() -> None:
    """HTTP/1.0 services have no other way to end a body."""

    async def reply(service: Service, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.0 403 Forbidden\r\n\r\nno")
        return False

    outcome, _ = decided(reply)
    assert isinstance(outcome, Answer)
    assert (outcome.status, outcome.body) == (403, b"no")


# --- what goes wrong: nobody passes


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nX: y\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ],
)
def test_an_answer_that_is_cut(answer: bytes) -> None:
    """Half of a yes is no yes."""

    async def reply(service: Service, writer: asyncio.StreamWriter) -> bool:
        writer.write(answer)
        return False

    assert "closed" in (text := refused(decided(reply)[0], "bad_answer")) or "ends too early" in text


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x15\x03\x03\x00\x02\x02\x46\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nX-User: a\x00b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-User: a\x01b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 401 No\r\nLocation: /\x7f\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad name: x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_HEAD + b"\r\n",
    ],
)
def test_garbage(answer: bytes) -> None:
    """What is not HTTP lets nobody pass, and is not quoted."""
    text = refused(decided(says(answer))[0], "bad_answer")
    assert "OpenSSH" not in text


@pytest.mark.parametrize("framing", [b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1), b"\r\n"])
def test_a_body_that_is_too_large(framing: bytes) -> None:
    """Of a refusal as of a yes; a body of just the limit is none too large."""
    for status in (200, 403):
        answer = b"HTTP/1.1 %d X\r\n%b" % (status, framing) + b"x" * (MAX_BODY + 1)
        assert "larger" in refused(decided(says(answer))[0], "bad_answer")
    outcome, _ = decided(says(b"HTTP/1.1 403 X\r\nContent-Length: %d\r\n\r\n" % MAX_BODY + b"x" * MAX_BODY))
    assert isinstance(outcome, Answer)
    assert len(outcome.body) == MAX_BODY


def test_a_service_that_is_late() -> None:
    """No answer, a head without its end or a body without its end: the time is for all of it."""
    for part in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"):

        async def reply(service: Service, writer: asyncio.StreamWriter, part: bytes = part) -> bool:
            writer.write(part)
            return True

        outcome, service = decided(reply, timeout=0.05)
        assert "0.05 s" in refused(outcome, "timeout")
        assert service.open == 0


def test_a_service_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens, or the name leads nowhere."""

    async def run(url: str) -> Outcome:
        return await stage(url)(request())

    async def nowhere(*asked: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def lost(url: str) -> Outcome:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", nowhere)
        return await run(url)

    async def port() -> int:
        async with serving(says(PASS)) as service:
            return service.port

    assert "cannot connect" in refused(asyncio.run(run(f"http://127.0.0.1:{asyncio.run(port())}/")), "unreachable")
    assert "resolve" in refused(asyncio.run(lost("http://no-such-name.invalid/")), "unreachable")
    assert "looked up" in refused(asyncio.run(run(f"http://{'x' * 64}.example/")), "unreachable")


# --- connections


def test_connections_are_kept() -> None:
    """One after the other needs one connection; an answer that says close ends it."""

    async def run() -> None:
        closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        async with serving(says(PASS, PASS, closing, PASS)) as service:
            made = stage(service.url)
            for _ in range(4):
                assert await made(request()) is None
            assert service.connections == 2
            made.close()
            # A request of an older snapshot may still come: it is answered, and nothing stays open.
            assert await made(request()) is None
            assert service.connections == 3
            await until(lambda: service.open == 0)

    asyncio.run(run())


def test_a_kept_connection_that_was_closed_is_no_failure() -> None:
    """Closed while it was idle, or just when it was asked: another one is used."""

    async def run() -> None:
        turns = 0

        async def reply(service: Service, writer: asyncio.StreamWriter) -> bool:
            nonlocal turns
            turns += 1
            if turns == 2:  # closed instead of answered
                return False
            writer.write(PASS)
            return turns != 3  # closed after the answer

        async with serving(reply) as service:
            client = ServiceClient(service.url)
            assert (await client.ask([], 5.0)).status == 200
            assert client.idle == 1
            assert (await client.ask([], 5.0)).status == 200
            await until(lambda: client.idle == 0)
            assert (await client.ask([], 5.0)).status == 200
            assert service.connections == 3
            client.close()

    asyncio.run(run())


def test_a_new_connection_that_is_closed_is_a_failure() -> None:
    """It is not tried for ever."""

    async def run() -> None:
        async with serving(says(b"")) as service:
            client = ServiceClient(service.url)
            with pytest.raises(AskError) as raised:
                await client.ask([], 5.0)
            assert raised.value.word == "bad_answer"
            assert service.connections == 1

    asyncio.run(run())


@pytest.mark.parametrize("together", [True, False])
def test_bytes_that_nobody_asked_for_are_no_answer(together: bool) -> None:
    """A second answer, with the first or later, is never given to the next question."""

    async def run() -> None:
        forbidden = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
        writers = []

        async def reply(service: Service, writer: asyncio.StreamWriter) -> bool:
            writers.append(writer)
            writer.write(forbidden + (PASS if together else b""))
            return True

        async with serving(reply) as service:
            client = ServiceClient(service.url)
            assert (await client.ask([], 5.0)).status == 403
            if not together:
                assert client.idle == 1
                writers[0].write(PASS)
            await until(lambda: client.idle == 0)
            assert (await client.ask([], 5.0)).status == 403
            assert service.connections == 2
            client.close()

    asyncio.run(run())


def test_a_question_that_was_given_up_leaves_no_answer_behind() -> None:
    """Its connection goes with it: the answer would belong to nobody, or to the wrong one."""

    async def run() -> None:
        async def silent(service: Service, writer: asyncio.StreamWriter) -> bool:
            return True

        async with serving(silent) as service:
            client = ServiceClient(service.url)
            task = asyncio.create_task(client.ask([], 5.0))
            await until(lambda: bool(service.heads))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert client.idle == 0
            await until(lambda: service.open == 0)

    asyncio.run(run())


def test_so_many_questions_at_once_and_no_more() -> None:
    """The others wait for a connection, inside of their time."""

    async def run() -> None:
        release = asyncio.Event()

        async def reply(service: Service, writer: asyncio.StreamWriter) -> bool:
            await release.wait()
            writer.write(PASS)
            return True

        async with serving(reply) as service:
            client = ServiceClient(service.url)
            asks = [asyncio.create_task(client.ask([], 20.0)) for _ in range(MAX_AT_ONCE + 6)]
            await until(lambda: len(service.heads) == MAX_AT_ONCE)
            with pytest.raises(AskError) as raised:
                await client.ask([], 0.05)
            assert raised.value.word == "timeout"
            assert service.connections == MAX_AT_ONCE
            release.set()
            assert {answer.status for answer in await asyncio.gather(*asks)} == {200}
            assert service.connections == MAX_AT_ONCE
            client.close()
            await until(lambda: service.open == 0)

    asyncio.run(run())


def test_idle_connections_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that nobody uses is closed after its time."""
    monkeypatch.setattr(forward_auth_client, "IDLE", 0.01)

    async def run() -> None:
        async with serving(says(PASS)) as service:
            client = ServiceClient(service.url)
            await client.ask([], 5.0)
            await until(lambda: client.idle == 0 and service.open == 0)

    asyncio.run(run())


# --- TLS


def test_a_certificate_must_be_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """https is checked against the trust store, which SSL_CERT_FILE may name."""
    certificate, key = make_certificate(tmp_path)

    async def run() -> Outcome:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate, key)
        async with serving(says(PASS), ssl=tls) as service:
            made = stage(service.url.replace("http:", "https:"))
            outcome = await made(request())
            made.close()
            return outcome

    assert "not trusted" in refused(asyncio.run(run()), "unreachable")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert asyncio.run(run()) is None


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate, private


# --- explain


def test_explain_asks_nobody() -> None:
    """It says who would be asked; the outcome is not known."""
    explained = stage("http://127.0.0.1:1/verify", copied=("X-User",)).explain(request())
    assert explained.outcome is None
    assert "http://127.0.0.1:1/verify" in explained.text
    assert explained.facts == {
        "url": "http://127.0.0.1:1/verify",
        "timeout": 5.0,
        "request_headers": "all",
        "response_headers": ["X-User"],
    }
