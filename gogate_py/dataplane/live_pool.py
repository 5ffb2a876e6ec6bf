"""LivePool: one pool in this worker, and the pick of a backend for new work.

The balancer proposes, state decides. What takes a backend out of the pick, and when that is looked at:

    down, draining, weight 0, no address       when the state changes (policy/eligibility, panicThreshold included)
    tried already, ejected, breaker open,      at each pick
    maxConnections reached
    warming up (slowStart)                     at each pick, by chance

A pick counts the backend as working (``begin``); whoever gets it must ``end`` it.
"""

from __future__ import annotations

from collections.abc import Iterable

from gogate_py.clock import Random, monotonic, monotonic_ns
from gogate_py.dataplane.live_backend import LiveBackend, Picked
from gogate_py.dataplane.waiting import WaitingRoom
from gogate_py.errors import Failure
from gogate_py.middleware.chain import RequestView
from gogate_py.middleware.request_keys import Key, address_value, compile_key
from gogate_py.policy.balancers import BALANCERS, Balancer, new_balancer
from gogate_py.policy.eligibility import eligible
from gogate_py.policy.hashing import stable_hash
from gogate_py.policy.slow_start import admits
from gogate_py.snapshot import Pool

#: Picks of a warming backend that chance refused, before it is taken anyway.
_WARM_TRIES = 3


