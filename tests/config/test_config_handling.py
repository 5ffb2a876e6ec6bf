"""What a route does with requests: conditions, targets, splits, rewriting, edits, retries, answers of gogate's own."""

from __future__ import annotations

import pytest
from config_loading import load, problems, told

from gogate_py.config.schema import (
    FieldEdits,
    FixedResponse,
    Redirect,
    Retry,
    Rewrite,
    Route,
    Server,
    SplitArm,
    Sticky,
)

POOLS = "pools: {a: {backends: ['a:1']}, b: {backends: ['b:1']}}\n"
HTTP = "server: {httpListenAddr: ':1'%s}\n" + POOLS


def text(route: str, server: str = "") -> str:
    """A file with one route."""
    return HTTP % (server and f", {server}") + f"routes: [{{{route}}}]"


def one(route: str, server: str = "") -> Route:
    """The route of such a file."""
    return load(text(route, server)).routes[0]


def test_conditions_on_fields_and_parameters() -> None:
    """A value is exact, a regular expression behind ~, or present when empty; plain scalars are text."""
    match = one("pool: a, match: {headers: {X-V: 2, x-w: '~^[a-c]+$', X-Y: ''}, query: {debug: true, 'a b': ''}}").match
    assert match.headers == {"X-V": "2", "x-w": "~^[a-c]+$", "X-Y": ""}
    assert match.query == {"debug": "true", "a b": ""}
    assert not match.everything


@pytest.mark.parametrize(
    ("route", "key", "message"),
    [("pool: a, match: {headers: {X_A: '1'}}", "match.headers.X_A", "not a field name"),
     ("pool: a, match: {headers: {X-A: '1', x-a: '2'}}", "match.headers.x-a", "given already as X-A"),
     ("pool: a, match: {headers: {X-A: }}", "match.headers.X-A", "has no value"),
     ("pool: a, match: {headers: {X-A: [1]}}", "match.headers.X-A", "expected a single value, not a list"),
     ("pool: a, match: {headers: {X-A: '~('}}", "match.headers.X-A", "not a regular expression"),
     ("pool: a, match: {headers: {X-A: '~(a+)+'}}", "match.headers.X-A", "regular expression is not possible"),
     ('pool: a, match: {headers: {X-A: "a\\nb"}}', "match.headers.X-A", "control characters"),
     ("pool: a, match: {headers: [X-A]}", "match.headers", "expected a mapping of names, not a list"),
     ("pool: a, match: {query: {'': x}}", "match.query.", "a name is missing"),
     ("pool: a, match: {query: {q: '~[z-a]'}}", "match.query.q", "not a regular expression"),
     ("pool: a, match: {method: GET}", "match.method", "unknown key")])
def test_wrong_conditions(route: str, key: str, message: str) -> None:
    """A condition that could never hold, or cost too much, is refused at its place."""
    (problem,) = problems(text(route))
    assert problem.key == f"routes[0].{key}"
    assert message in problem.message


