"""State transfer: what registry, overrides and member states know → a saved state, and back.

Taking back is careful: the configuration may be another one. Registrations go through the rules of this configuration
again, overrides of splits that it does not have, or that would leave a split without any weight, are left out; what was
left out is said. Values of pools and backends that do not exist (any more) do no harm.
"""

from __future__ import annotations

from collections.abc import Iterable

from gogate_py.config import schema
from gogate_py.controlplane.member_states import MemberStates
from gogate_py.controlplane.overrides import Override, Overrides
from gogate_py.controlplane.registry import Registry
from gogate_py.controlplane.saved_state import SavedBackend, SavedInstance, SavedOverride, SavedState, SavedWeight
from gogate_py.errors import GogateError
from gogate_py.policy.lease_state import CRITICAL


def collect(registry: Registry, overrides: Overrides, states: MemberStates) -> SavedState:
    """What is known now."""
    weights, splits = overrides.all()
    drained, down = states.drained(), states.down()
    return SavedState(
        instances=tuple(
            SavedInstance(
                one.id, one.name, one.address, one.tags, one.metadata, one.weight, one.ttl, one.registered_at,
                one.heard_at, one.state == CRITICAL)
            for one in registry.all()
        ),
        weights=tuple(
            SavedWeight(pool, address, SavedOverride(override.value, override.since))
            for (pool, address), override in weights.items()
        ),
        splits={
            route: {pool: SavedOverride(override.value, override.since) for pool, override in arms.items()}
            for route, arms in splits.items()
        },
        backends=tuple(
            SavedBackend(
                pool, address, (pool, address) in drained, down.get((pool, address), ""),
                drained.get((pool, address), 0.0))
            for pool, address in sorted(drained.keys() | down.keys())
        ),
    )


def take_back(
    saved: SavedState,
    registry: Registry,
    overrides: Overrides,
    states: MemberStates,
    routes: Iterable[schema.Route],
) -> list[str]:
    """Take over a saved state; → what was left out of it, in words."""
    left_out = []
    for one in saved.instances:
        body: dict[str, object] = {
            "id": one.id, "name": one.name, "address": one.address, "tags": list(one.tags), "metadata": one.metadata,
            "weight": one.weight, "ttl": one.ttl}
        try:
            registry.take_back(
                body, registered_at=one.registered_at, heard_at=one.heard_at, critical=one.critical)
        except GogateError as error:
            left_out.append(f"instance {one.id}: {error}")
    arms = {route.name: {arm.pool: arm.weight for arm in route.split} for route in routes}
    splits = {}
    for name, overridden in saved.splits.items():
        configured = arms.get(name, {})
        values = {pool: override.value for pool, override in overridden.items() if pool in configured}
        if not values or not any({**configured, **values}.values()):
            left_out.append(f"overrides of the split of route {name}: the configuration has another split now")
            continue
        splits[name] = {pool: Override(values[pool], overridden[pool].since) for pool in values}
    overrides.put_back(
        {(one.pool, one.address): Override(one.override.value, one.override.since) for one in saved.weights}, splits)
    states.recall(
        {(one.pool, one.address): one.drained_since for one in saved.backends if one.drained},
        {(one.pool, one.address): one.down for one in saved.backends if one.down},
    )
    return left_out