class LivePool:
    """One pool in this worker."""

    __slots__ = (
        "_balancer", "_balancer_made", "_guarded", "_hash_key", "_key_specs", "_random", "_reserve", "backends", "name",
        "needs_key", "needs_latency", "panic", "spec", "waiting",
    )  # fmt: skip

    def __init__(self, spec: Pool, random: Random, waiting: WaitingRoom) -> None:
        self.name = spec.name
        self.spec = spec
        self.backends: list[LiveBackend] = []
        self.waiting = waiting
        self.panic = False
        self._random = random
        self._guarded = False
        self._balancer_made = ("", 0.0)
        self._balancer: Balancer[LiveBackend]
        self._reserve: Balancer[LiveBackend] | None = None
        self.needs_key = False
        self.needs_latency = False
        self._use_balancer(spec)
        self._key_specs: tuple[str, ...] = ()
        self._hash_key: Key
        self._use_key(spec)

    def _use_balancer(self, spec: Pool) -> None:
        made = (spec.balancer, spec.balance_factor)
        if made == self._balancer_made:
            return
        self._balancer_made = made
        self._balancer = self._new_balancer()
        self._reserve = None
        kind = BALANCERS[spec.balancer]
        self.needs_key = kind.needs_key
        self.needs_latency = kind.needs_latency

    def _use_key(self, spec: Pool) -> None:
        specs = ("ip",) if spec.balancer == "ip_hash" else (spec.hash_key,)
        if specs != self._key_specs:
            self._key_specs = specs
            self._hash_key = compile_key(specs)

    def _new_balancer(self) -> Balancer[LiveBackend]:
        name, factor = self._balancer_made
        return new_balancer(name, self._random, factor)

    def update(self, spec: Pool, backends: list[LiveBackend]) -> None:
        """Take over a new snapshot's settings and members."""
        self.spec = spec
        self.backends = backends
        self._use_balancer(spec)
        self._use_key(spec)
        self.refresh()

    def refresh(self) -> None:
        """Tell the balancer which backends take new work (after a change of state)."""
        spec = self.spec
        candidates, reserve, self.panic = eligible(self.backends, spec.panic_threshold)
        self._balancer.update(candidates)
        if reserve:
            if self._reserve is None:
                self._reserve = self._new_balancer()
            self._reserve.update(reserve)
        else:
            self._reserve = None
        self._guarded = (
            spec.breaker is not None
            or spec.outlier is not None
            or spec.max_connections > 0
            or (spec.slow_start > 0 and any(backend.warming_since for backend in candidates))
        )

    def pick(self, tried: Iterable[LiveBackend] = (), key: int = 0) -> Picked | None:
        """A backend for new work; None when there is none (see :meth:`why_none`). ``tried`` ones are not offered again,
        ``key`` is the request's hash for the balancers that need one."""
        if not self._guarded and not tried:
            backend = self._balancer.pick(key)
            if backend is None:
                return None
            backend.begin()
            return backend.ordinary
        trial = False
        now_ns = monotonic_ns()

        def accept(backend: LiveBackend) -> bool:
            nonlocal trial
            trial = False
            if backend in tried or backend.ejected(now_ns):
                return False
            if backend.breaker is not None and not backend.breaker.closed():
                allowed, trial = backend.breaker.try_acquire()
                if not allowed:
                    return False
            if backend.try_begin():
                return True
            backend.release_trial(trial)
            return False

        backend = None
        if not tried:
            backend = self._first(key)
            if backend is None:
                return None
            if accept(backend):
                return Picked(backend, True) if trial else backend.ordinary
        backend = self._balancer.pick_accepted(accept, key)
        if backend is None and self._reserve is not None:
            backend = self._reserve.pick_accepted(accept, key)
        if backend is None:
            return None
        return Picked(backend, True) if trial else backend.ordinary

    def _first(self, key: int) -> LiveBackend | None:
        """The balancer's first proposal; a backend that warms up is passed over by chance (slowStart)."""
        backend = self._balancer.pick(key)
        window = self.spec.slow_start
        if window and not self.needs_key:
            for _ in range(_WARM_TRIES):
                if (
                    backend is None
                    or not backend.warming_since
                    or admits(self._random, monotonic(), backend.warming_since, window)
                ):
                    break
                backend = self._balancer.pick(key)
        return backend

    def key_of(self, request: RequestView) -> int:
        """The hash that a hashing balancer picks by; 0 when the request has no such key."""
        found = self._hash_key(request)
        return stable_hash(found[1]) if found is not None else 0

    @staticmethod
    def key_of_address(client: str) -> int:
        """The same for a TCP connection: of the client's address."""
        return stable_hash(address_value(client))

    def usable(self) -> bool:
        """Whether a pick would find a backend now, as far as can be told without picking: one that is up, not ejected,
        and whose breaker is not open."""
        now_ns = monotonic_ns()
        return any(
            not backend.why_not()
            and not backend.ejected(now_ns)
            and (backend.breaker is None or backend.breaker.may_take())
            for backend in self.backends
        ) or (self.panic and any(_takes_panic(backend) for backend in self.backends))

    def rows_and_usable(self) -> tuple[list[int], int]:
        """The arena rows of all its backends, and how many would take work if none were ejected."""
        usable = sum(not b.why_not() and (b.breaker is None or b.breaker.may_take()) for b in self.backends)
        return [b.row for b in self.backends], usable

    def may_have_room(self, tried: Iterable[LiveBackend] = ()) -> bool:
        """After a pick that found nothing: whether waiting would help, because it was for maxConnections only.

        Not asked is whether the limit is reached now: another worker may have ended something since that pick, or have
        held the lock, which counts as full.
        """
        if not self.spec.max_connections:
            return False
        now_ns = monotonic_ns()
        return any(
            backend not in tried
            and (not backend.why_not() or (self.panic and _takes_panic(backend)))
            and not backend.ejected(now_ns)
            and (backend.breaker is None or backend.breaker.closed())
            for backend in self.backends
        )

    def may_wait(self) -> bool:
        """Whether one more may wait for room."""
        return len(self.waiting) < self.spec.transport.pending_per_backend * max(1, len(self.backends))

    def freed(self) -> None:
        """Work at one of its backends ended in this worker."""
        if self.waiting:
            self.waiting.freed()

    def why_none(self) -> tuple[Failure, str, int]:
        """Why :meth:`pick` found nothing: the failure, a sentence for log and answer, seconds for Retry-After (0:
        unknown)."""
        if not self.backends:
            return Failure.NO_BACKEND, f"Pool {self.name} has no backends.", 0
        now_ns = monotonic_ns()
        waits: list[float] = []
        ejected = False
        for backend in self.backends:
            if backend.why_not():
                continue
            if backend.outlier is not None and backend.ejected(now_ns):
                ejected = True
                waits.append(backend.outlier.ejected_for(now_ns))
            elif backend.breaker is not None and not backend.breaker.closed():
                waits.append(backend.breaker.retry_after())
        if waits:
            what = "ejected, or its circuit breaker is open" if ejected else "behind an open circuit breaker"
            return (
                Failure.BREAKER_OPEN,
                f"Every usable backend of pool {self.name} is {what}.",
                max(1, -int(-min(waits) // 1)),
            )
        reasons = {backend.why_not() for backend in self.backends}
        return Failure.NO_BACKEND, f"No backend of pool {self.name} is usable: {'; '.join(sorted(reasons)[:3])}.", 0

    def preview(self, key: int) -> LiveBackend | None:
        """What a hashing balancer would propose for this key, without counting anything; None for the others, whose
        next pick depends on the worker, on chance or on the moment."""
        return self._balancer.pick(key) if self.needs_key and key else None


def _takes_panic(backend: LiveBackend) -> bool:
    """Whether it takes work while health is ignored (panicThreshold)."""
    return not backend.draining and backend.weight > 0 and bool(backend.endpoints)
