"""The API behind the gateway as an OpenAPI 3.1 document: ``GET /openapi/routes.json``. Pure: a configuration in.

    a route's match                  described as
    path /users/:id                  /users/{id}
    path /files/*                    /files/{rest}; what stands for {rest} may hold slashes
    pathPrefix /api                  /api and /api/{rest}
    neither                          / and /{rest}
    methods                          these; without any GET, POST, PUT, PATCH, DELETE, as far as limits.methods has them
    headers, query                   parameters that are required
    host, listeners                  servers of the operation
    auth, rateLimit, …               security, 401, 403, 413, 429, and x-gogate

A route with a document of its backend (``openapi``) is described by that, as far as the document's paths lead to the
route (openapi_merge.py). OpenAPI has one operation for a method of a path: where several routes have it (other hosts,
conditions), the one with the fewest conditions and the most specific match is described, the others are named in its
x-gogate.also; ``host`` leaves those that are meant for other hosts out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from gogate_py import __version__, addresses
from gogate_py.config.listeners import DataListener, data_listeners, serves
from gogate_py.config.openapi_document import UnusableDocument
from gogate_py.config.schema import Auth, Config, RateLimit, Route
from gogate_py.controlplane.openapi import VERSION
from gogate_py.controlplane.openapi_documents import Source
from gogate_py.controlplane.openapi_merge import METHODS, Adopted
from gogate_py.controlplane.openapi_places import Owners, Place, Places, match_paths, order
from gogate_py.controlplane.openapi_schemas import COUNT, TEXT, obj

Operation = dict[str, Any]

_USUAL: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
_PROBLEM: Final = obj({
    "type": TEXT, "title": TEXT, "status": COUNT, "detail": TEXT, "reason": TEXT, "request_id": TEXT})
_PROBLEM_NAME: Final = "-gateway.Problem"
_WHY: Final = {
    401: "Credentials are missing or wrong.",
    403: "This client or user may not ask.",
    413: "The body is too large.",
    429: "A rate limit is used up; Retry-After says when to come again.",
}
#: No route's name begins so: names of its document's parts cannot be the same.
_REFUSALS: Final = {
    f"-gateway.{status}": {
        "description": why,
        "content": {"application/problem+json": {"schema": {"$ref": f"#/components/schemas/{_PROBLEM_NAME}"}}},
    } for status, why in _WHY.items()}
_INFO: Final = (
    "Made of the routes that the gateway serves. A GET takes HEAD; OPTIONS is left out. The gateway itself may also "
    "answer 400, 404, 405, 408, 431, 502, 503, 504, as application/problem+json."
)


def describe(
    config: Config, host: str = "", documents: Mapping[str, Source] | None = None, now: float = 0.0
) -> dict[str, Any]:
    """The document; ``host``: only of routes that take requests for it. ``documents``: of backends, by route; ``now``
    is monotonic seconds."""
    sources = documents or {}
    name = addresses_host(host)
    routes = [
        route for route in config.effective_routes()
        if route.type == "http" and (not name or _takes(route.match.host, name))]
    listeners = [one for one in data_listeners(config) if one.http and not one.https_port]
    places = Places()
    schemes: dict[str, Any] = {}
    components: dict[str, dict[str, Any]] = {}
    told: dict[str, dict[str, Any]] = {}
    owner = Owners(listeners, config.effective_routes(), name)
    for route in sorted(routes, key=order):
        around = _Around(config, route, [one for one in listeners if serves(one, route)], name, schemes)
        source = sources.get(route.name)
        if source is not None:
            told[route.name] = {**source.told(now), "operations": 0}
            if source.document is not None:
                told[route.name] |= _merge(source.document, around, owner, places, components)
        if not told.get(route.name, {}).get("operations"):
            for place in match_paths(route.match):
                for method in around.methods():
                    places.add(place, method, around.operation(place, method), around.also())
    made: dict[str, Any] = {
        "openapi": VERSION,
        "info": {"title": f"API of {name}" if name else "API behind the gateway", "version": __version__,
                 "description": _INFO},
        "tags": [{"name": route.name} for route in routes],
        "paths": places.paths,
        "components": {
            **components,
            "securitySchemes": {**components.get("securitySchemes", {}), **schemes},
            "schemas": {**components.get("schemas", {}), _PROBLEM_NAME: _PROBLEM},
            "responses": {**components.get("responses", {}), **_REFUSALS},
        },
    }
    if told:
        made["x-gogate-documents"] = told
    return made


def _merge(
    document: dict[str, Any], around: _Around, owner: Owners, places: Places, components: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Add what a backend's document says of a route; → what is told of the document."""
    route = around.route
    try:
        adopted = Adopted(route, document)
        parts = adopted.components()
        operations = list(adopted.operations())
    except UnusableDocument as error:
        return {"error": str(error)}
    allowed = around.methods(named=True)
    taken = 0
    for path, method, operation in operations:
        if method in allowed and owner.has(route, path, method):
            operation.setdefault("operationId", f"{route.name}.{method.lower()}.{taken}")
            places.add(Place(path), method, around.dressed(operation), around.also())
            taken += 1
    if taken:
        for kind, found in parts.items():
            components.setdefault(kind, {}).update(found)
    return {"operations": taken, "left_out": sum(
        method in item for item in document.get("paths", {}).values() for method in METHODS) - taken}


