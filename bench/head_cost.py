"""CPU cost of the worst inputs for each function of wire/: is it linear, and what does the largest one cost?

    python bench/head_cost.py

Each input is made at 16, 32 and 64 KiB, the limits raised so that nothing is refused for its size. Twice the input may
cost about twice the time; a row whose time grows more than FACTOR times is marked, and the exit status is 1. What
comes byte by byte is a table of its own: collecting it copies (SECURITY.md H15), which the limits of heads and lines
bound, so what counts there is the total.

Best of several rounds: an ordinary machine only ever adds time.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from gogate_py.errors import WireError
from gogate_py.wire import proxy_protocol
from gogate_py.wire.chunked import ChunkedDecoder
from gogate_py.wire.fast_head import make_fast_body_request, make_fast_request, make_fast_response, make_set_apart
from gogate_py.wire.forwarding import client_address, forwarded_lines, request_head
from gogate_py.wire.head_check import (
    HeadLimits,
    check_request_head,
    check_response_head,
    early_refusal,
    find_head_end,
)
from gogate_py.wire.llhttp_check import RequestFraming
from gogate_py.wire.target import canonical_path, is_valid_host

SIZES = (16 << 10, 32 << 10, 64 << 10)
#: More than 2, because caches and allocators have steps; far less than the 4 of quadratic time.
FACTOR = 2.8
ROUNDS = 9
LIMITS = HeadLimits(1 << 17, 1 << 17, 1 << 17, 1 << 17, 1 << 17)
#: What a client can make gogate work on at most, with the default limits.
DEFAULTS = HeadLimits()

START = b"GET / HTTP/1.1\r\nHost: a\r\n"
Make = Callable[[int], bytes]
Work = Callable[[bytes], object]


def fill(before: bytes, unit: bytes, after: bytes = b"") -> Make:
    """Inputs of a given size: ``unit`` repeated between the two."""
    return lambda size: before + unit * ((size - len(before) - len(after)) // len(unit)) + after


def field(unit: bytes, name: bytes = b"X") -> Make:
    """A request with one field of this value."""
    return fill(START + name + b": ", unit, b"\r\n\r\n")


def target(unit: bytes, before: bytes = b"/") -> Make:
    """A request with this target."""
    return fill(b"GET " + before, unit, b" HTTP/1.1\r\nHost: a\r\n\r\n")


def nominations(size: int) -> bytes:
    """A request whose Connection nominates each of its fields."""
    names = [b"n%d" % number for number in range(size // 16)]
    fields = b"".join(b"%b: x\r\n" % name for name in names)
    return START + b"Connection: " + b",".join(names) + b"\r\n" + fields + b"\r\n"


REQUESTS: dict[str, Make] = {
    "one long value": field(b"a"),
    "a value of blanks": field(b" "),
    "blanks, then a letter": fill(START + b"X: ", b" ", b"x\r\n\r\n"),
    "a value of HTABs and letters": field(b"\ta"),
    "obs-text": field(b"\xff"),
    "one long name": fill(START, b"a", b": b\r\n\r\n"),
    "as many fields as fit": fill(START, b"a:\r\n", b"\r\n"),
    "fields of unclean names": fill(START, b"a_b: c\r\n", b"\r\n"),
    "aliases": fill(START, b"X_Real_IP: c\r\n", b"\r\n"),
    "a bad last line": fill(START, b"abc: def\r\n", b"bad\x00\r\n\r\n"),
    "no line end": fill(START + b"X: ", b"a", b"\x00\r\n\r\n"),
    "Connection with many options": field(b"a,", b"Connection"),
    "Connection of commas": field(b",", b"Connection"),
    "a nomination for every field": nominations,
    "many Connection lines": fill(START, b"Connection: a\r\n", b"\r\n"),
    "many Hosts": fill(START, b"Host: a\r\n", b"\r\n"),
    "one long Host": field(b"a.", b"Host"),
    "a list of codings": field(b"a,", b"Transfer-Encoding"),
    "many lengths": fill(START, b"Content-Length: 1\r\n", b"\r\n"),
    "a length of many digits": field(b"1", b"Content-Length"),
    "many expectations": field(b"100-continue,", b"Expect"),
    "a long X-Forwarded-For": field(b"10.0.0.1, ", b"X-Forwarded-For"),
    "many X-Forwarded-For": fill(START, b"X-Forwarded-For: 1.1.1.1\r\n", b"\r\n"),
    "a long path": target(b"a"),
    "escaped letters": target(b"%41"),
    "escaped others": target(b"%C3"),
    "slashes": target(b"/"),
    "dot segments": target(b"./"),
    "up and down": target(b"a/../"),
    "escaped dots": target(b"a/%2e%2e/"),
    "parameters": target(b"a;"),
    "dots and semicolons": target(b".;"),
    "a long query": target(b"&a=b", b"/?"),
    "an absolute target": target(b"a", b"http://h/"),
    "an authority without end": target(b"a", b"http://"),
    "a bad escape at the end": fill(b"GET /", b"%41", b"% HTTP/1.1\r\nHost: a\r\n\r\n"),
}
RESPONSE = b"HTTP/1.1 200 OK\r\n"
RESPONSES: dict[str, Make] = {
    "one long value": fill(RESPONSE + b"X: ", b"a", b"\r\nContent-Length: 1\r\n\r\n"),
    "a value of blanks": fill(RESPONSE + b"X: ", b" ", b"\r\n\r\n"),
    "as many fields as fit": fill(RESPONSE, b"a:\r\n", b"Content-Length: 1\r\n\r\n"),
    "no length at the end": fill(RESPONSE, b"abc: d\r\n", b"\r\n"),
    "keep-alive lines": fill(RESPONSE, b"Connection: keep-alive\r\n", b"Content-Length: 1\r\n\r\n"),
    "request ids": fill(RESPONSE, b"X-Request-ID: a\r\n", b"Content-Length: 1\r\n\r\n"),
    "many lengths": fill(RESPONSE, b"Content-Length: 1\r\n", b"\r\n"),
    "a long reason": fill(b"HTTP/1.1 200 ", b"a ", b"\r\nContent-Length: 1\r\n\r\n"),
    "a bad last line": fill(RESPONSE, b"abc: d\r\n", b"bad\x00\r\n\r\n"),
    "Connection with many options": fill(RESPONSE + b"Connection: ", b"a,", b"\r\n\r\n"),
}
BODIES: dict[str, Make] = {
    "chunks of one byte": fill(b"", b"1\r\nx\r\n", b"0\r\n\r\n"),
    "chunks with short extensions": fill(b"", b"1;a=b\r\nx\r\n", b"0\r\n\r\n"),
    "one extension": fill(b"1;a=", b"b", b"\r\nx\r\n"),
    "extensions without end": fill(b"1", b";a", b"\r\nx\r\n"),
    "a quoted extension": fill(b'1;a="', b'\\"', b'"\r\nx\r\n'),
    "trailers": fill(b"0\r\n", b"a:\r\n", b"\r\n"),
    "one large chunk": lambda size: b"%x\r\n%b\r\n0\r\n\r\n" % (size, bytes(size)),
    "digits": fill(b"", b"0", b"\r\n"),
}
PATHS = {name: make for name, make in REQUESTS.items() if b"GET /" in make(100) and b"GET / " not in make(100)}
HOSTS: dict[str, Make] = {"labels": fill(b"", b"a."), "dashes": fill(b"", b"-"), "colons": fill(b"[", b"1:", b"]")}
PROXY_HEADERS: dict[str, Make] = {
    "version 1 without end": fill(b"PROXY TCP4 ", b"1"),
    "version 2 of zeros": fill(proxy_protocol.SIGNATURE + b"\x21\x11\xff\xff", b"\x00"),
}
fast_request = make_fast_request(LIMITS)
fast_body_request = make_fast_body_request(LIMITS)
fast_response = make_fast_response(LIMITS)
set_apart = make_set_apart(LIMITS)


def forwarded(data: bytes) -> object:
    """Check a head and write it anew, as the slow path does."""
    head = check_request_head(data, LIMITS)
    values = [value for name, value in head.forwarded if name == b"x-forwarded-for"]
    client_address("10.0.0.1", values, lambda address: address.startswith("10."))
    lines = forwarded_lines(b"10.0.0.1", b"http", head.host, head.forwarded, True)
    return request_head(head, lines)


FUNCTIONS: list[tuple[str, dict[str, Make], Work]] = [
    ("check_request_head and forwarding", REQUESTS, forwarded),
    ("fast_request", REQUESTS, fast_request),
    ("set_apart", REQUESTS, set_apart),
    ("fast_body_request", REQUESTS, lambda data: fast_body_request(b"POST" + data[3:])),
    ("RequestFraming.accepts_head", REQUESTS, lambda data: RequestFraming.accepts_head(data, False)),
    ("early_refusal, find_head_end", REQUESTS, lambda data: (early_refusal(data[:-4], LIMITS), find_head_end(data))),
    ("check_response_head", RESPONSES, lambda data: check_response_head(data, LIMITS)),
    ("fast_response", RESPONSES, fast_response),
    ("ChunkedDecoder.feed", BODIES, lambda data: ChunkedDecoder().feed(data)),
    ("canonical_path", PATHS, lambda data: canonical_path(data.split(b" ")[1])),
    ("is_valid_host", HOSTS, is_valid_host),
    ("proxy_protocol.parse", PROXY_HEADERS, proxy_protocol.parse),
]


def cost(work: Work, data: bytes) -> float:
    """Seconds of one call, the best of ROUNDS."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        try:
            work(data)
        except WireError:  # a refusal is a verdict, too
            pass
        best = min(best, time.perf_counter() - start)
    return best


