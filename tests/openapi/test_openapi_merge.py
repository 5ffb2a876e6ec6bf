"""Documents of backends as parts of the gateway's: paths, names, versions, and what cannot be used."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator

from gogate_py.config.loader import load_text
from gogate_py.config.openapi_document import UnusableDocument, read_document
from gogate_py.config.schema import Match, Rewrite, Route
from gogate_py.controlplane.openapi_documents import Source
from gogate_py.controlplane.openapi_merge import public_path
from gogate_py.controlplane.openapi_routes import describe
from gogate_py.errors import ConfigError

USERS: dict[str, Any] = {
    "openapi": "3.0.3", "info": {"title": "Users", "version": "1"}, "servers": [{"url": "https://users.internal/v1"}],
    "security": [{"key": ["x"]}],
    "paths": {
        "/users/{id}": {
            "parameters": [{"$ref": "#/components/parameters/Id"}],
            "get": {"operationId": "getUser", "summary": "One user", "tags": ["u"], "responses": {"200": {
                "description": "It.", "links": {"x": {"operationId": "getUser"}},
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/User"}}}}}},
            "delete": {"security": [], "responses": {"204": {"description": "Gone."}}},
        },
        "/admin/reset": {"post": {"responses": {"default": {"description": "Done."}}}},
    },
    "components": {
        "parameters": {"Id": {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}},
        "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-Key"}},
        "schemas": {"User": {"type": "object", "properties": {
            "default": {"$ref": "#/components/schemas/User"}, "name": {"type": "string", "nullable": True},
            "age": {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
            "data": {"type": "object", "default": {"nullable": True}},
            "nick": {"nullable": True, "allOf": [{"$ref": "#/components/schemas/User"}]}}}},
    },
}  # fmt: skip


def described(*routes: dict[str, Any], document: Any = USERS, **server: Any) -> Any:
    """The document of these routes, all of which have the same document; as it travels."""
    config = load_text(json.dumps({
        "server": {"httpListenAddr": ":8081", **server}, "pools": {"p": {"backends": ["127.0.0.1:9"]}},
        "routes": [{"pool": "p", **route} for route in routes]}), "config.yaml", {})
    known = {route.name: Source("doc", copy.deepcopy(document), "", 5.0) for route in config.routes if route.openapi}
    return json.loads(json.dumps(describe(config, "", known, 7.0)))


URL = "http://127.0.0.1:9/openapi.json"


@pytest.mark.parametrize(("match", "strip", "rewrite", "path", "public"), [
    (Match(),                      "",     "",             "/v1/x",      "/v1/x"),
    (Match(path_prefix="/v1"),     "",     "",             "/v1/x",      "/v1/x"),
    (Match(path_prefix="/v1"),     "",     "",             "/v1x",       None),
    (Match(path_prefix="/api"),    "/api", "",             "/v1/{id}",   "/api/v1/{id}"),
    (Match(path_prefix="/api"),    "/api", "",             "/",          "/api"),
    (Match(path_prefix="/api"),    "",     "/v1/{rest}",   "/v1/a/b",    "/api/a/b"),
    (Match(path_prefix="/api"),    "",     "/v1/{rest}",   "/v2/a",      None),
    (Match(path_prefix="/api"),    "/api", "/v1{path}",    "/v1/a",      "/api/a"),
    (Match(path_prefix="/api"),    "/api", "/v1{path}",    "/v1a",       None),
    (Match(path="/u/{id}/*"),      "",     "/v1/{rest}",   "/v1/a",      None),
    (Match(path="/u/{id}"),        "",     "/v1/{id}",     "/v1/a",      None),
    (Match(path="/u/*"),           "",     "/v1/{rest}",   "/v1/a",      "/u/a"),
    (Match(path="/u/:id"),         "",     "",             "/u/{name}",  "/u/{name}"),
    (Match(path="/u/:id"),         "",     "",             "/u/me",      "/u/me"),
    (Match(path="/u/me"),          "",     "",             "/u/{name}",  None),
    (Match(path="/u/*"),           "",     "",             "/u/a/b",     "/u/a/b"),
    (Match(path="/u/*"),           "",     "",             "/u",         None),
    (Match(path_prefix="/a/b"),    "",     "",             "/{x}/b/c",   None),
])  # fmt: skip
def test_paths_are_followed_backwards(
    match: Match, strip: str, rewrite: str, path: str, public: str | None
) -> None:
    """What clients ask for to get a path of the backend; nothing, when the route does not take it in every case."""
    route = Route("r", match=match, strip_prefix=strip, rewrite=Rewrite(rewrite) if rewrite else None)
    assert public_path(route, path) == public


def test_a_document_describes_its_route() -> None:
    """Operations at public paths, components under new names, version 3.0 as 3.1; the result is valid."""
    document = described(
        {"name": "api", "match": {"pathPrefix": "/api"}, "stripPrefix": True, "openapi": URL,
         "auth": {"type": "basic", "users": {"a": "$2b$12$BpVHP1y6YUtFXNLTjqCU..ZafncDu645NiFBBPwl.rNcEh9WKWIe6"}}},
        {"name": "plain", "match": {"path": "/plain", "methods": ["GET"]}})
    OpenAPIV31SpecValidator(document).validate()
    assert [*document["paths"]] == ["/plain", "/api/v1/users/{id}", "/api/v1/admin/reset"]
    item = document["paths"]["/api/v1/users/{id}"]
    assert item["get"]["operationId"] == "api.getUser"
    assert item["get"]["parameters"] == [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}]
    assert item["get"]["security"] == [{"basic": [], "api.key": ["x"]}]
    assert item["delete"]["security"] == [{"basic": []}]
    assert item["get"]["servers"][0]["url"] == "http://{host}:8081"
    assert item["get"]["responses"].keys() == {"200", "401"}
    assert "links" not in item["get"]["responses"]["200"]
    properties = document["components"]["schemas"]["api.User"]["properties"]
    assert properties == {
        "default": {"$ref": "#/components/schemas/api.User"}, "name": {"type": ["string", "null"]},
        "age": {"type": "integer", "exclusiveMinimum": 0}, "data": {"type": "object", "default": {"nullable": True}},
        "nick": {"anyOf": [{"allOf": [{"$ref": "#/components/schemas/api.User"}]}, {"type": "null"}]}}
    assert document["x-gogate-documents"] == {
        "api": {"source": "doc", "age_s": 2.0, "error": "", "operations": 3, "left_out": 0}}


def test_what_another_route_gets_is_left_out() -> None:
    """A more specific route takes its paths away, a route's methods and those of the server are the only ones."""
    document = described(
        {"name": "api", "match": {"pathPrefix": "/v1"}, "openapi": URL},
        {"name": "admin", "match": {"pathPrefix": "/v1/admin"}, "openapi": URL},
        {"name": "deletes", "match": {"path": "/v1/users/{id}", "methods": ["DELETE"]}},
        limits={"methods": ["GET", "DELETE", "POST"]})
    OpenAPIV31SpecValidator(document).validate()
    owners = {
        (path, method): one["x-gogate"]["route"] for path, item in document["paths"].items()
        for method, one in item.items()}
    assert owners == {
        ("/v1/users/{id}", "delete"): "deletes", ("/v1/users/{id}", "get"): "api", ("/v1/admin/reset", "post"): "admin"}
    told = document["x-gogate-documents"]
    assert {name: (one["operations"], one["left_out"]) for name, one in told.items()} == {
        "admin": (1, 2), "api": (1, 2)}


