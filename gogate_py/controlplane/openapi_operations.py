"""What each operation of the admin API takes and answers: one entry for each path and method of admin_routes.py.

A test holds the two tables to each other in both directions. What is true of every operation (access rules, a head that
is not HTTP) is added by openapi.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import field, frozen

from gogate_py.controlplane.openapi_schemas import COUNT, DURATION, TEXT, Schema, array, choice, closed, obj, ref, whole
from gogate_py.controlplane.service_answers import INDEX

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"


@frozen
class Parameter:
    """A value in the query."""

    name: str
    says: str
    schema: Schema
    required: bool = False


@frozen
class Operation:
    """One method of one path. ``answers``: status → what it says, media type → schema. ``problems``: statuses that are
    a Problem, or something of more members where ``problem`` has it."""

    does: str
    answers: Mapping[int, tuple[str, Mapping[str, Schema]]]
    tag: str
    says: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Schema | None = None
    body_optional: bool = False
    problems: tuple[int, ...] = ()
    problem: Mapping[int, str] = field(factory=dict)
    headers: Mapping[str, Schema] = field(factory=dict)


def _json(says: str, schema: Schema, status: int = 200) -> dict[int, tuple[str, Mapping[str, Schema]]]:
    return {status: (says, {JSON: schema})}


def _done(says: str) -> dict[int, tuple[str, Mapping[str, Schema]]]:
    return {204: (says, {})}


def _in_pool(says: str) -> Parameter:
    return Parameter("pool", says, TEXT)


_DOCUMENT: Final = _json("An OpenAPI 3.1 document.", {"type": "object"})
_HEALTH: Final = Operation("Whether gogate is alive", _json("It is.", obj({"status": {"const": "ok"}})), "health")
_READY: Final = Operation(
    "Whether it takes new traffic",
    {**_json("It does.", ref("Readiness")),
     503: ("It is starting or draining, or no pool has a backend to use.", {JSON: ref("Readiness")})},
    "health")
_BACKENDS: Final = _json("The backends that were meant, as they are now.", obj({"backends": array(ref("Backend"))}))
_ONE_POOL: Final = _in_pool("Only in this pool; default: in every pool that has it.")
_SPLIT: Final = _json("All arms, as they are now.", ref("Split"))
_PAGE: Final[dict[str, Schema]] = {"text/html": TEXT}
_FILTERS: Final = (
    Parameter("name", "Only instances of this service.", TEXT),
    Parameter("tag", "Only instances with this tag.", TEXT))

OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("GET", "/"): Operation(
        "All paths; the dashboard for browsers", {200: ("The list, or the page.", {JSON: ref("Index"), **_PAGE})},
        "about"),
    ("GET", "/openapi.json"): Operation("This description", _DOCUMENT, "about"),
    ("GET", "/openapi/routes.json"): Operation(
        "A description of the API behind the gateway", _DOCUMENT, "about",
        says="Made of the routes that are served: paths, methods, authentication, limits, CORS, hosts.",
        parameters=(Parameter("host", "Only what requests with this Host get; default: every route.", TEXT),)),
    ("GET", "/docs"): Operation("Both descriptions as a page", {200: ("The page.", _PAGE)}, "about"),
    ("GET", "/dashboard/{file}"): Operation(
        "A part of the pages", {200: ("It.", {
            "text/css": TEXT, "text/javascript": TEXT, "text/html": TEXT, "image/svg+xml": TEXT})}, "about",
        problems=(404,)),
    ("GET", "/health"): _HEALTH,
    ("GET", "/healthz"): _HEALTH,
    ("GET", "/ready"): _READY,
    ("GET", "/readyz"): _READY,
    ("GET", "/metrics"): Operation(
        "Metrics for Prometheus",
        {200: ("Text format; OpenMetrics where Accept asks for it.", {
            "text/plain": TEXT, "application/openmetrics-text": TEXT})},
        "figures", problems=(404,)),
    ("GET", "/stats"): Operation(
        "Figures since the start", _json("Workers, connections, requests, latency, pools.", ref("Stats")), "figures",
        parameters=(Parameter("by", "route: also every route with its histogram.", choice("route", "")),),
        problems=(400,)),
    ("GET", "/events"): Operation(
        "Figures and happenings as they come", {200: ("Server-sent events.", {EVENTS: TEXT})}, "figures",
        says="Events: topology, history, beat (once a second), happened."),
    ("GET", "/topology"): Operation(
        "Listeners, routes, pools, backends and their states", _json("All of it.", ref("Topology")), "figures"),
    ("GET", "/listeners"): Operation(
        "Every listener for clients, its certificates",
        _json("The listeners.", obj({"listeners": array(ref("Listener"))})), "routes"),
    ("GET", "/routes"): Operation(
        "Every route: matches, pool or split, counts",
        _json("The routes.", obj({"routes": array(ref("Route"))})), "routes"),
    ("GET", "/routes/{name}"): Operation("One route", _json("It.", ref("Route")), "routes", problems=(404,)),
    ("GET", "/routes/{name}/split"): Operation("The arms of a route", _SPLIT, "routes", problems=(404, 409)),
    ("PUT", "/routes/{name}/split"): Operation(
        "Override weights of arms", _SPLIT, "routes", says="Arms that are not named keep theirs.",
        body=closed({"weights": {
            "type": "object", "minProperties": 1, "additionalProperties": whole(0, 1_000_000),
            "description": "Pool → weight; one arm at least keeps a weight above 0."}}),
        problems=(400, 404, 409, 413)),
    ("DELETE", "/routes/{name}/split"): Operation(
        "Back to the configured weights", _SPLIT, "routes", problems=(404, 409)),
    ("GET", "/explain"): Operation(
        "What would happen to a request", _json("Route, stages, pool, backend.", ref("Explanation")), "routes",
        says="Counts as a change for the access rules: it tells whether a password or key is right.",
        parameters=(
            Parameter("url", "http://host/path, or /path.", {
                "type": "string", "pattern": "^(https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?)?/[A-Za-z0-9/._~?=&-]*$"}, True),
            Parameter("method", "Default: GET.", {"type": "string", "pattern": "^[!-~]+$"}),
            Parameter("header", "Name: value; as often as needed.", array(
                {"type": "string", "pattern": "^[A-Za-z0-9-]+: ?[!-~]+( [!-~]+)*$"})),
            Parameter("client_ip", "The client's address; default: 127.0.0.1.", {
                "anyOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]}),
            Parameter("listener", "Name of the listener that it comes in by; default: by any.", TEXT)),
        problems=(400,)),
    ("GET", "/backends"): Operation("Every backend of every pool", _BACKENDS, "backends"),
    ("POST", "/backends/{id}/drain"): Operation(
        "Give it no new work", _BACKENDS, "backends", says="A deadline is in the body or the query, not in both.",
        parameters=(_ONE_POOL, Parameter("deadline", "When what runs there is cut; default: never.", DURATION)),
        body=closed({}, {"deadline": {"anyOf": [DURATION, {"type": "number", "minimum": 0, "maximum": 604800}]}}),
        body_optional=True, problems=(400, 404, 413)),
    ("POST", "/backends/{id}/undrain"): Operation(
        "Give it work again", _BACKENDS, "backends", parameters=(_ONE_POOL,), problems=(404,)),
    ("PUT", "/backends/{id}/weight"): Operation(
        "Override its weight", _BACKENDS, "backends", parameters=(_ONE_POOL,),
        body=closed({"weight": whole(0, 1000)}), problems=(400, 404, 413)),
    ("DELETE", "/backends/{id}/weight"): Operation(
        "Back to the configured weight", _BACKENDS, "backends", parameters=(_ONE_POOL,), problems=(404,)),
    ("GET", "/connections"): Operation(
        "Live L4 connections", _json("The connections.", obj({"connections": array(ref("Connection"))})), "backends",
        parameters=(_in_pool("Only to this pool."), Parameter("backend", "Only to this backend.", TEXT))),
    ("DELETE", "/connections/{id}"): Operation("Cut one", _done("It is cut."), "backends", problems=(404,)),
    ("GET", "/requests"): Operation(
        "Recorded requests, the newest first",
        _json("Those of all workers, in short.", obj({"requests": array(ref("RequestSummary"))})), "requests",
        says="Those that asked for it (X-Gogate-Trace: 1), failed, were slow or are in the sample: docs/tracing.md.",
        parameters=(
            Parameter("route", "Only of this route.", TEXT),
            Parameter("status", "Only of this status, or of a hundred: 5xx.", {
                "type": "string", "pattern": "^[1-5]([0-9]{2}|xx)$"}),
            Parameter("limit", "At most so many; default: 100.", whole(1, 9999))),
        problems=(400,)),
    ("GET", "/requests/{id}"): Operation(
        "What was decided about one of them", _json("All that is known.", ref("RequestRecord")), "requests",
        says="By its id, or by its X-Request-ID.", problems=(404,)),
    ("POST", "/reload"): Operation(
        "Read the configuration file again, and serve it",
        _json("It is served, or was already.", ref("Reload")), "configuration", problems=(409,),
        problem={400: "ReloadProblem"}),
    ("POST", "/plan"): Operation(
        "What another configuration would do", _json("What it would change.", ref("Plan")), "configuration",
        says="Nothing changes.",
        body=closed({"config": {"type": "string", "description": "The text of a configuration file."}}),
        problems=(409, 413), problem={400: "PlanProblem"}),
    ("GET", "/config/status"): Operation(
        "What is served, the last reloads, what is overridden", _json("All of it.", ref("ConfigStatus")),
        "configuration"),
    ("GET", "/v1/services"): Operation(
        "List or watch registered instances",
        {200: ("The instances; server-sent events where Accept asks for them.", {
            JSON: obj({"services": array(ref("Service"))}), EVENTS: TEXT})},
        "registry", says="With wait, answered when something happens after index: see docs/registry.md.",
        parameters=(
            *_FILTERS,
            Parameter("state", "Only instances in this state.", choice("passing", "warning", "suspect", "critical")),
            Parameter("wait", "How long to wait for news; 10 minutes at most.", DURATION),
            Parameter("index", f"The {INDEX} that is known.", whole(0, 10**16 - 1))),
        problems=(400, 404), headers={INDEX: COUNT}),
    ("POST", "/v1/services"): Operation(
        "Register an instance, or renew its description",
        _json("It is registered.", ref("Service"), 201), "registry", body=ref("Registration"),
        problems=(400, 404, 413), headers={"Location": TEXT}),
    ("GET", "/v1/services/{id}"): Operation(
        "One instance", _json("It.", ref("Service")), "registry", problems=(404,)),
    ("DELETE", "/v1/services/{id}"): Operation(
        "Deregister it", _done("It is gone."), "registry", problems=(404,)),
    ("PUT", "/v1/services/{id}/heartbeat"): Operation(
        "Renew its lease", _done("It is renewed."), "registry", problems=(404,)),
}


def tags() -> list[dict[str, Any]]:
    """The groups of operations, in the order in which they come."""
    return [{"name": name} for name in dict.fromkeys(one.tag for one in OPERATIONS.values())]
