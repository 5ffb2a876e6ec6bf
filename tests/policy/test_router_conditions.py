"""Conditions on header fields and query parameters, and what they do to the order, to 404, 405 and 400."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from gogate_py.errors import Failure, WireError
from gogate_py.policy.pattern_check import MAX_VALUE
from gogate_py.policy.router import NotAllowed, Router
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


def router_of(*rules: Rule) -> Router[str]:
    """A router that answers with the rules' names."""
    return Router([(rule, rule.name) for rule in rules])


def found(router: Router[str], request: Request | None = None, method: bytes = b"GET") -> str | None:
    """What a request for /x gets: a route's name, "405 methods", or None."""
    result = router.match(b"h", b"/x", method, request)
    return f"405 {result.allow.decode()}" if isinstance(result, NotAllowed) else result


def present(name: str) -> ValueMatch:
    """A condition that something is there."""
    return ValueMatch(name, "present")


def exact(name: str, value: str) -> ValueMatch:
    """A condition on a whole value."""
    return ValueMatch(name, "exact", value)


def regex(name: str, pattern: str) -> ValueMatch:
    """A condition by pattern."""
    return ValueMatch(name, "regex", pattern)


@pytest.mark.parametrize(
    ("condition", "value", "met"),
    [
        (present("x-a"), None, False),
        (present("x-a"), b"", True),
        (present("x-a"), b"v", True),
        (exact("x-a", "v"), None, False),
        (exact("x-a", "v"), b"v", True),
        (exact("x-a", "v"), b"V", False),
        (exact("x-a", "v"), b"v, v", False),
        (exact("x-a", "é"), "é".encode(), True),
        (regex("x-a", "v[0-9]+"), b"v12", True),
        (regex("x-a", "v[0-9]+"), b"v12x", False),
        (regex("x-a", "v[0-9]+"), b"xv12", False),
        (regex("x-a", "v$"), b"v\n", False),
        (regex("x-a", "a|ab"), b"ab", True),
        (regex("x-a", ".*"), b"\xff\n", True),
        (regex("x-a", "a*"), b"a" * MAX_VALUE, True),
        (regex("x-a", "a*"), b"a" * (MAX_VALUE + 1), False),
    ],
)
def test_one_condition(condition: ValueMatch, value: bytes | None, met: bool) -> None:
    """A field or parameter is there, has a value, or matches a pattern as a whole."""
    fields = {} if value is None else {b"x-a": value}
    assert found(router_of(Rule("a", headers=(condition,))), Request(fields=fields)) == ("a" if met else None)
    escaped = b"".join(b"%%%02x" % octet for octet in value or b"")
    query = b"?b=1" if value is None else b"?b=1&x-a=" + escaped
    unescaped_nul = value is not None and b"\0" in value
    assert not unescaped_nul
    assert found(router_of(Rule("a", query=(condition,))), Request(query)) == ("a" if met else None)


def test_field_names_have_no_case_and_parameter_names_have() -> None:
    """A field is asked for in lower case however the rule spells it; a parameter as it is."""
    router = router_of(Rule("a", headers=(exact("X-A", "1"),), query=(exact("P", "2"),)))
    assert found(router, Request(b"?P=2", {b"x-a": b"1"})) == "a"
    assert found(router, Request(b"?p=2", {b"x-a": b"1"})) is None


@pytest.mark.parametrize("condition", [present("a"), exact("a", "1"), regex("a", ".*")])
def test_a_repeated_parameter_meets_nothing(condition: ValueMatch) -> None:
    """A parameter that occurs twice has no value that all servers agree on (SECURITY.md T12)."""
    router = router_of(Rule("a", query=(condition,)), Rule("other"))
    assert found(router, Request(b"?a=1")) == "a"
    assert found(router, Request(b"?a=1&a=1")) == "other"
    assert found(router, Request(b"?a=1&%61=2")) == "other"


