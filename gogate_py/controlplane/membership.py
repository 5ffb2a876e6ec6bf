"""Membership: who is in which pool, and what the workers were told of it.

Who is in a pool, or where it is, changes with a new snapshot; all such changes within DEBOUNCE make one (SECURITY.md
F16). What changes only whether a backend takes work (health, draining) goes out as a state change.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import Final

from gogate_py.clock import monotonic
from gogate_py.config.schema import Config
from gogate_py.controlplane.compiler import (
    ListenerIds,
    Member,
    compile_snapshot,
    joins,
    limit_identities,
    members,
)
from gogate_py.controlplane.handed_state import HandedRows, HandedState
from gogate_py.controlplane.leases import Count
from gogate_py.controlplane.member_states import MemberStates
from gogate_py.controlplane.overrides import Overrides
from gogate_py.controlplane.publisher import Publisher
from gogate_py.controlplane.registry import Registration, Registry
from gogate_py.controlplane.rows import Key, LimitRows, Rows, RowsExhausted
from gogate_py.policy.health_state import NOT_PROBED
from gogate_py.snapshot import BackendState

log = logging.getLogger("gogate.control")

#: Changes of membership within this many seconds make one snapshot, changes of health within STATE_DELAY one message.
#: A snapshot of 10 000 backends takes some 100 ms to make: a storm may cost a fifth of the time, and wait MAX_DEBOUNCE.
DEBOUNCE: Final = 0.02
MAX_DEBOUNCE: Final = 0.5
_SHARE: Final = 4.0
STATE_DELAY: Final = 0.01
#: After more backends than rows: the next try (rows of backends that left come free when every worker knows it).
_ROWS_RETRY: Final = 1.0


class Membership:
    """The backends of a configuration and its registry. ``reset_row`` and ``reset_limit``: see rows."""

    def __init__(
        self,
        config: Config,
        *,
        publisher: Publisher,
        workers: int,
        listener_id: ListenerIds,
        registry: Registry,
        overrides: Overrides,
        states: MemberStates,
        reset_row: Callable[[int], None],
        reset_limit: Callable[[int], None],
        count: Count,
    ) -> None:
        self.config = config
        self._pools = config.effective_pools()
        self._limits = limit_identities(config)
        self._listener_id = listener_id
        self._publisher = publisher
        self._workers = workers
        self._registry = registry
        self._overrides = overrides
        self._states = states
        self._count = count
        self._rows: Rows[Key] = Rows(reset_row)
        self._limit_rows = LimitRows(reset_limit)
        # What cookies are signed with: of this run, unless a route names a secret of its own.
        self._secret = secrets.token_bytes(32)
        self._members: dict[Key, Member] = {}
        # --- what the workers were told last
        self._told: dict[Key, BackendState] = {}
        self._key_of_row: dict[int, Key] = {}
        # --- what is still to be done
        self._recompiling: asyncio.TimerHandle | None = None
        self._telling: asyncio.TimerHandle | None = None
        self._joins_to_come = 0
        self._debounce = DEBOUNCE

    # --- another gateway takes over, or this one from another (handed_state)

    def hand_over(self) -> tuple[HandedRows, HandedRows, bytes]:
        """Rows of backends and of limits, the secret of cookies. From here on rows that were never used may be dirty:
        the other gateway shares the arena, and may fail."""
        backends, limits = _handed(self._rows), _handed(self._limit_rows)
        self._rows.distrust()
        self._limit_rows.distrust()
        return backends, limits, self._secret

    def take_over(self, handed: HandedState, *, same_arena: bool) -> None:
        """Go on from there; before anything was compiled."""
        self._publisher.generation = handed.generation
        self._secret = handed.secret or self._secret
        if same_arena:
            rows, limits = handed.backend_rows, handed.limit_rows
            self._rows.adopt(
                {(pool, address): row for (pool, address), row in rows.current},
                {(pool, address): (row, since) for (pool, address), row, since in rows.gone}, rows.following)
            self._limit_rows.adopt(
                {name: row for (name,), row in limits.current},
                {name: (row, since) for (name,), row, since in limits.gone}, limits.following)

    def stop(self) -> None:
        """Tell the workers nothing more."""
        for timer in (self._recompiling, self._telling):
            if timer is not None:
                timer.cancel()

    # --- who there is

    def rows_in_use(self) -> list[int]:
        """Arena rows that may hold something."""
        return self._rows.in_use()

    def current(self) -> list[tuple[Member, int]]:
        """Every backend of every pool with its row, as it is now."""
        self._catch_up()
        return [(self._members[key], told.row) for key, told in self._told.items() if key in self._members]

    def named(self, identity: str, pool: str | None) -> set[Key]:
        """The backends with this registration id or address, in one pool or in all."""
        return {
            member.key
            for member, _ in self.current()
            if (pool is None or member.pool == pool) and (identity == member.text or identity in member.ids)
        }

    def of_row(self, row: int) -> Member | None:
        """The backend that has this row."""
        key = self._key_of_row.get(row)
        return self._members.get(key) if key is not None else None

    def pools_of(self, registration: Registration) -> list[str]:
        """The pools that an instance joins; none: it is unrouted."""
        return [name for name, pool in self._pools.items() if joins(self.config, pool, registration)]

    def make_room(self, coming: int, most: int) -> bool:
        """Whether so many more fit into all pools; they are counted as coming until the next snapshot."""
        if len(self._members) + self._joins_to_come + coming > most:
            return False
        self._joins_to_come += coming
        return True

    # --- another configuration

    def members_of(self, config: Config) -> dict[Key, Member]:
        """Who is in the pools of a configuration, with the instances that are registered now."""
        found = members(config, self._registry.in_rotation())
        return {member.key: member for pool in found.values() for member in pool}

    def check(self, config: Config) -> None:
        """Raises RowsExhausted when :meth:`serve` would find no row for a backend or limit; changes nothing."""
        acknowledged = self._publisher.acknowledged()
        self._rows.check(self.members_of(config), acknowledged)
        self._limit_rows.check(limit_identities(config), acknowledged)

    def serve(self, config: Config, listener_id: ListenerIds) -> None:
        """Serve another configuration, as one new snapshot."""
        self.config, self._pools, self._listener_id = config, config.effective_pools(), listener_id
        self._limits = limit_identities(config)
        self.recompile()

    # --- changes of membership and place: a new snapshot

    def later(self, delay: float | None = None) -> None:
        """Make a new snapshot soon, together with whatever else changes until then."""
        if self._recompiling is None and self._publisher.snapshot is not None:  # the first one is still to come anyway
            wait = self._debounce if delay is None else delay
            self._recompiling = asyncio.get_running_loop().call_later(wait, self.recompile)

    def recompile(self) -> None:
        """Make it now, if need be without those for whom there is no row yet."""
        if self._recompiling is not None:
            self._recompiling.cancel()
            self._recompiling = None
        begun = monotonic()
        self.update()
        try:
            self.compile()
        except RowsExhausted as error:
            # Those who left go at once, new ones come when the workers know it and their rows are free.
            log.error("not all backends can be served yet", extra={"error": str(error)})
            self._members = {key: one for key, one in self._members.items() if self._rows.get(key) is not None}
            self.compile()
            self.later(_ROWS_RETRY)
        self._debounce = min(MAX_DEBOUNCE, max(DEBOUNCE, _SHARE * (monotonic() - begun)))

    def _catch_up(self) -> None:
        """Whoever asks sees what was changed just now."""
        if self._recompiling is not None:
            self.recompile()

    def update(self) -> None:
        """Who is in which pool now; resolver and prober follow."""
        instances, everybody = self._registry.in_rotation(), self._registry.all()
        self._members = self.members_of(self.config)
        self._joins_to_come = 0
        absent = [
            (name, one.address)
            for one in (everybody if len(everybody) > len(instances) else ())
            if not one.in_rotation
            for name in self.pools_of(one)
        ]
        self._states.update(self._members, self._pools, absent)

    def compile(self) -> None:
        """The snapshot of who is there, to the workers. Raises RowsExhausted; then nothing has changed."""
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

    # --- changes of health and draining: a state change

    def states_later(self) -> None:
        """Tell the workers of states soon, together with whatever else changes until then."""
        if self._telling is None and self._publisher.snapshot is not None:
            self._telling = asyncio.get_running_loop().call_later(STATE_DELAY, self.tell_states)

    def tell_states(self) -> None:
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


def _handed(rows: Rows[Key] | LimitRows) -> HandedRows:
    current, gone, following = rows.known()
    return HandedRows(
        tuple((_names(key), row) for key, row in current.items()),
        tuple((_names(key), row, since) for key, (row, since) in gone.items()),
        following,
    )


def _names(key: Key | str) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else key
