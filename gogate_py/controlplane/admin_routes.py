"""The endpoints of the admin API: one function each, a table of paths, and who serves which.

An endpoint reads the request, asks the control plane or the supervisor and returns an answer; what cannot be done is an
:class:`~gogate_py.controlplane.admin_problems.ApiError`. Access rules and audit lines come before (admin_server.py) and
are not known here, nor is anything about sockets.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from gogate_py import __version__
from gogate_py.clock import monotonic
from gogate_py.config import schema
from gogate_py.config.listeners import data_listeners, find_http_listener
from gogate_py.controlplane.admin_bodies import drain_deadline, read_object
from gogate_py.controlplane.admin_endpoint import Endpoint
from gogate_py.controlplane.admin_problems import MAX_SHOWN, ApiError, did_you_mean, json_answer, problem
from gogate_py.controlplane.admin_views import (
    backend_object,
    drain_object,
    gauges,
    override_object,
    route_object,
    service_object,
    split_object,
    stats_object,
)
from gogate_py.controlplane.certificates import InUse, expiry_gauge, in_use, listener_object
from gogate_py.controlplane.control import Control
from gogate_py.controlplane.dashboard import asset, page, wants_page
from gogate_py.controlplane.json_values import whole_number
from gogate_py.controlplane.live_stream import Live
from gogate_py.controlplane.openapi import document
from gogate_py.controlplane.openapi_documents import Documents
from gogate_py.controlplane.openapi_routes import describe
from gogate_py.controlplane.operations import BackendView
from gogate_py.controlplane.plan import render, to_json
from gogate_py.controlplane.process_use import process_gauges
from gogate_py.controlplane.registry import Registration, RegistrationError, RegistryFull
from gogate_py.controlplane.registry_rules import AddressForbidden
from gogate_py.controlplane.reloads import reload_object
from gogate_py.controlplane.request_answers import request_answer, requests_answer
from gogate_py.controlplane.route_stats import route_stats
from gogate_py.controlplane.service_answers import services_answer
from gogate_py.controlplane.supervision import Supervision
from gogate_py.errors import ConfigError
from gogate_py.middleware.question import BadQuestion, Question
from gogate_py.telemetry.exposition import Exposition, Gauges
from gogate_py.telemetry.totals import Labels, Totals

SERVICES: Final = "/v1/services"
HEARTBEAT: Final = "/heartbeat"


class Api:
    """All endpoints over one control plane."""

    def __init__(self, control: Control, supervision: Supervision, totals: Totals) -> None:
        self._control = control
        self._supervision = supervision
        self._totals = totals
        self._explaining = asyncio.Lock()
        self._in_use: tuple[schema.Config, list[InUse]] | None = None
        self._exposition = Exposition(totals, self._gauges)
        self.live = Live(control, supervision, totals)
        self.documents = Documents()
        everywhere = frozenset({"admin", "metrics", "registry"})
        admin = frozenset({"admin"})
        metrics = frozenset({"admin", "metrics"})
        registry = frozenset({"admin", "registry"})
        health, ready = {"GET": self.health}, {"GET": self.ready}
        services = {"GET": self.list_services, "POST": self.register}
        service = {"GET": self.service, "DELETE": self.deregister}
        self._metrics = Endpoint("/metrics", {"GET": self.metrics}, "metrics for Prometheus", metrics)
        self.endpoints = [
            Endpoint("/health", health, "whether gogate is alive", everywhere),
            Endpoint("/healthz", health, "the same", everywhere),
            Endpoint("/ready", ready, "whether it takes new traffic; 503 with the reasons when not", everywhere),
            Endpoint("/readyz", ready, "the same", everywhere),
            Endpoint("/stats", {"GET": self.stats}, "workers, connections, requests, latency, pools; ?by=route", admin),
            Endpoint("/backends", {"GET": self.backends}, "every backend of every pool", admin),
            Endpoint("/backends/{id:path}/drain", {"POST": self.drain}, "give it no new work; ?pool= for one", admin),
            Endpoint("/backends/{id:path}/undrain", {"POST": self.undrain}, "give it work again; ?pool=", admin),
            Endpoint(
                "/backends/{id:path}/weight",
                {"PUT": self.set_weight, "DELETE": self.reset_weight},
                'override its weight: {"weight": 5}; back to the configured one; ?pool=',
                admin,
            ),
            Endpoint("/events", {"GET": self.live.answer}, "figures and happenings as they come (SSE)", admin),
            Endpoint("/topology", {"GET": self.topology}, "listeners, routes, pools, backends and their states", admin),
            Endpoint("/openapi.json", {"GET": self.openapi}, "this API as an OpenAPI document", admin),
            Endpoint("/openapi/routes.json", {"GET": self.openapi_routes}, "the routed API likewise; ?host=", admin),
            Endpoint("/docs", {"GET": self.docs}, "these documents as a page", admin),
            Endpoint("/dashboard/{file}", {"GET": self.asset}, "parts of the page that browsers get at /", admin),
            Endpoint("/listeners", {"GET": self.listeners}, "every listener for clients, its certificates", admin),
            Endpoint("/routes", {"GET": self.routes}, "every route: matches, pool or split, counts", admin),
            Endpoint("/routes/{name}", {"GET": self.route}, "one route", admin),
            Endpoint(
                "/routes/{name}/split",
                {"GET": self.split, "PUT": self.set_split, "DELETE": self.reset_split},
                'its arms; override weights: {"weights": {"pool": 10}}; back to the configured ones',
                admin,
            ),
            Endpoint(
                "/explain",
                {"GET": self.explain},
                "what would happen to a request: ?method= &url= &header=Name:value &client_ip= &listener=",
                admin,
            ),
            Endpoint("/reload", {"POST": self.reload}, "read the configuration file again, and serve it", admin),
            Endpoint("/plan", {"POST": self.plan}, 'what another configuration would do: {"config": "…"}', admin),
            Endpoint("/config/status", {"GET": self.config_status}, "the last reloads, what is overridden", admin),
            Endpoint("/connections", {"GET": self.connections}, "live L4 connections; ?pool= ?backend=", admin),
            Endpoint("/connections/{id:path}", {"DELETE": self.close_connection}, "cut one", admin),
            Endpoint("/requests", {"GET": self.requests}, "recorded requests; ?route= ?status=503|5xx ?limit=", admin),
            Endpoint("/requests/{id:path}", {"GET": self.request}, "what was decided about one of them", admin),
            self._metrics,
            Endpoint(SERVICES, services, "register; list or watch instances, ?name= ?tag= ?state= ?wait=", registry),
            Endpoint(f"{SERVICES}/{{id}}", service, "one instance; deregister it", registry),
            Endpoint(f"{SERVICES}/{{id}}{HEARTBEAT}", {"PUT": self.heartbeat}, "renew its lease", registry),
        ]

    def router(self, listener: str) -> ASGIApp:
        """The application of one listener: admin, metrics or registry."""
        served = [endpoint for endpoint in self.endpoints if listener in endpoint.on]
        shown = [endpoint.path.replace(":path", "") for endpoint in served]

        async def index(request: Request) -> Response:
            if listener == "admin" and wants_page(request.headers.get("accept", "")):
                return page()
            listed = [
                {"path": path, "methods": sorted(endpoint.verbs), "does": endpoint.does}
                for path, endpoint in zip(shown, served, strict=True)
            ]
            return json_answer({"name": "gogate", "version": __version__, "endpoints": listed})

        async def unknown(scope: Scope, receive: Receive, send: Send) -> None:
            path = scope["path"]
            if listener in self._metrics.on and path == self._control.config.server.metrics.path:
                await self._metrics(scope, receive, send)
                return
            answer = problem(404, f"There is nothing at this path.{did_you_mean(path, shown)}", path)
            await answer(scope, receive, send)

        top = Endpoint("/", {"GET": index}, "this list; the dashboard for browsers", frozenset({listener}))
        routes = [Route(endpoint.path, endpoint) for endpoint in (top, *served)]
        return Router(routes, redirect_slashes=False, default=unknown)

    def close(self) -> None:
        """Let go of what answering needed."""
        self._exposition.close()

    # --- health

    async def health(self, request: Request) -> Response:
        """Alive as long as it can answer."""
        return json_answer({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """Readiness with its reasons (DESIGN.md section 6)."""
        ready, reasons = self._control.readiness()
        said = self._control.warnings()
        more = {"warnings": said} if said else {}
        if ready:
            return json_answer({"status": "ready", **more})
        return json_answer({"status": "not ready", "reasons": reasons, **more}, 503)

    # --- what happens

    async def stats(self, request: Request) -> Response:
        """Numbers since the start."""
        control, supervision = self._control, self._supervision
        by = request.query_params.get("by", "")
        if by not in ("", "route"):
            raise ApiError(400, "by is route, or left out.", field="by")
        ready, reasons = control.readiness()
        return json_answer(
            {
                "version": __version__,
                "pid": os.getpid(),
                "uptime_s": round(monotonic() - supervision.started, 3),
                "generation": control.generation,
                "ready": ready,
                "reasons": reasons,
                "warnings": control.warnings(),
                "draining": control.draining,
                "workers": supervision.workers(),
                "registry": {"services": len(control.registrations())},
                "key_sets": [
                    {"url": one.url, "keys": one.keys, "age_s": one.age_s, "error": one.error}
                    for one in control.key_sets()
                ],
                **stats_object(self._totals, control.backends(), supervision.backend_live),
                **(route_stats(self._totals, (one.name for one in control.routes())) if by else {}),
            }
        )

    async def metrics(self, request: Request) -> Response:
        """Prometheus text, or OpenMetrics when Accept asks for it."""
        if not self._control.config.server.metrics.enabled:
            raise ApiError(404, "Metrics are off (server.metrics.enabled).")
        self.take_dropped_lines()
        body, content_type = await self._exposition.render(request.headers.get("accept", ""))
        return Response(body, 200, {"Content-Type": content_type})

    def take_dropped_lines(self) -> None:
        """Count the log lines that the supervisor's writer dropped since the last call."""
        dropped = self._supervision.log_lines_dropped()
        if dropped:
            self._totals.count("gogate_log_lines_dropped_total", (), dropped)

    def _gauges(self) -> Gauges:
        control, supervision = self._control, self._supervision
        workers = supervision.workers()
        processes = [("supervisor", os.getpid()), *((str(one.slot), one.pid) for one in workers if one.state != "dead")]
        of_control = gauges(
            control.backends(),
            supervision.backend_live,
            panics=control.panics(),
            services=len(control.registrations()),
            preserved=control.preserved(),
            stale_names=control.stale_names(),
            certificates=expiry_gauge(self._certificates()),
            generation=control.generation,
            in_sync=supervision.reloads()[2] is None,
            serving=sum(worker.state == "serving" for worker in workers),
            uptime=monotonic() - supervision.started,
        )
        restarts: dict[Labels, float] = {(str(one.slot),): one.restarts for one in workers}
        return {**of_control, **process_gauges(processes), "gogate_worker_restarts_total": restarts}

    def _certificates(self) -> list[InUse]:
        """Those of the configuration that is served, looked for once in each."""
        if self._in_use is None or self._in_use[0] is not self._control.config:
            self._in_use = (self._control.config, in_use(self._control.config))
        return self._in_use[1]

    async def topology(self, request: Request) -> Response:
        """What the dashboard draws."""
        return json_answer(self.live.topology())

    async def asset(self, request: Request) -> Response:
        """A part of the dashboard's page."""
        return asset(request.path_params["file"])

    async def docs(self, request: Request) -> Response:
        """The page of the OpenAPI documents."""
        return page("docs.html")

    async def openapi(self, request: Request) -> Response:
        """The description of this API."""
        return json_answer(document([("/", ("GET",)), *((one.path, one.verbs) for one in self.endpoints)]))

    async def openapi_routes(self, request: Request) -> Response:
        """The description of the routed API."""
        # In a thread: of thousands of routes it takes a while.
        config, host = self._control.config, request.query_params.get("host", "")
        self.documents.follow(config)
        known = self.documents.of(config.effective_routes())
        return json_answer(await asyncio.to_thread(describe, config, host, known, monotonic()))

    async def listeners(self, request: Request) -> Response:
        """Every listener for clients, with its certificates."""
        return json_answer({"listeners": [listener_object(one) for one in data_listeners(self._control.config)]})

    # --- backends

    def _backend_objects(self, views: list[BackendView]) -> list[dict[str, Any]]:
        return [backend_object(view, self._supervision.backend_live) for view in views]

    async def backends(self, request: Request) -> Response:
        """Every backend of every pool."""
        return json_answer({"backends": self._backend_objects(self._control.backends())})

    async def drain(self, request: Request) -> Response:
        """No new work for a backend; what runs goes on, up to the deadline where there is one."""
        within = drain_deadline(await read_object(request, optional=True), request.query_params.get("deadline"))
        return self._changed(request, lambda identity, pool: self._control.drain(identity, pool, within))

    async def undrain(self, request: Request) -> Response:
        """Work again."""
        return self._changed(request, self._control.undrain)

    def _changed(self, request: Request, verb: Callable[[str, str | None], list[BackendView]]) -> Response:
        identity = request.path_params["id"]
        pool = request.query_params.get("pool")
        touched = verb(identity, pool)
        if not touched:
            views = self._control.backends()
            names = list(dict.fromkeys(name for view in views for name in (view.id, view.addr)))
            hint = did_you_mean(identity, names) or " GET /backends lists them."
            if pool is not None:
                raise ApiError(404, f"No backend of pool {pool[:MAX_SHOWN]} has the id or address "
                                    f"{identity[:MAX_SHOWN]}.{hint}")
            raise ApiError(404, f"No backend has the id or address {identity[:MAX_SHOWN]}.{hint}")
        return json_answer({"backends": self._backend_objects(touched)})

    async def set_weight(self, request: Request) -> Response:
        """Override a backend's weight."""
        body = await read_object(request)
        weight = whole_number(body.get("weight"), 1000)
        if set(body) != {"weight"} or weight is None:
            raise ApiError(400, 'Expected {"weight": n}, n a whole number from 0 to 1000.', field="weight")
        return self._changed(request, lambda identity, pool: self._control.set_weight(identity, pool, weight))

    async def reset_weight(self, request: Request) -> Response:
        """Back to the configured weight."""
        return self._changed(request, lambda identity, pool: self._control.set_weight(identity, pool, None))

    # --- routes

    async def routes(self, request: Request) -> Response:
        """Every route."""
        return json_answer({"routes": [self._route_object(route) for route in self._control.routes()]})

    async def route(self, request: Request) -> Response:
        """One route."""
        return json_answer(self._route_object(self._named_route(request)))

    def _route_object(self, route: schema.Route) -> dict[str, Any]:
        return route_object(route, self._control.split(route), self._totals)

    def _named_route(self, request: Request) -> schema.Route:
        name = request.path_params["name"]
        routes = {route.name: route for route in self._control.routes()}
        if name not in routes:
            raise ApiError(404, f"No route has the name {name[:MAX_SHOWN]}.{did_you_mean(name, routes)}")
        return routes[name]

    def _split_route(self, request: Request) -> schema.Route:
        route = self._named_route(request)
        if not route.split:
            raise ApiError(409, f"The route {route.name} has no split; its requests go to the pool {route.pool}.")
        return route

    async def split(self, request: Request) -> Response:
        """The arms of a route."""
        return json_answer({"split": split_object(self._control.split(self._split_route(request)))})

    async def set_split(self, request: Request) -> Response:
        """Override weights of arms."""
        route = self._split_route(request)
        body = await read_object(request)
        weights = body.get("weights")
        if set(body) != {"weights"} or not isinstance(weights, dict) or not weights:
            raise ApiError(400, 'Expected {"weights": {"pool": n, …}}.', field="weights")
        pools = {arm.pool: arm.weight for arm in self._control.split(route)}
        wanted: dict[str, int] = {}
        for pool, given in weights.items():
            if pool not in pools:
                shown, near = pool[:MAX_SHOWN], did_you_mean(pool, pools)
                raise ApiError(400, f"The split has no arm {shown}.{near}", field=f"weights.{shown}")
            weight = whole_number(given, 1_000_000)
            if weight is None:
                raise ApiError(400, "A weight is a whole number from 0 to 1000000.", field=f"weights.{pool}")
            wanted[pool] = weight
        if not any({**pools, **wanted}.values()):
            raise ApiError(400, "At least one arm needs a weight above 0.", field="weights")
        return json_answer({"split": split_object(self._control.set_split(route, wanted))})

    async def reset_split(self, request: Request) -> Response:
        """Back to the configured weights."""
        return json_answer({"split": split_object(self._control.set_split(self._split_route(request), None))})

    # --- the configuration

    async def reload(self, request: Request) -> Response:
        """Reload from the file: 200 when it is served, also when it was already; 400 with every problem when not."""
        done = await self._supervision.reload()
        if done is None:
            raise ApiError(409, "This gateway was not started from a file: there is nothing to reload.")
        shown = reload_object(done)
        if done.result == "failure":
            raise ApiError(400, "The configuration is not served; the old one goes on.", more=shown)
        return json_answer(shown)

    async def plan(self, request: Request) -> Response:
        """What serving another configuration would do; nothing changes."""
        body = await read_object(request)
        text = body.get("config")
        if set(body) != {"config"} or not isinstance(text, str):
            raise ApiError(400, 'Expected {"config": "the text of a configuration file"}.', field="config")
        try:
            found = await self._supervision.plan(text)
        except ConfigError as error:
            raise ApiError(
                400, "This configuration cannot be served.", more={"problems": list(map(str, error.problems))}
            ) from None
        if found is None:
            raise ApiError(409, "This gateway was not started from a file: it cannot serve another one.")
        return json_answer({**to_json(found), "text": render(found)})

    async def config_status(self, request: Request) -> Response:
        """What is served, how the last reloads ended, and what was overridden since."""
        file, history, failing = self._supervision.reloads()
        weights, splits = self._control.overrides()
        return json_answer(
            {
                "file": file,
                "generation": self._control.generation,
                "applied": self._control.applied,
                "in_sync": failing is None,
                "failing": reload_object(failing) if failing is not None else None,
                "history": [reload_object(one) for one in history],
                "overrides": {
                    "weights": [override_object(override, pool=key[0], backend=key[1]) for key, override in weights],
                    "splits": [
                        override_object(override, route=route, pool=pool) for route, pool, override in splits
                    ],
                    "drained": [drain_object(*drained) for drained in self._control.drained()],
                },
            }
        )

    async def explain(self, request: Request) -> Response:
        """What would happen to a request."""
        asked = request.query_params
        try:
            question = Question.of(
                asked.get("method", "GET"), asked.get("url", ""), asked.getlist("header"), asked.get("client_ip", "")
            )
            listener = find_http_listener(self._control.config, asked.get("listener", ""))
        except BadQuestion as error:
            raise ApiError(400, str(error), field=error.field) from None
        except ValueError as error:
            raise ApiError(400, str(error), field="listener") from None
        # In a thread, one at a time: a password takes a quarter of a second, and heartbeats go on.
        async with self._explaining:
            return json_answer(await asyncio.to_thread(self._supervision.explain, question, listener))

    # --- connections

    async def connections(self, request: Request) -> Response:
        """Live L4 connections, of one pool or backend where asked."""
        pool, backend = request.query_params.get("pool"), request.query_params.get("backend")
        found = [
            one
            for one in await self._supervision.connections()
            if (pool is None or one.pool == pool) and (backend is None or one.backend == backend)
        ]
        return json_answer({"connections": found})

    async def close_connection(self, request: Request) -> Response:
        """Cut one L4 connection."""
        identity = request.path_params["id"]
        if not await self._supervision.close_connection(identity):
            raise ApiError(404, f"No live connection has the id {identity[:MAX_SHOWN]}.")
        return Response(status_code=204)

    async def requests(self, request: Request) -> Response:
        """Recorded requests (request_answers.py)."""
        return await requests_answer(self._supervision, request)

    async def request(self, request: Request) -> Response:
        """One of them."""
        return await request_answer(self._supervision, request)

    # --- registry

    def _need_registry(self) -> None:
        if not self._control.config.server.registry.enabled:
            raise ApiError(404, "The registry is off (server.registry.enabled).")

    async def register(self, request: Request) -> Response:
        """Register an instance, or update the one with the same id: 201 either way, as GoGate answers."""
        self._need_registry()
        body = await read_object(request)
        try:
            registration, _ = self._control.register(body)
        except RegistrationError as error:
            raise ApiError(400, f"{error.field}: {error.message}", field=error.field) from None
        except AddressForbidden as error:
            raise ApiError(403, f"{error.field}: {error.message}", field=error.field) from None
        except RegistryFull as error:
            raise ApiError(503, str(error), headers={"Retry-After": "5"}) from None
        return json_answer(self._service(registration), 201, {"Location": f"{SERVICES}/{registration.id}"})

    async def list_services(self, request: Request) -> Response:
        """Registered instances; or what happens to them, as it happens (service_answers.py)."""
        self._need_registry()
        return await services_answer(self._control, request)

    async def service(self, request: Request) -> Response:
        """One instance."""
        self._need_registry()
        registration = self._control.registration(request.path_params["id"])
        if registration is None:
            raise self._unknown_service(request)
        return json_answer(self._service(registration))

    async def deregister(self, request: Request) -> Response:
        """Take an instance out."""
        self._need_registry()
        if not self._control.deregister(request.path_params["id"]):
            raise self._unknown_service(request)
        return Response(status_code=204)

    async def heartbeat(self, request: Request) -> Response:
        """Renew a lease (admin_server.py answers the known ids before they come here)."""
        self._need_registry()
        if not self._control.heartbeat(request.path_params["id"]):
            raise self._unknown_service(request)
        return Response(status_code=204)

    def _service(self, registration: Registration) -> dict[str, Any]:
        return service_object(registration, self._control.pools_of(registration), monotonic())

    def _unknown_service(self, request: Request) -> ApiError:
        return ApiError(404, f"No instance has the id {request.path_params['id'][:MAX_SHOWN]}.")
