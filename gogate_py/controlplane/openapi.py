"""The admin API as an OpenAPI 3.1 document: ``GET /openapi.json``, made of the table of endpoints that serves it.

What an operation takes and answers is in openapi_operations.py; here is what is true of all: access rules (admin_access
.py), limits of a connection, and that whatever goes wrong is a Problem.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from gogate_py import __version__
from gogate_py.controlplane.admin_access import GUARDED_PATHS, HEALTH_PATHS, is_change
from gogate_py.controlplane.admin_problems import PROBLEM
from gogate_py.controlplane.openapi_operations import JSON, OPERATIONS, Operation, Parameter, tags
from gogate_py.controlplane.openapi_schemas import SCHEMAS, TEXT, Schema, ref

VERSION: Final = "3.1.0"

#: What the gate in front of the endpoints may answer (admin_access.decide, admin_connection.py).
_OPEN: Final = (400, 408, 431)
_GATED: Final = (*_OPEN, 401, 403, 421, 429, 503)
_GUARDED: Final = (*_GATED, 415)

_WHY: Final = {
    400: "The request is not valid; field says where, if a member of the body or a parameter is at fault.",
    401: "The bearer token is wrong, or is needed and missing.",
    403: "Not from there: another host without a token in the configuration, or a web page of another origin.",
    404: "There is no such thing, or it is off.",
    408: "The request did not arrive in time.",
    409: "It cannot be done to this.",
    413: "The body is larger than 1 MiB.",
    415: "A body is JSON.",
    421: "The Host is not a name of the admin API (server.admin.allowedHosts).",
    429: "Too many wrong tokens from this address; Retry-After says until when.",
    431: "The head is too large.",
    503: "Too many connections or watchers; Retry-After says when to come again.",
}
_INFO: Final = (
    "Reading is open to whoever reaches the listener. Changes come from this machine, or with the bearer token. "
    "A GET takes HEAD. Errors are application/problem+json."
)


def document(served: Iterable[tuple[str, Iterable[str]]]) -> dict[str, Any]:
    """The description of these paths with their methods, paths as the router has them."""
    paths: dict[str, Any] = {}
    for path, verbs in served:
        shown = path.replace(":path", "")
        item: dict[str, Any] = {}
        names = re.findall(r"\{(\w+)\}", shown)
        if names:
            item["parameters"] = [_path_parameter(name) for name in names]
        for verb in verbs:
            item[verb.lower()] = _operation(verb, shown, OPERATIONS[verb, shown])
        paths[shown] = item
    return {
        "openapi": VERSION,
        "info": {"title": "gogate admin API", "version": __version__, "description": _INFO},
        "servers": [{"url": "/"}],
        "tags": tags(),
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "server.admin.token"}},
            "responses": {str(status): _problem(status, "Problem") for status in _WHY},
            "schemas": SCHEMAS,
        },
    }


def _path_parameter(name: str) -> dict[str, Any]:
    schema: Schema = {**TEXT, "minLength": 1}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _operation(verb: str, path: str, one: Operation) -> dict[str, Any]:
    guarded = is_change(verb) or path in GUARDED_PATHS
    is_open = path in HEALTH_PATHS or path == "/metrics"
    gate = _GUARDED if is_change(verb) else _OPEN if is_open else _GATED
    answers: dict[str, Any] = {}
    for status, (says, media) in one.answers.items():
        answers[str(status)] = {"description": says}
        if media:
            answers[str(status)]["content"] = {kind: {"schema": schema} for kind, schema in media.items()}
        if one.headers:
            answers[str(status)]["headers"] = {name: {"schema": schema} for name, schema in one.headers.items()}
    for status in sorted({*gate, *one.problems, *one.problem} - one.answers.keys()):
        name = one.problem.get(status)
        answers[str(status)] = _problem(status, name) if name else {"$ref": f"#/components/responses/{status}"}
    shown: dict[str, Any] = {
        "operationId": _identity(verb, path), "summary": one.does, "tags": [one.tag], "responses": answers}
    if one.says:
        shown["description"] = one.says
    if one.parameters:
        shown["parameters"] = [_parameter(parameter) for parameter in one.parameters]
    if one.body is not None:
        shown["requestBody"] = {"required": not one.body_optional, "content": {JSON: {"schema": one.body}}}
    if guarded:
        # From this machine nothing is needed.
        shown["security"] = [{"token": []}, {}]
    return shown


def _parameter(one: Parameter) -> dict[str, Any]:
    return {"name": one.name, "in": "query", "required": one.required, "description": one.says, "schema": one.schema}


def _problem(status: int, name: str) -> dict[str, Any]:
    says = _WHY.get(status, HTTPStatus(status).phrase)
    return {"description": says, "content": {PROBLEM: {"schema": ref(name)}}}


def _identity(verb: str, path: str) -> str:
    words = re.sub(r"[^A-Za-z0-9]+", "_", path).strip("_") or "index"
    return f"{verb.lower()}_{words}"