def addresses_host(text: str) -> str:
    """A Host value as routes have it: without port, in lower case."""
    return re.sub(r":[0-9]*\Z", "", text.strip().lower()).rstrip(".")


def _takes(host: str, name: str) -> bool:
    host = host.lower()
    return not host or host == name or (host.startswith("*.") and name.endswith(host[1:]) and name != host[1:])


class _Around:
    """What a route puts around every operation. ``schemes``: security schemes, to be added to."""

    def __init__(
        self, config: Config, route: Route, listeners: Iterable[DataListener], host: str, schemes: dict[str, Any]
    ) -> None:
        self.route = route
        self._known = config.server.limits.methods
        auth = route.auth if route.auth is not None else config.server.auth
        self._auth = auth if auth is not None and auth.type != "none" else None
        self._security = _security(self._auth, schemes) if self._auth is not None else []
        limits = (*route.rate_limit, *(() if route.exempt else config.server.rate_limit))
        self._limits = [one for one in limits if one.enabled]
        self._servers = [_server(one, route.match.host, host) for one in listeners]

    def methods(self, *, named: bool = False) -> list[str]:
        """Those that are described where nothing else is known; ``named``: that a document may name."""
        wanted = self.route.match.methods or (self._known if named else _USUAL)
        return [method for method in wanted if method in self._known and method in _DESCRIBED]

    def operation(self, place: Place, method: str) -> Operation:
        """What is known of one without a document."""
        route = self.route
        made: Operation = {
            "operationId": f"{route.name}.{method.lower()}{place.suffix}",
            "summary": f"Route {route.name}",
            "tags": [route.name],
            "responses": self._answers(),
        }
        if method in _WITH_BODY and route.redirect is None and route.fixed_response is None:
            made["requestBody"] = {"content": {"*/*": {}}}
        return self.dressed(made)

    def dressed(self, made: Operation) -> Operation:
        """An operation with what the gateway asks and adds; what it says itself stays."""
        asked = [_asked("header", name, value) for name, value in self.route.match.headers.items()]
        asked += [_asked("query", name, value) for name, value in self.route.match.query.items()]
        if asked:
            made["parameters"] = [*made.get("parameters", ()), *asked]
        if self._security:
            theirs = made.get("security") or [{}]
            made["security"] = [{**ours, **other} for ours in self._security for other in theirs]
        if self._servers:
            made["servers"] = self._servers
        for status in self._refusals():
            made["responses"].setdefault(str(status), {"$ref": f"#/components/responses/-gateway.{status}"})
        made["x-gogate"] = self._facts()
        return made

    def also(self) -> dict[str, Any]:
        """How it is named where another route describes the operation."""
        match = self.route.match
        conditions = {"host": match.host, "headers": match.headers, "query": match.query}
        return {"route": self.route.name, **{key: value for key, value in conditions.items() if value}}

    def _answers(self) -> dict[str, Any]:
        route = self.route
        if route.redirect is not None:
            location = {"Location": {"schema": TEXT, "description": route.redirect.to}}
            return {str(route.redirect.status): {"description": "A redirect.", "headers": location}}
        if route.fixed_response is not None:
            one = route.fixed_response
            content = {"content": {one.content_type.partition(";")[0].strip(): {"schema": TEXT}}} if one.body else {}
            return {str(one.status): {"description": "The gateway's own answer.", **content}}
        return {"default": {"description": "What the backend answers."}}

    def _refusals(self) -> list[int]:
        route = self.route
        guarded = self._auth is not None or route.forward_auth is not None
        claims = self._auth is not None and bool(self._auth.require_claims)
        told = {
            401: guarded, 403: claims or route.forward_auth is not None or bool(route.allow_cidrs or route.deny_cidrs),
            413: bool(route.limits.request_body), 429: bool(self._limits)}
        return [status for status, it_is in told.items() if it_is]

    def _facts(self) -> dict[str, Any]:
        route, auth, cors = self.route, self._auth, self.route.cors
        facts: dict[str, Any] = {"route": route.name}
        if route.pool or route.split:
            facts["pools"] = [arm.pool for arm in route.split] or [route.pool]
        if self._limits:
            facts["rate_limits"] = [_limit(one) for one in self._limits]
        if auth is not None and auth.type == "jwt":
            facts["jwt"] = {"issuer": auth.issuers, "audience": auth.audiences, **(
                {"require_claims": auth.require_claims} if auth.require_claims else {})}
        if route.forward_auth is not None:
            facts["forward_auth"] = True
        if cors is not None:
            facts["cors"] = {
                "origins": cors.allow_origins, "methods": cors.allow_methods, "headers": cors.allow_headers,
                "credentials": cors.allow_credentials}
        if route.allow_cidrs or route.deny_cidrs:
            facts["clients"] = {"allow": route.allow_cidrs, "deny": route.deny_cidrs}
        if route.limits.request_body:
            facts["max_body_bytes"] = route.limits.request_body
        if route.timeouts.request:
            facts["timeout_s"] = route.timeouts.request
        return facts


