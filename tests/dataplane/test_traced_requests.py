"""Traces over a real data plane: who is whose parent, what backends and clients see, what the spans say."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from doubles.http_plane import RETRY, HttpPlane, field, fields_of, run, until
from doubles.stub_upstream import StubUpstream, answer, answering

from gogate_py.messages import Span, Spans
from gogate_py.snapshot import ApiKeyAuth, Decisions, FieldEdits, Snapshot, Tracing

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
OURS = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-0([01])").fullmatch


class Bed(HttpPlane):
    """With traces."""

    sample = 0.0
    on = True
    trusted_only = False

    def snapshot(self) -> Snapshot:
        tracing = Tracing(self.sample, self.trusted_only) if self.on else None
        return msgspec.structs.replace(super().snapshot(), tracing=tracing, decisions=Decisions(keep=50))

    def spans(self) -> list[Span]:
        """All so far."""
        self.site.decisions.flush()
        return [span for message in self.outbox.messages if isinstance(message, Spans) for span in message.spans]


def bed_of(*backends: StubUpstream, sample: float = 0.0, **settings: Any) -> Bed:
    bed = Bed(*backends, **settings)
    bed.sample = sample
    bed.backups = set(range(1, len(backends)))
    return bed


def sent(backend: StubUpstream) -> str | None:
    """The traceparent that a backend saw last."""
    return field(b"\r\n" + backend.received.split(b"\r\n\r\n")[-2] + b"\r\n\r\n", "traceparent")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("fields", ["", "X-Forwarded-Proto: x\r\n", "TE: trailers\r\n"], ids=["slice", "apart", "anew"])
def test_parent_sampled(method: str, fields: str) -> None:
    """A sampled parent: a server span below it, a client span below that, which the backend gets as its parent."""

    async def main() -> None:
        backend = StubUpstream()
        async with bed_of(backend) as bed:
            client = await bed.client()
            lines = f"traceparent: {SAMPLED}\r\ntracestate: a=1,b=2\r\nX-Request-ID: mine\r\n{fields}"
            await client.send(f"{method} /p?x=1&token=s3cret HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n".encode())
            assert (await client.response()).status == 200
            server, call = bed.spans()
            assert (server.trace_id, server.parent_id, server.kind) == (TRACE.encode(), SPAN.encode(), 2)
            assert (call.trace_id, call.parent_id, call.kind) == (server.trace_id, server.span_id, 3)
            assert sent(backend) == f"00-{TRACE}-{call.span_id.decode()}-01"
            assert field(backend.received, "tracestate") == server.trace_state == "a=1,b=2"
            assert server.start_ns <= call.start_ns <= call.end_ns <= server.end_ns
            of_server, of_call = dict(server.attributes), dict(call.attributes)
            assert (server.name, server.failed) == (f"{method} /", False)
            assert of_server["http.request.method"] == of_call["http.request.method"] == method
            assert of_server["http.response.status_code"] == of_call["http.response.status_code"] == 200
            assert (of_server["url.path"], of_server["url.query"]) == ("/p", "x=1&token=[redacted]")
            assert (of_server["server.address"], of_server["server.port"]) == ("a.test", 80)
            assert of_server["http.request.header.x-request-id"] == ["mine"]
            assert of_server["gogate.route"] == "all"
            assert of_call["url.full"] == f"http://{backend.address}/p?x=1&token=[redacted]"
            assert of_call["server.port"] == backend.port
            assert "http.request.resend_count" not in of_call

    run(main())


@pytest.mark.parametrize("spelling", ["traceparent", "Traceparent", "TRACEPARENT"])
def test_parent_not_sampled(spelling: str) -> None:
    """The parent's decision is ours, whatever ``sample`` says; the backend gets what we got, once."""

    async def main() -> None:
        backend = StubUpstream()
        async with bed_of(backend, sample=1.0) as bed:
            client = await bed.client()
            assert (await client.get(fields=f"{spelling}: {UNSAMPLED}\r\n")).status == 200
            assert sent(backend) == UNSAMPLED
            assert bed.spans() == []

    run(main())