def drip(data: bytes) -> None:
    """A head that comes byte by byte, handled as the data plane does, with the default limits."""
    buffer = b""
    searched = 0
    for at in range(len(data)):
        buffer += data[at : at + 1]
        if find_head_end(buffer, searched - 3) > 0 or early_refusal(buffer, DEFAULTS, searched) is not None:
            return
        searched = len(buffer)


def drip_body(data: bytes) -> None:
    """A chunked body that comes byte by byte."""
    decoder = ChunkedDecoder()
    for at in range(len(data)):
        decoder.feed(data[at : at + 1])


def main() -> int:
    """Print two markdown tables; 1 when something grows faster than its input."""
    gc.disable()
    slower = 0
    print("| function | worst inputs | 16 KiB, µs | 32 KiB, µs | 64 KiB, µs | growth per doubling |")
    print("|---|---|---:|---:|---:|---:|")
    for name, inputs, work in FUNCTIONS:
        rows = []
        for what, make in inputs.items():
            times = [cost(work, make(size)) for size in SIZES]
            # Below some microseconds the clock and the call are what is measured.
            growth = max(after / max(before, 5e-6) for before, after in pairwise(times))
            rows.append((times[-1], what, times, growth))
            if growth > FACTOR:
                slower += 1
        rows.sort(reverse=True)
        # The three that cost most, and whatever grows too fast.
        for position, (_, what, times, growth) in enumerate(rows):
            if position < 3 or growth > FACTOR:
                mark = " **too fast**" if growth > FACTOR else ""
                figures = " | ".join(f"{seconds * 1e6:.0f}" for seconds in times)
                print(f"| `{name}` | {what} | {figures} | {growth:.2f}{mark} |")
    print()
    print("| byte by byte, default limits | bytes taken | total, ms | per byte, µs |")
    print("|---|---:|---:|---:|")
    for what, drips, data in (
        ("a head of one long value", drip, field(b"a")(SIZES[-1])),
        ("a head of many fields", drip, fill(START, b"a:\r\n", b"\r\n")(SIZES[-1])),
        ("chunks of one byte", drip_body, BODIES["chunks of one byte"](SIZES[-1])),
        ("chunks with extensions", drip_body, fill(b"", b"1;" + b"a" * 1000 + b"\r\nx\r\n")(SIZES[-1])),
    ):
        taken = min(len(data), DEFAULTS.request_head) if drips is drip else len(data)
        seconds = cost(drips, data)
        print(f"| {what} | {taken} | {seconds * 1e3:.1f} | {seconds / taken * 1e6:.2f} |")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
