"""What each feature of a route costs: microseconds of one worker's CPU that it adds to a request, measured around the
very stages that the data plane calls (the best of several rounds).

    python bench/stage_cost.py
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable
from typing import Any

import bcrypt
import jwt
import msgspec
import uvloop

from gogate_py.arena import Arena
from gogate_py.clock import new_random
from gogate_py.dataplane.plane import Plane
from gogate_py.messages import Up
from gogate_py.middleware.pipeline import compile_pipeline
from gogate_py.middleware.question import AskedRequest, Question
from gogate_py.middleware.response_cache import ResponseCache
from gogate_py.middleware.split import Split
from gogate_py.snapshot import (
    ApiKeyAuth,
    Arm,
    BasicAuth,
    Cache,
    Cors,
    FieldEdits,
    FixedResponse,
    HttpRoute,
    JwtAuth,
    RateLimit,
    Redirect,
    Sticky,
    Timeouts,
)
from gogate_py.wire.head_check import HeadLimits, check_request_head

ROUNDS = 7
COUNT = 3000
SECRET = b"a secret of at least thirty-two bytes"
BASE = HttpRoute("r", "p", "", "/users/{id}", "", (), Timeouts(0, 15, 60, 60, 10, 3600, 240), True)
URL = "http://api.example.com/users/42?x=1&uid=7"
HEADERS = [
    "User-Agent: bench/1", "Accept: */*", "Accept-Encoding: gzip, deflate", "X-API-Key: key-of-alice", "X-User: bob",
    "Cookie: a=1; session=xyz; b=2", "Origin: https://app.example.com",
]  # fmt: skip


class _Outbox:
    def send(self, message: Up) -> None:
        """Nobody listens."""

    def backlog(self) -> int:
        """Nothing is queued."""
        return 0


def timed(function: Callable[[], object]) -> float:
    """Microseconds of one call, the best round."""
    best = float("inf")
    for _ in range(ROUNDS):
        begin = time.process_time()
        for _ in range(COUNT):
            function()
        best = min(best, time.process_time() - begin)
    return best / COUNT * 1e6


def request(*more: str) -> AskedRequest:
    """A request as stages see it."""
    question = Question.of("GET", URL, [*HEADERS, *more], "192.0.2.7")
    return AskedRequest.of(question, HeadLimits(), "192.0.2.7")


def limit(row: int, *keys: str, algorithm: str = "token_bucket") -> RateLimit:
    """A limit that nobody reaches."""
    return RateLimit(row, 1e9, 1.0, 1_000_000_000, algorithm, keys, f"l{row}")


def routes() -> dict[str, tuple[dict[str, Any], AskedRequest]]:
    """What is measured: settings of a route, and a request that meets them."""
    claims = {"sub": "bob", "iss": "i", "aud": "a", "exp": int(time.time()) + 3600}
    token = jwt.encode(claims, SECRET, "HS256")
    password = base64.b64encode(b"bob:secret").decode()
    digest = hashlib.sha256(b"key-of-alice").hexdigest()
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    cors = Cors(("https://app.example.com",), ("GET",), (), (), False, 600.0)
    jwt_auth = JwtAuth(("HS256",), ("i",), ("a",), secret=SECRET, forward_claims=(("sub", "X-User-Id"),))
    plain = request()
    return {
        "IP allow list": ({"allow": ("192.0.2.0/24",)}, plain),
        "CORS, no preflight": ({"cors": cors}, plain),
        "rate limit, global": ({"rate_limits": (limit(1, "global"),)}, plain),
        "rate limit, ip": ({"rate_limits": (limit(2, "ip"),)}, plain),
        "rate limit, header": ({"rate_limits": (limit(3, "header:X-User"),)}, plain),
        "rate limit, cookie, sliding window": (
            {"rate_limits": (limit(4, "cookie:session", algorithm="sliding_window"),)}, plain,
        ),
        "three rate limits": (
            {"rate_limits": (limit(5, "global"), limit(6, "ip"), limit(7, "query:uid"))}, plain,
        ),
        "JWT HS256, seen before": ({"auth": jwt_auth}, request(f"Authorization: Bearer {token}")),
        "API key": ({"auth": ApiKeyAuth((("alice", digest),))}, plain),
        "Basic, seen before": ({"auth": BasicAuth((("bob", hashed),))}, request(f"Authorization: Basic {password}")),
        "cache, a miss": ({"cache": Cache(60.0, 1000, 1 << 20)}, plain),
        "redirect": ({"redirect": Redirect("https://{host}/new/{id}", 308)}, plain),
        "fixed response": ({"fixed": FixedResponse(200, b"ok", "text/plain")}, plain),
    }  # fmt: skip


def main() -> None:
    """Print the table."""
    loop = uvloop.new_event_loop()
    plane = Plane(loop, Arena.create(), 0, 2, 1, _Outbox())
    print(f"| feature | µs |\n|{'-' * 40}|---:|")

    def row(name: str, microseconds: float) -> None:
        print(f"| {name} | {microseconds:.2f} |")

    for name, (settings, asked) in routes().items():
        route = msgspec.structs.replace(BASE, **settings)
        cache = ResponseCache(route.cache) if route.cache is not None else None
        stages = compile_pipeline(route, (), plane.services, cache).stages

        def through(asked: AskedRequest = asked, stages: Any = stages) -> None:
            asked.forwarded.clear()
            for stage in stages:
                stage(asked)

        if name.startswith("Basic"):
            warm_up(loop, stages, asked)
        row(name, timed(through))
    edits = FieldEdits(("X-Debug",), (("X-Env", "prod"),), (("X-Client", "{client_ip}"),))
    for name, settings in (
        ("strip prefix", {"path": "", "path_prefix": "/users", "strip_prefix": "/users"}),
        ("path rewrite", {"rewrite_path": "/v2/u/{id}"}),
        ("request header edits", {"request_fields": edits}),
    ):
        changed = compile_pipeline(msgspec.structs.replace(BASE, **settings), (), plane.services, None).transform
        asked = request()
        assert changed is not None

        def transform(asked: AskedRequest = asked, changed: Any = changed) -> None:
            changed(asked, asked.checked)
            del asked.checked.fields[12:]

        row(name, timed(transform))
    head = Question.of("GET", URL, HEADERS, "").head
    row("any of these three: the head is taken apart", timed(lambda: check_request_head(head, HeadLimits())))
    arms = (Arm("v1", 90), Arm("v2", 10))
    random = new_random(1)
    plain = request()
    for name, sticky in (
        ("split, by chance", None),
        ("split, sticky by header", Sticky("header:X-User")),
        ("split, a new cookie", Sticky("cookie", secret=SECRET)),
    ):
        split = Split(msgspec.structs.replace(BASE, pool="", arms=arms, sticky=sticky))

        def choose(split: Split = split) -> None:
            split.choose(plain, random)

        row(name, timed(choose))
    fields = [(b"Content-Type", b"application/json"), (b"Date", b"now"), (b"Server", b"x")]
    for name, settings in (
        ("response header edits", {"response_fields": edits}),
        ("CORS fields on an answer", {"cors": Cors(("https://app.example.com",), ("GET",), (), (), False, 600.0)}),
    ):
        filters = compile_pipeline(msgspec.structs.replace(BASE, **settings), (), plane.services, None).filters

        def answer(filters: Any = filters) -> None:
            copy = list(fields)
            for change in filters:
                change(plain, 200, copy)

        row(name, timed(answer))
    plane.services.close()


def warm_up(loop: Any, stages: Any, asked: AskedRequest) -> None:
    """Have the password checked once."""

    async def wait() -> None:
        await stages[0](asked)

    loop.run_until_complete(wait())


if __name__ == "__main__":
    main()