HOSTILE = [
    "traceparent: x", f"traceparent: {SAMPLED}\r\ntraceparent: {SAMPLED}", f"traceparent: {SAMPLED.upper()}",
    f"TRACEPARENT: ff{SAMPLED[2:]}", f"traceparent: 00-{'0' * 32}-{SPAN}-01", f"traceparent: {SAMPLED}-more",
    f"traceparent: {SAMPLED},{SAMPLED}", "Traceparent:", f"traceParent: {SAMPLED}' or 1=1 --",
]  # fmt: skip


@pytest.mark.parametrize("sample", [0.0, 1.0])
@pytest.mark.parametrize("line", HOSTILE)
def test_hostile_parents_are_replaced(line: str, sample: float) -> None:
    """What is not a traceparent goes nowhere, and neither does the tracestate beside it; the trace is a new one."""

    async def main() -> None:
        backend = StubUpstream()
        async with bed_of(backend, sample=sample) as bed:
            client = await bed.client()
            assert (await client.get(fields=f"{line}\r\ntracestate: a=1\r\n")).status == 200
            found = OURS(sent(backend) or "")
            assert found is not None
            assert (found[1] != TRACE, found[3]) == (True, str(int(sample)))
            assert field(backend.received, "tracestate") is None
            assert len(bed.spans()) == 2 * int(sample)

    run(main())


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("sample", [0.0, 1.0])
def test_without_a_parent(method: str, sample: float) -> None:
    """A new trace; the backend is told whether it is sampled. Ids differ from request to request."""

    async def main() -> None:
        backend = StubUpstream()
        async with bed_of(backend, sample=sample) as bed:
            client = await bed.client()
            seen = set()
            for _ in range(3):
                body = "Content-Length: 2\r\n\r\nab" if method == "POST" else "\r\n"
                await client.send(f"{method} / HTTP/1.1\r\nHost: a.test\r\n{body}".encode())
                await client.response()
            for name, value in fields_of(backend.received):
                if name == "traceparent":
                    found = OURS(value)
                    assert found is not None
                    assert found[3] == str(int(sample))
                    seen.add(found[1])
            assert len(seen) == 3
            spans = bed.spans()
            assert len(spans) == 6 * int(sample)
            assert {span.trace_id.decode() for span in spans} == (seen if sample else set())
            assert [span.parent_id for span in spans if span.kind == 2] == [b""] * 3 * int(sample)

    run(main())


def test_retries_are_spans() -> None:
    """Each try is a client span with its own outcome, and a traceparent of its own; one route edits fields."""

    async def main() -> None:
        bad, good = StubUpstream(answering(answer(b"", "503 Busy"))), StubUpstream()
        retry = msgspec.structs.replace(RETRY, backoff=0.0, budget_percent=0)
        edits = FieldEdits(set=(("X-Env", "prod"),))
        async with bed_of(bad, good, sample=1.0, routes=({"retry": retry, "request_fields": edits},)) as bed:
            client = await bed.client()
            assert (await client.get()).status == 200
            server, first, second = bed.spans()
            assert first.parent_id == second.parent_id == server.span_id
            for span, backend in ((first, bad), (second, good)):
                assert sent(backend) == f"00-{server.trace_id.decode()}-{span.span_id.decode()}-01"
                assert field(backend.received, "x-env") == "prod"
            assert (first.failed, second.failed, server.failed) == (True, False, False)
            assert dict(first.attributes)["error.type"] == "503"
            assert dict(second.attributes)["http.request.resend_count"] == 1
            (summary,) = bed.site.decisions.newest(9, "", 0)
            assert (summary.kept, summary.trace_id) == ("traced", server.trace_id.decode())

    run(main())


def test_failures() -> None:
    """A backend that refuses: both spans have failed, with gogate's reason; a refusal by a stage has no client span."""

    async def main() -> None:
        backend = StubUpstream()
        auth = ApiKeyAuth((), "X-Key", "mykey")
        routes = ({"name": "locked", "path_prefix": "/locked", "auth": auth}, {"retry": None})
        async with bed_of(backend, sample=1.0, routes=routes) as bed:
            await backend.refuse()
            client = await bed.client()
            assert (await client.get()).status == 502
            server, call = bed.spans()
            assert (server.failed, call.failed) == (True, True)
            assert dict(server.attributes)["error.type"] == dict(call.attributes)["error.type"] == "connect_failed"
            assert (await client.get("/locked?mykey=s3cret")).status == 401
            refused = bed.spans()[2:]
            assert [(one.kind, one.failed) for one in refused] == [(2, False)]
            assert dict(refused[0].attributes)["gogate.reason"] == "unauthorized"
            assert dict(refused[0].attributes)["url.query"] == "mykey=[redacted]"

    run(main())


