"""The description of the routed API: what each kind of match and setting of a route becomes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from gogate_py.config.loader import load_text
from gogate_py.controlplane.openapi_routes import describe


def described(*routes: dict[str, Any], host: str = "", **top: Any) -> Any:
    """The document of these routes, as it travels; it is valid."""
    server = {"httpListenAddr": "0.0.0.0:8081", **top.pop("server", {})}
    text = json.dumps({"server": server, "pools": {"p": {"backends": ["127.0.0.1:9"]}}, "routes": [
        {"pool": "p", **route} if not {"redirect", "fixedResponse"} & route.keys() else route for route in routes
    ], **top})
    document = json.loads(json.dumps(describe(load_text(text, "config.yaml", {}), host)))
    OpenAPIV31SpecValidator(document).validate()
    return document


@pytest.mark.parametrize(("match", "paths"), [
    ({},                            {"/": "", "/{rest}": "rest"}),
    ({"pathPrefix": "/"},           {"/": "", "/{rest}": "rest"}),
    ({"pathPrefix": "/api/"},       {"/api": "", "/api/{rest}": "rest"}),
    ({"path": "/exact"},            {"/exact": ""}),
    ({"path": "/u/:id"},            {"/u/{id}": "id"}),
    ({"path": "/u/{id}/x/*"},       {"/u/{id}/x/{rest}": "id rest"}),
    ({"path": "/u/{rest}/*"},       {"/u/{rest}/{rest_}": "rest rest_"}),
])  # fmt: skip
def test_paths_and_their_parameters(match: dict[str, Any], paths: dict[str, str]) -> None:
    """Each form of match as OpenAPI's templates; the rest of a path says that it may hold slashes."""
    document = described({"name": "r", "match": match})
    shown = {
        path: " ".join(one["name"] for one in item["get"].get("parameters", ()))
        for path, item in document["paths"].items()}
    assert shown == paths
    for item in document["paths"].values():
        for one in item["get"].get("parameters", ()):
            assert ("slashes" in one.get("description", "")) == (one["name"].startswith("rest") and (
                one is item["get"]["parameters"][-1]))


def test_methods_are_those_of_the_route_or_the_usual_ones() -> None:
    """Without methods those that the gateway lets in; only they that bring one have a body."""
    known = ["GET", "POST", "OPTIONS"]
    document = described(
        {"name": "a", "match": {"path": "/a"}}, {"name": "b", "match": {"path": "/b", "methods": sorted(known)}},
        server={"limits": {"methods": known}})
    assert [*document["paths"]["/a"]] == ["get", "post"]
    assert [*document["paths"]["/b"]] == ["get", "options", "post"]
    assert {name: "requestBody" in one for name, one in document["paths"]["/b"].items()} == {
        "get": False, "options": False, "post": True}


@pytest.mark.parametrize(("auth", "security", "schemes"), [
    ({"type": "basic", "users": {"a": "$2b$12$BpVHP1y6YUtFXNLTjqCU..ZafncDu645NiFBBPwl.rNcEh9WKWIe6"}},
     [{"basic": []}], {"basic": {"type": "http", "scheme": "basic"}}),
    ({"type": "jwt", "secret": "x" * 32, "issuer": "i", "audience": "a"},
     [{"jwt": []}], {"jwt": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}),
    ({"type": "api_key", "header": "X-K", "query": "k y", "keys": {"ci": "a" * 64}},
     [{"api_key.header.X-K": []}, {"api_key.query.k_y": []}],
     {"api_key.header.X-K": {"type": "apiKey", "in": "header", "name": "X-K"},
      "api_key.query.k_y": {"type": "apiKey", "in": "query", "name": "k y"}}),
])  # fmt: skip
def test_authentication_becomes_security(auth: dict[str, Any], security: Any, schemes: Any) -> None:
    """Of the server or the route; a public route below has none. Secrets are not told."""
    document = described(
        {"name": "r", "match": {"path": "/r"}}, {"name": "open", "match": {"path": "/open"}, "auth": {"type": "none"}},
        server={"auth": auth})
    assert document["components"]["securitySchemes"] == schemes
    assert document["paths"]["/r"]["get"]["security"] == security
    assert "401" in document["paths"]["/r"]["get"]["responses"]
    assert document["paths"]["/open"]["get"].keys() & {"security"} == set()
    assert "401" not in document["paths"]["/open"]["get"]["responses"]
    text = json.dumps(document)
    assert "x" * 32 not in text
    assert "a" * 64 not in text
    assert "$2b$" not in text