@pytest.mark.parametrize(("change", "error"), [
    ({"paths": {"/x": {"get": {"responses": {"200": {"$ref": "other.json#/x"}}}}}}, "refers to other.json#/x"),
    ({"components": {}}, "refers to #/components/"),
    ({"components": {"schemas": {"User": {"$ref": "#/paths/~1x"}}}}, "refers to #/paths/~1x"),
])  # fmt: skip
def test_documents_that_do_not_hold_together(change: dict[str, Any], error: str) -> None:
    """They are told, and the route is described without."""
    document = described({"name": "api", "openapi": URL}, document={**USERS, **change})
    OpenAPIV31SpecValidator(document).validate()
    assert [*document["paths"]] == ["/", "/{rest}"]
    assert document["x-gogate-documents"]["api"]["error"].startswith(error)
    assert document["x-gogate-documents"]["api"]["operations"] == 0


@pytest.mark.parametrize(("text", "error"), [
    ("{", "is not JSON"), ("[" * 20_000, "is not JSON"), ("[]", "not an object"), ("{}", "names no version"),
    ('{"swagger": "2.0"}', "its version is 2.0"), ('{"openapi": "3.2.0"}', "its version is 3.2.0"),
    ('{"openapi": "3.1.0", "paths": []}', "its paths"), ('{"openapi": "3.1.0", "paths": {"x": {}}}', "its paths"),
    ('{"openapi": "3.1.0", "components": {"schemas": 1}}', "its components"),
])  # fmt: skip
def test_what_is_no_document(text: str, error: str) -> None:
    """It is said why."""
    with pytest.raises(UnusableDocument, match=error):
        read_document(text.encode())


