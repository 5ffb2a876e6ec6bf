"""What strictness costs of an ordinary request: ``python bench/strictness.py``.

The CPU of one proxied request (gogate as in run.py, one worker) beside that of its checks alone: the proof that
the request's head is clean, llhttp's second opinion, and the proof of the answer's head. A plain parser must look at
the same bytes, so what counts is what goes beyond one: splitting both heads into lines and fields, and reading nothing
into them. The limit is 10 % of the request; the exit code is 1 above it.
"""

from __future__ import annotations

import sys
from time import process_time_ns

import peers
from loads import Cores, Pace, run
from parts import markdown, on_core
from rows import BY_KEY

from gogate_py.wire.fast_head import fast_request, fast_response
from gogate_py.wire.llhttp_check import RequestFraming

LIMIT = 0.10
TIMES = 50_000

REQUESTS = {
    "load generator, 45 bytes": b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1:8081\r\n\r\n",
    "browser, 430 bytes": (
        b"GET /api/users/42?fields=name,email&page=2 HTTP/1.1\r\nHost: api.example.com\r\n"
        b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36"
        b"\r\nAccept: text/html,application/xhtml+xml,application/json;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US\r\n"
        b"Accept-Encoding: gzip, deflate, br\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n\r\n"
    ),
}
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Type: text/plain\r\nContent-Length: 128\r\nConnection: keep-alive\r\n\r\n"
)


def plain(head: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """A parser without opinions."""
    return [line.partition(b": ") for line in head.split(b"\r\n")]


def micros(request: bytes) -> tuple[float, float]:
    """µs of CPU for the checks of one exchange, and for plain parsing."""
    framing = RequestFraming()
    assert fast_request(request)
    assert framing.agrees_one_message(request)
    assert fast_response(ANSWER)
    best = [float("inf"), float("inf")]
    for _ in range(5):
        start = process_time_ns()
        for _ in range(TIMES):
            fast_request(request)
            framing.agrees_one_message(request)
            fast_response(ANSWER)
        middle = process_time_ns()
        for _ in range(TIMES):
            plain(request)
            plain(ANSWER)
        end = process_time_ns()
        best = [min(best[0], (middle - start) / TIMES / 1000), min(best[1], (end - middle) / TIMES / 1000)]
    return best[0], best[1]


def main() -> int:
    """Measure and print; → exit code."""
    cores, row = Cores.of_machine(1), BY_KEY["http-64"]
    with peers.backends(cores.load) as behind, peers.started(peers.gogate(), behind, 1, cores.proxy) as proxy:
        request_micros = run(row, proxy, cores, Pace(1, 3.0, 0.5, 0)).cost(row)
    rows, worst = [], 0.0
    with on_core(cores.proxy):
        for name, request in REQUESTS.items():
            checks, parsing = micros(request)
            share = (checks - parsing) / request_micros
            worst = max(worst, share)
            rows.append([name, f"{checks:.2f}", f"{parsing:.2f}", f"{request_micros:.1f}", f"{share:.1%}"])
    print(markdown(["head", "checks µs", "plain parsing µs", "one request µs", "strictness"], rows))
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
