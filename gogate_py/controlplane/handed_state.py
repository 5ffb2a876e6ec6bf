"""Handed state: what a gateway knows that takes over from a running one (process/upgrade.py).

The saved state (registrations, overrides, drains, who is down) and what only a running process has: the time that is
left of leases, arena rows, health and addresses that were found, keys, the secret of cookies. Moments are of the
monotonic clock, which is one for all processes of the machine. Fields are only ever added, with a default: the two
gateways may be of different versions.
"""

from __future__ import annotations

import msgspec

from gogate_py.controlplane.rows import Key
from gogate_py.controlplane.saved_state import SavedState


class HandedLease(msgspec.Struct, frozen=True):
    """What is left of an instance's lease, and the state that it was in (since a moment for people)."""

    id: str
    expires_at: float
    state: str
    changed_at: float


class HandedKeys(msgspec.Struct, frozen=True):
    """The keys of a jwksUrl, and when they were fetched."""

    url: str
    jwks: bytes
    good_at: float


class HandedName(msgspec.Struct, frozen=True):
    """The addresses that a name last resolved to, and when."""

    host: str
    ips: tuple[str, ...]
    good_at: float


class HandedRows(msgspec.Struct, frozen=True):
    """Rows of the arena, by name (of a backend: pool, address): of those who have one, of those who left (with the
    generation without them), the next one that is free."""

    current: tuple[tuple[tuple[str, ...], int], ...] = ()
    gone: tuple[tuple[tuple[str, ...], int, int], ...] = ()
    following: int = 0


class HandedState(msgspec.Struct, frozen=True):
    """All of it. ``silent_since``: from then on nobody listened to heartbeats. ``up``: backends that probes found well;
    ``warming``: those in their slow start, and since when; ``drains``: those that are drained, and by when (0: no
    end)."""

    generation: int
    silent_since: float
    saved: SavedState
    leases: tuple[HandedLease, ...] = ()
    holds: dict[str, float] = {}
    up: tuple[Key, ...] = ()
    warming: tuple[tuple[Key, float], ...] = ()
    drains: tuple[tuple[Key, float], ...] = ()
    names: tuple[HandedName, ...] = ()
    keys: tuple[HandedKeys, ...] = ()
    secret: bytes = b""
    backend_rows: HandedRows = HandedRows()
    limit_rows: HandedRows = HandedRows()