@pytest.mark.parametrize(
    ("route", "key", "message"),
    [("pool: a, split: [a, b]", "split", "exactly one of pool, split, redirect, fixedResponse; pool is in line 3"),
     ("pool: a, redirect: {to: /x}", "redirect", "exactly one of"),
     ("split: [a], fixedResponse: {}", "fixedResponse", "exactly one of"),
     ("match: {path: /x}", "", "pool is required (or split, redirect, fixedResponse)"),
     ("pool: c", "pool", "there is no pool c"),
     ("split: [a, c]", "split[1].pool", "there is no pool c"),
     ("split: []", "split", "is empty"),
     ("split: [{pool: a, weight: 0}, {pool: b, weight: 0}]", "split", "every weight is 0"),
     ("split: [a, a]", "split[1].pool", "a is in this split already (line 3)"),
     ("split: [{pool: a, canary: true}, {pool: b, canary: true}]", "split[1].canary", "one arm is the canary"),
     ("split: [{weight: 1}]", "split[0]", "pool is required"),
     ("split: [{pool: a, weight: 1000001}]", "split[0].weight", "the most is 1000000"),
     ("split: [{pool: a, percent: 5}]", "split[0].percent", "unknown key"),
     ("split: {a: 1}", "split", "expected a list, not a mapping"),
     ("pool: a, sticky: cookie", "sticky", "does not apply to a route without split"),
     ("pool: a, canaryHeader: X-C", "canaryHeader", "does not apply to a route without split"),
     ("pool: a, splitFallback: none", "splitFallback", "does not apply to a route without split"),
     ("split: [a], canaryHeader: 'a b'", "canaryHeader", "not a field name"),
     ("split: [a], splitFallback: first", "splitFallback", "not a known value"),
     ("split: [a], sticky: {by: session}", "sticky.by", "cannot keep a client"),
     ("split: [a], sticky: {by: 'cookie:x'}", "sticky.by", "the cookie's name is the key cookie"),
     ("split: [a], sticky: {by: 'header:'}", "sticky.by", "needs a name"),
     ("split: [a], sticky: {}", "sticky", "by is required"),
     ("split: [a], sticky: {by: ip, cookie: x}", "sticky.cookie", "is of sticky by cookie; this one is by ip"),
     ("split: [a], sticky: {by: cookie, cookie: 'a b'}", "sticky.cookie", "a cookie's name"),
     ("split: [a], sticky: {by: cookie, maxAge: 1s}", "sticky.maxAge", "the least is 60s"),
     ("split: [a], sticky: {by: cookie, secret: short}", "sticky.secret", "shorter than 32 characters"),
     ("split: [a], sticky: {by: cookie, secret: ''}", "sticky.secret", "shorter than 32 characters"),
     ("split: [a], sticky: {by: 'jwt:sub'}", "sticky.by", "this route has no auth of type jwt"),
     ("split: [a], sticky: 'jwt:sub'", "sticky", "this route has no auth of type jwt")])
def test_wrong_targets(route: str, key: str, message: str) -> None:
    """Where requests go is said exactly once, and a split can be followed."""
    (problem,) = problems(text(route))
    assert problem.key == ("routes[0]." + key).rstrip(".")
    assert problem.line == 3
    assert message in problem.message


def test_splits() -> None:
    """Arms have weights, one may be the canary; a name alone is an arm of weight 1."""
    route = one("split: [{pool: a, weight: 90}, {pool: b, weight: 10, canary: true}]")
    assert route.split == (SplitArm("a", 90), SplitArm("b", 10, True))
    assert (route.sticky, route.canary_header, route.split_fallback) == (None, "X-Canary", "other")
    route = one("split: [a, {pool: b, weight: 0}], sticky: cookie, canaryHeader: '', splitFallback: none")
    assert route.split == (SplitArm("a", 1), SplitArm("b", 0))
    assert (route.sticky, route.canary_header, route.split_fallback) == (Sticky("cookie"), "", "none")


@pytest.mark.parametrize(
    ("written", "sticky"),
    [("ip", Sticky("ip")), ("'header:X-User'", Sticky("header:X-User")), ("{by: Cookie}", Sticky("cookie")),
     ("{by: cookie, cookie: arm, maxAge: 1h, secret: %s}" % ("s" * 32), Sticky("cookie", "arm", 3600, "s" * 32))])
def test_what_a_client_is_kept_by(written: str, sticky: Sticky) -> None:
    """By cookie, address, field or claim; the word alone is enough."""
    assert one(f"split: [a, b], sticky: {written}").sticky == sticky


@pytest.mark.parametrize(
    ("route", "prefix"),
    [("match: {pathPrefix: /api/v1}, stripPrefix: true", "/api/v1"),
     ("match: {pathPrefix: /a/}, stripPrefix: /a", "/a"),
     ("match: {pathPrefix: /api/v1}, stripPrefix: /api", "/api"), ("match: {path: '/a/{x}'}, stripPrefix: /a", "/a"),
     ("match: {path: '/a/*'}, stripPrefix: /a/", "/a"), ("match: {pathPrefix: /}, stripPrefix: true", ""),
     ("match: {pathPrefix: /a}, stripPrefix: false", ""), ("match: {pathPrefix: /a}", ""),
     ("match: {pathPrefix: /a}, stripPrefix: /", "")])
def test_prefixes_that_are_stripped(route: str, prefix: str) -> None:
    """true stands for the matched prefix; a text must begin everything that matches."""
    assert one(f"pool: a, {route}").strip_prefix == prefix


