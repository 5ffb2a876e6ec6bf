"""A backend's OpenAPI document as a part of the gateway's: its operations at the paths that clients ask for. Pure.

    the document's path       below the path of its first server (servers: [{url: /v1}] and /x: /v1/x)
    what the backend gets     is followed backwards: stripPrefix; rewrite, if its one variable is {rest} or {path} and
                              stands at the end; other templates cannot be followed
    components                are named ROUTE.NAME; references are followed by name, and must stay in the document
    version 3.0               nullable and exclusiveMinimum become what they are in 3.1
    links, servers            are left out: they are the backend's view

Documents come from backends, so nothing in them is believed but their outline (config/openapi_document.py): what does
not fit raises UnusableDocument, or is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from gogate_py.config.openapi_document import UnusableDocument
from gogate_py.config.schema import Route
from gogate_py.middleware.rewriting import split_template
from gogate_py.policy.path_captures import REST, is_parameter

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_KINDS: Final = (
    "schemas", "responses", "parameters", "examples", "requestBodies", "headers", "securitySchemes", "callbacks",
    "pathItems")
#: Members whose value is a map of names: their names mean nothing.
_NAMED: Final = frozenset((
    *_KINDS, "properties", "patternProperties", "$defs", "dependentSchemas", "content", "encoding", "variables"))
#: Members whose value is data, whatever it looks like.
_DATA: Final = frozenset(("example", "default", "enum", "const", "value"))
_LEFT_OUT: Final = frozenset(("links", "servers", "operationRef"))
_STRANGE: Final = re.compile(r"[^A-Za-z0-9._-]")


class Adopted:
    """One document for one route. Raises UnusableDocument."""

    def __init__(self, route: Route, document: dict[str, Any]) -> None:
        self._route = route
        self._document = document
        self._old = str(document["openapi"]).startswith("3.0")
        self._components: dict[str, dict[str, Any]] = document.get("components", {})
        self._names = {kind: self._renamed(kind) for kind in _KINDS}
        self._base = _base(document.get("servers"))

    def _renamed(self, kind: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in self._components.get(kind, {}):
            new = f"{self._route.name}.{_STRANGE.sub('_', name)}"
            while new in found.values():
                new += "_"
            found[name] = new
        return found

    def components(self) -> dict[str, dict[str, Any]]:
        """Those of the document, under their new names."""
        try:
            return {
                kind: {names[name]: self._moved(one) for name, one in self._components[kind].items()}
                for kind, names in self._names.items() if names}
        except RecursionError:
            raise UnusableDocument("is nested too deeply") from None

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Public path, method, operation of all that the route's path leads to."""
        for path, item in self._document.get("paths", {}).items():
            public = public_path(self._route, self._base + path if path != "/" or not self._base else self._base)
            if public is None:
                continue
            for method in METHODS:
                if isinstance(item.get(method), dict):
                    try:
                        yield public, method.upper(), self._operation(item, item[method])
                    except RecursionError:
                        raise UnusableDocument("is nested too deeply") from None

    def _operation(self, item: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
        told = {"security": self._document["security"], **given} if "security" in self._document else given
        made: dict[str, Any] = self._moved({key: one for key, one in told.items() if key != "parameters"})
        own = self._parameters(given.get("parameters"))
        made["parameters"] = [*{**self._parameters(item.get("parameters")), **own}.values()]
        if not isinstance(made.get("responses"), dict) or not made["responses"]:
            made["responses"] = {"default": {"description": "What the backend answers."}}
        made["tags"] = [self._route.name]
        return made

    def _parameters(self, given: Any) -> dict[tuple[str, str], dict[str, Any]]:
        """By place and name; those that are components are written out, because names in paths may have to change."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for one in given if isinstance(given, list) else ():
            if isinstance(one, dict) and isinstance(one.get("$ref"), str):
                self._new_ref(one["$ref"])
                one = self._components.get("parameters", {}).get(one["$ref"].rpartition("/")[2])
            if isinstance(one, dict) and isinstance(one.get("name"), str) and isinstance(one.get("in"), str):
                found[one["in"], one["name"]] = self._moved(one)
        return found

    def _moved(self, node: Any, named: bool = False) -> Any:
        """A part of the document as a part of ours. ``named``: its keys are names."""
        if isinstance(node, list):
            return [self._moved(one) for one in node]
        if not isinstance(node, dict):
            return node
        made: dict[str, Any] = {}
        for key, one in node.items():
            if named:
                made[key] = self._moved(one)
            elif key in _LEFT_OUT:
                continue
            elif key in _DATA or key.startswith("x-") or (key == "examples" and isinstance(one, list)):
                made[key] = one
            elif key == "$ref" and isinstance(one, str):
                made[key] = self._new_ref(one)
            elif key == "operationId" and isinstance(one, str):
                made[key] = f"{self._route.name}.{one}"
            elif key == "mapping" and isinstance(one, dict):
                made[key] = {word: self._mapped(where) for word, where in one.items()}
            elif key == "security":
                given = one if isinstance(one, list) else []
                made[key] = [self._requirement(each) for each in given if isinstance(each, dict)]
            else:
                made[key] = self._moved(one, key in _NAMED)
        return _modern(made) if self._old and not named else made

    def _new_ref(self, old: str) -> str:
        words = old.split("/")
        if len(words) >= 4 and words[:2] == ["#", "components"]:
            new = self._names.get(words[2], {}).get(words[3].replace("~1", "/").replace("~0", "~"))
            if new is not None:
                return "/".join(("#/components", words[2], new, *words[4:]))
        raise UnusableDocument(f"refers to {old[:100]}, which is not among its components; bundle it into one document")

    def _mapped(self, where: Any) -> Any:
        """A value of a discriminator: a reference, or a schema's name."""
        if isinstance(where, str) and where in self._names["schemas"]:
            return f"#/components/schemas/{self._names['schemas'][where]}"
        return self._new_ref(where) if isinstance(where, str) else where

    def _requirement(self, one: dict[str, Any]) -> dict[str, Any]:
        known = self._names["securitySchemes"]
        return {known[name]: scopes for name, scopes in one.items() if name in known}


def _modern(schema: dict[str, Any]) -> dict[str, Any]:
    """What version 3.0 says otherwise than 3.1."""
    nullable = schema.pop("nullable", None) if isinstance(schema.get("nullable"), bool) else None
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(schema.get(exclusive), bool) and schema.pop(exclusive) and bound in schema:
            schema[exclusive] = schema.pop(bound)
    if not nullable:
        return schema
    if isinstance(schema.get("type"), str):
        if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
            schema["enum"] = [*schema["enum"], None]
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def _base(servers: Any) -> str:
    """The path of the first server, "" for none."""
    first = servers[0] if isinstance(servers, list) and servers else {}
    url = first.get("url") if isinstance(first, dict) else None
    if not isinstance(url, str):
        return ""
    variables = first.get("variables")
    for name, one in variables.items() if isinstance(variables, dict) else ():
        if isinstance(one, dict):
            url = url.replace(f"{{{name}}}", str(one.get("default", "")))
    try:
        path = urlsplit(url).path.rstrip("/")
    except ValueError:
        return ""
    return path if path.startswith("/") else f"/{path}" if path else ""


def public_path(route: Route, path: str) -> str | None:
    """The path that clients ask for to get this one of the backend; None: none, or not one that the route takes."""
    asked = _asked(route, path)
    return asked if asked is not None and _takes(route, asked) else None


def _asked(route: Route, path: str) -> str | None:
    prefix = route.strip_prefix.rstrip("/")
    parts = split_template(route.rewrite.path) if route.rewrite is not None else [("", "path"), ("", "")]
    if len(parts) != 2 or parts[1][0]:
        return None
    literal, variable = parts[0]
    if not path.startswith(literal):
        return None
    left = path[len(literal):]
    if variable == "path":
        if not left.startswith("/"):
            return None
        return prefix if prefix and left == "/" else prefix + left
    if variable != REST:
        return None
    match = route.match
    root = match.path.removesuffix("/*") if match.path else match.path_prefix.rstrip("/")
    if any(is_parameter(word) for word in root.split("/")) or not literal.endswith("/"):
        return None
    return f"{root}/{left}" if left else root or "/"


def _takes(route: Route, path: str) -> bool:
    """Whether a route takes every path of a template."""
    match = route.match
    words = path.split("/")
    if not match.path:
        prefix = match.path_prefix.rstrip("/").split("/")
        return words[:len(prefix)] == prefix
    wanted = match.path.split("/")
    if wanted[-1] == "*":
        if len(words) < len(wanted):
            return False
        wanted, words = wanted[:-1], words[:len(wanted) - 1]
    return len(words) == len(wanted) and all(
        want == word or (is_parameter(want) and word) for want, word in zip(wanted, words, strict=True))
