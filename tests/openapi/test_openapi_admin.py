"""The description of the admin API at /openapi.json: whole, valid, and what a gateway really answers."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from doubles.configs import ANY, gateway_config
from doubles.gateway import Gateway
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from gogate_py.controlplane.openapi_operations import OPERATIONS
from gogate_py.controlplane.openapi_schemas import SCHEMAS

pytestmark = pytest.mark.slow

CONFIG = gateway_config(
    {"httpListenAddr": ANY, "admin": {"listenAddr": ANY, "token": "secret"}, "registry": {"enabled": True},
     "health": {"enabled": False}},
    pools={"a": {"backends": ["127.0.0.1:9"]}, "b": {"backends": [{"addr": "127.0.0.1:10", "weight": 3}]},
           "registered": {"service": "api"}},
    routes=[
        {"name": "split", "match": {"host": "x.example", "pathPrefix": "/s"}, "sticky": "cookie",
         "rateLimit": {"rate": 1000},
         "split": [{"pool": "a", "weight": 9}, {"pool": "b", "weight": 1}]},
        {"name": "here", "match": {"path": "/here", "methods": ["GET"], "headers": {"X-A": "1"}},
         "fixedResponse": {"status": 418}},
        {"name": "there", "match": {"path": "/there"}, "redirect": "https://x.example/"},
        {"name": "db", "type": "tcp", "listenAddr": ANY, "pool": "a"},
        {"name": "rest", "pool": "registered"},
    ],
)

#: Method, URL, body → expected status. Together they have every operation that answers JSON, most of its members too.
ASKED = [
    ("GET", "/", None, 200), ("GET", "/openapi.json", None, 200), ("GET", "/openapi/routes.json", None, 200),
    ("GET", "/openapi/routes.json?host=x.example", None, 200), ("GET", "/health", None, 200),
    ("GET", "/healthz", None, 200), ("GET", "/ready", None, 200), ("GET", "/readyz", None, 200),
    ("GET", "/stats", None, 200), ("GET", "/stats?by=route", None, 200), ("GET", "/stats?by=pool", None, 400),
    ("GET", "/topology", None, 200), ("GET", "/listeners", None, 200), ("GET", "/routes", None, 200),
    ("GET", "/routes/here", None, 200), ("GET", "/routes/nowhere", None, 404),
    ("GET", "/routes/split/split", None, 200), ("GET", "/routes/rest/split", None, 409),
    ("PUT", "/routes/split/split", {"weights": {"a": 1}}, 200), ("PUT", "/routes/split/split", {"weights": {}}, 400),
    ("GET", "/routes/split/split", None, 200), ("GET", "/config/status", None, 200),
    ("DELETE", "/routes/split/split", None, 200), ("DELETE", "/routes/rest/split", None, 409),
    ("GET", "/explain?url=http://x.example/s/1", None, 200), ("GET", "/explain?url=/here&header=X-A:1", None, 200),
    ("GET", "/explain?url=/here", None, 200), ("GET", "/explain?url=/a%20b", None, 400),
    ("GET", "/explain?url=/any&listener=nowhere", None, 400), ("GET", "/backends", None, 200),
    ("POST", "/backends/127.0.0.1:9/drain", {"deadline": "30s"}, 200), ("GET", "/config/status", None, 200),
    ("POST", "/backends/127.0.0.1:9/undrain", None, 200), ("POST", "/backends/9/drain", None, 404),
    ("POST", "/backends/9/undrain", None, 404), ("PUT", "/backends/127.0.0.1:10/weight", {"weight": 5}, 200),
    ("PUT", "/backends/127.0.0.1:10/weight", {"weight": 1001}, 400), ("GET", "/config/status", None, 200),
    ("GET", "/topology", None, 200), ("DELETE", "/backends/127.0.0.1:10/weight?pool=b", None, 200),
    ("DELETE", "/backends/127.0.0.1:10/weight?pool=a", None, 404), ("GET", "/connections?pool=a", None, 200),
    ("DELETE", "/connections/9", None, 404), ("GET", "/requests", None, 200), ("GET", "/requests?status=x", None, 400),
    ("GET", "/requests/recorded", None, 200), ("GET", "/requests/other", None, 404), ("POST", "/reload", None, 200),
    ("POST", "/plan", {"config": CONFIG.replace('"weight": 9', '"weight": 8')}, 200),
    ("POST", "/plan", {"config": "x: 1"}, 400), ("POST", "/plan", {}, 400),
    ("POST", "/v1/services", {"id": "one", "name": "api", "address": "127.0.0.1:7", "tags": ["x"], "ttl": 30}, 201),
    ("POST", "/v1/services", {"name": "api"}, 400),
    ("POST", "/v1/services", {"name": "a", "address": "169.254.169.254:1"}, 403),
    ("GET", "/v1/services", None, 200), ("GET", "/v1/services?state=up", None, 400),
    ("GET", "/v1/services/one", None, 200), ("GET", "/v1/services/two", None, 404),
    ("PUT", "/v1/services/one/heartbeat", None, 204), ("PUT", "/v1/services/two/heartbeat", None, 404),
    ("DELETE", "/v1/services/one", None, 204), ("DELETE", "/v1/services/one", None, 404),
]  # fmt: skip
#: They do not answer with JSON, or need a connection that is there.
OTHERS = {
    ("GET", "/events"), ("GET", "/metrics"), ("GET", "/docs"), ("GET", "/dashboard/{file}"),
    ("DELETE", "/connections/{id}"),
}  # fmt: skip


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """One gateway for all questions."""
    with Gateway(CONFIG) as running:
        yield running


@pytest.fixture(scope="module")
def document(gateway: Gateway) -> dict[str, Any]:
    """Its description."""
    found: dict[str, Any] = gateway.admin_json("GET", "/openapi.json")
    return found


def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    """By OpenAPI 3.1's own schema, and every reference leads somewhere."""
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()


