"""Thousands of mutated requests through a whole gateway: what the backend sees is valid, counted and what was sent.

A strict backend of its own grammar (strict_backend) stands behind two workers; the clients send raw bytes (mutations)
and never close first. GOGATE_SOAK=1 makes it long; GOGATE_SEED=n starts with another number.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
import re
from typing import Any
from urllib.parse import unquote_to_bytes

from doubles.configs import http_gateway
from doubles.gateway import Gateway, wait_for
from mutations import Stream, stream
from raw_client import Answer, BadAnswer, read_answers, talk
from strict_backend import StrictBackend

SOAK = bool(os.environ.get("GOGATE_SOAK"))
STREAMS = 500_000 if SOAK else 8000
SEED = int(os.environ.get("GOGATE_SEED", "1"))
AT_ONCE = 500
#: Short, so that what is never completed ends soon; drips and slow peers are test_slow_peers' business.
TIMEOUTS: dict[str, Any] = {"requestHeader": "700ms", "idle": "300ms", "bodyIdle": "1s", "responseHeader": "5s"}

#: A control byte, a bare CR or LF, a blank before a colon or at the start of a line.
AMBIGUOUS = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n|\r\n[ \t]|\r\n[^:\r\n]*[ \t]:")
CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t -~\x80-\xff]*)?\r\n")


def messages(data: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """(method, target, body) of the requests at the start of ``data``, as a simple and strict parser reads them.

    Where it finds anything that two parsers could read in two ways it stops: what gogate accepts behind that is wrong.
    """
    found: list[tuple[bytes, bytes, bytes]] = []
    while True:
        data = data.removeprefix(b"\r\n")
        head, end, rest = data.partition(b"\r\n\r\n")
        line, _, section = head.partition(b"\r\n")
        words = line.split(b" ")
        fields = [field.partition(b":")[::2] for field in section.split(b"\r\n")] if section else []
        lengths = [value.strip(b" \t") for name, value in fields if name.lower() == b"content-length"]
        codings = [value.strip(b" ").lower() for name, value in fields if name.lower() == b"transfer-encoding"]
        if not end or len(words) != 3 or AMBIGUOUS.search(head + b"\r\n") or len(lengths + codings) > 1:
            return found
        body = b""
        if codings:
            if codings != [b"chunked"]:
                return found
            count = -1
            while count:
                chunk = CHUNK.match(rest)
                if chunk is None:
                    return found
                count, start = int(chunk[1], 16), chunk.end()
                body += rest[start : start + count]
                rest = rest[start + count :]
                if count and not rest.startswith(b"\r\n"):
                    return found
                rest = rest[2:] if count else rest
            while not rest.startswith(b"\r\n"):
                trailer, end, rest = rest.partition(b"\r\n")
                if not end or AMBIGUOUS.search(trailer):
                    return found
            rest = rest[2:]
        elif lengths:
            if re.fullmatch(rb"[0-9]+", lengths[0]) is None or len(rest) < int(lengths[0]):
                return found
            body, rest = rest[: int(lengths[0])], rest[int(lengths[0]) :]
        found.append((words[0], words[1], body))
        data = rest


def same_target(method: bytes, sent: bytes, seen: bytes) -> bool:
    """Whether the path as sent and the one that gogate made of it lead to the same resource."""
    sent = re.sub(rb"^https?://[^/?]*", b"", sent, flags=re.IGNORECASE)
    if method == b"OPTIONS" and not sent:  # about the server as a whole (RFC 9112 section 3.2.4)
        sent = b"*"
    path, mark, query = sent.partition(b"?")
    seen_path, seen_mark, seen_query = seen.partition(b"?")
    if (mark, query) != (seen_mark, seen_query):
        return False
    wanted = posixpath.normpath(re.sub(rb"//+", b"/", unquote_to_bytes(path or b"/")))
    return wanted == posixpath.normpath(unquote_to_bytes(seen_path))


def check_answers(sent: Stream, answers: list[Answer], backend: StrictBackend) -> list[str]:
    """What is wrong with the answers to one stream."""
    wrong = []
    own = [answer for answer in answers if answer.number < 0]
    if own and (own != answers[-1:] or not own[0].closes or not 400 <= own[0].status <= 505 or own[0].status == 500):
        wrong.append(f"gogate's own answers: {[(answer.status, answer.closes) for answer in own]}")
    if own and own[0].status in (502, 503, 504):
        wrong.append(f"the backend was blamed: {own[0].body!r}")
    got = [backend.requests[answer.number] for answer in answers if answer.number >= 0]
    for seen, (method, target, body) in zip(got, [*messages(sent.data), *[(b"", b"", b"")] * len(got)], strict=False):
        if seen.method != method or seen.body != body or not same_target(method, target, seen.target):
            wrong.append(f"sent {method!r} {target!r} {body!r}, the backend saw {seen!r}")
    return [f"{what}\n  {sent!r}" for what in wrong]


async def send_all(gateway: Gateway, backend: StrictBackend) -> tuple[list[str], list[int], dict[int, int]]:
    """Send every stream → (what is wrong, numbers of the answered requests, how often each status was answered)."""
    host, port = gateway.address("http:default")
    slots = asyncio.Semaphore(AT_ONCE)
    wrong: list[str] = []
    answered: list[int] = []
    statuses: dict[int, int] = {}

    async def one(seed: int) -> None:
        sent = stream(seed)
        async with slots:
            try:
                received, ending = await talk(host, port, sent.pieces())
                answers = read_answers(received)
            except TimeoutError:
                wrong.append(f"no end\n  {sent!r}")
                return
            except BadAnswer as bad:
                wrong.append(f"bad answer: {bad}\n  {sent!r}")
                return
        if ending == "reset" and not answers:  # a client must be told, not only cut off
            wrong.append(f"reset without an answer\n  {sent!r}")
        answered.extend(answer.number for answer in answers if answer.number >= 0)
        for answer in answers:
            statuses[answer.status] = statuses.get(answer.status, 0) + 1
        wrong.extend(check_answers(sent, answers, backend))

    async with asyncio.TaskGroup() as group:
        for seed in range(SEED * 1_000_000, SEED * 1_000_000 + STREAMS):
            if len(group._tasks) > 4 * AT_ONCE:  # type: ignore[attr-defined]  # a bound on memory, in the long run
                await asyncio.sleep(0.05)
            group.create_task(one(seed))
    return wrong, answered, statuses


def test_backend_sees_only_what_is_valid_and_answered() -> None:
    """Whatever clients send: a backend gets canonical requests only, exactly those that are answered; nothing hangs.

    And: every answer is well-formed, each request arrives as the only reading of its bytes, no worker dies.
    """
    with StrictBackend() as backend:
        config = http_gateway(backend.address, timeouts=TIMEOUTS, limits={"inFlight": 5000})
        with Gateway(config) as gateway:
            pids = gateway.pids()
            wrong, answered, statuses = asyncio.run(send_all(gateway, backend))
            assert not backend.violations, backend.violations[:5]
            assert not wrong, f"{len(wrong)}: " + "\n".join(wrong[:5])
            numbers = [seen.number for seen in backend.requests]
            assert sorted(answered) == numbers, set(numbers) ^ set(answered)
            assert statuses[200] > STREAMS // 20, statuses
            assert sum(count for status, count in statuses.items() if status >= 400) > STREAMS // 3, statuses
            assert {400, 414, 417, 431, 501, 505, 405} <= set(statuses)
            wait_for(lambda: gateway.metric("gogate_http_requests_in_flight") == 0, what="the end of every exchange")
            assert gateway.metric("gogate_internal_errors_total") == 0
            assert gateway.pids() == pids
            assert gateway.get("/alive")[0] == 200
        assert not gateway.broken


def test_the_strict_backend_sees_what_is_wrong() -> None:
    """The backend that judges gogate refuses each of these, and takes a canonical request: it could fail."""
    good = (
        b"GET /a HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n"
        b"X-Real-IP: 127.0.0.1\r\nX-Request-ID: x\r\n\r\n"
    )
    bad = [
        good.replace(b"/a", b"/a//b"), good.replace(b"/a", b"/%41"), good.replace(b"/a", b"/a%2Fb"),
        good.replace(b"/a", b"/./a"), good.replace(b"HTTP/1.1", b"HTTP/1.0"), good.replace(b"Host: a\r\n", b""),
        good.replace(b"Host: a\r\n", b"Host: a\r\n" * 2),
        good.replace(b"Host: a", b"Host: a\nX: y"), good.replace(b"Host: a", b"Host: a\r\nX_Y: y"),
        good.replace(b"Host: a", b"Host: a\r\nContent-Length: 05"),
        good.replace(b"Host: a", b"Host: a\r\nTE: trailers"),
        good.replace(b"Host: a", b"Host: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked"),
        good.replace(b"Host: a", b"Host: a\r\n folded"), good.replace(b"Host: a", b"Host: a\r\nX: \x01"),
        good.replace(b"Host: a", b"Host: a\r\nTransfer-Encoding: chunked") + b"05\r\nhello\r\n0\r\n\r\n",
        good.replace(b"Host: a", b"Host: a\r\nTransfer-Encoding: chunked") + b"5;x\r\nhello\r\n0\r\n\r\n",
        good.replace(b"Host: a", b"Host: a\r\nTransfer-Encoding: chunked") + b"0\r\nX: y\r\n\r\n",
    ]
    with StrictBackend() as backend:
        for data in [good, *bad]:

            async def exchange(data: bytes = data) -> None:
                reader, writer = await asyncio.open_connection("127.0.0.1", backend.port)
                writer.write(data)
                writer.write_eof()
                await reader.read()
                writer.close()

            asyncio.run(exchange())
        assert [seen.target for seen in backend.requests] == [b"/a"]
        assert len(backend.violations) == len(bad)


def test_reading_of_bytes() -> None:
    """The parser that judges reads what was sent, message after message, and stops where it is ambiguous."""
    assert messages(
        b"\r\nGET /a HTTP/1.1\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 2\r\n\r\nhiPUT /c HTTP/1.1\r\n\r\n"
    ) == [(b"GET", b"/a", b""), (b"POST", b"/b", b"hi"), (b"PUT", b"/c", b"")]
    assert messages(
        b"PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n0\r\nT: 1\r\n\r\n"
        b"GET /b HTTP/1.1\r\n\r\n"
    ) == [(b"PUT", b"/a", b"hi"), (b"GET", b"/b", b"")]
    both = b"Content-Length: 1\r\nTransfer-Encoding: chunked"
    for ambiguous in (b"X: a\nY: b", b"X : a", b"X: \x01", both, b" X: a"):
        assert messages(b"GET / HTTP/1.1\r\nA: b\r\n" + ambiguous + b"\r\n\r\n0\r\n\r\n") == []
