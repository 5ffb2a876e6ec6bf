"""Schemas of what the admin API takes and shows (JSON Schema 2020-12, as OpenAPI 3.1 has it), by name.

What exists as a class is derived from it (msgspec); the objects that admin_views.py and the endpoints put together are
written here. A test asks a gateway that runs and holds every answer against these, with nothing beside them allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gogate_py.controlplane.plan import Plan
from gogate_py.controlplane.supervision import WorkerView
from gogate_py.messages import Connection, RequestRecord

Schema = dict[str, Any]

REF: Final = "#/components/schemas/{name}"

TEXT: Final[Schema] = {"type": "string"}
NUMBER: Final[Schema] = {"type": "number"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
FLAG: Final[Schema] = {"type": "boolean"}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
DURATION: Final[Schema] = {
    "type": "string", "pattern": r"^(([0-9]+(\.[0-9]+)?|\.[0-9]+)(ns|us|µs|ms|s|m|h))+$", "examples": ["30s", "1m30s"]}


def ref(name: str) -> Schema:
    """A reference to one of SCHEMAS."""
    return {"$ref": REF.format(name=name)}


def obj(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, **more: Any) -> Schema:
    """An object with these members."""
    members = {**required, **(optional or {})}
    shape: Schema = {"type": "object", "properties": members}
    return {**shape, **({"required": [*required]} if required else {}), **more}


def closed(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, **more: Any) -> Schema:
    """An object with these members and no other: what the API takes."""
    return obj(required, optional, additionalProperties=False, **more)


def array(of: Schema, **more: Any) -> Schema:
    """A list."""
    return {"type": "array", "items": of, **more}


def table(of: Schema) -> Schema:
    """An object with any names."""
    return {"type": "object", "additionalProperties": of}


def choice(*values: str) -> Schema:
    """One of these texts."""
    return {"type": "string", "enum": [*values]}


def nullable(of: Schema) -> Schema:
    """This, or null."""
    return {**of, "type": [of["type"], "null"]} if "type" in of else {"anyOf": [of, {"type": "null"}]}


def whole(least: int, most: int) -> Schema:
    """A whole number in bounds."""
    return {"type": "integer", "minimum": least, "maximum": most}


def _derived() -> dict[str, Schema]:
    _, found = msgspec.json.schema_components([Plan, WorkerView, Connection, RequestRecord], ref_template=REF)
    for name, one in found.items():
        if name not in ("StageVerdict", "Try"):  # these leave out what says nothing
            one["required"] = [*one["properties"]]  # defaults are those of making one: an answer has every member
    plan = found["Plan"]
    plan["properties"] |= {"empty": FLAG, "text": array(TEXT)}
    plan["required"] += ["empty", "text"]
    # As request_answers.request_object shows it.
    record, summary = found["RequestRecord"]["properties"], found["RequestSummary"]["properties"]
    del record["summary"], record["timers"]
    members = {**summary, **record, "timers_ms": ref("Timers"), "fields": array(obj({"name": TEXT, "value": TEXT}))}
    found["RequestRecord"] |= {"properties": members, "required": [*members]}
    return found


_BREAKER: Final = choice("closed", "open", "half_open")
_OF_BACKEND: Final[Schema] = {
    "id": TEXT, "addr": TEXT, "pool": TEXT, "origin": TEXT, "weight": COUNT, "backup": FLAG, "healthy": FLAG,
    "last_error": TEXT, "breaker": _BREAKER, "ejected": FLAG, "warming_up": FLAG, "draining": FLAG,
    "registrations": array(TEXT)}
_OVERRIDDEN: Final = {"configured_weight": COUNT, "overridden_since": TIME}
_OF_ROUTE: Final[Schema] = {"name": TEXT, "type": choice("http", "tcp")}
_GOAL: Final = {
    "listeners": array(TEXT), "listen_addr": TEXT, "sni": array(TEXT), "pool": TEXT, "split": array(ref("Arm")),
    "sticky": TEXT, "redirect": TEXT, "fixed_response": COUNT,
    "match": obj({}, {
        "host": TEXT, "path": TEXT, "path_prefix": TEXT, "methods": array(TEXT),
        "headers": table({}), "query": table({})})}
_COUNTS: Final = table(COUNT)
_BY_ROUTE: Final = {
    "bucket_bounds_ms": array(NUMBER),
    "routes": table(obj({"by_code": _COUNTS, "tcp": _COUNTS, "buckets": array(COUNT)}))}
_PERCENTILES: Final = {name: nullable(NUMBER) for name in ("mean", "p50", "p90", "p95", "p99")}
_IN_POOL: Final = obj({
    "healthy": FLAG, "draining": FLAG, "breaker": _BREAKER, "ejected": FLAG, "active_connections": COUNT,
    "requests": obj({"success": COUNT, "failure": COUNT}), "tcp_connections": COUNT, "bytes_sent": COUNT,
    "bytes_received": COUNT})

_LABEL: Final = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#: The last label has a letter first: what could be read as a number is no name.
_NAME: Final = rf"({_LABEL}\.)*[A-Za-z]([A-Za-z0-9-]{{0,61}}[A-Za-z0-9])?"
_BYTE: Final = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4: Final = rf"{_BYTE}(\.{_BYTE}){{3}}"
_IPV6: Final = "|".join((
    "(h:){7}h", "(h:){1,7}:", *(f"(h:){{1,{7 - n}}}(:h){{1,{n}}}" for n in range(1, 7)), ":((:h){1,7}|:)",
)).replace("h", "[0-9A-Fa-f]{1,4}")  # fmt: skip
_PORT: Final = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_READ_ONLY: Final[Schema] = {"description": "Of an answer; what is sent is not looked at."}
#: Null is as good as nothing.
_REGISTRATION: Final[Schema] = {
    "id": {
        "type": ["string", "null"], "pattern": "^([A-Za-z0-9][A-Za-z0-9._:@-]{0,127})?$",
        "description": "Left out: one is made. A known one: its description is replaced, its lease renewed."},
    "tags": nullable(array({"type": "string", "pattern": r"^[!-+\--~]{1,64}$"}, maxItems=32)),
    "metadata": {
        "type": ["object", "null"], "maxProperties": 32, "additionalProperties": TEXT,
        "propertyNames": {"pattern": "^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$"},
        "description": "4096 characters at most, keys and values together."},
    "weight": {**nullable(whole(0, 1000)), "default": 1},
    "ttl": {
        "anyOf": [
            {"type": "string", "examples": ["30s", "1m30s"],
             "pattern": "^(([1-9][0-9]?|[12][0-9]{2}|300)s|5m|[1-4]m([1-5]?[0-9]s)?)$"},
            {"type": "number", "minimum": 1, "maximum": 300}, {"type": "null"}],
        "description": "1 to 300 s; a number is seconds. Default: server.registry.defaultTTL."},
    **dict.fromkeys(("registered_at", "last_heartbeat", "state", "since"), _READ_ONLY)}

SCHEMAS: Final[dict[str, Schema]] = {
    **_derived(),
    "Problem": obj(
        {"type": TEXT, "title": TEXT, "status": COUNT, "detail": TEXT, "instance": TEXT},
        {"field": {"type": "string", "description": "The member of the body, or the parameter, that is at fault."}},
        description="RFC 9457."),
    "ReloadProblem": {
        "description": "A problem, and how the reload went.", "allOf": [ref("Problem"), ref("Reload")]},
    "PlanProblem": {
        "description": "A problem, and every mistake of the configuration.",
        "allOf": [ref("Problem"), obj({}, {"problems": array(TEXT)})]},
    "Index": obj({
        "name": TEXT, "version": TEXT,
        "endpoints": array(obj({"path": TEXT, "methods": array(TEXT), "does": TEXT}))}),
    "Readiness": obj(
        {"status": choice("ready", "not ready")}, {"reasons": array(TEXT), "warnings": array(TEXT)}),
    "Backend": obj(
        {**_OF_BACKEND, "active_connections": COUNT}, {**_OVERRIDDEN, "drain_ends_in_s": NUMBER}),
    "Arm": obj({"pool": TEXT, "weight": COUNT, "share": NUMBER, "canary": FLAG}, _OVERRIDDEN),
    "Split": obj({"split": array(ref("Arm"))}),
    "Route": obj(
        {**_OF_ROUTE, "requests": obj({"total": COUNT, "by_code": _COUNTS}), "rate_limited": _COUNTS,
         "auth_failures": _COUNTS, "split_requests": _COUNTS, "split_fallbacks": _COUNTS, "cache": _COUNTS,
         "retries_denied": COUNT}, _GOAL),
    "Listener": obj(
        {"name": TEXT, "kind": choice("http", "https", "tcp", "tls", "redirect"), "address": TEXT},
        {"accept_proxy_protocol": FLAG, "https_port": COUNT, "tls": obj({
            "min_version": TEXT, "client_auth": TEXT, "certificates": array(obj({
                "file": TEXT, "names": array(TEXT), "key": TEXT, "not_before": TIME, "not_after": TIME,
                "state": TEXT}))})}),
    "Topology": obj({
        "version": TEXT, "pid": COUNT, "started": NUMBER, "generation": COUNT, "ready": FLAG,
        "reasons": array(TEXT), "warnings": array(TEXT),
        "workers": array(obj({"slot": COUNT, "pid": COUNT, "state": TEXT, "restarts": COUNT})),
        "listeners": array(obj({
            "name": TEXT, "metric": TEXT, "kind": TEXT, "address": TEXT, "routes": array(TEXT)})),
        "routes": array(obj(_OF_ROUTE, _GOAL)),
        "pools": array(obj({"name": TEXT, "load_balancer": TEXT, "panic": FLAG})),
        "backends": array(obj(_OF_BACKEND, _OVERRIDDEN))}),
    "Latency": obj({"count": COUNT, **_PERCENTILES}, description="Estimated from the histogram; null: nothing yet."),
    "Stats": obj(
        {"version": TEXT, "pid": COUNT, "uptime_s": NUMBER, "generation": COUNT, "ready": FLAG,
         "reasons": array(TEXT), "warnings": array(TEXT), "draining": FLAG, "workers": array(ref("WorkerView")),
         "registry": obj({"services": COUNT}),
         "key_sets": array(obj({"url": TEXT, "keys": COUNT, "age_s": nullable(NUMBER), "error": TEXT})),
         "connections": obj({
             "total": COUNT, "active": COUNT, "refused": COUNT, "refused_by_reason": _COUNTS,
             "listeners": table(obj({"total": COUNT, "active": COUNT, "refused": COUNT}))}),
         "requests": obj({"total": COUNT, "in_flight": COUNT, "by_status": _COUNTS, "local": _COUNTS}),
         "latency_ms": ref("Latency"), "tcp_duration_ms": ref("Latency"), "tcp_by_result": _COUNTS,
         "rate_limit": obj({"rejected": COUNT, "by_limit": table(_COUNTS)}),
         "retries": obj({"by_reason": _COUNTS, "denied_by_budget": COUNT}),
         "auth_failures": _COUNTS, "cache": _COUNTS, "splits": table(_COUNTS),
         "pools": table(obj({
             "backends": COUNT, "healthy": COUNT, "active_connections": COUNT, "by_backend": table(_IN_POOL)}))},
        _BY_ROUTE),
    "Reload": obj({
        "time": TIME, "cause": choice("start", "file", "SIGHUP", "api"),
        "result": choice("success", "unchanged", "failure"), "generation": COUNT, "duration_s": NUMBER,
        "problems": array(TEXT), "changes": array(TEXT)}),
    "ConfigStatus": obj({
        "file": TEXT, "generation": COUNT, "applied": COUNT, "in_sync": FLAG, "failing": nullable(ref("Reload")),
        "history": array(ref("Reload")),
        "overrides": obj({
            "weights": array(obj({"pool": TEXT, "backend": TEXT, "value": COUNT, "overridden_since": TIME})),
            "splits": array(obj({"route": TEXT, "pool": TEXT, "value": COUNT, "overridden_since": TIME})),
            "drained": array(obj(
                {"pool": TEXT, "backend": TEXT, "overridden_since": TIME}, {"drain_ends_in_s": NUMBER}))})}),
    "Explanation": obj(
        {"generation": COUNT, "outcome": obj({"kind": choice("backend", "answer", "refused")}, {
            "pools": array(TEXT), "pool": TEXT, "backend": nullable(TEXT), "or_refused_in": array(TEXT),
            "status": COUNT, "reason": TEXT, "detail": TEXT, "stage": TEXT, "retry_after": NUMBER, "allow": TEXT})},
        {"request": obj({"method": TEXT, "host": TEXT, "path": TEXT, "query": TEXT, "client": TEXT}),
         "candidates": array(obj({"route": TEXT, "matched": FLAG, "why": TEXT})), "route": TEXT,
         "stages": array(obj(
             {"stage": TEXT, "verdict": choice("passes", "answers", "refuses"), "text": TEXT},
             additionalProperties=True, description="Further members are those of the stage.")),
         "forwarded": obj({"path": TEXT, "host": TEXT}, additionalProperties=True),
         "split": obj({"why": TEXT, "arms": array(obj({}, additionalProperties=True))}, additionalProperties=True),
         "pools": array(obj({"name": TEXT, "balancer": TEXT, "panic": FLAG}, additionalProperties=True)),
         "timeouts": table(NUMBER), "retry": obj({"attempts": COUNT}, additionalProperties=True)},
        description="Members after the one that decides are left out: see docs/explain.md."),
    "Registration": closed(
        {"name": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"},
         "address": {
             "type": "string", "maxLength": 255, "examples": ["10.0.0.5:8080", "[fd00::5]:8080", "api.internal:80"],
             "pattern": rf"^({_NAME}|{_IPV4}|\[({_IPV6})\]):{_PORT}$"}},
        _REGISTRATION),
    "Service": obj({
        "id": TEXT, "name": TEXT, "address": TEXT, "tags": array(TEXT), "metadata": table(TEXT), "weight": COUNT,
        "ttl": TEXT, "registered_at": TIME, "last_heartbeat": TIME,
        "state": choice("passing", "warning", "suspect", "critical"), "since": TIME, "expires_in_s": NUMBER,
        "pools": array(TEXT), "unrouted": FLAG}),
}
