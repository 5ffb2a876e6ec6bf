"""Keys of the documented configuration that are not built yet are refused by that name, never ignored."""

from __future__ import annotations

import pytest
from config_loading import problems

SERVER = [
    "tls: {}", "outlier: {enabled: false}", "slowStart: 0s", "panicThreshold: 0", "maxConnections: 0",
    "queueTimeout: 5s", "retry: {attempts: 2}", "dns: {refresh: 5s}",
    "circuitBreaker: {window: 60s}", "circuitBreaker: {minRequests: 20}", "timeouts: {handshake: 10s}",
    "slow_start: 0s", "max-connections: 0"]
POOL = ["tls: {}", "outlier: {}", "slowStart: 0s", "panicThreshold: 0", "maxConnections: 5", "queueTimeout: 1s"]
HTTP_ROUTE = [
    "split: []", "sticky: {by: cookie}", "stripPrefix: /api", "rewrite: {path: /}", "requestHeaders: {}",
    "responseHeaders: {}", "rateLimit: {}", "auth: {type: jwt}", "cors: {}", "cache: {}", "redirect: {}",
    "fixedResponse: {}", "retry: {}", "listeners: [public]", "match: {headers: {}}", "match: {query: {}}"]
TCP_ROUTE = ["sni: [a.example.com]", "limits: {}"]


def text_with(server: str = "", pool: str = "", route: str = "", tcp: str = "", top: str = "") -> str:
    """A sound long-form file with something added in one place."""
    return f"""\
server:
  httpListenAddr: ":8081"
  {server}
pools:
  api:
    backends: ["a:1"]
    {pool}
routes:
  - pool: api
    {route}
  - type: tcp
    listenAddr: ":5432"
    pool: api
    {tcp}
{top}
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [*((text_with(server=key), 3) for key in SERVER), *((text_with(pool=key), 7) for key in POOL),
     *((text_with(route=key), 10) for key in HTTP_ROUTE), *((text_with(tcp=key), 14) for key in TCP_ROUTE),
     (text_with(top="listeners: []"), 15)])
def test_a_key_that_comes_later_is_refused_by_name(text: str, line: int) -> None:
    """One problem at the key, which says that it is not supported yet and suggests nothing."""
    (problem,) = problems(text)
    assert (problem.line, problem.message) == (line, "is not supported yet")
    assert problem.suggestion == ""
    assert problem.allowed == ()


def test_the_file_around_them_is_sound() -> None:
    """Without such a key the same file loads."""
    assert problems(text_with()) == []


def test_a_split_in_place_of_a_pool_is_one_problem() -> None:
    """That a route has no pool is not told when what stands for it is not supported yet."""
    (problem,) = problems(text_with().replace("- pool: api", "- split: [{pool: api, weight: 1}]"))
    assert problem.key == "routes[0].split"
