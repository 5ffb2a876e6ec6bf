"""What a match costs with 10, 1 000 and 10 000 routes: cached, not cached, and with conditions; and what compiling and
checking them cost once.

    python bench/routes.py

The routes are of the four kinds that a file would have, a quarter each, over hosts of 100 routes: exact paths, patterns
with a parameter, prefixes, and prefixes for methods. "Not cached" is the lookup that the cache saves. The second
table is of one place: so many routes, one for each value of a header, the last of which matches. What only conditions
tell apart is tried one after the other.

Best of several rounds, in microseconds: an ordinary machine only ever adds time. The loop's own cost is subtracted.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

from gogate_py.middleware.request_view import field_of_head
from gogate_py.policy.route_conflicts import find_conflicts
from gogate_py.policy.router import Router
from gogate_py.snapshot import ValueMatch

COUNTS = (10, 1_000, 10_000)
ROUNDS = 7
CALLS = 2_000
HEAD = (
    b"GET /x HTTP/1.1\r\nHost: h0.test\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: text/html\r\n"
    b"Accept-Encoding: gzip, br\r\nX-Tenant: last\r\nCookie: session=0123456789abcdef\r\n\r\n"
)


class Rule(NamedTuple):
    """A route as the router sees it."""

    name: str
    host: str = ""
    path: str = ""
    path_prefix: str = ""
    methods: tuple[str, ...] = ()
    headers: tuple[ValueMatch, ...] = ()
    query: tuple[ValueMatch, ...] = ()


class Request:
    """A request whose head nobody took apart, as the data plane has it in the common case."""

    query = b"?page=2&debug=1"

    def field(self, name: bytes) -> bytes | None:
        """The value of a field, searched in the head."""
        return field_of_head(HEAD, name)


def rules(count: int) -> list[Rule]:
    """So many routes of all kinds."""
    made = []
    for number in range(count):
        host = f"h{number // 100}.test"
        kind = number % 4
        if kind == 0:
            made.append(Rule(f"r{number}", host, path=f"/exact/{number}"))
        elif kind == 1:
            made.append(Rule(f"r{number}", host, path=f"/users{number}/{{id}}/posts"))
        elif kind == 2:
            made.append(Rule(f"r{number}", host, path_prefix=f"/api/v{number}"))
        else:
            made.append(Rule(f"r{number}", host, path_prefix=f"/api/w{number}", methods=("GET", "POST")))
    return made


def router_of(made: list[Rule]) -> Router[str]:
    """A router that answers with names."""
    return Router([(rule, rule.name) for rule in made])


def cost(call: Callable[[int], object]) -> float:
    """Microseconds of one call, which gets the number of the call over all rounds."""
    best = empty = float("inf")
    number = 0
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(CALLS):
            number += 1
            call(number)
        best = min(best, time.perf_counter() - start)
        start = time.perf_counter()
        for _ in range(CALLS):
            number += 1
            abs(number)
        empty = min(empty, time.perf_counter() - start)
    return (best - empty) / CALLS * 1e6


def once(call: Callable[[], object]) -> float:
    """Milliseconds of one call, the best of three."""
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def main() -> None:
    """Print two markdown tables."""
    gc.disable()
    print("| routes | cached, µs | not cached: exact | pattern | prefix | none | compile, ms | check, ms |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for count in COUNTS:
        made = rules(count)
        router = router_of(made)
        assert router.match(b"h0.test", b"/api/w3/x", b"GET") == "r3"
        plain = cost(lambda _, router=router: router.match(b"h0.test", b"/api/v2/x", b"GET"))  # type: ignore[misc]  # mypy cannot infer a default's type

        def uncached(path: bytes, router: Router[str] = router) -> float:
            return cost(lambda number: router._find(b"h0.test", path % (number % 4)))

        figures = [
            uncached(b"/exact/%d"), uncached(b"/users1/7%d/posts"), uncached(b"/api/v2/x/%d"), uncached(b"/nothing/%d")]
        compiling = once(lambda made=made: router_of(made))  # type: ignore[misc]  # the same
        checking = once(lambda made=made: find_conflicts(made))  # type: ignore[misc]  # the same
        texts = " | ".join(f"{figure:.2f}" for figure in (plain, *figures))
        print(f"| {count} | {texts} | {compiling:.1f} | {checking:.1f} |")
    print()
    print("| conditions, cached | µs |")
    print("|---|---:|")
    request = Request()
    for count in (1, 10, 100):
        made = [
            Rule(f"t{number}", headers=(ValueMatch("x-tenant", "exact", f"t{number}"),)) for number in range(count - 1)]
        made.append(Rule("zz", headers=(ValueMatch("x-tenant", "exact", "last"),)))
        router = router_of(made)
        assert router.match(b"h", b"/x", b"GET", request) == "zz"
        each = cost(lambda _, router=router: router.match(b"h", b"/x", b"GET", request))  # type: ignore[misc]  # the same
        print(f"| header, the last of {count} | {each:.2f} |")
    for what, condition in (
        ("query, exact", ValueMatch("debug", "exact", "1")),
        ("query, pattern", ValueMatch("debug", "regex", "[0-9]+")),
    ):
        router = router_of([Rule("q", query=(condition,))])
        assert router.match(b"h", b"/x", b"GET", request) == "q"
        each = cost(lambda _, router=router: router.match(b"h", b"/x", b"GET", request))  # type: ignore[misc]  # the same
        print(f"| {what}, the query read just before | {each:.2f} |")


if __name__ == "__main__":
    main()
