"""The router's order, its 404 and 405, and its cost."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.policy.route_table import Entry, Table
from gogate_py.policy.router import CACHE_SIZE, CACHED_PATH, NotAllowed, Router
from gogate_py.snapshot import ValueMatch


class Rule(NamedTuple):
    """A route as the router sees it."""

    host: str = ""
    path: str = ""
    path_prefix: str = ""
    methods: tuple[str, ...] = ()
    headers: tuple[ValueMatch, ...] = ()
    query: tuple[ValueMatch, ...] = ()
    name: str = ""


def router_of(**rules: Rule) -> Router[str]:
    """A router that answers with the rules' names."""
    return Router([(rule._replace(name=name), name) for name, rule in rules.items()])


ORDER = router_of(
    all=Rule(),
    api=Rule(path_prefix="/api"),
    api_v1=Rule(path_prefix="/api/v1/"),
    users=Rule(path="/api/users"),
    user=Rule(path="/api/users/{id}"),
    me=Rule(path="/api/users/me"),
    posts=Rule(path="/api/users/:id/posts"),
    files=Rule(path="/files/*"),
    readme=Rule(path="/files/readme"),
    post_only=Rule(path_prefix="/api", methods=("POST",)),
    wild=Rule(host="*.example.com"),
    deep=Rule(host="*.eu.example.com"),
    exact=Rule(host="www.example.com", path_prefix="/w"),
)


@pytest.mark.parametrize(
    ("host", "path", "method", "expected"),
    [
        (b"x", b"/", b"GET", "all"),
        (b"", b"/", b"GET", "all"),
        (b"x", b"/apix", b"GET", "all"),
        (b"x", b"/api", b"GET", "api"),
        (b"x", b"/api/", b"GET", "api"),
        (b"x", b"/api/v1", b"GET", "api_v1"),
        (b"x", b"/api/v1/x", b"GET", "api_v1"),
        (b"x", b"/api/v10", b"GET", "api"),
        (b"x", b"/api/users", b"GET", "users"),
        (b"x", b"/api/users/7", b"GET", "user"),
        (b"x", b"/api/users/me", b"GET", "me"),
        (b"x", b"/api/users/", b"GET", "api"),
        (b"x", b"/api/users/7/posts", b"GET", "posts"),
        (b"x", b"/api/users/me/posts", b"GET", "posts"),
        (b"x", b"/api/users/7/x", b"GET", "api"),
        (b"x", b"/files/readme", b"GET", "readme"),
        (b"x", b"/files/a/b/c", b"GET", "files"),
        (b"x", b"/api/x", b"POST", "post_only"),
        (b"a.example.com", b"/", b"GET", "wild"),
        (b"a.b.example.com", b"/", b"GET", "wild"),
        (b"a.eu.example.com", b"/", b"GET", "deep"),
        (b"eu.example.com", b"/", b"GET", "wild"),
        (b"example.com", b"/", b"GET", "all"),
        (b"www.example.com", b"/w", b"GET", "exact"),
        (b"www.example.com", b"/", b"GET", "wild"),
        (b"x", b"*", b"OPTIONS", "all"),
    ],
)
def test_order(host: bytes, path: bytes, method: bytes, expected: str) -> None:
    """The most specific route wins: host, then path, then methods; segments match whole."""
    assert ORDER.match(host, path, method) == expected


def test_method_falls_through_to_a_less_specific_route() -> None:
    """A route with other methods does not hide a less specific one that takes the method."""
    router = router_of(a=Rule(path="/x", methods=("PUT",)), b=Rule(path_prefix="/"))
    assert router.match(b"h", b"/x", b"PUT") == "a"
    assert router.match(b"h", b"/x", b"GET") == "b"


def test_not_allowed_lists_every_method_that_would_do() -> None:
    """When only the method is wrong, all methods of all matching routes are listed, sorted."""
    router = router_of(
        a=Rule(path="/x", methods=("PUT", "GET")),
        b=Rule(path_prefix="/", methods=("POST",)),
        c=Rule(host="other", methods=("PATCH",)),
    )
    refused = router.match(b"h", b"/x", b"DELETE")
    assert isinstance(refused, NotAllowed)
    assert refused.allow == b"GET, HEAD, POST, PUT"


def test_nothing_matches() -> None:
    """No host or path matches: None."""
    router = router_of(a=Rule(host="a", path_prefix="/x"))
    assert router.match(b"b", b"/x", b"GET") is None
    assert router.match(b"a", b"/", b"GET") is None


def test_head_goes_where_get_goes() -> None:
    """HEAD takes a route that names it, else one that names GET (RFC 9110 section 9.3.2)."""
    router = router_of(a=Rule(path="/x", methods=("GET",)), b=Rule(path="/y", methods=("HEAD",)))
    assert router.match(b"h", b"/x", b"HEAD") == "a"
    assert router.match(b"h", b"/y", b"HEAD") == "b"


