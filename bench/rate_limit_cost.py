"""What a rate limit check costs, in µs, best of several rounds: each algorithm, with 1 key and with 100 000, and each
kind of key on top.

    python bench/rate_limit_cost.py
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from gogate_py.arena import Arena
from gogate_py.dataplane.shared_limits import KeyedLimiter, LimiterTable, SharedBucket
from gogate_py.middleware.rate_limit import RateLimitStage
from gogate_py.middleware.request_keys import compile_key
from gogate_py.middleware.request_view import field_of_head
from gogate_py.policy.rate_limiter import ALGORITHMS
from gogate_py.snapshot import RateLimit

ROUNDS = 5
CALLS = 50_000
MANY = 100_000

HEAD = b"""GET /items/17?page=2&tenant=acme HTTP/1.1\r
Host: shop.example.com:8080\r
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r
Accept-Encoding: gzip, deflate\r
Cookie: theme=dark; session=6f1d1f0a9c3b4e7d; lang=en\r
X-API-Key: 0123456789abcdef0123456789abcdef\r
Content-Type: application/x-www-form-urlencoded\r
\r
"""


class Request:
    """A request of average size."""

    method = b"POST"
    path = b"/items/17"
    query = b"?page=2&tenant=acme"
    host = b"shop.example.com:8080"
    client = "192.0.2.17"
    scheme = b"http"
    request_id = b"1"
    body: bytes | None = b"user=alice&note=hello"
    user = "alice"
    claims: Mapping[str, Any] = {"sub": "alice", "tenant": "acme"}

    def field(self, name: bytes) -> bytes | None:
        """A header field's value."""
        return field_of_head(HEAD, name)

    def forward(self, name: bytes, value: bytes) -> None:
        """Nothing is forwarded here."""

    def withhold(self, name: bytes) -> None:
        """Nothing is forwarded here."""


def cost(work: Callable[[Any], object], arguments: Iterable[Any]) -> float:
    """µs per call, over all the arguments."""
    given = list(arguments)
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for argument in given:
            work(argument)
        best = min(best, (time.perf_counter() - start) / len(given))
    return best * 1e6


def limit(algorithm: str, keys: tuple[str, ...] = ("global",), row: int = 1) -> RateLimit:
    """A limit that admits nearly everything: the dearer way."""
    return RateLimit(row, 1e6, 1.0, 1_000_000, algorithm, keys, "bench")


def main() -> None:
    """Print the two tables."""
    one = [b"ip\0" + bytes((192, 0, 2, 17))] * CALLS
    many = [b"ip\0" + number.to_bytes(4, "big") for number in range(MANY)]
    print("check, µs             shared    1 key  100 000 keys")
    for algorithm in ALGORITHMS:
        shared = cost(SharedBucket(Arena.create(), limit(algorithm)).try_take, one)
        keyed = KeyedLimiter(Arena.create(), limit(algorithm, ("ip",)))
        print(f"{algorithm:18} {shared:9.2f} {cost(keyed.try_take, one):8.2f} {cost(keyed.try_take, many):13.2f}")
    empty = RateLimit(1, 0.001, 1.0, 1, "token_bucket", ("global",), "bench")
    print(f"refused, shared    {cost(SharedBucket(Arena.create(), empty).try_take, one):9.2f}")

    request = Request()
    print("\nkey of a request, µs      alone  whole stage")
    for spec in (
        "global", "ip", "user", "api_key", "basic:username", "jwt:tenant", "header:X-API-Key", "query:tenant",
        "cookie:session", "form:user", "path", "host",
    ):  # fmt: skip
        settings = limit("token_bucket", (spec,))
        stage = RateLimitStage([(settings, LimiterTable(Arena.create()).limiter(settings))])
        requests = [request] * CALLS
        print(f"{spec:20} {cost(compile_key((spec,)), requests):10.2f} {cost(stage, requests):12.2f}")
    table = LimiterTable(Arena.create())
    both = limit("token_bucket"), limit("sliding_window", ("ip",), 2)
    limits = [(one, table.limiter(one, one.algorithm)) for one in both]
    print(f"{'global and ip':20} {'':10} {cost(RateLimitStage(limits), [request] * CALLS):12.2f}")


if __name__ == "__main__":
    main()