def test_deep_nesting_is_refused() -> None:
    """A document that is read, but too deep to be followed."""
    deep: dict[str, Any] = {}
    for _ in range(2000):
        deep = {"items": deep}
    document = {**USERS, "components": {**USERS["components"], "schemas": {"User": deep}}}
    config = load_text(json.dumps({
        "server": {"httpListenAddr": ":8081", "backends": ["127.0.0.1:9"]},
        "routes": [{"name": "api", "fixedResponse": {}, "openapi": URL}]}), "config.yaml", {})
    told = describe(config, "", {"api": Source("doc", document, "", 1.0)}, 1.0)["x-gogate-documents"]
    assert told["api"]["error"] == "is nested too deeply"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.sampled_from(["", "x", "#/components/schemas/User", "path"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
        st.sampled_from(["$ref", "security", "parameters", "responses", "name", "in", "mapping", "nullable", "type",
                         "enum", "servers", "url", "variables", "get", "operationId", "examples"]), inner, max_size=3),
    max_leaves=6)  # fmt: skip


def places(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a document."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [at, *(place for key, one in items for place in places(one, (*at, key)))]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(places(USERS)[1:]), JSON)
def test_any_document_is_merged_or_refused(place: tuple[Any, ...], value: Any) -> None:
    """Whatever stands in the place of a part of it: no error that nobody expects."""
    changed = copy.deepcopy(USERS)
    node: Any = changed
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    try:
        changed = read_document(json.dumps(changed).encode())
    except UnusableDocument:
        return
    described({"name": "api", "openapi": URL}, document=changed)


def test_a_file_is_part_of_the_configuration(tmp_path: Path) -> None:
    """It is read with it, and one that cannot be used is a problem of the configuration."""
    config = tmp_path / "config.yaml"
    text = json.dumps({
        "server": {"httpListenAddr": ":8081", "backends": ["127.0.0.1:9"]},
        "routes": [{"name": "api", "fixedResponse": {}, "openapi": "api.json"}]}, indent=1)
    (tmp_path / "api.json").write_text(json.dumps(USERS))
    loaded = load_text(text, str(config), {})
    assert json.loads(loaded.routes[0].openapi_text) == USERS
    assert str(tmp_path / "api.json") in loaded.files
    (tmp_path / "api.json").write_text('{"swagger": "2.0"}')
    for value, expected in (
        ("api.json", "api.json is not an OpenAPI document of version 3.0 or 3.1"), ("none.json", "cannot be read"),
        ("ftp://x/y", "is not a URL"), ("http://user@x/y", "is not a URL"), (" ", "is empty"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_text(text.replace("api.json", value), str(config), {})
        problems = [str(problem) for problem in caught.value.problems]
        assert len(problems) == 1
        assert ":12:" in problems[0]
        assert "routes[0].openapi" in problems[0]
        assert expected in problems[0]
