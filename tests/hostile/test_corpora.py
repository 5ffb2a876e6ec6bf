"""Other projects' hostile messages (corpora/), through the wire package and, requests, through a whole gateway.

The verdicts are gogate's; a vector that changes sides is either a bug or a decision to write down in docs/security.md.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from doubles.configs import http_gateway
from doubles.gateway import Gateway, wait_for
from raw_client import Answer, read_answers, talk
from strict_backend import StrictBackend

from gogate_py.errors import Failure
from gogate_py.wire.head_check import HeadLimits

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "conformance"))
# The path has to be there first: the tests have no packages.
from wire_vectors import Received, RequestReceiver, ResponseReceiver, Vector  # noqa: E402

STATUSES = {failure.reason: failure.status for failure in Failure}


def vectors(pattern: str) -> list[Vector]:
    """The vectors of these files."""
    found = []
    for path in sorted((HERE / "corpora").glob(pattern)):
        document: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
        for row in document["vectors"]:
            found.append(Vector({"source": document["source"], **row}))
            assert ("refused" in row) is not ("line" in row), row["name"]
            assert "/" in found[-1].row["source"]
    assert len({vector.name for vector in found}) == len(found), "two vectors have one name"
    return found


REQUESTS = vectors("requests_*.yaml")
RESPONSES = vectors("responses.yaml")


def name_of(vector: Vector) -> str:
    """A test's id."""
    return vector.name.replace(" ", "-")


def receive(vector: Vector, *cuts: int) -> Received:
    """Run a vector through the wire package, cut at these places."""
    receiver = (
        ResponseReceiver(HeadLimits(), vector.octets("method", "GET"))
        if vector in RESPONSES
        else RequestReceiver(HeadLimits())
    )
    for start, end in zip((0, *cuts), (*cuts, len(vector.raw)), strict=True):
        receiver.feed(vector.raw[start:end])
    return receiver.result


def check(vector: Vector, result: Received) -> None:
    """The verdict is the one that the vector names."""
    assert result.refused == vector.get("refused", ""), vector.row["source"]
    if not result.refused:
        assert result.forwards.partition(b"\r\n")[0] == vector.octets("line")
        assert result.body == vector.octets("body")
        assert result.rest == vector.octets("rest")
        assert result.complete is vector.get("complete", True)


def test_there_are_enough() -> None:
    """The campaign stands on more than two hundred messages that gogate's authors did not think of."""
    assert len(REQUESTS) + len(RESPONSES) >= 300
    assert len({vector.row["source"] for vector in REQUESTS + RESPONSES}) >= 15


@pytest.mark.parametrize("vector", REQUESTS + RESPONSES, ids=name_of)
def test_verdict(vector: Vector) -> None:
    """The message is refused for the reason named, or understood as named; wherever the network cuts it."""
    check(vector, receive(vector))
    for cut in vector.cuts():
        check(vector, receive(vector, cut))


async def through(gateway: Gateway, chosen: list[Vector]) -> list[tuple[Vector, list[Answer] | str]]:
    """Send each vector on a connection of its own, all at once."""
    host, port = gateway.address("http:default")

    async def one(vector: Vector) -> list[Answer] | str:
        data = vector.raw
        try:
            received, _ = await talk(host, port, [data[: len(data) // 2], data[len(data) // 2 :]])
            return read_answers(received)
        except Exception as error:  # shown with its vector
            return repr(error)

    return list(zip(chosen, await asyncio.gather(*map(one, chosen)), strict=True))


def test_requests_end_to_end() -> None:
    """What is refused is answered with its status and closed; what is accepted reaches the backend as understood."""
    with StrictBackend() as backend:
        config = http_gateway(
            backend.address, timeouts={"requestHeader": "500ms", "idle": "300ms", "bodyIdle": "1s"},
        )
        with Gateway(config) as gateway:
            results = asyncio.run(through(gateway, REQUESTS))
            wrong = []
            seen_by_refused = 0
            for vector, answers in results:
                expected: list[int] = [200]
                if vector.get("refused", ""):
                    expected = [STATUSES[vector.row["refused"]]]
                elif not vector.get("complete", True):
                    expected = [408]
                if isinstance(answers, str) or [answer.status for answer in answers][:1] != expected:
                    wrong.append((vector.name, answers, expected))
                    continue
                first = answers[0]
                if expected == [200]:
                    seen = backend.requests[first.number]
                    line = b"%b %b HTTP/1.1" % (seen.method, seen.target)
                    if (line, seen.body) != (vector.octets("line"), vector.octets("body")):
                        wrong.append((vector.name, answers, [str(seen)]))
                else:
                    seen_by_refused += first.number >= 0
                    if not first.closes or len(answers) != 1:
                        wrong.append((vector.name, answers, ["close"]))
            assert not wrong, wrong[:5]
            assert not seen_by_refused
            assert not backend.violations, backend.violations
            answered = sum(answer.number >= 0 for _, answers in results for answer in answers if answers)
            assert len(backend.requests) == answered
            wait_for(lambda: gateway.metric("gogate_http_requests_in_flight") == 0, what="the end of every exchange")
            assert gateway.metric("gogate_internal_errors_total") == 0