@pytest.mark.parametrize(
    ("route", "key", "message"),
    [("stripPrefix: true", "stripPrefix", "needs match.pathPrefix"),
     ("match: {path: /a}, stripPrefix: true", "stripPrefix", "needs match.pathPrefix"),
     ("stripPrefix: /a", "stripPrefix", "/a is not a beginning of what this route matches (every path)"),
     ("match: {pathPrefix: /apix}, stripPrefix: /api", "stripPrefix", "is not a beginning"),
     ("match: {pathPrefix: /a}, stripPrefix: /a/b", "stripPrefix", "is not a beginning"),
     ("match: {path: '/{x}/b'}, stripPrefix: '/a'", "stripPrefix", "is not a beginning"),
     ("match: {path: '/*'}, stripPrefix: '/a'", "stripPrefix", "is not a beginning"),
     ("match: {pathPrefix: /a}, stripPrefix: 'true'", "stripPrefix", "a path begins with /"),
     ("match: {pathPrefix: /a}, stripPrefix: yes", "stripPrefix", "a path begins with /"),
     ("rewrite: {path: v1}", "rewrite.path", "begins with /"),
     ("rewrite: {path: '/{id}'}", "rewrite.path", "{id} is not known here"),
     ("rewrite: '/{id'", "rewrite", "stands alone"),
     ("rewrite: {}", "rewrite", "path is required"),
     ("match: {path: '/u/{id}'}, rewrite: {path: '/{rest}'}", "rewrite.path", "{rest} is not known here"),
     ("rewrite: {uri: /}", "rewrite.uri", "unknown key")])
def test_wrong_paths(route: str, key: str, message: str) -> None:
    """A prefix that is not always there, and a template that says nothing, are refused."""
    found = problems(text(f"pool: a, {route}"))
    assert [problem.key for problem in found][:1] == [f"routes[0].{key}"]
    assert message in found[0].message


def test_rewriting() -> None:
    """A template knows the route's parameters, what is left over, and the path."""
    assert one("pool: a, match: {path: '/u/{id}'}, rewrite: {path: '/v/{id}/x'}").rewrite == Rewrite("/v/{id}/x")
    assert one("pool: a, match: {pathPrefix: /u}, rewrite: '/v/{rest}'").rewrite == Rewrite("/v/{rest}")
    assert one("pool: a").rewrite is None


@pytest.mark.parametrize(
    ("route", "key", "message"),
    [("requestHeaders: {set: {Content-Length: '1'}}", "requestHeaders.set.Content-Length", "gogate writes it itself"),
     ("requestHeaders: {add: {X-Forwarded-For: x}}", "requestHeaders.add.X-Forwarded-For", "set by gogate"),
     ("requestHeaders: {add: {Host: x}}", "requestHeaders.add.Host", "Host can only be set"),
     ("requestHeaders: {remove: [Connection]}", "requestHeaders.remove[0]", "Connection"),
     ("requestHeaders: {set: {X-A: '{nope}'}}", "requestHeaders.set.X-A", "{nope} is not known here"),
     ("requestHeaders: {set: {X-A: ' x'}}", "requestHeaders.set.X-A", "neither begins nor ends"),
     ('requestHeaders: {set: {X-A: "a\\r\\nX-B: c"}}', "requestHeaders.set.X-A", "control character"),
     ("requestHeaders: {set: {X-A: a, x-a: b}}", "requestHeaders.set.x-a", "given already"),
     ("responseHeaders: {set: {Transfer-Encoding: x}}", "responseHeaders.set.Transfer-Encoding", "gogate writes it"),
     ("responseHeaders: {delete: [X]}", "responseHeaders.delete", "unknown key"),
     ("responseHeaders: [X]", "responseHeaders", "expected a mapping, not a list")])
def test_wrong_edits(route: str, key: str, message: str) -> None:
    """Fields that gogate writes, and values that would end their line, cannot be configured."""
    (problem,) = problems(text(f"pool: a, {route}"))
    assert problem.key == f"routes[0].{key}"
    assert message in problem.message


def test_edits_are_inherited_key_by_key() -> None:
    """A route replaces what it writes, keeps the rest, and switches all off with none."""
    server = "requestHeaders: {set: {X-Env: prod}, remove: [X-Debug]}"
    assert one("pool: a", server).request_headers == FieldEdits({"X-Env": "prod"}, {}, ("X-Debug",))
    assert one("pool: a, requestHeaders: {set: {X-B: '{client_ip}'}}", server).request_headers == FieldEdits(
        {"X-B": "{client_ip}"}, {}, ("X-Debug",))
    assert one("pool: a, requestHeaders: none", server).request_headers is None
    assert one("pool: a").request_headers is None


