"""Control: the control plane's one object. Owns configuration, registry and what is known of backends, and puts
together what turns every change of them into a snapshot or a state change for the workers.

    membership   who is in which pool, and what the workers were told of it
    operations   what operators do at run time: drains, weights, splits
    leases       what becomes of registered instances in time

What is left to decide here: how another configuration takes over, whether the gateway is ready, and who may register.

Verbs are synchronous and called from the admin API in the supervisor's loop; nothing here waits for workers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from gogate_py.addresses import Address
from gogate_py.arena import BACKEND_ROWS
from gogate_py.clock import monotonic, wall
from gogate_py.config import schema
from gogate_py.config.schema import Config
from gogate_py.config.store_values import store_path
from gogate_py.controlplane.compiler import ListenerIds, default_listener_id
from gogate_py.controlplane.handed_state import HandedKeys, HandedLease, HandedName, HandedState
from gogate_py.controlplane.key_sets import KeySetFetcher, KeySetStatus
from gogate_py.controlplane.leases import Count, Leases
from gogate_py.controlplane.member_states import MemberStates
from gogate_py.controlplane.membership import Membership
from gogate_py.controlplane.operations import ArmView, BackendView, Operations
from gogate_py.controlplane.overrides import Override, Overrides
from gogate_py.controlplane.publisher import Publisher
from gogate_py.controlplane.registry import Registration, Registry, RegistryFull
from gogate_py.controlplane.registry_rules import AddressRules
from gogate_py.controlplane.resolver import Lookup, is_local
from gogate_py.controlplane.rows import Key, RowsExhausted
from gogate_py.controlplane.saved_state import SavedState
from gogate_py.controlplane.service_watch import ServiceWatch
from gogate_py.controlplane.state_file import StateFile
from gogate_py.controlplane.state_keeper import StateKeeper
from gogate_py.controlplane.state_transfer import collect, take_back
from gogate_py.errors import StartError
from gogate_py.policy.eligibility import SnapshotMember, eligible
from gogate_py.policy.lease_state import PASSING

log = logging.getLogger("gogate.control")

#: How long a start waits for the names of its backends, so that the first requests find them resolved.
FIRST_LOOKUP: Final = 0.5


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
        listener_id: ListenerIds = default_listener_id,
        reset_row: Callable[[int], None] = lambda row: None,
        reset_limit: Callable[[int], None] = lambda row: None,
        count: Count = lambda name, labels: None,
        lookup: Lookup | None = None,
        now: Callable[[], float] = monotonic,
    ) -> None:
        #: Set and cleared by the supervisor; readiness depends on it (and on draining).
        self.starting = True
        self._draining = False
        self._publisher = publisher
        self._count = count
        settings = config.server.registry
        rules = AddressRules(settings.allow_cidrs, own_addresses, is_local)
        #: What happens in the registry, for those who wait for it.
        self.watch = ServiceWatch(wall)
        self._leases = Leases(
            lambda: self._registry, self.watch, answers=self._answers, changed=self._rotation_changed, count=count,
            now=now)
        self._registry = Registry(
            rules, default_ttl=settings.default_ttl, max_services=settings.max_services, clock=now, wall=wall,
            on_return=self._leases.returned, on_forget=self._leases.forgotten,
        )
        self._overrides = Overrides(wall)
        self._states = MemberStates(
            refusal=rules.refusal,
            lookup=lookup,
            now=now,
            on_moved=self._backends_moved,
            on_health=self._health_changed,
            on_probe=self._probed,
        )
        self._membership = Membership(
            config,
            publisher=publisher,
            workers=workers,
            listener_id=listener_id,
            registry=self._registry,
            overrides=self._overrides,
            states=self._states,
            reset_row=reset_row,
            reset_limit=reset_limit,
            count=count,
        )
        self._operations = Operations(self._membership, self._overrides, self._states, self._save_later, wall)
        self._key_sets = KeySetFetcher(publisher.publish_keys, now=now)
        publisher.key_sets = self._key_sets.current
        path = store_path(settings.store)
        self._keeper = StateKeeper(
            StateFile(path), self.saved_state, lambda result: count("gogate_registry_saves_total", (result,))
        ) if path else None
        self._cleaner: asyncio.Task[None] | None = None
        # since when nobody listens to heartbeats, because another gateway takes over, or this one from another
        self._silent_since: float | None = None
        self._now = now

    @property
    def config(self) -> Config:
        """The configuration that is served."""
        return self._membership.config

    @property
    def generation(self) -> int:
        """Number of the snapshot that is served."""
        return self._publisher.generation

    def served(self) -> dict[tuple[str, ...], set[tuple[str, ...]]]:
        """What there is that numbers are kept of (telemetry/totals.OWNERS → names)."""
        snapshot = self._publisher.snapshot
        if snapshot is None:
            return {}
        routes: set[tuple[str, ...]] = {(route.name,) for route in snapshot.http_routes}
        routes.update((route.name,) for listener in snapshot.listeners for route in listener.tcp_routes())
        return {
            ("pool", "backend"): {member.key for member, _ in self._membership.current()},
            ("pool",): {(pool.name,) for pool in snapshot.pools},
            ("route",): routes,
            ("listener",): {(listener.label(),) for listener in snapshot.listeners},
        }

    @property
    def applied(self) -> int:
        """Number of the newest one that every worker serves."""
        return self._publisher.acknowledged()

    async def start(self) -> None:
        """Begin to resolve and probe, and publish the first snapshot. Raises StartError."""
        if self._silent_since is None and self._keeper is not None and (saved := await self._keeper.load()) is not None:
            self.take_back(saved)
        self._membership.update()
        self._key_sets.watch(_jwks_urls(self.config))
        await asyncio.gather(self._states.settle(FIRST_LOOKUP), self._key_sets.settle(FIRST_LOOKUP))
        try:
            self._membership.compile()
        except RowsExhausted as error:
            await asyncio.gather(self._states.stop(), self._key_sets.stop())
            raise StartError(str(error)) from None
        if self._silent_since is None:
            self._sweep()

    def _sweep(self) -> None:
        self._cleaner = asyncio.get_running_loop().create_task(
            self._leases.keep_sweeping(lambda: self.config.server.registry.cleanup_interval))

    async def stop(self) -> None:
        """End everything that runs."""
        self._membership.stop()
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

    def hand_over(self) -> HandedState:
        """What a gateway needs that takes over from this one, which is to hear of no change any more: until
        :meth:`lead`, or for good."""
        if self._cleaner is not None:
            self._cleaner.cancel()
        self._silent_since = self._now()
        states = self._states
        backend_rows, limit_rows, secret = self._membership.hand_over()
        return HandedState(
            generation=self.generation,
            silent_since=self._silent_since,
            saved=self.saved_state(),
            leases=tuple(
                HandedLease(one.id, one.expires_at, one.state, one.changed_at) for one in self._registry.all()),
            holds=self._registry.holds(),
            up=tuple(states.up()),
            warming=tuple(states.warming().items()),
            drains=tuple(states.drains().items()),
            names=tuple(HandedName(host, ips, good_at) for host, (ips, good_at) in states.names().items()),
            keys=tuple(HandedKeys(url, jwks, good_at) for url, (jwks, good_at) in self._key_sets.known().items()),
            secret=secret,
            backend_rows=backend_rows,
            limit_rows=limit_rows,
        )

    def take_over(self, handed: HandedState, *, same_arena: bool) -> None:
        """Go on from there; before :meth:`start`, and :meth:`lead` when the other gateway does nothing any more.
        ``same_arena``: its rows are ours."""
        self.take_back(handed.saved)
        self._registry.take_over(
            ((one.id, one.expires_at, one.state, one.changed_at) for one in handed.leases), handed.holds)
        self._states.take_over(
            handed.up,
            dict(handed.warming),
            dict(handed.drains),
            {one.host: (one.ips, one.good_at) for one in handed.names},
        )
        self._key_sets.recall({one.url: (one.jwks, one.good_at) for one in handed.keys})
        self._membership.take_over(handed, same_arena=same_arena)
        self._silent_since = handed.silent_since

    def lead(self) -> None:
        """From here on this is the only gateway, after a time in which nobody could listen to heartbeats."""
        if self._silent_since is not None:
            self._registry.stalled(max(0.0, self._now() - self._silent_since))
            self._silent_since = None
            self.watch.reopen()
            self._sweep()
            if self._keeper is not None:
                self._keeper.begin()

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
            self._states.look_ahead(self._membership.members_of(config).values(), rules.refusal)
            self._key_sets.watch(_jwks_urls(self.config) | _jwks_urls(config))
            await asyncio.gather(self._states.settle(FIRST_LOOKUP), self._key_sets.settle(FIRST_LOOKUP))
            self._membership.check(config)
        except BaseException:
            self._states.look_ahead((), self._registry.rules.refusal)
            self._key_sets.watch(_jwks_urls(self.config))
            raise
        on_certain()
        self._registry.rules = rules
        self._registry.default_ttl, self._registry.max_services = settings.default_ttl, settings.max_services
        self._membership.serve(config, listener_id)
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

    # --- what happens to backends

    def _backends_moved(self) -> None:
        self._membership.later()

    def _health_changed(self, keys: Iterable[Key]) -> None:
        self._membership.states_later()
        self._save_later()

    def _probed(self, keys: Iterable[Key], ok: bool) -> None:
        for pool, address in keys:
            self._count("gogate_health_probes_total", (pool, address, "success" if ok else "failure"))

    def unreachable(self, row: int, error: str) -> None:
        """A worker could not connect to the backend of this row: look again soon, at its name and at itself."""
        member = self._membership.of_row(row)
        if member is not None:
            log.debug("backend unreachable", extra={"backend": member.text, "error": error})
            self._states.unreachable(member)

    # --- leases

    def _rotation_changed(self) -> None:
        self._save_later()
        self._membership.later(0)

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
        return self._membership.rows_in_use()

    def backends(self) -> list[BackendView]:
        """Every backend of every pool."""
        return self._operations.backends()

    def drain(self, identity: str, pool: str | None = None, within: float | None = None) -> list[BackendView]:
        """Give a backend no new work; what runs goes on, for ``within`` seconds if given. By registration id or
        address; → what it is, [] = unknown."""
        return self._operations.drain(identity, pool, within)

    def undrain(self, identity: str, pool: str | None = None) -> list[BackendView]:
        """Give it work again."""
        return self._operations.undrain(identity, pool)

    def set_weight(self, identity: str, pool: str | None, weight: int | None) -> list[BackendView]:
        """Override a backend's weight (None: back to the configured one); → what it is now, [] = unknown."""
        return self._operations.set_weight(identity, pool, weight)

    def overrides(self) -> tuple[list[tuple[Key, Override]], list[tuple[str, str, Override]]]:
        """Overridden weights of backends, and of arms of splits."""
        return self._overrides.weights(), self._overrides.splits()

    def in_force(self, config: Config) -> tuple[str, ...]:
        """What stays as operators said though this configuration says otherwise, in words."""
        return self._operations.in_force(config)

    def drained(self) -> list[tuple[Key, float, float | None]]:
        """Backends that were drained by hand, since when (seconds since 1970), and for how many seconds what runs there
        may go on (None: without end)."""
        return self._operations.drained()

    # --- for the admin API: routes

    def routes(self) -> tuple[schema.Route, ...]:
        """Every route, those of the short form included."""
        return self.config.effective_routes()

    def split(self, route: schema.Route) -> list[ArmView]:
        """The arms of a route with the weights in force."""
        return self._operations.split(route)

    def set_split(self, route: schema.Route, weights: Mapping[str, int] | None) -> list[ArmView]:
        """Override weights of a route's arms, by pool (None: all back to the configured ones)."""
        return self._operations.set_split(route, weights)

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
        if not self._membership.make_room(coming, BACKEND_ROWS):
            self._registry.restore(instance.id, before)
            raise RegistryFull(f"there is no room for more than {BACKEND_ROWS} backends in all pools")
        self._leases.tell("registered" if created else "passing" if same else "updated", instance)
        self._membership.later()
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
        self._membership.later()
        return True

    def registration(self, identity: str) -> Registration | None:
        """One instance by id."""
        return self._registry.get(identity)

    def registrations(self, name: str | None = None, tag: str | None = None) -> list[Registration]:
        """Instances, of one service and with one tag where given."""
        return self._registry.all(name, tag)

    def pools_of(self, registration: Registration) -> list[str]:
        """The pools that an instance joins; none: it is unrouted."""
        return self._membership.pools_of(registration)


def _jwks_urls(config: Config) -> set[str]:
    """Every jwksUrl that a route checks tokens with."""
    auths = [config.server.auth, *(route.auth for route in config.routes)]
    return {auth.jwks_url for auth in auths if auth is not None and auth.type == "jwt" and auth.jwks_url}
