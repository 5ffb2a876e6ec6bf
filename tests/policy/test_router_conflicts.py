"""Routes of which one would win by chance, or one never does."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from gogate_py.policy.route_conflicts import AMBIGUOUS, UNREACHABLE, find_conflicts
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


def exact(name: str, value: str) -> ValueMatch:
    """A condition on a whole value."""
    return ValueMatch(name, "exact", value)


def present(name: str) -> ValueMatch:
    """A condition that something is there."""
    return ValueMatch(name, "present")


def regex(name: str, pattern: str) -> ValueMatch:
    """A condition by pattern."""
    return ValueMatch(name, "regex", pattern)


A, B = Rule("one"), Rule("two")
GET, POST = ("GET",), ("POST",)


@pytest.mark.parametrize(
    ("one", "two", "kind"),
    [
        (A, B, UNREACHABLE),
        (A, B._replace(path_prefix="/"), UNREACHABLE),
        (A, B._replace(host="h"), ""),
        (A, B._replace(methods=GET), ""),
        (A._replace(host="h"), B._replace(host="H"), UNREACHABLE),
        (A._replace(path="/x/{a}"), B._replace(path="/x/:b"), UNREACHABLE),
        (A._replace(path="/x/{a}"), B._replace(path="/x/*"), ""),
        (A._replace(path="/x"), B._replace(path_prefix="/x"), ""),
        (A._replace(path_prefix="/x"), B._replace(path_prefix="/x/"), UNREACHABLE),
        (A._replace(methods=GET), B._replace(methods=POST), ""),
        (A._replace(methods=GET), B._replace(methods=GET), UNREACHABLE),
        (A._replace(methods=("GET", "PUT")), B._replace(methods=("POST", "GET")), AMBIGUOUS),
        (A._replace(methods=("GET", "PUT")), B._replace(methods=GET), AMBIGUOUS),
        (A._replace(methods=("GET", "PUT")), B._replace(methods=("PUT", "GET")), UNREACHABLE),
        # conditions on one field
        (A._replace(headers=(exact("x", "1"),)), B._replace(headers=(exact("x", "2"),)), ""),
        (A._replace(headers=(exact("x", "1"),)), B._replace(headers=(exact("X", "1"),)), UNREACHABLE),
        (A._replace(headers=(exact("x", "1"),)), B._replace(headers=(present("x"),)), AMBIGUOUS),
        (A._replace(headers=(exact("x", "1"),)), B._replace(headers=(regex("x", "[0-9]"),)), AMBIGUOUS),
        (A._replace(headers=(regex("x", "[0-9]"),)), B._replace(headers=(exact("x", "a"),)), ""),
        (A._replace(headers=(regex("x", "a.*"),)), B._replace(headers=(regex("x", "b.*"),)), AMBIGUOUS),
        (A._replace(headers=(regex("x", "a.*"),)), B._replace(headers=(regex("x", "a.*"),)), UNREACHABLE),
        # on different ones
        (A._replace(headers=(exact("x", "1"),)), B._replace(headers=(exact("y", "1"),)), AMBIGUOUS),
        (A._replace(headers=(exact("x", "1"),)), B._replace(query=(exact("x", "2"),)), AMBIGUOUS),
        (A._replace(query=(exact("x", "1"),)), B._replace(query=(exact("X", "1"),)), AMBIGUOUS),
        (A._replace(query=(exact("x", "1"),)), B._replace(query=(exact("x", "1"),)), UNREACHABLE),
        (A._replace(headers=(exact("x", "1"),)), B._replace(headers=(exact("x", "1"), present("y"))), ""),
        # methods count like any other condition
        (A._replace(methods=GET), B._replace(headers=(present("x"),)), AMBIGUOUS),
        (A._replace(methods=GET, headers=(present("x"),)), B._replace(methods=POST, headers=(present("x"),)), ""),
        # HEAD goes to a route for HEAD before one for GET
        (A._replace(methods=GET), B._replace(methods=("HEAD",)), ""),
    ],
)
def test_two_routes(one: Rule, two: Rule, kind: str) -> None:
    """Two routes of one place contradict each other if a request can match both and their conditions are as many."""
    for first, second in ((one, two), (two, one)):
        found = find_conflicts([first, second])
        assert [conflict.kind for conflict in found] == ([kind] if kind else [])
        if found:
            assert found[0][1:3] == (0, 1)
            assert first.name in found[0].text
            assert second.name in found[0].text


@pytest.mark.parametrize(
    ("one", "two", "what"),
    [
        (A, B, "the same requests"),
        (A._replace(methods=("GET", "PUT")), B._replace(methods=("POST", "PUT", "GET")), "GET, PUT"),
        (A._replace(methods=GET), B._replace(headers=(present("x"),)), "requests that meet the conditions of both"),
    ],
)
def test_text(one: Rule, two: Rule, what: str) -> None:
    """The text names both routes and the requests in question."""
    (found,) = find_conflicts([one, two])
    assert found.text == f"the routes one and two match {what}, and neither is more specific"


def test_a_third_route_for_the_common_requests_settles_it() -> None:
    """Two routes are not ambiguous when every request that matches both goes to one with more conditions."""
    post, header = Rule("post", methods=POST), Rule("header", headers=(exact("x", "1"),))
    both = Rule("both", methods=POST, headers=(exact("x", "1"),))
    assert len(find_conflicts([post, header])) == 1
    assert find_conflicts([post, header, both]) == []
    other = both._replace(headers=(exact("x", "2"),))
    assert len(find_conflicts([post, header, other])) == 1
    only_get = both._replace(methods=GET)
    assert len(find_conflicts([post, header, only_get])) == 1


@pytest.mark.parametrize(
    ("rules", "second"),
    [
        ([Rule("prefix", path_prefix="/api"), Rule("rest", path="/*")], 0),
        ([Rule("all"), Rule("rest", path="/*")], 0),
        ([Rule("prefix", path_prefix="/api/v1"), Rule("rest", path="/{a}/*")], 0),
        ([Rule("prefix", path_prefix="/api/v1"), Rule("rest", path="/api/*")], 0),
        ([Rule("prefix", path_prefix="/x"), Rule("rest", path="/x/*")], None),  # /x itself
        ([Rule("prefix", path_prefix="/x"), Rule("rest", path="/x/*"), Rule("x", path="/x")], 0),
        ([Rule("rest", path="/a/*"), Rule("one", path="/a/{x}"), Rule("more", path="/a/{x}/*")], None),  # /a/
        ([Rule("rest", path="/a/*"), Rule("0", path="/a/"), Rule("1", path="/a/{x}"), Rule("2", path="/a/{x}/*")], 0),
        ([Rule("prefix", path_prefix="/api"), Rule("rest", path="/b/*")], None),
        ([Rule("prefix", path_prefix="/api"), Rule("rest", path="/*", host="h")], None),
        ([Rule("prefix", path_prefix="/api", host="h"), Rule("rest", path="/*")], None),
        ([Rule("prefix", path_prefix="/api"), Rule("rest", path="/*", methods=GET)], None),
        ([Rule("prefix", path_prefix="/api", methods=GET), Rule("rest", path="/*", methods=GET)], 0),
        ([Rule("prefix", path_prefix="/api", methods=("GET", "PUT")), Rule("rest", path="/*", methods=GET)], None),
        ([Rule("prefix", path_prefix="/api", methods=("GET", "PUT")), Rule("get", path="/*", methods=GET),
          Rule("put", path="/*", methods=("PUT",))], 0),
        ([Rule("prefix", path_prefix="/api"), Rule("rest", path="/*", headers=(present("x"),))], None),
        ([Rule("prefix", path_prefix="/api", headers=(exact("x", "1"),)),
          Rule("rest", path="/*", headers=(present("x"),))], 0),
        ([Rule("prefix", path_prefix="/api", headers=(present("x"),)),
          Rule("rest", path="/*", headers=(exact("x", "1"),))], None),
        ([Rule("options", methods=("OPTIONS",)), Rule("rest", path="/*")], None),  # OPTIONS *
        ([Rule("options", path_prefix="/api", methods=("OPTIONS",)), Rule("rest", path="/*")], 0),
        ([Rule("head", path_prefix="/api", methods=("HEAD",)), Rule("rest", path="/*", methods=GET)], 0),
    ],
)
def test_never_reached(rules: list[Rule], second: int | None) -> None:
    """A route of which more specific places leave nothing is found, and one of them is named with it."""
    for turned in (False, True):
        found = find_conflicts(rules[::-1] if turned else rules)
        if second is None:
            assert found == []
        else:
            (conflict,) = found
            expected = len(rules) - 1 - second if turned else second
            assert (conflict.kind, conflict.second) == (UNREACHABLE, expected)
            assert conflict.first != conflict.second
            assert f"the route {rules[second].name} is never reached: all that it matches is taken by" in conflict.text


def test_takers_are_named() -> None:
    """The text names those that take the requests, three at most."""
    rules = [Rule("api", path_prefix="/api"), Rule("rest", path="/*")]
    assert find_conflicts(rules)[0].text == (
        "the route api is never reached: all that it matches is taken by rest, whose path is more specific")
    rules = [Rule("api", path_prefix="/api"), *(Rule(f"r{n}", path="/" + "{a}/" * n + "*") for n in range(5))]
    assert "r0 and r1 and r2 and others" in find_conflicts(rules)[0].text


def test_each_route_is_reported_once() -> None:
    """Of many equal routes each later one is reported once, with the first."""
    found = find_conflicts([Rule(f"r{n}") for n in range(5)])
    assert [(conflict.first, conflict.second) for conflict in found] == [(0, 1), (0, 2), (0, 3), (0, 4)]


def test_ten_thousand_routes_of_one_place() -> None:
    """Routes that only a field's value tells apart are compared without comparing each with each; one that is double
    is found among them."""
    rules = [Rule(f"r{n}", headers=(exact("x-tenant", str(n)), exact("x-env", "prod"))) for n in range(10_000)]
    rules.append(Rule("double", headers=(exact("x-env", "prod"), exact("x-tenant", "5000"))))
    assert [(conflict.first, conflict.second) for conflict in find_conflicts(rules)] == [(5000, 10_000)]


def test_ten_thousand_places() -> None:
    """Many prefixes beside patterns are checked one by one; the only one that a pattern hides is found."""
    rules = [Rule(f"r{n}", path_prefix=f"/p{n}/x") for n in range(10_000)]
    rules += [Rule("deep", path="/p77/x"), Rule("rest", path="/p77/x/*"), Rule("other", path="/{a}/{b}/c/{d}")]
    assert [(conflict.kind, conflict.second) for conflict in find_conflicts(rules)] == [(UNREACHABLE, 77)]