def test_without_a_request_no_condition_is_met() -> None:
    """match() without request sees routes without conditions on fields and query only."""
    router = router_of(Rule("a", headers=(present("a"),)), Rule("b", query=(present("a"),)), Rule("c"))
    assert found(router) == "c"


def test_more_conditions_win() -> None:
    """At one place the route with more conditions is asked first, and falls through to those with fewer."""
    router = router_of(
        Rule("none"),
        Rule("methods", methods=("GET",)),
        Rule("two", methods=("GET",), headers=(exact("x-a", "1"),)),
        Rule("three", methods=("GET",), headers=(exact("x-a", "1"),), query=(present("q"),)),
    )
    one = {b"x-a": b"1"}
    assert found(router, Request(b"?q", one)) == "three"
    assert found(router, Request(b"", one)) == "two"
    assert found(router, Request(b"?q", {b"x-a": b"2"})) == "methods"
    assert found(router, Request(b"?q", one), b"POST") == "none"


def test_path_beats_conditions() -> None:
    """A more specific place beats any number of conditions; unmet, it falls through to a less specific place."""
    router = router_of(
        Rule("prefix", path_prefix="/x", headers=(present("x-a"), present("x-b"))),
        Rule("exact", path="/x", headers=(present("x-a"),)),
        Rule("all"),
    )
    assert found(router, Request(fields={b"x-a": b"", b"x-b": b""})) == "exact"
    assert found(router, Request(fields={b"x-b": b""})) == "all"


def test_not_allowed_needs_everything_else_to_match() -> None:
    """405 only if a route matches in all but its methods; otherwise 404. Allow has the methods of just those."""
    router = router_of(
        Rule("a", methods=("PUT",), headers=(exact("x-a", "1"),)),
        Rule("b", methods=("POST", "PATCH"), query=(present("q"),)),
    )
    assert found(router, Request()) is None
    assert found(router, Request(fields={b"x-a": b"1"})) == "405 PUT"
    assert found(router, Request(b"?q=1", {b"x-a": b"1"})) == "405 PATCH, POST, PUT"
    assert found(router, Request(fields={b"x-a": b"2"}), b"PUT") is None
    only_conditions = router_of(Rule("a", headers=(exact("x-a", "1"),)))
    assert found(only_conditions, Request()) is None


def test_head_meets_the_conditions_of_get() -> None:
    """HEAD goes to a route for GET only if that route's other conditions hold."""
    router = router_of(Rule("a", methods=("GET",), headers=(exact("x-a", "1"),)))
    assert found(router, Request(fields={b"x-a": b"1"}), b"HEAD") == "a"
    assert found(router, Request(), b"HEAD") is None


def test_a_bad_query_is_refused_only_where_it_is_read() -> None:
    """A query that cannot be read is a 400 where a route asks about it, also if another would not have asked; not
    where no route asks, where a more specific one matched already, or where a field was wrong already."""
    bad = Request(b"?a=%zz")
    router = router_of(
        Rule("asks", query=(present("a"),)),
        Rule("put", methods=("PUT",), headers=(present("x-a"),)),
        Rule("field", headers=(present("x-b"),), query=(present("a"),), path="/y"),
        Rule("all"),
    )
    with pytest.raises(WireError) as caught:
        found(router, bad)
    assert caught.value.failure is Failure.BAD_QUERY
    assert found(router, Request(b"?a=%zz", {b"x-a": b""}), b"PUT") == "put"
    assert router.match(b"h", b"/y", b"PUT", Request(b"?a=%zz", {b"x-a": b""})) == "put"
    assert found(router_of(Rule("all")), bad) == "all"


def test_the_cache_keeps_places_not_results() -> None:
    """Requests for the same host and path with other fields or methods are told apart though the lookup is cached."""
    router = router_of(Rule("a", headers=(exact("x-a", "1"),)), Rule("b", methods=("PUT",)), Rule("c"))
    for _ in range(2):
        assert found(router, Request(fields={b"x-a": b"1"})) == "a"
        assert found(router, Request(), b"PUT") == "b"
        assert found(router, Request()) == "c"
