"""Member states: what is known of every backend of every pool: where it is, whether it is up, whether it is drained.

Owns resolver and prober and asks them; keeps the drains. What a member's state becomes of this is decided here and
nowhere else:

    its name has no usable address     down, with that reason, whatever its health was
    the pool's health is off           up
    probed                             as the prober says, with its last error as the reason
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from gogate_py.backend_tls import TlsClient
from gogate_py.config.schema import Pool
from gogate_py.controlplane.compiler import Endpoints, Member, backend_tls
from gogate_py.controlplane.prober import Prober, ProbeSettings, Target
from gogate_py.controlplane.resolver import Lookup, Periods, Refusal, Resolution, Resolver, Watched
from gogate_py.controlplane.rows import Key
from gogate_py.policy.health_state import NOT_PROBED
from gogate_py.snapshot import BackendState


class Drained(NamedTuple):
    """That a backend is drained: since when (seconds since 1970, for people), and when what runs there is cut
    (monotonic seconds; 0: never)."""

    since: float
    by: float = 0.0


class MemberStates:
    """``on_moved``: endpoints or reasons changed; ``on_health``: the health of these backends changed; ``on_probe``: a
    probe of these backends was good or not. ``refusal``: see resolver."""

    def __init__(
        self,
        *,
        refusal: Refusal,
        lookup: Lookup | None,
        now: Callable[[], float],
        on_moved: Callable[[], None],
        on_health: Callable[[Iterable[Key]], None],
        on_probe: Callable[[Iterable[Key], bool], None],
    ) -> None:
        self._refusal = refusal
        self._on_moved = on_moved
        self._on_health = on_health
        self._now = now
        self._slow_start: dict[str, float] = {}
        self._known: set[Key] = set()
        # addresses to be resolved: of the backends, and of those that a reload is about to bring
        self._watched: frozenset[Watched] = frozenset()
        self._ahead: frozenset[Watched] = frozenset()
        self._periods: dict[str, Periods] = {}
        # since when those warm up that came to a pool with others in it, or came back to health (slowStart)
        self._warming: dict[Key, float] = {}
        self._resolver = Resolver(self._moved, lookup, now)
        self._prober = Prober(
            self._endpoints_of,
            self._health_changed,
            lambda target, ok: on_probe(self._sharing.get(target, ()), ok),
        )
        self._targets: dict[Key, Target] = {}
        # the backends that a probe of a target speaks for
        self._sharing: dict[Target, list[Key]] = {}
        self._drained: dict[Key, Drained] = {}
        # who was down when it was last known, and why, or ("") up: from a gateway before this one
        self._recalled: dict[Key, str] = {}

    def recall(self, drained: Mapping[Key, float], down: Mapping[Key, str]) -> None:
        """What a gateway before this one knew; before the first :meth:`update`, which takes it over."""
        self._drained.update({key: Drained(since) for key, since in drained.items()})
        self._recalled.update(down)

    def take_over(
        self,
        up: Iterable[Key],
        warming: Mapping[Key, float],
        drains: Mapping[Key, float],
        names: Mapping[str, tuple[tuple[str, ...], float]],
    ) -> None:
        """What a running gateway knows besides: who is up, who warms up since when, by when drains end, the addresses
        of names. After :meth:`recall`, which says who is drained."""
        self._recalled.update(dict.fromkeys(up, ""))
        self._warming.update(warming)
        for key, by in drains.items():
            if key in self._drained:
                self._drained[key] = self._drained[key]._replace(by=by)
        self._resolver.recall(names)

    def names(self) -> dict[str, tuple[tuple[str, ...], float]]:
        """The names that have addresses: these, and when they were good."""
        return self._resolver.known()

    def drains(self) -> dict[Key, float]:
        """Backends that are drained, and by when (0: whenever what runs has ended)."""
        return {key: one.by for key, one in self._drained.items()}

    def warming(self) -> dict[Key, float]:
        """Backends that may be in their slow start, and since when."""
        return dict(self._warming)

    def update(
        self, everyone: Mapping[Key, Member], pools: Mapping[str, Pool], absent: Iterable[Key] = ()
    ) -> None:
        """These are the backends from now on; those that stay keep all that is known of them, and those that are
        ``absent`` for a while their drains."""
        stay = everyone.keys() | set(absent)
        self._drained = {key: one for key, one in self._drained.items() if key in stay}
        self._slow_start = {name: pool.slow_start for name, pool in pools.items() if pool.slow_start}
        # Not at the start, and not when the whole pool is new: nobody would be left to take the work meanwhile.
        served = {pool for pool, _ in self._known}
        for key in everyone.keys() - self._known:
            if key[0] in served:
                self._warming[key] = self._now()
        self._known = set(everyone)
        self._warming = {key: since for key, since in self._warming.items() if key in everyone}
        settings = {name: ProbeSettings.of(pool.health) for name, pool in pools.items() if pool.health.enabled}
        self._targets = {
            key: Target(
                member.address,
                not member.from_file,
                settings[member.pool],
                TlsClient(backend_tls(pools[member.pool].backend_tls), member.tls_name) if member.tls_name else None,
            )
            for key, member in everyone.items()
            if member.pool in settings
        }
        self._sharing = {}
        for key, target in self._targets.items():
            self._sharing.setdefault(target, []).append(key)
        # Endpoints first: the first probe of a new target comes at once.
        self._watched = frozenset((one.address, not one.from_file) for one in everyone.values())
        self._periods = _periods(everyone, pools)
        self._watch_names()
        self._prober.watch(self._sharing)
        for key, error in self._recalled.items():
            if key in self._targets:
                self._prober.recall(self._targets[key], error)
        self._recalled = {}

    def look_ahead(self, everyone: Iterable[Member], refusal: Refusal) -> None:
        """These will be the backends soon: ask for their names already, beside those of today. What is registered is
        judged by these rules from now on."""
        self._refusal = refusal
        self._ahead = frozenset((one.address, not one.from_file) for one in everyone)
        self._watch_names()

    def _watch_names(self) -> None:
        self._resolver.watch(self._ahead | self._watched, self._refusal, self._periods)

    async def settle(self, limit: float) -> None:
        """Wait until every name was answered for once, at most ``limit`` seconds."""
        await self._resolver.settle(limit)

    async def stop(self) -> None:
        """End all probes and questions."""
        await asyncio.gather(self._prober.stop(), self._resolver.stop())

    # --- what is known

    def endpoints(self, member: Member) -> Endpoints:
        """Where to connect to, in order; empty while nothing is known."""
        return self._resolution(member).endpoints

    def state(self, member: Member, row: int) -> BackendState:
        """The state of a member for the workers."""
        resolution = self._resolution(member)
        drained = self._drained.get(member.key)
        draining, drain_by = drained is not None, drained.by if drained is not None else 0.0
        if not resolution.endpoints:
            return BackendState(row, False, draining, resolution.error, 0.0, drain_by)
        target = self._targets.get(member.key)
        health = self._prober.state(target) if target is not None else None
        if health is None or health.up:
            return BackendState(row, True, draining, "", self._warming_since(member.key), drain_by)
        return BackendState(row, False, draining, health.last_error, 0.0, drain_by)

    def answers(self, key: Key) -> bool | None:
        """Whether probes call a backend healthy; None when it has none."""
        target = self._targets.get(key)
        health = self._prober.state(target) if target is not None else None
        return health.up if health is not None else None

    def drained(self) -> dict[Key, float]:
        """Every backend that is drained, and since when (seconds since 1970, for people)."""
        return {key: one.since for key, one in self._drained.items()}

    def drain_left(self, key: Key) -> float | None:
        """Seconds until the drain of a backend ends; None when it is not drained, or without end."""
        drained = self._drained.get(key)
        return max(0.0, drained.by - self._now()) if drained is not None and drained.by else None

    def down(self) -> dict[Key, str]:
        """Every backend that probes found down, and why."""
        found = {}
        for key, target in self._targets.items():
            health = self._prober.state(target)
            if health is not None and not health.up and health.last_error != NOT_PROBED:
                found[key] = health.last_error
        return found

    def up(self) -> list[Key]:
        """Every backend that probes found well."""
        found = []
        for key, target in self._targets.items():
            health = self._prober.state(target)
            if health is not None and health.up:
                found.append(key)
        return found

    def stale_names(self) -> dict[str, bool]:
        """Every name of a backend, and whether only an older answer than the last is known for it."""
        return self._resolver.stale()

    def _warming_since(self, key: Key) -> float:
        """When its slow start began; 0 when it is over, or there is none."""
        window = self._slow_start.get(key[0], 0.0)
        since = self._warming.get(key, 0.0)
        return since if window and self._now() - since < window else 0.0

    def last_error(self, member: Member) -> str:
        """The last failure, also of a backend that is still up; "" when there is none."""
        target = self._targets.get(member.key)
        health = self._prober.state(target) if target is not None else None
        resolution = self._resolution(member)
        if not resolution.endpoints:
            return resolution.error
        return (health.last_error if health is not None else "") or resolution.error

    def _resolution(self, member: Member) -> Resolution:
        return self._resolver.get(member.address, not member.from_file)

    def _endpoints_of(self, target: Target) -> Endpoints:
        return self._resolver.get(target.address, target.registered).endpoints

    # --- what happens

    def _health_changed(self, target: Target) -> None:
        keys = self._sharing.get(target, ())
        health = self._prober.state(target)
        if health is not None and health.up:
            for key in keys:
                self._warming[key] = self._now()
        self._on_health(keys)

    def _moved(self) -> None:
        for target in self._sharing:
            # Whoever could not be probed before can be now; the prober itself sees who needs it.
            if self._endpoints_of(target):
                self._prober.arrived(target)
        self._on_moved()

    def unreachable(self, member: Member) -> None:
        """A worker could not connect: look soon, at the name and at the backend."""
        self._resolver.hurry(member.address)
        target = self._targets.get(member.key)
        if target is not None:
            self._prober.hurry(target)

    def drain(self, keys: set[Key], within: float | None, since: float) -> None:
        """These backends get no new work; what runs has ``within`` seconds to end, None: as long as it takes.
        ``since``: seconds since 1970; of one that is drained already the moment stays."""
        by = 0.0 if within is None else self._now() + within
        for key in keys:
            before = self._drained.get(key)
            self._drained[key] = Drained(since if before is None else before.since, by)

    def undrain(self, keys: set[Key]) -> None:
        """They get work again, and what runs there may stay."""
        for key in keys:
            self._drained.pop(key, None)


def _periods(everyone: Mapping[Key, Member], pools: Mapping[str, Pool]) -> dict[str, Periods]:
    """How each name is asked for; one that stands in several pools as the most eager of them has it."""
    found: dict[str, Periods] = {}
    for member in everyone.values():
        dns, known = pools[member.pool].dns, found.get(member.address.host)
        mine = Periods(dns.refresh, dns.floor, dns.keep_last_good)
        found[member.address.host] = mine if known is None else Periods(
            min(mine.refresh, known.refresh), min(mine.floor, known.floor),
            max(mine.keep_last_good, known.keep_last_good))
    return found