def test_edited_but_not_sampled() -> None:
    """Where a route changes fields the head is written anew: our line is still in it."""

    async def main() -> None:
        backend = StubUpstream()
        routes = ({"request_fields": FieldEdits(set=(("X-Env", "prod"),))},)
        async with bed_of(backend, routes=routes) as bed:
            await (await bed.client()).get()
            assert OURS(sent(backend) or "") is not None

    run(main())


def test_off_and_on() -> None:
    """Off: a traceparent is a field like others, and none is added. A snapshot switches it."""

    async def main() -> None:
        backend = StubUpstream()
        bed = bed_of(backend, sample=1.0)
        bed.on = False
        async with bed:
            client = await bed.client()
            await client.get(fields="TraceParent: whatever\r\n")
            assert field(backend.received, "traceparent") == "whatever"
            await client.get()
            assert backend.received.lower().count(b"traceparent") == 1
            bed.on = True
            await bed.apply()
            await client.get()
            await until(lambda: len(bed.spans()) == 2)
            bed.on = False
            await bed.apply()
            await client.get()
            assert len(bed.spans()) == 2

    run(main())


def test_a_supervisor_that_is_behind() -> None:
    """Spans that the supervisor has no room for are dropped and counted; requests go on."""

    async def main() -> None:
        async with bed_of(StubUpstream(), sample=1.0) as bed:
            bed.outbox.backlog = lambda: 1 << 30  # type: ignore[method-assign]
            client = await bed.client()
            for _ in range(3):
                assert (await client.get()).status == 200
            bed.site.decisions.flush()
            counters = bed.plane._report.collect().counters
            assert ("gogate_trace_spans_total", ("worker_backlog",), 6) in counters

    run(main())


@pytest.mark.parametrize("trusted", [False, True], ids=["anybody", "trusted proxy"])
@pytest.mark.parametrize("parent", [SAMPLED, UNSAMPLED])
@pytest.mark.parametrize(
    "head",
    [
        "GET / HTTP/1.1\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 0\r\n",
        "GET / HTTP/1.1\r\nX-Forwarded-Proto: x\r\n",
        "GET / HTTP/1.1\r\nTE: trailers\r\n",
    ],
)
def test_only_trusted_proxies_decide_where_that_is_asked_for(head: str, parent: str, trusted: bool) -> None:
    """Anybody else's traceparent and tracestate are replaced by a new trace, which is sampled by chance."""

    async def main() -> None:
        backend = StubUpstream()
        bed = bed_of(backend, trusted=("127.0.0.0/8",) if trusted else ())
        bed.trusted_only = True
        async with bed:
            client = await bed.client()
            await client.send(f"{head}Host: a.test\r\ntraceparent: {parent}\r\ntracestate: a=1\r\n\r\n".encode())
            assert (await client.response()).status == 200
            found = OURS(sent(backend) or "")
            assert found is not None
            if trusted:
                assert (found[1], found[3]) == (TRACE, parent[-1])
                assert bool(bed.spans()) is (parent is SAMPLED)
                assert field(backend.received, "tracestate") == "a=1"
            else:
                assert (found[1] != TRACE, found[3]) == (True, "0")
                assert bed.spans() == []
                assert field(backend.received, "tracestate") is None

    run(main())


def test_an_untrusted_parent_is_replaced_by_a_trace_that_may_be_sampled() -> None:
    """Whatever the client said; also where it would have gone on as it came."""

    async def main() -> None:
        backend = StubUpstream()
        bed = bed_of(backend, sample=1.0)
        bed.trusted_only = True
        async with bed:
            client = await bed.client()
            await client.send(f"GET / HTTP/1.1\r\nHost: a.test\r\ntraceparent: {UNSAMPLED}\r\n\r\n".encode())
            assert (await client.response()).status == 200
            server, call = bed.spans()
            assert (server.parent_id, server.trace_id != TRACE.encode()) == (b"", True)
            assert sent(backend) == f"00-{server.trace_id.decode()}-{call.span_id.decode()}-01"

    run(main())
