"""Which backends of a pool may be offered to the balancer: health, draining, weight, backups, panic.

    ordinary backends usable                        candidates                     reserve
    at least panicThreshold percent of them         the usable ordinary ones       the usable backups
    some, but fewer than panicThreshold percent     all ordinary ones: panic       the usable backups
    none, panicThreshold is 0                       the usable backups             none
    none, panicThreshold is set                     all ordinary ones: panic       the usable backups

Usable: up, with an address, weight above 0, not draining. Draining and weight 0 are the operator's word and hold in a
panic too; a backend whose name has no address cannot be asked at all. The reserve is asked when no candidate accepts
(breakers open, all full, all tried).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from gogate_py.snapshot import Backend


class Member(Protocol):
    """What is asked of a backend."""

    @property
    def up(self) -> bool: ...
    @property
    def draining(self) -> bool: ...
    @property
    def weight(self) -> int: ...
    @property
    def backup(self) -> bool: ...
    @property
    def endpoints(self) -> Sequence[tuple[str, int]]: ...


M = TypeVar("M", bound=Member)


class Eligible(NamedTuple, Generic[M]):
    """The outcome. ``panic``: health is being ignored."""

    candidates: list[M]
    reserve: list[M]
    panic: bool


def eligible(members: Iterable[M], panic_threshold: int) -> Eligible[M]:
    """Sort a pool's backends into candidates and reserve. ``panic_threshold`` percent, 0 = never ignore health."""
    wanted = [m for m in members if m.weight > 0 and not m.draining and m.endpoints]
    ordinary = [m for m in wanted if not m.backup]
    usable = [m for m in ordinary if m.up]
    backups = [m for m in wanted if m.backup and m.up]
    if panic_threshold and ordinary and len(usable) * 100 < panic_threshold * len(ordinary):
        return Eligible(ordinary, backups, True)
    if usable:
        return Eligible(usable, backups, False)
    return Eligible(backups, [], False)


class SnapshotMember:
    """A backend as the snapshot has it, as a member."""

    __slots__ = ("backup", "draining", "endpoints", "up", "weight")

    def __init__(self, backend: Backend) -> None:
        self.up = backend.state.up
        self.draining = backend.state.draining
        self.weight = backend.weight
        self.backup = backend.backup
        self.endpoints = backend.endpoints