def test_a_servers_edits_know_no_parameters() -> None:
    """What holds for every route cannot name the parameter of one; a problem there is told once."""
    (message,) = told(text("pool: a, match: {path: '/{id}'}", "requestHeaders: {set: {X-Id: '{id}'}}"))
    assert message.startswith("server.requestHeaders.set.X-Id: {id} is not known here")
    assert one("pool: a, match: {path: '/{id}'}, requestHeaders: {set: {X-Id: '{id}'}}").request_headers is not None


def test_answers_of_gogates_own() -> None:
    """A redirect and a fixed response have what they say, with sensible defaults."""
    assert one("redirect: {to: 'https://{host}{uri}'}").redirect == Redirect("https://{host}{uri}", 308)
    assert one("redirect: /x").redirect == Redirect("/x")
    assert one("redirect: {to: /x, status: 302}, match: {path: /y}").redirect == Redirect("/x", 302)
    assert one("fixedResponse: {status: 403, body: \"no\\n\", contentType: text/html}").fixed_response == FixedResponse(
        403, "no\n", "text/html")
    assert one("fixedResponse: {}").fixed_response == FixedResponse()


@pytest.mark.parametrize(
    ("route", "key", "message"),
    [("redirect: {}", "redirect", "to is required"),
     ("redirect: {to: /x, status: 200}", "redirect.status", "not possible here"),
     ("redirect: {to: 'https://{query}/'}", "redirect.to", "would let a request choose"),
     ("redirect: 'ftp://x'", "redirect", "begins with https://"),
     ("redirect: {url: /x}", "redirect.url", "unknown key"),
     ("fixedResponse: {status: 99}", "fixedResponse.status", "the least is 200"),
     ("fixedResponse: {status: 204, body: x}", "fixedResponse.body", "has no body"),
     ("fixedResponse: {contentType: text}", "fixedResponse.contentType", "is not a media type"),
     ("redirect: /x, stripPrefix: /a", "stripPrefix", "does not apply to a route with redirect"),
     ("redirect: /x, requestHeaders: {}", "requestHeaders", "does not apply to a route with redirect"),
     ("fixedResponse: {}, retry: {}", "retry", "does not apply to a route with fixedResponse"),
     ("fixedResponse: {}, cache: {}", "cache", "does not apply to a route with fixedResponse"),
     ("fixedResponse: {}, websocket: false", "websocket", "no backend is asked")])
def test_wrong_answers(route: str, key: str, message: str) -> None:
    """An answer that no client could use, and keys that would do nothing, are refused."""
    found = problems(text(route))
    assert found[0].key == f"routes[0].{key}"
    assert message in found[0].message


RETRY = [
    ("attempts: 0", "attempts", "the least is 1"), ("attempts: 11", "attempts", "the most is 10"),
    ("maxTries: 3", "maxTries", "unknown key"), ("bodyBuffer: 17MiB", "bodyBuffer", "the most is 16MiB"),
    ("on: [404]", "on[0]", "from 500 to 599"), ("on: [5xx]", "on[0]", "name each status"),
    ("on: [refused]", "on[0]", "not a known value"), ("on: connect", "on", "expected a list"),
    ("on: [502, 502]", "on[1]", "in the list twice"), ("backoff: 61s", "backoff", "the most is 60s"),
    ("backoff: 1s", "backoff", "longer than maxBackoff"), ("maxBackoff: 1ms", "maxBackoff", "longer than maxBackoff"),
    ("budgetPercent: 101%", "budgetPercent", "the most is 100"), ("methods: idempotnt", "methods", "not a method"),
    ("methods: [FETCH]", "methods[0]", "not a method"), ("methods: []", "methods", "is empty"),
    ("perTryTimeout: -1s", "perTryTimeout", "cannot be negative")]


@pytest.mark.parametrize(("inside", "key", "message"), RETRY)
@pytest.mark.parametrize("place", ["server", "routes[0]"])
def test_wrong_retries(inside: str, key: str, message: str, place: str) -> None:
    """One mistake is one problem, at server level and in a route."""
    retry = f"retry: {{{inside}}}"
    (problem,) = problems(text(f"pool: a, {retry}") if place != "server" else text("pool: a", retry))
    assert problem.key == f"{place}.retry.{key}"
    assert message in problem.message


