"""Backends that lie: what they say wrong becomes a 502 or a cut, never a clean answer, and their connection is dropped.

Each answer is given through a whole gateway. One request gets the hostile bytes; another one follows, and must be
answered properly, over another connection wherever the first one cannot be trusted any more (T20).
"""

from __future__ import annotations

import os
import random
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from doubles.configs import http_gateway
from doubles.gateway import Gateway, wait_for
from mutations import DISAGREED
from scripted_backend import ScriptedBackend, Talk

GOOD = b"HTTP/1.1 200 OK\r\nX-Good: yes\r\nContent-Length: 4\r\n\r\ngood"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
TRIES = 200_000 if os.environ.get("GOGATE_SOAK") else 4000


@dataclass
class Result:
    """What a client got: ``status`` 0 for nothing; ``complete`` when the answer ended as its framing says."""

    status: int
    head: bytes
    body: bytes
    complete: bool


def ask(gateway: Gateway, path: str, method: str = "GET", extra: bytes = b"") -> Result:
    """One request on a connection of its own, read to the end of the connection."""
    request = f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n".encode() + extra + b"\r\n"
    with socket.create_connection(gateway.address("http:default"), timeout=15) as sock:
        sock.sendall(request)
        data = b""
        reset = False
        try:
            while piece := sock.recv(65536):
                data += piece
        except ConnectionError:
            reset = True
    return read(data, reset, method)


def read(data: bytes, reset: bool, method: str) -> Result:
    """Take a client's bytes apart."""
    while data.startswith(b"HTTP/1.1 1") and not data.startswith(b"HTTP/1.1 101"):
        data = data.partition(b"\r\n\r\n")[2]
    head, end, body = data.partition(b"\r\n\r\n")
    line = re.match(rb"HTTP/1\.1 ([2-5][0-9][0-9]) [\t -~\x80-\xff]*\r\n", head + b"\r\n")
    if not end or line is None:
        return Result(0, head, b"", False)
    status = int(line[1])
    length = re.search(rb"\r\nContent-Length: ([0-9]+)(?:\r|$)", head, re.IGNORECASE)
    if method == "HEAD" or status in (204, 304):
        return Result(status, head, body, not body and not reset)
    if length:
        return Result(status, head, body, len(body) == int(length[1]))
    assert b"Transfer-Encoding: chunked" in head
    payload = b""
    while chunk := re.match(rb"([0-9a-f]+)\r\n", body):
        size = int(chunk[1], 16)
        if not size:
            return Result(status, head, payload, body == b"0\r\n\r\n")
        payload += body[chunk.end() : chunk.end() + size]
        body = body[chunk.end() + size + 2 :]
    return Result(status, head, payload, False)


class Stage:
    """A gateway and a backend that answers /hostile with ``pieces`` and everything else well.

    ``then``: what it does behind the pieces: "wait" for another request, "close", "reset", or "speak" (say ``unasked``
    when the answer is complete, then wait for the end).
    """

    def __init__(self) -> None:
        self.backend = ScriptedBackend(self._script)
        self.gateway: Gateway
        self.pieces: tuple[bytes, ...] = ()
        self.then = "wait"
        self.unasked = b""
        self.ended = 0  # connections that the gateway closed after they spoke

    def says(self, *pieces: bytes, then: str = "wait") -> None:
        """Set what /hostile is answered with."""
        self.pieces, self.then = pieces, then

    def _script(self, talk: Talk) -> None:
        while True:
            if b" /hostile" not in talk.request():
                talk.send(GOOD)
                continue
            talk.send(*self.pieces)
            if self.then == "close":
                talk.half_close()
                return
            if self.then == "reset":
                talk.reset()
                return
            if self.then == "speak":
                wait_for(lambda: self.gateway.metric("gogate_http_requests_in_flight") == 0, what="the answer's end")
                talk.send(self.unasked)
                talk.drain()
                self.ended += 1
                return


