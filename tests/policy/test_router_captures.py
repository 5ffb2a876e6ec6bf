"""What a route's path captures of a request's path."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.policy.router import Router, compile_captures
from gogate_py.snapshot import ValueMatch


class Rule(NamedTuple):
    """A route as the router sees it."""

    path: str = ""
    path_prefix: str = ""
    name: str = "a"
    host: str = ""
    methods: tuple[str, ...] = ()
    headers: tuple[ValueMatch, ...] = ()
    query: tuple[ValueMatch, ...] = ()


@pytest.mark.parametrize(
    ("pattern", "prefix", "path", "captured"),
    [
        ("/users/{id}", "", b"/users/7", {"id": b"7"}),
        ("/users/:id/posts/*", "", b"/users/7/posts/a/b", {"id": b"7", "rest": b"a/b"}),
        ("/users/:id/posts/*", "", b"/users/7/posts/", {"id": b"7", "rest": b""}),
        ("/users/:id/posts/*", "", b"/users/7/posts", {}),
        ("/users/{id}", "", b"/users/", {}),
        ("/users/{id}", "", b"/users/7/8", {}),
        ("/users/{id}", "", b"/users/a%2Fb%0A", {"id": b"a%2Fb%0A"}),
        ("/users/{id}/", "", b"/users/7/", {"id": b"7"}),
        ("/*", "", b"/", {"rest": b""}),
        ("/*", "", b"/a/b", {"rest": b"a/b"}),
        ("/a.b/{x}", "", b"/aXb/1", {}),
        ("/exact", "", b"/exact", {}),
        ("/{rest}/*", "", b"/a/b", {"rest": b"b"}),
        ("", "/api", b"/api/x/y", {"rest": b"x/y"}),
        ("", "/api", b"/api/", {"rest": b""}),
        ("", "/api", b"/api", {"rest": b""}),
        ("", "/api/", b"/api/x", {"rest": b"x"}),
        ("", "/api", b"/apix", {}),
        ("", "/api", b"*", {}),
        ("", "/", b"/x", {"rest": b"x"}),
        ("", "", b"/x/", {"rest": b"x/"}),
        ("", "", b"/", {"rest": b""}),
        ("", "", b"*", {"rest": b""}),
    ],
)
def test_captures(pattern: str, prefix: str, path: bytes, captured: dict[str, bytes]) -> None:
    """Parameters are captured by name, what a trailing /* or a prefix leaves over as rest, without the slash."""
    assert compile_captures(pattern, prefix)(path) == captured


SEGMENT = st.sampled_from(["a", "b", "{x}", ":y"])


@settings(max_examples=200, deadline=None)
@given(st.lists(SEGMENT, min_size=1, max_size=3), st.sampled_from(["", "/*", "/"]), st.text("ab/", max_size=6))
def test_captures_if_and_only_if_the_router_matches(segments: list[str], end: str, text: str) -> None:
    """A pattern with captures captures of a path exactly when the router matches it, and they are pieces of it."""
    pattern = "/" + "/".join(segments) + end
    path = b"/" + text.replace("//", "/").lstrip("/").encode()
    while b"//" in path:
        path = path.replace(b"//", b"/")
    captured = compile_captures(pattern, "")(path)
    matches = Router([(Rule(path=pattern), "a")]).match(b"h", path, b"GET") is not None
    if "{" in pattern or ":" in pattern or end == "/*":
        assert bool(captured) is matches
    assert all(value in path for value in captured.values())