def test_retries() -> None:
    """The defaults are safe; a route changes each key on its own; statuses are text, on has a second name."""
    assert one("pool: a").retry == Retry() == Server().retry
    assert Retry().on == ("connect", "reset", "502", "503", "504")
    retry = one("pool: a, retry: {on: [connect-failure, 502, timeout], methods: [GET, POST]}", "retry: {attempts: 3}")
    assert retry.retry == Retry(attempts=3, on=("connect", "502", "timeout"), methods=("GET", "POST"))
    assert one("pool: a, retry: {retryOn: [reset], methods: Idempotent}").retry.on == ("reset",)
    assert one("pool: a, retry: {budget_percent: 0, per-try-timeout: 1s}").retry.per_try_timeout == 1


def test_a_try_ends_within_its_request() -> None:
    """A request that is over before a try could be is a mistake, wherever the two were written."""
    (message,) = told(text("pool: a, timeouts: {request: 1s}, retry: {perTryTimeout: 2s}"))
    assert message.startswith("routes[0].retry.perTryTimeout: timeouts.request (1s) is over before")
    (message,) = told(text("pool: a, timeouts: {request: 1s}", "retry: {perTryTimeout: 2s}"))
    assert message.startswith("routes[0].timeouts.request: ")
    (message,) = told(text("pool: a", "timeouts: {request: 1s}, retry: {perTryTimeout: 2s}"))
    assert message.startswith("server.retry.perTryTimeout: ")
    assert told(text("pool: a, timeouts: {request: 2s}, retry: {perTryTimeout: 2s}")) == []


def test_limits_of_a_route() -> None:
    """A route has the server's limit of bodies, or its own; other limits are not a route's."""
    assert one("pool: a", "limits: {requestBody: 1KiB}").limits.request_body == 1024
    assert one("pool: a, limits: {}", "limits: {requestBody: 1KiB}").limits.request_body == 1024
    assert one("pool: a, limits: {requestBody: 0}", "limits: {requestBody: 1KiB}").limits.request_body == 0
    (message,) = told(text("pool: a, limits: {requestHead: 1KiB}"))
    assert message == "routes[0].limits.requestHead: unknown key"


def test_clients_by_address() -> None:
    """Networks are taken in CIDR notation."""
    route = one("pool: a, allowCIDRs: [10.0.0.0/8, '::1'], deny_cidrs: [10.9.0.0/16]")
    assert (route.allow_cidrs, route.deny_cidrs) == (("10.0.0.0/8", "::1/128"), ("10.9.0.0/16",))
    (message,) = told(text("pool: a, denyCIDRs: [10.0.0.1/8]"))
    assert "bits set beyond" in message


@pytest.mark.parametrize(
    "keys",
    ["split: [a]", "stripPrefix: /a", "rewrite: /", "requestHeaders: {}", "responseHeaders: {}", "auth: none",
     "cors: none", "cache: {}", "retry: {}", "limits: {}", "allowCIDRs: []", "denyCIDRs: []",
     "forwardAuth: none", "redirect: /", "fixedResponse: {}", "sticky: ip", "canaryHeader: ''"])
def test_keys_that_no_tcp_route_has(keys: str) -> None:
    """What is about requests does not apply to connections."""
    found = told(POOLS + f"routes: [{{type: tcp, listenAddr: ':5', pool: a, {keys}}}]")
    assert [message.partition(": ")[0] for message in found] == ["routes[0]." + keys.partition(":")[0]]
    assert "does not apply to a route of type tcp" in found[0]


def test_routes_that_are_never_reached() -> None:
    """A route whose requests are all taken by more specific ones is named with those."""
    routes = "[{name: all, match: {path: '/*'}, pool: a}, {name: api, match: {pathPrefix: /api}, pool: a}]"
    (message,) = told(HTTP % "" + f"routes: {routes}")
    assert message.startswith("routes[1].match: the route api is never reached: all that it matches is taken by all")
    assert message.endswith("(all is in line 3)")


def test_words_of_other_programs_lead_to_the_key() -> None:
    """An unknown key that another program has is told with the one that means the same here."""
    for word, meant in [("jwt", "auth"), ("retries", "retry"), ("rate-limits", "rateLimit"), ("canary", "split"),
                        ("upstream", "pool"), ("directResponse", "fixedResponse"), ("ipAllowList", "allowCIDRs")]:
        (problem,) = problems(text(f"pool: a, {word}: {{}}"))
        assert (problem.message, problem.suggestion) == ("unknown key", meant)