_DESCRIBED: Final = frozenset(("GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"))


def _security(auth: Auth, schemes: dict[str, Any]) -> list[dict[str, list[str]]]:
    """The alternatives, their schemes added."""
    found: dict[str, Mapping[str, str]] = {}
    if auth.type == "jwt":
        found["jwt"] = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    elif auth.type == "basic":
        found["basic"] = {"type": "http", "scheme": "basic"}
    else:
        for where, name in (("header", auth.header), ("query", auth.query)):
            if name:
                shown = re.sub(r"[^A-Za-z0-9._-]", "_", name)
                found[f"api_key.{where}.{shown}"] = {"type": "apiKey", "in": where, "name": name}
    schemes.update(found)
    return [{name: []} for name in found]


def _limit(one: RateLimit) -> dict[str, Any]:
    burst = {} if one.algorithm.endswith("_window") else {"burst": one.burst}
    return {"name": one.name or one.algorithm, "algorithm": one.algorithm, "rate": one.rate, "per_s": one.per, **burst,
            "key_by": one.key_by}


def _asked(where: str, name: str, value: str) -> dict[str, Any]:
    """A condition as a parameter: "" is any value, ~ begins a pattern."""
    schema: dict[str, Any] = {"type": "string"}
    if value.startswith("~"):
        schema["pattern"] = f"^(?:{value[1:]})$"
    elif value:
        schema["const"] = value
    return {"name": name, "in": where, "required": True, "schema": schema,
            "description": "Without it the request is for another route."}


def _server(one: DataListener, host: str, asked: str) -> dict[str, Any]:
    """Where clients find a route: its host, or any name of the gateway."""
    scheme = "https" if one.tls is not None else "http"
    address = addresses.parse(one.address, allow_port_zero=True)
    port = "" if address.is_unix or address.port in (0, 443 if one.tls is not None else 80) else f":{address.port}"
    if host.startswith("*."):
        default = asked.removesuffix(host[1:].lower()) if asked else "www"
        return {"url": f"{scheme}://{{name}}{host[1:]}{port}", "variables": {"name": {"default": default}}}
    if host:
        return {"url": f"{scheme}://{host}{port}"}
    bound = f"[{address.host}]" if ":" in address.host else address.host
    default = asked or (bound if bound not in ("", "0.0.0.0", "[::]") else "localhost")
    return {"url": f"{scheme}://{{host}}{port}", "variables": {"host": {"default": default}}}
