"""Exchange: one HTTP request with its response, from its checked head to its one completion.

    start ─ route ─ stages ─ transform ─ arm ─ pick ─ connect or reuse ─ forward ─ answer ─ complete
                                                ↑                          │
                                                └── try again ─────────────┘   (attempts)

An exchange holds the route (and so the snapshot) it began with. It is driven by its Downstream (request bytes, client
gone, deadlines) and by its Upstream (answer, failures), and calls back to both. ``complete`` runs exactly once on every
path; after it ``over`` is True and every late callback is ignored.

Its parts, each built on the one before: exchange_state (what it knows), answer_relay (the answer to the client),
exchange_end (how it ends), attempts (how the request gets to a backend), and here the order of things. Deadlines are
looked at in exchange_deadlines, a switched protocol is a Tunnel.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from gogate_py.dataplane.attempts import Attempts
from gogate_py.dataplane.body_watch import BODY_CHECK
from gogate_py.dataplane.deadlines import INFINITE
from gogate_py.errors import Failure, WireError
from gogate_py.middleware.chain import Answer, NeedBody, Outcome, Refusal
from gogate_py.middleware.route_match import routed_method
from gogate_py.middleware.transform import Transform
from gogate_py.policy.router import NotAllowed
from gogate_py.wire.chunked import ChunkedDecoder
from gogate_py.wire.headers import dashed

if TYPE_CHECKING:
    from gogate_py.dataplane.listeners import LiveListener
    from gogate_py.dataplane.live_pool import LivePool
    from gogate_py.dataplane.live_route import Chosen, LiveRoute


class Exchange(Attempts):
    """One request with its response."""

    # --- the way down

    def start(self) -> None:
        """Route, pass the stages, go to a backend."""
        site = self.site
        site.in_flight += 1
        listener = self.downstream.listener
        host = site.host_key(self.host)
        if listener.guarded and self._stopped_at_the_door(listener, host):
            return
        try:
            method = self.method
            if method == b"OPTIONS":
                method = routed_method(listener.router, host, self)
            found = listener.router.match(host, self.path, method, self)
        except WireError as error:
            self.answer(error.failure, error.detail)
            return
        if found is None:
            self.answer(Failure.NO_ROUTE)
            return
        if isinstance(found, NotAllowed):
            self.answer(Failure.METHOD_NOT_ALLOWED, extra=b"Allow: " + found.allow + b"\r\n")
            return
        self.route = found
        if site.in_flight > site.max_in_flight:
            self.answer(Failure.OVERLOADED, retry_after=1)
            return
        if found.max_body and self.body_left > found.max_body:
            self.answer(Failure.BODY_TOO_LARGE)
            return
        if not found.plain_answers:
            self.fast_answer = False
        if self.body_open:
            self.downstream.deadline = self.started + BODY_CHECK
        else:
            self.head_sent_at = self.started
            self.downstream.deadline = self.started + found.first_check
        if found.stages:
            self._pass_stages(found)
        else:
            self._dispatch(found)

    def _stopped_at_the_door(self, listener: LiveListener, host: bytes) -> bool:
        """What a listener decides before any route: whether the host fits the connection, and redirects to https."""
        secured = self.downstream.secured
        if secured is not None and not secured.serves(host):
            self.answer(Failure.MISDIRECTED)
            return True
        if listener.to_https is None:
            return False
        outcome = listener.to_https(self)
        if isinstance(outcome, Answer):
            self.answer_with(outcome)
        else:
            self.answer(outcome.failure, outcome.detail)
        return True

    def _pass_stages(self, route: LiveRoute) -> None:
        """Ask the stages that were not asked yet, in order; then dispatch."""
        stages = route.stages
        while self._stage < len(stages):
            stage = stages[self._stage]
            try:
                outcome = stage(self)
            except WireError as error:  # a query or form that cannot be read
                self.answer(error.failure, error.detail)
                return
            if outcome is None:
                self._stage += 1
            elif isinstance(outcome, NeedBody):
                if not self._collect_body(outcome.limit):
                    return
            elif isinstance(outcome, Refusal | Answer):
                self._stopped(route, stage.name, outcome)
                return
            else:
                # Nobody is late with an answer that was not asked for yet; the stage has a time limit of its own.
                self.head_sent_at = INFINITE
                self._stage_task = self.site.plane.spawn(self._await_stage(route, stage.name, outcome))
                return
        self._dispatch(route)

    async def _await_stage(self, route: LiveRoute, name: str, waiting: Awaitable[Outcome]) -> None:
        """Wait for a stage's outcome, then go on behind it."""
        try:
            outcome = await waiting
        except Exception as error:  # the top of a task: without this the client would wait for ever
            self.site.plane.internal_error(error, f"stage {name}")
            self._stage_task = None
            self.answer(Failure.INTERNAL)
            return
        self._stage_task = None
        if self.over:
            return
        if isinstance(outcome, Refusal | Answer):
            self._stopped(route, name, outcome)
            return
        self._stage += 1
        self._go_on(route)

    def _go_on(self, route: LiveRoute) -> None:
        """Time was spent: what is due from now on is due later."""
        self._due_from_now()
        self._pass_stages(route)

    def _stopped(self, route: LiveRoute, stage: str, outcome: Refusal | Answer) -> None:
        """A stage answers instead of a backend."""
        if isinstance(outcome, Answer):
            self.answer_with(outcome)
            return
        key = (stage, outcome.counted)
        route.refused[key] = route.refused.get(key, 0) + 1
        self.answer(outcome.failure, outcome.detail, retry_after=outcome.retry_after, extra=outcome.lines)

    def _collect_body(self, limit: int) -> bool:
        """A stage needs the whole body; → whether it is here already."""
        # What came while an earlier stage was waited for is pending already, as it goes to the backend.
        form = self._form if self._form is not None else self._decoded_pending()
        here = sum(map(len, form))
        if here + max(0, self.body_left if self.body_open else 0) > limit:
            self.answer(Failure.BODY_TOO_LARGE, "The request body is too large for what this route reads of it.")
            return False
        if not self.body_open:
            self.body = b"".join(form)
            self._form = None
            return True
        self._form = form
        self._form_left = limit - here
        self.resume_request()
        checked = self.checked
        if checked is not None and checked.expect_continue and self.minor:
            self.downstream.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._continued = True
            checked.expect_continue = False  # the backend gets the body without being asked
        return False

    def _decoded_pending(self) -> list[bytes]:
        data = b"".join(self._pending or ())
        return [ChunkedDecoder().feed(data) if self.body_chunked else data]

    def request_end(self) -> None:
        """The body is complete."""
        super().request_end()
        if self._form is not None and not self.over:
            assert self.route is not None
            self._pass_stages(self.route)

    # --- to a pool

    def _dispatch(self, route: LiveRoute) -> None:
        """Every stage let it pass: transform, choose the arm, pick."""
        if route.transform is not None or self._forwarded is not None or self._withheld is not None:
            refusal = self._transform(route.transform)
            if refusal is not None:
                self._stopped(route, "rewrite", refusal)
                return
        pool = route.pool
        if pool is None:
            pool = self._arm(route)
            if pool is None:
                return
        self.pool = pool
        if pool.needs_key:
            self.pool_key = pool.key_of(self)
        if route.budget is not None:
            route.budget.deposit(self.started)
        self.retry_statuses = route.retry_statuses
        self._pick()

    def _arm(self, route: LiveRoute) -> LivePool | None:
        """The arm of the split, or an answer."""
        chosen = route.choose(self, self.site.plane.random)
        if chosen is None:
            self.answer(Failure.NO_BACKEND, f"No arm of route {route.name} has a usable backend.")
            return None
        self.new_cookie = chosen.cookie
        if self.new_cookie:
            self.fast_answer = False
        if chosen.instead_of:
            self.detail = f"No backend of pool {chosen.instead_of} is usable: pool {chosen.pool.name} instead."
        return self._chosen(chosen)

    def _chosen(self, chosen: Chosen) -> LivePool:
        return chosen.pool

    def _rewrite(self, transform: Transform) -> Refusal | None:
        """Nothing but the path of a clean head is changed: in the slice that goes to the backend."""
        path = transform.path_of(self)
        if isinstance(path, Refusal):
            return path
        head = self.outbound
        self.outbound = b"%b %b%b HTTP/1.1%b" % (self.method, path, self.query, head[head.index(b"\r\n") :])
        return None

    def _transform(self, transform: Transform | None) -> Refusal | None:
        """Take the head apart if that was not needed so far, and change it as route and stages want it."""
        checked = self.checked
        if checked is None:
            if transform is not None and transform.edits is None and self._forwarded is None and self._withheld is None:
                return self._rewrite(transform)
            checked = self.checked = self.site.checked_request(self.clean_head or self.raw_head)
            if not self.backend_lines:
                self.backend_lines = self.downstream.forward_lines + self.request_id + b"\r\n" + self.trace_line
            self.outbound = b""
        if transform is not None:
            refusal = transform(self, checked)
            if refusal is not None:
                return refusal
        if self._forwarded is not None or self._withheld is not None:
            # Of two values for one field the later one counts; what the client sent goes in any spelling.
            coming = {name.lower(): (name, value) for name, value in self._forwarded or ()}
            drop = {dashed(name) for name in coming} | {dashed(name) for name in self._withheld or ()}
            checked.fields = [field for field in checked.fields if dashed(field[0].lower()) not in drop]
            checked.fields += coming.values()
        return None
