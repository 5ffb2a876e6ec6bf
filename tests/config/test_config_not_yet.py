"""Keys of the documented configuration that are not built yet are refused by that name, never ignored."""

from __future__ import annotations

import pytest
from config_loading import problems

SERVER = ["tls: {}", "timeouts: {handshake: 10s}"]
POOL: list[str] = []
HTTP_ROUTE = ["listeners: [public]", "listener: public", "tls: {}"]
TCP_ROUTE = ["listener: public"]


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