def test_every_route_is_described_and_back(gateway: Gateway, document: dict[str, Any]) -> None:
    """The index, which is made of the endpoints that serve, and the document have the same operations."""
    listed = {(method, one["path"]) for one in gateway.admin_json("GET", "/")["endpoints"] for method in one["methods"]}
    described = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item if method != "parameters"}
    assert described == listed | {("GET", "/")} == OPERATIONS.keys()


def test_every_schema_is_used(document: dict[str, Any]) -> None:
    """There is none that nothing refers to."""
    text = json.dumps(document)
    assert [name for name in SCHEMAS if f'"#/components/schemas/{name}"' not in text] == []


def closed(schema: Any) -> Any:
    """A schema in which objects have no members but those that are named, unless it says that there are others."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    # what others are put together with stays open by itself
    made = {key: value if key == "allOf" else closed(value) for key, value in schema.items()}
    if "allOf" in made:
        made["unevaluatedProperties"] = False
    elif isinstance(made.get("properties"), dict) and made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


def template_of(document: dict[str, Any], path: str) -> str:
    """The path of the document for a path that was asked for."""
    asked = path.partition("?")[0].split("/")
    for template in sorted(document["paths"], key=lambda one: one.count("{")):
        words = template.split("/")
        if len(words) == len(asked) and all(
            word.startswith("{") or word == given for word, given in zip(words, asked, strict=True)
        ):
            return str(template)
    raise AssertionError(path)


def validator_of(document: dict[str, Any], answer: dict[str, Any], media: str) -> Draft202012Validator:
    """Of a body, by what the document says of the answer; members that are not described are mistakes."""
    root = copy.deepcopy(document["components"])
    for name, one in root["schemas"].items():
        root["schemas"][name] = one if name in ("Problem", "Reload") else closed(one)
    if "$ref" in answer:
        answer = root["responses"][answer["$ref"].rpartition("/")[2]]
    return Draft202012Validator(
        {**closed(answer["content"][media]["schema"]), "components": root},
        format_checker=Draft202012Validator.FORMAT_CHECKER)


def test_answers_are_as_described(gateway: Gateway, document: dict[str, Any]) -> None:
    """Status, media type, fields and body of every question; every operation is asked."""
    gateway.get("/s/1", **{"Host": "x.example", "X-Gogate-Trace": "1", "X-Request-ID": "recorded"})
    done = set()
    for method, path, body, expected in ASKED:
        template = template_of(document, path)
        done.add((method, template))
        status, headers, data = gateway.admin_request(method, path, body)
        assert status == expected, (method, path, data)
        answer = document["paths"][template][method.lower()]["responses"][str(status)]
        for name in answer.get("headers", {}):
            assert name.lower() in {field.lower() for field in headers}, (method, path, name)
        if status == 204:
            assert (data, answer.get("content")) == (b"", None)
            continue
        media = {name.lower(): value for name, value in headers.items()}["content-type"]
        mistakes = [
            f"{one.json_path}: {one.message[:300]}"
            for one in validator_of(document, answer, media).iter_errors(json.loads(data))]
        assert not mistakes, (method, path, mistakes)
    assert done == OPERATIONS.keys() - OTHERS | {("DELETE", "/connections/{id}")}


def test_the_page_is_there_with_all_its_parts(gateway: Gateway) -> None:
    """/docs loads nothing from elsewhere; its policy would forbid it."""
    status, headers, body = gateway.admin_request("GET", "/docs")
    fields = {name.lower(): value for name, value in headers.items()}
    assert (status, fields["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in fields["content-security-policy"]
    assert b"//" not in body
    for name in ("docs.js", "docs.css", "style.css"):
        assert f'"/dashboard/{name}"'.encode() in body
        assert gateway.admin_request("GET", f"/dashboard/{name}")[0] == 200
