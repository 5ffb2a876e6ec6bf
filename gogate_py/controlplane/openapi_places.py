"""Paths of the routed API: how a route's match is written in OpenAPI, and operations gathered by path. Pure.

OpenAPI does not know two templates that differ in nothing but the names of their parameters (/u/{id}, /u/{name}):
operations of the second are put at the first, their parameters renamed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from attrs import frozen

from gogate_py.config.listeners import DataListener, serves
from gogate_py.config.schema import Match, Route
from gogate_py.policy.path_captures import REST, is_parameter, parameter_name
from gogate_py.policy.router import Router, specificity
from gogate_py.snapshot import ValueMatch

_PARAMETER: Final = re.compile(r"\{([^{}]*)\}")
#: Stands for any value of a parameter: no route names it.
_SOME: Final = "~~"


@frozen
class Place:
    """A path as OpenAPI writes it. ``suffix``: what tells the operations of a route's second place from the first."""

    path: str
    suffix: str = ""
    rest: bool = False  # its last parameter may hold slashes


def match_paths(match: Match) -> list[Place]:
    """Where the operations of a route are."""
    if not match.path:
        prefix = match.path_prefix.rstrip("/")
        return [Place(prefix or "/"), Place(f"{prefix}/{{{REST}}}", ".rest", True)]
    words: list[str] = []
    taken: list[str] = []
    for word in match.path.split("/")[1:]:
        if word != "*" and not is_parameter(word):
            words.append(word)
            continue
        name = REST if word == "*" else parameter_name(word)
        while name in taken:
            name += "_"
        taken.append(name)
        words.append(f"{{{name}}}")
    return [Place("/" + "/".join(words), rest=match.path.endswith("/*"))]


@frozen
class _Rule:
    """What the order of routes asks of one."""

    name: str
    host: str
    path: str
    path_prefix: str
    methods: tuple[str, ...]
    headers: tuple[ValueMatch, ...] = ()
    query: tuple[ValueMatch, ...] = ()


def rule(route: Route) -> _Rule:
    """A route as the router takes it, its conditions left out."""
    match = route.match
    return _Rule(route.name, match.host, match.path, match.path_prefix, match.methods)


def order(route: Route) -> tuple[object, ...]:
    """The order in which routes are described: those without conditions first, of these the most specific."""
    return (len(route.match.headers) + len(route.match.query), *specificity(rule(route)))


def parameter_names(path: str) -> list[str]:
    """The names of a template's parameters, in their order."""
    return _PARAMETER.findall(path)


class Owners:
    """Which route takes a request, as the router decides it; of routes with conditions nothing is known."""

    def __init__(self, listeners: Iterable[DataListener], routes: Iterable[Route], host: str) -> None:
        """``host``: that requests are for, "" for whatever a route names."""
        self._host = host.encode()
        self._routers: list[tuple[DataListener, Router[str]]] = []
        http = [route for route in routes if route.type == "http"]
        for one in listeners:
            plain = [(rule(route), route.name) for route in http if serves(one, route)
                     and not route.match.headers and not route.match.query]
            self._routers.append((one, Router(plain)))

    def has(self, route: Route, path: str, method: str) -> bool:
        """Whether a route gets the requests at a path, on any of its listeners."""
        if route.match.headers or route.match.query:
            return True
        host = self._host or re.sub(r"^\*", _SOME, route.match.host.lower()).encode()
        sample = _PARAMETER.sub(_SOME, path).encode()
        return any(
            router.match(host, sample, method.encode()) == route.name
            for one, router in self._routers if serves(one, route))


class Places:
    """The operations of all routes by path."""

    def __init__(self) -> None:
        self.paths: dict[str, Any] = {}
        self._templates: dict[str, str] = {}

    def add(self, place: Place, method: str, operation: dict[str, Any], also: dict[str, Any]) -> None:
        """Put an operation at its place, or, where there is one, ``also`` beside that."""
        path = self._templates.setdefault(_PARAMETER.sub("{}", place.path), place.path)
        item = self.paths.setdefault(path, {})
        there = item.get(method.lower())
        if there is not None and there["x-gogate"]["route"] == also["route"]:
            return
        if there is not None:
            others = there["x-gogate"].setdefault("also", [])
            if also not in others:
                others.append(also)
            return
        names = dict(zip(parameter_names(place.path), parameter_names(path), strict=True))
        own = [
            {**one, "name": names.get(one["name"], one["name"])} if one.get("in") == "path" else one
            for one in operation.get("parameters", ())]
        told = {one.get("name") for one in own if one.get("in") == "path"}
        own += [_parameter(name, place) for name in names.values() if name not in told]
        item[method.lower()] = {**operation, **({"parameters": own} if own else {})}


def _parameter(name: str, place: Place) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    if place.rest and name == parameter_names(place.path)[-1]:
        shown["description"] = "The rest of the path; it may hold slashes."
    return shown