def test_host_case_in_the_rule_does_not_matter() -> None:
    """Hosts of rules are compared in lower case."""
    router = router_of(a=Rule(host="WWW.Example.com"), b=Rule(host="*.EXAMPLE.org"))
    assert router.match(b"www.example.com", b"/", b"GET") == "a"
    assert router.match(b"x.example.org", b"/", b"GET") == "b"


def test_ten_thousand_routes() -> None:
    """Ten thousand routes of each kind compile, and each finds its own among them."""
    count = 10_000
    rules = {f"e{n}": Rule(host=f"h{n % 100}.test", path=f"/exact/{n}") for n in range(count)}
    rules |= {f"p{n}": Rule(path_prefix=f"/prefix/{n}") for n in range(count)}
    rules |= {f"q{n}": Rule(path=f"/pattern/{n}/{{id}}") for n in range(count)}
    router = router_of(**rules)
    for n in range(0, count, 97):
        assert router.match(b"h%d.test" % (n % 100), b"/exact/%d" % n, b"GET") == f"e{n}"
        assert router.match(b"any", b"/prefix/%d/more" % n, b"GET") == f"p{n}"
        assert router.match(b"any", b"/pattern/%d/x" % n, b"GET") == f"q{n}"


def test_cache_is_bounded_and_changes_nothing() -> None:
    """However many paths are asked for, the cache stays bounded and the answers the same."""
    for n in range(CACHE_SIZE * 2 + 10):
        assert ORDER.match(b"x", b"/api/users/%d" % n, b"GET") == "user"
    assert len(ORDER._cache) <= CACHE_SIZE


def test_long_paths_are_not_kept() -> None:
    """A long path is routed like any other, but does not stay in the cache (thousands of them would fill memory)."""
    router = router_of(a=Rule(path_prefix="/a"))
    assert router.match(b"h", b"/a/" + b"x" * CACHED_PATH, b"GET") == "a"
    assert not router._cache


def test_paths_longer_than_every_route() -> None:
    """Segments beyond the longest pattern and prefix make no difference, and no remainder passes for one segment."""
    router = router_of(two=Rule(path="/{a}/{b}"), prefix=Rule(path_prefix="/p/q"), rest=Rule(path="/r/{x}/*"))
    assert router.match(b"h", b"/a/b", b"GET") == "two"
    assert router.match(b"h", b"/a/b/c", b"GET") is None
    assert router.match(b"h", b"/a/b/c/d/e", b"GET") is None
    assert router.match(b"h", b"/p/q" + b"/x" * 1000, b"GET") == "prefix"
    assert router.match(b"h", b"/r/1" + b"/x" * 1000, b"GET") == "rest"


class Counted(dict[bytes, object]):
    """A dictionary that counts how often it is asked."""

    asked = 0

    def get(self, key: bytes, default: object = None) -> object:
        """As a dictionary's."""
        self.asked += 1
        return super().get(key, default)


def test_a_long_path_is_not_tried_segment_by_segment() -> None:
    """A path of thousands of segments costs as many probes as the longest prefix has segments, and the root."""
    table: Table[str] = Table()
    table.add(Entry(Rule(path_prefix="/p/q"), "a"))
    probes = table._prefixes = Counted(table._prefixes)  # type: ignore[assignment]  # counts what it is asked
    found: list[Entry[str]] = []
    table.find(b"/p/q" + b"/x" * 4000, found)
    assert [entry.route for entry in found] == ["a"]
    assert probes.asked == 3


def test_names_decide_between_equals() -> None:
    """Two routes of one rank for the same requests are a configuration error; all workers would still agree."""
    one, other = Rule(path="/x", name="one"), Rule(path="/x", name="other")
    assert Router([(one, "one"), (other, "other")]).match(b"h", b"/x", b"GET") == "one"
    assert Router([(other, "other"), (one, "one")]).match(b"h", b"/x", b"GET") == "one"


SEGMENT = st.sampled_from(["a", "b", "ab", ""])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(SEGMENT.filter(bool), max_size=3), min_size=1, max_size=6),
    st.lists(SEGMENT, min_size=1, max_size=4),
)
def test_longest_prefix_wins(prefixes: list[list[str]], path: list[str]) -> None:
    """Of prefixes only, the longest that matches by whole segments is found (against a plain search)."""
    rules = {"/" + "/".join(p): Rule(path_prefix="/" + "/".join(p)) for p in prefixes}
    wanted = "/" + "/".join(path)
    matching = [p for p in rules if p == "/" or wanted == p or wanted.startswith(p + "/")]
    expected = max(matching, key=len) if matching else None
    assert router_of(**rules).match(b"h", wanted.encode(), b"GET") == expected