#: Answers that gogate must not pass on: 502 whatever they say.
REFUSED = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "status 000": b"HTTP/1.1 000 x\r\nContent-Length: 0\r\n\r\n",
    "status 999": b"HTTP/1.1 999 x\r\nContent-Length: 0\r\n\r\n",
    "status 600": b"HTTP/1.1 600 x\r\nContent-Length: 0\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 x\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "ICY": b"ICY 200 OK\r\n\r\n",
    "two lengths": OK + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nevil!",
    "equal lengths": OK + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nevil",
    "list of lengths": OK + b"Content-Length: 4, 4\r\n\r\nevil",
    "signed length": OK + b"Content-Length: +4\r\n\r\nevil",
    "hexadecimal length": OK + b"Content-Length: 0x4\r\n\r\nevil",
    "huge length": OK + b"Content-Length: 99999999999999999999\r\n\r\nevil",
    "empty length": OK + b"Content-Length: \r\n\r\nevil",
    "length and chunked": OK + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    "gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    "xchunked": OK + b"Transfer-Encoding: xchunked\r\n\r\nevil",
    "coding in 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    "folded field": OK + b"X-A: b\r\n c\r\nContent-Length: 4\r\n\r\nevil",
    "blank before colon": OK + b"Content-Length : 4\r\n\r\nevil",
    "bare LF": OK + b"X-A: b\nX-B: c\r\nContent-Length: 4\r\n\r\nevil",
    "bare CR": OK + b"X-A: b\rX-B: c\r\nContent-Length: 4\r\n\r\nevil",
    "NUL in a value": OK + b"X-A: b\x00\r\nContent-Length: 4\r\n\r\nevil",
    "no name": OK + b": b\r\nContent-Length: 4\r\n\r\nevil",
    "no colon": OK + b"X-A\r\nContent-Length: 4\r\n\r\nevil",
    "head over the limit": OK + b"X-A: " + b"a" * 70_000 + b"\r\nContent-Length: 4\r\n\r\nevil",
    "head without end": OK + b"X-A: " + b"a" * 200_000,
    "too many fields": OK + b"X-A: b\r\n" * 129 + b"Content-Length: 4\r\n\r\nevil",
    "nine interim answers": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9 + GOOD,
    "thousands of interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 5000,
    "switch that nobody asked for": b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "interim with a coding": b"HTTP/1.1 103 x\r\nTransfer-Encoding: chunked\r\n\r\n" + GOOD,
    "empty lines first": b"\r\n\r\n" + GOOD,
}

#: Answers that begin well: the head is out before the fault shows, so the client is cut, and never gets a clean end.
CUT = {
    "bad chunk size": (CHUNKED + b"4\r\npart\r\nxyz\r\n", "wait"),
    "chunk size with 0x": (CHUNKED + b"4\r\npart\r\n0x4\r\nevil\r\n0\r\n\r\n", "wait"),
    "chunk without CRLF": (CHUNKED + b"4\r\npartXX0\r\n\r\n", "wait"),
    "chunk lines by LF": (CHUNKED + b"4\r\npart\r\n4\nevil\n0\n\n", "wait"),
    "endless extension": (CHUNKED + b"4\r\npart\r\n4;" + b"a" * 10_000, "wait"),
    "bad trailer": (CHUNKED + b"4\r\npart\r\n0\r\nX : y\r\n\r\n", "wait"),
    "framing in a trailer": (CHUNKED + b"4\r\npart\r\n0\r\nContent-Length: 9\r\n\r\n", "wait"),
    "chunked ends early": (CHUNKED + b"4\r\npart\r\n", "close"),
    "chunked ends without trailers' end": (CHUNKED + b"4\r\npart\r\n0\r\n", "close"),
    "chunked is reset": (CHUNKED + b"4\r\npart\r\n", "reset"),
    "length ends early": (OK + b"Content-Length: 9\r\n\r\npart", "close"),
    "length is reset": (OK + b"Content-Length: 9\r\n\r\npart", "reset"),
}

