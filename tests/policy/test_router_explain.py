"""Why a request takes a route and the others do not, in words."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from gogate_py.policy.router import EXPLAINED, Router
from gogate_py.snapshot import ValueMatch


class Rule(NamedTuple):
    """A route as the router sees it."""

    name: str
    host: str = ""
    path: str = ""
    path_prefix: str = ""
    methods: tuple[str, ...] = ()
    headers: tuple[ValueMatch, ...] = ()
    query: tuple[ValueMatch, ...] = ()


class Request(NamedTuple):
    """What a condition sees of a request."""

    query: bytes = b""
    fields: dict[bytes, bytes] = {}

    def field(self, name: bytes) -> bytes | None:
        """The value of a field."""
        return self.fields.get(name)


RULES = (
    Rule("other-host", host="example.org"),
    Rule("wild", host="*.example.net"),
    Rule("post", host="api.example.com", methods=("POST",)),
    Rule("two", host="api.example.com", methods=("POST", "PUT"), path_prefix="/x"),
    Rule("absent", headers=(ValueMatch("x-version", "present"),)),
    Rule("value", headers=(ValueMatch("x-key", "exact", "2"),)),
    Rule("pattern", query=(ValueMatch("v", "regex", "[0-9]+"),)),
    Rule("exact", host="api.example.com", path="/y"),
    Rule("users", host="api.example.com", path="/users/{id}"),
    Rule("prefix", host="api.example.com", path_prefix="/api"),
    Rule("all", path_prefix="/x"),
    Rule("fallback"),
)
ROUTER = Router([(rule, rule.name) for rule in RULES])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("other-host", "host api.example.com is not example.org"),
        ("wild", "host api.example.com is not *.example.net"),
        ("post", "method GET is not POST"),
        ("two", "method GET is none of POST, PUT"),
        ("absent", "header x-version is absent"),
        ("value", "header x-key is not 2"),
        ("pattern", "query parameter v does not match [0-9]+"),
        ("exact", "path /x is not /y"),
        ("users", "path /x does not match /users/{id}"),
        ("prefix", "path /x is not below /api"),
        ("all", ""),
        ("fallback", "less specific than all"),
    ],
)
def test_why(name: str, why: str) -> None:
    """Each candidate but the winner says what did not match, or who was more specific."""
    request = Request(b"?v=a", {b"x-key": b"secret"})
    candidates = {found.name: found for found in ROUTER.explain(b"api.example.com", b"/x", b"GET", request)}
    assert (candidates[name].matched, candidates[name].why) == (not why, why)
    assert candidates[name].route == name


def test_all_reasons_are_named() -> None:
    """A route that fails in several ways names them all; values of the request are not shown (they may be secrets)."""
    rule = Rule("a", methods=("PUT",), headers=(ValueMatch("authorization", "exact", "x"),),
                query=(ValueMatch("p", "present"), ValueMatch("q", "exact", "1")))
    request = Request(b"?p=1&p=2", {b"authorization": b"s3cret"})
    (found,) = Router([(rule, "a")]).explain(b"h", b"/", b"GET", request)
    assert found.why == (
        "method GET is not PUT, header authorization is not x, query parameter p occurs more than once, "
        "query parameter q is absent")


def test_order_is_that_of_specificity() -> None:
    """Candidates are listed most specific first."""
    names = [found.name for found in ROUTER.explain(b"api.example.com", b"/x", b"GET")]
    assert names == [
        "exact", "users", "prefix", "two", "post", "other-host", "wild",
        "all", "absent", "pattern", "value", "fallback"]


def test_a_refused_query() -> None:
    """A query that cannot be read refuses the request: the route that had to read it says so, the others as well."""
    asks = Rule("asks", query=(ValueMatch("p", "present"),))
    found = Router([(asks, "asks"), (Rule("all"), "all")]).explain(b"h", b"/", b"GET", Request(b"?p=%"))
    assert [candidate.matched for candidate in found] == [False, False]
    assert found[0].why == "its query conditions cannot be checked: the query has an invalid percent-escape"
    assert found[1].why == "the request is refused: the query has an invalid percent-escape"


def test_head() -> None:
    """HEAD goes where GET would go."""
    router = Router([(rule, rule.name) for rule in (Rule("get", path="/x", methods=("GET",)), Rule("all"))])
    assert [(found.matched, found.why) for found in router.explain(b"h", b"/x", b"HEAD")] == [
        (True, ""), (False, "less specific than get")]


def test_bounded() -> None:
    """At most EXPLAINED candidates are listed, the winner among them, before those that share host or path only."""
    rules = [Rule(f"h{n}", host="h.test", path=f"/p{n}") for n in range(50)]
    rules += [Rule(f"c{n}", headers=(ValueMatch(f"x-{n}", "present"), ValueMatch("x", "present"))) for n in range(50)]
    rules += [Rule("all")]
    found = Router([(rule, rule.name) for rule in rules]).explain(b"h.test", b"/x", b"GET")
    assert len(found) == EXPLAINED
    assert [candidate.name for candidate in found if candidate.matched] == ["all"]
    assert all(candidate.name.startswith(("c", "all")) for candidate in found)


def test_what_is_shown_of_a_request_is_escaped() -> None:
    """Host, path and method are shown with everything but plain ASCII escaped, and cut."""
    router = Router([(Rule("a", host="h", path="/y", methods=("PUT",)), "a"), (Rule("b", host="g", path="/y"), "b")])
    found = router.explain(b"\x1b[0m\r\n", b"/y", b"\xff", Request())
    assert [candidate.why for candidate in found] == [
        "host \\x1b[0m\\r\\n is not h", "host \\x1b[0m\\r\\n is not g"]
    (found_a,) = [candidate for candidate in router.explain(b"h", b"/" + b"x" * 500, b"GET") if candidate.name == "a"]
    assert len(found_a.why) < 150
    (found_a,) = [candidate for candidate in router.explain(b"h", b"/y", b"\xffX") if candidate.name == "a"]
    assert found_a.why == "method \\xffX is not PUT"


def test_no_host() -> None:
    """A request without Host (HTTP/1.0) is said to have none."""
    (found,) = Router([(Rule("a", host="h"), "a")]).explain(b"", b"/", b"GET")
    assert found.why == "host (none) is not h"


def test_rules_with_one_route() -> None:
    """Two rules may lead to the same thing; only the one that matched is said to."""
    rules = (Rule("put", methods=("PUT",)), Rule("any"))
    found = Router([(rule, "same") for rule in rules]).explain(b"h", b"/", b"GET")
    assert [(candidate.name, candidate.matched) for candidate in found] == [("put", False), ("any", True)]
