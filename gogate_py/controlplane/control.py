"""Control: the control plane's one object. Owns configuration, registry and what is known of backends, and turns every
change of them into a snapshot or a state change for the workers.

What changes who is in a pool, or where it is, makes a new snapshot; all such changes within DEBOUNCE make one
(SECURITY.md F16). What changes only whether a backend takes work (health, draining) goes out as a state change.

Verbs are synchronous and called from the admin API in the supervisor's loop; nothing here waits for workers.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from attrs import frozen

from gogate_py.addresses import Address
from gogate_py.arena import BACKEND_ROWS
from gogate_py.clock import monotonic, wall
from gogate_py.config import schema
from gogate_py.config.schema import Config
from gogate_py.config.store_values import store_path
from gogate_py.controlplane.compiler import (
    ListenerIds,
    Member,
    compile_snapshot,
    default_listener_id,
    joins,
    limit_identities,
    members,
)
from gogate_py.controlplane.key_sets import KeySetFetcher, KeySetStatus
from gogate_py.controlplane.leases import Leases
from gogate_py.controlplane.member_states import MemberStates
from gogate_py.controlplane.overrides import Override, Overrides
from gogate_py.controlplane.publisher import Publisher
from gogate_py.controlplane.registry import Registration, Registry, RegistryFull
from gogate_py.controlplane.registry_rules import AddressRules
from gogate_py.controlplane.resolver import Lookup, is_local
from gogate_py.controlplane.rows import Key, LimitRows, Rows, RowsExhausted
from gogate_py.controlplane.saved_state import SavedState
from gogate_py.controlplane.service_watch import ServiceWatch
from gogate_py.controlplane.state_file import StateFile
from gogate_py.controlplane.state_keeper import StateKeeper
from gogate_py.controlplane.state_transfer import collect, take_back
from gogate_py.errors import StartError
from gogate_py.policy.eligibility import SnapshotMember, eligible
from gogate_py.policy.health_state import NOT_PROBED
from gogate_py.policy.lease_state import PASSING
from gogate_py.snapshot import BackendState

__all__ = ["BackendView", "Control"]

log = logging.getLogger("gogate.control")

#: Changes of membership within this many seconds make one snapshot, changes of health within STATE_DELAY one message.
#: A snapshot of 10 000 backends takes some 100 ms to make: a storm may cost a fifth of the time, and wait MAX_DEBOUNCE.
DEBOUNCE: Final = 0.02
MAX_DEBOUNCE: Final = 0.5
_SHARE: Final = 4.0
STATE_DELAY: Final = 0.01
#: How long a start waits for the names of its backends, so that the first requests find them resolved.
FIRST_LOOKUP: Final = 0.5
#: After more backends than rows: the next try (rows of backends that left come free when every worker knows it).
_ROWS_RETRY: Final = 1.0


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


@frozen
class ArmView:
    """One arm of a route's split as the admin API shows it."""

    pool: str
    weight: int
    configured_weight: int
    canary: bool
    override: Override | None


#: Counts one event: metric, labels.
Count = Callable[[str, tuple[str, ...]], None]


