"""Explain: what would happen to a request, by the code that serves requests — and nothing changed by asking.

Runs in the supervisor (live: over the arena that the workers share, with the snapshot that they serve) and in the
command line (from a file: over an arena of its own, every backend taken as up). The same routes, stages, splits, pools
and balancers are compiled as in a worker; stages are asked by ``explain`` instead of being called, pools are looked at
instead of being picked from.

What cannot be foretold is said to be so: a choice by chance, a turn that depends on the worker, an answer of another
service, what a worker's cache holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any, Final

from gogate_py.arena import Arena
from gogate_py.clock import monotonic_ns, new_random
from gogate_py.dataplane.backend_table import BackendTable
from gogate_py.dataplane.forward_auth import ForwardAuthStage
from gogate_py.dataplane.http_site import head_limits, head_rules, host_key, routes_of
from gogate_py.dataplane.live_backend import LiveBackend
from gogate_py.dataplane.live_pool import LivePool
from gogate_py.dataplane.live_route import LiveRoute, RouteCounts
from gogate_py.dataplane.shared_limits import LimiterTable
from gogate_py.dataplane.waiting import WaitingRoom
from gogate_py.errors import Failure, WireError
from gogate_py.messages import KeySet
from gogate_py.middleware.auth_api_key import ApiKeyAuthStage
from gogate_py.middleware.auth_basic import BasicAuthStage, Passwords
from gogate_py.middleware.auth_jwt import JwtAuthStage
from gogate_py.middleware.chain import Answer, Refusal, Stage
from gogate_py.middleware.ip_rules import Networks
from gogate_py.middleware.jwt_keys import KeySets
from gogate_py.middleware.pipeline import compile_pipeline
from gogate_py.middleware.question import AskedRequest, Question
from gogate_py.middleware.rate_limit import Limiter
from gogate_py.middleware.response_cache import ResponseCache
from gogate_py.middleware.route_match import routed_method
from gogate_py.policy.circuit_breaker import STATE_NAMES
from gogate_py.policy.eligibility import eligible
from gogate_py.policy.router import NotAllowed, Router
from gogate_py.policy.splitter import CHANCE, NEW_CLIENT, NO_WEIGHT
from gogate_py.snapshot import ForwardAuth, HttpRoute, RateLimit, Snapshot
from gogate_py.wire.forwarding import client_address

Facts = dict[str, Any]

#: How a balancer chooses, for people; hashing ones say which.
_TURNS: Final = {
    "round_robin": "each in turn; whose turn it is depends on the worker",
    "weighted_round_robin": "each in turn by weight; whose turn it is depends on the worker",
    "least_connections": "the one with the fewest active per weight; ties at random",
    "random": "by chance, in proportion to the weights",
    "p2c": "of two by chance, the one with fewer active per weight",
    "ewma": "of two by chance, the one with the lower latency and fewer active (each worker measures for itself)",
}


class _Services:
    """The services of middleware.pipeline, for looking only."""

    def __init__(self, arena: Arena, keys: Iterable[KeySet]) -> None:
        self._limits = LimiterTable(arena)
        self._passwords: Passwords | None = None
        self.key_sets = KeySets(lambda url: None)
        for one in keys:
            self.key_sets.apply(one)

    @property
    def passwords(self) -> Passwords:
        if self._passwords is None:
            self._passwords = Passwords()
        return self._passwords

    def limiter(self, limit: RateLimit, route: str) -> Limiter:
        return self._limits.limiter(limit, route)

    def forward_auth(self, settings: ForwardAuth) -> Stage:
        return ForwardAuthStage(settings)


class Explainer:
    """Explains requests for one snapshot. ``slots``: how many workers share the arena; ``keys``: of every jwksUrl."""

    def __init__(self, snapshot: Snapshot, arena: Arena, slots: int, keys: Iterable[KeySet] = ()) -> None:
        self._snapshot = snapshot
        self._rules: list[tuple[HttpRoute, LiveRoute]] = []
        self._routers: dict[str, Router[LiveRoute]] = {}  # by listener, "" = all routes
        self._random = new_random()
        self._limits = head_limits(snapshot.limits, head_rules(snapshot))
        self._table = BackendTable(
            arena, 0, slots, self._random, lambda backend: None, lambda: WaitingRoom(_never)
        )
        self._table.apply(snapshot)
        services = _Services(arena, keys)
        rules = self._rules
        for spec in snapshot.http_routes:
            cache = ResponseCache(spec.cache) if spec.cache is not None else None
            pipeline = compile_pipeline(spec, snapshot.rate_limits, services, cache)
            rules.append((spec, LiveRoute(spec, pipeline, self._table.pools, RouteCounts(), None)))

    def explain(self, question: Question, listener: str = "") -> Facts:
        """Everything that would be decided about a request, as plain data. A request that is refused before it is
        routed has only ``outcome``. ``listener``: the name of the one it comes in by; "" = all routes are looked at."""
        router = self._router_of(listener)
        facts: Facts = {"generation": self._snapshot.generation}
        try:
            request = AskedRequest.of(question, self._limits, question.client)
        except WireError as error:
            facts["outcome"] = _refused(Refusal(error.failure, error.detail), "request")
            return facts
        request.client = self._client(request)
        facts["request"] = {
            "method": _text(request.method),
            "host": _text(request.host),
            "path": _text(request.path),
            "query": _text(request.query),
            "client": request.client,
        }
        key = host_key(request.host)
        try:
            method = routed_method(router, key, request)
            candidates = router.explain(key, request.path, method, request)
            found = router.match(key, request.path, method, request)
        except WireError as error:
            facts["outcome"] = _refused(Refusal(error.failure, error.detail), "route")
            return facts
        facts["candidates"] = [
            {"route": one.name, "matched": one.matched, "why": one.why} for one in candidates
        ]
        if found is None:
            facts["outcome"] = _refused(Refusal(Failure.NO_ROUTE), "route")
        elif isinstance(found, NotAllowed):
            facts["outcome"] = {**_refused(Refusal(Failure.METHOD_NOT_ALLOWED), "route"), "allow": _text(found.allow)}
        else:
            facts["route"] = found.name
            self._explain_route(found, request, facts)
        return facts

    def _router_of(self, listener: str) -> Router[LiveRoute]:
        router = self._routers.get(listener)
        if router is None:
            rules = routes_of(listener, self._rules) if listener else self._rules
            router = self._routers[listener] = Router(list(rules))
        return router

    def _client(self, request: AskedRequest) -> str:
        """The client's address, as a worker works it out."""
        trusted = Networks(self._snapshot.trusted_proxies)

        def is_trusted(text: str) -> bool:
            try:
                return bool(trusted.find(ip_address(text)))
            except ValueError:
                return False

        chain = [value for name, value in request.checked.forwarded if name == b"x-forwarded-for"]
        return client_address(request.client, chain, is_trusted)

    def _explain_route(self, route: LiveRoute, request: AskedRequest, facts: Facts) -> None:
        if route.max_body and request.checked.content_length > route.max_body:
            facts["outcome"] = _refused(Refusal(Failure.BODY_TOO_LARGE), "limits")
            return
        stages: list[Facts] = []
        facts["stages"] = stages
        for stage in route.stages:
            try:
                verdict = stage.explain(request)
            except WireError as error:
                facts["outcome"] = _refused(Refusal(error.failure, error.detail), stage.name)
                return
            outcome = verdict.outcome
            shown = "passes" if outcome is None else "answers" if isinstance(outcome, Answer) else "refuses"
            stages.append({"stage": stage.name, "verdict": shown, "text": verdict.text, **verdict.facts})
            if isinstance(outcome, Refusal):
                facts["outcome"] = _refused(outcome, stage.name)
                return
            if isinstance(stage, JwtAuthStage | ApiKeyAuthStage | BasicAuthStage) and outcome is None:
                stage.identify(request)
            if isinstance(outcome, Answer):
                facts["outcome"] = {
                    "kind": "answer", "status": outcome.status, "reason": outcome.reason, "stage": stage.name
                }  # fmt: skip
                return
        if route.transform is not None:
            refusal = route.transform(request, request.checked)
            if refusal is not None:
                facts["outcome"] = _refused(refusal, "rewrite")
                return
        facts["forwarded"] = self._forwarded(route, request)
        self._explain_pool(route, request, facts)

    @staticmethod
    def _forwarded(route: LiveRoute, request: AskedRequest) -> Facts:
        """What the backend would see that the client did not send."""
        shown: Facts = {"path": _text(request.checked.path), "host": _text(request.checked.host)}
        if request.forwarded:
            shown["set"] = sorted({_text(name) for name, _ in request.forwarded})
        if request.withheld:
            shown["withheld"] = sorted(_text(name) for name in request.withheld)
        if route.transform is not None and route.transform.edits is not None:
            shown["edits"] = route.transform.edits.explain(request).facts
        return shown

    def _explain_pool(self, route: LiveRoute, request: AskedRequest, facts: Facts) -> None:
        pools = [route.pool] if route.pool is not None else []
        if route.split is not None:
            pools = self._explain_split(route, request, facts)
        facts["pools"] = [self._pool_facts(pool, request) for pool in pools]
        facts["timeouts"] = {
            name: getattr(route.timeouts, name)
            for name in ("request", "response_header", "body_idle", "idle", "tunnel_idle")
        }
        facts["retry"] = _retry_facts(route, request)
        usable = [pool for pool in pools if pool.usable()]
        if not usable:
            if pools:
                failure, detail, wait = pools[0].why_none()
                facts["outcome"] = {**_refused(Refusal(failure, detail, wait), "pick"), "retry_after": wait}
            else:
                facts["outcome"] = _refused(Refusal(Failure.NO_BACKEND, "no arm has any weight"), "split")
            return
        outcome: Facts = {"kind": "backend", "pools": [pool.name for pool in usable]}
        if len(usable) < len(pools) and not route.spec.arm_fallback:
            # chance decides, and some arms cannot serve: those requests are answered 503
            outcome["or_refused_in"] = [pool.name for pool in pools if pool not in usable]
        elif len(usable) == 1:
            outcome["pool"] = usable[0].name
            outcome["backend"] = next(one["pick"] for one in facts["pools"] if one["name"] == usable[0].name)
        facts["outcome"] = outcome

    def _explain_split(self, route: LiveRoute, request: AskedRequest, facts: Facts) -> list[LivePool]:
        """The arms, and the pools that the request may go to."""
        split = route.split
        assert split is not None
        chosen = split.decide(request, self._random)
        arms = split.splitter.arms
        total = sum(arm.weight for arm in arms)
        shown: Facts = {
            "why": chosen.why,
            "arms": [
                {
                    "pool": arm.pool,
                    "weight": arm.weight,
                    "share": round(arm.weight / total, 4) if total else 0.0,
                    "canary": arm.canary,
                    "usable": route.pools[arm.pool].usable(),
                }
                for arm in arms
            ],
        }
        facts["split"] = shown
        if chosen.why == NO_WEIGHT or chosen.index is None:
            return []
        if chosen.why in (CHANCE, NEW_CLIENT):
            shown["arm"] = None
            return [route.pools[arm.pool] for arm in arms if arm.weight]
        name = arms[chosen.index].pool
        shown["arm"] = name
        if not route.pools[name].usable() and route.spec.arm_fallback:
            for other in split.others(chosen.index):
                if route.pools[other].usable():
                    shown["fallback"] = other
                    return [route.pools[other]]
        return [route.pools[name]]

    def _pool_facts(self, pool: LivePool, request: AskedRequest) -> Facts:
        spec = pool.spec
        candidates, reserve, panic = eligible(pool.backends, spec.panic_threshold)
        now_ns = monotonic_ns()
        backends = [self._backend_facts(one, candidates, reserve, now_ns) for one in pool.backends]
        taking = [one for one in backends if one["takes"]]
        # backups are asked when no candidate takes it
        able = [one["address"] for one in taking if one["candidate"]] or [one["address"] for one in taking]
        shown: Facts = {
            "name": pool.name, "balancer": spec.balancer, "panic": panic, "backends": backends, "pick": None
        }  # fmt: skip
        if pool.needs_key:
            key = pool.key_of(request)
            picked = pool.preview(key)
            shown["key"] = {"by": "ip" if spec.balancer == "ip_hash" else spec.hash_key, "found": bool(key)}
            if picked is not None and picked.address in able:
                shown["pick"] = picked.address
            shown["text"] = (
                "by the hash of the key" if key else "the request has no key: by chance, in proportion to the weights"
            )
        else:
            shown["text"] = _TURNS[spec.balancer]
        if len(able) == 1 and shown["pick"] is None:
            shown["pick"] = able[0]
        if spec.max_connections:
            shown["max_connections"] = spec.max_connections
            shown["queue_timeout"] = spec.queue_timeout
        return shown

    @staticmethod
    def _backend_facts(
        backend: LiveBackend, candidates: list[LiveBackend], reserve: list[LiveBackend], now_ns: int
    ) -> Facts:
        breaker = backend.breaker
        why = backend.why_not()
        ejected = backend.ejected(now_ns)
        full = bool(backend.max_connections) and backend.active() >= backend.max_connections
        breaker_state = STATE_NAMES[breaker.state()] if breaker is not None else "none"
        refuses = (
            "ejected by outlier detection"
            if ejected
            else f"its breaker is {breaker_state}"
            if breaker is not None and not breaker.may_take()
            else "it has maxConnections"
            if full
            else ""
        )
        candidate = backend in candidates
        shown: Facts = {
            "address": backend.address,
            "weight": backend.weight,
            "active": backend.active(),
            "healthy": backend.up,
            "draining": backend.draining,
            "breaker": breaker_state,
            "ejected": ejected,
            "backup": backend.backup,
            "candidate": candidate,
            "takes": not refuses and (candidate or backend in reserve),
            "why_not": refuses or ("" if candidate else why or "a backup, and others are usable"),
        }
        if backend.warming_since:
            shown["warming_up"] = True
        return shown


def _never(delay: float, callback: object) -> Any:
    raise AssertionError("nobody waits while explaining")


def _text(raw: bytes) -> str:
    return raw.decode("latin-1")


def _refused(refusal: Refusal, stage: str) -> Facts:
    failure = refusal.failure
    shown: Facts = {
        "kind": "refused",
        "status": failure.status,
        "reason": failure.reason,
        "detail": refusal.detail or failure.detail,
        "stage": stage,
    }
    if refusal.retry_after:
        shown["retry_after"] = refusal.retry_after
    return shown


def _retry_facts(route: LiveRoute, request: AskedRequest) -> Mapping[str, Any]:
    settings = route.spec.retry
    if settings is None or route.retry is None:
        return {"attempts": 1}
    repeatable = route.retry.may_repeat(request.method, request.field(b"idempotency-key") is not None)
    kinds = [kind for kind in ("connect", "reset", "timeout") if getattr(settings, kind)]
    return {
        "attempts": settings.attempts,
        "on": [*kinds, *map(str, settings.statuses)] if repeatable else ["connect"] if settings.connect else [],
        "repeatable": repeatable,
        "per_try_timeout": settings.per_try_timeout,
        "budget_percent": settings.budget_percent,
    }
