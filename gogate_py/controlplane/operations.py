"""Operations: what operators do to backends and splits at run time — drain, weights — and how both are shown with it.

It is kept apart from the configuration (overrides, member_states), and what changes goes out at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from attrs import frozen

from gogate_py.config import schema
from gogate_py.config.schema import Config
from gogate_py.controlplane.compiler import Member
from gogate_py.controlplane.member_states import MemberStates
from gogate_py.controlplane.membership import Membership
from gogate_py.controlplane.overrides import Override, Overrides
from gogate_py.controlplane.rows import Key

log = logging.getLogger("gogate.control")


@frozen
class BackendView:
    """One backend of one pool as the admin API shows it. ``id`` is the registration's, else the address."""

    id: str
    addr: str
    pool: str
    origin: str  # file | registry
    weight: int
    healthy: bool
    draining: bool
    last_error: str
    row: int
    registration_ids: tuple[str, ...]
    configured_weight: int
    weight_override: Override | None = None
    backup: bool = False
    warming_since: float = 0.0
    drain_left: float | None = None  # seconds until what runs there is cut


@frozen
class ArmView:
    """One arm of a route's split as the admin API shows it."""

    pool: str
    weight: int
    configured_weight: int
    canary: bool
    override: Override | None


class Operations:
    """``changed``: something is to be saved; ``wall`` tells the time, for people."""

    def __init__(
        self,
        membership: Membership,
        overrides: Overrides,
        states: MemberStates,
        changed: Callable[[], None],
        wall: Callable[[], float],
    ) -> None:
        self._membership = membership
        self._overrides = overrides
        self._states = states
        self._changed = changed
        self._wall = wall

    # --- backends

    def backends(self) -> list[BackendView]:
        """Every backend of every pool."""
        return [self._view(member, row) for member, row in self._membership.current()]

    def _views(self, keys: set[Key]) -> list[BackendView]:
        return [self._view(member, row) for member, row in self._membership.current() if member.key in keys]

    def _view(self, member: Member, row: int) -> BackendView:
        state = self._states.state(member, row)
        override = self._overrides.weight(member.key)
        return BackendView(
            id=member.ids[0] if member.ids and not member.from_file else member.text,
            addr=member.text,
            pool=member.pool,
            origin="file" if member.from_file else "registry",
            weight=member.weight if override is None else override.value,
            healthy=state.up,
            draining=state.draining,
            last_error=self._states.last_error(member),
            row=row,
            registration_ids=member.ids,
            configured_weight=member.weight,
            weight_override=override,
            backup=member.backup,
            warming_since=state.warming_since,
            drain_left=self._states.drain_left(member.key),
        )

    def drain(self, identity: str, pool: str | None, within: float | None) -> list[BackendView]:
        """Give a backend no new work; what runs there after ``within`` seconds (None: ever) is cut. → what it is now,
        [] = unknown. The last word counts: again without ``within`` takes an end back."""
        touched = self._membership.named(identity, pool)
        self._states.drain(touched, within, self._wall())
        for name, address in sorted(touched):
            log.info("backend is draining", extra={
                "pool": name, "backend": address, **({} if within is None else {"cut_in_s": within})})
        return self._drains_changed(touched)

    def undrain(self, identity: str, pool: str | None) -> list[BackendView]:
        """Give it work again."""
        touched = self._membership.named(identity, pool)
        self._states.undrain(touched)
        for name, address in sorted(touched):
            log.info("backend takes work again", extra={"pool": name, "backend": address})
        return self._drains_changed(touched)

    def _drains_changed(self, touched: set[Key]) -> list[BackendView]:
        if touched:
            self._changed()
            self._membership.tell_states()
        return self._views(touched)

    def set_weight(self, identity: str, pool: str | None, weight: int | None) -> list[BackendView]:
        """Override a backend's weight (None: back to the configured one); → what it is now, [] = unknown."""
        touched = self._membership.named(identity, pool)
        for key in sorted(touched):
            self._overrides.set_weight(key, weight)
            log.info("weight is overridden" if weight is not None else "weight is as configured",
                     extra={"pool": key[0], "backend": key[1], "weight": weight})
        if touched:
            self._changed()
            self._membership.recompile()
        return self._views(touched)

    def drained(self) -> list[tuple[Key, float, float | None]]:
        """Backends that were drained by hand, since when (seconds since 1970), and for how many seconds what runs there
        may go on (None: without end)."""
        return [(key, since, self._states.drain_left(key)) for key, since in sorted(self._states.drained().items())]

    def in_force(self, config: Config) -> tuple[str, ...]:
        """What stays as operators said though this configuration says otherwise, in words."""
        members = self._membership.members_of(config)
        said = [
            f"weight of {address} in pool {pool} stays {override.value}, not {member.weight}"
            for (pool, address), override in self._overrides.weights()
            if (member := members.get((pool, address))) is not None and member.weight != override.value
        ]
        arms = {(route.name, arm.pool): arm.weight for route in config.effective_routes() for arm in route.split}
        said += [
            f"weight of {pool} in route {route} stays {override.value}, not {arms[route, pool]}"
            for route, pool, override in self._overrides.splits()
            if arms.get((route, pool), override.value) != override.value
        ]
        drained = sorted(self._states.drained().keys() & members.keys())
        return (*said, *(f"{address} in pool {pool} stays drained" for pool, address in drained))

    # --- splits

    def split(self, route: schema.Route) -> list[ArmView]:
        """The arms of a route with the weights in force."""
        overridden = self._overrides.split(route.name)
        arms = []
        for arm in route.split:
            override = overridden.get(arm.pool)
            weight = arm.weight if override is None else override.value
            arms.append(ArmView(arm.pool, weight, arm.weight, arm.canary, override))
        return arms

    def set_split(self, route: schema.Route, weights: Mapping[str, int] | None) -> list[ArmView]:
        """Override weights of a route's arms, by pool (None: all back to the configured ones)."""
        self._overrides.set_split(route.name, weights)
        self._changed()
        self._membership.recompile()
        arms = self.split(route)
        log.info("split is overridden" if weights is not None else "split is as configured",
                 extra={"route": route.name, "weights": {arm.pool: arm.weight for arm in arms}})
        return arms