class Control:
    """Intent and its consequences. ``own_addresses``: what this gateway listens on; ``reset_row`` and
    ``reset_limit``: see rows."""

    def __init__(
        self,
        config: Config,
        *,
        publisher: Publisher,
        workers: int,
        own_addresses: Iterable[Address] = (),
        reset_row: Callable[[int], None] = lambda row: None,
        reset_limit: Callable[[int], None] = lambda row: None,
        count: Count = lambda name, labels: None,
        lookup: Lookup | None = None,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self.config = config
        #: Set and cleared by the supervisor; readiness depends on it (and on draining).
        self.starting = True
        self._draining = False
        self._publisher = publisher
        self._workers = workers
        self._count = count
        self._now = now
        self._listener_id: ListenerIds = default_listener_id
        settings = config.server.registry
        rules = AddressRules(settings.allow_cidrs, own_addresses, is_local)
        #: What happens in the registry, for those who wait for it.
        self.watch = ServiceWatch(wall)
        self._leases = Leases(
            lambda: self._registry, self.watch, answers=self._answers, changed=self._later_saved, count=count, now=now)
        self._registry = Registry(
            rules, default_ttl=settings.default_ttl, max_services=settings.max_services, clock=now, wall=wall,
            on_return=self._leases.returned, on_forget=self._leases.forgotten,
        )
        self._rows: Rows[Key] = Rows(reset_row)
        self._limit_rows = LimitRows(reset_limit)
        self._limits = limit_identities(config)
        self._overrides = Overrides(wall)
        # What cookies are signed with: of this run, unless a route names a secret of its own.
        self._secret = secrets.token_bytes(32)
        self._states = MemberStates(
            refusal=rules.refusal,
            lookup=lookup,
            now=now,
            on_moved=self._later,
            on_health=lambda keys: self._health_changed(),
            on_probe=self._probed,
        )
        self._key_sets = KeySetFetcher(publisher.publish_keys, now=now)
        publisher.key_sets = self._key_sets.current
        path = store_path(settings.store)
        self._keeper = StateKeeper(
            StateFile(path), self.saved_state, lambda result: count("gogate_registry_saves_total", (result,))
        ) if path else None
        self._pools = config.effective_pools()
        self._members: dict[Key, Member] = {}
        # --- what the workers were told last
        self._told: dict[Key, BackendState] = {}
        self._key_of_row: dict[int, Key] = {}
        # --- what is still to be done
        self._recompiling: asyncio.TimerHandle | None = None
        self._telling: asyncio.TimerHandle | None = None
        self._joins_to_come = 0
        self._debounce = DEBOUNCE
        self._cleaner: asyncio.Task[None] | None = None

    @property
    def generation(self) -> int:
        """Number of the snapshot that is served."""
        return self._publisher.generation

    async def start(self) -> None:
        """Begin to resolve and probe, and publish the first snapshot. Raises StartError."""
        if self._keeper is not None and (saved := await self._keeper.load()) is not None:
            self.take_back(saved)
        self._update_members()
        self._key_sets.watch(_jwks_urls(self.config))
        await asyncio.gather(self._states.settle(FIRST_LOOKUP), self._key_sets.settle(FIRST_LOOKUP))
        try:
            self._compile()
        except RowsExhausted as error:
            await asyncio.gather(self._states.stop(), self._key_sets.stop())
            raise StartError(str(error)) from None
        self._cleaner = asyncio.get_running_loop().create_task(
            self._leases.keep_sweeping(lambda: self.config.server.registry.cleanup_interval))

    async def stop(self) -> None:
        """End everything that runs."""
        for timer in (self._recompiling, self._telling):
            if timer is not None:
                timer.cancel()
        if self._cleaner is not None:
            self._cleaner.cancel()
            await asyncio.gather(self._cleaner, return_exceptions=True)
        self.watch.close()
        if self._keeper is not None:
            await self._keeper.stop()
        await asyncio.gather(self._states.stop(), self._key_sets.stop())

    @property
    def draining(self) -> bool:
        """Whether the gateway drains: it is not ready then, and nobody may wait for news of the registry."""
        return self._draining

    @draining.setter
    def draining(self, value: bool) -> None:
        self._draining = value
        if value:
            self.watch.close()

    # --- what survives this process

    def saved_state(self) -> SavedState:
        """What another gateway needs to go on from here: instances, overrides, drains, who is down."""
        return collect(self._registry, self._overrides, self._states)

    def take_back(self, saved: SavedState) -> None:
        """Go on from there; before :meth:`start` has compiled anything."""
        for one in take_back(saved, self._registry, self._overrides, self._states, self.routes()):
            log.warning("not taken back from the registry's store", extra={"error": one})

    def _save_later(self) -> None:
        if self._keeper is not None:
            self._keeper.changed()

    # --- another configuration

    async def reload(
        self,
        config: Config,
        own_addresses: Iterable[Address],
        listener_id: ListenerIds,
        on_certain: Callable[[], None] = lambda: None,
    ) -> int:
        """Serve another configuration: look up its names first, then one new snapshot; → its generation.

        What is the same keeps its state: backends by (pool, address) their health and row, limits by their identity,
        registrations, drains and overrides. Raises RowsExhausted; then nothing has changed. ``on_certain`` is called
        when nothing can go wrong any more, before the workers are told.
        """
        settings = config.server.registry
        rules = AddressRules(settings.allow_cidrs, own_addresses, is_local)
        try:
            self._states.look_ahead(self._members_of(config).values(), rules.refusal)
            self._key_sets.watch(_jwks_urls(self.config) | _jwks_urls(config))
            await asyncio.gather(self._states.settle(FIRST_LOOKUP), self._key_sets.settle(FIRST_LOOKUP))
            acknowledged = self._publisher.acknowledged()
            self._rows.check(self._members_of(config), acknowledged)
            self._limit_rows.check(limit_identities(config), acknowledged)
        except BaseException:
            self._states.look_ahead((), self._registry.rules.refusal)
            self._key_sets.watch(_jwks_urls(self.config))
            raise
        on_certain()
        self.config, self._pools, self._listener_id = config, config.effective_pools(), listener_id
        self._limits = limit_identities(config)
        self._registry.rules = rules
        self._registry.default_ttl, self._registry.max_services = settings.default_ttl, settings.max_services
        self._recompile()
        self._states.look_ahead((), rules.refusal)  # they are watched as members now
        return self.generation

    def reloaded(self) -> None:
        """Every worker serves the new configuration: let go of what only the old one needed."""
        self._key_sets.watch(_jwks_urls(self.config))

    # --- keys of signed tokens

    def unknown_key(self, url: str) -> None:
        """A worker met a token signed with a key that this jwksUrl did not have."""
        self._key_sets.unknown(url)

    def key_sets(self) -> list[KeySetStatus]:
        """Every jwksUrl and what is known of it."""
        return self._key_sets.status()

    # --- changes of membership and place: a new snapshot

    def _later(self, delay: float | None = None) -> None:
        """Make a new snapshot soon, together with whatever else changes until then."""
        if self._recompiling is None and self._publisher.snapshot is not None:  # the first one is still to come anyway
            wait = self._debounce if delay is None else delay
            self._recompiling = asyncio.get_running_loop().call_later(wait, self._recompile)

    def _recompile(self) -> None:
        if self._recompiling is not None:
            self._recompiling.cancel()
            self._recompiling = None
        begun = monotonic()
        self._update_members()
        try:
            self._compile()
        except RowsExhausted as error:
            # Those who left go at once, new ones come when the workers know it and their rows are free.
            log.error("not all backends can be served yet", extra={"error": str(error)})
            self._members = {key: one for key, one in self._members.items() if self._rows.get(key) is not None}
            self._compile()
            self._later(_ROWS_RETRY)
        self._debounce = min(MAX_DEBOUNCE, max(DEBOUNCE, _SHARE * (monotonic() - begun)))

    def _catch_up(self) -> None:
        """Whoever asks sees what was changed just now."""
        if self._recompiling is not None:
            self._recompile()

    def _update_members(self) -> None:
        """Who is in which pool now; resolver and prober follow."""
        instances, everybody = self._registry.in_rotation(), self._registry.all()
        self._members = self._members_of(self.config)
        self._joins_to_come = 0
        absent = [
            (name, one.address)
            for one in (everybody if len(everybody) > len(instances) else ())
            if not one.in_rotation
            for name in self.pools_of(one)
        ]
        self._states.update(self._members, self._pools, absent)

    def _members_of(self, config: Config) -> dict[Key, Member]:
        """Who is in the pools of a configuration, with the instances that are registered now."""
        found = members(config, self._registry.in_rotation())
        return {member.key: member for pool in found.values() for member in pool}

    def _compile(self) -> None:
        publisher = self._publisher
        generation = publisher.generation + 1
        acknowledged = publisher.acknowledged()
        self._limit_rows.assign(self._limits, generation, acknowledged)
        rows = self._rows.assign(self._members, generation, acknowledged)
        by_pool: dict[str, list[Member]] = {name: [] for name in self._pools}
        for member in self._members.values():
            by_pool[member.pool].append(member)
        states = self._states
        snapshot = compile_snapshot(
            self.config,
            by_pool,
            rows,
            states.endpoints,
            states.state,
            generation,
            self._workers,
            self._overrides,
            self._limit_rows,
            self._secret,
            self._listener_id,
        )
        before, self._told = self._told, {key: states.state(one, rows[key]) for key, one in self._members.items()}
        self._key_of_row = {row: key for key, row in rows.items()}
        publisher.publish(snapshot)
        for key, state in self._told.items():
            self._note(key, before.get(key), state)

    def _later_saved(self) -> None:
        self._save_later()
        self._later(0)

    # --- changes of health and draining: a state change

    def _health_changed(self) -> None:
        self._states_later()
        self._save_later()

    def _states_later(self) -> None:
        if self._telling is None and self._publisher.snapshot is not None:
            self._telling = asyncio.get_running_loop().call_later(STATE_DELAY, self._tell_states)

    def _tell_states(self) -> None:
        """Tell the workers which backends are in another state than they know."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        changes = []
        for key, told in list(self._told.items()):
            member = self._members.get(key)
            if member is None:
                continue  # it leaves with the next snapshot
            state = self._states.state(member, told.row)
            if state != told:
                changes.append(state)
                self._told[key] = state
                self._note(key, told, state)
        if changes:
            self._publisher.publish_states(changes)

    def _note(self, key: Key, before: BackendState | None, after: BackendState) -> None:
        """Log and count a change between up and down; a new backend counts as one that was up."""
        if (before is None or before.up) == after.up:
            return
        pool, address = key
        if before is not None:
            self._count("gogate_health_transitions_total", (pool, address, "up" if after.up else "down"))
        if after.up:
            log.info("backend is up", extra={"pool": pool, "backend": address})
        elif after.reason == NOT_PROBED:  # initialState: down, as asked for
            log.info("backend waits for its first probes", extra={"pool": pool, "backend": address})
        else:
            log.warning("backend is down", extra={"pool": pool, "backend": address, "error": after.reason})

    def _probed(self, keys: Iterable[Key], ok: bool) -> None:
        for pool, address in keys:
            self._count("gogate_health_probes_total", (pool, address, "success" if ok else "failure"))

    def unreachable(self, row: int, error: str) -> None:
        """A worker could not connect to the backend of this row: look again soon, at its name and at itself."""
        key = self._key_of_row.get(row)
        member = self._members.get(key) if key is not None else None
        if member is not None:
            log.debug("backend unreachable", extra={"backend": member.text, "error": error})
            self._states.unreachable(member)

    # --- leases

    def _answers(self, instance: Registration) -> bool | None:
        """What active probes say of an instance: healthy in some pool, in none; None: nothing."""
        said = [self._states.answers((pool, instance.address)) for pool in self.pools_of(instance)]
        known = [one for one in said if one is not None]
        return any(known) if known else None

    def expire(self) -> None:
        """Judge the leases that have ended, now."""
        self._leases.sweep()

    def preserved(self) -> dict[str, int]:
        """Services that are preserved, by name, and how many of their instances are kept so."""
        return self._registry.preserved()

    def stale_names(self) -> dict[str, bool]:
        """Every name of a backend, and whether only an older answer than the last is known for it."""
        return self._states.stale_names()

    # --- for the admin API: backends

    def rows_in_use(self) -> list[int]:
        """Arena rows that may hold something."""
        return self._rows.in_use()

    def backends(self) -> list[BackendView]:
        """Every backend of every pool."""
        self._catch_up()
        return [self._view(self._members[key], told.row) for key, told in self._told.items() if key in self._members]

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
        )

    def drain(self, identity: str, pool: str | None = None) -> list[BackendView]:
        """Give a backend no new work; what runs goes on. By registration id or address; → what it was, [] = unknown."""
        return self._set_drained(identity, pool, drained=True)

    def undrain(self, identity: str, pool: str | None = None) -> list[BackendView]:
        """Give it work again."""
        return self._set_drained(identity, pool, drained=False)

    def _set_drained(self, identity: str, pool: str | None, *, drained: bool) -> list[BackendView]:
        touched = self._named(identity, pool)
        self._states.set_drained(touched, drained)
        self._save_later()
        self._tell_states()
        for name, address in sorted(touched):
            log.info(
                "backend is draining" if drained else "backend takes work again",
                extra={"pool": name, "backend": address},
            )
        return self._views(touched)

    def _named(self, identity: str, pool: str | None) -> set[Key]:
        """The backends with this registration id or address, in one pool or in all."""
        self._catch_up()
        return {
            key
            for key, member in self._members.items()
            if (pool is None or member.pool == pool) and (identity == member.text or identity in member.ids)
        }

    def _views(self, keys: set[Key]) -> list[BackendView]:
        return [self._view(self._members[key], told.row) for key, told in self._told.items() if key in keys]

    def set_weight(self, identity: str, pool: str | None, weight: int | None) -> list[BackendView]:
        """Override a backend's weight (None: back to the configured one); → what it is now, [] = unknown."""
        touched = self._named(identity, pool)
        for key in sorted(touched):
            self._overrides.set_weight(key, weight)
            log.info("weight is overridden" if weight is not None else "weight is as configured",
                     extra={"pool": key[0], "backend": key[1], "weight": weight})
        if touched:
            self._save_later()
            self._recompile()
        return self._views(touched)

    def overrides(self) -> tuple[list[tuple[Key, Override]], list[tuple[str, str, Override]]]:
        """Overridden weights of backends, and of arms of splits."""
        return self._overrides.weights(), self._overrides.splits()

    def drained(self) -> list[Key]:
        """Backends that were drained by hand."""
        return sorted(self._states.drained())

    # --- for the admin API: routes

    def routes(self) -> tuple[schema.Route, ...]:
        """Every route, those of the short form included."""
        return self.config.effective_routes()

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
        self._save_later()
        self._recompile()
        arms = self.split(route)
        log.info("split is overridden" if weights is not None else "split is as configured",
                 extra={"route": route.name, "weights": {arm.pool: arm.weight for arm in arms}})
        return arms

    def panics(self) -> dict[str, bool]:
        """Every pool and whether so few of its backends are healthy that health is ignored."""
        snapshot = self._publisher.snapshot
        if snapshot is None:
            return {}
        return {
            pool.name: eligible(map(SnapshotMember, pool.backends), pool.panic_threshold).panic
            for pool in snapshot.pools
        }

    def readiness(self) -> tuple[bool, list[str]]:
        """Whether new traffic is welcome, else why not (DESIGN.md section 6). A gateway without backends is ready."""
        if self.starting:
            return False, ["starting"]
        if self.draining:
            return False, ["draining"]
        views = self.backends()
        if not views or any(view.healthy and not view.draining and view.weight for view in views):
            return True, []
        return False, [f"pool {name} has no usable backend" for name in sorted({view.pool for view in views})]

    def warnings(self) -> list[str]:
        """What an operator should know though new traffic is welcome."""
        said = self._keeper.warnings() if self._keeper is not None else []
        return [*said, *(
            f"service {name} is preserved: {count} silent instances are kept" for name, count in
            self.preserved().items())]

    # --- for the admin API: registry

    def register(self, body: dict[str, object]) -> tuple[Registration, bool]:
        """Register or update an instance; → (it, whether it is new).

        Raises registry.RegistrationError, registry_rules.AddressForbidden, registry.RegistryFull.
        """
        before = self._registry.get(given) if isinstance(given := body.get("id"), str) else None
        instance, created = self._registry.register(body)
        same = before is not None and before.routes_like(instance)
        self._save_later()
        if before is not None and same and before.in_rotation:
            if before.state != PASSING:
                self._leases.returned(instance)
            return instance, False  # the same again: only the lease and the metadata are new
        coming = len(self.pools_of(instance))
        if len(self._members) + self._joins_to_come + coming > BACKEND_ROWS:
            self._registry.restore(instance.id, before)
            raise RegistryFull(f"there is no room for more than {BACKEND_ROWS} backends in all pools")
        self._joins_to_come += coming
        self._leases.tell("registered" if created else "passing" if same else "updated", instance)
        self._later()
        return instance, created

    def heartbeat(self, identity: str) -> bool:
        """Renew a lease; False for an unknown id. Changes nothing else: 5 000 a second are fine."""
        return self._registry.heartbeat(identity)

    def deregister(self, identity: str) -> bool:
        """Take an instance out; False for an unknown id."""
        gone = self._registry.deregister(identity)
        if gone is None:
            return False
        self._leases.tell("deregistered", gone)
        self._save_later()
        self._later()
        return True

    def registration(self, identity: str) -> Registration | None:
        """One instance by id."""
        return self._registry.get(identity)

    def registrations(self, name: str | None = None, tag: str | None = None) -> list[Registration]:
        """Instances, of one service and with one tag where given."""
        return self._registry.all(name, tag)

    def pools_of(self, registration: Registration) -> list[str]:
        """The pools that an instance joins; none: it is unrouted."""
        return [name for name, pool in self._pools.items() if joins(self.config, pool, registration)]


def _jwks_urls(config: Config) -> set[str]:
    """Every jwksUrl that a route checks tokens with."""
    auths = [config.server.auth, *(route.auth for route in config.routes)]
    return {auth.jwks_url for auth in auths if auth is not None and auth.type == "jwt" and auth.jwks_url}