#: Good answers after which nothing on the connection can be trusted.
NOT_POOLED = {
    "surplus behind a length": GOOD + OK + b"Content-Length: 4\r\n\r\nevil",
    "surplus behind chunks": CHUNKED + b"4\r\ngood\r\n0\r\n\r\nHTTP/1.1 200 evil",
    "close": OK + b"X-Good: yes\r\nConnection: close\r\nContent-Length: 4\r\n\r\ngood",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nX-Good: yes\r\nContent-Length: 4\r\n\r\ngood",
    "close among others": OK + b"X-Good: yes\r\nConnection: keep-alive, close\r\nContent-Length: 4\r\n\r\ngood",
}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """One gateway with one worker, so that a connection that was kept would be the one used next."""
    stage = Stage()
    with stage.backend as backend, Gateway(
        http_gateway(backend.address, workers=1, timeouts={"responseHeader": "1s", "bodyIdle": "2s"})
    ) as gateway:
        stage.gateway = gateway
        pids = gateway.pids()
        yield stage
        wait_for(lambda: gateway.metric("gogate_http_requests_in_flight") == 0, what="the end of every exchange")
        assert gateway.metric("gogate_internal_errors_total") == 0
        assert gateway.pids() == pids


def still_good(gateway: Gateway) -> None:
    """The next request is answered by the backend, and by nothing that an earlier answer left over."""
    result = ask(gateway, "/next")
    assert (result.status, result.body, result.complete) == (200, b"good", True)
    assert b"X-Good: yes" in result.head


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
def test_bad_answers_are_502(stage: Stage, name: str, cut: bool) -> None:
    """A bad head, framing or status is a 502 of gogate's own; its connection is never used again."""
    gateway = stage.gateway
    data = REFUSED[name]
    pieces = [data[start : start + 997] for start in range(0, len(data), 997)] if len(data) > 2000 else [data]
    if cut:
        middle = len(data) // 2
        pieces = [data[:middle], data[middle:]]
    stage.says(*pieces)
    result = ask(gateway, "/hostile")
    assert (result.status, result.complete) == (502, True), result
    assert b"evil" not in result.body
    assert b"application/problem+json" in result.head
    still_good(gateway)


@pytest.mark.slow
@pytest.mark.parametrize("name", CUT)
def test_answers_that_go_wrong_later_are_cut(stage: Stage, name: str) -> None:
    """A fault behind the head never looks like an end: chunks stay open, a length stays unfulfilled."""
    gateway = stage.gateway
    data, then = CUT[name]
    stage.says(data, then=then)
    result = ask(gateway, "/hostile")
    if result.status == 502:  # the fault came with the head
        assert result.complete
        assert b"part" not in result.body
    else:
        assert not result.complete, result
        assert b"part".startswith(result.body)
    assert b"evil" not in result.body
    still_good(gateway)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOT_POOLED)
def test_connections_that_cannot_be_trusted_are_not_kept(stage: Stage, name: str) -> None:
    """The answer is passed on, without a byte of what came behind it; the next request goes over another connection."""
    gateway = stage.gateway
    stage.says(NOT_POOLED[name])
    result = ask(gateway, "/hostile")
    assert (result.status, result.body, result.complete) == (200, b"good", True)
    before = stage.backend.connections
    still_good(gateway)
    assert stage.backend.connections == before + 1