def test_limits_and_rules_are_told() -> None:
    """What a client can run into: the server's limits too, unless the route is exempt."""
    document = described(
        {"name": "a", "match": {"path": "/a"}, "rateLimit": {"rate": 5, "burst": 2, "keyBy": "ip"},
         "limits": {"requestBody": "1KiB"}, "allowCIDRs": ["10.0.0.0/8"], "timeouts": {"request": "3s"},
         "cors": {"allowOrigins": ["https://a.example"]}},
        {"name": "free", "match": {"path": "/free"}, "rateLimit": {"enabled": False}},
        server={"rateLimit": [{"algorithm": "fixed_window", "rate": 100, "per": "1m"}]})
    one = document["paths"]["/a"]["get"]
    assert one["responses"].keys() == {"default", "403", "413", "429"}
    assert one["x-gogate"] == {
        "route": "a", "pools": ["p"], "max_body_bytes": 1024, "timeout_s": 3.0,
        "rate_limits": [
            {"name": "token_bucket", "algorithm": "token_bucket", "rate": 5.0, "per_s": 1.0, "burst": 2,
             "key_by": ["ip"]},
            {"name": "fixed_window", "algorithm": "fixed_window", "rate": 100.0, "per_s": 60.0, "key_by": ["global"]}],
        "clients": {"allow": ["10.0.0.0/8"], "deny": []},
        "cors": {"origins": ["https://a.example"], "methods": ["GET", "HEAD", "POST"], "headers": [],
                 "credentials": False}}
    assert document["paths"]["/free"]["get"]["responses"].keys() == {"default"}


def test_answers_of_the_gateway_itself() -> None:
    """Redirects and fixed responses have the status that they have."""
    document = described(
        {"name": "a", "match": {"path": "/a"}, "redirect": "https://x.example/"},
        {"name": "b", "match": {"path": "/b"}, "fixedResponse": {"status": 418, "body": "no"}})
    assert document["paths"]["/a"]["post"]["responses"]["308"]["headers"].keys() == {"Location"}
    assert document["paths"]["/b"]["get"]["responses"]["418"]["content"].keys() == {"text/plain"}
    assert "requestBody" not in document["paths"]["/a"]["post"]


def test_several_routes_at_one_place() -> None:
    """The one without conditions is described, the others are named; templates that are the same are one."""
    document = described(
        {"name": "beta", "match": {"path": "/u/{name}", "headers": {"X-Beta": "1"}}},
        {"name": "stable", "match": {"path": "/u/{id}"}},
        {"name": "other", "match": {"host": "*.x.example", "path": "/u/{who}", "methods": ["GET", "PATCH"]}})
    assert [*document["paths"]] == ["/u/{who}"]
    item = document["paths"]["/u/{who}"]
    assert item["get"]["x-gogate"]["route"] == "other"
    assert item["get"]["x-gogate"]["also"] == [{"route": "stable"}, {"route": "beta", "headers": {"X-Beta": "1"}}]
    assert item["post"]["x-gogate"]["route"] == "stable"
    assert [one["name"] for one in item["post"]["parameters"]] == ["who"]


def test_conditions_are_required_parameters() -> None:
    """A route that is reached only with a field or a parameter says so."""
    document = described({"name": "r", "match": {"path": "/r", "headers": {"X-A": "~[0-9]+|x"}, "query": {"q": ""}}})
    shown = {one["name"]: (one["in"], one["required"], one["schema"]) for one in
             document["paths"]["/r"]["get"]["parameters"]}
    assert shown == {
        "X-A": ("header", True, {"type": "string", "pattern": "^(?:[0-9]+|x)$"}),
        "q": ("query", True, {"type": "string"})}


@pytest.mark.parametrize(("host", "routes", "servers"), [
    ("", {"all", "x", "wild"}, {}),
    ("X.example:8081", {"all", "x"}, {"x": "http://x.example:8081", "all": "http://{host}:8081"}),
    ("a.w.example.", {"all", "wild"}, {"wild": "http://{name}.w.example:8081"}),
    ("w.example", {"all"}, {}),
    ("strange", {"all"}, {"all": "http://{host}:8081"}),
])  # fmt: skip
def test_a_host_gets_what_is_meant_for_it(host: str, routes: set[str], servers: dict[str, str]) -> None:
    """?host= leaves routes for other hosts out, as the router does; servers say where a route is."""
    document = described(
        {"name": "all", "match": {"path": "/all"}}, {"name": "x", "match": {"host": "x.example", "path": "/x"}},
        {"name": "wild", "match": {"host": "*.w.example", "path": "/wild"}}, host=host)
    found = {item["get"]["x-gogate"]["route"]: item["get"] for item in document["paths"].values()}
    assert found.keys() == routes
    for route, url in servers.items():
        assert [one["url"] for one in found[route]["servers"]] == [url]
    if host == "a.w.example.":
        assert found["wild"]["servers"][0]["variables"]["name"]["default"] == "a"
    assert found["all"]["servers"][0]["variables"]["host"]["default"] == (
        {"X.example:8081": "x.example"}.get(host, host.rstrip(".")) or "localhost")


def test_routes_of_other_kinds_are_left_out() -> None:
    """TCP routes have no paths; a gateway without HTTP has an empty document."""
    document = described({"name": "db", "type": "tcp", "listenAddr": ":5432"}, server={"httpListenAddr": ""})
    assert document["paths"] == {}