@pytest.mark.slow
def test_bytes_that_nobody_asked_for(stage: Stage) -> None:
    """What an idle connection says on its own is nobody's answer: the connection is dropped (R2)."""
    gateway = stage.gateway
    stage.unasked = OK + b"Content-Length: 4\r\n\r\nevil"
    stage.says(GOOD, then="speak")
    ended = stage.ended
    with socket.create_connection(gateway.address("http:default"), timeout=15) as sock:
        sock.sendall(b"GET /hostile HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sock.recv(65536).endswith(b"good")
        wait_for(lambda: stage.ended == ended + 1, what="the gateway to drop the connection")
        sock.sendall(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sock.recv(65536).endswith(b"good")


@pytest.mark.slow
@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_statuses_without_a_body_have_none(stage: Stage, status: bytes) -> None:
    """204 and 304 end at their head, whatever they announce or send; the connection goes."""
    gateway = stage.gateway
    stage.says(b"HTTP/1.1 " + status + b"\r\nContent-Length: 4\r\n\r\nevil")
    result = ask(gateway, "/hostile")
    assert (result.status, result.body, result.complete) == (int(status[:3]), b"", True)
    still_good(gateway)


@pytest.mark.slow
def test_an_answer_to_head_has_no_body(stage: Stage) -> None:
    """An answer to HEAD ends at its head; a body that a backend sends nevertheless is not the next answer (R3)."""
    gateway = stage.gateway
    stage.says(OK + b"Content-Length: 4\r\n\r\nevil")
    result = ask(gateway, "/hostile", "HEAD")
    assert (result.status, result.body, result.complete) == (200, b"", True)
    still_good(gateway)


@pytest.mark.slow
def test_a_switch_to_another_protocol_is_refused(stage: Stage) -> None:
    """A 101 that names another protocol than the WebSocket that was asked for is a 502 (R4)."""
    gateway = stage.gateway
    stage.says(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nevil")
    with socket.create_connection(gateway.address("http:default"), timeout=15) as sock:
        sock.sendall(
            b"GET /hostile HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert sock.recv(65536).startswith(b"HTTP/1.1 502 ")
    still_good(gateway)


@pytest.mark.slow
def test_a_backend_that_says_nothing(stage: Stage) -> None:
    """A backend that hangs before its answer is a 504, one that closes before it a 502 (F1, F3)."""
    gateway = stage.gateway
    stage.says(b"")
    assert ask(gateway, "/hostile").status == 504
    stage.says(b"HTTP/1.1 200 O")
    assert ask(gateway, "/hostile").status == 504
    stage.says(b"HTTP/1.1 200 O", then="close")
    assert ask(gateway, "/hostile").status == 502
    stage.says(b"", then="reset")
    assert ask(gateway, "/hostile", "POST", b"Content-Length: 0\r\n").status == 502
    still_good(gateway)


MUTABLE = (
    GOOD,
    CHUNKED + b"4\r\ngood\r\n6;a=b\r\n again\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + GOOD,
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\ngood",
    b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n",
)


@pytest.mark.slow
def test_mutated_answers(stage: Stage) -> None:
    """Thousands of mutated answers: each becomes a well-formed answer or a cut, and the next one is good again."""
    gateway = stage.gateway
    chance = random.Random(7)
    statuses: dict[int, int] = {}
    for number in range(TRIES):
        data = chance.choice(MUTABLE)
        for _ in range(chance.choice((1, 1, 2, 3))):
            at = chance.randrange(len(data))
            kind = chance.randrange(4)
            if kind == 0:
                data = data[:at] + chance.choice(DISAGREED) + data[at:]
            elif kind == 1:
                data = data[:at] + chance.choice(DISAGREED) + data[at + 1 :]
            elif kind == 2:
                data = data[:at] + bytes((data[at] ^ 1 << chance.randrange(8),)) + data[at + 1 :]
            else:
                data = data[:at] + data[at + chance.randint(1, 4) :]
        stage.says(data[: len(data) // 2], data[len(data) // 2 :], then="close")
        result = ask(gateway, "/hostile")
        statuses[result.status] = statuses.get(result.status, 0) + 1
        what = f"{number}: {data!r} became {result}"
        assert 200 <= result.status <= 599, what
        if result.status == 502:
            assert result.complete, what
        for line in result.head.split(b"\r\n")[1:]:
            assert re.fullmatch(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [\t -~\x80-\xff]*", line), what
        if number % 10 == 0:
                still_good(gateway)
    assert statuses[502] > TRIES // 4, statuses
    assert statuses[200] > TRIES // 20, statuses
    still_good(gateway)
